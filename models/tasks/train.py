"""The task that trains: `python -m models train --config FILE [key=value…]`, or by torchrun on several GPUs."""

import argparse
import textwrap

from ..core.errors import PROGRAM
from ..core.explanations import explained_yaml
from ..training.config import RECIPES, load_config
from ..training.execute import _failed, execute
from .arguments import integer


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
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="value that replaces that of the file")
    parser.add_argument(
        "--profile",
        type=integer(1, 1000),
        metavar="N",
        help="profile N steps soon after the start, in OUT/profile: where the time goes, as output.profile=N",
    )
    parser.add_argument(
        "--print-config", action="store_true", help="print every value with what it means, and train nothing"
    )


def run(args: argparse.Namespace) -> int:
    """Train. The exit status of `execute`."""
    try:
        profile = [f"output.profile={args.profile}"] if args.profile else []
        config = load_config(args.config, [*args.overrides, *profile])
    except ValueError as error:
        return _failed(str(error), 2)
    if args.print_config:
        print(explained_yaml(config), end="")
        return 0
    return execute(config)
