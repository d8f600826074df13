#include "kernel.cuh"

namespace voltaic {

VOLTAIC_CUDA_KERNELS(discriminator_head, {"", nullptr})

}  // namespace voltaic
