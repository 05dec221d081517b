"""What a lookup-table engine makes of a format: the values of a digit, bit planes, offset, and groups with a scale."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lowp._errors import FormatError
from lowp.formats.block import Block
from lowp.formats.integer import Integer
from lowp.formats.packed import Packed
from lowp.formats.parse import parse
from lowp.formats.spec import Format, ScalarFormat
from lowp.formats.tables import decode_codes
from lowp.hw_models.lut_engine import MAX_ENTRIES, LutEngine

#: Weights of more bits are not multiplied by tables.
MAX_BITS = 8
_TRITS = (-1, 0, 1)
_IQ4_NL = (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)
#: Packed formats of one scale per block, row or tensor: the integers it multiplies, and the field that holds it.
_PACKED: dict[str, tuple[tuple[int, ...], str]] = {
    "ggml.q1_0": ((-1, 1), "d"),
    "ggml.q2_0": ((-1, 0, 1, 2), "d"),
    "ggml.q4_0": (tuple(range(-8, 8)), "d"),
    "ggml.q5_0": (tuple(range(-16, 16)), "d"),
    "ggml.q8_0": (tuple(range(-128, 128)), "d"),
    "ggml_iq.iq4_nl": (_IQ4_NL, "d"),
    "ggml_ternary.tq1_0": (_TRITS, "d"),
    "ggml_ternary.tq2_0": (_TRITS, "d"),
    "bitnet.i2_s": (_TRITS, "scale"),
    "bitnet.tl1": (_TRITS, "scale"),
    "bitnet.tl2": (_TRITS, "scale"),
    "ternary.twn": (_TRITS, "scales"),
}
#: The scheme of binary coding: a scale per bit plane, and an offset.
BINARY_CODING = "hlq.fitted"


@dataclass(frozen=True)
class Elements:
    """The numbers of a format's elements, and what scales them.

    Attributes:
        name: Name of the format.
        values: Values of the elements, ascending.
        group: Elements along a row that share a scale; 0: a whole row, the tensor, or none.
        scaled: Whether there are scales.
        scale_bits: Bits of a group's scale and zero point.
        zero_points: Whether groups have zero points.
        tensor_scale: Whether a second scale multiplies the tensor.
        coded_bits: Bit planes of a format that has a scale per bit plane; else 0.
    """

    name: str
    values: tuple[float, ...]
    group: int = 0
    scaled: bool = False
    scale_bits: int = 0
    zero_points: bool = False
    tensor_scale: bool = False
    coded_bits: int = 0

    @property
    def unit(self) -> Fraction | None:
        """The largest power of two that all values are multiples of; None if they are not 24-bit multiples of one."""
        fractions = [Fraction(v) for v in self.values if v]
        unit = Fraction(1, max((f.denominator for f in fractions), default=1))
        whole = [int(f / unit) for f in fractions]
        while whole and all(n % 2 == 0 for n in whole):
            whole, unit = [n // 2 for n in whole], unit * 2
        return unit if max(map(abs, whole), default=0) < 1 << 24 else None


@lru_cache(maxsize=1024)
def elements(fmt: Format) -> Elements:
    """Return the elements of a format.

    Raises:
        FormatError: Its elements have more than 8 bits, or it is packed in a way that has no one scale per block.

    Example:
        >>> elements(parse("int2_g64")).values, elements(parse("bitnet_tl2")).values
        ((-2.0, -1.0, 0.0, 1.0), (-1.0, 0.0, 1.0))
    """
    if isinstance(fmt, ScalarFormat):
        return Elements(fmt.name, element_values(fmt))
    if isinstance(fmt, Block) and isinstance(fmt.element, ScalarFormat):
        if isinstance(fmt.size, tuple):
            raise FormatError(f"{fmt.name!r} has tiles of rows and columns; tables need groups along a row.")
        group = fmt.size if isinstance(fmt.size, int) else 0
        values = element_values(fmt.element)
        return Elements(fmt.name, values, group, True, fmt.block_bits, fmt.zero_point, fmt.tensor_scale is not None)
    if isinstance(fmt, Packed) and fmt.scheme in _PACKED:
        numbers, field = _PACKED[fmt.scheme]
        found = next(f for f in fmt.fields if f.name == field)
        group = fmt.block_elements if found.per == "block" else 0
        return Elements(fmt.name, tuple(map(float, numbers)), group, True, found.bits if group else 0)
    if isinstance(fmt, Packed) and fmt.scheme == BINARY_CODING:
        bits = next(f.bits for f in fmt.fields if f.name == "codes")
        return Elements(fmt.name, (-1.0, 1.0), fmt.block_elements, True, 16 * (bits + 1), coded_bits=bits)
    raise FormatError(f"{fmt.name!r} has no elements of one scale per group, which tables of look-ups need.")


def scale_field(fmt: Packed) -> str:
    """Return the field of a packed format that holds its scales."""
    return _PACKED[fmt.scheme][1]


@lru_cache(maxsize=1024)
def element_values(fmt: ScalarFormat) -> tuple[float, ...]:
    """Return the values of a format of at most 8 bits, ascending, each once."""
    if fmt.bits > MAX_BITS:
        raise FormatError(f"{fmt.name!r} has {fmt.bits} bits; tables of look-ups take codes of at most {MAX_BITS}.")
    values = code_values(fmt)
    return tuple(sorted({float(v) + 0.0 for v in values if np.isfinite(v)}))


def code_values(fmt: ScalarFormat) -> NDArray[np.float64]:
    """Return the value of every code."""
    return decode_codes(np.arange(1 << fmt.bits, dtype=np.uint16 if fmt.bits > 8 else np.uint8), fmt)


@dataclass(frozen=True)
class Digits:
    """Weights as digits of one plane or several.

    `weight = scale * unit * (sum over planes of 2^i * values[digit_i] - offset)`.

    Attributes:
        elements: The format's elements.
        planes: Look-ups per group: bits of the weights, or 1.
        values: Values of a digit, ascending, in units: -1 and 1 of bit planes.
        unit: Of a weight with scale 1.
        offset: In units: z' = 2z + 1 - 2^b of reinterpreted integers, 0 where they are symmetric; zero points add to
            it.
        shifted: Whether offsets or zero points have to be subtracted.
    """

    elements: Elements
    planes: int
    values: tuple[float, ...]
    unit: float
    offset: int
    shifted: bool

    @property
    def base(self) -> int:
        """Values of a digit."""
        return len(self.values)


@lru_cache(maxsize=4096)
def digits(fmt: Format, engine: LutEngine) -> Digits:
    """Return how an engine takes weights of a format apart.

    Raises:
        FormatError: The engine cannot multiply weights of this format.

    Example:
        >>> from lowp.hw_models.lut_engine import lut_engine
        >>> digits(parse("int4"), lut_engine("t_mac")).offset, digits(parse("ternary"), lut_engine("tl2")).planes
        (1, 1)
    """
    found = elements(fmt)
    if engine.style == "bit_serial":
        return _bit_planes(found, engine)
    if found.coded_bits:
        raise FormatError(f"{found.name!r} has a scale per bit plane; engine={engine.name!r} has no bit planes.")
    return _whole_digits(found, engine)


def _bit_planes(found: Elements, engine: LutEngine) -> Digits:
    """Reinterpret steps u of 0 to 2^b - 1 as q' = 2u - (2^b - 1), whose bits count -1 and +1."""
    if found.coded_bits:
        if not engine.plane_scales:
            raise FormatError(f"{found.name!r} has a scale per bit plane; engine={engine.name!r} has one per group.")
        return Digits(found, found.coded_bits, (-1.0, 1.0), 1.0, 0, True)
    steps = [Fraction(v) for v in found.values]
    step = steps[1] - steps[0] if len(steps) > 1 else Fraction(1)
    even = all(b - a == step for a, b in pairwise(steps))
    offset = -2 * steps[0] / step
    if not even or offset.denominator != 1:
        raise FormatError(
            f"{found.name!r} has values that are not evenly spaced multiples of a step; engine={engine.name!r} takes "
            "integers in bit planes. Engines for other codebooks: 'codebook', 'dequantize'."
        )
    planes = max(1, (len(steps) - 1).bit_length())
    constant = int(offset) + 1 - (1 << planes)
    unit = step / 2
    _check_unit(found, engine, unit)
    return Digits(found, planes, (-1.0, 1.0), float(unit), constant, constant != 0 or found.zero_points)


