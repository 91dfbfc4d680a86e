"""Tasks that show and use the operator. `python -m models --help` lists them."""
