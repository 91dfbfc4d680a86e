"""Deblurring of images of any size."""

from .photograph import deblur

__all__ = ["deblur"]
