"""The benchmarks, without their measurements."""

import importlib.util
import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

import reblur_ops
from benchmarks import (
    alignment,
    blur,
    candidates,
    cases,
    counts,
    flow,
    gpu,
    gpu_record,
    harness,
    instructions,
    limit,
    operator,
    pictures,
    real,
    sanitized,
    search,
    startup,
    synthesis,
    tables,
    training_step,
)
from benchmarks.rivals import taps
from models.blur import blur_by, disk_rms
from models.checkpoints.load import load_framework
from models.flow import NoFlow, warp
from models.framework import Framework
from models.training.config import load_config
from reblur_ops.geometry import distance_classes

ROOT = Path(__file__).parents[1]


def test_floor_counts_each_input_and_result_once():
    """196 bytes a pixel forward and 380 more backward, in float32 with three channels and the radii 1 … 7."""
    assert counts.floor_bytes((1, 3, 1, 1), torch.float32, "forward") == 196
    assert counts.floor_bytes((1, 3, 1, 1), torch.float32, "forward+backward") == 196 + 380
    assert counts.floor_bytes((2, 3, 5, 7), torch.bfloat16, "forward") == 98 * 70


def test_the_fingerprint_is_that_of_the_shell():
    if not (ROOT / ".git").exists():
        pytest.skip("this is no git checkout")
    command = "git ls-files -z csrc | LC_ALL=C sort -z | xargs -0 cat | sha256sum"
    printed = subprocess.run(command, shell=True, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert gpu_record.sources_sha256() == printed.split()[0]


def test_a_rival_that_ran_out_of_memory_stays_in_the_page():
    row = {"op": "reblur", "pass": "forward", "dtype": "float32", "shape": [1, 3, 9, 9], "floor_ms": 0.5}
    times = {"ms_p20": 0.9, "ms_p50": 1.0, "ms_p80": 1.1, "peak_extra_mb": 3.0}
    rows = [{**row, "impl": "cuda", **times}, {**row, "impl": "reference", "error": "out of memory"}]
    head = {"device": "D", "driver": "1", "torch": "2", "cuda": "3", "date": "4", "copy_bandwidth_gbps": 5.0}
    text = gpu_record.page({**head, "rows": rows})
    assert "| reblur | 1×3×9×9 | float32 | forward | cuda | 0.9 / 1 / 1.1 | 2.00 | 3 |" in text
    assert "| reference | out of memory |" in text


FINGERPRINT = {"device": "NVIDIA X 1", "driver": "1", "torch": "2", "cuda": "3", "csrc_sha256": "4"}


def measured(planned):
    dtype = str(planned.dtype).removeprefix("torch.")
    names = {"op": planned.op, "impl": planned.impl, "pass": planned.pass_, "dtype": dtype}
    times = {"ms_p20": 1.0, "ms_p50": 1.0, "ms_p80": 1.0, "peak_extra_mb": 0.0}
    return {**names, "shape": list(planned.shape), "floor_ms": 1.0, **times}


def test_a_rerun_goes_on_with_the_rows_that_are_missing(tmp_path):
    first, second = gpu.plan(["cuda"])[:2]
    record = gpu_record.Record(FINGERPRINT, tmp_path)
    assert record.bandwidth(lambda: 5.0) == 5.0
    record.add_error(first.checked, 0.5)
    record.add_row(measured(first))
    again = gpu_record.Record(FINGERPRINT, tmp_path)
    assert again.has(first)
    assert not again.has(second)
    assert again.errors == {first.checked: 0.5}
    assert again.bandwidth(lambda: 7.0) == 5.0
    assert "| reblur |" in (tmp_path / "nvidia-x-1.md").read_text()
    other_sources = gpu_record.Record({**FINGERPRINT, "csrc_sha256": "5"}, tmp_path)
    assert not other_sources.has(first)


def test_a_row_that_fails_is_told_and_the_next_one_is_measured(tmp_path, monkeypatch):
    """On a machine without a GPU: a call that raises, as an operator would there."""
    planned = gpu.plan(["cuda"])[:3]
    calls = []

    def run(op, impl, dtype):
        calls.append((op, impl, dtype))
        raise RuntimeError("first line\nsecond line")

    record = gpu_record.Record(FINGERPRINT, tmp_path)
    record.bandwidth(lambda: 5.0)
    monkeypatch.setattr(reblur_ops, "backends", lambda: {"native": ("cpu", "cuda")})
    monkeypatch.setattr(gpu, "plan", lambda names: planned)
    monkeypatch.setattr(gpu, "check", run)
    monkeypatch.setattr(gpu, "problem", lambda op, shape, dtype, device: run(op, shape, dtype))
    monkeypatch.setattr(gpu, "usable", lambda: True)
    monkeypatch.setattr(gpu_record.Record, "this_device", lambda folder: record)
    assert not gpu.measure(60.0)
    assert [row["error"] for row in record.rows] == 3 * ["RuntimeError: first line"]
    assert record.errors == {planned[0].checked: "RuntimeError: first line"}
    assert gpu.measure(60.0) is False
    assert len(calls) == 4


def test_measuring_ends_with_its_time(tmp_path, monkeypatch, capsys):
    record = gpu_record.Record(FINGERPRINT, tmp_path)
    record.bandwidth(lambda: 5.0)
    monkeypatch.setattr(reblur_ops, "backends", lambda: {"native": ("cpu", "cuda")})
    monkeypatch.setattr(gpu_record.Record, "this_device", lambda folder: record)
    assert gpu.measure(-1.0)
    assert record.rows == []
    assert "rows are still missing" in capsys.readouterr().out


def test_a_step_of_the_gpu_benchmark_is_bounded(capsys):
    assert sum(gpu.LIMITS.values()) <= 600
    assert gpu.LIMITS.keys() == gpu.STEPS.keys()
    assert not gpu.command([sys.executable, "-c", "import time; time.sleep(60)"], 0.5)
    assert "ended after" in capsys.readouterr().out


def test_what_a_bounded_step_has_started_ends_with_it(tmp_path):
    late = tmp_path / "late"
    child = f"import pathlib, time; time.sleep(4); pathlib.Path({str(late)!r}).touch()"
    parent = f"import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', {child!r}]); time.sleep(60)"
    assert not gpu.command([sys.executable, "-c", parent], 2.0)
    time.sleep(4)
    assert not late.exists()


@pytest.mark.skipif("cuda" in reblur_ops.backends().get("native", ()), reason="the kernels are there")
def test_without_kernels_nothing_passes_on_a_gpu(tmp_path, monkeypatch, capsys):
    """Tests that are all skipped, and rows that all fail, would pass for a result."""
    monkeypatch.setattr(gpu_record.Record, "this_device", lambda folder: pytest.fail("a record was begun"))
    assert not gpu.measure(60.0, tmp_path)
    assert not gpu.test(60.0)
    assert capsys.readouterr().out.count("has no CUDA kernels") == 2


def test_what_the_sanitizers_see_runs():
    sanitized.run("cpu")


def test_a_build_that_fails_ends_the_run(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(gpu, "STEPS", {"build": lambda seconds: False, "test": lambda seconds: pytest.fail("tested")})
    monkeypatch.setattr(sys, "argv", ["gpu", "--only", "build", "test"])
    with pytest.raises(SystemExit, match="failed: build"):
        gpu.main()
    assert "test: not run" in capsys.readouterr().out


def test_the_gpu_is_busy_until_the_host_has_enqueued_a_call():
    for host_ms, flush_ms in ((0.2, 0.03), (0.01, 0.03), (5.0, 0.5)):
        assert harness.flushes(host_ms, flush_ms) * flush_ms >= 2 * host_ms


def test_peak_memory_sees_what_was_held_at_once():
    def call():
        first = torch.empty(1000, 1000)
        del first
        second, third = torch.empty(1000, 1000), torch.empty(500, 1000)
        return second, third

    assert harness.peak_memory(call) == pytest.approx(6e6, rel=0.01)


def test_contenders_take_turns():
    order = []
    times = harness.time_in_turns([lambda: order.append("a"), lambda: order.append("b")], seconds=0)
    turns = "".join(order).split("b", 1)[1]
    assert turns.lstrip("b").startswith("a")
    assert "ab" in turns.lstrip("b")[1:]
    assert all(len(of_call.samples) >= 5 for of_call in times)


def test_a_slow_contender_is_called_three_times(monkeypatch):
    monkeypatch.setattr(harness.timing, "SLOW", -1.0)
    monkeypatch.setattr(harness.timing, "WARM_UP_SECONDS", 0.0)
    calls = []
    (times,) = harness.time_in_turns([lambda: calls.append(None)], seconds=60)
    assert len(calls) == len(times.samples) == 3


def test_the_first_calls_do_not_count(monkeypatch):
    """Memory that is touched for the first time makes several calls slow; a call is not taken for slow by them."""
    monkeypatch.setattr(harness.timing, "SLOW", 0.05)
    calls = []

    def call():
        calls.append(None)
        time.sleep(0.1 if len(calls) < 5 else 0.001)

    (times,) = harness.time_in_turns([call], seconds=0)
    assert len(times.samples) >= 5
    assert max(times.samples) < 100


def test_percentiles():
    assert harness.Times(list(range(101))).percentiles == (20, 50, 80)


def test_sweeping_the_caches_is_not_timed(monkeypatch):
    monkeypatch.setattr(harness.timing, "cache_bytes", lambda: 2**25)
    call = torch.ones(10).sum
    swept = torch.ones(2**26, dtype=torch.uint8)
    cold, sweep = harness.time_in_turns([call, lambda: swept.add_(1)], seconds=0, cold=[True, False])
    assert cold.median < sweep.median / 2


def test_what_is_checked_is_what_is_timed():
    """A contender whose results are wrong only in the last rows of a large image is refused."""
    case = cases.Case(size=(70, 66), radius=3)
    problem = cases.problem(case)
    right = operator.functions(case)[operator.NAIVE]

    def wrong(*tensors):
        return right(*tensors) * torch.ones(70)[:, None].index_fill(0, torch.tensor([69]), 1.01)

    for pass_ in counts.PASSES:
        results = [harness.make_call(f, pass_, problem.tensors, problem.grad_output)() for f in (right, wrong)]
        errors = [harness.error(result, problem, pass_) for result in results]
        assert errors[0] < 1e-5 < 1e-3 < errors[1]
    with pytest.raises(SystemExit, match="error"):
        harness.measure(problem, [harness.Contender("wrong", wrong)], 0, tolerance=1e-5)


@pytest.mark.slow
def test_a_contender_that_is_not_run_stays_in_the_table():
    comparison = operator.Comparison(
        cases.Case(size=(9, 11), radius=2), ("native", "explicit kernels"), slow=("naive unfold",), cold=True
    )
    rows = operator.measure(comparison, 0)
    assert [row.impl for row in rows] == 2 * ["native", "native", "explicit kernels", "naive unfold"]
    text = harness.table(rows, ("size",))
    assert f"| 1×3×9×11 | forward | naive unfold | not run: {operator.TOO_LONG} |" in text
    assert "| native, cold cache |" in text


@pytest.mark.slow
@pytest.mark.parametrize("case", [comparison.case for comparison in operator.COMPARISONS], ids=str)
def test_every_contender_solves_every_problem(case):
    case = replace(case, size=(8, 11))
    given = cases.problem(case)
    by_name = operator.functions(case)
    for name in operator.EAGER:
        results = harness.make_call(by_name[name], "forward+backward", given.tensors, given.grad_output)()
        assert harness.error(results, given, "forward+backward") <= operator.TOLERANCE[case.dtype], name


def test_explicit_kernels_do_not_copy_a_window_for_each_tap():
    given = cases.problem(cases.Case(size=(32, 32)))
    call = harness.make_call(taps.reblur, "forward+backward", given.tensors, given.grad_output)
    assert harness.peak_memory(call) < 4 * 225 * 32 * 32 * 4


@pytest.mark.parametrize("direction", cases.DIRECTIONS)
@pytest.mark.parametrize("op", cases.OPERATORS)
def test_operators_are_compared_with_their_reference(op, direction):
    case = cases.Case(op, direction, (9, 13), batch=2)
    given = cases.problem(case)
    call = harness.make_call(cases.function(case), "forward+backward", given.tensors, given.grad_output)
    assert harness.error(call(), given, "forward+backward") < 1e-5


ONE_QUESTION = "--op gaussian --size 12 14 --radius 2 --channels 2 --dtype bfloat16 --threads 1 --seconds 0"


def answered(monkeypatch, capfd, *more):
    threads = torch.get_num_threads()
    monkeypatch.setattr(sys, "argv", ["operator", *ONE_QUESTION.split(), *more])
    try:
        operator.main()
    finally:
        torch.set_num_threads(threads)
    return capfd.readouterr()


@pytest.mark.native
def test_one_question_is_answered_in_print_alone(monkeypatch, capfd, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(harness.results, "RESULTS", tmp_path / "results")
    printed = answered(monkeypatch, capfd)
    assert "| gaussian_blur, gather | 1×2×12×14 | 2 | bfloat16 | forward | native |" in printed.out
    assert ", 1 thread," in printed.out
    assert "profiler" not in printed.err
    assert not list(tmp_path.iterdir())


@pytest.mark.native
def test_results_are_written_where_asked(monkeypatch, capfd, tmp_path):
    answered(monkeypatch, capfd, "--results", str(tmp_path))
    rows = json.loads((tmp_path / "gaussian-cpu-once.json").read_text())["rows"]
    assert {row["impl"] for row in rows} == {"native", "ring convolution"}
    assert (tmp_path / "gaussian-cpu-once.md").exists()


@pytest.mark.native
@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--contenders", "explicit kernels"], "explicit kernels cannot compute gaussian_blur"),
        (["--radius", "100"], "radius must lie between 1 and 64"),
        (["--size", "0", "5"], "at least 1, got 0"),
    ],
    ids=str,
)
def test_a_question_without_an_answer_is_refused(monkeypatch, capfd, more, message):
    with pytest.raises(SystemExit, match=message):
        answered(monkeypatch, capfd, *more)


def test_tables_are_aligned_and_filled_up():
    assert harness.markdown(("a", "b:"), [("1", "2"), ("3",)]) == "| a | b |\n|---|---:|\n| 1 | 2 |\n| 3 |  |"


def test_operations_of_the_smallest_kernel():
    """R = 1, one channel, counted by hand."""
    forward = counts.operations((1,), 1, "forward")
    # One row folded; class (0, 1): two taps in row 0, one in the folded row 1, together; (1, 1): two taps of row 1.
    assert forward.sums == 1 + 2 + 1
    assert forward.product == 3
    backward = counts.operations((1,), 1, "forward+backward")
    assert backward.scatter == 3 * 2 + 2
    assert backward.kernel == 2 * forward.kernel
    assert backward.total > 2 * forward.total


def test_operations_grow_as_the_window_does():
    """Sums and products with each channel, and the sums in place of 225 taps."""
    one, three = (counts.operations(range(1, 8), channels, "forward") for channels in (1, 3))
    assert three.sums == 3 * one.sums
    assert three.kernel == one.kernel
    assert one.sums < 225
    assert one.product == len(distance_classes(7))


def limit_row(**changes):
    row = limit.Row("pixels", "forward", 1, [1, 3, 10, 10], 7, 1.0, 2.0, 3.0, 200, 1000, 10.0, 100.0)
    return replace(row, **changes)


def test_the_floor_is_the_slower_of_memory_and_arithmetic():
    row = limit_row()
    assert row.memory_ms == pytest.approx(100 * 200 / 10e9 * 1e3)
    assert row.arithmetic_ms == pytest.approx(100 * 1000 / 100e9 * 1e3)
    assert row.ratio == pytest.approx(2.0 / row.memory_ms)
    assert limit_row(bandwidth_gbps=1e6).ratio == pytest.approx(2.0 / row.arithmetic_ms)


def test_slopes():
    rows = [limit_row(shape=[1, 3, 10, 10 * n], ms_p50=0.5 * n**1.5) for n in (1, 2, 4)]
    assert limit.slope(rows, "forward") == pytest.approx(1.5)


def step_row(**changes):
    row = training_step.Row("joint", "native", [1, 3, 10, 10], 1.0, 2.0, 3.0, 5, reblur_ms=0.5, peak_mb=3.0)
    return replace(row, **changes)


def test_what_fits_follows_from_two_sizes():
    rows = [step_row(), step_row(shape=[1, 3, 10, 20], peak_mb=5.0)]
    (of_native,) = training_step.fit(rows)
    assert (of_native.constant_bytes, of_native.bytes_per_pixel) == (1e6, 2e4)
    assert of_native.batch(24) == int((0.9 * 24e9 - 1e6) / 2e4) // 256**2
    height, width = of_native.frame(24)
    assert height % 16 == width % 16 == 0
    assert of_native.bytes(height * width) <= 0.9 * 24e9 < of_native.bytes((height + 32) * (width + 32))
    (large,) = training_step.computed([of_native], rows, (1, 3, 100, 100))
    assert large.computed
    assert (large.ms_p50, large.reblur_ms, large.peak_mb) == pytest.approx((100.0, 25.0, 201.0))
    assert "computed" in training_step.table([large])
    assert step_row().share == 0.25


def test_a_step_trains():
    step = training_step.Step("joint", "native", (1, 3, 24, 32))
    before = [parameter.clone() for parameter in step.framework.parameters()]
    assert np.isfinite(step())
    changed = [not torch.equal(a, b) for a, b in zip(before, step.framework.parameters(), strict=True)]
    assert np.mean(changed) > 0.9


@pytest.mark.parametrize("name", candidates.CANDIDATES)
def test_candidates_take_the_recipe_and_deblur(name):
    config = load_config(
        "compact", candidates.settings_for(candidates.CANDIDATES[name], Path("photographs"), Path("pairs"))
    )
    framework = Framework(config.framework)
    image = torch.rand(1, 3, 40, 56)
    blur_map = torch.rand(1, 2, 40, 56) if framework.deblur.map_channels else None
    deblurred = framework.deblur(image, blur_map)
    assert deblurred.shape == image.shape
    deblurred.square().mean().backward()
    assert all(bool(parameter.grad.any()) for parameter in framework.deblur.parameters())


@pytest.mark.parametrize("name", synthesis.LEFT_OUT)
def test_each_setting_of_synthesis_can_be_left_out(name):
    recipe = candidates.settings_for(synthesis.NETWORK, Path("photographs"), Path("pairs"))
    whole = load_config("compact", [*recipe, *synthesis.settings(synthesis.EVERYTHING, 2)])
    config = load_config("compact", [*recipe, *synthesis.settings(name, 2)])
    assert config.seed == whole.seed == 2
    assert config.data.generator != whole.data.generator
    assert config.start.parts == ("blur_map", "deblur")


def test_what_a_setting_brings_is_told_against_chance():
    gains = {"disks": 1.0, "light fields": 0.5}
    rows = [synthesis.Row(synthesis.EVERYTHING, seed, {**gains, "disks": 1 + 0.1 * seed}) for seed in range(3)]
    rows.append(synthesis.Row("noise", 0, {"disks": 0.6, "light fields": 0.75}))
    table = synthesis.page(rows, 400)
    assert "mean and standard deviation of 3 seeds" in table
    assert "| everything | 1.10 ± 0.10 | 0.50 ± 0.00 |" in table
    assert "| noise | -0.50 | +0.25 |" in table


def test_instruction_counts_have_a_bound():
    counted = {"gather": 114.0, "scatter": 100.0}
    assert instructions.worse(counted, {"gather": 100.0, "scatter": 100.0}) == []
    assert "gather" in instructions.worse(counted, {"gather": 90.0, "scatter": 100.0})[0]
    assert "not in both" in instructions.worse(counted, {"gather": 114.0})[0]


@pytest.mark.slow
@pytest.mark.skipif(bool(instructions.obstacle()), reason=f"no instructions are counted: {instructions.obstacle()}")
def test_kernels_take_no_more_instructions_than_recorded():
    assert instructions.worse(instructions.count(), instructions.read()) == []


def test_importing_brings_nothing_but_torch():
    """Import time, without a clock: the modules of ours, and none of others."""
    code = (
        "import sys, torch; before = set(sys.modules); import reblur_ops; "
        "print(*sorted({name.split('.')[0] for name in set(sys.modules) - before}))"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    printed = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert set(printed.stdout.split()) <= {"reblur_ops", "torch"}


@pytest.mark.slow
def test_the_start_of_a_fresh_process_is_taken_apart():
    """The parts that it tells do not overlap: together they take no longer than the whole process."""
    begin = time.perf_counter()
    times = startup.fresh_process()
    whole = time.perf_counter() - begin
    calls = {f"{which} call, {pass_}, 1×3×256×256" for which in ("first", "second") for pass_ in counts.PASSES}
    assert times.keys() == {"import of torch", "import of reblur_ops, beyond torch's", *calls}
    assert sum(times.values()) < whole


def test_a_build_that_was_measured_is_kept(tmp_path):
    rows = [startup.Row("import", "ms", 1, 1, 1, 7), startup.Row("wheel", "MB", 2, 2, 2, 1)]
    harness.save("startup-cpu", rows, "", tmp_path)
    assert startup.kept(tmp_path / "startup-cpu.json") == rows[1:]
    assert startup.kept(tmp_path / "nothing.json") == []


@pytest.mark.parametrize("name", pictures.PICTURES)
def test_pictures_show_the_results(name, tmp_path):
    measured = harness.RESULTS / f"{name}.json"
    if not measured.exists():
        pytest.skip(f"{name} is not measured yet: make bench")
    (tmp_path / f"{name}.json").write_text(measured.read_text())
    text = pictures.draw(name, tmp_path).read_text()
    record = json.loads((tmp_path / f"{name}.json").read_text())
    assert record["device"] in text
    assert text == pictures.draw(name, tmp_path).read_text()


def test_a_page_keeps_what_stands_between_tables():
    """Also where a table is still empty."""
    text = "A\n<!-- results: a -->\n{}<!-- end of results -->\nB\n<!-- results: b -->\n{}<!-- end of results -->\nC\n"
    replaced = tables.replaced("P", tables.replaced("P", text.format("", "old\n"), "a", "1"), "b", "2")
    assert replaced == text.format("\n1\n\n", "\n2\n\n")
    assert tables.replaced("P", replaced, "a", "1") == replaced
    with pytest.raises(SystemExit, match="have no end"):
        tables.replaced("P", "<!-- results: a -->\nB\n<!-- results: b -->\n<!-- end of results -->\n", "a", "1")


def test_ranges_are_over_the_problems_that_both_have_solved():
    problem = {
        "op": "reblur",
        "shape": [1, 3, 8, 8],
        "radius": 7,
        "dtype": "float32",
        "cache": "warm",
        "pass": "forward",
    }
    rows = [
        {**problem, "impl": "native", "ms_p50": 2.0},
        {**problem, "impl": "naive unfold", "ms_p50": 60.0},
        {**problem, "radius": 3, "impl": "native", "ms_p50": 1.0},
        {**problem, "radius": 3, "impl": "naive unfold", "ms_p50": 14.0},
        {**problem, "radius": 5, "impl": "native", "ms_p50": 1.0},
        {**problem, "radius": 5, "impl": "naive unfold", "ms_p50": None},
    ]
    ratios = tables.ratios({"rows": rows}, "naive unfold", "forward", "ms_p50")
    assert ratios == [30.0, 14.0]
    assert tables.span(ratios) == "14 to 30×"


def test_one_thread_is_singular():
    assert [harness.thread_count(count) for count in (1, 2)] == ["1 thread", "2 threads"]


def test_the_gpu_measures_what_was_asked_for():
    planned = gpu.plan(["cuda", "torch", "torch-compiled", "reference"])
    assert len({what for what in planned if what[0] == "reblur"}) == 4 * len(gpu.SIZES) * len(gpu.DTYPES) * len(
        counts.PASSES
    )
    assert {op for op, *_ in planned} == set(gpu.CASES)


@pytest.mark.slow
@pytest.mark.parametrize("op", gpu.CASES)
def test_the_gpu_checks_every_operator(op):
    """On the CPU, where the same functions answer."""
    assert gpu.check(op, "torch", torch.float32, "cpu") < 1e-5
    assert gpu.check(op, "reference", torch.bfloat16, "cpu") < 1.6e-2


TRITON = """
import torch, reblur_ops
from functools import partial
from benchmarks import harness
from benchmarks.rivals import triton_reblur
from reblur_ops.testing import problem
p = problem(5, 37, batch=2, channels=2, radii=(2, 5)).to(torch.float32)
given = harness.Problem("reblur", partial(reblur_ops.reblur, radii=(2, 5)), list(p.tensors), p.grad_output, 5)
call = harness.make_call(partial(triton_reblur.reblur, radii=(2, 5)), "forward+backward", given.tensors, p.grad_output)
print(harness.error(call(), given, "forward+backward"))
"""


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")
def test_the_triton_rival_computes_the_same():
    """In Triton's interpreter, so without a GPU."""
    environment = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    result = subprocess.run([sys.executable, "-c", TRITON], env=environment, capture_output=True, text=True, check=True)
    assert float(result.stdout) < 1e-5


TRITON_AHEAD_OF_TIME = """
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, compile
from benchmarks.rivals import triton_reblur as rival
constants = dict(
    CHANNELS=3, COUNT=7, CLASSES=rival.CLASSES, RINGS=rival.RINGS, BLOCK=rival.BLOCK, RADIUS=rival.MAX_RADIUS
)
integers = ("seed_channels", "height", "width", "planes", "channels", "classes")
def type_of(name):
    if name in constants:
        return "constexpr"
    return "i32" if name in integers else "*i32" if name in ("tables", "radii") else "*fp32"
for kernel in (rival.forward_kernel, rival.parameter_gradients_kernel, rival.scatter_kernel):
    signature = {name: type_of(name) for name in kernel.arg_names}
    given = {name: value for name, value in constants.items() if name in signature}
    compiled = compile(ASTSource(kernel, signature, given), target=GPUTarget("cuda", 90, 32))
    print(kernel.__name__, len(compiled.asm["cubin"]))
"""


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")
def test_the_triton_rival_compiles_for_a_gpu(tmp_path):
    """Ahead of time for sm_90, which needs no GPU: the interpreter accepts what the compiler refuses."""
    environment = {
        **os.environ,
        "TRITON_CACHE_DIR": str(tmp_path),
        "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path]),
    }
    command = [sys.executable, "-c", TRITON_AHEAD_OF_TIME]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    sizes = dict(line.split() for line in result.stdout.splitlines())
    assert sizes.keys() == {"forward_kernel", "parameter_gradients_kernel", "scatter_kernel"}
    assert all(int(size) > 1000 for size in sizes.values())


@pytest.mark.slow
def test_alignment_is_measured_against_true_flow():
    """The true flow has no error, and takes the second image to the first."""
    found = list(flow.pairs(("coffee",), 96))
    assert len(found) == len(flow.motions(96)) * len(flow.blurs(96))
    for _, motion, blurred, case in found:
        assert flow.errors(case.flow, case).max() == 0
        assert 0 < case.counts.float().mean() < 1
        if blurred == "sharp" and motion != "edge":
            difference = (warp(case.second, case.flow) - case.first).abs().mean(dim=(0, 1))[case.counts]
            assert difference.mean() < 0.25 * (case.second - case.first).abs().mean()


def test_motion_can_be_told_where_there_are_corners():
    """Not where nothing changes, nor along an edge."""
    flat = torch.full((1, 3, 32, 32), 0.5)
    edge, corners = flat.clone(), flat.clone()
    edge[..., 16:] = 0.8
    corners[..., ::4, :] = 0.8
    corners[..., ::4] = 0.8
    assert not alignment.has_texture(flat).any()
    assert not alignment.has_texture(edge).any()
    assert alignment.has_texture(corners)[..., 4:-4, 4:-4].all()


def test_what_is_torn_is_larger_or_smaller_by_half():
    y, x = torch.meshgrid(torch.arange(40.0), torch.arange(60.0), indexing="ij")
    assert alignment.torn(torch.zeros(1, 2, 40, 60)) == 0
    assert alignment.torn(torch.stack([0.2 * x, 0.2 * y])[None]) == 0  # 1.44 times the area
    assert alignment.torn(torch.stack([0.3 * x, 0.3 * y])[None]) == 1
    assert alignment.torn(torch.stack([-0.5 * x, 0 * y])[None]) == 1
    folded = torch.stack([torch.where(x < 30, 0 * x, -1.5 * (x - 30)), 0 * y])[None]
    assert alignment.torn(folded) == pytest.approx(0.5, abs=0.03)


def test_the_table_of_alignment_has_means():
    rows = [
        flow.Row("held back", "coffee", motion, "sharp", "default", epe, off, 2.0)
        for motion, epe, off in (("shift", 0.25, 0.0), ("zoom", 0.75, 0.1))
    ]
    assert "| default | 0.25 (0%) | 0.75 (10%) | 0.50 (5%) | 2 |" in flow.table(rows, "motion")
    assert "## Photographs held back: coffee" in flow.page(
        rows + rows[:1], {"device": "D", "torch": "2", "date": "3"}, 1.36
    )


@pytest.mark.native
def test_the_radius_of_real_photographs_is_compared_with_what_is_found(tmp_path, capsys):
    sharp = (255 * blur.photographs()[0][40:136, 40:200]).astype(np.uint8)
    soft = cv2.GaussianBlur(sharp, (0, 0), 3)
    near, far = sharp.copy(), sharp.copy()
    near[:, 80:], far[:, :80] = soft[:, 80:], soft[:, :80]
    folder = tmp_path / blur.NEAR_AND_FAR
    folder.mkdir(parents=True)
    for name, picture in (("one_A", near), ("one_B", far), ("one_fused", sharp)):
        cv2.imwrite(str(folder / f"{name}.png"), picture[..., ::-1])
    lines, parts = blur.on_real_photographs(load_framework(), tmp_path)
    assert f"{tmp_path / blur.MASKS} is not there: left out" in capsys.readouterr().out
    (scene,) = parts["near_and_far"]
    assert scene["told"] > 0.5
    assert scene["opposed"] > 0.5
    assert f"by the sharp picture: {scene['told']:.3f};" in "\n".join(lines)


def test_costs_of_the_search_are_compared_and_timed():
    rows = search.measure(32, 2, 1, seconds=0.01)
    assert [row.contender for row in rows] == list(search.BACKENDS.values())
    assert all(row.candidates == 9 and row.samples > 0 and row.ms_p20 <= row.ms_p50 <= row.ms_p80 for row in rows)
    assert "| 9 up to 2 px | 1 | conv2d with a bank |" in search.page(rows)


@pytest.mark.native
def test_costs_that_differ_are_not_timed(monkeypatch):
    monkeypatch.setattr(search, "TOLERANCE", -1.0)
    with pytest.raises(SystemExit, match="differ"):
        search.measure(32, 2, 0, seconds=0.01)


def half_soft():
    """Texture, and the same with its left half soft: (96, 128, 3) each."""
    sharp = np.random.default_rng(0).random((96, 128, 3)).astype(np.float32)
    soft = sharp.copy()
    soft[:, :64] = cv2.GaussianBlur(sharp, (0, 0), 3)[:, :64]
    return soft, sharp


def test_real_pictures_are_scored_in_and_out_of_focus_where_the_target_is_known():
    blurry, sharp = half_soft()
    deblurred = blurry + (sharp - blurry) / 2  # 6 dB out of focus
    deblurred[:, 64:] += 0.01
    blurry[:, 64:] += 0.04  # and 12 dB in focus
    known = np.ones((96, 128), np.float32)
    found = real.compare("set", "name", "full", blurry, deblurred, sharp, known)
    six = 20 * np.log10(2)
    assert found.gain_out_of_focus == pytest.approx(six, abs=0.01)
    assert found.gain_in_focus > six + 0.5  # some places beside the edge count as in focus
    assert found.brightness == pytest.approx(255 * (deblurred - blurry).mean(), abs=1e-3)
    assert min(found.ssim_gain, found.haarpsi_gain) > 0
    assert found.psnr == pytest.approx(-10 * np.log10(np.mean((blurry - sharp) ** 2)), abs=1e-3)
    known[:, :64] = 0
    assert real.compare("set", "name", "full", blurry, deblurred, sharp, known).gain_out_of_focus is None


@pytest.mark.parametrize(("light", "gain"), [(0.9, 0.9), (0.5, 0.8), (2.0, 1.25)])
def test_the_target_of_a_real_picture_has_its_exposure(light, gain):
    _, sharp = half_soft()
    sharp = sharp / 2
    target, known = real.target_of(light * sharp, sharp, "none")
    assert known.min() == 1
    assert np.median(target / sharp) == pytest.approx(gain, abs=0.01)


def test_ranks_count_wins_and_of_ties_half():
    assert real.ranked(np.array([1.0, 2, 2, 3]), np.array([False, False, True, True])) == pytest.approx(0.875)
    assert real.ranked(np.array([3.0, 2, 1]), np.array([False, True, True])) == 0


def test_circles_of_confusion_of_rms_radii():
    coc = torch.tensor([[0.7, 1.3, 4.0, 11.0]])
    torch.testing.assert_close(blur.coc_of(disk_rms(coc[0]))[None], coc, atol=0.03, rtol=0)


def test_pictures_focused_apart_share_their_depth():
    sharp = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    near, far = (blur_by(sharp, torch.full((1, 1, 64, 64), radius), max_radius=6) for radius in (1.0, 3.0))
    of_near, of_far, known = blur.shared_blur(sharp, near, far)
    assert known.float().mean() > 0.9
    assert of_near[known].mean() == pytest.approx(1, abs=0.2)
    assert of_far[known].mean() == pytest.approx(3, abs=0.2)


def test_errors_of_alignment_count_where_the_sharp_picture_shows_it():
    picture = torch.rand(1, 3, 48, 64, generator=torch.Generator().manual_seed(0))
    truth, visible = torch.zeros(1, 2, 48, 64), torch.ones(1, 1, 48, 64, dtype=torch.bool)
    truth[:, 0, :, 32:], visible[..., 48:] = 3.0, False
    aligned = picture.clone()
    aligned[..., :32] += 0.1
    aligned[..., 48:] += 0.5
    case = alignment.Case(picture, picture, aligned, truth, visible)
    found = alignment.measure("set", "name", "none", NoFlow(), case)
    assert found.end_point == pytest.approx(1)  # 3 pixels on 16 columns of 48
    assert found.psnr == pytest.approx(-10 * np.log10(0.01 * 2 / 3), abs=1e-3)
    assert found.torn == found.bending == 0


def test_pairs_with_more_texture_count_more():
    rows = [
        alignment.Row("set", name, "dis", 20.0, 1.0, error, textured, 30.0, 0.1, 0.0, 1.0)
        for name, error, textured in (("one", 1.0, 0.75), ("other", 9.0, 0.25), ("none", None, 0.0))
    ]
    assert "| 3.00 (33 %) |" in alignment.summary(rows)
