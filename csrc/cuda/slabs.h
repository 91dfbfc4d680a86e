// The gradients to the image and its scatter, a slab of rows at a time: the states that pass from one kernel to the
// next take a fixed memory, which the second-level cache holds. Host code; no Torch here.
#pragma once

#include <algorithm>
#include <utility>

#include "cuda/kernels.h"

namespace reblur {
namespace cuda {

// Calls make(rows), which is to write the states of these rows, and use(rows), which may read those of these rows and
// of `radius` rows around them, until every row was used once. `states` is set to where they are.
template <class Value, class Make, class Use>
cudaError_t for_each_slab(
    const Size& size, int radius, States<Value>& states, cudaStream_t stream, Make&& make, Use&& use) {
  StatesLayout& layout = states.layout;
  if (layout.rows >= size.height) {  // slabs of whole images
    for (int64_t n = 0; n < size.batch; n += layout.images) {
      layout.begin_at(n, 0);
      const Rows rows = {n, std::min(n + layout.images, size.batch), 0, size.height};
      if (const cudaError_t error = make(rows); error != cudaSuccess) return error;
      if (const cudaError_t error = use(rows); error != cudaSuccess) return error;
    }
    return cudaSuccess;
  }
  for (int64_t n = 0; n < size.batch; ++n) {
    for (int64_t first = 0, made = 0, used = 0; used < size.height;) {
      layout.begin_at(n, first);
      const int64_t end = std::min((first + layout.rows) / kSlabStep * kSlabStep, size.height);
      if (const cudaError_t error = make(Rows{n, n + 1, made, end}); error != cudaSuccess) return error;
      made = end;
      const int64_t until = end == size.height ? end : (end - radius) / kSlabStep * kSlabStep;
      if (const cudaError_t error = use(Rows{n, n + 1, used, until}); error != cudaSuccess) return error;
      used = until;
      if (used == size.height) break;
      // The next slab reads the last of these rows, too; `StatesLayout` has room enough that nothing overlaps.
      const int64_t kept = used - radius;
      Value* const from = states.data + (kept - first) * layout.row_stride();
      const size_t bytes = (made - kept) * layout.row_stride() * sizeof(Value);
      const cudaError_t error = cudaMemcpyAsync(states.data, from, bytes, cudaMemcpyDeviceToDevice, stream);
      if (error != cudaSuccess) return error;
      first = kept;
    }
  }
  return cudaSuccess;
}

// A scatter from the parameters.
template <class T, class P>
cudaError_t launch_states_and_scatter(const Problem<P>& problem, ScatterArguments<T> arguments, cudaStream_t stream) {
  States<Accumulation<T>>& states = arguments.states;
  return for_each_slab(
      arguments.size,
      problem.kernel.radius(),
      states,
      stream,
      [&](const Rows& rows) {
        return launch_states(problem, StatesArguments<Accumulation<T>>{arguments.size, rows, states}, stream);
      },
      [&](const Rows& rows) {
        arguments.rows = rows;
        return launch_scatter(problem.kernel, arguments, stream);
      });
}

// All gradients of a gather: `scatter` is that of the output's gradient. The kernel that gives the parameters theirs
// leaves the states as it passes, but of families without class weights.
template <class T, class P>
cudaError_t launch_gather_gradients(const Problem<P>& problem,
                                    ParameterGradientsArguments<T, P> gradients,
                                    ScatterArguments<T> scatter,
                                    cudaStream_t stream) {
  if (!has_class_weights(problem.kernel)) {
    const cudaError_t error = launch_parameter_gradients(problem, gradients, stream);
    return error == cudaSuccess ? launch_states_and_scatter(problem, scatter, stream) : error;
  }
  return for_each_slab(
      scatter.size,
      problem.kernel.radius(),
      scatter.states,
      stream,
      [&](const Rows& rows) {
        gradients.rows = rows;
        gradients.states = scatter.states;
        return launch_parameter_gradients(problem, gradients, stream);
      },
      [&](const Rows& rows) {
        scatter.rows = rows;
        return launch_scatter(problem.kernel, scatter, stream);
      });
}

}  // namespace cuda
}  // namespace reblur
