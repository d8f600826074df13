#include "kernel.cuh"

namespace voltaic {

VOLTAIC_CUDA_KERNELS(rows, {"", nullptr})

}  // namespace voltaic
