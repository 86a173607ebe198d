// The driver's calls: contexts, modules (a compiled kernel is a shared library) and launches.
#include "device.h"

#include <dlfcn.h>
#include <elf.h>
#include <link.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <map>
#include <memory>

using namespace emulated;

namespace {

const unsigned THREADS = 1024, SHARED = 48 << 10, MOST_SHARED = 227 << 10;  // of a block; beyond SHARED only if asked for
std::map<CUfunction, unsigned> shared_allowed;

struct Module { void* library; };

// A launch's own copy of its arguments.
struct Arguments {
  std::vector<char> bytes;
  std::vector<void*> each;

  Arguments(const Kernel& kernel, void** given) {
    const size_t step = 32;  // alignment enough for any parameter
    auto padded = [&](unsigned i) { return (kernel.sizes[i] + step - 1) / step * step; };
    size_t total = step;
    for (unsigned i = 0; i < kernel.parameters; i++) total += padded(i);
    bytes.resize(total);
    char* at = reinterpret_cast<char*>((uintptr_t(bytes.data()) + step - 1) / step * step);
    for (unsigned i = 0; i < kernel.parameters; at += padded(i++)) {
      memcpy(at, given[i], kernel.sizes[i]);
      each.push_back(at);
    }
  }
  // Another device whose memory an argument points to, also as part of a structure; or -1.
  int elsewhere() const {
    for (size_t at = 0; at + sizeof(void*) <= bytes.size(); at += sizeof(void*)) {
      const void* word;
      memcpy(&word, &bytes[at], sizeof word);
      int found = owner(word);
      if (found >= 0 && found != device) return found;
    }
    return -1;
  }
};

unsigned allowed(CUfunction f) {
  auto found = shared_allowed.find(f);
  return found == shared_allowed.end() ? SHARED : found->second;
}

CUresult launch(CUfunction f, dim3 grid, dim3 block, unsigned shared, CUstream stream, void** parameters) {
  Guard guard(lock);
  if (!f) return CUDA_ERROR_INVALID_HANDLE;
  uint64_t threads = uint64_t(block.x) * block.y * block.z, blocks = uint64_t(grid.x) * grid.y * grid.z;
  if (!threads || threads > THREADS || block.z > 64 || !blocks || grid.x > 0x7fffffffu || grid.y > 65535 || grid.z > 65535)
    return CUDA_ERROR_INVALID_VALUE;
  if (shared > allowed(f)) return CUDA_ERROR_INVALID_VALUE;
  if (!launches_here(stream)) return CUDA_ERROR_INVALID_HANDLE;
  const Kernel* kernel = reinterpret_cast<const Kernel*>(f);
  auto arguments = std::make_shared<Arguments>(*kernel, parameters);
  count(std::string("launch ") + kernel->name);
  int elsewhere = arguments->elsewhere();
  return CUresult(submit(stream, [=] {
    std::string wrong = elsewhere < 0 ? run(*kernel, grid, block, shared, arguments->each.data())
                                      : "touches memory of device " + std::to_string(elsewhere);
    if (wrong.empty()) return;
    fprintf(stderr, "CuPy on the CPU: kernel %s %s\n", kernel->name, wrong.c_str());
    sticky = wrong.rfind("touches", 0) == 0  ? cudaErrorIllegalAddress
             : wrong.rfind("uses", 0) == 0 ? cudaErrorMisalignedAddress
                                             : cudaErrorLaunchFailure;
  }));
}

}  // namespace

// cuda.h renames these; CuPy asks for both names
#undef cuCtxCreate
#undef cuCtxDestroy
#undef cuDevicePrimaryCtxRelease
#undef cuModuleGetGlobal

API CUresult cuGetErrorName(CUresult error, const char** name) {
  switch (error) {
    case CUDA_ERROR_INVALID_VALUE: *name = "CUDA_ERROR_INVALID_VALUE"; break;
    case CUDA_ERROR_INVALID_HANDLE: *name = "CUDA_ERROR_INVALID_HANDLE"; break;
    case CUDA_ERROR_NOT_FOUND: *name = "CUDA_ERROR_NOT_FOUND"; break;
    case CUDA_ERROR_INVALID_IMAGE: *name = "CUDA_ERROR_INVALID_IMAGE"; break;
    case CUDA_ERROR_NOT_SUPPORTED: *name = "CUDA_ERROR_NOT_SUPPORTED"; break;
    case CUDA_ERROR_ILLEGAL_ADDRESS: *name = "CUDA_ERROR_ILLEGAL_ADDRESS"; break;
    case CUDA_ERROR_LAUNCH_FAILED: *name = "CUDA_ERROR_LAUNCH_FAILED"; break;
    case CUDA_ERROR_STREAM_CAPTURE_IMPLICIT: *name = "CUDA_ERROR_STREAM_CAPTURE_IMPLICIT"; break;
    default: *name = "CUDA_ERROR_UNKNOWN";
  }
  return CUDA_SUCCESS;
}
API CUresult cuGetErrorString(CUresult error, const char** text) {
  *text = error == CUDA_ERROR_NOT_FOUND ? "named symbol not found" : cudaGetErrorString(cudaError_t(error));
  return CUDA_SUCCESS;
}

