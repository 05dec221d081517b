"""Data types as QONNX and FINN name them, read and written.

Source: fastmachinelearning/qonnx, `qonnx/core/datatype.py` (1.0.0), whose rules for names and values these are.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from difflib import get_close_matches
from typing import Any

from lowp._errors import ArgumentTypeError, FormatError
from lowp.formats import Block, Codebook, Fixed, Float, Integer, parse
from lowp.formats.spec import Format, ScalarFormat

#: Types without parameters, and the formats that have their values and codes.
_NAMED = {
    "BINARY": "uint1",
    "BIPOLAR": "bipolar1",
    "TERNARY": "ternary",
    "FLOAT16": "float16",
    "FLOAT32": "float32",
}
_FORMS = ("INT4", "UINT8", "FIXED<8,4>", "FLOAT<4,3>", "FLOAT<4,3,7>", "SCALEDINT<8>")
_SETS = {(-1.0, 1.0): "BIPOLAR", (-1.0, 0.0, 1.0): "TERNARY", (0.0, 1.0): "BINARY"}
#: Widest integer that is an `Integer`; wider ones are fixed point without a fraction.
_WIDEST_INTEGER = 32
#: QONNX tensors are float32: fields beyond its own cannot be told apart there.
_FLOAT32_FIELDS = (8, 23)


def from_qonnx(name: Any) -> Format:
    """Return the format that a QONNX or FINN data type names.

    `FIXED<W,I>` has W bits, I of them left of the binary point with the sign among them, as AMD's `ap_fixed`.
    `FLOAT<E,M>` and `FLOAT<E,M,B>` have a sign, subnormals, and no infinity or NaN: every code is a number, so that
    `FLOAT<4,3>` reaches 480 where OCP's E4M3 ends at 448. A bias of 0 stands for the default, as in QONNX.
    `SCALEDINT<N>`, of which QONNX knows the width alone, is read as an integer with one float32 scale per tensor.
    Integers above 32 bits are fixed point without a fraction.

    Args:
        name: Such as "INT4", "UINT8", "BINARY", "BIPOLAR", "TERNARY", "FIXED<8,4>", "FLOAT<4,3,7>", "SCALEDINT<8>",
            "FLOAT16" or "FLOAT32"; or a QONNX data type itself.

    Raises:
        FormatError: There is no such data type, or its values leave the range of float64.
        ArgumentTypeError: It is neither a name nor a data type.

    Example:
        >>> from_qonnx("FIXED<8,4>").max, from_qonnx("FLOAT<4,3>").max, from_qonnx("INT4").min
        (7.9375, 480.0, -8.0)
    """
    text = name if isinstance(name, str) else _canonical(name)
    if text in _NAMED:
        return parse(_NAMED[text])
    for pattern, build in _READERS:
        found = re.fullmatch(pattern, text, re.ASCII)
        if found:
            return build(*(int(group) for group in found.groups() if group is not None))
    close = get_close_matches(text.upper(), [*_NAMED, *_FORMS], n=1, cutoff=0.5)
    raise FormatError(
        f"name={text!r} is no QONNX data type; allowed: {', '.join(_NAMED)}, and such as {', '.join(_FORMS)}."
        + (f" Did you mean {close[0]!r}?" if close else "")
    )


def _canonical(data_type: Any) -> str:
    named = getattr(data_type, "get_canonical_name", None)
    text = named() if callable(named) else None
    if not isinstance(text, str):
        raise ArgumentTypeError(
            f"name={data_type!r} must be a name or a QONNX data type, not {type(data_type).__name__}."
        )
    return text


def _integer(signed: bool) -> Callable[[int], Format]:
    def build(bits: int) -> Format:
        if bits > _WIDEST_INTEGER:
            return Fixed(bits, 0, signed=signed)
        return Integer(bits, signed=signed)

    return build


def _fixed(bits: int, integer_bits: int) -> Format:
    if integer_bits >= bits:
        raise FormatError(f"name='FIXED<{bits},{integer_bits}>' needs fewer integer bits than bits, as in QONNX.")
    return Fixed(bits, bits - integer_bits)


def _float(exponent_bits: int, mantissa_bits: int, bias: int = 0) -> Format:
    return Float(exponent_bits, mantissa_bits, bias=bias or None, specials="finite")


def _scaled(bits: int) -> Format:
    return Block(Integer(bits), size="tensor", scale=parse("float32"))  # type: ignore[arg-type]


_NUMBER = r"\s*(-?\d+)\s*"
_READERS: tuple[tuple[str, Callable[..., Format]], ...] = (
    (r"UINT(\d+)", _integer(False)),
    (r"INT(\d+)", _integer(True)),
    (rf"FIXED<{_NUMBER},{_NUMBER}>", _fixed),
    (rf"SCALEDINT<{_NUMBER}>", _scaled),
    (rf"FLOAT<{_NUMBER},{_NUMBER}(?:,{_NUMBER})?>", _float),
)


def to_qonnx(fmt: Any) -> str:
    """Return the name of the QONNX data type that has exactly a format's values.

    Args:
        fmt: A format of `lowp.formats`, or its name.

    Raises:
        FormatError: The format is unknown, or no QONNX data type has exactly its values: formats with NaN or infinity
            (but float16 and float32), without subnormals, unsigned floats and fixed point, posits, most codebooks, and
            block formats (QONNX keeps scales beside the tensor, in its Quant nodes).
        ArgumentTypeError: `fmt` is neither a format nor a name.

    Example:
        >>> to_qonnx("int4"), to_qonnx("fixed8_4"), to_qonnx("float4_e2m1fn"), to_qonnx("ternary")
        ('INT4', 'FIXED<8,4>', 'FLOAT<2,1,1>', 'TERNARY')
    """
    if not isinstance(fmt, str | Format):
        raise ArgumentTypeError(f"fmt={fmt!r} must be a format or its name, not {type(fmt).__name__}.")
    found = parse(fmt)
    if isinstance(found, Integer | Fixed):
        return _of_integers(found)
    if isinstance(found, Float):
        return _of_floats(found)
    if isinstance(found, Codebook) and found.values in _SETS:
        return _SETS[found.values]
    if isinstance(found, Block):
        return _of_blocks(found)
    raise _no_type(found, f"its values are those of {type(found).__name__}")


def _of_integers(fmt: Integer | Fixed) -> str:
    values = (float(fmt.min_integer), float(fmt.max_integer))
    if fmt.fraction_bits == 0 and fmt.symmetric and values == (-1.0, 1.0):
        return "TERNARY"
    if fmt.symmetric:
        raise _no_type(fmt, "QONNX has no range that is symmetric about zero")
    if fmt.fraction_bits == 0:
        return "BINARY" if (fmt.bits, fmt.signed) == (1, False) else f"{'' if fmt.signed else 'U'}INT{fmt.bits}"
    if not fmt.signed:
        raise _no_type(fmt, "QONNX has no unsigned fixed point")
    if fmt.fraction_bits < 0:
        raise _no_type(fmt, "QONNX has no fixed point with fewer bits than the integer part")
    return f"FIXED<{fmt.bits},{fmt.bits - fmt.fraction_bits}>"


def _of_floats(fmt: Float) -> str:
    for name in ("FLOAT16", "FLOAT32"):
        if fmt == parse(_NAMED[name]):
            return name
    assert fmt.bias is not None
    if fmt.has_nan or fmt.has_infinity:
        raise _no_type(fmt, "QONNX's floats but FLOAT16 and FLOAT32 have no NaN and no infinity")
    if not fmt.signed:
        raise _no_type(fmt, "QONNX's floats have a sign")
    if fmt.mantissa_bits and not fmt.subnormals:
        raise _no_type(fmt, "QONNX's floats have subnormals")
    if fmt.exponent_bits > _FLOAT32_FIELDS[0] or fmt.mantissa_bits > _FLOAT32_FIELDS[1]:
        raise _no_type(fmt, "QONNX's tensors are float32")
    if fmt.bias == 0 and fmt.exponent_bits > 1:
        raise _no_type(fmt, "a bias of 0 stands for the default in QONNX")
    return f"FLOAT<{fmt.exponent_bits},{fmt.mantissa_bits},{fmt.bias}>"


def _of_blocks(fmt: Block) -> str:
    element = fmt.element
    plain = isinstance(element, Integer) and element.signed and not element.symmetric and not fmt.zero_point
    if plain and fmt == Block(element, size="tensor", scale=parse("float32")):  # type: ignore[arg-type]
        return f"SCALEDINT<{element.bits}>"
    raise _no_type(fmt, "QONNX keeps scales beside the tensor, in Quant nodes", element)


def _no_type(fmt: Format, reason: str, element: ScalarFormat | None = None) -> FormatError:
    hint = f" Its elements alone are {element.name!r}." if element is not None else ""
    return FormatError(f"fmt={fmt.name!r} has no QONNX data type: {reason}.{hint}")
