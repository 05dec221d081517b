"""How to round: the arguments that `quantize` and `encode` share, checked once."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lowp._errors import ArgumentError, RangeError, unknown_name
from lowp.formats.block import Block
from lowp.formats.packed import Packed
from lowp.formats.spec import Format, ScalarFormat
from lowp.rounding.lowering import check_overflow
from lowp.rounding.modes import Rounding, overflow_mode, rounding
from lowp.rounding.random_bits import keys

#: What to do with a NaN where the format has none.
NAN_POLICIES = {
    "error": "raise RangeError",
    "keep": "leave it NaN (quantize only: there is no code for it)",
    "zero": "zero",
    "max": "the largest finite value, as NVIDIA's conversion instructions do",
}


QUANTIZE_NAN = ("keep", "zero", "max", "error")
ENCODE_NAN = ("error", "zero", "max")


class Request(NamedTuple):
    """Rounding mode, overflow mode, random keys and NaN policy, all valid.

    `padding`: packed formats, the zeros that fill up the last block along each blocked axis.
    """

    mode: Rounding
    overflow: str
    key0: int
    key1: int
    saturation_bits: int
    nan: str
    padding: tuple[int, ...] = (0,)


def make_request(
    mode: str,
    overflow: str,
    seed: int,
    random_bits: int | None,
    saturation_bits: int,
    nan: str,
    allowed_nan: tuple[str, ...],
) -> Request:
    """Check the arguments that do not depend on the format."""
    if nan not in allowed_nan:
        raise ArgumentError(unknown_name("nan", nan, allowed_nan))
    key0, key1 = keys(seed)
    return Request(rounding(mode, random_bits), overflow_mode(overflow), key0, key1, saturation_bits, nan)


def check_format(fmt: Format, request: Request) -> None:
    """Check the overflow mode against the format (a block format: against its elements)."""
    if isinstance(fmt, Packed):
        if request.overflow != "saturate":
            raise ArgumentError(f"overflow={request.overflow!r}: {fmt.name!r} always saturates.")
        return
    element = fmt.element if isinstance(fmt, Block) else fmt
    assert isinstance(element, ScalarFormat)
    check_overflow(element, request.overflow)
    bits = request.saturation_bits
    if isinstance(bits, bool) or not hasattr(bits, "__index__") or not 0 <= bits <= element.bits:
        raise ArgumentError(f"saturation_bits={bits!r} must be an integer from 0 to {element.bits}.")
    if bits and request.overflow not in ("wrap", "wrap_sign_magnitude"):
        raise ArgumentError(f"saturation_bits={bits!r} goes with overflow 'wrap' or 'wrap_sign_magnitude' only.")


def without_nan(x: NDArray[Any], fmt: Block | Packed, nan: str | None) -> NDArray[Any]:
    """Apply a NaN policy that the caller asked for to the input of a block format; without one the format's rules.

    Raises:
        RangeError: nan="error" and there is a NaN.
        ArgumentError: nan="max" where a NaN concerns its whole block.
    """
    if nan in (None, "keep") or not np.isnan(x).any():
        return x
    if nan == "error":
        raise RangeError(f"x holds NaN, which nan='error' refuses; {fmt.name!r} has a rule of its own otherwise.")
    if nan == "zero":
        return np.where(np.isnan(x), x.dtype.type(0), x)
    if isinstance(fmt, Packed) or fmt.nonfinite != "element":
        raise ArgumentError(f"nan={nan!r} needs a format with nonfinite='element', which {fmt.name!r} is not.")
    return x


def no_nan(fmt: Format) -> RangeError:
    """The error for a NaN that has no code."""
    return RangeError(f"x holds NaN, and {fmt.name!r} has no code for it; pass nan='zero' or nan='max', or remove it.")
