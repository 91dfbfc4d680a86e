// A pixel's state: what its family makes of its parameters, class weights or what these follow from.
#pragma once

#include <algorithm>

#include "cpu/pixels.h"

namespace reblur {
namespace cpu {
namespace {

// The states of a tile's pixels, and how far any of their kernels reaches.
template <class Lane, class Family>
class TileStates {
 public:
  using T = typename Lane::value_type;

  explicit TileStates(const Family& family) : family_(family), states_(kTileWidth / lanes<Lane>() * Family::kState) {}

  auto prepare(const Planes<const T>* parameters, const Tile& tile) {
    for (int64_t x = 0; x < tile.width; x += lanes<Lane>())
      family_.prepare(parameter_loader<Lane>(parameters, tile.n, tile.y, tile.x + x, tile.width - x), at(x));
    if constexpr (Family::kAnalytic) {
      int furthest = 0;
      for (int64_t x = 0; x < tile.width; x += lanes<Lane>()) furthest = std::max(furthest, family_.reach(at(x)));
      return furthest;
    } else {
      return family_.radii.max();
    }
  }

  Lane* at(int64_t x) { return states_ + x / lanes<Lane>() * Family::kState; }

 private:
  const Family& family_;
  Scratch<Lane> states_;  // [blocks, kState]
};

// What the scatter reads, by itself.
template <class Lane, class Family, class T = typename Lane::value_type>
void states(const Family& family,
            const Planes<const T>* parameters,
            const StatesArguments<T>& arguments,
            int64_t begin,
            int64_t end) {
  constexpr int kLanes = lanes<Lane>();
  const Size& size = arguments.size;
  Scratch<Lane> state(Family::kState);
  for (int64_t index = begin; index < end; ++index) {
    const Tile tile = Tiles::at(size, arguments.rows, index);
    for (int64_t x = tile.x; x < tile.x + tile.width; x += kLanes) {
      const int64_t count = tile.x + tile.width - x;
      family.prepare(parameter_loader<Lane>(parameters, tile.n, tile.y, x, count), static_cast<Lane*>(state));
      copy<Lane>(state,
                 family.state_size(),
                 arguments.states.template block<Lane>(size, family.state_size(), tile.n, tile.y, x));
    }
  }
}

}  // namespace
}  // namespace cpu
}  // namespace reblur
