"""Tensors from safetensors, npy and npz files, one at a time."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from lowp._errors import ArgumentError, ArgumentTypeError, FileError

_SUFFIXES = (".safetensors", ".npy", ".npz")
#: safetensors dtype -> how its bytes are read. bfloat16 is the upper half of a float32.
_SAFETENSORS = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}


@dataclass(frozen=True)
class Tensor:
    """A floating-point tensor that is read when `load` is called."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    load: Callable[[], np.ndarray]


@dataclass(frozen=True)
class Skipped:
    """A tensor that is not compared, and why."""

    name: str
    reason: str


def read_tensors(path: Path) -> tuple[list[Tensor], list[Skipped]]:
    """Return the floating-point tensors of a file, and the others with the reason.

    Raises:
        FileError: The file is missing, corrupted or truncated.
        ArgumentError: Its suffix is not known, or it holds no value.
        ArgumentTypeError: It holds no floating-point tensor.
    """
    if path.suffix.lower() not in _SUFFIXES:
        raise ArgumentError(f"file={str(path)!r} must end in one of: {', '.join(_SUFFIXES)}.")
    if not path.is_file():
        raise FileError(f"file={str(path)!r} does not exist, or is not a file.")
    entries = list(_safetensors(path) if path.suffix.lower() == ".safetensors" else _numpy(path))
    tensors = [entry for entry in entries if isinstance(entry, Tensor)]
    skipped = [entry for entry in entries if isinstance(entry, Skipped)]
    if not tensors:
        found = "; ".join(f"{s.name}: {s.reason}" for s in skipped[:3]) or "no tensor at all"
        raise ArgumentTypeError(
            f"file={str(path)!r} holds nothing to compare ({found}); allowed: float16, bfloat16, float32, float64."
        )
    return tensors, skipped


def _safetensors(path: Path) -> Iterator[Tensor | Skipped]:
    for name, (dtype, shape, start) in _checked_header(path).items():
        if dtype not in _SAFETENSORS or 0 in shape:
            yield Skipped(name, "empty" if 0 in shape else dtype)
        else:
            yield Tensor(name, tuple(shape), dtype, _mapped(path, dtype, tuple(shape), start))


def _checked_header(path: Path) -> dict[str, tuple[str, list[int], int]]:
    """Return dtype, shape and offset of each tensor; safetensors itself decides whether the file is whole."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np"), path.open("rb") as stream:
            size = int.from_bytes(stream.read(8), "little")
            header: dict[str, Any] = json.loads(stream.read(size))
    except SafetensorError as error:
        raise FileError(
            f"file={str(path)!r} is not a whole safetensors file ({error}); corrupted or truncated."
        ) from error
    except (OSError, ValueError) as error:
        raise FileError(f"file={str(path)!r} cannot be read: {error}.") from error
    header.pop("__metadata__", None)
    return {
        name: (entry["dtype"], entry["shape"], 8 + size + entry["data_offsets"][0]) for name, entry in header.items()
    }


def _mapped(path: Path, dtype: str, shape: tuple[int, ...], start: int) -> Callable[[], np.ndarray]:
    def load() -> np.ndarray:
        count = int(np.prod(shape, dtype=np.int64))
        data = np.fromfile(path, dtype=_SAFETENSORS[dtype], count=count, offset=start).reshape(shape)
        return (data.astype(np.uint32) << 16).view(np.float32) if dtype == "BF16" else data

    return load


def _numpy(path: Path) -> Iterator[Tensor | Skipped]:
    try:
        with path.open("rb") as stream:
            loaded = np.load(stream, allow_pickle=False)
            arrays = {path.stem: loaded} if isinstance(loaded, np.ndarray) else dict(loaded)
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise FileError(f"file={str(path)!r} is not a whole {path.suffix[1:]} file ({error}).") from error
    for name, array in arrays.items():
        if array.dtype.name not in ("float16", "float32", "float64") or not array.size:
            yield Skipped(name, array.dtype.name if array.size else "empty")
        else:
            yield Tensor(name, array.shape, array.dtype.name, partial(np.asarray, array))
