// The cost volume of a bank: how far an image, blurred by each of K fixed isotropic kernels, is from another one.
//
// All kernels of the bank share one pass over the image's class sums. Classes come in the order of their distance, with
// running totals, so that a kernel costs one product for its level inside and one for each class at its edge: some ten
// for a disk, whatever its radius.
#pragma once

#include <algorithm>
#include <numeric>
#include <vector>

#include "common/radii.h"
#include "cpu/class_sums.h"

namespace reblur {
namespace cpu {
namespace {

// Pixels of a tile, of which the slack is a rim; rows without it.
constexpr int64_t kCostTileHeight = 8;

struct CostTiles {
  int64_t width, columns, rows;

  template <class T>
  explicit CostTiles(const CostVolumeArguments<T>& arguments)
      : width((kTileWidth - 2 * arguments.slack) / arguments.cell * arguments.cell),
        columns((arguments.size.width + width - 1) / width),
        rows((arguments.size.height + kCostTileHeight - 1) / kCostTileHeight) {}

  int64_t count(const Size& size) const { return size.batch * rows * columns; }
};

// A kernel of the bank: `level` for the first `inside` classes in the order of distance, then weights of their own.
template <class T>
struct BankKernel {
  T level;
  int inside, end;
  const T* weights;  // of all classes, in that order
};

template <class T>
class Bank {
 public:
  Bank(const T* weights, int64_t kernels, int radius) : classes_(class_count(radius)), weights_(kernels * classes_) {
    std::vector<int> order(classes_);
    std::iota(order.begin(), order.end(), 0);
    std::vector<Taps> taps;
    for (int b = 0; b <= radius; ++b)
      for (int a = 0; a <= b; ++a) taps.push_back({a, b});
    const auto distance = [&](int k) { return taps[k].a * taps[k].a + taps[k].b * taps[k].b; };
    std::stable_sort(order.begin(), order.end(), [&](int i, int j) { return distance(i) < distance(j); });
    for (int64_t n = 0; n < kernels; ++n) {
      T* sorted = weights_.data() + n * classes_;
      for (int k = 0; k < classes_; ++k) sorted[k] = weights[n * classes_ + order[k]];
      BankKernel<T> kernel{sorted[0], 0, classes_, sorted};
      while (kernel.end > 0 && sorted[kernel.end - 1] == 0) --kernel.end;
      while (kernel.inside < kernel.end && sorted[kernel.inside] == kernel.level) ++kernel.inside;
      kernels_.push_back(kernel);
      used_ = std::max(used_, kernel.end);
    }
    for (int k = 0; k < used_; ++k) {
      taps_.push_back(taps[order[k]]);
      reach_ = std::max(reach_, taps_.back().b);
    }
  }

  const std::vector<BankKernel<T>>& kernels() const { return kernels_; }
  const std::vector<Taps>& taps() const { return taps_; }
  int reach() const { return reach_; }

 private:
  int classes_, used_ = 0, reach_ = 0;
  std::vector<T> weights_;
  std::vector<BankKernel<T>> kernels_;
  std::vector<Taps> taps_;
};

template <class Lane>
inline Lane perceived(const Lane& value, bool root) {
  return root ? at::vec::maximum(value, Lane(0)).sqrt() : value;
}

// Planes of a tile in memory of its own: rows of one pitch, with room for a vector beyond the last pixel.
template <class T>
struct TilePlanes {
  static constexpr int64_t kPitch = kTileWidth + 64 / sizeof(T);

  Scratch<T> data;
  int64_t rows;

  TilePlanes(int64_t planes, int64_t rows) : data(planes * rows * kPitch), rows(rows) {}
  T* row(int64_t plane, int64_t y) { return data + (plane * rows + y) * kPitch; }
};

template <class Lane>
class CostVolume {
 public:
  using T = typename Lane::value_type;

  explicit CostVolume(const CostVolumeArguments<T>& arguments)
      : arguments_(arguments),
        tiles_(arguments),
        bank_(arguments.bank, arguments.kernels, arguments.radius),
        sums_(SingleRadius{std::max(bank_.reach(), 1)}),
        levels_(bank_.taps().size()),
        totals_(bank_.taps().size() + 1),
        blurred_(arguments.kernels * arguments.size.channels, kCostTileHeight + 2 * arguments.slack),
        target_(arguments.size.channels, kCostTileHeight),
        errors_(TilePlanes<T>::kPitch) {}

  void tile(int64_t index) {
    const Size& size = arguments_.size;
    const int64_t column = index % tiles_.columns, row = index / tiles_.columns % tiles_.rows;
    n_ = index / tiles_.columns / tiles_.rows;
    x_ = column * tiles_.width;
    y_ = row * kCostTileHeight;
    width_ = std::min(tiles_.width, size.width - x_);
    height_ = std::min(kCostTileHeight, size.height - y_);
    for (int64_t c = 0; c < size.channels; ++c) {
      load_target(c);
      for (int64_t y = first_row(); y < last_row(); ++y) blur_row(c, y);
    }
    for (int64_t k = 0; k < arguments_.kernels; ++k) compare(k);
  }

 private:
  static constexpr int kLanes = lanes<Lane>();

  int64_t first_row() const { return std::max<int64_t>(0, y_ - arguments_.slack); }
  int64_t last_row() const { return std::min(arguments_.size.height, y_ + height_ + arguments_.slack); }

