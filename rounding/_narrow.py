"""The dtypes of 16 bits that products of elements and scales are rounded to, as kernels take them."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lowp.formats.block import Block
from lowp.rounding._threads import split
from lowp.rounding.recipes import FLOAT32_DECODING

#: Exponent of the smallest normal number, stored mantissa bits, largest number.
_DTYPES = {"float16": (-14, 10, 65504.0), "bfloat16": (-126, 7, (2 - 2.0**-7) * 2.0**127)}
#: Dtypes whose values are numbers of float32, and so come out as that.
NARROWED = ("float32", *_DTYPES)


def narrow_numbers(fmt: Block, dtype: str) -> NDArray[np.int64]:
    """Return how products become values of `dtype`, as `_tile_kernels.narrow_chunk` takes it."""
    return _numbers(dtype, fmt.recipe in FLOAT32_DECODING)


@lru_cache(maxsize=8)
def _numbers(dtype: str, in_float32: bool) -> NDArray[np.int64]:
    if dtype == "float32":
        return np.zeros(4, np.int64)
    emin, mantissa, largest = _DTYPES[dtype]
    limit = int(np.float64(largest).view(np.int64))
    return np.array([2 if in_float32 else 1, (emin + 1023) << 52, (52 - mantissa) << 52, limit], np.int64)


def narrow_products(products: NDArray[np.float64], out: NDArray[Any], fmt: Block, dtype: str) -> None:
    """Write products of elements and scales to `out`, rounded to the values of `dtype`."""
    from lowp.rounding._tile_kernels import narrow_into

    numbers, source, sink = narrow_numbers(fmt, dtype), products.reshape(-1), out.reshape(-1)
    split(source.size, lambda a, b: narrow_into(source[a:b], sink[a:b], numbers))
