"""What does each setting of the pairs that are made while training bring?

    python -m benchmarks.synthesis --photographs DIR --validation DIR [--steps 200] [--real DIR]

Each setting is left out once: the deblurring network of the checkpoint in the box is trained on by the recipe
`compact`, on pairs made of the photographs without it, with its blur map, which stays as it is. So the rows tell what a
network forgets that no longer sees a thing. (From nothing, short trainings differ more by their seeds than by any
setting: `benchmarks/LOG.md`.) Scored without doubt and restraint on photographs degraded in known ways
(`benchmarks.degradations`) and on real ones (`benchmarks.real`, light fields at half size). With everything, three
seeds tell what chance does. Interrupted, the same command goes on.
"""

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from benchmarks import degradations, harness, real
from benchmarks.candidates import COMPACT, add_folders, check_folders, settings_for, train
from models.checkpoints.load import load_framework
from models.inference.tiling import TiledFramework
from models.tasks.arguments import integer

NETWORK = {"network": "compact", "options": COMPACT}
START = ["start.parts=[blur_map,deblur]", "optimizer.lr=5e-4"]
EVERYTHING = "everything"
SEEDS = 3  # of it

# What is left out, and the settings of `data.generator` that do so.
LEFT_OUT: dict[str, dict[str, object]] = {
    "other apertures than disks": {"disks": 1},
    "polygons": {"polygons": 0},
    "rings": {"rings": 0},
    "the rim's cut": {"cut": 0},
    "softness": {"softness": 0},
    "colours blurred apart": {"dispersion": 0},
    "highlights": {"highlights": 0},
    "noise": {"noise": 0},
    "JPEG": {"compressed": 0},
    "tone curves": {"tone": 0},
    "sharpening": {"sharpening": 0},
    "pictures in focus": {"in_focus": 0},
    "natural softness": {"natural": 0},
    "layers": {"several": 0},
    "slant": {"slant": 0},
    "more of small blur": {"small": 0},
    "photographs at full size": {"full_size": 0},
    "the test of sharpness": {"sharp": 0},
}
BLURRED = ("disk 2", "disk 4", "disk 6", "disk 9")
SHAPES = ("hexagon 4", "ring 4", "Gaussian of the RMS radius of disk 4")
# Columns: degradations whose gain is the mean.
COLUMNS: dict[str, tuple[str, ...]] = {
    "disks": BLURRED,
    "other shapes": SHAPES,
    "disk 4, JPEG 75": ("disk 4, JPEG 75",),
    "disk 4, noise 5": ("disk 4, noise 5",),
    "sharp": ("none",),
    "sharp, JPEG 90": ("JPEG 90",),
    "sharp, noise 5": ("noise 5",),
}
REAL = "light fields"


@dataclass
class Row:
    """A training. Gains in dB over the degraded picture."""

    left_out: str
    seed: int
    gains: dict[str, float]  # by column


def settings(left_out: str, seed: int) -> list[str]:
    changes = LEFT_OUT.get(left_out, {})
    return [*START, f"seed={seed}", *(f"data.generator.{name}={value}" for name, value in changes.items())]


def score(folder: Path, left_out: str, seed: int, data: Path | None, count: int) -> Row:
    tiled = TiledFramework(load_framework(folder / "latest"))
    each = {name: degradations.measure(tiled, name).gain for names in COLUMNS.values() for name in names}
    gains = {column: float(np.mean([each[name] for name in names])) for column, names in COLUMNS.items()}
    if data is not None:
        pairs = real.every(real.find_pairs(data / real.LIGHTFIELD), count)
        rows = [row for pair in pairs for row, _ in real.measure(tiled, real.LIGHTFIELD, pair, True, 0.5)]
        gains[REAL] = float(np.mean([row.gain for row in rows]))
    return Row(left_out, seed, gains)


def page(rows: list[Row], steps: int) -> str:
    columns = list(rows[0].gains)
    whole = np.array([[row.gains[column] for column in columns] for row in rows if row.left_out == EVERYTHING])
    mean, spread = whole.mean(0), whole.std(0, ddof=1) if len(whole) > 1 else np.zeros(len(columns))
    cells = [
        [EVERYTHING, *(f"{value:.2f} ± {deviation:.2f}" for value, deviation in zip(mean, spread, strict=True))],
        *(
            [row.left_out, *(f"{row.gains[column] - value:+.2f}" for column, value in zip(columns, mean, strict=True))]
            for row in rows
            if row.left_out != EVERYTHING
        ),
    ]
    return "\n".join(
        [
            "# Settings of synthetic pairs, each left out once",
            "",
            harness.setting(),
            "",
            f"{steps} steps of 8 crops of 128 pixels from the checkpoint in the box on. First row: gain in dB over the",
            f"degraded picture with everything, mean and standard deviation of {len(whole)} seeds. Others: what",
            "leaving out the setting adds to that, one seed; below twice the deviation it may be chance.",
            "",
            harness.markdown(("left out", *(f"{column}:" for column in columns)), cells),
            "",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_folders(parser)
    parser.add_argument("--steps", type=integer(1, 10**6), default=200, help="of each training (default: 200)")
    parser.add_argument("--real", type=Path, metavar="DIR", help="as for benchmarks.real; its light fields count")
    parser.add_argument("--count", type=integer(1, 1000), default=6, help="light fields (default: 6)")
    parser.add_argument("--left-out", nargs="+", choices=tuple(LEFT_OUT), default=list(LEFT_OUT), metavar="NAME")
    parser.add_argument("--out", type=Path, default=Path("runs/synthesis"), metavar="DIR", help="folder for the runs")
    harness.add_results(parser)
    args = parser.parse_args()
    check_folders(parser, args)
    if args.real is not None and not (args.real / real.LIGHTFIELD).is_dir():
        parser.error(f"--real must name a folder with {real.LIGHTFIELD} in it, got {args.real}")
    runs = [(EVERYTHING, seed) for seed in range(SEEDS)] + [(name, 0) for name in args.left_out]
    rows = []
    for name, seed in tqdm(runs, "trainings"):
        folder = args.out / f"{name.replace(' ', '-')}-{seed}"
        scored = folder / "scores.json"
        if not scored.exists():
            recipe = settings_for(NETWORK, args.photographs, args.validation)
            train(folder, args.steps, [*recipe, *settings(name, seed)])
            row = score(folder, name, seed, args.real, args.count)
            scored.write_text(json.dumps(row.gains))
        rows.append(Row(name, seed, json.loads(scored.read_text())))
    harness.save("synthesis", rows, page(rows, args.steps), args.results)


if __name__ == "__main__":
    main()
