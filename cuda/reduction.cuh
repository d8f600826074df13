#include "kernel.cuh"

namespace voltaic {

VOLTAIC_CUDA_KERNELS(reduction, {"", nullptr})

}  // namespace voltaic
