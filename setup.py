"""Builds reblur_ops._C against the torch that is installed; the rest is in pyproject.toml.

Environment:
    REBLUR_OPS_NO_NATIVE=1   compile nothing: pure PyTorch answers
    FORCE_CPU=1              no CUDA, even where it could be built
    FORCE_CUDA=1             CUDA, even where no GPU is visible; an error where it cannot be built
    TORCH_CUDA_ARCH_LIST     the architectures, as torch.utils.cpp_extension reads it; without it the visible GPU's, or
                             where none is visible those in DEFAULT_ARCHITECTURES
    MAX_JOBS                 how many files are compiled at a time
"""

import os
import platform
import sys
from pathlib import Path

from setuptools import setup

ROOT = Path(__file__).parent
CSRC = Path("csrc")
CXX_FLAGS = ["-O3", "-g0", "-Wall", "-Wno-unknown-pragmas"]
# Our sources are C++17, but torch's headers want C++20 from 2.14 on; the extension gets it from torch. GCC 12 takes its
# own AVX-512 intrinsics for uninitialised reads, and tells of an ABI change in GCC 4.6.
KERNEL_FLAGS = [*CXX_FLAGS, "-std=c++20", "-fPIC", "-Wno-maybe-uninitialized", "-Wno-psabi"]
INSTRUCTION_SETS = {
    "default": [],
    "avx2": ["-mavx2", "-mfma", "-mf16c"],
    "avx512": ["-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mavx2", "-mfma", "-mf16c"],
}


def flag(name: str) -> bool:
    return os.environ.get(name, "0") not in ("", "0")


def native() -> dict:
    """What to compile, as arguments of setup()."""
    if flag("REBLUR_OPS_NO_NATIVE"):
        print("reblur_ops: nothing is compiled, because REBLUR_OPS_NO_NATIVE is set")
        return {}
    if flag("FORCE_CPU") and flag("FORCE_CUDA"):
        sys.exit("reblur_ops: FORCE_CPU and FORCE_CUDA are both set; set one")
    try:
        import pybind11
        import torch
        from torch.utils import cpp_extension
    except ImportError as error:
        sys.exit(
            f"reblur_ops is built against the torch that is installed, and found none to build with: {error}.\n"
            "Install torch, pybind11 and ninja, then `pip install --no-build-isolation .`; "
            "or set REBLUR_OPS_NO_NATIVE=1 for pure Python."
        )
    if flag("FORCE_CUDA"):
        sys.exit("reblur_ops: FORCE_CUDA is set, but this version has no CUDA kernels yet")
    print("reblur_ops: compiling for CPU, as this version has no CUDA kernels yet")

    # The kernels once per instruction set, as static libraries: one extension has one set of flags.
    x86 = platform.machine().lower() in ("x86_64", "amd64")
    sets = INSTRUCTION_SETS if x86 else {"default": []}
    includes = [str(CSRC), *cpp_extension.include_paths()]
    macros = [("REBLUR_X86", None)] if x86 else []
    kernel_headers = [str(path) for path in sorted(CSRC.rglob("*")) if path.suffix in (".h", ".inl")]
    libraries = [
        (
            f"reblur_cpu_{name}",
            {
                "sources": [str(CSRC / "cpu" / f"kernels_{name}.cpp")],
                "obj_deps": {"": kernel_headers},
                "include_dirs": includes,
                "macros": macros,
                "cflags": [*KERNEL_FLAGS, *flags],
            },
        )
        for name, flags in sets.items()
    ]
    extension = cpp_extension.CppExtension(
        "reblur_ops._C",
        [str(CSRC / "module.cpp"), str(CSRC / "cpu" / "ops.cpp")],
        include_dirs=[str(ROOT / CSRC), pybind11.get_include()],
        define_macros=[*macros, ("REBLUR_TORCH_VERSION", f'"{torch.__version__}"')],
        depends=kernel_headers,
        # No -lgomp: the OpenMP that torch has loaded answers, so that torch.set_num_threads holds here too.
        extra_compile_args={"cxx": [*CXX_FLAGS, *([] if sys.platform == "darwin" else ["-fopenmp"])]},
    )
    return {
        "libraries": libraries,
        "ext_modules": [extension],
        "cmdclass": {"build_ext": cpp_extension.BuildExtension.with_options(use_ninja=True)},
    }


setup(**native())
