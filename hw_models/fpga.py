"""Units on FPGAs: LUTs, flip-flops, DSPs, block RAMs and the clock of a datapath."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from lowp._errors import ArgumentError, FormatError, unknown_name
from lowp.formats.block import Block as BlockFormat
from lowp.formats.integer import Fixed, Integer
from lowp.formats.spec import Format
from lowp.hw_models.blocks import ROLES, Block
from lowp.hw_models.datapath import Datapath, datapath
from lowp.hw_models.dsp_packing import Packing, dsp_packing
from lowp.hw_models.estimate import Estimate
from lowp.hw_models.fpga_memories import bram18
from lowp.hw_models.fpga_targets import FpgaTarget, fpga_target
from lowp.hw_models.targets import NOTHING, Amount
from lowp.hw_models.units import UnitCost

MULTIPLIERS = ("auto", "lut", "dsp")
#: Quantities of a unit, in the order of reports.
QUANTITIES = ("lut", "ff", "dsp", "bram")
_UNITS = {"lut": "LUT", "ff": "FF", "dsp": "DSP", "bram": "BRAM18", "function": "LUT function"}
#: Widest accumulator that a DSP holds.
_DSP_WORD = 48


@dataclass(frozen=True)
class FpgaUnitCost(UnitCost):
    """What a unit takes on an FPGA: `lut`, `ff`, `dsp`, `bram` (18 Kb blocks) and `clock`, also by role.

    Attributes:
        roles: (role, quantity, amount) of what each role takes.
        multipliers: "lut", "dsp", or "auto" where the target's rule decides by width.
        packing: How products share DSPs, where there are any.
    """

    roles: tuple[tuple[str, str, Amount], ...] = ()
    multipliers: str = "auto"
    packing: Packing | None = None

    @property
    def bram18(self) -> Estimate:
        """Block RAMs, as 18 Kb halves: `bram`, under the name that designs have them by."""
        return dict(self.fpga or ())["bram"]

    @property
    def uram(self) -> Estimate:
        """UltraRAMs: none; units keep nothing but tables and registers."""
        return Estimate(0.0, 0.0, 0.0, "URAM", "static", fpga_target(self.target).title)

    def by_role(self, quantity: str = "lut") -> dict[str, Estimate]:
        """Return what each role takes of "lut", "ff", "dsp", "bram" or "function".

        Example:
            >>> from lowp import hw
            >>> sorted(hw.dot_unit("mxfp4", target="xcup").by_role("lut"))[:3]
            ['accumulate', 'align', 'decode']
        """
        if quantity not in _UNITS:
            raise ArgumentError(unknown_name("quantity", quantity, _UNITS))
        return {
            role: _estimate(self.target, each, quantity, role) for role, name, each in self.roles if name == quantity
        }

    def shares(self, quantity: str = "lut") -> dict[str, float]:
        """Return what part of the whole each role takes, largest first."""
        found = {role: each.value for role, each in self.by_role(quantity).items()}
        total = sum(found.values()) or 1.0
        return {role: value / total for role, value in sorted(found.items(), key=lambda item: -item[1])}

    def without(self, *roles: str) -> FpgaUnitCost:
        """Return the cost less that of some roles, such as "register" or "convert"; the clock stays.

        Raises:
            ArgumentError: An unknown role.
        """
        for role in roles:
            if role not in ROLES:
                raise ArgumentError(unknown_name("role", role, ROLES))
        kept = tuple(entry for entry in self.roles if entry[0] not in roles)
        totals = _totals(self.target, kept)
        clock = tuple(item for item in self.fpga or () if item[0] == "clock")
        return replace(self, roles=kept, fpga=totals + clock, left_out=(*self.left_out, *roles))


def price(unit: Datapath, target: str, multipliers: str = "auto") -> FpgaUnitCost:
    """Return what a datapath takes on an FPGA.

    Args:
        unit: The datapath.
        target: "xcup" (UltraScale+), "versal" or "series7".
        multipliers: "lut", "dsp", or "auto": in DSPs from the width on from which the tools put them there.

    Raises:
        ArgumentError: The target or a name is unknown.
        FormatError: The target lacks a coefficient for a block.

    Example:
        >>> cost = price(datapath("int8", accumulator="int32"), "xcup", multipliers="dsp")
        >>> cost.dsp.value, cost.lut.value
        (1.0, 0.0)
    """
    if multipliers not in MULTIPLIERS:
        raise ArgumentError(unknown_name("multipliers", multipliers, MULTIPLIERS))
    return _price(unit, target, multipliers)


@lru_cache(maxsize=4096)
def _price(unit: Datapath, target: str, multipliers: str) -> FpgaUnitCost:
    found = fpga_target(target)
    packing = _packing(unit, found, multipliers)
    fused = packing is not None and _accumulates_in_dsp(unit, packing)
    roles: dict[tuple[str, str], Amount] = {}
    for block in unit.blocks:
        for leaf in found.elements(block):
            for quantity, each in _leaf(leaf, unit, found, packing, multipliers, fused):
                key = (block.role, quantity)
                roles[key] = roles.get(key, NOTHING) + each
    listed = tuple((role, quantity, each) for (role, quantity), each in roles.items())
    clock = _dsp_clock(found) if fused else _clock(unit, found, multipliers, packing is not None)
    return FpgaUnitCost(
        target,
        unit,
        (*_totals(target, listed), ("clock", clock)),
        roles=listed,
        multipliers=multipliers,
        packing=packing,
    )


def _totals(target: str, roles: Iterable[tuple[str, str, Amount]]) -> tuple[tuple[str, Estimate], ...]:
    found = []
    for quantity in QUANTITIES:
        mine = [(role, each) for role, name, each in roles if name == quantity]
        total = NOTHING
        for _, each in mine:
            total += each
        largest = max(mine, key=lambda item: item[1].value, default=("static", NOTHING))[0]
        found.append((quantity, _estimate(target, total, quantity, largest)))
    return tuple(found)


def _estimate(target: str, amount: Amount, quantity: str, bound: str) -> Estimate:
    title = fpga_target(target).title
    return Estimate(amount.value, amount.low, amount.high, _UNITS[quantity], bound, title)


# Blocks


def _leaf(
    leaf: Block, unit: Datapath, found: FpgaTarget, packing: Packing | None, multipliers: str, fused: bool
) -> list[tuple[str, Amount]]:
    if leaf.kind == "register":
        return [] if fused else [("ff", _registers(leaf, found))]
    if leaf.kind in ("multiplier", "scale_multiplier") and _in_dsp(leaf, found, multipliers):
        return _in_dsps(leaf, unit, found, packing)
    if fused and leaf.role in ("sum", "accumulate"):
        return []
    if leaf.kind == "adder_tree" and packing is not None and not packing.shared and packing.lanes > 1:
        smaller = _tree_behind_dsps(leaf, packing)
        if smaller is None:
            return []
        leaf = smaller
    if leaf.kind == "table" and leaf["entries"] >= found.constant("table_block_ram_entries").value:
        blocks = float(bram18(leaf["bits"], leaf["entries"]) * leaf.count)
        return [("bram", Amount(blocks, blocks, blocks))]
    if leaf.kind == "negate" and leaf.role == "align" and unit.window is None and unit.product_unit is not None:
        leaf = _negated_early(leaf, unit)
    signed = leaf.kind == "multiplier" and leaf.role == "multiply" and _signed(unit)
    return [("lut", found.count(leaf, "lut", signed)), ("function", found.count(leaf, "function", signed))]


def _negated_early(leaf: Block, unit: Datapath) -> Block:
    """A product's sign is applied before it is shifted within a fixed-point word, where it is narrower."""
    product = _multiplier(unit)
    bits = leaf["bits"] if product is None else min(leaf["bits"], product["ma"] + product["mb"] + 1)
    return replace(leaf, sizes=(("bits", bits),))


