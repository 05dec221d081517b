"""Which formats a machine multiplies natively, and what it costs to convert the others. Data: `data/native.csv`.

A format that is not native on a device is stored in its own bits and unpacked to bfloat16 by integer instructions
(`data/conversion.csv`) before it is multiplied.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from lowp._errors import ArgumentTypeError
from lowp.formats import Packed, parse
from lowp.hw_models.devices import Device
from lowp.hw_models.tables import rows

#: The dtype that unpacked operands are multiplied in.
DEQUANTIZED = "bfloat16"


@dataclass(frozen=True)
class Instructions:
    """Integer instructions per value: the best guess and its interval."""

    value: float
    low: float
    high: float

    def __add__(self, other: Instructions) -> Instructions:
        return Instructions(self.value + other.value, self.low + other.low, self.high + other.high)


_NONE = Instructions(0.0, 0.0, 0.0)


@dataclass(frozen=True)
class Operand:
    """What a cost model needs to know of an operand on one device.

    Attributes:
        name: Name of the format.
        bits_per_value: Storage bits of one value, its share of the scales included.
        compute: Dtype that the device multiplies this format in natively, or None.
        kernel: Row of the fitted parameters that describes that multiplication, or None.
        unpack: Instructions to turn a code into bfloat16.
        pack: Instructions to turn a bfloat16 value into a code.
        whole_scale: Whether one scale covers a whole row or tensor, so that finding it takes a pass of its own.
    """

    name: str
    bits_per_value: float
    compute: str | None
    kernel: str | None = None
    unpack: Instructions = _NONE
    pack: Instructions = _NONE
    whole_scale: bool = False

    @property
    def bytes_per_value(self) -> float:
        """Storage bytes of one value, its share of the scales included."""
        return self.bits_per_value / 8

    @property
    def quantized(self) -> bool:
        """Whether values must be converted to this format from the dtype the previous operation left them in."""
        return self.kernel not in ("bfloat16", "float16", "tf32")


def operand(fmt: Any, device: Device) -> Operand:
    """Describe a format as an operand on a device.

    Args:
        fmt: A name, a format of `lowp.formats`, or any object with `name` and `bits_per_value` (and, for a block
            format, `element`, `scale` and `size`). An `Operand` is returned as it is.
        device: The machine.

    Raises:
        FormatError: The name is unknown.
        ArgumentTypeError: `fmt` has no `bits_per_value`.

    Example:
        >>> from lowp.hw_models.devices import device
        >>> operand("nvfp4", device("b200")).compute, operand("nvfp4", device("h100")).compute
        ('fp4', None)
    """
    if isinstance(fmt, Operand):
        return fmt
    described = parse(fmt) if isinstance(fmt, str) else fmt
    try:
        return _operand(described, device)
    except TypeError as error:  # an unhashable stand-in: describe it without the cache
        if "unhashable" not in str(error):
            raise
        return _operand.__wrapped__(described, device)


@lru_cache(maxsize=4096)
def _operand(fmt: Any, device: Device) -> Operand:
    if not (hasattr(fmt, "name") and hasattr(fmt, "bits_per_value")):
        raise ArgumentTypeError(f"format={fmt!r} must be a name or a format, not {type(fmt).__name__}.")
    element, scale, size = _parts(fmt)
    unpack, pack = _conversion(element, scaled=scale != "-" and size not in ("row", "tensor"))
    native = _native_row(device, element, scale, size)
    storage = float(native["storage_bits"]) if native and native["storage_bits"] else float(fmt.bits_per_value)
    if native and native["compute"] == DEQUANTIZED:
        unpack = pack = _NONE
    return Operand(
        name=fmt.name,
        bits_per_value=storage,
        compute=native["compute"] if native else None,
        kernel=native["kernel"] if native else None,
        unpack=unpack,
        pack=pack,
        whole_scale=_has_whole_scale(fmt, scale, size),
    )


def _parts(fmt: Any) -> tuple[str, str, str]:
    """Return the names of element, scale and block size; "-" for what a scalar format does not have."""
    if isinstance(fmt, Packed):
        return "packed", "-", "-"
    element = getattr(fmt, "element", None)
    if element is None:
        return fmt.name, "-", "-"
    size = fmt.size
    return element.name, fmt.scale.name, "x".join(map(str, size)) if isinstance(size, tuple) else str(size)


def _has_whole_scale(fmt: Any, scale: str, size: str) -> bool:
    if isinstance(fmt, Packed):
        return any(not field.blocks for field in fmt.fields)
    return size in ("row", "tensor") or (scale == "-" and bool(fmt.bits_per_value <= 8))


def _native_row(device: Device, element: str, scale: str, size: str) -> dict[str, str] | None:
    for row in rows("native"):
        wanted = ((device.architecture, "architecture"), (element, "element"), (scale, "scale"), (size, "size"))
        matches = all(value in row[column].split("|") or row[column] == "*" for value, column in wanted)
        if matches and device.has(row["compute"]):
            return row
    return None


def _conversion(element: str, scaled: bool) -> tuple[Instructions, Instructions]:
    """Return the instructions per value that unpack and pack an element, its scale included."""
    row = next(r for r in rows("conversion") if re.fullmatch(r["element"], element))
    unpack, pack = _instructions(row, "unpack"), _instructions(row, "pack")
    if not scaled:  # one scale for a whole row or tensor is applied to the sums
        return unpack, pack
    scale = next(r for r in rows("conversion") if r["element"] == "scale")
    return unpack + _instructions(scale, "unpack"), pack + _instructions(scale, "pack")


def _instructions(row: dict[str, str], what: str) -> Instructions:
    return Instructions(float(row[what]), float(row[f"{what}_low"]), float(row[f"{what}_high"]))
