// The operators on the CPU: memory and threads. The kernels are in the headers beside this file.
#include <algorithm>
#include <array>
#include <cmath>

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include "cpu/capability.h"
#include "cpu/kernels.h"
#include "operators.h"

namespace reblur {
namespace cpu {
namespace {

ScalarType compute_type(ScalarType type) { return is_16_bit(type) ? ScalarType::Float : type; }

// In the type of computation and with neighbours in x next to each other; other strides are free. No copy where that
// holds.
Tensor readable(const Tensor& tensor) {
  const Tensor converted = to_type(tensor, compute_type(tensor.scalar_type()));
  return converted.size(3) > 1 && converted.stride(3) != 1 ? torch::stable::contiguous(converted) : converted;
}

// A large result is fresh memory, of which every page of 4 KB faults when it is first written; of 2 MB, few do. Advice
// alone: where the system has no such pages, nothing changes.
void ask_for_huge_pages(const Tensor& tensor) {
#if defined(__linux__)
  constexpr uintptr_t kHuge = uintptr_t(2) << 20;
  const auto begin = reinterpret_cast<uintptr_t>(tensor.const_data_ptr());
  const uintptr_t end = begin + tensor.numel() * tensor.element_size();
  const uintptr_t first = (begin + kHuge - 1) / kHuge * kHuge, last = end / kHuge * kHuge;
  if (last > first) madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);
#endif
}

template <class T>
Planes<const T> planes(const Tensor& tensor) {
  return {tensor.const_data_ptr<T>(), tensor.stride(0), tensor.stride(1), tensor.stride(2)};
}

template <class T>
Planes<T> mutable_planes(const Tensor& tensor) {
  if (tensor.numel() == 0) return {};
  return {tensor.mutable_data_ptr<T>(), tensor.stride(0), tensor.stride(1), tensor.stride(2)};
}

template <class T>
const Kernels<T>& select_kernels() {
#if defined(REBLUR_X86)
  static const Capability chosen = capability();
  if (chosen == Capability::kAvx512) return kernels_avx512(T());
  if (chosen == Capability::kAvx2) return kernels_avx2(T());
#endif
  return kernels_default(T());
}

double largest_magnitude(const Tensor& tensor) {
  constexpr std::array<int64_t, 4> kAll{0, 1, 2, 3};
  const Tensor largest = to_type(torch::stable::amax(absolute(tensor), kAll), ScalarType::Double);
  return *largest.const_data_ptr<double>();
}

// The kernel with no larger a radius than the disks of this call have: what a scatter does for each pixel besides its
// taps grows with the radius. Here a look at the parameters costs next to nothing.
KernelOptions within_parameters(KernelOptions kernel, const Tensor& parameters) {
  if (kernel.family != FamilyName::kDisk) return kernel;
  const double largest = largest_magnitude(parameters);
  if (largest < kernel.radius()) kernel.radii[0] = std::max(1, static_cast<int>(std::ceil(largest)));  // not if NaN
  return kernel;
}

template <class F>
void parallel(int64_t tiles, const F& f) {
  torch::stable::parallel_for(0, tiles, 1, f);
}

// Rows between two barriers of a scatter: enough tiles to keep every thread busy.
int64_t slab_height(int64_t tiles_per_row) {
  constexpr int64_t kRows = 8, kTilesPerThread = 8;
  return std::max(kRows, kTilesPerThread * torch::stable::get_num_threads() / tiles_per_row);
}

// The kernels for one type on tensors, over all threads.
template <class T>
class Launcher {
 public:
  Launcher(const Blur& blur, const Size& size)
      : size_(size),
        padding_(blur.padding),
        parameters_(readable(blur.parameters)),
        weights_(blur.weights ? std::optional(readable(*blur.weights)) : std::nullopt),
        problem_{within_parameters(blur.kernel, parameters_),
                 {planes<T>(parameters_), weights_ ? planes<T>(*weights_) : Planes<const T>{}}},
        kernels_(select_kernels<T>()) {}

