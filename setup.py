"""Builds reblur_ops._C on torch's stable ABI; the rest is in pyproject.toml.

Environment:
    REBLUR_OPS_NO_NATIVE=1   compile nothing: pure PyTorch answers
    FORCE_CPU=1              no CUDA, even where it could be built
    FORCE_CUDA=1             an error where CUDA cannot be built
    TORCH_CUDA_ARCH_LIST     the architectures, as torch.utils.cpp_extension reads it; without it the visible GPUs', or
                             where none is visible those in DEFAULT_ARCHITECTURES that nvcc knows
    MAX_JOBS                 how many files are compiled at a time
    REBLUR_OPS_DEBUG=1       compile without optimisation, which is sooner done, for tries

What was decided, and why, is printed (`pip install -v` shows it) and kept: `python -m reblur_ops`.
"""

import os
import platform
import runpy
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import setuptools
from setuptools import find_packages, setup
from setuptools.command.build_clib import build_clib
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
sys.path.insert(0, str(ROOT / "build_support"))

from backend import find_torch, flag  # noqa: E402

record = runpy.run_path(str(ROOT / "reblur_ops" / "record.py"))
CSRC = Path("csrc")
BUILDING = {"bdist_wheel", "build", "build_clib", "build_ext", "build_py", "develop", "editable_wheel", "install"}
# Torch's headers want C++20 from 2.14 on.
OPTIMIZATION = ["-O0", "-DREBLUR_NO_FORCED_INLINE"] if flag("REBLUR_OPS_DEBUG") else ["-O3"]
CXX_FLAGS = [*OPTIMIZATION, "-g0", "-Wall", "-Wno-unknown-pragmas", "-std=c++20", "-fvisibility=hidden"]
# GCC 12 takes its own AVX-512 intrinsics for uninitialised reads, and tells of an ABI change in GCC 4.6.
KERNEL_FLAGS = [*CXX_FLAGS, "-fPIC", "-Wno-maybe-uninitialized", "-Wno-psabi"]
# One build serves every Python and torch from these on.
PYTHON_ABI = "cp310"
TORCH_ABI = "0x020a000000000000ULL"
DEFAULT_ARCHITECTURES = ("7.5", "8.0", "8.6", "8.9", "9.0", "10.0", "12.0")
SCALARS = ("float32", "float64", "float16", "bfloat16")  # as bits of REBLUR_PART
# "default" stays first: of an inline function that several sets hold, the linker keeps the first one's code, and a
# processor without the other sets must be able to run it.
INSTRUCTION_SETS = {
    "default": [],
    "avx2": ["-mavx2", "-mfma", "-mf16c"],
    "avx512": ["-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mavx2", "-mfma", "-mf16c"],
}


def refuse(message: str) -> None:
    sys.exit(f"reblur_ops: {message}")


def cuda_obstacle(torch, cpp_extension) -> str:
    """Why CUDA is not built; "" where it is."""
    if flag("FORCE_CPU"):
        return "FORCE_CPU is set"
    if torch.version.cuda is None:
        return "this torch was built without CUDA"
    if cpp_extension.CUDA_HOME is None:
        return "there is no CUDA toolkit: nvcc is not on the PATH and CUDA_HOME is not set"
    if not has_cuda_headers(cpp_extension):
        return f"{cpp_extension.CUDA_HOME} has nvcc, but no headers (cuda_runtime.h); set CUDA_HOME to the toolkit"
    return ""