def _whole_digits(found: Elements, engine: LutEngine) -> Digits:
    unit = Fraction(1) if engine.table != "exact" else found.unit
    if unit is None:
        raise FormatError(
            f"{found.name!r} has values that are no multiples of a power of two; the tables of engine={engine.name!r} "
            "hold integers. Use engine 'codebook'."
        )
    values = tuple(float(Fraction(v) / unit) for v in found.values)
    if engine.mirror and any(a != -b for a, b in zip(values, reversed(values), strict=True)):
        raise FormatError(f"{found.name!r} is not symmetric; engine={engine.name!r} keeps half of each table.")
    base, group = len(values), engine.group
    if base**group > MAX_ENTRIES:
        raise FormatError(
            f"{found.name!r} has {base} values: {base}^{group} entries of engine={engine.name!r} are too many."
        )
    if engine.index_bits and (base**group - 1).bit_length() > engine.index_bits:
        raise FormatError(
            f"{found.name!r} has {base} values: {base}^{group} combinations do not fit the {engine.index_bits}-bit "
            f"indices of engine={engine.name!r}."
        )
    return Digits(found, 1, values, float(unit), 0, found.zero_points)


def _check_unit(found: Elements, engine: LutEngine, unit: Fraction) -> None:
    """The step times a scale must be exact in float64."""
    odd = unit.numerator
    while odd and odd % 2 == 0:
        odd //= 2
    if unit.denominator & (unit.denominator - 1) or odd.bit_length() > 5:
        raise FormatError(
            f"{found.name!r} has a step that is no small multiple of a power of two; engine={engine.name!r}."
        )


