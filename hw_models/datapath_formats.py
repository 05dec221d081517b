"""What a datapath reads of its formats: elements, scales, decoders, logarithms, and the float of a running sum."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

from lowp._errors import FormatError
from lowp.emulation.accumulator import Accumulator
from lowp.formats import Packed, parse
from lowp.formats.block import E8M0
from lowp.formats.block import Block as BlockFormat
from lowp.formats.codebook import Codebook
from lowp.formats.float_format import Float
from lowp.formats.posit import Posit
from lowp.formats.spec import Format, ScalarFormat
from lowp.formats.takum import Takum
from lowp.hw_models.blocks import Block
from lowp.hw_models.value_sets import Factor, factor

#: The running sum and the results where nothing narrower is asked for.
WIDE = Float(8, 23)
#: Packed formats whose elements share shifts besides scales: the largest shift, whether it is to the right, elements
#: that share one, the scales.
_SHARED_SHIFTS: dict[str, tuple[int, bool, int, ScalarFormat]] = {
    "shared_exponents.microexponents": (1, True, 2, E8M0),
    "shared_exponents.hif4": (
        2,
        False,
        4,
        Float(6, 2, bias=48, signed=False, subnormals=False, specials="fn", zero=False),
    ),
}
#: Codes of at most so many bits are decoded to integers by a table.
_TABLE_BITS = 6


@dataclass(frozen=True)
class Operand:
    """One operand of a unit.

    Attributes:
        format: The format as given.
        element: Format of the elements; the format itself where it has no scales.
        factor: What the multiplier sees of the elements, less their zero point.
        scale: Format of the scales, or None.
        group: Elements of a row that share a scale, or None where a whole row or tensor does, or there are no scales.
        zero_point: Whether elements have an offset.
        integers: Whether elements with exponents are decoded to integers.
        shifts: How much an exponent that a few elements share besides the scale shifts them at most.
        shift_group: Elements that share such an exponent.
    """

    format: Format
    element: ScalarFormat
    factor: Factor
    scale: ScalarFormat | None = None
    group: int | None = None
    zero_point: bool = False
    integers: bool = False
    shifts: int = 0
    shift_group: int = 1

    @property
    def scaled(self) -> bool:
        """Whether sums of a group are scaled before they are added to others."""
        return self.scale is not None and self.group is not None

    @property
    def late_scales(self) -> tuple[ScalarFormat, ...]:
        """Scales of whole rows or tensors, which apply to finished sums."""
        whole = self.scale if self.group is None else None
        return tuple(s for s in (whole, getattr(self.format, "tensor_scale", None)) if s is not None)


@lru_cache(maxsize=4096)
def operand(role: str, fmt: Format) -> Operand:
    """Split a format into what a datapath treats apart.

    Raises:
        FormatError: A packed format, whose fields are not elements times scales.
    """
    if isinstance(fmt, Packed) and fmt.scheme in _SHARED_SHIFTS:
        return _shifted(fmt)
    if isinstance(fmt, Packed):
        raise FormatError(
            f"{role}={fmt.name!r} is a packed format: its fields have no datapath of their own. Give the format that "
            "they unpack to, such as its integers with a scale."
        )
    if not isinstance(fmt, BlockFormat):
        assert isinstance(fmt, ScalarFormat)
        return Operand(fmt, fmt, factor(fmt))
    seen = factor(fmt.element)
    if fmt.zero_point:
        reach = seen.largest - seen.least
        seen = Factor(
            fmt.element, seen.significand + 1, unit=seen.unit, least=-reach, largest=reach, two_complement=True
        )
    size = fmt.size[1] if isinstance(fmt.size, tuple) else fmt.size
    return Operand(fmt, fmt.element, seen, fmt.scale, size if isinstance(size, int) else None, fmt.zero_point)


def power_of_two(scale: Factor) -> bool:
    """Whether multiplying by the scale only adds exponents."""
    return scale.unit is not None and scale.significand == 1


def running_format(accumulator: Format | Accumulator) -> ScalarFormat:
    """Return the format that a running sum is stored in.

    Raises:
        FormatError: No datapath adds in it.
    """
    fmt = parse(accumulator.format) if isinstance(accumulator, Accumulator) else accumulator
    if isinstance(fmt, Codebook) or not isinstance(fmt, ScalarFormat):
        raise FormatError(f"accumulator={fmt.name!r} is no format in which a datapath adds.")
    return fmt


def _shifted(fmt: Packed) -> Operand:
    """Magnitudes that share a scale, and in smaller groups a shift."""
    shifts, right, group, scale = _SHARED_SHIFTS[fmt.scheme]
    bits = fmt.option("magnitude_bits", 3)
    element = Float(1, bits - 1, specials="finite")  # of one exponent: sign and magnitude
    largest = ((1 << bits) - 1) << shifts
    seen = Factor(element, bits, unit=1 - bits - shifts * right, least=-largest, largest=largest)
    return Operand(fmt, element, seen, scale, fmt.block_elements, shifts=shifts, shift_group=group)


def as_integers(side: Operand) -> Operand:
    """Return an operand whose elements with exponents are decoded to integers before they are multiplied.

    Raises:
        FormatError: They are logarithms.
    """
    seen = side.factor
    if seen.unit is None:
        raise FormatError(f"format={side.format.name!r} is logarithmic; integers=True needs numbers on a grid.")
    if seen.exponents == 1:
        return side
    bits = max(-seen.least, seen.largest).bit_length()
    return replace(side, factor=replace(seen, significand=bits, exponents=1), integers=True)


def scalar(fmt: str | Format) -> ScalarFormat:
    """Return a scalar format by name or as it is.

    Raises:
        FormatError: It is none.
    """
    found = parse(fmt)
    if not isinstance(found, ScalarFormat):
        raise FormatError(f"format={found.name!r} is a block format; a scalar one is needed.")
    return found


# Decoders


def decoding(name: str, side: Operand, lanes: int) -> list[Block]:
    """Return the decoders of an operand's lanes."""
    label = f"{name}: {side.element.name}"
    blocks = _integer_decoders(side, lanes, label) if side.integers else decoders(side.element, lanes, "decode", label)
    if side.zero_point:
        blocks.append(
            Block.of("subtractor", "decode", lanes, label=f"zero point of {name}", bits=side.element.bits + 1)
        )
    return blocks


