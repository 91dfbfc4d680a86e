// Counts what one block of each grid does, instruction by instruction: how a warp's accesses fall onto the banks of
// shared memory and the sectors of global memory, multiply-adds, exponentials and barriers. The block stands a little
// behind the middle, where no row of tiles should begin.
//
// Linked with sources that were compiled with -fsanitize=thread, in the place of ThreadSanitizer's runtime: of that the
// compiler's calls before each access are wanted, not the sanitizer. They tell address and size; the place that calls,
// and those of the functions around it, is the instruction. A warp's accesses belong together that come from the same
// place for the same time since the last barrier. fmaf and exp2f take the place of the library's.
//
// When the program ends, adds a line a kernel to the file that the environment's REBLUR_EMULATION_ACCESSES names:
//   its address, threads of a block, blocks of the grid, then by thread: barriers, multiply-adds, exponentials; then
//   for loads and stores of shared, then of global memory: requests of a warp, words of 4 bytes of a thread, what the
//   requests take (wavefronts, sectors of 32 bytes), and what they would take at best.
// Of a kernel that is launched several times, the launch that does the most counts.
//
// Sources: shared memory has 32 banks of 4 bytes, a request of 8 or 16 bytes a thread passes in two or four parts
// (CUDA C++ Programming Guide, "Shared Memory"); global memory comes in sectors of 32 bytes (Nsight Compute, "Memory
// Tables").
#include <dlfcn.h>
#include <pthread.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <set>
#include <vector>

#include "emulation/executor.h"

extern "C" char __executable_start, _end;  // of the program's static memory, by the linker

namespace {

using cuda_emulation::kWarpSize;
using cuda_emulation::machine;

constexpr unsigned kBanks = 32, kWord = 4, kSector = 32;
constexpr unsigned kWavefront = kBanks * kWord;

enum Space { kShared, kGlobal, kSpaces };
enum Kind { kLoad, kStore, kKinds };

struct Access {
  uintptr_t place;
  uintptr_t address;
  unsigned bytes;
  Space space;
  Kind kind;
};

struct Traffic {
  uint64_t requests = 0, words = 0, taken = 0, ideal = 0;
};

struct Counts {
  uint64_t threads = 0, blocks = 0, barriers = 0, multiply_adds = 0, exponentials = 0;
  Traffic traffic[kSpaces][kKinds];

  uint64_t size() const {
    uint64_t words = 0;
    for (const auto& space : traffic)
      for (const Traffic& kind : space) words += kind.words;
    return words;
  }
};

class Counter {
 public:
  Counter() {
    pthread_attr_t attributes;
    void* stack;
    size_t bytes;
    pthread_getattr_np(pthread_self(), &attributes);
    pthread_attr_getstack(&attributes, &stack, &bytes);
    pthread_attr_destroy(&attributes);
    launcher_stack_ = {reinterpret_cast<uintptr_t>(stack), bytes};
  }

  void begin_block() {
    end_block();
    const dim3& grid = machine.grid_dim;
    const uint3& block = machine.block_index;
    const uint64_t blocks = uint64_t(grid.x) * grid.y * grid.z;
    counting_ = (uint64_t(block.z) * grid.y + block.y) * grid.x + block.x == blocks * 13 / 25;
    if (!counting_) return;
    kernel_ = machine.kernel;
    counts_ = {};
    counts_.threads = machine.threads;
    counts_.blocks = blocks;
    accesses_.assign(machine.threads, {});
    callers_.assign(machine.threads, {0});
  }

  void enter(const void* caller) {
    if (!running()) return;
    auto& callers = callers_[machine.current->thread];
    callers.push_back(callers.back() * 31 + reinterpret_cast<uintptr_t>(caller));
  }

  void leave() {
    if (running()) callers_[machine.current->thread].pop_back();
  }

