"""Run a matrix unit on codes or values: check, decode, sum, encode."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lowp._errors import ArgumentError, ArgumentTypeError
from lowp.emulation import _scratch as scratch
from lowp.emulation import _unit_rows
from lowp.emulation._side import Side
from lowp.emulation._summation import summed
from lowp.formats.integer import Integer
from lowp.formats.spec import ScalarFormat
from lowp.rounding import verbs

if TYPE_CHECKING:
    from lowp.emulation.matrix_units import MatrixUnit

#: Multiply-adds whose operands and sums are held at a time.
_PART = 1 << 27
#: Numbers that are compared with a format's at a time.
_CHECKED = 1 << 15


def run_codes(
    unit: MatrixUnit,
    a: ArrayLike,
    b: ArrayLike,
    c: ArrayLike | None,
    scale_a: ArrayLike | None,
    scale_b: ArrayLike | None,
) -> NDArray[Any]:
    """Return codes of `a @ b + c`; see `MatrixUnit.run_codes`."""
    values = [decoded(unit.a, a, "a"), decoded(unit.b, b, "b"), None if c is None else decoded(unit.c, c, "c")]
    scales = [_scales(unit, given, f"scale_{side}", decoded) for side, given in (("a", scale_a), ("b", scale_b))]
    return encoded(unit.d, product(unit, values[0], values[1], values[2], *scales))


def run_values(
    unit: MatrixUnit, a: ArrayLike, b: ArrayLike, c: ArrayLike | None, scale_a: Any, scale_b: Any
) -> NDArray[np.float64]:
    """Return values of `a @ b + c`; see `MatrixUnit.run`."""
    values = [
        None if x is None else checked(name, x, role, scratch.room)
        for role, name, x in (("a", unit.a, a), ("b", unit.b, b), ("c", unit.c, c))
    ]
    scales = [_scales(unit, given, f"scale_{side}", checked) for side, given in (("a", scale_a), ("b", scale_b))]
    return product(unit, values[0], values[1], values[2], *scales)


def product(unit: MatrixUnit, a: Any, b: Any, c: Any, scale_a: Any, scale_b: Any) -> NDArray[np.float64]:
    """Return the values of `a @ b + c`, all arrays float64 values of their formats, with leading batch axes."""
    a, b, c, lead = shaped(a, b, c, scale_a, scale_b)
    scale_a, scale_b = _shaped_scales(unit, a, b, scale_a, scale_b, lead)
    left = _read_as(unit, unit.a), _read_as(unit, unit.b)
    scale_format = _unit_rows.coding(unit.scale).format if unit.scale else None
    parts = []
    per = max(_PART // max(a.shape[1] * a.shape[2] * b.shape[2], 1), 1)
    for start in range(0, len(a), per):
        part = slice(start, start + per)
        scales = [None if s is None else s[part] for s in (scale_a, scale_b)]
        parts.append(
            summed(
                Side(a[part], left[0], scales[0], scale_format, unit.block or 1),
                Side(b[part], left[1], scales[1], scale_format, unit.block or 1),
                c[part],
                unit.accumulator,
                _unit_rows.coding(unit.c).format,
            )
        )
    empty = np.empty((0, a.shape[1], b.shape[2]))
    result = parts[0] if len(parts) == 1 else np.concatenate(parts or [empty])
    return result.reshape(*lead, a.shape[1], b.shape[2])


def decoded(name: str, codes: ArrayLike, role: str) -> NDArray[np.float64]:
    """Return the values of codes; low bits that the unit does not read are dropped."""
    coding = _unit_rows.coding(name)
    given = np.asarray(codes)
    if given.dtype.kind not in "iu":
        if given.size:
            raise ArgumentTypeError(f"{role} must hold integer codes of {name}, not {given.dtype}.")
        given = given.astype(np.uint8)
    bits = given.astype(np.int64) if given.dtype.kind == "i" else given.astype(np.uint64).view(np.int64)
    mask = (1 << coding.container) - 1 if coding.container < 64 else -1
    used = coding.format.bits + coding.ignored
    least = -(1 << (max(used, coding.container if name == "ue4m3" else 0) - 1)) if given.dtype.kind == "i" else 0
    over = (bits < least) | (bits > mask) if coding.container < 64 else np.zeros(1, bool)
    if name == "ue4m3":
        bits = bits & 0x7F  # the unit ignores the sign bit
    beyond = over.any() or (used < coding.container and ((bits & mask) >> used).any() and given.dtype.kind == "u")
    if beyond:
        raise ArgumentError(f"{role} has codes that {name} of {used} bits does not have, such as {_largest(given)}.")
    plain = (bits & ((1 << used) - 1 if used < 64 else -1)) >> coding.ignored
    return _values(plain, coding.format)


def _largest(given: NDArray[Any]) -> int:
    return int(given.flat[np.argmax(np.abs(given.astype(np.float64)))])


def _values(bits: NDArray[np.int64], fmt: ScalarFormat) -> NDArray[np.float64]:
    from lowp.formats.tables import code_dtype

    return np.asarray(verbs.decode(bits.view(np.uint64).astype(code_dtype(fmt.bits)), fmt, dtype="float64"))


def encoded(name: str, values: NDArray[np.float64]) -> NDArray[Any]:
    """Return codes of values of a format, in its container; NaN is the unit's own."""
    coding = _unit_rows.coding(name)
    nan = np.isnan(values)
    some = bool(nan.any())
    codes = verbs.encode(
        np.where(nan, 0.0, values) if some else values, coding.format, overflow="infinity_or_nan"
    ).codes
    codes = codes.astype(f"uint{coding.container}")
    if some and coding.nan is not None:
        codes[nan] = coding.nan
    elif some:
        codes[nan] = verbs.encode(np.array([np.nan]), coding.format).codes[0]
    signed = isinstance(coding.format, Integer) and coding.format.signed
    return np.asarray(codes.view(f"int{coding.container}") if signed else codes)


