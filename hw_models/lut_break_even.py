"""Where table lookup stops paying: bits per weight at which unpacking and multiplying is as fast."""

from __future__ import annotations

import math

from lowp._errors import ArgumentError, ArgumentTypeError
from lowp.hw_models.arguments import sizes
from lowp.hw_models.cpu_cores import CpuCore, Figure, cpu_core, isa_figure
from lowp.hw_models.estimate import Estimate
from lowp.hw_models.lut_engine import LutEngine, lut_engine

_SOURCE = "SIMD instructions per weight: table instruction, additions and index unpacking against unpack and multiply"


def lut_break_even(
    unpack: float = 1.0,
    core: str | CpuCore = "m2_ultra",
    engine: str | LutEngine = "t_mac",
    *,
    m: int = 1,
    n: int | None = None,
    token_tile: int = 1,
) -> Estimate:
    """Predict the bits per weight at which bit-serial look-ups take as many SIMD instructions as multiply-adds.

    Below it tables are faster. A table instruction looks up 16 or 32 groups of weights of one bit plane, with about two
    additions and half an instruction for its indices; a multiply-add instruction has `unpack` others before it.

    Args:
        unpack: Unpacking instructions per multiply-add instruction, such as 1 for Q4_0 and 3 for Q3_K.
        core: A CPU or its name; only its instruction set counts.
        engine: A bit-serial engine or its name.
        m: Tokens, of which every `token_tile` share what is unpacked.
        n: Outputs that share a table; default so many that building does not count.
        token_tile: Tokens that share unpacked weights.

    Returns:
        Bits per weight, unit "bit".

    Raises:
        ArgumentError: A negative or infinite `unpack`, a size that is not positive, or an engine without bit planes.
        ArgumentTypeError: `unpack` is no number.

    Example:
        >>> [round(lut_break_even(u).value, 2) for u in (1, 3)]
        [2.29, 4.57]
    """
    m, token_tile = sizes(m=m, token_tile=token_tile)
    outputs = math.inf if n is None else sizes(n=n)[0]
    if isinstance(unpack, bool) or not isinstance(unpack, int | float):
        raise ArgumentTypeError(f"unpack={unpack!r} must be a number, not {type(unpack).__name__}.")
    if not 0 <= unpack < math.inf:
        raise ArgumentError(f"unpack={unpack!r} must be finite and not negative.")
    how, isa = lut_engine(engine), cpu_core(core).isa
    if how.style != "bit_serial":
        raise ArgumentError(f"engine={how.name!r} has no bit planes; its look-ups do not grow with the bits.")
    shared = unpack * math.ceil(m / token_tile) / m
    per_plane = _plane_instructions(how, isa)
    per_weight = _multiply_instructions(isa, shared)
    built = how.entries(2) / outputs / how.group  # additions of entries per weight, at any number of bits
    register = isa_figure(isa, "register_bytes").value
    build = built * (4 if how.table != "exact" else math.ceil(how.entry_bits / 8)) / register
    value, low, high = (
        max(0.0, (w - build) / p)
        for w, p in (
            (per_weight.value, per_plane.value),
            (per_weight.low, per_plane.high),
            (per_weight.high, per_plane.low),
        )
    )
    return Estimate(value, low, high, "bit", "compute", _SOURCE)


def _plane_instructions(engine: LutEngine, isa: str) -> Figure:
    """Return the instructions per weight and bit plane."""
    adds, unpack = isa_figure(isa, "table_adds"), isa_figure(isa, "index_unpack").value
    weights = isa_figure(isa, "lookups").value * engine.group
    wide = math.ceil(engine.entry_bits / 8)
    value, low, high = ((wide * (1 + a) + unpack) / weights for a in adds)
    return Figure(value, low, high)


def _multiply_instructions(isa: str, unpack: float) -> Figure:
    """Return the instructions per weight of unpacking and multiplying; `unpack` per multiply-add."""
    per, macs = isa_figure(isa, "mac_instructions"), isa_figure(isa, "macs").value
    value, low, high = ((each + unpack) / macs for each in per)
    return Figure(value, low, high)


def instructions_per_weight(
    bits: float, core: str | CpuCore = "m2_ultra", engine: str | LutEngine = "t_mac", unpack: float = 1.0
) -> tuple[Figure, Figure]:
    """Return the SIMD instructions per weight by table lookup, and by unpacking and multiplying.

    Example:
        >>> tables, multiply = instructions_per_weight(2)
        >>> round(tables.value, 4), multiply.value
        (0.1094, 0.125)
    """
    isa = cpu_core(core).isa
    plane = _plane_instructions(lut_engine(engine), isa)
    return Figure(*(bits * each for each in plane)), _multiply_instructions(isa, unpack)


def optimal_lut_group(
    bits: int = 2,
    n: int = 4096,
    engine: str | LutEngine = "t_mac",
    core: str | CpuCore | None = "m2_ultra",
    *,
    values: int = 2,
) -> int:
    """Return the group size with the fewest additions per weight, of building and looking up.

    Minimises `(E / (n bits) + 1) / g` over g, where E entries must be those that a SIMD table instruction looks up.

    Args:
        bits: Bit planes of the weights; 1 for element-wise tables.
        n: Outputs that share a table.
        engine: An engine, for whether tables are mirrored; tables of bit planes are stored whole in registers.
        core: A CPU or its name; None: tables may have any size up to 2^16.
        values: Values of a digit: 2 for bit planes, 3 for ternary weights.

    Raises:
        ArgumentError: A size is not positive, or no group fits.

    Example:
        >>> optimal_lut_group(2), optimal_lut_group(1, engine="tl2", values=3), optimal_lut_group(2, core=None)
        (4, 3, 11)
    """
    bits, n, values = sizes(bits=bits, n=n, values=values)
    how = lut_engine(engine)
    limit = (1 << 16) if core is None else int(isa_figure(cpu_core(core).isa, "table_entries").value)
    best: tuple[float, int] | None = None
    for group in range(1, 17):
        entries = (values**group + 1) // 2 if how.mirror else values**group
        held = values**group if how.style == "bit_serial" and core is not None else entries
        if held > limit:
            break
        best = min(best or (math.inf, 0), ((entries / (n * bits) + 1) / group, group))
    if best is None:
        raise ArgumentError(f"values={values!r}: no table of at most {limit} entries holds them.")
    return best[1]