  void end_round() {
    if (!counting_) return;
    for (size_t first = 0; first < accesses_.size(); first += kWarpSize) add_warp(first);
    for (auto& of_thread : accesses_) of_thread.clear();
    for (unsigned t = 0; t < machine.threads; ++t) {
      const auto& fiber = machine.fibers[t];
      counts_.barriers += fiber.state == cuda_emulation::State::kWaiting && fiber.barrier.lanes == 0;
    }
  }

  void access(const void* place, const void* at, unsigned bytes, Kind kind) {
    if (!running()) return;
    const auto address = reinterpret_cast<uintptr_t>(at);
    const Range shared = {reinterpret_cast<uintptr_t>(machine.shared), machine.shared_bytes};
    const Range stack = {reinterpret_cast<uintptr_t>(machine.current->stack), cuda_emulation::kStackBytes};
    const auto start = reinterpret_cast<uintptr_t>(&__executable_start);
    const Range program = {start, reinterpret_cast<uintptr_t>(&_end) - start};  // constants, and the machine itself
    if (stack.contains(address) || program.contains(address) || launcher_stack_.contains(address)) return;
    const Space space = shared.contains(address) ? kShared : kGlobal;
    const unsigned thread = machine.current->thread;
    const uintptr_t instruction = callers_[thread].back() * 31 + reinterpret_cast<uintptr_t>(place);
    accesses_[thread].push_back({instruction, address, bytes, space, kind});
  }

  void multiply_add() { counts_.multiply_adds += running(); }
  void exponential() { counts_.exponentials += running(); }

  void write() {
    end_block();
    const char* path = std::getenv("REBLUR_EMULATION_ACCESSES");
    std::FILE* file = path ? std::fopen(path, "a") : nullptr;
    if (file == nullptr) return;
    for (const auto& [kernel, c] : by_kernel_) {
      const auto by_thread = [&c = c](uint64_t count) { return double(count) / double(c.threads); };
      std::fprintf(file, "%p %ju %ju", kernel, uintmax_t(c.threads), uintmax_t(c.blocks));
      for (const uint64_t count : {c.barriers, c.multiply_adds, c.exponentials})
        std::fprintf(file, " %.9g", by_thread(count));
      for (const auto& space : c.traffic)
        for (const Traffic& t : space)
          std::fprintf(file,
                       " %ju %.9g %ju %ju",
                       uintmax_t(t.requests),
                       by_thread(t.words),
                       uintmax_t(t.taken),
                       uintmax_t(t.ideal));
      std::fprintf(file, "\n");
    }
    std::fclose(file);
  }

 private:
  struct Range {
    uintptr_t start;
    size_t bytes;
    bool contains(uintptr_t address) const { return address - start < bytes; }
  };

  bool running() const { return counting_ && machine.current != nullptr; }

  void end_block() {
    if (!counting_) return;
    counting_ = false;
    Counts& most = by_kernel_[kernel_];
    if (counts_.size() >= most.size()) most = counts_;
  }

  void add_warp(size_t first) {
    // By place and time: the accesses of the lanes.
    std::map<std::pair<uintptr_t, unsigned>, std::vector<Access>> requests;
    const size_t last = std::min<size_t>(first + kWarpSize, accesses_.size());
    for (size_t t = first; t < last; ++t) {
      std::map<uintptr_t, unsigned> times;
      for (const Access& access : accesses_[t]) requests[{access.place, times[access.place]++}].push_back(access);
    }
    for (const auto& [key, lanes] : requests) {
      Traffic& traffic = counts_.traffic[lanes[0].space][lanes[0].kind];
      ++traffic.requests;
      for (const Access& access : lanes) traffic.words += (access.bytes + kWord - 1) / kWord;
      lanes[0].space == kShared ? add_shared(lanes, traffic) : add_global(lanes, traffic);
    }
  }

