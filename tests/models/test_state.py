"""The state of a training and its validation: gradients, the average of the weights, scores."""

import numpy as np
import pytest
import torch
from torch import nn

from models.flow import NoFlow
from models.training import validation
from models.training.config import AlignmentConfig, OptimizerConfig, load_config
from models.training.losses import Losses
from models.training.objective import Aligner
from models.training.state import make_state

TINY = [
    "framework.radii=[1,2]",
    "framework.blur_map={width: 4, blocks: 1}",
    "framework.deblur={network: compact, options: {width: 4, encoder: [1], middle: 1, decoder: [1]}}",
    "framework.reblur={width: 4, blocks: 1, form: kernels}",
]


@pytest.fixture
def state():
    return make_state(load_config("official", [*TINY, "optimizer.ema=0.9"]), torch.device("cpu"))


def norms(state):
    return [float(sum(p.grad.square().sum() for p in part.parameters()).sqrt()) for part in state.framework.children()]


def test_each_network_is_clipped_by_itself_and_the_norm_is_that_before(state):
    def step(clip):
        state.optimizer.zero_grad()
        sums = [
            factor * sum(p.sum() for p in part.parameters())
            for factor, part in zip((1, 1e-6, 10), state.framework.children(), strict=True)
        ]
        return state.backward(Losses.of({"sum": torch.stack(sums).sum()}), OptimizerConfig(clip=clip), lr=0.5)

    whole = step(None)
    before = norms(state)
    assert whole == pytest.approx(np.linalg.norm(before))
    assert step(0.01) == pytest.approx(whole)
    assert norms(state) == pytest.approx([0.01, before[1], 0.01], rel=1e-3)
    assert state.optimizer.param_groups[0]["lr"] == 0.5


@pytest.mark.parametrize(("done", "decay"), [(0, 0.1), (10, 0.55), (1000, 0.9)])
def test_the_average_follows_closely_at_first(state, done, decay):
    before = [parameter.detach().clone() for parameter in state.average.parameters()]
    state.step = done
    with torch.no_grad():
        for parameter in state.framework.parameters():
            parameter.add_(1)
    state.update(OptimizerConfig(ema=0.9))
    for old, average in zip(before, state.average.parameters(), strict=True):
        torch.testing.assert_close(average, old + 1 - decay, atol=1e-5, rtol=0)


class Plain(nn.Module):
    """Deblurs nothing."""

    blur_map = reblur = None

    def forward(self, blurry):
        return blurry


class ToTheRight(NoFlow):
    def estimate(self, first, second):
        return torch.zeros_like(first[:, :2]) + torch.tensor([3.0, 0.0])[:, None, None]


def test_pictures_without_truth_are_scored_where_the_flow_stays_inside():
    aligner = Aligner(AlignmentConfig(flow="none"))
    aligner.flow = ToTheRight()
    blurry = torch.rand(3, 20, 30, generator=torch.Generator().manual_seed(0))
    sharp = blurry.roll(3, 2) + 0.1
    scores = validation._score(Plain(), {"blurry": blurry, "sharp": sharp}, aligner, torch.device("cpu"))
    assert scores == {"deblurred_psnr": pytest.approx(20, abs=1e-3), "input_psnr": pytest.approx(20, abs=1e-3)}


def test_the_correlation_is_over_all_pixels_of_all_pairs():
    generator = np.random.default_rng(0)
    found = [generator.random((4, 5)), 3 + generator.random((6, 7))]
    true = [one + 0.3 * generator.random(one.shape) for one in found]
    moments = [validation._moments(*pair) for pair in zip(found, true, strict=True)]
    expected = np.corrcoef(*(np.concatenate([one.ravel() for one in each]) for each in (found, true)))[0, 1]
    assert validation._correlation(moments) == pytest.approx(expected)
    assert validation._correlation([validation._moments(np.ones((2, 2)), np.eye(2))]) is None
