// Choices among cuBLASLt's algorithms as text, so that a resumed run multiplies with the same ones.
// An algorithm's bytes mean something to the version and kind of card that they came from only, so
// the first line names both:
//
//   cublaslt 13.1.0 sm_90
//   m=512 n=768 k=256 transposed=01 leading=256,256 c=bf16 bias=2 batch=1,0,0,0 aligned=256,256,256
//   choice=0 0123...
//
// transposed, leading: of a and of b; bias: 0 none, 1 fp32, 2 rounded to bf16; batch: items and the
// strides of a, b and c; aligned: a, b and c, in bytes; choice: the place in the library's list, -1
// for "none, use our own kernels" (then without bytes); last the algorithm's 64 bytes.
#pragma once
#include <cstdio>
#include <string>

#include "matmul_library_plan.h"

namespace voltaic::cuda {
namespace {

inline std::string choices_header(const std::string& version, int32_t architecture) {
  return "cublaslt " + version + " sm_" + std::to_string(architecture);
}

inline std::string choice_line(const ProductKey& key, const Choice& choice) {
  char line[512];
  std::snprintf(line, sizeof line,
                "m=%lld n=%lld k=%lld transposed=%d%d leading=%lld,%lld c=%s bias=%d "
                "batch=%lld,%lld,%lld,%lld aligned=%d,%d,%d choice=%d",
                static_cast<long long>(key.m), static_cast<long long>(key.n),
                static_cast<long long>(key.k), key.transpose_a, key.transpose_b,
                static_cast<long long>(key.leading_a), static_cast<long long>(key.leading_b),
                key.c_dtype == VOLTAIC_FLOAT32 ? "fp32" : "bf16", choice.bias,
                static_cast<long long>(key.batch), static_cast<long long>(key.stride_a),
                static_cast<long long>(key.stride_b), static_cast<long long>(key.stride_c),
                key.align_a, key.align_b, key.align_c, choice.index);
  std::string text = line;
  if (choice.index < 0) return text;
  text += ' ';
  const auto* const bytes = reinterpret_cast<const unsigned char*>(&choice.algorithm);
  for (size_t i = 0; i < sizeof choice.algorithm; i++) {
    std::snprintf(line, sizeof line, "%02x", bytes[i]);
    text += line;
  }
  return text;
}

inline int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

// False: the line is not one that choice_line wrote.
inline bool parse_choice(const std::string& line, ProductKey& key, Choice& choice) {
  long long m, n, k, leading_a, leading_b, batch, stride_a, stride_b, stride_c;
  int transpose_a, transpose_b, bias, align_a, align_b, align_c, index, end = 0;
  char dtype[5];
  if (std::sscanf(line.c_str(),
                  "m=%lld n=%lld k=%lld transposed=%1d%1d leading=%lld,%lld c=%4s bias=%d "
                  "batch=%lld,%lld,%lld,%lld aligned=%d,%d,%d choice=%d%n",
                  &m, &n, &k, &transpose_a, &transpose_b, &leading_a, &leading_b, dtype, &bias,
                  &batch, &stride_a, &stride_b, &stride_c, &align_a, &align_b, &align_c, &index,
                  &end) != 17)
    return false;
  const std::string type = dtype;
  if (m <= 0 || n <= 0 || k <= 0 || leading_a < (transpose_a ? m : k) ||
      leading_b < (transpose_b ? k : n) || batch <= 0 || bias < kNoBias || bias > kBiasRounded ||
      index < -1 || (type != "fp32" && type != "bf16"))
    return false;
  key = {m,
         n,
         k,
         transpose_a,
         transpose_b,
         leading_a,
         leading_b,
         type == "fp32" ? VOLTAIC_FLOAT32 : VOLTAIC_BFLOAT16,
         bias != kNoBias,
         batch,
         stride_a,
         stride_b,
         stride_c,
         align_a,
         align_b,
         align_c};
  choice = {static_cast<BiasForm>(bias), index, {}};
  const std::string rest = line.substr(static_cast<size_t>(end));
  if (index < 0) return rest.empty();
  if (rest.size() != 1 + 2 * sizeof choice.algorithm || rest[0] != ' ') return false;
  auto* const bytes = reinterpret_cast<unsigned char*>(&choice.algorithm);
  for (size_t i = 0; i < sizeof choice.algorithm; i++) {
    const int high = hex_digit(rest[1 + 2 * i]), low = hex_digit(rest[2 + 2 * i]);
    if (high < 0 || low < 0) return false;
    bytes[i] = static_cast<unsigned char>(16 * high + low);
  }
  return true;
}

}  // namespace
}  // namespace voltaic::cuda
