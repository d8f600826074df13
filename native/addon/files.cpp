// Files as memory, and the one file operation that Node lacks.
//
//   mapFile(path) -> ArrayBuffer      the file's bytes, paged in as they are read
//   unmapFile(buffer)                 gives the pages back now and detaches the buffer
//   exchangePaths(a, b) -> boolean    swaps two paths in one step; false where the system cannot
//
// The mapping is private and writable: a stray write from JavaScript changes this process's copy of
// one page, never the file, and never ends the process as a write to a read-only page would. Where
// the runtime refuses buffers over foreign memory (Electron, V8 sandbox builds), mapFile gives a
// plain copy, which unmapFile detaches just the same. A file that another program cuts short while
// it is mapped raises SIGBUS when the lost pages are read: no mapping can prevent that. Voltaic
// replaces files by rename, never in place, and mapped-file.ts offers `copy: true` for files that
// others may cut.
//
// System errors are thrown as Error with a negative `errno`; JavaScript puts the name to it
// (util.getSystemErrorName).

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstring>
#include <mutex>
#include <string>
#include <unordered_map>

#if defined(__linux__)
#include <linux/fs.h>
#include <sys/syscall.h>
#elif defined(__APPLE__)
#include <stdio.h>
#endif

#include "addon.h"

namespace {

// Pages of one mapping: unmapped by release() or at the latest when the last owner goes.
class Mapping {
 public:
  Mapping(void* data, size_t size) : data_(data), size_(size) {}
  ~Mapping() { release(); }
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;

  void* data() const { return data_; }
  size_t size() const { return size_; }
  void release() {
    if (data_ != nullptr) munmap(data_, size_);
    data_ = nullptr;
  }

 private:
  void* data_;
  size_t size_;
};

// Every mapping that a live ArrayBuffer covers, by address: addresses are unique in the process, so
// workers share the table.
class MappingTable {
 public:
  void add(Mapping* mapping) {
    const std::lock_guard<std::mutex> lock(mutex_);
    mappings_[mapping->data()] = mapping;
  }

  // Unmaps what starts at `data`; false when nothing does.
  bool release(void* data) {
    const std::lock_guard<std::mutex> lock(mutex_);
    const auto found = mappings_.find(data);
    if (found == mappings_.end()) return false;
    Mapping* mapping = found->second;
    mappings_.erase(found);
    mapping->release();
    return true;
  }

  // Ends a mapping whose ArrayBuffer is gone. An address released before may belong to a newer
  // mapping by now.
  void destroy(Mapping* mapping) {
    const std::lock_guard<std::mutex> lock(mutex_);
    const auto found = mappings_.find(mapping->data());
    if (found != mappings_.end() && found->second == mapping) mappings_.erase(found);
    delete mapping;
  }

 private:
  std::mutex mutex_;
  std::unordered_map<void*, Mapping*> mappings_;
};

// Never destroyed: finalizers of worker threads may run while the process ends.
MappingTable& mapping_table() {
  static MappingTable* const table = new MappingTable;
  return *table;
}

class FileDescriptor {
 public:
  explicit FileDescriptor(int number) : number_(number) {}
  ~FileDescriptor() {
    if (number_ >= 0) close(number_);
  }
  FileDescriptor(const FileDescriptor&) = delete;
  FileDescriptor& operator=(const FileDescriptor&) = delete;
  int number() const { return number_; }

