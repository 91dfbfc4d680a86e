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
DEFAULT_ARCHITECTURES = "7.5;8.0;8.6;8.9;9.0;10.0;12.0+PTX"
INSTRUCTION_SETS = {
    "default": [],
    "avx2": ["-mavx2", "-mfma", "-mf16c"],
    "avx512": ["-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mavx2", "-mfma", "-mf16c"],
}


def flag(name: str) -> bool:
    return os.environ.get(name, "0") not in ("", "0")


def cuda_architectures(torch, cpp_extension) -> str:
    """The CUDA architectures to compile for, "" for none; says which and why."""
    wanted = flag("FORCE_CUDA")
    if flag("FORCE_CPU"):
        obstacle = "FORCE_CPU is set"
    elif torch.version.cuda is None:
        obstacle = "this torch was built without CUDA"
    elif cpp_extension.CUDA_HOME is None:
        obstacle = "there is no CUDA toolkit: nvcc is not on the PATH and CUDA_HOME is not set"
    elif not torch.cuda.is_available() and not wanted:
        obstacle = "no GPU is visible; FORCE_CUDA=1 compiles for one all the same"
    else:
        obstacle = ""
    if obstacle and wanted:
        sys.exit(f"reblur_ops: FORCE_CUDA is set, but {obstacle}")
    if obstacle:
        print(f"reblur_ops: compiling for CPU alone, because {obstacle}")
        return ""
    if "TORCH_CUDA_ARCH_LIST" in os.environ:
        reason = "TORCH_CUDA_ARCH_LIST says so"
    elif torch.cuda.is_available():
        found = {torch.cuda.get_device_capability(index) for index in range(torch.cuda.device_count())}
        os.environ["TORCH_CUDA_ARCH_LIST"] = ";".join(f"{major}.{minor}" for major, minor in sorted(found))
        reason = "these GPUs are visible"
    else:
        os.environ["TORCH_CUDA_ARCH_LIST"] = DEFAULT_ARCHITECTURES  # cpp_extension raises where it finds none
        reason = "no GPU is visible, and FORCE_CUDA is set"
    architectures = os.environ["TORCH_CUDA_ARCH_LIST"]
    print(f"reblur_ops: compiling for CPU and CUDA {architectures}, because {reason}")
    return architectures


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
    architectures = cuda_architectures(torch, cpp_extension)

    # The kernels once per instruction set, as static libraries: one extension has one set of flags.
    x86 = platform.machine().lower() in ("x86_64", "amd64")
    sets = INSTRUCTION_SETS if x86 else {"default": []}
    includes = [str(CSRC), *cpp_extension.include_paths()]
    macros = [("REBLUR_X86", None)] if x86 else []
    kernel_headers = [str(path) for path in sorted(CSRC.rglob("*")) if path.suffix in (".h", ".cuh", ".inl")]
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
    sources = [CSRC / "module.cpp", CSRC / "cpu" / "ops.cpp"]
    definitions = [*macros, ("REBLUR_TORCH_VERSION", f'"{torch.__version__}"')]
    make_extension = cpp_extension.CppExtension
    if architectures:
        sources += [CSRC / "cuda" / "ops.cpp", *sorted((CSRC / "cuda").glob("*.cu"))]
        definitions.append(("REBLUR_CUDA_ARCHITECTURES", f'"{architectures}"'))
        make_extension = cpp_extension.CUDAExtension
    extension = make_extension(
        "reblur_ops._C",
        [str(source) for source in sources],
        include_dirs=[str(ROOT / CSRC), pybind11.get_include()],
        define_macros=definitions,
        depends=kernel_headers,
        extra_compile_args={
            # No -lgomp: the OpenMP that torch has loaded answers, so that torch.set_num_threads holds here too.
            "cxx": [*CXX_FLAGS, *([] if sys.platform == "darwin" else ["-fopenmp"])],
            "nvcc": ["-O3"],
        },
    )
    return {
        "libraries": libraries,
        "ext_modules": [extension],
        "cmdclass": {"build_ext": cpp_extension.BuildExtension.with_options(use_ninja=True)},
    }


setup(**native())
