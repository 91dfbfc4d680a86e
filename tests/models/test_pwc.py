"""PWC-Net: its structure, its parts against slow ones written from their definitions, and the loading of weights."""

import copy
import os
import pickle
import zlib

import pytest
import torch
from torch.nn import functional as F

from models.flow import load_flow, load_pwcnet, pwc

pytestmark = pytest.mark.slow

LEVELS = ("One", "Two", "Thr", "Fou", "Fiv", "Six")
CHANNELS = (16, 32, 64, 96, 128, 196)


def public_shapes():
    """The parameters' names and shapes in the public weights."""
    layers = []
    for i, (level, width) in enumerate(zip(LEVELS, CHANNELS, strict=True)):
        for position, inputs in ((0, (3, *CHANNELS)[i]), (2, width), (4, width)):
            layers.append((f"netExtractor.net{level}.{position}", (width, inputs, 3, 3), width))
    features = {}
    for i in range(5, 0, -1):
        inputs = 81
        if i < 5:
            inputs += CHANNELS[i] + 4
            layers.append((f"net{LEVELS[i]}.netUpflow", (2, 2, 4, 4), 2))
            layers.append((f"net{LEVELS[i]}.netUpfeat", (features[i + 1], 2, 4, 4), 2))
        for level, width in zip(LEVELS, (128, 128, 96, 64, 32, 2), strict=True):
            layers.append((f"net{LEVELS[i]}.net{level}.0", (width, inputs, 3, 3), width))
            inputs += width
        features[i] = inputs - 2
    inputs = features[1]
    for position, width in enumerate((128, 128, 128, 96, 64, 32, 2)):
        layers.append((f"netRefiner.netMain.{2 * position}", (width, inputs, 3, 3), width))
        inputs = width
    return {
        f"{name}.{kind}": shape
        for name, weight, bias in layers
        for kind, shape in (("weight", weight), ("bias", (bias,)))
    }


def random_state():
    state = {}
    for name, shape in public_shapes().items():
        generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
        fan_in = torch.Size(shape[1:]).numel()
        state[name] = torch.randn(shape, generator=generator) * (fan_in**-0.5 if len(shape) > 1 else 0.05)
    return state


@pytest.fixture(scope="module")
def state():
    return random_state()


@pytest.fixture(scope="module")
def network(state):
    return load_pwcnet(state)


