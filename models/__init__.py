"""The framework, and tasks that use it. `python -m models --help` lists them."""
