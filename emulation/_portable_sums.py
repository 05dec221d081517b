"""Sums of products as array code, for compilers and devices that Numba does not reach: NumPy, torch and JAX alike.

Arrays are (batch, rows, terms) and (batch, terms, columns), float64 numbers of their formats. A compiler sees one step.
All products are exact in float64, so that it may contract and reorder as it likes, but for the two-sum.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from lowp.emulation import _portable_aligned, _portable_rounded
from lowp.emulation._operands import holds_exactly, precision
from lowp.emulation._side import Side
from lowp.emulation._stored_plan import is_storable
from lowp.emulation._summation import has_partial_sums, partial_sums_adder, summed
from lowp.emulation.accumulator import Accumulator
from lowp.formats.float_format import Float
from lowp.formats.integer import Fixed, Integer
from lowp.formats.spec import ScalarFormat
from lowp.rounding._namespaces import Namespace, namespace_of
from lowp.rounding.modes import rounding

_FLOAT64_BITS = 53


def sums(
    a: Side,
    b: Side,
    c: Any,
    accumulator: Accumulator,
    c_format: ScalarFormat,
    keys: tuple[Any, Any] | None = None,
    xp: Namespace | None = None,
) -> Any:
    """Return `c + a @ b` summed as an accumulator says, one for which `lacks` finds nothing; see `_summation.summed`.

    `keys`: those of random bits, which may be traced, instead of the accumulator's seed. `xp`: another namespace than
    the arrays' usual one.
    """
    known = None if keys is None else tuple(keys)
    return summed(a, b, c, accumulator, c_format, partial(run, keys=known, xp=xp))


def run(
    a: Side,
    b: Side,
    c: Any,
    accumulator: Accumulator,
    c_format: ScalarFormat,
    first_step: int = 0,
    keys: Any = None,
    xp: Any = None,
) -> Any:
    """Return the running sums after all terms of a contiguous run; see `_summation.run`."""
    xp = xp or namespace_of(c)
    if a.values.shape[2] == 0:
        return c
    if accumulator.alignment is not None:
        return _portable_aligned.run(xp, a, b, c, accumulator, c_format)
    return _portable_rounded.run(xp, a, b, c, accumulator, first_step, keys)


def lacks(accumulator: Accumulator, a: Side, b: Side) -> str | None:
    """Return what of a sum array code does not have, in words; None: nothing. The sides' values do not matter."""
    how = accumulator
    if how.table is not None:
        return "additions by a table"
    if precision(a.format) + precision(b.format) + _scale_bits(a) + _scale_bits(b) > _FLOAT64_BITS:
        return f"exact products of {a.format.name!r} and {b.format.name!r}, which float64 does not hold"
    found = _lacks_aligned(how, a, b) if how.alignment is not None else _lacks_rounded(how, a, b)
    if found is None and how.outer is not None and has_partial_sums(how):
        one = Side(None, Float(2, 1, bias=1, specials="finite"))
        return lacks(partial_sums_adder(how), one, Side(None, how.format))  # type: ignore[arg-type]
    return found


def _scale_bits(side: Side) -> int:
    return 0 if side.scale_format is None else precision(side.scale_format)


def _lacks_aligned(accumulator: Accumulator, a: Side, b: Side) -> str | None:
    how, fmt = accumulator.alignment, accumulator.format
    assert how is not None
    if how.lanes > 1 or how.running_sum != "term":
        return "lanes of an alignment, and running sums that are aligned after the products"
    if how.result_fraction_bits is not None or how.product_limit is not None:
        return "an alignment with result_fraction_bits or product_limit"
    if how.cut not in ("toward_zero", "toward_negative"):
        return f"cut={how.cut!r}"
    if rounding(accumulator.rounding).variant:
        return f"aligned sums with rounding={accumulator.rounding!r}"
    if not is_storable(fmt, accumulator.rounding, accumulator.overflow) or not _is_near(fmt):  # type: ignore[arg-type]
        return f"aligned sums in {fmt.name!r}"  # type: ignore[union-attr]
    if accumulator.subnormal_inputs != "keep":
        return "aligned sums that read subnormal numbers as zero"
    if how.scaled_group is not None and a.scale_format is None and b.scale_format is None:
        return f"scaled_group={how.scaled_group!r} without block scales"
    scaled = bool(a.scales is not None or a.scale_format or b.scale_format)
    if (
        not all(_is_near(f.format, scaled) for f in (a, b))
        or how.fraction_bits + _headroom(accumulator, a, b) >= _FLOAT64_BITS
    ):
        return f"aligned sums of {a.format.name!r} and {b.format.name!r} of {how.fraction_bits} bits"
    return None


