// Streams, events and graphs: work is done when it is submitted, or kept by the graph that its stream captures into.
#include "device.h"

#include <chrono>
#include <fstream>
#include <memory>
#include <set>

namespace emulated {
namespace {

struct Graph { std::vector<Work> work; };
struct Stream {
  unsigned flags = 0;
  int priority = 0;
  Graph* graph = nullptr;  // captured into
  bool origin = false, spoilt = false;
  cudaStreamCaptureMode mode = cudaStreamCaptureModeGlobal;
};
struct Event {
  std::chrono::steady_clock::time_point when;
  bool recorded = false;
  Graph* graph = nullptr;  // that of the capture which recorded it
  unsigned flags = 0;
};
Stream legacy, per_thread;
std::set<Stream*> made, in_capture;

Stream* of(const void* handle) {
  if (handle == nullptr || handle == cudaStreamLegacy) return &legacy;
  if (handle == cudaStreamPerThread) return &per_thread;
  return static_cast<Stream*>(const_cast<void*>(handle));
}
bool known(const void* handle) {
  Stream* stream = of(handle);
  return stream == &legacy || stream == &per_thread || made.count(stream);
}
// The legacy stream waits for every blocking stream, which none that captures can let it.
cudaError_t check(const void* handle) {
  if (sticky) return fail(sticky);
  if (!known(handle)) return fail(cudaErrorInvalidResourceHandle);
  if (of(handle) == &legacy)
    for (Stream* other : in_capture)
      if (!(other->flags & cudaStreamNonBlocking)) {
        other->spoilt = true;
        return fail(cudaErrorStreamCaptureImplicit);
      }
  return cudaSuccess;
}
cudaError_t spoil(Stream* stream) {
  stream->spoilt = true;
  return fail(cudaErrorStreamCaptureUnsupported);
}

}  // namespace

cudaError_t submit(const void* handle, Work work) {
  Guard guard(lock);
  if (cudaError_t error = check(handle)) return error;
  if (Graph* graph = of(handle)->graph) graph->work.push_back(std::move(work));
  else work();
  return cudaSuccess;
}

cudaError_t forbid_in_capture() {
  for (Stream* stream : in_capture)
    if (stream->mode != cudaStreamCaptureModeRelaxed) return spoil(stream);
  return cudaSuccess;
}

bool capturing(const void* handle) { return of(handle)->graph != nullptr; }

}  // namespace emulated

using namespace emulated;

API cudaError_t cudaDeviceSynchronize() {
  Guard guard(lock);
  if (cudaError_t error = forbid_in_capture()) return error;
  return sticky ? fail(sticky) : cudaSuccess;
}

// ---- streams
API cudaError_t cudaStreamCreateWithPriority(cudaStream_t* s, unsigned flags, int priority) {
  Guard guard(lock);
  auto* stream = new Stream;
  stream->flags = flags;
  stream->priority = priority;
  made.insert(stream);
  *s = reinterpret_cast<cudaStream_t>(stream);
  return cudaSuccess;
}
API cudaError_t cudaStreamCreateWithFlags(cudaStream_t* s, unsigned flags) { return cudaStreamCreateWithPriority(s, flags, 0); }
API cudaError_t cudaStreamCreate(cudaStream_t* s) { return cudaStreamCreateWithPriority(s, 0, 0); }
API cudaError_t cudaStreamGetFlags(cudaStream_t s, unsigned* flags) { *flags = of(s)->flags; return cudaSuccess; }
API cudaError_t cudaStreamGetPriority(cudaStream_t s, int* priority) { *priority = of(s)->priority; return cudaSuccess; }
API cudaError_t cudaStreamDestroy(cudaStream_t s) {
  Guard guard(lock);
  Stream* stream = of(s);
  if (!made.erase(stream)) return fail(cudaErrorInvalidResourceHandle);
  in_capture.erase(stream);
  delete stream;
  return cudaSuccess;
}
API cudaError_t cudaStreamSynchronize(cudaStream_t s) {
  Guard guard(lock);
  if (known(s) && of(s)->graph) return spoil(of(s));
  return check(s);
}
API cudaError_t cudaStreamQuery(cudaStream_t s) { return cudaStreamSynchronize(s); }
API cudaError_t cudaLaunchHostFunc(cudaStream_t s, cudaHostFn_t call, void* data) { return submit(s, [=] { call(data); }); }
API cudaError_t cudaStreamAddCallback(cudaStream_t s, cudaStreamCallback_t call, void* data, unsigned) {
  Guard guard(lock);
  if (known(s) && of(s)->graph) return spoil(of(s));
  return submit(s, [=] { call(s, cudaSuccess, data); });
}

