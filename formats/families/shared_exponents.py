"""Blocks that share exponents: MSFP, Flexpoint, shared microexponents, and relatives.

Block floating point is `Block` with fixed-point elements. Its elements are two's complement with a symmetric range;
hardware that stores sign and magnitude holds the same values, except -0, which is +0 here.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from lowp._errors import FormatError
from lowp.formats.block import Block
from lowp.formats.entry import Entry
from lowp.formats.float_format import Float
from lowp.formats.integer import Fixed, Integer
from lowp.formats.packed import Field, Packed
from lowp.formats.spec import Format


def block_floating_point(magnitude_bits: int, size: int | tuple[int, int] | str) -> Block:
    """Return block floating point: sign and `magnitude_bits` without a hidden bit, 8-bit shared exponent.

    With `E = floor(log2 amax)` of the block, values are `n * 2^(E - magnitude_bits + 1)`, `|n| < 2^magnitude_bits`;
    larger ones saturate. The exponent is stored as E8M0, `E + 127`, whose code 255 marks a block with NaN or infinity
    (assumed: the paper defines none). Codes of `n` are two's complement.

    Args:
        magnitude_bits: Bits of the magnitude, 1 to 52.
        size: Values that share an exponent, as `Block` takes it.

    Raises:
        FormatError: A size that cannot be.

    Source:
        Darvish Rouhani et al., "Pushing the Limits of Narrow Precision Inferencing at Cloud Scale with Microsoft
        Floating Point", NeurIPS 2020.

    Example:
        >>> block_floating_point(3, 16).bits_per_value
        4.5
    """
    _check("magnitude_bits", magnitude_bits, 1, 52)
    return Block(Fixed(magnitude_bits + 1, magnitude_bits - 1, symmetric=True), size)


def flexpoint(bits: int, exponent_bits: int) -> Block:
    """Return Flexpoint: two's-complement integers and one power-of-two scale per tensor.

    The scale is `2^-e`, `e` from 0 to `2^exponent_bits - 1`, stored as `2^exponent_bits - 1 - e` (sign and origin of
    the exponent are assumed, the paper gives its width only). It follows from the tensor's own largest magnitude, as
    Autoflex does once its prediction is right; values past the integers' range saturate. NaN and infinity are refused.

    Raises:
        FormatError: A width that cannot be.

    Source:
        Köster et al., "Flexpoint: An Adaptive Numerical Format for Efficient Training of Deep Neural Networks",
        NeurIPS 2017.

    Example:
        >>> flexpoint(16, 5).scale.min, flexpoint(16, 5).scale.max
        (4.656612873077393e-10, 1.0)
    """
    _check("bits", bits, 2, 32)
    _check("exponent_bits", exponent_bits, 1, 9)
    bias = (1 << exponent_bits) - 1
    scale = Float(exponent_bits, 0, bias=bias, signed=False, subnormals=False, specials="finite", zero=False)
    return Block(Integer(bits), "tensor", scale, recipe="floor", nonfinite="error")


def dynamic_fixed_point(bits: int) -> Block:
    """Return dynamic fixed point: two's-complement integers `round(x * 2^(bits - 2 - E))`, `E = floor(log2 amax)`.

    One exponent per tensor, stored as E8M0 (its width is assumed). Values past the range saturate.

    Raises:
        FormatError: A width that cannot be.

    Source:
        Das et al., "Mixed Precision Training of Convolutional Neural Networks using Integer Operations", ICLR 2018.

    Example:
        >>> dynamic_fixed_point(16).bits_per_value
        16.0
    """
    _check("bits", bits, 2, 32)
    return Block(Integer(bits), "tensor")


def microexponents(magnitude_bits: int, label: str = "") -> Packed:
    """Return a format with shared microexponents: an exponent per 16 values, and a shift of 0 or 1 per pair of them.

    Rules and codes: `lowp.rounding.schemes.shared_exponents`.

    Example:
        >>> [microexponents(m).bits_per_value for m in (7, 4, 2)]
        [9.0, 6.0, 4.0]
    """
    fields = (Field("codes", 16, magnitude_bits + 1), Field("exponents", 1, 8), Field("shifts", 8, 1))
    return Packed("shared_exponents.microexponents", 16, fields, (("magnitude_bits", magnitude_bits),), label=label)


def _hif4(rule: str, label: str) -> Packed:
    fields = (Field("codes", 64, 4), Field("scales", 1, 8), Field("level2", 8, 1), Field("level3", 16, 1))
    return Packed(f"shared_exponents.{rule}", 64, fields, label=label)


def razored(kept_bits: int, base_bits: int, group: int, sign_in_kept: bool = True) -> Packed:
    """Return QRazor's significant data razoring: integers of `base_bits` cut to their leading bits, group by group.

    Rules and codes: `lowp.rounding.schemes.razor`.

    Args:
        kept_bits: Bits kept of an integer, the sign among them if `sign_in_kept`, else besides them.
        base_bits: Width of the integers before razoring, 3 to 16.
        group: Integers that share a razoring point.
        sign_in_kept: Whether the sign is one of the kept bits; the paper's text allows both readings.

    Raises:
        FormatError: No magnitude bit is kept, or all are.

    Source:
        QRazor, arXiv:2501.13331.

    Example:
        >>> razored(4, 8, 16).bits_per_value
        4.1875
    """
    magnitude_bits = kept_bits - sign_in_kept
    if not 3 <= base_bits <= 16 or not 1 <= magnitude_bits < base_bits - 1:
        raise FormatError(
            f"kept_bits={kept_bits!r}, base_bits={base_bits!r}: base_bits is 3 to 16, and 1 to base_bits - 2 magnitude "
            "bits are kept."
        )
    flag_bits = (base_bits - 1).bit_length()
    fields = (
        Field("codes", group, magnitude_bits + 1),
        Field("shifts", 1, flag_bits),
        Field("scales", 1, 32, per="row"),
    )
    options = (("base_bits", base_bits), ("magnitude_bits", magnitude_bits))
    tail = "" if sign_in_kept else "_mag"
    return Packed("razor.razored", group, fields, options, label=f"qrazor{kept_bits}_b{base_bits}_g{group}{tail}")


def sparse_quantized(bank: int, sparsity: str, high_bits: int, low_bits: int, mask: bool = False) -> Packed:
    """Return SQ-format: in each bank a fixed share of the values in a low precision, the others in a high one.

    Rules and codes: `lowp.rounding.schemes.sq`.

    Args:
        bank: Values in a bank.
        sparsity: Decimals of the share in low precision: "75" is 0.75, "875" is 0.875.
        high_bits: Bits of the values in high precision, 2 to 16.
        low_bits: Bits of the others, 2 to 16, below `high_bits`; 0 for zeros.
        mask: Whether a mask of one bit per value says which are high, instead of a sentinel among the low codes.

    Raises:
        FormatError: A width or a share that cannot be.

    Source:
        SQ-format, arXiv:2512.05409.

    Example:
        >>> sparse_quantized(64, "75", 8, 4).bits_per_value
        6.5
    """
    high_count, rest = divmod(bank * (10 ** len(sparsity) - int(sparsity)), 10 ** len(sparsity))
    if rest or not 0 < high_count < bank:
        raise FormatError(f"sparsity=0.{sparsity} does not split a bank of {bank} into two whole parts.")
    if not 2 <= high_bits <= 16 or low_bits not in (0, *range(2, high_bits)):
        raise FormatError(
            f"high_bits={high_bits!r}, low_bits={low_bits!r}: high_bits is 2 to 16, low_bits 0, or 2 to high_bits - 1."
        )
    label = f"sq_b{bank}_s{sparsity}_h{high_bits}_l{low_bits}" + ("_mask" if mask and low_bits else "")
    high, scales = Field("high", high_count, high_bits), Field("scales", 2 if low_bits else 1, 16)
    if mask or not low_bits:
        low = (Field("low", bank - high_count, low_bits),) if low_bits else ()
        fields = (high, *low, Field("mask", bank, 1), scales)
    else:
        fields = (high, Field("low", bank, low_bits), scales)
    return Packed("sq.sparse_quantized", bank, fields, label=label)


def hierarchical_linear(bits: int, group: int, iterations: int = 10) -> Packed:
    """Return hierarchical linear quantization (HLQ) of ELUTQ: an offset plus the scales whose bits are set, per group.

    Rules and codes: `lowp.rounding.schemes.hlq`.

    Args:
        bits: Bits of a value, 1 to 4.
        group: Values that share the scales and the offset.
        iterations: Alternations of assignment and least squares; 0 leaves the even spacing they start from.

    Raises:
        FormatError: A width that cannot be.

    Source:
        ELUTQ, arXiv:2510.19482; repository Nkniexin/ELUTQ, `GPTQ/quant.py`.

    Example:
        >>> [hierarchical_linear(*w).bits_per_value for w in ((2, 128), (3, 128), (2, 64))]
        [2.375, 3.5, 2.75]
    """
    _check("bits", bits, 1, 4)
    label = f"hlq{bits}_g{group}" + ("" if iterations == 10 else f"_i{iterations}")
    fields = (Field("codes", group, bits), Field("coefficients", bits + 1, 16))
    return Packed("hlq.fitted", group, fields, (("iterations", iterations),), label=label)


def _check(name: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise FormatError(f"{name}={value!r} is out of range; allowed: {low} to {high}.")


def _msfp(bits: int) -> Block:
    """Microsoft's names count sign, magnitude and the whole 8-bit exponent."""
    return block_floating_point(bits - 9, 16)


