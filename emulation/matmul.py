"""Matrix products and dot products as a matrix unit, or any accumulator, computes them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lowp._errors import ArgumentError, ArgumentTypeError, FormatError, RangeError
from lowp.emulation import _unit_run
from lowp.emulation._operands import Coded, decoded, holds_exactly, precision
from lowp.emulation._scratch import room
from lowp.emulation._side import Side
from lowp.emulation._summation import has_partial_sums, summed
from lowp.emulation.accumulator import Accumulator
from lowp.emulation.matrix_units import MatrixUnit, matrix_unit
from lowp.formats.block import Block
from lowp.formats.codebook import Codebook
from lowp.formats.float_format import Float
from lowp.formats.integer import Fixed, Integer
from lowp.formats.parse import parse
from lowp.formats.posit import Posit
from lowp.formats.spec import Format, ScalarFormat
from lowp.formats.tables import decode_codes
from lowp.rounding import verbs
from lowp.rounding._arrays import Source, as_source, widen
from lowp.rounding._dispatch import is_jax, is_torch
from lowp.rounding._portable_room import holds_all
from lowp.rounding.encoded import Encoded

_FLOAT32, _FLOAT64 = Float(8, 23), Float(11, 52)
_PLAIN = {"float16": Float(5, 10), "bfloat16": Float(8, 7), "float32": _FLOAT32, "float64": _FLOAT64}
#: Significant bits of float32, and the reach of its normal numbers.
_SIGNIFICANT, _REACH = 24, 126


def matmul(
    a: Any,
    b: Any,
    c: Any = None,
    unit: str | MatrixUnit | None = None,
    *,
    accumulator: Accumulator | str | Format | None = None,
    fmt: str | Format | None = None,
    trace: bool = False,
) -> Any:
    """Return `a @ b + c`, summed as a matrix unit or an accumulator does; every bit follows from its description.

    NaN and infinities are IEEE 754's in each step. Tensor scales of encoded operands (NVFP4) multiply the result as an
    epilogue does: by their product, rounded to float32, once more rounded.

    Args:
        a: Left operand of shape (..., m, k) or (k,): real numbers, a `lowp.array`, or `lowp.Encoded` codes whose blocks
            run along the last axis. NumPy, torch or JAX.
        b: Right operand of shape (..., k, n) or (k,); blocks run along the axis of k.
        c: Addend of shape (..., m, n), or None for +0. Numbers that the unit's (the accumulator's) format has.
        unit: A matrix unit or its name, see `lowp.matrix_units()`. Operands must hold numbers of its formats: round
            with `lowp.quantize` first.
        accumulator: An `Accumulator`, in place of a unit; a format stands for one that adds in it. Neither: a chain of
            fused multiply-adds in float32, or in float64 for float64 operands.
        fmt: Format that results are rounded to in the end, once more (a store to memory); None: they are not.
        trace: Return a `SumReport` with the result: what each output's sum lost, and where.

    Returns:
        The products, (..., m, n), without the axes of vectors: float32 where it holds the results' format, else
        float64; of the kind (NumPy, torch, JAX, `lowp.array`) of the operands.

    Raises:
        ArgumentError: Shapes that do not fit; values that the unit's operands do not have; blocks along another axis.

    Example:
        >>> import numpy as np
        >>> a, b = np.full((1, 4096), 0.0625), np.full((4096, 1), 0.0625)
        >>> matmul(a, b, accumulator="float16"), matmul(a, b, accumulator="float32")  # 16: small terms no longer count
        (array([[8.]], dtype=float32), array([[16.]], dtype=float32))
    """
    parts = [x.codes if isinstance(x, Encoded) else x for x in (a, b)]
    if any(is_torch(x) for x in parts):
        from lowp.emulation._torch_unit import matmul as of_tensors

        return of_tensors(a, b, c, unit=unit, accumulator=accumulator, fmt=fmt, trace=trace)
    if any(is_jax(x) for x in parts):
        from lowp.emulation._jax_unit import matmul as of_arrays

        return of_arrays(a, b, c, unit=unit, accumulator=accumulator, fmt=fmt, trace=trace)
    how = resolved(unit, accumulator, (a, b))
    left, right = operand(a, "a", -1, not trace), operand(b, "b", -2, not trace)
    vectors = left.values.ndim == 1, right.values.ndim == 1
    left, right = _as_matrix(left, 0), _as_matrix(right, 1)
    addend = None if c is None else _addend(c, vectors)
    in_arrays = isinstance(a, Coded) and isinstance(b, Coded)
    if trace:
        from lowp.emulation.sum_report import traced

        result, report = traced(how, left, right, addend, None if fmt is None else stored_format(fmt))
        return _delivered(result, how, left, right, fmt, vectors, in_arrays), report
    return _delivered(product(how, left, right, addend), how, left, right, fmt, vectors, in_arrays)


@dataclass
class Operand:
    """Values of elements (float64, or float32 as they came) with their format, scales and tensor scale."""

    values: NDArray[Any]
    format: ScalarFormat
    scales: NDArray[np.float64] | None = None
    scale_format: ScalarFormat | None = None
    block: int = 1
    tensor_scale: float | None = None


def resolved(unit: Any, accumulator: Any, operands: tuple[Any, Any]) -> MatrixUnit | Accumulator:
    """Return the unit or accumulator that is asked for."""
    if unit is not None and accumulator is not None:
        raise ArgumentError("give unit or accumulator, not both: a unit has an accumulator of its own.")
    if isinstance(unit, MatrixUnit):
        return unit
    if unit is not None:
        return matrix_unit(unit)
    if isinstance(accumulator, Accumulator):
        return accumulator
    if accumulator is not None:
        if not isinstance(accumulator, str | Format):
            raise ArgumentTypeError(
                f"accumulator={accumulator!r} must be a lowp.Accumulator, a format, or a format's name."
            )
        return Accumulator(format=accumulator)
    wide = any(getattr(x, "dtype", None) == np.float64 or isinstance(x, list | tuple) for x in operands)
    return Accumulator(format="float64" if wide else "float32")


def operand(x: Any, role: str, axis: int, passing: bool = False) -> Operand:
    """Return the values of an operand, scales apart; `passing`: in float32, if they came so, and perhaps not copied."""
    if isinstance(x, Encoded):
        return _encoded(x, role, axis)
    if isinstance(x, Coded):
        if not holds_exactly(x.format):
            raise ArgumentError(f"{role} is in {x.format.name!r}, whose numbers float64 does not hold; use lowp.dot.")
        return Operand(decoded(x.codes, x.format), x.format)
    source = as_source(x)
    name = np.asarray(source.values).dtype.name if source.dtype is None else np.dtype(source.dtype).name
    return Operand(_exact(source, role, passing), plain_format(name))


def as_float64(x: Any, role: str) -> NDArray[np.float64]:
    """Return real numbers as float64.

    Raises:
        RangeError: Integers that float64 does not have.
    """
    return _exact(as_source(x), role)


def _exact(source: Source, role: str, passing: bool = False) -> NDArray[Any]:
    """Return real numbers as float64; `passing`: as they are, in float32 or float64."""
    if source.sticky:
        raise RangeError(
            f"{role} holds an integer beyond 2^53 that float64 does not have; products take numbers it has."
        )
    return source.values if passing else widen(source.values).astype(np.float64)


def plain_format(name: str) -> ScalarFormat:
    """Return the format of numbers of a dtype; float64's for all but floats of up to 32 bits."""
    return parse(name) if name.startswith("float8") else _PLAIN.get(name, _FLOAT64)  # type: ignore[return-value]


