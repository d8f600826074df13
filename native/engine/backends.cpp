#include "backends.h"

#if defined(_WIN32)
namespace voltaic {
BackendLibrary open_backend_library(const std::vector<std::string>&, bool) {
  BackendLibrary result;
  result.reason = "backend libraries are not supported on this platform yet";
  return result;
}
}  // namespace voltaic
#else
#include <dlfcn.h>
#include <unistd.h>

namespace voltaic {

BackendLibrary open_backend_library(const std::vector<std::string>& candidates, bool needs_driver) {
  BackendLibrary result;
  if (needs_driver) {
    void* const driver = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
    if (driver == nullptr) {
      result.reason = "no NVIDIA driver: libcuda.so.1 cannot be loaded";
      return result;
    }
    dlclose(driver);
  }
  std::string tried;
  for (const std::string& path : candidates) {
    if (access(path.c_str(), R_OK) != 0) {
      tried += (tried.empty() ? "" : ", ") + path;
      continue;
    }
    result.path = path;
    void* const library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (library == nullptr) {
      result.reason = std::string("the backend library does not load: ") + dlerror();
      return result;
    }
    const auto entry = reinterpret_cast<voltaic_backend_entry_function>(
        dlsym(library, VOLTAIC_BACKEND_ENTRY_NAME));
    const voltaic_backend* const backend = entry ? entry(VOLTAIC_BACKEND_ABI_VERSION) : nullptr;
    if (backend == nullptr || backend->abi_version != VOLTAIC_BACKEND_ABI_VERSION ||
        backend->struct_size < sizeof(voltaic_backend)) {
      result.reason =
          path + (entry == nullptr
                      ? std::string(" is no Voltaic backend (no " VOLTAIC_BACKEND_ENTRY_NAME ")")
                      : " has backend ABI " +
                            (backend ? std::to_string(backend->abi_version) : "unknown") +
                            ", this build wants " + std::to_string(VOLTAIC_BACKEND_ABI_VERSION) +
                            ": rebuild it");
      dlclose(library);
      return result;
    }
    result.backend = backend;
    char reason[VOLTAIC_MESSAGE_LENGTH] = "";
    if (backend->probe(&result.devices, reason, sizeof reason) != VOLTAIC_OK ||
        result.devices == 0) {
      result.devices = 0;
      result.reason = reason;
    }
    return result;
  }
  result.reason = tried.empty() ? "no backend library is built or installed"
                                : "no backend library is built or installed; looked at: " + tried;
  return result;
}

}  // namespace voltaic
#endif
