// Families with class weights on the device: which radii are compiled in, where the class table is, how parameters are
// read.
#pragma once

#include "cuda/kernels.h"
#include "cuda/launch.h"
#include "families/radial.h"
#include "families/seeds.h"

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

// Calls f with a family that has class weights, as a kernel takes it.
template <class F>
cudaError_t with_family(const KernelOptions& kernel, F&& f) {
  if (kernel.family == FamilyName::kSeeds) {
    if (is_published(kernel)) return f(SeedsFamily<PublishedRadii>{{{}, kernel.square}});
    return f(SeedsFamily<DynamicRadii>{{dynamic_radii(kernel), kernel.square}});
  }
  if (kernel.radius() == LargestRadius::kMax)
    return f(RadialFamily<LargestRadius>{{{}, kernel.square}, kernel.normalization});
  return f(RadialFamily<DynamicRadii>{{dynamic_radii(kernel), kernel.square}, kernel.normalization});
}

// Calls f with what the classes of such a family are, whichever it is.
template <class F>
cudaError_t with_classes(const KernelOptions& kernel, F&& f) {
  const bool compiled =
      kernel.family == FamilyName::kSeeds ? is_published(kernel) : kernel.radius() == LargestRadius::kMax;
  if (compiled) return f(ClassFamily<LargestRadius>{{}, kernel.square});
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
template <class T>
struct Parameters {
  StridedPlanes<const T> planes[2];
};

template <class T>
struct ParameterGradients {
  StridedPlanes<T> planes[2];
};

// Of one pixel: load(tensor, channel).
template <class T>
class ParameterLoader {
 public:
  __device__ __forceinline__ ParameterLoader(const Parameters<T>& parameters, int64_t n, int y, int x)
      : first_(parameters.planes[0].at(n, 0, y, x)),
        second_(parameters.planes[1] ? parameters.planes[1].at(n, 0, y, x) : nullptr),
        first_stride_(parameters.planes[0].channel_stride),
        second_stride_(parameters.planes[1].channel_stride) {}

  __device__ __forceinline__ Accumulation<T> operator()(int tensor, int channel) const {
    return load(tensor == 0 ? first_ + channel * first_stride_ : second_ + channel * second_stride_);
  }

 private:
  const T *first_, *second_;
  int64_t first_stride_, second_stride_;
};

// Of one pixel: store(tensor, channel, value).
template <class T>
class GradientStorer {
 public:
  __device__ __forceinline__ GradientStorer(const ParameterGradients<T>& gradients, int64_t n, int y, int x)
      : first_(pixel(gradients.planes[0], n, y, x)),
        second_(pixel(gradients.planes[1], n, y, x)),
        first_stride_(gradients.planes[0].channel_stride),
        second_stride_(gradients.planes[1].channel_stride) {}

  __device__ __forceinline__ void operator()(int tensor, int channel, Accumulation<T> value) const {
    if (tensor == 0) {
      if (first_) store(value, first_ + channel * first_stride_);
    } else {
      if (second_) store(value, second_ + channel * second_stride_);
    }
  }

 private:
  static __device__ __forceinline__ T* pixel(const StridedPlanes<T>& planes, int64_t n, int y, int x) {
    return planes ? planes.at(n, 0, y, x) : nullptr;
  }

  T *first_, *second_;
  int64_t first_stride_, second_stride_;
};

}  // namespace cuda
}  // namespace reblur
