"""Widths of exact dot products: of products, of their sum, and of the adders of a tree, by the rules in use."""

from __future__ import annotations

from typing import NamedTuple

from lowp._errors import ArgumentError, FormatError, unknown_name
from lowp.formats import parse
from lowp.formats.block import Block
from lowp.formats.float_format import Float
from lowp.formats.integer import Fixed, Integer
from lowp.formats.spec import Format, ScalarFormat
from lowp.hw_models.arguments import sizes
from lowp.hw_models.blocks import adder_tree_bits
from lowp.hw_models.value_sets import factor, product_bits, sum_bits

RULES = ("value_set", "mx_for_fpga", "aggarwal")


class DotWidths(NamedTuple):
    """Two's complement widths of a dot product that loses nothing.

    Attributes:
        product: Bits of a product.
        total: Bits of the sum of all products.
        tree: Bits of all adders of a balanced tree.
    """

    product: int
    total: int
    tree: int


def dot_widths(a: str | Format, b: str | Format | None = None, terms: int = 32, rule: str = "value_set") -> DotWidths:
    """Return the widths of an exact dot product of `terms` pairs; scales of block formats do not count.

    Args:
        a: Left operand: a format on a grid, or its name.
        b: Right operand; default that of `a`.
        terms: Products.
        rule: "value_set": the fewest bits that hold every sum of the formats' numbers; "mx_for_fpga":
            `2 (2^e + m)` per product of floats, `2 bits` of integers, and `log2 terms` more for the sum; "aggarwal":
            `ra + rb + log2 terms + 1` of integers, `2^ea + ma + 2^eb + mb + log2 terms - 1` of floats. Logarithms are
            rounded up.

    Raises:
        ArgumentError: The rule is unknown or `terms` not positive.
        FormatError: The format is not on a grid, or the rule knows floats and integers only.

    Source: Samson et al., arXiv 2407.01475 and its RTL; Aggarwal et al., arXiv 2311.12359.

    Example:
        >>> dot_widths("float8_e4m3fn", terms=32, rule="mx_for_fpga")
        DotWidths(product=38, total=43, tree=1204)
        >>> dot_widths("float8_e4m3fn", terms=32)
        DotWidths(product=37, total=42, tree=1173)
        >>> dot_widths("int8", terms=4608, rule="aggarwal").total
        30
    """
    if rule not in RULES:
        raise ArgumentError(unknown_name("rule", rule, RULES))
    left = _element("a", a)
    right = left if b is None else _element("b", b)
    (terms,) = sizes(terms=terms)
    depth = (terms - 1).bit_length()
    if rule == "value_set":
        x, y = factor(left), factor(right)
        if x.unit is None or y.unit is None:
            name = (left if x.unit is None else right).name
            raise FormatError(f"format={name!r} is logarithmic; its products lie on no grid.")
        product, total = product_bits(x, y), sum_bits(x, y, terms)
    elif rule == "mx_for_fpga":
        product = _grid_bits(left) + _grid_bits(right)
        total = product + depth
    else:
        product = _grid_bits(left) + _grid_bits(right)
        whole = not isinstance(left, Float) and not isinstance(right, Float)
        total = product + depth + (1 if whole else -1)
    return DotWidths(product, total, adder_tree_bits(terms, product))


def _element(name: str, value: str | Format) -> ScalarFormat:
    fmt = parse(value)
    fmt = fmt.element if isinstance(fmt, Block) else fmt
    if not isinstance(fmt, ScalarFormat):
        raise FormatError(f"{name}={fmt.name!r} has no elements that are multiplied as they are.")
    return fmt


def _grid_bits(fmt: ScalarFormat) -> int:
    """Half of a product's bits, as both published rules count them."""
    if isinstance(fmt, Float):
        return (1 << fmt.exponent_bits) + fmt.mantissa_bits
    if not isinstance(fmt, Integer | Fixed):
        raise FormatError(f"format={fmt.name!r} is neither a float nor an integer; allowed: rule='value_set'.")
    return fmt.bits
