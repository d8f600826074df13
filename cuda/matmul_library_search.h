// Finds cuBLASLt and opens it, once a process. It is never linked: a build needs no copy of it, a
// machine without it uses Voltaic's own kernels, and one build serves all its versions.
//
// In this order:
// 1. VOLTAIC_CUBLASLT: a file, which is then the only one tried, or `off`.
// 2. libcublasLt.so, .so.13, .so.12, .so.11, where the loader looks (LD_LIBRARY_PATH, ld.so.conf).
// 3. CUDA's own folders: $CUDA_HOME, $CUDA_PATH, /usr/local/cuda, /usr/local/cuda-* (newest first),
//    /opt/cuda; in each lib64 and targets/*/lib.
// 4. NVIDIA's Python packages, nvidia/cu13/lib and nvidia/cublas/lib, in the site-packages of
//    $VIRTUAL_ENV, $CONDA_PREFIX (and its lib), the python3 on $PATH, ~/.local, ~/.pyenv,
//    ~/miniconda3,
//    ~/miniforge3, ~/anaconda3, /opt/conda, /usr/local and /usr. No Python is run.
//
// A file that opens but is too old or lacks a function is passed over, and named in the
// description. So is what VOLTAIC_CUBLASLT names and cannot be used; nothing is printed.
#pragma once
#include <dlfcn.h>
#include <glob.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "matmul_library_api.h"