def _headroom(accumulator: Accumulator, a: Side, b: Side) -> int:
    """Return the bits that a step's sum of aligned terms may have above their largest exponent."""
    how = accumulator.alignment
    assert how is not None
    if how.scaled_group is None:
        return 2 + (accumulator.group - 1).bit_length() + 2 * (_scale_bits(a) > 0)
    most = [f.format.emax + 1 if isinstance(f.format, Float) else 64 for f in (a, b)]
    return sum(most) + 4 + (max(accumulator.group, how.scaled_group) - 1).bit_length()


def _is_near(fmt: Any, scaled: bool = False) -> bool:
    """Whether powers of two beside the numbers of a format stay in float64's normal range."""
    reach = 64 if scaled else 160
    return (
        isinstance(fmt, Float) and fmt.mantissa_bits > 0 and fmt.emin - fmt.mantissa_bits > -reach and fmt.emax < reach
    )


def _lacks_rounded(accumulator: Accumulator, a: Side, b: Side) -> str | None:
    how = accumulator
    stochastic = rounding(how.rounding).variant != 0
    if not holds_exactly(how.format) or (precision(how.format) > _FLOAT64_BITS - 2 and how.format.kind != "table"):  # type: ignore[union-attr]
        return f"sums in {how.format.name!r}"  # type: ignore[union-attr]
    if how.overflow == "infinity" and not _portable_rounded.is_plain(how.format, how):
        return f"overflow={how.overflow!r} in {how.format.name!r} with rounding={how.rounding!r}"  # type: ignore[union-attr]
    if how.subnormal_results != "keep" and not _portable_rounded.is_plain(how.format, how):
        return f"subnormal_results={how.subnormal_results!r} in {how.format.name!r}"  # type: ignore[union-attr]
    turns = _portable_rounded.takes_turns(how) and how.compensation is None and how.group_sum == "fused"
    if how.overflow.startswith("wrap") and not turns and _reach(a) + _reach(b) + _point(how.format) > _FLOAT64_BITS - 2:
        return f"overflow={how.overflow!r} of sums in {how.format.name!r} of products too large for float64"  # type: ignore[union-attr]
    if how.compensation is not None and how.subnormal_inputs != "keep":
        return "a corrected sum that reads subnormal numbers as zero"
    if how.group > 1 and how.group_sum == "fused" and how.product != "exact":
        return "fused sums of rounded products"
    if stochastic and how.order == "pairwise":
        return "stochastic rounding in a tree of sums"
    if how.group_sum == "fused" and how.group > 1 and _window(a) + _window(b) + how.group.bit_length() > _FLOAT64_BITS:
        return f"exact sums of {how.group} products of {a.format.name!r} and {b.format.name!r}, too wide for float64"
    return None


def _reach(side: Side) -> int:
    """Return the exponent that no number of an operand reaches."""
    fmt = side.format
    if side.scale_format is None and isinstance(fmt, Float):
        return fmt.emax + 1
    whole = fmt.bits - _point(fmt) if isinstance(fmt, Integer | Fixed) else _FLOAT64_BITS
    return whole if side.scale_format is None else _FLOAT64_BITS


def _point(fmt: Any) -> int:
    """Return the bits right of the binary point of an integer or fixed-point format."""
    return fmt.fraction_bits if isinstance(fmt, Fixed) else 0


def _window(side: Side) -> int:
    """Return the bits between the last bit of a format's least number and its largest number."""
    fmt = side.format
    if side.scale_format is None and isinstance(fmt, Float):
        return fmt.emax + 1 - (fmt.emin - fmt.mantissa_bits)
    return fmt.bits if side.scale_format is None and isinstance(fmt, Integer | Fixed) else _FLOAT64_BITS
