"""A whole training run, from its configuration to its exit status."""

import os
import sys
from contextlib import ExitStack

import reblur_ops

from ..core.errors import PROGRAM
from ..data.images import ImageError
from ..data.pairs import DataError
from .config import TrainingConfig
from .loop import Run, prepare, train
from .processes import LostProcessError, join_processes, told_when_lost
from .report import NonFiniteError


def execute(config: TrainingConfig, task: str = "train") -> int:
    """Train, and tell what goes wrong, in the name of a task. The exit status.

    0; 2 for what cannot be used, before anything is written; 1 if the run ended by an error, 128 and the number of the
    signal if it ended by one. After these two `resume=auto` goes on.
    """
    with ExitStack() as stack:
        try:
            with told_when_lost():
                prepared = prepare(config, stack.enter_context(join_processes(config.device)))
        except (ValueError, ModuleNotFoundError, NonFiniteError) as error:
            return _failed(str(error), 2, task)
        except LostProcessError as error:
            return _failed(str(error), 1, task)
        device = prepared.processes.device
        if prepared.processes.first:
            print(f"reblurring on {device}: backend {reblur_ops.explain_backend(device)}", file=sys.stderr)
        try:
            # PyTorch itself speaks to the other processes in many places: here for all of them.
            with told_when_lost():
                received = train(prepared)
        except NonFiniteError as error:  # going on would change nothing
            return _failed(str(error), 1, task)
        except (DataError, ImageError, LostProcessError) as error:
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
