// The sums of an image over the taps of each class.
#pragma once

#include "cpu/pixels.h"

namespace reblur {
namespace cpu {
namespace {

// Sums over the taps of a class, at a run of pixels. Row a of the folded rows is image row y for a = 0, else the sum of
// rows y - a and y + a: 2R additions a pixel that leave only the horizontal half of each sum to do.
template <class Lane, class Radii>
class ClassSums {
 public:
  using T = typename Lane::value_type;
  static constexpr int kMax = Radii::kRings - 1;
  static constexpr int64_t kPitch = round_up(kTileWidth + 2 * kMax, lanes<Lane>());

  explicit ClassSums(const Radii& radii)
      : radii_(radii), folded_((radii.max() + 1) * kPitch), above_(kPitch), below_(kPitch) {}

  // Of what lies within `reach` of the tile, which is at most the radius.
  template <class Reach>
  void fold(const Planes<const T>& image,
            int64_t n,
            int64_t c,
            const Tile& tile,
            Reach reach,
            const Size& size,
            Padding padding) {
    const int64_t radius = reach, begin = tile.x - radius;
    const int64_t count = round_up(round_up(tile.width, lanes<Lane>()) + 2 * radius, lanes<Lane>());
    begin_ = folded_ + radius;
    const auto segment = [&](int64_t y, T* buffer) {
      const int64_t source = padded_index(y, size.height, padding);
      return padded_segment(source < 0 ? nullptr : image.row(n, c, source), begin, count, size.width, padding, buffer);
    };
    const T* centre = segment(tile.y, above_);
    for (int64_t i = 0; i < count; i += lanes<Lane>()) Lane::loadu(centre + i).store(folded_ + i);
    for (int64_t a = 1; a <= radius; ++a) {
      const T* above = segment(tile.y - a, above_);
      const T* below = segment(tile.y + a, below_);
      T* row = folded_ + a * kPitch;
      for (int64_t i = 0; i < count; i += lanes<Lane>())
        (Lane::loadu(above + i) + Lane::loadu(below + i)).store(row + i);
    }
  }

  // The sum over class k, at the pixels that begin x pixels behind the tile's first.
  template <class Class>
  REBLUR_HOST_DEVICE Lane sum(Class k, int64_t x) {
    return k.a == k.b ? half(k.a, k.b, x) : half(k.a, k.b, x) + half(k.b, k.a, x);
  }

 private:
  // Taps (±dx, ±dy).
  REBLUR_HOST_DEVICE Lane half(int dy, int dx, int64_t x) {
    const T* at = begin_ + dy * kPitch + x;
    return dx == 0 ? Lane::loadu(at) : Lane::loadu(at - dx) + Lane::loadu(at + dx);
  }

  Radii radii_;
  Scratch<T> folded_;         // [radius + 1, kPitch]
  Scratch<T> above_, below_;  // [kPitch]
  const T* begin_ = nullptr;  // folded row 0 at the tile's first pixel
};

}  // namespace
}  // namespace cpu
}  // namespace reblur
