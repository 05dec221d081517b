"""Formats whose codes stand for several values, or for sums of scaled planes."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache

from lowp._errors import FormatError
from lowp.formats.codebook import Codebook
from lowp.formats.entry import Entry
from lowp.formats.float_format import Float
from lowp.formats.packed import Field, Packed
from lowp.formats.spec import Format

#: Formats that the gain of a pyramid vector can be stored in.
_GAINS = {"fp16": Float(5, 10), "bf16": Float(8, 7), "fp32": Float(8, 23)}
_WIDEST_FIELD = 64
_SHARED = ("row", "tensor")


def trit_planes(planes: int, group: int) -> Packed:
    """Return PTQTP: the sum of `planes` planes of -1, 0, 1, each with a float16 scale per group.

    Five trits make a byte, so that a plane takes 1.6 bits a value where 5 divides the group. Rules:
    `lowp.rounding.schemes.ternary`.

    Args:
        planes: Planes, 1 to 4; the paper has 2.
        group: Values that share the scales.

    Raises:
        FormatError: A number of planes that is not offered.

    Source:
        PTQTP, arXiv:2509.16989.

    Example:
        >>> trit_planes(2, 128).bits_per_value, trit_planes(1, 160).bits_per_value
        (3.5, 1.7)
    """
    if not 1 <= planes <= 4:
        raise FormatError(f"planes={planes!r} is out of range; allowed: 1 to 4.")
    fields = (Field("trits", planes * -(-group // 5), 8), Field("scales", planes, 16))
    return Packed("ternary.planes", group, fields, (("planes", planes),), label=f"ptqtp{planes}_g{group}")


def ternary_weights(group: int) -> Packed:
    """Return TWN: values above 0.75 times the mean magnitude as their signs, with a float16 scale per group.

    Stored as one plane of `trit_planes`. Rules: `lowp.rounding.schemes.ternary`.

    Source:
        Li et al., "Ternary Weight Networks", arXiv:1605.04711.

    Example:
        >>> ternary_weights(128).bits_per_value
        1.75
    """
    fields = (Field("trits", -(-group // 5), 8), Field("scales", 1, 16))
    return Packed("ternary.twn", group, fields, (("planes", 1),), label=f"twn_g{group}")


def sherry(group: int | str) -> Packed:
    """Return Sherry's 3:4 sparse ternary: in every four values one zero and three signs, five bits.

    Rules and codes: `lowp.rounding.schemes.ternary`.

    Args:
        group: Values that share a float16 scale, a multiple of 4; or "row" or "tensor", with a float32 scale.

    Raises:
        FormatError: A group that four does not divide.

    Source:
        Sherry, Tencent AngelSlim.

    Example:
        >>> sherry(128).bits_per_value, sherry("tensor").bits_per_value
        (1.375, 1.25)
    """
    label = f"sherry_g{group}" if isinstance(group, int) else f"sherry_{group}"
    if isinstance(group, str):
        if group not in _SHARED:
            raise FormatError(f"group={group!r} must be an integer or one of: {', '.join(_SHARED)}.")
        return Packed("ternary.sherry", 4, (Field("codes", 1, 5), Field("scale", 1, 32, per=group)), label=label)
    if group < 4 or group % 4:
        raise FormatError(f"group={group!r} must be a multiple of 4.")
    return Packed("ternary.sherry", group, (Field("codes", group // 4, 5), Field("scale", 1, 16)), label=label)


@lru_cache(maxsize=4096)
def pyramid_count(n: int, pulses: int) -> int:
    """Return how many integer vectors of `n` places have magnitudes that sum to `pulses`.

    Source:
        Fischer, "A pyramid vector quantizer", IEEE Trans. Information Theory 32(4), 1986.

    Example:
        >>> [pyramid_count(*size) for size in ((2, 3), (4, 2), (8, 4), (16, 8))]
        [12, 32, 2816, 30316544]
    """
    row = [1] + [0] * pulses  # no places: only no pulses
    for _ in range(n):
        above, row = row, [1]
        for k in range(1, pulses + 1):
            row.append(above[k] + row[k - 1] + above[k - 1])
    return row[pulses]


def pyramid(n: int, pulses: int, gain: str = "fp16") -> Packed:
    """Return pyramid vector quantization: an index among the integer vectors of `pulses` pulses, and a gain.

    Rules and the order of indices: `lowp.rounding.schemes.pyramid`.

    Args:
        n: Values in a vector.
        pulses: Sum of the magnitudes of its integers.
        gain: Format of the gain, "fp16", "bf16" or "fp32".

    Raises:
        FormatError: No pulse, or more vectors than 64 bits can count.

    Source:
        arXiv:2410.16926.

    Example:
        >>> pyramid(16, 8).bits_per_value
        2.5625
    """
    if n < 1 or pulses < 1 or max(n, pulses) > 1 << 10:
        raise FormatError(f"n={n!r}, pulses={pulses!r} must be 1 to 1024.")
    bits = max(1, (pyramid_count(n, pulses) - 1).bit_length())
    if bits > _WIDEST_FIELD:
        raise FormatError(f"n={n!r}, pulses={pulses!r}: an index takes {bits} bits; at most {_WIDEST_FIELD} are held.")
    label = f"pvq_n{n}_k{pulses}" + ("" if gain == "fp16" else f"_{gain}")
    fields = (Field("index", 1, bits), Field("gain", 1, _GAINS[gain].bits))
    return Packed("pyramid.shape_gain", n, fields, (("pulses", pulses), ("gain", _GAINS[gain])), label=label)


def victim_pairs(per: str) -> Packed:
    """Return OliVe in 4 bits: int4, and outliers that take their neighbour's place; a float32 scale per row or tensor.

    Rules and codes: `lowp.rounding.schemes.outliers`.

    Source:
        OliVe, arXiv:2304.07493.

    Example:
        >>> victim_pairs("row").bits_per_value
        4.0
    """
    label = "olive4" if per == "row" else f"olive4_{per}"
    return Packed("outliers.victim_pairs", 2, (Field("codes", 2, 4), Field("scale", 1, 32, per=per)), label=label)


def powers_of_i() -> Packed:
    """Return iFairy: complex numbers as 1, i, -1, -i in two bits, with two float32 scales per tensor.

    Real and imaginary parts are neighbours along the axis. Rules and codes: `lowp.rounding.schemes.complex`.

    Example:
        >>> powers_of_i().block_size, powers_of_i().block_bits
        (2, 2)
    """
    fields = (Field("codes", 1, 2), Field("scales", 2, 32, per="tensor"))
    return Packed("complex.powers_of_i", 2, fields, label="ifairy")


def bipolar(bits: int) -> Codebook:
    """Return bipolar integers: bit `i` of a code is worth `2^i` if set and `-2^i` if not; odd numbers, no zero.

    Args:
        bits: Bits of a code, 1 to 16.

    Raises:
        FormatError: A width that cannot be.

    Source:
        APT-LLM's bipolar-INT.

    Example:
        >>> bipolar(2).values
        (-3.0, -1.0, 1.0, 3.0)
    """
    if not 1 <= bits <= 16:
        raise FormatError(f"bits={bits!r} is out of range; allowed: 1 to 16.")
    top = (1 << bits) - 1
    return Codebook([2 * code - top for code in range(top + 1)], bits=bits, label=f"bipolar{bits}")


_STQ = Packed(
    "ternary.stq1_0",
    256,
    (Field("qs", 64, 4), Field("sign", 64, 1), Field("d", 1, 16)),
    interleaved=True,
    label="stq1_0",
)

ENTRIES: dict[str, Entry] = {
    "ptqtp1_g128": Entry(trit_planes(1, 128), "block", "one fitted plane of -1, 0, 1, a float16 scale per 128"),
    "ptqtp2_g128": Entry(
        trit_planes(2, 128), "block", "PTQTP: two fitted planes of -1, 0, 1, float16 scales per 128", ("ptqtp",)
    ),
    "twn_g128": Entry(ternary_weights(128), "block", "ternary weight networks, a float16 scale per 128"),
    "sherry_g128": Entry(
        sherry(128), "block", "Sherry: one zero and three signs in 5 bits, a float16 scale per 128", ("sherry",)
    ),
    "sherry_tensor": Entry(sherry("tensor"), "block", "Sherry: one zero and three signs in 5 bits, a scale per tensor"),
    "stq1_0": Entry(_STQ, "block", "STQ1_0 of llama.cpp: Sherry's codes in blocks of 256, 42 bytes each"),
    "pvq_n8_k4": Entry(pyramid(8, 4), "block", "pyramid vectors of 8 values and 4 pulses, a float16 gain", ("pvq",)),
    "pvq_n16_k8": Entry(pyramid(16, 8), "block", "pyramid vectors of 16 values and 8 pulses, a float16 gain"),
    "olive4": Entry(
        victim_pairs("row"), "block", "OliVe: int4 with outliers in victims' places, a scale per row", ("olive",)
    ),
    "olive4_tensor": Entry(victim_pairs("tensor"), "block", "OliVe: int4 with outliers, a scale per tensor"),
    "ifairy": Entry(powers_of_i(), "block", "iFairy: complex 1, i, -1, -i as pairs (re, im), two scales per tensor"),
    **{
        f"bipolar{n}": Entry(bipolar(n), "codebook", f"odd integers of {n} bits, no zero", ("bipolar",) * (n == 4))
        for n in (2, 3, 4)
    },
}

_NUMBERED: tuple[tuple[re.Pattern[str], Callable[..., Format]], ...] = (
    (re.compile(r"ptqtp(\d+)_g([1-9]\d*)"), trit_planes),
    (re.compile(r"twn_g([1-9]\d*)"), ternary_weights),
    (re.compile(r"sherry_g([1-9]\d*)"), sherry),
    (re.compile(r"bipolar(\d+)"), bipolar),
)
_PYRAMID = re.compile(r"pvq_n(\d+)_k(\d+)(?:_(fp16|bf16|fp32))?")


def read_name(name: str) -> Format | None:
    """Return the format that a name made by the rules of this family stands for, or None.

    `ptqtp{planes}_g{group}`, `twn_g{group}`, `sherry_g{group}` or `sherry_row`, `pvq_n{values}_k{pulses}` with `_bf16`
    or `_fp32` for the gain, `bipolar{bits}`.
    """
    if m := _PYRAMID.fullmatch(name):
        return pyramid(int(m[1]), int(m[2]), m[3] or "fp16")
    if name == "sherry_row":
        return sherry("row")
    for pattern, make in _NUMBERED:
        if m := pattern.fullmatch(name):
            return make(*map(int, m.groups()))
    return None
