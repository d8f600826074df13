#include "kernel.cuh"

namespace voltaic {

VOLTAIC_CUDA_KERNELS(softmax, {"", nullptr})

}  // namespace voltaic
