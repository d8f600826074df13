// JavaScript values to numbers, texts and bytes, and back.
#pragma once
#include <node_api.h>

#include <cstdint>
#include <exception>
#include <limits>
#include <string>

namespace voltaic::addon {
namespace {

template <size_t count>
struct Arguments {
  napi_value values[count] = {};
  Arguments(napi_env env, napi_callback_info info) {
    size_t given = count;
    napi_get_cb_info(env, info, &given, values, nullptr, nullptr);
  }
};

inline double number(napi_env env, napi_value value) {
  double result = 0;
  napi_get_value_double(env, value, &result);
  return result;
}
inline int32_t integer(napi_env env, napi_value value) {
  const double given = number(env, value);
  if (!(given > std::numeric_limits<int32_t>::min())) return std::numeric_limits<int32_t>::min();
  return given < std::numeric_limits<int32_t>::max() ? static_cast<int32_t>(given)
                                                     : std::numeric_limits<int32_t>::max();
}

inline napi_value number_value(napi_env env, double value) {
  napi_value result;
  napi_create_double(env, value, &result);
  return result;
}

inline napi_value text_value(napi_env env, const std::string& text) {
  napi_value result;
  napi_create_string_utf8(env, text.data(), text.size(), &result);
  return result;
}

inline std::string text(napi_env env, napi_value value) {
  size_t length = 0;
  napi_get_value_string_utf8(env, value, nullptr, 0, &length);
  std::string result(length, '\0');
  napi_get_value_string_utf8(env, value, result.data(), length + 1, &length);
  return result;
}

inline void set(napi_env env, napi_value object, const char* name, napi_value value) {
  napi_set_named_property(env, object, name, value);
}

struct Bytes {
  void* data = nullptr;
  size_t length = 0;
};
inline Bytes typed_array_bytes(napi_env env, napi_value value) {
  napi_typedarray_type type;
  Bytes bytes;
  size_t elements = 0;
  if (napi_get_typedarray_info(env, value, &type, &elements, &bytes.data, nullptr, nullptr) !=
      napi_ok)
    return {};
  switch (type) {
    case napi_int16_array:
    case napi_uint16_array:
      bytes.length = elements * 2;
      break;
    case napi_int32_array:
    case napi_uint32_array:
    case napi_float32_array:
      bytes.length = elements * 4;
      break;
    case napi_float64_array:
    case napi_bigint64_array:
    case napi_biguint64_array:
      bytes.length = elements * 8;
      break;
    default:
      bytes.length = elements;
  }
  return bytes;
}

// Runs body; a C++ exception becomes a JavaScript error.
template <class Body>
napi_value guarded(napi_env env, Body&& body) {
  try {
    return body();
  } catch (const std::exception& error) {
    napi_throw_error(env, "ERR_BACKEND", error.what());
  }
  return nullptr;
}

inline void export_function(napi_env env, napi_value exports, const char* name,
                            napi_callback body) {
  napi_value function;
  napi_create_function(env, name, NAPI_AUTO_LENGTH, body, nullptr, &function);
  napi_set_named_property(env, exports, name, function);
}

}  // namespace
}  // namespace voltaic::addon
