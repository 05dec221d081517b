"""Table formats as array code: sorted decision points, and rows by exponent for posits and linear takums."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lowp.formats.codebook import Codebook
from lowp.formats.ranked import RankedFormat, TaperedFormat
from lowp.formats.spec import ScalarFormat
from lowp.rounding._namespaces import Namespace
from lowp.rounding._portable_bits import INFINITE, MASK, order_keys, widen
from lowp.rounding._portable_room import into_dtype, nan_bits
from lowp.rounding._portable_scalar import entries, held_bits, look_up
from lowp.rounding._ranked import has_exponent_rows
from lowp.rounding._search import _ceiling, lower_table
from lowp.rounding.modes import Rounding
from lowp.rounding.request import Request

#: Up to here every decision point is compared, which compilers fuse; beyond, bisection.
_FEW = 32


def rounded(xp: Namespace, raw: Any, name: str, fmt: ScalarFormat, request: Request, word: Callable[[], Any]) -> Any:
    """Return the bits, in the dtype `name`, of the values that numbers round to; NaN is the canonical one."""
    if isinstance(fmt, TaperedFormat) and has_exponent_rows(fmt):
        from lowp.rounding import _portable_tapered

        return _portable_tapered.rounded(xp, raw, name, fmt, request, word)
    if isinstance(fmt, RankedFormat) and _by_logarithms(fmt, request):
        return _logarithmic(xp, raw, name, fmt, request, word())
    width = 64 if name == "float64" else 32
    if request.mode.variant:
        assert isinstance(fmt, Codebook)
        from lowp.rounding import _portable_fractions

        results = _codebook_results(fmt, name)
        bits = widen(xp, raw, name, 64)
        index = _portable_fractions.codebook_index(xp, bits, fmt, request.mode, word())
        index = xp.where((bits & MASK[64]) > INFINITE[64], len(fmt.values), index)
    else:
        table = lower_table(fmt, request.mode, request.overflow)
        results = _results(fmt, request.mode, request.overflow, name)
        bits = widen(xp, raw, name, width)
        if results[1].all() and len(table.cuts) <= _FEW:
            return _chain(xp, bits, fmt, request, results[0])
        index = _index(xp, bits, fmt, request)
    return entries(xp, results, index, fmt, name)


@lru_cache(maxsize=256)
def _results(fmt: ScalarFormat, mode: Rounding, overflow: str, name: str) -> tuple[Any, Any]:
    return held_bits(np.append(lower_table(fmt, mode, overflow).values, np.nan), fmt, name)


@lru_cache(maxsize=64)
def _codebook_results(fmt: Codebook, name: str) -> tuple[Any, Any]:
    return held_bits(np.array([*fmt.values, np.nan]), fmt, name)


def codes(xp: Namespace, raw: Any, name: str, fmt: ScalarFormat, request: Request, word: Callable[[], Any]) -> Any:
    """Return the codes that numbers round to; NaN gets the format's code for it."""
    if isinstance(fmt, TaperedFormat) and has_exponent_rows(fmt):
        from lowp.rounding import _portable_tapered

        return _portable_tapered.codes(xp, raw, name, fmt, request, word)
    if isinstance(fmt, RankedFormat) and _by_logarithms(fmt, request):
        from lowp.rounding import _portable_logarithms

        return _portable_logarithms.codes(xp, widen(xp, raw, name, 64), fmt, request, word())
    if request.mode.variant:
        assert isinstance(fmt, Codebook)
        from lowp.rounding import _portable_fractions

        bits = widen(xp, raw, name, 64)
        index = _portable_fractions.codebook_index(xp, bits, fmt, request.mode, word())
        return xp.take(xp.constant(np.array(fmt.codes, np.int32), raw), index)
    table = lower_table(fmt, request.mode, request.overflow)
    bits = widen(xp, raw, name, 64 if name == "float64" else 32)
    results = np.append(table.codes, table.nan_code).astype(np.int32)
    if len(table.cuts) <= _FEW:
        return _chain(xp, bits, fmt, request, results)
    return xp.take(xp.constant(results, raw), _index(xp, bits, fmt, request))


