"""Conversions at the edges of a datapath: sums to wide floats, and wide floats to codes."""

from __future__ import annotations

from lowp.formats.float_format import Float
from lowp.formats.spec import ScalarFormat
from lowp.hw_models.blocks import Block
from lowp.hw_models.datapath_formats import WIDE, Operand, encoders, power_of_two
from lowp.hw_models.value_sets import factor

_WIDE = factor(WIDE)


def dequantizer(a: Operand, b: Operand, stored: int, word: bool) -> Block:
    """Return what turns a finished sum into a float32: from a word by its leading one, times the scales left over.

    Args:
        a: Left operand.
        b: Right operand.
        stored: Bits of the running sum.
        word: Whether that is a fixed-point word.
    """
    parts = []
    if word:
        parts += [
            Block.of("negate", "convert", bits=stored),
            Block.of("leading_zero_counter", "convert", bits=stored),
            Block.of("normaliser", "convert", bits=stored),
            Block.of("rounder", "convert", bits=_WIDE.significand),
        ]
    for side in (a, b):
        for scale in side.late_scales:
            parts += _scaling(scale)
    if not parts:  # a float of another format: its exponent and rounding
        parts.append(Block.of("rounder", "convert", bits=_WIDE.significand))
    return Block.of("dequantizer", "convert", edge=True, parts=tuple(parts), bits=stored, block=1)


def _scaling(scale: ScalarFormat) -> list[Block]:
    seen = factor(scale)
    adder = Block.of("exponent_adder", "convert", label=seen.format.name, bits=max(seen.exponent_bits, 1))
    if power_of_two(seen):
        return [adder]
    return [
        adder,
        Block.of("scale_multiplier", "convert", label=seen.format.name, ma=seen.significand, mb=_WIDE.significand),
    ]


def quantizer(name: str, side: Operand) -> Block:
    """Return what turns float32 numbers into codes of a format, one per step.

    Shared scales take a comparison of exponents per number and, unless they are powers of two, a multiplication by
    the scale's reciprocal; then a number is shifted, rounded and, in formats whose fields are of variable length,
    encoded. Codebooks compare with every decision point.
    """
    significand = max(side.factor.significand, 1)
    parts = []
    if side.scale is not None:
        seen = factor(side.scale)
        parts.append(Block.of("comparator_tree", "convert", label="largest", inputs=2, bits=WIDE.bits - 1))
        parts.append(Block.of("subtractor", "convert", label="scale", bits=_WIDE.exponent_bits))
        if not power_of_two(seen):
            parts.append(
                Block.of("scale_multiplier", "convert", label="reciprocal", ma=seen.significand, mb=_WIDE.significand)
            )
    parts.append(Block.of("shifter", "convert", bits=_WIDE.significand, positions=significand + 1))
    parts.append(Block.of("rounder", "convert", bits=significand))
    if not isinstance(side.element, Float):
        parts += encoders(side.element, "convert")
    label = f"{name}: {side.format.name}"
    block = side.group or 1
    return Block.of(
        "quantizer", "convert", edge=True, label=label, parts=tuple(parts), bits=side.element.bits, block=block
    )
