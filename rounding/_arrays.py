"""From whatever the caller passed to an array of float32 or float64 bits, and back."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from lowp._errors import ArgumentTypeError, RangeError
from lowp.formats.codebook import Codebook
from lowp.formats.logarithms import is_logarithmic
from lowp.formats.packed import Packed
from lowp.formats.spec import Format

_EXACT_INTEGER = 1 << 53


class Source(NamedTuple):
    """An input made ready: its values as float32 or float64, and what the caller's own type was."""

    values: np.ndarray[Any, Any]
    dtype: np.dtype[Any] | None  # None: a Python number
    sticky: bool  # some value is an integer beyond 2^53, rounded to odd: good for at most 50 bits of precision

    @property
    def dtype_name(self) -> str:
        """Name of the dtype that results have."""
        return "float64" if self.dtype is None else self.dtype.name


def as_source(x: Any) -> Source:
    """Return the values of `x` as float32 or float64, exactly.

    float16, bfloat16 and the small ml_dtypes widen to float32; integers, Python numbers and lists to float64.
    A 64-bit integer that float64 cannot hold is rounded to odd, which one later rounding cannot tell from exact.

    Raises:
        ArgumentTypeError: bool, complex, text, objects, or a float wider than float64.
        RangeError: A Python integer beyond 64 bits.
    """
    dtype_of = None if isinstance(x, int | float) and not isinstance(x, bool | np.generic) else np.dtype(np.float64)
    array = _as_array(x)
    if array.dtype == np.float64 and isinstance(x, list | tuple):
        _check_integers(x, array)
    name = array.dtype.name
    if array.dtype.kind in "iu":
        values, sticky = _from_integers(array)
        return Source(values, dtype_of, sticky)
    if _is_ml_dtype(array.dtype) and "int" in name:
        return Source(array.astype(np.float64), dtype_of, False)
    if name in ("float32", "float64"):
        values = array if array.dtype.isnative else array.astype(name)
    elif is_float(array.dtype):
        values = _quiet_cast(array, np.float32)
    else:
        raise ArgumentTypeError(
            f"x has dtype {name}; allowed: float16, bfloat16, float32, float64, integers, Python numbers and lists."
        )
    return Source(values, dtype_of and array.dtype.newbyteorder("="), False)


def _as_array(x: Any) -> np.ndarray[Any, Any]:
    try:
        array = np.asarray(x)
    except (ValueError, TypeError, OverflowError) as error:
        raise ArgumentTypeError(f"x of type {type(x).__name__} is not an array of numbers: {error}.") from error
    if array.dtype == object and any(isinstance(v, int) and not -(1 << 63) <= v < 1 << 64 for v in array.flat):
        raise RangeError(
            "x holds an integer beyond 64 bits; pass it as a float, or use lowp.exact for exact rationals."
        )
    return array


def _check_integers(x: Any, array: np.ndarray[Any, Any]) -> None:
    """Raise if NumPy has rounded a large integer on the way from a list to float64."""
    if not array.size or not np.abs(array).max(initial=0, where=np.isfinite(array)) > _EXACT_INTEGER:
        return
    given = np.asarray(x, dtype=object)
    lost = [v for v, f in zip(given.flat, array.flat, strict=True) if hasattr(v, "__index__") and int(v) != int(f)]
    if lost:
        raise RangeError(
            f"x holds the integer {lost[0]!r} in a list that NumPy reads as float64, which cannot hold it; "
            "pass an array of one integer dtype, or use lowp.exact."
        )


def _from_integers(array: np.ndarray[Any, Any]) -> tuple[np.ndarray[Any, Any], bool]:
    values = array.astype(np.float64)
    if array.dtype.itemsize < 8 or not array.size or np.abs(values).max() < _EXACT_INTEGER:
        return values, False
    magnitude = np.where(array < 0, -array.astype(np.uint64), array.astype(np.uint64))
    drop = np.maximum(np.frexp(np.abs(values))[1] - 53, 0).astype(np.uint64)
    kept = magnitude >> drop
    inexact = kept << drop != magnitude
    odd = np.ldexp((kept | inexact).astype(np.float64), drop.astype(np.int64))
    return np.where(array < 0, -odd, odd), bool(inexact.any())


