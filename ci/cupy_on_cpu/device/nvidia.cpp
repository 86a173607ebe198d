// NVIDIA's own NVRTC, from its wheel: it compiles without a driver, and refuses what the host's compiler lets pass.
#include "nvidia.h"

#include "device.h"

#include <dlfcn.h>
#include <nvrtc.h>

#include <cstdlib>

namespace emulated {
namespace {

const char* const ARCHITECTURES[] = {"sm_80", "sm_90"};

#define EACH_CALL(of)                                                                                              \
  of(nvrtcVersion) of(nvrtcGetErrorString) of(nvrtcCreateProgram) of(nvrtcDestroyProgram) of(nvrtcCompileProgram)    \
  of(nvrtcAddNameExpression) of(nvrtcGetCUBINSize) of(nvrtcGetProgramLogSize) of(nvrtcGetProgramLog)

struct Nvidia {
  std::string missing;  // why there is none
#define MEMBER(name) decltype(&::name) name = nullptr;
  EACH_CALL(MEMBER)
#undef MEMBER

  Nvidia() {
    // the second finds the first by its soname; local, as the emulator has the same names
    void* library = dlopen("$ORIGIN/nvrtc/libnvrtc-builtins.so", RTLD_NOW | RTLD_LOCAL);
    if (library) library = dlopen("$ORIGIN/nvrtc/libnvrtc.so", RTLD_NOW | RTLD_LOCAL);
    if (!library) {
      missing = std::string("NVIDIA's NVRTC can't be loaded, EMULATOR_NVRTC=0 leaves it out: ") + dlerror();
      return;
    }
#define FIND(name) name = reinterpret_cast<decltype(name)>(dlsym(library, #name));
    EACH_CALL(FIND)
#undef FIND
  }
};

const Nvidia& nvidia() {
  static const Nvidia loaded;
  return loaded;
}

bool left_out() {
  const char* setting = getenv("EMULATOR_NVRTC");
  return setting && std::string(setting) == "0";
}

// Whether this architecture takes the text, and what to say of it.
bool takes(const Text& text, const std::vector<const char*>& options, std::string& said) {
  const Nvidia& by = nvidia();
  std::vector<const char*> names, texts;
  for (auto& [name, header] : text.headers) names.push_back(name.c_str()), texts.push_back(header.c_str());
  nvrtcProgram program = nullptr;
  nvrtcResult result = by.nvrtcCreateProgram(&program, text.source.c_str(), text.name.c_str(), int(names.size()),
                                             texts.data(), names.data());
  for (auto& expression : text.expressions)
    if (result == NVRTC_SUCCESS) result = by.nvrtcAddNameExpression(program, expression.c_str());
  if (result == NVRTC_SUCCESS) result = by.nvrtcCompileProgram(program, int(options.size()), options.data());
  size_t bytes = 0;
  if (result == NVRTC_SUCCESS) {
    by.nvrtcGetCUBINSize(program, &bytes);
    said = std::to_string(bytes) + " bytes";
  } else {
    said = by.nvrtcGetErrorString(result);
    if (program && by.nvrtcGetProgramLogSize(program, &bytes) == NVRTC_SUCCESS) {
      std::string log(bytes, 0);
      by.nvrtcGetProgramLog(program, log.data());
      said += "\n" + std::string(log.c_str());
    }
  }
  if (program) by.nvrtcDestroyProgram(&program);
  return result == NVRTC_SUCCESS;
}

}  // namespace

std::string nvidia_version() {
  if (left_out() || !nvidia().missing.empty()) return "";
  int major = 0, minor = 0;
  nvidia().nvrtcVersion(&major, &minor);
  return std::to_string(major) + "." + std::to_string(minor);
}

bool nvidia_takes(const Text& text, int count, const char* const* given, std::string& log) {
  if (left_out()) return true;
  if (!nvidia().missing.empty()) {
    log = nvidia().missing;
    return false;
  }
  std::vector<const char*> options;
  for (int i = 0; i < count; i++) {
    std::string option = given[i];
    if (option.rfind("-arch", 0) && option.rfind("--gpu-architecture", 0)) options.push_back(given[i]);
    else if (option.find('=') == std::string::npos) i++;  // its value
  }
  for (std::string architecture : ARCHITECTURES) {
    std::string option = "--gpu-architecture=" + architecture, said;
    options.push_back(option.c_str());
    bool taken = takes(text, options, said);
    options.pop_back();
    std::string by = "NVIDIA's NVRTC " + nvidia_version();
    if (!taken) {
      log = by + " refuses for " + architecture + " what the host's compiler takes: " + said;
      return false;
    }
    log += by + " takes it for " + architecture + ": " + said + "\n";
  }
  return true;
}

}  // namespace emulated

// NVRTC asks a driver for tables where it finds libcuda.so.1, here the emulated one; refused, it does without, but it
// crashes where the call is missing.
API CUresult cuGetExportTable(const void**, const CUuuid*) { return CUDA_ERROR_NOT_SUPPORTED; }
