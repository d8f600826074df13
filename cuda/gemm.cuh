#include "kernel.cuh"

namespace voltaic {

VOLTAIC_CUDA_KERNELS(gemm, {"", nullptr})

}  // namespace voltaic
