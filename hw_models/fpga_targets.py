"""What blocks take on FPGAs: coefficients of LUTs, and of logic levels for the clock. Data: `data/targets/`.

Coefficients are per amounts that follow the structure of a block in six-input LUTs. They were fitted to netlists of
Yosys; `data/fpga_yosys.csv` holds the measured counts, `functions` as Yosys lists them and `lut` where two functions
of together at most five inputs share a LUT, as place-and-route does.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.resources import files

from lowp._errors import ArgumentError, FormatError
from lowp.hw_models.blocks import Block
from lowp.hw_models.targets import NOTHING, Amount, known

#: Counts of a block: LUTs, and functions before pairs of them share LUTs.
COUNTS = ("lut", "function")
_LUT_INPUTS = 6


@dataclass(frozen=True)
class FpgaTarget:
    """A family of FPGAs for which blocks have a price.

    Attributes:
        name: Such as "xcup".
        title: In words.
        base: Target whose coefficients of logic are used, times `node` rows; or None.
        dsp_block: Its DSP.
        sources: Where the coefficients come from.
    """

    name: str
    title: str
    base: str | None
    dsp_block: str
    sources: tuple[str, ...]

    def count(self, block: Block, quantity: str = "lut", signed: bool = False) -> Amount:
        """Return the LUTs or functions of a block and all its parts, as many as there are.

        Args:
            block: The block.
            quantity: "lut" or "function".
            signed: Whether it is a multiplier of two's complement numbers.

        Raises:
            FormatError: A coefficient is missing.
        """
        return _price(self.name, block, quantity, signed).times(block.count)

    def elements(self, block: Block) -> Iterator[Block]:
        """Yield what a block is priced as: itself, or its parts where only those have coefficients; with counts."""
        if not block.parts or _terms(self.name, own_kind(block), "lut") is not None:
            yield block
            return
        for part in block.parts:
            yield from self.elements(part.times(block.count))

    def levels(self, block: Block) -> Amount:
        """Return the delay of one block in seconds: its logic levels and carry chains.

        Raises:
            FormatError: A coefficient is missing.
        """
        return _delay(self.name, block)

    def constant(self, name: str) -> Amount:
        """Return a constant of the target, such as the highest clock of its DSPs.

        Raises:
            FormatError: It is missing.
        """
        return _constant(self.name, name)


@cache
def _rows(name: str) -> tuple[dict[str, str], ...]:
    text = (files("lowp.hw_models") / "data" / "targets" / f"{name}.csv").read_text(encoding="utf-8")
    return tuple(csv.DictReader(text.splitlines()))


@lru_cache(maxsize=16)
def fpga_target(name: str) -> FpgaTarget:
    """Return the FPGA target of a name: "xcup" (UltraScale+), "versal" or "series7".

    Raises:
        ArgumentError: The name is unknown, or that of a standard-cell target.
        ArgumentTypeError: The name is no string.

    Example:
        >>> fpga_target("xcup").dsp_block
        'DSP48E2'
    """
    if known(name) != "fpga":
        raise ArgumentError(f"target={name!r} is no FPGA.")
    facts = {r["quantity"]: r["value"] for r in _rows(name) if r["block"] == "target"}
    own = [r["source"] for r in _rows(name) if r["source"]]
    base = facts.get("base")
    sources = dict.fromkeys(own + [r["source"] for r in (_rows(base) if base else ()) if r["source"]])
    return FpgaTarget(name, facts["title"], base, facts["dsp_block"], tuple(sources))


# Amounts


def amount(block: Block, per: str) -> float:
    """Return how much of something one block has, in terms of six-input LUTs; else what `Block.amount` gives.

    Args:
        block: The block.
        per: "mux4": outputs of 4-to-1 multiplexers of shifters, two stages each; "mux2": those of a last stage by
            itself; "lut6": LUT functions of a table of arbitrary contents, "lut6_shared": its LUTs; "run_bit":
            `n log2 n` of codes of n bits.

    Example:
        >>> amount(Block.of("table", "linear", entries=128, bits=8), "lut6")
        16.0
        >>> [amount(Block.of("normaliser", "normalise", bits=24), per) for per in ("mux4", "mux2")]
        [48.0, 24.0]
    """
    found = _AMOUNTS.get(per)
    return found(block) if found else block.amount(per)


def _outputs(block: Block) -> tuple[int, int]:
    """Outputs of all pairs of a shifter's stages, and of a last stage without a pair."""
    if block.kind == "aligner":
        bits, reach, positions = block["n"], min(block["product"], block["n"]), block["n"]
    elif block.kind == "shifter":
        bits, positions = block["bits"], block["positions"]
        growing = block.role == "align" and bits >= positions
        reach = max(bits - positions + 1, 1) if growing else bits
    else:
        bits = reach = positions = block["bits"]
    pairs = single = 0
    stages = (positions - 1).bit_length()
    for first in range(0, stages, 2):
        together = min(2, stages - first)
        reach = min(bits, reach + sum(1 << s for s in range(first, first + together)))
        pairs, single = (pairs + reach, single) if together == 2 else (pairs, reach)
    return pairs, single


def _lut6(block: Block) -> float:
    inputs = (block["entries"] - 1).bit_length()
    return float(block["bits"] << max(inputs - _LUT_INPUTS, 0))


