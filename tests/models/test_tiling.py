"""Tiles agree with the whole image, and memory that runs out makes them smaller."""

import dataclasses
import itertools
import subprocess
import sys

import pytest
import torch

from models.core.devices import peak_memory
from models.core.errors import UserError
from models.framework import BlurMapConfig, DeblurConfig, Framework, FrameworkConfig, ReblurConfig
from models.inference import tiling
from models.inference.tiling import Layout, TiledFramework
from models.networks import CompactNet, UNet, pooled_statistics
from models.networks.layers import SqueezeExcite

ONE_STEP = 1 / 255
AGREEMENT = 0.01 * ONE_STEP  # where the trim is as wide as the network reaches: rounding
NETWORKS = {
    "compact": DeblurConfig("compact", {"width": 8, "encoder": [1], "middle": 1, "decoder": [1]}),
    "unet": DeblurConfig("unet", {"width": 4, "depth": 3}),
    "own": DeblurConfig("own", {"class_path": "torch.nn.Conv2d", "arguments": {
        "in_channels": 3, "out_channels": 3, "kernel_size": 9, "padding": 4}}),
}  # fmt: skip


def framework(network):
    torch.manual_seed(0)
    small = {"blur_map": BlurMapConfig(4, 1), "reblur": ReblurConfig(4, 1)}
    made = Framework(FrameworkConfig((2, 4), deblur=NETWORKS[network], **small)).eval()
    with torch.no_grad():
        for parameter in made.parameters():  # so that far pixels and the statistics count
            parameter.mul_(1.4)
        for module in made.modules():
            if isinstance(module, SqueezeExcite):
                module.squeeze.weight[:, :3] += 1
                module.excite.weight.mul_(3)
    return made


@pytest.fixture(scope="module")
def image():
    """Dark on the left and bright on the right: tiles have other means than the whole."""
    noise = torch.rand(3, 200, 261, generator=torch.Generator().manual_seed(1))
    return noise * torch.linspace(0, 1, 261)


@pytest.mark.parametrize(
    ("tile", "reach", "multiple"),
    [(64, 8, 1), (100, 30, 8), (300, 100, 16), (64, 200, 8), (65, 139, 1), (384, 139, 16), (257, 139, 8)],
)
@pytest.mark.parametrize("extent", [1, 50, 64, 65, 127, 333, 1000])
def test_weights_of_a_layout_sum_to_one(tile, reach, multiple, extent):
    layout = Layout.of(tile, reach, multiple)
    total = torch.zeros(extent)
    spans = layout.spans(extent)
    for span in spans:
        assert span.start % multiple == 0
        assert span.stop == extent or span.stop % multiple == 0
        assert span.stop - span.start < max(tile + multiple, 2 * multiple + 1)
        total[span.start : span.stop] += span.weights
    assert torch.allclose(total, torch.ones(extent), atol=1e-6)
    for before, after in itertools.pairwise(spans):
        assert after.start - before.start >= tile // 4 - multiple, "small tiles do not take forever"
        assert (before.weights[-layout.trim :] == 0).all()
        assert (after.weights[: layout.trim] == 0).all()


@pytest.mark.parametrize("network", NETWORKS)
def test_tiles_agree_with_the_whole(network, image):
    made = framework(network)
    with torch.no_grad():
        whole = made(image[None])[0]
    assert whole.std() > 0.01
    tiled = TiledFramework(made, tile=144)
    assert (tiled.deblur(image) - whole).abs().max() < AGREEMENT


