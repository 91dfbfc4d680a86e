// The CUDA engine's entry points. No Torch here: raw pointers, sizes and strides.
//
// T is float, double, __half or __nv_bfloat16. A launcher puts its work on the stream and returns: it neither waits nor
// allocates, and what it returns speaks of the launch only. Results are bitwise repeatable: there are no atomics. Sizes
// are trusted: every tensor has the shape in its comment, radii increase from 1 to kMaxRadius, and reflection has
// min(H, W) > the largest radius.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <type_traits>

#include "engine/classes.h"
#include "engine/problem.h"

namespace reblur {
namespace cuda {

// What T is computed in: float for the 16-bit types.
template <class T>
using Accumulation = std::conditional_t<std::is_same<T, double>::value, double, float>;

// A [N, C, H, W] tensor with any strides, in elements.
template <class T>
struct StridedPlanes {
  T* data;  // nullptr where the tensor is not wanted
  int64_t batch_stride, channel_stride, row_stride, column_stride;

  REBLUR_HOST_DEVICE T* at(int64_t n, int64_t c, int64_t y, int64_t x) const {
    return data + n * batch_stride + c * channel_stride + y * row_stride + x * column_stride;
  }
  REBLUR_HOST_DEVICE explicit operator bool() const { return data != nullptr; }
};

// One family with its parameters' planes.
template <class T>
struct SeedsProblem {
  int radii_count;
  int radii[kMaxRadius];
  bool square;                           // the support: square, or disk
  StridedPlanes<const T> parameters[2];  // seeds [N, Σ(r+1), H, W], weights [N, S+1, H, W]

  int classes() const { return class_count(radii[radii_count - 1]); }
};

template <class T>
struct ForwardArguments {
  Size size;
  Padding padding;
  StridedPlanes<const T> image;  // [N, C, H, W]
  StridedPlanes<T> output;       // [N, C, H, W]
};

template <class T>
struct ParameterGradientsArguments {
  Size size;
  Padding padding;
  StridedPlanes<const T> image;         // [N, C, H, W]
  StridedPlanes<const T> grad_output;   // [N, C, H, W]
  StridedPlanes<T> grad_parameters[2];  // like the parameters; each may be unwanted
  Accumulation<T>* class_weights;       // [N, classes, H, W], contiguous; nullptr where not wanted
};

template <class T>
struct ImageGradientArguments {
  Size size;
  Padding padding;
  const Accumulation<T>* class_weights;  // [N, classes, H, W], contiguous
  StridedPlanes<const T> grad_output;    // [N, C, H, W]
  StridedPlanes<T> grad_image;           // [N, C, H, W]
};

// Weights is T for a result, or Accumulation<T> for the image gradient.
template <class Weights>
struct ClassWeightsArguments {
  Size size;                             // channels unused
  StridedPlanes<Weights> class_weights;  // [N, classes, H, W]
};

template <class T>
struct ClassWeightsGradientsArguments {
  Size size;                                  // channels unused
  StridedPlanes<const T> grad_class_weights;  // [N, classes, H, W]
  StridedPlanes<T> grad_parameters[2];        // like the parameters; each may be unwanted
};

// y(p) = Σ_k T_k(p) S_k(p): each pixel gathers with its own kernel.
template <class T>
cudaError_t launch_reblur_forward(const SeedsProblem<T>& problem,
                                  const ForwardArguments<T>& arguments,
                                  cudaStream_t stream);

// The gradients to the parameters and, if wanted, the class weights that launch_reblur_image_gradient reads.
template <class T>
cudaError_t launch_reblur_parameter_gradients(const SeedsProblem<T>& problem,
                                              const ParameterGradientsArguments<T>& arguments,
                                              cudaStream_t stream);

// Each pixel spreads grad_output with its own kernel. The problem's parameters are not read.
template <class T>
cudaError_t launch_reblur_image_gradient(const SeedsProblem<T>& problem,
                                         const ImageGradientArguments<T>& arguments,
                                         cudaStream_t stream);

template <class T, class Weights>
cudaError_t launch_class_weights(const SeedsProblem<T>& problem,
                                 const ClassWeightsArguments<Weights>& arguments,
                                 cudaStream_t stream);

template <class T>
cudaError_t launch_class_weights_gradients(const SeedsProblem<T>& problem,
                                           const ClassWeightsGradientsArguments<T>& arguments,
                                           cudaStream_t stream);

}  // namespace cuda
}  // namespace reblur
