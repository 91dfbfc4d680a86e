"""Problems for the CUDA kernels, and their way to `driver.cu` and back."""

import itertools
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from emulation import emulator
from reblur_ops import PUBLISHED_RADII
from reblur_ops.families import Kernel

DRIVER = Path(__file__).parent / "driver.cu"
KERNELS = sorted((emulator.ROOT / "csrc" / "cuda").glob("*.cu"))
# In the order of the driver's numbers and of REBLUR_SCALARS, as CUDA sources name them.
SCALARS = {
    torch.float32: "float",
    torch.float64: "double",
    torch.float16: "__half",
    torch.bfloat16: "__nv_bfloat16",
}
DTYPES = list(SCALARS)
PADDINGS = ["zeros", "replicate", "reflect"]
FAMILIES = ["seeds", "radial", "taps", "gaussian", "disk"]  # as FamilyName numbers them
NORMALIZATIONS = ["softmax", "sum", "none"]
LAYOUTS = ["contiguous", "channels_last", "sliced", "transposed"]
CHANNELS = [3, 1, 2, 5]


def only(dtypes: Sequence[torch.dtype]) -> str:
    """The compiler's flag by which CUDA sources are compiled for these types alone."""
    return f"-DREBLUR_SCALARS={sum(1 << DTYPES.index(dtype) for dtype in dtypes)}"


def part(dtypes: Sequence[torch.dtype], dtype: torch.dtype) -> list[str]:
    """The flags for that part of these sources whose parameters are of one type: a whole one takes many minutes."""
    return [only(dtypes), f"-DREBLUR_PART={1 << DTYPES.index(dtype)}"]


@dataclass(frozen=True)
class Case:
    """A problem by its options; `tensors` makes it.

    Attributes:
        dtype: of the parameters, and of the image unless `autocast`.
        autocast: whether the image is float32 all the same.
    """

    dtype: torch.dtype
    height: int
    width: int
    family: str = "seeds"
    batch: int = 2
    channels: int = 3
    radii: tuple[int, ...] = PUBLISHED_RADII
    support: str = "square"
    normalize: str = "softmax"
    padding: str = "zeros"
    layout: str = "contiguous"
    autocast: bool = False

    def __str__(self) -> str:
        shape = "x".join(map(str, (self.batch, self.channels, self.height, self.width)))
        radii = "1..7" if self.radii == PUBLISHED_RADII else ",".join(map(str, self.radii))
        dtype = "float32×" * self.autocast + str(self.dtype).removeprefix("torch.")
        options = (self.support, self.normalize, self.padding, self.layout)
        return "-".join([self.family, radii, dtype, shape, *options])

    @property
    def kernel(self) -> Kernel:
        return Kernel(self.family, self.radii, self.support, self.normalize)

    @property
    def image_dtype(self) -> torch.dtype:
        return torch.float32 if self.autocast else self.dtype

    @property
    def dtypes(self) -> set[torch.dtype]:
        return {self.dtype, self.image_dtype}

    @property
    def is_analytic(self) -> bool:
        return self.family in ("gaussian", "disk")


class Tensors(NamedTuple):
    """The tensors of a case, in its dtypes and layout. Those that its family has not have no channels."""

    image: Tensor
    parameters: Tensor
    weights: Tensor
    grad_output: Tensor
    grad_class_weights: Tensor


