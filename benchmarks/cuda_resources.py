"""Do the CUDA sources compile for every architecture, and what do their kernels take of a multiprocessor?

    python -m benchmarks.cuda_resources [--architectures 80 90 …] [--no-save]

Needs nvcc, and g++ for what launches ask for: the launchers themselves say so, run on the stand-in for the execution
model of `emulation`. No GPU. Fails if a source does not compile, or if a tuned kernel spills more than a few registers.
"""

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import torch

from benchmarks import harness
from benchmarks.occupancy import MULTIPROCESSORS, occupancy
from emulation import emulator, problems
from reblur_ops import PUBLISHED_RADII
from reblur_ops.geometry import MAX_RADIUS

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "csrc" / "cuda").glob("*.cu"))
RESULTS = ROOT / "benchmarks" / "results" / "cuda-resources.md"
# Half precision has a type of its own in the stand-in.
SCALARS = {
    "Float16<HalfFormat>": "float16",
    "Float16<BFloat16Format>": "bfloat16",
    "__half": "float16",
    "__nv_bfloat16": "bfloat16",
    "double": "float64",
    "float": "float32",
}

# Bytes that a tuned kernel may spill, stores and loads: a few registers. The scatter spills 20 in 16 bits, and up to 40
# on sm_120, 5 of 860 instructions of its loop; with more registers a multiprocessor would hold half of its blocks.
TOLERATED_SPILLS = 40


class Kernel(NamedTuple):
    architecture: int
    name: str  # as `spoken` has it
    registers: int
    shared_bytes: int  # static
    stack_bytes: int
    spill_bytes: int

    @property
    def tuned(self) -> bool:
        """Whether this kernel keeps to its registers: all but those for radii of any size, and for float64."""
        return "any " not in self.name and "float64" not in self.name

    @property
    def keeps_to_registers(self) -> bool:
        """Arrays that are read by an index lie in local memory, too, without being spilt."""
        return max(self.spill_bytes, self.stack_bytes) <= TOLERATED_SPILLS


class Launch(NamedTuple):
    threads: int
    shared_bytes: int  # dynamic


def nvcc() -> str | None:
    return shutil.which("nvcc")


