// Streams, events, capture and graphs. Work waits in its stream until something that the manual says waits for it does.
// EMULATOR_DEFER=SEED lets it wait; which of several streams goes on is then drawn by the seed. Else it is done at once.
#include "device.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <memory>
#include <random>
#include <set>

namespace emulated {
namespace {

const size_t MOST_WAITING = 512;  // beyond it a launch waits for others, as on a card

struct Item {
  Work work;
  std::vector<std::shared_ptr<Item>> after;  // what must be done before
  bool done = false;
};
using Waiting = std::shared_ptr<Item>;
struct Graph { std::vector<Work> work; };
struct Stream {
  int device = 0;
  unsigned flags = 0;
  int priority = 0;
  Waiting last = nullptr;  // of its items
  bool destroyed = false;
  Graph* graph = nullptr;  // captured into
  bool origin = false, spoilt = false;
  cudaStreamCaptureMode mode = cudaStreamCaptureModeGlobal;

  bool blocking() const { return !(flags & cudaStreamNonBlocking); }
};
struct Record {
  Waiting item;
  std::chrono::steady_clock::time_point when;
};
struct Event {
  int device = 0;
  unsigned flags = 0;
  std::shared_ptr<Record> record;
  Graph* graph = nullptr;  // that of the capture which recorded it
};
struct Defaults { Stream legacy, per_thread; };

std::vector<Waiting> waiting;  // of all streams, as they came
std::vector<std::unique_ptr<Stream>> made;
std::set<Stream*> in_capture;

bool deferring() {
  static const bool is_set = getenv("EMULATOR_DEFER") && *getenv("EMULATOR_DEFER");
  return is_set;
}
bool drawn(size_t chances) {  // true in one of so many
  static std::mt19937 random(unsigned(setting("EMULATOR_DEFER", 0)));
  return random() % chances == 0;
}

Defaults& defaults(int number) {
  static std::vector<std::unique_ptr<Defaults>> each;
  while (int(each.size()) <= number) {
    each.push_back(std::make_unique<Defaults>());
    each.back()->legacy.device = each.back()->per_thread.device = int(each.size()) - 1;
  }
  return *each[size_t(number)];
}
Stream* of(const void* handle) {
  if (handle == nullptr || handle == cudaStreamLegacy) return &defaults(device).legacy;
  if (handle == cudaStreamPerThread) return &defaults(device).per_thread;
  return static_cast<Stream*>(const_cast<void*>(handle));
}
bool is_legacy(const Stream* stream) { return stream == &defaults(stream->device).legacy; }
bool known(const void* handle) {
  if (handle == nullptr || handle == cudaStreamLegacy || handle == cudaStreamPerThread) return true;
  return std::any_of(made.begin(), made.end(), [=](auto& stream) { return stream.get() == handle && !stream->destroyed; });
}
std::vector<Stream*> streams_of(int number) {
  std::vector<Stream*> found = {&defaults(number).legacy, &defaults(number).per_thread};
  for (auto& stream : made)
    if (stream->device == number) found.push_back(stream.get());
  return found;
}

// ---- the queue
void follow(Item& item, const Waiting& earlier) {
  if (earlier && !earlier->done) item.after.push_back(earlier);
}
// What is in the legacy stream comes after all that is in the device's blocking streams, and before what comes to them.
Waiting enqueue(Stream* stream, Work work, const Waiting& earlier = nullptr) {
  auto item = std::make_shared<Item>(Item{std::move(work), {}});
  follow(*item, earlier);
  follow(*item, stream->last);
  if (is_legacy(stream)) {
    for (Stream* other : streams_of(stream->device))
      if (other->blocking()) follow(*item, other->last);
  } else if (stream->blocking()) {
    follow(*item, defaults(stream->device).legacy.last);
  }
  waiting.push_back(item);
  return stream->last = item;
}
bool is_ready(const Waiting& item) {
  return std::all_of(item->after.begin(), item->after.end(), [](auto& earlier) { return earlier->done; });
}
// Does one item, of those needed where any are given.
void do_one(const std::set<Item*>& needed) {
  auto chosen = waiting.end();
  size_t ready = 0;
  for (auto each = waiting.begin(); each != waiting.end(); ++each)
    if (is_ready(*each) && (needed.empty() || needed.count(each->get())) && drawn(++ready)) chosen = each;
  if (chosen == waiting.end()) {
    fprintf(stderr, "CuPy on the CPU: a stream's work waits for itself\n");
    abort();
  }
  Waiting item = *chosen;
  waiting.erase(chosen);
  if (!sticky) item->work();
  item->work = nullptr;
  item->after.clear();
  item->done = true;
}
void collect(const Waiting& item, std::set<Item*>& needed) {
  if (item->done || !needed.insert(item.get()).second) return;
  for (auto& earlier : item->after) collect(earlier, needed);
}
// Others may go on meanwhile, or not.
void wait(const Waiting& item) {
  if (!item || item->done) return;
  std::set<Item*> needed;
  if (drawn(2)) collect(item, needed);
  while (!item->done) do_one(needed);
}
cudaError_t finished() { return sticky ? fail(sticky) : cudaSuccess; }
// Time goes by while somebody asks.
cudaError_t is_done(const Waiting& item) {
  if (item && !item->done) do_one({});
  if (sticky) return fail(sticky);
  return !item || item->done ? cudaSuccess : cudaErrorNotReady;
}

// The legacy stream waits for every blocking stream, which none that captures can let it.
cudaError_t check(const void* handle) {
  if (sticky) return fail(sticky);
  if (!known(handle)) return fail(cudaErrorInvalidResourceHandle);
  if (is_legacy(of(handle)))
    for (Stream* other : in_capture)
      if (other->blocking()) {
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
  if (Graph* graph = of(handle)->graph) {
    graph->work.push_back(std::move(work));
    return cudaSuccess;
  }
  Waiting item = enqueue(of(handle), std::move(work));
  if (!deferring()) wait(item);
  while (waiting.size() > MOST_WAITING) do_one({});
  return cudaSuccess;
}
cudaError_t wait_for(const void* handle) {
  Guard guard(lock);
  if (!known(handle)) return fail(cudaErrorInvalidResourceHandle);
  if (of(handle)->graph) return spoil(of(handle));
  // what is submitted to the legacy stream would wait for others; so does who waits for it
  if (is_legacy(of(handle)))
    for (Stream* other : streams_of(device))
      if (other->blocking()) wait(other->last);
  wait(of(handle)->last);
  return finished();
}
void wait_for_device(int number) {
  for (Stream* stream : streams_of(number)) wait(stream->last);
}
void work_on_devices(int one, int other, Work work) {
  auto item = std::make_shared<Item>(Item{std::move(work), {}});
  for (int number : {one, other})
    for (Stream* stream : streams_of(number)) {
      follow(*item, stream->last);
      stream->last = item;
    }
  waiting.push_back(item);
  if (!deferring()) wait(item);
}

bool launches_here(const void* handle) { return !known(handle) || of(handle)->device == device; }

cudaError_t forbid_in_capture() {
  for (Stream* stream : in_capture)
    if (stream->mode != cudaStreamCaptureModeRelaxed) return spoil(stream);
  return cudaSuccess;
}

bool capturing(const void* handle) { return known(handle) && of(handle)->graph != nullptr; }

}  // namespace emulated

using namespace emulated;

API cudaError_t cudaDeviceSynchronize() {
  Guard guard(lock);
  count("synchronise device");
  if (cudaError_t error = forbid_in_capture()) return error;
  wait_for_device(device);
  return finished();
}

// ---- streams
API cudaError_t cudaStreamCreateWithPriority(cudaStream_t* s, unsigned flags, int priority) {
  Guard guard(lock);
  auto gone = [](auto& stream) { return stream->destroyed && (!stream->last || stream->last->done); };
  made.erase(std::remove_if(made.begin(), made.end(), gone), made.end());
  made.push_back(std::make_unique<Stream>());
  made.back()->device = device;
  made.back()->flags = flags;
  made.back()->priority = priority;
  *s = reinterpret_cast<cudaStream_t>(made.back().get());
  return cudaSuccess;
}
API cudaError_t cudaStreamCreateWithFlags(cudaStream_t* s, unsigned flags) { return cudaStreamCreateWithPriority(s, flags, 0); }
API cudaError_t cudaStreamCreate(cudaStream_t* s) { return cudaStreamCreateWithPriority(s, 0, 0); }
API cudaError_t cudaStreamGetFlags(cudaStream_t s, unsigned* flags) { *flags = of(s)->flags; return cudaSuccess; }
API cudaError_t cudaStreamGetPriority(cudaStream_t s, int* priority) { *priority = of(s)->priority; return cudaSuccess; }
API cudaError_t cudaStreamDestroy(cudaStream_t s) {
  Guard guard(lock);
  if (!s || !known(s)) return fail(cudaErrorInvalidResourceHandle);
  in_capture.erase(of(s));
  of(s)->destroyed = true;  // it returns at once: what waits in it is still done
  return cudaSuccess;
}
API cudaError_t cudaStreamSynchronize(cudaStream_t s) {
  count("synchronise stream");
  return wait_for(s);
}
API cudaError_t cudaStreamQuery(cudaStream_t s) {
  Guard guard(lock);
  if (known(s) && of(s)->graph) return spoil(of(s));
  if (cudaError_t error = check(s)) return error;
  return is_done(of(s)->last);
}
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
  if (is_legacy(stream)) return fail(cudaErrorStreamCaptureUnsupported);
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
static Event* of(cudaEvent_t event) { return reinterpret_cast<Event*>(event); }
API cudaError_t cudaEventCreateWithFlags(cudaEvent_t* e, unsigned flags) {
  *e = reinterpret_cast<cudaEvent_t>(new Event{device, flags, nullptr});
  return cudaSuccess;
}
API cudaError_t cudaEventCreate(cudaEvent_t* e) { return cudaEventCreateWithFlags(e, 0); }
API cudaError_t cudaEventDestroy(cudaEvent_t e) {
  Guard guard(lock);
  delete of(e);
  return cudaSuccess;
}
API cudaError_t cudaEventRecord(cudaEvent_t e, cudaStream_t s) {
  Guard guard(lock);
  if (cudaError_t error = check(s)) return error;
  Event* event = of(e);
  Stream* stream = of(s);
  if (event->device != stream->device) return fail(cudaErrorInvalidResourceHandle);
  event->graph = stream->graph;
  if (stream->graph) return cudaSuccess;
  event->record = std::make_shared<Record>();
  std::weak_ptr<Record> record = event->record;  // which may be replaced before
  event->record->item = enqueue(stream, [record] {
    if (auto kept = record.lock()) kept->when = std::chrono::steady_clock::now();
  });
  if (!deferring()) wait(event->record->item);
  return cudaSuccess;
}
API cudaError_t cudaEventQuery(cudaEvent_t e) {
  Guard guard(lock);
  if (sticky) return fail(sticky);
  if (of(e)->graph) return fail(cudaErrorCapturedEvent);
  return of(e)->record ? is_done(of(e)->record->item) : cudaSuccess;
}
API cudaError_t cudaEventSynchronize(cudaEvent_t e) {
  Guard guard(lock);
  count("synchronise event");
  if (sticky) return fail(sticky);
  if (of(e)->graph) return fail(cudaErrorCapturedEvent);
  if (of(e)->record) wait(of(e)->record->item);
  return finished();
}
API cudaError_t cudaEventElapsedTime(float* ms, cudaEvent_t from, cudaEvent_t to) {
  Guard guard(lock);
  Event *a = of(from), *b = of(to);
  if (!a->record || !b->record || (a->flags | b->flags) & cudaEventDisableTiming) return fail(cudaErrorInvalidResourceHandle);
  if (!a->record->item->done || !b->record->item->done) return cudaErrorNotReady;
  *ms = std::chrono::duration<float, std::milli>(b->record->when - a->record->when).count();
  return cudaSuccess;
}
API cudaError_t cudaStreamWaitEvent(cudaStream_t s, cudaEvent_t e, unsigned) {
  Guard guard(lock);
  if (!known(s)) return fail(cudaErrorInvalidResourceHandle);
  Stream* stream = of(s);
  Event* event = of(e);
  if (!event->graph && !stream->graph) {
    if (event->record && !event->record->item->done) enqueue(stream, [] {}, event->record->item);
    return cudaSuccess;
  }
  if (!event->graph || stream->graph) return cudaSuccess;
  if (is_legacy(stream)) return fail(cudaErrorStreamCaptureImplicit);
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
