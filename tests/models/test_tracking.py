"""Trackers and profiles: what a training tells them, and where it is written."""

import sys
import types

import numpy as np
import pytest
import torch

from models.training import tracking
from models.training.config import OutputConfig
from models.training.profiling import FILES, WAIT, WARM_UP, explain_none, profiled
from models.training.progress import Progress
from models.training.tracking import check_trackers, open_trackers


class FakeWandb(types.ModuleType):
    """Remembers what it is told."""

    def __init__(self):
        super().__init__("wandb")
        self.calls = []
        self.util = types.SimpleNamespace(generate_id=lambda: "abc")
        self.Image = lambda picture: ("image", picture.shape)

    def init(self, **options):
        self.calls.append(("init", options))
        return types.SimpleNamespace(
            log=lambda values, step: self.calls.append(("log", values, step)),
            finish=lambda: self.calls.append(("finish",)),
        )


def test_weights_and_biases_is_told_and_goes_on_under_its_name(tmp_path, monkeypatch):
    fake = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    trackers = open_trackers(OutputConfig(wandb="reblur"), tmp_path, {"seed": 3})
    with Progress(0, 10, False, trackers) as progress:
        record = {"stage": "joint", "step": 5, "loss": 0.5, "parts": {"deblurred": 0.25}, "psnr": None, "lr": 1e-3}
        progress.metrics({**record, "images_per_second": 8.0})
        progress.picture(5, np.zeros((4, 6, 3), np.uint8))
    begun, scalars, picture, end = fake.calls
    assert begun[1]["project"] == "reblur"
    assert begun[1]["config"] == {"seed": 3}
    assert scalars[1]["train/loss"] == 0.5
    assert scalars[1]["train/loss/deblurred"] == 0.25
    assert scalars[2] == 5
    assert picture[1:] == ({"samples": ("image", (4, 6, 3))}, 5)
    assert end == ("finish",)
    open_trackers(OutputConfig(wandb="reblur"), tmp_path, {})
    assert fake.calls[-1][1]["id"] == begun[1]["id"] == "abc"


@pytest.mark.parametrize(
    ("output", "package"), [(OutputConfig(tensorboard=True), "tensorboard"), (OutputConfig(wandb="x"), "wandb")]
)
def test_a_tracker_that_is_not_installed_is_named(output, package, monkeypatch):
    def missing(name):
        raise ImportError(name)

    monkeypatch.setattr(tracking.importlib, "import_module", missing)
    with pytest.raises(ModuleNotFoundError, match=f"output.{package} needs the package {package}"):
        check_trackers(output)
    check_trackers(OutputConfig())
    assert open_trackers(OutputConfig(), None, {}) == []


def test_a_profile_that_will_not_be_written_is_told():
    assert explain_none(20, 30) is explain_none(20, 25) is explain_none(0, 1) is None
    assert explain_none(20, 4) == "no profile: 20 steps need 25, and 4 are left"


def test_a_profile_of_some_steps(tmp_path):
    weight = torch.rand(64, 64, requires_grad=True)
    with profiled(tmp_path / "profile", 2, torch.device("cpu")) as profile:
        for step in range(WAIT + WARM_UP + 4):
            (weight @ weight).sum().backward()
            profile.step()
            written = all((tmp_path / "profile" / name).exists() for name in FILES)
            assert written == (step + 1 >= WAIT + WARM_UP + 2)
    assert "aten::mm" in (tmp_path / "profile" / FILES[1]).read_text()
    with profiled(tmp_path / "none", 0, torch.device("cpu")) as nothing:
        assert nothing is None
    assert not (tmp_path / "none").exists()
