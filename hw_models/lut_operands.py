"""Weights and activations of a product by table lookup: codes to digits, scales, and numbers in units."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lowp._errors import ArgumentError, ArgumentTypeError, RangeError
from lowp.formats.block import Block
from lowp.formats.float_format import Float
from lowp.formats.integer import Integer
from lowp.formats.packed import Packed
from lowp.formats.parse import parse
from lowp.formats.spec import Format, ScalarFormat
from lowp.formats.tables import decode_codes
from lowp.hw_models.lut_engine import LutEngine
from lowp.hw_models.lut_formats import BINARY_CODING, Digits, Inputs, code_values, scale_field
from lowp.rounding import verbs
from lowp.rounding.encoded import Encoded

_FORMATS: dict[str, Format] = {
    "float16": Float(5, 10),
    "float32": Float(8, 23),
    **{f"int{n}": Integer(n) for n in (8, 16, 32)},
    **{f"uint{n}": Integer(n, signed=False) for n in (8, 16, 32)},
}
_F16 = Float(5, 10)


def encoded(x: Any, fmt: str | Format | None, role: str) -> Encoded:
    """Return an operand as codes of shape (rows, terms), with blocks along the terms.

    Raises:
        ArgumentTypeError: An array whose dtype names no format, and no format is given.
        ArgumentError: Not a matrix, blocks along another axis, or a format beside codes that have one.
    """
    if isinstance(x, Encoded):
        if fmt is not None and parse(fmt) != x.format:
            raise ArgumentError(f"{role} is encoded in {x.format.name!r} already, not {parse(fmt).name!r}.")
        if not isinstance(x.codes, np.ndarray):
            raise ArgumentTypeError(f"{role} has codes of type {type(x.codes).__name__}; encode a NumPy array.")
        found = x
    else:
        values = np.asarray(x)
        if fmt is None and values.dtype.name not in _FORMATS:
            raise ArgumentTypeError(
                f"{role} of dtype {values.dtype.name}: give its format, lowp.Encoded codes, or an array of "
                f"{', '.join(_FORMATS)}."
            )
        resolved = _FORMATS[values.dtype.name] if fmt is None else parse(fmt)
        _check_matrix(values.shape, role)
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            raise ArgumentError(f"{role} hold NaN or infinity, which products by table lookup do not.")
        found = verbs.encode(values, resolved, axis=-1)
    _check_matrix(found.shape, role)
    blocked = isinstance(found.format, Packed) or (isinstance(found.format, Block) and found.format.size != "tensor")
    if blocked and found.axis not in (-1, 1):
        raise ArgumentError(f"{role} has blocks along axis {found.axis!r}; encode it with axis=-1, that of the sum.")
    return found


def _check_matrix(shape: tuple[int, ...], role: str) -> None:
    if len(shape) != 2 or 0 in shape:
        raise ArgumentError(f"{role} has shape {shape!r}; allowed: (rows, terms), none of them 0.")


@dataclass
class Weights:
    """Weights of one product.

    Attributes:
        ranks: Places of the weights among the element's values; of a scale per bit plane the codes.
        scales: Of each group, times the unit, exact in float64: (outputs, groups), and of each plane if it has its own.
        offsets: What is subtracted per group, in units; with scales per plane, times the scale.
        tensor_scale: Of the whole tensor.
    """

    ranks: NDArray[np.int64]
    scales: NDArray[np.float64]
    offsets: NDArray[np.float64]
    tensor_scale: float | None = None


def weights_of(x: Encoded, parts: Digits, engine: LutEngine) -> Weights:
    """Return the weights that codes stand for."""
    fmt = x.format
    if isinstance(fmt, Packed):
        found = _coded(x, parts) if fmt.scheme == BINARY_CODING else _packed(x, fmt, parts)
    elif isinstance(fmt, Block):
        scales = decode_codes(x.scales, fmt.scale).astype(np.float64).reshape(-1, x.scales.shape[-1])
        scales = np.broadcast_to(scales, (x.shape[0], scales.shape[1]))
        offsets = np.zeros(scales.shape) if x.zero_points is None else x.zero_points.astype(np.float64)
        assert isinstance(fmt.element, ScalarFormat)
        found = Weights(_ranks(x.codes, fmt.element, parts), scales, offsets, x.tensor_scale)
    else:
        assert isinstance(fmt, ScalarFormat)
        one = np.ones((x.shape[0], 1))
        found = Weights(_ranks(x.codes, fmt, parts), one, np.zeros_like(one))
    if not np.isfinite(found.scales).all():
        raise ArgumentError("weights have scales that are NaN or infinite.")
    return found if parts.elements.coded_bits else _in_units(found, parts, engine)


def _in_units(w: Weights, parts: Digits, engine: LutEngine) -> Weights:
    """Scales times the unit; zero points z in elements become 2z of bit planes, and z / unit of whole digits."""
    per_zero = 2 if engine.style == "bit_serial" else 1 / parts.unit
    step = 2 * parts.unit if engine.style == "bit_serial" else 1.0
    scales, offsets = w.scales * parts.unit, w.offsets / step * per_zero + parts.offset
    if not engine.plane_scales:
        return Weights(w.ranks, scales, offsets, w.tensor_scale)
    planes = scales[:, :, None] * 2.0 ** np.arange(parts.planes)
    return Weights(w.ranks, planes, offsets * scales, w.tensor_scale)


def _ranks(codes: NDArray[Any], fmt: ScalarFormat, parts: Digits) -> NDArray[np.int64]:
    values = code_values(fmt)
    known = np.isfinite(values)
    table = np.full(values.shape, -1)
    table[known] = np.searchsorted(parts.elements.values, values[known])
    ranks = table[codes]
    if (ranks < 0).any():
        raise ArgumentError(f"weights hold codes of {fmt.name!r} that are not finite numbers.")
    return np.asarray(ranks)


def _packed(x: Encoded, fmt: Packed, parts: Digits) -> Weights:
    assert x.fields is not None
    field = scale_field(fmt)
    stored = x.fields[field]
    bits = next(f.bits for f in fmt.fields if f.name == field)
    scales = decode_codes(stored, _F16 if bits == 16 else Float(8, 23)).astype(np.float64)
    per_block = parts.elements.group > 0
    scales = scales.reshape(x.shape[0], -1) if per_block else np.broadcast_to(scales.reshape(1, 1), (x.shape[0], 1))
    values = np.asarray(verbs.decode(replace(x, dtype=np.dtype(np.float64))))
    spread = np.repeat(scales, parts.elements.group or x.shape[1], axis=1)[:, : x.shape[1]]
    with np.errstate(invalid="ignore", divide="ignore"):
        numbers = np.where(spread == 0, parts.elements.values[0], values / spread)
    ranks = np.searchsorted(parts.elements.values, numbers).clip(0, len(parts.elements.values) - 1)
    if not np.array_equal(np.asarray(parts.elements.values)[ranks], numbers):
        raise ArgumentError(f"weights in {fmt.name!r} are no multiples of their scales.")
    return Weights(ranks, scales, np.zeros(scales.shape))


def _coded(x: Encoded, parts: Digits) -> Weights:
    """Sums of scaled bits 0 and 1, and an offset: halves of the scales times -1 and +1, and the rest."""
    assert x.fields is not None
    bits = parts.planes
    codes = x.fields["codes"].reshape(x.shape[0], -1)[:, : x.shape[1]].astype(np.int64)
    coefficients = decode_codes(x.fields["coefficients"], _F16).astype(np.float64)
    scales = coefficients[..., :bits] / 2
    return Weights(codes, scales, -(coefficients[..., bits] + scales.sum(axis=-1)))


@dataclass
class Activations:
    """Activations of one product.

    Attributes:
        values: (tokens, terms): in units of integer engines, else the numbers.
        scales: Of each block, times the unit: (tokens, blocks).
        factors: Scale of each token's results, or None.
        ranks: Places among the format's values, for tables of products.
        numbers: These values, in units.
    """

    values: NDArray[np.float64]
    scales: NDArray[np.float64]
    factors: NDArray[np.float64] | None = None
    ranks: NDArray[np.int64] | None = None
    numbers: NDArray[np.float64] | None = None


def activations_of(x: Encoded, read: Inputs, engine: LutEngine) -> Activations:
    """Return the activations that codes stand for.

    Raises:
        ArgumentError: NaN or infinity among them, or numbers that an engine with rounded tables does not hold.
    """
    tokens = x.shape[0]
    if engine.table != "exact":
        try:
            values = np.asarray(verbs.decode(replace(x, dtype=np.dtype(np.float32)))).astype(np.float64)
        except RangeError as error:
            raise ArgumentError(
                f"activations in {x.format.name!r} hold numbers that float32 does not, in which "
                f"engine={engine.name!r} adds; round them first, such as by activation_format='float32'."
            ) from error
        _check_finite(values)
        return Activations(values, np.ones((tokens, 1)))
    fmt = x.format
    element = fmt.element if isinstance(fmt, Block) else fmt
    assert isinstance(element, ScalarFormat)
    assert read.unit is not None
    numbers = decode_codes(x.codes, element).astype(np.float64)
    _check_finite(numbers)
    scales, factors = np.full((tokens, 1), read.unit), None
    if isinstance(fmt, Block):
        stored = decode_codes(x.scales, fmt.scale).astype(np.float64).reshape(-1, x.scales.shape[-1])
        stored = np.broadcast_to(stored, (tokens, stored.shape[1]))
        _check_finite(stored)
        scales = stored * read.unit if read.scaled else scales
        if read.token_scaled:
            factors = np.full(tokens, x.tensor_scale) if read.scaled else stored[:, 0].copy()
    if engine.style != "product":
        return Activations(numbers / read.unit, scales, factors)
    listed = value_list(element)
    return Activations(numbers / read.unit, scales, factors, np.searchsorted(listed, numbers), listed / read.unit)


@cache
def value_list(fmt: ScalarFormat) -> NDArray[np.float64]:
    """Return the values of a format of at most 8 bits, ascending, each once."""
    values = code_values(fmt)
    return np.unique(values[np.isfinite(values)] + 0.0)


def _check_finite(values: NDArray[Any]) -> None:
    if not np.isfinite(values).all():
        raise ArgumentError("activations hold NaN or infinity, which tables of sums do not.")
