"""Machine instructions of the CUDA kernels, counted in their disassembly. No GPU.

    python -m benchmarks.cuda_instructions [--architectures 90 …] [--no-save]

Needs nvcc and cuobjdump (of the toolkit, or the package nvidia-cuda-cuobjdump). For each tuned float32 kernel it tells
the instructions of its hot loop, that is the innermost loop with the most multiply-adds, and those outside any loop.
These are instructions of the code, not executed ones: trip counts are not known here.
"""

import argparse
import json
import re
import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

import torch

from benchmarks.cuda_resources import ROOT, compile_all, nvcc, spoken

RESULTS = ROOT / "benchmarks" / "results" / "cuda-instructions.json"
ARCHITECTURES = (90,)
TOLERATED = 1.05  # more instructions than this times those in RESULTS are a regression
KINDS = {
    "global": ("LDG", "STG"),
    "shared": ("LDS", "STS"),
    "local": ("LDL", "STL"),
    "arithmetic": ("FFMA", "FADD", "FMUL", "FMNMX", "FSEL", "FSETP"),
    "special": ("MUFU",),
    "branch": ("BRA", "BSSY", "BSYNC", "EXIT"),
}
PARTS = ("hot_loop", "outside_loops")


class Instruction(NamedTuple):
    address: int
    opcode: str  # without its modifiers
    target: int | None = None  # of a branch
    modifiers: str = ""  # ".E.64"
    conditional: bool = False  # done where a predicate says so


def cuobjdump() -> str | None:
    """The disassembler: on the PATH, or in its package; None where there is none."""
    if found := shutil.which("cuobjdump"):
        return found
    try:
        files = metadata.files("nvidia-cuda-cuobjdump") or []
    except metadata.PackageNotFoundError:
        return None
    return next((str(file.locate()) for file in files if file.name == "cuobjdump"), None)


def parse(listing: str) -> dict[str, list[Instruction]]:
    """The instructions of each function in a listing by `cuobjdump -sass`.

    A call under a condition counts as a branch: for sm_80 loops are left by one that never returns.
    """
    functions = {}
    for text in re.split(r"Function : ", listing)[1:]:
        lines = re.findall(r"/\*([0-9a-f]{4,5})\*/\s+(@!?U?P\w+\s+)?(\w+)(\S*)([^;]*);", text)
        functions[text.split()[0]] = [
            instruction(int(address, 16), bool(predicate), opcode, modifiers, rest)
            for address, predicate, opcode, modifiers, rest in lines
        ]
    return functions


def instruction(address: int, predicate: bool, opcode: str, modifiers: str, rest: str) -> Instruction:
    if opcode == "CALL" and predicate:
        opcode = "BRA"
    conditional = predicate or (opcode == "BRA" and bool(re.search(r"\bU?P\d", rest)))
    return Instruction(address, opcode, branch_target(opcode, modifiers + rest), modifiers.rstrip(";"), conditional)


def branch_target(opcode: str, rest: str) -> int | None:
    found = re.search(r"\b0x([0-9a-f]+)\b", rest) if opcode == "BRA" else None
    return int(found[1], 16) if found else None


def loops(code: Sequence[Instruction]) -> list[range]:
    """The addresses of each loop, from where a branch jumps back to, to that branch. A jump to itself is none."""
    return [range(i.target, i.address + 1) for i in code if i.target is not None and i.target < i.address]


def innermost(found: Sequence[range]) -> list[range]:
    return [
        loop
        for loop in found
        if not any(other != loop and other.start >= loop.start and other.stop <= loop.stop for other in found)
    ]


def kinds(code: Iterable[Instruction]) -> dict[str, int]:
    """The number of instructions of each kind, and of all."""
    kind_by_opcode = {opcode: kind for kind, opcodes in KINDS.items() for opcode in opcodes}
    counted = Counter(kind_by_opcode.get(instruction.opcode, "other") for instruction in code)
    return {"all": counted.total(), **{kind: counted[kind] for kind in (*KINDS, "other")}}


def count(code: Sequence[Instruction]) -> dict[str, dict[str, int]]:
    """The instructions of the hot loop and of what is outside any loop, by kind."""
    found = loops(code)
    bodies = [[i for i in code if i.address in loop] for loop in innermost(found)]
    hot = max(bodies, key=lambda body: sum(i.opcode == "FFMA" for i in body), default=[])
    outside = [i for i in code if not any(i.address in loop for loop in found)]
    return {"hot_loop": kinds(hot), "outside_loops": kinds(outside)}


def disassemble(cubin: Path) -> dict[str, list[Instruction]]:
    """The functions of a compiled source.

    Raises:
        RuntimeError: there is no disassembler.
    """
    program = cuobjdump()
    if program is None:
        raise RuntimeError("the count needs cuobjdump, of the CUDA toolkit or the package nvidia-cuda-cuobjdump")
    listing = subprocess.run([program, "-sass", str(cubin)], capture_output=True, text=True, check=True)
    return parse(listing.stdout)


def count_all(cubins: Iterable[Path]) -> dict[str, dict[str, dict[str, int]]]:
    """By kernel: the counts of the tuned ones in float32."""
    functions = {symbol: code for cubin in cubins for symbol, code in disassemble(cubin).items()}
    names = spoken(list(functions))
    counted = {name: count(code) for name, code in zip(names, functions.values(), strict=True)}
    return {name: counted[name] for name in sorted(counted) if is_counted(name)}


def is_counted(name: str) -> bool:
    return not any(word in name for word in ("any ", "float64", "float16"))


def compile_and_count(architecture: int) -> dict[str, dict[str, dict[str, int]]]:
    """By kernel: the counts of the tuned ones, compiled for float32 alone."""
    with tempfile.TemporaryDirectory() as folder:
        compile_all(Path(folder), [architecture], [torch.float32])
        return count_all(Path(folder).iterdir())


def release() -> str:
    """The version of nvcc, on which every count depends."""
    text = subprocess.run([str(nvcc()), "--version"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"V([\d.]+)", text)
    return found[1] if found else ""


def regressions(earlier: dict[str, dict[str, dict[str, int]]], now: dict[str, dict[str, dict[str, int]]]) -> list[str]:
    """The kernels' parts that take over 5 % more instructions than before, in words."""
    return [
        f"{name}, {part}: {earlier[name][part]['all']} → {now[name][part]['all']} instructions"
        for name in sorted(earlier.keys() & now.keys())
        for part in PARTS
        if now[name][part]["all"] > TOLERATED * earlier[name][part]["all"]
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--architectures", type=int, nargs="+", default=list(ARCHITECTURES), metavar="N")
    parser.add_argument("--no-save", action="store_true", help="print the counts only")
    arguments = parser.parse_args()
    if nvcc() is None or cuobjdump() is None:
        print("nvcc and cuobjdump are needed: nothing was counted")
        return
    counted = {f"sm_{architecture}": compile_and_count(architecture) for architecture in arguments.architectures}
    text = json.dumps({"nvcc": release(), **counted}, indent=1) + "\n"
    print(text, end="")
    if not arguments.no_save:
        RESULTS.write_text(text)


if __name__ == "__main__":
    main()
