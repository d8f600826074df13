// Products by a library that is looked for at run time (cuBLASLt), behind one function.
#pragma once
#include "stream.cuh"

namespace voltaic::cuda {

// c = alpha op(a) op(b) + beta c (+ bias), per batch, as the kernel table's gemm describes it.
struct MatmulProblem {
  int64_t m, n, k;
  bool transpose_a, transpose_b;
  float alpha, beta;
  int64_t batch, stride_a, stride_b, stride_c;  // strides in elements
  int32_t dtype, c_dtype;                       // voltaic_dtype of a and b, and of c
  const void *a, *b;
  void* c;
  const float* bias;  // [n], or null
  // Elements from one row of a and of b, as they lie in memory, to the next. 0: nothing between.
  int64_t leading_a = 0, leading_b = 0;
};

// Whether the stream's library does this problem; then *status says how queueing it went. False,
// with nothing queued: the caller computes it (no library, or a problem that the library does not
// take; a problem with a bias may be taken without it). Uses none of the call's scratch memory.
bool matmul_by_library(const voltaic_call* call, const MatmulProblem& problem,
                       voltaic_status* status);

// A stream's part of the library: opened with the stream, closed with it. Never fails: without a
// library stream->matmul stays null.
void open_matmul_library(voltaic_stream* stream);
void close_matmul_library(voltaic_stream* stream);

// "cuBLASLt 13.1.0 (/path/libcublasLt.so.13)", or why there is none, for people.
void describe_matmul_library(char* text, size_t length);

// The choices among the library's algorithms as text (voltaic_backend::setting_get and
// setting_set).
//
// get: all choices that the stream has made or taken (matmul_library_choices.h), "off" when it was
// switched off, "" without a library.
// set: "": as a stream begins: the library without timing, nothing chosen yet.
//      "tune": time the library's candidates for each new kind of product, and keep the fastest.
//      "off": own kernels only, on this stream. "on": the library, without timing (what was chosen
//      stays). A text that get wrote: use exactly these algorithms; later products are chosen as
//      before. When another version or kind of card wrote it, VOLTAIC_ERROR_UNSUPPORTED, and
//      nothing changes. Whatever needs the library is VOLTAIC_ERROR_UNSUPPORTED where there is
//      none.
voltaic_status matmul_choices(voltaic_stream* stream, char* text, size_t length, size_t* needed,
                              char* message);
voltaic_status set_matmul_choices(voltaic_stream* stream, const char* text, char* message);

}  // namespace voltaic::cuda
