#include "kernel.cuh"

namespace voltaic {

VOLTAIC_CUDA_KERNELS(embedding, {"", nullptr})

}  // namespace voltaic
