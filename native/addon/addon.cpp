#include "addon.h"

#include "environment.h"

static Napi::Object initialise(Napi::Env env, Napi::Object exports) {
  voltaic::addon::Environment::create(env);
  register_tensors(env, exports);
  register_graphs(env, exports);
  register_text(env, exports);
  register_files(env, exports);
  return exports;
}

NODE_API_MODULE(voltaic, initialise)
