"""Bit-serial matrix products on LUTs: the cost model of BISMO, an overlay of DM x DN popcount units of DK bits."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

from lowp._errors import ArgumentError, FormatError, unknown_name
from lowp.formats import parse
from lowp.formats.integer import Fixed, Integer
from lowp.formats.spec import Format
from lowp.hw_models.arguments import sizes
from lowp.hw_models.estimate import Estimate
from lowp.hw_models.tables import rows

VERSIONS = ("v1", "v2")
_MEMORY_BITS, _MEMORY_WORDS = 32, 1024


@dataclass(frozen=True)
class Bismo:
    """A bit-serial overlay and what it takes.

    Attributes:
        rows: Popcount units along the left matrix (DM).
        depth: Bits that each unit multiplies per cycle (DK).
        columns: Popcount units along the right matrix (DN).
        version: Coefficients of "v2" (the repository's) or "v1" (the first paper's).
        lut: LUTs of the array.
        bram36: Block RAMs of 36 Kb of the operands' buffers.
    """

    rows: int
    depth: int
    columns: int
    version: str
    lut: Estimate
    bram36: Estimate

    @property
    def binary_ops_per_cycle(self) -> int:
        """Binary operations per cycle; a multiplication and an addition are two."""
        return 2 * self.rows * self.depth * self.columns

    def throughput(self, clock: float, a: str | Format | int = 1, b: str | Format | int = 1) -> Estimate:
        """Return the peak rate at a clock, in operations per second.

        Operands of more bits take their product of cycles: one per pair of bit planes.

        Args:
            clock: In Hz.
            a: Left operand: bits, or an integer or fixed-point format.
            b: Right operand.

        Raises:
            ArgumentError: The clock or a number of bits is not positive.
            FormatError: A format that is no integer or fixed point.

        Example:
            >>> round(bismo(8, 256, 8).throughput(200e6).value / 1e12, 2)
            6.55
            >>> bismo(8, 256, 8).throughput(200e6, "int4", "int4").bound
            'compute'
        """
        if not 0 < clock < math.inf:
            raise ArgumentError(f"clock={clock!r} must be positive and finite.")
        rate = self.binary_ops_per_cycle * clock / (_bits("a", a) * _bits("b", b))
        return Estimate(rate, 0.0, rate, "op/s", "compute", "BISMO: one cycle per pair of bit planes")

    def cycles(self, m: int, k: int, n: int, a: str | Format | int = 1, b: str | Format | int = 1) -> int:
        """Return the cycles of a matrix product m x k by k x n, all operands on chip.

        Sizes are rounded up to those of the array.

        Raises:
            ArgumentError: A size is not positive.
            FormatError: A format that is no integer or fixed point.

        Example:
            >>> bismo(8, 256, 8).cycles(64, 1024, 64, 4, 4)
            4096
        """
        m, k, n = sizes(m=m, k=k, n=n)
        tiles = math.ceil(m / self.rows) * math.ceil(k / self.depth) * math.ceil(n / self.columns)
        return tiles * _bits("a", a) * _bits("b", b)


def _bits(name: str, value: str | Format | int) -> int:
    if isinstance(value, str | Format):
        fmt = parse(value)
        if not isinstance(fmt, Integer | Fixed):
            raise FormatError(f"{name}={fmt.name!r} has no bit planes that add up; allowed: integers and fixed point.")
        return fmt.bits
    (bits,) = sizes(**{name: value})
    return bits


@cache
def _coefficients(version: str) -> dict[str, tuple[float, float, float]]:
    found = [r for r in rows("fpga_bismo") if r["version"] == version]
    return {r["coefficient"]: (float(r["value"]), float(r["low"]), float(r["high"])) for r in found}


def bismo(
    rows: int = 8,
    depth: int = 256,
    columns: int = 8,
    *,
    left_words: int = 1024,
    right_words: int = 1024,
    version: str = "v2",
) -> Bismo:
    """Estimate a bit-serial overlay: `LUT = DM DN (a DK + b + r)`, `BRAM = ceil(DK/32) (DM ceil(LM/1024) + ...)`.

    Args:
        rows: Units along the left matrix, DM.
        depth: Bits per unit and cycle, DK.
        columns: Units along the right matrix, DN.
        left_words: Words of DK bits buffered per row, LM.
        right_words: Words of DK bits buffered per column, RN.
        version: "v2" or "v1".

    Raises:
        ArgumentError: A size is not positive, or the version is unknown.

    Source: EECS-NTNU/bismo @b388d78, `BISMO.scala` (v2); Umuroglu et al., FPL 2018 (v1). The repository's code divides
    words by 1024 without rounding up; here a started block counts.

    Example:
        >>> round(bismo(8, 256, 8).lut.value)
        29678
        >>> bismo(8, 256, 8).bram36.value
        128.0
    """
    rows, depth, columns = sizes(rows=rows, depth=depth, columns=columns)
    left_words, right_words = sizes(left_words=left_words, right_words=right_words)
    if version not in VERSIONS:
        raise ArgumentError(unknown_name("version", version, VERSIONS))
    found = _coefficients(version)
    value, low, high = (
        rows * columns * (found["per_bit"][i] * depth + found["per_unit"][i] + found["per_result"][i]) for i in range(3)
    )
    source = f"BISMO cost model {version}"
    memories = rows * math.ceil(left_words / _MEMORY_WORDS) + columns * math.ceil(right_words / _MEMORY_WORDS)
    blocks = float(math.ceil(depth / _MEMORY_BITS) * memories)
    return Bismo(
        rows,
        depth,
        columns,
        version,
        Estimate(value, low, high, "LUT", "compute", source),
        Estimate(blocks, blocks, blocks, "BRAM36", "memory", source),
    )
