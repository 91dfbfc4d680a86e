// The gradients to a family's parameters, and on the way the states that a scatter reads.
#pragma once

#include "cpu/class_sums.h"
#include "cpu/states.h"

namespace reblur {
namespace cpu {
namespace {

// The gradients to the parameters: from the sums S_k and the output's gradient, as the family's adjoint asks for them.
template <class Lane, class Family, class T = typename Lane::value_type>
void parameter_gradients(const Family& family,
                         const Planes<const T>* parameters,
                         const ParameterGradientsArguments<T>& arguments,
                         int64_t begin,
                         int64_t end) {
  constexpr int kLanes = lanes<Lane>(), kSums = Family::kSums;
  const Size& size = arguments.size;
  const bool keeps_states = arguments.states.data;
  ClassSums<Lane, typename Family::Radii> class_sums(family.radii);
  TileStates<Lane, Family> states(family);
  Scratch<Lane> tile_sums(kTileWidth / kLanes * kSums);
  for (int64_t index = begin; index < end; ++index) {
    const Tile tile = Tiles::at(size, arguments.rows, index);
    auto reach = family.radii.max();
    if constexpr (Family::kAnalytic) reach = states.prepare(parameters, tile);
    for (int64_t i = 0; i < kTileWidth / kLanes * kSums; ++i) tile_sums[i] = Lane(0);
    for (int64_t c = 0; c < size.channels; ++c) {
      class_sums.fold(arguments.image, tile.n, c, tile, reach, size, arguments.padding);
      const T* grad_output = arguments.grad_output.row(tile.n, c, tile.y) + tile.x;
      for (int64_t x = 0; x < tile.width; x += kLanes)
        family.accumulate(
            static_cast<const Lane*>(states.at(x)),
            load_lanes<Lane>(grad_output + x, tile.width - x),
            [&](auto k) REBLUR_INLINE_LAMBDA { return class_sums.sum(k, x); },
            tile_sums + x / kLanes * kSums);
    }
    for (int64_t x = 0; x < tile.width; x += kLanes) {
      const int64_t count = tile.width - x;
      // Filled in cache first: a store for every term of a weight would wait for the memory behind it.
      Lane* state = states.at(Family::kAnalytic ? x : 0);
      family.adjoint(parameter_loader<Lane>(parameters, tile.n, tile.y, tile.x + x, count),
                     static_cast<const Lane*>(tile_sums + x / kLanes * kSums),
                     gradient_storer<Lane>(arguments.grad_parameters, tile.n, tile.y, tile.x + x, count),
                     keeps_states || Family::kAnalytic ? state : nullptr);
      if (keeps_states)
        copy<Lane>(state,
                   family.state_size(),
                   arguments.states.template block<Lane>(size, family.state_size(), tile.n, tile.y, tile.x + x));
    }
  }
  finish_streams();
}

}  // namespace
}  // namespace cpu
}  // namespace reblur
