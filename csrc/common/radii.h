// The radii of a family's kernels, known at compile time (the published 1…7) or at run time (any, up to kMaxRadius).
//
// Both forms offer the same members, so that a kernel is written once:
//
//   kClasses, kRings        capacity of an array with one entry per distance class, per integer distance
//   max()                   the largest radius, as IntConstant or int
//   for_each_radius(f)      f(n, radius, offset); block n of the seeds has radius + 1 channels, from channel offset
//   for_each_offset(r, f)   f(d) for d = 0 … r
//   for_each_class(r, f)    f(class) for every distance class of a kernel of radius r
#pragma once

#include <type_traits>

#include "common/classes.h"

namespace reblur {

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

  template <int R, class F>
  REBLUR_HOST_DEVICE static void for_each_offset(IntConstant<R>, F&& f) {
    static_for<R + 1>(f);
  }

  template <int R, class F>
  REBLUR_HOST_DEVICE static void for_each_class(IntConstant<R>, F&& f) {
    static_for<R + 1>([&](auto b) REBLUR_INLINE_LAMBDA {
      static_for<decltype(b)::value + 1>(
          [&](auto a) REBLUR_INLINE_LAMBDA { f(StaticClass<decltype(a)::value, decltype(b)::value>{}); });
    });
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
  REBLUR_HOST_DEVICE static void for_each_offset(int radius, F&& f) {
    for (int d = 0; d <= radius; ++d) f(d);
  }

  template <class F>
  REBLUR_HOST_DEVICE void for_each_class(int radius, F&& f) const {
    for (int k = 0; k < class_count(radius); ++k) f(table[k]);
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
