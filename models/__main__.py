"""The command line: `reblur <task>` where it is installed, `python -m models <task>` in a checkout."""

import argparse
import importlib
import io
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from .core.errors import PROGRAM, UserError, describe

# Each is a module of tasks, - in its name for _: add_arguments(parser), and run(args), which returns the exit status.
TASKS = {
    "demo": "Train a small framework on misaligned pairs, and deblur photographs that it has never seen.",
    "gallery": "Show one photograph through every family of kernels, gathered and scattered.",
    "synthesize": "Make misaligned pairs of blurry and sharp pictures, with the truth about them, from photographs.",
    "train": "Train a framework on pairs of blurry and sharp pictures, which need not be aligned.",
    "align": "Align the pictures of pairs once: targets, confidence, blur and flow in files.",
    "deblur": "Deblur photographs of any size.",
    "evaluate": "Score a checkpoint, or other people's pictures, by named protocols.",
    "report": "Show a training run on one page: curves, pictures, blur, kernels, scores.",
    "export": "Write a framework as an ONNX file, for other programs.",
    "import-official": "Turn a checkpoint of the published training code into a model of ours.",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a task. The exit status: its own; 2 for what the user can put right, in one line; 130 if interrupted."""
    args = None
    # Large tensors in pages of 2 MB, on Linux: PyTorch asks at its first allocation. Deblurring is a seventh faster.
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal may know neither × nor the names of files
            stream.reconfigure(errors="backslashreplace")
    try:
        args = parse(sys.argv[1:] if argv is None else argv)
        return int(args.run(args))
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except (UserError, OSError) as error:
        if args is None or args.debug:
            raise
        print(f"{PROGRAM} {args.task}: error: {describe(error)}", file=sys.stderr)
        return 2


def parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog=PROGRAM, description="Tasks of the framework.")
    parser.add_argument("--version", action=_Version)
    subparsers = parser.add_subparsers(title="tasks", metavar="task", required=True)
    parse_rest, rest = parser.parse_args, argv
    for name, summary in TASKS.items():
        task_parser = subparsers.add_parser(name, help=summary, description=summary, formatter_class=_Help)
        # PyTorch takes seconds to import, and --help has no use for it.
        if argv and argv[0] == name:
            try:
                task = importlib.import_module(f"{__package__}.tasks.{name.replace('-', '_')}")
            except ModuleNotFoundError as error:
                task_parser.error(f"{error}; for all that the tasks need: pip install 'reblur-ops[models]'")
            task.add_arguments(task_parser)
            task_parser.add_argument("--debug", action="store_true", help="show where in the code an error comes from")
            task_parser.set_defaults(run=task.run, task=name)
            parse_rest, rest = task_parser.parse_intermixed_args, argv[1:]  # key=value after an option, too
    args = parse_rest(rest)
    for name, value in vars(args).items():
        if isinstance(value, Path):  # a shell does not expand what stands behind =
            setattr(args, name, value.expanduser())
    return args


class _Help(argparse.ArgumentDefaultsHelpFormatter):
    """Names the defaults of arguments that have one."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        default = action.default
        if default is None or default is False or default in ([], ()) or "(default: " in (action.help or ""):
            return action.help
        if isinstance(default, (list, tuple)):
            return f"{action.help} (default: {' '.join(map(str, default))})"
        return super()._get_help_string(action)


class _Version(argparse.Action):
    """Prints the version, which importing takes seconds, and ends."""

    def __init__(self, option_strings: Sequence[str], dest: str) -> None:
        super().__init__(option_strings, dest, nargs=0, help="show the version and the backend, and exit")

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        import reblur_ops

        print(f"reblur-ops {reblur_ops.__version__}, backend {reblur_ops.explain_backend()}")
        parser.exit()


if __name__ == "__main__":
    sys.exit(main())
