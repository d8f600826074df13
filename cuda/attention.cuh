#include "kernel.cuh"

namespace voltaic {

VOLTAIC_CUDA_KERNELS(attention, {"", nullptr})

}  // namespace voltaic