def tensors(case: Case) -> Tensors:
    generator = torch.Generator().manual_seed(case.height * 100 + case.width)

    def randn(planes: int) -> Tensor:
        return torch.randn(case.batch, planes, case.height, case.width, dtype=torch.float64, generator=generator)

    radius = case.radii[-1]
    parameters = 2 * randn(case.kernel.parameter_channels)
    if case.is_analytic:  # of either sign, and beyond the largest
        parameters = radius * (0.2 if case.family == "gaussian" else 0.5) * parameters
    elif case.normalize == "sum":
        parameters = parameters.abs() + 0.1
    made = (
        randn(case.channels),
        parameters,
        randn(len(case.radii) + 1 if case.family == "seeds" else 0),
        randn(case.channels),
        randn(0 if case.is_analytic else (radius + 1) * (radius + 2) // 2),
    )
    dtypes = (case.image_dtype, case.dtype, case.dtype, case.image_dtype, case.dtype)
    return Tensors(
        *(strided(t.shape, dtype, case.layout).copy_(t.to(dtype)) for t, dtype in zip(made, dtypes, strict=True))
    )


def strided(shape: tuple[int, ...], dtype: torch.dtype, layout: str) -> Tensor:
    """An uninitialised tensor whose storage holds 0xFF."""
    n, c, h, w = shape
    layouts: dict[str, tuple[tuple[int, ...], Callable[[Tensor], Tensor]]] = {
        "contiguous": ((n, c, h, w), lambda t: t),
        "channels_last": ((n, h, w, c), lambda t: t.permute(0, 3, 1, 2)),
        "sliced": ((n, c + 1, h + 3, 2 * w + 1), lambda t: t[:, 1:, 2 : 2 + h, 1::2]),
        "transposed": ((n, c, w, h), lambda t: t.transpose(2, 3)),
    }
    storage_shape, view = layouts[layout]
    storage = torch.full((torch.Size(storage_shape).numel() * dtype.itemsize,), 0xFF, dtype=torch.uint8).view(dtype)
    return view(storage.view(storage_shape))


# ---- To the driver and back ----


def result_tensors(case: Case, given: Tensors) -> dict[str, Tensor]:
    """Empty results, in the order in which the driver writes them."""
    likes = {
        "output": given.image,
        "grad_image": given.image,
        "grad_parameters": given.parameters,
        "grad_weights": given.weights,
        "grad_image_alone": given.image,
        "grad_parameters_alone": given.parameters,
        "grad_weights_alone": given.weights,
        "class_weights": given.grad_class_weights,
        "class_weights_grad_parameters": given.parameters if given.grad_class_weights.shape[1] else given.weights,
        "class_weights_grad_weights": given.weights,
    }
    return {name: strided(like.shape, like.dtype, case.layout) for name, like in likes.items()}


def run(program: Path, given: list[tuple[Case, Tensors]], **orders: str) -> list[dict[str, Tensor]]:
    """The results of the kernels on each problem."""
    data = b"".join(encode(case, tensors) for case, tensors in given)
    process = emulator.run(program, data=data, **orders)
    if process.returncode != 0:
        raise RuntimeError(process.stderr.decode()[-4000:])
    written = memoryview(bytearray(process.stdout))
    results = []
    for case, tensors in given:
        decoded, written = decode(written, result_tensors(case, tensors))
        results.append(decoded)
    assert not len(written)
    return results


def encode(case: Case, given: Tensors) -> bytes:
    numbers = [DTYPES.index(case.image_dtype), DTYPES.index(case.dtype), *given.image.shape]
    numbers += [PADDINGS.index(case.padding)]
    numbers += [FAMILIES.index(case.family), int(case.support == "square"), NORMALIZATIONS.index(case.normalize)]
    numbers += [len(case.radii), *case.radii]
    inputs = [_header(tensor) + (_storage(tensor) if tensor.shape[1] else b"") for tensor in given]
    outputs = [_header(tensor) for tensor in result_tensors(case, given).values()]
    return struct.pack(f"{len(numbers)}q", *numbers) + b"".join([*inputs, *outputs])


def decode(written: memoryview, results: dict[str, Tensor]) -> tuple[dict[str, Tensor], memoryview]:
    """The results of one problem, and what was written after them."""
    decoded = {}
    for name, tensor in results.items():
        count = tensor.untyped_storage().nbytes() if tensor.shape[1] else 0
        taken, written = written[:count], written[count:]
        decoded[name] = tensor
        if count:
            flat = torch.frombuffer(taken, dtype=tensor.dtype)
            decoded[name] = flat.as_strided(tensor.shape, tensor.stride(), tensor.storage_offset())
    return decoded, written


def _storage(tensor: Tensor) -> bytes:
    return bytes(torch.tensor([], dtype=torch.uint8).set_(tensor.untyped_storage()).numpy())


def _header(tensor: Tensor) -> bytes:
    elements = tensor.untyped_storage().nbytes() // tensor.element_size() if tensor.shape[1] else 0
    return struct.pack("6q", *tensor.stride(), tensor.storage_offset(), elements)


# ---- The cases ----


def all_cases(dtypes: Sequence[torch.dtype] = DTYPES) -> list[Case]:
    """Every value of every option, with all others somewhere; of these those in `dtypes`."""
    kinds = (
        seeds_cases,
        slab_cases,
        interior_cases,
        large_radius_cases,
        middle_radius_cases,
        radial_cases,
        tap_cases,
        analytic_cases,
        autocast_cases,
    )
    return [case for cases in kinds for case in cases() if case.dtypes <= set(dtypes)]


def seeds_cases() -> Iterator[Case]:
    shapes = [(1, 1), (1, 37), (37, 1), (5, 3), (9, 40), (20, 67)]
    for i, j, k in itertools.product(range(len(shapes)), range(len(DTYPES)), range(len(PADDINGS))):
        (height, width), dtype, padding = shapes[i], DTYPES[j], PADDINGS[k]
        radii = [PUBLISHED_RADII, (2, 5)][(i + j + k) % 4 == 3]
        if padding == "reflect" and min(height, width) <= radii[-1]:
            continue
        if padding == "replicate" and height * width == 1 and dtype != torch.float64:
            continue  # every tap sees one value: the gradient to seeds is all rounding
        yield Case(
            dtype,
            height,
            width,
            batch=1 + (i + k) % 2,
            channels=CHANNELS[(i + j + k) % 4],
            radii=radii,
            support=["square", "disk"][(i + j + k // 2) % 2],
            padding=padding,
            layout=LAYOUTS[(i + j + 2 * k) % 4],
        )


def interior_cases() -> Iterator[Case]:
    """Images that have tiles whose surroundings lie inside, too."""
    for family, radii, dtype, layout in (
        ("seeds", PUBLISHED_RADII, torch.float32, "sliced"),
        ("disk", (7,), torch.bfloat16, "channels_last"),
        ("radial", (2,), torch.float64, "contiguous"),
    ):
        yield Case(dtype, 40, 110, family=family, radii=radii, batch=1, padding="reflect", layout=layout)


def slab_cases() -> Iterator[Case]:
    """Images whose states come in several slabs of rows, and batches that come in several slabs of images."""
    for dtype, family, radii, (height, width), padding, layout in (
        (torch.float32, "seeds", PUBLISHED_RADII, (135, 34), "reflect", "contiguous"),
        (torch.float32, "disk", (7,), (140, 9), "zeros", "sliced"),
        (torch.float64, "seeds", (2,), (90, 70), "replicate", "contiguous"),
        (torch.float16, "radial", (7,), (125, 33), "replicate", "channels_last"),
        (torch.bfloat16, "taps", (4,), (101, 65), "reflect", "transposed"),
    ):
        yield Case(
            dtype, height, width, family=family, batch=2, channels=2, radii=radii, padding=padding, layout=layout
        )
    yield Case(torch.float32, 9, 34, batch=3, padding="zeros")


def large_radius_cases() -> Iterator[Case]:
    for dtype, (height, width), padding, support in (
        (torch.float32, (4, 5), "zeros", "square"),
        (torch.float64, (1, 7), "replicate", "disk"),
        (torch.float16, (16, 16), "reflect", "square"),
        (torch.bfloat16, (17, 2), "replicate", "disk"),
    ):
        yield Case(dtype, height, width, batch=1, channels=2, radii=(15,), support=support, padding=padding)
    yield Case(torch.float32, 6, 7, channels=3, radii=(3, 12), support="disk", layout="sliced")


def middle_radius_cases() -> Iterator[Case]:
    """Radii above the published ones, either side of the largest whose classes lie in registers."""
    dtypes = [dtype for dtype in DTYPES if dtype != torch.float64]
    radii: dict[str, list[tuple[int, ...]]] = {
        "seeds": [(1, 2, 3, 4, 5, 6, 7, 8), (2, 9), (12,), (4, 13)],
        "radial": [(8,), (12,), (13,)],
        "taps": [(8,), (11,), (13,)],
    }
    kinds = [(family, one) for family, many in radii.items() for one in many]
    for (i, (family, one)), (j, dtype) in itertools.product(enumerate(kinds), enumerate(dtypes)):
        yield Case(
            dtype,
            *((14, 37), (110, 33))[(i + j) % 4 == 1],
            family=family,
            batch=1,
            channels=CHANNELS[(i + j) % 4],
            radii=one,
            support="square" if family == "taps" else ["square", "disk"][(i + j) % 2],
            normalize=NORMALIZATIONS[(i + j) % (3 if j == 0 else 2)] if family == "radial" else "softmax",
            padding=PADDINGS[(i + 2 * j) % 3],
            layout=LAYOUTS[(i + 2 * j) % 4],
        )


def radial_cases() -> Iterator[Case]:
    for i, (normalize, support) in enumerate(itertools.product(NORMALIZATIONS, ["square", "disk"])):
        for j, radius in enumerate([7, 4]):
            yield Case(
                DTYPES[(i + j) % 4] if normalize != "none" else DTYPES[(i + j) % 2],
                9,
                34,
                family="radial",
                radii=(radius,),
                support=support,
                normalize=normalize,
                padding=PADDINGS[(i + j) % 3],
                layout=["contiguous", "sliced"][j],
            )


def tap_cases() -> Iterator[Case]:
    for i, dtype in enumerate(DTYPES):
        for radius in (7, 4):
            yield Case(dtype, 9, 34, family="taps", radii=(radius,), padding=PADDINGS[(i + radius) % 3])


def analytic_cases() -> Iterator[Case]:
    shapes = [(1, 1), (1, 37), (37, 1), (9, 40), (20, 67)]
    for i, (family, (height, width)) in enumerate(itertools.product(["gaussian", "disk"], shapes)):
        for j, padding in enumerate(PADDINGS):
            radius = [3, 7][(i + j) % 2]
            if padding == "reflect" and min(height, width) <= radius:
                continue
            if padding == "replicate" and height * width == 1:
                continue  # every tap sees one value: the gradient to the width is all rounding
            yield Case(
                DTYPES[(i + j) % 4],
                height,
                width,
                family=family,
                batch=1 + i % 2,
                channels=CHANNELS[(i + j) % 4],
                radii=(radius,),
                padding=padding,
                layout=LAYOUTS[(i + 2 * j) % 4],
            )
    # By class weights in registers, and tap by tap, whose scatter has a canvas where it pads, in every type.
    for family, dtype in itertools.product(["gaussian", "disk"], DTYPES):
        for radius, padding in ((7, "reflect"), (3, "zeros"), (3, "replicate")):
            yield Case(dtype, 9, 34, family=family, batch=1, radii=(radius,), padding=padding)
    for family, radius in (("gaussian", 20), ("disk", 20), ("disk", 64)):
        # In float32 some tap of so many lies within a rounding of an edge, where the derivative has a step.
        dtype = torch.float32 if family == "gaussian" else torch.float64
        for padding in ("zeros", "replicate"):
            yield Case(dtype, 24, 45, family=family, batch=1, channels=1, radii=(radius,), padding=padding)


def autocast_cases() -> Iterator[Case]:
    """Parameters of 16 bits beside an image of 32: every family, with compiled radii and with others, and slabs."""
    for i, (dtype, family) in enumerate(itertools.product([torch.float16, torch.bfloat16], FAMILIES)):
        for j, radius in enumerate((7, 4, 9, 13)):
            radii = (PUBLISHED_RADII, (2, 4), (3, 9), (13,))[j] if family == "seeds" else (radius,)
            yield Case(
                dtype,
                *((14, 34), (110, 33))[(i + j) % 2],
                family=family,
                radii=radii,
                padding=PADDINGS[(i + j) % 3],
                layout=LAYOUTS[(i + j) % 4],
                autocast=True,
            )
