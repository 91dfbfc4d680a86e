"""The kernels of each family as pictures: what a pixel of the output takes from the image."""

import pytest
import torch

import reblur_ops
from reblur_ops import disk_kernel, gaussian_kernel, isotropic_kernel, radial_kernel


def _taken(blur, channels: int, radius: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Parameters at a pixel, and its kernel, by the gradient of its value to the image."""
    torch.manual_seed(0)
    side = 2 * radius + 3
    parameters = torch.rand(1, channels, side, side, dtype=torch.float64) * 2 + 0.3
    image = torch.rand(1, 1, side, side, dtype=torch.float64, requires_grad=True)
    blur(image, parameters)[0, 0, radius + 1, radius + 1].backward()
    return parameters[0, :, radius + 1, radius + 1], image.grad[0, 0, 1:-1, 1:-1]


@pytest.mark.parametrize("radius", [3, 20])
def test_gaussian_and_disk(radius):
    values, taken = _taken(lambda x, p: reblur_ops.gaussian_blur(x, p, radius=radius), 1, radius)
    torch.testing.assert_close(gaussian_kernel(values, radius=radius)[0], taken)
    values, taken = _taken(lambda x, p: reblur_ops.disk_blur(x, p, max_radius=radius), 1, radius)
    torch.testing.assert_close(disk_kernel(values, max_radius=radius)[0], taken)


@pytest.mark.parametrize("support", ["square", "disk"])
@pytest.mark.parametrize("normalize", ["softmax", "sum", "none"])
def test_radial(normalize, support):
    options = {"normalize": normalize, "support": support}
    values, taken = _taken(lambda x, p: reblur_ops.radial_blur(x, p, **options), 5, 4)
    torch.testing.assert_close(radial_kernel(values[None], **options)[0], taken)


def test_taps():
    values, taken = _taken(lambda x, p: reblur_ops.isotropic_blur(x, p, 3), 10, 3)
    torch.testing.assert_close(isotropic_kernel(values[None], 3)[0], taken)


def test_many_pixels_half_precision_and_gradients():
    sigma = torch.tensor([0.5, 1.0, 2.0], requires_grad=True)
    pictures = gaussian_kernel(sigma, radius=6)
    assert pictures.shape == (3, 13, 13)
    torch.testing.assert_close(pictures.sum((1, 2)), torch.ones(3))
    pictures[:, 6, 6].sum().backward()
    assert (sigma.grad < 0).all()
    assert disk_kernel(torch.rand(2).bfloat16(), max_radius=2).dtype == torch.bfloat16
    assert gaussian_kernel(torch.rand(0), radius=2).shape == (0, 5, 5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: gaussian_kernel(torch.rand(2, 1), radius=2), r"sigma must have shape \(P,\)"),
        (lambda: gaussian_kernel(1.0, radius=2), "sigma must be a torch.Tensor, got float"),
        (lambda: disk_kernel(torch.ones(2, dtype=torch.long), max_radius=2), "radii must be floating point"),
        (lambda: disk_kernel(torch.rand(2), max_radius=65), "max_radius must lie between 1 and 64, got 65"),
        (lambda: radial_kernel(torch.rand(2, 17)), "profile must have shape .* with C 2 to 16"),
        (lambda: isotropic_kernel(torch.rand(2, 5), 2), "tap_weights must have shape .* with C 6"),
    ],
)
def test_refuses(call, message):
    with pytest.raises((TypeError, ValueError), match=message):
        call()
