// Parses the rows' signatures once and checks calls against them.
#include "kernel_table.h"

#include <cstdio>
#include <cstdlib>
#include <string_view>

namespace voltaic {
namespace {

constexpr KernelRow kRows[] = {
#define ROW(family, name, tensors, attributes) {family, name, tensors, attributes},
#include "kernel_rows.inc"
#undef ROW
};

std::string_view trim(std::string_view text) {
  while (!text.empty() && text.front() == ' ') text.remove_prefix(1);
  while (!text.empty() && text.back() == ' ') text.remove_suffix(1);
  return text;
}

// Splits at commas outside brackets.
std::vector<std::string_view> split(std::string_view text) {
  std::vector<std::string_view> parts;
  int depth = 0;
  size_t begin = 0;
  for (size_t i = 0; i <= text.size(); i++) {
    if (i == text.size() || (text[i] == ',' && depth == 0)) {
      const std::string_view part = trim(text.substr(begin, i - begin));
      if (!part.empty()) parts.push_back(part);
      begin = i + 1;
    } else if (text[i] == '[') {
      depth++;
    } else if (text[i] == ']') {
      depth--;
    }
  }
  return parts;
}

TensorParameter parse_parameter(std::string_view text,
                                const std::vector<TensorParameter>& earlier) {
  TensorParameter parameter;
  if (text.starts_with("inout ")) {
    parameter.role = Role::inout;
    text.remove_prefix(6);
  } else if (text.starts_with("out ")) {
    parameter.role = Role::out;
    text.remove_prefix(4);
  }
  const size_t colon = text.find(':');
  const size_t open = text.find('[');
  std::string_view name = trim(text.substr(0, colon));
  if (name.ends_with('?')) {
    parameter.optional = true;
    name.remove_suffix(1);
  }
  parameter.name = name;
  parameter.dtype = trim(text.substr(colon + 1, open - colon - 1));
  const std::string_view shape = text.substr(open + 1, text.rfind(']') - open - 1);
  if (shape == "*") {
    parameter.any_shape = true;
  } else if (shape.starts_with('=')) {
    for (size_t i = 0; i < earlier.size(); i++)
      if (earlier[i].name == shape.substr(1)) parameter.same_shape_as = static_cast<int>(i);
  } else {
    for (const std::string_view dimension : split(shape))
      parameter.dimensions.emplace_back(dimension);
  }
  return parameter;
}

std::vector<KernelSignature> parse_table() {
  std::vector<KernelSignature> table;
  for (const KernelRow& row : kRows) {
    KernelSignature signature;
    signature.row = &row;
    for (const std::string_view part : split(row.tensors))
      signature.tensors.push_back(parse_parameter(part, signature.tensors));
    for (const std::string_view part : split(row.attributes))
      signature.attributes.emplace_back(part);
    table.push_back(std::move(signature));
  }
  return table;
}

const char* dtype_name(int32_t dtype) {
  constexpr const char* names[] = {"float32", "bfloat16", "int32", "uint8"};
  return dtype >= 0 && dtype < 4 ? names[dtype] : "unknown";
}

std::string shape_text(const voltaic_tensor& tensor) {
  std::string text = "[";
  for (int i = 0; i < tensor.rank; i++) text += (i ? ", " : "") + std::to_string(tensor.shape[i]);
  return text + "]";
}

bool same_shape(const voltaic_tensor& a, const voltaic_tensor& b) {
  if (a.rank != b.rank) return false;
  for (int i = 0; i < a.rank; i++)
    if (a.shape[i] != b.shape[i]) return false;
  return true;
}

int literal_dtype(const std::string& name) {
  if (name == "f32") return VOLTAIC_FLOAT32;
  if (name == "bf16") return VOLTAIC_BFLOAT16;
  if (name == "i32") return VOLTAIC_INT32;
  if (name == "u8") return VOLTAIC_UINT8;
  return -1;
}

// The values that variables took so far, with the argument that gave each.
struct Bindings {
  struct Value {
    std::string name;
    int64_t value;
    const TensorParameter* from;
  };
  std::vector<Value> values;

  const Value* find_or_bind(const std::string& name, int64_t value, const TensorParameter& from) {
    for (const Value& known : values)
      if (known.name == name) return &known;
    values.push_back({name, value, &from});
    return nullptr;
  }
};

class Checker {
 public:
  Checker(const KernelSignature& signature, const voltaic_tensor* tensors, std::string& message)
      : signature_(signature), tensors_(tensors), message_(message) {}

  voltaic_status check(size_t index) {
    const TensorParameter& parameter = signature_.tensors[index];
    const voltaic_tensor& tensor = tensors_[index];
    if (tensor.rank < 0) {
      if (parameter.optional) return VOLTAIC_OK;
      return fail(VOLTAIC_ERROR_ARGUMENT, parameter, "is missing");
    }
    const voltaic_status dtype = check_dtype(parameter, tensor);
    return dtype != VOLTAIC_OK ? dtype : check_shape(parameter, tensor);
  }

