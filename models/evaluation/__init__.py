"""Scores of images: metrics and the protocols by which they are taken."""
