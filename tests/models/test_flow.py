"""Optical flow by name: DIS on known motions, blurred and not; RAFT without torchvision; no flow."""

import copy
import pickle
import subprocess
import sys
import types

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks import flow as benchmark
from models.flow import RaftFlow, load_flow, warp
from models.flow.equalise import disk_blur, equalise_blur

pytestmark = pytest.mark.slow

SIZE = 192
PHOTO = "astronaut"

# The mean error in pixels that is allowed. What is found is printed: pytest -s.
BOUNDS = {
    ("shift", "sharp"): 0.1,
    ("rotation", "sharp"): 0.1,
    ("zoom", "sharp"): 0.1,
    ("shift", "first 3"): 0.35,
    ("rotation", "first 3"): 0.35,
    ("zoom", "first 3"): 0.35,
    ("shift", "second 5"): 0.65,
    ("rotation", "second 5"): 0.65,
    ("zoom", "second 5"): 0.65,
}


@pytest.fixture(scope="module")
def cases():
    return {(motion, blur): pair for _, motion, blur, pair in benchmark.pairs((PHOTO,), SIZE)}


@pytest.mark.parametrize("name", ["dis", "variational"])
@pytest.mark.parametrize(("motion", "blur"), BOUNDS)
def test_known_motions_are_found(cases, name, motion, blur):
    case = cases[motion, blur]
    flow = load_flow(name)(case.first, case.second)
    assert flow.shape == (1, 2, SIZE, SIZE)
    assert flow.dtype == torch.float32
    error = benchmark.errors(flow, case).mean().item()
    print(f"{name}, {motion}, {blur}: {error:.3f} px")
    assert error < BOUNDS[motion, blur]


def test_the_second_image_warped_matches_the_first(cases):
    case = cases["rotation", "sharp"]
    aligned = warp(case.second, load_flow("dis")(case.first, case.second))
    before, after = (
        (image - case.first).abs().mean(dim=(0, 1))[case.counts].mean() for image in (case.second, aligned)
    )
    assert after < before / 4


def test_equalising_helps_where_blur_differs_and_harms_nowhere(cases):
    for blur, worst in (("sharp", 1.05), ("first 3", 0.8), ("first 6", 0.6), ("first 0 to 6", 0.8), ("second 5", 0.6)):
        mean = {}
        for equalise in (True, False):
            flow = load_flow("dis", equalise=equalise)
            pairs = [cases[motion, blur] for motion in ("shift", "rotation", "zoom")]
            found = [benchmark.errors(flow(case.first, case.second), case).mean().item() for case in pairs]
            mean[equalise] = np.mean(found)
        print(f"{blur}: {mean[False]:.3f} px, equalised {mean[True]:.3f} px")
        assert mean[True] < worst * mean[False], blur


def test_equalising_blurs_only_the_sharper():
    generator = torch.Generator().manual_seed(0)
    sharp = torch.rand(2, 1, 100, 120, generator=generator)
    blurry = disk_blur(sharp, 4)
    first, second = equalise_blur(sharp, blurry)
    assert torch.equal(second, blurry)
    assert (first - blurry).abs().mean() < 0.05 * (sharp - blurry).abs().mean()
    again = equalise_blur(blurry, sharp)
    assert torch.equal(again[0], blurry)
    assert torch.equal(again[1], first)
    assert all(torch.equal(*pair) for pair in zip(equalise_blur(sharp, sharp), (sharp, sharp), strict=True))
    # Where one half is blurred, one half is.
    half = torch.cat([sharp[..., :60], blurry[..., 60:]], dim=3)
    mixed, _ = equalise_blur(sharp, half)
    changed = (mixed - sharp).abs().mean(dim=(0, 1, 2))
    assert changed[-20:].mean() > 3 * changed[:20].mean()
    assert torch.equal(equalise_blur(sharp[1:], half[1:])[0], mixed[1:]), "images of a batch do not meet"


@pytest.mark.parametrize(("name", "tolerance"), [("dis", 0), ("variational", 1e-3)])
def test_a_batch_is_its_images_and_results_repeat(cases, name, tolerance):
    chosen = [cases[motion, "first 3"] for motion in ("shift", "zoom")]
    first, second = (torch.cat([getattr(case, name) for case in chosen]) for name in ("first", "second"))
    flow = load_flow(name)
    together = flow(first, second)
    for i, case in enumerate(chosen):
        torch.testing.assert_close(flow(case.first, case.second), together[i : i + 1], rtol=0, atol=tolerance)
    assert torch.equal(pickle.loads(pickle.dumps(copy.deepcopy(flow)))(first, second), together)