_MX_PAPER = "shared microexponents of Darvish Rouhani et al. 2023"

ENTRIES: dict[str, Entry] = {
    **{
        f"msfp{n}": Entry(
            _msfp(n), "block", f"Microsoft floating point, {n - 9}-bit magnitudes, an exponent per 16", (f"msfp_{n}",)
        )
        for n in range(11, 17)
    },
    "flex16_5": Entry(
        flexpoint(16, 5), "block", "Flexpoint: int16, one 5-bit exponent per tensor", ("flex16+5", "flexpoint")
    ),
    "dfp16": Entry(dynamic_fixed_point(16), "block", "dynamic fixed point: int16, one exponent per tensor"),
    "dfp8": Entry(dynamic_fixed_point(8), "block", "dynamic fixed point: int8, one exponent per tensor"),
    "mx9": Entry(microexponents(7, "mx9"), "block", f"MX9, {_MX_PAPER}: 7-bit magnitudes"),
    "mx6": Entry(microexponents(4, "mx6"), "block", f"MX6, {_MX_PAPER}: 4-bit magnitudes"),
    "mx4": Entry(microexponents(2, "mx4"), "block", f"MX4, {_MX_PAPER}: 2-bit magnitudes"),
    "hif4": Entry(
        _hif4("hif4", "hif4"), "block", "HiF4 in exact arithmetic: 64 values, E6M2 scale, two levels of bits"
    ),
    "hif4_bf16": Entry(
        _hif4("hif4_bf16", "hif4_bf16"), "block", "HiF4 as its reference code computes it, scales in bfloat16"
    ),
    "qrazor_w4": Entry(
        razored(4, 8, 16), "block", "QRazor weights: int8 per row razored to sign and 3 bits", ("qrazor_kv4", "qrazor")
    ),
    "qrazor_a4": Entry(razored(4, 16, 16), "block", "QRazor activations: int16 per row razored to sign and 3 bits"),
    "hlq2_g128": Entry(
        hierarchical_linear(2, 128), "block", "ELUTQ's HLQ, 2 bits, float16 scales and offset per 128", ("hlq",)
    ),
    "hlq2_g64": Entry(hierarchical_linear(2, 64), "block", "ELUTQ's HLQ, 2 bits, float16 scales and offset per 64"),
    "hlq3_g128": Entry(hierarchical_linear(3, 128), "block", "ELUTQ's HLQ, 3 bits, float16 scales and offset per 128"),
    "sq_b64_s75_h8_l4": Entry(
        sparse_quantized(64, "75", 8, 4),
        "block",
        "SQ-format: in banks of 64 a quarter int8, the others int4",
        ("sq_format",),
    ),
}

