"""Small problems of each kind of CUDA kernel, to run under compute-sanitizer.

compute-sanitizer --tool memcheck python3 -m benchmarks.sanitized
"""

import torch

import reblur_ops
from reblur_ops.options import DIRECTIONS, Padding

SIZE = (1, 2, 40, 70)  # height and width are no multiples of a tile


def run(device: str) -> None:
    generator = torch.Generator(device).manual_seed(0)

    def random(channels: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        shape = (SIZE[0], channels, *SIZE[2:])
        return torch.rand(shape, generator=generator, device=device).to(dtype).requires_grad_()

    for direction in DIRECTIONS:
        # The published radii, few of their own, and so many that only the largest is known when compiling.
        settings: tuple[tuple[tuple[int, ...], Padding, torch.dtype], ...] = (
            (reblur_ops.PUBLISHED_RADII, "zeros", torch.float32),
            (reblur_ops.PUBLISHED_RADII, "replicate", torch.bfloat16),
            ((2, 5, 9), "reflect", torch.float32),
            ((3, 15), "zeros", torch.float32),
        )
        for radii, padding, dtype in settings:
            seeds, weights = (random(count, dtype) for count in reblur_ops.map_channels(radii))
            image = random(SIZE[1], dtype)
            reblur_ops.reblur(image, seeds, weights, radii=radii, padding=padding, direction=direction).sum().backward()
        for radius in (7, 20):
            image, width = random(SIZE[1]), random(1)
            reblur_ops.gaussian_blur(image, 5 * width, radius=radius, direction=direction).sum().backward()
            reblur_ops.disk_blur(image, radius * width, max_radius=radius, direction=direction).sum().backward()
        reblur_ops.radial_blur(random(SIZE[1]), random(6), direction=direction).sum().backward()
        reblur_ops.isotropic_blur(random(SIZE[1]), random(15), 4, direction=direction).sum().backward()


if __name__ == "__main__":
    run("cuda")
    torch.cuda.synchronize()
