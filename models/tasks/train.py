"""The task that trains: `python -m models train --config FILE [key=value…]`, or by torchrun on several GPUs."""

import argparse
import os
import sys
import textwrap
from contextlib import ExitStack

import reblur_ops

from ..core.errors import PROGRAM
from ..data.images import ImageError
from ..data.layouts import DataError
from ..training.config import RECIPES, TrainingConfig, dump_config, load_config
from ..training.loop import NonFiniteError, Run, prepare, train
from ..training.processes import join_processes


def add_arguments(parser: argparse.ArgumentParser) -> None:
    recipes = ", ".join(sorted(recipe.stem for recipe in RECIPES.glob("*.yaml")))
    package = __package__.partition(".")[0]
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = textwrap.dedent(
        f"""\
        examples:
          {PROGRAM} train --config reblur 'data.train=[sdd:data/SDD]' out=runs/mine
          {PROGRAM} train --config runs/mine/config.yaml resume=auto
          torchrun --nproc-per-node 8 -m {package} train --config reblur 'data.train=[dpdd:data/DPDD]' out=runs/eight
        """
    )
    parser.add_argument("--config", required=True, metavar="FILE", help=f"YAML file, or one of the recipes: {recipes}")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="in the place of what the file says")
    parser.add_argument("--print-config", action="store_true", help="print the whole configuration, and train nothing")


def run(args: argparse.Namespace) -> int:
    """Train. The exit status of `execute`."""
    try:
        config = load_config(args.config, args.overrides)
    except ValueError as error:
        return _failed(str(error), 2)
    if args.print_config:
        print(dump_config(config), end="")
        return 0
    return execute(config)


def execute(config: TrainingConfig, task: str = "train") -> int:
    """Train, and tell what goes wrong, in the name of a task. The exit status.

    0; 2 for what cannot be used, before anything is written; 1 if the run ended by an error, 128 and the number of the
    signal if it ended by one. After these two `resume=auto` goes on.
    """
    with ExitStack() as stack:
        try:
            prepared = prepare(config, stack.enter_context(join_processes(config.device)))
        except (ValueError, ModuleNotFoundError) as error:
            return _failed(str(error), 2, task)
        device = prepared.processes.device
        if prepared.processes.first:
            print(f"reblurring on {device}: backend {reblur_ops.explain_backend(device)}", file=sys.stderr)
        try:
            received = train(prepared)
        except (DataError, ImageError, NonFiniteError) as error:
            return _failed(f"{error}{_way_on(prepared)}", 1, task)
        except OSError as error:
            where = error.filename or config.out
            return _failed(f"cannot write to {where}: {error.strerror or error}{_way_on(prepared)}", 1, task)
    return 0 if received is None else 128 + received


def _way_on(prepared: Run) -> str:
    steps = prepared.folder.steps()
    return f"; resume=auto goes on after step {steps[-1]}" if steps else ""


def _failed(reason: str, status: int, task: str = "train") -> int:
    rank = os.environ.get("RANK", "0")
    print(f"{PROGRAM} {task}: error: {'' if rank == '0' else f'process {rank}: '}{reason}", file=sys.stderr)
    return status
