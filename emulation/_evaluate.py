"""One operation from operands to codes: which format, which way, and small formats by table."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from functools import lru_cache, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lowp._errors import ArgumentError, RangeError
from lowp.emulation import _exact_results, _float_steps
from lowp.emulation._code_steps import code_step
from lowp.emulation._full import full_format
from lowp.emulation._log_steps import logarithmic_step
from lowp.emulation._operands import (
    Coded,
    Operand,
    Options,
    Settings,
    array_format,
    check_options,
    coded,
    holds_exactly,
    operand,
    precision,
    within_float64,
)
from lowp.emulation._target import Result, Target
from lowp.formats.float_format import Float
from lowp.formats.logarithms import is_logarithmic
from lowp.formats.ranked import RankedFormat, TaperedFormat
from lowp.formats.spec import ScalarFormat
from lowp.formats.tables import code_dtype
from lowp.rounding._threads import split
from lowp.rounding.request import Request

#: Operations on up to this many bits of operands are looked up, once so many results are asked for.
_TABLE_BITS = 16
_TABLE_FROM = 1 << 13
#: Results that are computed at a time.
_PART = 1 << 16
_FUNCTIONS = ("exp", "exp2", "log", "log2", "sin", "cos", "tanh", "power")
_BINARY64 = Float(11, 52)
#: Operations in which NumPy's float64 is IEEE 754's binary64.
_NATIVE: dict[str, Callable[..., Any]] = {
    "add": np.add, "subtract": np.subtract, "multiply": np.multiply, "divide": np.divide, "sqrt": np.sqrt,
}  # fmt: skip


def evaluate(op: str, given: tuple[Any, ...], options: Options) -> Coded:
    """Return the rounded results of an operation on operands that broadcast together."""
    check_options(options)
    operands = [operand(x) for x in given]
    settings = joint_settings(given, options)
    fmt = result_format(op, operands, options.get("fmt"))
    request = settings.request(fmt)
    try:
        shape = np.broadcast_shapes(*(x.shape for x in operands))
    except ValueError as error:
        raise ArgumentError(f"operands of shapes {[x.shape for x in operands]} do not broadcast: {error}.") from None
    codes = _by_table(op, operands, fmt, request, shape)
    if codes is None:
        codes = compute(op, [x.flat(shape) for x in operands], Target(fmt, request))
    codes = codes.reshape(shape)
    if op == "divide" and _is_p3109(fmt):  # P3109 4.0: x / 0 is NaN, its zero has no sign
        divisor = operands[1].codes if _is_p3109(operands[1].fmt) else operands[1].values
        codes = np.where(np.broadcast_to(np.asarray(divisor), shape) == 0, codes.dtype.type(_nan_code(fmt)), codes)
    return Coded(codes, fmt, after(settings))


def _is_p3109(fmt: ScalarFormat | None) -> bool:
    return isinstance(fmt, Float) and fmt.specials.startswith("p3109")


def _nan_code(fmt: ScalarFormat) -> int:
    assert isinstance(fmt, Float)
    assert fmt.nan_code is not None
    return fmt.nan_code


def joint_settings(given: tuple[Any, ...], options: Options) -> Settings:
    """Return the settings of the operands, which must agree but for the seed (the largest counts), and of `options`."""
    found = [x.settings.changed(options) for x in given if isinstance(x, Coded)]
    if not found:
        return Settings().changed(options)
    joint = max(found, key=lambda s: s.seed)
    for other in found:
        if other._replace(seed=joint.seed) != joint:
            raise ArgumentError(
                f"the operands round differently: {other} and {joint}; pass rounding=, overflow=, nan= to a function."
            )
    return joint


def after(settings: Settings) -> Settings:
    """Return the settings of a result: the next seed, so that a chain of operations draws new random bits."""
    return settings._replace(seed=(settings.seed + 1) % (1 << 64)) if settings.rounding else settings


def result_format(op: str, operands: list[Operand], asked: Any) -> ScalarFormat:
    """Return the result's format: the one asked for, or the one format of the operands."""
    formats = {x.fmt for x in operands if x.fmt is not None}
    if isinstance(asked, str) and asked == "full":
        return full_format(op, [x.fmt for x in operands])
    if asked is not None:
        return array_format(asked, "fmt")
    if len(formats) != 1:
        names = sorted(f.name for f in formats) or ["plain numbers"]
        raise ArgumentError(
            f"fmt=None needs operands of one format, not {' and '.join(names)}; pass fmt= for the result."
        )
    return next(iter(formats))


