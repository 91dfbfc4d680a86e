"""A framework as an ONNX file, for programs without Python."""

import contextlib
import logging
import os
import warnings
from collections.abc import Iterator
from pathlib import Path

import torch

import reblur_ops

from ..core.errors import UserError
from ..core.files import replacing
from ..framework import Framework

OPSET = 20  # of 2023: ONNX Runtime 1.17, and what deployments of that age run


def export_onnx(framework: Framework, path: str | os.PathLike[str]) -> None:
    """Write the deblurring of a framework, for any number of images of any size.

    The graph takes `image`, (N, 3, height, width) of float32 in 0 … 1, and gives `deblurred`, of the same shape. It
    holds the blur map network and the deblurring network, with their weights; the reblurring network is of use in
    training only. A photograph is computed in one piece: tiles, if memory asks for them, are the caller's.

    Raises:
        UserError: the exporter is not installed, the deblurring network needs a blur map that no network gives, or a
            network of your own does what the exporter does not know.
        OSError: the file cannot be written.
    """
    if framework.deblur.map_channels and framework.blur_map is None:
        raise UserError("the framework must have a blur map network, as its deblurring network needs a map")
    # Two images of no multiple of anything: the exporter takes a size of 1 for a constant.
    example = torch.rand(2, 3, 61, 93)
    try:
        # The operators as PyTorch's own, which ONNX knows.
        with _quiet(), torch.no_grad(), reblur_ops.use_backend("torch"):
            program = torch.onnx.export(
                framework.eval().cpu(),
                (example,),
                dynamo=True,
                verbose=False,
                input_names=["image"],
                output_names=["deblurred"],
                dynamic_shapes=({0: "n", 2: "height", 3: "width"},),
                opset_version=OPSET,
            )
    except ImportError as error:
        raise UserError(f"exporting needs onnxscript, pip install 'reblur-ops[onnx]': {error}") from error
    except (torch.onnx.errors.OnnxExporterError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"this framework cannot be exported to ONNX: {reason}") from error
    assert program is not None
    with replacing(Path(path)) as file:
        file.write(program.model_proto.SerializeToString())


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what the exporter says about itself, such as operators of packages that are not installed."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
