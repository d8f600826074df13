#include "kernel.cuh"

namespace voltaic {

VOLTAIC_CUDA_KERNELS(vocabulary_head, {"", nullptr})

}  // namespace voltaic
