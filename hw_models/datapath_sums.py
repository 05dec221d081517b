"""How products become a running sum: in a fixed-point word, in a float, or in logarithms."""

from __future__ import annotations

from dataclasses import dataclass, replace

from lowp._errors import FormatError
from lowp.emulation.accumulator import Accumulator
from lowp.formats.spec import Format
from lowp.hw_models.blocks import Block
from lowp.hw_models.datapath_formats import decoders, encoders, running_format, scalar
from lowp.hw_models.value_sets import Factor, factor

#: Bits below a rounded significand that decide its rounding: guard, round, sticky.
_ROUNDING_BITS = 3


@dataclass(frozen=True)
class Products:
    """The products of a unit's lanes, as they enter the sum.

    Attributes:
        bits: Two's complement bits of the exact product; of logarithms, their sum's bits and the sign.
        unit: Exponent of its last bit; None where a factor is logarithmic.
        significand: Bits of its magnitude's significand.
        exponents: How many exponents it has; 1: it is an integer.
        linear: Whether it is a number, not a logarithm.
    """

    bits: int
    unit: int | None
    significand: int
    exponents: int
    linear: bool = True

    @property
    def window(self) -> int:
        """Bits in which alignment loses nothing: all those of the product, and one for a carry."""
        return (self.bits if self.unit is not None else self.significand + self.exponents) + 1


def groups_of(lanes: int, group: int) -> list[tuple[int, int]]:
    """Return the sizes of groups of lanes and how many there are; the last may be shorter.

    Example:
        >>> groups_of(32, 16), groups_of(40, 32)
        ([(16, 2)], [(32, 1), (8, 1)])
    """
    whole, rest = divmod(lanes, group)
    return [(size, count) for size, count in ((group, whole), (rest, 1)) if size and count]


def word_accumulate(found: Products, word: int, lanes: int, group: int, positions: int) -> list[Block]:
    """Return the blocks that add products up in a fixed-point word.

    Args:
        found: The products.
        word: Bits of the running sum.
        lanes: Products per step.
        group: Products that share their scales.
        positions: Exponents that a group's scales have; 1: there are no scales.
    """
    bits = found.bits if found.unit is not None else word
    blocks = []
    if found.exponents > 1:
        blocks.append(Block.of("shifter", "align", lanes, bits=bits, positions=found.exponents))
        blocks.append(Block.of("negate", "align", lanes, bits=bits))
    inner = group if positions > 1 else lanes
    grouped = groups_of(lanes, inner)
    blocks += [Block.of("adder_tree", "sum", count, inputs=size, bits=bits) for size, count in grouped if size > 1]
    if positions > 1:
        count = sum(n for _, n in grouped)
        blocks.append(Block.of("shifter", "scale", count, label="by the scales", bits=word, positions=positions))
        if count > 1:
            blocks.append(Block.of("adder_tree", "sum", label="of groups", inputs=count, bits=word))
    return [*blocks, Block.of("adder", "accumulate", bits=word)]


def float_accumulate(
    found: Products, accumulator: Factor, lanes: int, group: int, window: int | None, given: object
) -> list[Block]:
    """Return the blocks that add products to a running sum with exponents.

    A single product is added without being rounded first, as a fused multiply-add does it. The products of several
    lanes are aligned under their largest exponent, summed exactly, normalised and then added.
    """
    if accumulator.logarithm:
        return _logarithmic_sums(found, accumulator, lanes, given)
    if group == 1:
        return [block.times(lanes) for block in _fused(found, accumulator)]
    alignment = given.alignment if isinstance(given, Accumulator) else None
    if alignment is not None and alignment.running_sum == "term" and window is not None and group == lanes:
        return _running_term(found, accumulator, lanes, window)
    blocks = []
    bits = found.bits if window is None else window
    if window is not None:
        exponent = (found.exponents - 1).bit_length()
        for size, count in groups_of(lanes, group):
            if size > 1:
                blocks.append(Block.of("comparator_tree", "align", count, inputs=size, bits=exponent))
        blocks.append(Block.of("subtractor", "align", lanes, label="exponents", bits=exponent))
        blocks.append(Block.of("aligner", "align", lanes, n=window, product=found.significand))
        blocks.append(Block.of("negate", "align", lanes, bits=window))
    for size, count in groups_of(lanes, group):
        if size > 1:
            blocks.append(Block.of("adder_tree", "sum", count, inputs=size, bits=bits))
        total = bits + (size - 1).bit_length()
        blocks.append(Block.of("leading_zero_counter", "normalise", count, bits=total))
        blocks.append(Block.of("normaliser", "normalise", count, bits=total))
        blocks.append(float_adder(accumulator, total, count))
    return blocks


