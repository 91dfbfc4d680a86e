// The toolkit's vector types, aligned as there: UndefinedBehaviorSanitizer reports a misaligned access.
#pragma once

#define CUDA_EMULATION_VECTORS(T, name)                                              \
  struct alignas(2 * sizeof(T)) name##2 { T x, y; };                                 \
  struct name##3 { T x, y, z; };                                                     \
  struct alignas(4 * sizeof(T) < 16 ? 4 * sizeof(T) : 16) name##4 { T x, y, z, w; }; \
  constexpr name##2 make_##name##2(T x, T y) { return {x, y}; }                      \
  constexpr name##3 make_##name##3(T x, T y, T z) { return {x, y, z}; }              \
  constexpr name##4 make_##name##4(T x, T y, T z, T w) { return {x, y, z, w}; }
CUDA_EMULATION_VECTORS(unsigned char, uchar)
CUDA_EMULATION_VECTORS(unsigned short, ushort)
CUDA_EMULATION_VECTORS(int, int)
CUDA_EMULATION_VECTORS(unsigned, uint)
CUDA_EMULATION_VECTORS(float, float)
CUDA_EMULATION_VECTORS(double, double)
#undef CUDA_EMULATION_VECTORS

struct dim3 {
  unsigned x, y, z;

  constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};
