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

// Radii known at compile time keep a pixel's classes in registers. Others keep them in local memory.
template <class Radii>
constexpr bool kStatic = !std::is_same<Radii, DynamicRadii>::value;

inline bool is_published(const KernelOptions& kernel) {
  if (kernel.radii_count != PublishedRadii::kCount) return false;
  for (int n = 0; n < kernel.radii_count; ++n)
    if (kernel.radii[n] != n + 1) return false;
  return true;
}
static_assert(std::is_same<PublishedRadii, StaticRadii<1, 2, 3, 4, 5, 6, 7>>::value, "is_published counts from 1");

// The radius for which kernels are compiled besides: the published ones' largest.
using LargestRadius = StaticRadii<PublishedRadii::kMax>;

inline DynamicRadii dynamic_radii(const KernelOptions& kernel) {
  DynamicRadii radii = {kernel.radii_count, {}, nullptr};
  for (int n = 0; n < kernel.radii_count; ++n) radii.values[n] = kernel.radii[n];
  return radii;
}

// Calls f with a family whose parameters give class weights, as a kernel takes it.
template <class F>
cudaError_t with_class_family(const KernelOptions& kernel, F&& f) {
  if (kernel.family == FamilyName::kSeeds) {
    if (is_published(kernel)) return f(SeedsFamily<PublishedRadii>{{{}, kernel.square}});
    return f(SeedsFamily<DynamicRadii>{{dynamic_radii(kernel), kernel.square}});
  }
  if (kernel.family == FamilyName::kTaps) {
    if (kernel.radius() == LargestRadius::kMax) return f(TapsFamily<LargestRadius>{{{}, true}});
    return f(TapsFamily<DynamicRadii>{{dynamic_radii(kernel), true}});
  }
  if (kernel.radius() == LargestRadius::kMax)
    return f(RadialFamily<LargestRadius>{{{}, kernel.square}, kernel.normalization});
  return f(RadialFamily<DynamicRadii>{{dynamic_radii(kernel), kernel.square}, kernel.normalization});
}

// The same, or an analytic family of the radius that is compiled: all that `has_class_weights`.
template <class F>
cudaError_t with_family(const KernelOptions& kernel, F&& f) {
  if (kernel.family == FamilyName::kGaussian) return f(SampledGaussianFamily<LargestRadius>{{{}, true}});
  if (kernel.family == FamilyName::kDisk) return f(SampledDiskFamily<LargestRadius>{{{}, true}});
  return with_class_family(kernel, f);
}

// Calls f with what the classes of such a family are, whichever it is.
template <class F>
cudaError_t with_classes(const KernelOptions& kernel, F&& f) {
  const bool compiled =
      kernel.family == FamilyName::kSeeds ? is_published(kernel) : kernel.radius() == LargestRadius::kMax;
  if (compiled) return f(ClassFamily<LargestRadius>{{}, kernel.square || kernel.is_analytic()});
  return f(ClassFamily<DynamicRadii>{dynamic_radii(kernel), kernel.square});
}

static __constant__ const ClassTable device_class_table = make_class_table();

// As launched, with the class table of the device.
template <class Family>
__device__ __forceinline__ Family on_device(Family family) {
  if constexpr (!kStatic<typename Family::Radii>) family.radii.table = device_class_table.classes;
  return family;
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

// Of one pixel: load(tensor, channel).
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

  __device__ __forceinline__ Accumulation<P> operator()(int tensor, int channel) const {
    return load(pixels_[tensor] + channel * strides_[tensor]);
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
