"""How many instructions does a pixel take, kernel by kernel? The same on every machine and under any load.

    python -m benchmarks.instructions [--check]

Times depend on who else is using the machine; instruction counts do not. A small native driver (driver.cpp) runs every
kernel of the AVX2 engine once, valgrind's callgrind counts. AVX2, because valgrind knows no AVX-512, and because the
processor does not matter then. Compilers differ by some per cent, a kernel that is no longer vectorised, no longer
unrolled, or computes something twice, by much more: `ALLOWED`.

What counts cannot see: misses of the caches, and threads.
"""

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
DRIVER = Path(__file__).parent / "driver.cpp"
RECORD = ROOT / "benchmarks" / "results" / "instructions.json"
ALLOWED = 1.15  # times the recorded count


def library() -> Path | None:
    """The compiled AVX2 engine that the last build left, newest first."""
    found = sorted(ROOT.glob("build/temp.*/libreblur_cpu_avx2.a"), key=lambda path: path.stat().st_mtime)
    return found[-1] if found else None


def obstacle() -> str:
    """Why nothing can be counted here, "" where it can."""
    if shutil.which("valgrind") is None:
        return "valgrind is not installed"
    if shutil.which("g++") is None:
        return "g++ is not installed"
    if library() is None:
        return "no build of the AVX2 kernels is here: run `make test`"
    if subprocess.run(["g++", "-E", "-include", "valgrind/callgrind.h", "-x", "c++", "/dev/null"], capture_output=True,
                      check=False).returncode:  # fmt: skip
        return "valgrind/callgrind.h is not installed"
    return ""


def compiler() -> str:
    return subprocess.run(["g++", "--version"], capture_output=True, text=True, check=True).stdout.splitlines()[0]


def count() -> dict[str, float]:
    """Instructions a pixel of three channels, by kernel. A vector of 8 pixels is one pixel eight times."""
    engine = library()
    assert engine is not None
    with tempfile.TemporaryDirectory() as folder:
        program, output = Path(folder) / "driver", Path(folder) / "counts"
        flags = ["-O1", "-std=c++17", "-DREBLUR_X86", f"-I{ROOT / 'csrc'}"]
        subprocess.run(["g++", *flags, str(DRIVER), str(engine), "-o", str(program)], check=True)
        callgrind = ["valgrind", "-q", "--tool=callgrind", "--instr-atstart=no", f"--callgrind-out-file={output}"]
        printed = subprocess.run([*callgrind, str(program)], capture_output=True, text=True, check=True).stdout
        pixels = int(printed.split()[1])
        counts = {}
        for path in sorted(Path(folder).glob("counts.*"), key=lambda path: int(path.suffix[1:])):
            text = path.read_text()
            name = re.search(r"^desc: Trigger: Client Request: (.+)$", text, re.MULTILINE)
            total = re.search(r"^totals: (\d+)$", text, re.MULTILINE)
            if name is None or total is None:
                raise ValueError(f"{path} holds no counts")
            counts[name[1]] = round(int(total[1]) / pixels, 1)
    return counts


def worse(counts: dict[str, float], recorded: dict[str, float]) -> list[str]:
    """The kernels that take more instructions than recorded, and those that appeared or disappeared."""
    messages = [
        f"{name}: {counts[name]} instructions a pixel, recorded {recorded[name]}"
        for name in counts
        if name in recorded and counts[name] > ALLOWED * recorded[name]
    ]
    return messages + [f"{name}: not in both driver and record" for name in sorted(set(counts) ^ set(recorded))]


def read() -> dict[str, float]:
    """The recorded counts."""
    return {str(name): float(value) for name, value in json.loads(RECORD.read_text())["counts"].items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; fail where the record is exceeded")
    arguments = parser.parse_args()
    if reason := obstacle():
        sys.exit(f"nothing was counted: {reason}")
    counts = count()
    before = read() if RECORD.exists() else {}
    for name, value in counts.items():
        change = f"  recorded {before[name]:8.1f}" if name in before else ""
        print(f"{name:<45} {value:8.1f}{change}")
    if arguments.check:
        if problems := worse(counts, before):
            sys.exit("\n".join(problems))
        return
    RECORD.write_text(json.dumps({"compiler": compiler(), "counts": counts}, indent=1, ensure_ascii=False) + "\n")
    print(f"written: {RECORD}")


if __name__ == "__main__":
    main()
