"""Registers of a datapath: its operands, its running sum, and what passes from one pipeline stage to the next."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lowp.hw_models.blocks import Block
from lowp.hw_models.datapath_formats import WIDE, Operand

if TYPE_CHECKING:
    from lowp.hw_models.datapath_sums import Products

#: Where pipelines are cut, in the order in which cuts are made as stages are added.
CUTS = ("multiply", "align", "sum", "normalise", "decode")
#: Bits below a significand that decide its rounding.
_ROUNDING_BITS = 3


def operand_registers(sides: tuple[Operand, ...], lanes: int, groups: int, stored: int) -> list[Block]:
    """Return the registers of the operands, of their scales and of the running sum."""
    blocks = []
    for name, side in zip("ab", sides, strict=True):
        label = f"{name}: {side.element.name}"
        blocks.append(Block.of("register", "register", lanes, label=label, operand=name, bits=side.element.bits))
        if side.shifts:
            count, width = -(-lanes // side.shift_group), side.shifts.bit_length()
            label = f"shared exponents of {name}"
            blocks.append(Block.of("register", "register", count, label=label, operand=name, bits=width))
        if side.scaled and side.scale is not None:
            label, bits = f"scale of {name}", side.scale.bits
            blocks.append(Block.of("register", "register", groups, label=label, operand=name, bits=bits))
    return [*blocks, Block.of("register", "register", label="running sum", bits=stored)]


def pipeline_registers(
    stages: int, sides: tuple[Operand, ...], found: Products, lanes: int, aligned: int, stored: int
) -> list[Block]:
    """Return the registers between pipeline stages, cut after each of the first `stages - 1` of `CUTS`.

    Args:
        stages: Pipeline stages.
        sides: The operands.
        found: Their products.
        lanes: Products per step.
        aligned: Bits of an aligned product.
        stored: Bits of the running sum, which a single product passes along until it is aligned.
    """
    exponent = (found.exponents - 1).bit_length()
    total = aligned + (lanes - 1).bit_length()
    addend = stored if lanes == 1 else 0
    bits = {
        "decode": sum(x.factor.significand + x.factor.exponent_bits + 1 for x in sides) * lanes + addend,
        "multiply": (found.significand + exponent + 1) * lanes + addend,
        "align": aligned * lanes + exponent,
        "sum": total + exponent,
        "normalise": min(total, WIDE.mantissa_bits + 1 + _ROUNDING_BITS) + exponent,
    }
    cuts = CUTS[: stages - 1]
    return [Block.of("register", "register", label=f"pipeline, {cut}", bits=bits[cut]) for cut in cuts]
