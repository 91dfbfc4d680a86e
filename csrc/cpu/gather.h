// The gather: every blur family through one loop, vectorised over x.
#pragma once

#include "cpu/class_sums.h"
#include "cpu/states.h"

namespace reblur {
namespace cpu {
namespace {

// y(p) = Σ_k T_k(p) S_k(p): each pixel gathers with its own kernel.
template <class Lane, class Family, class T = typename Lane::value_type>
void gather(const Family& family,
            const Planes<const T>* parameters,
            const GatherArguments<T>& arguments,
            int64_t begin,
            int64_t end) {
  constexpr int kLanes = lanes<Lane>();
  const Size& size = arguments.size;
  ClassSums<Lane, typename Family::Radii> sums(family.radii);
  TileStates<Lane, Family> states(family);
  for (int64_t index = begin; index < end; ++index) {
    const Tile tile = Tiles::at(size, arguments.rows, index);
    const auto reach = states.prepare(parameters, tile);
    for (int64_t c = 0; c < size.channels; ++c) {
      sums.fold(arguments.image, tile.n, c, tile, reach, size, arguments.padding);
      T* output = arguments.output.row(tile.n, c, tile.y) + tile.x;
      for (int64_t x = 0; x < tile.width; x += kLanes) {
        Lane total(0);
        family.for_each_weight(static_cast<const Lane*>(states.at(x)),
                               [&](auto k, const Lane& weight) REBLUR_INLINE_LAMBDA {
                                 total = LaneMath<Lane>::fma(weight, sums.sum(k, x), total);
                               });
        store_lanes(total, output + x, tile.width - x);
      }
    }
  }
}

}  // namespace
}  // namespace cpu
}  // namespace reblur
