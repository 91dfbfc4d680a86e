"""The count of what kernels do, by hand."""

from pathlib import Path

import pytest

from emulation import accesses, emulator
from emulation.accesses import Traffic

FIXTURE = Path(__file__).parent / "fixtures" / "accesses.cu"

pytestmark = [
    pytest.mark.emulated,
    pytest.mark.skipif(emulator.compiler() is None, reason="no g++ to compile CUDA kernels for the CPU with"),
]


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    return accesses.build([FIXTURE], tmp_path_factory.mktemp("accesses") / "accesses")


@pytest.fixture
def executed(program, tmp_path):
    """What the fixture's kernel of that name did: two warps."""

    def run(name: str) -> accesses.Executed:
        file = tmp_path / "accesses"
        assert emulator.run(program, name, accesses=file).returncode == 0
        (found,) = accesses.read(program, file)
        assert (found.threads, found.blocks) == (64, 3)
        return found

    return run


def test_side_by_side(executed):
    found = executed("straight")
    assert (found.barriers, found.multiply_adds, found.exponentials) == (1, 1, 1)
    for shared in (found.shared_loads, found.shared_stores):
        assert shared == Traffic(requests=2, words=1, taken=2, ideal=2)
    for memory in (found.global_loads, found.global_stores):
        assert memory == Traffic(requests=2, words=1, taken=8, ideal=8)


@pytest.mark.parametrize(("step", "wavefronts", "sectors"), [(1, 1, 4), (2, 2, 8), (32, 32, 32), (33, 1, 32)])
def test_conflicts_and_scattered_loads_are_seen(executed, step, wavefronts, sectors):
    """Of one warp: the most lanes that want different words of a bank, and the sectors that it touches."""
    found = executed(f"step_{step}")
    assert found.shared_stores == Traffic(requests=2, words=1, taken=2 * wavefronts, ideal=2)
    assert found.global_loads == Traffic(requests=2, words=1, taken=2 * sectors, ideal=8)


def test_a_word_for_all_lanes_is_no_conflict(executed):
    found = executed("broadcast")
    assert found.shared_loads == Traffic(requests=2, words=1, taken=2, ideal=2)
    assert found.global_loads == Traffic(requests=2, words=1, taken=2, ideal=2)
    assert found.shared_stores == Traffic(requests=1, words=1 / 64, taken=1, ideal=1)


def test_lanes_that_come_more_often_do_not_mix_up_what_follows(executed):
    """Each of the two warps: all lanes, the odd ones, all lanes."""
    found = executed("uneven").global_loads
    assert (found.requests, found.words, found.taken) == (6, 2.5, 2 * (4 + 4 + 4))


def test_double_words_pass_in_two_parts(executed):
    assert executed("pairs").shared_loads == Traffic(requests=2, words=2, taken=4, ideal=4)
