"""Ternary packings of bitnet.cpp, and lossless coding of bfloat16."""

from __future__ import annotations

import re

from lowp._errors import FormatError
from lowp.formats.entry import Entry
from lowp.formats.packed import Field, Packed
from lowp.formats.spec import Format

_SCALE = Field("scale", 1, 32, per="tensor")
#: Sizes of the tiles of TL1 and TL2 have a rule each: inner rows, and what the tile's columns are a multiple of.
_TL2_INNER, _TL2_COLUMNS = 32, 24
_TL1_INNER = (32, 64)


def i2_s(lanes: int, label: str) -> Packed:
    """Return I2_S, two bits a weight: a byte holds four values `lanes` apart, or for 1 those of four rows.

    Rules and bytes: `lowp.rounding.schemes.bitnet`.

    Example:
        >>> i2_s(32, "bitnet_i2_s").block_size, i2_s(32, "bitnet_i2_s").bits_per_value
        (128, 2.0)
    """
    fields = (Field("qs", lanes, 8), _SCALE, Field("alignment", 7, 32, per="tensor"))
    return Packed("bitnet.i2_s", 4 * lanes if lanes > 1 else (4, 1), fields, label=label)


def tl1(tile: tuple[int, int] | None = None, inner_rows: int = 32) -> Packed:
    """Return TL1, pairs of weights in four bits: in the order of the weights, or in tiles as bitnet.cpp stores them.

    Rules and bytes: `lowp.rounding.schemes.bitnet`.

    Args:
        tile: BM and BK of the kernel configuration; None for the plain order.
        inner_rows: Its bm, 32 or 64.

    Raises:
        FormatError: Sizes that do not divide.

    Example:
        >>> tl1().bits_per_value, tl1((128, 64)).name
        (2.0, 'bitnet_tl1_128x64_bm32')
    """
    if tile is None:
        return Packed("bitnet.tl1", 4, (Field("indices", 1, 8), _SCALE), label="bitnet_tl1")
    if inner_rows not in _TL1_INNER or tile[0] % inner_rows or tile[1] % (256 // inner_rows) or 0 in tile:
        raise FormatError(
            f"tile={tile!r}, inner_rows={inner_rows!r}: inner_rows is 32 or 64 and divides the tile's rows; "
            "256 / inner_rows divides its columns."
        )
    label = f"bitnet_tl1_{tile[0]}x{tile[1]}_bm{inner_rows}"
    fields = (Field("indices", tile[0] * tile[1] // 4, 8), _SCALE)
    return Packed("bitnet.tl1", tile, fields, (("inner_rows", inner_rows),), label=label)


def tl2(tile: tuple[int, int] | None = None) -> Packed:
    """Return TL2, three weights in four bits and a sign: in the order of the weights, or in tiles as bitnet.cpp's.

    Rules and bytes: `lowp.rounding.schemes.bitnet`.

    Args:
        tile: BM and BK of the kernel configuration, whose bm is 32; None for the plain order.

    Raises:
        FormatError: Sizes that do not divide.

    Example:
        >>> tl2().bits_per_value, tl2((128, 96)).name
        (1.6666666666666667, 'bitnet_tl2_128x96')
    """
    if tile is None:
        fields = (Field("indices", 8, 8), Field("signs", 1, 16), _SCALE)
        return Packed("bitnet.tl2", 48, fields, label="bitnet_tl2")
    if tile[0] % _TL2_INNER or tile[1] % _TL2_COLUMNS or 0 in tile:
        raise FormatError(f"tile={tile!r}: rows are a multiple of {_TL2_INNER}, columns of {_TL2_COLUMNS}.")
    values = tile[0] * tile[1]
    fields = (Field("indices", values // 6, 8), Field("signs", values // 48, 16), _SCALE)
    return Packed("bitnet.tl2", tile, fields, label=f"bitnet_tl2_{tile[0]}x{tile[1]}")


def dfloat11() -> Packed:
    """Return DFloat11: bfloat16 with its exponents in a Huffman code, without loss.

    The size depends on the values, so `bits_per_value` is that of the fields before coding, 16; what an array takes is
    `encode(x, "dfloat11").nbytes`, for normally distributed values 10.6 bits each. Rules and bytes:
    `lowp.rounding.schemes.lossless`.

    Example:
        >>> dfloat11().bits_per_value
        16.0
    """
    fields = (Field("exponent", 1, 8), Field("sign_mantissa", 1, 8))
    return Packed("lossless.dfloat11", 1, fields, label="dfloat11")


ENTRIES: dict[str, Entry] = {
    "bitnet_i2_s": Entry(
        i2_s(32, "bitnet_i2_s"),
        "block",
        "bitnet.cpp I2_S on x86: ternary, 2 bits, blocks of 128, a scale per tensor",
        ("i2_s",),
    ),
    "bitnet_i2_s_arm": Entry(
        i2_s(16, "bitnet_i2_s_arm"),
        "block",
        "bitnet.cpp I2_S on ARM: ternary, 2 bits, blocks of 64, a scale per tensor",
    ),
    "bitnet_i2_s_rows4": Entry(
        i2_s(1, "bitnet_i2_s_rows4"), "block", "bitnet.cpp I2_S on x86 without ACT_PARALLEL: a byte holds four rows"
    ),
    "bitnet_tl1": Entry(tl1(), "block", "bitnet.cpp TL1 in plain order: two ternary weights in 4 bits", ("tl1",)),
    "bitnet_tl2": Entry(tl2(), "block", "bitnet.cpp TL2 in plain order: three ternary weights in 5 bits", ("tl2",)),
    "dfloat11": Entry(dfloat11(), "block", "lossless bfloat16, exponents in a Huffman code, about 11 bits", ("df11",)),
}

_TL1 = re.compile(r"bitnet_tl1_(\d+)x(\d+)_bm(\d+)")
_TL2 = re.compile(r"bitnet_tl2_(\d+)x(\d+)")


def read_name(name: str) -> Format | None:
    """Return the format that a name made by the rules of this family stands for, or None.

    `bitnet_tl1_{BM}x{BK}_bm{bm}` and `bitnet_tl2_{BM}x{BK}`: the tile sizes of bitnet.cpp's kernel configuration.
    """
    if m := _TL1.fullmatch(name):
        return tl1((int(m[1]), int(m[2])), int(m[3]))
    if m := _TL2.fullmatch(name):
        return tl2((int(m[1]), int(m[2])))
    return None
