"""Which formats a machine multiplies natively, and what it costs to convert the others. Data: `data/native.csv`.

A format that is not native on a device is stored in its own bits and unpacked by integer instructions
(`data/conversion.csv`) before it is multiplied: to a native dtype that holds its values, mostly bfloat16, or where one
scale covers a row or tensor to fp8 or int8 (`data/widening.csv`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from lowp._errors import ArgumentTypeError, FormatError
from lowp.formats import LNS, Fixed, Float, Integer, Packed, Posit, Takum, parse
from lowp.hw_models.devices import Device
from lowp.hw_models.devices import device as find_device
from lowp.hw_models.tables import rows

#: Dtypes that operands may be unpacked to, cheapest first: significand bits, exponent bits, bytes.
WIDE = {
    "bfloat16": (8, 8, 2),
    "float16": (11, 5, 2),
    "tf32": (11, 8, 4),
    "float32": (24, 8, 4),
    "float64": (53, 11, 8),
}


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
        wide: Dtypes of the device that hold the values of this format (of narrow ones, closely enough with their
            scale), cheapest first; those it may be unpacked to.
        wider: A kernel of the device whose dtype holds the elements, their scale being applied to the sums; or None.
    """

    name: str
    bits_per_value: float
    compute: str | None
    kernel: str | None = None
    unpack: Instructions = _NONE
    pack: Instructions = _NONE
    whole_scale: bool = False
    wide: tuple[str, ...] = ()
    wider: str | None = None

    @property
    def bytes_per_value(self) -> float:
        """Storage bytes of one value, its share of the scales included."""
        return self.bits_per_value / 8

    @property
    def quantized(self) -> bool:
        """Whether values must be converted to this format from the dtype the previous operation left them in."""
        return self.kernel not in WIDE


def operand(fmt: Any, device: str | Device) -> Operand:
    """Describe a format as an operand on a device.

    Args:
        fmt: A name, a format of `lowp.formats`, or any object with `name` and `bits_per_value` (and, for a block
            format, `element`, `scale` and `size`). An `Operand` is returned as it is.
        device: A device or its name.

    Raises:
        FormatError: The name is unknown.
        ArgumentError: The device is unknown.
        ArgumentTypeError: `fmt` has no `bits_per_value`.

    Example:
        >>> operand("nvfp4", "b200").compute, operand("nvfp4", "h100").compute
        ('fp4', None)
    """
    if isinstance(fmt, Operand):
        return fmt
    device = find_device(device)
    described = parse(fmt) if isinstance(fmt, str) else fmt
    try:
        return _operand(described, device)
    except TypeError as error:  # an unhashable stand-in: describe it without the cache
        if "unhashable" not in str(error):
            raise
        return _operand.__wrapped__(described, device)


def operands(device: Device, **named: Any) -> tuple[Operand, ...]:
    """Describe formats as operands on a device, in the order given; errors say which argument gave the format."""
    return tuple(_named(name, fmt, device) for name, fmt in named.items())


def _named(name: str, fmt: Any, device: Device) -> Operand:
    try:
        return operand(fmt, device)
    except ArgumentTypeError as error:
        raise ArgumentTypeError(f"{name}: {error}") from error
    except FormatError as error:
        raise FormatError(f"{name}: {error}") from error


@lru_cache(maxsize=4096)
def _operand(fmt: Any, device: Device) -> Operand:
    if not (hasattr(fmt, "name") and hasattr(fmt, "bits_per_value")):
        raise ArgumentTypeError(f"format={fmt!r} must be a name or a format, not {type(fmt).__name__}.")
    element, scale, size = _parts(fmt)
    unpack, pack = _conversion(element, scaled=scale != "-" and size not in ("row", "tensor"))
    native = _row_of("native", device, element, scale, size)
    storage = float(native["storage_bits"]) if native and native["storage_bits"] else float(fmt.bits_per_value)
    if native and native["compute"] == "bfloat16":
        unpack = pack = _NONE
    widened = None if native else _row_of("widening", device, element, scale, size)
    return Operand(
        name=fmt.name,
        bits_per_value=storage,
        compute=native["compute"] if native else None,
        kernel=native["kernel"] if native else None,
        unpack=unpack,
        pack=pack,
        whole_scale=_has_whole_scale(fmt, scale, size),
        wide=_wide(fmt, native, device),
        wider=widened["kernel"] if widened else None,
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


def _row_of(table: str, device: Device, element: str, scale: str, size: str) -> dict[str, str] | None:
    """Return the first row of "native" or "widening" for a format, of those whose dtype the device lists."""
    for row in rows(table):
        if not device.has(row["compute"]):
            continue
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


def _wide(fmt: Any, native: dict[str, str] | None, device: Device) -> tuple[str, ...]:
    if native and native["compute"] in WIDE:  # float32 may be read as TF32
        own = native["compute"]
        return (own, *(d for d, w in WIDE.items() if d != own and device.has(d) and _holds(w, WIDE[own])))
    need = _precision(getattr(fmt, "element", None) or fmt)
    return tuple(dtype for dtype, has in WIDE.items() if device.has(dtype) and _holds(has, need))


def _holds(has: tuple[int, int, int], need: tuple[int, ...]) -> bool:
    return has[0] >= need[0] and has[1] >= need[1]


def _precision(fmt: Any) -> tuple[int, int]:
    """Return significand and exponent bits of a dtype that holds a format's values.

    Values of formats of up to 8 bits that are no floats or integers are taken to be near enough in bfloat16.
    """
    if isinstance(fmt, Float):
        return fmt.mantissa_bits + 1, fmt.exponent_bits
    if isinstance(fmt, Integer | Fixed):
        width = fmt.bits - fmt.signed
        return width, 5 if width <= 11 else 8
    if isinstance(fmt, Packed) or getattr(fmt, "bits", 8) <= 8:
        return 8, 5
    if isinstance(fmt, Posit):
        return max(1, fmt.bits - 2 - fmt.es), 8
    if isinstance(fmt, Takum):
        return fmt.bits - 4, 8
    return (24 if isinstance(fmt, LNS) and fmt.bits <= 24 else 53), 8
