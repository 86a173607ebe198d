// A kernel's text, and what NVIDIA's own NVRTC says of it.
#pragma once
#include <string>
#include <utility>
#include <vector>

namespace emulated {

struct Text {
  std::string source, name;
  std::vector<std::pair<std::string, std::string>> headers;  // names and texts
  std::vector<std::string> expressions;
};

// nvidia.cpp
std::string nvidia_version();  // or "", where EMULATOR_NVRTC is 0
// Compiles the text for each architecture and writes what comes of it into the log; whether all took it.
bool nvidia_takes(const Text& text, int count, const char* const* options, std::string& log);

}  // namespace emulated
