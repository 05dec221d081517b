"""Laws of rounding itself, each of which holds whatever the rest of an implementation does.

They take a function of numbers to numbers, such as `lambda x: my_decode(my_encode(x))`. NaN is not tried.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lowp._errors import ArgumentError
from lowp.formats import Codebook, Fixed, Format, Integer
from lowp.formats.ranked import TaperedFormat
from lowp.formats.spec import ScalarFormat
from lowp.rounding import exact, modes
from lowp.testing import _points
from lowp.testing._laws import Law, Subject, enforce, other_values, value_rows
from lowp.testing._show import code_text, lines, number_text, same, value_text
from lowp.testing.laws import reference

Function = Callable[..., Any]
_DIRECTED = ("toward_zero", "away_from_zero", "toward_positive", "toward_negative")


def check_monotone(
    my_quantize: Function,
    fmt: Format | str,
    *,
    dtype: Any = "float64",
    exhaustive: bool = True,
    max_examples: int = 200,
) -> None:
    """Check that of two numbers the larger never rounds to less. It need not where a format wraps.

    Args:
        my_quantize: The implementation: numbers to numbers.
        fmt: The scalar format, or its name, whose values and decision points are tried.
        dtype: The dtype of the numbers: "float16", "float32" or "float64".
        exhaustive: Whether to go through the fixed inputs before searching.
        max_examples: Examples of the search; 0 leaves it out, and Hypothesis is then not needed.

    Raises:
        AssertionError: Two numbers change places.
        ArgumentError, FormatError, ImportError: As `check_conversion`.

    Example:
        >>> import lowp
        >>> import numpy as np
        >>> check_monotone(lambda x: lowp.quantize(x, "e2m1"), "e2m1", max_examples=5)
        >>> check_monotone(lambda x: x * np.where(x > 4, 0.5, 1), "e2m1", max_examples=0)
        Traceback (most recent call last):
        AssertionError: monotone rounding to float4_e2m1fn: broken by 1 of 63555 inputs, the simplest:
          smaller  4 -> 0x6 0|11|0 = 4
          larger   4.000000000000001 (0x1.0000000000001p+2) -> 2.0000000000000004 (0x1.0000000000001p+1), ...
    """
    form, subject, kind = _points.scalar(fmt), Subject(my_quantize), _points.float_dtype(dtype)

    def judge(got: Any, x: float, y: float) -> str | None:
        small, large = sorted([(x, float(got[0])), (y, float(got[1]))])
        if small[0] == large[0] or not small[1] > large[1]:
            return None
        return lines(
            smaller=f"{number_text(small[0])} -> {value_text(small[1], form)}",
            larger=f"{number_text(large[0])} -> {value_text(large[1], form)}",
        )

    def suspects(results: NDArray[Any], x: NDArray[Any], y: NDArray[Any]) -> NDArray[np.bool_]:
        return np.asarray(results[:, 0] > results[:, 1])

    x = np.sort(_numbers(form, kind))
    law = Law(f"monotone rounding to {form.name}", _side_by_side(subject), suspects, judge)
    strategy = value_rows(form, kind, 2, allow_nan=False)
    enforce(law, (x[:-1], x[1:]), strategy, exhaustive=exhaustive, max_examples=max_examples)


def check_idempotent(
    my_quantize: Function,
    fmt: Format | str,
    *,
    dtype: Any = "float64",
    exhaustive: bool = True,
    max_examples: int = 200,
) -> None:
    """Check that rounding a result again changes nothing, the sign of zero included.

    Args:
        my_quantize: The implementation: numbers to numbers. Results that are rounded to the dtype, as of logarithmic
            formats, stay only where it rounds to nearest.
        fmt: As `check_monotone`.
        dtype: As `check_monotone`.
        exhaustive: As `check_monotone`.
        max_examples: As `check_monotone`.

    Raises:
        AssertionError: A result changes.
        ArgumentError, FormatError, ImportError: As `check_conversion`.

    Example:
        >>> import lowp
        >>> check_idempotent(lambda x: lowp.quantize(x, "posit8_es2"), "posit8_es2", max_examples=5)
    """
    form, subject, kind = _points.scalar(fmt), Subject(my_quantize), _points.float_dtype(dtype)

    def apply(x: NDArray[Any]) -> NDArray[Any]:
        once = subject(x).astype(kind)
        return np.stack([once, subject(once)], axis=1)

    def judge(got: Any, x: float) -> str | None:
        if not other_values(got[:1], got[1:])[0]:
            return None
        once, twice = (value_text(float(value), form) for value in got)
        return lines(input=number_text(x), once=once, twice=twice)

    def suspects(results: NDArray[Any], x: NDArray[Any]) -> NDArray[np.bool_]:
        return other_values(results[:, 0], results[:, 1])

    law = Law(f"idempotent rounding to {form.name}", apply, suspects, judge)
    strategy = value_rows(form, kind, allow_nan=False)
    enforce(law, (_numbers(form, kind),), strategy, exhaustive=exhaustive, max_examples=max_examples)


def check_nearest(
    my_quantize: Function,
    fmt: Format | str,
    overflow: str = "saturate",
    *,
    dtype: Any = "float64",
    exhaustive: bool = True,
    max_examples: int = 200,
) -> None:
    """Check that no other value is nearer than the one a number rounds to; at a tie either neighbour is right.

    What is near a number is the format's own matter: posits and takums decide on the bit string, logarithmic numbers in
    the domain they name, codebooks by their thresholds.

    Args:
        my_quantize: The implementation: numbers to numbers.
        fmt: A scalar format of at most 64 bits, or its name.
        overflow: An overflow mode, see `lowp.rounding.modes`.
        dtype: As `check_monotone`.
        exhaustive: As `check_monotone`.
        max_examples: As `check_monotone`.

    Raises:
        AssertionError: A nearer value exists, or the result is no value.
        ArgumentError, FormatError, ImportError: As `check_conversion`.

    Example:
        >>> import lowp
        >>> check_nearest(lambda x: lowp.quantize(x, "e2m1", "ties_to_away"), "e2m1", max_examples=5)
        >>> check_nearest(lambda x: lowp.quantize(x, "e2m1", "toward_zero"), "e2m1", max_examples=0)
        Traceback (most recent call last):
        AssertionError: rounding to nearest in float4_e2m1fn, saturate: broken by ... inputs, the simplest:
          input    0.375
          got      0x0 0|00|0 = 0
          nearest  0x1 0|00|1 = 0.5
    """
    form, subject, kind = _points.scalar(fmt), Subject(my_quantize), _points.float_dtype(dtype)
    ties = ("ties_to_zero", "ties_to_away")

    def judge(got: Any, x: float) -> str | None:
        allowed = [exact.encode(x, form, tie, overflow) for tie in ties]
        if any(same(form.meaning(code), float(got), kind, form.has_negative_zero) for code in allowed):
            return None
        nearest = " or ".join(code_text(code, form) for code in dict.fromkeys(allowed))
        return lines(input=number_text(x), got=value_text(float(got), form), nearest=nearest)

    def suspects(results: NDArray[Any], x: NDArray[Any]) -> NDArray[np.bool_]:
        lower, upper = (other_values(results, reference(x, form, tie, overflow)) for tie in ties)
        return lower & upper

    law = Law(f"rounding to nearest in {form.name}, {overflow}", subject, suspects, judge)
    strategy = value_rows(form, kind, allow_nan=False)
    enforce(law, (_numbers(form, kind),), strategy, exhaustive=exhaustive, max_examples=max_examples)


def check_directed(
    my_quantize: Function,
    fmt: Format | str,
    rounding: str,
    *,
    dtype: Any = "float64",
    exhaustive: bool = True,
    max_examples: int = 200,
) -> None:
    """Check that a directed mode picks the neighbour on its side: nothing lies between a number and its result.

    Only numbers with a neighbour on both sides are tried; posits and takums, which never round to zero, only where
    neither is zero.

    Args:
        my_quantize: The implementation: numbers to numbers.
        fmt: A scalar format of at most 64 bits, or its name.
        rounding: "toward_zero", "away_from_zero", "toward_positive", "toward_negative", or an alias.
        dtype: As `check_monotone`.
        exhaustive: As `check_monotone`.
        max_examples: As `check_monotone`.

    Raises:
        AssertionError: A result lies on the wrong side, or a value lies between.
        ArgumentError, FormatError, ImportError: As `check_conversion`.

    Example:
        >>> import lowp
        >>> check_directed(lambda x: lowp.quantize(x, "e2m1", "floor"), "e2m1", "toward_negative", max_examples=5)
        >>> check_directed(lambda x: lowp.quantize(x, "e2m1"), "e2m1", "toward_negative", max_examples=0)
        Traceback (most recent call last):
        AssertionError: rounding toward_negative in float4_e2m1fn: broken by ... inputs, the simplest:
          input    -0.25
          got      0x8 1|00|0 = -0, on the wrong side
          expected 0x9 1|00|1 = -0.5
    """
    form, subject, kind = _points.scalar(fmt), Subject(my_quantize), _points.float_dtype(dtype)
    mode = modes.rounding(rounding).name
    if mode not in _DIRECTED:
        raise ArgumentError(f"rounding={rounding!r} must be one of: {', '.join(_DIRECTED)}.")

    def judge(got: Any, x: float) -> str | None:
        below, above = exact.neighbours(x, form)
        if below is None or above is None or (isinstance(form, TaperedFormat) and (below == 0 or above == 0)):
            return None
        wanted = exact.encode(x, form, mode)
        if same(form.meaning(wanted), float(got), kind, form.has_negative_zero):
            return None
        up = mode == ("toward_positive" if mode.endswith("tive") else "toward_zero" if x < 0 else "away_from_zero")
        wrong_side = float(got) < x if up else float(got) > x
        fault = "on the wrong side" if wrong_side else "not the next value" if float(got) != x else "unequal"
        return lines(
            input=number_text(x), got=f"{value_text(float(got), form)}, {fault}", expected=code_text(wanted, form)
        )

    def suspects(results: NDArray[Any], x: NDArray[Any]) -> NDArray[np.bool_]:
        return other_values(results, reference(x, form, mode))

    law = Law(f"rounding {mode} in {form.name}", subject, suspects, judge)
    strategy = value_rows(form, kind, allow_nan=False, allow_infinity=False)
    enforce(law, (_numbers(form, kind),), strategy, exhaustive=exhaustive, max_examples=max_examples)


def check_symmetric(
    my_quantize: Function,
    fmt: Format | str,
    *,
    dtype: Any = "float64",
    exhaustive: bool = True,
    max_examples: int = 200,
) -> None:
    """Check that a number and its negative round to a value and its negative; zeros too, where the format has -0.

    Integers and fixed point are tried up to their largest value. The modes toward positive and negative are not
    symmetric, nor are ties decided by sign.

    Args:
        my_quantize: The implementation: numbers to numbers.
        fmt: A signed scalar format whose values are symmetric about zero, or its name.
        dtype: As `check_monotone`.
        exhaustive: As `check_monotone`.
        max_examples: As `check_monotone`.

    Raises:
        AssertionError: A number and its negative differ in more than sign.
        ArgumentError: The format is unsigned or not symmetric.
        FormatError, ImportError: As `check_conversion`.

    Example:
        >>> import lowp
        >>> check_symmetric(lambda x: lowp.quantize(x, "int4"), "int4", max_examples=5)
        >>> check_symmetric(lambda x: lowp.quantize(x, "int4", "floor"), "int4", max_examples=0)
        Traceback (most recent call last):
        AssertionError: symmetric rounding to int4: broken by ... inputs, the simplest:
          plus     0.5 -> 0x0 0000 = 0
          minus    -0.5 -> 0xf 1111 = -1
    """
    form, subject, kind = _points.scalar(fmt), Subject(my_quantize), _points.float_dtype(dtype)
    limit, low = _symmetric_limit(form), 0.0 if form.has_zero else form.smallest_subnormal

    def judge(got: Any, x: float, y: float) -> str | None:
        if not low <= x <= limit or _equal(-got[0], got[1], form.has_negative_zero):
            return None
        return lines(
            plus=f"{number_text(x)} -> {value_text(float(got[0]), form)}",
            minus=f"{number_text(y)} -> {value_text(float(got[1]), form)}",
        )

    def suspects(results: NDArray[Any], x: NDArray[Any], y: NDArray[Any]) -> NDArray[np.bool_]:
        return np.asarray(other_values(-results[:, 0], results[:, 1]) & (low <= x) & (x <= limit))

    def rows() -> Any:
        return value_rows(form, kind, allow_nan=False)().map(lambda row: (abs(row[0]), -abs(row[0])))

    x = _numbers(form, kind)
    x = x[~np.signbit(x)]
    law = Law(f"symmetric rounding to {form.name}", _side_by_side(subject), suspects, judge)
    enforce(law, (x, -x), rows, exhaustive=exhaustive, max_examples=max_examples)


def _numbers(fmt: ScalarFormat, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return the fixed inputs without NaN."""
    x = _points.inputs(fmt, dtype)
    return np.asarray(x[~np.isnan(x)])


def _equal(x: float, y: float, signed_zero: bool) -> bool:
    """Whether two floats are equal, the signs of zeros too on demand; NaNs are."""
    return bool(x == y or (x != x and y != y)) and (not signed_zero or bool(np.signbit(x) == np.signbit(y)) or x != x)


def _side_by_side(subject: Subject) -> Callable[..., NDArray[Any]]:
    """Return what applies a function to each column and puts the results side by side."""
    return lambda *columns: np.stack([subject(column) for column in columns], axis=1)


def _symmetric_limit(fmt: ScalarFormat) -> float:
    """Return up to which magnitude a format is symmetric; ArgumentError where it is not."""
    if fmt.signed and isinstance(fmt, Integer | Fixed):
        return fmt.max
    symmetric = fmt.signed and fmt.max == -fmt.min
    if isinstance(fmt, Codebook):
        symmetric = set(fmt.values) == {-value for value in fmt.values}
    if not symmetric:
        raise ArgumentError(f"fmt={fmt.name!r} has other positive values than negative ones.")
    return float("inf")
