"""Codebooks of published systems, and codebooks chosen per block."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from lowp._errors import FormatError
from lowp.formats.codebook import Codebook
from lowp.formats.entry import Entry
from lowp.formats.families import _codebook_data as data
from lowp.formats.families._codebook_grids import (
    BNB_FP4,
    DYNAMIC8_SIGNED,
    DYNAMIC8_UNSIGNED,
    NF4,
    dint_codebook,
    dynamic_map,
    flint_codebook,
    float32_codebook,
    linear_map,
    mulaw_codebook,
    numbers,
    pot_codebook,
    published_codebook,
    sign_magnitude,
    student_codebook,
)
from lowp.formats.float_format import Float
from lowp.formats.packed import Field, Packed
from lowp.formats.spec import Format

FLOAT16, FLOAT32 = Float(5, 10), Float(8, 23)


def bnb_block(codebook: Codebook, size: int, label: str) -> Packed:
    """Return bitsandbytes' blocks: codes in its byte order, then the float32 magnitude of each block."""
    return Packed(
        "bitsandbytes.blockwise",
        size,
        (_bnb_codes(codebook, size), Field("absmax", 1, 32)),
        _bnb_options(codebook),
        label=label,
        flat=True,
    )


def bnb_nested(codebook: Codebook, size: int, label: str) -> Packed:
    """Return bitsandbytes' blocks with double quantization: magnitudes as 8-bit codes in groups of 256 blocks."""
    fields = (
        _bnb_codes(codebook, size),
        Field("absmax_codes", 1, 8),
        Field("nested_absmax", 1, 32, "256 blocks"),
        Field("offset", 1, 32, "tensor"),
    )
    options = (*_bnb_options(codebook), ("absmax_codebook", DYNAMIC8_SIGNED))
    return Packed("bitsandbytes.nested", size, fields, options, label=label, flat=True)


def _bnb_options(codebook: Codebook) -> tuple[tuple[str, object], ...]:
    """The codebook, and the code of numbers above 0 that round to 0: FP4 lists 0 twice, the second time as code 8."""
    return (("codebook", codebook), ("code_above_zero", 8 if codebook is BNB_FP4 else None))