 private:
  voltaic_status check_dtype(const TensorParameter& parameter, const voltaic_tensor& tensor) {
    if (parameter.dtype == "any") return VOLTAIC_OK;
    const int literal = literal_dtype(parameter.dtype);
    if (literal >= 0) {
      if (tensor.dtype == literal) return VOLTAIC_OK;
      return fail(
          VOLTAIC_ERROR_DTYPE, parameter,
          std::string("is ") + dtype_name(tensor.dtype) + ", expected " + dtype_name(literal));
    }
    if (parameter.dtype != "A" && tensor.dtype != VOLTAIC_FLOAT32 &&
        tensor.dtype != VOLTAIC_BFLOAT16)
      return fail(VOLTAIC_ERROR_DTYPE, parameter,
                  std::string("is ") + dtype_name(tensor.dtype) + ", expected float32 or bfloat16");
    const auto* known = dtypes_.find_or_bind(parameter.dtype, tensor.dtype, parameter);
    if (known == nullptr || known->value == tensor.dtype) return VOLTAIC_OK;
    return fail(VOLTAIC_ERROR_DTYPE, parameter,
                std::string("is ") + dtype_name(tensor.dtype) + ", expected " +
                    dtype_name(static_cast<int32_t>(known->value)) + " as " + known->from->name +
                    " has");
  }

  voltaic_status check_shape(const TensorParameter& parameter, const voltaic_tensor& tensor) {
    if (parameter.any_shape) return VOLTAIC_OK;
    if (parameter.same_shape_as >= 0) {
      const voltaic_tensor& other = tensors_[parameter.same_shape_as];
      if (same_shape(tensor, other)) return VOLTAIC_OK;
      return fail(VOLTAIC_ERROR_SHAPE, parameter,
                  "has shape " + shape_text(tensor) + ", expected " + shape_text(other) + " as " +
                      signature_.tensors[static_cast<size_t>(parameter.same_shape_as)].name +
                      " has");
    }
    std::string expected = "[";
    for (size_t i = 0; i < parameter.dimensions.size(); i++)
      expected += (i ? ", " : "") + parameter.dimensions[i];
    expected += "]";
    if (tensor.rank != static_cast<int>(parameter.dimensions.size()))
      return fail(VOLTAIC_ERROR_SHAPE, parameter,
                  "has shape " + shape_text(tensor) + ", expected " + expected);
    for (int i = 0; i < tensor.rank; i++) {
      const std::string& dimension = parameter.dimensions[static_cast<size_t>(i)];
      int64_t wanted = 0;
      std::string because;
      if (dimension[0] >= '0' && dimension[0] <= '9') {
        wanted = std::atoll(dimension.c_str());
      } else {
        const auto* known = dimensions_.find_or_bind(dimension, tensor.shape[i], parameter);
        if (known == nullptr) continue;
        wanted = known->value;
        because = " as in " + known->from->name;
      }
      if (tensor.shape[i] != wanted)
        return fail(VOLTAIC_ERROR_SHAPE, parameter,
                    "has shape " + shape_text(tensor) + ", expected " + expected + " with " +
                        dimension + " = " + std::to_string(wanted) + because);
    }
    return VOLTAIC_OK;
  }

  voltaic_status fail(voltaic_status status, const TensorParameter& parameter,
                      const std::string& what) {
    message_ = std::string(signature_.row->name) + ": " + parameter.name + " " + what;
    return status;
  }

  const KernelSignature& signature_;
  const voltaic_tensor* tensors_;
  std::string& message_;
  Bindings dtypes_, dimensions_;
};

}  // namespace

const std::vector<KernelSignature>& kernel_table() {
  static const std::vector<KernelSignature>* const table =
      new std::vector<KernelSignature>(parse_table());
  return *table;
}

voltaic_status check_call(const KernelSignature& signature, const voltaic_tensor* tensors,
                          uint32_t tensor_count, uint32_t attribute_count, std::string& message) {
  if (tensor_count != signature.tensors.size() || attribute_count != signature.attributes.size()) {
    message = std::string(signature.row->name) + ": got " + std::to_string(tensor_count) +
              " tensors and " + std::to_string(attribute_count) + " attributes, expected " +
              std::to_string(signature.tensors.size()) + " and " +
              std::to_string(signature.attributes.size());
    return VOLTAIC_ERROR_ARGUMENT;
  }
  Checker checker(signature, tensors, message);
  for (size_t i = 0; i < signature.tensors.size(); i++)
    if (const voltaic_status status = checker.check(i); status != VOLTAIC_OK) return status;
  return VOLTAIC_OK;
}

}  // namespace voltaic