 private:
  int number_;
};

Napi::Error system_error(Napi::Env env, const char* operation, int number) {
  Napi::Error error = Napi::Error::New(env, std::string(operation) + ": " + std::strerror(number));
  error.Set("errno", Napi::Number::New(env, -number));
  error.Set("syscall", Napi::String::New(env, operation));
  return error;
}

std::string path_argument(const Napi::CallbackInfo& info, size_t index, const char* function) {
  if (info.Length() <= index || !info[index].IsString()) {
    throw Napi::TypeError::New(info.Env(), std::string(function) + ": argument " +
                                               std::to_string(index + 1) +
                                               " must be a path (string)");
  }
  std::string path = info[index].As<Napi::String>().Utf8Value();
  if (path.find('\0') != std::string::npos) throw system_error(info.Env(), function, EINVAL);
  return path;
}

void finalize_mapping(napi_env, void*, void* hint) {
  mapping_table().destroy(static_cast<Mapping*>(hint));
}

Napi::Value copy_of(Napi::Env env, const Mapping& mapping) {
  Napi::ArrayBuffer copy = Napi::ArrayBuffer::New(env, mapping.size());
  std::memcpy(copy.Data(), mapping.data(), mapping.size());
  return copy;
}

Napi::Value map_file(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const std::string path = path_argument(info, 0, "mapFile");

  // Without O_NONBLOCK, opening a named pipe would wait for a writer.
  const FileDescriptor file(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (file.number() < 0) throw system_error(env, "open", errno);
  struct stat status {};
  if (fstat(file.number(), &status) != 0) throw system_error(env, "fstat", errno);
  if (S_ISDIR(status.st_mode)) throw system_error(env, "open", EISDIR);
  if (!S_ISREG(status.st_mode)) throw system_error(env, "mmap", ENODEV);
  const auto size = static_cast<size_t>(status.st_size);
  if (size == 0) return Napi::ArrayBuffer::New(env, 0);

  int flags = MAP_PRIVATE;
#if defined(MAP_NORESERVE)
  flags |= MAP_NORESERVE;  // pages that are never written need no swap space set aside
#endif
  void* data = mmap(nullptr, size, PROT_READ | PROT_WRITE, flags, file.number(), 0);
  if (data == MAP_FAILED) throw system_error(env, "mmap", errno);

  auto* mapping = new Mapping(data, size);
  mapping_table().add(mapping);
  napi_value buffer = nullptr;
  const napi_status made =
      napi_create_external_arraybuffer(env, data, size, finalize_mapping, mapping, &buffer);
  if (made == napi_ok) return Napi::Value(env, buffer);
  if (made == napi_no_external_buffers_allowed) {
    const Napi::Value copy = copy_of(env, *mapping);
    mapping_table().destroy(mapping);
    return copy;
  }
  // The runtime has thrown (a buffer too large for it) and has called the finalizer itself.
  throw Napi::Error::New(env);
}

void unmap_file(const Napi::CallbackInfo& info) {
  if (info.Length() < 1 || !info[0].IsArrayBuffer()) {
    throw Napi::TypeError::New(info.Env(),
                               "unmapFile: argument 1 must be an ArrayBuffer from mapFile");
  }
  Napi::ArrayBuffer buffer = info[0].As<Napi::ArrayBuffer>();
  if (buffer.IsDetached()) return;
  void* data = buffer.Data();
  buffer.Detach();  // first, so that no JavaScript view can reach pages that are gone
  if (data != nullptr) mapping_table().release(data);
}

Napi::Value exchange_paths(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const std::string first = path_argument(info, 0, "exchangePaths");
  const std::string second = path_argument(info, 1, "exchangePaths");
#if defined(__linux__) && defined(SYS_renameat2) && defined(RENAME_EXCHANGE)
  const long result =
      syscall(SYS_renameat2, AT_FDCWD, first.c_str(), AT_FDCWD, second.c_str(), RENAME_EXCHANGE);
  const bool unsupported = errno == ENOSYS || errno == EINVAL || errno == EXDEV || errno == EPERM;
#elif defined(__APPLE__)
  const int result = renamex_np(first.c_str(), second.c_str(), RENAME_SWAP);
  const bool unsupported = errno == ENOTSUP || errno == EINVAL;
#else
  const int result = -1;
  const bool unsupported = true;
#endif
  if (result == 0) return Napi::Boolean::New(env, true);
  if (unsupported) return Napi::Boolean::New(env, false);
  throw system_error(env, "rename", errno);
}

}  // namespace

void register_files(Napi::Env env, Napi::Object exports) {
  exports.Set("mapFile", Napi::Function::New(env, map_file, "mapFile"));
  exports.Set("unmapFile", Napi::Function::New(env, unmap_file, "unmapFile"));
  exports.Set("exchangePaths", Napi::Function::New(env, exchange_paths, "exchangePaths"));
}
