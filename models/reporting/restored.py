"""Sections about restored images: pictures, kernels, and scores."""

import functools
import html
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from ..data.images import Array
from ..data.samples import Sample
from ..evaluation.metrics import PROTOCOLS, Score, score, score_radius
from ..evaluation.protocols import score_picture, to_array
from ..flow import Flow, load_flow, warp
from ..inference.tiling import TiledFramework
from ..networks import BlurRadiusNet, RadiusReblurringNet
from . import page
from .pictures import Picture, largest_radius, magnification, magnified, radius_picture, to_bytes

PROBES = 64  # kernels on the page, each way, of a picture
# A page is to be opened at once: of larger pictures it shows the middle.
LARGEST_SHOWN = 768  # pixels, each way


@dataclass(frozen=True)
class Restored:
    """A pair, and what a framework makes of it; pictures (3, H, W), 0 … 1, on the CPU."""

    sample: Sample
    deblurred: Tensor
    reblurred: Tensor | None  # `reference`, blurred to be like the blurry picture; None without the reblurring network
    radius: Tensor | None  # (1, H, W), RMS radius of that blur, pixels
    predicted: Tensor | None  # (1, H, W), RMS radius that the blurry picture alone tells; None without such a map
    # What the reblurring network sees beside the blurry picture: the deblurred one, as published; or the sharp one,
    # warped, where the blur is one of disks.
    reference: Tensor | None

    @classmethod
    def of(cls, tiled: TiledFramework, sample: Sample, flow: Flow) -> "Restored":
        deblurred = tiled.deblur(sample["blurry"], sample["name"])
        reblurred = radius = predicted = reference = None
        if tiled.framework.reblur is not None:
            by_disks = isinstance(tiled.framework.reblur, RadiusReblurringNet)
            reference = _warped(sample, flow) if by_disks else deblurred
            reblurred, radius = tiled.reblur(reference, sample["blurry"])
        if isinstance(tiled.framework.blur_map, BlurRadiusNet):
            predicted = tiled.map_radius(sample["blurry"])
        return cls(sample, deblurred, reblurred, radius, predicted, reference)

    @functools.cached_property
    def scores(self) -> tuple[Score, Score] | None:
        """Scores of the blurry and of the deblurred image against the aligned truth; None where that is not known."""
        if "aligned" not in self.sample:
            return None
        truth = to_array(self.sample["aligned"])
        return score(to_array(self.sample["blurry"]), truth), score(to_array(self.deblurred), truth)

    @functools.cached_property
    def reblurred_psnr(self) -> float | None:
        """To the blurry picture, dB."""
        return None if self.reblurred is None else score(to_array(self.reblurred), to_array(self.sample["blurry"])).psnr


def _warped(sample: Sample, flow: Flow) -> Tensor:
    """The sharp picture warped to the blurry one."""
    sharp, blurry = sample["sharp"][None], sample["blurry"][None]
    return warp(sharp, flow(blurry, sharp), padding="border", interpolation="bicubic")[0].clamp(0, 1)


def restore(tiled: TiledFramework, samples: Iterable[Sample], count: int, flow: Flow) -> list[Restored]:
    """With a progress bar; `flow` aligns what the blur is found between."""
    progress = tqdm(samples, "deblurring", count, unit="picture", delay=3)
    return [Restored.of(tiled, sample, flow) for sample in progress]


def picture_section(tiled: TiledFramework, restored: Restored) -> str:
    """A picture to wipe, the kernels under the pointer, the picture reblurred, and its blur radius."""
    sample = restored.sample
    shown = {"blurry": sample["blurry"], "deblurred": restored.deblurred, "sharp": sample["sharp"]}
    choices = [("blurry", "deblurred"), ("deblurred", "sharp")]
    caption = ""
    if restored.scores:
        shown["aligned truth"] = sample["aligned"]
        choices = [("blurry", "deblurred"), ("deblurred", "aligned truth"), ("sharp", "aligned truth")]
        before, after = restored.scores
        caption = f"PSNR to the aligned truth: blurry {before.psnr:.2f} dB, deblurred {after.psnr:.2f} dB"
    pictures = {name: enlarged(tensor) for name, tensor in shown.items()}
    title = f"<h2>{html.escape(sample['name'])}</h2>"
    comparison = f"<figure>{page.comparison(pictures, choices)}<figcaption>{caption}</figcaption></figure>"
    if restored.reblurred is None or restored.radius is None:
        return title + comparison

    kernels, radii = sampled_kernels(tiled, restored)
    figures = page.kernel_probe(pictures["blurry"], kernels, radii)
    what = "deblurred" if restored.reference is restored.deblurred else "the sharp picture, warped"
    caption = f"{what} and blurred again, {restored.reblurred_psnr:.2f} dB to the blurry picture"
    figures += page.figure(enlarged(restored.reblurred), caption, "The reblurred picture", small=True)
    maps = {"found between the two": restored.radius}
    if restored.predicted is not None:
        maps["from the blurry picture alone"] = restored.predicted
    if "blur_radius" in sample:
        maps["true"] = sample["blur_radius"]
    largest = max(largest_radius(_middle(map_)[..., 0]) for map_ in maps.values())
    for name, map_ in maps.items():
        picture = radius_picture(_middle(map_)[..., 0], largest)
        figures += page.figure(picture, f"blur radius, {name}", f"Map of the blur radius, {name}")
    return f'{title}<div class="pair">{comparison}<div class="four">{figures}</div></div>'


