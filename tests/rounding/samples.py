"""Numbers that every registered format takes, and which formats are special about them."""

from typing import Any

import numpy as np

import lowp
from lowp.formats import Packed
from lowp.formats.ranked import RankedFormat
from lowp.formats.spec import ScalarFormat
from tests.rounding.vector_formats import cast

#: Formats that refuse an array with a partial block.
WHOLE_BLOCKS = ("ifairy", "bitnet_i2_s_rows4")
#: Formats that decide each number by exact arithmetic, some milliseconds a number.
SLOW = ("takum32_log", "takum64_log")
#: Formats of bfloat16 numbers alone.
LOSSLESS = ("dfloat11",)
PACKED = [name for name in lowp.formats.names() if isinstance(lowp.parse(name), Packed)]
UNPACKED = [name for name in lowp.formats.names() if name not in PACKED]


def taken(x: np.ndarray, name: str, dtype: Any = np.float32) -> np.ndarray:
    """`x` as numbers of `dtype` that a format takes and that round to numbers which the dtype holds."""
    fmt, x = lowp.parse(name), x.astype(np.float64)
    largest = largest_of(dtype)
    if name in LOSSLESS:
        return cast(np.asarray(lowp.quantize(np.clip(x, -2e4, 2e4), "bfloat16")), dtype)
    if not isinstance(fmt, ScalarFormat):
        return cast(np.clip(x, -largest / 4, largest / 4), dtype)
    top = min(largest, fmt.max) / 4
    if isinstance(fmt, RankedFormat):  # never rounds to zero, and coarse numbers may lie far from what they round
        top = min(top, 256.0) if dtype == np.float16 else min(top, 2.0**60)
        x = np.where(np.abs(x) < 1 / top, 0, x)
    x = np.clip(x, -top, top)
    return cast(np.abs(x) + 0.01 if fmt.smallest_subnormal and not (fmt.signed or fmt.has_zero) else x, dtype)


def largest_of(dtype: Any) -> float:
    """The largest number of a float dtype, 2^127 of bfloat16."""
    return float(np.finfo(dtype).max) if np.dtype(dtype).kind == "f" else 2.0**127
