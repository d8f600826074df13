// Captured graphs, settings and profiles: the environment's side, and the functions that JavaScript
// calls.
#include <future>
#include <stdexcept>
#include <string>
#include <utility>

#include "addon.h"
#include "environment.h"
#include "values.h"

namespace voltaic::addon {

voltaic_status Environment::refuse_in_capture(Device& device, const char* what) {
  if (device.capturing == 0) return VOLTAIC_OK;
  device.capture_failure = std::string(what) +
                           " while a graph is being captured: a graph holds kernels alone; move "
                           "data before the capture, or before and after launches";
  return fail(VOLTAIC_ERROR_ARGUMENT, device.capture_failure);
}

voltaic_status Environment::begin_capture(int32_t number, uint64_t like, uint64_t& graph) {
  Device* const where = device(number);
  if (where == nullptr)
    return fail(VOLTAIC_ERROR_DEVICE, "capture: no device " + std::to_string(number));
  if (where->backend->capture_begin == nullptr)
    return fail(VOLTAIC_ERROR_UNSUPPORTED, std::string("capture: the ") + where->backend->name +
                                               " backend captures no graphs");
  if (const voltaic_status status = refuse_in_capture(*where, "another capture");
      status != VOLTAIC_OK)
    return status;
  const auto shared = graphs_.find(like);
  if (like != 0 && (shared == graphs_.end() || shared->second.device != where))
    return fail(VOLTAIC_ERROR_DISPOSED,
                "capture: the graph whose memory to share has been disposed, or is of another "
                "device");
  where->capture_pool = like != 0 ? shared->second.pool : where->allocator.open_pool();
  where->allocator.use_pool(where->capture_pool);
  where->capture_failure.clear();
  graph = where->capturing = ++last_graph_;
  where->stream.queue_capture_begin();
  return VOLTAIC_OK;
}

voltaic_status Environment::end_capture(int32_t number, bool keep) {
  Device* const where = device(number);
  if (where == nullptr || where->capturing == 0)
    return fail(VOLTAIC_ERROR_ARGUMENT, "capture: none has been begun");
  const uint64_t graph = std::exchange(where->capturing, 0);
  where->allocator.use_pool(0);
  keep = keep && where->capture_failure.empty();
  std::promise<StreamError> reached;
  where->stream.queue_capture_end(
      keep ? graph : 0, [&reached](StreamError error) { reached.set_value(std::move(error)); });
  StreamError error = reached.get_future().get();
  if (!where->capture_failure.empty())
    error = {VOLTAIC_ERROR_ARGUMENT, std::exchange(where->capture_failure, {})};
  const Graph made{where, where->capture_pool};
  if (!keep || error.status != VOLTAIC_OK) {
    close_pool(made);
    return fail(error.status, error.message);
  }
  graphs_[graph] = made;
  return VOLTAIC_OK;
}

// When the last graph that shares it is gone.
void Environment::close_pool(const Graph& graph) {
  for (const auto& [number, other] : graphs_)
    if (other.device == graph.device && other.pool == graph.pool) return;
  graph.device->allocator.close_pool(graph.pool);
}

voltaic_status Environment::launch(uint64_t number) {
  const auto found = graphs_.find(number);
  if (found == graphs_.end())
    return fail(VOLTAIC_ERROR_DISPOSED, "launch: the graph has been disposed");
  if (const voltaic_status status = refuse_in_capture(*found->second.device, "a graph's launch");
      status != VOLTAIC_OK)
    return status;
  found->second.device->stream.queue_launch(number);
  found->second.device->launches++;
  return VOLTAIC_OK;
}

voltaic_status Environment::release_graph(uint64_t number) {
  const auto found = graphs_.find(number);
  if (found == graphs_.end())
    return fail(VOLTAIC_ERROR_DISPOSED, "dispose: the graph has been disposed already");
  const Graph graph = found->second;
  if (const voltaic_status status = refuse_in_capture(*graph.device, "a graph's end");
      status != VOLTAIC_OK)
    return status;
  graphs_.erase(found);
  graph.device->stream.queue_graph_destroy(number);
  close_pool(graph);
  return VOLTAIC_OK;
}

namespace {

// A graph's number as JavaScript gives it: 0 is none, what is no number is no graph's.
uint64_t graph_number(napi_env env, napi_value value) {
  const double given = number(env, value);
  return given >= 0 && given < 9007199254740992.0 ? static_cast<uint64_t>(given) : UINT64_MAX;
}

// canCapture(device) -> boolean
napi_value can_capture(napi_env env, napi_callback_info info) {
  const Arguments<1> arguments(env, info);
  Device* const device = Environment::of(env).device(integer(env, arguments.values[0]));
  napi_value result;
  napi_get_boolean(env, device != nullptr && device->backend->capture_begin != nullptr, &result);
  return result;
}

// beginCapture(device, like) -> the graph's number, or minus the status. like: a graph to share
// memory with, or 0
napi_value begin_capture(napi_env env, napi_callback_info info) {
  const Arguments<2> arguments(env, info);
  return guarded(env, [&] {
    uint64_t graph = 0;
    const voltaic_status status = Environment::of(env).begin_capture(
        integer(env, arguments.values[0]), graph_number(env, arguments.values[1]), graph);
    return number_value(env, status == VOLTAIC_OK ? static_cast<double>(graph) : -status);
  });
}

// endCapture(device, keep) -> status; blocks until the graph is there
napi_value end_capture(napi_env env, napi_callback_info info) {
  const Arguments<2> arguments(env, info);
  return guarded(env, [&] {
    bool keep = false;
    napi_get_value_bool(env, arguments.values[1], &keep);
    return number_value(env,
                        Environment::of(env).end_capture(integer(env, arguments.values[0]), keep));
  });
}

// launchGraph(graph) -> status
napi_value launch_graph(napi_env env, napi_callback_info info) {
  const Arguments<1> arguments(env, info);
  return guarded(env, [&] {
    return number_value(env, Environment::of(env).launch(graph_number(env, arguments.values[0])));
  });
}

// releaseGraph(graph) -> status
napi_value release_graph(napi_env env, napi_callback_info info) {
  const Arguments<1> arguments(env, info);
  return guarded(env, [&] {
    return number_value(env,
                        Environment::of(env).release_graph(graph_number(env, arguments.values[0])));
  });
}

// ---- settings of a device's stream

// getSetting(device, name) -> Promise<string>, or minus the status; '' where the backend has none
napi_value get_setting(napi_env env, napi_callback_info info) {
  const Arguments<2> arguments(env, info);
  return guarded(env, [&] {
    Environment& environment = Environment::of(env);
    Device* const device = environment.device(integer(env, arguments.values[0]));
    if (device == nullptr) throw std::runtime_error("getSetting: no such device");
    if (const voltaic_status status = environment.refuse_in_capture(*device, "asking a setting");
        status != VOLTAIC_OK)
      return number_value(env, -status);
    napi_value promise;
    Environment::Pending* const pending = environment.begin_pending(&promise);
    pending->result = Environment::Pending::Result::text;
    const auto task = [backend = device->backend, pending,
                       name = text(env, arguments.values[1])](voltaic_stream* stream) {
      char message[VOLTAIC_MESSAGE_LENGTH] = "";
      voltaic_status status = VOLTAIC_OK;
      size_t needed = 4096;
      do {
        pending->bytes.assign(std::exchange(needed, 0) + 1, '\0');
        if (backend->setting_get != nullptr)
          status = backend->setting_get(stream, name.c_str(), pending->bytes.data(),
                                        pending->bytes.size(), &needed, message);
      } while (status == VOLTAIC_OK && needed > pending->bytes.size());
      return StreamError{status, message};
    };
    device->stream.queue_task(task, environment.finisher(pending));
    return promise;
  });
}

// setSetting(device, name, text) -> Promise<void>, or minus the status
napi_value set_setting(napi_env env, napi_callback_info info) {
  const Arguments<3> arguments(env, info);
  return guarded(env, [&] {
    Environment& environment = Environment::of(env);
    Device* const device = environment.device(integer(env, arguments.values[0]));
    if (device == nullptr) throw std::runtime_error("setSetting: no such device");
    if (const voltaic_status status = environment.refuse_in_capture(*device, "changing a setting");
        status != VOLTAIC_OK)
      return number_value(env, -status);
    napi_value promise;
    Environment::Pending* const pending = environment.begin_pending(&promise);
    const auto task = [backend = device->backend, name = text(env, arguments.values[1]),
                       value = text(env, arguments.values[2])](voltaic_stream* stream) {
      if (backend->setting_set == nullptr)
        return StreamError{VOLTAIC_ERROR_UNSUPPORTED,
                           std::string("the ") + backend->name + " backend has no settings"};
      char message[VOLTAIC_MESSAGE_LENGTH] = "";
      const voltaic_status status =
          backend->setting_set(stream, name.c_str(), value.c_str(), message);
      return StreamError{status, message};
    };
    device->stream.queue_task(task, environment.finisher(pending));
    return promise;
  });
}

// ---- profiles of a device's stream

// beginProfile(device) -> Promise<void>, or minus the status: what is queued from here on is timed
napi_value begin_profile(napi_env env, napi_callback_info info) {
  const Arguments<1> arguments(env, info);
  return guarded(env, [&] {
    Environment& environment = Environment::of(env);
    Device* const device = environment.device(integer(env, arguments.values[0]));
    if (device == nullptr) throw std::runtime_error("beginProfile: no such device");
    if (const voltaic_status status = environment.refuse_in_capture(*device, "a profile's begin");
        status != VOLTAIC_OK)
      return number_value(env, -status);
    napi_value promise;
    Environment::Pending* const pending = environment.begin_pending(&promise);
    const auto task = [stream = &device->stream](voltaic_stream*) {
      stream->begin_profile();
      return StreamError{};
    };
    device->stream.queue_task(task, environment.finisher(pending));
    return promise;
  });
}

// endProfile(device) -> Promise<string>, or minus the status; the text of profile.h
napi_value end_profile(napi_env env, napi_callback_info info) {
  const Arguments<1> arguments(env, info);
  return guarded(env, [&] {
    Environment& environment = Environment::of(env);
    Device* const device = environment.device(integer(env, arguments.values[0]));
    if (device == nullptr) throw std::runtime_error("endProfile: no such device");
    if (const voltaic_status status = environment.refuse_in_capture(*device, "a profile's end");
        status != VOLTAIC_OK)
      return number_value(env, -status);
    napi_value promise;
    Environment::Pending* const pending = environment.begin_pending(&promise);
    pending->result = Environment::Pending::Result::text;
    const auto task = [stream = &device->stream, pending](voltaic_stream*) {
      const std::string text = stream->end_profile();
      pending->bytes.assign(text.c_str(), text.c_str() + text.size() + 1);
      return StreamError{};
    };
    device->stream.queue_task(task, environment.finisher(pending));
    return promise;
  });
}

}  // namespace
}  // namespace voltaic::addon

void register_graphs(Napi::Env env, Napi::Object exports) {
  using namespace voltaic::addon;
  export_function(env, exports, "canCapture", can_capture);
  export_function(env, exports, "beginCapture", begin_capture);
  export_function(env, exports, "endCapture", end_capture);
  export_function(env, exports, "launchGraph", launch_graph);
  export_function(env, exports, "releaseGraph", release_graph);
  export_function(env, exports, "getSetting", get_setting);
  export_function(env, exports, "setSetting", set_setting);
  export_function(env, exports, "beginProfile", begin_profile);
  export_function(env, exports, "endProfile", end_profile);
}
