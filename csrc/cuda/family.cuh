// The seeds family on the device: which radii are compiled in, where the class table is, how parameters are read.
#pragma once

#include "cuda/kernels.h"
#include "cuda/launch.h"
#include "families/seeds.h"

namespace reblur {
namespace cuda {

// Radii known at compile time keep a pixel's classes in registers. Others keep them in local memory.
template <class Radii>
constexpr bool kStatic = !std::is_same<Radii, DynamicRadii>::value;

template <class T>
bool is_published(const SeedsProblem<T>& problem) {
  if (problem.radii_count != PublishedRadii::kCount) return false;
  for (int n = 0; n < problem.radii_count; ++n)
    if (problem.radii[n] != n + 1) return false;
  return true;
}
static_assert(std::is_same<PublishedRadii, StaticRadii<1, 2, 3, 4, 5, 6, 7>>::value, "is_published counts from 1");

// Calls f with the problem's family, as a kernel takes it.
template <class T, class F>
cudaError_t with_family(const SeedsProblem<T>& problem, F&& f) {
  if (is_published(problem)) return f(SeedsFamily<PublishedRadii>{{}, problem.square});
  DynamicRadii radii = {problem.radii_count, {}, nullptr};
  for (int n = 0; n < problem.radii_count; ++n) radii.values[n] = problem.radii[n];
  return f(SeedsFamily<DynamicRadii>{radii, problem.square});
}

static __constant__ const ClassTable device_class_table = make_class_table();

template <class Radii>
__device__ __forceinline__ Radii on_device(Radii radii) {
  if constexpr (!kStatic<Radii>) radii.table = device_class_table.classes;
  return radii;
}

// As launched, with the class table of the device.
template <class Radii>
__device__ __forceinline__ SeedsFamily<Radii> on_device(const SeedsFamily<Radii>& family) {
  return {on_device(family.radii), family.square};
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
      : seeds_(parameters.planes[0].at(n, 0, y, x)),
        weights_(parameters.planes[1].at(n, 0, y, x)),
        seeds_stride_(parameters.planes[0].channel_stride),
        weights_stride_(parameters.planes[1].channel_stride) {}

  __device__ __forceinline__ Accumulation<T> operator()(int tensor, int channel) const {
    return load(tensor == 0 ? seeds_ + channel * seeds_stride_ : weights_ + channel * weights_stride_);
  }

 private:
  const T *seeds_, *weights_;
  int64_t seeds_stride_, weights_stride_;
};

// Of one pixel: store(tensor, channel, value).
template <class T>
class GradientStorer {
 public:
  __device__ __forceinline__ GradientStorer(const ParameterGradients<T>& gradients, int64_t n, int y, int x)
      : seeds_(pixel(gradients.planes[0], n, y, x)),
        weights_(pixel(gradients.planes[1], n, y, x)),
        seeds_stride_(gradients.planes[0].channel_stride),
        weights_stride_(gradients.planes[1].channel_stride) {}

  __device__ __forceinline__ void operator()(int tensor, int channel, Accumulation<T> value) const {
    if (tensor == 0) {
      if (seeds_) store(value, seeds_ + channel * seeds_stride_);
    } else {
      if (weights_) store(value, weights_ + channel * weights_stride_);
    }
  }

 private:
  static __device__ __forceinline__ T* pixel(const StridedPlanes<T>& planes, int64_t n, int y, int x) {
    return planes ? planes.at(n, 0, y, x) : nullptr;
  }

  T *seeds_, *weights_;
  int64_t seeds_stride_, weights_stride_;
};

}  // namespace cuda
}  // namespace reblur
