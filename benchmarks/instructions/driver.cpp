// Runs each kernel of the AVX2 engine once, so that valgrind can count its instructions: no Torch, no threads.
//
// Under `valgrind --tool=callgrind --instr-atstart=no` each case is dumped under its name (benchmarks/instructions).
#include <valgrind/callgrind.h>

#include <cstdio>
#include <cstdlib>
#include <functional>
#include <vector>

#include "cpu/kernels.h"

namespace {

using namespace reblur;
using namespace reblur::cpu;

// Whole tiles and whole vectors: every pixel takes the same way.
constexpr int64_t kHeight = 32, kWidth = 128;

class Tensor {
 public:
  explicit Tensor(int64_t channels, float low = -1) : channels_(channels), values_(channels * kHeight * kWidth) {
    uint32_t state = 1;
    for (float& value : values_) {
      state = state * 1664525u + 1013904223u;
      value = low + (1 - low) * static_cast<float>(state >> 8) / (1 << 24);
    }
  }
  operator Planes<float>() { return {values_.data(), channels_ * kHeight * kWidth, kHeight * kWidth, kWidth}; }
  operator Planes<const float>() const {
    return {values_.data(), channels_ * kHeight * kWidth, kHeight * kWidth, kWidth};
  }

 private:
  int64_t channels_;
  std::vector<float> values_;
};

void count(const char* family, const char* kernel, const std::function<void()>& run) {
  run();  // what the first call alone does is not counted
  CALLGRIND_START_INSTRUMENTATION;
  run();
  CALLGRIND_STOP_INSTRUMENTATION;
  char name[64];
  std::snprintf(name, sizeof name, "%s %s", family, kernel);
  CALLGRIND_DUMP_STATS_AT(name);
}

void count_family(const char* name, KernelOptions options, int64_t parameter_channels, int64_t weight_channels) {
  constexpr int64_t kChannels = 3;
  const Size size{1, kChannels, kHeight, kWidth};
  const Rows rows{0, 1, 0, kHeight};
  // σ and ρ must not vanish: the time of a disk depends on its size.
  const float low = options.is_analytic() ? 0.9f * options.radius() : -1;
  const Tensor image(kChannels), parameters(parameter_channels, low), weights(weight_channels);
  Tensor output(kChannels), grad_parameters(parameter_channels), grad_weights(weight_channels);
  Problem<float> problem{options, {parameters, {}}};
  Planes<float> gradients[2] = {grad_parameters, {}};
  if (weight_channels) {
    problem.parameters[1] = weights;
    gradients[1] = grad_weights;
  }
  const Kernels<float>& kernels = kernels_avx2(float());
  const int64_t tiles = kernels.tiles(size, rows);
  const size_t count_of_states = kernels.state_size(problem) * kHeight * kWidth;
  float* memory = static_cast<float*>(std::aligned_alloc(64, count_of_states * sizeof(float)));
  const BlockedStates<float> states{memory, 0, kHeight};

  count(name, "gather", [&] { kernels.gather(problem, {size, rows, Padding::kZeros, image, output}, 0, tiles); });
  count(name, "states", [&] { kernels.states(problem, {size, rows, states}, 0, tiles); });
  count(name, "scatter", [&] {
    const BlockedStates<const float> read{memory, 0, kHeight};
    kernels.scatter(problem, {size, rows, Padding::kZeros, read, image, output}, 0, kernels.scatter_tiles(size, rows));
  });
  for (const bool keep : {false, true})
    count(name, keep ? "parameter gradients and states" : "parameter gradients", [&] {
      kernels.parameter_gradients(problem,
                                  {size,
                                   rows,
                                   Padding::kZeros,
                                   image,
                                   image,
                                   {gradients[0], gradients[1]},
                                   keep ? states : BlockedStates<float>{}},
                                  0,
                                  tiles);
    });
  std::free(memory);
}

KernelOptions one_radius(FamilyName family, int radius) {
  return {family, 1, {radius}, false, Normalization::kSoftmax};
}

}  // namespace

int main() {
  std::printf("pixels %lld\n", static_cast<long long>(kHeight * kWidth));
  KernelOptions published{FamilyName::kSeeds, 7, {1, 2, 3, 4, 5, 6, 7}, true, Normalization::kSoftmax};
  count_family("seeds 1 … 7", published, 35, 8);
  KernelOptions others{FamilyName::kSeeds, 3, {2, 5, 10}, true, Normalization::kSoftmax};
  count_family("seeds 2, 5, 10", others, 20, 4);
  count_family("radial 7", one_radius(FamilyName::kRadial, 7), 8, 0);
  count_family("gaussian 7", one_radius(FamilyName::kGaussian, 7), 1, 0);
  count_family("disk 7", one_radius(FamilyName::kDisk, 7), 1, 0);
}
