// Tiles of an image: one a block, numbered along x, then y, then the batch, all in grid.x, the one axis that is long
// enough.
#pragma once

#include "cuda/kernels.h"
#include "cuda/launch.h"

namespace reblur {
namespace cuda {

constexpr int kWarpLanes = 32;

// Pixels (n, y … y + height - 1, x … x + width - 1); those beyond the image are nobody's.
struct Tile {
  int n, y, x;
};

// Coordinates are 32 bits wide, with room for a tile and its surroundings beyond the image; offsets are 64.
constexpr int64_t kMaxSide = (int64_t(1) << 31) - (1 << 16);

inline bool is_empty(const Size& size) { return size.batch == 0 || size.height == 0 || size.width == 0; }

// The number of tiles; -1 where there are too many for a grid or a side is too long.
inline int64_t tile_count(const Size& size, int height, int width) {
  if (is_empty(size)) return 0;
  if (size.height > kMaxSide || size.width > kMaxSide) return -1;
  const int64_t rows = (size.height + height - 1) / height, columns = (size.width + width - 1) / width;
  const int64_t limit = 0x7FFFFFFF;
  if (rows > limit / columns || size.batch > limit / (rows * columns)) return -1;
  return rows * columns * size.batch;
}

__device__ __forceinline__ Tile tile_of_block(const Size& size, int height, int width) {
  const unsigned rows = (unsigned(size.height) + height - 1) / height;
  const unsigned columns = (unsigned(size.width) + width - 1) / width;
  const unsigned row = blockIdx.x / columns;
  return {int(row / rows), int(row % rows) * height, int(blockIdx.x % columns) * width};
}

// The same of some of an image's rows, from a multiple of the tile's height on.
__device__ __forceinline__ Tile tile_of_block(const Rows& rows, const Size& size, int height, int width) {
  Tile tile = tile_of_block({rows.images(), 0, rows.count(), size.width}, height, width);
  tile.n += int(rows.first);
  tile.y += int(rows.begin);
  return tile;
}
inline Size size_of(const Rows& rows, const Size& size) {
  return {rows.images(), size.channels, rows.count(), size.width};
}

// Calls kernel with one block a tile.
template <class... Parameters, class... Arguments>
cudaError_t launch_tiles(void (*kernel)(Parameters...),
                         const Size& size,
                         int tile_height,
                         int tile_width,
                         dim3 block,
                         size_t shared_bytes,
                         cudaStream_t stream,
                         const Arguments&... arguments) {
  const int64_t tiles = tile_count(size, tile_height, tile_width);
  if (tiles < 0) return cudaErrorInvalidConfiguration;
  return launch(kernel, dim3(unsigned(tiles)), block, shared_bytes, stream, arguments...);
}

}  // namespace cuda
}  // namespace reblur
