// What the device says of itself, its errors' names, and which device is current.
// EMULATOR_DEVICES (1) and EMULATOR_BYTES (4 GiB for each) say how many there are and how large.
#include "device.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace emulated {

long setting(const char* name, long otherwise) {
  const char* text = getenv(name);
  return text && *text ? strtol(text, nullptr, 0) : otherwise;
}

int devices() {
  static const int count = [] {
    const char* seen = getenv("CUDA_VISIBLE_DEVICES");  // empty: none, as with NVIDIA's driver; a list isn't reordered
    return seen && !*seen ? 0 : int(setting("EMULATOR_DEVICES", 1));
  }();
  return count;
}
size_t device_bytes() {
  static const size_t bytes = size_t(setting("EMULATOR_BYTES", 4L << 30));
  return bytes;
}

}  // namespace emulated

using namespace emulated;

API const char* cudaGetErrorName(cudaError_t e) {
  switch (e) {
#define NAME(x) case x: return #x;
    NAME(cudaSuccess) NAME(cudaErrorInvalidValue) NAME(cudaErrorMemoryAllocation) NAME(cudaErrorInvalidDevice)
    NAME(cudaErrorInvalidResourceHandle) NAME(cudaErrorNotReady) NAME(cudaErrorNotSupported) NAME(cudaErrorLaunchFailure) NAME(cudaErrorIllegalAddress)
    NAME(cudaErrorStreamCaptureUnsupported) NAME(cudaErrorStreamCaptureInvalidated) NAME(cudaErrorStreamCaptureUnmatched)
    NAME(cudaErrorStreamCaptureImplicit) NAME(cudaErrorStreamCaptureUnjoined) NAME(cudaErrorInvalidMemcpyDirection)
    NAME(cudaErrorMisalignedAddress) NAME(cudaErrorPeerAccessUnsupported) NAME(cudaErrorPeerAccessNotEnabled) NAME(cudaErrorCapturedEvent) NAME(cudaErrorIllegalState) NAME(cudaErrorNoDevice)
    NAME(cudaErrorStreamCaptureMerge) NAME(cudaErrorStreamCaptureIsolation) NAME(cudaErrorStreamCaptureWrongThread)
    default: return "cudaErrorUnknown";
  }
}
API const char* cudaGetErrorString(cudaError_t e) {
  switch (e) {
    case cudaSuccess: return "no error";
    case cudaErrorInvalidValue: return "invalid argument";
    case cudaErrorMemoryAllocation: return "out of memory";
    case cudaErrorInvalidDevice: return "invalid device ordinal";
    case cudaErrorNoDevice: return "no CUDA-capable device is detected";
    case cudaErrorInvalidResourceHandle: return "invalid resource handle";
    case cudaErrorNotSupported: return "operation not supported (by the emulated device)";
    case cudaErrorLaunchFailure: return "unspecified launch failure";
    case cudaErrorIllegalAddress: return "an illegal memory access was encountered";
    case cudaErrorStreamCaptureUnsupported: return "operation not permitted when stream is capturing";
    case cudaErrorStreamCaptureInvalidated: return "operation failed due to a previous error during capture";
    case cudaErrorStreamCaptureImplicit: return "operation would make the legacy stream depend on a capturing blocking stream";
    default: return cudaGetErrorName(e);
  }
}
API cudaError_t cudaGetLastError() { cudaError_t e = last; last = cudaSuccess; return e; }
API cudaError_t cudaPeekAtLastError() { return last; }
API cudaError_t cudaDriverGetVersion(int* v) { *v = 13000; return cudaSuccess; }
API cudaError_t cudaRuntimeGetVersion(int* v) { *v = 13000; return cudaSuccess; }
API cudaError_t cudaGetDevice(int* d) { *d = device; return devices() ? cudaSuccess : fail(cudaErrorNoDevice); }
API cudaError_t cudaGetDeviceCount(int* n) { *n = devices(); return *n ? cudaSuccess : fail(cudaErrorNoDevice); }
API cudaError_t cudaSetDevice(int d) {
  if (d < 0 || d >= devices()) return fail(cudaErrorInvalidDevice);
  device = d;
  return cudaSuccess;
}
API cudaError_t cudaDeviceGetAttribute(int* v, cudaDeviceAttr a, int d) {
  if (d < 0 || d >= devices()) return fail(cudaErrorInvalidDevice);
  switch (int(a)) {
    case cudaDevAttrMaxThreadsPerBlock: case cudaDevAttrMaxBlockDimX: case cudaDevAttrMaxBlockDimY: *v = 1024; break;
    case cudaDevAttrMaxBlockDimZ: *v = 64; break;
    case cudaDevAttrMaxGridDimX: *v = 0x7fffffff; break;
    case cudaDevAttrMaxGridDimY: case cudaDevAttrMaxGridDimZ: *v = 65535; break;
    case cudaDevAttrMaxSharedMemoryPerBlock: *v = 49152; break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin: *v = 232448; break;
    case cudaDevAttrMaxSharedMemoryPerMultiprocessor: *v = 233472; break;
    case cudaDevAttrTotalConstantMemory: *v = 65536; break;
    case cudaDevAttrWarpSize: *v = 32; break;
    case cudaDevAttrMaxRegistersPerBlock: case cudaDevAttrMaxRegistersPerMultiprocessor: *v = 65536; break;
    case cudaDevAttrClockRate: *v = 1000000; break;
    case cudaDevAttrMultiProcessorCount: *v = 4; break;
    case cudaDevAttrMaxThreadsPerMultiProcessor: *v = 2048; break;
    case cudaDevAttrComputeCapabilityMajor: *v = 9; break;
    case cudaDevAttrComputeCapabilityMinor: *v = 0; break;
    case cudaDevAttrUnifiedAddressing: case cudaDevAttrManagedMemory: case cudaDevAttrCooperativeLaunch:
    case cudaDevAttrMemoryPoolsSupported: case cudaDevAttrConcurrentKernels: case cudaDevAttrStreamPrioritiesSupported:
    case cudaDevAttrAsyncEngineCount: *v = 1; break;
    case cudaDevAttrL2CacheSize: *v = 1 << 20; break;
    case cudaDevAttrGlobalMemoryBusWidth: *v = 64; break;
    default: *v = 0;
  }
  return cudaSuccess;
}
API cudaError_t cudaGetDeviceProperties(cudaDeviceProp* p, int d) {
  count("properties");
  if (d < 0 || d >= devices()) return fail(cudaErrorInvalidDevice);
  memset(p, 0, sizeof *p);
  snprintf(p->name, sizeof p->name, "CuPy on the CPU (no GPU)");
  p->totalGlobalMem = device_bytes();
  p->sharedMemPerBlock = 49152; p->sharedMemPerBlockOptin = 232448; p->sharedMemPerMultiprocessor = 233472;
  p->regsPerBlock = p->regsPerMultiprocessor = 65536;
  p->warpSize = 32; p->memPitch = 0x7fffffff;
  p->maxThreadsPerBlock = p->maxThreadsDim[0] = p->maxThreadsDim[1] = 1024; p->maxThreadsDim[2] = 64;
  p->maxGridSize[0] = 0x7fffffff; p->maxGridSize[1] = p->maxGridSize[2] = 65535;
  p->totalConstMem = 65536; p->major = 9; p->minor = 0; p->textureAlignment = 512;
  p->multiProcessorCount = 4; p->maxThreadsPerMultiProcessor = 2048; p->maxBlocksPerMultiProcessor = 32;
  p->concurrentKernels = p->unifiedAddressing = p->managedMemory = p->cooperativeLaunch = 1;
  p->streamPrioritiesSupported = p->asyncEngineCount = 1;
  p->l2CacheSize = 1 << 20; p->memoryBusWidth = 64; p->pciBusID = d + 1;
  return cudaSuccess;
}
API cudaError_t cudaDeviceGetPCIBusId(char* id, int n, int d) { snprintf(id, n, "0000:%02x:00.0", d + 1); return cudaSuccess; }
API cudaError_t cudaDeviceGetByPCIBusId(int* d, const char* id) {
  unsigned a, b;
  if (sscanf(id, "%x:%x", &a, &b) != 2 || int(b) - 1 >= devices()) return fail(cudaErrorInvalidDevice);
  *d = int(b) - 1;
  return cudaSuccess;
}
// no device's kernels reach another's memory, so that what relies on it shows
API cudaError_t cudaDeviceCanAccessPeer(int* can, int, int) { *can = 0; return cudaSuccess; }
API cudaError_t cudaDeviceEnablePeerAccess(int, unsigned) { return fail(cudaErrorPeerAccessUnsupported); }
API cudaError_t cudaDeviceDisablePeerAccess(int) { return fail(cudaErrorPeerAccessNotEnabled); }
API cudaError_t cudaDeviceGetLimit(size_t* v, cudaLimit) { *v = 1 << 20; return cudaSuccess; }
API cudaError_t cudaDeviceSetLimit(cudaLimit, size_t) { return cudaSuccess; }
