// Opens backends that live in shared libraries of their own, and says why one is missing.
#pragma once
#include <string>
#include <vector>

#include "backend_abi.h"

namespace voltaic {

struct BackendLibrary {
  const voltaic_backend* backend = nullptr;  // set when the library opened and its ABI agrees
  int32_t devices = 0;
  std::string path;
  std::string reason;  // why there is no device, for people; empty when usable
};

// Tries the candidates in order. needs_driver: look for the NVIDIA driver first, the cheap test
// with the clearest answer.
BackendLibrary open_backend_library(const std::vector<std::string>& candidates, bool needs_driver);

}  // namespace voltaic
