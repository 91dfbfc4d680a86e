"""The networks: any size, any precision and memory format, compiled, in tiles, trained."""

import sys

import pytest
import torch
from torch import nn

import reblur_ops
from models.core.tensors import pad_to_multiple
from models.networks import BlurMapNet, CompactNet, OwnNet, ReblurringNet, Restormer, UNet, pooled_statistics
from models.networks.initialization import initialize_as_published
from models.networks.layers import SqueezeExcite

RADII = (1, 3)
MAP_CHANNELS, _ = reblur_ops.map_channels(RADII)

OWN_MODULE = """
import torch

class Net(torch.nn.Module):
    '''Refuses sizes that are no multiple of 4; halves the size and doubles it.'''
    def __init__(self, width, channels=3, outputs=3):
        super().__init__()
        self.down = torch.nn.Conv2d(channels, width, 4, stride=4)
        self.up = torch.nn.ConvTranspose2d(width, outputs, 4, stride=4)

    def forward(self, x):
        assert x.shape[-1] % 4 == x.shape[-2] % 4 == 0
        return self.up(self.down(x))

def function(x):
    return x
"""


@pytest.fixture(autouse=True)
def own_module(tmp_path, monkeypatch):
    """A module of a user's, with a network in it."""
    (tmp_path / "their_networks.py").write_text(OWN_MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    sys.modules.pop("their_networks", None)


def small(name, map_channels=MAP_CHANNELS):
    """Each deblurring network at a small size, in evaluation mode."""
    torch.manual_seed(0)
    if name == "unet":
        network = UNet(map_channels, width=4, depth=4)
    elif name == "restormer":
        network = Restormer(map_channels, width=8, blocks=(1, 2, 1), heads=(1, 2, 2), refinement=1)
    elif name == "compact":
        network = CompactNet(map_channels, width=8, encoder=(1, 1), middle=2, decoder=(1, 1), prior_width=4)
    else:
        network = OwnNet(map_channels, class_path="their_networks.Net", arguments={"width": 5}, multiple=4)
    return network.eval()


DEBLURRING = ("unet", "restormer", "compact", "own")
MULTIPLES = {"unet": 8, "restormer": 4, "compact": 8, "own": 4}


def inputs(height, width, batch=1, map_channels=MAP_CHANNELS):
    generator = torch.Generator().manual_seed(1)
    return (
        torch.rand(batch, 3, height, width, generator=generator),
        torch.randn(batch, map_channels, height, width, generator=generator),
    )


@pytest.mark.parametrize("name", DEBLURRING)
@pytest.mark.parametrize("size", [(1, 1), (1, 19), (33, 2), (16, 24)])
@torch.no_grad()
def test_any_size_works(name, size):
    """The result is that of the image with its edge repeated, cut to size."""
    network = small(name)
    blurry, blur_map = inputs(*size)
    output = network(blurry, blur_map)
    assert output.shape == blurry.shape
    padded = [pad_to_multiple(part, MULTIPLES[name]) for part in (blurry, blur_map)]
    assert padded[0].shape[-1] % MULTIPLES[name] == 0
    # The padding does not count in the means.
    expected = network(*padded, pooled_statistics(blurry, blur_map))[..., : size[0], : size[1]]
    assert torch.allclose(output, expected, atol=1e-5)


@pytest.mark.parametrize("size", [(1, 1), (1, 19), (33, 2)])
@torch.no_grad()
def test_the_small_networks_keep_the_size(size):
    blurry, _ = inputs(*size)
    assert BlurMapNet(RADII, width=4)(blurry).shape == (1, MAP_CHANNELS, *size)
    found = ReblurringNet(RADII, width=4)(blurry, blurry)
    assert found.image.shape == blurry.shape
    assert found.radius.shape == (1, 1, *size)


@pytest.mark.parametrize("name", DEBLURRING)
@torch.no_grad()
def test_without_the_prior(name):
    network = small(name, map_channels=0)
    blurry, blur_map = inputs(17, 9)
    assert network(blurry).shape == blurry.shape
    assert torch.equal(network(blurry, blur_map), network(blurry))


@pytest.mark.parametrize("name", DEBLURRING)
@torch.no_grad()
def test_the_blur_map_makes_a_difference(name):
    network = small(name)
    blurry, blur_map = inputs(16, 16)
    assert not torch.allclose(network(blurry, blur_map), network(blurry, 3 * blur_map), atol=1e-6)


def parts():
    yield from ((name, small(name), inputs(16, 24, batch=2)) for name in DEBLURRING)
    blurry, _ = inputs(16, 24, batch=2)
    torch.manual_seed(0)
    yield "blur_map", BlurMapNet(RADII, width=4), (blurry,)
    yield "reblur", ReblurringNet(RADII, width=4, support="disk", padding="replicate"), (blurry.flip(2), blurry)


def image(output):
    return output if isinstance(output, torch.Tensor) else output.image


def test_gradients_reach_every_parameter_and_input():
    for name, network, arguments in parts():
        leaves = [argument.clone().requires_grad_() for argument in arguments]
        network.train()
        output = image(network(*leaves))
        (output - torch.rand_like(output)).square().sum().backward()
        gradients = {key: parameter.grad for key, parameter in network.named_parameters()}
        gradients.update({f"argument {index}": leaf.grad for index, leaf in enumerate(leaves)})
        for key, gradient in gradients.items():
            assert gradient is not None, f"{name}: {key}"
            assert gradient.isfinite().all(), f"{name}: {key}"
            assert gradient.abs().max() > 0, f"{name}: {key}"


@torch.no_grad()
def test_channels_last_gives_the_same():
    for name, network, arguments in parts():
        expected = image(network.eval()(*arguments))
        form = torch.channels_last
        actual = image(network.to(memory_format=form)(*(a.contiguous(memory_format=form) for a in arguments)))
        assert torch.allclose(actual, expected, atol=1e-5), name


def test_bfloat16_autocast_is_close_and_trains():
    for name, network, arguments in parts():
        with torch.no_grad():
            expected = image(network.eval()(*arguments))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            output = image(network(*arguments))
        # A few roundings of 2^-8 of numbers of this size.
        assert (output.float() - expected).abs().max() < 0.05 * expected.abs().max(), name
        output.float().mean().backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters()), name