def _signed(unit: Datapath) -> bool:
    """Whether a unit's multipliers take two's complement."""
    elements = [f.element if isinstance(f, BlockFormat) else f for f in (unit.a, unit.b)]
    return all(isinstance(f, Integer | Fixed) and f.signed for f in elements)


def _registers(leaf: Block, found: FpgaTarget) -> Amount:
    return found.constant("ff_per_bit").times(float(leaf["bits"] * leaf.count))


def _in_dsp(leaf: Block, found: FpgaTarget, multipliers: str) -> bool:
    if multipliers == "auto":
        return min(leaf["ma"], leaf["mb"]) >= found.constant("dsp_from_bits").value
    return multipliers == "dsp"


def _in_dsps(leaf: Block, unit: Datapath, found: FpgaTarget, packing: Packing | None) -> list[tuple[str, Amount]]:
    """DSPs of some multipliers; lanes packed into one share an operand, so they are of different units of an array."""
    if leaf.role != "multiply" or packing is None:
        each = dsp_packing(leaf["ma"] + 1, leaf["mb"] + 1, block=found.dsp_block)
        count = leaf.count / min(each.lanes, 1)
        return [("dsp", Amount(count, count, count))]
    lanes = packing.lanes
    sharing = _units_that_share(unit) if packing.shared else (leaf.count // unit.copies,)
    whole = {n: leaf.count // n * math.ceil(n / lanes) for n in sharing if n}
    together = min(whole, key=lambda n: whole[n], default=1)
    count = float(whole[together]) if whole and lanes >= 1 else leaf.count / lanes
    counts = [("dsp", Amount(count, count, count))]
    if lanes > 1 and together > 1 and packing.luts_per_lane:
        corrections = packing.luts_per_lane * leaf.count
        counts.append(("lut", Amount(corrections, corrections, 5 * corrections)))
    return counts


def _units_that_share(unit: Datapath) -> tuple[int, ...]:
    """How many units of an array have one right operand, and, where operands are alike, one left operand."""
    held = {name: next((b.count for b in unit.blocks if b.operand == name), unit.lanes) for name in "ab"}
    rows, columns = (held[name] // unit.lanes for name in "ab")
    return (rows, columns) if unit.a == unit.b else (rows,)


def _multiplier(unit: Datapath) -> Block | None:
    found = [b for b in unit.leaves() if b.kind == "multiplier" and b.role == "multiply"]
    return max(found, key=lambda b: b["ma"] * b["mb"], default=None)


def _packing(unit: Datapath, found: FpgaTarget, multipliers: str) -> Packing | None:
    block = _multiplier(unit)
    if block is None or not _in_dsp(block, found, multipliers):
        return None
    return _packed(unit.a.name, unit.b.name, block, found.dsp_block)


def _packed(a: str, b: str, block: Block, dsp_block: str) -> Packing:
    try:
        packing = dsp_packing(a, b, block=dsp_block)
    except FormatError:  # significands of other families
        packing = dsp_packing(block["ma"] + 1, block["mb"] + 1, block=dsp_block)
    if packing.mode == "float32":  # a whole multiply-add, which this datapath builds in logic around the multiplier
        packing = dsp_packing(block["ma"] + 1, block["mb"] + 1, block=dsp_block)
    return packing


def _accumulates_in_dsp(unit: Datapath, packing: Packing) -> bool:
    """Whether each unit is one DSP, which adds its products to its own register: integers, a word that fits."""
    kinds = {leaf.kind for leaf in unit.leaves() if leaf.role != "convert"}
    if not kinds <= {"multiplier", "adder", "adder_tree", "register"} or unit.accumulator_bits > _DSP_WORD:
        return False
    alone = unit.copies == 1 or not packing.shared or packing.lanes <= 1
    return alone and unit.lanes <= (max(packing.lanes, 1) if not packing.shared else 1) and packing.lanes >= 1


def _tree_behind_dsps(leaf: Block, packing: Packing) -> Block | None:
    """The adder tree of what DSPs that sum some products each leave; None: one DSP sums all."""
    inputs = math.ceil(leaf["inputs"] / packing.lanes)
    if inputs < 2:
        return None
    levels = (leaf["inputs"] - 1).bit_length() - (inputs - 1).bit_length()
    return replace(leaf, sizes=(("inputs", inputs), ("bits", leaf["bits"] + levels)))


# Clock


def _clock(unit: Datapath, found: FpgaTarget, multipliers: str, dsps: bool) -> Estimate:
    """The slowest stage between two registers decides, and the fastest clock of DSPs and of the clock tree."""
    segments = _segments(unit, found, multipliers)
    overhead = found.constant("register")
    slowest = max(segments, key=lambda item: item[1].value)
    period = overhead + slowest[1]
    limits = [found.constant("clock_tree"), *([found.constant("dsp_clock")] if dsps else [])]
    value = min(1 / period.value, *(x.value for x in limits))
    low = min(1 / period.high, *(x.low for x in limits))
    high = min(1 / period.low, *(x.high for x in limits))
    bound = slowest[0] if value == 1 / period.value else "static"
    return Estimate(value, min(low, value), max(high, value), "Hz", bound, found.title)


def _dsp_clock(found: FpgaTarget) -> Estimate:
    fastest, tree = found.constant("dsp_clock"), found.constant("clock_tree")
    ends = (min(fastest.value, tree.value), min(fastest.low, tree.low), min(fastest.high, tree.high))
    return Estimate(*ends, "Hz", "static", found.title)


#: Stages in the order of the data's way; exponents are added beside the product.
_STAGES = ("decode", "multiply", "align", "sum", "normalise", "scale", "accumulate")
_BESIDE = {"linear": "multiply", "exponent": "multiply"}


def _segments(unit: Datapath, found: FpgaTarget, multipliers: str) -> list[tuple[str, Amount]]:
    cuts = {b.label.partition(", ")[2] for b in unit.blocks if b.label.startswith("pipeline, ")}
    segments, path, largest = [], NOTHING, ("static", 0.0)
    for stage in _STAGES:
        names = [stage, *(role for role, of in _BESIDE.items() if of == stage)]
        parallel = [_role_delay([b for b in unit.blocks if b.role == role], found, multipliers) for role in names]
        delay = max(parallel, key=lambda each: each.value)
        if stage == "multiply":  # logarithms: the antilogarithm follows
            delay = parallel[0] + parallel[1] if parallel[1].value else delay
        path += delay
        largest = max(largest, (stage, delay.value), key=lambda item: item[1])
        if stage in cuts:
            segments.append((largest[0], path))
            path, largest = NOTHING, ("static", 0.0)
    segments.append((largest[0], path))
    edges = [("convert", _role_delay([block], found, multipliers)) for block in unit.of_role("convert")]
    return segments + edges


def _role_delay(blocks: list[Block], found: FpgaTarget, multipliers: str) -> Amount:
    """Blocks of one kind work side by side, those of different kinds one after the other."""
    slowest: dict[str, Amount] = {}
    for block in blocks:
        if block.parts:
            delay = _role_delay(list(block.parts), found, multipliers)
        elif block.kind in ("multiplier", "scale_multiplier") and _in_dsp(block, found, multipliers):
            fastest = found.constant("dsp_clock")
            delay = Amount(1 / fastest.value, 1 / fastest.high, 1 / fastest.low)
        else:
            delay = found.levels(block)
        known = slowest.get(block.kind, NOTHING)
        slowest[block.kind] = max(known, delay, key=lambda each: each.value)
    total = NOTHING
    for delay in slowest.values():
        total += delay
    return total


def storage_bits(fmt: Format) -> float:
    """Return the bits that one number takes in memory, its share of the scales included."""
    found: Any = fmt  # every family has it, as a field or a property
    return float(found.bits_per_value)


def fpga_unit(
    a: Any, b: Any = None, *, target: str = "xcup", multipliers: str = "auto", lanes: int = 1, **options: Any
) -> FpgaUnitCost:
    """Price a multiply-and-add unit on an FPGA, with a choice of where its multipliers go.

    Args:
        a: Format of the left operand, or its name.
        b: Format of the right operand; default that of `a`.
        target: "xcup" (UltraScale+), "versal" or "series7".
        multipliers: "lut", "dsp", or "auto".
        lanes: Products per step.
        options: Further arguments of `datapath`: accumulator, conversions, window, terms, integers, stages.

    Raises:
        ArgumentError: A name is unknown, or a size not positive.
        FormatError: A format is unknown, has no such unit, or the target lacks a coefficient.

    Example:
        >>> fpga_unit("int8", target="versal", multipliers="dsp", lanes=6, accumulator="int32").dsp.value
        2.0
    """
    return price(datapath(a, b, lanes=lanes, **options), target, multipliers)


def product_luts(fmt: Any, target: str = "xcup", quantity: str = "lut") -> float:
    """Return the LUTs of a unit that multiplies two numbers of a format exactly, to a fixed-point word.

    Args:
        fmt: A float, integer or fixed point, or its name.
        target: "xcup" (UltraScale+), "versal" or "series7".
        quantity: "lut", or "function": as a synthesiser lists them, before pairs of functions share LUTs.

    Raises:
        ArgumentError: Another quantity.
        FormatError: The format has no products on a grid.

    Example:
        >>> product_luts("fp4") < product_luts("int8")
        True
    """
    if quantity not in ("lut", "function"):
        raise ArgumentError(unknown_name("quantity", quantity, ("lut", "function")))
    unit = price(datapath(fmt, accumulator="exact"), target, multipliers="lut").without("accumulate", "register")
    return sum(each.value for each in unit.by_role(quantity).values())
