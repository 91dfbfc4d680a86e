// The entry points of the CPU kernels. No Torch here: raw pointers, sizes and strides.
//
// Each exists once per instruction set and scalar type. It works on some rows of a problem, cut into tiles, and of
// those on the range [begin, end), so that the caller spreads them over threads. Every pixel is computed by the same
// instructions whatever its tile or thread: results are bitwise repeatable.
#pragma once

#include <type_traits>

#include "common/classes.h"
#include "common/problem.h"

namespace reblur {
namespace cpu {

template <class T>
struct Problem {
  KernelOptions kernel;
  Planes<const T> parameters[2];  // the family's: seeds [N, Σ(r+1), H, W] and weights [N, S+1, H, W]; profile
                                  // [N, R+1, H, W]; tap weights [N, (R+1)(R+2)/2, H, W]; σ or ρ [N, 1, H, W]
};

// What the family's kernels are read off (its states, families/class_family.h), as it is kept between kernels:
// [images, rows, ceil(W / lanes), state_size, lanes]. All of a block of neighbouring pixels lies together, which spares
// the caches 36 streams at equal distances. An image's rows take turns where there are more than `rows`: only those
// within reach of the scatter need be there.
template <class T>
struct BlockedStates {
  T* data;              // aligned to 64 bytes; nullptr where not wanted
  int64_t first_image;  // that data begins with
  int64_t rows;

  template <class Lane>
  auto* block(const Size& size, int state_size, int64_t n, int64_t y, int64_t x) const {
    const int64_t blocks = (size.width + Lane::size() - 1) / Lane::size();
    const int64_t row = (n - first_image) * rows + y % rows;
    return reinterpret_cast<std::conditional_t<std::is_const_v<T>, const Lane, Lane>*>(data) +
           (row * blocks + x / Lane::size()) * state_size;
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
  BlockedStates<T> states;       // may be unwanted
};

template <class T>
struct StatesArguments {
  Size size;  // channels unused
  Rows rows;
  BlockedStates<T> states;
};

template <class T>
struct ScatterArguments {
  Size size;
  Rows rows;
  Padding padding;
  BlockedStates<const T> states;
  Planes<const T> image;  // [N, C, H, W]
  Planes<T> output;       // [N, C, H, W]
};

template <class T>
struct ClassWeightsArguments {
  Size size;  // channels unused
  Rows rows;
  Planes<T> class_weights;  // [N, classes, H, W]
};

template <class T>
struct ClassWeightsGradientsArguments {
  Size size;  // channels unused
  Rows rows;
  Planes<const T> grad_weights;  // [N, classes, H, W]
  Planes<T> grad_parameters[2];  // each may be unwanted
};

// How far an image, blurred by each of K isotropic kernels, is from another one: the mean square error over the
// channels of a cell, at every shift of the blurred image by up to the slack. Beyond its border the blurred image is
// repeated.
template <class T>
struct CostVolumeArguments {
  Size size;
  Padding padding;
  Planes<const T> image, target;  // [N, C, H, W]
  const T* bank;                  // [K, classes]
  int64_t kernels;
  int radius;     // up to kMaxAnalyticRadius
  int64_t slack;  // pixels, up to kMaxSlack
  int64_t cell;   // 1 or 2: side of a cell in pixels, of which height and width are multiples
  bool root;      // square roots are compared, of values that count as at least 0
  T* output;      // [N, K, (2 slack + 1)^2, H / cell, W / cell]
};

// The kernels compiled for one instruction set.
template <class T>
struct Kernels {
  const char* capability;  // "AVX512", "AVX2" or "DEFAULT"
  int lanes;

  // The number of tiles that rows split into: for `scatter`, and for all the others.
  int64_t (*tiles)(const Size&, const Rows&);
  int64_t (*scatter_tiles)(const Size&, const Rows&);

  int (*state_size)(const Problem<T>&);
  void (*gather)(const Problem<T>&, const GatherArguments<T>&, int64_t begin, int64_t end);
  void (*parameter_gradients)(const Problem<T>&, const ParameterGradientsArguments<T>&, int64_t begin, int64_t end);
  void (*states)(const Problem<T>&, const StatesArguments<T>&, int64_t begin, int64_t end);
  void (*scatter)(const Problem<T>&, const ScatterArguments<T>&, int64_t begin, int64_t end);
  // Of families with class weights.
  void (*class_weights)(const Problem<T>&, const ClassWeightsArguments<T>&, int64_t begin, int64_t end);
  void (*class_weights_gradients)(const Problem<T>&,
                                  const ClassWeightsGradientsArguments<T>&,
                                  int64_t begin,
                                  int64_t end);

  int64_t (*cost_volume_tiles)(const CostVolumeArguments<T>&);
  void (*cost_volume)(const CostVolumeArguments<T>&, int64_t begin, int64_t end);
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
