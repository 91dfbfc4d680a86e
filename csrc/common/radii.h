// The radii of a family's kernels: known at compile time (the published 1…7), at run time (any, up to kMaxRadius), or
// at run time below a bound.
//
// All forms offer the same members, so that a kernel is written once:
//
//   kClasses, kRings        capacity of an array with one entry per distance class, per integer distance
//   max()                   the largest radius, as IntConstant or int
//   for_each_radius(f)      f(n, radius, offset); block n of the seeds has radius + 1 channels, from channel offset
//   for_each_compiled_radius(f)  the same, with each radius known when compiling if that can be: more code, fewer
//                           instructions
//   for_each_offset(r, f)   f(d) for d = 0 … r
//   for_each_step(r, f)     f(d) for d = 0 … r - 1
//   for_each_class(r, f)    f(class) for every distance class of a kernel of radius r
//   within_disk(class, r)   whether that class is no farther from the centre than r
#pragma once

#include <type_traits>

#include "common/classes.h"

namespace reblur {

// f of the classes (a, b) with a = 0 … b, known when compiling.
template <int B, class F>
REBLUR_HOST_DEVICE void for_each_class_along(IntConstant<B>, F&& f) {
  static_for<B + 1>([&](auto a) REBLUR_INLINE_LAMBDA { f(StaticClass<decltype(a)::value, B>{}); });
}

template <int... Rs>
struct StaticRadii {
  static constexpr int kValues[] = {Rs...};
  static constexpr int kCount = sizeof...(Rs);
  static constexpr int kMax = kValues[kCount - 1];
  static constexpr int kClasses = class_count(kMax);
  static constexpr int kRings = kMax + 1;

  REBLUR_HOST_DEVICE static constexpr IntConstant<kMax> max() { return {}; }

  REBLUR_HOST_DEVICE static constexpr int offset(int n) {
    int channels = 0;
    for (int i = 0; i < n; ++i) channels += kValues[i] + 1;
    return channels;
  }

  template <class F>
  REBLUR_HOST_DEVICE static void for_each_radius(F&& f) {
    static_for<kCount>([&](auto n) REBLUR_INLINE_LAMBDA {
      constexpr int index = decltype(n)::value;
      f(n, IntConstant<kValues[index]>{}, IntConstant<offset(index)>{});
    });
  }

  template <class F>
  REBLUR_HOST_DEVICE static void for_each_compiled_radius(F&& f) {
    for_each_radius(f);
  }

  template <int R, class F>
  REBLUR_HOST_DEVICE static void for_each_offset(IntConstant<R>, F&& f) {
    static_for<R + 1>(f);
  }

  template <int R, class F>
  REBLUR_HOST_DEVICE static void for_each_step(IntConstant<R>, F&& f) {
    static_for<R>(f);
  }

  template <int R, class F>
  REBLUR_HOST_DEVICE static void for_each_class(IntConstant<R>, F&& f) {
    static_for<R + 1>([&](auto b) REBLUR_INLINE_LAMBDA { for_each_class_along(b, f); });
  }

  template <class Class, int R>
  REBLUR_HOST_DEVICE static constexpr bool within_disk(Class, IntConstant<R>) {
    return reblur::within_disk(Class::a, Class::b, R);
  }
};

using PublishedRadii = StaticRadii<1, 2, 3, 4, 5, 6, 7>;

struct DynamicRadii {
  static constexpr int kClasses = class_count(kMaxRadius);
  static constexpr int kRings = kMaxRadius + 1;

  int count;
  int values[kMaxRadius];
  const DynamicClass* table;  // of every class up to kMaxRadius, where the kernel runs

  REBLUR_HOST_DEVICE int max() const { return values[count - 1]; }

  template <class F>
  REBLUR_HOST_DEVICE void for_each_radius(F&& f) const {
    for (int n = 0, offset = 0; n < count; offset += values[n] + 1, ++n) f(n, values[n], offset);
  }

  template <class F>
  REBLUR_HOST_DEVICE void for_each_compiled_radius(F&& f) const {
    for_each_radius(f);
  }

  template <class F>
  REBLUR_HOST_DEVICE static void for_each_offset(int radius, F&& f) {
    for (int d = 0; d <= radius; ++d) f(d);
  }

  template <class F>
  REBLUR_HOST_DEVICE static void for_each_step(int radius, F&& f) {
    for (int d = 0; d < radius; ++d) f(d);
  }

