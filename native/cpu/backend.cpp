// Assembles the CPU backend: which instruction sets this build and this processor have, and the
// kernels of each.
#include "backend.h"

#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <stdexcept>

#include "../engine/parallel.h"

#define FAMILY(name)                                                               \
  extern "C" const voltaic_kernel_entry* voltaic_cpu_##name##_portable(uint32_t*); \
  extern "C" const voltaic_kernel_entry* voltaic_cpu_##name##_avx2(uint32_t*);     \
  extern "C" const voltaic_kernel_entry* voltaic_cpu_##name##_avx512(uint32_t*);
#define PRODUCT_FAMILY(name)                                                         \
  FAMILY(name)                                                                       \
  extern "C" const voltaic_kernel_entry* voltaic_cpu_##name##_avx512bf16(uint32_t*); \
  extern "C" const voltaic_kernel_entry* voltaic_cpu_##name##_amx(uint32_t*);
#include "families.inc"
#undef FAMILY
#undef PRODUCT_FAMILY
#if defined(VOLTAIC_EMULATED_LEVEL)
#define FAMILY(name) \
  extern "C" const voltaic_kernel_entry* voltaic_cpu_##name##_emulated(uint32_t*);
#define PRODUCT_FAMILY(name) \
  FAMILY(name)               \
  extern "C" const voltaic_kernel_entry* voltaic_cpu_##name##_emulated_dots(uint32_t*);
#include "families.inc"
#undef FAMILY
#undef PRODUCT_FAMILY
#endif

