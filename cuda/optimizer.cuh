#include "kernel.cuh"

namespace voltaic {

VOLTAIC_CUDA_KERNELS(optimizer, {"", nullptr})

}  // namespace voltaic
