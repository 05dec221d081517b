"""Laws of conversions: what an implementation of a number format must do, each as one call.

A law tries every float16, the values and decision points of the format with their neighbours, and then searches with
Hypothesis. It passes silently or raises AssertionError with the simplest counterexample, codes cut into their fields.
What is right is decided by the exact oracle, `lowp.exact`.

An implementation is a function of one array, or of one number; which, is found by calling it with an array.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lowp._errors import ArgumentError
from lowp.formats import Format
from lowp.formats.logarithms import is_logarithmic
from lowp.formats.spec import ScalarFormat, to_float
from lowp.formats.tables import code_dtype
from lowp.rounding import encode, exact, modes, quantize
from lowp.testing import _points
from lowp.testing._laws import Law, Subject, code_rows, differ, enforce, other_values, value_rows
from lowp.testing._show import code_text, lines, number_text, same, same_code, value_text

Function = Callable[..., Any]


def check_conversion(
    my_encode: Function,
    fmt: Format | str,
    rounding: str = "ties_to_even",
    overflow: str = "saturate",
    *,
    saturation_bits: int = 0,
    dtype: Any = "float64",
    exhaustive: bool = True,
    max_examples: int = 200,
) -> None:
    """Check that a function gives every number its code.

    Codes with the same meaning count as equal, so any NaN is right for a NaN. NaN is tried where the format has it.

    Args:
        my_encode: The implementation: numbers to codes, which are unsigned integers.
        fmt: A scalar format of at most 64 bits, or its name.
        rounding: A deterministic rounding mode, see `lowp.rounding.modes`; for the others there is `check_stochastic`.
        overflow: An overflow mode, see there.
        saturation_bits: Saturated bits of the wrap modes.
        dtype: The dtype of the numbers: "float16", "float32" or "float64".
        exhaustive: Whether to go through the fixed inputs before searching.
        max_examples: Examples of the search; 0 leaves it out, and Hypothesis is then not needed.

    Raises:
        AssertionError: The function is wrong; the message shows the simplest input, the code it gave and the right one.
        ArgumentError, FormatError: An argument that is not allowed.
        ImportError: Hypothesis is not installed.

    Example:
        >>> import lowp
        >>> check_conversion(lambda x: lowp.encode(x, "e2m1").codes, "e2m1", max_examples=5)
        >>> check_conversion(lambda x: lowp.encode(x, "e2m1", "toward_zero").codes, "e2m1", max_examples=5)
        Traceback (most recent call last):
        AssertionError: conversion to float4_e2m1fn, ties_to_even, saturate: broken by ... inputs, the simplest:
          input    0.75
          got      0x1 0|00|1 = 0.5
          expected 0x2 0|01|0 = 1
    """
    form, mode = _points.scalar(fmt), deterministic(rounding)
    subject, kind = Subject(my_encode), _points.float_dtype(dtype)
    options: dict[str, Any] = {"overflow": overflow, "saturation_bits": saturation_bits}

    def judge(got: Any, x: float) -> str | None:
        wanted = exact.encode(x, form, mode, **options)
        return (
            None
            if same_code(int(got), wanted, form)
            else lines(input=number_text(x), got=code_text(int(got), form), expected=code_text(wanted, form))
        )

    def suspects(results: NDArray[Any], x: NDArray[Any]) -> NDArray[np.bool_]:
        return differ(results, encode(x, form, mode, **options).codes)

    law = Law(f"conversion to {form.name}, {mode}, {overflow}", subject, suspects, judge)
    enforce(
        law, (_points.inputs(form, kind),), value_rows(form, kind), exhaustive=exhaustive, max_examples=max_examples
    )


def check_quantize(
    my_quantize: Function,
    fmt: Format | str,
    rounding: str = "ties_to_even",
    overflow: str = "saturate",
    *,
    saturation_bits: int = 0,
    dtype: Any = "float64",
    exhaustive: bool = True,
    max_examples: int = 200,
) -> None:
    """Check that a function rounds every number to the right value.

    The sign of zero counts where the format has -0. NaN is tried where the format has it.

    Args:
        my_quantize: The implementation: numbers to numbers. Irrational values are right as the nearest float.
        fmt: A scalar format of at most 64 bits, or its name.
        rounding: As `check_conversion`.
        overflow: As `check_conversion`.
        saturation_bits: As `check_conversion`.
        dtype: The dtype of inputs and results.
        exhaustive: As `check_conversion`.
        max_examples: As `check_conversion`.

    Raises:
        AssertionError: The function is wrong; the message shows the simplest input and both values.
        ArgumentError, FormatError, ImportError: As `check_conversion`.

    Example:
        >>> import lowp
        >>> import numpy as np
        >>> check_quantize(lambda x: np.clip(np.rint(x), -128, 127), "int8", max_examples=5)
        >>> check_quantize(lambda x: np.clip(np.floor(x + 0.5), -128, 127), "int8", max_examples=0)
        Traceback (most recent call last):
        AssertionError: quantization to int8, ties_to_even, saturate: broken by ... inputs, the simplest:
          input    0.5
          got      0x01 00000001 = 1
          expected 0x00 00000000 = 0
    """
    form, mode = _points.scalar(fmt), deterministic(rounding)
    subject, kind = Subject(my_quantize), _points.float_dtype(dtype)
    options: dict[str, Any] = {"overflow": overflow, "saturation_bits": saturation_bits}

    def judge(got: Any, x: float) -> str | None:
        wanted = exact.encode(x, form, mode, **options)
        right = same(form.meaning(wanted), float(got), kind, form.has_negative_zero)
        return (
            None
            if right
            else lines(input=number_text(x), got=value_text(float(got), form), expected=code_text(wanted, form))
        )

    def suspects(results: NDArray[Any], x: NDArray[Any]) -> NDArray[np.bool_]:
        return other_values(results, reference(x, form, mode, **options))

    law = Law(f"quantization to {form.name}, {mode}, {overflow}", subject, suspects, judge)
    enforce(
        law, (_points.inputs(form, kind),), value_rows(form, kind), exhaustive=exhaustive, max_examples=max_examples
    )


def check_decode(
    my_decode: Function, fmt: Format | str, *, dtype: Any = "float64", exhaustive: bool = True, max_examples: int = 200
) -> None:
    """Check that a function gives every code its value, sign of zero included.

    Args:
        my_decode: The implementation: codes, as unsigned integers, to numbers.
        fmt: A scalar format of at most 64 bits, or its name.
        dtype: The dtype of the values; where it does not hold one, the nearest float is right.
        exhaustive: Whether to go through all codes, of wide formats many, before searching.
        max_examples: As `check_conversion`.

    Raises:
        AssertionError: The function is wrong; the message shows the smallest code and both values.
        ArgumentError, FormatError, ImportError: As `check_conversion`.

    Example:
        >>> import lowp
        >>> check_decode(lambda code: lowp.decode(code, "posit8_es2"), "posit8_es2", max_examples=5)
        >>> check_decode(lambda code: code / 4, "posit8_es2", max_examples=0)
        Traceback (most recent call last):
        AssertionError: decoding of posit8_es2: broken by 255 of 256 inputs, the simplest:
          code     0x01 0|0000001 = 0.000000059604644775390625
          got      0.25
          expected 0.000000059604644775390625
    """
    form, subject, kind = _points.scalar(fmt), Subject(my_decode), _points.float_dtype(dtype)

    def judge(got: Any, code: int) -> str | None:
        meaning = form.meaning(code)
        if same(meaning, float(got), kind):
            return None
        return lines(code=code_text(code, form), got=number_text(float(got)), expected=number_text(meaning))

    def suspects(results: NDArray[Any], codes: NDArray[Any]) -> NDArray[np.bool_]:
        return other_values(results, _decoded(codes, form, kind))

    law = Law(f"decoding of {form.name}", subject, suspects, judge)
    enforce(law, (_codes(form),), code_rows(form), exhaustive=exhaustive, max_examples=max_examples)


def check_round_trip(
    my_encode: Function, my_decode: Function, fmt: Format | str, *, exhaustive: bool = True, max_examples: int = 200
) -> None:
    """Check that encoding the value of a code gives the code again, or one with the same meaning.

    Codes that nothing encodes to, such as the lowest of a symmetric integer, are left out, and so are infinities, which
    saturate in some modes.

    Args:
        my_encode: The implementation: numbers to codes.
        my_decode: The implementation: codes to numbers, float64.
        fmt: A scalar format of at most 64 bits, or its name.
        exhaustive: As `check_decode`.
        max_examples: As `check_conversion`.

    Raises:
        AssertionError: A code does not come back.
        ArgumentError, FormatError, ImportError: As `check_conversion`.

    Example:
        >>> import lowp
        >>> check_round_trip(lambda x: lowp.encode(x, "nf4"), lambda c: lowp.decode(c, "nf4"), "nf4", max_examples=5)
    """
    form, encoder, decoder = _points.scalar(fmt), Subject(my_encode), Subject(my_decode)

    def returns(code: int) -> bool:
        value = to_float(form.meaning(code))
        return not math.isinf(value) and exact.encode(value, form) == code

    def judge(got: Any, code: int) -> str | None:
        if same_code(int(got), code, form) or not returns(code):
            return None
        value = float(decoder(np.array([code], code_dtype(form.bits)))[0])
        return lines(code=code_text(code, form), decoded=number_text(value), encoded=code_text(int(got), form))

    def apply(codes: NDArray[Any]) -> NDArray[Any]:
        return encoder(decoder(codes).astype(np.float64))

    columns = _codes(form)
    if not form.has_nan:
        columns = columns[~np.isnan(_decoded(columns, form, np.dtype(np.float64)))]
    law = Law(f"round trip of {form.name}", apply, differ, judge)
    strategy = code_rows(form, allow_nan=form.has_nan)
    enforce(law, (columns,), strategy, exhaustive=exhaustive, max_examples=max_examples)


def deterministic(rounding: str) -> str:
    """Return the canonical name of a deterministic rounding mode; ArgumentError for a stochastic one."""
    name = modes.rounding(rounding).name
    if name.startswith("stochastic_"):
        raise ArgumentError(
            f"rounding={rounding!r} is stochastic; here it must be deterministic, see check_stochastic."
        )
    return name


def reference(
    x: NDArray[Any], fmt: ScalarFormat, rounding: str, overflow: str = "saturate", **options: Any
) -> NDArray[Any]:
    """Return the rounded values in the dtype of `x`, which need not hold all of them."""
    with np.errstate(over="ignore", under="ignore"):
        result = quantize(x.astype(np.float64), fmt, rounding, overflow, **options).astype(x.dtype)
    return np.asarray(result)


def _decoded(codes: NDArray[Any], fmt: ScalarFormat, dtype: np.dtype[Any]) -> NDArray[Any]:
    with np.errstate(over="ignore", under="ignore"):
        return np.array([to_float(fmt.meaning(code)) for code in codes.tolist()], np.float64).astype(dtype)


def _codes(fmt: ScalarFormat) -> NDArray[Any]:
    """Return all codes of a format of at most 16 bits, many of a wider one, or of one whose values are irrational."""
    every = range(1 << fmt.bits) if fmt.bits <= (10 if is_logarithmic(fmt) else 16) else _points.spread_codes(fmt)
    return np.array(every, code_dtype(fmt.bits))
