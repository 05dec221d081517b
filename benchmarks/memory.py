"""How much memory a call takes beyond its result, from the kernel's record of the process's greatest size."""

from __future__ import annotations

import ctypes
import gc
import math
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def _kilobytes(field: str) -> int:
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith(field))
    return int(line.split()[1])


def extra_bytes(call: Callable[[], Any], makes: int) -> float:
    """Return the most memory that a call had in use at once beyond what was in use before, less its new result.

    Args:
        call: What to run; it has run before.
        makes: Bytes of the result that it makes; 0 if it writes into an array that is there.

    Returns:
        Bytes, at least 0; NaN where the system does not tell.
    """
    gc.collect()
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)  # what is free inside the process counts as used
    try:
        _RESET.write_text("5")
        before = _kilobytes("VmRSS")
        result = call()
        peak = _kilobytes("VmHWM")
    except (OSError, StopIteration, ValueError):
        return math.nan
    del result
    return max(0.0, 1024.0 * (peak - before) - makes)
