"""Other ways to round float32 numbers than the quick ones, for all of them in the order of their bits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from lowp._errors import ArgumentError, FormatError
from lowp.formats import Codebook, Fixed, Float, Format, Integer, ScalarFormat
from lowp.formats.logarithms import is_logarithmic
from lowp.formats.ranked import TaperedFormat
from lowp.rounding import exact
from lowp.rounding._ranked import has_exponent_rows
from lowp.rounding._threads import split
from lowp.rounding.lowering import fits_float32, kernel_plan
from lowp.rounding.random_bits import keys

#: Inputs in a piece; a piece has one sign.
PIECE = 1 << 20
INFINITE = 0x7F800000
_WRAPPING = ("wrap", "wrap_sign_magnitude")

#: Writes the results (bits) of a piece of inputs (bits) whose first is given; returns where float32 holds the result,
#: None for everywhere.
Reference = Callable[[Any, Any, int], Any]


def reference_of(form: Format, mode: Any, overflow: str, seed: int) -> tuple[str, Reference]:
    """Return the name of another way to round, and the function that writes what it gives."""
    if not isinstance(form, ScalarFormat):
        raise FormatError(f"format={form.name!r} is not a scalar format, so an input alone has no result.")
    if overflow in _WRAPPING:
        raise ArgumentError(
            f"overflow={overflow!r} wraps around, which has no second way here; allowed are the others."
        )
    if isinstance(form, Float | Integer | Fixed):
        if not fits_float32(form):
            raise FormatError(f"format={form.name!r} has values that float32 does not hold.")
        return "integer algorithm", _by_integers(form, mode, overflow, seed)
    if mode.variant:
        raise ArgumentError(f"rounding={mode.name!r}: the deterministic modes are checked for {form.name!r}.")
    if form.bits > 16:
        raise FormatError(f"format={form.name!r} has {form.bits} bits; formats by a table are checked up to 16.")
    if isinstance(form, TaperedFormat) and has_exponent_rows(form):
        return "table of exponents", _by_exponents(form, mode)
    return "sorted decision points", _by_decision_points(form, mode, overflow)


def _by_integers(form: Float | Integer | Fixed, mode: Any, overflow: str, seed: int) -> Reference:
    from lowp.rounding._kernels import quantize_any_bits

    plan, mask = kernel_plan(form, mode, overflow, 32), 0x7FFFFFFF

    def write(x: Any, wanted: Any, first: int) -> Any:
        source, sink = x.view(np.int32), wanted.view(np.int32)
        split(x.size, lambda a, b: quantize_any_bits(source[a:b], sink[a:b], plan, INFINITE, mask, a, *keys(seed)))

    return write


def _by_exponents(form: TaperedFormat, mode: Any) -> Reference:
    from lowp.rounding._tapered import held_values, rows
    from lowp.rounding._tapered_kernels import quantize_tapered

    values = held_values(form, 4)[: form.ranks + 1]
    fixed = values, rows(form, 32), 23, INFINITE, 0x7FFFFFFF, form.ranks, mode.table
    complete = not np.isnan(values).any()

    def write(x: Any, wanted: Any, first: int) -> Any:
        source, sink = x.view(np.int32), wanted.view(np.float32)
        split(x.size, lambda a, b: quantize_tapered(source[a:b], sink[a:b], *fixed))
        return None if complete else ~(np.isnan(sink) & np.isfinite(x.view(np.float32)))

    return write


def _by_decision_points(form: ScalarFormat, mode: Any, overflow: str) -> Reference:
    from lowp.rounding._search import lower_table

    table = lower_table(form, mode, overflow)
    with np.errstate(over="ignore", under="ignore"):
        narrow = table.values.astype(np.float32)
    rounded = isinstance(form, Codebook) or is_logarithmic(form)
    held = (np.isfinite(narrow) if rounded else narrow == table.values) | ~np.isfinite(table.values)
    # The index of a number is the count of decision points up to it. A positive input x has the bits of x; the count
    # for -x falls where x passes the negative of a decision point.
    up = _bits(np.abs(table.cuts), np.inf)[table.cuts > 0]
    down = _bits(np.abs(table.cuts), -np.inf)[table.cuts <= 0][::-1].astype(np.int64) + 1
    below = int(np.count_nonzero(table.cuts <= 0))

    def write(x: Any, wanted: Any, first: int) -> Any:
        negative = first >= 1 << 31
        low = first - (negative << 31)
        if negative:
            index = below - np.searchsorted(down, [low, low + PIECE - 1], side="right")
            steps = down[below - index[0] : below - index[1]]
        else:
            index = below + np.searchsorted(up, [low, low + PIECE - 1], side="right")
            steps = up[index[0] - below : index[1] - below]
        counts: Any = np.diff(np.concatenate([[low], steps, [low + PIECE]]).astype(np.int64))
        taken = np.arange(index[0], index[1] - 1, -1) if negative else np.arange(index[0], index[1] + 1)
        wanted[:] = np.repeat(narrow.view(np.uint32)[taken], counts)
        outside = int(np.clip(low + PIECE - INFINITE, 0, PIECE))  # from infinity on
        if outside:
            _infinity_and_nan(x[PIECE - outside :], wanted[PIECE - outside :], form, overflow)
        return None if held[taken].all() else np.repeat(held[taken], counts)

    return write


def _infinity_and_nan(x: Any, wanted: Any, form: ScalarFormat, overflow: str) -> None:
    """NaN passes through; what becomes of infinity is asked of the oracle."""
    mag = x & np.uint32(0x7FFFFFFF)
    np.copyto(wanted, x, where=mag > INFINITE)
    for i in np.flatnonzero(mag == INFINITE):
        wanted[i] = as_float32(exact.quantize(float(x[i : i + 1].view(np.float32)[0]), form, overflow=overflow))


def _bits(values: Any, toward: float) -> Any:
    """Return the bits of nonnegative numbers as float32, rounded up (`toward` infinity) or down."""
    with np.errstate(over="ignore", under="ignore"):
        narrow = values.astype(np.float32)
    wrong = narrow < values if toward > 0 else narrow > values
    return np.where(wrong, np.nextafter(narrow, np.float32(toward)), narrow).astype(np.float32).view(np.uint32)


def as_float32(meaning: Any) -> np.uint32:
    """Return the bits of an exact result."""
    with np.errstate(over="ignore", under="ignore"):
        return np.float32(float(meaning)).view(np.uint32)
