"""Room for arrays that a call makes and drops, kept for the next call of the same thread.

Memory that is new to a process is slow to touch first: the system clears it, page by page.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: Bytes of the largest room that is kept; larger products take so long that memory hardly counts.
_MOST = 1 << 22
#: Rooms start at a multiple of so many bytes: vectors that cross a cache line take twice as long to load.
_LINE = 64


Room = Callable[[str, tuple[int, ...], Any], NDArray[Any]]


class _Rooms(threading.local):
    def __init__(self) -> None:
        self.held: dict[str, NDArray[np.uint8]] = {}


_rooms = _Rooms()


def room(name: str, shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
    """Return an array with any contents; the next call with this name may return the same memory."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    held = _rooms.held.get(name)
    if held is None or held.size < size:
        held = _in_line(size)
        if size <= _MOST:
            _rooms.held[name] = held
    found: NDArray[Any] = held[:size].view(dtype).reshape(shape)
    return found


def new_room(_: str, shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
    """Return an array that nobody else gets."""
    found: NDArray[Any] = _in_line(math.prod(shape) * np.dtype(dtype).itemsize).view(dtype).reshape(shape)
    return found


def _in_line(size: int) -> NDArray[np.uint8]:
    whole = np.empty(size + _LINE, np.uint8)
    start = -whole.ctypes.data % _LINE
    return whole[start : start + size]
