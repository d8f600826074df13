// The kernel table: every row is well formed, and every call that does not fit a row is refused
// with a sentence that names the op, the argument, what came and what was expected.
#include "../../native/engine/kernel_table.h"

#include <algorithm>
#include <map>
#include <set>

#include "harness.h"

using namespace voltaic;

namespace {

const std::vector<std::string> kFamilies = {
#define FAMILY(name) #name,
#define PRODUCT_FAMILY(name) #name,
#include "../../native/cpu/families.inc"
#undef FAMILY
#undef PRODUCT_FAMILY
};
const std::vector<std::string> kDtypes = {"f32", "bf16", "i32", "u8", "F", "G", "A", "any"};
const char* const kDtypeNames[] = {"float32", "bfloat16", "int32", "uint8"};

bool contains(const std::vector<std::string>& list, const std::string& text) {
  return std::find(list.begin(), list.end(), text) != list.end();
}
bool is_name(const std::string& text) {
  if (text.empty() || !(text[0] >= 'a' && text[0] <= 'z')) return false;
  return std::all_of(text.begin(), text.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_';
  });
}
bool is_number(const std::string& text) {
  return !text.empty() &&
         std::all_of(text.begin(), text.end(), [](char c) { return c >= '0' && c <= '9'; });
}
std::string op_name(const KernelSignature& signature) { return signature.row->name; }
const KernelSignature& signature_of(const std::string& op) {
  for (const KernelSignature& signature : kernel_table())
    if (op == signature.row->name) return signature;
  static const KernelSignature none{};
  return none;
}

// Tensors that fit a signature: each named dimension has a size of its own.
std::vector<voltaic_tensor> fitting_tensors(const KernelSignature& signature) {
  std::map<std::string, int64_t> sizes;
  std::vector<voltaic_tensor> tensors;
  for (const TensorParameter& parameter : signature.tensors) {
    voltaic_tensor tensor = {};
    tensor.dtype = parameter.dtype == "bf16"  ? VOLTAIC_BFLOAT16
                   : parameter.dtype == "i32" ? VOLTAIC_INT32
                   : parameter.dtype == "u8"  ? VOLTAIC_UINT8
                                              : VOLTAIC_FLOAT32;
    if (parameter.same_shape_as >= 0) {
      const int32_t dtype = tensor.dtype;
      tensor = tensors[static_cast<size_t>(parameter.same_shape_as)];
      tensor.dtype = dtype;
    } else if (parameter.any_shape) {
      tensor.rank = 2;
      tensor.shape[0] = 5;
      tensor.shape[1] = 7;
    } else {
      for (const std::string& dimension : parameter.dimensions) {
        if (is_name(dimension) && !sizes.contains(dimension))
          sizes[dimension] = 10 + static_cast<int64_t>(sizes.size());
        tensor.shape[tensor.rank++] = is_name(dimension) ? sizes[dimension] : std::stoll(dimension);
      }
    }
    tensor.elements = 1;
    for (int d = 0; d < tensor.rank; d++) tensor.elements *= tensor.shape[d];
    tensors.push_back(tensor);
  }
  return tensors;
}

voltaic_status check(const KernelSignature& signature, const std::vector<voltaic_tensor>& tensors,
                     std::string& message) {
  message.clear();
  return check_call(signature, tensors.data(), static_cast<uint32_t>(tensors.size()),
                    static_cast<uint32_t>(signature.attributes.size()), message);
}

// The call is refused with this status, and the message names the op, the argument and each of
// texts.
void expect_refused(const KernelSignature& signature, const std::vector<voltaic_tensor>& tensors,
                    voltaic_status status, const std::string& argument,
                    const std::vector<std::string>& texts) {
  std::string message;
  const std::string what = op_name(signature) + ", " + argument;
  EXPECT_TEXT(check(signature, tensors, message) == status,
              what + ": wrong status; message: " + message);
  EXPECT_TEXT(message.starts_with(op_name(signature) + ": " + argument + " "),
              what + " are named: " + message);
  for (const std::string& text : texts)
    EXPECT_TEXT(message.find(text) != std::string::npos,
                what + ": '" + message + "' says '" + text + "'");
}

// How often a dtype variable or a dimension's name stands in earlier parameters.
bool dtype_known_before(const KernelSignature& signature, size_t index) {
  for (size_t i = 0; i < index; i++)
    if (signature.tensors[i].dtype == signature.tensors[index].dtype) return true;
  return false;
}
bool dimension_known_before(const KernelSignature& signature, size_t index,
                            const std::string& dimension) {
  if (is_number(dimension)) return true;
  for (size_t i = 0; i < index; i++)
    if (contains(signature.tensors[i].dimensions, dimension)) return true;
  return false;
}

}  // namespace