  void gather(const Tensor& image, const Tensor& output) const {
    const GatherArguments<T> arguments{size_, all_rows(size_), padding_, planes<T>(image), mutable_planes<T>(output)};
    parallel(kernels_.tiles(size_, arguments.rows),
             [&](int64_t begin, int64_t end) { kernels_.gather(problem_, arguments, begin, end); });
  }

  void parameter_gradients(const Tensor& image, const Tensor& grad, const ParameterGradients& results) const {
    parameter_gradients(gradient_arguments(image, grad, results));
  }

  void scatter(const Tensor& image, const Tensor& output) const {
    scatter(image, output, [this](const Rows& needed, const BlockedStates<T>& states) {
      const StatesArguments<T> arguments{size_, needed, states};
      parallel(kernels_.tiles(size_, needed),
               [&](int64_t begin, int64_t end) { kernels_.states(problem_, arguments, begin, end); });
    });
  }

  // The gradients to the parameters leave the states that the scatter reads.
  void gather_gradients(const Tensor& image,
                        const Tensor& grad,
                        const Tensor& grad_image,
                        const ParameterGradients& results) const {
    ParameterGradientsArguments<T> arguments = gradient_arguments(image, grad, results);
    scatter(grad, grad_image, [&](const Rows& needed, const BlockedStates<T>& states) {
      arguments.rows = needed;
      arguments.states = states;
      parameter_gradients(arguments);
    });
  }

  void class_weights(const Tensor& output) const {
    const ClassWeightsArguments<T> arguments{size_, all_rows(size_), mutable_planes<T>(output)};
    parallel(kernels_.tiles(size_, arguments.rows),
             [&](int64_t begin, int64_t end) { kernels_.class_weights(problem_, arguments, begin, end); });
  }

  void class_weights_gradients(const Tensor& grad, const ParameterGradients& results) const {
    const auto& [parameters, weights] = results;
    const ClassWeightsGradientsArguments<T> arguments{
        size_, all_rows(size_), planes<T>(grad), {mutable_planes<T>(parameters), mutable_planes<T>(weights)}};
    parallel(kernels_.tiles(size_, arguments.rows),
             [&](int64_t begin, int64_t end) { kernels_.class_weights_gradients(problem_, arguments, begin, end); });
  }

 private:
  ParameterGradientsArguments<T> gradient_arguments(const Tensor& image,
                                                    const Tensor& grad,
                                                    const ParameterGradients& results) const {
    const auto& [parameters, weights] = results;
    return {size_,
            all_rows(size_),
            padding_,
            planes<T>(image),
            planes<T>(grad),
            {mutable_planes<T>(parameters), mutable_planes<T>(weights)},
            {}};
  }

  void parameter_gradients(const ParameterGradientsArguments<T>& arguments) const {
    parallel(kernels_.tiles(size_, arguments.rows),
             [&](int64_t begin, int64_t end) { kernels_.parameter_gradients(problem_, arguments, begin, end); });
  }

  // States first, by `compute_states(rows, states)`, then the scatter that reads them, a slab of rows at a time: memory
  // for a few rows, still in cache when it is read, in place of a whole image's. Small images share a slab.
  template <class F>
  void scatter(const Tensor& image, const Tensor& output, const F& compute_states) const {
    const int64_t reach = problem_.kernel.radius();
    const int64_t slab = slab_height(kernels_.tiles(size_, {0, 1, 0, 1}));
    const bool whole = size_.height <= slab + 2 * reach;
    const int64_t images = whole ? std::min(size_.batch, std::max<int64_t>(1, slab / size_.height)) : 1;
    const int64_t height = whole ? size_.height : slab, kept = whole ? size_.height : slab + 2 * reach;
    const int64_t blocks = (size_.width + kernels_.lanes - 1) / kernels_.lanes;
    const Tensor memory = empty(
        parameters_, {images, kept, blocks, kernels_.state_size(problem_), kernels_.lanes}, parameters_.scalar_type());
    BlockedStates<T> states{memory.mutable_data_ptr<T>(), 0, kept};
    ScatterArguments<T> arguments{size_, {}, padding_, {}, planes<T>(image), mutable_planes<T>(output)};
    for (int64_t n = 0; n < size_.batch; n += images) {
      const int64_t last = std::min(size_.batch, n + images);
      states.first_image = n;
      for (int64_t y = 0, computed = 0; y < size_.height; y += height) {
        const int64_t end = std::min(size_.height, y + height), within_reach = std::min(size_.height, end + reach);
        compute_states(Rows{n, last, computed, within_reach}, states);
        computed = within_reach;
        arguments.rows = {n, last, y, end};
        arguments.states = {states.data, n, kept};
        parallel(kernels_.scatter_tiles(size_, arguments.rows),
                 [&](int64_t begin, int64_t end) { kernels_.scatter(problem_, arguments, begin, end); });
      }
    }
  }

