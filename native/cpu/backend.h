// The CPU as a backend: the kernels of one instruction set behind the table of backend_abi.h.
#pragma once
#include <string>
#include <vector>

#include "../engine/backend_abi.h"

namespace voltaic {

// Instruction sets that this build holds and this processor runs, best last: "portable", "avx2",
// "avx512", "avx512bf16", "amx".
std::vector<std::string> cpu_instruction_sets();

// The backend for one of them; nullptr when it is not built in or the processor lacks it.
const voltaic_backend* cpu_backend(const std::string& instruction_set);

// The one that VOLTAIC_CPU names (it can only lower the choice), else the best. Throws
// std::runtime_error with a sentence for people when VOLTAIC_CPU names none that runs here.
const voltaic_backend* default_cpu_backend();

}  // namespace voltaic
