// cuBLAS: products, sums and scalings in plain loops, column-major as there.
#include "arithmetic.h"

#include <library_types.h>

#include <algorithm>
#include <cmath>
#include <complex>
#include <cstdint>
#include <cstdio>
#include <cstring>

using namespace emulated;

namespace {

using C = std::complex<float>;
using Z = std::complex<double>;
using Half = _Float16;
struct BFloat {
  uint16_t bits;
  BFloat() = default;
  BFloat(float value) {  // rounded to even
    uint32_t u;
    memcpy(&u, &value, sizeof u);
    bits = uint16_t((u + 0x7fff + ((u >> 16) & 1)) >> 16);
  }
  operator float() const {
    uint32_t u = uint32_t(bits) << 16;
    float value;
    memcpy(&value, &u, sizeof value);
    return value;
  }
};

enum Status { SUCCESS = 0, NOT_INITIALIZED = 1, INVALID_VALUE = 7, EXECUTION_FAILED = 13, NOT_SUPPORTED = 15 };

struct Handle : LibraryHandle {
  int scalars_on_device = 0, math = 0;
};

int submit_to(Handle* h, Work work) { return h ? submit_or(EXECUTION_FAILED, *h, std::move(work)) : int(NOT_INITIALIZED); }
// A number for the host is there when the call returns.
int submit_for_number(Handle* h, Work work) {
  if (int error = submit_to(h, std::move(work))) return error;
  if (h->scalars_on_device) return SUCCESS;
  count("synchronise number");
  return wait_for(h->stream) ? EXECUTION_FAILED : SUCCESS;
}
// Whether `columns` of `rows` elements, `step` apart, lie in memory that the device reaches; else it is lost, as a card is.
template <class T> bool reaches(int on, const T* start, int64_t step, int64_t rows, int64_t columns) {
  if (!rows || !columns) return true;
  if (owner(start) == on && on_device(start, size_t((columns - 1) * step + rows) * sizeof(T))) return true;
  fprintf(stderr, "CuPy on the CPU: a product touches memory beyond an allocation, or that isn't device %d's\n", on);
  sticky = cudaErrorIllegalAddress;
  return false;
}

template <class T> T conjugate(T v) { return v; }
template <class T> std::complex<T> conjugate(std::complex<T> v) { return std::conj(v); }

// Read now where it is the host's, when the work is done where it is the device's.
template <class T> std::function<T()> scalar(Handle* h, const void* at) {
  if (h && h->scalars_on_device) return [=] { return *static_cast<const T*>(at); };
  T value = *static_cast<const T*>(at);
  return [=] { return value; };
}
// Element (i, j) of op(a): 0 as it is, 1 transposed, 2 transposed and conjugated.
template <class T> T element(const T* a, int op, int64_t ld, int64_t i, int64_t j) {
  return op == 0 ? a[i + j * ld] : op == 1 ? a[j + i * ld] : conjugate(a[j + i * ld]);
}
// Where a vector of negative step begins.
template <class T> T* first(T* x, int n, int step) { return step < 0 ? x + int64_t(1 - n) * step : x; }

// ---- products
struct Shape {
  int opa, opb, m, n, k;
  int lda, ldb, ldc;
  bool right() const {
    return m >= 0 && n >= 0 && k >= 0 && lda >= std::max(1, opa ? k : m) && ldb >= std::max(1, opb ? n : k) && ldc >= std::max(1, m);
  }
};
template <class In, class Out, class Sum>
void product(int on, const Shape& s, Sum alpha, const In* a, const In* b, Sum beta, Out* c) {
  int64_t m = s.m;
  bool there = reaches(on, a, s.lda, s.opa ? s.k : s.m, s.opa ? s.m : s.k) && reaches(on, b, s.ldb, s.opb ? s.n : s.k, s.opb ? s.k : s.n);
  if (!there || !reaches(on, c, s.ldc, s.m, s.n)) return;
  std::vector<Sum> rows(m * s.k), column(m);
  for (int64_t l = 0; l < s.k; l++)
    for (int64_t i = 0; i < m; i++) rows[l * m + i] = Sum(element(a, s.opa, s.lda, i, l));
  for (int64_t j = 0; j < s.n; j++) {
    std::fill(column.begin(), column.end(), Sum(0));
    for (int64_t l = 0; l < s.k; l++) {
      Sum factor = Sum(element(b, s.opb, s.ldb, l, j));
      const Sum* from = &rows[l * m];
      for (int64_t i = 0; i < m; i++) column[i] += from[i] * factor;
    }
    for (int64_t i = 0; i < m; i++) {
      Out& out = c[i + j * s.ldc];
      out = Out(beta == Sum(0) ? alpha * column[i] : alpha * column[i] + beta * Sum(out));  // beta 0: c isn't read
    }
  }
}
template <class In, class Out, class Sum>
int gemm(Handle* h, Shape s, const void* alpha, const void* a, int64_t sa, const void* b, int64_t sb, const void* beta, void* c,
         int64_t sc, int count) {
  if (!s.right()) return INVALID_VALUE;
  auto al = scalar<Sum>(h, alpha), be = scalar<Sum>(h, beta);
  emulated::count("product");
  return submit_to(h, [=, on = device] {
    for (int i = 0; i < count; i++)
      product<In, Out, Sum>(on, s, al(), static_cast<const In*>(a) + i * sa, static_cast<const In*>(b) + i * sb, be(), static_cast<Out*>(c) + i * sc);
  });
}
template <class T>
int gemm_pointers(Handle* h, Shape s, const void* alpha, const T* const* a, const T* const* b, const void* beta, T* const* c, int count) {
  if (!s.right()) return INVALID_VALUE;
  auto al = scalar<T>(h, alpha), be = scalar<T>(h, beta);
  emulated::count("product");
  return submit_to(h, [=, on = device] {
    for (int i = 0; i < count; i++) product<T, T, T>(on, s, al(), a[i], b[i], be(), c[i]);
  });
}
// By cudaDataType: the types of a and b, of c, and how it is summed.
int gemm_ex(Handle* h, Shape s, const void* al, const void* a, int at, int64_t sa, const void* b, int bt, int64_t sb, const void* be,
            void* c, int ct, int64_t sc, int count, int compute) {
#define PRODUCT(In, Out, Sum) return gemm<In, Out, Sum>(h, s, al, a, sa, b, sb, be, c, sc, count)
  const bool half_sums = compute == 64 || compute == 65;  // CUBLAS_COMPUTE_16F and _PEDANTIC
  if (at != bt) return NOT_SUPPORTED;
  if (at == CUDA_R_32F && ct == CUDA_R_32F) PRODUCT(float, float, float);
  if (at == CUDA_R_64F && ct == CUDA_R_64F) PRODUCT(double, double, double);
  if (at == CUDA_C_32F && ct == CUDA_C_32F) PRODUCT(C, C, C);
  if (at == CUDA_C_64F && ct == CUDA_C_64F) PRODUCT(Z, Z, Z);
  if (at == CUDA_R_16F && ct == CUDA_R_16F && half_sums) PRODUCT(Half, Half, Half);
  if (at == CUDA_R_16F && ct == CUDA_R_16F) PRODUCT(Half, Half, float);
  if (at == CUDA_R_16F && ct == CUDA_R_32F) PRODUCT(Half, float, float);
  if (at == CUDA_R_16BF && ct == CUDA_R_16BF) PRODUCT(BFloat, BFloat, float);
  if (at == CUDA_R_16BF && ct == CUDA_R_32F) PRODUCT(BFloat, float, float);
  if (at == CUDA_R_8I && ct == CUDA_R_32I) PRODUCT(int8_t, int32_t, int32_t);
  return NOT_SUPPORTED;
#undef PRODUCT
}

// ---- matrix and vector
template <class T>
int gemv(Handle* h, int op, int m, int n, const void* alpha, const T* a, int lda, const T* x, int ix, const void* beta, T* y, int iy) {
  auto al = scalar<T>(h, alpha), be = scalar<T>(h, beta);
  count("product");
  return submit_to(h, [=, on = device] {
    int rows = op ? n : m, columns = op ? m : n;
    if (!reaches(on, a, lda, m, n) || !reaches(on, x, std::abs(ix), 1, columns) || !reaches(on, y, std::abs(iy), 1, rows)) return;
    const T* from = first(x, columns, ix);
    T* to = first(y, rows, iy);
    for (int i = 0; i < rows; i++) {
      T sum = 0;
      for (int j = 0; j < columns; j++) sum += element(a, op, lda, i, j) * from[int64_t(j) * ix];
      T& out = to[int64_t(i) * iy];
      out = be() == T(0) ? al() * sum : al() * sum + be() * out;
    }
  });
}
template <class T>
int ger(Handle* h, int m, int n, const void* alpha, const T* x, int ix, const T* y, int iy, T* a, int lda, bool conjugated) {
  auto al = scalar<T>(h, alpha);
  return submit_to(h, [=] {
    const T *u = first(x, m, ix), *v = first(y, n, iy);
    for (int j = 0; j < n; j++) {
      T factor = v[int64_t(j) * iy];
      if (conjugated) factor = conjugate(factor);
      for (int i = 0; i < m; i++) a[i + int64_t(j) * lda] += al() * u[int64_t(i) * ix] * factor;
    }
  });
}
template <class T>
int geam(Handle* h, int opa, int opb, int m, int n, const void* alpha, const T* a, int lda, const void* beta, const T* b, int ldb, T* c,
         int ldc) {
  auto al = scalar<T>(h, alpha), be = scalar<T>(h, beta);
  return submit_to(h, [=] {
    std::vector<T> out(int64_t(m) * n);  // c may be a or b
    auto term = [](T factor, const T* from, int op, int ld, int i, int j) { return factor == T(0) ? T(0) : factor * element(from, op, ld, i, j); };
    for (int j = 0; j < n; j++)
      for (int i = 0; i < m; i++) out[i + int64_t(j) * m] = term(al(), a, opa, lda, i, j) + term(be(), b, opb, ldb, i, j);
    for (int j = 0; j < n; j++) std::copy_n(&out[int64_t(j) * m], m, c + int64_t(j) * ldc);
  });
}
template <class T> int dgmm(Handle* h, int right, int m, int n, const T* a, int lda, const T* x, int ix, T* c, int ldc) {
  return submit_to(h, [=] {
    const T* v = first(x, right ? n : m, ix);
    for (int j = 0; j < n; j++)
      for (int i = 0; i < m; i++) c[i + int64_t(j) * ldc] = a[i + int64_t(j) * lda] * v[int64_t(right ? j : i) * ix];
  });
}

// ---- vectors
template <class T> int dot(Handle* h, int n, const T* x, int ix, const T* y, int iy, T* out, bool conjugated) {
  return submit_for_number(h, [=] {
    const T *a = first(x, n, ix), *b = first(y, n, iy);
    T sum = 0;
    for (int i = 0; i < n; i++) {
      T factor = a[int64_t(i) * ix];
      sum += (conjugated ? conjugate(factor) : factor) * b[int64_t(i) * iy];
    }
    *out = sum;
  });
}
template <class T> int axpy(Handle* h, int n, const void* alpha, const T* x, int ix, T* y, int iy) {
  auto al = scalar<T>(h, alpha);
  return submit_to(h, [=] {
    const T* a = first(x, n, ix);
    T* b = first(y, n, iy);
    for (int i = 0; i < n; i++) b[int64_t(i) * iy] += al() * a[int64_t(i) * ix];
  });
}
template <class T, class Factor> int scal(Handle* h, int n, const void* alpha, T* x, int ix) {
  auto al = scalar<Factor>(h, alpha);
  return submit_to(h, [=] { for (int i = 0; i < n; i++) x[int64_t(i) * ix] *= al(); });
}
template <class T, class Real> int norm(Handle* h, int n, const T* x, int ix, Real* out, bool squares) {
  return submit_for_number(h, [=] {
    double sum = 0;
    for (int i = 0; i < n; i++) {
      double re = std::real(x[int64_t(i) * ix]), im = std::imag(x[int64_t(i) * ix]);
      sum += squares ? re * re + im * im : std::abs(re) + std::abs(im);
    }
    *out = Real(squares ? std::sqrt(sum) : sum);
  });
}
template <class T> int extreme(Handle* h, int n, const T* x, int ix, int* out, bool largest) {
  return submit_for_number(h, [=] {
    int best = 0;  // counted from 1, as in Fortran
    double value = 0;
    for (int i = 0; i < n; i++) {
      double size = std::abs(std::real(x[int64_t(i) * ix])) + std::abs(std::imag(x[int64_t(i) * ix]));
      if (i && !(largest ? size > value : size < value)) continue;
      best = i + 1;
      value = size;
    }
    *out = best;
  });
}

}  // namespace

