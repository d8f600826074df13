#include "profile.h"

#include <cstdio>

namespace voltaic {
namespace {

const char* dtype_name(int32_t dtype) {
  switch (dtype) {
    case VOLTAIC_FLOAT32:
      return "f32";
    case VOLTAIC_BFLOAT16:
      return "bf16";
    case VOLTAIC_INT32:
      return "i32";
    default:
      return "u8";
  }
}

}  // namespace

void Profile::add(const char* op, const voltaic_call& call, Clock::duration time) {
  std::string what = op;
  for (uint32_t i = 0; i < call.tensor_count; i++) {
    const voltaic_tensor& tensor = call.tensors[i];
    if (tensor.rank < 0) {
      what += " -";
      continue;
    }
    what += std::string(" ") + dtype_name(tensor.dtype) + "[";
    for (int32_t axis = 0; axis < tensor.rank; axis++)
      what += (axis > 0 ? "," : "") + std::to_string(tensor.shape[axis]);
    what += "]";
  }
  add(what, time);
}

void Profile::add(const std::string& what, Clock::duration time) {
  Entry& entry = entries_[what];
  entry.calls++;
  entry.time += time;
}

std::string Profile::text() const {
  std::string lines;
  for (const auto& [what, entry] : entries_) {
    char numbers[64];
    std::snprintf(numbers, sizeof numbers, "\t%llu\t%.9f\n",
                  static_cast<unsigned long long>(entry.calls),
                  std::chrono::duration<double>(entry.time).count());
    lines += what + numbers;
  }
  return lines;
}

}  // namespace voltaic
