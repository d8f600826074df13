{
  "includes": ["sources.gypi"],
  "target_defaults": {
    "cflags_cc!": ["-std=gnu++17", "-std=gnu++20", "-fno-rtti", "-O3"],
    "cflags_cc": ["-std=c++20", "<@(voltaic_cxx_flags)", "-fvisibility=hidden"],
    "xcode_settings": {
      "CLANG_CXX_LANGUAGE_STANDARD": "c++20",
      "GCC_SYMBOLS_PRIVATE_EXTERN": "YES",
      "MACOSX_DEPLOYMENT_TARGET": "11.0",
      "OTHER_CPLUSPLUSFLAGS": ["<@(voltaic_cxx_flags)"]
    }
  },
  "targets": [
    {
      "target_name": "voltaic_cpu_portable",
      "type": "static_library",
      "sources": ["<@(voltaic_cpu)"],
      "defines": ["VOLTAIC_ISA=portable"],
      "cflags_cc": ["<@(voltaic_cpu_flags)"]
    },
    {
      "target_name": "voltaic",
      "sources": ["<@(voltaic_addon)", "<@(voltaic_text)", "<@(voltaic_engine)"],
      "defines": ["NAPI_VERSION=8", "NODE_API_SWALLOW_UNTHROWABLE_EXCEPTIONS"],
      "dependencies": [
        "voltaic_cpu_portable",
        "<!(node -p \"require('node-addon-api').targets\"):node_addon_api_except"
      ],
      "conditions": [
        ["target_arch=='x64'", {
          "dependencies": [
            "voltaic_cpu_avx2",
            "voltaic_cpu_avx512",
            "voltaic_cpu_avx512bf16",
            "voltaic_cpu_amx"
          ]
        }],
        ["OS=='linux'", {
          "libraries": ["-ldl", "-lpthread"],
          # nodelete: the worker pool's threads outlive the last environment that uses the addon, whose end
          # would unmap the code under them.
          "ldflags": [
            "-Wl,-z,nodelete",
            "-Wl,--exclude-libs,ALL",
            "-Wl,--version-script=<(module_root_dir)/native/addon/exports.map"
          ]
        }]
      ]
    }
  ],
  "conditions": [["target_arch=='x64'", {
    "targets": [
      {
        "target_name": "voltaic_cpu_avx2",
        "type": "static_library",
        "sources": ["<@(voltaic_cpu)"],
        "defines": ["VOLTAIC_ISA=avx2"],
        "cflags_cc": ["<@(voltaic_cpu_flags)", "<@(voltaic_avx2_flags)"],
        "xcode_settings": { "OTHER_CPLUSPLUSFLAGS": ["<@(voltaic_avx2_flags)"] }
      },
      {
        "target_name": "voltaic_cpu_avx512",
        "type": "static_library",
        "sources": ["<@(voltaic_cpu)"],
        "defines": ["VOLTAIC_ISA=avx512"],
        "cflags_cc": ["<@(voltaic_cpu_flags)", "<@(voltaic_avx512_flags)"],
        "xcode_settings": { "OTHER_CPLUSPLUSFLAGS": ["<@(voltaic_avx512_flags)"] }
      },
      {
        "target_name": "voltaic_cpu_avx512bf16",
        "type": "static_library",
        "sources": ["<@(voltaic_cpu_products)"],
        "defines": ["VOLTAIC_ISA=avx512bf16"],
        "cflags_cc": ["<@(voltaic_cpu_flags)", "<@(voltaic_avx512_flags)", "<@(voltaic_avx512bf16_flags)"],
        "xcode_settings": {
          "OTHER_CPLUSPLUSFLAGS": ["<@(voltaic_avx512_flags)", "<@(voltaic_avx512bf16_flags)"]
        }
      },
      {
        "target_name": "voltaic_cpu_amx",
        "type": "static_library",
        "sources": ["<@(voltaic_cpu_products)"],
        "defines": ["VOLTAIC_ISA=amx"],
        "cflags_cc": ["<@(voltaic_cpu_flags)", "<@(voltaic_avx512_flags)", "<@(voltaic_amx_flags)"],
        "xcode_settings": { "OTHER_CPLUSPLUSFLAGS": ["<@(voltaic_avx512_flags)", "<@(voltaic_amx_flags)"] }
      }
    ]
  }]]
}
