// The pixels that are worked on together: a tile of them, and a vector of their values and parameters.
#pragma once

#include "cpu/kernels.h"
#include "cpu/lane.h"
#include "cpu/tiles.h"

namespace reblur {
namespace cpu {
namespace {

// Width of a tile in pixels: class weights (36 · 4 bytes a pixel), folded rows and image rows together stay in a 48 KB
// L1.
constexpr int kTileWidth = 64;
using Tiles = RowTiles<kTileWidth>;

template <class Lane>
constexpr int lanes() {
  return Lane::size();
}

// Loads and stores `count` lanes; a full vector without a detour.
template <class Lane, class T>
inline Lane load_lanes(const T* from, int64_t count) {
  return count >= lanes<Lane>() ? Lane::loadu(from) : Lane::loadu(from, count);
}
template <class Lane, class T>
inline void store_lanes(const Lane& value, T* to, int64_t count) {
  if (count >= lanes<Lane>())
    value.store(to);
  else
    value.store(to, static_cast<int>(count));
}

// The same past the caches, where a vector is a whole cache line, which then need not be read before it is written. Of
// many planes at once, with which whoever reads next starts elsewhere. Other threads see it after `finish_streams`.
template <class Lane, class T>
inline void stream_lanes(const Lane& value, T* to, int64_t count) {
#if defined(CPU_CAPABILITY_AVX512)
  constexpr uintptr_t kLine = 64;
  static_assert(sizeof(Lane) == kLine, "a vector is a cache line");
  if (count >= lanes<Lane>() && reinterpret_cast<uintptr_t>(to) % kLine == 0) {
    if constexpr (std::is_same_v<T, float>)
      _mm512_stream_ps(to, value);
    else
      _mm512_stream_pd(to, value);
    return;
  }
#endif
  store_lanes(value, to, count);
}
inline void finish_streams() {
#if defined(CPU_CAPABILITY_AVX512)
  _mm_sfence();
#endif
}

template <class Lane>
inline void copy(const Lane* from, int count, Lane* to) {
  for (int i = 0; i < count; ++i) to[i] = from[i];
}

// A family's parameters at `count` pixels from (n, y, x): load(tensor, channel), or of a channel further on. Lanes
// beyond `count` read zeros. The planes are more streams than a processor's prefetcher follows, so the vector after the
// next one is asked for.
template <class Lane, class T>
auto parameter_loader(const Planes<const T>* parameters, int64_t n, int64_t y, int64_t x, int64_t count) {
  const T* base[] = {parameters[0].row(n, 0, y) + x, parameters[1] ? parameters[1].row(n, 0, y) + x : nullptr};
  const int64_t stride[] = {parameters[0].channel_stride, parameters[1].channel_stride};
  return [=](int tensor, int channel, int further = 0) REBLUR_INLINE_LAMBDA {
    const T* at = base[tensor] + (channel + further) * stride[tensor];
    __builtin_prefetch(at + 2 * lanes<Lane>());
    return load_lanes<Lane>(at, count);
  };
}

// store(tensor, channel, value) of gradients at `count` pixels from (n, y, x); `finish_streams` after the last.
template <class Lane, class T>
auto gradient_storer(const Planes<T>* gradients, int64_t n, int64_t y, int64_t x, int64_t count) {
  return [=](int tensor, int channel, const Lane& value) REBLUR_INLINE_LAMBDA {
    if (gradients[tensor]) stream_lanes(value, gradients[tensor].row(n, channel, y) + x, count);
  };
}

}  // namespace
}  // namespace cpu
}  // namespace reblur
