"""What the matrix products of a model cost: bits in storage, time and energy on a device."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lowp._errors import Error
from lowp.formats import Packed
from lowp.studies.metrics import Interval
from lowp.studies.models import Layer

#: m, n, k of a matrix product, and how often it runs.
Shape = tuple[int, int, int, int]
#: Rows of the activation matrix in the predicted run: 512 texts of 128 tokens. With far fewer, starting the kernels
#: takes longer than a small model's arithmetic, whatever the format.
BATCH_ROWS = 65536


@dataclass(frozen=True)
class Cost:
    """Predicted time in seconds and energy in joules of all matrix products, once each."""

    time: Interval
    energy: Interval
    bound: str = ""
    provenance: str = ""


def storage_bits(fmt: Any, rows: int, columns: int) -> int:
    """Return the bits a matrix takes in a format, scales, zero points and tensor scale included.

    Packed formats: of the bytes they are stored in, partial blocks whole; a lossless code counts as not coded yet.

    Args:
        fmt: A format; blocks lie along the columns.
        rows: Rows of the matrix.
        columns: Columns of the matrix.

    Example:
        >>> from lowp.formats import parse
        >>> storage_bits(parse("mxfp4"), 2, 64), storage_bits(parse("int8_row"), 2, 64)
        (544, 1088)
    """
    if isinstance(fmt, Packed):
        from lowp.rounding._packed import packed_size

        return 8 * packed_size((rows, columns), fmt, -1)
    bits: int = int(fmt.bits) * rows * columns
    size = getattr(fmt, "size", None)
    if size is None:
        return bits
    tile = {"row": (1, columns), "tensor": (rows, columns)}.get(size) if isinstance(size, str) else None
    tall, wide = tile or (size if isinstance(size, tuple) else (1, size))
    bits += math.ceil(rows / tall) * math.ceil(columns / wide) * int(fmt.block_bits)
    return bits + (int(fmt.tensor_scale.bits) if fmt.tensor_scale is not None else 0)


def products(layers: Sequence[Layer], batch_rows: int) -> list[Shape]:
    """Return (m, n, k, count) of the layers' products: activations (m, k) times weights (k, n)."""
    sizes = Counter((layer.rows, layer.columns) for layer in layers if not layer.is_table)
    return [(batch_rows, n, k, count) for (n, k), count in sizes.items()]


def predict(
    shapes: Sequence[Shape], a: Any, b: Any, devices: Mapping[str, Any], hardware: Any
) -> tuple[dict[str, Cost], list[str]]:
    """Return the cost per device, and a note for each device whose model does not cover these formats.

    Args:
        shapes: (m, n, k, count) of the products.
        a: Format of the activations.
        b: Format of the weights.
        devices: Devices by the name of their columns.
        hardware: `lowp.hw`, or something with its `matmuls_cost`.
    """
    costs, notes = {}, []
    for name, device in devices.items():
        try:
            time, energy = hardware.matmuls_cost(shapes, a, b, device)
        except Error as error:
            notes.append(f"no prediction for {name}: {error}")
        else:
            sources = dict.fromkeys(f"{time.provenance}; {energy.provenance}".split("; "))
            costs[name] = Cost(_interval(time), _interval(energy), time.bound, "; ".join(sources))
    return costs, notes


def _interval(estimate: Any) -> Interval:
    return Interval(float(estimate.value), float(estimate.low), float(estimate.high))