API int cublasCreate_v2(Handle** h) { *h = new Handle; return SUCCESS; }
API int cublasDestroy_v2(Handle* h) { delete h; return SUCCESS; }
API int cublasGetVersion_v2(Handle*, int* version) { *version = 130000; return SUCCESS; }
API int cublasSetStream_v2(Handle* h, void* stream) { h->stream = stream; return SUCCESS; }
API int cublasGetStream_v2(Handle* h, void** stream) { *stream = h->stream; return SUCCESS; }
API int cublasSetPointerMode_v2(Handle* h, int mode) { h->scalars_on_device = mode; return SUCCESS; }
API int cublasGetPointerMode_v2(Handle* h, int* mode) { *mode = h->scalars_on_device; return SUCCESS; }
API int cublasSetMathMode(Handle* h, int mode) { h->math = mode; return SUCCESS; }
API int cublasGetMathMode(Handle* h, int* mode) { *mode = h->math; return SUCCESS; }

#define OF_EVERY_TYPE(L, T)                                                                                                         \
  API int cublas##L##gemm_v2(Handle* h, int opa, int opb, int m, int n, int k, const void* al, const T* a, int lda, const T* b,    \
                             int ldb, const void* be, T* c, int ldc) {                                                             \
    return gemm<T, T, T>(h, {opa, opb, m, n, k, lda, ldb, ldc}, al, a, 0, b, 0, be, c, 0, 1);                                      \
  }                                                                                                                                 \
  API int cublas##L##gemmStridedBatched(Handle* h, int opa, int opb, int m, int n, int k, const void* al, const T* a, int lda,     \
                                        long long sa, const T* b, int ldb, long long sb, const void* be, T* c, int ldc,            \
                                        long long sc, int count) {                                                                 \
    return gemm<T, T, T>(h, {opa, opb, m, n, k, lda, ldb, ldc}, al, a, sa, b, sb, be, c, sc, count);                               \
  }                                                                                                                                 \
  API int cublas##L##gemmBatched(Handle* h, int opa, int opb, int m, int n, int k, const void* al, const T* const* a, int lda,     \
                                 const T* const* b, int ldb, const void* be, T* const* c, int ldc, int count) {                    \
    return gemm_pointers<T>(h, {opa, opb, m, n, k, lda, ldb, ldc}, al, a, b, be, c, count);                                        \
  }                                                                                                                                 \
  API int cublas##L##gemv_v2(Handle* h, int op, int m, int n, const void* al, const T* a, int lda, const T* x, int ix,             \
                             const void* be, T* y, int iy) {                                                                       \
    return gemv<T>(h, op, m, n, al, a, lda, x, ix, be, y, iy);                                                                     \
  }                                                                                                                                 \
  API int cublas##L##geam(Handle* h, int opa, int opb, int m, int n, const void* al, const T* a, int lda, const void* be,          \
                          const T* b, int ldb, T* c, int ldc) {                                                                    \
    return geam<T>(h, opa, opb, m, n, al, a, lda, be, b, ldb, c, ldc);                                                             \
  }                                                                                                                                 \
  API int cublas##L##dgmm(Handle* h, int side, int m, int n, const T* a, int lda, const T* x, int ix, T* c, int ldc) {             \
    return dgmm<T>(h, side, m, n, a, lda, x, ix, c, ldc);                                                                          \
  }                                                                                                                                 \
  API int cublas##L##axpy_v2(Handle* h, int n, const void* al, const T* x, int ix, T* y, int iy) {                                 \
    return axpy<T>(h, n, al, x, ix, y, iy);                                                                                        \
  }                                                                                                                                 \
  API int cublas##L##scal_v2(Handle* h, int n, const void* al, T* x, int ix) { return scal<T, T>(h, n, al, x, ix); }
