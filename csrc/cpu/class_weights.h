// The kernel of every pixel, as class weights, and its adjoint: the family by itself, without an image.
#pragma once

#include "cpu/pixels.h"

namespace reblur {
namespace cpu {
namespace {

template <class Lane, class Family, class T = typename Lane::value_type>
void class_weights(const Family& family,
                   const Planes<const T>* parameters,
                   const ClassWeightsArguments<T>& arguments,
                   int64_t begin,
                   int64_t end) {
  constexpr int kLanes = lanes<Lane>();
  const Size& size = arguments.size;
  const int classes = class_count(family.radii.max());
  Scratch<Lane> weights(Family::Radii::kClasses);
  for (int64_t index = begin; index < end; ++index) {
    const Tile tile = Tiles::at(size, arguments.rows, index);
    for (int64_t x = tile.x; x < tile.x + tile.width; x += kLanes) {
      const int64_t count = tile.x + tile.width - x;
      family.prepare(parameter_loader<Lane>(parameters, tile.n, tile.y, x, count), static_cast<Lane*>(weights));
      for (int k = 0; k < classes; ++k)
        store_lanes(weights[k], arguments.class_weights.row(tile.n, k, tile.y) + x, count);
    }
  }
}

template <class Lane, class Family, class T = typename Lane::value_type>
void class_weights_gradients(const Family& family,
                             const Planes<const T>* parameters,
                             const ClassWeightsGradientsArguments<T>& arguments,
                             int64_t begin,
                             int64_t end) {
  constexpr int kLanes = lanes<Lane>();
  const Size& size = arguments.size;
  const int classes = class_count(family.radii.max());
  Scratch<Lane> grad_weights(Family::Radii::kClasses);
  for (int64_t index = begin; index < end; ++index) {
    const Tile tile = Tiles::at(size, arguments.rows, index);
    for (int64_t x = tile.x; x < tile.x + tile.width; x += kLanes) {
      const int64_t count = tile.x + tile.width - x;
      for (int k = 0; k < classes; ++k)
        grad_weights[k] = load_lanes<Lane>(arguments.grad_weights.row(tile.n, k, tile.y) + x, count);
      family.adjoint(parameter_loader<Lane>(parameters, tile.n, tile.y, x, count),
                     static_cast<const Lane*>(static_cast<Lane*>(grad_weights)),
                     gradient_storer<Lane>(arguments.grad_parameters, tile.n, tile.y, x, count),
                     static_cast<Lane*>(nullptr));
    }
  }
  finish_streams();
}

}  // namespace
}  // namespace cpu
}  // namespace reblur