// ---- contexts: one for each device
API CUresult cuInit(unsigned) { return CUDA_SUCCESS; }
API CUresult cuDevicePrimaryCtxRelease_v2(CUdevice) { return CUDA_SUCCESS; }
static CUcontext context_of(int number) { return reinterpret_cast<CUcontext>(uintptr_t(0x1000 + number)); }
API CUresult cuCtxGetCurrent(CUcontext* c) { *c = context_of(device); return CUDA_SUCCESS; }
API CUresult cuCtxSetCurrent(CUcontext) { return CUDA_SUCCESS; }
API CUresult cuCtxCreate_v2(CUcontext* c, unsigned, CUdevice d) { *c = context_of(d); return CUDA_SUCCESS; }
API CUresult cuCtxDestroy_v2(CUcontext) { return CUDA_SUCCESS; }
API CUresult cuCtxGetDevice(CUdevice* d) { *d = device; return CUDA_SUCCESS; }
API CUresult cuStreamGetCtx(CUstream, CUcontext* c) { return cuCtxGetCurrent(c); }

// ---- modules
static CUresult load(CUmodule* module, const char* bytes, size_t size) {
  int file = memfd_create("kernel", 0);
  if (file < 0) return CUDA_ERROR_OPERATING_SYSTEM;
  for (size_t done = 0; done < size;) {
    ssize_t written = write(file, bytes + done, size - done);
    if (written <= 0) {
      close(file);
      return CUDA_ERROR_OPERATING_SYSTEM;
    }
    done += size_t(written);
  }
  std::string path = "/proc/self/fd/" + std::to_string(file);
  void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (!library) {
    fprintf(stderr, "CuPy on the CPU: %s\n", dlerror());
    close(file);
    return CUDA_ERROR_INVALID_IMAGE;
  }
  // the file stays open: the loader knows a library by its path, which must not come again
  *module = reinterpret_cast<CUmodule>(new Module{library});
  return CUDA_SUCCESS;
}
API CUresult cuModuleLoadData(CUmodule* module, const void* image) {
  if (memcmp(image, MAGIC, sizeof MAGIC)) return CUDA_ERROR_INVALID_IMAGE;
  uint64_t size;
  const char* bytes = static_cast<const char*>(image) + sizeof MAGIC;
  memcpy(&size, bytes, sizeof size);
  return load(module, bytes + sizeof size, size);
}
API CUresult cuModuleLoad(CUmodule* module, const char* path) {
  std::string bytes = text_of(path);
  if (bytes.size() < sizeof MAGIC + sizeof(uint64_t)) return CUDA_ERROR_FILE_NOT_FOUND;
  return cuModuleLoadData(module, bytes.data());
}
API CUresult cuModuleUnload(CUmodule) { return CUDA_SUCCESS; }  // graphs may still hold its kernels
API CUresult cuModuleGetFunction(CUfunction* f, CUmodule module, const char* name) {
  void* found = dlsym(reinterpret_cast<Module*>(module)->library, (std::string("on_cpu_kernel_") + name).c_str());
  if (!found) return CUDA_ERROR_NOT_FOUND;
  *f = static_cast<CUfunction>(found);
  return CUDA_SUCCESS;
}
API CUresult cuModuleGetGlobal_v2(CUdeviceptr* start, size_t* bytes, CUmodule module, const char* name) {
  void* found = dlsym(reinterpret_cast<Module*>(module)->library, name);
  if (!found) return CUDA_ERROR_NOT_FOUND;
  Dl_info info;
  ElfW(Sym)* symbol = nullptr;
  dladdr1(found, &info, reinterpret_cast<void**>(&symbol), RTLD_DL_SYMENT);
  size_t size = symbol ? symbol->st_size : 0;
  if (bytes) *bytes = size;
  *start = CUdeviceptr(found);
  Guard guard(lock);
  add_variable(found, size);
  return CUDA_SUCCESS;
}

// ---- kernels
API CUresult cuLaunchKernel(CUfunction f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                            unsigned shared, CUstream s, void** parameters, void** extra) {
  if (extra) return CUDA_ERROR_NOT_SUPPORTED;
  return launch(f, dim3{gx, gy, gz}, dim3{bx, by, bz}, shared, s, parameters);
}
API CUresult cuLaunchCooperativeKernel(CUfunction f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                                       unsigned shared, CUstream s, void** parameters) {
  if (uint64_t(gx) * gy * gz > 1) return CUDA_ERROR_NOT_SUPPORTED;  // blocks that wait for each other
  return launch(f, dim3{gx, gy, gz}, dim3{bx, by, bz}, shared, s, parameters);
}
API CUresult cuFuncGetAttribute(int* value, CUfunction_attribute attribute, CUfunction f) {
  const Kernel* kernel = reinterpret_cast<const Kernel*>(f);
  Guard guard(lock);
  switch (attribute) {
    case CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK: *value = int(THREADS); break;
    case CU_FUNC_ATTRIBUTE_PTX_VERSION: case CU_FUNC_ATTRIBUTE_BINARY_VERSION: *value = 90; break;
    case CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES: *value = int(allowed(f)); break;
    case CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES: *value = int(kernel->shared_end - kernel->shared); break;
    default: *value = 0;
  }
  return CUDA_SUCCESS;
}
API CUresult cuFuncSetAttribute(CUfunction f, CUfunction_attribute attribute, int value) {
  Guard guard(lock);
  if (attribute != CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES) return CUDA_SUCCESS;
  if (value < 0 || unsigned(value) > MOST_SHARED) return CUDA_ERROR_INVALID_VALUE;
  shared_allowed[f] = unsigned(value);
  return CUDA_SUCCESS;
}
API CUresult cuOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, CUfunction, int threads, size_t) {
  *blocks = std::max(1, 2048 / std::max(1, threads));
  return CUDA_SUCCESS;
}
API CUresult cuOccupancyMaxPotentialBlockSize(int* grid, int* block, CUfunction, CUoccupancyB2DSize, size_t, int limit) {
  *block = limit > 0 ? std::min(limit, int(THREADS)) : int(THREADS);
  *grid = 8;
  return CUDA_SUCCESS;
}
