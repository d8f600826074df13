{
  "variables": {
    "voltaic_cpu": [
      "native/cpu/gemm.cpp",
      "native/cpu/activation.cpp",
      "native/cpu/layer_norm.cpp",
      "native/cpu/embedding.cpp",
      "native/cpu/attention.cpp",
      "native/cpu/softmax.cpp",
      "native/cpu/vocabulary_head.cpp",
      "native/cpu/discriminator_head.cpp",
      "native/cpu/corruption.cpp",
      "native/cpu/rows.cpp",
      "native/cpu/elementwise.cpp",
      "native/cpu/reduction.cpp",
      "native/cpu/random.cpp",
      "native/cpu/optimizer.cpp"
    ],
    "voltaic_cpu_products": [
      "native/cpu/gemm.cpp",
      "native/cpu/attention.cpp"
    ],
    "voltaic_cuda": [
      "cuda/backend.cu",
      "cuda/matmul_library.cu",
      "cuda/gemm.cuh",
      "cuda/activation.cuh",
      "cuda/layer_norm.cuh",
      "cuda/embedding.cuh",
      "cuda/attention.cuh",
      "cuda/softmax.cuh",
      "cuda/vocabulary_head.cuh",
      "cuda/discriminator_head.cuh",
      "cuda/corruption.cuh",
      "cuda/rows.cuh",
      "cuda/elementwise.cuh",
      "cuda/reduction.cuh",
      "cuda/random.cuh",
      "cuda/optimizer.cuh"
    ],
    "voltaic_emulator": [
      "cuda/emulator/scheduler.cpp",
      "cuda/emulator/runtime.cpp"
    ],
    "voltaic_engine": [
      "native/engine/kernel_table.cpp",
      "native/engine/allocator.cpp",
      "native/engine/profile.cpp",
      "native/engine/stream.cpp",
      "native/engine/parallel.cpp",
      "native/engine/backends.cpp",
      "native/cpu/backend.cpp"
    ],
    "voltaic_text": [
      "native/text/unicode.cpp",
      "native/text/normalizer.cpp",
      "native/text/wordpiece.cpp",
      "native/text/vocabulary_trainer.cpp"
    ],
    "voltaic_addon": [
      "native/addon/addon.cpp",
      "native/addon/environment.cpp",
      "native/addon/tensors.cpp",
      "native/addon/graphs.cpp",
      "native/addon/text.cpp",
      "native/addon/files.cpp"
    ],
    "voltaic_cxx_flags": [
      "-O3",
      "-fno-math-errno",
      "-fno-trapping-math",
      "-ffp-contract=off",
      "-Wno-psabi"
    ],
    "voltaic_avx2_flags": [
      "-mavx2",
      "-mfma",
      "-mf16c",
      "-mbmi2"
    ],
    "voltaic_avx512_flags": [
      "-mavx512f",
      "-mavx512vl",
      "-mavx512bw",
      "-mavx512dq",
      "-mfma",
      "-mf16c",
      "-mbmi2",
      "-mprefer-vector-width=512",
      "-Wno-maybe-uninitialized",
      "-Wno-uninitialized"
    ],
    "voltaic_avx512bf16_flags": [
      "-mavx512bf16"
    ],
    "voltaic_amx_flags": [
      "-mavx512bf16",
      "-mamx-tile",
      "-mamx-bf16"
    ],
    "voltaic_test": [
      "test/native/harness.cpp",
      "test/native/gemm_test.cpp",
      "test/native/activation_test.cpp",
      "test/native/layer_norm_test.cpp",
      "test/native/embedding_test.cpp",
      "test/native/attention_test.cpp",
      "test/native/softmax_test.cpp",
      "test/native/vocabulary_head_test.cpp",
      "test/native/discriminator_head_test.cpp",
      "test/native/corruption_test.cpp",
      "test/native/rows_test.cpp",
      "test/native/elementwise_test.cpp",
      "test/native/reduction_test.cpp",
      "test/native/random_test.cpp",
      "test/native/optimizer_test.cpp",
      "test/native/simd_math_test.cpp",
      "test/native/kernel_table_test.cpp",
      "test/native/parallel_test.cpp",
      "test/native/engine_test.cpp",
      "test/native/text_test.cpp",
      "test/native/simd_philox_test.cpp"
    ],
    "voltaic_cpu_flags": [
      "-fno-exceptions"
    ],
    "voltaic_nvcc_flags": [
      "--expt-relaxed-constexpr",
      "--compress-mode=size",
      "-diag-suppress=177",
      "-Xcompiler=-Wall,-Wextra,-Wno-psabi,-fno-math-errno",
      "--resource-usage"
    ],
    "voltaic_emulator_flags": [
      "-std=c++20",
      "-O2",
      "-march=native",
      "-ffp-contract=off",
      "-fno-math-errno",
      "-fPIC",
      "-fvisibility=hidden",
      "-Wall",
      "-Wextra",
      "-Wno-psabi",
      "-Wno-unused-function",
      "-Wno-unknown-pragmas",
      "-Icuda/emulator"
    ]
  }
}