_SIZE = r"(?:g(?P<group>[1-9]\d*)|(?P<whole>row|tensor)|t(?P<rows>[1-9]\d*)x(?P<columns>[1-9]\d*))"
_BFP = re.compile(rf"bfp(?P<bits>\d+)_{_SIZE}")


def _read_bfp(name: str) -> Format | None:
    m = _BFP.fullmatch(name)
    if not m:
        return None
    size = int(m["group"]) if m["group"] else m["whole"] or (int(m["rows"]), int(m["columns"]))
    return block_floating_point(int(m["bits"]), size)


#: Rules of names made of numbers: a pattern and what its groups are made into.
_NUMBERED: tuple[tuple[re.Pattern[str], Callable[..., Format]], ...] = (
    (re.compile(r"msfp_?(\d+)"), _msfp),
    (re.compile(r"flex(\d+)_(\d+)"), flexpoint),
    (re.compile(r"dfp(\d+)"), dynamic_fixed_point),
    (re.compile(r"hlq(\d+)_g([1-9]\d*)(?:_i(\d+))?"), hierarchical_linear),
)
_RAZOR = re.compile(r"qrazor(\d+)_b(\d+)_g([1-9]\d*)(_mag)?")
_SQ = re.compile(r"sq_b([1-9]\d*)_s(\d+)_h(\d+)_l(\d+)(_mask)?")


def read_name(name: str) -> Format | None:
    """Return the format that a name made by the rules of this family stands for, or None.

    `bfp{magnitude bits}_g{block}` (or `_row`, `_tensor`, `_t{rows}x{columns}`), `msfp{bits}`,
    `flex{bits}_{exponent bits}`, `dfp{bits}`, `hlq{bits}_g{group}_i{iterations}`,
    `qrazor{kept bits}_b{base bits}_g{group}` with `_mag` where the sign is not among the kept bits,
    `sq_b{bank}_s{share in low precision}_h{high bits}_l{low bits}` with `_mask` for a mask of bits.
    """
    if m := _RAZOR.fullmatch(name):
        return razored(int(m[1]), int(m[2]), int(m[3]), sign_in_kept=not m[4])
    if m := _SQ.fullmatch(name):
        return sparse_quantized(int(m[1]), m[2], int(m[3]), int(m[4]), mask=bool(m[5]))
    for pattern, make in _NUMBERED:
        if m := pattern.fullmatch(name):
            return make(*(int(number) for number in m.groups() if number is not None))
    return _read_bfp(name)