@pytest.mark.parametrize("equalise", [True, False])
def test_dis_takes_any_size(equalise):
    """In a process of its own: OpenCV ends it for some small sizes, if it is not kept from them."""
    code = f"""
import torch
from models.flow import load_flow
flows = [load_flow("dis", preset=preset, finest_scale=finest, equalise={equalise})
         for preset in ("ultrafast", "fast", "medium") for finest in (None, 0, 2)]
for size in [(1, 1), (1, 50), (7, 7), (12, 300), (16, 300), (300, 8), (20, 900), (95, 97)]:
    for flow in flows:
        found = flow(torch.rand(1, 3, *size), torch.rand(1, 3, *size))
        assert found.shape == (1, 2, *size) and found.isfinite().all(), size
print("all sizes")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "all sizes\n", (done.returncode, done.stderr)


def test_the_variational_flow_is_at_least_as_close_as_dis(cases):
    means = {}
    for name in ("dis", "variational"):
        flow = load_flow(name)
        means[name] = np.mean([benchmark.errors(flow(case.first, case.second), case).mean() for case in cases.values()])
    print(means)
    assert means["variational"] < means["dis"]


def test_the_variational_flow_sees_no_exposure(cases):
    case = cases["rotation", "sharp"]
    flow = load_flow("variational", equalise=False)
    plain, exposed = (flow(case.first, second) for second in (case.second, 0.9 * case.second + 0.05))
    assert benchmark.errors(exposed, case).mean() < 1.5 * benchmark.errors(plain, case).mean()


@pytest.mark.parametrize("size", [(1, 1), (1, 50), (7, 7), (2, 300), (16, 17), (33, 95)])
def test_the_variational_flow_takes_any_size(size):
    found = load_flow("variational")(torch.rand(2, 3, *size), torch.rand(2, 3, *size))
    assert found.shape == (2, 2, *size)
    assert found.isfinite().all()


class NoWaiting(TorchDispatchMode):
    """Raises at what would end the capture of a CUDA graph: values read by Python, tensors that come from it."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        assert name not in ("_local_scalar_dense", "lift_fresh", "_to_copy", "nonzero", "equal", "item"), name
        return function(*args, **(kwargs or {}))


def test_a_graph_can_hold_the_variational_flow():
    flow = load_flow("variational")
    images = torch.rand(2, 1, 70, 90), torch.rand(2, 1, 70, 90)
    with torch.no_grad():
        whole = flow.from_grey(*images)
        with NoWaiting():
            found = flow.from_grey(*images)
    assert torch.equal(found, whole)
    with pytest.raises(AssertionError, match="_local_scalar_dense"), NoWaiting():
        images[0].sum().item()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_one_graph_on_a_gpu(cases):
    case = cases["zoom", "first 3"]
    flow = load_flow("variational")
    expected = flow(case.first, case.second)
    for _ in range(3):  # as it is, captured, replayed
        found = flow(case.first.cuda(), case.second.cuda())
        torch.testing.assert_close(found.cpu(), expected, rtol=0, atol=0.02)
    still = flow(case.first.cuda(), case.first.cuda())
    assert still.abs().mean() < 0.01


def test_no_flow():
    flow = load_flow("none")(torch.rand(2, 3, 4, 5), torch.rand(2, 3, 4, 5))
    assert torch.equal(flow, torch.zeros(2, 2, 4, 5))


@pytest.mark.parametrize("name", ["none", "dis", "variational"])
def test_no_gradients_and_any_float(name):
    flow = load_flow(name)
    first = torch.rand(1, 3, 20, 30, requires_grad=True)
    found = flow(first, torch.rand(1, 3, 20, 30))
    assert not found.requires_grad
    assert found.dtype == flow(first.bfloat16(), first.bfloat16()).dtype == torch.float32
    assert flow(torch.rand(0, 3, 4, 5), torch.rand(0, 3, 4, 5)).shape == (0, 2, 4, 5)
    with torch.autocast("cpu", torch.bfloat16):
        assert flow(first, first).dtype == torch.float32