@pytest.mark.slow
def test_compiled_without_breaks():
    for name, network, arguments in parts():
        with torch.no_grad():
            expected = image(network.eval()(*arguments))
        torch.compiler.reset()
        output = image(torch.compile(network, fullgraph=True, backend="aot_eager")(*arguments))
        assert torch.allclose(output, expected, atol=1e-5), name
        output.sum().backward()
        assert all(p.grad is not None for p in network.parameters()), name


@torch.no_grad()
def test_tiles_with_the_means_of_the_whole_agree_with_it():
    torch.manual_seed(0)
    network = UNet(MAP_CHANNELS, width=4, depth=2, dropout=0).eval()
    blurry, blur_map = inputs(64, 48)
    blurry[..., :24] *= 0.1
    blur_map[..., :24] += 5
    whole = network(blurry, blur_map)
    pooled = pooled_statistics(blurry, blur_map)
    assert torch.allclose(network(blurry, blur_map, pooled), whole, atol=1e-6)
    # The means can be added up from tiles.
    halves = [
        pooled_statistics(*(part[..., columns] for part in (blurry, blur_map)))
        for columns in (slice(24), slice(24, 48))
    ]
    assert torch.allclose(sum(halves) / 2, pooled, atol=1e-6)

    tile = [part[..., :32] for part in (blurry, blur_map)]
    inside = (..., slice(0, 16))  # further from the cut than the network sees
    assert torch.allclose(network(*tile, pooled)[inside], whole[inside], atol=1e-6)
    assert not torch.allclose(network(*tile)[inside], whole[inside], atol=1e-4)


