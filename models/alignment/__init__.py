"""Whole pairs aligned once: targets, confidence, blur and flow in files."""

from .dataset import align_dataset
from .pair import AlignedPair, AlignmentSettings, align_pair

__all__ = ["AlignedPair", "AlignmentSettings", "align_dataset", "align_pair"]
