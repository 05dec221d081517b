"""Packed formats: blocks of values stored as fields of bits that a scheme of their own reads and writes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from lowp._errors import FormatError
from lowp.formats.spec import Format

PER = ("block", "row", "tensor")


@dataclass(frozen=True, slots=True)
class Field:
    """`count` unsigned integers of `bits` bits, once per "block", "row" or "tensor", or per "N blocks" of a row."""

    name: str
    count: int
    bits: int
    per: str = "block"

    @property
    def blocks(self) -> int:
        """Blocks that share the field; 0 where a whole row or tensor does."""
        number = self.per.removesuffix("block").removesuffix(" blocks")
        return 1 if not number else int(number) if number.isdecimal() else 0


@dataclass(frozen=True)
class Packed(Format):
    """A block format described by the fields it stores; a scheme computes them from values and values from them.

    Where `Block` covers an element format times a scale, this covers everything else: scales of scales, a codebook
    chosen per block, several values in one code.

    Args:
        scheme: Name of the rules, `module.rule`; `lowp.rounding.schemes` holds them.
        block_size: Values in a block, or (rows, columns) of a tile.
        fields: What is stored, in order.
        options: Parameters of the rules as (name, value) pairs; values are hashable.
        interleaved: Whether the bytes of a block lie together, as in ggml, instead of field after field.
        label: The format's name.
        flat: Whether blocks run over the flattened array, across its rows, and store nothing for what its end lacks.

    Raises:
        FormatError: A size or a field that cannot be.

    Example:
        >>> Packed("ggml.q2_k", 256, (Field("scales", 16, 8), Field("qs", 64, 8), Field("d", 2, 16))).bits_per_value
        2.625
    """

    scheme: str
    block_size: int | tuple[int, int]
    fields: tuple[Field, ...]
    options: tuple[tuple[str, Any], ...] = ()
    interleaved: bool = False
    label: str = ""
    flat: bool = False

    kind = "packed"

    def __post_init__(self) -> None:
        sizes: tuple[object, ...] = self.block_size if isinstance(self.block_size, tuple) else (self.block_size,)
        if not 1 <= len(sizes) <= 2 or not all(_is_positive(n) for n in sizes):
            raise FormatError(f"block_size={self.block_size!r} must be a positive integer or (rows, columns).")
        for field in self.fields:
            if (field.per not in PER and field.blocks < 1) or not 1 <= field.bits <= 64:
                raise FormatError(
                    f"fields hold {field!r}; `per` is one of {', '.join(PER)} or 'N blocks', bits are 1 to 64."
                )

    @property
    def block_elements(self) -> int:
        """Values in a block."""
        return math.prod(self.block_size) if isinstance(self.block_size, tuple) else self.block_size

    @property
    def block_bits(self) -> int:
        """Bits that one block stores."""
        return sum(field.count * field.bits for field in self.fields if field.per == "block")

    @property
    def bits_per_value(self) -> float:
        """Storage bits per value, what rows and tensors share not counted."""
        shared = (Fraction(field.count * field.bits, field.blocks) for field in self.fields if field.blocks)
        return float(sum(shared, Fraction(0)) / self.block_elements)

    @property
    def bits(self) -> int:
        """Storage bits per value, rounded up."""
        return max(1, math.ceil(self.bits_per_value))

    def option(self, name: str, default: Any = None) -> Any:
        """Return one of the scheme's parameters."""
        return dict(self.options).get(name, default)

    def generated_name(self) -> str:
        return self.label or self.scheme


def _is_positive(n: object) -> bool:
    return isinstance(n, int) and not isinstance(n, bool) and n > 0
