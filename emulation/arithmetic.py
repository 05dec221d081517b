"""Correctly rounded arithmetic on arrays in a format.

What every operation does:

1. Operands are read exactly. A plain number counts at its exact value and need not be representable.
2. The result is the mathematically exact one in the extended reals by IEEE 754-2019. inf - inf, 0 * inf, 0/0, inf/inf,
   the square root of a negative number, remainder(x, 0) and remainder(inf, y) are NaN; x/0 is an infinity (in the
   formats of P3109 NaN); NaN gives NaN. A sum that cancels is +0, or -0 when rounding toward negative; (-0) + (-0) =
   -0; the sign of a zero product or quotient is that of the operands' signs multiplied; a zero remainder has the sign
   of the dividend.
3. It is rounded once into the result's format, as `lowp.encode` would round that exact number, but with the overflow
   mode "infinity_or_nan" (IEEE 754's) unless the operands say otherwise. A nonzero result that rounds to zero keeps its
   sign where the format has -0; without -0 zeros are +0. In posits and takums every NaN and infinity is NaR.
4. A NaN where the result's format has none raises RangeError, unless nan="zero" or nan="max".
5. Operands of one format give that format. Mixed formats need `fmt=`. For integers and fixed point, fmt="full" is the
   format that holds every sum, difference or product.
6. A stochastic mode draws the random bits of an element from the seed and its position in the result.

How it is fast and still exact: operands of up to 53 bits are combined in float64 and rounded to odd; what that does not
decide is computed in rational numbers, see `_target`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Unpack

import numpy as np

from lowp._errors import ArgumentTypeError
from lowp.emulation import _reductions
from lowp.emulation._evaluate import after, evaluate, joint_settings, result_format
from lowp.emulation._operands import Coded, Options, check_options, operand
from lowp.emulation._target import Target
from lowp.emulation.array import array
from lowp.emulation.gauss import GaussTable, add_by_table
from lowp.formats.spec import Format

if TYPE_CHECKING:
    from lowp.emulation.accumulator import Accumulator
    from lowp.emulation.matrix_units import MatrixUnit


def result(op: str, operands: tuple[Any, ...], options: Options) -> array:
    """Return the result of a named operation as an array."""
    if not any(isinstance(x, Coded) for x in operands) and options.get("fmt") is None:
        kinds = ", ".join(type(x).__name__ for x in operands)
        raise ArgumentTypeError(f"{op} needs a lowp.array among its operands, or fmt=; it got {kinds}.")
    return array._made(evaluate(op, operands, options))  # noqa: SLF001 - the class's own wrapper


def add(a: Any, b: Any, *, add_table: GaussTable | None = None, **options: Unpack[Options]) -> array:
    """Return `a + b`.

    Args:
        a: An array in a format, or numbers at their exact values.
        b: The same; shapes broadcast.
        add_table: Logarithmic numbers: add by this table, as hardware does, instead of exactly.
        **options: What to change of the operands' settings: `fmt` of the result, rounding, overflow, seed, random_bits,
            saturation_bits, nan.

    Returns:
        An array in the operands' format, or in `fmt`.

    Raises:
        ArgumentError: Operands of several formats without `fmt`, or of shapes that do not broadcast.
        RangeError: A NaN that has no code.

    Source:
        IEEE 754-2019, 5.4.1; Standard for Posit Arithmetic (2022), 5.

    Example:
        >>> add(array([1.0, 3.0], "float8_e4m3fn"), 0.0625)
        array([1.0, 3.0], format='float8_e4m3fn')
        >>> add(array([1.0, 3.0], "float8_e4m3fn"), 0.0625, rounding="toward_positive").values.tolist()
        [1.125, 3.25]
    """
    return result("add", (a, b), options) if add_table is None else _added(a, b, False, add_table, options)


def subtract(a: Any, b: Any, *, add_table: GaussTable | None = None, **options: Unpack[Options]) -> array:
    """Return `a - b`; arguments as `add`.

    Example:
        >>> subtract(array([100], "uint8"), array([200], "uint8"), fmt="full")
        array([-100.0], format='int9')
    """
    return result("subtract", (a, b), options) if add_table is None else _added(a, b, True, add_table, options)


def _added(a: Any, b: Any, minus: bool, table: GaussTable, options: Options) -> array:
    check_options(options)
    operands = [operand(a), operand(b)]
    settings = joint_settings((a, b), options)
    fmt = result_format("add", operands, options.get("fmt"))
    shape = np.broadcast_shapes(*(x.shape for x in operands))
    codes = add_by_table([x.flat(shape) for x in operands], table, minus, Target(fmt, settings.request(fmt)))
    return array._made(Coded(codes.reshape(shape), fmt, after(settings)))  # noqa: SLF001 - the class's own wrapper


def multiply(a: Any, b: Any, **options: Unpack[Options]) -> array:
    """Return `a * b`; arguments as `add`.

    Example:
        >>> multiply(array([1.5], "fixed8_4"), array([1.5], "fixed8_4"), fmt="full")
        array([2.25], format='fixed16_8')
    """
    return result("multiply", (a, b), options)


def divide(a: Any, b: Any, **options: Unpack[Options]) -> array:
    """Return `a / b`, for integers too rounded by the rounding mode; arguments as `add`.

    Example:
        >>> divide(array([7, -7], "int8"), 2).values.tolist()
        [4.0, -4.0]
    """
    return result("divide", (a, b), options)


def sqrt(x: Any, **options: Unpack[Options]) -> array:
    """Return the square root; of -0 it is -0, of negative numbers NaN; arguments as `add`.

    Example:
        >>> sqrt(array([2.0, 9.0], "posit16_es1")).values.tolist()
        [1.414306640625, 3.0]
    """
    return result("sqrt", (x,), options)


def fma(a: Any, b: Any, c: Any, **options: Unpack[Options]) -> array:
    """Return the product plus a third number, rounded once.

    Zero times infinity is NaN whatever the third number is. Arguments as `add`.

    Example:
        >>> x = array(1.0 + 2.0**-10, "float16")
        >>> fma(x, x, -(x * x)).item(), (x * x - x * x).item()
        (9.5367431640625e-07, 0.0)
    """
    return result("fma", (a, b, c), options)


def remainder(a: Any, b: Any, **options: Unpack[Options]) -> array:
    """Return IEEE 754's remainder `a - b * n`, where n is the integer nearest to `a / b`, ties to even.

    It can be negative. The operator `%` and `numpy.remainder` take the quotient rounded down instead, `fmod` rounded
    toward zero. Arguments as `add`.

    Example:
        >>> a = array([5.0, 7.0], "float16")
        >>> remainder(a, 4.0).values.tolist(), (a % 4.0).values.tolist()
        ([1.0, -1.0], [1.0, 3.0])
    """
    return result("remainder", (a, b), options)


def fmod(a: Any, b: Any, **options: Unpack[Options]) -> array:
    """Return `a - b * n`, where n is `a / b` rounded toward zero; arguments as `add`.

    Example:
        >>> fmod(array([-5.0], "float16"), 3.0).item()
        -2.0
    """
    return result("fmod", (a, b), options)


def minimum(a: Any, b: Any, **options: Unpack[Options]) -> array:
    """Return the smaller number; NaN if one is NaN, and -0 is less than +0; arguments as `add`.

    Source:
        IEEE 754-2019, 9.6 minimum.

    Example:
        >>> minimum(array([1.0, 0.0], "float16"), -0.0).values.tolist()
        [-0.0, -0.0]
    """
    return result("minimum", (a, b), options)


def maximum(a: Any, b: Any, **options: Unpack[Options]) -> array:
    """Return the larger number; NaN if one is NaN, and -0 is less than +0; arguments as `add`.

    Source:
        IEEE 754-2019, 9.6 maximum.

    Example:
        >>> maximum(array([1.0, -2.0], "int8"), 0).values.tolist()
        [1.0, 0.0]
    """
    return result("maximum", (a, b), options)


def dot(
    a: Any,
    b: Any,
    accumulator: str | Format | Accumulator | None = None,
    *,
    unit: str | MatrixUnit | None = None,
    c: Any = None,
    **options: Unpack[Options],
) -> Any:
    """Return the dot product of vectors, or the matrix product.

    Args:
        a: A vector or a matrix: a `lowp.array`, or real numbers (NumPy, torch, JAX).
        b: A vector or a matrix whose length is that of the rows of `a`.
        accumulator: None: a chain of fused multiply-adds in the result's format, from +0 and in order of the index:
            every product is exact, every sum rounded. A format: the same chain in that format, and its end rounded into
            the result's. "quire" or "exact": the exact sum of all products, rounded once. Or a `lowp.Accumulator`.
        unit: A matrix unit, or its name, that makes the sums; see `lowp.matrix_units()`. With one, with a
            `lowp.Accumulator`, and for real numbers, this is `lowp.matmul`, of whose results `fmt` is the format.
        c: What is added, where this is `lowp.matmul`; None: +0.
        **options: As `add`.

    Raises:
        ArgumentError: Shapes that do not fit, or two formats without `fmt`.

    Source:
        Standard for Posit Arithmetic (2022), 5.10 and 5.11, the quire.

    Example:
        >>> a, b = array([1024.0, 1.0, -1024.0], "posit8_es2"), array([1024.0, 0.5, 1024.0], "posit8_es2")
        >>> dot(a, b).item(), dot(a, b, accumulator="quire").item()
        (0.0, 0.5)
        >>> dot(np.float32([1, 2]), np.float32([3, 4]), accumulator="float16")
        array(11., dtype=float32)
    """
    from lowp.emulation.accumulator import Accumulator
    from lowp.emulation.matmul import matmul

    arrays = isinstance(a, Coded) and isinstance(b, Coded)
    if arrays and unit is None and not isinstance(accumulator, Accumulator):
        if c is not None:
            raise ArgumentTypeError("c is added by a unit, or by a lowp.Accumulator: give one of them too.")
        return array._made(_reductions.dot(a, b, accumulator, options))  # noqa: SLF001 - the class's own wrapper
    others = [name for name in options if name != "fmt"]
    if others:
        given = f"{others[0]}={dict(options)[others[0]]!r}"
        raise ArgumentTypeError(
            f"{given} is for two lowp.array and their own sums; an accumulator or a unit says how it rounds itself."
        )
    if isinstance(accumulator, str) and accumulator in _reductions.EXACT_NAMES:
        accumulator = Accumulator(format="float64", group=1 << 40)
    return matmul(a, b, c, unit=unit, accumulator=accumulator, fmt=options.get("fmt"))
