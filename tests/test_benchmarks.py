"""What the benchmarks compute around their measurements."""

import subprocess
from pathlib import Path

import pytest
import torch

from benchmarks import flow, gpu, harness
from models.flow import warp

ROOT = Path(__file__).parents[1]


def test_floor_counts_each_input_and_result_once():
    """196 bytes a pixel forward and 380 more backward, in float32 with three channels and the radii 1 … 7."""
    assert gpu.floor_bytes((1, 3, 1, 1), torch.float32, "forward") == 196
    assert gpu.floor_bytes((1, 3, 1, 1), torch.float32, "forward+backward") == 196 + 380
    assert gpu.floor_bytes((2, 3, 5, 7), torch.bfloat16, "forward") == 98 * 70


def test_the_fingerprint_is_that_of_the_shell():
    if not (ROOT / ".git").exists():
        pytest.skip("this is no git checkout")
    command = "git ls-files -z csrc | LC_ALL=C sort -z | xargs -0 cat | sha256sum"
    printed = subprocess.run(command, shell=True, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert gpu.sources_sha256() == printed.split()[0]


def test_a_rival_that_ran_out_of_memory_stays_in_the_page():
    row = {"op": "reblur", "pass": "forward", "dtype": "float32", "shape": [1, 3, 9, 9], "floor_ms": 0.5}
    times = {"ms_p20": 0.9, "ms_p50": 1.0, "ms_p80": 1.1, "peak_extra_mb": 3.0}
    rows = [{**row, "impl": "cuda", **times}, {**row, "impl": "reference", "error": "out of memory"}]
    head = {"device": "D", "driver": "1", "torch": "2", "cuda": "3", "date": "4", "copy_bandwidth_gbps": 5.0}
    text = gpu.page({**head, "rows": rows})
    assert "| 1×3×9×9 | float32 | forward | cuda | 0.9 / 1 / 1.1 | 2.00 | 3 |" in text
    assert "| reference | out of memory |" in text


def test_peak_memory_sees_what_was_held_at_once():
    def call():
        first = torch.empty(1000, 1000)
        del first
        second, third = torch.empty(1000, 1000), torch.empty(500, 1000)
        return second, third

    assert harness.peak_memory(call) == pytest.approx(6e6, rel=0.01)


def test_contenders_take_turns():
    order = []
    harness.time_in_turns([lambda: order.append("a"), lambda: order.append("b")], seconds=0)
    turns = "".join(order).split("b", 2)[2]
    assert turns.lstrip("b").startswith("a")
    assert order.count("a") > 5
    assert order.count("b") > 5


def test_alignment_is_measured_against_true_flow():
    """The true flow has no error, and takes the second image to the first."""
    cases = list(flow.pairs(("coffee",), 96))
    assert len(cases) == len(flow.motions(96)) * len(flow.blurs(96))
    for _, motion, blur, case in cases:
        assert flow.errors(case.flow, case).max() == 0
        assert 0 < case.counts.float().mean() < 1
        if blur == "sharp" and motion != "edge":
            difference = (warp(case.second, case.flow) - case.first).abs().mean(dim=(0, 1))[case.counts]
            assert difference.mean() < 0.25 * (case.second - case.first).abs().mean()


def test_the_table_of_alignment_has_means():
    rows = [
        flow.Row("held back", "coffee", motion, "sharp", "default", epe, off, 2.0)
        for motion, epe, off in (("shift", 0.25, 0.0), ("zoom", 0.75, 0.1))
    ]
    assert "| default | 0.25 (0%) | 0.75 (10%) | 0.50 (5%) | 2 |" in flow.table(rows, "motion")
    assert "## Photographs held back: coffee" in flow.page(rows + rows[:1], {"device": "D", "torch": "2", "date": "3"})
