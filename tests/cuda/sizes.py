"""The types for which the CUDA kernels are compiled: float32 in `make test`, all in `make test-cuda`."""

import os

import torch

from emulation import problems

DTYPES = problems.DTYPES if os.environ.get("CUDA_WHOLE") else [torch.float32]
