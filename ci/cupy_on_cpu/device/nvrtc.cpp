// NVRTC: a kernel's text is compiled by the host's C++ compiler (EMULATOR_CXX, g++), behind kernel.h; NVIDIA's own must
// take it too.
// EMULATOR_KEEP=1 keeps the folder of a compilation that failed.
#include "device.h"
#include "nvidia.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <regex>
#include <set>
#include <sstream>

namespace emulated {

std::string text_of(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::stringstream all;
  all << file.rdbuf();
  return all.str();
}

}  // namespace emulated

using namespace emulated;

enum nvrtcResult {  // as NVRTC's manual has them
  NVRTC_SUCCESS = 0,
  NVRTC_ERROR_OUT_OF_MEMORY = 1,
  NVRTC_ERROR_INVALID_OPTION = 5,
  NVRTC_ERROR_COMPILATION = 6,
  NVRTC_ERROR_NAME_EXPRESSION_NOT_VALID = 10
};

namespace {

struct Program : Text {
  std::string log, binary;
  std::vector<std::string> lowered;
};

std::string own_folder() {
  Dl_info info;
  dladdr(reinterpret_cast<void*>(&own_folder), &info);
  return std::filesystem::path(info.dli_fname).parent_path();
}

int run_command(const std::vector<std::string>& command, const std::string& log) {
  std::vector<char*> arguments;
  for (auto& part : command) arguments.push_back(const_cast<char*>(part.c_str()));
  arguments.push_back(nullptr);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, log.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
  pid_t child;
  int status = posix_spawnp(&child, arguments[0], &actions, nullptr, arguments.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  if (status) {
    std::ofstream(log) << arguments[0] << " can't be started: " << strerror(status) << "\n";
    return 127;
  }
  waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128;
}

// Blanks in their place, so that a kernel's name in a comment isn't found.
std::string without_comments(std::string text) {
  for (size_t i = 0; i + 1 < text.size();) {
    if (text[i] == '"') {
      for (i++; i < text.size() && text[i] != '"'; i++) i += text[i] == '\\';
      i++;
    } else if (text[i] == '/' && text[i + 1] == '/') {
      while (i < text.size() && text[i] != '\n') text[i++] = ' ';
    } else if (text[i] == '/' && text[i + 1] == '*') {
      size_t end = text.find("*/", i + 2);
      end = end == std::string::npos ? text.size() : end + 2;
      for (; i < end; i++)
        if (text[i] != '\n') text[i] = ' ';
    } else {
      i++;
    }
  }
  return text;
}

// The kernels that a module gives without being asked for them by an expression: extern "C", and no template.
std::set<std::string> kernels(const std::string& text) {
  static const std::regex form(
      "(extern\\s+\"C\"\\s+)?__global__\\s+(?:static\\s+|inline\\s+)*(?:__launch_bounds__\\s*\\([^)]*\\)\\s*)?void\\s+"
      "(?:__launch_bounds__\\s*\\([^)]*\\)\\s*)?([A-Za-z_]\\w*)\\s*\\(");
  static const std::regex in_block("extern\\s+\"C\"\\s*\\{"), after_template("template\\s*<[^;{}]*>\\s*$");
  bool block = std::regex_search(text, in_block);
  std::set<std::string> found;
  for (std::sregex_iterator match(text.begin(), text.end(), form), end; match != end; ++match) {
    size_t at = size_t(match->position(0)), line = text.rfind('\n', at) + 1, near = std::min<size_t>(at, 200);
    if (text.substr(line, at - line).find("#define") != std::string::npos) continue;
    if (std::regex_search(text.substr(at - near, near), after_template)) continue;
    if ((*match)[1].matched || block) found.insert((*match)[2]);
  }
  return found;
}

// `extern __shared__ T name[];` is the launch's shared memory.
std::string with_dynamic_memory(const std::string& source) {
  static const std::regex form("extern\\s+__shared__\\s+(?:__align__\\s*\\([^)]*\\)\\s*)?([\\w:<>, ]+?)\\s+(\\w+)\\s*\\[\\s*\\]\\s*;");
  return std::regex_replace(source, form, "$1* $2 = ($1*)on_cpu_state.dynamic;");
}

struct Options {
  std::vector<std::string> compiler;  // what the host's compiler is told
  std::string standard = "-std=gnu++17", refused;
  bool macros = false;
};
Options translated(int count, const char* const* options) {
  Options to;
  for (int i = 0; i < count && to.refused.empty(); i++) {
    std::string option = options[i], kind = option.substr(0, 2);
    std::string value = option.substr(std::min(option.size(), option.find('=') + 1));
    if (kind == "-I" || kind == "-D" || kind == "-U") {
      to.compiler.push_back(option);
      to.macros |= kind != "-I";
      if (option.size() == 2 && i + 1 < count) to.compiler.push_back(options[++i]);
    } else if (option.rfind("--include-path=", 0) == 0) {
      to.compiler.push_back("-I" + value);
    } else if (option.rfind("--define-macro=", 0) == 0) {
      to.compiler.push_back("-D" + value);
      to.macros = true;
    } else if (option.rfind("--std=", 0) == 0 || option.rfind("-std=", 0) == 0) {
      to.standard = value == "c++20" ? "-std=gnu++20" : "-std=gnu++17";
    } else if (kind[0] != '-') {
      to.refused = "unrecognized option: " + option;
    }
  }
  return to;
}

void write_text(const std::filesystem::path& path, const std::string& text) {
  std::filesystem::create_directories(path.parent_path());
  std::ofstream(path) << text;
}

std::string with_kernel_tables(const Program& program, std::vector<std::string>& lowered) {
  std::set<std::string> plain = kernels(without_comments(program.source));
  std::string text = "#line 1 \"" + program.name + "\"\n" + with_dynamic_memory(program.source) + "\n#line 1 \"its kernels\"\n";
  for (auto& name : plain) text += "ON_CPU_KERNEL(" + name + ", " + name + ")\n";
  for (size_t i = 0; i < program.expressions.size(); i++) {
    const std::string& expression = program.expressions[i];
    if (expression[0] == '&') continue;  // a variable's address
    if (plain.count(expression)) lowered[i] = expression;
    else text += "ON_CPU_KERNEL(" + lowered[i] + ", " + expression + ")\n";
  }
  return text;
}

Program* of(void* handle) { return static_cast<Program*>(handle); }

}  // namespace

API const char* nvrtcGetErrorString(nvrtcResult result) {
  switch (result) {
    case NVRTC_SUCCESS: return "NVRTC_SUCCESS";
    case NVRTC_ERROR_INVALID_OPTION: return "NVRTC_ERROR_INVALID_OPTION";
    case NVRTC_ERROR_COMPILATION: return "NVRTC_ERROR_COMPILATION";
    default: return "NVRTC_ERROR";
  }
}
API nvrtcResult nvrtcVersion(int* major, int* minor) {
  *major = 13;
  *minor = 0;
  return NVRTC_SUCCESS;
}
API nvrtcResult nvrtcGetNumSupportedArchs(int* count) { *count = 1; return NVRTC_SUCCESS; }
API nvrtcResult nvrtcGetSupportedArchs(int* each) { *each = 90; return NVRTC_SUCCESS; }

API nvrtcResult nvrtcCreateProgram(void** p, const char* source, const char* name, int count, const char* const* texts,
                                   const char* const* names) {
  auto* program = new Program;
  program->source = source;
  program->name = name && *name ? name : "kernel.cu";
  for (int i = 0; i < count; i++) program->headers.push_back({names[i], texts[i]});
  *p = program;
  return NVRTC_SUCCESS;
}
API nvrtcResult nvrtcDestroyProgram(void** p) {
  delete of(*p);
  *p = nullptr;
  return NVRTC_SUCCESS;
}
API nvrtcResult nvrtcAddNameExpression(void* p, const char* text) {
  Program& program = *of(p);
  program.lowered.push_back("expression" + std::to_string(program.expressions.size()));
  program.expressions.push_back(text);
  return NVRTC_SUCCESS;
}
API nvrtcResult nvrtcGetLoweredName(void* p, const char* text, const char** name) {
  Program& program = *of(p);
  for (size_t i = 0; i < program.expressions.size(); i++)
    if (program.expressions[i] == text) {
      *name = program.lowered[i].c_str();
      return NVRTC_SUCCESS;
    }
  return NVRTC_ERROR_NAME_EXPRESSION_NOT_VALID;
}

API nvrtcResult nvrtcCompileProgram(void* p, int count, const char* const* given) {
  namespace fs = std::filesystem;
  Program& program = *of(p);
  program.log.clear();
  program.binary.clear();
  if (program.source.find_first_not_of(" \t\n") == std::string::npos) {  // CuPy keys its cache by what comes of no text
    program.binary = std::string("// CuPy on the CPU ") + EMULATOR_KEY + " " + nvidia_version() + "\n";
    return NVRTC_SUCCESS;
  }
  Options options = translated(count, given);
  if (!options.refused.empty()) {
    program.log = options.refused;
    return NVRTC_ERROR_INVALID_OPTION;
  }
  std::string pattern = fs::temp_directory_path() / "cupy-on-cpu-XXXXXX";
  if (!mkdtemp(pattern.data())) return NVRTC_ERROR_OUT_OF_MEMORY;
  fs::path folder = pattern, file = folder / "kernel.cpp", made = folder / "kernel.so", log = folder / "log";
  for (auto& [name, text] : program.headers) write_text(folder / name, text);
  write_text(file, with_kernel_tables(program, program.lowered));

  const char* compiler = getenv("EMULATOR_CXX");
  std::vector<std::string> command = {compiler && *compiler ? compiler : "g++", "-x", "c++"};
  std::istringstream flags(KERNEL_FLAGS);
  for (std::string flag; flags >> flag;) command.push_back(flag);
  command.push_back(options.standard);
  command.insert(command.end(), options.compiler.begin(), options.compiler.end());
  // the precompiled header holds CuPy's own too, and serves programs without macros of their own
  bool plain = !options.macros && program.headers.empty();
  std::string header = own_folder() + (plain ? "/cupy.h" : "/kernel.h");
  command.insert(command.end(), {"-I" + folder.string(), "-include", header, file, "-o", made});

  bool compiled = run_command(command, log) == 0;
  program.log = text_of(log);
  bool taken = compiled && nvidia_takes(program, count, given, program.log);
  if (taken) {
    std::string library = text_of(made);
    uint64_t size = library.size();
    program.binary.assign(MAGIC, sizeof MAGIC);
    program.binary.append(reinterpret_cast<char*>(&size), sizeof size);
    program.binary += library;
  }
  if (!compiled && getenv("EMULATOR_KEEP")) fprintf(stderr, "CuPy on the CPU: %s is kept\n", folder.c_str());
  else fs::remove_all(folder);
  return taken ? NVRTC_SUCCESS : NVRTC_ERROR_COMPILATION;
}

API nvrtcResult nvrtcGetCUBINSize(void* p, size_t* bytes) { *bytes = of(p)->binary.size(); return NVRTC_SUCCESS; }
API nvrtcResult nvrtcGetCUBIN(void* p, char* to) {
  memcpy(to, of(p)->binary.data(), of(p)->binary.size());
  return NVRTC_SUCCESS;
}
API nvrtcResult nvrtcGetPTXSize(void* p, size_t* bytes) { *bytes = of(p)->binary.size() + 1; return NVRTC_SUCCESS; }
API nvrtcResult nvrtcGetPTX(void* p, char* to) {
  memcpy(to, of(p)->binary.c_str(), of(p)->binary.size() + 1);
  return NVRTC_SUCCESS;
}
API nvrtcResult nvrtcGetProgramLogSize(void* p, size_t* bytes) { *bytes = of(p)->log.size() + 1; return NVRTC_SUCCESS; }
API nvrtcResult nvrtcGetProgramLog(void* p, char* to) {
  memcpy(to, of(p)->log.c_str(), of(p)->log.size() + 1);
  return NVRTC_SUCCESS;
}
