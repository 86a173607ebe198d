// What stands between a kernel's text in CUDA C++ and the host's compiler: nvrtc.cpp includes it before every kernel.
#pragma once
#include <cassert>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <initializer_list>
#include <limits>
#include <math.h>
#include <stdlib.h>
#include <tuple>
#include <type_traits>
#include <utility>
#define __CUDACC_VER_MAJOR__ 13
#define __CUDACC_VER_MINOR__ 0
#include <vector_types.h>
#include <vector_functions.h>

#undef __shared__
#undef __constant__
#undef __global__
#undef __launch_bounds__
#undef __grid_constant__
// of one block after another: the launcher fills it with NaN before each
#define __shared__ static __attribute__((section("on_cpu_shared")))
#define __constant__ static
#define __global__
#define __launch_bounds__(...)
#define __grid_constant__
#ifndef __forceinline__
#define __forceinline__ inline
#endif
#ifndef __device__
#define __device__
#define __host__
#endif

// ---- what the launcher (device/threads.cpp) and a kernel's library share, as device/device.h has it
struct OnCpuState {
  uint3 thread, block;
  dim3 block_size, grid_size;
  void* dynamic;
  void (*barrier)();                                                              // of a block's threads
  void (*exchange)(const void* mine, void* theirs, unsigned size, int source);  // of a warp's; size 0: a barrier
  unsigned (*ballot)(int);
  unsigned (*lane)();
};
extern "C" {
__attribute__((visibility("default"))) OnCpuState on_cpu_state;
// where the linker puts static shared memory; null in a library without any
extern char __start_on_cpu_shared[] __attribute__((weak, visibility("hidden")));
extern char __stop_on_cpu_shared[] __attribute__((weak, visibility("hidden")));
}
struct OnCpuKernel {
  void (*call)(void**);
  unsigned parameters;
  const unsigned* sizes;
  OnCpuState* state;
  const char* name;
  char *shared, *shared_end;
};
template <auto F> struct OnCpuCall;
template <class... A, void (*F)(A...)> struct OnCpuCall<F> {
  static constexpr unsigned sizes[sizeof...(A) + 1] = {unsigned(sizeof(A))..., 0u};
  template <size_t... I> static void go(void** p, std::index_sequence<I...>) {
    (void)p;
    F(*static_cast<std::remove_reference_t<A>*>(p[I])...);
  }
  static void call(void** p) { go(p, std::index_sequence_for<A...>{}); }
};
// a table that the driver finds by the kernel's name
#define ON_CPU_KERNEL(symbol, ...)                                                                   \
  extern "C" __attribute__((visibility("default"))) const OnCpuKernel on_cpu_kernel_##symbol;       \
  extern "C" const OnCpuKernel on_cpu_kernel_##symbol = {                                            \
      &OnCpuCall<&__VA_ARGS__>::call, sizeof(OnCpuCall<&__VA_ARGS__>::sizes) / sizeof(unsigned) - 1, \
      OnCpuCall<&__VA_ARGS__>::sizes, &on_cpu_state, #__VA_ARGS__, __start_on_cpu_shared, __stop_on_cpu_shared};

#define threadIdx (on_cpu_state.thread)
#define blockIdx (on_cpu_state.block)
#define blockDim (on_cpu_state.block_size)
#define gridDim (on_cpu_state.grid_size)
static const int warpSize = 32;

// ---- synchronisation
inline void __syncthreads() { on_cpu_state.barrier(); }
inline void __syncwarp(unsigned = ~0u) { on_cpu_state.exchange(nullptr, nullptr, 0, -1); }
inline void __threadfence() {}
inline void __threadfence_block() {}
inline void __threadfence_system() {}
inline unsigned on_cpu_lane() { return on_cpu_state.lane(); }
template <class T> T on_cpu_from(T v, int lane) {
  T out = v;
  on_cpu_state.exchange(&v, &out, sizeof(T), lane);
  return out;
}
template <class T> T __shfl_sync(unsigned, T v, int l, int w = 32) {
  int base = on_cpu_lane() & ~(w - 1);
  return on_cpu_from(v, base + (l & (w - 1)));
}
template <class T> T __shfl_up_sync(unsigned, T v, unsigned d, int w = 32) {
  int me = on_cpu_lane(), base = me & ~(w - 1), l = me - int(d);
  return on_cpu_from(v, l < base ? me : l);
}
template <class T> T __shfl_down_sync(unsigned, T v, unsigned d, int w = 32) {
  int me = on_cpu_lane(), end = (me & ~(w - 1)) + w, l = me + int(d);
  return on_cpu_from(v, l >= end ? me : l);
}
template <class T> T __shfl_xor_sync(unsigned, T v, int m, int w = 32) {
  int me = on_cpu_lane(), end = (me & ~(w - 1)) + w, l = me ^ m;
  return on_cpu_from(v, l >= end ? me : l);
}
inline unsigned __ballot_sync(unsigned mask, int p) { return on_cpu_state.ballot(p) & mask; }
inline int __any_sync(unsigned mask, int p) { return __ballot_sync(mask, p) != 0; }
inline int __all_sync(unsigned mask, int p) { return __ballot_sync(mask, !p) == 0; }
inline unsigned __activemask() { return ~0u; }
inline int __syncthreads_count(int p) {
  static int count;
  __syncthreads();
  count = 0;
  __syncthreads();
  count += p != 0;
  __syncthreads();
  return count;
}
inline int __syncthreads_or(int p) { return __syncthreads_count(p) != 0; }
inline int __syncthreads_and(int p) { return __syncthreads_count(!p) == 0; }

