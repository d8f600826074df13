#include "environment.h"

#include <cmath>
#include <cstring>
#include <utility>

namespace voltaic::addon {
namespace {

constexpr double kSlots = 16777216.0;  // 2^24
constexpr uint32_t kMostGenerations = 1u << 28;

}  // namespace

const char* status_code(voltaic_status status) {
  switch (status) {
    case VOLTAIC_OK:
      return "OK";
    case VOLTAIC_ERROR_SHAPE:
      return "ERR_SHAPE";
    case VOLTAIC_ERROR_DTYPE:
      return "ERR_DTYPE";
    case VOLTAIC_ERROR_DEVICE:
    case VOLTAIC_ERROR_NO_DRIVER:
    case VOLTAIC_ERROR_DRIVER_TOO_OLD:
    case VOLTAIC_ERROR_NO_DEVICE:
      return "ERR_DEVICE";
    case VOLTAIC_ERROR_OUT_OF_MEMORY:
      return "ERR_OUT_OF_MEMORY";
    case VOLTAIC_ERROR_ARGUMENT:
      return "ERR_ARGUMENT";
    case VOLTAIC_ERROR_DISPOSED:
      return "ERR_DISPOSED";
    case VOLTAIC_ERROR_UNSUPPORTED:
      return "ERR_UNSUPPORTED";
    case VOLTAIC_ERROR_RUNTIME:
      return "ERR_BACKEND";
  }
  return "ERR_BACKEND";
}

size_t dtype_size(int32_t dtype) {
  return dtype == VOLTAIC_BFLOAT16 ? 2 : dtype == VOLTAIC_UINT8 ? 1 : 4;
}

Device::Device(const voltaic_backend* table, int32_t device_index, uint64_t limit_bytes)
    : backend(table),
      index(device_index),
      allocator(table, device_index, limit_bytes),
      stream(table, device_index) {
  std::unordered_map<std::string, voltaic_kernel> by_name;
  for (uint32_t i = 0; i < backend->kernel_count; i++)
    by_name[backend->kernels[i].name] = backend->kernels[i].kernel;
  for (const KernelSignature& signature : kernel_table()) {
    const auto found = by_name.find(signature.row->name);
    kernels.push_back(found == by_name.end() ? nullptr : found->second);
  }
}

Environment::Environment(napi_env environment) : env(environment), slots_(1) {}

void Environment::create(napi_env env) {
  auto* const environment = new Environment(env);
  napi_set_instance_data(
      env, environment, [](napi_env, void* data, void*) { delete static_cast<Environment*>(data); },
      nullptr);
  napi_value name;
  napi_create_string_utf8(env, "voltaic completions", NAPI_AUTO_LENGTH, &name);
  napi_create_threadsafe_function(env, nullptr, nullptr, name, 0, 1, nullptr, nullptr, environment,
                                  deliver, &environment->deliveries_);
  napi_unref_threadsafe_function(env, environment->deliveries_);
  // Added after the thread-safe function, so it runs before that one's own clean-up: the streams'
  // threads end first.
  napi_add_env_cleanup_hook(
      env, [](void* data) { static_cast<Environment*>(data)->stop(); }, environment);
}

Environment& Environment::of(napi_env env) {
  void* data = nullptr;
  napi_get_instance_data(env, &data);
  return *static_cast<Environment*>(data);
}

void Environment::stop() {
  for (Slot& slot : slots_) {
    Storage* const storage = std::exchange(slot.storage, nullptr);
    if (storage == nullptr || --storage->references > 0) continue;
    storage->device->allocator.release(storage->block);
    delete storage;
  }
  graphs_.clear();
  devices_.clear();
}

Environment::~Environment() { stop(); }

int32_t Environment::add_device(const voltaic_backend* backend, int32_t index,
                                uint64_t limit_bytes) {
  devices_.push_back(std::make_unique<Device>(backend, index, limit_bytes));
  return static_cast<int32_t>(devices_.size()) - 1;
}

// V8 hears of memory taken from the system, not of every tensor: a steady step then costs it
// nothing, while a loop that forgets its tensors still makes it collect.
void Environment::tell_v8(Device& device) {
  const uint64_t reserved = device.allocator.statistics().reserved_bytes;
  if (reserved == device.told_to_v8) return;
  int64_t total = 0;
  napi_adjust_external_memory(
      env, static_cast<int64_t>(reserved) - static_cast<int64_t>(device.told_to_v8), &total);
  device.told_to_v8 = reserved;
}

double Environment::new_slot(Storage* storage, int32_t device, const voltaic_tensor& tensor) {
  uint32_t index;
  if (free_slots_.empty()) {
    index = static_cast<uint32_t>(slots_.size());
    slots_.emplace_back();
  } else {
    index = free_slots_.back();
    free_slots_.pop_back();
  }
  Slot& slot = slots_[index];
  slot.storage = storage;
  slot.device = device;
  slot.tensor = tensor;
  live_tensors++;
  return static_cast<double>(slot.generation) * kSlots + index;
}

Slot* Environment::find(double handle) {
  if (!(handle >= kSlots) || handle != std::floor(handle)) return nullptr;
  const double generation = std::floor(handle / kSlots);
  const auto index = static_cast<uint64_t>(handle - generation * kSlots);
  if (index >= slots_.size()) return nullptr;
  Slot& slot = slots_[index];
  return slot.storage && slot.generation == generation ? &slot : nullptr;
}

Slot* Environment::find_or_explain(double handle, const char* what) {
  Slot* const slot = find(handle);
  if (slot == nullptr)
    last_error = std::string(what) + ": the tensor has been disposed, or is of another thread";
  return slot;
}

static bool read_shape(int32_t rank, const double* shape, voltaic_tensor& tensor) {
  if (rank < 0 || rank > VOLTAIC_MAX_RANK) return false;
  tensor.rank = rank;
  tensor.elements = 1;
  for (int32_t i = 0; i < rank; i++) {
    const double dimension = shape[i];
    if (!(dimension >= 0) || dimension != std::floor(dimension)) return false;
    if (static_cast<double>(tensor.elements) * dimension > 4503599627370496.0) return false;
    tensor.shape[i] = static_cast<int64_t>(dimension);
    tensor.elements *= tensor.shape[i];
  }
  return true;
}

voltaic_status Environment::allocate(int32_t number, int32_t dtype, int32_t rank,
                                     const double* shape, double& handle) {
  Device* const where = device(number);
  if (where == nullptr)
    return fail(VOLTAIC_ERROR_DEVICE, "allocate: no device " + std::to_string(number));
  voltaic_tensor tensor = {};
  tensor.dtype = dtype;
  if (!read_shape(rank, shape, tensor))
    return fail(
        VOLTAIC_ERROR_SHAPE,
        "allocate: a shape has 0 to 6 whole dimensions of 0 or more, and under 2^52 elements");
  Block block;
  std::string message;
  const voltaic_status status =
      where->allocator.allocate(static_cast<size_t>(tensor.elements) * dtype_size(dtype), block,
                                message, [&] { where->stream.drain(); });
  tell_v8(*where);
  if (status != VOLTAIC_OK) return fail(status, message);
  tensor.data = block.data;
  handle = new_slot(new Storage{where, block, 1}, number, tensor);
  return VOLTAIC_OK;
}

voltaic_status Environment::view(double of, int32_t dtype, int32_t rank, const double* shape,
                                 double element_offset, double& handle) {
  Slot* const base = find_or_explain(of, "view");
  if (base == nullptr) return VOLTAIC_ERROR_DISPOSED;
  voltaic_tensor tensor = {};
  tensor.dtype = dtype;
  if (!read_shape(rank, shape, tensor))
    return fail(VOLTAIC_ERROR_SHAPE, "view: a shape has 0 to 6 whole dimensions of 0 or more");
  const auto size = static_cast<int64_t>(dtype_size(dtype));
  const auto available =
      base->tensor.elements * static_cast<int64_t>(dtype_size(base->tensor.dtype));
  // In elements, so that nothing can overflow; a fraction or NaN is refused too.
  const bool fits = element_offset >= 0 &&
                    element_offset <= static_cast<double>(available / size) &&
                    element_offset == std::floor(element_offset) &&
                    tensor.elements <= available / size - static_cast<int64_t>(element_offset);
  if (!fits)
    return fail(VOLTAIC_ERROR_SHAPE, "view: " + std::to_string(tensor.elements) + " elements of " +
                                         std::to_string(size) + " bytes, from element " +
                                         std::to_string(element_offset) + " on, do not fit in " +
                                         std::to_string(available) + " bytes");
  const auto offset_bytes = static_cast<int64_t>(element_offset) * size;
  tensor.data = base->tensor.data ? static_cast<char*>(base->tensor.data) + offset_bytes : nullptr;
  Storage* const storage = base->storage;
  storage->references++;
  handle = new_slot(storage, base->device, tensor);
  return VOLTAIC_OK;
}

voltaic_status Environment::release(double handle) {
  Slot* const slot = find_or_explain(handle, "release");
  if (slot == nullptr) return VOLTAIC_ERROR_DISPOSED;
  Storage* const storage = slot->storage;
  slot->storage = nullptr;
  slot->generation = slot->generation + 1 < kMostGenerations ? slot->generation + 1 : 1;
  free_slots_.push_back(static_cast<uint32_t>(slot - slots_.data()));
  live_tensors--;
  if (--storage->references == 0) {
    storage->device->allocator.release(storage->block);
    delete storage;
  }
  return VOLTAIC_OK;
}

voltaic_status Environment::run(uint32_t op, uint32_t tensor_count, uint32_t attribute_count,
                                const double* arguments) {
  const std::vector<KernelSignature>& table = kernel_table();
  if (op >= table.size())
    return fail(VOLTAIC_ERROR_ARGUMENT, "no op has number " + std::to_string(op));
  const KernelSignature& signature = table[op];
  const char* const name = signature.row->name;
  if (tensor_count > kMostTensors || attribute_count > kMostAttributes)
    return fail(VOLTAIC_ERROR_ARGUMENT, std::string(name) + ": too many arguments");
  voltaic_tensor tensors[kMostTensors];
  Storage* storages[kMostTensors] = {};
  int32_t device_number = -1;
  for (uint32_t i = 0; i < tensor_count; i++) {
    if (arguments[i] == 0) {
      tensors[i] = {};
      tensors[i].rank = -1;
      continue;
    }
    const Slot* const slot = find(arguments[i]);
    const char* const argument =
        i < signature.tensors.size() ? signature.tensors[i].name.c_str() : "an argument";
    if (slot == nullptr)
      return fail(VOLTAIC_ERROR_DISPOSED,
                  std::string(name) + ": " + argument +
                      " has been disposed (or belongs to another thread); keep it alive until "
                      "its last use, or return it from scope()");
    if (device_number >= 0 && slot->device != device_number)
      return fail(VOLTAIC_ERROR_DEVICE, std::string(name) + ": " + argument +
                                            " is on another device than the arguments before it; "
                                            "all tensors of a call are on one device");
    device_number = slot->device;
    tensors[i] = slot->tensor;
    storages[i] = slot->storage;
  }
  Device* const where = device(device_number);
  if (where == nullptr)
    return fail(VOLTAIC_ERROR_ARGUMENT, std::string(name) + ": no tensor given");
  std::string message;
  const voltaic_status status =
      check_call(signature, tensors, tensor_count, attribute_count, message);
  if (status != VOLTAIC_OK) return fail(status, message);
  if (where->kernels[op] == nullptr)
    return fail(VOLTAIC_ERROR_UNSUPPORTED, std::string(name) + ": the " + where->backend->name +
                                               " backend has no such kernel");
  where->stream.queue_kernel(where->kernels[op], name, tensors, tensor_count,
                             arguments + tensor_count, attribute_count);
  for (uint32_t i = 0; i < tensor_count; i++)
    if (storages[i] != nullptr && signature.tensors[i].role != Role::in) storages[i]->writes++;
  return VOLTAIC_OK;
}

Environment::Pending* Environment::begin_pending(napi_value* promise) {
  auto* const pending = new Pending{};
  pending->environment = this;
  napi_create_promise(env, &pending->deferred, promise);
  if (pending_count_++ == 0) napi_ref_threadsafe_function(env, deliveries_);
  return pending;
}

void Environment::finish_pending(Pending* pending) {
  if (napi_call_threadsafe_function(deliveries_, pending, napi_tsfn_nonblocking) != napi_ok)
    delete pending;
}

void Environment::deliver(napi_env env, napi_value, void*, void* data) {
  const std::unique_ptr<Pending> pending(static_cast<Pending*>(data));
  if (env == nullptr) return;
  Environment& self = *pending->environment;
  if (--self.pending_count_ == 0) napi_unref_threadsafe_function(env, self.deliveries_);
  napi_value result = nullptr;
  if (pending->error.status != VOLTAIC_OK) {
    napi_value code = nullptr, message = nullptr;
    napi_create_string_utf8(env, status_code(pending->error.status), NAPI_AUTO_LENGTH, &code);
    napi_create_string_utf8(env, pending->error.message.c_str(), NAPI_AUTO_LENGTH, &message);
    napi_create_error(env, code, message, &result);
    napi_reject_deferred(env, pending->deferred, result);
    return;
  }
  if (pending->result == Pending::Result::text) {
    napi_create_string_utf8(env, pending->bytes.data(), NAPI_AUTO_LENGTH, &result);
  } else if (pending->result == Pending::Result::bytes) {
    void* to = nullptr;
    // It fails in a thread that is being terminated: nobody waits for the promise any more.
    if (napi_create_arraybuffer(env, pending->bytes.size(), &to, &result) != napi_ok) return;
    if (!pending->bytes.empty()) std::memcpy(to, pending->bytes.data(), pending->bytes.size());
  } else {
    napi_get_undefined(env, &result);
  }
  napi_resolve_deferred(env, pending->deferred, result);
}

}  // namespace voltaic::addon
