#include "kernel.cuh"

namespace voltaic {

VOLTAIC_CUDA_KERNELS(random, {"", nullptr})

}  // namespace voltaic