// ---- atomics: a block's threads take turns in one system thread
#define ON_CPU_ATOMIC(name, T, expression) \
  inline T name(T* p, T v) { T old = *p; *p = (expression); return old; }
#define ON_CPU_INTEGERS(name, expression) \
  ON_CPU_ATOMIC(name, int, expression) ON_CPU_ATOMIC(name, unsigned, expression) ON_CPU_ATOMIC(name, unsigned long long, expression)
ON_CPU_INTEGERS(atomicAdd, old + v)
ON_CPU_ATOMIC(atomicAdd, float, old + v)
ON_CPU_ATOMIC(atomicAdd, double, old + v)
ON_CPU_ATOMIC(atomicSub, int, old - v)
ON_CPU_ATOMIC(atomicSub, unsigned, old - v)
ON_CPU_INTEGERS(atomicExch, v)
ON_CPU_ATOMIC(atomicExch, float, v)
ON_CPU_INTEGERS(atomicMin, v < old ? v : old)
ON_CPU_ATOMIC(atomicMin, long long, v < old ? v : old)
ON_CPU_INTEGERS(atomicMax, v > old ? v : old)
ON_CPU_ATOMIC(atomicMax, long long, v > old ? v : old)
ON_CPU_INTEGERS(atomicAnd, old & v)
ON_CPU_INTEGERS(atomicOr, old | v)
ON_CPU_INTEGERS(atomicXor, old ^ v)
ON_CPU_ATOMIC(atomicInc, unsigned, old >= v ? 0 : old + 1)
ON_CPU_ATOMIC(atomicDec, unsigned, old == 0 || old > v ? v : old - 1)
#define ON_CPU_CAS(T) inline T atomicCAS(T* p, T compare, T v) { T old = *p; if (old == compare) *p = v; return old; }
ON_CPU_CAS(int) ON_CPU_CAS(unsigned) ON_CPU_CAS(unsigned long long) ON_CPU_CAS(unsigned short)

// ---- bits
template <class To, class From> To on_cpu_bits(From v) {
  static_assert(sizeof(To) == sizeof(From));
  To out; memcpy(&out, &v, sizeof out); return out;
}
inline int __float_as_int(float v) { return on_cpu_bits<int>(v); }
inline unsigned __float_as_uint(float v) { return on_cpu_bits<unsigned>(v); }
inline float __int_as_float(int v) { return on_cpu_bits<float>(v); }
inline float __uint_as_float(unsigned v) { return on_cpu_bits<float>(v); }
inline long long __double_as_longlong(double v) { return on_cpu_bits<long long>(v); }
inline double __longlong_as_double(long long v) { return on_cpu_bits<double>(v); }
inline int __double2hiint(double v) { return int(on_cpu_bits<unsigned long long>(v) >> 32); }
inline int __double2loint(double v) { return int(on_cpu_bits<unsigned long long>(v)); }
inline double __hiloint2double(int hi, int lo) {
  return on_cpu_bits<double>((static_cast<unsigned long long>(unsigned(hi)) << 32) | unsigned(lo));
}
inline int __popc(unsigned v) { return __builtin_popcount(v); }
inline int __popcll(unsigned long long v) { return __builtin_popcountll(v); }
inline int __clz(int v) { return v ? __builtin_clz(v) : 32; }
inline int __clzll(long long v) { return v ? __builtin_clzll(v) : 64; }
inline int __ffs(int v) { return __builtin_ffs(v); }
inline int __ffsll(long long v) { return __builtin_ffsll(v); }
inline unsigned __brev(unsigned v) { unsigned o = 0; for (int k = 0; k < 32; k++) o |= (v >> k & 1) << (31 - k); return o; }
inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) { return (unsigned __int128)a * b >> 64; }
inline unsigned __umulhi(unsigned a, unsigned b) { return (unsigned long long)a * b >> 32; }
template <class T> T __ldg(const T* p) { return *p; }
inline long long clock64() { static long long n; return ++n; }
inline int clock() { return int(clock64()); }