def _bnb_codes(codebook: Codebook, size: int) -> Field:
    return Field("codes", size // 2, 8) if codebook.bits == 4 else Field("codes", size, codebook.bits)


def muonq(bits: int, per: str) -> Packed:
    """Return MuonQ's storage: the companded number over a float16 scale per tensor or row, in integers."""
    if bits not in (2, 4, 8):
        raise FormatError(f"muonq{bits}: allowed are 2, 4 and 8 bits.")
    fields = (Field("codes", 8, bits), Field("scale", 1, 16, per))
    return Packed("codebooks.mulaw", 8, fields, label=f"muonq{bits}_{per}", flat=per == "tensor")


# One of several codebooks per block, row or tensor


def choice(
    label: str,
    grids: Sequence[Codebook],
    size: int,
    *,
    per: str = "block",
    scale: Float = FLOAT16,
    clips: Sequence[float] = (1.0,),
    bounds: tuple[float, float] | None = None,
) -> Packed:
    """Return a format that picks, per block, row or tensor, the codebook of least squared error.

    Args:
        label: Name of the format.
        grids: The codebooks to choose from, all of one width; of equal errors the first wins.
        size: Values per block.
        per: What shares a choice and a scale: "block", "row" or "tensor".
        scale: Float format of the scales: largest magnitude over the codebook's, times a clip ratio.
        clips: Clip ratios to try with each codebook.
        bounds: Least and largest scale, or None.

    Example:
        >>> choice("two", [flint_codebook(4), pot_codebook(4)], 32).bits_per_value
        4.53125
    """
    selector = Field("selector", 1, max(1, (len(grids) - 1).bit_length()), per)
    fields = (Field("codes", size, grids[0].bits), selector, Field("scale", 1, scale.bits, per))
    options = (("grids", tuple(grids)), ("scale", scale), ("clips", tuple(clips)), ("bounds", bounds))
    return Packed("codebooks.choice", size, fields, options, label=label, flat=per == "tensor")


def bitmod(bits: int, kinds: str = "", size: int = 128) -> Packed:
    """Return BitMoD: small floats whose -0 is one of 4 special values per group, or of 2 of a kind ("er", "ea")."""
    magnitudes, resolution, range_ = data.BITMOD[bits]
    specials = {"": (*resolution, *range_), "er": resolution, "ea": range_}[kinds]
    label = f"bitmod_fp{bits}" + (f"_{kinds}" if kinds else "") + (f"_g{size}" if size != 128 else "")
    grids = [sign_magnitude(magnitudes, f"bitmod_fp{bits}_{value:+d}", value) for value in specials]
    return choice(label, grids, size, bounds=data.BITMOD_SCALES)


def ant4(per: str) -> Packed:
    """Return ANT's adaptive type: int, flint, powers of two or float, and a clip ratio of 1, 0.99, ... 0.5."""
    integers = Codebook(range(-7, 8), [n % 16 for n in range(-7, 8)], label="int4_sym_values")
    float4 = sign_magnitude((0, 0.5, 1, 1.5, 2, 3, 4, 6), "e2m1_values")
    grids = [integers, flint_codebook(4), pot_codebook(4), float4]
    clips = [k / 100 for k in range(100, 49, -1)]
    return choice("ant4" if per == "tensor" else f"ant4_{per}", grids, 64, per=per, scale=FLOAT32, clips=clips)


def any4(size: int = 128) -> Packed:
    """Return any4: 16 float16 values per row, fitted to the row's groups, each of them mapped to 0..15.

    Lloyd's algorithm starts from quantiles, so the result is one for all machines; samples have equal weights, and the
    zeros that fill up a last, shorter group do not count.

    Source:
        Elhoushi & Johnson, any4, arXiv:2507.04610; github.com/facebookresearch/any4, quantize.py.
    """
    groups = (Field("codes", size, 4), Field("scale", 1, 16), Field("minimum", 1, 16))
    label = "any4" if size == 128 else f"any4_g{size}"
    return Packed("codebooks.any4", size, (*groups, Field("values", 16, 16, "row")), label=label)


# Names

_CODEBOOKS: dict[str, Callable[[int], Codebook]] = {
    "dint": dint_codebook,
    "flint": flint_codebook,
    "pot": pot_codebook,
    "mulaw": mulaw_codebook,
}
_SIZED = re.compile(r"(?P<kind>dint|flint|pot|mulaw)(?P<bits>\d+)(?P<unsigned>_unsigned)?")
_STUDENT = re.compile(r"sf(?P<bits>\d+)_nu(?P<nu>\d+)")
_MUONQ = re.compile(r"muonq(?P<bits>\d+)_(?P<per>row|tensor)")
_ANT = re.compile(r"ant4_(?P<per>block|row|tensor)")
_GROUPED = re.compile(r"(?:bitmod_fp(?P<bits>[34])(?:_(?P<kinds>er|ea))?|(?P<any>any4))(?:_g(?P<size>\d+))?")
_BNB = re.compile(
    r"bnb_(?P<map>nf4|fp4|(?P<kind>dynamic|linear)(?P<bits>[2-8])_(?P<sign>signed|unsigned)(?:_e(?P<exponent>[1-7]))?)"
    r"(?:(?P<values>_values)|(?P<nested>_dq)?(?:_[bg](?P<size>\d+))?)"
)


def _bnb(name: str) -> Format | None:
    m = _BNB.fullmatch(name)
    if not m:
        return None
    if m["exponent"] and (m["kind"] != "dynamic" or int(m["exponent"]) >= int(m["bits"])):
        raise FormatError(f"format={name!r}: a dynamic map has 1 to bits - 1 exponent bits.")
    codebook = {"nf4": NF4, "fp4": BNB_FP4}.get(m["map"]) or _bnb_map(m)
    if m["values"]:
        return codebook
    default = 64 if codebook.bits == 4 else 256
    size = int(m["size"] or default)
    if size < 2 or size % 2:
        raise FormatError(f"format={name!r}: a block has an even number of values.")
    label = f"bnb_{m['map']}" + (m["nested"] or "") + (f"_b{size}" if size != default else "")
    return (bnb_nested if m["nested"] else bnb_block)(codebook, size, label)


def _bnb_map(m: re.Match[str]) -> Codebook:
    signed, bits = m["sign"] == "signed", int(m["bits"])
    return (
        linear_map(signed, bits) if m["kind"] == "linear" else dynamic_map(signed, int(m["exponent"] or bits - 1), bits)
    )


def read_name(name: str) -> Format | None:
    """Return the format of a name by rule, such as bnb_nf4_b128, sf4_nu9, dint5, flint6, mulaw5, any4_g64."""
    if m := _SIZED.fullmatch(name):
        if not m["unsigned"]:
            return _CODEBOOKS[m["kind"]](int(m["bits"]))
        unsigned = {"flint": flint_codebook, "pot": pot_codebook}.get(m["kind"])
        return unsigned(int(m["bits"]), False) if unsigned else None
    if m := _STUDENT.fullmatch(name):
        return student_codebook(int(m["bits"]), int(m["nu"]))
    if m := _MUONQ.fullmatch(name):
        return muonq(int(m["bits"]), m["per"])
    if m := _ANT.fullmatch(name):
        return ant4(m["per"])
    if m := _GROUPED.fullmatch(name):
        size = int(m["size"] or 128)
        return any4(size) if m["any"] else bitmod(int(m["bits"]), m["kinds"] or "", size)
    return _bnb(name)


def _codebook(codebook: Codebook, summary: str, *aliases: str) -> Entry:
    return Entry(codebook, "codebook", summary, aliases)


def _block(fmt: Packed, summary: str, *aliases: str) -> Entry:
    return Entry(fmt, "block", summary, aliases)


_ENTRIES = [
    _codebook(float32_codebook(numbers(data.AF4_BY_CODE), "af4"), "AbnormalFloat-4 for blocks of 64"),
    _codebook(student_codebook(4, 5), "Student-t quantiles, nu = 5, 4 bits", "sf4_nu5", "t_nf", "t_nf4"),
    _codebook(student_codebook(3, 5), "Student-t quantiles, nu = 5, 3 bits", "sf3_nu5", "t_nf3"),
    _codebook(BNB_FP4, "FP4 of bitsandbytes over its largest value, not E2M1; its second 0, code 8, is NaN here"),
    _codebook(DYNAMIC8_SIGNED, "8-bit dynamic map of bitsandbytes", "bnb_dynamic8_signed_e7_values"),
    _codebook(DYNAMIC8_UNSIGNED, "8-bit dynamic map of bitsandbytes, no sign", "bnb_dynamic8_unsigned_e7_values"),
    _codebook(dint_codebook(4), "dINT4: -6 to 7 and +-1/2", "dint"),
    _codebook(flint_codebook(4), "flint of ANT, 4 bits", "flint"),
    _codebook(flint_codebook(4, False), "flint of ANT, 4 bits, no sign"),
    _codebook(pot_codebook(4), "powers of two of ANT, 4 bits"),
    _codebook(mulaw_codebook(4), "mu-law companding, mu = 255, 4 bits", "mulaw"),
    _block(bnb_block(NF4, 64, "bnb_nf4"), "NF4 in bitsandbytes' bytes, a float32 absmax per 64"),
    _block(bnb_block(BNB_FP4, 64, "bnb_fp4"), "FP4 in bitsandbytes' bytes, a float32 absmax per 64"),
    _block(bnb_nested(NF4, 64, "bnb_nf4_dq"), "NF4 with double quantization, 4.127 bits per value", "nf4_dq"),
    _block(bnb_nested(BNB_FP4, 64, "bnb_fp4_dq"), "bitsandbytes' FP4 with double quantization"),
    _block(bnb_block(DYNAMIC8_SIGNED, 256, "bnb_dynamic8_signed"), "8-bit optimizer state, a float32 absmax per 256"),
    _block(bnb_block(DYNAMIC8_UNSIGNED, 256, "bnb_dynamic8_unsigned"), "the same for second moments"),
    _block(bitmod(3), "BitMoD FP3, one of 4 special values per 128"),
    _block(bitmod(4), "BitMoD FP4, one of 4 special values per 128", "bitmod"),
    _block(ant4("tensor"), "ANT: int, flint, power of two or float, and clip, per tensor", "ant4_tensor", "ant"),
    _block(any4(), "any4: a table of 16 values per row over groups of 128"),
    _block(muonq(4, "tensor"), "MuonQ: companded 4-bit integers, a float16 scale per tensor", "muonq"),
    _block(muonq(8, "tensor"), "MuonQ: companded 8-bit integers, a float16 scale per tensor"),
]
ENTRIES: dict[str, Entry] = {entry.format.name: entry for entry in _ENTRIES}
ENTRIES |= {
    name: Entry(published_codebook(name), "codebook", f"{summary}, as llm-datatypes")
    for name, (_, summary) in data.LLM_DATATYPES.items()
}
