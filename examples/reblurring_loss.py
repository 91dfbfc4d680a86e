"""A plain training loop for deblurring, and the reblurring loss added to it: python examples/reblurring_loss.py"""

import skimage.data
import torch
from torch import nn
from torch.nn import functional as F

import reblur_ops

torch.manual_seed(0)
photograph = torch.from_numpy(skimage.data.astronaut()).permute(2, 0, 1)[None] / 255


def network(channels: int, out_channels: int) -> nn.Module:
    layers = [nn.Conv2d(channels, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1), nn.ReLU()]
    return nn.Sequential(*layers, nn.Conv2d(16, out_channels, 3, padding=1))


deblur = network(3, 3)
reblur = reblur_ops.nn.Reblur(radii=(1, 2, 3, 4), support="disk", padding="replicate")  # added
maps = network(6, reblur.seed_channels + reblur.weight_channels)  # added
optimizer = torch.optim.Adam([*deblur.parameters(), *maps.parameters()], lr=3e-3)
for step in range(81):
    # A pair as cameras give them: the sharp picture is a few pixels off.
    y, x, dy, dx = *torch.randint(8, 440, (2,)).tolist(), *torch.randint(-2, 3, (2,)).tolist()
    scene, sharp = photograph[..., y : y + 64, x : x + 64], photograph[..., y + dy : y + dy + 64, x + dx : x + dx + 64]
    blurry = reblur_ops.disk_blur(scene, 4 * torch.rand(1), max_radius=4, padding="replicate")

    deblurred = blurry + deblur(blurry)
    loss = F.l1_loss(deblurred, sharp)
    seeds, weights = maps(torch.cat([deblurred, blurry], dim=1)).tensor_split([reblur.seed_channels], dim=1)  # added
    reblurring = F.l1_loss(reblur(deblurred, seeds, weights.softmax(dim=1)), blurry)  # added: pixel for pixel
    optimizer.zero_grad()
    (loss + 0.5 * reblurring).backward()
    optimizer.step()
    if step % 20 == 0:
        print(f"step {step:3d}: to the sharp picture {loss:.4f}, reblurred to the blurry one {reblurring:.4f}")