def test_what_is_not_a_number_does_no_harm():
    image = torch.rand(1, 3, 40, 40)
    broken = image.clone()
    broken[0, 0, 3, 4] = torch.nan
    broken[0, 1, 30, 4] = torch.inf
    for name in ("dis", "variational"):
        assert load_flow(name)(broken, image).isfinite().all()


@pytest.mark.parametrize(
    ("first", "second", "error", "message"),
    [
        (
            torch.rand(1, 1, 4, 5),
            torch.rand(1, 1, 4, 5),
            ValueError,
            r"first must be \(N, 3, H, W\), got \(1, 1, 4, 5\)",
        ),
        (torch.rand(1, 3, 4, 5), torch.rand(1, 3, 5, 4), ValueError, "one shape"),
        (torch.rand(1, 3, 4, 5), torch.rand(1, 3, 4, 5).byte(), TypeError, "second must be floating point.*uint8"),
        (torch.rand(1, 3, 4, 5), np.zeros((1, 3, 4, 5)), TypeError, "second must be a tensor, got ndarray"),
        (torch.rand(1, 3, 4, 5), torch.rand(1, 3, 4, 5, device="meta"), ValueError, "one device, got cpu and meta"),
    ],
)
def test_what_is_no_pair_is_refused(first, second, error, message):
    with pytest.raises(error, match=message):
        load_flow("none")(first, second)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("farneback", {}, "flow must be one of dis, variational, pwc, raft, reblur, none, got 'farneback'"),
        ("none", {"preset": "fast"}, 'flow "none": .*preset'),
        ("pwc", {}, 'flow "pwc": .*weights'),
        ("dis", {"preset": "slow"}, "preset must be one of ultrafast, fast, medium, got 'slow'"),
        ("dis", {"finest_scale": 3}, "finest_scale must be from 0 to 2, got 3"),
        ("dis", {"refinements": -1}, "refinements must be at least 0, got -1"),
        ("variational", {"smoothness": 0}, "smoothness must be above 0 and finite, got 0"),
        ("variational", {"warps": 0}, "warps must be at least 1, got 0"),
        ("raft", {"model": "huge"}, "model must be one of large, small, got 'huge'"),
        ("raft", {"updates": 0}, "updates must be at least 1, got 0"),
    ],
)
def test_options_that_do_not_exist_are_refused(name, options, message):
    with pytest.raises(ValueError, match=message):
        load_flow(name, **options)


def test_without_torchvision_raft_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision", None)
    monkeypatch.delitem(sys.modules, "torchvision.models.optical_flow", raising=False)
    with pytest.raises(ModuleNotFoundError, match='flow "raft" needs a torchvision'):
        load_flow("raft")


class StandIn(nn.Module):
    """Takes what torchvision's RAFT takes, and gives the first two channels of the first image."""

    def __init__(self, weights, progress):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))
        self.weights = weights

    def forward(self, image1, image2, num_flow_updates):
        assert image1.shape == image2.shape
        assert all(size % 8 == 0 and size >= 128 for size in image1.shape[2:])
        assert -1 <= image1.min() < 0 < image1.max() <= 1
        return [torch.zeros_like(image1[:, :2])] * (num_flow_updates - 1) + [self.scale * image1[:, :2]]


def test_raft_is_given_what_it_takes(monkeypatch, tmp_path):
    library = types.ModuleType("torchvision.models.optical_flow")
    library.raft_large = library.raft_small = StandIn
    monkeypatch.setitem(sys.modules, library.__name__, library)
    first, second = torch.rand(2, 3, 50, 130), torch.rand(2, 3, 50, 130)
    flow = load_flow("raft", updates=3)
    assert isinstance(flow, RaftFlow)
    assert flow.network.weights == "DEFAULT"
    assert torch.equal(flow(first, second), 2 * first[:, :2] - 1)
    torch.save({"scale": torch.full((1,), 3.0)}, tmp_path / "raft.pth")
    flow = load_flow("raft", model="small", weights=tmp_path / "raft.pth")
    assert flow.network.weights is None
    assert torch.equal(flow(first, second), 3 * (2 * first[:, :2] - 1))
    torch.save({"size": torch.ones(1)}, tmp_path / "raft.pth")
    with pytest.raises(ValueError, match=r"raft\.pth does not fit StandIn, 2 tensors differ"):
        load_flow("raft", model="small", weights=tmp_path / "raft.pth")