def checked(name: str, values: ArrayLike, role: str, room: scratch.Room = scratch.new_room) -> NDArray[np.float64]:
    """Return values, every one of which the format has; of TF32 patterns, those that the unit reads.

    Raises:
        ArgumentTypeError: They are not real numbers.
        ArgumentError: The format does not have one of them.
    """
    coding = _unit_rows.coding(name)
    plain = np.asarray(values)
    if plain.dtype.kind not in "iufV" and plain.size:  # V: the floats of ml_dtypes
        raise ArgumentTypeError(f"{role} must hold real numbers, not {plain.dtype}.")
    flat = plain.reshape(-1)
    flat = flat if flat.dtype == np.float32 else flat.astype(np.float64, copy=False)
    found = flat if flat.dtype == np.float64 else room(f"numbers of {role}", flat.shape, np.float64)
    buffer = room(f"numbers of {role} as read", (min(flat.size, _CHECKED),), flat.dtype)
    for start in range(0, flat.size, _CHECKED):
        part = flat[start : start + _CHECKED]
        read, same = _read(part, coding, role, buffer[: part.size])
        if found is flat and not same:
            found = flat.copy()
        if found is not flat:
            found[start : start + _CHECKED] = part if same else read
    return found.reshape(plain.shape)


def _read(part: NDArray[Any], coding: _unit_rows.Coding, role: str, room: NDArray[Any]) -> tuple[NDArray[Any], bool]:
    """Return numbers as a unit reads them, and whether they are the same bits."""
    mode = "toward_zero" if coding.ignored else "ties_to_even"
    read = np.asarray(verbs.quantize(part, coding.format, mode, keeping(coding.format), out=room))
    integers = f"i{part.itemsize}"
    if (read.view(integers) == part.view(integers)).all():
        return read, True
    wrong = (part != part.astype(np.float32) if coding.ignored else part != read) & ~np.isnan(part)
    if wrong.any():
        holder = "float32" if coding.ignored else coding.format.name
        raise ArgumentError(
            f"{role} holds {float(part[wrong][0])!r}, which {holder!r} does not have; round it first: "
            f"lowp.quantize({role}, {holder!r})."
        )
    return read, False


