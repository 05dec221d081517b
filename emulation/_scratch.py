"""Room for arrays that a call makes and drops, kept for the next call of the same thread.

Memory that is new to a process is slow to touch first: the system clears it, page by page.
"""

from __future__ import annotations

import math
import threading
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: Bytes of the largest room that is kept; larger products take so long that memory hardly counts.
_MOST = 1 << 22


class _Rooms(threading.local):
    def __init__(self) -> None:
        self.held: dict[str, NDArray[np.uint8]] = {}


_rooms = _Rooms()


def room(name: str, shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
    """Return an array with any contents; the next call with this name may return the same memory."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    if size > _MOST:
        return np.empty(shape, dtype)
    held = _rooms.held.get(name)
    if held is None or held.size < size:
        held = _rooms.held[name] = np.empty(size, np.uint8)
    found: NDArray[Any] = held[:size].view(dtype).reshape(shape)
    return found