def _lut6_shared(block: Block) -> float:
    if block["entries"] <= 1 << (_LUT_INPUTS - 1):  # two outputs of the same five inputs share a LUT
        return float((block["bits"] + 1) // 2)
    return _lut6(block)


_AMOUNTS: dict[str, Callable[[Block], float]] = {
    "mux4": lambda block: float(_outputs(block)[0]),
    "mux2": lambda block: float(_outputs(block)[1]),
    "lut6": _lut6,
    "lut6_shared": _lut6_shared,
    "run_bit": lambda block: float(block["bits"] * (block["bits"] - 1).bit_length()),
}


# Prices


def _coefficients(name: str) -> tuple[dict[str, str], ...]:
    base = next((r["value"] for r in _rows(name) if r["block"] == "target" and r["quantity"] == "base"), None)
    own = tuple(_rows(name))
    return own + tuple(r for r in _rows(base) if r["block"] != "target") if base else own


@cache
def _constant(name: str, wanted: str) -> Amount:
    for row in _coefficients(name):
        if row["block"] == "constant" and row["quantity"] == wanted:
            return _interval(row)
    raise FormatError(f"target={name!r} has no constant {wanted!r}.")


@cache
def _node(name: str, quantity: str) -> Amount:
    for row in _rows(name):
        if row["block"] == "node" and row["quantity"] == quantity:
            return _interval(row)
    return Amount(1.0, 1.0, 1.0)


@cache
def _terms(name: str, kind: str, quantity: str) -> tuple[tuple[str, Amount], ...] | None:
    found = [r for r in _coefficients(name) if (r["block"], r["quantity"]) == (kind, quantity)]
    node = _node(name, quantity)
    return tuple((r["per"], _times(_interval(r), node)) for r in found) or None


def own_kind(block: Block, signed: bool = False) -> str:
    """Return the name of a block's coefficients: those of signed multipliers and of decoders of runs are their own."""
    if block.kind == "decoder" and any(part.kind == "leading_zero_counter" for part in block.parts):
        return "run_decoder"
    return f"signed_{block.kind}" if signed else block.kind


@lru_cache(maxsize=16384)
def _price(name: str, block: Block, quantity: str, signed: bool) -> Amount:
    """One block, not as many as there are."""
    found, total = _terms(name, own_kind(block, signed), quantity), NOTHING
    if found is None and block.parts:
        for part in block.parts:
            total += _price(name, part, quantity, False).times(part.count)
        return total
    if found is None:
        raise FormatError(f"target={name!r} has no coefficient for the {quantity} of block {block.kind!r}.")
    for per, each in found:
        total += each.times(amount(block, per))
    ceiling = _table_cost(block, quantity)
    return Amount(*(min(x, ceiling) for x in (total.value, total.low, total.high))) if ceiling else total


def _table_cost(block: Block, quantity: str) -> float | None:
    """LUTs of a small multiplier as a table of its operands: one per result bit, and a third more before they share."""
    if block.kind not in ("multiplier", "scale_multiplier"):
        return None
    inputs = block["ma"] + block["mb"]
    if inputs > _LUT_INPUTS + 1:
        return None
    return inputs * (4 / 3 if quantity == "function" and inputs >= _LUT_INPUTS else 1.0)


@lru_cache(maxsize=16384)
def _delay(name: str, block: Block) -> Amount:
    if block.parts and block.kind not in _LEVELS:
        total = NOTHING
        for part in block.parts:
            total += _delay(name, part)
        return total
    if block.kind not in _LEVELS:
        raise FormatError(f"target={name!r} has no delay for block {block.kind!r}.")
    levels, carry = _LEVELS[block.kind](block)
    level, chain = _constant(name, "level"), _constant(name, "carry")
    total = level.times(levels) if levels else NOTHING
    return total + (chain.times(carry) if carry else NOTHING)


def _log(number: int, base: float = 2) -> float:
    return float(math.ceil(math.log(max(number, 1), base) - 1e-9))


def _multiplier_levels(block: Block) -> tuple[float, float]:
    """Rows are added one after the other, as Yosys maps them: measured 5, 8, 11, 15, 19 at 4, 8, 12, 16, 24 bits."""
    return 2 + 0.75 * min(block["ma"], block["mb"]), block["ma"] + block["mb"]


def _tree_levels(block: Block) -> tuple[float, float]:
    depth = _log(block["inputs"])
    return depth, depth * (block["bits"] + depth / 2)


#: LUTs one after the other, and bits of carry chain, on the longest path of a block.
_LEVELS: dict[str, Callable[[Block], tuple[float, float]]] = {
    "multiplier": _multiplier_levels,
    "scale_multiplier": _multiplier_levels,
    "exponent_adder": lambda b: (1, b["bits"]),
    "subtractor": lambda b: (1, b["bits"]),
    "adder": lambda b: (1, b["bits"]),
    "negate": lambda b: (1, b["bits"]),
    "rounder": lambda b: (2, b["bits"]),
    "adder_tree": _tree_levels,
    "comparator_tree": lambda b: (2 * _log(b["inputs"]), _log(b["inputs"]) * b["bits"]),
    "shifter": lambda b: (_log(b["positions"], 4), 0),
    "aligner": lambda b: (_log(b["n"], 4), 0),
    "normaliser": lambda b: (_log(b["bits"], 4), 0),
    "selector": lambda b: (_log(b["inputs"], 4), 0),
    "leading_zero_counter": lambda b: (_log(b["bits"]), 0),
    "table": lambda b: (1 + max((b["entries"] - 1).bit_length() - _LUT_INPUTS, 0) / 2, 0),
    "unpacker": lambda b: (1, 0),
    "register": lambda b: (0, 0),
}


def _interval(row: dict[str, str]) -> Amount:
    scale = {"ns": 1e-9, "MHz": 1e6}.get(row["unit"], 1.0)
    return Amount(float(row["value"]) * scale, float(row["low"]) * scale, float(row["high"]) * scale)


def _times(amount_: Amount, node: Amount) -> Amount:
    return Amount(amount_.value * node.value, amount_.low * node.low, amount_.high * node.high)