  Size size_;
  Padding padding_;
  Tensor parameters_;
  std::optional<Tensor> weights_;
  Problem<T> problem_;
  const Kernels<T>& kernels_;
};

template <class T>
void fill_cost_volume(CostVolumeArguments<T> arguments,
                      const Tensor& image,
                      const Tensor& target,
                      const Tensor& bank,
                      const Tensor& output) {
  const Kernels<T>& kernels = select_kernels<T>();
  arguments.image = planes<T>(image);
  arguments.target = planes<T>(target);
  arguments.bank = bank.const_data_ptr<T>();
  arguments.output = output.mutable_data_ptr<T>();
  parallel(kernels.cost_volume_tiles(arguments),
           [&](int64_t begin, int64_t end) { kernels.cost_volume(arguments, begin, end); });
}

Tensor cost_volume(const Tensor& image,
                   const Tensor& target,
                   const Tensor& bank,
                   int64_t radius,
                   int64_t slack,
                   int64_t cell,
                   bool root,
                   std::string_view padding_name) {
  const Padding padding = check_cost_volume(image, target, bank, radius, slack, cell, padding_name);
  const Size size = size_of(image);
  const int64_t kernels = bank.size(0), shifts = (2 * slack + 1) * (2 * slack + 1);
  const ScalarType type = compute_type(image.scalar_type());
  const Tensor output = empty(image, {size.batch, kernels, shifts, size.height / cell, size.width / cell}, type);
  if (output.numel() == 0) return to_type(output, image.scalar_type());
  const Tensor taps = torch::stable::contiguous(to_type(bank, type));
  const auto fill = [&](auto zero) {
    using T = decltype(zero);
    const CostVolumeArguments<T> arguments{
        size, padding, {}, {}, nullptr, kernels, static_cast<int>(radius), slack, cell, root, nullptr};
    fill_cost_volume<T>(arguments, readable(image), readable(target), taps, output);
  };
  if (type == ScalarType::Double)
    fill(double(0));
  else
    fill(float(0));
  return to_type(output, image.scalar_type());
}

// float16 and bfloat16 are computed in float32.
struct Device {
  static ScalarType compute_type(ScalarType type) { return cpu::compute_type(type); }
  static Tensor readable(const Tensor& tensor) { return cpu::readable(tensor); }
  static void advise(const Tensor& tensor) { ask_for_huge_pages(tensor); }

  template <class F>
  static void with_launcher(const Blur& blur, const Tensor& image, const F& f) {
    if (image.scalar_type() == ScalarType::Double)
      f(Launcher<double>(blur, size_of(image)));
    else
      f(Launcher<float>(blur, size_of(image)));
  }
};

}  // namespace

const char* capability_name() { return select_kernels<float>().capability; }

}  // namespace cpu
}  // namespace reblur

STABLE_TORCH_LIBRARY_IMPL(reblur_ops, CPU, library) {
  reblur::Operators<reblur::cpu::Device>::register_in(library);
  library.impl("cost_volume", TORCH_BOX(&reblur::cpu::cost_volume));
}