def enlarged(image: Tensor) -> Picture:
    """(H, W, 3) of (3, H, W), the middle of it if it is large, and magnified if it is small."""
    picture = to_bytes(_middle(image))
    return magnified(picture, magnification(picture))


def sampled_kernels(tiled: TiledFramework, restored: Restored) -> tuple[Array, Array]:
    """(rows, columns, classes) and (rows, columns): kernels, by distance class, and RMS radii, pixels, on a grid."""
    network = tiled.framework.reblur
    assert network is not None
    one, other = (
        torch.from_numpy(_middle(image)).permute(2, 0, 1)[None].to(tiled.device)
        for image in (cast(Tensor, restored.reference), restored.sample["blurry"])
    )
    height, width = one.shape[2:]
    rows, columns = min(height, PROBES), min(width, PROBES)
    ys = ((torch.arange(rows) + 0.5) * height / rows).long()
    xs = ((torch.arange(columns) + 0.5) * width / columns).long()
    with torch.inference_mode():
        found = network(one, other)
        kernels = found.tap_weights(ys, xs)
        radii = found.radius[:, :, ys][..., xs]
    return np.asarray(kernels[0].permute(1, 2, 0).cpu().numpy()), np.asarray(radii[0, 0].cpu().numpy())


def _middle(image: Tensor) -> Array:
    """(H, W, C) of (C, H, W), the middle of it if it is large."""
    height, width = image.shape[1:]
    top, left = (max(extent - LARGEST_SHOWN, 0) // 2 for extent in (height, width))
    window = image[:, top : top + LARGEST_SHOWN, left : left + LARGEST_SHOWN]
    return np.ascontiguousarray(window.permute(1, 2, 0).numpy(), np.float32)


def score_table(pictures: Sequence[Restored], protocols: Sequence[str]) -> str:
    """The scores of pictures, before and after, by each protocol."""
    flow = load_flow("dis")
    rows = []
    scores: dict[str, list[tuple[Score, Score]]] = {protocol: [] for protocol in protocols}
    for restored in tqdm(pictures, "scores", unit="picture", delay=3):
        sample = restored.sample
        before, after = (
            score_picture(to_array(image), sample, protocols, flow, None)[0]
            for image in (sample["blurry"], restored.deblurred)
        )
        blur_cells = ["", ""]
        if restored.radius is not None:
            blur_cells[0] = f"{restored.reblurred_psnr:.2f} dB"
            if "blur_radius" in sample:
                blur_cells[1] = f"{score_radius(_plane(restored.radius), _plane(sample['blur_radius'])).mae:.2f} px"
        for protocol in protocols:
            scores[protocol].append((before[protocol], after[protocol]))
            rows.append([sample["name"], protocol, *_cells(before[protocol], after[protocol]), *blur_cells])
            blur_cells = ["", ""]  # which no protocol changes
    if len(pictures) > 1:
        for protocol, pairs in scores.items():
            rows.append(["mean", protocol, *_cells(*(_mean_score(side) for side in zip(*pairs, strict=True))), "", ""])
    head = ["picture", "protocol", "PSNR, blurry", "deblurred", "SSIM, blurry", "deblurred"]
    head += ["PSNR, reblurred to blurry", "blur radius, mean error"]
    definitions = "".join(f"<li><b>{name}</b>: {PROTOCOLS[name]}</li>" for name in protocols)
    flow_used = "<p>Flow of the protocol warped: dis.</p>" if "warped" in protocols else ""
    return f"<h2>Scores</h2>{page.table(head, rows)}<ul>{definitions}</ul>{flow_used}"


def _mean_score(scores: Sequence[Score]) -> Score:
    return Score(
        *(float(np.mean([getattr(score, name) for score in scores])) for name in ("psnr", "ssim", "mae", "haarpsi"))
    )


def _plane(map_: Tensor) -> Array:
    return np.asarray(map_[0].numpy())


def _cells(before: Score, after: Score) -> list[str]:
    return [f"{before.psnr:.2f} dB", f"{after.psnr:.2f} dB", f"{before.ssim:.4f}", f"{after.ssim:.4f}"]
