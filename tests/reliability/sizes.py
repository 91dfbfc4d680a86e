"""How much is tried: little in `make test`, much in `make test-reliability`."""

import os

WHOLE = bool(os.environ.get("RELIABILITY"))
CALLS = 10_000 if WHOLE else 250  # of operators
KILLS = 20 if WHOLE else 2  # of synthesize and deblur, each
TRAINING_KILLS = 40 if WHOLE else 2  # without and with workers, each
LOST = 10 if WHOLE else 1  # of either of two processes
LAUNCHER_KILLS = 20 if WHOLE else 1  # of a training in two processes
