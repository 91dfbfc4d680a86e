// The entry points of the CUDA kernels. No Torch here: raw pointers, sizes and strides.
//
// Scalars are float, double, __half or __nv_bfloat16: T that of images, P that of parameters. They are the same, or T
// is float and P of 16 bits, which is what networks under autocast give; REBLUR_FOR_EACH_PAIR has them. A launcher puts
// its work on the stream and returns: it neither waits nor allocates, and what it returns speaks of the launch only.
// Results are bitwise repeatable: there are no atomics. Sizes are trusted: every tensor has the shape in its comment,
// radii increase from 1 to the family's largest, and reflection has min(H, W) > the largest radius.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "common/classes.h"
#include "common/problem.h"
#include "common/radii.h"

namespace reblur {
namespace cuda {

// What a scalar is computed in: float for the 16-bit types. Of T and P it is the same.
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

// A family with its parameters' planes.
template <class P>
struct Problem {
  KernelOptions kernel;
  StridedPlanes<const P> parameters[2];  // the family's: seeds [N, Σ(r+1), H, W] and weights [N, S+1, H, W]; profile
                                         // [N, R+1, H, W]; tap weights [N, (R+1)(R+2)/2, H, W]; σ or ρ [N, 1, H, W]
};

// Whether a pixel's kernel is kept as class weights. Analytic families are computed tap by tap instead, but for the one
// radius whose classes are compiled into registers.
inline bool has_class_weights(const KernelOptions& kernel) {
  return !kernel.is_analytic() || kernel.radius() == PublishedRadii::kMax;
}

// A slab begins at a multiple of this row: all tiles' heights divide it.
constexpr int64_t kSlabStep = 8;

// Bytes of states at a time: what the second-level cache of a data-centre GPU holds beside the images.
constexpr int64_t kStatesBytes = 32 << 20;

// What a scatter reads of every pixel's kernel, instead of its parameters: the class weights; of families without, the
// number that gives their shape, and 1 / Σ f.
//
// Laid out as [images, rows, ⌈W / 32⌉, states, 32]: a warp reads or writes one state of 32 neighbours at a time, and
// all states of a pixel lie at distances known when compiling. Images and rows are those of a slab, as many as a limit
// holds; see slabs.h.
struct StatesLayout {
  static constexpr int kRun = 32;

  int64_t states, runs, rows, images;  // runs of a row
  int64_t first = 0;                   // elements that lie before the slab

  StatesLayout() = default;
  // Of whole images where one of them fits, else of rows of one: enough of them that those which the next slab reads,
  // too, are fewer than the others. Families without class weights keep two states, of everything.
  StatesLayout(const KernelOptions& kernel, const Size& size, int64_t element_bytes, int64_t limit_bytes)
      : states(has_class_weights(kernel) ? class_count(kernel.radius()) : 2),
        runs((size.width + kRun - 1) / kRun),
        rows(size.height),
        images(size.batch) {
    if (!has_class_weights(kernel)) return;
    const int64_t row_bytes = std::max<int64_t>(row_stride() * element_bytes, 1);
    const int64_t fitting = std::max<int64_t>(limit_bytes / row_bytes, 4 * kernel.radius() + 4 * kSlabStep);
    images = std::max<int64_t>(std::min(images, limit_bytes / (row_bytes * std::max<int64_t>(rows, 1))), 1);
    rows = std::min(rows, fitting);
  }

  REBLUR_HOST_DEVICE int64_t row_stride() const { return runs * states * kRun; }
  int64_t elements() const { return images * rows * row_stride(); }

  void begin_at(int64_t image, int64_t row) { first = (image * rows + row) * row_stride(); }