def _running_term(found: Products, accumulator: Factor, lanes: int, window: int) -> list[Block]:
    """The blocks of a unit whose running sum is aligned and summed with the products, and normalised with them."""
    exponent = max((found.exponents - 1).bit_length(), accumulator.exponent_bits)
    total = window + (lanes - 1).bit_length() + 1
    significand = accumulator.significand
    return [
        *decoders(accumulator.format, 1, "accumulate"),
        Block.of("comparator_tree", "align", inputs=lanes + 1, bits=exponent),
        Block.of("subtractor", "align", lanes + 1, label="exponents", bits=exponent),
        Block.of("aligner", "align", lanes, n=window, product=found.significand),
        Block.of("aligner", "align", label="running sum", n=window, product=min(significand, window)),
        Block.of("negate", "align", lanes + 1, bits=window),
        Block.of("adder_tree", "sum", inputs=lanes, bits=window),
        Block.of("adder", "sum", label="running sum", bits=total),
        Block.of("leading_zero_counter", "normalise", bits=total),
        Block.of("normaliser", "normalise", bits=total),
        Block.of("rounder", "accumulate", bits=significand),
        Block.of("exponent_adder", "accumulate", bits=exponent),
        *encoders(accumulator.format, "accumulate"),
    ]


def fused_width(found: Products, accumulator: Factor) -> int:
    """Return the bits of a fused multiply-add: the product, the running sum, a guard and a carry."""
    return found.significand + accumulator.significand + 2


def check_accumulator(accumulator: Accumulator) -> None:
    """Refuse accumulators whose steps no datapath here has blocks for.

    Raises:
        FormatError: A compensated or stochastically rounded sum.
    """
    if accumulator.compensation is not None:
        raise FormatError(f"accumulator has compensation={accumulator.compensation!r}, for which there is no datapath.")
    if accumulator.rounding.startswith("stochastic"):
        raise FormatError(f"accumulator has rounding={accumulator.rounding!r}; random bits have no blocks here.")


def round_products(found: Products, accumulator: Format | Accumulator, lanes: int) -> tuple[Products, list[Block]]:
    """Return the products as an accumulator rounds them first, and the blocks that do; exact ones as they are."""
    if not isinstance(accumulator, Accumulator) or (
        accumulator.product == "exact" and accumulator.group_sum == "fused"
    ):
        return found, []
    fmt = running_format(accumulator) if accumulator.product == "exact" else scalar(accumulator.product)
    kept = factor(fmt)
    if kept.logarithm or not found.linear or kept.unit is None:
        return found, []  # logarithms are rounded by leaving bits out
    blocks = [
        Block.of("leading_zero_counter", "normalise", lanes, label="products", bits=found.significand),
        Block.of("normaliser", "normalise", lanes, label="products", bits=found.significand),
        Block.of("rounder", "normalise", lanes, label=f"products to {fmt.name}", bits=kept.significand),
    ]
    return replace(found, significand=kept.significand, exponents=max(kept.exponents, 2)), blocks


