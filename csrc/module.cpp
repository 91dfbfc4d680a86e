// The Python module reblur_ops._C: loading it registers the operators; its one function tells what was built.
//
// Plain C of Python's limited API, so that one build serves every Python from 3.10 on.
#if !defined(Py_LIMITED_API)  // newer Torch builds define it
#define Py_LIMITED_API 0x030a0000
#endif
#include <Python.h>

#include "cpu/capability.h"

namespace {

PyObject* build_info(PyObject*, PyObject*) {
  return Py_BuildValue("{s:s, s:s, s:s, s:s}",
                       "compiler",
                       __VERSION__,
                       "torch",
                       REBLUR_TORCH_VERSION,
                       "cpu_capability",
                       reblur::cpu::capability_name(),
                       "cuda_architectures",
                       REBLUR_CUDA_ARCHITECTURES);
}

PyMethodDef methods[] = {
    {"build_info", build_info, METH_NOARGS, "Compiler, Torch, the CPU instruction set in use, CUDA architectures."},
    {nullptr, nullptr, 0, nullptr},
};

PyModuleDef module = {PyModuleDef_HEAD_INIT, "_C", "Native implementations of the reblur_ops operators.", 0, methods};

}  // namespace

PyMODINIT_FUNC PyInit__C() { return PyModule_Create(&module); }
