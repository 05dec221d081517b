"""From formats to the blocks that multiply and sum them: `datapath` derives, a back end prices."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

from lowp._errors import ArgumentError, ArgumentTypeError
from lowp.emulation.accumulator import Accumulator
from lowp.formats import parse
from lowp.formats.spec import Format
from lowp.hw_models.arguments import sizes as checked_sizes
from lowp.hw_models.blocks import ROLES, Block

#: Widest aligner window where none is given: what a float32 sum keeps.
PARTIAL_SUM_BITS = 24
#: Pipelines are cut at no more than five places.
MOST_STAGES = 6


@dataclass(frozen=True)
class Datapath:
    """The blocks of a unit that multiplies `lanes` pairs of numbers and adds the products to a running sum.

    Attributes:
        a: Format of the left operand.
        b: Format of the right operand.
        accumulator: Of the running sum: a format, a `lowp.Accumulator`, or "exact".
        lanes: Products per step.
        terms: Products that an exact running sum has room for.
        window: Bits of the aligner, or None where products are summed as they are.
        product_bits: Two's complement bits that hold every exact product of two elements, scales not counted; of
            logarithmic formats, bits of the product's logarithm and sign.
        product_unit: The exponent of the weight of a product's last bit; None for logarithmic formats.
        accumulator_bits: Bits of the running sum.
        blocks: What the unit is made of.
        stages: Pipeline stages.
        copies: How many such units `blocks` are for; they share the registers of their operands.
    """

    a: Format
    b: Format
    accumulator: str | Format | Accumulator
    lanes: int
    terms: int
    window: int | None
    product_bits: int
    product_unit: int | None
    accumulator_bits: int
    blocks: tuple[Block, ...]
    stages: int = 1
    copies: int = 1

    def leaves(self) -> Iterator[Block]:
        """Yield the elementary blocks, each with its count in the unit."""
        for block in self.blocks:
            yield from block.leaves()

    def of_role(self, role: str) -> tuple[Block, ...]:
        """Return the blocks of one role."""
        return tuple(block for block in self.blocks if block.role == role)

    @property
    def accumulator_name(self) -> str:
        """Name of the running sum's format, or "exact"."""
        if isinstance(self.accumulator, Accumulator):
            return str(parse(self.accumulator.format))
        return str(self.accumulator)

    def describe(self) -> str:
        """Return the tree of blocks as text."""
        lanes = "one lane" if self.lanes == 1 else f"{self.lanes} lanes"
        lanes += f", {self.copies} times" if self.copies > 1 else ""
        window = f", window {self.window} bits" if self.window else ""
        lines = [
            f"{self.a.name} x {self.b.name} + {self.accumulator_name}, {lanes}",
            f"  product {self.product_bits} bits{window}, accumulator {self.accumulator_bits} bits",
        ]
        for role in ROLES:
            blocks = self.of_role(role)
            lines += [f"  {role}"] if blocks else []
            for block in blocks:
                lines += _lines(block, 2)
        return "\n".join(lines)

    def plot(self, ax: Any = None) -> Any:
        """Draw the blocks, role by role, each with its sizes; returns the Matplotlib axes."""
        from lowp.hw_models.datapath_plot import plot

        return plot(self, ax)


def _lines(block: Block, depth: int) -> list[str]:
    edge = " [edge]" if block.edge and depth == 2 else ""
    lines = [f"{'  ' * depth}{block}{edge}"]
    for part in block.parts:
        lines += _lines(part, depth + 1)
    return lines


def datapath(
    a: Any,
    b: Any = None,
    *,
    accumulator: Any = None,
    lanes: int = 1,
    conversions: bool = False,
    window: int | None = None,
    terms: int | None = None,
    integers: bool = False,
    stages: int = 1,
) -> Datapath:
    """Derive the blocks of a multiply-and-add unit from its formats.

    Args:
        a: Format of the left operand, or its name: a scalar format, or a block format, whose scales are then applied
            to the sum of each block.
        b: Format of the right operand; default that of `a`.
        accumulator: Of the running sum: a format, its name, a `lowp.Accumulator` (whose alignment sets the window, and
            whose group says how many products are summed before they are rounded; how steps are ordered takes no
            hardware), or "exact": every sum of `terms` products fits. Default int32 for integers, fixed point and
            codebooks of such numbers, as wide as the lanes need; else float32.
        lanes: Products that are summed in one step.
        conversions: Whether quantizers, dequantizers and encoders at the edges count too.
        window: Bits of the aligner of products with exponents. Default: one more than the widest product, at most 24.
        terms: Products that an exact accumulator must have room for; default `lanes`.
        integers: Whether elements with exponents are decoded to integers, exactly, before they are multiplied.
        stages: Pipeline stages, 1 to 6.

    Raises:
        FormatError: A format that is unknown, or whose products no such unit can sum.
        ArgumentError: A size that is not positive.
        ArgumentTypeError: An argument of another type.

    Example:
        >>> unit = datapath("float8_e4m3fn", lanes=32)
        >>> unit.product_bits, unit.window, unit.accumulator_bits
        (37, 24, 32)
        >>> datapath("int8", lanes=32, accumulator="exact").accumulator_bits
        21
    """
    left = _format("a", a)
    right = left if b is None else _format("b", b)
    count, cut = checked_sizes(lanes=lanes, stages=stages)
    if cut > MOST_STAGES:
        raise ArgumentError(f"stages={stages!r} must be from 1 to {MOST_STAGES}.")
    if window is not None:
        (window,) = checked_sizes(window=window)
    (room,) = (count,) if terms is None else checked_sizes(terms=terms)
    if room < count:
        raise ArgumentError(f"terms={terms!r} must be at least lanes={count!r}.")
    for name, flag in (("conversions", conversions), ("integers", integers)):
        if not isinstance(flag, bool):
            raise ArgumentTypeError(f"{name}={flag!r} must be True or False.")
    return _datapath(Request(left, right, _accumulator(accumulator), count, conversions, window, room, integers, cut))


class Request(NamedTuple):
    """The arguments of `datapath`, checked."""

    a: Format
    b: Format
    accumulator: str | Format | Accumulator | None
    lanes: int
    conversions: bool
    window: int | None
    terms: int
    integers: bool
    stages: int


def _format(role: str, value: Any) -> Format:
    if not isinstance(value, str | Format):
        raise ArgumentTypeError(f"{role}={value!r} must be a format or its name, not {type(value).__name__}.")
    return parse(value)


def _accumulator(value: Any) -> str | Format | Accumulator | None:
    if value is None or isinstance(value, Accumulator):
        return value
    return "exact" if isinstance(value, str) and value == "exact" else _format("accumulator", value)


@lru_cache(maxsize=4096)
def _datapath(request: Request) -> Datapath:
    from lowp.hw_models.datapath_stages import build

    return build(request)
