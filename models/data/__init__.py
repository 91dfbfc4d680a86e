"""Pairs of photographs for training and evaluation: found, checked, and served as samples."""