def _integer_decoders(side: Operand, lanes: int, label: str) -> list[Block]:
    """A table of magnitudes for short codes; for others a shifter behind the format's own decoder."""
    element, bits = side.element, side.factor.significand
    if isinstance(element, Codebook):
        return [Block.of("table", "decode", lanes, label=label, entries=len(element.values), bits=bits + 1)]
    if element.bits <= _TABLE_BITS:
        entries = 1 << (element.bits - element.signed)
        return [Block.of("table", "decode", lanes, label=label, entries=max(entries, 1), bits=bits)]
    shifter = Block.of("shifter", "decode", lanes, label=label, bits=bits, positions=factor(element).exponents)
    return [*decoders(element, lanes, "decode", label), shifter]


def decoders(fmt: ScalarFormat, count: int, role: str, label: str = "") -> list[Block]:
    """Return what turns codes into signs, exponents and significands; nothing for fixed point and logarithms.

    Floats have a leaf of their own, which finds the hidden bit; posits and takums are made of a run counter, a shifter
    and complements; a codebook is a table.
    """
    label = label or fmt.name
    seen = factor(fmt)
    if isinstance(fmt, Float) and fmt.mantissa_bits and seen.exponents > 1:
        return [Block.of("unpacker", role, count, label=label, bits=fmt.bits)]
    if isinstance(fmt, Codebook):
        word = seen.significand + seen.exponent_bits + int(fmt.signed)
        return [Block.of("table", role, count, label=label, entries=len(fmt.values), bits=word)]
    if isinstance(fmt, Posit):
        parts = _posit_parts(fmt, role)
    elif isinstance(fmt, Takum):
        parts = _takum_parts(fmt, role)
    else:
        return []
    return [Block.of("decoder", role, count, label=label, parts=parts, bits=fmt.bits)]


def encoders(fmt: ScalarFormat, role: str, edge: bool = False) -> list[Block]:
    """Return what turns a normalised, rounded number into a code; nothing where its fields are the code."""
    if isinstance(fmt, Posit):
        parts = tuple(b for b in _posit_parts(fmt, role) if b.kind != "leading_zero_counter")
    elif isinstance(fmt, Takum):
        parts = tuple(b for b in _takum_parts(fmt, role) if b.kind != "leading_zero_counter")
    elif isinstance(fmt, Codebook):
        # a comparator for each decision point
        parts = (Block.of("comparator_tree", role, inputs=len(fmt.values), bits=factor(fmt).significand + 1),)
    else:
        return []
    return [Block.of("encoder", role, edge=edge, label=fmt.name, parts=parts, bits=fmt.bits)]


def _posit_parts(fmt: Posit, role: str) -> tuple[Block, ...]:
    run = max(fmt.bits - 1, 1)
    return (
        Block.of("negate", role, bits=run),
        Block.of("leading_zero_counter", role, bits=run),
        Block.of("shifter", role, bits=run, positions=run),
    )


def _takum_parts(fmt: Takum, role: str) -> tuple[Block, ...]:
    run = max(fmt.bits - 1, 1)
    parts = [Block.of("shifter", role, label="characteristic", bits=max(fmt.bits - 5, 1), positions=8)]
    if not fmt.logarithmic:
        parts.insert(0, Block.of("negate", role, bits=run))
    return tuple(parts)


# Logarithms


@dataclass(frozen=True)
class Linear:
    """A number whose logarithm was looked up: a significand of `bits` bits and one of so many exponents."""

    bits: int
    exponents: int
    entries: int
    natural: bool
    logarithm: int

    def blocks(self, count: int) -> tuple[Block, ...]:
        """Return the antilogarithm: a table, after a multiplication by the base's logarithm if that is not 2."""
        table = Block.of("table", "linear", count, label="antilogarithm", entries=self.entries, bits=self.bits)
        if not self.natural:
            return (table,)
        width = self.logarithm
        base = Block.of("multiplier", "linear", count, label="by log2 sqrt e", ma=width, mb=width)
        return base, table


def antilogarithm(fraction: int | None, logarithm: int, natural: bool = False) -> Linear:
    """Return the numbers that logarithms of so many bits stand for, each in the fewest bits that tell them apart.

    A table has an entry for each value of the fraction, of one integer bit and one more fraction bit than the
    logarithm; without a fraction apart, as for steps of a cube root, one for each logarithm.
    """
    if fraction is None:
        return Linear(logarithm + 2, 1 << logarithm, 1 << logarithm, natural, logarithm)
    exponents = 1 << max(logarithm - fraction, 0)
    return Linear(fraction + 2, exponents, 1 << fraction, natural, logarithm)
