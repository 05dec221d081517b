"""How deep a datapath's logic is: gate levels of its blocks along the longest path."""

from __future__ import annotations

import math
from collections.abc import Callable

from lowp.hw_models.blocks import Block
from lowp.hw_models.datapath import Datapath

#: Roles one after the other; those in one group work side by side.
_ORDER = (("decode",), ("multiply", "exponent"), ("linear",), ("align",), ("sum",), ("normalise",), ("scale",))
_LAST = ("accumulate", "convert")
#: Levels of a full adder, of a multiplexer, and of a stage of a prefix adder.
_FULL_ADDER = _MULTIPLEXER = _PREFIX = 2


def levels(block: Block) -> int:
    """Return the gate levels of a block: of a composite one, those of its parts one after the other.

    Adders are parallel-prefix adders; sums of several words are carry-save trees with one such adder at the end.

    Example:
        >>> levels(Block.of("adder", "sum", bits=32)), levels(Block.of("multiplier", "multiply", ma=8, mb=8))
        (12, 19)
    """
    if block.parts:
        return sum(levels(part) for part in block.parts)
    return _LEVELS[block.kind](block)


def path_levels(unit: Datapath) -> int:
    """Return the gate levels of the longest path through a datapath's logic, pipeline registers not counted.

    Example:
        >>> from lowp.hw_models.datapath import datapath
        >>> path_levels(datapath("int8")) < path_levels(datapath("float16"))
        True
    """
    stages = [*_ORDER, *((role,) for role in _LAST)]
    return sum(max(_of_role(unit, role) for role in group) for group in stages)


def _of_role(unit: Datapath, role: str) -> int:
    """Blocks of a kind in one role work side by side, different kinds one after the other."""
    deepest: dict[str, int] = {}
    for block in unit.of_role(role):
        deepest[block.kind] = max(deepest.get(block.kind, 0), levels(block))
    return sum(deepest.values())


def _log(n: int) -> int:
    return (n - 1).bit_length()


def _adder(bits: int) -> int:
    return _PREFIX * _log(bits) + 2


def _carry_save(words: int) -> int:
    """Full adders on top of each other that turn so many words into two."""
    count = 0
    while words > 2:
        words, count = words - words // 3, count + 1
    return count * _FULL_ADDER


def _product(block: Block) -> int:
    low, high = sorted((block["ma"], block["mb"]))
    return 1 if low == 1 else 1 + _carry_save(low) + _adder(low + high)


_LEVELS: dict[str, Callable[[Block], int]] = {
    "multiplier": _product,
    "scale_multiplier": _product,
    "exponent_adder": lambda block: _adder(block["bits"]),
    "subtractor": lambda block: 1 + _adder(block["bits"]),
    "comparator_tree": lambda block: _log(block["inputs"]) * (_PREFIX * _log(block["bits"]) + 1 + _MULTIPLEXER),
    "shifter": lambda block: _MULTIPLEXER * _log(block["positions"]),
    "aligner": lambda block: _MULTIPLEXER * _log(block["n"]),
    "normaliser": lambda block: _MULTIPLEXER * _log(block["bits"]),
    "adder_tree": lambda block: _carry_save(block["inputs"]) + _adder(block["bits"] + _log(block["inputs"])),
    "adder": lambda block: _adder(block["bits"]),
    "negate": lambda block: 1,
    "leading_zero_counter": lambda block: _MULTIPLEXER * _log(block["bits"]),
    "rounder": lambda block: 1 + _log(block["bits"]),
    "table": lambda block: max(1, math.ceil(1.5 * _log(block["entries"]))),
    "selector": lambda block: _MULTIPLEXER * _log(block["inputs"]),
    "unpacker": lambda block: 1 + _log(block["bits"]),
    "register": lambda block: 0,
}
