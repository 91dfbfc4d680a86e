// 16-bit floating-point numbers, for cuda_fp16.h and cuda_bf16.h.
#pragma once

#include <cstdint>
#include <cstring>

#include "emulation/vectors.h"

namespace cuda_emulation {

inline uint32_t bits_of(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  return bits;
}
inline float float_of(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}

struct HalfFormat {
  static float decode(uint16_t bits) {
    const uint32_t sign = uint32_t(bits & 0x8000) << 16;
    const uint32_t exponent = bits >> 10 & 0x1F, fraction = bits & 0x3FF;
    if (exponent == 0) return float_of(sign | bits_of(float(fraction) * 0x1p-24f));
    return float_of(sign | (exponent == 0x1F ? 0xFFu : exponent + 112) << 23 | fraction << 13);
  }
  static uint16_t encode(float value) {
    const uint16_t sign = bits_of(value) >> 16 & 0x8000;
    const uint32_t bits = bits_of(value) & 0x7FFFFFFF;
    if (bits > 0x7F800000) return 0x7FFF;  // the toolkit's only NaN
    if (bits >= bits_of(65520.0f)) return sign | 0x7C00;
    // Neighbouring floats from 1/2 are as far apart as subnormal halves: the addition rounds.
    if (bits < bits_of(0x1p-14f)) return sign | (bits_of(float_of(bits) + 0.5f) - bits_of(0.5f));
    return sign | (bits - (112 << 23) + 0xFFF + (bits >> 13 & 1)) >> 13;
  }
};

struct BFloat16Format {
  static float decode(uint16_t bits) { return float_of(uint32_t(bits) << 16); }
  static uint16_t encode(float value) {
    const uint32_t bits = bits_of(value);
    if ((bits & 0x7FFFFFFF) > 0x7F800000) return 0x7FFF;
    return (bits + 0x7FFF + (bits >> 16 & 1)) >> 16;
  }
};

template <class Format>
struct Float16 {
  uint16_t bits;

  Float16() = default;
  Float16(float value) : bits(Format::encode(value)) {}
  operator float() const { return Format::decode(bits); }

  // The toolkit's arithmetic rounds to 16 bits; without these, that in float would silently take its place.
  friend Float16 operator+(Float16, Float16) = delete;
  friend Float16 operator-(Float16, Float16) = delete;
  friend Float16 operator*(Float16, Float16) = delete;
  friend Float16 operator/(Float16, Float16) = delete;
};

template <class Format>
struct alignas(4) Float16Pair {
  Float16<Format> x, y;
};

template <class Format>
Float16<Format> float16_of(unsigned short bits) {
  Float16<Format> value;
  value.bits = bits;
  return value;
}

}  // namespace cuda_emulation
