"""Types for argparse that refuse impossible values with what they must be."""

import argparse
import math
from collections.abc import Callable


def integer(minimum: int, maximum: int) -> Callable[[str], int]:
    """An integer within limits, both included."""

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = minimum - 1
        if not minimum <= value <= maximum:
            raise argparse.ArgumentTypeError(f"must be an integer from {minimum} to {maximum}, got {text!r}")
        return value

    return parse


def number(minimum: float, maximum: float) -> Callable[[str], float]:
    """A number within limits, both included."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not minimum <= value <= maximum:
            raise argparse.ArgumentTypeError(f"must be a number from {minimum:g} to {maximum:g}, got {text!r}")
        return value

    return parse
