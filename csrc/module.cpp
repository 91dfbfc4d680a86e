// The Python module reblur_ops._C: loading it registers the operators; its one function tells what was built.
#include <pybind11/pybind11.h>

#include <string>

namespace reblur {
namespace cpu {
std::string capability();
}
}  // namespace reblur

namespace {

pybind11::dict build_info() {
  pybind11::dict info;
  info["compiler"] = __VERSION__;
  info["torch"] = REBLUR_TORCH_VERSION;
  info["cpu_capability"] = reblur::cpu::capability();
#if defined(_OPENMP)
  info["openmp"] = true;
#else
  info["openmp"] = false;
#endif
#if defined(REBLUR_CUDA_ARCHITECTURES)
  info["cuda_architectures"] = REBLUR_CUDA_ARCHITECTURES;
#endif
  return info;
}

}  // namespace

PYBIND11_MODULE(_C, m) {
  m.doc() = "Native implementations of the reblur_ops operators.";
  m.def("build_info",
        &build_info,
        "What was built: compiler, Torch version, the CPU instruction set in use, CUDA architectures.");
}
