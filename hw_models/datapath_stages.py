"""The stages of a datapath: which blocks decode, multiply, sum, scale and store, and how wide they are."""

from __future__ import annotations

import math

from lowp._errors import FormatError
from lowp.emulation.accumulator import Accumulator
from lowp.formats.integer import Fixed, Integer
from lowp.formats.spec import Format, ScalarFormat
from lowp.hw_models.blocks import Block
from lowp.hw_models.datapath import PARTIAL_SUM_BITS, Datapath, Request
from lowp.hw_models.datapath_edges import dequantizer, quantizer
from lowp.hw_models.datapath_formats import (
    WIDE,
    Linear,
    Operand,
    antilogarithm,
    as_integers,
    decoding,
    operand,
    power_of_two,
    running_format,
)
from lowp.hw_models.datapath_registers import operand_registers, pipeline_registers
from lowp.hw_models.datapath_sums import (
    Products,
    check_accumulator,
    float_accumulate,
    fused_width,
    outer_sum,
    round_products,
    word_accumulate,
)
from lowp.hw_models.value_sets import Factor, factor, product_range, sum_bits, two_complement_bits

#: Integers whose sums need no more bits are added up in int32 where no accumulator is given.
_DEFAULT_WORD = 32
#: Bits of an aligner's window besides an accumulator's fraction bits: sign and two integer bits of a product.
_ALIGNMENT_MARGIN = 3


def build(request: Request) -> Datapath:
    """Derive a datapath; see `datapath`."""
    sides = operand("a", request.a), operand("b", request.b)
    if request.integers:
        sides = as_integers(sides[0]), as_integers(sides[1])
    lanes = request.lanes
    chosen = request.accumulator if request.accumulator is not None else _default(*sides, request.terms)
    group = _group(sides, lanes, chosen)
    groups = math.ceil(lanes / group)
    found, multiplying = _multiply(sides, lanes)
    blocks = [*decoding("a", sides[0], lanes), *decoding("b", sides[1], lanes), *multiplying]
    blocks += _shared_shifts(sides, lanes)
    word = _word(sides, found, chosen, request.terms)
    if word is not None:
        window, stored, aligned = None, word, found.bits
        blocks += word_accumulate(found, word, lanes, group, _positions(sides, chosen))
    else:
        assert not isinstance(chosen, str)
        running = factor(running_format(chosen))
        found, rounding = round_products(found, chosen, lanes)
        window, stored = _window(found, chosen, group, request.window), running.format.bits
        aligned = window or (fused_width(found, running) if group == 1 else found.bits)
        blocks += [*rounding, *float_accumulate(found, running, lanes, group, window, chosen)]
        blocks += outer_sum(chosen)
    blocks += _scales(sides, groups, PARTIAL_SUM_BITS if word is None else word)
    blocks += operand_registers(sides, lanes, groups, stored)
    blocks += pipeline_registers(request.stages, sides, found, lanes, aligned, stored)
    if request.conversions:
        blocks += _conversions(sides, chosen, stored, word is not None)
    named = (request.a, request.b, chosen, lanes, request.terms, window, found.bits, found.unit, stored)
    return Datapath(*named, tuple(blocks), request.stages)


# Products


def _multiply(sides: tuple[Operand, Operand], lanes: int) -> tuple[Products, list[Block]]:
    a, b = sides[0].factor, sides[1].factor
    if a.unit is None and b.unit is None:
        return _add_logarithms(a, b, lanes)
    linear = [antilogarithm(f.fraction, f.logarithm, f.natural) if f.unit is None else None for f in (a, b)]
    blocks = [block for x in linear if x for block in x.blocks(lanes)]
    (ma, ea), (mb, eb) = (_sizes(x, f) for x, f in zip(linear, (a, b), strict=True))
    blocks.append(Block.of("multiplier", "multiply", lanes, ma=ma, mb=mb))
    if min(ea, eb) > 1:
        blocks.append(Block.of("exponent_adder", "exponent", lanes, bits=(max(ea, eb) - 1).bit_length()))
    exponents = ea + eb - 1
    if a.unit is None or b.unit is None:
        return Products(ma + mb + exponents, None, ma + mb, exponents), blocks
    least, largest = product_range(a, b)
    bits = two_complement_bits(min(least, 0), max(largest, 0))
    significand = bits if exponents == 1 else ma + mb
    if any(side.integers or side.shifts for side in sides):
        blocks.append(Block.of("negate", "multiply", lanes, bits=ma + mb + 1))
    return Products(bits, a.unit + b.unit, significand, exponents), blocks


def _shared_shifts(sides: tuple[Operand, Operand], lanes: int) -> list[Block]:
    """Shifters of the sums of products that share exponents smaller than a block's."""
    positions = 1 + sum(side.shifts for side in sides)
    if positions == 1:
        return []
    group = min([lanes, *(side.shift_group for side in sides if side.shifts)])
    significands = sum(side.factor.significand for side in sides)
    bits = significands + 1 + positions - 1 + (group - 1).bit_length()
    count = math.ceil(lanes / group)
    return [Block.of("shifter", "align", count, label="by shared exponents", bits=bits, positions=positions)]


def _sizes(linear: Linear | None, seen: Factor) -> tuple[int, int]:
    return (linear.bits, linear.exponents) if linear else (seen.significand, seen.exponents)


