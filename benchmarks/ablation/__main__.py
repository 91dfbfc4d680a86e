"""What does reblurring bring on misaligned pairs?

    python -m benchmarks.ablation [key=value…]              some hours on two cores
    python -m benchmarks.ablation --full --photos DIR       on a GPU, with many photographs of your own
    python -m benchmarks.ablation --real DIR                on real pairs, the folders of benchmarks.real
    python -m benchmarks.ablation --light-fields DIR        on light fields of these, moved: real blur, known truth

One deblurring network is trained on layered scenes whose sharp pictures are aligned in several ways, or not at all;
with reblurring as a loss and without; with a blur map and without; and by the published method. Several seeds, and
scenes with less and with more parallax, made of photographs by `models.tasks.synthesize`; or real pairs. Each run is
scored on pictures that it has not seen against the aligned truth, with its last weights: none are chosen. Interrupted,
the same command goes on, and finished runs are not repeated. Writes RESULTS/NAME.md and .json. `make ablation` runs it
for each parallax.

    OUT/data/12px/                    scenes with parallax of up to 12 pixels, and, aligned:
    OUT/data/12px-reblur/             by reblurring; likewise by DIS, and by the true flow
    OUT/reblurring-12px-seed0/        the folder of a run (models.training.folder), and
        settings.json                 what determines it: a run of other settings is refused, not overwritten
        scores.json                   once it is finished
"""

import argparse
import sys
from collections.abc import Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks.ablation.results import save
from benchmarks.ablation.runs import RunError, count_gpus, run_all
from benchmarks.ablation.study import DECIDED, Study
from benchmarks.ablation.variants import FULL, TINY, VARIANTS
from models.core.errors import describe
from models.core.files import writable_folder
from models.tasks.arguments import integer, number


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.ablation",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="variants:\n" + "\n".join(f"  {variant.name}: {variant.description}" for variant in VARIANTS),
    )
    names = [variant.name for variant in VARIANTS]
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="key=value",
        help="of the training of all variants, such as start.framework=pretrained",
    )
    parser.add_argument("--full", action="store_true", help="a study for GPUs")
    parser.add_argument("--config", metavar="FILE", help="the training that variants change: a YAML file or a recipe")
    parser.add_argument("--steps", type=integer(1, 10**9), metavar="N", help="of each run")
    parser.add_argument("--seeds", type=integer(1, 1000), metavar="N", help="runs of each variant")
    parser.add_argument(
        "--parallaxes", nargs="*", type=number(0, 64), metavar="PIXELS", help="of the scenes; 0: smooth pairs"
    )
    parser.add_argument("--variants", nargs="+", choices=names, metavar="NAME", help="of those below; all if not given")
    parser.add_argument(
        "--photos", type=Path, metavar="DIR", help="folder of sharp photographs; those of scikit-image if not given"
    )
    parser.add_argument(
        "--real", type=Path, metavar="DIR", help="real pairs, and no scenes but those that --parallaxes names"
    )
    parser.add_argument(
        "--light-fields", type=Path, metavar="DIR", help="light fields that are moved, and no scenes likewise"
    )
    parser.add_argument("--out", type=Path, default=Path("runs/ablation"), metavar="DIR", help="folder for the runs")
    parser.add_argument("--data", type=Path, metavar="DIR", help="folder for the pairs (default: OUT/data)")
    parser.add_argument("--results", type=Path, metavar="DIR", help="folder for the tables (default: OUT)")
    parser.add_argument("--name", metavar="NAME", help="of the tables (default: ablation, or ablation-full)")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument(
        "--workers",
        type=integer(1, 1024),
        metavar="N",
        help="runs at a time, which share threads and GPUs (default: as many as there are threads on a CPU, or GPUs)",
    )
    return parser.parse_intermixed_args(argv)  # overrides between the options, too


def study_of(args: argparse.Namespace) -> Study:
    """The study that the arguments ask for.

    Raises:
        ValueError: it cannot be compared.
    """
    scale = FULL if args.full else TINY
    if args.full and args.photos is None:
        raise ValueError("--full needs --photos: those that scikit-image installs are few and small")
    if decided := [text for text in args.overrides if text.partition("=")[0] in DECIDED]:
        raise ValueError(f"{', '.join(decided)} cannot be overridden: the study decides that")
    # The boundary of a recipe may lie beyond so many steps; the study sets its own.
    steps = [f"schedule.steps={args.steps}", f"schedule.boundary={args.steps}"] if args.steps else []
    parallaxes = args.parallaxes
    if parallaxes is None:
        parallaxes = () if args.real or args.light_fields else scale.parallaxes
    scale = replace(
        scale,
        recipe=args.config or scale.recipe,
        overrides=(*(() if args.config else scale.overrides), *args.overrides, *steps),
        seeds=args.seeds or scale.seeds,
        parallaxes=tuple(sorted(set(parallaxes))),
        # Photographs of one's own have other names than those that the scale keeps for the test.
        pairs=replace(scale.pairs, test=()) if args.photos else scale.pairs,
    )
    study = Study(
        scale,
        tuple(variant for variant in VARIANTS if not args.variants or variant.name in args.variants),
        args.out,
        args.data or args.out / "data",
        args.photos,
        args.device,
        args.workers or count_gpus(args.device) or torch.get_num_threads(),
        args.real,
        args.light_fields,
    )
    study.check()
    return study


def main(argv: Sequence[str] | None = None) -> int:
    """The exit status: 0; 2 for what cannot be used; 1 if a run failed, 130 if interrupted."""
    args = parse(argv)
    try:
        study = study_of(args)
        results = args.results or args.out
        for folder in (args.out, results):
            writable_folder(folder)
        study.make_pairs()
        jobs = study.jobs()
        run_all(jobs, study.workers)
        save(study, jobs, args.name or ("ablation-full" if args.full else "ablation"), results)
    except KeyboardInterrupt:
        return _failed("interrupted; the same command goes on", 130)
    except BrokenProcessPool:
        return _failed("a process was killed, perhaps for want of memory; the same command goes on", 1)
    except RunError as error:
        return _failed(f"{error}; the same command goes on with the others", 1)
    except OSError as error:
        return _failed(describe(error), 2)
    except ValueError as error:
        return _failed(str(error), 2)
    return 0


def _failed(reason: str, status: int) -> int:
    print(f"python -m benchmarks.ablation: error: {reason}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