namespace voltaic {
namespace {

using FamilyKernels = const voltaic_kernel_entry* (*)(uint32_t*);

struct Level {
  const char* name;
  bool (*runs_here)();
  std::vector<FamilyKernels> families;
};

#if defined(__x86_64__)
// These builtins also ask whether the operating system saves the registers.
bool has_avx2() {
  __builtin_cpu_init();
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}
bool has_avx512() {
  return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
         __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq");
}
bool has_avx512bf16() { return has_avx512() && __builtin_cpu_supports("avx512bf16"); }
// AMD's cores do dots of bf16 pairs at twice the FLOPs of fp32 multiply-adds, Intel's at half of
// them (measured: 235 against 117 GFLOP/s on Zen 4, 112 against 214 on a Xeon with AMX).
bool dots_are_fast() { return has_avx512bf16() && __builtin_cpu_is("amd"); }
// AMX's tile registers must be asked for, once a process.
bool has_amx() {
  if (!has_avx512bf16()) return false;
  unsigned a = 7, b = 0, c = 0, d = 0;
  asm volatile("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
  const bool tiles = d >> 24 & 1, bf16 = d >> 22 & 1;
  if (!tiles || !bf16) return false;
#if defined(__linux__)
  constexpr long kRequestPermission = 0x1023, kTileData = 18;
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
  return false;
#endif
}
#else
bool dots_are_fast() { return false; }
#endif

const std::vector<Level>& levels() {
  static const std::vector<Level> all = {
#if defined(VOLTAIC_EMULATED_LEVEL)
#define FAMILY(name) voltaic_cpu_##name##_emulated,
#define PRODUCT_FAMILY(name) FAMILY(name)
    // Native tests only: the 16-lane code with AMX, and with dots of bf16 pairs, lowered to AVX2.
    {"emulated",
     has_avx2,
     {
#include "families.inc"
     }},
#undef PRODUCT_FAMILY
#define PRODUCT_FAMILY(name) voltaic_cpu_##name##_emulated_dots,
    {"emulated_dots",
     has_avx2,
     {
#include "families.inc"
     }},
#undef FAMILY
#undef PRODUCT_FAMILY
#endif
#define FAMILY(name) voltaic_cpu_##name##_portable,
#define PRODUCT_FAMILY(name) FAMILY(name)
    {"portable",
     [] { return true; },
     {
#include "families.inc"
     }},
#undef FAMILY
#undef PRODUCT_FAMILY
#if defined(__x86_64__)
#define FAMILY(name) voltaic_cpu_##name##_avx2,
#define PRODUCT_FAMILY(name) FAMILY(name)
    {"avx2",
     has_avx2,
     {
#include "families.inc"
     }},
#undef FAMILY
#undef PRODUCT_FAMILY
#define FAMILY(name) voltaic_cpu_##name##_avx512,
#define PRODUCT_FAMILY(name) FAMILY(name)
    {"avx512",
     has_avx512,
     {
#include "families.inc"
     }},
#undef FAMILY
#undef PRODUCT_FAMILY
#define FAMILY(name) voltaic_cpu_##name##_avx512,
#define PRODUCT_FAMILY(name) voltaic_cpu_##name##_avx512bf16,
    {"avx512bf16",
     has_avx512bf16,
     {
#include "families.inc"
     }},
#undef PRODUCT_FAMILY
#define PRODUCT_FAMILY(name) voltaic_cpu_##name##_amx,
    {"amx",
     has_amx,
     {
#include "families.inc"
     }},
#undef FAMILY
#undef PRODUCT_FAMILY
#endif
  };
  return all;
}

// ---- memory and streams: the engine's stream thread computes, so a stream has no state of its own

constexpr size_t kHugePage = size_t{2} << 20;

voltaic_status memory_allocate(int32_t, size_t bytes, void** out, char* message) {
  const bool large = bytes >= 2 * kHugePage;
  const size_t alignment = large ? kHugePage : 64;
  const size_t rounded = (bytes + alignment - 1) / alignment * alignment;
  *out = rounded < bytes ? nullptr : std::aligned_alloc(alignment, rounded);
  if (*out == nullptr) {
    std::snprintf(message, VOLTAIC_MESSAGE_LENGTH, "the system gave no %zu bytes", bytes);
    return VOLTAIC_ERROR_OUT_OF_MEMORY;
  }
#if defined(MADV_HUGEPAGE)
  if (large) madvise(*out, rounded, MADV_HUGEPAGE);
#endif
  return VOLTAIC_OK;
}

void memory_release(int32_t, void* pointer) { std::free(pointer); }

voltaic_status stream_create(int32_t, voltaic_stream** out, char*) {
  *out = nullptr;
  return VOLTAIC_OK;
}
void stream_destroy(voltaic_stream*) {}

voltaic_status copy(voltaic_stream*, void* to, const void* from, size_t bytes, voltaic_copy_kind,
                    char*) {
  std::memcpy(to, from, bytes);
  return VOLTAIC_OK;
}
voltaic_status synchronize(voltaic_stream*, char*) { return VOLTAIC_OK; }

voltaic_status probe(int32_t* count, char*, size_t) {
  *count = 1;
  return VOLTAIC_OK;
}

void processor_name(char* name, size_t length) {
  std::snprintf(name, length, "CPU");
  FILE* const file = std::fopen("/proc/cpuinfo", "r");
  if (file == nullptr) return;
  char line[256];
  while (std::fgets(line, sizeof line, file)) {
    if (std::strncmp(line, "model name", 10) != 0) continue;
    if (const char* colon = std::strchr(line, ':')) {
      line[std::strcspn(line, "\n")] = 0;
      std::snprintf(name, length, "%s", colon + 2);
    }
    break;
  }
  std::fclose(file);
}

template <int level>
voltaic_status device_info(int32_t, voltaic_device_info* out, char*) {
  const long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE),
             free_pages = sysconf(_SC_AVPHYS_PAGES);
  out->device = 0;
  out->total_bytes = static_cast<uint64_t>(pages) * static_cast<uint64_t>(page);
  out->free_bytes = static_cast<uint64_t>(free_pages) * static_cast<uint64_t>(page);
  processor_name(out->name, sizeof out->name);
  std::snprintf(out->instruction_set, sizeof out->instruction_set, "%s", levels()[level].name);
  const std::string name = out->instruction_set;
  out->bfloat16_is_fast = name == "amx" || (name == "avx512bf16" && dots_are_fast());
  return VOLTAIC_OK;
}

struct CpuBackend {
  std::vector<voltaic_kernel_entry> kernels;
  voltaic_backend table = {};
};

const voltaic_backend* assemble(size_t level) {
  auto* const backend = new CpuBackend;
  for (const FamilyKernels family : levels()[level].families) {
    uint32_t count = 0;
    const voltaic_kernel_entry* entries = family(&count);
    backend->kernels.insert(backend->kernels.end(), entries, entries + count);
  }
  using DeviceInfo = decltype(voltaic_backend::device_info);
  constexpr std::array<DeviceInfo, 7> infos = {device_info<0>, device_info<1>, device_info<2>,
                                               device_info<3>, device_info<4>, device_info<5>,
                                               device_info<6>};
  voltaic_backend& table = backend->table;
  table.abi_version = VOLTAIC_BACKEND_ABI_VERSION;
  table.struct_size = sizeof table;
  table.name = "cpu";
  table.build_info = "built with " __VERSION__;
  table.probe = probe;
  table.device_info = infos[level];
  table.memory_allocate = memory_allocate;
  table.memory_release = memory_release;
  table.stream_create = stream_create;
  table.stream_destroy = stream_destroy;
  table.copy = copy;
  table.synchronize = synchronize;
  table.kernel_count = static_cast<uint32_t>(backend->kernels.size());
  table.kernels = backend->kernels.data();
  return &table;
}

// The one to take when nobody says which; names: those that run here, in the table's order.
std::string best_level(const std::vector<std::string>& names) {
  return names.back() == "avx512bf16" && !dots_are_fast() ? "avx512" : names.back();
}

}  // namespace

std::vector<std::string> cpu_instruction_sets() {
  std::vector<std::string> names;
  for (const Level& level : levels())
    if (level.runs_here()) names.push_back(level.name);
  return names;
}

const voltaic_backend* cpu_backend(const std::string& instruction_set) {
  // Assembled once a process and never freed: streams of several environments share them.
  static const std::map<std::string, const voltaic_backend*>* const backends = [] {
    auto* const made = new std::map<std::string, const voltaic_backend*>;
    for (size_t i = 0; i < levels().size(); i++)
      if (levels()[i].runs_here()) (*made)[levels()[i].name] = assemble(i);
    return made;
  }();
  const auto found = backends->find(instruction_set);
  return found == backends->end() ? nullptr : found->second;
}

const voltaic_backend* default_cpu_backend() {
  const std::vector<std::string> names = cpu_instruction_sets();
  const char* const wanted = std::getenv("VOLTAIC_CPU");
  if (wanted == nullptr || wanted[0] == 0 || std::strcmp(wanted, "auto") == 0)
    return cpu_backend(best_level(names));
  if (const voltaic_backend* backend = cpu_backend(wanted)) return backend;
  std::string list;
  for (const std::string& name : names) list += (list.empty() ? "" : ", ") + name;
  throw std::runtime_error("VOLTAIC_CPU=" + std::string(wanted) +
                           " does not run here; this processor and build have: " + list + ", auto");
}

}  // namespace voltaic
