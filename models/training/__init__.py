"""Training: `python -m models train`. What a run leaves behind is told in `models.training.folder`."""