def keeping(fmt: ScalarFormat) -> str:
    """Return the overflow mode in which a format keeps its own infinities."""
    return "propagate" if getattr(fmt, "has_infinity", False) else "saturate"


def _read_as(unit: MatrixUnit, name: str) -> ScalarFormat:
    return _unit_rows.coding(unit.reads or name).format


def _scales(unit: MatrixUnit, given: ArrayLike | None, role: str, read: Any) -> NDArray[np.float64] | None:
    if given is None:
        return None
    if not unit.scale:
        raise ArgumentError(f"{role} was given, but {unit.name!r} has no block scales.")
    return read(unit.scale, given, role)  # type: ignore[no-any-return]


def lead_shape(
    a: tuple[int, ...], b: tuple[int, ...], c: tuple[int, ...] | None, scales: tuple[tuple[int, ...], ...] = ()
) -> tuple[int, ...]:
    """Return the batch's shape of a product of arrays of these shapes, and of scales with batch axes of their own.

    Raises:
        ArgumentError: They do not fit.
    """
    for role, shape in (("a", a), ("b", b)):
        if len(shape) < 2:
            raise ArgumentError(f"{role} must be a matrix or a batch of them, not of shape {tuple(shape)}.")
    if a[-1] != b[-2]:
        raise ArgumentError(f"a of shape {tuple(a)} and b of shape {tuple(b)} do not fit: a has {a[-1]} columns.")
    try:
        lead = np.broadcast_shapes(tuple(a[:-2]), tuple(b[:-2]), *(tuple(s[:-2]) for s in scales))
    except ValueError:
        also = f" and scales of shapes {', '.join(str(tuple(s)) for s in scales)}" if scales else ""
        raise ArgumentError(
            f"a of shape {tuple(a)} and b of shape {tuple(b)}{also}: their batch axes do not fit."
        ) from None
    shape = (*lead, a[-2], b[-1])
    if c is not None and (
        len(c) > len(shape) or any(n not in (1, m) for n, m in zip(c[::-1], shape[::-1], strict=False))
    ):
        raise ArgumentError(f"c of shape {tuple(c)} does not fit the product's shape {shape}.")
    return lead


def shaped(a: Any, b: Any, c: Any, scale_a: Any = None, scale_b: Any = None) -> tuple[Any, Any, Any, tuple[int, ...]]:
    """Return operands with one batch axis, and the batch's shape, which scales may have axes of."""
    scales = tuple(s.shape for s in (scale_a, scale_b) if s is not None)
    lead = lead_shape(a.shape, b.shape, None if c is None else c.shape, scales)
    shape = (*lead, a.shape[-2], b.shape[-1])
    c = np.broadcast_to(np.zeros(()) if c is None else c, shape)
    count = math.prod(lead)
    return (
        np.broadcast_to(a, (*lead, *a.shape[-2:])).reshape(count, *a.shape[-2:]),
        np.broadcast_to(b, (*lead, *b.shape[-2:])).reshape(count, *b.shape[-2:]),
        c.reshape(count, *shape[-2:]),
        lead,
    )


def _shaped_scales(unit: MatrixUnit, a: Any, b: Any, scale_a: Any, scale_b: Any, lead: Any) -> tuple[Any, Any]:
    """Return scales with one batch axis; ones where the unit has some and none are given."""
    if not unit.scale:
        return None, None
    blocks = -(-a.shape[2] // unit.block)
    result = []
    for role, given, shape in (
        ("scale_a", scale_a, (a.shape[1], blocks)),
        ("scale_b", scale_b, (blocks, b.shape[2])),
    ):
        if given is None:
            result.append(np.ones((len(a), *shape)))
            continue
        if given.shape[-2:] != shape:
            raise ArgumentError(
                f"{role} of shape {given.shape} must end in {shape}: one scale for {unit.block} elements."
            )
        result.append(np.broadcast_to(given, (*lead, *shape)).reshape(len(a), *shape))
    return result[0], result[1]