@torch.no_grad()
def test_the_compact_network_sees_as_far_as_it_says():
    network = small("compact")
    blurry, blur_map = inputs(96, 96)
    whole = network(blurry, blur_map)
    cut = 40
    tile = network(*(part[..., cut:] for part in (blurry, blur_map)))
    reach = network.reach
    assert torch.allclose(tile[..., reach:], whole[..., cut + reach :], atol=1e-6)
    assert not torch.allclose(tile[..., : reach // 2], whole[..., cut : cut + reach // 2], atol=1e-6)


@torch.no_grad()
def test_the_compact_network_is_small_and_starts_near_the_blurry_image():
    network = CompactNet()
    assert 1e6 < sum(p.numel() for p in network.parameters()) < 2e6
    blurry, blur_map = inputs(32, 32, map_channels=35)
    assert (network(blurry, blur_map) - blurry).square().mean().sqrt() < 0.1


@torch.no_grad()
def test_reblurring_by_the_operator():
    """Image, seeds, weights and radius belong together."""
    options = {"radii": (2, 4, 8), "support": "disk", "padding": "reflect"}
    network = ReblurringNet(**options, width=4, blocks=1)
    sharp, blurry = torch.rand(2, 2, 3, 12, 20)
    found = network(sharp, blurry)
    assert found.seeds.shape == (2, 17, 12, 20)
    assert torch.allclose(found.weights.sum(dim=1), torch.ones(2, 12, 20))
    assert torch.equal(found.image, reblur_ops.reblur(sharp, found.seeds, found.weights, **options))
    expected = reblur_ops.blur_radius(found.seeds, found.weights, radii=options["radii"], support="disk")
    assert torch.equal(found.radius, expected)


@torch.no_grad()
def test_your_network_sees_the_picture_at_first():
    network = small("own")
    blurry, blur_map = inputs(16, 16)
    assert torch.allclose(network(blurry, blur_map), network.network(blurry), atol=0.05)
    arguments = {"width": 5, "channels": 7}
    residual = OwnNet(
        MAP_CHANNELS, class_path="their_networks.Net", arguments=arguments, channels=7, multiple=4, residual=True
    )
    fused = residual.fusion(torch.cat([blurry, blur_map], dim=1))
    assert torch.allclose(residual(blurry, blur_map), blurry + residual.network(fused))


@pytest.mark.parametrize(
    ("class_path", "arguments", "message"),
    [
        ("Net", {}, "of the form 'package.module.Class'"),
        ("no_such_module.Net", {}, "cannot be imported"),
        ("their_networks.Other", {}, "cannot be imported"),
        ("their_networks.function", {}, "must be a class derived from torch.nn.Module"),
        ("os.system", {"command": "false"}, "must be a class derived from torch.nn.Module"),
        ("their_networks.Net", {"widht": 5}, "refuses its arguments: .*widht"),
    ],
)
def test_what_is_no_network_of_yours(class_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        OwnNet(MAP_CHANNELS, class_path=class_path, arguments=arguments)


def test_a_network_of_yours_must_keep_the_size():
    network = OwnNet(0, class_path="their_networks.Net", arguments={"width": 5, "outputs": 4}, multiple=4)
    with pytest.raises(ValueError, match=r"\(1, 3, 8, 8\) is needed, got \(1, 4, 8, 8\)"):
        network(torch.rand(1, 3, 8, 8))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: small("unet")(torch.rand(1, 4, 8, 8), None), ValueError, r"blurry must have shape \(N, 3, H, W\)"),
        (lambda: small("unet")(torch.rand(1, 3, 0, 8), None), ValueError, "at least 1"),
        (lambda: small("unet")(torch.rand(1, 3, 8, 8)), ValueError, "needs a blur map of 6 channels, got None"),
        (
            lambda: small("compact")(*inputs(8, 8, map_channels=5)),
            ValueError,
            r"blur_map must have shape \(N, 6, H, W\)",
        ),
        (lambda: small("own")(inputs(8, 8)[0], inputs(8, 9)[1]), ValueError, "height and width of blurry"),
        (
            lambda: small("unet")(*inputs(8, 8), torch.rand(1, 3)),
            ValueError,
            r"pooled must have shape \(N, C\), \(1, 9\)",
        ),
        (
            lambda: BlurMapNet()(torch.zeros(1, 3, 8, 8, dtype=torch.uint8)),
            TypeError,
            "floating point, got torch.uint8",
        ),
        (
            lambda: ReblurringNet()(torch.rand(1, 3, 8, 8), torch.rand(1, 3, 8, 9)),
            ValueError,
            "blurry must have the batch",
        ),
        (lambda: BlurMapNet((3, 2)), ValueError, "radii must increase"),
        (lambda: UNet(width=0), ValueError, "width must be an integer of at least 1, got 0"),
        (lambda: Restormer(blocks=(1, 2), heads=(1,)), ValueError, "of one length"),
        (lambda: Restormer(width=6, heads=(1, 2, 4, 7)), ValueError, r"heads\[3\] must divide the 48 channels"),
        (lambda: CompactNet(encoder=(1,), decoder=(1, 1)), ValueError, "of one length"),
        (lambda: OwnNet(0, class_path="their_networks.Net", channels=4), ValueError, "channels must be 3"),
    ],
)
def test_what_does_not_fit_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_squeeze_excite_has_the_published_weights():
    module = SqueezeExcite(38)
    assert {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()} == {
        "squeeze.weight": (2, 38),
        "excite.weight": (38, 2),
    }
    assert isinstance(module.squeeze, nn.Linear)


def test_published_initialization():
    torch.manual_seed(0)
    unet, blur_map, reblur = UNet(depth=3, width=16), BlurMapNet(RADII), ReblurringNet(RADII)
    for network in (unet, blur_map, reblur):
        initialize_as_published(network)
    kernel = unet.encoder[1][0].weight  # 3 × 3, 32 outputs: variance 2 / (32 · 9)
    assert kernel.std().item() == pytest.approx((2 / (32 * 9)) ** 0.5, rel=0.05)
    assert all((module.bias == 0.1).all() for module in blur_map.modules() if isinstance(module, torch.nn.Conv2d))
    inner = reblur.seeds.blocks[0].conv1.weight
    assert inner.std().item() == pytest.approx((2 / (2 * 64 * 9)) ** 0.5, rel=0.05)
    compact = CompactNet(MAP_CHANNELS, width=4)
    before = [parameter.clone() for parameter in compact.parameters()]
    initialize_as_published(compact)
    assert all(map(torch.equal, before, compact.parameters()))
