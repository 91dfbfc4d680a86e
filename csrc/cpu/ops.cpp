// The operators on the CPU: checks, memory, threads. The kernels are in cpu/engine.h.
#include <ATen/Dispatch.h>
#include <ATen/Parallel.h>
#include <ATen/Version.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include "checks.h"
#include "cpu/kernels.h"

namespace reblur {
namespace cpu {
namespace {

// float16 and bfloat16 are computed in float32.
at::ScalarType compute_type(const at::Tensor& tensor) {
  return at::isReducedFloatingType(tensor.scalar_type()) ? at::kFloat : tensor.scalar_type();
}

// In the type of computation and with neighbours in x next to each other; other strides are free. No copy where that
// holds.
at::Tensor readable(const at::Tensor& tensor) {
  at::Tensor converted = tensor.to(compute_type(tensor));
  return converted.size(3) > 1 && converted.stride(3) != 1 ? converted.contiguous() : converted;
}

template <class T>
Planes<const T> planes(const at::Tensor& tensor) {
  return {tensor.const_data_ptr<T>(), tensor.stride(0), tensor.stride(1), tensor.stride(2)};
}

template <class T>
Planes<T> mutable_planes(const at::Tensor& tensor) {
  if (tensor.numel() == 0) return {};
  return {tensor.mutable_data_ptr<T>(), tensor.stride(0), tensor.stride(1), tensor.stride(2)};
}

// A result in the type of computation; empty where it is not wanted.
at::Tensor allocate(const at::Tensor& like, int64_t channels, bool wanted = true) {
  const auto options = like.options().dtype(compute_type(like));
  if (!wanted) return at::empty({0}, options);
  return at::empty({like.size(0), channels, like.size(2), like.size(3)}, options);
}

Rows all_rows(const at::Tensor& tensor) { return {0, tensor.size(0), 0, tensor.size(2)}; }

Size size_of(const at::Tensor& tensor) { return {tensor.size(0), tensor.size(1), tensor.size(2), tensor.size(3)}; }

// The engine for this processor. ATEN_CPU_CAPABILITY overrides it, as it does for Torch's own kernels.
template <class T>
const Kernels<T>& select() {
#if defined(REBLUR_X86)
  static const std::string capability = at::get_cpu_capability();
  if (capability == "AVX512") return kernels_avx512(T());
  if (capability == "AVX2") return kernels_avx2(T());
#endif
  return kernels_default(T());
}

template <class T>
SeedsProblem<T> seeds_problem(const Options& options, const at::Tensor& seeds, const at::Tensor& weights) {
  SeedsProblem<T> problem{options.radii.count, {}, options.square, {planes<T>(seeds), planes<T>(weights)}};
  std::copy(options.radii.values, options.radii.values + kMaxRadius, problem.radii);
  return problem;
}

template <class F>
void parallel(int64_t tiles, const F& f) {
  at::parallel_for(0, tiles, 1, f);
}

// Rows between two barriers of the backward pass: enough tiles to keep every thread busy.
int64_t slab_height(int64_t tiles_per_row) {
  constexpr int64_t kRows = 8, kTilesPerThread = 8;
  return std::max(kRows, kTilesPerThread * at::get_num_threads() / tiles_per_row);
}

at::Tensor reblur(const at::Tensor& image,
                  const at::Tensor& seeds,
                  const at::Tensor& weights,
                  at::IntArrayRef radii,
                  c10::string_view support,
                  c10::string_view padding) {
  const Options options = check_reblur(image, "image", seeds, weights, radii, support, padding);
  const at::Tensor output = allocate(image, image.size(1));
  if (output.numel() > 0) {
    const at::Tensor x = readable(image), s = readable(seeds), w = readable(weights);
    AT_DISPATCH_FLOATING_TYPES(x.scalar_type(), "reblur", [&] {
      const auto& kernels = select<scalar_t>();
      const auto problem = seeds_problem<scalar_t>(options, s, w);
      const GatherArguments<scalar_t> arguments{
          size_of(x), all_rows(x), options.padding, planes<scalar_t>(x), mutable_planes<scalar_t>(output)};
      parallel(kernels.tiles(arguments.size, arguments.rows),
               [&](int64_t begin, int64_t end) { kernels.gather(problem, arguments, begin, end); });
    });
  }
  return output.to(image.scalar_type());
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> reblur_backward(const at::Tensor& grad_output,
                                                               const std::optional<at::Tensor>& image,
                                                               const at::Tensor& seeds,
                                                               const at::Tensor& weights,
                                                               at::IntArrayRef radii,
                                                               c10::string_view support,
                                                               c10::string_view padding,
                                                               bool need_image,
                                                               bool need_seeds,
                                                               bool need_weights) {
  const bool need_parameters = need_seeds || need_weights;
  const Options options =
      check_reblur_backward(grad_output, image, seeds, weights, radii, support, padding, need_parameters);
  const at::Tensor grad_image = allocate(grad_output, grad_output.size(1), need_image);
  const at::Tensor grad_seeds = allocate(seeds, seeds.size(1), need_seeds);
  const at::Tensor grad_weights = allocate(weights, weights.size(1), need_weights);
  if (grad_output.numel() > 0) {
    const at::Tensor g = readable(grad_output), s = readable(seeds), w = readable(weights);
    AT_DISPATCH_FLOATING_TYPES(g.scalar_type(), "reblur_backward", [&] {
      const auto& kernels = select<scalar_t>();
      const auto problem = seeds_problem<scalar_t>(options, s, w);
      const Size size = size_of(g);
      const at::Tensor x = need_parameters ? readable(*image) : g;
      ParameterGradientsArguments<scalar_t> gradients{
          size,
          all_rows(g),
          options.padding,
          planes<scalar_t>(x),
          planes<scalar_t>(g),
          {mutable_planes<scalar_t>(grad_seeds), mutable_planes<scalar_t>(grad_weights)},
          {}};
      const auto compute_gradients = [&](int64_t begin, int64_t end) {
        kernels.parameter_gradients(problem, gradients, begin, end);
      };
      if (!need_image) {
        parallel(kernels.tiles(size, gradients.rows), compute_gradients);
        return;
      }
      // Class weights first, then the scatter that reads them, a slab of rows at a time: memory for a few rows, still
      // in cache when it is read, in place of a whole image's. Small images share a slab.
      const int64_t reach = options.radii.max();
      const int64_t slab = slab_height(kernels.tiles(size, {0, 1, 0, 1}));
      const bool whole = size.height <= slab + 2 * reach;
      const int64_t images = whole ? std::min(size.batch, std::max<int64_t>(1, slab / size.height)) : 1;
      const int64_t height = whole ? size.height : slab, kept = whole ? size.height : slab + 2 * reach;
      const int64_t blocks = (size.width + kernels.lanes - 1) / kernels.lanes;
      const at::Tensor kept_weights = at::empty({images, kept, blocks, options.classes(), kernels.lanes}, s.options());
      const BlockedWeights<scalar_t> weights_of_slab{kept_weights.mutable_data_ptr<scalar_t>(), 0, kept};
      ClassWeightsArguments<scalar_t> forward{size, {}, {}, weights_of_slab};
      const auto compute_weights = [&](int64_t begin, int64_t end) {
        kernels.class_weights(problem, forward, begin, end);
      };
      ScatterArguments<scalar_t> scatter{size,
                                         {},
                                         options.padding,
                                         {weights_of_slab.data, 0, kept},
                                         planes<scalar_t>(g),
                                         mutable_planes<scalar_t>(grad_image)};
      gradients.weights = weights_of_slab;
      for (int64_t n = 0; n < size.batch; n += images) {
        const int64_t last = std::min(size.batch, n + images);
        gradients.weights.first_image = forward.blocked.first_image = scatter.weights.first_image = n;
        for (int64_t y = 0, computed = 0; y < size.height; y += height) {
          const int64_t end = std::min(size.height, y + height), within_reach = std::min(size.height, end + reach);
          gradients.rows = forward.rows = {n, last, computed, within_reach};
          if (need_parameters)
            parallel(kernels.tiles(size, gradients.rows), compute_gradients);
          else
            parallel(kernels.tiles(size, forward.rows), compute_weights);
          computed = within_reach;
          scatter.rows = {n, last, y, end};
          parallel(kernels.scatter_tiles(size, scatter.rows),
                   [&](int64_t begin, int64_t end) { kernels.scatter(problem, scatter, begin, end); });
        }
      }
    });
  } else {  // an image without channels still has parameters
    grad_seeds.zero_();
    grad_weights.zero_();
  }
  return {grad_image.to(grad_output.scalar_type()),
          grad_seeds.to(seeds.scalar_type()),
          grad_weights.to(weights.scalar_type())};
}

at::Tensor class_weights(const at::Tensor& seeds,
                         const at::Tensor& weights,
                         at::IntArrayRef radii,
                         c10::string_view support) {
  const Options options = check_class_weights(seeds, weights, radii, support);
  const at::Tensor output = allocate(seeds, options.classes());
  if (output.numel() > 0) {
    const at::Tensor s = readable(seeds), w = readable(weights);
    AT_DISPATCH_FLOATING_TYPES(s.scalar_type(), "class_weights", [&] {
      const auto& kernels = select<scalar_t>();
      const auto problem = seeds_problem<scalar_t>(options, s, w);
      const ClassWeightsArguments<scalar_t> arguments{size_of(s), all_rows(s), mutable_planes<scalar_t>(output), {}};
      parallel(kernels.tiles(arguments.size, arguments.rows),
               [&](int64_t begin, int64_t end) { kernels.class_weights(problem, arguments, begin, end); });
    });
  }
  return output.to(seeds.scalar_type());
}

std::tuple<at::Tensor, at::Tensor> class_weights_backward(const at::Tensor& grad_output,
                                                          const at::Tensor& seeds,
                                                          const at::Tensor& weights,
                                                          at::IntArrayRef radii,
                                                          c10::string_view support,
                                                          bool need_seeds,
                                                          bool need_weights) {
  const Options options = check_class_weights(seeds, weights, radii, support);
  check_like(grad_output, "grad_output", seeds, options.classes());
  const at::Tensor grad_seeds = allocate(seeds, seeds.size(1), need_seeds);
  const at::Tensor grad_weights = allocate(weights, weights.size(1), need_weights);
  if (seeds.numel() > 0) {
    const at::Tensor g = readable(grad_output), s = readable(seeds), w = readable(weights);
    AT_DISPATCH_FLOATING_TYPES(s.scalar_type(), "class_weights_backward", [&] {
      const auto& kernels = select<scalar_t>();
      const auto problem = seeds_problem<scalar_t>(options, s, w);
      const ClassWeightsGradientsArguments<scalar_t> arguments{
          size_of(s),
          all_rows(s),
          planes<scalar_t>(g),
          {mutable_planes<scalar_t>(grad_seeds), mutable_planes<scalar_t>(grad_weights)}};
      parallel(kernels.tiles(arguments.size, arguments.rows),
               [&](int64_t begin, int64_t end) { kernels.class_weights_gradients(problem, arguments, begin, end); });
    });
  }
  return {grad_seeds.to(seeds.scalar_type()), grad_weights.to(weights.scalar_type())};
}

}  // namespace

std::string capability() { return select<float>().capability; }

}  // namespace cpu
}  // namespace reblur

TORCH_LIBRARY_IMPL(reblur_ops, CPU, m) {
  m.impl("reblur", reblur::cpu::reblur);
  m.impl("reblur_backward", reblur::cpu::reblur_backward);
  m.impl("class_weights", reblur::cpu::class_weights);
  m.impl("class_weights_backward", reblur::cpu::class_weights_backward);
}