def _encoded(x: Encoded, role: str, axis: int) -> Operand:
    fmt = x.format
    if isinstance(fmt, ScalarFormat):
        return Operand(decode_codes(x.codes, fmt), fmt)
    if not isinstance(fmt, Block) or x.zero_points is not None or not isinstance(fmt.element, ScalarFormat):
        raise ArgumentError(
            f"{role} is encoded in {fmt.name!r}; products take block scales but no zero points: decode it."
        )
    along = x.axis if isinstance(x.axis, int) else None
    size = fmt.size
    if along is None or not isinstance(size, int) or along % len(x.shape) != axis % len(x.shape):
        raise ArgumentError(
            f"{role} has blocks along axis {x.axis!r} of {len(x.shape)}; a product needs them along its "
            f"sum: encode it with axis={axis}."
        )
    elements, scales = decode_codes(x.codes, fmt.element), decode_codes(x.scales, fmt.scale)
    return Operand(elements, fmt.element, scales, fmt.scale, size, x.tensor_scale)


def _as_matrix(x: Operand, axis: int) -> Operand:
    if x.values.ndim == 0:
        raise ArgumentError("a product needs vectors or matrices, not single numbers.")
    if x.values.ndim == 1:
        x.values = np.expand_dims(x.values, axis)
        x.scales = None if x.scales is None else np.expand_dims(x.scales, axis)
    return x


def _addend(c: Any, vectors: tuple[bool, bool]) -> NDArray[np.float64]:
    values = operand(c, "c", -1).values
    if vectors[1]:
        values = np.expand_dims(values, -1)
    return np.expand_dims(values, -2) if vectors[0] else values


