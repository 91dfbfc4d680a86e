"""One process of a training is lost: the others end soon, and say how to go on."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.reliability.runs import children, launched, make_pairs, needs_proc, steps_of, training, wait_for_steps
from tests.reliability.sizes import LOST

pytestmark = pytest.mark.slow


@needs_proc
@pytest.mark.parametrize("attempt", range(LOST))
@pytest.mark.parametrize("rank", [0, 1])
def test_the_others_end_within_a_minute(tmp_path, rank, attempt):
    run = tmp_path / "run"
    command = launched(*training(make_pairs(tmp_path / "data"), 100_000), f"out={run}")
    process = subprocess.Popen(command, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        wait_for_steps(run, 2, process)
        lost, other = children(process.pid)[rank], children(process.pid)[1 - rank]
        began = time.monotonic()
        os.kill(lost, signal.SIGKILL)
        printed, _ = process.communicate(timeout=60)
        assert time.monotonic() - began < 60
        assert not Path(f"/proc/{other}").exists()
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode != 0
    # Torchrun may end the other, which saves, before that has seen for itself.
    text = printed.decode()
    assert "resume=auto goes on" in text, text
    assert "RuntimeError" not in text, text
    assert steps_of(run) >= 3
    assert (run / "latest" / "model.safetensors").exists()
