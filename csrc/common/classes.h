// Distance classes of an isotropic kernel.
//
// The taps (±a, ±b) and (±b, ±a) lie at one distance from the centre and weigh the same, so a kernel of radius R has
// (R+1)(R+2)/2 weights, not (2R+1)^2. A class is named by its representative 0 <= a <= b <= R.
#pragma once

#include <type_traits>
#include <utility>

#include "common/macros.h"

namespace reblur {

// Largest radius of families whose kernels are given by class weights. It bounds the local arrays that hold those.
constexpr int kMaxRadius = 15;

// Largest radius of analytic families, whose weights are computed where they are used.
constexpr int kMaxAnalyticRadius = 64;

// Largest displacement that a cost volume tries.
constexpr int kMaxSlack = 8;

REBLUR_HOST_DEVICE constexpr int class_count(int radius) { return (radius + 1) * (radius + 2) / 2; }

// Of class (a, b) or (b, a).
REBLUR_HOST_DEVICE constexpr int class_index(int a, int b) {
  return a <= b ? b * (b + 1) / 2 + a : a * (a + 1) / 2 + b;
}

// Number of taps in class (a, b), a <= b.
REBLUR_HOST_DEVICE constexpr int class_multiplicity(int a, int b) { return b == 0 ? 1 : (a == 0 || a == b) ? 4 : 8; }

REBLUR_HOST_DEVICE constexpr bool within_disk(int a, int b, int radius) { return a * a + b * b <= radius * radius; }

// The largest b within the disk in row a.
REBLUR_HOST_DEVICE constexpr int disk_extent(int a, int radius) {
  int b = radius;
  while (!within_disk(a, b, radius)) --b;
  return b;
}

// floor(sqrt(a^2 + b^2)): the integer distance just below the class.
REBLUR_HOST_DEVICE constexpr int class_ring(int a, int b) {
  int ring = 0;
  while ((ring + 1) * (ring + 1) <= a * a + b * b) ++ring;
  return ring;
}

// sqrt(a^2 + b^2) - ring, exactly 0 where the distance is an integer. Newton's iteration, as std::sqrt is not
// constexpr.
REBLUR_HOST_DEVICE constexpr double class_fraction(int a, int b) {
  const int ring = class_ring(a, b);
  const double squared = a * a + b * b;
  if (ring * ring == a * a + b * b) return 0.0;
  double root = ring + 0.5;
  for (int i = 0; i < 6; ++i) root = 0.5 * (root + squared / root);
  return root - ring;
}

// A class by its representative alone.
struct Taps {
  int a, b;
};

// A class known at compile time: what is computed from it folds into constants, and array indices into registers.
template <int A, int B>
struct StaticClass {
  static constexpr int a = A, b = B;
  static constexpr int index = class_index(A, B);
  static constexpr int multiplicity = class_multiplicity(A, B);
  static constexpr int ring = class_ring(A, B);

  // In the type of computation.
  template <class Scalar>
  REBLUR_HOST_DEVICE static constexpr Scalar fraction() {
    return Scalar(class_fraction(A, B));
  }
};

// The same facts of a class known at run time.
struct DynamicClass {
  int a, b, index, multiplicity, ring;
  float nearest_fraction;  // so that single precision meets no double, which is slow on many GPUs
  double exact_fraction;

  template <class Scalar>
  REBLUR_HOST_DEVICE constexpr Scalar fraction() const {
    if constexpr (std::is_same<Scalar, float>::value)
      return nearest_fraction;
    else
      return Scalar(exact_fraction);
  }
};

struct ClassTable {
  DynamicClass classes[class_count(kMaxRadius)];
};

constexpr ClassTable make_class_table() {
  ClassTable table{};
  for (int b = 0; b <= kMaxRadius; ++b)
    for (int a = 0; a <= b; ++a)
      table.classes[class_index(a, b)] = {a,
                                          b,
                                          class_index(a, b),
                                          class_multiplicity(a, b),
                                          class_ring(a, b),
                                          float(class_fraction(a, b)),
                                          class_fraction(a, b)};
  return table;
}

struct DistanceTable {
  double values[class_count(kMaxAnalyticRadius)];
};

// The distance of every class up to kMaxAnalyticRadius.
constexpr DistanceTable make_distance_table() {
  DistanceTable table{};
  for (int b = 0; b <= kMaxAnalyticRadius; ++b)
    for (int a = 0; a <= b; ++a) table.values[class_index(a, b)] = class_ring(a, b) + class_fraction(a, b);
  return table;
}

// std::integral_constant, whose conversion to int is for the host only.
template <int kValue>
struct IntConstant {
  static constexpr int value = kValue;

  REBLUR_HOST_DEVICE constexpr operator int() const { return kValue; }
};

// Calls f(IntConstant<0>), …, f(IntConstant<Count - 1>).
template <class F, int... Is>
REBLUR_HOST_DEVICE constexpr void static_for(std::integer_sequence<int, Is...>, F&& f) {
  (f(IntConstant<Is>{}), ...);
}
template <int Count, class F>
REBLUR_HOST_DEVICE constexpr void static_for(F&& f) {
  static_for(std::make_integer_sequence<int, Count>{}, f);
}

}  // namespace reblur
