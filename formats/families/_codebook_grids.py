"""Builders of codebooks: bitsandbytes' maps, quantiles, dINT, flint, powers of two, mu-law."""

from __future__ import annotations

import math
from collections.abc import Sequence
from decimal import Decimal, localcontext
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from lowp._errors import FormatError
from lowp.formats.codebook import Codebook
from lowp.formats.families import _codebook_data as data


def numbers(text: str) -> list[float]:
    return [float.fromhex(word) if "x" in word else float(word) for word in text.split()]


def _float32(x: float) -> float:
    return float(np.float32(x))


def _midpoints(values: Sequence[float]) -> list[float]:
    """Decision points that send a number halfway between two values to the lower one."""
    return [(a + b) / 2 for a, b in pairwise(sorted(values))]


def _lower_at_ties(values: Sequence[float], label: str, codes: Sequence[int] | None = None) -> Codebook:
    return Codebook(values, codes, thresholds=_midpoints(values), label=label)


def float32_codebook(
    values: Sequence[float], label: str, codes: Sequence[int] | None = None, bits: int | None = None
) -> Codebook:
    """A codebook of bitsandbytes: it compares with float32 midpoints, and a number equal to one goes down."""
    return Codebook(values, codes, bits, thresholds=[_float32(t) for t in _midpoints(values)], label=label)


def sign_magnitude(magnitudes: Sequence[float], label: str, special: float | None = None) -> Codebook:
    """Magnitudes by code below a sign bit; `special` takes the code of -0, and numbers halfway go down."""
    sign = len(magnitudes)
    by_code = dict(enumerate(magnitudes)) | {sign + i: -m for i, m in enumerate(magnitudes) if m}
    if special is not None:
        by_code[sign] = special
    return _lower_at_ties(list(by_code.values()), label, list(by_code))


# bitsandbytes

NF4 = float32_codebook(numbers(data.NF4), "nf4")
_TWELFTHS = [_float32(twelfths / 12) for twelfths in data.BNB_FP4_TWELFTHS]
_FP4_BY_CODE = {**dict(enumerate(_TWELFTHS)), **{8 + i: -m for i, m in enumerate(_TWELFTHS) if m}}
BNB_FP4 = float32_codebook(list(_FP4_BY_CODE.values()), "bnb_fp4_values", list(_FP4_BY_CODE))