  void load_target(int64_t c) {
    for (int64_t y = 0; y < height_; ++y) {
      const T* from = arguments_.target.row(n_, c, y_ + y) + x_;
      T* to = target_.row(c, y);
      for (int64_t x = 0; x < width_; x += kLanes)
        perceived(load_lanes<Lane>(from + x, width_ - x), arguments_.root).store(to + x);
    }
  }

  // Row y of channel c by every kernel of the bank, with the columns of the slack, repeated beyond the border.
  void blur_row(int64_t c, int64_t y) {
    const int64_t slack = arguments_.slack, begin = std::max<int64_t>(0, x_ - slack);
    const int64_t end = std::min(arguments_.size.width, x_ + width_ + slack), before = begin - (x_ - slack);
    sums_.fold(
        arguments_.image, n_, c, Tile{n_, y, begin, end - begin}, bank_.reach(), arguments_.size, arguments_.padding);
    const Taps* const taps = bank_.taps().data();
    const int64_t count = bank_.taps().size(), kernels = arguments_.kernels;
    const int64_t stride = blurred_row(1, c, y) - blurred_row(0, c, y);
    const bool root = arguments_.root;
    Lane *const levels = levels_, *const totals = totals_;
    for (int64_t x = 0; x < end - begin; x += kLanes) {
      Lane total(0);
      for (int64_t k = 0; k < count; ++k) {
        totals[k] = total;
        levels[k] = sums_.sum(taps[k], x);
        total = total + levels[k];
      }
      totals[count] = total;
      T* to = blurred_row(0, c, y) + before + x;
      for (const BankKernel<T>* kernel = bank_.kernels().data(); kernel != bank_.kernels().data() + kernels; ++kernel) {
        Lane value = kernel->inside ? Lane(kernel->level) * totals[kernel->inside] : Lane(0);
        const T* const weights = kernel->weights;
        for (int k = kernel->inside; k < kernel->end; ++k)
          value = LaneMath<Lane>::fma(Lane(weights[k]), levels[k], value);
        perceived(value, root).store(to);
        to += stride;
      }
    }
    if (!slack) return;
    for (int64_t n = 0; n < arguments_.kernels; ++n) {
      T* row = blurred_row(n, c, y);
      for (int64_t x = 0; x < before; ++x) row[x] = row[before];
      const int64_t last = before + end - begin - 1;
      for (int64_t x = last + 1; x < width_ + 2 * slack; ++x) row[x] = row[last];
    }
  }

  T* blurred_row(int64_t kernel, int64_t c, int64_t y) {
    return blurred_.row(kernel * arguments_.size.channels + c, y - (y_ - arguments_.slack));
  }

  // The errors of kernel k in every cell of the tile, at every shift.
  void compare(int64_t k) {
    const Size& size = arguments_.size;
    const int64_t slack = arguments_.slack, cell = arguments_.cell, side = 2 * slack + 1;
    const int64_t rows = size.height / cell, columns = size.width / cell;
    for (int64_t shift = 0; shift < side * side; ++shift) {
      const int64_t down = shift / side - slack, right = shift % side;
      T* plane = arguments_.output + ((n_ * arguments_.kernels + k) * side * side + shift) * rows * columns;
      for (int64_t y = 0; y < height_; y += cell) {
        add_errors(k, y, down, right);
        pool(plane + (y_ + y) / cell * columns + x_ / cell);
      }
    }
  }

  // errors_: the square errors at each column, added up over the channels and the rows of the cells from row y on.
  void add_errors(int64_t k, int64_t y, int64_t down, int64_t right) {
    const int64_t width = width_;
    T* const errors = errors_;
    std::fill_n(errors, round_up(width, kLanes), T(0));
    for (int64_t i = y; i < y + arguments_.cell; ++i) {
      const int64_t source = std::clamp<int64_t>(y_ + i + down, 0, arguments_.size.height - 1);
      for (int64_t c = 0; c < arguments_.size.channels; ++c) {
        const T* const blurred = blurred_row(k, c, source) + right;
        const T* const target = target_.row(c, i);
        for (int64_t x = 0; x < width; x += kLanes) {
          const Lane error = Lane::loadu(blurred + x) - Lane::loadu(target + x);
          LaneMath<Lane>::fma(error, error, Lane::loadu(errors + x)).store(errors + x);
        }
      }
    }
  }

  void pool(T* to) {
    const int64_t cell = arguments_.cell;
    const T scale = T(1) / T(cell * cell * std::max<int64_t>(1, arguments_.size.channels));
    if (cell == 1) {
      for (int64_t x = 0; x < width_; ++x) to[x] = errors_[x] * scale;
    } else {
      for (int64_t x = 0; x < width_ / 2; ++x) to[x] = (errors_[2 * x] + errors_[2 * x + 1]) * scale;
    }
  }

  const CostVolumeArguments<T>& arguments_;
  CostTiles tiles_;
  Bank<T> bank_;
  ClassSums<Lane, SingleRadius> sums_;
  Scratch<Lane> levels_;  // the class sums of a vector of pixels
  Scratch<Lane> totals_;  // of the classes before each
  TilePlanes<T> blurred_, target_;
  Scratch<T> errors_;
  int64_t n_ = 0, x_ = 0, y_ = 0, width_ = 0, height_ = 0;
};

template <class Lane, class T = typename Lane::value_type>
void cost_volume(const CostVolumeArguments<T>& arguments, int64_t begin, int64_t end) {
  CostVolume<Lane> volume(arguments);
  for (int64_t index = begin; index < end; ++index) volume.tile(index);
}

}  // namespace
}  // namespace cpu
}  // namespace reblur
