"""Do the CUDA sources compile for every architecture, and what do their kernels take of a multiprocessor?

    python -m benchmarks.cuda_resources [--architectures 80 90 …] [--no-save]

Needs nvcc, no GPU and no Torch. Fails if a source does not compile, or if a kernel for the published radii, in another
type than float64, spills registers.
"""

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "csrc" / "cuda").glob("*.cu"))
ARCHITECTURES = (75, 80, 86, 89, 90, 100, 120)
# The register file of a multiprocessor, of every architecture here, and the most warps that it holds.
REGISTERS = 64 * 1024
WARPS = {75: 32, 86: 48, 89: 48, 120: 48}


class Kernel(NamedTuple):
    architecture: int
    name: str  # with its template arguments
    registers: int
    stack_bytes: int
    spill_bytes: int

    @property
    def tuned(self) -> bool:
        """Whether this is a kernel for the published radii, in anything but float64."""
        return "1…7" in self.name and "double" not in self.name

    @property
    def warps(self) -> int:
        """How many warps of it the registers of a multiprocessor allow; they are given out by 8 to each thread."""
        return min(REGISTERS // (32 * -(-self.registers // 8) * 8), WARPS.get(self.architecture, 64))


def nvcc() -> str | None:
    return shutil.which("nvcc")


def compile_source(source: Path, architecture: int) -> list[Kernel]:
    """Compile as anybody would, without Torch's headers, and read what ptxas tells.

    Raises:
        RuntimeError: it does not compile; the compiler's words.
    """
    with tempfile.TemporaryDirectory() as folder:
        command = [
            nvcc() or "nvcc",
            "-std=c++17",
            "-O3",
            "-Icsrc",
            "-cubin",
            f"-arch=sm_{architecture}",
            "-Xptxas",
            "-v",
        ]
        result = subprocess.run(
            [*command, str(source.relative_to(ROOT)), "-o", f"{folder}/cubin"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
    if result.returncode != 0:
        raise RuntimeError(f"{source.name} does not compile for sm_{architecture}:\n{result.stderr}")
    pattern = re.compile(
        r"Function properties for (\S+)\n"
        r"\s+(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads\n"
        r".*?Used (\d+) registers"
    )
    found = pattern.findall(result.stderr)
    names = demangle([name for name, *_ in found])
    return [
        Kernel(architecture, name, int(registers), int(stack), int(stores) + int(loads))
        for name, (_, stack, stores, loads, registers) in zip(names, found, strict=True)
    ]


def demangle(names: list[str]) -> list[str]:
    """Names as a person would say them: the kernel, its scalar types, its radii, the numbers that it is made for."""
    program = shutil.which("cu++filt") or shutil.which("c++filt")
    if program is None or not names:
        return names
    result = subprocess.run([program], input="\n".join(names), capture_output=True, text=True, check=True)
    spoken = []
    for name in result.stdout.splitlines():
        kernel = re.sub(r"\w+::|\(anonymous namespace\)::|_GLOBAL__N__\w+|\(int\)|\(bool\)|^void ", "", name)
        kernel = re.sub(r"SeedsFamily<StaticRadii<[\d, ]+> ?>", "1…7", kernel)
        kernel = re.sub(r"SeedsFamily<DynamicRadii ?>", "any radii", kernel)
        spoken.append(re.sub(r", \w+Shape<.*", "", kernel).replace("<", " (", 1).replace("__", "") + ")")
    return spoken


def table(kernels: list[Kernel]) -> str:
    lines = [
        "| kernel | " + " | ".join(f"sm_{a}" for a in sorted({k.architecture for k in kernels})) + " |",
    ]
    lines.append("|---|" + "---:|" * (lines[0].count("|") - 2))
    by_name: dict[str, list[Kernel]] = {}
    for kernel in sorted(kernels, key=lambda k: (k.name, k.architecture)):
        by_name.setdefault(kernel.name, []).append(kernel)
    for name, row in by_name.items():
        cells = [f"{k.registers} · {k.warps}" + (f" · **{k.spill_bytes}**" if k.spill_bytes else "") for k in row]
        lines.append(f"| `{name}` | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--architectures", type=int, nargs="+", default=ARCHITECTURES, metavar="N")
    parser.add_argument("--no-save", action="store_true", help="print the table only")
    arguments = parser.parse_args()
    if nvcc() is None:
        print("nvcc is not on the PATH: nothing was checked")
        return
    work = [(source, architecture) for architecture in arguments.architectures for source in SOURCES]
    with ThreadPoolExecutor(2) as pool:
        results = list(tqdm(pool.map(lambda item: compile_source(*item), work), total=len(work), unit=" files"))
    kernels = [kernel for result in results for kernel in result]
    release = subprocess.run([str(nvcc()), "--version"], capture_output=True, text=True, check=True).stdout
    version = re.search(r"release ([\d.]+)", release)
    text = (
        "# What the CUDA kernels take\n\n"
        f"As nvcc {version[1] if version else ''} compiles them. Registers of a thread · warps that they allow on a "
        "multiprocessor · bytes spilt, if any.\n\n" + table(kernels) + "\n"
    )
    print(text)
    if not arguments.no_save:
        (ROOT / "benchmarks" / "results" / "cuda-resources.md").write_text(text)
    spilling = [kernel for kernel in kernels if kernel.tuned and kernel.spill_bytes]
    if spilling:
        sys.exit("\n".join(f"sm_{k.architecture}: {k.name} spills {k.spill_bytes} bytes" for k in spilling))


if __name__ == "__main__":
    main()