def _linspace(start: float, end: float, count: int) -> NDArray[np.float32]:
    """torch.linspace in float32: either half counts from its own end, product and sum rounded once."""
    first, last, i = np.float64(np.float32(start)), np.float64(end), np.arange(count)
    step = np.float64(np.float32(last - first) / np.float32(count - 1))
    return np.where(i < count // 2, first + step * i, last - step * (count - 1 - i)).astype(np.float32)


def dynamic_map(signed: bool, exponent_bits: int = 7, bits: int = 8) -> Codebook:
    """Return bitsandbytes' dynamic map: a decimal exponent in unary, and the fractions that the other bits leave.

    For each exponent the fractions are the middles of equal parts of [0.1, 1]; 0 and 1 are added. Values are float32.

    Args:
        signed: Whether negative values exist; -1 does not.
        exponent_bits: Decimal exponents, 1 to bits - 1.
        bits: Width of a code.

    Source:
        Dettmers, 8-Bit Approximations for Parallelism in Deep Learning, arXiv:1511.04561; bitsandbytes, functional.py,
        create_dynamic_map.

    Example:
        >>> dynamic_map(True).min, dynamic_map(True).max, len(dynamic_map(False).values)
        (-0.992968738079071, 1.0, 256)
    """
    free = bits - 1 - exponent_bits
    parts = [(k, 1 << (k + free + (not signed))) for k in range(exponent_bits)]
    if free > 0:  # codes whose exponent bits are all zero need no end mark
        parts.append((exponent_bits - 1, (1 << free) - 1))
    positive = []
    for k, count in parts:
        edges = _linspace(0.1, 1, count + 1)
        positive.append(np.float32(10.0 ** (k - exponent_bits + 1)) * ((edges[:-1] + edges[1:]) / np.float32(2)))
    magnitudes = np.concatenate(positive)
    both = [magnitudes, -magnitudes] if signed else [magnitudes]
    values = np.sort(np.concatenate([*both, np.array([0, 1], np.float32)]))
    kind = "signed" if signed else "unsigned"
    tail = "" if exponent_bits == bits - 1 else f"_e{exponent_bits}"
    return float32_codebook(values.tolist(), f"bnb_dynamic{bits}_{kind}{tail}_values", bits=bits)


def linear_map(signed: bool, bits: int = 8) -> Codebook:
    """Return bitsandbytes' linear map: equal steps over [-1, 1], or [0, 1], in float32; the signed one adds a zero."""
    count = (1 << bits) - signed
    values = set(_linspace(-1 if signed else 0, 1, count).tolist()) | {0.0}
    return float32_codebook(sorted(values), f"bnb_linear{bits}_{'signed' if signed else 'unsigned'}_values", bits=bits)


DYNAMIC8_SIGNED, DYNAMIC8_UNSIGNED = dynamic_map(True), dynamic_map(False)

# Quantiles and other fixed lists


def student_codebook(bits: int, nu: int) -> Codebook:
    """Return quantiles of Student's t scaled to [-1, 1]: half of the values negative, 0, the rest positive.

    Published values where there are some (4 bits, nu 3 to 7; 3 bits, nu 3 to 6), else computed and rounded to float32.

    Args:
        bits: Width of a code, 2 to 8.
        nu: Degrees of freedom.

    Raises:
        FormatError: A parameter is out of range.

    Source:
        Dotzel et al., Learning from Students, arXiv:2405.03103.
    """
    if not 2 <= bits <= 8 or nu < 1:
        raise FormatError(f"sf{bits}_nu{nu}: allowed are 2 to 8 bits and nu of at least 1.")
    published = {3: data.STUDENT3, 4: data.STUDENT4}.get(bits, {}).get(nu)
    values = numbers(published) if published else _student_quantiles(1 << (bits - 1), nu)
    return _lower_at_ties(sorted([*values, 0.0]), f"sf{bits}" if nu == 5 and bits in (3, 4) else f"sf{bits}_nu{nu}")


def _student_quantiles(half: int, nu: int) -> list[float]:
    """Quantiles at equal steps of probability from the outermost one to 1/2, over the largest of their side."""
    sides = []
    for count in (half - 1, half):
        steps = [data.OUTERMOST_PROBABILITY + (0.5 - data.OUTERMOST_PROBABILITY) * i / count for i in range(count)]
        quantiles = [_student_quantile(p, nu) for p in steps]
        sides.append([q / quantiles[0] for q in quantiles])
    return [_float32(v) for v in [*(-q for q in sides[0]), *sides[1]]]


def _student_quantile(probability: float, nu: int) -> float:
    """Invert the distribution function by bisection; 60 steps on [0, 2^20]."""
    from mpmath import mp

    low, high = 0.0, float(1 << 20)
    for _ in range(72):
        middle = (low + high) / 2
        tail = mp.betainc(nu / 2, 0.5, 0, nu / (nu + middle * middle), regularized=True) / 2
        low, high = (middle, high) if 1 - tail < probability else (low, middle)
    return low


def published_codebook(name: str) -> Codebook:
    """Return a row of llm-datatypes' table: sign and magnitude, one value in the code of -0, or ascending codes."""
    text, _ = data.LLM_DATATYPES[name]
    values = numbers(text)
    positive, negative = [v for v in values if v >= 0], {-v for v in values if v < 0}
    special = [v for v in positive if v and v not in negative]
    if 0 in positive and len(special) <= 1 and negative <= set(positive):
        magnitudes = [v for v in positive if v not in special]
        return sign_magnitude(magnitudes, name, special[0] if special else None)
    return _lower_at_ties(values, name)


def dint_codebook(bits: int) -> Codebook:
    """Return dINT: integers of which two codes, here the lowest, stand for -1/2 and 1/2 instead.

    Source:
        Lee et al., Enhancing Computation Efficiency in Large Language Models, arXiv:2311.05161; which two codes are
        given up could not be confirmed.
    """
    if not 3 <= bits <= 8:
        raise FormatError(f"dint{bits}: allowed are 3 to 8 bits.")
    lowest = -(1 << (bits - 1))
    integers = range(lowest + 2, -lowest)
    codes = [(1 << bits) + lowest, (1 << bits) + lowest + 1, *(n % (1 << bits) for n in integers)]
    return Codebook([-0.5, 0.5, *integers], codes, label=f"dint{bits}")


# ANT: Guo et al., MICRO 2022, arXiv:2208.14286; github.com/clevercool/ANT-Quantization, quant_modules.py


def _flint_magnitudes(bits: int) -> list[int]:
    """Codes below half are integers; above, the place of the first one among the lower bits is the exponent."""
    half = 1 << (bits - 1)
    magnitudes = list(range(half))
    for rest in range(half):
        length = rest.bit_length()
        place = bits - 1 - length
        fraction_bits = max(length - 1, 0)
        magnitudes.append((half << place) + ((rest & ((1 << fraction_bits) - 1)) << (bits - 1 + place - fraction_bits)))
    return magnitudes


def flint_codebook(bits: int, signed: bool = True) -> Codebook:
    """Return ANT's flint: near zero integers, above a float whose exponent is where the first one stands."""
    if not 3 <= bits <= 8:
        raise FormatError(f"flint{bits}: allowed are 3 to 8 bits.")
    return _ant_codebook(_flint_magnitudes(bits - signed), f"flint{bits}", signed)


def pot_codebook(bits: int, signed: bool = True) -> Codebook:
    """Return ANT's powers of two: zero, 1, 2, 4, ..."""
    if not 2 + signed <= bits <= 6:
        raise FormatError(f"pot{bits}: allowed are {2 + signed} to 6 bits.")
    return _ant_codebook([0, *(1 << i for i in range((1 << (bits - signed)) - 1))], f"pot{bits}", signed)


def _ant_codebook(magnitudes: Sequence[int], label: str, signed: bool) -> Codebook:
    return sign_magnitude(magnitudes, label) if signed else _lower_at_ties(magnitudes, f"{label}_unsigned", None)


# mu-law


def mulaw_codebook(bits: int) -> Codebook:
    """Return mu-law companding, mu = 255: the values that equal steps of the companded number stand for.

    Numbers round to nearest in the companded domain, so the decision points are the images of its midpoints. The
    code is the step from -(2^(bits-1) - 1) to 2^(bits-1) - 1 plus 2^(bits-1).

    Args:
        bits: Width of a code, 2 to 8.

    Raises:
        FormatError: The width is out of range.

    Source:
        ITU-T G.711 (the curve); MuonQ, github.com/YupengSu/MuonQ, quantize.py.

    Example:
        >>> [round(v, 4) for v in mulaw_codebook(3).values]
        [-1.0, -0.1542, -0.021, 0.0, 0.021, 0.1542, 1.0]
    """
    if not 2 <= bits <= 8:
        raise FormatError(f"mulaw{bits}: allowed are 2 to 8 bits.")
    top = (1 << (bits - 1)) - 1
    steps = range(-top, top + 1)
    with localcontext(prec=40):
        values = [float(_expanded(Decimal(k) / top)) for k in steps]
        cuts = [_at_most(_expanded((Decimal(k) + Decimal("0.5")) / top)) for k in steps[:-1]]
    return Codebook(values, [k + top + 1 for k in steps], bits, cuts, f"mulaw{bits}")


def _expanded(y: Decimal) -> Decimal:
    return ((256 ** abs(y) - 1) / 255).copy_sign(y)


def _at_most(x: Decimal) -> float:
    """Return the largest float64 that is not above `x`."""
    nearest = float(x)
    return nearest if Decimal(nearest) <= x else math.nextafter(nearest, -math.inf)