OF_EVERY_TYPE(S, float)
OF_EVERY_TYPE(D, double)
OF_EVERY_TYPE(C, C)
OF_EVERY_TYPE(Z, Z)

#define SIZES(L, Norm, T, Real)                                                                                              \
  API int cublasI##L##amax_v2(Handle* h, int n, const T* x, int ix, int* out) { return extreme(h, n, x, ix, out, true); }   \
  API int cublasI##L##amin_v2(Handle* h, int n, const T* x, int ix, int* out) { return extreme(h, n, x, ix, out, false); }  \
  API int cublas##Norm##nrm2_v2(Handle* h, int n, const T* x, int ix, Real* out) { return norm(h, n, x, ix, out, true); }   \
  API int cublas##Norm##asum_v2(Handle* h, int n, const T* x, int ix, Real* out) { return norm(h, n, x, ix, out, false); }
SIZES(s, S, float, float)
SIZES(d, D, double, double)
SIZES(c, Sc, C, float)
SIZES(z, Dz, Z, double)

#define DOT(name, T, conjugated)                                                                            \
  API int cublas##name##_v2(Handle* h, int n, const T* x, int ix, const T* y, int iy, T* out) {            \
    return dot<T>(h, n, x, ix, y, iy, out, conjugated);                                                    \
  }