  // Of state 0; the next one is kRun further.
  REBLUR_HOST_DEVICE int64_t offset(int64_t n, int y, int x) const {
    return ((n * rows + y) * runs + x / kRun) * states * kRun + x % kRun - first;
  }
};

// Families without class weights keep beside them how far any kernel of a tile of pixels reaches: the number of tiles.
constexpr int kReachRows = 8, kReachColumns = 32;
inline int64_t reach_tiles(const Size& size) {
  const int64_t rows = (size.height + kReachRows - 1) / kReachRows;
  return size.batch * rows * ((size.width + kReachColumns - 1) / kReachColumns);
}

template <class Value>
struct States {
  StatesLayout layout;
  Value* data;  // nullptr where not wanted
  int* reach;   // [reach_tiles], of families without class weights
};

template <class T>
struct GatherArguments {
  Size size;
  Padding padding;
  StridedPlanes<const T> image;  // [N, C, H, W]
  StridedPlanes<T> output;       // [N, C, H, W]
};

template <class T, class P>
struct ParameterGradientsArguments {
  Size size;
  Rows rows;  // whose gradients are wanted; of families without class weights all
  Padding padding;
  StridedPlanes<const T> image;         // [N, C, H, W]
  StridedPlanes<const T> grad_output;   // [N, C, H, W]
  StridedPlanes<P> grad_parameters[2];  // like the parameters; each may be unwanted
  States<Accumulation<T>> states;       // of families with class weights, as by-product; may be unwanted
};

template <class T>
struct ScatterArguments {
  Size size;
  Rows rows;  // that receive; of families without class weights all
  Padding padding;
  States<Accumulation<T>> states;
  StridedPlanes<const T> image;  // [N, C, H, W]
  StridedPlanes<T> output;       // [N, C, H, W]
  Accumulation<T>* canvas;  // of families without class weights, unless the padding is zeros: [N, C, H + 2R, W + 2R]
};

template <class Value>
struct StatesArguments {
  Size size;  // channels unused
  Rows rows;  // whose states are wanted; of families without class weights all
  States<Value> states;
};

template <class P>
struct ClassWeightsArguments {
  Size size;                       // channels unused
  StridedPlanes<P> class_weights;  // [N, classes, H, W]
};

template <class P>
struct ClassWeightsGradientsArguments {
  Size size;                                  // channels unused
  StridedPlanes<const P> grad_class_weights;  // [N, classes, H, W]
  StridedPlanes<P> grad_parameters[2];        // like the parameters; each may be unwanted
};

// y(p) = Σ_u k(p, u) x(p + u): each pixel gathers with its own kernel.
template <class T, class P>
cudaError_t launch_gather(const Problem<P>& problem, const GatherArguments<T>& arguments, cudaStream_t stream);

// The gradients of a gather to the parameters and, if wanted, the states that launch_scatter reads.
template <class T, class P>
cudaError_t launch_parameter_gradients(const Problem<P>& problem,
                                       const ParameterGradientsArguments<T, P>& arguments,
                                       cudaStream_t stream);

template <class P>
cudaError_t launch_states(const Problem<P>& problem,
                          const StatesArguments<Accumulation<P>>& arguments,
                          cudaStream_t stream);

// y(q) = Σ_p k(p, q - p) x(p): each pixel spreads its value with its own kernel. The states stand for the parameters.
template <class T>
cudaError_t launch_scatter(const KernelOptions& kernel, const ScatterArguments<T>& arguments, cudaStream_t stream);

// Of families with class weights.
template <class P>
cudaError_t launch_class_weights(const Problem<P>& problem,
                                 const ClassWeightsArguments<P>& arguments,
                                 cudaStream_t stream);
template <class P>
cudaError_t launch_class_weights_gradients(const Problem<P>& problem,
                                           const ClassWeightsGradientsArguments<P>& arguments,
                                           cudaStream_t stream);

// The same for analytic families without class weights, which the launchers above call.
template <class T, class P>
cudaError_t launch_analytic_gather(const Problem<P>& problem, const GatherArguments<T>& arguments, cudaStream_t stream);
template <class T, class P>
cudaError_t launch_analytic_gradients(const Problem<P>& problem,
                                      const ParameterGradientsArguments<T, P>& arguments,
                                      cudaStream_t stream);
template <class P>
cudaError_t launch_analytic_states(const Problem<P>& problem,
                                   const StatesArguments<Accumulation<P>>& arguments,
                                   cudaStream_t stream);
template <class T>
cudaError_t launch_analytic_scatter(const KernelOptions& kernel,
                                    const ScatterArguments<T>& arguments,
                                    cudaStream_t stream);

}  // namespace cuda
}  // namespace reblur
