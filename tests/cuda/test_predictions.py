"""What the CUDA kernels execute, counted on the stand-in and in the disassembly, and what follows for a GPU."""

import json

import pytest
import torch

from benchmarks import cuda_instructions, cuda_predictions
from benchmarks.cuda_predictions import Gpu, Kernel
from emulation import emulator, problems

# A loop that stores one word and loads two, then one of two pieces of code, then the end.
LISTING = """
    Function : kernel
        /*0000*/                   MOV R1, R2 ;
        /*0010*/                   LDG.E.64 R2, [R4] ;
        /*0020*/                   STS [R4], R3 ;
        /*0030*/              @!P0 BRA 0x10 ;
        /*0040*/               @P1 BRA 0x70 ;
        /*0050*/                   MUFU.EX2 R3, R3 ;
        /*0060*/                   BRA 0x90 ;
        /*0070*/                   MUFU.RCP R3, R3 ;
        /*0080*/                   MOV R1, R2 ;
        /*0090*/               @P2 EXIT ;
        /*00a0*/                   STG.E R3, [R4] ;
        /*00b0*/                   EXIT ;
        /*00c0*/                   BRA 0xc0 ;
"""
NOTHING = dict.fromkeys(("shared_loads", "shared_stores", "global_loads", "global_stores", "exponentials"), 0.0)


@pytest.fixture
def blocks():
    return cuda_predictions.blocks_of(cuda_instructions.parse(LISTING)["kernel"])


def test_blocks(blocks):
    assert [(block.start, len(block.code)) for block in blocks] == [
        (0x0, 1),
        (0x10, 3),
        (0x40, 1),
        (0x50, 2),
        (0x70, 2),
        (0x90, 1),
        (0xA0, 2),
    ]
    assert [block.next for block in blocks] == [(0x10,), (0x10, 0x40), (0x70, 0x50), (0x90,), (0x90,), (0xA0,), ()]


def test_the_way_that_does_what_was_counted(blocks):
    """Five turns of the loop, and the exponential in half of the threads, of which a quarter store."""
    counted = {**NOTHING, "shared_stores": 5, "global_loads": 10, "exponentials": 0.5, "global_stores": 0.25}
    found = cuda_predictions.way(blocks, counted)
    assert found.times == pytest.approx([1, 5, 1, 0.5, 0.5, 1, 0.25])
    assert found.missed == pytest.approx(0)


def test_what_the_code_cannot_do_is_missed(blocks):
    """A loop turns once at least; twice as many loads as stores are all that it can do."""
    counted = {**NOTHING, "shared_stores": 5, "global_loads": 12}
    assert cuda_predictions.way(blocks, counted).missed == pytest.approx(1 / 17, abs=0.06)


def test_a_loop_turns_for_each_time_that_it_is_entered():
    listing = """
    Function : kernel
        /*0000*/               @P0 BRA 0x30 ;
        /*0010*/                   LDS R3, [R4] ;
        /*0020*/               @P1 BRA 0x10 ;
        /*0030*/                   EXIT ;
    """
    blocks = cuda_predictions.blocks_of(cuda_instructions.parse(listing)["kernel"])
    found = cuda_predictions.way(blocks, {**NOTHING, "shared_loads": 128})
    assert found.times == pytest.approx([1, 1 + cuda_predictions.TURNS, 1])
    assert found.missed == pytest.approx(1 - (1 + cuda_predictions.TURNS) / 128)


def test_a_call_under_a_condition_leaves_a_loop():
    listing = """
    Function : kernel
        /*0000*/                   LDS R3, [R4] ;
        /*0010*/               @P1 CALL.REL.NOINC 0x30 ;
        /*0020*/                   BRA 0x0 ;
        /*0030*/                   STG.E R3, [R4] ;
        /*0040*/                   EXIT ;
    """
    blocks = cuda_predictions.blocks_of(cuda_instructions.parse(listing)["kernel"])
    assert [block.next for block in blocks] == [(0x30, 0x20), (0x0,), ()]


def test_times_by_hand():
    """One instruction a pixel: 32 pixels an instruction of a warp, 4 a cycle, of 0.75 that are issued."""
    gpu = Gpu("by hand", 90, 10, 1.0, 1000, 128)
    idle = Kernel(1, 0, 0, 0, 1, 0, 1, 0)
    pixels = 1080 * 1920
    assert cuda_predictions.milliseconds(gpu, idle, 0.75) == pytest.approx(pixels / 32 / 3 / 10 / 1e6)
    # A wavefront a cycle, and a quarter for each sector.
    busy = idle._replace(wavefronts=5, sectors=8)
    assert cuda_predictions.milliseconds(gpu, busy, 0.75) == pytest.approx(pixels / 32 * 7 / 10 / 1e6)
    assert cuda_predictions.milliseconds(gpu, idle._replace(special=1), 0.75) == pytest.approx(pixels / 32 * 2 / 1e7)


def test_more_than_a_twentieth_more_is_a_regression():
    kernel = Kernel(100, 0, 0, 10, 1, 10, 1, 0)
    earlier = {"sm_90": {"k": kernel._asdict()}}
    assert cuda_predictions.regressions(earlier, {90: {"k": kernel._replace(wavefronts=10.5)}}) == []
    more = {90: {"k": kernel._replace(wavefronts=11)}, 80: {"k": kernel._replace(wavefronts=20)}}
    assert cuda_predictions.regressions(earlier, more) == ["k on sm_90: 10 → 11 wavefronts"]


@pytest.mark.slow
@pytest.mark.emulated
@pytest.mark.skipif(emulator.compiler() is None, reason="no g++ to compile CUDA kernels for the CPU with")
def test_no_kernel_takes_more_wavefronts_or_sectors_than_before(tmp_path):
    """After a change that is worth it: python -m benchmarks.cuda_predictions."""
    committed = json.loads((cuda_predictions.RESULTS / "cuda-predictions.json").read_text())["kernels"]["sm_90"]
    case = problems.Case(torch.float32, 48, 416, batch=1)
    counted = cuda_predictions.count(cuda_predictions.build(tmp_path), [case])
    assert {"gather_kernel (seeds 1…7, float32)", "scatter_kernel (class 7, float32, 3, true)"} <= counted.keys()
    pixels = {"gather": 3, "scatter": 400 / 256, "class": 1}
    for name, executed in counted.items():
        of_thread = next((n for kernel, n in pixels.items() if name.startswith(kernel)), 3 if "false" in name else 2)
        of_block = executed.threads * of_thread / cuda_predictions.WARP
        shared = executed.shared_loads.taken + executed.shared_stores.taken
        sectors = executed.global_loads.taken + executed.global_stores.taken
        assert shared / of_block <= cuda_predictions.TOLERATED * committed[name]["wavefronts"], name
        assert sectors / of_block <= cuda_predictions.TOLERATED * committed[name]["sectors"], name
    # By hand: every value of the tile is read once for a thread's three pixels, of each of three channels.
    assert counted["gather_kernel (seeds 1…7, float32)"].shared_loads.words == 3 * 17 * 15
