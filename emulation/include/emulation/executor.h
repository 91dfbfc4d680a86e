// Runs a grid on the CPU: blocks one after another, every thread of a block a fiber that runs from barrier to barrier.
//
// Environment, read at every launch: REBLUR_EMULATION_BLOCKS orders the blocks of a grid, REBLUR_EMULATION_THREADS the
// threads of a block between two barriers. Each is forward (the default), reversed or shuffled:SEED. A kernel without
// races has the same results in every order.
//
// AddressSanitizer warns once that it does not fully support swapcontext. The calls of __sanitizer_*_switch_fiber are
// what it lacks.
#pragma once

#include <sys/mman.h>
#include <ucontext.h>

#include <algorithm>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <exception>
#include <map>
#include <mutex>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#else
inline void __sanitizer_start_switch_fiber(void**, const void*, size_t) {}
inline void __sanitizer_finish_switch_fiber(void*, const void**, size_t*) {}
inline void __sanitizer_set_death_callback(void (*)()) {}
#endif

#include "emulation/vectors.h"

namespace cuda_emulation {

constexpr unsigned kWarpSize = 32;
constexpr size_t kStackBytes = 1 << 20;
constexpr size_t kGuardBytes = 64 << 10;  // a multiple of every page size

struct Barrier {
  const char* file;
  int line;
  unsigned lanes;  // of the warp; 0 for the whole block

  bool operator==(const Barrier& other) const {
    return line == other.line && lanes == other.lanes && std::strcmp(file, other.file) == 0;
  }
};

enum class State { kReady, kWaiting, kEnded };

struct Fiber {
  ucontext_t context;
  char* stack;
  void* fake_stack = nullptr;
  unsigned thread;  // x runs fastest
  uint3 index;
  State state;
  Barrier barrier;
  alignas(16) unsigned char exchange[16];  // what a shuffle passes on
};

// Whoever watches the running grid; accesses.cpp does.
struct Observer {
  void (*begin_block)() = nullptr;
  void (*end_round)() = nullptr;  // all threads have ended or wait at a barrier
};
inline Observer observer;

struct Machine {
  std::mutex mutex;
  std::deque<Fiber> fibers;  // kept for later blocks and launches
  Fiber* current = nullptr;
  ucontext_t launcher;
  const void* launcher_stack = nullptr;
  size_t launcher_stack_bytes = 0;
  void (*run)(const void*) = nullptr;  // the kernel in the current thread
  const void* run_argument = nullptr;
  const void* kernel = nullptr;
  void* shared = nullptr;
  size_t shared_bytes = 0;
  unsigned threads = 0;
  uint3 thread_index, block_index;
  dim3 block_dim, grid_dim;
};
inline Machine machine;

inline std::string text(const uint3& i) {
  return "(" + std::to_string(i.x) + ", " + std::to_string(i.y) + ", " + std::to_string(i.z) + ")";
}

// Also called while a sanitizer or abort() ends the process: allocates nothing.
inline void report_place() {
  if (machine.current == nullptr) return;
  const uint3 &block = machine.block_index, &thread = machine.thread_index;
  std::fprintf(stderr,
               "cuda_emulation: in block (%u, %u, %u), thread (%u, %u, %u)\n",
               block.x,
               block.y,
               block.z,
               thread.x,
               thread.y,
               thread.z);
}

}  // namespace cuda_emulation

// UndefinedBehaviorSanitizer's hook: beside AddressSanitizer, its end does not call the death callback.
extern "C" inline __attribute__((used)) void __ubsan_on_report() { cuda_emulation::report_place(); }

namespace cuda_emulation {

[[noreturn]] inline void fail(const std::string& what) {
  std::fflush(stdout);
  std::fprintf(stderr, "cuda_emulation: %s\n", what.c_str());
  report_place();
  std::_Exit(1);  // no destructors on a fiber's stack
}

class Order {
 public:
  Order(const char* variable, size_t count) : items_(count) {
    std::iota(items_.begin(), items_.end(), size_t(0));
    const char* set = std::getenv(variable);
    const std::string value = set ? set : "forward";
    if (value == "reversed") {
      std::reverse(items_.begin(), items_.end());
    } else if (value.rfind("shuffled:", 0) == 0) {
      shuffled_ = true;
      random_ = std::strtoull(value.c_str() + 9, nullptr, 10);
    } else if (value != "forward") {
      fail(std::string(variable) + " is neither forward, reversed nor shuffled:SEED: " + value);
    }
  }

