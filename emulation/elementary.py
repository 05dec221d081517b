"""Correctly rounded elementary functions on arrays in a format.

Rounding, formats and options are those of `lowp.emulation.arithmetic`. An estimate in float64 decides where it safely
can, interval arithmetic of growing precision where it cannot, and exact cases (the exponential of 0, powers that are
rational, logarithms of powers) are found beforehand.
"""

from __future__ import annotations

from typing import Any, Unpack

from lowp.emulation._operands import Options
from lowp.emulation.arithmetic import result
from lowp.emulation.array import array


def exp(x: Any, **options: Unpack[Options]) -> array:
    """Return `e^x`; of -infinity it is 0.

    Args:
        x: An array in a format, or numbers at their exact values together with `fmt`.
        **options: As `lowp.add`.

    Returns:
        An array in the format of `x`, or in `fmt`.

    Raises:
        RangeError: A NaN that has no code.

    Source:
        IEEE 754-2019, 9.2.

    Example:
        >>> exp(array([0.0, 1.0, -20.0], "bfloat16")).values.tolist()
        [1.0, 2.71875, 2.066371962428093e-09]
    """
    return result("exp", (x,), options)


def exp2(x: Any, **options: Unpack[Options]) -> array:
    """Return `2^x`; arguments as `exp`.

    Example:
        >>> exp2(array([0.5, 3.0], "posit16_es2")).values.tolist()
        [1.4140625, 8.0]
    """
    return result("exp2", (x,), options)


def log(x: Any, **options: Unpack[Options]) -> array:
    """Return the natural logarithm; of 0 it is -infinity, of negative numbers NaN; arguments as `exp`.

    Example:
        >>> log(array([1.0, 10.0, 0.0], "float16")).values.tolist()
        [0.0, 2.302734375, -inf]
    """
    return result("log", (x,), options)


def log2(x: Any, **options: Unpack[Options]) -> array:
    """Return the logarithm to base 2; special cases as `log`, arguments as `exp`.

    Example:
        >>> log2(array([0.125, 3.0], "float8_e4m3fn")).values.tolist()
        [-3.0, 1.625]
    """
    return result("log2", (x,), options)


def sin(x: Any, **options: Unpack[Options]) -> array:
    """Return the sine of angles in radians, however large; of infinity NaN; arguments as `exp`.

    Example:
        >>> sin(array([1.0, 65504.0], "float16")).values.tolist()
        [0.84130859375, 0.9755859375]
    """
    return result("sin", (x,), options)


def cos(x: Any, **options: Unpack[Options]) -> array:
    """Return the cosine of angles in radians, however large; of infinity NaN; arguments as `exp`.

    Example:
        >>> cos(array([0.0, 3.140625], "float16")).values.tolist()
        [1.0, -1.0]
    """
    return result("cos", (x,), options)


def tanh(x: Any, **options: Unpack[Options]) -> array:
    """Return the hyperbolic tangent; arguments as `exp`.

    Example:
        >>> tanh(array([0.5, 10.0], "float16")).values.tolist()
        [0.462158203125, 1.0]
    """
    return result("tanh", (x,), options)


def power(x: Any, y: Any, **options: Unpack[Options]) -> array:
    """Return `x^y` with the special cases of C's `pow`: pow(x, 0) = pow(1, y) = 1 even of NaN.

    A negative `x` needs an integer `y`, else NaN. In posits and takums NaR gives NaR in every case. Arguments as `exp`.

    Source:
        IEEE 754-2019, 9.2.1 pow.

    Example:
        >>> power(array([2.0, -3.0, 9.0], "float16"), array([0.5, 3.0, 0.5], "float16")).values.tolist()
        [1.4140625, -27.0, 3.0]
    """
    return result("power", (x, y), options)