def compile_source(
    source: Path, cubin: Path, architecture: int, dtypes: Sequence[torch.dtype] = problems.DTYPES
) -> list[Kernel]:
    """Compile to the file `cubin` as anybody would, without Torch's headers, and read what ptxas tells.

    Raises:
        RuntimeError: it does not compile; the compiler's words.
    """
    command = [nvcc() or "nvcc", "-std=c++17", "-O3", "-Icsrc", "-cubin", f"-arch=sm_{architecture}", "-Xptxas", "-v"]
    command += [problems.only(dtypes), str(source.relative_to(ROOT)), "-o", str(cubin)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise RuntimeError(f"{source.name} does not compile for sm_{architecture}:\n{result.stderr}")
    pattern = re.compile(
        r"Function properties for (\S+)\n"
        r"\s+(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads\n"
        r".*?Used (\d+) registers(?:.*, (\d+) bytes smem)?"
    )
    found = pattern.findall(result.stderr)
    names = spoken([name for name, *_ in found])
    return [
        Kernel(architecture, name, int(registers), int(shared or 0), int(stack), int(stores) + int(loads))
        for name, (_, stack, stores, loads, registers, shared) in zip(names, found, strict=True)
    ]


def compile_all(
    folder: Path, architectures: Iterable[int], dtypes: Sequence[torch.dtype] = problems.DTYPES
) -> list[Kernel]:
    """Compile every source for every architecture into `folder`, as SOURCE.sm_N.cubin, by two compilers at a time.

    Raises:
        RuntimeError: one does not compile; the compiler's words.
    """
    work = [(source, architecture) for architecture in architectures for source in SOURCES]
    with ThreadPoolExecutor(2) as pool:
        results = pool.map(lambda item: compile_source(item[0], cubin(folder, *item), item[1], dtypes), work)
        from tqdm import tqdm  # missing where tests run on a GPU's own machine

        return [kernel for result in tqdm(results, total=len(work), unit=" files") for kernel in result]


def cubin(folder: Path, source: Path, architecture: int) -> Path:
    return folder / f"{source.stem}.sm_{architecture}.cubin"


# ---- Names ----


def spoken(symbols: list[str]) -> list[str]:
    """Symbols of nvcc and of g++ in the same words: kernel (family, scalar types, what else it is made for).

    Raises:
        RuntimeError: there is no program that reads symbols.
    """
    program = shutil.which("cu++filt") or shutil.which("c++filt")
    if program is None:
        raise RuntimeError("kernels' names need cu++filt or c++filt on the PATH, found neither")
    result = subprocess.run([program], input="\n".join(symbols), capture_output=True, text=True, check=True)
    return [spoken_name(name) for name in result.stdout.splitlines()]


def spoken_name(demangled: str) -> str:
    name = re.sub(r"(\w+|\(anonymous namespace\))::|^void |\((int|bool|unsigned int)\)", "", demangled)
    name = re.sub(r"\s+>", ">", name)
    for scalar, dtype in SCALARS.items():
        name = re.sub(rf"(?<!\w){re.escape(scalar)}(?!\w)", dtype, name)
    kernel, arguments = split_template(name)
    # Shapes follow from what stands before them.
    arguments = [argument for argument in arguments if not re.match(r"\w*Shape<", argument)]
    arguments.sort(key=lambda a: 0 if "Family" in a or "<" in a else 1 if a in SCALARS.values() else 2)
    scalars = [argument for argument in arguments if argument in SCALARS.values()]
    if len(set(scalars)) == 1:  # image and parameters of one type, the rule
        arguments = [a for i, a in enumerate(arguments) if a not in scalars or a not in arguments[:i]]
    words = [
        re.sub(
            r"^(?:Sampled)?(\w+)Family(?:<(.*)>)?$",
            lambda m: f"{m[1].lower()} {spoken_radii(m[2] or '')}".strip(),
            argument,
        )
        for argument in arguments
    ]
    return f"{kernel} ({', '.join(words)})" if words else kernel


def spoken_radii(radii: str) -> str:
    if match := re.fullmatch(r"StaticRadii<([\d, ]+)>", radii):
        numbers = [int(number) for number in match[1].split(",")]
        consecutive = len(numbers) > 2 and numbers == list(range(numbers[0], numbers[-1] + 1))
        return f"{numbers[0]}…{numbers[-1]}" if consecutive else ",".join(map(str, numbers))
    if match := re.fullmatch(r"BoundedRadii<(\d+), (\d+)>", radii):
        return f"largest {match[1]}…{match[2]}"
    return re.sub(r"Dynamic(\w+)", lambda match: f"any {match[1].lower()}", radii)


def split_template(name: str) -> tuple[str, list[str]]:
    """The name before its template arguments, and these; what follows, a function's parameters, is left out."""
    kernel = re.match(r"[^<(]*", name)
    assert kernel is not None
    if name[kernel.end() : kernel.end() + 1] != "<":
        return kernel[0], []
    arguments, depth = [""], 0
    for sign in name[kernel.end() + 1 :]:
        if sign == ">" and depth == 0:
            break
        if sign == "," and depth == 0:
            arguments.append("")
            continue
        depth += {"<": 1, "(": 1, ">": -1, ")": -1}.get(sign, 0)
        arguments[-1] += sign
    return kernel[0], [argument.strip() for argument in arguments]


# ---- Launches ----


def launches(dtypes: Sequence[torch.dtype] = problems.DTYPES) -> dict[str, Launch] | None:
    """By kernel, what of its launches asks for the most shared memory; None where there is no g++.

    The launchers run on the problems of the emulated tests, and on some with a colour image and the largest radius.
    """
    if emulator.compiler() is None:
        return None
    cases = problems.all_cases(dtypes)
    cases += [
        problems.Case(dtype, 1, 1, batch=1, channels=channels, radii=radii, support=support)
        for dtype in dtypes
        for channels in (1, 2, 3)
        for radii in (PUBLISHED_RADII, (MAX_RADIUS,))
        for support in ("square", "disk")
    ]
    # Only the launches count: neither sanitizers nor optimisation.
    flags = ["-O0", "-g0", "-fno-sanitize=all", "-DREBLUR_NO_FORCED_INLINE"]
    with tempfile.TemporaryDirectory() as name, ThreadPoolExecutor(2) as pool:
        folder = Path(name)
        sources = [
            (source, f"{source.stem}_{dtype}.o", problems.part(dtypes, dtype))
            for source in problems.KERNELS
            for dtype in dtypes
        ]
        sources.append((problems.DRIVER, "driver.o", [problems.only(dtypes)]))
        objects = pool.map(lambda item: emulator.build([item[0]], folder / item[1], [*flags, *item[2], "-c"]), sources)
        program = emulator.build([], folder / "driver", [*flags, "-no-pie", *map(str, objects)])
        given = [(case, problems.tensors(case)) for case in cases]
        problems.run(program, given, launches=str(folder / "launches"))
        found = sorted(emulator.read_launches(program, folder / "launches"))
    names = spoken([launch.kernel for launch in found])
    asked: dict[str, Launch] = {}
    for kernel, (_, threads, shared_bytes) in zip(names, found, strict=True):
        if kernel not in asked or shared_bytes > asked[kernel].shared_bytes:
            asked[kernel] = Launch(threads, shared_bytes)
    return asked


# ---- The page ----

LEGEND = f"""\
- **threads** of a block, and the bytes of **shared** memory that it takes, static and dynamic: the most that any launch
  asked for when the launchers ran on the problems of the tests, and on one, two and three channels with the published
  radii and with the largest, {MAX_RADIUS}. "–" was never launched.
- For each architecture: registers of a thread · blocks on a multiprocessor · occupancy, that is the warps of these
  blocks, of those that a multiprocessor can hold · what allows no more: **R**egisters, **S**hared memory, **T**hreads
  or the number of **B**locks. A launch that "does not fit" fails on that architecture.
- Bytes spilt to memory, if any, in bold.
"""


def page(kernels: list[Kernel], launched: dict[str, Launch] | None, release: str) -> str:
    tuned = [kernel for kernel in kernels if kernel.tuned]
    general = [kernel for kernel in kernels if not kernel.tuned]
    return (
        f"# What the CUDA kernels take\n\nAs nvcc {release} compiles them; written by `make cuda-check`.\n\n{LEGEND}\n"
        f"## Tuned, which spill a few registers at most\n\n{table(tuned, launched)}\n\n"
        f"## For radii of any size, and in float64\n\n{table(general, launched)}\n"
    )


def table(kernels: list[Kernel], launched: dict[str, Launch] | None) -> str:
    architectures = sorted({kernel.architecture for kernel in kernels})
    heads = ["kernel", "threads:", "shared:", *(f"sm_{architecture}:" for architecture in architectures)]
    lines = []
    by_name: dict[str, list[Kernel]] = {}
    for kernel in sorted(kernels, key=lambda k: (k.name, k.architecture)):
        by_name.setdefault(kernel.name, []).append(kernel)
    for name, row in by_name.items():
        launch = (launched or {}).get(name)
        taken = ["–", "–"]
        if launch is not None:
            taken = [str(launch.threads), str(launch.shared_bytes + max(kernel.shared_bytes for kernel in row))]
        lines.append([f"`{name}`", *taken, *(cell(kernel, launch) for kernel in row)])
    return harness.markdown(heads, lines)


def cell(kernel: Kernel, launch: Launch | None) -> str:
    parts = [str(kernel.registers)]
    if launch is not None:
        shared_bytes = kernel.shared_bytes + launch.shared_bytes
        blocks, fraction, limits = occupancy(kernel.architecture, kernel.registers, launch.threads, shared_bytes)
        initials = "".join(limit[0].upper() for limit in limits)
        parts += [str(blocks), f"{100 * fraction:.3g}% {initials}"] if blocks else [f"does not fit {initials}"]
    if kernel.spill_bytes:
        parts.append(f"**{kernel.spill_bytes}**")
    return " · ".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--architectures", type=int, nargs="+", default=list(MULTIPROCESSORS), choices=MULTIPROCESSORS, metavar="N"
    )
    parser.add_argument("--no-save", action="store_true", help="print the table only")
    arguments = parser.parse_args()
    if nvcc() is None:
        print("nvcc is not on the PATH: nothing was checked")
        return
    with tempfile.TemporaryDirectory() as folder:
        kernels = compile_all(Path(folder), arguments.architectures)
    launched = launches()
    version = subprocess.run([str(nvcc()), "--version"], capture_output=True, text=True, check=True).stdout
    release = re.search(r"release ([\d.]+)", version)
    text = page(kernels, launched, release[1] if release else "")
    print(text)
    if launched is None:
        print("g++ is not on the PATH: launches, and so occupancy, are unknown, and nothing is saved")
    elif not arguments.no_save:
        RESULTS.write_text(text)
    if broken := [kernel for kernel in kernels if kernel.tuned and not kernel.keeps_to_registers]:
        sys.exit(
            "\n".join(
                f"sm_{k.architecture}: {k.name} spills {k.spill_bytes} bytes, has {k.stack_bytes} in local memory"
                for k in broken
            )
        )


if __name__ == "__main__":
    main()