  // As many lanes at a time as 128 bytes serve; of these, a bank gives one of its words at a time, to all that want it.
  static void add_shared(const std::vector<Access>& lanes, Traffic& traffic) {
    const size_t part = std::max<size_t>(1, kWavefront / std::max(kWord, lanes[0].bytes));
    for (size_t first = 0; first < lanes.size(); first += part) {
      std::array<std::set<uintptr_t>, kBanks> words;
      std::set<uintptr_t> different;
      for (size_t i = first; i < std::min(first + part, lanes.size()); ++i)
        for (uintptr_t word = lanes[i].address / kWord; word * kWord < lanes[i].address + lanes[i].bytes; ++word) {
          words[word % kBanks].insert(word);
          different.insert(word);
        }
      size_t longest = 0;
      for (const auto& bank : words) longest = std::max(longest, bank.size());
      traffic.taken += longest;
      traffic.ideal += (different.size() + kBanks - 1) / kBanks;
    }
  }

  static void add_global(const std::vector<Access>& lanes, Traffic& traffic) {
    std::set<uintptr_t> sectors, bytes;
    for (const Access& access : lanes)
      for (uintptr_t byte = access.address; byte < access.address + access.bytes; ++byte) {
        sectors.insert(byte / kSector);
        bytes.insert(byte);
      }
    traffic.taken += sectors.size();
    traffic.ideal += (bytes.size() + kSector - 1) / kSector;
  }

  Range launcher_stack_;
  bool counting_ = false;
  const void* kernel_ = nullptr;
  Counts counts_;
  std::vector<std::vector<Access>> accesses_;    // since the last barrier, by thread
  std::vector<std::vector<uintptr_t>> callers_;  // by thread: a number for each function that it is in
  std::map<const void*, Counts> by_kernel_;
};

// Neither built too late for the first access nor gone before the last.
Counter& counter() {
  static Counter& it = *new Counter;
  return it;
}

template <class Function>
Function library(const char* name) {
  return reinterpret_cast<Function>(dlsym(RTLD_NEXT, name));
}

[[maybe_unused]] const bool installed = [] {
  counter();
  cuda_emulation::observer = {[] { counter().begin_block(); }, [] { counter().end_round(); }};
  std::atexit([] { counter().write(); });
  return true;
}();

}  // namespace

extern "C" {

void __tsan_init() {}
void __tsan_func_entry(void* caller) { counter().enter(caller); }
void __tsan_func_exit() { counter().leave(); }
void __tsan_vptr_update(void**, void*) {}
void __tsan_vptr_read(void**) {}

#define REBLUR_ACCESS(name, bytes, kind) \
  void name(void* at) { counter().access(__builtin_return_address(0), at, bytes, kind); }
#define REBLUR_ACCESSES(bytes)                                \
  REBLUR_ACCESS(__tsan_read##bytes, bytes, kLoad)             \
  REBLUR_ACCESS(__tsan_write##bytes, bytes, kStore)           \
  REBLUR_ACCESS(__tsan_unaligned_read##bytes, bytes, kLoad)   \
  REBLUR_ACCESS(__tsan_unaligned_write##bytes, bytes, kStore) \
  REBLUR_ACCESS(__tsan_volatile_read##bytes, bytes, kLoad)    \
  REBLUR_ACCESS(__tsan_volatile_write##bytes, bytes, kStore)
REBLUR_ACCESSES(1)
REBLUR_ACCESSES(2)
REBLUR_ACCESSES(4)
REBLUR_ACCESSES(8)
REBLUR_ACCESSES(16)
#undef REBLUR_ACCESSES
#undef REBLUR_ACCESS
// Copies of objects: of the arguments, which are not in memory on a GPU.
void __tsan_read_range(void*, size_t) {}
void __tsan_write_range(void*, size_t) {}

float fmaf(float x, float y, float z) {
  static const auto original = library<float (*)(float, float, float)>("fmaf");
  counter().multiply_add();
  return original(x, y, z);
}

float exp2f(float x) {
  static const auto original = library<float (*)(float)>("exp2f");
  counter().exponential();
  return original(x);
}
}
