"""The hardware of a lookup-table engine: tables in registers that outputs share, selectors, sums."""

from __future__ import annotations

from typing import Any

from lowp._errors import FormatError
from lowp.formats import parse
from lowp.formats.spec import Format
from lowp.hw_models.arguments import sizes
from lowp.hw_models.blocks import Block
from lowp.hw_models.datapath import Datapath
from lowp.hw_models.lut_engine import LutEngine, lut_engine
from lowp.hw_models.lut_formats import resolved
from lowp.hw_models.units import UnitCost, price

#: Bits of the running sum of integer tables.
SUM_BITS = 32


def lut_unit(
    weights: Any,
    activations: Any = "int8",
    engine: str | LutEngine = "lut_tensor_core",
    m: int = 2,
    n: int = 64,
    target: str = "n28",
    *,
    accumulate: bool = True,
) -> UnitCost:
    """Price an array that looks up `m` tokens times `n` outputs of one group of weights per step and bit plane.

    Tables lie in registers; the outputs of a token share one. Building them is not part of it.

    Args:
        weights: Format of the weights, or its name.
        activations: Format of the activations.
        engine: A `LutEngine` of bit-serial or element style, or its name.
        m: Tokens, each with a table.
        n: Outputs that share a table.
        target: One of `targets("asic")`.
        accumulate: Whether running sums of 32 bits are part of it.

    Raises:
        ArgumentError: A size, target or engine that there is not.
        FormatError: The engine cannot multiply these formats, or has no tables per token.

    Example:
        >>> half = lut_unit("int2", "int8").area.value
        >>> full = lut_unit("int2", "int8", lut_engine("lut_tensor_core", mirror=False)).area.value
        >>> 1.2 < full / half < 1.5
        True
    """
    m, n = sizes(m=m, n=n)
    how = lut_engine(engine)
    if how.style not in ("bit_serial", "element"):
        raise FormatError(f"engine={how.name!r} has no table per token; allowed styles: 'bit_serial', 'element'.")
    left, right = parse(weights), parse(activations)
    parts, _ = resolved(left, right, how)
    blocks = _blocks(how, how.entries(parts.base), right, m, n, accumulate)
    bits = how.entry_bits
    unit = Datapath(left, right, "exact", how.group, how.group, None, bits, 0, SUM_BITS, blocks, copies=m * n)
    return price(unit, target)


def _blocks(
    engine: LutEngine, entries: int, activations: Format, m: int, n: int, accumulate: bool
) -> tuple[Block, ...]:
    bits = engine.entry_bits
    floats = engine.table.startswith("float")
    found = [
        Block.of("register", "register", m, label="table", bits=entries * bits),
        Block.of("register", "register", n, label="index", bits=engine.group),
        Block.of("selector", "linear", m * n, inputs=max(2, entries), bits=bits),
    ]
    if engine.mirror:  # a float's sign is one bit
        found.append(Block.of("negate", "linear", m * n, bits=1 if floats else bits))
    if accumulate and floats:
        raise FormatError(
            f"engine={engine.name!r} adds {engine.table} entries; price the sums of activations in "
            f"{activations.name!r} with dot_unit, or give accumulate=False."
        )
    if accumulate:
        found += [
            Block.of("adder", "accumulate", m * n, bits=SUM_BITS),
            Block.of("register", "register", m * n, label="sum", bits=SUM_BITS),
        ]
    return tuple(found)
