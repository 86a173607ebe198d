// Memory: the host's, with a page behind each allocation that nobody may touch, filled with NaN; freed memory is closed.
#include "device.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <map>
#include <memory>

namespace emulated {
namespace {

const size_t ALIGNMENT = 256;  // cudaMalloc promises it
const size_t KEPT_CLOSED = 4096;  // freed allocations whose addresses aren't given out again
const int UNWRITTEN = 0xff;  // bytes that are NaN in every floating type

struct Block {
  size_t bytes;
  int device;
  cudaMemoryType type;
  char* mapped = nullptr;  // of the device's memory: where its pages start, and how many bytes, guard page included
  size_t mapped_bytes = 0;
};
std::map<uintptr_t, Block> blocks;
std::map<uintptr_t, size_t> closed;  // freed: pages that nobody may touch
std::deque<uintptr_t> closed_in_order;
std::map<int, size_t> used;
long before_failing = 0, to_fail = 0;  // allocations that succeed, and that fail then; -1: all

size_t page() { static const size_t bytes = size_t(sysconf(_SC_PAGESIZE)); return bytes; }
size_t round_up(size_t bytes, size_t to) { return (bytes + to - 1) / to * to; }

const std::pair<const uintptr_t, Block>* find(const void* address) {
  auto here = blocks.upper_bound(uintptr_t(address));
  if (here == blocks.begin()) return nullptr;
  --here;
  return uintptr_t(address) < here->first + std::max<size_t>(here->second.bytes, 1) ? &*here : nullptr;
}

cudaError_t allocate_host(void** start, size_t bytes) {
  Guard guard(lock);
  *start = nullptr;
  if (!bytes) return cudaSuccess;
  emulated::count("allocate pinned", bytes);
  void* made = aligned_alloc(page(), round_up(bytes, page()));
  if (!made) return fail(cudaErrorMemoryAllocation);
  blocks[uintptr_t(made)] = {bytes, device, cudaMemoryTypeHost};
  *start = made;
  return cudaSuccess;
}

cudaError_t allocate(void** start, size_t bytes, cudaMemoryType type) {
  Guard guard(lock);
  *start = nullptr;
  if (sticky) return fail(sticky);
  if (!bytes) return cudaSuccess;
  emulated::count("allocate", bytes);
  if (to_fail && --before_failing < 0) {
    if (to_fail > 0) to_fail--;
    return fail(cudaErrorMemoryAllocation);
  }
  size_t total = device_bytes();
  if (bytes > total || used[device] > total - bytes) return fail(cudaErrorMemoryAllocation);
  // it ends where the guard page begins, but for what the alignment takes
  size_t room = round_up(bytes, ALIGNMENT), pages = round_up(room, page());
  void* made = mmap(nullptr, pages + page(), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (made == MAP_FAILED) return fail(cudaErrorMemoryAllocation);
  char* mapped = static_cast<char*>(made);
  if (mprotect(mapped + pages, page(), PROT_NONE)) {
    munmap(made, pages + page());
    return fail(cudaErrorMemoryAllocation);
  }
  char* first = mapped + pages - room;
  memset(first, UNWRITTEN, room);
  used[device] += bytes;
  blocks[uintptr_t(first)] = {bytes, device, type, mapped, pages + page()};
  *start = first;
  return cudaSuccess;
}

void close(const Block& block) {
  // mapped anew, so that the memory goes back to the system and the addresses stay taken
  int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED;
  if (mmap(block.mapped, block.mapped_bytes, PROT_NONE, flags, -1, 0) == MAP_FAILED) abort();
  closed[uintptr_t(block.mapped)] = block.mapped_bytes;
  closed_in_order.push_back(uintptr_t(block.mapped));
  if (closed_in_order.size() > KEPT_CLOSED) {
    auto oldest = closed.find(closed_in_order.front());
    munmap(reinterpret_cast<void*>(oldest->first), oldest->second);
    closed.erase(oldest);
    closed_in_order.pop_front();
  }
}

cudaError_t release(void* start, bool host, bool waits = true) {
  Guard guard(lock);
  if (!start) return cudaSuccess;
  auto here = blocks.find(uintptr_t(start));
  if (here == blocks.end()) return fail(cudaErrorInvalidValue);
  Block block = here->second;
  if (host != (block.type == cudaMemoryTypeHost) || (!host && !block.mapped)) return fail(cudaErrorInvalidValue);
  emulated::count(host ? "free pinned" : "free", block.bytes);
  // as a driver does, so that what is under way may still use it
  for (int number = 0; waits && number < devices(); number++)
    if (host || number == block.device) wait_for_device(number);
  blocks.erase(uintptr_t(start));
  if (host) {
    free(start);
    return cudaSuccess;
  }
  used[block.device] -= block.bytes;
  const char *end = block.mapped + block.mapped_bytes - page(), *at = static_cast<char*>(start) + block.bytes;
  bool whole = std::all_of(at, end, [](char c) { return c == char(UNWRITTEN); });
  close(block);
  if (whole) return cudaSuccess;
  fprintf(stderr, "CuPy on the CPU: something wrote behind an allocation of %zu bytes\n", block.bytes);
  sticky = cudaErrorIllegalAddress;
  return fail(sticky);
}

// ---- copies
struct Rows {  // width bytes each
  char* to;
  size_t to_step;
  const char* from;
  size_t from_step, width, rows;

  size_t span(size_t step) const { return (rows - 1) * step + width; }
  void move() const {
    for (size_t row = 0; row < rows; row++) memmove(to + row * to_step, from + row * from_step, width);
  }
};
enum class Place { device, pinned, pageable };
Place place(const void* address) {
  auto found = find(address);
  if (!found) return Place::pageable;
  return found->second.type == cudaMemoryTypeHost ? Place::pinned : Place::device;
}
// What the device reads or writes when its turn comes; it may have been freed meanwhile.
Work checked(const Rows& rows, bool from_device, bool to_device) {
  return [=] {
    bool there = (!from_device || on_device(rows.from, rows.span(rows.from_step))) && (!to_device || on_device(rows.to, rows.span(rows.to_step)));
    if (there) return rows.move();
    fprintf(stderr, "CuPy on the CPU: a copy touches memory that was freed\n");
    sticky = cudaErrorIllegalAddress;
  };
}
// As the manual's page on the synchronisation of copies has it: pageable memory is read at once, and written before the
// call returns; pinned memory is read and written when the copy's turn comes.
cudaError_t copy(const Rows& rows, cudaMemcpyKind kind, const void* stream, bool waits) {
  Guard guard(lock);
  if (!rows.width || !rows.rows) return cudaSuccess;
  if (kind < cudaMemcpyHostToHost || kind > cudaMemcpyDefault) return fail(cudaErrorInvalidMemcpyDirection);
  bool to_device = place(rows.to) == Place::device, from_device = place(rows.from) == Place::device;
  if (kind != cudaMemcpyDefault) {
    bool says_to = kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
    bool says_from = kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;
    if ((says_to && !to_device) || (says_from && !from_device)) return fail(cudaErrorInvalidValue);
  }
  if ((to_device && !on_device(rows.to, rows.span(rows.to_step))) || (from_device && !on_device(rows.from, rows.span(rows.from_step))))
    return fail(cudaErrorInvalidValue);
  if (waits)
    if (cudaError_t error = forbid_in_capture()) return error;
  const char* names[] = {"copy host to host", "copy host to device", "copy device to host", "copy device to device"};
  emulated::count(names[2 * from_device + to_device], rows.width * rows.rows);
  Work work = checked(rows, from_device, to_device);
  if (capturing(stream)) return submit(stream, work);
  if (from_device && to_device) {
    int one = owner(rows.from), other = owner(rows.to);
    if (!waits || one == other) return submit(stream, work);
    work_on_devices(one, other, work);
    return cudaSuccess;
  }
  bool staged = to_device && place(rows.from) == Place::pageable;
  waits |= !to_device && place(rows.to) == Place::pageable;
  if (waits) emulated::count("synchronise copy");
  if (waits && staged)
    if (cudaError_t error = wait_for(stream)) return error;
  if (staged) {
    auto stage = std::make_shared<std::vector<char>>(rows.width * rows.rows);
    Rows in{stage->data(), rows.width, rows.from, rows.from_step, rows.width, rows.rows};
    in.move();
    Work out = checked({rows.to, rows.to_step, stage->data(), rows.width, rows.width, rows.rows}, false, true);
    return submit(stream, [stage, out] { out(); });
  }
  if (cudaError_t error = submit(stream, work)) return error;
  return waits ? wait_for(stream) : cudaSuccess;
}
Rows one_row(void* to, const void* from, size_t bytes) { return {static_cast<char*>(to), bytes, static_cast<const char*>(from), bytes, bytes, 1}; }
Rows rectangle(void* to, size_t to_step, const void* from, size_t from_step, size_t width, size_t rows) {
  return {static_cast<char*>(to), to_step, static_cast<const char*>(from), from_step, width, rows};
}

cudaMemPool_t the_pool() { return reinterpret_cast<cudaMemPool_t>(0x10); }

}  // namespace

bool on_device(const void* start, size_t bytes) {
  auto found = find(start);
  return found && found->second.type != cudaMemoryTypeHost && uintptr_t(start) + bytes <= found->first + found->second.bytes;
}

int owner(const void* address) {
  auto found = find(address);
  return found && found->second.type == cudaMemoryTypeDevice ? found->second.device : -1;
}

void add_variable(void* start, size_t bytes) { blocks[uintptr_t(start)] = {bytes, device, cudaMemoryTypeDevice}; }

const char* fault_at(const void* address) {
  uintptr_t here = uintptr_t(address);
  auto freed = closed.upper_bound(here);
  if (freed != closed.begin() && here < (--freed)->first + freed->second) return "touches memory that was freed";
  for (auto& [start, block] : blocks)
    if (block.mapped && here >= uintptr_t(block.mapped) && here < uintptr_t(block.mapped) + block.mapped_bytes)
      return "touches memory behind an allocation";
  return "touches memory that isn't the device's";
}

}  // namespace emulated

using namespace emulated;

API cudaError_t cudaMalloc(void** p, size_t n) {
  Guard guard(lock);
  if (cudaError_t error = forbid_in_capture()) return error;
  return allocate(p, n, cudaMemoryTypeDevice);
}
API cudaError_t cudaMallocManaged(void** p, size_t n, unsigned) { return allocate(p, n, cudaMemoryTypeManaged); }
API cudaError_t cudaMallocAsync(void** p, size_t n, cudaStream_t) { return allocate(p, n, cudaMemoryTypeDevice); }
API cudaError_t cudaMallocFromPoolAsync(void** p, size_t n, cudaMemPool_t, cudaStream_t) {
  return allocate(p, n, cudaMemoryTypeDevice);
}
API cudaError_t cudaHostAlloc(void** p, size_t n, unsigned) { return allocate_host(p, n); }
API cudaError_t cudaFree(void* p) {
  Guard guard(lock);
  if (cudaError_t error = forbid_in_capture()) return error;
  return release(p, false);
}
API cudaError_t cudaFreeAsync(void* p, cudaStream_t s) { return submit(s, [=] { release(p, false, false); }); }
API cudaError_t cudaFreeHost(void* p) { return release(p, true); }
API cudaError_t cudaHostRegister(void*, size_t, unsigned) { return cudaSuccess; }
API cudaError_t cudaHostUnregister(void*) { return cudaSuccess; }
API cudaError_t cudaMemGetInfo(size_t* free, size_t* all) {
  Guard guard(lock);
  *all = device_bytes();
  *free = *all - used[device];
  return cudaSuccess;
}
API cudaError_t cudaMemcpy(void* to, const void* from, size_t n, cudaMemcpyKind kind) { return copy(one_row(to, from, n), kind, nullptr, true); }
API cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t n, cudaMemcpyKind kind, cudaStream_t s) {
  return copy(one_row(to, from, n), kind, s, false);
}
API cudaError_t cudaMemcpyPeer(void* to, int, const void* from, int, size_t n) {
  return copy(one_row(to, from, n), cudaMemcpyDeviceToDevice, nullptr, true);
}
API cudaError_t cudaMemcpyPeerAsync(void* to, int, const void* from, int, size_t n, cudaStream_t s) {
  return copy(one_row(to, from, n), cudaMemcpyDeviceToDevice, s, false);
}
API cudaError_t cudaMemcpy2D(void* to, size_t dp, const void* from, size_t sp, size_t w, size_t h, cudaMemcpyKind kind) {
  return copy(rectangle(to, dp, from, sp, w, h), kind, nullptr, true);
}
API cudaError_t cudaMemcpy2DAsync(void* to, size_t dp, const void* from, size_t sp, size_t w, size_t h, cudaMemcpyKind kind, cudaStream_t s) {
  return copy(rectangle(to, dp, from, sp, w, h), kind, s, false);
}
API cudaError_t cudaMemsetAsync(void* p, int value, size_t n, cudaStream_t s) {
  Guard guard(lock);
  if (n && !on_device(p, n)) return fail(cudaErrorInvalidValue);
  count("fill", n);
  return submit(s, [=] { if (on_device(p, n)) memset(p, value, n); });
}
API cudaError_t cudaMemset(void* p, int value, size_t n) { return cudaMemsetAsync(p, value, n, nullptr); }
API cudaError_t cudaMemPrefetchAsync(const void*, size_t, cudaMemLocation, unsigned, cudaStream_t) { return cudaSuccess; }
API cudaError_t cudaMemAdvise(const void*, size_t, cudaMemoryAdvise, cudaMemLocation) { return cudaSuccess; }
API cudaError_t cudaDeviceGetDefaultMemPool(cudaMemPool_t* p, int) { *p = the_pool(); return cudaSuccess; }
API cudaError_t cudaDeviceGetMemPool(cudaMemPool_t* p, int) { *p = the_pool(); return cudaSuccess; }
API cudaError_t cudaDeviceSetMemPool(int, cudaMemPool_t) { return cudaSuccess; }
API cudaError_t cudaMemPoolCreate(cudaMemPool_t* p, const cudaMemPoolProps*) { *p = the_pool(); return cudaSuccess; }
API cudaError_t cudaMemPoolDestroy(cudaMemPool_t) { return cudaSuccess; }
API cudaError_t cudaMemPoolTrimTo(cudaMemPool_t, size_t) { return cudaSuccess; }
API cudaError_t cudaMemPoolGetAttribute(cudaMemPool_t, cudaMemPoolAttr, void* v) { *static_cast<uint64_t*>(v) = 0; return cudaSuccess; }
API cudaError_t cudaMemPoolSetAttribute(cudaMemPool_t, cudaMemPoolAttr, void*) { return cudaSuccess; }
API cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* found, const void* p) {
  Guard guard(lock);
  memset(found, 0, sizeof *found);
  auto block = find(p);
  found->type = block ? block->second.type : cudaMemoryTypeUnregistered;
  found->device = block ? block->second.device : cudaInvalidDeviceId;
  found->devicePointer = block && found->type != cudaMemoryTypeHost ? const_cast<void*>(p) : nullptr;
  found->hostPointer = block && found->type == cudaMemoryTypeDevice ? nullptr : const_cast<void*>(p);
  return cudaSuccess;
}

// Of the allocations to come, those after `before` fail: so many, or all where it is -1.
API void emulatorFailAllocations(long before, long many) {
  Guard guard(lock);
  before_failing = before;
  to_fail = many;
}
