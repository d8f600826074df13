#include "matmul_library.cuh"

namespace voltaic::cuda {

bool matmul_by_library(const voltaic_call*, const MatmulProblem&, voltaic_status*) { return false; }
void open_matmul_library(voltaic_stream*) {}
void close_matmul_library(voltaic_stream*) {}
void describe_matmul_library(char* text, size_t length) { std::snprintf(text, length, "none"); }
voltaic_status matmul_choices(voltaic_stream*, char*, size_t, size_t*, char*) { return VOLTAIC_OK; }
voltaic_status set_matmul_choices(voltaic_stream*, const char*, char*) { return VOLTAIC_OK; }

}  // namespace voltaic::cuda
