"""The tile and wave model: how long a matrix product takes on a GPU.

The product is cut into tiles of the output (and its depth into `splits` parts); the multiprocessors work through the
tiles in waves, so a last wave that is almost empty costs as much as a full one. Four parameters per device and dtype
are fitted to measured kernels: see `Kernel`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

#: Output tiles (rows, columns) and splits of the depth that kernel libraries offer.
TILES = ((64, 64), (64, 128), (128, 128), (128, 256), (256, 128))
SPLITS = (1, 2, 4, 8)
#: Further tiles of weight-only kernels, for as many tokens as they have rows.
SMALL_BATCH_TILES = ((16, 64), (16, 128))
#: Partial sums of a split product are written and read in float32.
_PARTIAL_BYTES = 4


@dataclass(frozen=True)
class Kernel:
    """The four parameters of a family of kernels on one device.

    Attributes:
        compute: Share of the peak rate that the inner loop attains, 0 to 1.
        memory: Share of the memory bandwidth that is attained, 0 to 1.
        start: Seconds that any call takes, however small.
        ramp: Prologue and epilogue of a tile, in elements of depth.
        cache: Bandwidth of the last-level cache over that of memory; 1 where no such tier was seen in measurements.
        cache_share: Share of that cache which operands and result may fill and still be held in it.
        overlap: How well multiplying, moving and unpacking overlap: the power p of `(x^p + y^p + z^p)^(1/p)`, which
            is their sum for 1 and the longest of them for infinity.
    """

    compute: float
    memory: float
    start: float
    ramp: float
    cache: float = 1.0
    cache_share: float = 1.0
    overlap: float = math.inf


@dataclass(frozen=True)
class Work:
    """One matrix product on one machine, in plain SI units.

    Attributes:
        m: Rows of the output.
        n: Columns of the output.
        k: Depth of the product.
        bytes_moved: Operands read and output written, each once.
        peak: Operations per second of the compute dtype.
        bandwidth: Bytes per second.
        sms: Multiprocessors.
        unpack_a: Instructions to unpack a value of the left operand; repeated for every tile that reads it.
        unpack_b: The same for the right operand.
        alu_rate: Integer instructions per second of one multiprocessor.
        tiles: Output tiles (rows, columns) to choose from.
        groups: Independent products of this size in one launch; `bytes_moved` counts all of them.
        l2: Bytes of the last-level cache.
    """

    m: int
    n: int
    k: int
    bytes_moved: float
    peak: float
    bandwidth: float
    sms: int
    unpack_a: float = 0.0
    unpack_b: float = 0.0
    alu_rate: float = math.inf
    tiles: tuple[tuple[int, int], ...] = TILES
    groups: int = 1
    l2: float = 0.0


class Timing(NamedTuple):
    """Seconds, what bounds them, and the integer instructions spent on unpacking."""

    seconds: float
    bound: str
    instructions: float


def tile_wave(work: Work, kernel: Kernel) -> Timing:
    """Predict the time of a matrix product: the best tile and split, after the kernel's start.

    Per tile and split three times, which overlap: multiplying, `waves * 2 tm tn (k/s + ramp) / (peak/sms * compute)`;
    moving, `bytes / (bandwidth * memory)`; unpacking, `waves * (tn unpack_b + tm unpack_a) k/s / alu_rate`. What fits
    the last-level cache moves at its rate, on devices where measurements show such a tier.

    Example:
        >>> h100 = Kernel(compute=0.80, memory=0.80, start=2.7e-6, ramp=128)
        >>> n = 8192
        >>> tile_wave(Work(n, n, n, 3 * 2 * n * n, 989e12, 3.35e12, 132), h100).bound
        'compute'
    """
    best = Timing(math.inf, "", 0.0)
    for rows, columns in work.tiles:
        for splits in SPLITS:
            timing = _one(work, kernel, rows, columns, splits)
            if timing.seconds < best.seconds:
                best = timing
    bound = "launch" if kernel.start > best.seconds else best.bound
    return Timing(kernel.start + best.seconds, bound, best.instructions)


def _one(work: Work, kernel: Kernel, rows: int, columns: int, splits: int) -> Timing:
    """Time of one tile shape and split, without the start."""
    tiles_m, tiles_n, depth = math.ceil(work.m / rows), math.ceil(work.n / columns), work.k / splits
    waves = math.ceil(tiles_m * tiles_n * splits * work.groups / work.sms)
    compute = waves * 2 * rows * columns * (depth + kernel.ramp) * work.sms / (work.peak * kernel.compute)
    partial = _PARTIAL_BYTES * splits * work.m * work.n * work.groups if splits > 1 else 0
    moved = work.bytes_moved + partial
    cached = kernel.cache if moved < work.l2 * kernel.cache_share else 1.0
    memory = moved / (work.bandwidth * kernel.memory * cached)
    convert = waves * (columns * work.unpack_b + rows * work.unpack_a) * depth / work.alu_rate
    longest = max(compute, memory, convert)
    bound = "memory" if longest == memory else "compute" if longest == compute else "convert"
    power = kernel.overlap
    seconds = longest
    if power != math.inf:
        seconds *= sum((part / longest) ** power for part in (compute, memory, convert)) ** (1 / power)
    unpacked_b, unpacked_a = (work.groups * x * work.k for x in (tiles_m * work.n, tiles_n * work.m))
    return Timing(seconds, bound, unpacked_b * work.unpack_b + unpacked_a * work.unpack_a)


def roofline(work: Work) -> float:
    """Return the seconds below which the product cannot finish: peak rate or one pass over the operands.

    Source: Williams, Waterman, Patterson, "Roofline", CACM 2009.
    """
    return max(2 * work.groups * work.m * work.n * work.k / work.peak, work.bytes_moved / work.bandwidth)
