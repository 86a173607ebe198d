// What the files of the emulated device share. Every call holds `lock`; work waits in its stream (streams.cpp).
#pragma once
#include <cuda.h>
#include <cuda_runtime_api.h>

#include <cstddef>
#include <functional>
#include <mutex>
#include <string>
#include <vector>

#define API extern "C" __attribute__((visibility("default")))

namespace emulated {

using Work = std::function<void()>;
using Guard = std::lock_guard<std::recursive_mutex>;

inline std::recursive_mutex lock;
inline thread_local int device = 0;                   // the current one
inline thread_local cudaError_t last = cudaSuccess;   // what cudaGetLastError gives and clears
inline cudaError_t sticky = cudaSuccess;              // a kernel failed: as on a card, the process computes no more

inline cudaError_t fail(cudaError_t error) { return last = error; }

// counts.cpp: what the host asked for so far; Python reads it by emulator.py
void count(const std::string& what, size_t bytes = 0);

// properties.cpp
long setting(const char* name, long otherwise);  // an environment variable
int devices();
size_t device_bytes();

// memory.cpp
bool on_device(const void* start, size_t bytes);
int owner(const void* address);  // the device whose memory it is; -1 for the host's
void add_variable(void* start, size_t bytes);  // a module's __device__ variable
// What is wrong with an address that a kernel touched.
const char* fault_at(const void* address);

// streams.cpp
cudaError_t submit(const void* stream, Work work);
cudaError_t wait_for(const void* stream);  // until what was submitted to it is done
void wait_for_device(int number);
void work_on_devices(int one, int other, Work work);  // after all that both have to do, and before all that comes
bool launches_here(const void* stream);  // whether it is one of the current device's
cudaError_t forbid_in_capture();  // called first by what a capture in mode global or thread_local forbids
bool capturing(const void* stream);

// threads.cpp; the first two structures are kernel.h's too
struct State {
  uint3 thread, block;
  dim3 block_size, grid_size;
  void* dynamic;  // shared memory of the launch
  void (*barrier)();
  void (*exchange)(const void* mine, void* theirs, unsigned size, int source);
  unsigned (*ballot)(int);
  unsigned (*lane)();
};
struct Kernel {
  void (*call)(void**);
  unsigned parameters;
  const unsigned* sizes;
  State* state;
  const char* name;
  char *shared, *shared_end;  // its module's static shared memory
};
// Runs every block; what went wrong, or "".
std::string run(const Kernel& kernel, dim3 grid, dim3 block, size_t shared, void** parameters);

// nvrtc.cpp: a compiled program is this, its size in 8 bytes, and a shared library
inline constexpr char MAGIC[8] = {'o', 'n', '_', 'c', 'p', 'u', '1', 0};

std::string text_of(const std::string& path);

}  // namespace emulated