@dataclass(frozen=True)
class Inputs:
    """Activations as an engine reads them.

    Attributes:
        name: Name of the format.
        bits: Bits of a value, scales not counted.
        group: Values that share a scale; 0: a token, the tensor, or none.
        scaled: Whether blocks of `group` values have scales.
        token_scaled: Whether a scale multiplies the results of a token or the tensor.
        unit: Power of two that all values are multiples of; None where tables are not of integers.
        largest: Largest magnitude, in units.
        values: Different values, of formats of at most 8 bits; else 0.
    """

    name: str
    bits: float
    group: int = 0
    scaled: bool = False
    token_scaled: bool = False
    unit: float | None = None
    largest: float = 0.0
    values: int = 0


@lru_cache(maxsize=1024)
def inputs(fmt: Format) -> Inputs:
    """Return how activations of a format are read.

    Raises:
        FormatError: A packed format, or one with zero points or tiles.
    """
    if isinstance(fmt, ScalarFormat):
        return _scalar_inputs(fmt, fmt.name, 0, False, False)
    if not isinstance(fmt, Block) or fmt.zero_point or isinstance(fmt.size, tuple):
        raise FormatError(f"activations in {fmt.name!r}: engines take scalar formats and blocks without zero points.")
    group = fmt.size if isinstance(fmt.size, int) else 0
    whole = not group or fmt.tensor_scale is not None
    return _scalar_inputs(fmt.element, fmt.name, group, bool(group), whole)


def _scalar_inputs(fmt: ScalarFormat, name: str, group: int, scaled: bool, whole: bool) -> Inputs:
    if fmt.bits > MAX_BITS and not isinstance(fmt, Integer):
        return Inputs(name, float(fmt.bits), group, scaled, whole)
    if fmt.bits > MAX_BITS:
        return Inputs(name, float(fmt.bits), group, scaled, whole, 1.0, max(fmt.max, -fmt.min))
    found = Elements(name, element_values(fmt))
    unit = found.unit
    largest = max(map(abs, found.values))
    if unit is None:
        return Inputs(name, float(fmt.bits), group, scaled, whole, None, largest, len(found.values))
    return Inputs(name, float(fmt.bits), group, scaled, whole, float(unit), largest / float(unit), len(found.values))


def resolved(weights: Any, activations: Any, engine: LutEngine) -> tuple[Digits, Inputs]:
    """Return weights and activations as an engine takes them.

    Raises:
        FormatError: It cannot; or entries do not fit their bits.
    """
    parts, read = digits(parse(weights), engine), inputs(parse(activations))
    if engine.table != "exact":  # such engines read decoded activations
        read = replace(read, group=0, scaled=False, token_scaled=False)
    check_entries(parts, read, engine)
    return parts, read


@lru_cache(maxsize=4096)
def check_entries(parts: Digits, read: Inputs, engine: LutEngine) -> None:
    """Raise FormatError if exact tables cannot hold all sums of these activations."""
    if engine.table != "exact":
        return
    if read.unit is None:
        raise FormatError(
            f"activations={read.name!r}: the tables of engine={engine.name!r} hold integers exactly; quantize them, "
            "such as to 'int8_row'."
        )
    if engine.style == "product" and not read.values:
        raise FormatError(f"activations={read.name!r} of {read.bits:g} bits; a table of products takes at most 8.")
    if engine.style == "dequantize":
        return
    largest = read.largest * max(map(abs, parts.values)) * engine.group
    if largest >= 1 << (engine.entry_bits - 1):
        raise FormatError(
            f"activations={read.name!r}: sums up to {largest:g} do not fit the {engine.entry_bits}-bit entries of "
            f"engine={engine.name!r}."
        )


def half_offset(base: int, group: int) -> int:
    """Return the first combination of digits that a mirrored table keeps.

    Example:
        >>> half_offset(2, 4), half_offset(3, 3)
        (8, 13)
    """
    return int(base**group) // 2
