// cuRAND's host calls: other numbers than a card's, of the right distributions, from the standard library's generator.
#include "arithmetic.h"

#include <memory>
#include <random>

using namespace emulated;

namespace {

using Source = std::mt19937_64;
const int LAUNCH_FAILURE = 201;  // CURAND_STATUS_LAUNCH_FAILURE

struct Generator : LibraryHandle {
  std::shared_ptr<Source> source = std::make_shared<Source>();
  unsigned long long seed = Source::default_seed;

  int restart(unsigned long long offset) {
    source = std::make_shared<Source>(seed);  // what was asked for before draws on from the old one
    source->discard(offset);
    return 0;
  }
};

template <class T, class Draw> int draw(Generator* generator, T* out, size_t count, Draw one) {
  return submit_or(LAUNCH_FAILURE, *generator, [=, source = generator->source]() mutable {
    for (size_t i = 0; i < count; i++) out[i] = T(one(*source));
  });
}

}  // namespace

API int curandCreateGenerator(Generator** g, int) { *g = new Generator; return 0; }
API int curandDestroyGenerator(Generator* g) { delete g; return 0; }
API int curandGetVersion(int* version) { *version = 100400; return 0; }
API int curandSetStream(Generator* g, void* stream) { g->stream = stream; return 0; }
API int curandSetPseudoRandomGeneratorSeed(Generator* g, unsigned long long seed) {
  g->seed = seed;
  return g->restart(0);
}
API int curandSetGeneratorOffset(Generator* g, unsigned long long offset) { return g->restart(offset); }
API int curandSetGeneratorOrdering(Generator*, int) { return 0; }
API int curandGenerate(Generator* g, unsigned* out, size_t n) {
  return draw(g, out, n, [](Source& from) { return unsigned(from()); });
}
API int curandGenerateLongLong(Generator* g, unsigned long long* out, size_t n) {
  return draw(g, out, n, [](Source& from) { return from(); });
}
// in (0, 1], as cuRAND's are
API int curandGenerateUniform(Generator* g, float* out, size_t n) {
  return draw(g, out, n, [](Source& from) { return float((from() >> 40) + 1) * 0x1p-24f; });
}
API int curandGenerateUniformDouble(Generator* g, double* out, size_t n) {
  return draw(g, out, n, [](Source& from) { return double((from() >> 11) + 1) * 0x1p-53; });
}
template <class Distribution, class T> int draw_from(Generator* g, T* out, size_t n, Distribution shape) {
  return draw(g, out, n, [shape](Source& from) mutable { return shape(from); });
}
API int curandGenerateNormal(Generator* g, float* out, size_t n, float mean, float deviation) {
  return draw_from(g, out, n, std::normal_distribution<float>(mean, deviation));
}
API int curandGenerateNormalDouble(Generator* g, double* out, size_t n, double mean, double deviation) {
  return draw_from(g, out, n, std::normal_distribution<double>(mean, deviation));
}
API int curandGenerateLogNormal(Generator* g, float* out, size_t n, float mean, float deviation) {
  return draw_from(g, out, n, std::lognormal_distribution<float>(mean, deviation));
}
API int curandGenerateLogNormalDouble(Generator* g, double* out, size_t n, double mean, double deviation) {
  return draw_from(g, out, n, std::lognormal_distribution<double>(mean, deviation));
}
API int curandGeneratePoisson(Generator* g, unsigned* out, size_t n, double mean) {
  return draw_from(g, out, n, std::poisson_distribution<unsigned>(mean));
}
