"""The machine's own limit: plain copies with the same bytes in and out and the same kind of output."""

from __future__ import annotations

import numpy as np
from benchmarks.contenders import contender
from benchmarks.timing import Call
from benchmarks.works import ALL, Work

from lowp.rounding._threads import split

_OUT = {"float32": np.uint32, "float64": np.uint64, "float16": np.uint16, "bfloat16": np.uint16}


def bytes_moved(work: Work, x: np.ndarray) -> tuple[np.ndarray, np.dtype]:
    """Return a source as large as the work's input, and a dtype that makes the copy as large as its output."""
    if work.verb == "decode":
        return x, np.dtype(np.uint32)
    source = x.view(f"u{x.dtype.itemsize}")
    if work.verb == "pack":  # two numbers become one byte
        return source.view(np.uint64), np.dtype(np.uint8)
    if work.verb == "encode":
        return source, np.dtype(np.uint16 if work.format == "bfloat16" else np.uint8)
    return source, np.dtype(_OUT[work.dtype])


def copy_parts(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Copy on all cores, in parts that threads take one after the other, as lowp's kernels run."""
    flat, sink = source.reshape(-1), target.reshape(-1)
    split(flat.size, lambda a, b: np.copyto(sink[a:b], flat[a:b], casting="unsafe"), pieces=4)
    return target


@contender("copy", "numpy.copyto", *ALL, into="existing")
def copy_existing(work: Work, x: np.ndarray) -> Call:
    source, dtype = bytes_moved(work, x)
    target = np.zeros(source.shape, dtype)
    return lambda: np.copyto(target, source, casting="unsafe")


@contender("copy", "numpy.copyto, all cores", *ALL, into="existing")
def copy_existing_threads(work: Work, x: np.ndarray) -> Call:
    source, dtype = bytes_moved(work, x)
    target = np.zeros(source.shape, dtype)
    return lambda: copy_parts(source, target)


@contender("copy", "numpy astype", *ALL)
def copy_new(work: Work, x: np.ndarray) -> Call:
    source, dtype = bytes_moved(work, x)
    return lambda: source.astype(dtype)


@contender("copy", "numpy.copyto, all cores", *ALL)
def copy_new_threads(work: Work, x: np.ndarray) -> Call:
    source, dtype = bytes_moved(work, x)
    return lambda: copy_parts(source, np.empty(source.shape, dtype))
