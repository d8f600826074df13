#include "kernel.cuh"

namespace voltaic {

VOLTAIC_CUDA_KERNELS(layer_norm, {"", nullptr})

}  // namespace voltaic