def _by_logarithms(fmt: RankedFormat, request: Request) -> bool:
    """Whether numbers are rounded by their logarithms, not by a table."""
    return request.mode.variant != 0 or fmt.bits > 16


def _logarithmic(xp: Namespace, raw: Any, name: str, fmt: RankedFormat, request: Request, word: Any) -> Any:
    from lowp.rounding import _portable_logarithms

    bits = widen(xp, raw, name, 64)
    found = _portable_logarithms.codes(xp, bits, fmt, request, word)
    if fmt.bits <= 16:
        result = look_up(xp, found, fmt, name)
    else:
        result = into_dtype(xp, _portable_logarithms.values(xp, found, fmt), name, fmt)
    return xp.where((bits & MASK[64]) > INFINITE[64], nan_bits(name), result)


@lru_cache(maxsize=256)
def _cuts(fmt: ScalarFormat, mode: Rounding, overflow: str, width: int) -> NDArray[Any]:
    """Return the decision points as ordered integers; an infinite one is reached by infinity alone."""
    cuts = _ceiling(lower_table(fmt, mode, overflow).cuts, width // 8)
    bits: Any = np.ascontiguousarray(cuts).view(np.int32 if width == 32 else np.int64)
    mag = bits & MASK[width]
    return np.asarray(np.where(bits < 0, -mag, mag))


def _width(xp: Namespace, bits: Any) -> int:
    return 64 if xp.dtype_name(bits) == "int64" else 32


def _chain(xp: Namespace, bits: Any, fmt: ScalarFormat, request: Request, results: NDArray[Any]) -> Any:
    """Return the result of each number by one comparison with each decision point."""
    width, kind = _width(xp, bits), results.dtype.name
    keys = order_keys(xp, bits)
    found = xp.full_like(bits, int(results[0]), kind)
    for cut, result in zip(_cuts(fmt, request.mode, request.overflow, width), results[1:-1], strict=True):
        found = xp.where(keys >= int(cut), int(result), found)
    return xp.where((bits & MASK[width]) > INFINITE[width], int(results[-1]), found)


def _index(xp: Namespace, bits: Any, fmt: ScalarFormat, request: Request) -> Any:
    """Return how many decision points are not above each number; NaN counts one more than all."""
    width = _width(xp, bits)
    cuts = _cuts(fmt, request.mode, request.overflow, width)
    index = count_below(xp, order_keys(xp, bits), cuts)
    return xp.where((bits & MASK[width]) > INFINITE[width], len(cuts) + 1, index)


def count_below(xp: Namespace, keys: Any, cuts: NDArray[Any]) -> Any:
    """Return how many sorted integers are not above each key, as int32, by bisection without branches."""
    steps = len(cuts).bit_length()
    padded = np.full((1 << steps) - 1, np.iinfo(cuts.dtype).max, cuts.dtype)
    padded[: len(cuts)] = cuts
    table, keys = xp.constant(padded, keys), xp.computed_once(keys)  # else XLA computes the keys again in every step
    low = xp.full_like(keys, 0, "int32")
    for step in reversed(range(steps)):
        ahead = low + (1 << step)
        low = xp.computed_once(xp.where(xp.take(table, ahead - 1) <= keys, ahead, low))
    return xp.minimum(low, len(cuts))


def wide_values(xp: Namespace, numbers: Any, fmt: ScalarFormat) -> Any:
    """Return float64 bits of the values of codes of more than 16 bits."""
    assert isinstance(fmt, RankedFormat)
    if not (isinstance(fmt, TaperedFormat) and has_exponent_rows(fmt)):
        from lowp.rounding import _portable_logarithms

        return _portable_logarithms.values(xp, numbers, fmt)
    from lowp.rounding import _portable_tapered

    return _portable_tapered.values(xp, numbers, fmt)