def has_cuda_headers(cpp_extension) -> bool:
    """Whether the toolkit that torch has found is whole: behind an nvcc on the PATH there may be a script alone."""
    includes = [f"-I{path}" for path in cpp_extension.include_paths(device_type="cuda")]
    command = [cpp_extension.get_cxx_compiler(), "-E", "-x", "c++", *includes, "-"]
    try:
        source = b"#include <cuda_runtime.h>\n"
        return subprocess.run(command, input=source, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return True  # without a compiler it is that which is told


def known_architectures(cuda_home: str) -> str:
    """DEFAULT_ARCHITECTURES that this toolkit knows; the newest also as PTX, for GPUs to come."""
    nvcc = Path(cuda_home) / "bin" / "nvcc"
    listed = subprocess.run([nvcc, "--list-gpu-arch"], capture_output=True, text=True, check=True).stdout.split()
    known = [name for name in DEFAULT_ARCHITECTURES if f"compute_{name.replace('.', '')}" in listed]
    return ";".join(known) + "+PTX"


def cuda_architectures(torch, cpp_extension) -> tuple[str, str]:
    """The CUDA architectures to compile for, "" for none; and why."""
    obstacle = cuda_obstacle(torch, cpp_extension)
    if obstacle:
        if flag("FORCE_CUDA"):
            refuse(f"FORCE_CUDA is set, but {obstacle}")
        return "", f"compiled for CPU alone, because {obstacle}"
    if os.environ.get("TORCH_CUDA_ARCH_LIST"):
        reason = "TORCH_CUDA_ARCH_LIST says so"
    elif torch.cuda.is_available():
        found = {torch.cuda.get_device_capability(index) for index in range(torch.cuda.device_count())}
        os.environ["TORCH_CUDA_ARCH_LIST"] = ";".join(f"{major}.{minor}" for major, minor in sorted(found))
        reason = "these GPUs are visible"
    else:
        os.environ["TORCH_CUDA_ARCH_LIST"] = known_architectures(cpp_extension.CUDA_HOME)
        reason = "there is a CUDA toolkit, and no GPU is visible to choose by"
    architectures = os.environ["TORCH_CUDA_ARCH_LIST"]
    return architectures, f"compiled for CPU and CUDA {architectures}, because {reason}"


def check_environment() -> None:
    if int(setuptools.__version__.split(".")[0]) < 77:
        refuse(f"building needs setuptools >= 77, found {setuptools.__version__}; pip install 'setuptools>=77,<82'")
    if flag("FORCE_CPU") and flag("FORCE_CUDA"):
        refuse("FORCE_CPU and FORCE_CUDA are both set; set one")


def check_compiler(cpp_extension) -> None:
    compiler = cpp_extension.get_cxx_compiler()
    if shutil.which(compiler) is None:
        refuse(
            f"there is no C++ compiler ({compiler}); install one (Debian: apt install g++), "
            "or set REBLUR_OPS_NO_NATIVE=1 for pure Python, which is slower"
        )


def cpu_libraries(includes: list[str], macros: list, headers: list[str]) -> list:
    """The kernels once per instruction set, as static libraries: one extension has one set of flags."""
    sets = INSTRUCTION_SETS if macros else {"default": []}
    return [
        (
            f"reblur_cpu_{name}",
            {
                "sources": [str(CSRC / "cpu" / f"kernels_{name}.cpp")],
                "obj_deps": {"": headers},
                "include_dirs": includes,
                "macros": macros,
                "cflags": [*KERNEL_FLAGS, *flags],
            },
        )
        for name, flags in sets.items()
    ]


def cuda_parts() -> list[Path]:
    """Files that compile each CUDA source for one type of parameters: side by side, where a whole one takes minutes."""
    folder = Path("build") / "cuda"
    folder.mkdir(parents=True, exist_ok=True)
    parts = []
    for source in sorted((CSRC / "cuda").glob("*.cu")):
        for number, scalar in enumerate(SCALARS):
            part = folder / f"{source.stem}_{scalar}.cu"
            text = f'#define REBLUR_PART {1 << number}\n#include "cuda/{source.name}"\n'
            if not part.exists() or part.read_text() != text:
                part.write_text(text)
            parts.append(part)
    return parts


def extension(torch, cpp_extension, architectures: str, macros: list, headers: list[str]):
    sources = [CSRC / "module.cpp", CSRC / "cpu" / "ops.cpp"]
    make_extension = cpp_extension.CppExtension
    if architectures:
        sources += [CSRC / "cuda" / "ops.cpp", *cuda_parts()]
        make_extension = cpp_extension.CUDAExtension
    return make_extension(
        "reblur_ops._C",
        [str(source) for source in sources],
        include_dirs=[str(ROOT / CSRC)],
        define_macros=[
            *macros,
            ("TORCH_TARGET_VERSION", TORCH_ABI),
            ("REBLUR_TORCH_VERSION", f'"{torch.__version__}"'),
            ("REBLUR_CUDA_ARCHITECTURES", f'"{architectures}"'),
        ],
        depends=headers,
        extra_compile_args={"cxx": CXX_FLAGS, "nvcc": ["-O3"]},
        py_limited_api=True,
    )


class ParallelBuildClib(build_clib):
    """Compiles the libraries side by side, which setuptools does not: each takes most of a minute."""

    def build_libraries(self, libraries: list) -> None:
        compile_one = super().build_libraries
        jobs = int(os.environ.get("MAX_JOBS") or os.cpu_count() or 1)
        with ThreadPoolExecutor(jobs) as pool:
            list(pool.map(lambda library: compile_one([library]), libraries))


def recording(command: type, decision: str) -> type:
    """A build command that leaves the record of the decision beside the package's files."""

    class Recording(command):
        def run(self) -> None:
            inplace, editable = getattr(self, "inplace", False), getattr(self, "editable_mode", False)
            path = Path(*([] if inplace else [self.build_lib]), "reblur_ops", record["RECORD"])
            if record["read_record"](path).get("decision") != decision:
                self.force = True  # what an earlier build left here was made otherwise
            super().run()
            if not editable:
                record["write_record"](path, decision, record["digest"](ROOT / CSRC))
            if inplace:
                remove_other_builds(self)

    return Recording


def remove_other_builds(build_ext) -> None:
    """Builds under another name, which Python might prefer to the new one."""
    built = Path(build_ext.get_ext_fullpath("reblur_ops._C"))
    for path in built.parent.glob("_C.*so"):
        if path.name != built.name:
            path.unlink()


def pure(decision: str) -> dict:
    return {"cmdclass": {"build_py": recording(build_py, decision)}}


def native() -> dict:
    """The extensions to compile, as arguments of setup()."""
    if not BUILDING & set(sys.argv):
        return {}
    check_environment()
    if flag("REBLUR_OPS_NO_NATIVE"):
        decision = "nothing was compiled, because REBLUR_OPS_NO_NATIVE was set"
        print(f"reblur_ops: {decision}")
        return pure(decision)
    if not find_torch():
        refuse(
            "there is no torch to build with. Install torch and ninja, then `pip install --no-build-isolation .`; "
            "or set REBLUR_OPS_NO_NATIVE=1 for pure Python."
        )
    import torch
    from torch.utils import cpp_extension

    architectures, decision = cuda_architectures(torch, cpp_extension)
    print(f"reblur_ops: {decision}")
    if {"--help", "-h"} & set(sys.argv):
        return {}
    check_compiler(cpp_extension)
    macros = [("REBLUR_X86", None)] if platform.machine().lower() in ("x86_64", "amd64") else []
    headers = [str(path) for path in sorted(CSRC.rglob("*")) if path.suffix in (".h", ".cuh", ".inl", ".cu")]
    kernel_headers = [  # the others know Torch, or CUDA
        header for header in headers if Path(header).parent != CSRC and Path(header).suffix != ".cu"
    ]
    build_extension = cpp_extension.BuildExtension.with_options(use_ninja=shutil.which("ninja") is not None)
    return {
        "libraries": cpu_libraries([str(CSRC), *cpp_extension.include_paths()], macros, kernel_headers),
        "ext_modules": [extension(torch, cpp_extension, architectures, macros, headers)],
        "cmdclass": {"build_clib": ParallelBuildClib, "build_ext": recording(build_extension, decision)},
        "options": {"bdist_wheel": {"py_limited_api": PYTHON_ABI}},
    }


setup(
    packages=["reblur_ops", "reblur_models", *(f"reblur_models.{name}" for name in find_packages("models"))],
    package_dir={"reblur_models": "models"},
    **native(),
)
