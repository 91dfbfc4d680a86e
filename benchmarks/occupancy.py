"""How many blocks of a kernel a multiprocessor holds at a time, and what does not allow more.

Sources: the table of technical specifications per compute capability in NVIDIA's CUDA programming guide for what a
multiprocessor has, the toolkit's cuda_occupancy.h for the units in which it is given out.
"""

from dataclasses import dataclass
from typing import NamedTuple

WARP = 32
REGISTERS = 64 * 1024  # of a multiprocessor, of every architecture here
PARTITIONS = 4  # each with its share of the registers, for whole warps
REGISTER_UNIT = 256  # registers are given to a warp in multiples of this
KIB = 1024


@dataclass(frozen=True)
class Multiprocessor:
    """The limits of a multiprocessor."""

    warps: int
    blocks: int
    shared_bytes: int  # with the smallest share of its memory left to the first-level cache
    reserved_bytes: int = 1 * KIB  # of shared memory, taken by the system for each block
    shared_unit: int = 128  # bytes; shared memory is given to a block in multiples of this


MULTIPROCESSORS = {
    75: Multiprocessor(warps=32, blocks=16, shared_bytes=64 * KIB, reserved_bytes=0, shared_unit=256),
    80: Multiprocessor(warps=64, blocks=32, shared_bytes=164 * KIB),
    86: Multiprocessor(warps=48, blocks=16, shared_bytes=100 * KIB),
    89: Multiprocessor(warps=48, blocks=24, shared_bytes=100 * KIB),
    90: Multiprocessor(warps=64, blocks=32, shared_bytes=228 * KIB),
    100: Multiprocessor(warps=64, blocks=32, shared_bytes=228 * KIB),
    120: Multiprocessor(warps=48, blocks=24, shared_bytes=100 * KIB),
}


class Occupancy(NamedTuple):
    blocks: int  # on a multiprocessor; 0 where not even one fits
    fraction: float  # of the warps that a multiprocessor can hold
    limits: tuple[str, ...]  # what does not allow one more: registers, shared memory, threads, blocks


def occupancy(architecture: int, registers: int, threads: int, shared_bytes: int) -> Occupancy:
    """The occupancy that a launch can reach.

    Args:
        architecture: compute capability, as in sm_90: 90.
        registers: of a thread, as ptxas tells.
        threads: of a block, 1 … 1024.
        shared_bytes: of a block, static and dynamic together.

    Raises:
        ValueError: the architecture is not known here.
    """
    if architecture not in MULTIPROCESSORS:
        raise ValueError(f"architecture must be one of {', '.join(map(str, MULTIPROCESSORS))}, got {architecture}")
    multiprocessor = MULTIPROCESSORS[architecture]
    warps = -(-threads // WARP)
    registers_of_warp = round_up(registers * WARP, REGISTER_UNIT)
    warps_by_registers = REGISTERS // PARTITIONS // max(registers_of_warp, 1) * PARTITIONS
    shared = round_up(shared_bytes + multiprocessor.reserved_bytes, multiprocessor.shared_unit)
    # Whether one block may start at all is asked as if each partition had as many of its warps.
    fits = registers_of_warp * round_up(warps, PARTITIONS) <= REGISTERS
    allowed = {
        "registers": warps_by_registers // warps if fits else 0,
        "shared memory": multiprocessor.shared_bytes // max(shared, 1),
        "threads": multiprocessor.warps // warps,
        "blocks": multiprocessor.blocks,
    }
    blocks = min(allowed.values())
    limits = tuple(limit for limit, count in allowed.items() if count == blocks)
    return Occupancy(blocks, blocks * warps / multiprocessor.warps, limits)


def round_up(value: int, unit: int) -> int:
    return -(-value // unit) * unit
