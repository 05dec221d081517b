"""Sized blocks: what every datapath is made of, whatever a back end makes of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from lowp._errors import ArgumentError, unknown_name
from lowp.hw_models.arguments import sizes as checked_sizes

#: Kinds of blocks: the names of their sizes, and what they are.
KINDS: dict[str, tuple[tuple[str, ...], str]] = {
    "multiplier": (("ma", "mb"), "product of two significands or integers of ma and mb bits"),
    "exponent_adder": (("bits",), "sum of two exponents or logarithms"),
    "subtractor": (("bits",), "difference of two exponents, or less a zero point"),
    "comparator_tree": (("inputs", "bits"), "the largest of some exponents"),
    "shifter": (("bits", "positions"), "barrel shifter of a word to one of so many positions"),
    "aligner": (("n", "product"), "barrel shifter of a product within a window of n bits under the largest exponent"),
    "adder_tree": (("inputs", "bits"), "exact sum of some words; each level is a bit wider"),
    "adder": (("bits",), "sum of two words"),
    "negate": (("bits",), "two's complement of a word, or the word, by a sign"),
    "leading_zero_counter": (("bits",), "position of the leading one, or length of the leading run"),
    "normaliser": (("bits",), "barrel shifter that brings the leading one to the front"),
    "rounder": (("bits",), "increment of a significand"),
    "table": (("entries", "bits"), "read-only table in logic"),
    "selector": (("inputs", "bits"), "one of some words, by an index: multiplexers of two words in a tree"),
    "register": (("bits",), "flip-flops"),
    "scale_multiplier": (("ma", "mb"), "product of a scale's significand and another"),
    "unpacker": (("bits",), "fields of a float to significand and exponent: hidden bit, specials"),
    "decoder": (("bits",), "codes of a format to sign, exponent and significand"),
    "encoder": (("bits",), "sign, exponent and significand to codes of a format"),
    "float_accumulator": (("bits", "width"), "running sum in a format: align, add, normalise, round"),
    "quantizer": (("bits", "block"), "wide numbers to codes: largest magnitude, scale, shift, round"),
    "dequantizer": (("bits", "block"), "codes to wide numbers: scale, normalise, round"),
}
#: What blocks are there for, in the order of the data's way through them.
ROLES = (
    "decode",
    "multiply",
    "exponent",
    "linear",
    "align",
    "sum",
    "normalise",
    "scale",
    "accumulate",
    "register",
    "convert",
)


@dataclass(frozen=True)
class Block:
    """A piece of hardware with its sizes, so many times; composite ones list what they are made of.

    Attributes:
        kind: One of `KINDS`.
        sizes: (name, value) pairs, the names that `KINDS` lists; `block["ma"]` reads one.
        count: How many there are: in the datapath, or in the block that this one is part of.
        role: One of `ROLES`.
        edge: Whether it converts numbers at the edge of the datapath; such blocks are optional.
        label: What it is of, such as the name of a format.
        operand: "a" or "b" for registers of an operand, which an array of units shares; else empty.
        parts: What it is made of; empty for an elementary block.

    Raises:
        ArgumentError: An unknown kind or role, other sizes than the kind's, or a count below 1.

    Example:
        >>> block = Block.of("multiplier", "multiply", count=32, ma=4, mb=4)
        >>> block["ma"], str(block)
        (4, '32 x multiplier ma=4 mb=4')
    """

    kind: str
    sizes: tuple[tuple[str, int], ...]
    count: int
    role: str
    edge: bool = False
    label: str = ""
    operand: str = ""
    parts: tuple[Block, ...] = ()

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ArgumentError(unknown_name("kind", self.kind, KINDS))
        if self.role not in ROLES:
            raise ArgumentError(unknown_name("role", self.role, ROLES))
        names = tuple(name for name, _ in self.sizes)
        if names != KINDS[self.kind][0]:
            raise ArgumentError(f"sizes={names!r} of a {self.kind}; allowed: {KINDS[self.kind][0]!r}.")
        checked_sizes(count=self.count, **dict(self.sizes))

    @classmethod
    def of(
        cls,
        kind: str,
        role: str,
        count: int = 1,
        edge: bool = False,
        label: str = "",
        operand: str = "",
        parts: tuple[Block, ...] = (),
        **sizes: int,
    ) -> Block:
        """Return a block from its sizes by name, in any order.

        Raises:
            ArgumentError: As the class.
        """
        order = KINDS.get(kind, ((), ""))[0]
        ordered = sorted(sizes.items(), key=lambda item: order.index(item[0]) if item[0] in order else len(order))
        return cls(kind, tuple(ordered), count, role, edge, label, operand, parts)

    def __getitem__(self, name: str) -> int:
        for key, value in self.sizes:
            if key == name:
                return value
        raise ArgumentError(unknown_name("size", name, [key for key, _ in self.sizes]))

    def times(self, count: int) -> Block:
        """Return so many times as many of it."""
        return replace(self, count=self.count * count)

    def leaves(self, count: int = 1) -> Iterator[Block]:
        """Yield the elementary blocks, each with its count in the whole."""
        whole = count * self.count
        if not self.parts:
            yield replace(self, count=whole)
        for part in self.parts:
            yield from part.leaves(whole)

    def amount(self, per: str) -> float:
        """Return how much of something one of it has, that a coefficient may be for.

        Args:
            per: "each", the name of a size, or
                "cell": `ma * mb`, of multipliers; "table_bit": `entries * bits`;
                "input_bit": `inputs * bits`, of trees;
                "tree_bit": bits of all adders or comparators of a tree, an adder's level one wider than the last;
                "full_adder": those of an array multiplier, a row less than it has partial products;
                "mux", "mask": of aligners, normalisers and shifters, the outputs of all stages that choose between
                two bits, and those that pass one or clear it;
                "bit_stage": `n log2 n` of aligners and normalisers, as some models count them.

        Raises:
            ArgumentError: The kind has no such amount.

        Example:
            >>> Block.of("adder_tree", "sum", inputs=32, bits=16).amount("tree_bit")
            522
        """
        if per == "each":
            return 1
        amount = _AMOUNTS.get((self.kind, per))
        return amount(self) if amount else self[per]

    def __str__(self) -> str:
        sizes = "".join(f" {name}={value}" for name, value in self.sizes)
        label = f" ({self.label})" if self.label else ""
        return f"{f'{self.count} x ' if self.count > 1 else ''}{self.kind.replace('_', ' ')}{sizes}{label}"


def adder_tree_bits(inputs: int, bits: int) -> int:
    """Return the bits of all adders of a balanced tree: `inputs - 1` adders, each level a bit wider than the last.

    An odd word at the end of a level goes up to the next.

    Example:
        >>> adder_tree_bits(32, 16), adder_tree_bits(3, 8)
        (522, 17)
    """
    total, width = 0, bits
    while inputs > 1:
        total += inputs // 2 * width
        inputs, width = (inputs + 1) // 2, width + 1
    return total


def _bit_stages(bits: int) -> float:
    return bits * math.log2(bits) if bits > 1 else 0.0


def _shifts(positions: int) -> list[int]:
    return [1 << stage for stage in range((positions - 1).bit_length())]


def _outputs(bits: int, reach: int, positions: int) -> tuple[int, int]:
    """Return the outputs of a shifter's stages that choose between two bits, and those that pass one bit or clear it.

    Args:
        bits: Bits of the result.
        reach: Bits of the input, at one end of the word; each stage's shift adds to them.
        positions: Shifts from 0 to one less.
    """
    mux = mask = 0
    for shift in _shifts(positions):
        reach = min(bits, reach + shift)
        cleared = min(shift, reach)
        mux, mask = mux + reach - cleared, mask + cleared
    return mux, mask


def _shifter_outputs(block: Block) -> tuple[int, int]:
    if block.kind == "aligner":
        return _outputs(block["n"], min(block["product"], block["n"]), block["n"])
    positions = block["bits"] if block.kind == "normaliser" else block["positions"]
    return _outputs(block["bits"], block["bits"], positions)


_SHIFTERS = ("aligner", "normaliser", "shifter")
_AMOUNTS: dict[tuple[str, str], Callable[[Block], float]] = {
    ("multiplier", "cell"): lambda block: block["ma"] * block["mb"],
    ("scale_multiplier", "cell"): lambda block: block["ma"] * block["mb"],
    ("multiplier", "full_adder"): lambda block: (min(block["ma"], block["mb"]) - 1) * max(block["ma"], block["mb"]),
    ("table", "table_bit"): lambda block: block["entries"] * block["bits"],
    ("selector", "mux"): lambda block: (block["inputs"] - 1) * block["bits"],
    ("adder_tree", "input_bit"): lambda block: block["inputs"] * block["bits"],
    ("adder_tree", "tree_bit"): lambda block: adder_tree_bits(block["inputs"], block["bits"]),
    ("comparator_tree", "input_bit"): lambda block: block["inputs"] * block["bits"],
    ("comparator_tree", "tree_bit"): lambda block: max(block["inputs"] - 1, 1) * block["bits"],
    ("aligner", "bit_stage"): lambda block: _bit_stages(block["n"]),
    ("normaliser", "bit_stage"): lambda block: _bit_stages(block["bits"]),
    **{(kind, "mux"): lambda block: _shifter_outputs(block)[0] for kind in _SHIFTERS},
    **{(kind, "mask"): lambda block: _shifter_outputs(block)[1] for kind in _SHIFTERS},
}
_AMOUNTS["scale_multiplier", "full_adder"] = _AMOUNTS["multiplier", "full_adder"]
