"""Scalar formats on float32 and float64 arrays: pick the kernel, run it in parts."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lowp._errors import RangeError
from lowp.formats.codebook import Codebook
from lowp.formats.float_format import LIFT, Float
from lowp.formats.integer import Fixed, Integer
from lowp.formats.logarithms import is_logarithmic
from lowp.formats.ranked import RankedFormat, TaperedFormat
from lowp.formats.spec import ScalarFormat
from lowp.formats.tables import FLOAT64_BITS, code_dtype, decode_bits, decode_codes, value_table
from lowp.rounding import _buckets, _edges, _search, _tapered, _thresholds, _wrap
from lowp.rounding._arrays import widen
from lowp.rounding._float32_runs import encoding_run, float32_run, float64_run, random_run
from lowp.rounding._ranked import encode_ranked, has_exponent_rows, quantize_ranked
from lowp.rounding._threads import split
from lowp.rounding.lowering import fits_float32, kernel_plan
from lowp.rounding.modes import Rounding, rounding
from lowp.rounding.random_bits import words
from lowp.rounding.request import Request, no_nan

#: Codes from which a compiled lookup pays for loading Numba.
_COMPILED_FROM = 1 << 16
_FLOOR = rounding("toward_negative")
_VIEW: dict[int, Any] = {4: np.int32, 8: np.int64}
_INFINITE = {4: 0x7F800000, 8: 0x7FF0000000000000}
_MASK = {4: 0x7FFFFFFF, 8: 0x7FFFFFFFFFFFFFFF}


def check_sticky(fmt: ScalarFormat, request: Request) -> None:
    """Raise RangeError where inputs rounded to odd at 53 bits are not good enough."""
    precision = fmt.mantissa_bits if isinstance(fmt, Float) else fmt.bits
    if precision + request.mode.random_bits > 49 or request.overflow in _wrap.WRAPPING or isinstance(fmt, Codebook):
        raise RangeError(
            f"x holds an integer beyond 2^53, and {fmt.name!r} with rounding={request.mode.name!r}, "
            f"overflow={request.overflow!r} needs all its bits; use lowp.exact."
        )


def quantize_values(
    x: NDArray[Any], fmt: ScalarFormat, request: Request, out: NDArray[Any] | None = None, start: int = 0
) -> NDArray[Any]:
    """Round contiguous float32 or float64 values; float64 comes back where float32 does not hold all values of `fmt`.

    Positions for random bits count from `start`. `out`, if given, is contiguous, has the dtype of `x` and may be `x`
    itself; it is used only where the result has that dtype.
    """
    if isinstance(fmt, Fixed) and fmt.bits > FLOAT64_BITS:
        return _through_codes(x, fmt, request, start)
    if isinstance(fmt, Codebook | RankedFormat) or request.overflow in _wrap.WRAPPING:
        result = _by_table(x, fmt, request, out, start)
        _replace_nan(x, result, fmt, request)
        return result
    if x.dtype == np.float32 and not _float32_suffices(fmt):
        return quantize_values(widen(x), fmt, request, start=start)
    low = _edges.subnormal_inputs(x, fmt)
    if low is not None:
        raised = quantize_values(np.ldexp(np.where(low, x, 0), LIFT), _edges.lifted(fmt), request, start=start)
        return np.where(low, np.ldexp(raised, -LIFT), quantize_values(np.where(low, 0, x), fmt, request, start=start))
    x = _edges.below_gap(x, fmt)
    result = np.empty(x.shape, x.dtype) if out is None or out.dtype != x.dtype else out
    if _run_fast(x, result, fmt, request, start):
        pass
    else:
        from lowp.rounding._kernels import quantize_bits

        _run(quantize_bits, x, result.view(_VIEW[x.dtype.itemsize]), fmt, request, start)
    _replace_nan(x, result, fmt, request)
    return result


def _through_codes(x: NDArray[Any], fmt: Fixed, request: Request, start: int) -> NDArray[Any]:
    """Round to more bits than float64 has: decoding says where a value could not be kept."""
    nan = np.isnan(x)
    result = decode_bits(encode_values(np.where(nan, 0, x), fmt, request, start), fmt)
    result[nan] = np.nan
    _replace_nan(x, result, fmt, request)
    return result


def decode_values(codes: Any, fmt: ScalarFormat, dtype: Any) -> NDArray[Any]:
    """Return the values of codes as float64, or at once in `dtype` where that holds them all and the codes are many."""
    array = np.asarray(codes)
    if array.size < _COMPILED_FROM or array.dtype != code_dtype(fmt.bits):
        return decode_codes(array, fmt)
    if fmt.bits > 16:
        if not (isinstance(fmt, TaperedFormat) and has_exponent_rows(fmt)) or int(array.max()) >> fmt.bits:
            return decode_codes(array, fmt)
        return _tapered.decode(array, fmt)
    table = _tapered.held_values(fmt, 4 if dtype == np.float32 else 8)
    if table.size < 1 << 8 * array.dtype.itemsize and array.max() >= table.size:
        return decode_codes(array, fmt)  # which says what is wrong
    from lowp.rounding._kernels import look_up

    out = np.empty(array.shape, table.dtype)
    flat, target = np.ascontiguousarray(array).reshape(-1), out.reshape(-1)
    split(array.size, lambda a, b: look_up(flat[a:b], table, target[a:b]), pieces=4)
    if table.dtype == np.float32 and not table_fits_float32(fmt) and np.isnan(out).any():
        return decode_values(array, fmt, np.float64)
    return out


def encode_values(x: NDArray[Any], fmt: ScalarFormat, request: Request, start: int = 0) -> NDArray[Any]:
    """Round contiguous float32 or float64 values to codes of the smallest unsigned dtype."""
    if x.dtype == np.float32 and request.overflow not in _wrap.WRAPPING and getattr(fmt, "specials", "") != "dlfloat":
        run = encoding_run(fmt, request.mode, request.overflow)
        found = np.empty(x.shape, code_dtype(fmt.bits))
        if run is not None and (not run(x.reshape(-1), found.reshape(-1)) or fmt.has_nan):
            return found
    nan = np.isnan(x) if not fmt.has_nan else None
    if nan is not None and nan.any():
        if request.nan == "error":
            raise no_nan(fmt)
        x = np.where(nan, x.dtype.type(0 if request.nan == "zero" else np.inf), x)
        if request.nan == "max":
            saturating = request._replace(overflow="saturate")
            return np.where(nan, encode_values(x, fmt, saturating, start), encode_values(x, fmt, request, start))
    if isinstance(fmt, Codebook | RankedFormat) or request.overflow in _wrap.WRAPPING:
        return _codes_by_table(x, fmt, request, start)
    if x.dtype == np.float32 and not _float32_suffices(fmt):
        x = widen(x)
    low = _edges.subnormal_inputs(x, fmt)
    if low is not None:
        raised = encode_values(np.ldexp(np.where(low, x, 0), LIFT), _edges.lifted(fmt), request, start)
        return np.where(low, raised, encode_values(np.where(low, 0, x), fmt, request, start))
    x = _edges.below_gap(x, fmt)
    from lowp.rounding._kernels import encode_bits

    codes = np.empty(x.shape, code_dtype(fmt.bits))
    _run(encode_bits, x, codes, fmt, request, start)
    return codes


def _codes_by_table(x: NDArray[Any], fmt: ScalarFormat, request: Request, start: int) -> NDArray[Any]:
    """Codes by the paths that are not the one kernel."""
    if request.mode.variant == 0 and not isinstance(fmt, Integer | Fixed) and _buckets.is_worth_it(x, fmt):
        table = _code_buckets(fmt, request.mode, request.overflow)
        if table is not None:
            return _buckets.looked_up(x, table)
    if isinstance(fmt, RankedFormat):
        return encode_ranked(x, fmt, request, start)
    if isinstance(fmt, Codebook) and request.mode.variant == 0:
        return _search.encode(x, fmt, request.mode, request.overflow)
    return _by_index(x, fmt, request, start)[1]


def _float32_suffices(fmt: ScalarFormat) -> bool:
    if isinstance(fmt, Codebook | RankedFormat):
        return fmt.bits <= 16 and table_fits_float32(fmt)
    return fits_float32(fmt)


@lru_cache(maxsize=128)
def table_fits_float32(fmt: ScalarFormat) -> bool:
    """Whether float32 holds every value of a format of at most 16 bits."""
    with np.errstate(over="ignore", under="ignore"):
        return bool(np.array_equal(value_table(fmt).astype(np.float32), value_table(fmt), equal_nan=True))


def _run(kernel: Any, x: NDArray[Any], target: NDArray[Any], fmt: ScalarFormat, request: Request, start: int) -> None:
    size = x.dtype.itemsize
    assert isinstance(fmt, Float | Integer | Fixed)
    plan = kernel_plan(fmt, request.mode, request.overflow, 8 * size)
    source, sink = x.reshape(-1).view(_VIEW[size]), target.reshape(-1)

    def part(a: int, b: int) -> None:
        kernel(source[a:b], sink[a:b], plan, _INFINITE[size], _MASK[size], start + a, request.key0, request.key1)

    split(x.size, part, pieces=4)


def _run_fast(x: NDArray[Any], result: NDArray[Any], fmt: ScalarFormat, request: Request, start: int) -> bool:
    """Round in one pass if that is enough; say whether it was."""
    source, sink = x.reshape(-1), result.reshape(-1)
    if x.dtype == np.float32 and request.mode.variant:
        randomly = random_run(fmt, request.mode, request.overflow)
        if randomly is not None:
            randomly(source, sink, start, request.key0, request.key1)
        return randomly is not None
    find = float32_run if x.dtype == np.float32 else float64_run
    run = find(fmt, request.mode, request.overflow)
    if run is not None:
        run(source, sink)
    return run is not None


def _replace_nan(x: NDArray[Any], result: NDArray[Any], fmt: ScalarFormat, request: Request) -> None:
    """Apply the NaN policy to the NaNs that `fmt` cannot store; the kernels have passed them through."""
    if request.nan == "keep" or fmt.has_nan:
        return
    nan = np.isnan(result)
    if nan.any():
        if request.nan == "error":
            raise no_nan(fmt)
        result[nan] = 0 if request.nan == "zero" else fmt.max


def _by_table(
    x: NDArray[Any], fmt: ScalarFormat, request: Request, out: NDArray[Any] | None, start: int
) -> NDArray[Any]:
    """Values by the paths that are not the one kernel."""
    if request.mode.variant == 0 and not isinstance(fmt, Integer | Fixed) and _buckets.is_worth_it(x, fmt):
        found = _from_buckets(x, fmt, request, out)
        if found is not None:
            return found
    if isinstance(fmt, RankedFormat):
        return quantize_ranked(x, fmt, request, out, start)
    if isinstance(fmt, Codebook) and request.mode.variant == 0:
        return _search.quantize(x, fmt, request.mode, request.overflow)
    return _by_index(x, fmt, request, start)[0]


def _from_buckets(
    x: NDArray[Any], fmt: ScalarFormat, request: Request, out: NDArray[Any] | None
) -> NDArray[Any] | None:
    """Return values looked up in a table; None if there is none, or a value is none that float32 may hold."""
    table = _value_buckets(fmt, request.mode, request.overflow)
    if table is None:
        return None
    in_place = out is not None and out.ctypes.data == x.ctypes.data
    may_miss = not (isinstance(fmt, Codebook) or table_fits_float32(fmt))
    found = _buckets.looked_up(x, table, None if in_place and may_miss else out)
    missed = may_miss and np.isnan(found).any() and bool((np.isnan(found) & np.isfinite(x)).any())
    return None if missed else found


@lru_cache(maxsize=32)
def _value_buckets(fmt: ScalarFormat, mode: Rounding, overflow: str) -> _buckets.Buckets | None:
    """Return the values of a codebook or ranked format as a table over the leading bits of float32.

    Values that float32 may not hold are NaN.
    """
    request = Request(mode, overflow, 0, 0, 0, "keep")

    def evaluate(x: NDArray[Any]) -> NDArray[Any]:
        values = _in_pieces(_by_table, x, fmt, request, None, 0)
        narrow = values.astype(np.float32)
        held = np.isfinite(narrow) if _may_be_rounded(fmt) else narrow == values
        return np.where(held | ~np.isfinite(values), narrow, np.float32(np.nan))

    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        return _buckets.make_buckets(evaluate)


def _may_be_rounded(fmt: ScalarFormat) -> bool:
    """Whether a format's values may be rounded to the caller's dtype."""
    return isinstance(fmt, Codebook) or is_logarithmic(fmt)


@lru_cache(maxsize=32)
def _code_buckets(fmt: ScalarFormat, mode: Rounding, overflow: str) -> _buckets.Buckets | None:
    """Return the codes likewise; NaN, where it has none, counts as 0."""
    request = Request(mode, overflow, 0, 0, 0, "zero")
    return _buckets.make_buckets(lambda x: _in_pieces(encode_values, x, fmt, request, 0))


def _in_pieces(how: Any, x: NDArray[Any], *arguments: Any) -> NDArray[Any]:
    """Apply a function to pieces that are too small for it to look for a table."""
    step = _buckets.ENOUGH - 1
    return np.concatenate([how(x[i : i + step], *arguments) for i in range(0, x.size, step)])


def _by_index(x: NDArray[Any], fmt: ScalarFormat, request: Request, start: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Values and codes of stochastically rounded codebooks, and of integers that wrap around."""
    nan = np.isnan(x)
    clean = np.where(nan, 0, x) if nan.any() else x
    if isinstance(fmt, Codebook):
        random = words_like(clean, request, start)
        index = _thresholds.indices(clean, fmt, request.mode, random)
        values, codes = np.asarray(np.array(fmt.values)[index]), np.asarray(np.array(fmt.codes)[index])
    else:
        values, codes = _wrapped(clean, fmt, request, start)
    if nan.any():
        values[nan] = np.nan
    return values, codes.astype(code_dtype(fmt.bits))