def _add_logarithms(a: Factor, b: Factor, lanes: int) -> tuple[Products, list[Block]]:
    bits = max(a.logarithm, b.logarithm)
    linear = antilogarithm(_fraction(a, b), bits + 1, a.natural)
    adder = Block.of("exponent_adder", "multiply", lanes, label="logarithms", bits=bits)
    return Products(bits + 2, None, linear.bits, linear.exponents, linear=False), [adder, *linear.blocks(lanes)]


def _fraction(a: Factor, b: Factor) -> int | None:
    """Fraction bits of a sum of two logarithms; None where their step is a root of no power-of-two order."""
    same = a.natural == b.natural and (a.fraction is None) == (b.fraction is None)
    if a.fraction is None and getattr(a.format, "gamma", None) != getattr(b.format, "gamma", None):
        same = False
    if not same:
        raise FormatError(f"a={a.format.name!r} and b={b.format.name!r} have logarithms that do not add.")
    return None if a.fraction is None or b.fraction is None else max(a.fraction, b.fraction)


# Sums


def _default(a: Operand, b: Operand, terms: int) -> Format:
    x, y = a.factor, b.factor
    if x.unit is None or y.unit is None or max(x.exponents, y.exponents) > 1 or a.scaled or b.scaled:
        return WIDE
    bits, unit = max(sum_bits(x, y, terms), _DEFAULT_WORD), x.unit + y.unit
    return Integer(bits) if unit == 0 and bits == _DEFAULT_WORD else Fixed(bits, -unit)


def _group(sides: tuple[Operand, Operand], lanes: int, accumulator: str | Format | Accumulator) -> int:
    """Lanes whose products share their scales and are summed before they are rounded."""
    sizes = [x.group for x in sides if x.group]
    group = math.gcd(*sizes) if sizes else lanes
    if isinstance(accumulator, Accumulator):
        check_accumulator(accumulator)
        inner = accumulator.group if accumulator.group_sum == "fused" else 1
        if not isinstance(running_format(accumulator), Integer | Fixed):
            group = math.gcd(group, inner) if inner < lanes else group
    return min(group, lanes)


def _window(found: Products, accumulator: Format | Accumulator, group: int, given: int | None) -> int | None:
    """Bits of the aligners, None where products are integers or alone."""
    if found.exponents == 1 or group == 1:
        return None
    if given is not None:
        return given
    alignment = accumulator.alignment if isinstance(accumulator, Accumulator) else None
    limit = PARTIAL_SUM_BITS if alignment is None else alignment.fraction_bits + _ALIGNMENT_MARGIN
    return min(limit, found.window)


def _word(
    sides: tuple[Operand, Operand], found: Products, accumulator: str | Format | Accumulator, terms: int
) -> int | None:
    """Return the bits of a fixed-point running sum, or None where it has exponents."""
    if isinstance(accumulator, str):
        return _exact_word(sides, found, terms)
    fmt = running_format(accumulator)
    if not isinstance(fmt, Integer | Fixed):
        return None
    if any(x.scaled for x in sides):
        raise FormatError(
            f"accumulator={fmt.name!r} is a fixed-point word; sums of scaled blocks take a float, or 'exact'."
        )
    return fmt.bits


def _exact_word(sides: tuple[Operand, Operand], found: Products, terms: int) -> int:
    if found.unit is None:
        names = " and ".join(repr(x.format.name) for x in sides)
        raise FormatError(f"accumulator='exact' needs products on a grid, those of {names} are irrational.")
    low, high = product_range(sides[0].factor, sides[1].factor)
    for scale in _group_scales(sides):
        ends = [x * y for x in (low, high) for y in (scale.least, scale.largest)]
        low, high = min(ends), max(ends)
    return two_complement_bits(min(low, 0) * terms, max(high, 0) * terms)


def _group_scales(sides: tuple[Operand, Operand]) -> list[Factor]:
    return [factor(x.scale) for x in sides if x.scaled and x.scale is not None]


def _positions(sides: tuple[Operand, Operand], accumulator: str | Format | Accumulator) -> int:
    """Positions to which an exact sum shifts the sums of scaled blocks."""
    return 1 + sum(scale.exponents - 1 for scale in _group_scales(sides)) if accumulator == "exact" else 1


# Scales, conversions


def _scales(sides: tuple[Operand, Operand], groups: int, width: int) -> list[Block]:
    """Blocks that apply scales to the sums of groups: exponents add; the scales' significands are multiplied first."""
    blocks, product = [], 0
    for scale in _group_scales(sides):
        name = scale.format.name
        if scale.unit is None:
            raise FormatError(f"scale={name!r} is logarithmic; no datapath for such scales is known here.")
        if scale.exponent_bits:
            blocks.append(Block.of("exponent_adder", "scale", groups, label=name, bits=scale.exponent_bits))
        if not power_of_two(scale):
            other = product or width
            blocks.append(Block.of("scale_multiplier", "scale", groups, label=name, ma=scale.significand, mb=other))
            product = scale.significand
    return blocks


def _conversions(
    sides: tuple[Operand, Operand], accumulator: str | Format | Accumulator, stored: int, word: bool
) -> list[Block]:
    """Blocks at the edges: the running sum to float32, and float32 to codes of the operands."""
    a, b = sides
    wide = not isinstance(accumulator, str) and isinstance(running_format(accumulator), ScalarFormat)
    plain = wide and not word and not a.late_scales and not b.late_scales
    plain = plain and not isinstance(accumulator, str) and running_format(accumulator) == WIDE
    out = [] if plain else [dequantizer(a, b, stored, word)]
    named = [("a", a)] if a.format == b.format else [("a", a), ("b", b)]
    return [*out, *(quantizer(name, side) for name, side in named)]