@pytest.mark.parametrize(("network", "restrained"), [("compact", True), ("compact", False), ("unet", False)])
def test_stages_in_tiles_agree_with_the_whole(network, restrained):
    """A map that is a radius passes over the image by itself, and so does restraint."""
    torch.manual_seed(0)
    radius = BlurMapConfig(width=4, blocks=0, form="radius", doubt=0.5)
    deblur = dataclasses.replace(NETWORKS[network], restrained=restrained)
    made = Framework(FrameworkConfig(blur_map=radius, deblur=deblur, reblur=None)).eval()
    noise = torch.rand(3, 160, 900, generator=torch.Generator().manual_seed(1))
    image = noise * torch.linspace(0, 1, 900)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.mul_(1.4)
        whole = made(image[None])[0]
    assert (whole - image).std() > 0.01
    reaches = [made.blur_map.reach, made.deblur.reach]
    tile = tiling._rounded_up(2 * (2 * max(reaches) + tiling.FADE), 16)
    assert tile < 2 * (2 * made.deblurring_reach + tiling.FADE)  # too small for all at once to agree
    found = TiledFramework(made, tile=tile).deblur(image)
    assert (found - whole).abs().max() < AGREEMENT
    assert found.min() >= 0
    assert found.max() <= 1
    assert found.stride(0) == 1


@pytest.mark.parametrize("network", ["unet", "own"])
def test_pooled_statistics_are_those_of_the_whole(network, image):
    made = framework(network)
    tiled = TiledFramework(made, tile=96)
    with torch.inference_mode():
        pooled = tiled._pooled(image, made.blur_map.net.reach, Layout.of(96, 8, 1))
        expected = pooled_statistics(image[None], made.blur_map(image[None]))
        assert torch.allclose(pooled, expected, atol=1e-5)
        # And they matter: a tile with its own is not what it is in the whole.
        corner = image[None, :, :96, :96]
        assert (made(corner) - made(corner, pooled)).abs().max() > 3 * AGREEMENT