namespace voltaic::cuda {
namespace {

struct MatmulLibrary {
  bool usable = false;
  LtFunctions call = {};
  std::string version;      // "13.1.0"
  std::string path;         // as the loader has it
  std::string description;  // for people, with what became of it
};

constexpr int kOldestMajor = 11, kOldestMinor = 4;
constexpr const char* kLibraryNames[] = {"libcublasLt.so", "libcublasLt.so.13", "libcublasLt.so.12",
                                         "libcublasLt.so.11"};

inline std::string environment(const char* name) {
  const char* const value = std::getenv(name);
  return value == nullptr ? "" : value;
}

// What a pattern matches, the highest version number first.
inline std::vector<std::string> matching(const std::string& pattern) {
  std::vector<std::string> paths;
  glob_t found = {};
  if (glob(pattern.c_str(), GLOB_NOSORT, nullptr, &found) == 0)
    paths.assign(found.gl_pathv, found.gl_pathv + found.gl_pathc);
  globfree(&found);
  std::sort(paths.begin(), paths.end(), [](const std::string& a, const std::string& b) {
    return strverscmp(a.c_str(), b.c_str()) > 0;
  });
  return paths;
}

// Folders that may hold the library, each once, in the order above.
inline std::vector<std::string> library_folders() {
  std::vector<std::string> folders;
  const auto add = [&](const std::string& pattern) {
    for (std::string& path : matching(pattern))
      if (std::find(folders.begin(), folders.end(), path) == folders.end())
        folders.push_back(std::move(path));
  };
  const auto add_toolkit = [&](const std::string& root) {
    add(root + "/lib64");
    add(root + "/targets/*/lib");
  };
  const auto add_python = [&](const std::string& root) {
    for (const char* packages : {"site-packages", "dist-packages"})
      for (const char* wheel : {"cu13", "cublas"})
        add(root + "/lib/python3*/" + packages + "/nvidia/" + wheel + "/lib");
  };
  for (const char* name : {"CUDA_HOME", "CUDA_PATH"})
    if (const std::string root = environment(name); !root.empty()) add_toolkit(root);
  add_toolkit("/usr/local/cuda");
  for (const std::string& root : matching("/usr/local/cuda-*")) add_toolkit(root);
  add_toolkit("/opt/cuda");
  if (const std::string root = environment("VIRTUAL_ENV"); !root.empty()) add_python(root);
  if (const std::string root = environment("CONDA_PREFIX"); !root.empty()) {
    add(root + "/lib");
    add_python(root);
  }
  const std::string path = environment("PATH");
  for (size_t begin = 0; begin < path.size();) {
    const size_t end = std::min(path.find(':', begin), path.size());
    const std::string python = path.substr(begin, end - begin) + "/python3";
    if (char* const real = realpath(python.c_str(), nullptr)) {
      const std::string file = real;  // ROOT/bin/python3.11
      std::free(real);
      const size_t bin = file.rfind("/bin/");
      if (bin != std::string::npos) add_python(file.substr(0, bin));
    }
    begin = end + 1;
  }
  if (const std::string home = environment("HOME"); !home.empty()) {
    add_python(home + "/.local");
    for (const std::string& root : matching(home + "/.pyenv/versions/*")) add_python(root);
    for (const char* root : {"/miniconda3", "/miniforge3", "/anaconda3"}) add_python(home + root);
  }
  for (const char* root : {"/opt/conda", "/usr/local", "/usr"}) add_python(root);
  add("/usr/lib/python3/dist-packages/nvidia/*/lib");
  return folders;
}

// Opens one file. On failure the reason is in `why`, empty where there is no such file.
inline bool open_library(const std::string& file, MatmulLibrary& library, std::string& why) {
  void* const handle = dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (handle == nullptr) {
    const char* const error = dlerror();
    why = error == nullptr ? file + " does not open" : error;
    if (why.find("No such file") != std::string::npos && access(file.c_str(), F_OK) != 0)
      why.clear();
    return false;
  }
  library.path = file;
  LtFunctions& call = library.call = {};
  struct Symbol {
    const char* name;
    void* place;
  };
#define SYMBOL(name) \
  { "cublasLt" #name, &call.name }
  const Symbol symbols[] = {SYMBOL(Create),
                            SYMBOL(Destroy),
                            SYMBOL(GetProperty),
                            SYMBOL(MatmulDescCreate),
                            SYMBOL(MatmulDescDestroy),
                            SYMBOL(MatmulDescSetAttribute),
                            SYMBOL(MatrixLayoutCreate),
                            SYMBOL(MatrixLayoutDestroy),
                            SYMBOL(MatrixLayoutSetAttribute),
                            SYMBOL(MatmulPreferenceCreate),
                            SYMBOL(MatmulPreferenceDestroy),
                            SYMBOL(MatmulPreferenceSetAttribute),
                            SYMBOL(MatmulAlgoGetHeuristic),
                            SYMBOL(MatmulAlgoCheck),
                            SYMBOL(Matmul)};
#undef SYMBOL
  static_assert(sizeof symbols / sizeof symbols[0] == sizeof(LtFunctions) / sizeof(void*));
  const char* missing = nullptr;
  for (const Symbol& symbol : symbols) {
    void* const found = dlsym(handle, symbol.name);
    if (found == nullptr && missing == nullptr) missing = symbol.name;
    std::memcpy(symbol.place, &found, sizeof found);
  }
  Dl_info where = {};
  if (call.Create != nullptr && dladdr(reinterpret_cast<void*>(call.Create), &where) != 0 &&
      where.dli_fname != nullptr)
    library.path = where.dli_fname;
  int32_t major = 0, minor = 0, patch = 0;
  if (missing != nullptr) {
    why = library.path + " lacks " + missing;
  } else if (call.GetProperty(kLtMajor, &major) != kLtSuccess ||
             call.GetProperty(kLtMinor, &minor) != kLtSuccess ||
             call.GetProperty(kLtPatch, &patch) != kLtSuccess) {
    why = library.path + " does not say its version";
  } else {
    library.version =
        std::to_string(major) + "." + std::to_string(minor) + "." + std::to_string(patch);
    if (major > kOldestMajor || (major == kOldestMajor && minor >= kOldestMinor)) return true;
    why = library.path + " is version " + library.version + ", expected " +
          std::to_string(kOldestMajor) + "." + std::to_string(kOldestMinor) + " or later";
  }
  dlclose(handle);
  return false;
}

// `anywhere`: beside VOLTAIC_CUBLASLT, look in the places above.
inline MatmulLibrary find_library(bool anywhere) {
  MatmulLibrary library;
  std::string why, first_failure;
  const auto opened = [&](const std::string& file) {
    why.clear();
    library.usable = open_library(file, library, why);
    if (library.usable)
      library.description = "cuBLASLt " + library.version + " (" + library.path + ")" +
                            (first_failure.empty() ? "" : "; not taken: " + first_failure);
    else if (first_failure.empty())
      first_failure = why;
    return library.usable;
  };
  const std::string named = environment("VOLTAIC_CUBLASLT");
  if (named == "off") {
    library.description = "off (VOLTAIC_CUBLASLT=off): own kernels";
    return library;
  }
  if (!named.empty()) {
    if (opened(named)) return library;
    library.description = "not usable: own kernels (VOLTAIC_CUBLASLT: " +
                          (why.empty() ? named + " is not there" : why) + ")";
    return library;
  }
  if (!anywhere) {
    library.description = "not looked for: own kernels";
    return library;
  }
  for (const char* name : kLibraryNames)
    if (opened(name)) return library;
  for (const std::string& folder : library_folders())
    for (const char* name : kLibraryNames) {
      const std::string file = folder + "/" + name;
      if (access(file.c_str(), F_OK) == 0 && opened(file)) return library;
    }
  library.description = first_failure.empty()
                            ? "not found: own kernels (looked for libcublasLt.so, .so.13, .so.12 "
                              "and .so.11 where the "
                              "loader looks, in CUDA's folders and in Python's packages)"
                            : "not usable: own kernels (" + first_failure + ")";
  return library;
}

}  // namespace
}  // namespace voltaic::cuda
