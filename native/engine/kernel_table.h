// The kernel table: every op that a backend may implement, with the signature that the engine
// checks.
//
// A signature lists the tensors in call order:  [out|inout] name[?]: dtype[shape]
//   dtype   f32 bf16 i32 u8, or a variable that must agree within the call: F, G (f32 or bf16), A
//   (any) shape   numbers; names that must agree within the call (rows, width); "*" for any shape;
//           "=x" for the same shape as the argument x
//   ?       optional: the argument may be left out
// Attributes are numbers, in order. Tensors are contiguous and row-major. One op, one row: the
// addon's binding, its checks and its error messages all come from here.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "backend_abi.h"

namespace voltaic {

struct KernelRow {
  const char* family;
  const char* name;
  const char* tensors;
  const char* attributes;
};

enum class Role : uint8_t { in, out, inout };

struct TensorParameter {
  std::string name;
  Role role = Role::in;
  bool optional = false;
  std::string dtype;
  bool any_shape = false;
  int same_shape_as = -1;               // index of another parameter
  std::vector<std::string> dimensions;  // numbers or names
};

struct KernelSignature {
  const KernelRow* row;
  std::vector<TensorParameter> tensors;
  std::vector<std::string> attributes;
};

// The parsed table, in the order of the rows; an op's number is its index here.
const std::vector<KernelSignature>& kernel_table();

// Checks tensors and attribute count against a signature. On failure writes a sentence that names
// the op, the argument, what came and what was expected.
voltaic_status check_call(const KernelSignature& signature, const voltaic_tensor* tensors,
                          uint32_t tensor_count, uint32_t attribute_count, std::string& message);

}  // namespace voltaic