TEST(every_row_is_well_formed) {
  std::set<std::string> ops;
  for (const KernelSignature& signature : kernel_table()) {
    const std::string op = op_name(signature);
    EXPECT_TEXT(is_name(op) && ops.insert(op).second, op + " is a name and the only op of it");
    EXPECT_TEXT(contains(kFamilies, signature.row->family), op + " belongs to a known family");
    EXPECT_TEXT(!signature.tensors.empty(), op + " has tensors");
    std::set<std::string> names;
    bool writes = false;
    for (size_t i = 0; i < signature.tensors.size(); i++) {
      const TensorParameter& parameter = signature.tensors[i];
      const std::string what = op + ", " + parameter.name;
      EXPECT_TEXT(is_name(parameter.name) && names.insert(parameter.name).second,
                  what + " is named uniquely");
      EXPECT_TEXT(contains(kDtypes, parameter.dtype),
                  what + " has a known dtype, got '" + parameter.dtype + "'");
      EXPECT_TEXT(parameter.dimensions.size() <= VOLTAIC_MAX_RANK,
                  what + " has no more axes than a tensor");
      for (const std::string& dimension : parameter.dimensions)
        EXPECT_TEXT(is_name(dimension) || is_number(dimension),
                    what + " has a dimension '" + dimension + "'");
      const int shapes =
          parameter.any_shape + (parameter.same_shape_as >= 0) + !parameter.dimensions.empty();
      EXPECT_TEXT(shapes == 1,
                  what + " has one kind of shape, and a '=x' that names an earlier argument");
      EXPECT_TEXT(parameter.same_shape_as < static_cast<int>(i), what + " refers backwards");
      if (parameter.same_shape_as >= 0)
        EXPECT_TEXT(!signature.tensors[static_cast<size_t>(parameter.same_shape_as)].optional,
                    what + " takes its shape from an argument that is always there");
      writes = writes || parameter.role != Role::in;
    }
    EXPECT_TEXT(writes, op + " has a result");
    for (const std::string& attribute : signature.attributes)
      EXPECT_TEXT(is_name(attribute) && names.insert(attribute).second,
                  op + ": attribute '" + attribute + "' is named uniquely");
  }
  for (const std::string& family : kFamilies)
    EXPECT_TEXT(std::any_of(kernel_table().begin(), kernel_table().end(),
                            [&](const KernelSignature& signature) {
                              return family == signature.row->family;
                            }),
                family + " has ops");
}

TEST(roles_options_dtypes_and_dimensions_are_read_from_the_text) {
  const KernelSignature& gemm = signature_of("gemm");
  EXPECT(gemm.tensors.size() == 6 && gemm.attributes.size() == 13);
  EXPECT(gemm.tensors[0].name == "a" && gemm.tensors[0].role == Role::in &&
         gemm.tensors[0].any_shape);
  EXPECT(gemm.tensors[2].name == "bias" && gemm.tensors[2].optional &&
         gemm.tensors[2].dtype == "f32");
  EXPECT(gemm.tensors[5].name == "c" && gemm.tensors[5].role == Role::inout &&
         gemm.tensors[5].dtype == "G");
  EXPECT(gemm.attributes.front() == "m" && gemm.attributes.back() == "stride_c");
  const KernelSignature& attention = signature_of("attention_forward");
  EXPECT((attention.tensors[0].dimensions ==
          std::vector<std::string>{"tokens", "3", "heads", "size"}));
  EXPECT(attention.tensors[3].role == Role::out);
  const KernelSignature& accumulate = signature_of("accumulate");
  EXPECT(accumulate.attributes.empty() && accumulate.tensors[1].same_shape_as == 0);
}

TEST(calls_that_fit_are_let_through) {
  std::string message;
  for (const KernelSignature& signature : kernel_table()) {
    std::vector<voltaic_tensor> tensors = fitting_tensors(signature);
    EXPECT_TEXT(check(signature, tensors, message) == VOLTAIC_OK,
                op_name(signature) + " is called rightly: " + message);
    for (size_t i = 0; i < tensors.size(); i++)
      if (signature.tensors[i].optional) tensors[i].rank = -1;
    EXPECT_TEXT(check(signature, tensors, message) == VOLTAIC_OK,
                op_name(signature) + " without options: " + message);
    for (size_t i = 0; i < tensors.size(); i++)  // F and G change together with all their namesakes
      if (contains({"F", "G", "A"}, signature.tensors[i].dtype))
        tensors[i].dtype = VOLTAIC_BFLOAT16;
    EXPECT_TEXT(check(signature, tensors, message) == VOLTAIC_OK,
                op_name(signature) + " in bf16: " + message);
  }
}

TEST(a_missing_argument_is_named) {
  for (const KernelSignature& signature : kernel_table())
    for (size_t i = 0; i < signature.tensors.size(); i++) {
      if (signature.tensors[i].optional) continue;
      std::vector<voltaic_tensor> tensors = fitting_tensors(signature);
      tensors[i].rank = -1;
      expect_refused(signature, tensors, VOLTAIC_ERROR_ARGUMENT, signature.tensors[i].name,
                     {"missing"});
    }
}