@pytest.mark.parametrize("tile", [64, 100, 144])
def test_small_tiles_trim_what_they_can(tile):
    """What is trimmed is what a tile shows without its surroundings."""
    reach = 100
    assert Layout.of(tile, reach, 4).trim >= min(reach, tile // 5)
    assert Layout.of(4 * reach, reach, 4).trim == reach


def test_images_and_options_that_do_not_fit_are_refused(image):
    made = framework("compact")
    tiled = TiledFramework(made)
    with pytest.raises(ValueError, match=r"the image must have shape \(3, H, W\), got \(1, 3, 200, 261\)"):
        tiled.deblur(image[None])
    with pytest.raises(TypeError, match=r"the image must be a tensor of float32, got torch\.float64"):
        tiled.deblur(image.double())
    with pytest.raises(TypeError, match="the image must be a tensor of float32, got ndarray"):
        tiled.reblur(image, image.numpy())
    with pytest.raises(ValueError, match="tile must be at least 64 pixels, got 0"):
        TiledFramework(made, tile=0)
    with pytest.raises(ValueError, match="halvings must be at least 0, got -1"):
        TiledFramework(made, halvings=-1)


def test_reblurring_in_tiles_agrees_with_the_whole(image):
    made = framework("compact")
    with torch.no_grad():
        whole = made.reblur(image.flip(0)[None], image[None])
    assert whole.radius.std() > 0.01
    tiled = TiledFramework(made, tile=100)
    reblurred, radius = tiled.reblur(image.flip(0), image)
    assert torch.allclose(reblurred, whole.image[0], atol=AGREEMENT)
    assert torch.allclose(radius, whole.radius[0], atol=1e-4)
    assert torch.equal(tiled.blur_radius(image.flip(0), image), radius)


@pytest.mark.parametrize(
    ("network", "options"),
    [(CompactNet, {"width": 4, "encoder": (1,), "middle": 2, "decoder": (1,)}), (UNet, {"width": 4, "depth": 3})],
)
def test_networks_reach_no_farther_than_they_say(network, options):
    """By the gradient of pixels at all places of the network's grid."""
    torch.manual_seed(0)
    network = network(2, **options).double().eval()
    extent = 2 * network.reach + 3 * network.multiple
    extent -= extent % network.multiple
    image = torch.rand(1, 3, extent, extent, dtype=torch.float64, requires_grad=True)
    output = network(image, torch.rand(1, 2, extent, extent, dtype=torch.float64), torch.rand(1, 5))
    for pixel in range(extent // 2, extent // 2 + network.multiple):
        (gradient,) = torch.autograd.grad(output[0, :, pixel, pixel].sum(), image, retain_graph=True)
        reached = gradient.abs().amax(dim=(0, 1, 2)).nonzero()
        assert max(pixel - int(reached.min()), int(reached.max()) - pixel) <= network.reach


def test_bfloat16_is_near(image):
    made = framework("compact")
    full = TiledFramework(made).deblur(image[:, :64, :64])
    half = TiledFramework(made, bf16=True).deblur(image[:, :64, :64])
    assert half.dtype == torch.float32
    assert 0 < (half - full).abs().max() < 0.05


def test_tiles_are_halved_until_they_fit(image, monkeypatch):
    made = framework("compact")
    tiled = TiledFramework(made, tile=250)
    expected = tiled.deblur(image)
    sizes = []

    def scarce(part, pooled=None):
        sizes.append(max(part.shape[2:]))
        if sizes[-1] > 150:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return made(part, pooled)

    monkeypatch.setattr(tiled, "_deblur", scarce)
    assert (tiled.deblur(image) - expected).abs().max() < ONE_STEP
    assert sizes[0] > 150
    assert sum(size > 150 for size in sizes) == 1

    monkeypatch.setattr(tiled, "_deblur", lambda *_: torch.empty(2**50))
    with pytest.raises(UserError, match="out of memory on cpu, even in tiles of 64 pixels"):
        tiled.deblur(image)


def test_other_errors_pass(image, monkeypatch):
    tiled = TiledFramework(framework("compact"))
    monkeypatch.setattr(tiled, "_deblur", lambda *_: torch.ones(2) @ torch.ones(3))
    with pytest.raises(RuntimeError, match="size"):
        tiled.deblur(image)


def test_tiles_are_chosen_from_the_memory_that_is_free(image, monkeypatch):
    made = framework("compact")
    asked = []
    tiled = TiledFramework(made)
    monkeypatch.setattr(tiled, "_deblur", lambda part, pooled: asked.append(part.shape[2:]) or made(part, pooled))
    large = image.repeat(1, 1, 2)
    monkeypatch.setattr(tiling, "free_memory", lambda _: 2**40)
    tiled.deblur(large)
    assert asked == [large.shape[1:]]
    asked.clear()
    monkeypatch.setattr(tiling, "free_memory", lambda _: 32 * 2**20)
    expected = tiled.deblur(large)
    assert len(asked) > 1
    pixels = max(height * width for height, width in asked)
    per_pixel = tiled._bytes_per_pixel["deblur"]
    assert 8 * 2**20 < pixels * per_pixel <= 16.8 * 2**20, "half of what is free"
    with torch.no_grad():
        assert (made(large[None])[0] - expected).abs().max() < AGREEMENT


def test_peak_memory_counts_what_is_held_at_once():
    ones = torch.ones(1000)

    def call():
        first = ones + 1  # 4000 bytes
        second = first * 2  # and 4000
        del first
        second.add_(1)  # in place
        return second[:10] + ones[:10]  # a view, and 40

    assert peak_memory(call) == 8000


LIMITED = """
import resource, sys, torch
from models.framework import Framework
from models.inference.tiling import TiledFramework
torch.manual_seed(0)
image = torch.rand(3, 512, 640)
tiled = TiledFramework(Framework().eval(), tile=640)
tiled.deblur(image[:, :64, :64])
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + int(sys.argv[1]) * 2**20,) * 2)
print(tuple(tiled.deblur(image).shape))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.slow
def test_memory_that_really_runs_out_makes_tiles_smaller():
    """With less than the whole needs, about 220 MB, and more than its quarters do."""
    command = [sys.executable, "-c", LIMITED, "130"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.stdout == "(3, 512, 640)\n", result.stderr