def compute(op: str, operands: list[Operand], target: Target) -> NDArray[Any]:
    """Return the codes of the results for flat operands: in parts that caches hold, in threads where that is safe."""
    count = operands[0].shape[0]
    if count <= _PART:
        return _compute(op, operands, target)
    codes = np.empty(count, code_dtype(target.fmt.bits))

    def work(start: int, stop: int) -> None:
        for a in range(start, stop, _PART):
            b = min(a + _PART, stop)
            codes[a:b] = _compute(op, [x.part(a, b) for x in operands], target._replace(start=target.start + a))

    if op not in _FUNCTIONS and not any(is_logarithmic(f) for f in (target.fmt, *(x.fmt for x in operands))):
        split(count, work, _PART)
    else:  # mpmath, which decides close cases, is not safe in threads
        work(0, count)
    return codes


def _compute(op: str, operands: list[Operand], target: Target) -> NDArray[Any]:
    exact = all(x.exact for x in operands)
    values = [x.values for x in operands]
    exactly = _exact_result(op, operands, target)
    negative_zero = op in _exact_results.SUMS and target.request.mode.name == "toward_negative"
    if op in _FUNCTIONS:
        return _function(op, operands, values, target, exactly)
    if not exact and (chosen := code_step(op, operands, target.fmt)) is not None:
        return chosen
    if exact:
        if op in _NATIVE and _is_binary64(target):
            with np.errstate(all="ignore"):
                return target.encode(_NATIVE[op](*values))
        if op == "fma" and _is_binary64(target):
            return target.encode_odd(*_float_steps.nearest_multiply_add(*values), exactly)
        return target.encode_odd(*_float_steps.to_odd(op, values, negative_zero), exactly)
    count = values[0].size
    done = logarithmic_step(op, operands, target)
    known = np.zeros(count, bool) if done is None else done[1]
    if known.all() and done is not None:
        return done[0]
    if _float_steps.has_estimate(op) and _worth_estimating(operands, target):
        below, above, void = _float_steps.estimate(op, values, negative_zero)
        codes = target.encode_between(np.where(known, 1.0, below), np.where(known, 1.0, above), exactly, void & ~known)
    else:
        codes = target.encode_where(~known, exactly)
    return codes if done is None else np.where(known, done[0], codes)


def _is_binary64(target: Target) -> bool:
    """Whether results are IEEE 754's binary64 in its default rounding."""
    mode, overflow = target.request.mode.name, target.request.overflow
    return target.fmt == _BINARY64 and mode == "ties_to_even" and overflow == "infinity_or_nan"


def _worth_estimating(operands: list[Operand], target: Target) -> bool:
    """Whether estimates decide most results: the format keeps clearly fewer bits than float64, and all is in range."""
    formats = [x.fmt for x in operands if x.fmt is not None]
    literals = [abs(x.literal) for x in operands if isinstance(x.literal, Fraction)]
    return (
        not target.wraps
        and steps_per_octave_bits(target.fmt) <= 44
        and all(within_float64(f) for f in formats)
        and all(Fraction(1, 2**960) < literal < 2**960 for literal in literals)
    )


