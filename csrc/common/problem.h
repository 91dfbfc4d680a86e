// What a kernel is asked to do: sizes, padding, and tensors as a pointer with strides. No Torch here.
#pragma once

#include <cstdint>
#include <type_traits>

#include "common/classes.h"

namespace reblur {

// What lies beyond the image's border.
enum class Padding : int { kZeros, kReplicate, kReflect };

enum class FamilyName : int { kSeeds, kRadial, kTaps, kGaussian, kDisk };

enum class Normalization : int { kSoftmax, kSum, kNone };

// The kernel that every pixel has: its family and the family's options.
struct KernelOptions {
  FamilyName family;
  int radii_count;  // 1 but for seeds
  int radii[kMaxRadius];
  bool square;                  // the support: square, or, of seeds and radial, disk
  Normalization normalization;  // of radial

  int radius() const { return radii[radii_count - 1]; }
  bool is_analytic() const { return family == FamilyName::kGaussian || family == FamilyName::kDisk; }
};

struct Size {
  int64_t batch, channels, height, width;
};

// Rows [begin, end) of images [first, last): a part of a problem.
struct Rows {
  int64_t first, last, begin, end;

  REBLUR_HOST_DEVICE int64_t images() const { return last - first; }
  REBLUR_HOST_DEVICE int64_t count() const { return end - begin; }
};

inline Rows all_rows(const Size& size) { return {0, size.batch, 0, size.height}; }

// A [N, C, H, W] tensor whose elements in a row follow each other; the other strides, in elements, are free.
template <class T>
struct Planes {
  T* data;  // nullptr where the tensor is not wanted
  int64_t batch_stride, channel_stride, row_stride;

  REBLUR_HOST_DEVICE T* row(int64_t n, int64_t c, int64_t y) const {
    return data + n * batch_stride + c * channel_stride + y * row_stride;
  }
  REBLUR_HOST_DEVICE explicit operator bool() const { return data != nullptr; }
};

// The index inside the image whose value stands at index i, which lies at most a radius outside; -1 for a zero.
// Reflection leaves the border itself unrepeated and needs size > the excess.
template <class Index = int64_t>
REBLUR_HOST_DEVICE constexpr Index padded_index(std::common_type_t<Index> i,
                                                std::common_type_t<Index> size,
                                                Padding padding) {
  if (i >= 0 && i < size) return i;
  if (padding == Padding::kZeros) return -1;
  if (padding == Padding::kReplicate) return i < 0 ? 0 : size - 1;
  return i < 0 ? -i : 2 * (size - 1) - i;
}

// Calls f with every index of the padded axis whose value is that of index i: i itself, then its copies up to `radius`
// beyond the border, outwards.
template <class F>
REBLUR_HOST_DEVICE void for_each_copy(int64_t i, int64_t size, Padding padding, int radius, F&& f) {
  f(i);
  for (int d = 1; d <= radius; ++d) {
    if (padded_index(-d, size, padding) == i) f(int64_t(-d));
    if (padded_index(size - 1 + d, size, padding) == i) f(size - 1 + d);
  }
}

}  // namespace reblur
