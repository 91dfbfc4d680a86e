// The table of the engine's kernels for the instruction set that the including file is compiled for.
#include <type_traits>

#include "cpu/engine.h"
#include "families/seeds.h"

namespace reblur {
namespace cpu {
namespace {

constexpr ClassTable kClassTable = make_class_table();

// Calls f with the family of a problem: compiled for the published radii, general for all others.
template <class T, class F>
void with_family(const SeedsProblem<T>& problem, F&& f) {
  bool published = problem.radii_count == PublishedRadii::kCount;
  for (int n = 0; published && n < problem.radii_count; ++n) published = problem.radii[n] == PublishedRadii::kValues[n];
  if (published) {
    f(SeedsFamily<PublishedRadii>{{}, problem.square});
  } else {
    DynamicRadii radii{problem.radii_count, {}, kClassTable.classes};
    std::memcpy(radii.values, problem.radii, sizeof radii.values);
    f(SeedsFamily<DynamicRadii>{radii, problem.square});
  }
}

template <class T>
using LaneOf = at::vec::Vectorized<T>;

template <class T>
const Kernels<T>& kernels(const char* capability) {
  using Problem = SeedsProblem<T>;
  static const Kernels<T> table{
      capability,
      LaneOf<T>::size(),
      Tiles::count,
      ScatterTiles::count,
      [](const Problem& problem, const GatherArguments<T>& arguments, int64_t begin, int64_t end) {
        with_family(problem,
                    [&](const auto& family) { gather<LaneOf<T>>(family, problem.parameters, arguments, begin, end); });
      },
      [](const Problem& problem, const ParameterGradientsArguments<T>& arguments, int64_t begin, int64_t end) {
        with_family(problem, [&](const auto& family) {
          parameter_gradients<LaneOf<T>>(family, problem.parameters, arguments, begin, end);
        });
      },
      [](const Problem& problem, const ScatterArguments<T>& arguments, int64_t begin, int64_t end) {
        with_family(problem, [&](const auto& family) { scatter<LaneOf<T>>(family, arguments, begin, end); });
      },
      [](const Problem& problem, const ClassWeightsArguments<T>& arguments, int64_t begin, int64_t end) {
        with_family(problem, [&](const auto& family) {
          class_weights<LaneOf<T>>(family, problem.parameters, arguments, begin, end);
        });
      },
      [](const Problem& problem, const ClassWeightsGradientsArguments<T>& arguments, int64_t begin, int64_t end) {
        with_family(problem, [&](const auto& family) {
          class_weights_gradients<LaneOf<T>>(family, problem.parameters, arguments, begin, end);
        });
      },
  };
  return table;
}

}  // namespace
}  // namespace cpu
}  // namespace reblur