def is_float(dtype: np.dtype[Any]) -> bool:
    """Whether a dtype is a float of at most 64 bits, those of ml_dtypes included."""
    return dtype.name in ("float16", "float32", "float64") or (_is_ml_dtype(dtype) and "int" not in dtype.name)


def _is_ml_dtype(dtype: np.dtype[Any]) -> bool:
    return dtype.type.__module__.startswith("ml_dtypes") and "complex" not in dtype.name


def to_caller(result: np.ndarray[Any, Any], source: Source, fmt: Format) -> Any:
    """Return a float32 or float64 result in the caller's own type; values of codebooks and logarithms may be rounded.

    Raises:
        RangeError: The caller's dtype cannot hold a value of the result.
    """
    if source.dtype is None:
        return float(result)
    if result.dtype == source.dtype:
        return result
    narrowed = _quiet_cast(result, source.dtype)
    if isinstance(fmt, Packed):  # products of elements and scales: rounded once more, like those of `Block`
        return _with_payloads(narrowed, result)
    back = _quiet_cast(narrowed, result.dtype)
    if isinstance(fmt, Codebook) or is_logarithmic(fmt):
        held = np.array_equal(np.isfinite(back), np.isfinite(result))
    else:
        held = np.array_equal(back, result, equal_nan=True)
    if not held:
        raise no_room(fmt.name, source.dtype.name)
    return narrowed


def _with_payloads(narrowed: np.ndarray[Any, Any], result: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Give the NaN of float32 results their payloads back that a cast to bfloat16 drops, where bfloat16 has room."""
    if narrowed.dtype.name == "bfloat16" and result.dtype == np.float32 and np.isnan(result).any():
        bits = np.ascontiguousarray(result).view(np.uint32)
        fits = np.isnan(result) & (bits & 0xFFFF == 0)
        narrowed.view(np.uint16)[fits] = bits[fits] >> 16
    return narrowed


def no_room(fmt_name: str, dtype: str) -> RangeError:
    """The error for a rounded value that the caller's dtype cannot hold."""
    return RangeError(f"a value of {fmt_name!r} does not fit dtype {dtype}; choose a wider dtype.")


def _quiet_cast(array: np.ndarray[Any, Any], dtype: Any) -> np.ndarray[Any, Any]:
    """Cast without the warnings that NumPy gives for signalling NaN and for overflow, which is checked here."""
    with np.errstate(invalid="ignore", over="ignore", under="ignore"):
        if array.dtype == np.float64 and _is_ml_dtype(np.dtype(dtype)):  # which casts through float32 otherwise
            array = to_odd_float32(array)
        return array.astype(dtype)


def to_odd_float32(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Round float64 numbers to odd in float32: rounding those to 16 bits gives what one rounding of `x` does.

    Source: Boldo and Melquiond 2008, Emulation of a FMA and correctly rounded sums: proved algorithms using rounding
    to odd.

    Example:
        >>> x = np.array([1 + 2.0**-11 + 2.0**-40])      # through float32 it would be a tie, which goes to 1
        >>> to_odd_float32(x).astype(np.float16).item()
        1.0009765625
    """
    with np.errstate(invalid="ignore", over="ignore", under="ignore"):
        near = np.asarray(x.astype(np.float32))
    bits = np.array(near).view(np.int32)
    beyond = np.abs(near) > np.abs(x)
    bits -= beyond  # the next number towards zero, also of an infinity that a large number has become
    bits |= beyond | (np.abs(near) < np.abs(x))
    return bits.view(np.float32).reshape(x.shape)


class _Unlocked:
    """The memory of an array that is read-only, described as if it were not."""

    def __init__(self, owner: np.ndarray[Any, Any]) -> None:
        self.owner = owner  # lives as long as the view
        self.__array_interface__ = owner.__array_interface__ | {"data": (owner.ctypes.data, False)}


def unlocked(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return numbers that nobody writes into as an array that could be written.

    To compiled kernels a read-only array is another type, for which they would be compiled once more.
    """
    return x if x.flags.writeable else np.asarray(_Unlocked(x))


def widen(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return float32 or float64 values as float64."""
    return _quiet_cast(x, np.float64) if x.dtype != np.float64 else x
