// The functions that JavaScript calls for devices, tensors and kernels. The hot ones take numbers
// alone: shapes, handles and attributes stand in a command buffer that is bound once.
#include <future>
#include <string>
#include <utility>

#include "../cpu/backend.h"
#include "../engine/parallel.h"
#include "addon.h"
#include "environment.h"
#include "values.h"

namespace voltaic::addon {
namespace {

// ---- devices

napi_value instruction_sets(napi_env env, napi_callback_info) {
  napi_value list;
  napi_create_array(env, &list);
  uint32_t i = 0;
  for (const std::string& name : cpu_instruction_sets())
    napi_set_element(env, list, i++, text_value(env, name));
  return list;
}

napi_value open_cpu(napi_env env, napi_callback_info info) {
  const Arguments<1> arguments(env, info);
  return guarded(env, [&] {
    const auto limit = static_cast<uint64_t>(number(env, arguments.values[0]));
    return number_value(env, Environment::of(env).add_device(default_cpu_backend(), 0, limit));
  });
}

// openLibrary(paths: string[], needsDriver: boolean) -> { devices, path, reason, buildInfo }
napi_value open_library(napi_env env, napi_callback_info info) {
  const Arguments<2> arguments(env, info);
  return guarded(env, [&] {
    std::vector<std::string> paths;
    uint32_t count = 0;
    napi_get_array_length(env, arguments.values[0], &count);
    for (uint32_t i = 0; i < count; i++) {
      napi_value element;
      napi_get_element(env, arguments.values[0], i, &element);
      paths.push_back(Napi::String(env, element).Utf8Value());
    }
    bool needs_driver = true;
    napi_get_value_bool(env, arguments.values[1], &needs_driver);
    BackendLibrary& library = Environment::of(env).library;
    if (library.backend == nullptr) library = open_backend_library(paths, needs_driver);
    napi_value result;
    napi_create_object(env, &result);
    set(env, result, "devices", number_value(env, library.devices));
    set(env, result, "path", text_value(env, library.path));
    set(env, result, "reason", text_value(env, library.reason));
    set(env, result, "buildInfo",
        text_value(env, library.backend ? library.backend->build_info : ""));
    return result;
  });
}

napi_value open_library_device(napi_env env, napi_callback_info info) {
  const Arguments<2> arguments(env, info);
  return guarded(env, [&] {
    Environment& environment = Environment::of(env);
    const int32_t index = integer(env, arguments.values[0]);
    if (environment.library.backend == nullptr || index < 0 || index >= environment.library.devices)
      throw std::runtime_error("no such device: " + environment.library.reason);
    return number_value(
        env, environment.add_device(environment.library.backend, index,
                                    static_cast<uint64_t>(number(env, arguments.values[1]))));
  });
}

napi_value device_info(napi_env env, napi_callback_info info) {
  const Arguments<1> arguments(env, info);
  Device* const device = Environment::of(env).device(integer(env, arguments.values[0]));
  if (device == nullptr) return nullptr;
  voltaic_device_info description = {};
  description.struct_size = sizeof description;
  char message[VOLTAIC_MESSAGE_LENGTH] = "";
  device->backend->device_info(device->index, &description, message);
  napi_value result, fast;
  napi_create_object(env, &result);
  set(env, result, "backend", text_value(env, device->backend->name));
  set(env, result, "buildInfo", text_value(env, device->backend->build_info));
  set(env, result, "name", text_value(env, description.name));
  set(env, result, "instructionSet", text_value(env, description.instruction_set));
  set(env, result, "matmulLibrary", text_value(env, description.matmul_library));
  set(env, result, "totalBytes", number_value(env, static_cast<double>(description.total_bytes)));
  set(env, result, "freeBytes", number_value(env, static_cast<double>(description.free_bytes)));
  napi_get_boolean(env, description.bfloat16_is_fast != 0, &fast);
  set(env, result, "bfloat16IsFast", fast);
  return result;
}

napi_value set_threads(napi_env env, napi_callback_info info) {
  const Arguments<1> arguments(env, info);
  set_thread_count(integer(env, arguments.values[0]));
  return nullptr;
}
napi_value threads(napi_env env, napi_callback_info) { return number_value(env, thread_count()); }
napi_value processors(napi_env env, napi_callback_info) {
  return number_value(env, available_processors());
}

// ---- the kernel table, for lib/runtime and for documentation

napi_value describe_parameter(napi_env env, const KernelSignature& signature,
                              const TensorParameter& parameter) {
  napi_value result, optional;
  napi_create_object(env, &result);
  set(env, result, "name", text_value(env, parameter.name));
  constexpr const char* roles[] = {"in", "out", "inout"};
  set(env, result, "role", text_value(env, roles[static_cast<int>(parameter.role)]));
  napi_get_boolean(env, parameter.optional, &optional);
  set(env, result, "optional", optional);
  set(env, result, "dtype", text_value(env, parameter.dtype));
  std::string shape = "*";
  if (parameter.same_shape_as >= 0) {
    shape = "=" + signature.tensors[static_cast<size_t>(parameter.same_shape_as)].name;
  } else if (!parameter.any_shape) {
    shape.clear();
    for (const std::string& dimension : parameter.dimensions)
      shape += (shape.empty() ? "" : ", ") + dimension;
  }
  set(env, result, "shape", text_value(env, shape));
  return result;
}

napi_value kernel_table_value(napi_env env, napi_callback_info) {
  napi_value list;
  napi_create_array(env, &list);
  uint32_t row = 0;
  for (const KernelSignature& signature : kernel_table()) {
    napi_value entry, tensors, attributes;
    napi_create_object(env, &entry);
    napi_create_array(env, &tensors);
    napi_create_array(env, &attributes);
    set(env, entry, "family", text_value(env, signature.row->family));
    set(env, entry, "name", text_value(env, signature.row->name));
    uint32_t i = 0;
    for (const TensorParameter& parameter : signature.tensors)
      napi_set_element(env, tensors, i++, describe_parameter(env, signature, parameter));
    i = 0;
    for (const std::string& attribute : signature.attributes)
      napi_set_element(env, attributes, i++, text_value(env, attribute));
    set(env, entry, "tensors", tensors);
    set(env, entry, "attributes", attributes);
    napi_set_element(env, list, row++, entry);
  }
  return list;
}

// ---- tensors

napi_value bind_command(napi_env env, napi_callback_info info) {
  const Arguments<1> arguments(env, info);
  Environment& environment = Environment::of(env);
  const Bytes bytes = typed_array_bytes(env, arguments.values[0]);
  if (environment.command_reference) napi_delete_reference(env, environment.command_reference);
  napi_create_reference(env, arguments.values[0], 1, &environment.command_reference);
  environment.command = static_cast<double*>(bytes.data);
  environment.command_length = bytes.length / sizeof(double);
  return nullptr;
}

// allocate(device, dtype, rank), shape in the command buffer -> handle, or minus the status
napi_value allocate(napi_env env, napi_callback_info info) {
  const Arguments<3> arguments(env, info);
  return guarded(env, [&] {
    Environment& environment = Environment::of(env);
    double handle = 0;
    const voltaic_status status =
        environment.allocate(integer(env, arguments.values[0]), integer(env, arguments.values[1]),
                             integer(env, arguments.values[2]), environment.command, handle);
    return number_value(env, status == VOLTAIC_OK ? handle : -status);
  });
}

// view(handle, dtype, rank, elementOffset), shape in the command buffer -> handle, or minus the
// status
napi_value view(napi_env env, napi_callback_info info) {
  const Arguments<4> arguments(env, info);
  return guarded(env, [&] {
    Environment& environment = Environment::of(env);
    double handle = 0;
    const voltaic_status status =
        environment.view(number(env, arguments.values[0]), integer(env, arguments.values[1]),
                         integer(env, arguments.values[2]), environment.command,
                         number(env, arguments.values[3]), handle);
    return number_value(env, status == VOLTAIC_OK ? handle : -status);
  });
}

napi_value release(napi_env env, napi_callback_info info) {
  const Arguments<1> arguments(env, info);
  return number_value(env, Environment::of(env).release(number(env, arguments.values[0])));
}

// contentVersion(handle) -> a number that grows with every write that is queued to the handle's
// storage, through whichever of its handles; or minus the status
napi_value content_version(napi_env env, napi_callback_info info) {
  const Arguments<1> arguments(env, info);
  const Slot* const slot =
      Environment::of(env).find_or_explain(number(env, arguments.values[0]), "contentVersion");
  if (slot == nullptr) return number_value(env, -VOLTAIC_ERROR_DISPOSED);
  const Storage& storage = *slot->storage;
  return number_value(env, static_cast<double>(storage.writes + storage.device->launches));
}

// run(op, tensorCount, attributeCount): handles, then attributes, in the command buffer -> status
napi_value run(napi_env env, napi_callback_info info) {
  const Arguments<3> arguments(env, info);
  return guarded(env, [&] {
    Environment& environment = Environment::of(env);
    const auto tensors = static_cast<uint32_t>(number(env, arguments.values[1]));
    const auto attributes = static_cast<uint32_t>(number(env, arguments.values[2]));
    if (tensors + attributes > environment.command_length)
      throw std::runtime_error("the command buffer is too short");
    return number_value(
        env, environment.run(static_cast<uint32_t>(number(env, arguments.values[0])), tensors,
                             attributes, environment.command));
  });
}

voltaic_status check_length(Environment& environment, const Slot& slot, size_t given,
                            const char* what) {
  const size_t wanted = static_cast<size_t>(slot.tensor.elements) * dtype_size(slot.tensor.dtype);
  if (given == wanted) return VOLTAIC_OK;
  environment.last_error = std::string(what) + ": got " + std::to_string(given) +
                           " bytes, the tensor holds " + std::to_string(wanted);
  return VOLTAIC_ERROR_SHAPE;
}

// upload(handle, typedArray) -> status
napi_value upload(napi_env env, napi_callback_info info) {
  const Arguments<2> arguments(env, info);
  return guarded(env, [&] {
    Environment& environment = Environment::of(env);
    const Slot* const slot =
        environment.find_or_explain(number(env, arguments.values[0]), "upload");
    if (slot == nullptr) return number_value(env, VOLTAIC_ERROR_DISPOSED);
    const Bytes bytes = typed_array_bytes(env, arguments.values[1]);
    voltaic_status status = check_length(environment, *slot, bytes.length, "upload");
    if (status == VOLTAIC_OK)
      status = environment.refuse_in_capture(*slot->storage->device, "an upload");
    if (status == VOLTAIC_OK) {
      slot->storage->device->stream.queue_upload(slot->tensor.data, bytes.data, bytes.length);
      slot->storage->writes++;
    }
    return number_value(env, status);
  });
}

// download(handle) -> Promise<ArrayBuffer>, or minus the status
napi_value download(napi_env env, napi_callback_info info) {
  const Arguments<1> arguments(env, info);
  return guarded(env, [&] {
    Environment& environment = Environment::of(env);
    const Slot* const slot = environment.find_or_explain(number(env, arguments.values[0]), "data");
    if (slot == nullptr) return number_value(env, -VOLTAIC_ERROR_DISPOSED);
    if (const voltaic_status status =
            environment.refuse_in_capture(*slot->storage->device, "reading a tensor");
        status != VOLTAIC_OK)
      return number_value(env, -status);
    napi_value promise;
    Environment::Pending* const pending = environment.begin_pending(&promise);
    pending->result = Environment::Pending::Result::bytes;
    pending->bytes.resize(static_cast<size_t>(slot->tensor.elements) *
                          dtype_size(slot->tensor.dtype));
    slot->storage->device->stream.queue_download(pending->bytes.data(), slot->tensor.data,
                                                 pending->bytes.size(),
                                                 environment.finisher(pending));
    return promise;
  });
}

// downloadSync(handle, typedArray) -> status; blocks
napi_value download_sync(napi_env env, napi_callback_info info) {
  const Arguments<2> arguments(env, info);
  return guarded(env, [&] {
    Environment& environment = Environment::of(env);
    const Slot* const slot = environment.find_or_explain(number(env, arguments.values[0]), "data");
    if (slot == nullptr) return number_value(env, VOLTAIC_ERROR_DISPOSED);
    const Bytes bytes = typed_array_bytes(env, arguments.values[1]);
    voltaic_status status = check_length(environment, *slot, bytes.length, "data");
    if (status == VOLTAIC_OK)
      status = environment.refuse_in_capture(*slot->storage->device, "reading a tensor");
    if (status != VOLTAIC_OK) return number_value(env, status);
    std::promise<StreamError> reached;
    slot->storage->device->stream.queue_download(
        bytes.data, slot->tensor.data, bytes.length,
        [&reached](StreamError outcome) { reached.set_value(std::move(outcome)); });
    const StreamError error = reached.get_future().get();
    if (error.status != VOLTAIC_OK) environment.last_error = error.message;
    return number_value(env, error.status);
  });
}

// synchronize(device) -> Promise<void>, or minus the status
napi_value synchronize(napi_env env, napi_callback_info info) {
  const Arguments<1> arguments(env, info);
  return guarded(env, [&] {
    Environment& environment = Environment::of(env);
    Device* const device = environment.device(integer(env, arguments.values[0]));
    if (device == nullptr) throw std::runtime_error("synchronize: no such device");
    if (const voltaic_status status = environment.refuse_in_capture(*device, "waiting");
        status != VOLTAIC_OK)
      return number_value(env, -status);
    napi_value promise;
    Environment::Pending* const pending = environment.begin_pending(&promise);
    device->stream.queue_marker(environment.finisher(pending));
    return promise;
  });
}

// memoryStats(device): fills the command buffer; the order is that of lib/runtime/tensors.ts
napi_value memory_stats(napi_env env, napi_callback_info info) {
  const Arguments<1> arguments(env, info);
  Environment& environment = Environment::of(env);
  Device* const device = environment.device(integer(env, arguments.values[0]));
  if (device == nullptr) return nullptr;
  const MemoryStatistics& statistics = device->allocator.statistics();
  double* const out = environment.command;
  out[0] = static_cast<double>(statistics.allocated_bytes);
  out[1] = static_cast<double>(statistics.peak_allocated_bytes);
  out[2] = static_cast<double>(statistics.reserved_bytes);
  out[3] = static_cast<double>(statistics.peak_reserved_bytes);
  out[4] = static_cast<double>(statistics.allocations);
  out[5] = static_cast<double>(statistics.system_allocations);
  out[6] = static_cast<double>(statistics.limit_bytes);
  out[7] = static_cast<double>(environment.live_tensors);
  return nullptr;
}

// emptyCache(device) -> status: blocks until the stream is idle, then gives cached memory back
napi_value empty_cache(napi_env env, napi_callback_info info) {
  const Arguments<1> arguments(env, info);
  return guarded(env, [&] {
    Environment& environment = Environment::of(env);
    Device* const device = environment.device(integer(env, arguments.values[0]));
    if (device == nullptr) throw std::runtime_error("emptyCache: no such device");
    const voltaic_status status = environment.refuse_in_capture(*device, "emptying the cache");
    if (status == VOLTAIC_OK) {
      device->stream.drain();
      device->allocator.release_cached();
    }
    return number_value(env, status);
  });
}

napi_value set_memory_limit(napi_env env, napi_callback_info info) {
  const Arguments<2> arguments(env, info);
  if (Device* const device = Environment::of(env).device(integer(env, arguments.values[0])))
    device->allocator.set_limit(static_cast<uint64_t>(number(env, arguments.values[1])));
  return nullptr;
}

napi_value last_error(napi_env env, napi_callback_info) {
  return text_value(env, Environment::of(env).last_error);
}

}  // namespace
}  // namespace voltaic::addon

void register_tensors(Napi::Env env, Napi::Object exports) {
  using namespace voltaic::addon;
  const struct {
    const char* name;
    napi_callback function;
  } functions[] = {
      {"instructionSets", instruction_sets},
      {"openCpu", open_cpu},
      {"openLibrary", open_library},
      {"openLibraryDevice", open_library_device},
      {"deviceInfo", device_info},
      {"setThreads", set_threads},
      {"threads", threads},
      {"processors", processors},
      {"kernelTable", kernel_table_value},
      {"bindCommand", bind_command},
      {"allocate", allocate},
      {"view", view},
      {"release", release},
      {"contentVersion", content_version},
      {"run", run},
      {"upload", upload},
      {"download", download},
      {"downloadSync", download_sync},
      {"synchronize", synchronize},
      {"memoryStats", memory_stats},
      {"emptyCache", empty_cache},
      {"setMemoryLimit", set_memory_limit},
      {"lastError", last_error},
  };
  for (const auto& entry : functions) export_function(env, exports, entry.name, entry.function);
}
