"""Comparison of arrays bit for bit, with a message that shows the fields that differ."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from lowp._errors import ArgumentTypeError
from lowp.formats.spec import ScalarFormat
from lowp.formats.text import code_hex
from lowp.testing._show import code_fields

_SHOWN = 8
_UNSIGNED = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}

_Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class _Fields:
    """How a bit pattern is cut for display: as its format says, or by how many bits are exponent and mantissa."""

    bits: int
    exponent: int | None = None
    mantissa: int | None = None
    form: Any = None

    def show(self, pattern: int) -> str:
        """Return the pattern as hexadecimal and, where the fields are known, as sign|exponent|mantissa."""
        if isinstance(self.form, ScalarFormat):
            return f"{code_hex(pattern, self.bits)} {code_fields(pattern, self.form)}"
        text = f"0x{pattern:0{-(-self.bits // 4)}x}"
        if self.exponent is None or self.mantissa is None:
            return text
        digits = f"{pattern:0{self.bits}b}"
        sign = self.bits - self.exponent - self.mantissa
        parts = (digits[:sign], digits[sign : sign + self.exponent], digits[sign + self.exponent :])
        return f"{text} {'|'.join(part for part in parts if part)}"


def assert_bits_equal(
    actual: Any, expected: Any, fmt: Any = None, err_context: str = "", *, nan_payload: bool = False
) -> None:
    """Raise AssertionError unless two arrays hold the same bits.

    +0 and -0 differ. Two NaNs are equal whatever their sign and payload, unless `nan_payload` is true.

    Args:
        actual: Floats or unsigned codes: an array, a torch tensor, a list or a scalar.
        expected: The same shape and dtype; a list or Python scalar is first converted to the dtype of `actual`.
        fmt: The format (or its name) that integer arrays are codes of; it tells which codes are NaN and how to cut
            the patterns shown.
        err_context: Text put at the head of the message.
        nan_payload: Whether the bits of NaNs count too.

    Raises:
        AssertionError: The shapes, dtypes or bits differ; the message shows the first mismatches.
        ArgumentTypeError: An array has no bit pattern of 8, 16, 32 or 64 bits.

    Example:
        >>> assert_bits_equal([1.0, float("nan")], [1.0, float("nan")])
        >>> assert_bits_equal([0.0], [-0.0])
        Traceback (most recent call last):
        AssertionError: 1 of 1 elements differ, dtype float64
          [0] actual 0x0000000000000000 0|00000000000|000...0 = 0.0
            expected 0x8000000000000000 1|00000000000|000...0 = -0.0
    """
    left = _as_array(actual, "actual")
    plain = isinstance(expected, list | tuple | int | float)
    right = _as_array(expected, "expected", like=left.dtype if plain else None)
    head = f"{err_context}: " if err_context else ""
    if left.shape != right.shape:
        raise AssertionError(f"{head}shape {left.shape}, expected {right.shape}")
    if left.dtype != right.dtype:
        raise AssertionError(f"{head}dtype {left.dtype}, expected {right.dtype}")
    form = _parsed(fmt)
    differs = np.atleast_1d(_patterns(left) != _patterns(right))
    if not nan_payload:
        differs &= ~_both_nan(np.atleast_1d(left), np.atleast_1d(right), form, differs)
    if differs.any():
        raise AssertionError(head + _report(left, right, differs, form))


def _parsed(fmt: Any) -> Any:
    if isinstance(fmt, str):
        from lowp.formats import parse

        return parse(fmt)
    return fmt


def _as_array(value: Any, argument: str, like: np.dtype[Any] | None = None) -> _Array:
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(value, torch.Tensor):
        value = value.detach().cpu()
        if value.dtype.is_floating_point and value.dtype not in (torch.float16, torch.float32, torch.float64):
            value = value.view({1: torch.uint8, 2: torch.uint16}[value.element_size()])
        value = value.numpy()
    array = np.asarray(value, dtype=like)
    if array.dtype.hasobject or array.dtype.kind in "cSUmM" or array.dtype.itemsize not in _UNSIGNED:
        raise ArgumentTypeError(
            f"{argument} has dtype {array.dtype}; allowed are booleans, integers and floats of 8, 16, 32 or 64 bits."
        )
    return array


def _patterns(array: _Array) -> _Array:
    return np.ascontiguousarray(array).reshape(array.shape).view(_UNSIGNED[array.dtype.itemsize])


def _holds_codes(array: _Array) -> bool:
    return array.dtype.kind in "biu"


def _both_nan(left: _Array, right: _Array, form: Any, differs: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Mark the pairs in which both sides are NaN; codes are looked up in the format, only where they differ."""
    if not _holds_codes(left):
        return np.asarray((left != left) & (right != right))
    result = np.zeros(left.shape, dtype=bool)
    if form is None or not getattr(form, "has_nan", False):
        return result
    pairs = zip(left[differs].tolist(), right[differs].tolist(), strict=True)
    result[differs] = [form.meaning(a) == "nan" and form.meaning(b) == "nan" for a, b in pairs]
    return result


def _fields(array: _Array, form: Any) -> _Fields:
    if _holds_codes(array):
        bits = getattr(form, "bits", 8 * array.dtype.itemsize)
        return _Fields(bits, getattr(form, "exponent_bits", None), getattr(form, "mantissa_bits", None), form)
    bits = 8 * array.dtype.itemsize
    if array.dtype.kind != "f":  # the dtypes of ml_dtypes
        return _Fields(bits)
    info = np.finfo(array.dtype)
    return _Fields(bits, info.iexp, info.nmant)


def _report(left: _Array, right: _Array, differs: npt.NDArray[np.bool_], form: Any) -> str:
    fields = _fields(left, form)
    places = np.argwhere(differs)
    of_format = f", codes of {form}" if form is not None and _holds_codes(left) else ""
    lines = [f"{len(places)} of {differs.size} elements differ, dtype {left.dtype}{of_format}"]
    sides = [(array, _patterns(array)) for array in (np.atleast_1d(left), np.atleast_1d(right))]
    for place in places[:_SHOWN]:
        index = tuple(int(i) for i in place)
        shown = [
            f"{fields.show(int(bits[index]))}" + ("" if _holds_codes(array) else f" = {array[index]}")
            for array, bits in sides
        ]
        where = "[" + ", ".join(map(str, index)) + "]"
        lines += [f"  {where} actual {shown[0]}", f"  {'expected':>{len(where) + 7}} {shown[1]}"]
    if len(places) > _SHOWN:
        lines.append(f"  and {len(places) - _SHOWN} more")
    return "\n".join(lines)
