"""Frameworks from and to the files that people have."""