// ---- capture and graphs
API cudaError_t cudaStreamBeginCapture(cudaStream_t s, cudaStreamCaptureMode mode) {
  Guard guard(lock);
  if (!known(s)) return fail(cudaErrorInvalidResourceHandle);
  Stream* stream = of(s);
  if (stream == &legacy) return fail(cudaErrorStreamCaptureUnsupported);
  if (stream->graph) return fail(cudaErrorIllegalState);
  stream->graph = new Graph;
  stream->origin = true;
  stream->spoilt = false;
  stream->mode = mode;
  in_capture.insert(stream);
  return cudaSuccess;
}
API cudaError_t cudaStreamEndCapture(cudaStream_t s, cudaGraph_t* g) {
  Guard guard(lock);
  *g = nullptr;
  if (!known(s)) return fail(cudaErrorInvalidResourceHandle);
  Stream* stream = of(s);
  if (!stream->graph) return fail(cudaErrorIllegalState);
  if (!stream->origin) return fail(cudaErrorStreamCaptureUnmatched);
  Graph* graph = stream->graph;
  bool spoilt = false;
  for (auto each = in_capture.begin(); each != in_capture.end();) {
    Stream* member = *each;
    if (member->graph != graph) {
      ++each;
      continue;
    }
    spoilt |= member->spoilt;
    member->graph = nullptr;
    member->origin = member->spoilt = false;
    each = in_capture.erase(each);
  }
  if (spoilt) {
    delete graph;
    return fail(cudaErrorStreamCaptureInvalidated);
  }
  *g = reinterpret_cast<cudaGraph_t>(graph);
  return cudaSuccess;
}
API cudaError_t cudaStreamIsCapturing(cudaStream_t s, cudaStreamCaptureStatus* status) {
  Guard guard(lock);
  Stream* stream = of(s);
  *status = !stream->graph    ? cudaStreamCaptureStatusNone
            : stream->spoilt ? cudaStreamCaptureStatusInvalidated
                             : cudaStreamCaptureStatusActive;
  return cudaSuccess;
}
API cudaError_t cudaGraphDestroy(cudaGraph_t g) { delete reinterpret_cast<Graph*>(g); return cudaSuccess; }
API cudaError_t cudaGraphInstantiate(cudaGraphExec_t* e, cudaGraph_t g, unsigned long long) {
  if (!g) return fail(cudaErrorInvalidValue);
  *e = reinterpret_cast<cudaGraphExec_t>(new Graph(*reinterpret_cast<Graph*>(g)));
  return cudaSuccess;
}
API cudaError_t cudaGraphExecDestroy(cudaGraphExec_t e) { delete reinterpret_cast<Graph*>(e); return cudaSuccess; }
API cudaError_t cudaGraphLaunch(cudaGraphExec_t e, cudaStream_t s) {
  auto graph = std::make_shared<Graph>(*reinterpret_cast<Graph*>(e));
  return submit(s, [graph] { for (auto& work : graph->work) work(); });
}
API cudaError_t cudaGraphUpload(cudaGraphExec_t, cudaStream_t) { return cudaSuccess; }
API cudaError_t cudaGraphDebugDotPrint(cudaGraph_t g, const char* path, unsigned) {
  std::ofstream(path) << "digraph captured { n [label=\"" << reinterpret_cast<Graph*>(g)->work.size() << " calls\"] }\n";
  return cudaSuccess;
}

// ---- events
API cudaError_t cudaEventCreateWithFlags(cudaEvent_t* e, unsigned flags) {
  auto* event = new Event;
  event->flags = flags;
  *e = reinterpret_cast<cudaEvent_t>(event);
  return cudaSuccess;
}
API cudaError_t cudaEventCreate(cudaEvent_t* e) { return cudaEventCreateWithFlags(e, 0); }
API cudaError_t cudaEventDestroy(cudaEvent_t e) { delete reinterpret_cast<Event*>(e); return cudaSuccess; }
API cudaError_t cudaEventRecord(cudaEvent_t e, cudaStream_t s) {
  Guard guard(lock);
  if (cudaError_t error = check(s)) return error;
  auto* event = reinterpret_cast<Event*>(e);
  event->graph = of(s)->graph;
  event->when = std::chrono::steady_clock::now();
  event->recorded = true;
  return cudaSuccess;
}
API cudaError_t cudaEventQuery(cudaEvent_t e) {
  Guard guard(lock);
  if (sticky) return fail(sticky);
  return reinterpret_cast<Event*>(e)->graph ? fail(cudaErrorCapturedEvent) : cudaSuccess;
}
API cudaError_t cudaEventSynchronize(cudaEvent_t e) { return cudaEventQuery(e); }
API cudaError_t cudaEventElapsedTime(float* ms, cudaEvent_t from, cudaEvent_t to) {
  auto *a = reinterpret_cast<Event*>(from), *b = reinterpret_cast<Event*>(to);
  if (!a->recorded || !b->recorded || (a->flags | b->flags) & cudaEventDisableTiming) return fail(cudaErrorInvalidResourceHandle);
  *ms = std::chrono::duration<float, std::milli>(b->when - a->when).count();
  return cudaSuccess;
}
API cudaError_t cudaStreamWaitEvent(cudaStream_t s, cudaEvent_t e, unsigned) {
  Guard guard(lock);
  if (!known(s)) return fail(cudaErrorInvalidResourceHandle);
  Stream* stream = of(s);
  auto* event = reinterpret_cast<Event*>(e);
  if (!event->graph || stream->graph) return cudaSuccess;
  if (stream == &legacy) return fail(cudaErrorStreamCaptureImplicit);
  // a stream that waits for what is captured is captured too
  for (Stream* other : in_capture)
    if (other->graph == event->graph) {
      stream->graph = event->graph;
      stream->mode = other->mode;
      in_capture.insert(stream);
      break;
    }
  return cudaSuccess;
}
API cudaError_t cudaProfilerStart() { return cudaSuccess; }
API cudaError_t cudaProfilerStop() { return cudaSuccess; }