TEST(wrong_counts_of_tensors_and_attributes_are_told) {
  for (const KernelSignature& signature : kernel_table()) {
    std::vector<voltaic_tensor> tensors = fitting_tensors(signature);
    const uint32_t count = static_cast<uint32_t>(tensors.size()),
                   attributes = static_cast<uint32_t>(signature.attributes.size());
    tensors.push_back({});
    std::string message;
    for (const auto& [tensor_count, attribute_count] :
         {std::pair{count + 1, attributes}, std::pair{count - 1, attributes},
          std::pair{count, attributes + 1}}) {
      message.clear();
      EXPECT(check_call(signature, tensors.data(), tensor_count, attribute_count, message) ==
             VOLTAIC_ERROR_ARGUMENT);
      for (const std::string& text :
           {op_name(signature), std::to_string(tensor_count), std::to_string(attribute_count),
            std::to_string(count), std::to_string(attributes)})
        EXPECT_TEXT(message.find(text) != std::string::npos, message + " says " + text);
    }
  }
}

TEST(every_wrong_dtype_is_told_with_the_right_one) {
  for (const KernelSignature& signature : kernel_table())
    for (size_t i = 0; i < signature.tensors.size(); i++) {
      const TensorParameter& parameter = signature.tensors[i];
      const std::vector<voltaic_tensor> right = fitting_tensors(signature);
      std::string message;
      for (int32_t dtype = 0; dtype < 4; dtype++) {
        std::vector<voltaic_tensor> tensors = right;
        tensors[i].dtype = dtype;
        const bool known = dtype_known_before(signature, i);
        if (parameter.dtype == "any" || dtype == right[i].dtype ||
            (parameter.dtype == "A" && !known)) {
          // A first A binds; later ones then differ from it
          const voltaic_status status = check(signature, tensors, message);
          EXPECT_TEXT(
              status == VOLTAIC_OK || (status == VOLTAIC_ERROR_DTYPE && parameter.dtype == "A"),
              message);
          continue;
        }
        const bool variable = parameter.dtype == "F" || parameter.dtype == "G";
        if (variable && !known && dtype == VOLTAIC_BFLOAT16)
          continue;  // the first one of its name may be either
        const bool names_both = variable && dtype != VOLTAIC_BFLOAT16;
        expect_refused(signature, tensors, VOLTAIC_ERROR_DTYPE, parameter.name,
                       {std::string("is ") + kDtypeNames[dtype],
                        names_both ? "expected float32 or bfloat16"
                                   : std::string("expected ") + kDtypeNames[right[i].dtype]});
      }
    }
}

TEST(every_wrong_rank_and_dimension_is_told_with_the_right_one) {
  for (const KernelSignature& signature : kernel_table())
    for (size_t i = 0; i < signature.tensors.size(); i++) {
      const TensorParameter& parameter = signature.tensors[i];
      const std::vector<voltaic_tensor> right = fitting_tensors(signature);
      if (parameter.same_shape_as >= 0) {
        std::vector<voltaic_tensor> tensors = right;
        tensors[i].shape[0]++;
        const std::string other =
            signature.tensors[static_cast<size_t>(parameter.same_shape_as)].name;
        expect_refused(signature, tensors, VOLTAIC_ERROR_SHAPE, parameter.name,
                       {"[6, 7]", "[5, 7]", "as " + other + " has"});
        tensors[i] = right[i];
        tensors[i].rank = 1;
        expect_refused(signature, tensors, VOLTAIC_ERROR_SHAPE, parameter.name, {"[5]", "[5, 7]"});
      }
      std::string pattern = "[";
      for (size_t d = 0; d < parameter.dimensions.size(); d++)
        pattern += (d ? ", " : "") + parameter.dimensions[d];
      pattern += "]";
      for (size_t d = 0; d < parameter.dimensions.size(); d++) {
        const std::string& dimension = parameter.dimensions[d];
        if (!dimension_known_before(signature, i, dimension)) continue;
        std::vector<voltaic_tensor> tensors = right;
        tensors[i].shape[d] += 100;
        expect_refused(signature, tensors, VOLTAIC_ERROR_SHAPE, parameter.name,
                       {std::to_string(right[i].shape[d] + 100), pattern,
                        dimension + " = " + std::to_string(right[i].shape[d])});
      }
      if (parameter.any_shape || parameter.same_shape_as >= 0) continue;
      std::vector<voltaic_tensor> tensors = right;
      if (tensors[i].rank < VOLTAIC_MAX_RANK) {
        tensors[i].shape[tensors[i].rank++] = 1;
        expect_refused(signature, tensors, VOLTAIC_ERROR_SHAPE, parameter.name,
                       {"expected " + pattern});
      }
      tensors = right;
      tensors[i].rank--;
      expect_refused(signature, tensors, VOLTAIC_ERROR_SHAPE, parameter.name,
                     {"expected " + pattern});
    }
}
