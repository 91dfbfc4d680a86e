"""Rivals: other ways to compute the same blur, written as well as they can be."""
