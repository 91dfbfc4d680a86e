// Runs problems through the CUDA engine's launchers. Reads them from standard input one after another and writes each
// one's results to standard output:
//   problem: 11 numbers (dtypes of images and parameters, N, C, H, W, padding, family, square, normalization, radii),
//   the radii, then the tensors
//            of Operators::run in order. A number is an int64.
//   tensor:  4 strides, offset and size of its storage in elements; then, of an input, the storage itself. The result
//            is the whole storage, filled with bytes 0xFF where nothing was written. Size 0: not wanted.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>

#include "cuda/kernels.h"
#include "cuda/launch.h"
#include "cuda/slabs.h"

namespace {

using namespace reblur;
using namespace reblur::cuda;

template <class T>
constexpr int64_t kCode = -1;
template <>
constexpr int64_t kCode<float> = 0;
template <>
constexpr int64_t kCode<double> = 1;
template <>
constexpr int64_t kCode<__half> = 2;
template <>
constexpr int64_t kCode<__nv_bfloat16> = 3;

bool read(void* to, size_t bytes) { return std::fread(to, 1, bytes, stdin) == bytes; }

void read_or_exit(void* to, size_t bytes) {
  if (!read(to, bytes)) std::exit(3);
}

void check(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return;
  std::fprintf(stderr, "%s: %s\n", what, cudaGetErrorString(error));
  std::exit(2);
}

struct Free {
  void operator()(void* memory) const { std::free(memory); }
};
template <class T>
using Memory = std::unique_ptr<T[], Free>;

// On the heap, so that AddressSanitizer knows its bounds, and aligned as Torch aligns memory of a GPU.
template <class T>
Memory<T> allocate(size_t elements) {
  void* memory = nullptr;
  if (posix_memalign(&memory, 512, elements * sizeof(T)) != 0) std::exit(4);
  return Memory<T>(static_cast<T*>(memory));
}

template <class T>
class Tensor {
 public:
  Tensor() {
    read_or_exit(header_, sizeof(header_));
    storage_ = allocate<T>(header_[5]);
    std::memset(storage_.get(), 0xFF, bytes());
  }

  static Tensor input() {
    Tensor tensor;
    read_or_exit(tensor.storage_.get(), tensor.bytes());
    return tensor;
  }

  size_t bytes() const { return header_[5] * sizeof(T); }
  StridedPlanes<T> planes() const {
    if (header_[5] == 0) return {};
    return {storage_.get() + header_[4], header_[0], header_[1], header_[2], header_[3]};
  }
  StridedPlanes<const T> readable() const {
    const StridedPlanes<T> p = planes();
    return {p.data, p.batch_stride, p.channel_stride, p.row_stride, p.column_stride};
  }
  void write() const { std::fwrite(storage_.get(), 1, bytes(), stdout); }

 private:
  int64_t header_[6];
  Memory<T> storage_;
};

// Bytes of states at a time: so few that tall images come in several slabs, and batches of small ones, too.
#if !defined(REBLUR_EMULATION_STATES_BYTES)
#define REBLUR_EMULATION_STATES_BYTES (200 << 10)
#endif
constexpr int64_t kLimit = REBLUR_EMULATION_STATES_BYTES;

// Memory for what passes between kernels.
template <class Value>
class Workspace {
 public:
  Workspace(const KernelOptions& kernel, const Size& size)
      : layout_(kernel, size, sizeof(Value), kLimit),
        states_(allocate<Value>(layout_.elements())),
        reach_(allocate<int>(reach_tiles(size))),
        canvas_(allocate<Value>(size.batch * size.channels * (size.height + 2 * kernel.radius()) *
                                (size.width + 2 * kernel.radius()))) {}

  States<Value> states() const { return {layout_, states_.get(), reach_.get()}; }
  Value* canvas() const { return canvas_.get(); }

 private:
  StatesLayout layout_;
  Memory<Value> states_;
  Memory<int> reach_;
  Memory<Value> canvas_;
};

template <class T, class P>
struct Operators {
  Problem<P> problem;
  Size size;
  Padding padding;