@lru_cache(maxsize=256)
def steps_per_octave_bits(fmt: ScalarFormat) -> int:
    """Return how many bits tell the values between 1 and 2 apart, about."""
    if isinstance(fmt, RankedFormat) and precision(fmt) == 64:
        return int(getattr(fmt, "gamma", 1 << (fmt.bits - 4))).bit_length()
    return min(precision(fmt), fmt.bits)


def _function(
    op: str, operands: list[Operand], values: list[Any], target: Target, exactly: Callable[[int], Result]
) -> NDArray[Any]:
    from lowp.emulation import _functions

    if not _worth_estimating(operands, target):
        return target.encode_where(np.ones(values[0].size, bool), exactly)
    exact = all(x.exact for x in operands)
    below, above, void = _functions.estimate(op, values, exact)
    if op == "power":  # pow(NaN, 0) is 1, but NaR stays NaR
        void = void | _nar(operands, values)
    return target.encode_between(below, above, exactly, void)


def _nar(operands: list[Operand], values: list[Any]) -> NDArray[np.bool_]:
    """Return where an operand is NaR."""
    found = np.zeros(values[0].shape, bool)
    for x, numbers in zip(operands, values, strict=True):
        if isinstance(x.fmt, TaperedFormat):
            found |= np.isnan(numbers)
    return found


def _exact_result(op: str, operands: list[Operand], target: Target) -> Callable[[int], Result]:
    """Return the function that tells one result exactly."""
    if op in _FUNCTIONS:
        from lowp.emulation._functions import EXACT_FUNCTIONS
        from lowp.emulation._intervals import reach

        function = partial(EXACT_FUNCTIONS[op], reach=reach(target.fmt, target.wraps))
    elif op in _exact_results.SUMS:
        down = target.request.mode.name == "toward_negative"
        function = partial(_exact_results.OPERATIONS[op], negative_zero=down)
    else:
        function = partial(_exact_results.OPERATIONS[op])
    tapered = [isinstance(x.fmt, TaperedFormat) for x in operands]

    def exactly(i: int) -> Result:
        numbers = [x.meaning(i) for x in operands]
        if any(t and n == "nan" for t, n in zip(tapered, numbers, strict=True)):
            return "nan"
        return function(*numbers)

    return exactly


def _by_table(
    op: str, operands: list[Operand], fmt: ScalarFormat, request: Request, shape: tuple[int, ...]
) -> NDArray[Any] | None:
    """Return the codes by looking them up; None where that does not apply or does not pay."""
    formats = [x.fmt for x in operands if x.fmt is not None]
    if len(formats) < len(operands) or math.prod(shape) < _TABLE_FROM or request.mode.variant:
        return None
    if len(operands) > 2 or sum(f.bits for f in formats) > _TABLE_BITS:
        return None
    if op in ("negative", "absolute", "convert") or (len(operands) == 1 and _is_quick(op, formats[0])):
        return None
    table = _table(op, tuple(formats), fmt, request._replace(key0=0, key1=0))
    if table is None:
        return None
    first, *rest = (np.asarray(x.codes) for x in operands)
    index = first.astype(np.uint16)
    for codes, f in zip(rest, formats[1:], strict=True):
        index = (index << np.uint16(f.bits)) | codes
    return np.take(table, index)


def _is_quick(op: str, fmt: ScalarFormat) -> bool:
    """Whether computing is about as fast as a large table."""
    return op == "sqrt" and fmt.bits > 8 and holds_exactly(fmt)


@lru_cache(maxsize=64)
def _table(op: str, formats: tuple[ScalarFormat, ...], fmt: ScalarFormat, request: Request) -> NDArray[Any] | None:
    """Return the result's code for every combination of codes; None where some result has no code."""
    codes = np.meshgrid(*(np.arange(1 << f.bits, dtype=code_dtype(f.bits)) for f in formats), indexing="ij")
    operands = [coded(c.reshape(-1), f) for c, f in zip(codes, formats, strict=True)]
    try:
        return compute(op, operands, Target(fmt, request))
    except RangeError:
        return None
