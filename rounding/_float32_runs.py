"""Scalar formats to which one compiled pass rounds float32, float16 or bfloat16 numbers: found once, then called."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np

from lowp.formats.float_format import Float
from lowp.formats.integer import Fixed, Integer
from lowp.formats.spec import Format, ScalarFormat
from lowp.rounding._corrections import corrections
from lowp.rounding._threads import SERIAL_BELOW, split
from lowp.rounding._wrap import WRAPPING
from lowp.rounding.lowering import kernel_plan, lower
from lowp.rounding.modes import Rounding
from lowp.rounding.request import Request

#: Rounds a flat array into another, or into itself.
Run = Callable[[Any, Any], None]
#: Significant bits, exponent of the least normal number and of the largest of the shorter floats.
_SHORT = {"float16": (11, -14, 15), "bfloat16": (8, -126, 127)}


@lru_cache(maxsize=512)
def float32_run(fmt: ScalarFormat, mode: Rounding, overflow: str) -> Run | None:
    """Return what rounds flat float32 arrays by a deterministic mode, NaN excepted; None: one pass is not enough."""
    how = None if mode.variant else _way(fmt, mode, overflow)
    if how is None:
        return None
    from lowp.rounding._float32_kernels import quantize_float32

    def run(source: Any, sink: Any) -> None:
        if source.size < SERIAL_BELOW:
            quantize_float32(source, sink, *how)
        else:
            split(source.size, lambda a, b: quantize_float32(source[a:b], sink[a:b], *how), pieces=4)

    return run


@lru_cache(maxsize=512)
def random_run(fmt: ScalarFormat, mode: Rounding, overflow: str) -> Callable[[Any, Any, int, int, int], None] | None:
    """Return what rounds flat float32 arrays by a stochastic mode, given the first position and the keys; or None."""
    how = _way(fmt, mode, overflow)
    if how is None or not mode.variant or not _has_room_for_bits(fmt, mode):
        return None
    from lowp.rounding import _float32_kernels as kernels
    from lowp.rounding._fast_stochastic_kernels import quantize_randomly

    way, integers, floats, _ = how
    plan = way == kernels.BITS_CORRECTED, integers, floats, mode.variant, mode.random_bits

    def run(source: Any, sink: Any, start: int, key0: int, key1: int) -> None:
        if source.size < SERIAL_BELOW:
            quantize_randomly(source, sink, *plan, start, key0, key1)
            return
        split(
            source.size, lambda a, b: quantize_randomly(source[a:b], sink[a:b], *plan, start + a, key0, key1), pieces=4
        )

    return run


def _has_room_for_bits(fmt: ScalarFormat, mode: Rounding) -> bool:
    """Whether float32 holds by what modes B and C multiply to see the random bits of the least number."""
    return mode.variant == 1 or not isinstance(fmt, Float) or fmt.emin - fmt.mantissa_bits >= mode.random_bits - 128


@lru_cache(maxsize=512)
def short_run(fmt: ScalarFormat, mode: Rounding, overflow: str, dtype: str) -> Run | None:
    """As `float32_run`, for bits (uint16) of float16 or bfloat16, where that has all the format's numbers."""
    how = _way(fmt, mode, overflow) if _is_held(fmt, *_SHORT[dtype]) and not mode.variant else None
    if how is None:
        return None
    from lowp.rounding._float32_kernels import quantize_short

    kind = np.int16 if dtype == "float16" else np.uint16

    def run(source: Any, sink: Any) -> None:
        source, sink = source.view(kind), sink.view(kind)
        if source.size < SERIAL_BELOW:
            quantize_short(source, sink, *how)
        else:
            split(source.size, lambda a, b: quantize_short(source[a:b], sink[a:b], *how), pieces=4)

    return run


@lru_cache(maxsize=512)
def encoding_run(fmt: ScalarFormat, mode: Rounding, overflow: str) -> Callable[[Any, Any], bool] | None:
    """Return what writes the codes of flat float32 arrays and tells whether there is NaN among them; None: as above."""
    how = None if mode.variant else _way(fmt, mode, overflow)
    plan = None if how is None else _code_plan(fmt, mode, overflow)
    if how is None or plan is None:
        return None
    encode = _at_once(fmt, how, plan[0].tolist(), float(plan[1]))

    def run(source: Any, codes: Any) -> bool:
        some = []

        def work(a: int, b: int) -> None:
            if encode(source[a:b], codes[a:b], *how, *plan):
                some.append(a)

        split(source.size, work, pieces=4)
        return bool(some)

    return run


def _at_once(fmt: ScalarFormat, how: tuple[Any, ...], fields: list[int], to_quanta: float) -> Callable[..., bool]:
    """Return what writes codes, given arrays, `how` and code plan: in one step where that is enough, else in two."""
    from lowp.rounding import _fast_codes_kernels as codes_kernels
    from lowp.rounding import _float32_kernels as kernels

    way, integers, floats, _ = how
    shift, base, normal, infinity, nan_code, sign_code, *_ = fields
    if way == kernels.BITS_NEAREST and integers[7]:
        return lambda x, codes, *_: codes_kernels.codes_of_float32_exponents(
            x.view(np.int32), codes, integers, np.int32(nan_code)
        )
    if way != kernels.NEAREST or not integers[3] or not isinstance(fmt, Float):
        in_two: Callable[..., bool] = kernels.encode_float32
        return in_two
    largest = int(floats[:1].view(np.int32)[0])
    top = (largest >> shift) - base if largest >= normal else int(fmt.max * to_quanta)  # all may be subnormal
    ends = np.array([shift, top, infinity if np.isinf(floats[3]) else top, sign_code, nan_code], np.int32)
    return lambda x, codes, *_: codes_kernels.codes_to_nearest_even(x, codes, integers, floats[2], ends)


