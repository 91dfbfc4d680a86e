"""The count of the CUDA kernels' machine instructions."""

import copy
import json
import shutil

import pytest

from benchmarks import cuda_instructions, cuda_resources

LISTING = """
    Function : kernel
        /*0000*/                   LDC R1, c[0x0][0x28] ;      /* 0x00000a00ff017b82 */
                                                               /* 0x000e300000000800 */
        /*0010*/                   FFMA R3, R3, R4, R5 ;       /* 0x00000a00ff017b82 */
        /*0020*/                   LDS R3, [R4+0x10] ;         /* 0x00000a00ff017b82 */
        /*0030*/                   FFMA.FTZ R3, R3, R4, R5 ;   /* 0x00000a00ff017b82 */
        /*0040*/              @!P0 BRA 0x20 ;                  /* 0x00000a00ff017b82 */
        /*0050*/               @P1 BRA 0x10 ;                  /* 0x00000a00ff017b82 */
        /*0060*/                   BRA 0x80 ;                  /* 0x00000a00ff017b82 */
        /*0070*/              @!P0 STG.E desc[UR4][R6.64], R3 ; /* 0x00000a00ff017b82 */
        /*0080*/                   BRA 0x80 ;                  /* 0x00000a00ff017b82 */
"""


def test_the_hot_loop_is_the_innermost_one():
    """By hand: LDS, FFMA and the branch; outside both loops LDC, STG and two branches."""
    counted = cuda_instructions.count(cuda_instructions.parse(LISTING)["kernel"])
    hot, outside = counted["hot_loop"], counted["outside_loops"]
    assert (hot["all"], hot["shared"], hot["arithmetic"], hot["branch"], hot["other"]) == (3, 1, 1, 1, 0)
    assert (outside["all"], outside["global"], outside["branch"], outside["other"]) == (4, 1, 2, 1)


def test_more_than_a_twentieth_more_is_a_regression():
    earlier = {"k": {"hot_loop": {"all": 100}, "outside_loops": {"all": 1000}}}
    now = copy.deepcopy(earlier)
    now["k"]["hot_loop"]["all"] = 105
    assert cuda_instructions.regressions(earlier, now) == []
    now["k"]["hot_loop"]["all"] = 106
    assert cuda_instructions.regressions(earlier, now) == ["k, hot_loop: 100 → 106 instructions"]


@pytest.mark.skipif(
    cuda_resources.nvcc() is None or cuda_instructions.cuobjdump() is None, reason="needs nvcc and cuobjdump"
)
@pytest.mark.skipif(
    not any(map(shutil.which, ("cu++filt", "c++filt"))), reason="no program reads the symbols of kernels"
)
def test_no_kernel_takes_more_instructions_than_before(compiled):
    """After a change that is worth it: python -m benchmarks.cuda_instructions."""
    committed = json.loads(cuda_instructions.RESULTS.read_text())
    if committed["nvcc"] != cuda_instructions.release():
        pytest.skip(f"counted with nvcc {committed['nvcc']}, this is {cuda_instructions.release()}")
    counted = cuda_instructions.count_all(compiled.cubins)
    assert counted.keys() == committed["sm_90"].keys()
    assert cuda_instructions.regressions(committed["sm_90"], counted) == []
    # Each value of the tile is read once for three pixels. The loop holds both supports: the square, and the disk.
    assert counted["gather_kernel (seeds 1…7, float32)"]["hot_loop"]["shared"] == 17 * 15 + 178