def product(
    how: MatrixUnit | Accumulator, a: Operand, b: Operand, c: NDArray[np.float64] | None
) -> NDArray[np.float64]:
    """Return the product of matrices as float64."""
    if isinstance(how, MatrixUnit):
        for role, x in (("a", a), ("b", b)):
            if x.scales is not None and x.block != how.block:
                raise ArgumentError(
                    f"{role} has scales for blocks of {x.block}; {how.name!r} takes blocks of {how.block}."
                )
        return _unit_run.run_values(how, a.values, b.values, c, a.scales, b.scales)
    for side, x in (("left", a), ("right", b)):
        x.values = _as_double(x.values, side)
    left, right, start, lead = _unit_run.shaped(a.values, b.values, c)
    sides = [
        Side(values, x.format, flat_scales(x, lead), x.scale_format, x.block) for values, x in ((left, a), (right, b))
    ]
    if c is not None:
        check_addend(start, how)
    result = summed(sides[0], sides[1], start, how, result_format(how))
    return result.reshape(*lead, left.shape[1], right.shape[2])


def _as_double(x: NDArray[Any], side: str) -> NDArray[np.float64]:
    if x.dtype == np.float64:
        return x
    found = room(f"{side} operand", x.shape, np.float64)
    found[...] = x
    return found


def check_addend(c: NDArray[np.float64], accumulator: Accumulator) -> None:
    """Raise ArgumentError if the accumulator's format does not have an addend."""
    fmt = result_format(accumulator)
    read = np.asarray(verbs.quantize(c, fmt, overflow=_unit_run.keeping(fmt)))
    wrong = (read != c) & ~np.isnan(c)
    if wrong.any():
        raise ArgumentError(f"c holds {float(c[wrong][0])!r}, which {fmt.name!r} does not have; round it first.")


def flat_scales(x: Operand, lead: tuple[int, ...]) -> NDArray[np.float64] | None:
    """Return the block scales with one axis of a batch of some shape."""
    if x.scales is None:
        return None
    matrix = x.scales.shape[-2:]
    return np.ascontiguousarray(np.broadcast_to(x.scales, (*lead, *matrix))).reshape(math.prod(lead), *matrix)


def result_format(how: MatrixUnit | Accumulator) -> ScalarFormat:
    """Return the format of the results."""
    if isinstance(how, MatrixUnit):
        return how.formats["d"]
    last = how.outer if has_partial_sums(how) and how.outer is not None else how
    return last.format  # type: ignore[return-value]


def _delivered(
    result: NDArray[np.float64],
    how: MatrixUnit | Accumulator,
    a: Operand,
    b: Operand,
    fmt: Any,
    vectors: tuple[bool, bool],
    in_arrays: bool = False,
) -> Any:
    """Return the result without the axes of vectors, after the epilogue, in the kind of array asked for."""
    own = result_format(how)
    if a.tensor_scale is not None or b.tensor_scale is not None:
        alpha = np.float32(1 if a.tensor_scale is None else a.tensor_scale) * np.float32(
            1 if b.tensor_scale is None else b.tensor_scale
        )
        result = np.asarray(verbs.quantize(result * np.float64(alpha), own, overflow=beyond(own)))
    if fmt is not None:
        own = stored_format(fmt)
        result = np.asarray(verbs.quantize(result, own, overflow=beyond(own)))
    if vectors[1]:
        result = result[..., 0]
    if vectors[0]:
        result = result[..., 0] if vectors[1] else result[..., 0, :]
    if in_arrays:
        from lowp.emulation.array import array

        return array(result, own)
    return result.astype(result_dtype(own))


def stored_format(fmt: str | Format) -> ScalarFormat:
    """Return the format that results are stored in.

    Raises:
        FormatError: It has block scales.
    """
    found = parse(fmt)
    if not isinstance(found, ScalarFormat):
        raise FormatError(f"fmt={found.name!r} must be a scalar format; round the result with lowp.quantize instead.")
    return found


def beyond(fmt: Format) -> str:
    """Return the overflow mode of a store to memory: integers stop at their ends, floats become infinite."""
    return "saturate" if isinstance(fmt, Integer | Fixed) else "infinity_or_nan"


@lru_cache(maxsize=256)
def result_dtype(fmt: ScalarFormat) -> str:
    """Return the dtype of results: float32 if it holds every number of their format, else float64.

    Example:
        >>> result_dtype(parse("posit16")), result_dtype(parse("int32"))
        ('float32', 'float64')
    """
    if isinstance(fmt, Codebook):
        return "float32" if all(np.float32(x) == x for x in fmt.values) else "float64"
    if isinstance(fmt, Posit):
        return "float32" if precision(fmt) <= _SIGNIFICANT and (fmt.bits - 2) << fmt.es <= _REACH else "float64"
    return "float32" if holds_all(fmt, "float32") else "float64"
