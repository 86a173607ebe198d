// A kernel's threads: one block after another, its threads as fibers of one system thread that change at barriers alone.
// EMULATOR_ORDER=forward | reverse | shuffle says in which order: a result that changes with it lacks a barrier.
#include "device.h"

#include <setjmp.h>
#include <signal.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>

// Keeps the registers that a call must keep, and goes on where another stack was left.
extern "C" void on_cpu_switch(void** left, void* to);
asm(R"(
.text
.type on_cpu_switch,@function
on_cpu_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
)");

namespace emulated {
namespace {

const size_t STACK = 256 << 10, GUARD = 4096;
const unsigned WARP = 32, THREADS = 1024;
const size_t WIDEST = 32;  // bytes of one value exchanged in a warp
const int UNWRITTEN = 0xff;

enum class Wait { no, barrier, warp, done };
struct Fiber {
  void* left = nullptr;  // its stack's top, where it was left
  char* stack = nullptr;
  Wait wait = Wait::done;
  unsigned number = 0;  // in its block
};
std::vector<char*> free_stacks;
std::vector<Fiber> fibers;
Fiber* running = nullptr;
void* scheduler = nullptr;
const Kernel* kernel = nullptr;
void** arguments = nullptr;
char slots[THREADS][WIDEST];  // what each thread of the block shows its warp

sigjmp_buf out_of_kernel;
volatile const void* touched = nullptr;
volatile sig_atomic_t misaligned = 0;

void pause(Wait wait) {
  running->wait = wait;
  on_cpu_switch(&running->left, scheduler);
}
void run_fiber() {
  kernel->call(arguments);
  pause(Wait::done);
  abort();  // nobody resumes it
}

// ---- what kernel.h calls
void barrier() { pause(Wait::barrier); }
void exchange(const void* mine, void* theirs, unsigned size, int source) {
  unsigned self = running->number;
  if (size > WIDEST) {
    fprintf(stderr, "CuPy on the CPU: a shuffle of %u bytes is not emulated\n", size);
    abort();
  }
  if (size) memcpy(slots[self], mine, size);
  pause(Wait::warp);
  if (!size) return;
  if (source >= 0) memcpy(theirs, slots[self / WARP * WARP + unsigned(source)], size);
  pause(Wait::warp);  // nobody shows another value before all have read this one
}
unsigned ballot(int vote) {
  unsigned self = running->number, first = self / WARP * WARP, all = 0;
  memcpy(slots[self], &vote, sizeof vote);
  pause(Wait::warp);
  for (unsigned k = 0; k < WARP && first + k < fibers.size(); k++) {
    int theirs;
    memcpy(&theirs, slots[first + k], sizeof theirs);
    if (theirs && fibers[first + k].wait != Wait::done) all |= 1u << k;
  }
  pause(Wait::warp);
  return all;
}
unsigned lane() { return running->number % WARP; }

// ---- one block
char* a_stack() {
  if (!free_stacks.empty()) {
    char* stack = free_stacks.back();
    free_stacks.pop_back();
    return stack;
  }
  void* made = mmap(nullptr, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (made == MAP_FAILED || mprotect(made, GUARD, PROT_NONE)) {
    fprintf(stderr, "CuPy on the CPU: no memory for a thread's stack\n");
    abort();
  }
  return static_cast<char*>(made);
}
void drop_fibers() {
  for (Fiber& fiber : fibers)
    if (fiber.stack) free_stacks.push_back(fiber.stack);
  fibers.clear();
}
void start(Fiber& fiber, unsigned number) {
  fiber.number = number;
  fiber.stack = a_stack();
  void** top = reinterpret_cast<void**>(fiber.stack + STACK);
  *--top = nullptr;  // run_fiber's return address: it never returns
  *--top = reinterpret_cast<void*>(run_fiber);
  for (int saved = 0; saved < 6; saved++) *--top = nullptr;
  fiber.left = top;
}
// Runs it as far as its next barrier; whether it still lives.
bool resume(Fiber& fiber) {
  State& state = *kernel->state;
  dim3 size = state.block_size;
  unsigned i = fiber.number;
  running = &fiber;
  state.thread = {i % size.x, i / size.x % size.y, i / (size.x * size.y)};
  fiber.wait = Wait::no;
  on_cpu_switch(&scheduler, fiber.left);
  if (fiber.wait != Wait::done) return true;
  free_stacks.push_back(fiber.stack);
  fiber.stack = nullptr;
  return false;
}
// Lets the warps go on whose living threads all wait for each other; whether there was one.
bool resume_warps(unsigned& alive) {
  bool moved = false;
  for (unsigned first = 0; first < fibers.size(); first += WARP) {
    auto begin = fibers.begin() + first, end = fibers.begin() + std::min<size_t>(first + WARP, fibers.size());
    auto waiting = std::count_if(begin, end, [](const Fiber& f) { return f.wait == Wait::warp; });
    auto living = std::count_if(begin, end, [](const Fiber& f) { return f.wait != Wait::done; });
    if (!waiting || waiting != living) continue;
    moved = true;
    for (auto fiber = begin; fiber != end; ++fiber)
      if (fiber->wait == Wait::warp) alive -= !resume(*fiber);
  }
  return moved;
}
const char* run_block(const std::vector<unsigned>& order, size_t dynamic_bytes) {
  // what is read before it is written shows
  memset(slots, UNWRITTEN, (order.size() + WARP - 1) / WARP * WARP * WIDEST);
  if (dynamic_bytes) memset(kernel->state->dynamic, UNWRITTEN, dynamic_bytes);
  if (kernel->shared) memset(kernel->shared, UNWRITTEN, size_t(kernel->shared_end - kernel->shared));
  fibers.assign(order.size(), Fiber());
  for (unsigned i = 0; i < order.size(); i++) start(fibers[i], i);
  unsigned alive = 0;
  for (unsigned i : order) alive += resume(fibers[i]);
  while (alive) {
    if (resume_warps(alive)) continue;
    unsigned at_barrier = unsigned(std::count_if(fibers.begin(), fibers.end(), [](const Fiber& f) { return f.wait == Wait::barrier; }));
    if (at_barrier != alive) return "has threads of a block that wait at different places";
    for (unsigned i : order)
      if (fibers[i].wait == Wait::barrier) alive -= !resume(fibers[i]);
  }
  return nullptr;
}

// ---- addresses that nobody may touch
void leave_kernel(int signal, siginfo_t* info, void*) {
  misaligned = signal == SIGILL;  // the compiler's check of addresses (build.py)
  touched = info->si_addr;
  siglongjmp(out_of_kernel, 1);
}
// While it lives, a fault ends the kernel instead of the process.
class Faults {
 public:
  Faults() {
    static char stack[64 << 10];  // the fiber's own may be what overflowed
    stack_t own{};
    own.ss_sp = stack;
    own.ss_size = sizeof stack;
    sigaltstack(&own, &old_stack_);
    struct sigaction action{};
    action.sa_sigaction = leave_kernel;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    sigaction(SIGSEGV, &action, &old_segv_);
    sigaction(SIGBUS, &action, &old_bus_);
    sigaction(SIGILL, &action, &old_ill_);
  }
  ~Faults() {
    sigaction(SIGILL, &old_ill_, nullptr);
    sigaction(SIGBUS, &old_bus_, nullptr);
    sigaction(SIGSEGV, &old_segv_, nullptr);
    sigaltstack(&old_stack_, nullptr);
  }

 private:
  struct sigaction old_segv_{}, old_bus_{}, old_ill_{};
  stack_t old_stack_{};
};

const char* what_was_touched() {
  if (misaligned) return "uses an address that isn't a multiple of its type's alignment";
  for (const Fiber& fiber : fibers) {
    auto at = static_cast<const char*>(const_cast<const void*>(touched));
    if (fiber.stack && at >= fiber.stack && at < fiber.stack + GUARD) return "has a thread whose own variables don't fit its stack";
  }
  return fault_at(const_cast<const void*>(touched));
}

}  // namespace

std::string run(const Kernel& which, dim3 grid, dim3 block, size_t dynamic_bytes, void** parameters) {
  static const std::string how = getenv("EMULATOR_ORDER") ? getenv("EMULATOR_ORDER") : "forward";
  static std::minstd_rand random(1);
  static std::vector<unsigned> order, blocks;
  static std::vector<char> dynamic;
  if (how != "forward" && how != "reverse" && how != "shuffle") return "can't run: EMULATOR_ORDER must be forward, reverse or shuffle";
  auto numbered = [](std::vector<unsigned>& numbers, size_t count) {
    numbers.resize(count);
    for (unsigned i = 0; i < count; i++) numbers[i] = i;
    if (how == "reverse") std::reverse(numbers.begin(), numbers.end());
    if (how == "shuffle") std::shuffle(numbers.begin(), numbers.end(), random);
  };
  kernel = &which;
  arguments = parameters;
  State& state = *which.state;
  if (dynamic.size() < dynamic_bytes + 256) dynamic.resize(dynamic_bytes + 256);
  state.dynamic = reinterpret_cast<void*>((uintptr_t(dynamic.data()) + 255) / 256 * 256);
  state.block_size = block;
  state.grid_size = grid;
  state.barrier = barrier;
  state.exchange = exchange;
  state.ballot = ballot;
  state.lane = lane;
  const char* wrong = nullptr;
  Faults faults;
  if (sigsetjmp(out_of_kernel, 1)) {
    std::string what = what_was_touched();
    drop_fibers();
    return what;
  }
  numbered(blocks, size_t(grid.x) * grid.y * grid.z);
  for (unsigned i : blocks) {
    state.block = {i % grid.x, i / grid.x % grid.y, i / (grid.x * grid.y)};
    numbered(order, size_t(block.x) * block.y * block.z);
    if ((wrong = run_block(order, dynamic_bytes))) break;
  }
  drop_fibers();
  return wrong ? wrong : "";
}

}  // namespace emulated