  template <class F>
  REBLUR_HOST_DEVICE void for_each_class(int radius, F&& f) const {
    for (int k = 0; k < class_count(radius); ++k) f(table[k]);
  }

  REBLUR_HOST_DEVICE static bool within_disk(const DynamicClass& k, int radius) {
    return reblur::within_disk(k.a, k.b, radius);
  }
};

// A number known at run time, from kLeast to kMost.
template <int kLeast, int kMost>
struct Between {
  int value;

  REBLUR_HOST_DEVICE constexpr operator int() const { return value; }
};

// Known at run time, the largest of them from kLeast to kMost. Classes and offsets are known when compiling, and those
// beyond a radius are jumped over: so arrays of them lie in registers.
template <int kLeast, int kMost>
struct BoundedRadii {
  using Largest = Between<kLeast, kMost>;
  static constexpr int kClasses = class_count(kMost);
  static constexpr int kRings = kMost + 1;

  int count;
  int values[kMost];

  REBLUR_HOST_DEVICE Largest max() const { return {values[count - 1]}; }

  template <class F>
  REBLUR_HOST_DEVICE void for_each_radius(F&& f) const {
#if defined(__CUDACC__)
#pragma unroll 1
#endif
    for (int n = 0, offset = 0; n < count; offset += values[n] + 1, ++n) f(n, values[n], offset);
  }

  template <class F>
  REBLUR_HOST_DEVICE void for_each_compiled_radius(F&& f) const {
    for_each_radius([&](int n, int radius, int offset) REBLUR_INLINE_LAMBDA {
      static_for<kMost>([&](auto r) REBLUR_INLINE_LAMBDA {
        constexpr int kRadius = decltype(r)::value + 1;
        if (radius == kRadius) f(n, IntConstant<kRadius>{}, offset);
      });
    });
  }

  // Of the largest radius; of any of them, an int; or of one that is known when compiling.
  template <class Radius, class F>
  REBLUR_HOST_DEVICE static void for_each_offset(Radius radius, F&& f) {
    static_for<most(Radius{}) + 1>([&](auto d) REBLUR_INLINE_LAMBDA {
      if (d <= least(radius) || d <= radius) f(d);
    });
  }

  template <class Radius, class F>
  REBLUR_HOST_DEVICE static void for_each_step(Radius radius, F&& f) {
    static_for<most(Radius{})>([&](auto d) REBLUR_INLINE_LAMBDA {
      if (d < least(radius) || d < radius) f(d);
    });
  }

  template <class Radius, class F>
  REBLUR_HOST_DEVICE static void for_each_class(Radius radius, F&& f) {
    for_each_offset(radius, [&](auto b) REBLUR_INLINE_LAMBDA { for_each_class_along(b, f); });
  }

  // Known when compiling of classes that no radius reaches, which have no entry in an array of kRings, and of those
  // that the largest always does.
  template <class Class, class Radius>
  REBLUR_HOST_DEVICE static bool within_disk(Class, Radius radius) {
    if (!reblur::within_disk(Class::a, Class::b, most(radius))) return false;
    return reblur::within_disk(Class::a, Class::b, least(radius)) || reblur::within_disk(Class::a, Class::b, radius);
  }

 private:
  REBLUR_HOST_DEVICE static constexpr int least(Largest) { return kLeast; }
  REBLUR_HOST_DEVICE static constexpr int least(int) { return 0; }
  REBLUR_HOST_DEVICE static constexpr int most(Largest) { return kMost; }
  REBLUR_HOST_DEVICE static constexpr int most(int) { return kMost; }
  template <int R>
  REBLUR_HOST_DEVICE static constexpr int least(IntConstant<R>) {
    return R;
  }
  template <int R>
  REBLUR_HOST_DEVICE static constexpr int most(IntConstant<R>) {
    return R;
  }
};

// One radius, up to kMaxAnalyticRadius.
struct SingleRadius {
  static constexpr int kRings = kMaxAnalyticRadius + 1;

  int radius;

  REBLUR_HOST_DEVICE int max() const { return radius; }

  template <class F>
  REBLUR_HOST_DEVICE static void for_each_offset(int radius, F&& f) {
    for (int d = 0; d <= radius; ++d) f(d);
  }
};

}  // namespace reblur
