"""The usual call of `quantize` in a few microseconds: all that depends on its arguments alone is found once."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np

from lowp._errors import Error
from lowp.formats.block import Block
from lowp.formats.codebook import Codebook
from lowp.formats.float_format import Float
from lowp.formats.integer import Fixed, Integer
from lowp.formats.parse import parse
from lowp.formats.ranked import RankedFormat, TaperedFormat
from lowp.formats.spec import ScalarFormat
from lowp.formats.tables import code_dtype
from lowp.rounding import _tapered
from lowp.rounding._arrays import unlocked
from lowp.rounding._buckets import ENOUGH
from lowp.rounding._float32_runs import encoding_run, random_run_for, run_for
from lowp.rounding._ranked import has_exponent_rows
from lowp.rounding._scalar import table_fits_float32
from lowp.rounding._search import small_run
from lowp.rounding._tapered import held_values
from lowp.rounding._tiles import prepared, quantize_prepared, quantize_short_prepared
from lowp.rounding._tiles import small_run as small_run_of_blocks
from lowp.rounding._wrap import WRAPPING
from lowp.rounding.encoded import Encoded
from lowp.rounding.random_bits import keys
from lowp.rounding.request import ENCODE_NAN, QUANTIZE_NAN, Request, check_format, make_request

#: Rounds an array into another, given the seed of stochastic modes.
Quick = Callable[[Any, Any, int], Any]
_PLAIN = ("float16", "bfloat16", "float32", "float64")


def quickly(x: Any, out: Any, axis: Any, seed: Any) -> bool:
    """Whether the arrays of a call are such that kernels may take them as they are; else all is checked in order."""
    return axis == -1 and type(seed) is int and 0 <= seed < 1 << 64 and _are_plain(x, out)


def _are_plain(x: Any, out: Any) -> bool:
    if type(x) is not np.ndarray:
        return False
    if not x.flags.c_contiguous or x.ndim == 0 or x.dtype.byteorder not in "=|":
        return False
    if out is None or out is x:
        return out is None or bool(x.flags.writeable)
    if type(out) is not np.ndarray or out.dtype != x.dtype or out.shape != x.shape:
        return False
    return bool(out.flags.c_contiguous and out.flags.writeable) and not np.may_share_memory(x, out)


def quick_run(
    dtype: np.dtype[Any], fmt: Any, rounding: Any, overflow: Any, random_bits: Any, saturation_bits: Any, nan: Any
) -> Quick | None:
    """Return what rounds contiguous arrays of a dtype into others, which it returns; None: it takes more than that.

    What is returned may return None in turn, where it depends on the numbers, the shape or the seed.
    """
    try:
        return _found(dtype, fmt, rounding, overflow, random_bits, saturation_bits, nan)
    except TypeError:  # an argument that cannot be hashed, and is wrong
        return None


@lru_cache(maxsize=512, typed=True)
def _found(
    dtype: np.dtype[Any], fmt: Any, rounding: Any, overflow: Any, random_bits: Any, saturation_bits: Any, nan: Any
) -> Quick | None:
    name = dtype.name
    if name not in _PLAIN:
        return None
    try:
        resolved = parse(fmt)
        request = make_request(rounding, overflow, 0, random_bits, saturation_bits, nan or "keep", QUANTIZE_NAN)
        check_format(resolved, request)
    except Error:
        return None  # raised again where all arguments are checked in order
    if isinstance(resolved, Block):
        return _blocks_run(resolved, request, name) if nan is None and name != "float64" else None
    if isinstance(resolved, Codebook | RankedFormat):
        return _table_run(resolved, request, name)
    if request.mode.variant:
        return _stochastic_run(resolved, request, name)
    run = run_for(resolved, request, name)
    if run is None:
        return None
    view = None if name in ("float32", "float64") else np.uint16

    def rounded(x: Any, out: Any, _seed: int) -> Any:
        if view is None:
            run(unlocked(x.reshape(-1)), out.reshape(-1))
        else:
            run(unlocked(x.reshape(-1).view(view)), out.reshape(-1).view(view))
        return out

    return rounded


def _table_run(fmt: Codebook | RankedFormat, request: Request, dtype: str) -> Quick | None:
    """Return what looks up the numbers of a small array; large ones have quicker ways."""
    if request.mode.variant or not (request.nan == "keep" or fmt.has_nan) or dtype not in ("float32", "float64"):
        return None
    if isinstance(fmt, TaperedFormat) and has_exponent_rows(fmt):
        return _tapered_run(fmt, request) if fmt.bits <= 16 else None
    run = small_run(fmt, request.mode, request.overflow, dtype)
    if run is None:
        return None

    def looked_up(x: Any, out: Any, _seed: int) -> Any:
        if x.size >= ENOUGH:
            return None
        run(unlocked(x.reshape(-1)), out.reshape(-1))
        return out

    return looked_up


def _tapered_run(fmt: TaperedFormat, request: Request) -> Quick:
    def rounded(x: Any, out: Any, _seed: int) -> Any:
        found = None if x.size >= ENOUGH else _tapered.quantize(unlocked(x), fmt, request.mode, out)
        return out if found is out else None

    return rounded


def _stochastic_run(fmt: Any, request: Request, dtype: str) -> Quick | None:
    """Return what rounds float32 numbers by a stochastic mode in one pass."""
    run = random_run_for(fmt, request) if dtype == "float32" else None
    if run is None:
        return None

    def rounded(x: Any, out: Any, seed: int) -> Any:
        run(unlocked(x.reshape(-1)), out.reshape(-1), 0, *keys(seed))
        return out

    return rounded


def quick_blocks(x: Any, out: Any, fmt: Block, request: Request, axis: Any) -> Any:
    """Return the quantized blocks of an array, in `out` if given, along any axis; None: it takes more than that."""
    if not _are_plain(x, out) or x.dtype.name not in _PLAIN[:3] or not x.size:
        return None
    check_format(fmt, request)
    it = prepared(fmt, request, x.shape, axis, None)
    result = np.empty(x.shape, x.dtype) if out is None and it is not None else out
    return None if it is None else _quantized(it, x, result, fmt, request, x.dtype.name)


def _quantized(it: Any, x: Any, out: Any, fmt: Block, request: Request, dtype: str) -> Any:
    if dtype == "float32":
        return quantize_prepared(it, x, out, fmt, request)
    done = quantize_short_prepared(it, x.view(np.uint16), out.view(np.uint16), fmt, request, dtype)
    return None if done is None else out


def _blocks_run(fmt: Block, request: Request, dtype: str) -> Quick:
    @lru_cache(maxsize=64)
    def found(shape: tuple[int, ...]) -> Any:
        it = prepared(fmt, request, shape, -1, None)
        return it, None if it is None or dtype != "float32" else small_run_of_blocks(it, fmt, request)

    def rounded(x: Any, out: Any, seed: int) -> Any:
        it, small = found(x.shape) if x.size else (None, None)
        if it is None or (seed != 0 and request.mode.variant):
            return None
        return _quantized(it, x, out, fmt, request, dtype) if small is None else small(x, out)

    return rounded


def quick_codes(
    dtype: np.dtype[Any], fmt: Any, rounding: Any, overflow: Any, random_bits: Any, saturation_bits: Any, nan: Any
) -> Callable[[Any], Encoded | None] | None:
    """Return what encodes contiguous arrays of a dtype in a scalar format; None as for `quick_run`."""
    try:
        return _codes_found(dtype, fmt, rounding, overflow, random_bits, saturation_bits, nan)
    except TypeError:
        return None


@lru_cache(maxsize=512, typed=True)
def _codes_found(
    dtype: np.dtype[Any], fmt: Any, rounding: Any, overflow: Any, random_bits: Any, saturation_bits: Any, nan: Any
) -> Callable[[Any], Encoded | None] | None:
    try:
        resolved = parse(fmt)
        request = make_request(rounding, overflow, 0, random_bits, saturation_bits, nan or "error", ENCODE_NAN)
        check_format(resolved, request)
    except Error:
        return None
    if dtype.name != "float32" or not isinstance(resolved, Float | Integer | Fixed) or overflow in WRAPPING:
        return None
    run = None if getattr(resolved, "specials", "") == "dlfloat" else encoding_run(resolved, request.mode, overflow)
    if run is None:
        return None
    kind, has_nan = code_dtype(resolved.bits), resolved.has_nan

    def encoded(x: Any) -> Encoded | None:
        codes = np.empty(x.shape, kind)
        some = run(unlocked(x.reshape(-1)), codes.reshape(-1))
        return None if some and not has_nan else Encoded(codes, resolved, dtype=dtype)

    return encoded


def quick_values(codes: Any, fmt: Any, dtype: np.dtype[Any]) -> Any:
    """Return the values of a small array of codes, by a table; None: it takes more than that."""
    if type(codes) is not np.ndarray or not 0 < codes.size < ENOUGH or codes.ndim == 0:
        return None
    table = _table(fmt, dtype) if isinstance(fmt, ScalarFormat) else None
    if table is None or codes.dtype != code_dtype(fmt.bits):
        return None
    try:
        return table[codes]
    except IndexError:  # said where all is checked
        return None


@lru_cache(maxsize=256)
def _table(fmt: ScalarFormat, dtype: np.dtype[Any]) -> Any:
    """Return the values by code, if they are of a dtype and few."""
    if fmt.bits > 16 or dtype.name not in ("float32", "float64"):
        return None
    if dtype.name == "float32" and not table_fits_float32(fmt):
        return None
    return np.ascontiguousarray(held_values(fmt, dtype.itemsize))