  void run() {
    const auto image = Tensor<T>::input();
    const auto parameters = Tensor<P>::input(), weights = Tensor<P>::input();
    const auto grad_output = Tensor<T>::input();
    const auto grad_class_weights = Tensor<P>::input();
    const Tensor<T> output, grad_image;
    const Tensor<P> grad_parameters, grad_weights;
    const Tensor<T> grad_image_alone;
    const Tensor<P> grad_parameters_alone, grad_weights_alone;
    const Tensor<P> class_weights, class_weights_grad_parameters, class_weights_grad_weights;
    problem.parameters[0] = parameters.readable();
    problem.parameters[1] = weights.readable();
    const Rows rows = all_rows(size);

    const GatherArguments<T> gather = {size, padding, image.readable(), output.planes()};
    check(launch_gather(problem, gather, nullptr), "gather");

    // Everything, as when all gradients are wanted.
    const Workspace<Accumulation<T>> together(problem.kernel, size), apart(problem.kernel, size);
    ParameterGradientsArguments<T, P> gradients = {size,
                                                   rows,
                                                   padding,
                                                   image.readable(),
                                                   grad_output.readable(),
                                                   {grad_parameters.planes(), grad_weights.planes()},
                                                   {}};
    ScatterArguments<T> scatter = {
        size, rows, padding, together.states(), grad_output.readable(), grad_image.planes(), together.canvas()};
    check(launch_gather_gradients(problem, gradients, scatter, nullptr), "gather gradients");

    // Each gradient alone.
    gradients.grad_parameters[0] = grad_parameters_alone.planes();
    gradients.grad_parameters[1] = {};
    check(launch_parameter_gradients(problem, gradients, nullptr), "gradient to parameters");
    if (weights.bytes() != 0) {
      gradients.grad_parameters[0] = {};
      gradients.grad_parameters[1] = grad_weights_alone.planes();
      check(launch_parameter_gradients(problem, gradients, nullptr), "gradient to weights");
    }
    scatter = {size, rows, padding, apart.states(), grad_output.readable(), grad_image_alone.planes(), apart.canvas()};
    check(launch_states_and_scatter(problem, scatter, nullptr), "scatter alone");

    if (!problem.kernel.is_analytic()) {
      const ClassWeightsArguments<P> public_weights = {size, class_weights.planes()};
      check(launch_class_weights(problem, public_weights, nullptr), "class weights");
      const ClassWeightsGradientsArguments<P> weights_gradients = {
          size,
          grad_class_weights.readable(),
          {class_weights_grad_parameters.planes(), class_weights_grad_weights.planes()}};
      check(launch_class_weights_gradients(problem, weights_gradients, nullptr), "class weights gradients");
    }

    const auto write = [](const auto&... results) { (results.write(), ...); };
    write(output,
          grad_image,
          grad_parameters,
          grad_weights,
          grad_image_alone,
          grad_parameters_alone,
          grad_weights_alone,
          class_weights,
          class_weights_grad_parameters,
          class_weights_grad_weights);
  }
};

template <class T, class P>
void run(const int64_t* header) {
  Operators<T, P> operators = {
      {{static_cast<FamilyName>(header[7]), int(header[10]), {}, header[8] != 0, static_cast<Normalization>(header[9])},
       {}},
      {header[2], header[3], header[4], header[5]},
      static_cast<Padding>(header[6])};
  for (int n = 0; n < header[10]; ++n) {
    int64_t radius;
    read_or_exit(&radius, sizeof(radius));
    operators.problem.kernel.radii[n] = int(radius);
  }
  operators.run();
}

}  // namespace

int main() {
  int64_t header[11];
  while (read(header, sizeof(header))) {
#define RUN(T, P) \
  if (header[0] == kCode<T> && header[1] == kCode<P>) run<T, P>(header);
    REBLUR_FOR_EACH_PAIR(RUN)
#undef RUN
  }
}
