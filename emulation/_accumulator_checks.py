"""What an accumulator's description may say."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from lowp._errors import ArgumentError, ArgumentTypeError, unknown_name
from lowp.formats.float_format import Float
from lowp.formats.integer import Fixed, Integer
from lowp.formats.logarithms import is_logarithmic
from lowp.formats.parse import parse
from lowp.formats.spec import Format, ScalarFormat
from lowp.rounding.lowering import check_overflow
from lowp.rounding.modes import ROUNDING_MODES, overflow_mode, rounding

if TYPE_CHECKING:
    from lowp.emulation.accumulator import Accumulator, Alignment

CHOICES = {
    "group_sum": ("fused", "pairwise", "sequential"),
    "running_sum": ("term", "after"),
    "compensation": (None, "kahan", "neumaier", "two_sum"),
    "subnormal_inputs": ("keep", "zero", "positive_zero"),
    "subnormal_results": ("keep", "zero"),
}
ORDERS = ("sequential", "pairwise", "random")
#: Integers of more bits than `lowp.Integer` has are fixed point without fraction bits.
_WIDE_INTEGER = re.compile(r"(?P<unsigned>u?)int(?P<bits>3[3-9]|[45][0-9]|6[0-4])", re.IGNORECASE)
#: Any rounded value beyond the largest number is infinite, whatever the rounding mode.
INFINITY = "infinity"
#: Bits that sums in 64-bit integers have room for below the largest exponent.
MOST_FRACTION_BITS = 40


def check_alignment(given: Alignment) -> None:
    """Raise ArgumentError for a field that is not allowed."""
    for name in ("fraction_bits", "sum_fraction_bits", "running_fraction_bits", "result_fraction_bits"):
        value = getattr(given, name)
        if name != "fraction_bits" and value is None:
            continue
        _check_integer(name, value, 0, MOST_FRACTION_BITS)
    for name in ("cut", "sum_cut"):
        _check_cut(name, getattr(given, name))
    _check_integer("lanes", given.lanes, 1, 64)
    for name in ("zero_exponent", "running_reach", "product_limit"):
        if getattr(given, name) is not None:
            _check_integer(name, getattr(given, name), -(1 << 14), 1 << 14)
    if given.scaled_group is not None:
        _check_integer("scaled_group", given.scaled_group, 1, 1 << 14)
    _check_choice("running_sum", given.running_sum)
    after = given.running_sum == "after"
    for name in ("sum_fraction_bits", "running_fraction_bits"):
        if (getattr(given, name) is not None) != after:
            raise ArgumentError(
                f"{name}={getattr(given, name)!r} and running_sum={given.running_sum!r} do not go together: 'after' "
                "needs sum_fraction_bits and running_fraction_bits, 'term' takes neither."
            )
    if given.lanes > 1 and not after:
        raise ArgumentError(f"lanes={given.lanes!r} needs running_sum='after'.")


def check_accumulator(given: Accumulator) -> dict[str, Any]:
    """Return the fields whose names are resolved; raise ArgumentError for a field that is not allowed."""
    fmt = _scalar("format", given.format)
    mode = rounding(given.rounding).name
    overflow = given.overflow if given.overflow == INFINITY else overflow_mode(given.overflow)
    if overflow == INFINITY:
        if not getattr(fmt, "has_infinity", False):
            raise ArgumentError(f"overflow={INFINITY!r} needs a format with infinities, not {fmt.name!r}.")
    else:
        check_overflow(fmt, overflow)
    product = (
        given.product
        if isinstance(given.product, str) and given.product == "exact"
        else _scalar("product", given.product)
    )
    for name in ("group_sum", "compensation", "subnormal_inputs", "subnormal_results"):
        _check_choice(name, getattr(given, name))
    for name in ("group", "lanes", "lane_width", "splits", "split_tile"):
        _check_integer(name, getattr(given, name), 1, 1 << 40)
    if given.chunk is not None:
        _check_integer("chunk", given.chunk, 1, 1 << 40)
    _check_integer("seed", given.seed, 0, (1 << 64) - 1)
    _check_types(given)
    _check_together(given, fmt, product)
    return {"format": fmt, "rounding": mode, "overflow": overflow, "product": product, "order": _order(given.order)}


def _check_types(given: Accumulator) -> None:
    from lowp.emulation.accumulator import Accumulator, Alignment
    from lowp.emulation.gauss_table import GaussTable

    for name, kind in (("alignment", Alignment), ("outer", Accumulator), ("table", GaussTable)):
        value = getattr(given, name)
        if value is not None and not isinstance(value, kind):
            raise ArgumentTypeError(f"{name}={value!r} must be None or a lowp.{kind.__name__}.")
    if not isinstance(given.signed_zero, bool) and given.signed_zero != "underflow":
        raise ArgumentError(f"signed_zero={given.signed_zero!r} must be True, False or 'underflow'.")


def _check_together(given: Accumulator, fmt: ScalarFormat, product: Any) -> None:
    """Raise ArgumentError for fields that contradict each other."""
    aligned, compensated, by_table = (x is not None for x in (given.alignment, given.compensation, given.table))
    pairwise, single = given.order == "pairwise", given.chunk is None and given.lanes == given.splits == 1
    fused = given.group_sum == "fused"
    clashes = (
        (aligned and not fused, "alignment is for group_sum='fused'"),
        (aligned and product != "exact", "alignment cuts exact products, it needs product='exact'"),
        (aligned and not isinstance(fmt, Float | Integer | Fixed), "alignment is for floats, integers and fixed point"),
        (aligned and pairwise, "alignment and order='pairwise' do not go together"),
        (compensated and aligned, "compensation and alignment do not go together"),
        (compensated and pairwise, "compensation needs a running sum, order='pairwise' has none"),
        (compensated and given.group > 1, "compensation needs group=1"),
        (compensated and rounding(given.rounding).variant != 0, "compensation needs a deterministic rounding"),
        (compensated and given.subnormal_inputs != "keep", "compensation needs subnormal_inputs='keep'"),
        (by_table and not is_logarithmic(fmt), "table is for logarithmic formats"),
        (by_table and fused and given.group > 1, "table needs group=1 or a group_sum of single additions"),
        (given.outer is not None and single, "outer adds partial sums: give chunk, lanes or splits too"),
    )
    for clash, reason in clashes:
        if clash:
            raise ArgumentError(f"{reason}; got {given._given()!r}.")  # noqa: SLF001 - its own check


def _order(given: Any) -> str | tuple[int, ...]:
    if isinstance(given, str):
        if given not in ORDERS:
            raise ArgumentError(unknown_name("order", given, (*ORDERS, "a tuple")))
        return given
    try:
        order = tuple(int(i) for i in given)
    except (TypeError, ValueError):
        raise ArgumentTypeError(
            f"order={given!r} must be one of {', '.join(ORDERS)}, or a permutation as a tuple."
        ) from None
    if not order or sorted(order) != list(range(len(order))):
        raise ArgumentError(f"order={given!r} must hold each of 0 to {max(len(order) - 1, 0)} once.")
    return order


def _scalar(name: str, given: Any) -> ScalarFormat:
    if not isinstance(given, str | Format):
        raise ArgumentTypeError(f"{name}={given!r} must be a format or its name.")
    wide = _WIDE_INTEGER.fullmatch(given) if isinstance(given, str) else None
    fmt: Format = Fixed(int(wide["bits"]), 0, signed=not wide["unsigned"]) if wide else parse(given)
    if not isinstance(fmt, ScalarFormat):
        raise ArgumentError(f"{name}={fmt.name!r} must be a scalar format: sums have no block scales.")
    return fmt


def _check_choice(name: str, value: Any) -> None:
    if value not in CHOICES[name]:
        raise ArgumentError(unknown_name(name, value, tuple(str(c) for c in CHOICES[name])))


def _check_cut(name: str, value: Any) -> None:
    if value not in ROUNDING_MODES or rounding(value).variant != 0:
        allowed = tuple(m for m in ROUNDING_MODES if rounding(m).variant == 0)
        raise ArgumentError(unknown_name(name, value, allowed))


def _check_integer(name: str, value: Any, least: int, most: int) -> None:
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise ArgumentTypeError(f"{name}={value!r} must be an integer.")
    if not least <= value <= most:
        raise ArgumentError(f"{name}={value!r} must be from {least} to {most}.")