// ---- arithmetic: CUDA has these in the global namespace, for each type
#define ON_CPU_MINMAX(T) inline T min(T a, T b) { return b < a ? b : a; } inline T max(T a, T b) { return a < b ? b : a; }
ON_CPU_MINMAX(int) ON_CPU_MINMAX(unsigned) ON_CPU_MINMAX(long) ON_CPU_MINMAX(unsigned long) ON_CPU_MINMAX(long long) ON_CPU_MINMAX(unsigned long long)
inline float min(float a, float b) { return fminf(a, b); }
inline float max(float a, float b) { return fmaxf(a, b); }
inline double min(double a, double b) { return fmin(a, b); }
inline double max(double a, double b) { return fmax(a, b); }
#define ON_CPU_MIXED(A, B, R) \
  inline R min(A a, B b) { return min((R)a, (R)b); } inline R max(A a, B b) { return max((R)a, (R)b); } \
  inline R min(B a, A b) { return min((R)a, (R)b); } inline R max(B a, A b) { return max((R)a, (R)b); }
ON_CPU_MIXED(int, unsigned, unsigned) ON_CPU_MIXED(float, double, double)
ON_CPU_MIXED(long long, unsigned long long, unsigned long long) ON_CPU_MIXED(long, unsigned long, unsigned long)

#define ON_CPU_F1(name, expression) \
  inline float name##f(float x) { return float([](double x) -> double { return expression; }(x)); } \
  inline double name(double x) { return expression; } \
  inline float name(float x) { return name##f(x); }
inline double on_cpu_erfinv(double y) {  // Newton steps on a first guess
  if (!(y > -1 && y < 1)) return y == 1 ? HUGE_VAL : y == -1 ? -HUGE_VAL : NAN;
  double a = 0.147, l = ::log1p(-y * y), b = 2 / (M_PI * a) + l / 2, x = ::copysign(::sqrt(::sqrt(b * b - l / a) - b), y);
  for (int k = 0; k < 4; k++) {
    double error = (y > 0 ? (1 - y) - ::erfc(x) : -((1 + y) - ::erfc(-x)));
    x += error / (2 / ::sqrt(M_PI) * ::exp(-x * x));
  }
  return x;
}
ON_CPU_F1(rsqrt, 1 / ::sqrt(x))
ON_CPU_F1(rcbrt, 1 / ::cbrt(x))
ON_CPU_F1(sinpi, ::sin(M_PI * ::remainder(x, 2.0)))
ON_CPU_F1(cospi, ::cos(M_PI * ::remainder(x, 2.0)))
ON_CPU_F1(erfinv, on_cpu_erfinv(x))
ON_CPU_F1(erfcinv, on_cpu_erfinv(1 - x))
ON_CPU_F1(erfcx, ::exp(x * x) * ::erfc(x))
ON_CPU_F1(normcdf, 0.5 * ::erfc(-x / ::sqrt(2.0)))
ON_CPU_F1(normcdfinv, -::sqrt(2.0) * on_cpu_erfinv(1 - 2 * x))
ON_CPU_F1(cyl_bessel_i0, std::cyl_bessel_i(0.0, ::fabs(x)))
ON_CPU_F1(cyl_bessel_i1, ::copysign(std::cyl_bessel_i(1.0, ::fabs(x)), x))
inline float exp10(float x) { return exp10f(x); }
inline float j0(float x) { return j0f(x); }
inline float j1(float x) { return j1f(x); }
inline float y0(float x) { return y0f(x); }
inline float y1(float x) { return y1f(x); }
inline float fdividef(float a, float b) { return a / b; }
inline float __fdividef(float a, float b) { return a / b; }
inline float __expf(float x) { return expf(x); }
inline float __exp10f(float x) { return exp10f(x); }
inline float __logf(float x) { return logf(x); }
inline float __log2f(float x) { return log2f(x); }
inline float __log10f(float x) { return log10f(x); }
inline float __sinf(float x) { return sinf(x); }
inline float __cosf(float x) { return cosf(x); }
inline float __tanf(float x) { return tanf(x); }
inline float __powf(float x, float y) { return powf(x, y); }
inline float __frsqrt_rn(float x) { return 1 / sqrtf(x); }
inline float __frcp_rn(float x) { return 1 / x; }
inline float __fsqrt_rn(float x) { return sqrtf(x); }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
inline double __dadd_rn(double a, double b) { return a + b; }
inline double __dsub_rn(double a, double b) { return a - b; }
inline double __dmul_rn(double a, double b) { return a * b; }
inline double __ddiv_rn(double a, double b) { return a / b; }
inline double __fma_rn(double a, double b, double c) { return fma(a, b, c); }
inline float __saturatef(float x) { return x < 0 || x != x ? 0 : x > 1 ? 1 : x; }
inline int __float2int_rn(float x) { return int(rintf(x)); }
inline int __float2int_rz(float x) { return int(x); }
inline int __double2int_rn(double x) { return int(rint(x)); }
inline float __int2float_rn(int x) { return float(x); }

#ifndef GPUON_CPU_NO_FP16
#include <cuda_fp16.h>
#endif