@lru_cache(maxsize=512)
def float64_run(fmt: ScalarFormat, mode: Rounding, overflow: str) -> Run | None:
    """Return what rounds flat float64 arrays by a deterministic mode, NaN excepted; None: one pass is not enough."""
    from lowp.rounding._float64_kernels import quantize_float64
    from lowp.rounding._stochastic_kernels import chunk_plan

    if mode.variant or not isinstance(fmt, Float | Integer | Fixed):
        return None
    plan = chunk_plan(kernel_plan(fmt, mode, overflow, 64))
    if plan is None:
        return None
    least, raise_by, negative_zero = plan.integers.tolist()
    top, bottom, clip = plan.floats.tolist()
    integers = np.array([least, raise_by, -(1 << 63) if negative_zero else 0], np.int64)
    floats = np.array([top, -bottom, clip, *plan.ends.tolist()])
    how = mode.name != "ties_to_even", integers, floats, np.array(corrections(mode))

    def run(source: Any, sink: Any) -> None:
        split(source.size, lambda a, b: quantize_float64(source[a:b], sink[a:b], *how), pieces=4)

    return run


def _code_plan(fmt: ScalarFormat, mode: Rounding, overflow: str) -> tuple[Any, Any] | None:
    """Return what makes codes of rounded numbers: shift, base and so on, and the reciprocal of the least number."""
    from lowp.rounding import _fast_directed_kernels as directed
    from lowp.rounding import _fast_kernels as fast

    assert isinstance(fmt, Float | Integer | Fixed)
    plan = lower(fmt, mode, overflow, 32)
    if fmt.bits > 16 or plan.zero_bits or plan.tiny_bits:
        return None
    infinity = 0
    normal, to_quanta = plan.normal_bits, 1.0
    if isinstance(fmt, Float):
        infinity = fmt.infinity_code or 0
        if fast.has_float32_exponents(fmt):
            normal = 0  # subnormal numbers' bits are codes too
        elif directed.has_normal_quanta(fmt):
            to_quanta = 2.0 ** (fmt.mantissa_bits - fmt.emin)
        else:
            return None
    else:
        normal, to_quanta = 0, 2.0**fmt.fraction_bits
    fields = [plan.normal_shift, plan.code_base, normal, infinity, max(plan.nan_code, 0)]
    fields += [plan.sign_code, plan.code_mask, plan.twos_complement]
    return np.array(fields, np.int32), np.float32(to_quanta)


def run_for(fmt: Format, request: Request, dtype: str) -> Run | None:
    """Return what does all that `quantize` asks for on flat arrays of a dtype, or None."""
    if request.mode.variant or not _is_plain(fmt, request):
        return None
    assert isinstance(fmt, ScalarFormat)
    if dtype in ("float32", "float64"):
        find = float32_run if dtype == "float32" else float64_run
        return find(fmt, request.mode, request.overflow)
    return short_run(fmt, request.mode, request.overflow, dtype)


def random_run_for(fmt: Format, request: Request) -> Callable[[Any, Any, int, int, int], None] | None:
    """Return what does all that `quantize` asks for with random bits on flat float32 arrays, or None."""
    if not _is_plain(fmt, request):
        return None
    assert isinstance(fmt, ScalarFormat)
    return random_run(fmt, request.mode, request.overflow)


def _is_plain(fmt: Format, request: Request) -> bool:
    """Whether there is nothing to do before and after the one pass."""
    if not isinstance(fmt, Float | Integer | Fixed) or request.overflow in WRAPPING:
        return False
    return (request.nan == "keep" or fmt.has_nan) and getattr(fmt, "specials", "") != "dlfloat"


def _way(fmt: ScalarFormat, mode: Rounding, overflow: str) -> tuple[Any, ...] | None:
    """Return the kernels' arguments after the arrays."""
    from lowp.rounding import _fast_directed_kernels as directed
    from lowp.rounding import _fast_kernels as fast
    from lowp.rounding import _float32_kernels as kernels

    nearest = mode.name == "ties_to_even"
    if not isinstance(fmt, Float | Integer | Fixed):
        return None
    if fast.has_float32_exponents(fmt):
        assert isinstance(fmt, Float)
        way = kernels.BITS_NEAREST if nearest else kernels.BITS_CORRECTED
        return way, fast.shift_plan(fmt, mode, overflow), np.zeros(0, np.float32), directed.correcting(mode)
    if not fast.can_be_added(fmt) or not (nearest or directed.has_normal_quanta(fmt)):
        return None
    plan = fast.fast_plan(fmt, mode, overflow)
    way = kernels.NEAREST if nearest else kernels.CORRECTED
    return way, plan.integers, plan.floats, directed.correcting(mode)


def _is_held(fmt: ScalarFormat, bits: int, emin: int, emax: int) -> bool:
    """Whether a float of so many significant bits holds all numbers of a format."""
    least = emin - bits + 1
    if isinstance(fmt, Float):
        own = fmt.emin - fmt.mantissa_bits
        return fmt.mantissa_bits + 1 <= bits and own >= least and fmt.emax <= emax
    if isinstance(fmt, Integer | Fixed):
        size = fmt.bits - fmt.signed
        return size <= bits and -fmt.fraction_bits >= least and size - fmt.fraction_bits <= emax
    return False
