"""The usual call of `quantize` in a few microseconds: all that depends on its arguments alone is found once."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np

from lowp._errors import Error
from lowp.formats.parse import parse
from lowp.rounding._float32_runs import run_for
from lowp.rounding.request import QUANTIZE_NAN, check_format, make_request

_PLAIN = ("float16", "bfloat16", "float32", "float64")


def quickly(x: Any, out: Any, axis: Any, seed: Any) -> bool:
    """Whether the arrays of a call are such that kernels may take them as they are; else all is checked in order."""
    if type(x) is not np.ndarray or axis != -1 or type(seed) is not int or seed != 0:
        return False
    if not x.flags.c_contiguous or x.ndim == 0 or x.dtype.byteorder not in "=|":
        return False
    if out is None or out is x:
        return out is None or bool(x.flags.writeable)
    if type(out) is not np.ndarray or out.dtype != x.dtype or out.shape != x.shape:
        return False
    return bool(out.flags.c_contiguous and out.flags.writeable) and not np.may_share_memory(x, out)


def quick_run(
    dtype: np.dtype[Any], fmt: Any, rounding: Any, overflow: Any, random_bits: Any, saturation_bits: Any, nan: Any
) -> Callable[[Any, Any], Any] | None:
    """Return what rounds contiguous arrays of a dtype into others, which it returns; None: it takes more than that."""
    try:
        return _found(dtype, fmt, rounding, overflow, random_bits, saturation_bits, nan)
    except TypeError:  # an argument that cannot be hashed, and is wrong
        return None


@lru_cache(maxsize=512, typed=True)
def _found(
    dtype: np.dtype[Any], fmt: Any, rounding: Any, overflow: Any, random_bits: Any, saturation_bits: Any, nan: Any
) -> Callable[[Any, Any], Any] | None:
    name = dtype.name
    if name not in _PLAIN:
        return None
    try:
        resolved = parse(fmt)
        request = make_request(rounding, overflow, 0, random_bits, saturation_bits, nan or "keep", QUANTIZE_NAN)
        check_format(resolved, request)
    except Error:
        return None  # raised again where all arguments are checked in order
    run = run_for(resolved, request, name)
    if run is None:
        return None
    view = None if name in ("float32", "float64") else np.uint16

    def rounded(x: Any, out: Any) -> Any:
        if view is None:
            run(x.reshape(-1), out.reshape(-1))
        else:
            run(x.reshape(-1).view(view), out.reshape(-1).view(view))
        return out

    return rounded