def images(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(shape, generator=generator), torch.rand(shape, generator=generator)


def slow_cost_volume(first, second):
    n, channels, height, width = first.shape
    volume = torch.zeros(n, 81, height, width)
    for y in range(height):
        for x in range(width):
            for dy in range(-4, 5):
                for dx in range(-4, 5):
                    if 0 <= y + dy < height and 0 <= x + dx < width:
                        product = first[:, :, y, x] * second[:, :, y + dy, x + dx]
                        volume[:, (dy + 4) * 9 + dx + 4, y, x] = product.sum(dim=1) / channels
    return volume


def slow_warp(features, flow):
    """A displacement of d pixels, divided by (size-1)/2 in coordinates that are size/2 to the pixel, is one of
    d·size/(size-1) pixels. What is in the image by less than 0.999 of its weight is zero."""
    n, channels, height, width = features.shape
    warped = torch.zeros(n, channels, height, width)
    for i in range(n):
        for y in range(height):
            for x in range(width):
                right = x + flow[i, 0, y, x].item() * width / (width - 1)
                down = y + flow[i, 1, y, x].item() * height / (height - 1)
                left, top = int(right // 1), int(down // 1)
                inside, value = 0.0, torch.zeros(channels)
                for row, part_y in ((top, 1 - (down - top)), (top + 1, down - top)):
                    for column, part_x in ((left, 1 - (right - left)), (left + 1, right - left)):
                        if 0 <= row < height and 0 <= column < width:
                            inside += part_y * part_x
                            value += part_y * part_x * features[i, :, row, column]
                if inside > 0.999:
                    warped[i, :, y, x] = value
    return warped


def slow_network(state, first, second):
    """PWC-Net again, from the public weights' own names."""

    def conv(name, x, **options):
        return F.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"], **options)

    def relu(x):
        return torch.where(x > 0, x, 0.1 * x)

    def pyramid(x):
        features = []
        for level in LEVELS:
            x = relu(conv(f"netExtractor.net{level}.0", x, stride=2, padding=1))
            x = relu(conv(f"netExtractor.net{level}.2", x, padding=1))
            x = relu(conv(f"netExtractor.net{level}.4", x, padding=1))
            features.append(x)
        return features

    height, width = first.shape[2:]
    tall, wide = ((size + 63) // 64 * 64 for size in (height, width))
    ours, theirs = (
        pyramid(F.interpolate(image, size=(tall, wide), mode="bilinear", align_corners=False))
        for image in (first, second)
    )
    flow = features = None
    for i in (5, 4, 3, 2, 1):
        name = f"net{LEVELS[i]}"
        if flow is None:
            features = relu(slow_cost_volume(ours[i], theirs[i]))
        else:
            up = {
                part: F.conv_transpose2d(
                    x, state[f"{name}.{part}.weight"], state[f"{name}.{part}.bias"], stride=2, padding=1
                )
                for part, x in (("netUpflow", flow), ("netUpfeat", features))
            }
            scale = {4: 0.625, 3: 1.25, 2: 2.5, 1: 5.0}[i]
            volume = relu(slow_cost_volume(ours[i], slow_warp(theirs[i], up["netUpflow"] * scale)))
            features = torch.cat([volume, ours[i], up["netUpflow"], up["netUpfeat"]], dim=1)
        for layer in LEVELS[:5]:
            features = torch.cat([relu(conv(f"{name}.net{layer}.0", features, padding=1)), features], dim=1)
        flow = conv(f"{name}.netSix.0", features, padding=1)
    x = features
    for position, dilation in zip(range(0, 12, 2), (1, 2, 4, 8, 16, 1), strict=True):
        x = relu(conv(f"netRefiner.netMain.{position}", x, padding=dilation, dilation=dilation))
    flow = 20 * (flow + conv("netRefiner.netMain.12", x, padding=1))
    flow = F.interpolate(flow, size=(height, width), mode="bilinear", align_corners=False)
    return flow * torch.tensor([width / wide, height / tall]).view(1, 2, 1, 1)


def relative_error(actual, expected):
    return ((actual - expected).abs().max() / expected.abs().max()).item()


def test_it_has_the_parameters_of_the_public_weights(network, state):
    assert sum(parameter.numel() for parameter in network.parameters()) == 9_374_274
    assert sorted(map(pwc.public_name, network.state_dict())) == sorted(state)


def test_cost_volume_against_its_definition():
    first, second = torch.randn(2, 5, 7, 6), torch.randn(2, 5, 7, 6)
    assert relative_error(pwc.cost_volume(first, second), slow_cost_volume(first, second)) < 1e-6


def test_feature_warp_against_its_definition():
    generator = torch.Generator().manual_seed(0)
    features, flow = (torch.randn(2, channels, 9, 7, generator=generator) for channels in (5, 2))
    for scale in (0.0, 0.3, 4.0):
        expected = slow_warp(features, scale * flow)
        assert relative_error(pwc.warp_features(features, scale * flow), expected) < 1e-5
        zeros = (expected == 0).float().mean()
        assert zeros == 0 if scale == 0 else 0.1 < zeros < 0.9


@pytest.mark.parametrize("shape", [(2, 3, 64, 64), (1, 3, 50, 70)])
def test_the_network_against_its_definition(network, state, shape):
    first, second = images(*shape)
    flow = network(first, second)
    assert flow.abs().mean() > 0.1, "the comparison needs a flow that moves"
    assert relative_error(flow, slow_network(state, first, second)) < 1e-5


@pytest.mark.parametrize("size", [(1, 1), (64, 64), (65, 3), (130, 97)])
def test_any_size(network, size):
    first, second = images(1, 3, *size)
    flow = network(first, second)
    assert flow.shape == (1, 2, *size)
    assert flow.isfinite().all()
    assert not flow.requires_grad


def test_a_batch_is_its_images(network):
    first, second = images(3, 3, 70, 90)
    one_by_one = torch.cat([network(a[None], b[None]) for a, b in zip(first, second, strict=True)])
    assert relative_error(network(first, second), one_by_one) < 1e-5


def test_autocast_layouts_dtypes_and_copies(network):
    first, second = images(1, 3, 64, 64)
    expected = network(first, second)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(network(first, second), expected)
    channels_last = copy.deepcopy(network).to(memory_format=torch.channels_last)
    laid_out = (image.to(memory_format=torch.channels_last) for image in (first, second))
    assert relative_error(channels_last(*laid_out), expected) < 1e-5
    double = copy.deepcopy(network).double()(first.double(), second.double())
    assert double.dtype == torch.float32
    assert relative_error(double, expected) < 1e-4
    assert network(first.half(), second.half()).dtype == torch.float32


def test_it_compiles_without_graph_breaks(network):
    first, second = images(1, 3, 64, 64)
    compiled = torch.compile(network, fullgraph=True, backend="eager")
    assert relative_error(compiled(first, second), network(first, second)) < 1e-5


def test_gradients_pass_when_asked_for(network):
    """As a flow it records none; its parts do, for whoever trains it."""
    trainable = copy.deepcopy(network).requires_grad_(True)
    first, second = images(1, 3, 64, 64)
    trainable.quarter_flow(first, second).square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in trainable.parameters())


def test_public_weights_are_for_bgr(state):
    first, second = images(1, 3, 64, 64)
    as_given = load_pwcnet(state)(first.flip(1), second.flip(1))
    assert torch.equal(load_pwcnet(state, channel_order="bgr")(first, second), as_given)
    assert torch.equal(load_flow("pwc", weights=state)(first, second), as_given)
    with pytest.raises(ValueError, match="rgb, bgr, got 'gbr'"):
        load_pwcnet(state, channel_order="gbr")


@pytest.mark.parametrize(
    "rename",
    [
        lambda name: name,
        lambda name: f"module.{name}",
        lambda name: name.replace("net", "module"),
        lambda name: f"module.{name.replace('net', 'module')}",
    ],
)
def test_weights_from_files_and_dicts_under_their_names(network, state, rename, tmp_path):
    renamed = {rename(name): tensor for name, tensor in state.items()}
    torch.save(renamed, tmp_path / "weights.pth")
    for source in (renamed, tmp_path / "weights.pth", str(tmp_path / "weights.pth")):
        loaded = load_pwcnet(source)
        assert not loaded.training
        assert not any(parameter.requires_grad for parameter in loaded.parameters())
        for name, tensor in network.state_dict().items():
            assert torch.equal(loaded.state_dict()[name], tensor)


def test_what_does_not_fit_is_refused_by_name(state):
    wrong = dict(state)
    wrong["netTwo.netOne.0.weight"] = torch.zeros(128, 116, 3, 3)
    del wrong["netRefiner.netMain.12.bias"]
    wrong["netSeven.weight"] = torch.zeros(1)
    with pytest.raises(ValueError, match="does not fit PWCNet, 3 tensors differ") as refused:
        load_pwcnet(wrong)
    message = str(refused.value)
    assert "missing: netRefiner.netMain.12.bias (2,)" in message
    assert "unknown: netSeven.weight (1,)" in message
    assert "shape of netTwo.netOne.0.weight: (128, 117, 3, 3) needed, got (128, 116, 3, 3)" in message
    with pytest.raises(ValueError, match="126 tensors differ"):
        load_pwcnet({})
    with pytest.raises(ValueError, match="got int for 'epoch'"):
        load_pwcnet({"epoch": 3})


class Malicious:
    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


def test_files_that_run_code_are_refused_and_run_nothing(state, tmp_path):
    harm = tmp_path / "harm"
    torch.save({**state, "more": Malicious(harm)}, tmp_path / "zipped.pth")
    (tmp_path / "pickled.pth").write_bytes(pickle.dumps(Malicious(harm)))
    for name in ("zipped.pth", "pickled.pth"):
        with pytest.raises(ValueError, match=f"{name} must hold tensors, .* which was not done"):
            load_pwcnet(tmp_path / name)
    assert not harm.exists()
    pickle.loads((tmp_path / "pickled.pth").read_bytes())
    assert harm.exists(), "they would have"


def test_broken_files_are_refused(state, tmp_path):
    path = tmp_path / "weights.pth"
    torch.save(state, path)
    whole = path.read_bytes()
    for content in (b"", b"not weights", whole[: len(whole) // 2], whole[:-1000], b"\x89PNG\r\n\x1a\n" + bytes(100)):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"must hold tensors, .* which was not done"):
            load_pwcnet(path)
    torch.save(torch.zeros(3), path)
    with pytest.raises(ValueError, match="must hold a dict of tensors, got Tensor"):
        load_pwcnet(path)
    with pytest.raises(ValueError, match=r"cannot read .*missing\.pth: No such file"):
        load_pwcnet(tmp_path / "missing.pth")
