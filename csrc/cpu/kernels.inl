// The table of the kernels for the instruction set that the including file is compiled for.
#include <type_traits>

#include "cpu/class_weights.h"
#include "cpu/cost_volume.h"
#include "cpu/gather.h"
#include "cpu/parameter_gradients.h"
#include "cpu/scatter.h"
#include "cpu/states.h"
#include "families/disk.h"
#include "families/gaussian.h"
#include "families/radial.h"
#include "families/seeds.h"
#include "families/taps.h"

namespace reblur {
namespace cpu {
namespace {

constexpr ClassTable kClassTable = make_class_table();

bool is_published(const KernelOptions& kernel) {
  if (kernel.radii_count != PublishedRadii::kCount) return false;
  for (int n = 0; n < kernel.radii_count; ++n)
    if (kernel.radii[n] != PublishedRadii::kValues[n]) return false;
  return true;
}

// Calls f with the family of a kernel, if it has class weights: compiled for the published radii, a profile for their
// largest, and general.
template <class F>
void with_class_family(const KernelOptions& kernel, F&& f) {
  if (kernel.family == FamilyName::kSeeds && is_published(kernel)) {
    f(SeedsFamily<PublishedRadii>{{{}, kernel.square}});
    return;
  }
  using Tuned = StaticRadii<PublishedRadii::kMax>;
  if (kernel.family == FamilyName::kRadial && kernel.radius() == Tuned::kMax) {
    f(RadialFamily<Tuned>{{{}, kernel.square}, kernel.normalization});
    return;
  }
  if (kernel.family == FamilyName::kTaps && kernel.radius() == Tuned::kMax) {
    f(TapsFamily<Tuned>{{{}, true}});
    return;
  }
  DynamicRadii radii{kernel.radii_count, {}, kClassTable.classes};
  std::memcpy(radii.values, kernel.radii, sizeof radii.values);
  if (kernel.family == FamilyName::kSeeds)
    f(SeedsFamily<DynamicRadii>{{radii, kernel.square}});
  else if (kernel.family == FamilyName::kTaps)
    f(TapsFamily<DynamicRadii>{{radii, true}});
  else
    f(RadialFamily<DynamicRadii>{{radii, kernel.square}, kernel.normalization});
}

template <class F>
void with_family(const KernelOptions& kernel, F&& f) {
  if (kernel.family == FamilyName::kGaussian)
    f(GaussianFamily{{kernel.radius()}});
  else if (kernel.family == FamilyName::kDisk)
    f(DiskFamily{{kernel.radius()}});
  else
    with_class_family(kernel, f);
}

template <class T>
using LaneOf = at::vec::Vectorized<T>;

template <class T>
const Kernels<T>& kernels(const char* capability) {
  static const Kernels<T> table{
      capability,
      LaneOf<T>::size(),
      Tiles::count,
      ScatterTiles::count,
      [](const Problem<T>& problem) {
        int size = 0;
        with_family(problem.kernel, [&](const auto& family) { size = family.state_size(); });
        return size;
      },
      [](const Problem<T>& problem, const GatherArguments<T>& arguments, int64_t begin, int64_t end) {
        with_family(problem.kernel,
                    [&](const auto& family) { gather<LaneOf<T>>(family, problem.parameters, arguments, begin, end); });
      },
      [](const Problem<T>& problem, const ParameterGradientsArguments<T>& arguments, int64_t begin, int64_t end) {
        with_family(problem.kernel, [&](const auto& family) {
          parameter_gradients<LaneOf<T>>(family, problem.parameters, arguments, begin, end);
        });
      },
      [](const Problem<T>& problem, const StatesArguments<T>& arguments, int64_t begin, int64_t end) {
        with_family(problem.kernel,
                    [&](const auto& family) { states<LaneOf<T>>(family, problem.parameters, arguments, begin, end); });
      },
      [](const Problem<T>& problem, const ScatterArguments<T>& arguments, int64_t begin, int64_t end) {
        with_family(problem.kernel, [&](const auto& family) { scatter<LaneOf<T>>(family, arguments, begin, end); });
      },
      [](const Problem<T>& problem, const ClassWeightsArguments<T>& arguments, int64_t begin, int64_t end) {
        with_class_family(problem.kernel, [&](const auto& family) {
          class_weights<LaneOf<T>>(family, problem.parameters, arguments, begin, end);
        });
      },
      [](const Problem<T>& problem, const ClassWeightsGradientsArguments<T>& arguments, int64_t begin, int64_t end) {
        with_class_family(problem.kernel, [&](const auto& family) {
          class_weights_gradients<LaneOf<T>>(family, problem.parameters, arguments, begin, end);
        });
      },
      [](const CostVolumeArguments<T>& arguments) { return CostTiles(arguments).count(arguments.size); },
      [](const CostVolumeArguments<T>& arguments, int64_t begin, int64_t end) {
        cost_volume<LaneOf<T>>(arguments, begin, end);
      },
  };
  return table;
}

}  // namespace
}  // namespace cpu
}  // namespace reblur
