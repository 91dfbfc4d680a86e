// The CPU engine's entry points. No Torch here: raw pointers, sizes and strides.
//
// Each exists once per instruction set and scalar type. It works on some rows of a problem, cut into tiles, and of
// those on the range [begin, end), so that the caller spreads them over threads. Every pixel is computed by the same
// instructions whatever its tile or thread: results are bitwise repeatable.
#pragma once

#include <type_traits>

#include "engine/classes.h"
#include "engine/problem.h"

namespace reblur {
namespace cpu {

// One family with its parameters' planes.
template <class T>
struct SeedsProblem {
  int radii_count;
  int radii[kMaxRadius];
  bool square;
  Planes<const T> parameters[2];  // seeds [N, Σ(r+1), H, W], weights [N, S+1, H, W]
};

// Class weights as the engine keeps them between kernels: [images, rows, ceil(W / lanes), classes, lanes]. All classes
// of a block of neighbouring pixels lie together, which spares the caches 36 streams at equal distances. An image's
// rows take turns where there are more than `rows`: only those within reach of the scatter need be there.
template <class T>
struct BlockedWeights {
  T* data;              // aligned to 64 bytes; nullptr where not wanted
  int64_t first_image;  // that data begins with
  int64_t rows;

  template <class Lane>
  auto* block(const Size& size, int classes, int64_t n, int64_t y, int64_t x) const {
    const int64_t blocks = (size.width + Lane::size() - 1) / Lane::size();
    const int64_t row = (n - first_image) * rows + y % rows;
    return reinterpret_cast<std::conditional_t<std::is_const_v<T>, const Lane, Lane>*>(data) +
           (row * blocks + x / Lane::size()) * classes;
  }
};

template <class T>
struct GatherArguments {
  Size size;
  Rows rows;
  Padding padding;
  Planes<const T> image;  // [N, C, H, W]
  Planes<T> output;       // [N, C, H, W]
};

template <class T>
struct ParameterGradientsArguments {
  Size size;
  Rows rows;
  Padding padding;
  Planes<const T> image;         // [N, C, H, W]
  Planes<const T> grad_output;   // [N, C, H, W]
  Planes<T> grad_parameters[2];  // like the parameters; each may be unwanted
  BlockedWeights<T> weights;     // may be unwanted
};

template <class T>
struct ScatterArguments {
  Size size;
  Rows rows;
  Padding padding;
  BlockedWeights<const T> weights;
  Planes<const T> grad_output;  // [N, C, H, W]
  Planes<T> grad_image;         // [N, C, H, W]
};

template <class T>
struct ClassWeightsArguments {
  Size size;  // channels unused
  Rows rows;
  Planes<T> planes;           // [N, classes, H, W], or unwanted
  BlockedWeights<T> blocked;  // or unwanted
};

template <class T>
struct ClassWeightsGradientsArguments {
  Size size;  // channels unused
  Rows rows;
  Planes<const T> grad_weights;  // [N, classes, H, W]
  Planes<T> grad_parameters[2];  // each may be unwanted
};

// The engine compiled for one instruction set.
template <class T>
struct Kernels {
  const char* capability;  // "AVX512", "AVX2" or "DEFAULT"
  int lanes;

  // The number of tiles that rows split into: for `scatter`, and for all the others.
  int64_t (*tiles)(const Size&, const Rows&);
  int64_t (*scatter_tiles)(const Size&, const Rows&);

  void (*gather)(const SeedsProblem<T>&, const GatherArguments<T>&, int64_t begin, int64_t end);
  void (*parameter_gradients)(const SeedsProblem<T>&,
                              const ParameterGradientsArguments<T>&,
                              int64_t begin,
                              int64_t end);
  void (*scatter)(const SeedsProblem<T>&, const ScatterArguments<T>&, int64_t begin, int64_t end);
  void (*class_weights)(const SeedsProblem<T>&, const ClassWeightsArguments<T>&, int64_t begin, int64_t end);
  void (*class_weights_gradients)(const SeedsProblem<T>&,
                                  const ClassWeightsGradientsArguments<T>&,
                                  int64_t begin,
                                  int64_t end);
};

const Kernels<float>& kernels_default(float);
const Kernels<double>& kernels_default(double);
#if defined(REBLUR_X86)
const Kernels<float>& kernels_avx2(float);
const Kernels<double>& kernels_avx2(double);
const Kernels<float>& kernels_avx512(float);
const Kernels<double>& kernels_avx512(double);
#endif

}  // namespace cpu
}  // namespace reblur
