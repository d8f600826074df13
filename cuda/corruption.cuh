#include "kernel.cuh"

namespace voltaic {

VOLTAIC_CUDA_KERNELS(corruption, {"", nullptr})

}  // namespace voltaic
