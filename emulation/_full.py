"""Formats in which sums and products of fixed-point numbers lose nothing."""

from __future__ import annotations

from lowp._errors import ArgumentError, FormatError
from lowp.formats.integer import Fixed, Integer
from lowp.formats.spec import ScalarFormat

_MOST_BITS = 64
_OPERATIONS = ("add", "subtract", "multiply")


def full_format(op: str, formats: list[ScalarFormat | None]) -> ScalarFormat:
    """Return the fixed-point format that holds every result of an operation.

    Sums have the larger number of fraction bits and one integer bit more than the larger of both (an unsigned number
    counts its sign bit too where the other, or the result, is signed); products have the sums of the bits.
    """
    fixed = [f for f in formats if isinstance(f, Integer | Fixed)]
    if op not in _OPERATIONS or len(fixed) != 2:
        names = ", ".join(f.name if f is not None else "a plain number" for f in formats)
        raise ArgumentError(
            f"fmt='full' is for add, subtract and multiply of integers and fixed point, not {op} of {names}."
        )
    a, b = fixed
    signed = a.signed or b.signed or op == "subtract"
    if op == "multiply":
        bits, fraction = a.bits + b.bits, a.fraction_bits + b.fraction_bits
    else:
        fraction = max(a.fraction_bits, b.fraction_bits)
        mixed = a.signed != b.signed
        whole = max(f.bits - f.fraction_bits + (mixed and not f.signed) for f in fixed) + 1
        bits = whole + fraction
    if bits > _MOST_BITS:
        raise FormatError(
            f"fmt='full' of {op} of {a.name!r} and {b.name!r} needs {bits} bits; arrays hold {_MOST_BITS}."
        )
    return Integer(bits, signed) if fraction == 0 and bits <= 32 else Fixed(bits, fraction, signed)
