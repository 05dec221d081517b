"""Strategies for the formats of each family, by the fewest and the most bits of a code."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import assume, reject
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from lowp._errors import FormatError
from lowp.formats import LNS, Block, Codebook, Fixed, Float, Format, Integer, Posit, Takum
from lowp.formats.float_format import SPECIALS
from lowp.formats.registry import REGISTRY

Draw = Callable[[SearchStrategy[Any]], Any]
_PLAIN_SPECIALS = [name for name in SPECIALS if not name.startswith("p3109")]


def _possible(make: Callable[[], Format], low: int, high: int) -> Format:
    """Return the format if it can exist and is as wide as asked, else give the example up."""
    try:
        fmt = make()
    except FormatError:
        reject()
    assume(low <= fmt.bits <= high)
    return fmt


@st.composite
def _floats(draw: Draw, low: int, high: int) -> Format:
    specials = draw(st.sampled_from(_PLAIN_SPECIALS))
    signed = specials in ("fnuz", "dlfloat") or draw(st.sampled_from([True, False]))
    bits = draw(st.integers(max(low, 2 + signed), max(low, 2 + signed, min(high, 63 + signed))))
    exponent_bits = draw(st.integers(max(1, bits - signed - 52), min(bits - signed, 11)))
    mantissa_bits = bits - signed - exponent_bits
    half = 1 << (exponent_bits - 1)
    bias = draw(st.one_of(st.none(), st.integers(half - 9, half + 9))) if exponent_bits < 9 else None
    subnormals = draw(st.sampled_from([True, True, True, False]))
    return _possible(lambda: Float(exponent_bits, mantissa_bits, bias, signed, subnormals, specials), low, high)


@st.composite
def _p3109(draw: Draw, low: int, high: int) -> Format:
    bits = draw(st.integers(max(low, 3), min(high, 15)))
    signed = draw(st.booleans())
    exponent_bits = draw(st.integers(1, bits - signed))
    specials = draw(st.sampled_from(["p3109", "p3109_finite"]))
    return _possible(
        lambda: Float(exponent_bits, bits - signed - exponent_bits, signed=signed, specials=specials), low, high
    )


@st.composite
def _integers(draw: Draw, low: int, high: int) -> Format:
    signed = draw(st.sampled_from([True, False]))
    return Integer(draw(st.integers(low, min(high, 32))), signed=signed, symmetric=signed and draw(st.booleans()))


@st.composite
def _fixed(draw: Draw, low: int, high: int) -> Format:
    bits = draw(st.integers(low, high))
    signed = draw(st.sampled_from([True, False]))
    return Fixed(bits, draw(st.integers(-4, bits + 4)), signed=signed, symmetric=signed and draw(st.booleans()))


def _codebooks(low: int, high: int) -> SearchStrategy[Format]:
    """Registered codebooks of the wanted width, and small ones of any values."""
    known: list[Format] = [entry.format for entry in REGISTRY.values() if isinstance(entry.format, Codebook)]
    fitting = [fmt for fmt in known if low <= fmt.bits <= high]
    count = st.integers(1 << (low - 1), min(1 << high, 24) - 1)
    numbers = st.floats(-8, 8, width=16).map(lambda x: x + 0.0)
    lists = count.flatmap(lambda n: st.lists(numbers, min_size=n + 1, max_size=n + 1, unique=True)) if low < 6 else None
    made = None if lists is None else lists.map(Codebook).filter(lambda fmt: low <= fmt.bits <= high)
    choices = ([st.sampled_from(fitting)] if fitting else []) + ([] if made is None else [made])
    return st.one_of(*choices) if choices else st.nothing()


@st.composite
def _posits(draw: Draw, low: int, high: int) -> Format:
    return Posit(draw(st.integers(low, high)), draw(st.integers(0, 4)))


@st.composite
def _takums(draw: Draw, low: int, high: int) -> Format:
    return Takum(draw(st.integers(low, high)), draw(st.booleans()))


@st.composite
def _logarithmic(draw: Draw, low: int, high: int) -> Format:
    bits = draw(st.integers(max(low, 3), high))
    options = {"signed_exponent": draw(st.sampled_from([True, False])), "zero": draw(st.sampled_from([True, False]))}
    most = min(bits - 2, 53)
    fraction = max(bits - 10, 0)  # keeps 2^k within float64
    return _possible(
        lambda: LNS(bits, draw(st.integers(min(fraction, most), most)), linear=draw(st.booleans()), **options),
        low,
        high,
    )


@st.composite
def _blocks(draw: Draw, low: int, high: int) -> Format:
    element = draw(st.one_of(_floats(low, min(high, 8)), _integers(low, min(high, 8))))
    size = draw(st.sampled_from([4, 16, 32, 1, 7]))
    scale = draw(st.sampled_from(["float8_e8m0fnu", "float32", "bfloat16", "float8_e4m3fn"]))
    recipe = draw(st.sampled_from(["", "rceil", "round", "floor", "ceil", "even"]))
    try:
        return Block(element, size, scale, recipe=recipe)
    except FormatError:
        reject()


#: Family -> fewest and most bits that its codes (blocks: their elements) can have.
WIDTHS = {
    "float": (2, 63), "p3109": (3, 15), "integer": (2, 32), "fixed": (2, 64), "codebook": (2, 8), "posit": (2, 64),
    "takum": (2, 64), "lns": (3, 64), "block": (3, 8),
}  # fmt: skip
#: Family -> strategy for the fewest and most bits.
FAMILIES: dict[str, Callable[[int, int], SearchStrategy[Format]]] = {
    "float": _floats,
    "p3109": _p3109,
    "integer": _integers,
    "fixed": _fixed,
    "codebook": _codebooks,
    "posit": _posits,
    "takum": _takums,
    "lns": _logarithmic,
    "block": _blocks,
}
