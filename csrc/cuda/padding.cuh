// The adjoint of padding: which pixels beyond the border are copies of one inside.
#pragma once

#include "common/problem.h"
#include "cuda/launch.h"

namespace reblur {
namespace cuda {

// Copy i of index `at` on an axis of the padded image: itself for i = 0, then -1, size, -2, size + 1, …, each of which
// may be another index's copy.
__device__ __forceinline__ bool is_copy(int i, int at, int size, Padding padding, int& copy) {
  const int distance = (i + 1) / 2;
  copy = i == 0 ? at : i % 2 != 0 ? -distance : size - 1 + distance;
  return i == 0 || padded_index<int>(copy, size, padding) == at;
}

// The number of such i, for indices within [begin, end): 1 where none of them has a copy beyond the border.
__device__ __forceinline__ int copies(int begin, int end, int64_t size, Padding padding, int radius) {
  const bool interior = padding == Padding::kZeros || (begin > radius && end + radius < size);
  return interior ? 1 : 2 * radius + 1;
}

}  // namespace cuda
}  // namespace reblur
