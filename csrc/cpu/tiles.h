// How the kernels walk an image: tiles of one row, scratch memory, and rows with their padding.
#pragma once

#include <cstdlib>
#include <cstring>
#include <new>

#include "common/classes.h"
#include "common/problem.h"

namespace reblur {
namespace cpu {
namespace {  // compiled once per instruction set: internal linkage keeps the copies apart

constexpr int64_t round_up(int64_t n, int64_t multiple) { return (n + multiple - 1) / multiple * multiple; }

// Uninitialised memory for one call, aligned to a cache line.
template <class T>
class Scratch {
 public:
  explicit Scratch(int64_t count)
      : data_(static_cast<T*>(std::aligned_alloc(64, round_up(count * int64_t(sizeof(T)), 64)))) {
    if (!data_) throw std::bad_alloc();
  }
  ~Scratch() { std::free(data_); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  operator T*() { return data_; }

 private:
  T* data_;
};

// A run of pixels of one row.
struct Tile {
  int64_t n, y, x, width;
};

// Tiles of kWidth pixels, in the order of memory, so that the parameters are read in long runs.
template <int kWidth>
struct RowTiles {
  static int64_t per_row(const Size& size) { return (size.width + kWidth - 1) / kWidth; }
  static int64_t count(const Size& size, const Rows& rows) { return rows.images() * rows.count() * per_row(size); }
  static Tile at(const Size& size, const Rows& rows, int64_t index) {
    const int64_t row = index / per_row(size), x = index % per_row(size) * kWidth;
    return {rows.first + row / rows.count(),
            rows.begin + row % rows.count(),
            x,
            size.width - x < kWidth ? size.width - x : kWidth};
  }
};

// Tiles of kWidth pixels, the last one up to twice as wide, down the columns, so that what neighbouring rows share
// stays in cache. The last tile is at least kWidth wide or has the row for itself: padding folds back inside one tile.
template <int kWidth>
struct ColumnTiles {
  static constexpr int kMaxWidth = 2 * kWidth;
  static_assert(kWidth > kMaxAnalyticRadius, "reflected pixels must fall into their own tile");

  static int64_t per_row(const Size& size) { return size.width < kMaxWidth ? 1 : size.width / kWidth; }
  static int64_t count(const Size& size, const Rows& rows) { return rows.images() * rows.count() * per_row(size); }
  static Tile at(const Size& size, const Rows& rows, int64_t index) {
    const int64_t y = rows.begin + index % rows.count(), column = index / rows.count();
    const int64_t tiles = per_row(size), x = column % tiles * kWidth;
    return {rows.first + column / tiles, y, x, column % tiles == tiles - 1 ? size.width - x : kWidth};
  }
};

// Elements [x, x + count) of a padded row of length `width`, which may begin before it and end behind it: either where
// they lie or, if not all are there, in `buffer`. `row` is nullptr for a row of zeros. Elements more than any radius
// outside, which fill the last vector but reach no pixel, are zeros.
template <class T>
const T* padded_segment(const T* row, int64_t x, int64_t count, int64_t width, Padding padding, T* buffer) {
  if (row && x >= 0 && x + count <= width) return row + x;
  int64_t i = 0;
  if (row) {
    const auto value = [&](int64_t at) {
      const int64_t source =
          at < -kMaxAnalyticRadius || at >= width + kMaxAnalyticRadius ? -1 : padded_index(at, width, padding);
      return source < 0 || source >= width ? T(0) : row[source];
    };
    for (; i < count && x + i < 0; ++i) buffer[i] = value(x + i);
    const int64_t inside = count - i < width - (x + i) ? count - i : width - (x + i);
    if (inside > 0) {
      std::memcpy(buffer + i, row + x + i, inside * sizeof(T));
      i += inside;
    }
    const int64_t beyond = count - i < kMaxAnalyticRadius ? count : i + kMaxAnalyticRadius;
    for (; i < beyond; ++i) buffer[i] = value(x + i);
  }
  if (i < count) std::memset(buffer + i, 0, (count - i) * sizeof(T));
  return buffer;
}

}  // namespace
}  // namespace cpu
}  // namespace reblur