def words_like(x: NDArray[Any], request: Request, start: int) -> NDArray[np.uint32]:
    """Return the random words of the positions of `x`."""
    return np.asarray(words((request.key0, request.key1), start, x.size)).reshape(x.shape)


def integer_values(x: NDArray[Any], fmt: Integer | Fixed, request: Request, start: int = 0) -> NDArray[np.int64]:
    """Round numbers without NaN to signed multiples of the quantum of `fmt`, before any overflow rule."""
    if fmt.bits > FLOAT64_BITS:
        return _wrap.unbounded(x, fmt, request.mode, words_like(x, request, start))
    from lowp.rounding._kernels import integers

    n = np.empty(x.shape, np.int64)
    _run(integers, np.ascontiguousarray(widen(x)), n, fmt, request, start)
    return n


def _wrapped(x: NDArray[Any], fmt: ScalarFormat, request: Request, start: int) -> tuple[NDArray[Any], NDArray[Any]]:
    assert isinstance(fmt, Integer | Fixed)
    n = integer_values(x, fmt, request, start)
    floor = integer_values(x, fmt, request._replace(mode=_FLOOR)) if request.overflow == "wrap_sign_magnitude" else n
    n = _wrap.apply(n, floor, fmt, request.overflow, request.saturation_bits)
    return np.asarray(np.ldexp(n.astype(np.float64), -fmt.fraction_bits)), np.asarray(n & ((1 << fmt.bits) - 1))
