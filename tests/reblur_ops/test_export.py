"""Out of Python: `torch.export` with the operators inside, and ONNX with the pure PyTorch form."""

import pytest
import torch

import reblur_ops
from reblur_ops.testing import BACKENDS

pytestmark = pytest.mark.slow


class Network(torch.nn.Module):
    """Predicts the parameters of every family from the image, and blurs it with each."""

    def __init__(self, direction: str) -> None:
        super().__init__()
        self.direction = direction
        self.reblur = reblur_ops.nn.Reblur((1, 3), padding="replicate", direction=direction)
        channels = self.reblur.seed_channels + self.reblur.weight_channels + 1 + 1 + 4
        self.maps = torch.nn.Conv2d(3, channels, 3, padding=1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        sizes = [self.reblur.seed_channels, self.reblur.weight_channels, 1, 1, 4]
        seeds, weights, sigma, radius, profile = self.maps(image).split(sizes, dim=1)
        options = {"padding": "replicate", "direction": self.direction}
        image = self.reblur(image, seeds, weights.softmax(dim=1))
        image = reblur_ops.gaussian_blur(image, sigma, radius=3, **options)
        image = reblur_ops.disk_blur(image, 3 * radius, max_radius=3, **options)
        return reblur_ops.radial_blur(image, profile, **options)


@pytest.mark.parametrize("direction", ["gather", "scatter"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_export(backend, direction):
    torch.manual_seed(0)
    network = Network(direction).eval()
    image = torch.rand(2, 3, 12, 14)
    with reblur_ops.use_backend(backend):
        expected = network(image)
        sizes = {2: torch.export.Dim("height", min=5, max=64), 3: torch.export.Dim("width", min=5, max=64)}
        program = torch.export.export(network, (image,), dynamic_shapes=(sizes,))
    other = torch.rand(2, 3, 9, 21)
    for x, y in ((image, expected), (other, network(other))):
        assert torch.allclose(program.module()(x), y, atol=1e-5)
    operators = {str(node.target) for node in program.graph.nodes if node.op == "call_function"}
    assert (f"reblur_ops.{direction}.default" in operators) == (backend == "native")


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
@pytest.mark.parametrize("direction", ["gather", "scatter"])
def test_onnx(direction, tmp_path):
    pytest.importorskip("onnxscript", reason="there is no exporter to ONNX")
    onnxruntime = pytest.importorskip("onnxruntime", reason="there is nothing to run ONNX with")
    torch.manual_seed(0)
    network = Network(direction).eval()
    image = torch.rand(1, 3, 12, 14)
    with reblur_ops.use_backend("torch"), torch.no_grad():
        expected = network(image)
        torch.onnx.export(network, (image,), tmp_path / "network.onnx", dynamo=True, verbose=False)
    session = onnxruntime.InferenceSession(tmp_path / "network.onnx", providers=["CPUExecutionProvider"])
    (actual,) = session.run(None, {session.get_inputs()[0].name: image.numpy()})
    assert torch.allclose(torch.from_numpy(actual), expected, atol=1e-5)
