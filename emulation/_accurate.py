"""What studies of errors compare with: float64 where it is far finer than a format, else numbers of 240 bits."""

from __future__ import annotations

from fractions import Fraction
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lowp.emulation._evaluate import steps_per_octave_bits
from lowp.emulation._operands import Coded, decoded
from lowp.emulation.array import array
from lowp.emulation.neighbours import ulp
from lowp.emulation.step_statistics import Errors
from lowp.formats.exact_real import Real
from lowp.formats.spec import ScalarFormat

#: float64, or object arrays of mpmath's numbers.
Numbers = NDArray[Any]
_BITS = 240
#: Of formats up to this precision, errors computed in float64 are right to a millionth of an ulp.
_COARSE = 27
#: Squares and sums of magnitudes between 2^-this and 2^this are well within float64.
_MODEST = 480


def is_fine(*formats: ScalarFormat) -> bool:
    """Whether float64 is too coarse to measure errors in one of the formats."""
    return any(steps_per_octave_bits(fmt) > _COARSE for fmt in formats)


def is_far(*operands: Coded) -> bool:
    """Whether numbers are so large or so small that float64 might not hold their squares, or quotients of these."""
    for x in operands:
        sizes = np.abs(decoded(x.codes, x.format))
        if np.any((sizes > 2.0**_MODEST) & np.isfinite(sizes)) or np.any((sizes < 2.0**-_MODEST) & (sizes > 0)):
            return True
    return False


@lru_cache(maxsize=1)
def context() -> Any:
    """Return mpmath with 240 bits, apart from everybody else's."""
    from mpmath.ctx_mp import MPContext

    made = MPContext()
    made.prec = _BITS
    return made


def numbers(x: Coded, fine: bool) -> Numbers:
    """Return the values of an array: float64, or of 240 bits."""
    if not fine:
        return decoded(x.codes, x.format)
    flat = [_big(x.format.meaning(int(code))) for code in x.codes.reshape(-1)]
    return _objects(flat).reshape(x.codes.shape)


def _big(meaning: Any) -> Any:
    mp = context()
    if isinstance(meaning, str):
        return mp.mpf({"-0": "0", "nan": "nan", "inf": "inf", "-inf": "-inf"}[meaning])
    if isinstance(meaning, Real):
        meaning = meaning.enclosure(_BITS)[0]
    return mp.mpf(meaning.numerator) / meaning.denominator


def big(x: Fraction | float) -> Any:
    """Return a number of 240 bits."""
    return _big(Fraction(x))


def _objects(items: list[Any]) -> Numbers:
    made = np.empty(len(items), object)
    made[:] = items
    return made


def exp(x: Numbers) -> Numbers:
    """Return `e^x`."""
    return np.asarray(np.frompyfunc(context().exp, 1, 1)(x)) if x.dtype == object else np.exp(x)


def sqrt(x: Numbers) -> Numbers:
    """Return the square root."""
    return np.asarray(np.frompyfunc(context().sqrt, 1, 1)(x)) if x.dtype == object else np.sqrt(x)


def quotient(x: Numbers, y: Numbers) -> Numbers:
    """Return `x / y`; what is divided by zero is no number."""
    if x.dtype != object and y.dtype != object:
        return np.asarray(x / y)
    nothing = y == 0
    return np.asarray(np.where(nothing, context().nan, x / np.where(nothing, context().one, y)))


def ulps_of(exact: Numbers, fmt: ScalarFormat) -> NDArray[np.float64]:
    """Return the steps of a format at exact values: from their nearest value to the next larger magnitude."""
    return ulp(array(as_floats(exact), fmt, overflow="saturate"))


def as_floats(x: Numbers) -> NDArray[np.float64]:
    """Return numbers in float64."""
    return np.asarray(x.astype(np.float64))


def errors(result: Coded, exact: Numbers) -> Errors:
    """Compare an array with exact results of its shape, those that are numbers."""
    fine = exact.dtype == object
    got, size = decoded(result.codes, result.format), int(result.codes.size)
    want = np.isfinite(as_floats(exact))
    both = want & np.isfinite(got)
    failed = int(np.count_nonzero(want & ~both))
    if not both.any():
        return Errors(size, failed, np.nan, np.nan, np.nan, np.nan)
    chosen = Coded(np.asarray(result.codes[both]), result.format, result.settings)
    with np.errstate(over="ignore"):
        gaps = as_floats(abs(numbers(chosen, fine) - exact[both]))
        ulps = gaps / ulps_of(exact[both], result.format)
    return Errors(size, failed, float(gaps.mean()), float(gaps.max()), float(ulps.mean()), float(ulps.max()))


def rational(meaning: Any) -> Fraction:
    """Return a finite value as a rational number, irrational ones to 240 bits."""
    if isinstance(meaning, Real):
        return meaning.enclosure(_BITS)[0]
    return meaning if isinstance(meaning, Fraction) else Fraction(0)
