#include "kernel.cuh"

namespace voltaic {

VOLTAIC_CUDA_KERNELS(elementwise, {"", nullptr})

}  // namespace voltaic
