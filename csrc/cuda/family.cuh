// Families with class weights on the device: which radii are compiled in, where the class table is, how parameters are
// read.
#pragma once

#include "cuda/kernels.h"
#include "cuda/launch.h"
#include "families/radial.h"
#include "families/sampled.h"
#include "families/seeds.h"
#include "families/taps.h"

namespace reblur {
namespace cuda {

// Whether radii are known when compiling; whether nothing of them is.
template <class Radii>
constexpr bool kStatic = false;
template <int... Rs>
constexpr bool kStatic<StaticRadii<Rs...>> = true;

template <class Radii>
constexpr bool kDynamic = std::is_same<Radii, DynamicRadii>::value;

// Blocks on a multiprocessor at least, which bound the registers of a thread: `tuned` where radii are known when
// compiling; `in_local_memory` where classes lie there; else one, as a pixel's classes are doubles or many.
template <class Value, class Radii>
constexpr int least_blocks(int tuned, int in_local_memory) {
  if (kStatic<Radii> && sizeof(Value) == 4) return tuned;
  return kDynamic<Radii> ? in_local_memory : 1;
}

// Other radii, of which a pixel's classes, twice, still fit the registers of a thread in single precision. Larger ones,
// and those of doubles, keep them in local memory.
using SmallRadii = BoundedRadii<1, PublishedRadii::kMax>;
using MiddleRadii = BoundedRadii<PublishedRadii::kMax + 1, 12>;

inline bool is_published(const KernelOptions& kernel) {
  if (kernel.radii_count != PublishedRadii::kCount) return false;
  for (int n = 0; n < kernel.radii_count; ++n)
    if (kernel.radii[n] != n + 1) return false;
  return true;
}
static_assert(std::is_same<PublishedRadii, StaticRadii<1, 2, 3, 4, 5, 6, 7>>::value, "is_published counts from 1");

// The radius for which kernels are compiled besides: the published ones' largest.
using LargestRadius = StaticRadii<PublishedRadii::kMax>;

// Radii that are not known when compiling.
template <class Radii>
Radii radii_of(const KernelOptions& kernel) {
  Radii radii{};
  radii.count = kernel.radii_count;
  for (int n = 0; n < kernel.radii_count; ++n) radii.values[n] = kernel.radii[n];
  return radii;
}

// Calls f with a family whose parameters give class weights, as a kernel takes it that computes in Value.
template <class Value, class F>
cudaError_t with_class_family(const KernelOptions& kernel, F&& f) {
  const bool compiled =
      kernel.family == FamilyName::kSeeds ? is_published(kernel) : kernel.radius() == LargestRadius::kMax;
  const auto with = [&](const auto& published, const auto& largest) {
    using Published = std::decay_t<decltype(published)>;
    using Largest = std::decay_t<decltype(largest)>;
    if (kernel.family == FamilyName::kSeeds) return f(SeedsFamily<Published>{{published, kernel.square}});
    if (kernel.family == FamilyName::kTaps) return f(TapsFamily<Largest>{{largest, true}});
    return f(RadialFamily<Largest>{{largest, kernel.square}, kernel.normalization});
  };
  if (compiled) return with(PublishedRadii{}, LargestRadius{});
  const auto with_others = [&](const auto& radii) { return with(radii, radii); };
  if constexpr (std::is_same<Value, float>::value) {
    if (kernel.radius() < SmallRadii::kRings) return with_others(radii_of<SmallRadii>(kernel));
    if (kernel.radius() < MiddleRadii::kRings) return with_others(radii_of<MiddleRadii>(kernel));
  }
  return with_others(radii_of<DynamicRadii>(kernel));
}

// The same, or an analytic family of the radius that is compiled: all that `has_class_weights`.
template <class Value, class F>
cudaError_t with_family(const KernelOptions& kernel, F&& f) {
  if (kernel.family == FamilyName::kGaussian) return f(SampledGaussianFamily<LargestRadius>{{{}, true}});
  if (kernel.family == FamilyName::kDisk) return f(SampledDiskFamily<LargestRadius>{{{}, true}});
  return with_class_family<Value>(kernel, f);
}

// Calls f with what the classes of such a family are, whichever it is.
template <class F>
cudaError_t with_classes(const KernelOptions& kernel, F&& f) {
  const bool compiled =
      kernel.family == FamilyName::kSeeds ? is_published(kernel) : kernel.radius() == LargestRadius::kMax;
  if (compiled) return f(ClassFamily<LargestRadius>{{}, kernel.square || kernel.is_analytic()});
  return f(ClassFamily<DynamicRadii>{radii_of<DynamicRadii>(kernel), kernel.square});
}

static __constant__ const ClassTable device_class_table = make_class_table();

// As launched; DynamicRadii with the class table of the device. Others are not copied: a copy whose radii are read by
// an index would lie in local memory.
template <class Family>
__device__ __forceinline__ decltype(auto) on_device(const Family& launched) {
  if constexpr (kDynamic<typename Family::Radii>) {
    Family family = launched;
    family.radii.table = device_class_table.classes;
    return family;
  } else {
    return (launched);
  }
}

// The parameters' planes, as a kernel takes them.
template <class P>
struct Parameters {
  StridedPlanes<const P> planes[2];
};

template <class P>
struct ParameterGradients {
  StridedPlanes<P> planes[2];
};

// Of one pixel: load(tensor, channel), or that of a channel further on.
template <class P, class Family>
class ParameterLoader {
 public:
  __device__ __forceinline__ ParameterLoader(const Parameters<P>& parameters, int64_t n, int y, int x) {
    static_for<Family::kTensors>([&](auto tensor) {
      const StridedPlanes<const P>& planes = parameters.planes[decltype(tensor)::value];
      pixels_[decltype(tensor)::value] = planes.at(n, 0, y, x);
      strides_[decltype(tensor)::value] = planes.channel_stride;
    });
  }

  __device__ __forceinline__ Accumulation<P> operator()(int tensor, int channel, int further = 0) const {
    return load(pixels_[tensor] + channel * strides_[tensor] + further * strides_[tensor]);
  }

 private:
  const P* pixels_[Family::kTensors];
  int64_t strides_[Family::kTensors];
};

// Of one pixel: store(tensor, channel, value).
template <class P, class Family>
class GradientStorer {
 public:
  __device__ __forceinline__ GradientStorer(const ParameterGradients<P>& gradients, int64_t n, int y, int x) {
    static_for<Family::kTensors>([&](auto tensor) {
      const StridedPlanes<P>& planes = gradients.planes[decltype(tensor)::value];
      pixels_[decltype(tensor)::value] = planes ? planes.at(n, 0, y, x) : nullptr;
      strides_[decltype(tensor)::value] = planes.channel_stride;
    });
  }

  __device__ __forceinline__ void operator()(int tensor, int channel, Accumulation<P> value) const {
    if (pixels_[tensor]) store(value, pixels_[tensor] + channel * strides_[tensor]);
  }

 private:
  P* pixels_[Family::kTensors];
  int64_t strides_[Family::kTensors];
};

}  // namespace cuda
}  // namespace reblur