def outer_sum(accumulator: Format | Accumulator) -> list[Block]:
    """Return what adds finished partial sums up, where an accumulator has an outer one."""
    outer = accumulator.outer if isinstance(accumulator, Accumulator) else None
    if outer is None:
        return []
    kept = factor(running_format(outer))
    if kept.unit is None:
        raise FormatError(f"accumulator has an outer sum in {kept.format.name!r}, for which there is no datapath.")
    register = Block.of("register", "register", label="outer sum", bits=kept.format.bits)
    if kept.exponents == 1:
        return [Block.of("adder", "accumulate", label="outer sum", bits=kept.format.bits), register]
    assert isinstance(accumulator, Accumulator)
    return [float_adder(kept, factor(running_format(accumulator)).significand, 1), register]


def _fused(found: Products, accumulator: Factor) -> list[Block]:
    """The blocks of a fused multiply-add: one rounding, so the window spans the product, the sum and a guard each."""
    significand = accumulator.significand
    width = fused_width(found, accumulator)
    exponent = max((found.exponents - 1).bit_length(), accumulator.exponent_bits)
    return [
        *decoders(accumulator.format, 1, "accumulate"),
        Block.of("subtractor", "align", label="exponents", bits=exponent),
        Block.of("aligner", "align", n=width, product=found.significand),
        Block.of("negate", "align", bits=width),
        Block.of("adder", "sum", bits=width),
        Block.of("leading_zero_counter", "normalise", bits=width),
        Block.of("normaliser", "normalise", bits=width),
        Block.of("rounder", "accumulate", bits=significand),
        Block.of("exponent_adder", "accumulate", bits=exponent),
        *encoders(accumulator.format, "accumulate"),
    ]


def float_adder(accumulator: Factor, total: int, count: int) -> Block:
    """Return the block that adds a normalised sum of `total` bits to a running sum, so many times."""
    significand = accumulator.significand
    width = max(significand, total) + _ROUNDING_BITS
    exponent = max(accumulator.exponent_bits, 1)
    parts = [
        *decoders(accumulator.format, 1, "accumulate"),
        Block.of("subtractor", "accumulate", label="exponents", bits=exponent),
        Block.of("aligner", "accumulate", n=width, product=significand),
        Block.of("negate", "accumulate", bits=width),
        Block.of("adder", "accumulate", bits=width),
        Block.of("leading_zero_counter", "accumulate", bits=width),
        Block.of("normaliser", "accumulate", bits=width),
        Block.of("rounder", "accumulate", bits=significand),
        Block.of("exponent_adder", "accumulate", bits=exponent),
        *encoders(accumulator.format, "accumulate"),
    ]
    label = accumulator.format.name
    bits = accumulator.format.bits
    return Block.of("float_accumulator", "accumulate", count, label=label, parts=tuple(parts), bits=bits, width=width)


def _logarithmic_sums(found: Products, accumulator: Factor, lanes: int, given: object) -> list[Block]:
    """Sums of logarithms by tables of Gauss logarithms, one adder per product."""
    if found.unit is not None or found.linear:
        raise FormatError(
            f"accumulator={accumulator.format.name!r} adds logarithms; the products of these operands are none."
        )
    bits, entries = accumulator.logarithm, _gauss_entries(accumulator, given)
    return [
        Block.of("subtractor", "sum", lanes, label="logarithms", bits=bits),
        Block.of("table", "sum", lanes, label="Gauss logarithms", entries=entries, bits=bits),
        Block.of("adder", "accumulate", lanes, label="logarithms", bits=bits),
    ]


def _gauss_entries(accumulator: Factor, given: object) -> int:
    """Entries of the tables of sums and of differences of logarithms.

    Of a table that is given its own; else until both are rounded to zero, `log2(1 + 2^-z)` being less than
    `2^-z / ln 2`: both tables end by `z = fraction + 2`.
    """
    table = given.table if isinstance(given, Accumulator) else None
    if table is not None:
        return len(table.sums) + len(table.differences)
    if accumulator.fraction is None:
        raise FormatError(
            f"accumulator={accumulator.format.name!r} has no table of Gauss logarithms of its own; give a "
            "lowp.Accumulator with a table."
        )
    return 2 * (accumulator.fraction + 2) << accumulator.fraction
