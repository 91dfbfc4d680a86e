"""Self-contained HTML pages: what the reports of runs and the gallery are made of.

Each function gives a piece of HTML; texts are escaped here.
"""

import base64
import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template

import numpy as np

from ..core.files import replacing
from ..data.images import Array
from .pictures import Picture, encoded

# Seven colours that people with any colour vision tell apart, on white and on black (Okabe and Ito, 2008).
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#b8a800")
CHART = (480, 240)  # width and height of a chart, in its own units
MARGINS = (52, 12, 8, 26)  # left, right, top, bottom


def write(path: Path, title: str, body: str) -> None:
    """Write a page, whole or not at all: nothing else is needed to show it.

    Raises:
        OSError: it cannot be written.
    """
    template = Template(Path(__file__).with_name("page.html").read_text(encoding="utf-8"))
    with replacing(path) as file:
        file.write(template.substitute(title=html.escape(title), body=body).encode())


def source(picture: Picture, *, small: bool = False) -> str:
    """The picture itself as the `src` of an image: PNG, or, where it is small, JPEG of a fifth of the size."""
    kind, extension = ("jpeg", ".jpg") if small else ("png", ".png")
    return f"data:image/{kind};base64,{base64.b64encode(encoded(picture, extension)).decode()}"


def image(picture: Picture, alt: str, *, small: bool = False) -> str:
    return f'<img src="{source(picture, small=small)}" alt="{html.escape(alt)}">'


def figure(picture: Picture, caption: str, alt: str, *, small: bool = False) -> str:
    """A picture and a line below it; the caption is HTML."""
    return f"<figure>{image(picture, alt, small=small)}<figcaption>{caption}</figcaption></figure>"


def numbers(values: Mapping[str, str]) -> str:
    """Cards with a number each, by what it is."""
    cards = (
        f"<div><b>{html.escape(value)}</b><span>{html.escape(name)}</span></div>" for name, value in values.items()
    )
    return f'<div class="numbers">{"".join(cards)}</div>'


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    def line(cells: Sequence[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"

    return f'<div class="scroll"><table>{line(head, "th")}{"".join(line(row, "td") for row in rows)}</table></div>'


def comparison(pictures: Mapping[str, Picture], choices: Sequence[tuple[str, str]]) -> str:
    """Pictures of one size, one wiped over another by a slider, and buttons for the pairs, by their names."""
    buttons = "".join(
        f'<button data-left="{html.escape(left)}" data-right="{html.escape(right)}">'
        f"{html.escape(left)} | {html.escape(right)}</button>"
        for left, right in choices
    )
    shown = "".join(
        f'<img data-name="{html.escape(name)}" src="{source(picture)}" alt="The {html.escape(name)} picture">'
        for name, picture in pictures.items()
    )
    return (
        f'<div class="comparison"><div class="choice">{buttons}</div><div class="wipe">{shown}<output></output>'
        '<output></output><input type="range" min="0" max="100" step="0.1" value="50" '
        'aria-label="where one picture gives way to the other"></div></div>'
    )


def kernel_probe(picture: Picture, kernels: Array, radius: Array) -> str:
    """A picture that shows in a corner the kernel under the pointer.

    Args:
        picture: what the pointer moves over.
        kernels: (rows, columns, classes), on a grid over the picture, as `reblur_ops.tap_weights` numbers classes.
        radius: (rows, columns), the RMS radius of each, pixels, below 256.
    """
    rows, columns, classes = kernels.shape
    reach = (math.isqrt(8 * classes + 1) - 3) // 2  # classes = (reach + 1)(reach + 2)/2
    largest = np.maximum(kernels.max(axis=2, keepdims=True), 1e-12)
    weights = np.rint(255 * np.clip(kernels / largest, 0, 1)).astype(np.uint8)
    radii = np.rint(256 * np.clip(radius, 0, 255)).astype("<u2")
    data = {"weights": weights, "radii": radii}
    encoded = "".join(
        f' data-{name}="{base64.b64encode(np.ascontiguousarray(values).tobytes()).decode()}"'
        for name, values in data.items()
    )
    shown = image(picture, "Move over it to see the kernels", small=True)
    return (
        f'<figure class="probe" data-rows="{rows}" data-columns="{columns}" data-reach="{reach}"{encoded}>'
        f'<div class="map">{shown}<i></i><canvas></canvas></div>'
        "<figcaption>blurry, and the kernel found under the pointer, RMS radius <output></output></figcaption></figure>"
    )


@dataclass(frozen=True)
class Series:
    """A line of a chart: values at steps, finite."""

    name: str
    steps: Sequence[float]
    values: Sequence[float]


def chart(title: str, series: Sequence[Series]) -> str:
    """Lines over steps, as SVG, with a legend."""
    width, height = CHART
    left, right, top, bottom = MARGINS
    last = max(max(line.steps) for line in series) or 1
    ticks = _ticks([value for line in series for value in line.values])
    low, high = ticks[0], ticks[-1]

    def x(step: float) -> float:
        return left + (width - left - right) * step / last

    def y(value: float) -> float:
        return height - bottom - (height - top - bottom) * (value - low) / (high - low)

    parts = []
    for tick in ticks:
        parts.append(f'<line class="axis" x1="{left}" x2="{width - right}" y1="{y(tick):.1f}" y2="{y(tick):.1f}"/>')
        parts.append(f'<text x="{left - 6}" y="{y(tick) + 4:.1f}" text-anchor="end">{tick:.6g}</text>')
    for step in (0, last):
        anchor = "end" if step else "start"
        parts.append(f'<text x="{x(step):.1f}" y="{height - 8}" text-anchor="{anchor}">{step:g}</text>')
    parts.append(f'<text x="{(left + width - right) / 2}" y="{height - 8}" text-anchor="middle">step</text>')
    legend = ""
    for line, colour in zip(series, COLOURS, strict=False):
        points = [f"{x(step):.1f},{y(value):.1f}" for step, value in zip(line.steps, line.values, strict=True)]
        if len(points) == 1:
            points *= 2  # a line without length is a dot
        parts.append(f'<polyline points="{" ".join(points)}" stroke="{colour}"/>')
        legend += f'<span><i style="background: {colour}"></i>{html.escape(line.name)}</span>'
    name = html.escape(title)
    drawing = f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{name}">{"".join(parts)}</svg>'
    return f'<figure><b>{name}</b>{drawing}<figcaption class="legend">{legend}</figcaption></figure>'


def _ticks(values: Sequence[float]) -> list[float]:
    """Four to nine round numbers, evenly spaced, from below the smallest value to above the largest."""
    low, high = min(values), max(values)
    if high - low < 1e-9 * max(abs(high), 1e-3):
        low, high = low - 0.5 * max(abs(low), 1e-3), high + 0.5 * max(abs(high), 1e-3)
    power = 10.0 ** math.floor(math.log10((high - low) / 4))
    step = max(factor * power for factor in (1, 2, 5) if factor * power <= (high - low) / 4 * 1.000001)
    return [step * number for number in range(math.floor(low / step), math.ceil(high / step) + 1)]
