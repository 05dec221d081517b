"""How many products one DSP makes: lanes packed into its wide multiplier, by known modes or by exact bounds."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

from lowp._errors import ArgumentError, FormatError, unknown_name
from lowp.formats import parse
from lowp.formats.float_format import Float
from lowp.formats.integer import Fixed, Integer
from lowp.formats.spec import Format
from lowp.hw_models.arguments import sizes
from lowp.hw_models.tables import rows

DSP_BLOCKS = ("DSP48E1", "DSP48E2", "DSP58")


class Ports(NamedTuple):
    """Widths of a DSP's multiplier inputs and of its accumulator; operands are two's complement."""

    a: int
    b: int
    p: int


class Mode(NamedTuple):
    """A known way to make several products with one DSP; `narrow`: without the most negative packed operand."""

    name: str
    lanes: int
    a_bits: int
    b_bits: int
    shared: bool
    narrow: bool
    accumulations: int | None
    luts_per_lane: float
    source: str


@dataclass(frozen=True)
class Packing:
    """Products per DSP and cycle.

    Attributes:
        block: "DSP48E1", "DSP48E2" or "DSP58".
        lanes: Products per DSP, of the best mode that fits; below 1 where a product takes several DSPs.
        mode: Its name: a known mode, "packed" (lanes far enough apart), "single", or "tiled" over several DSPs.
        shared: Whether all lanes multiply by one common operand.
        stride: Bits between lanes where that is regular, else 0.
        accumulations: Products that a lane adds before it must be emptied; 0: unlimited or corrected outside.
        luts_per_lane: LUTs that correct a lane.
        bound: Lanes of the packing bound `L (W + A) + (L - 1) guard <= port widths`, which no known mode with a shared
            operand exceeds.
        source: Where the mode is described.
    """

    block: str
    lanes: float
    mode: str
    shared: bool
    stride: int
    accumulations: int
    luts_per_lane: float
    bound: int
    source: str

    @property
    def dsp_per_product(self) -> float:
        """DSPs of one product per cycle."""
        return 1 / self.lanes


def dsp_ports(block: str) -> Ports:
    """Return the port widths of a DSP.

    Raises:
        ArgumentError: The block is unknown.

    Example:
        >>> dsp_ports("DSP48E2")
        Ports(a=27, b=18, p=48)
    """
    if block not in DSP_BLOCKS:
        raise ArgumentError(unknown_name("block", block, DSP_BLOCKS))
    return _ports(block)


@cache
def _ports(block: str) -> Ports:
    widths = {r["name"]: int(r["value"]) for r in rows("fpga_dsp") if r["block"] == block and r["value"]}
    return Ports(widths["port_a"], widths["port_b"], widths["port_p"])


@cache
def dsp_modes(block: str) -> tuple[Mode, ...]:
    """Return the known modes of a DSP, those with most lanes first.

    Example:
        >>> [mode.name for mode in dsp_modes("DSP58")]
        ['mvu_4sx4u', 'int8_dot3', 'float32']
    """
    dsp_ports(block)
    found = [r for r in rows("fpga_dsp") if r["block"] == block and r["lanes"]]
    modes = [
        Mode(
            r["name"],
            int(r["lanes"]),
            int(r["a_bits"]),
            int(r["b_bits"]),
            r["shared"] == "yes",
            r["narrow"] == "yes",
            int(r["accumulations"]) if r["accumulations"] else None,
            float(r["luts_per_lane"] or 0),
            r["source"],
        )
        for r in found
    ]
    return tuple(sorted(modes, key=lambda mode: -mode.lanes))


def packing_bound(a_bits: int, b_bits: int, block: str = "DSP48E2", accumulations: int = 1) -> int:
    """Return the most lanes with `L (W + A) + (L - 1) ceil(log2 accumulations)` at most the ports' bits together.

    A heuristic: more products than that have no room in the multiplier's result. At least 0.

    Args:
        a_bits: Bits of one operand.
        b_bits: Bits of the other.
        block: "DSP48E1", "DSP48E2" or "DSP58".
        accumulations: Products that a lane adds.

    Raises:
        ArgumentError: A size is not positive, or the block is unknown.

    Example:
        >>> packing_bound(8, 8, "DSP48E2", 7), packing_bound(4, 4), packing_bound(4, 4, "DSP48E2", 16)
        (2, 5, 4)
    """
    a_bits, b_bits, accumulations = sizes(a_bits=a_bits, b_bits=b_bits, accumulations=accumulations)
    ports = dsp_ports(block)
    guard = (accumulations - 1).bit_length()
    return (ports.a + ports.b + guard) // (a_bits + b_bits + guard)


def packed_accumulations(lanes: int, a_bits: int, b_bits: int, block: str = "DSP48E2", signed: bool = True) -> int:
    """Return how many products each of so many lanes adds exactly, all multiplied by one operand of `b_bits`; 0: none.

    Lanes of `a_bits` lie `stride` bits apart on the wide port, whose pre-adder takes borrows of lower lanes. A lane's
    sum must fit its stride as a two's complement number, and the accumulator all lanes.

    Args:
        lanes: Products per DSP.
        a_bits: Bits of the packed operands.
        b_bits: Bits of the shared operand.
        block: The DSP.
        signed: Whether the shared operand is signed; the packed ones are.

    Raises:
        ArgumentError: A size is not positive, or the block is unknown.

    Example:
        >>> packed_accumulations(2, 8, 8), packed_accumulations(3, 8, 8)
        (7, 0)
    """
    lanes, a_bits, b_bits = sizes(lanes=lanes, a_bits=a_bits, b_bits=b_bits)
    ports = dsp_ports(block)
    if a_bits > ports.a or b_bits > ports.b - (not signed):
        return 0
    stride = _stride(lanes, a_bits, ports.a)
    if lanes > 1 and stride < 1:
        return 0
    low, high = _extremes(a_bits, b_bits, signed)
    room = ports.p - (lanes - 1) * stride  # of the top lane
    limit = room if lanes == 1 else min(room, stride)
    return max(min((1 << (limit - 1)) // -low, ((1 << (limit - 1)) - 1) // high), 0)


def _stride(lanes: int, a_bits: int, port: int) -> int:
    return (port - 1 - a_bits) // (lanes - 1) if lanes > 1 else 0  # a bit for the borrow of the lanes below


def _extremes(a_bits: int, b_bits: int, signed: bool) -> tuple[int, int]:
    """Least and largest product of a signed and another operand."""
    least = -(1 << (a_bits - 1))
    if signed:
        shared = 1 << (b_bits - 1)
        return min(least * (shared - 1), -1), -least * shared
    return least * ((1 << b_bits) - 1), max((-least - 1) * ((1 << b_bits) - 1), 1)


def dsp_packing(
    a: str | Format | int, b: str | Format | int | None = None, *, block: str = "DSP48E2", accumulations: int = 1
) -> Packing:
    """Return how many products of two operands one DSP makes per cycle.

    Integers and fixed point enter as they are, floats with their significands. A known mode with enough lanes comes
    first; else lanes far enough apart to be exact; else one product, or several DSPs for one.

    Args:
        a: Left operand: a format, its name, or bits of a signed integer.
        b: Right operand, which packed lanes share; default that of `a`.
        block: "DSP48E1", "DSP48E2" or "DSP58".
        accumulations: Products that each lane must add before it is emptied.

    Raises:
        ArgumentError: A size is not positive, or the block is unknown.
        FormatError: An operand that no multiplier takes as it is, such as a posit or a block format.

    Example:
        >>> dsp_packing("int4").lanes, dsp_packing("int8").lanes, dsp_packing("int8", block="DSP58").lanes
        (4, 2, 3)
        >>> dsp_packing("float32").lanes, dsp_packing("int16").mode
        (0.5, 'single')
    """
    (left, left_signed), (right, right_signed) = _operand("a", a), _operand("b", a if b is None else b)
    (accumulations,) = sizes(accumulations=accumulations)
    ports = dsp_ports(block)
    bound = packing_bound(left, right, block, accumulations)
    if left == right == 24 and not left_signed and any(m.name == "float32" for m in dsp_modes(block)):
        mode = next(m for m in dsp_modes(block) if m.name == "float32")
        return Packing(block, 1, mode.name, False, 0, 0, 0.0, bound, mode.source)
    known = _known(block, left, right, left_signed, right_signed, _narrow(a), accumulations)
    exact = _exact_lanes(left + (not left_signed), right, block, right_signed, accumulations)
    if known is not None and known.lanes >= exact:
        return Packing(
            block,
            known.lanes,
            known.name,
            known.shared,
            _stride(known.lanes, known.a_bits, ports.a) if known.accumulations else 0,
            known.accumulations or 0,
            known.luts_per_lane,
            bound,
            known.source,
        )
    packed = left + (not left_signed)
    if exact >= 1:
        most = packed_accumulations(exact, packed, right, block, right_signed)
        name = "packed" if exact > 1 else "single"
        source = "lanes as far apart as their sums need"
        return Packing(block, exact, name, exact > 1, _stride(exact, packed, ports.a), most, 0.0, bound, source)
    tiles = _tiles(left, right, left_signed, right_signed, ports)
    return Packing(block, 1 / tiles, "tiled", False, 0, 0, 0.0, bound, "products of parts of the operands")


def _operand(name: str, value: str | Format | int) -> tuple[int, bool]:
    """Bits that enter the multiplier, and whether they are signed."""
    if isinstance(value, str | Format):
        fmt = parse(value)
        if isinstance(fmt, Integer | Fixed):
            return fmt.bits, fmt.signed
        if isinstance(fmt, Float):
            return fmt.mantissa_bits + 1, False
        raise FormatError(
            f"{name}={fmt.name!r} must be an integer, fixed point, or a float; give others' significands."
        )
    (bits,) = sizes(**{name: value})
    return bits, True


def _narrow(value: str | Format | int) -> bool:
    """Whether an operand never is the most negative number of its bits."""
    fmt = parse(value) if isinstance(value, str | Format) else None
    return isinstance(fmt, Integer) and fmt.symmetric


def _known(
    block: str, a: int, b: int, a_signed: bool, b_signed: bool, a_narrow: bool, accumulations: int
) -> Mode | None:
    for mode in dsp_modes(block):
        # unsigned packed operands need a bit for their sign; shared ones may be unsigned
        need_a, need_b = a + (not a_signed), b + (not mode.shared and not b_signed)
        fits = need_a <= mode.a_bits and need_b <= mode.b_bits
        if mode.narrow and a_signed and not a_narrow and a == mode.a_bits:
            fits = False
        turned = not mode.shared and b + (not b_signed) <= mode.a_bits and a + (not a_signed) <= mode.b_bits
        if mode.name == "float32" or not (fits or turned):
            continue
        found = mode
        if mode.accumulations:  # an unsigned shared operand makes larger products
            most = packed_accumulations(mode.lanes, mode.a_bits, b, block, b_signed)
            found = mode._replace(accumulations=min(mode.accumulations, most))
        if (found.accumulations or accumulations) >= accumulations:
            return found
    return None


def _exact_lanes(a: int, b: int, block: str, signed: bool, accumulations: int) -> int:
    lanes = 0
    while packed_accumulations(lanes + 1, a, b, block, signed) >= accumulations:
        lanes += 1
    return lanes


def _tiles(a: int, b: int, a_signed: bool, b_signed: bool, ports: Ports) -> int:
    """DSPs of one product: parts below the top one are unsigned and leave the port's sign bit unused."""

    def parts(bits: int, signed: bool, port: int) -> int:
        return max(math.ceil((bits - signed) / (port - 1)), 1)

    one = parts(a, a_signed, ports.a) * parts(b, b_signed, ports.b)
    other = parts(b, b_signed, ports.a) * parts(a, a_signed, ports.b)
    return min(one, other)