  const std::vector<size_t>& next() {
    for (size_t i = items_.size(); shuffled_ && i > 1; --i) {
      random_ = random_ * 6364136223846793005u + 1442695040888963407u;
      std::swap(items_[i - 1], items_[(random_ >> 33) % i]);
    }
    return items_;
  }

 private:
  std::vector<size_t> items_;
  bool shuffled_ = false;
  uint64_t random_ = 0;
};

inline void resume(Fiber& fiber) {
  machine.current = &fiber;
  machine.thread_index = fiber.index;
  void* fake_stack;
  __sanitizer_start_switch_fiber(&fake_stack, fiber.stack, kStackBytes);
  swapcontext(&machine.launcher, &fiber.context);
  __sanitizer_finish_switch_fiber(fake_stack, nullptr, nullptr);
  machine.current = nullptr;
}

__attribute__((no_sanitize_thread)) inline void pause() {
  Fiber& fiber = *machine.current;
  __sanitizer_start_switch_fiber(&fiber.fake_stack, machine.launcher_stack, machine.launcher_stack_bytes);
  swapcontext(&fiber.context, &machine.launcher);
  __sanitizer_finish_switch_fiber(fiber.fake_stack, &machine.launcher_stack, &machine.launcher_stack_bytes);
}

__attribute__((no_sanitize_thread)) inline void wait(const Barrier& barrier) {
  Fiber& fiber = *machine.current;
  if (barrier.lanes != 0 && !(barrier.lanes >> fiber.thread % kWarpSize & 1)) fail("a thread's mask leaves it out");
  fiber.barrier = barrier;
  fiber.state = State::kWaiting;
  pause();
}

__attribute__((no_sanitize_thread)) inline void fiber_main() {
  __sanitizer_finish_switch_fiber(nullptr, &machine.launcher_stack, &machine.launcher_stack_bytes);
  for (;;) {
    try {
      machine.run(machine.run_argument);
    } catch (const std::exception& error) {
      fail(std::string("exception in a kernel: ") + error.what());
    } catch (...) {
      fail("exception in a kernel");
    }
    machine.current->state = State::kEnded;
    pause();
  }
}

inline void add_fiber() {
  constexpr int kFlags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
  void* mapped = mmap(nullptr, kGuardBytes + kStackBytes, PROT_READ | PROT_WRITE, kFlags, -1, 0);
  if (mapped == MAP_FAILED) fail("no memory for a fiber's stack");
  mprotect(mapped, kGuardBytes, PROT_NONE);  // a stack grows downwards: overflow faults
  Fiber& fiber = machine.fibers.emplace_back();
  fiber.stack = static_cast<char*>(mapped) + kGuardBytes;
  getcontext(&fiber.context);
  fiber.context.uc_stack.ss_sp = fiber.stack;
  fiber.context.uc_stack.ss_size = kStackBytes;
  fiber.context.uc_link = nullptr;
  makecontext(&fiber.context, fiber_main, 0);
  // AddressSanitizer's swapcontext forgets the red zones of all of uc_stack, which nothing else reads from here on.
  fiber.context.uc_stack.ss_size = 0;
}

// Lets threads past the barriers at which all others have arrived too. False where none waits at any.
inline bool release() {
  const auto arrived = [](const Barrier& barrier, unsigned first, unsigned last) {
    for (unsigned t = first; t < last; ++t) {
      const Fiber& fiber = machine.fibers[t];
      if (barrier.lanes != 0 && (!(barrier.lanes >> (t - first) & 1) || fiber.state == State::kEnded)) continue;
      if (fiber.state != State::kWaiting || !(fiber.barrier == barrier)) return false;
    }
    return true;
  };
  bool waiting = false, released = false;
  for (unsigned t = 0; t < machine.threads; ++t) {
    if (machine.fibers[t].state != State::kWaiting) continue;
    waiting = true;
    const Barrier barrier = machine.fibers[t].barrier;
    const unsigned first = barrier.lanes == 0 ? 0 : t - t % kWarpSize;
    const unsigned last = barrier.lanes == 0 ? machine.threads : std::min(first + kWarpSize, machine.threads);
    if (!arrived(barrier, first, last)) continue;
    for (unsigned u = first; u < last; ++u)
      if (barrier.lanes == 0 || barrier.lanes >> (u - first) & 1)
        if (machine.fibers[u].state == State::kWaiting) machine.fibers[u].state = State::kReady;
    released = true;
  }
  if (!waiting || released) return released;

  std::map<std::string, std::pair<unsigned, uint3>> places;
  for (unsigned t = 0; t < machine.threads; ++t) {
    const Fiber& fiber = machine.fibers[t];
    const std::string place = fiber.state == State::kEnded
                                  ? std::string("ended")
                                  : std::string(fiber.barrier.lanes ? "wait for their warp at " : "wait at ") +
                                        fiber.barrier.file + ":" + std::to_string(fiber.barrier.line);
    ++places.emplace(place, std::make_pair(0u, fiber.index)).first->second.first;
  }
  std::string what = "divergent barrier in block " + text(machine.block_index) + ":";
  for (const auto& [place, threads] : places)
    what += "\n  " + std::to_string(threads.first) + " threads, first " + text(threads.second) + ", " + place;
  fail(what);
}

template <class Kernel>
void run_grid(const dim3& grid, const dim3& block, size_t shared_bytes, const void* address, const Kernel& kernel) {
  const std::lock_guard<std::mutex> lock(machine.mutex);
  machine.kernel = address;
  machine.shared_bytes = shared_bytes;
  machine.grid_dim = grid;
  machine.block_dim = block;
  machine.run = [](const void* argument) { (*static_cast<const Kernel*>(argument))(); };
  machine.run_argument = &kernel;
  machine.threads = block.x * block.y * block.z;
  while (machine.fibers.size() < machine.threads) add_fiber();
  // Neither more bytes than asked for, so that AddressSanitizer sees the first one beyond, nor a better alignment.
  if (posix_memalign(&machine.shared, 16, shared_bytes) != 0) fail("no memory for shared memory");
  __sanitizer_set_death_callback(report_place);
  const auto previous_handler = std::signal(SIGABRT, [](int) { report_place(); });

  Order blocks("REBLUR_EMULATION_BLOCKS", size_t(grid.x) * grid.y * grid.z);
  Order threads("REBLUR_EMULATION_THREADS", machine.threads);
  for (const size_t b : blocks.next()) {
    machine.block_index = {unsigned(b % grid.x), unsigned(b / grid.x % grid.y), unsigned(b / grid.x / grid.y)};
    std::memset(machine.shared, 0xFF, shared_bytes);  // NaN in every floating-point type
    for (unsigned t = 0; t < machine.threads; ++t) {
      machine.fibers[t].thread = t;
      machine.fibers[t].index = {t % block.x, t / block.x % block.y, t / block.x / block.y};
      machine.fibers[t].state = State::kReady;
    }
    if (observer.begin_block) observer.begin_block();
    do {
      for (const size_t t : threads.next())
        if (machine.fibers[t].state == State::kReady) resume(machine.fibers[t]);
      if (observer.end_round) observer.end_round();
    } while (release());
  }
  std::signal(SIGABRT, previous_handler);
  std::free(machine.shared);
}

// The value of the warp's lane `source`; no value, that is NaN, where that lane does not take part.
template <class T>
__attribute__((no_sanitize_thread)) T shuffle(unsigned lanes, T value, unsigned source, const char* file, int line) {
  static_assert(sizeof(T) <= sizeof(Fiber::exchange), "too large for a shuffle");
  std::memcpy(machine.current->exchange, &value, sizeof(T));
  wait({file, line, lanes});
  const unsigned t = machine.current->thread / kWarpSize * kWarpSize + source;
  if (lanes >> source & 1 && t < machine.threads && machine.fibers[t].state != State::kEnded)
    std::memcpy(&value, machine.fibers[t].exchange, sizeof(T));
  else
    std::memset(&value, 0xFF, sizeof(T));
  wait({file, line, lanes});  // nobody passes on the next value before all have read this one
  return value;
}

inline unsigned lane() { return machine.current->thread % kWarpSize; }

}  // namespace cuda_emulation