DOT(Sdot, float, false)
DOT(Ddot, double, false)
DOT(Cdotu, C, false)
DOT(Cdotc, C, true)
DOT(Zdotu, Z, false)
DOT(Zdotc, Z, true)

#define OUTER(name, T, conjugated)                                                                                                \
  API int cublas##name##_v2(Handle* h, int m, int n, const void* al, const T* x, int ix, const T* y, int iy, T* a, int lda) {    \
    return ger<T>(h, m, n, al, x, ix, y, iy, a, lda, conjugated);                                                                \
  }
OUTER(Sger, float, false)
OUTER(Dger, double, false)
OUTER(Cgeru, C, false)
OUTER(Cgerc, C, true)
OUTER(Zgeru, Z, false)
OUTER(Zgerc, Z, true)

API int cublasCsscal_v2(Handle* h, int n, const void* al, C* x, int ix) { return scal<C, float>(h, n, al, x, ix); }
API int cublasZdscal_v2(Handle* h, int n, const void* al, Z* x, int ix) { return scal<Z, double>(h, n, al, x, ix); }
API int cublasSgemmEx(Handle* h, int opa, int opb, int m, int n, int k, const float* al, const void* a, int at, int lda, const void* b,
                      int bt, int ldb, const float* be, void* c, int ct, int ldc) {
  return gemm_ex(h, {opa, opb, m, n, k, lda, ldb, ldc}, al, a, at, 0, b, bt, 0, be, c, ct, 0, 1, 68);  // CUBLAS_COMPUTE_32F
}
API int cublasGemmEx(Handle* h, int opa, int opb, int m, int n, int k, const void* al, const void* a, int at, int lda, const void* b,
                     int bt, int ldb, const void* be, void* c, int ct, int ldc, int compute, int) {
  return gemm_ex(h, {opa, opb, m, n, k, lda, ldb, ldc}, al, a, at, 0, b, bt, 0, be, c, ct, 0, 1, compute);
}
API int cublasGemmStridedBatchedEx(Handle* h, int opa, int opb, int m, int n, int k, const void* al, const void* a, int at, int lda,
                                   long long sa, const void* b, int bt, int ldb, long long sb, const void* be, void* c, int ct,
                                   int ldc, long long sc, int count, int compute, int) {
  return gemm_ex(h, {opa, opb, m, n, k, lda, ldb, ldc}, al, a, at, sa, b, bt, sb, be, c, ct, sc, count, compute);
}
