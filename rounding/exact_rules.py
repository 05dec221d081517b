"""The rules behind `lowp.rounding.exact`: one decision per mode, one grid per family, one table of overflow.

Everything is written from the definitions, in plain integers and Fractions, and for reading rather than for speed.
It asks a format for its parameters and for `meaning(code)`, nothing else, and shares no code with the kernels.
"""

from __future__ import annotations

from bisect import bisect_right
from fractions import Fraction
from functools import lru_cache
from math import floor
from typing import Any, NamedTuple

from lowp._errors import ArgumentError, FormatError
from lowp.formats.codebook import Codebook
from lowp.formats.exact_real import Real
from lowp.formats.float_format import Float
from lowp.formats.integer import Fixed, Integer
from lowp.formats.parse import parse
from lowp.formats.spec import Format, Meaning, ScalarFormat
from lowp.rounding import modes

#: A rational number, or "inf", "-inf", "-0".
Rational = Fraction | str

HALF = Fraction(1, 2)
#: Integer and fixed-point formats take an infinity for this number, which lies beyond every such format.
BEYOND = Fraction(1 << 1024)


class Mode(NamedTuple):
    """A rounding mode by canonical name, with the random 32-bit word and the number of its top bits that count."""

    name: str
    word: int = 0
    random_bits: int = 32


def scalar_format(fmt: Format | str) -> ScalarFormat:
    """Return the format of that name; FormatError for a block format."""
    form = parse(fmt)
    if not isinstance(form, ScalarFormat):
        raise FormatError(f"fmt={form.name!r} is a block format; here it must be a scalar format.")
    return form


def named_mode(rounding: str, random: int | None, random_bits: int | None) -> Mode:
    """Return the mode of that name with its random word; ArgumentError if a stochastic mode has none."""
    named = modes.rounding(rounding, random_bits)
    if not named.name.startswith("stochastic_"):
        return Mode(named.name)
    word = checked_integer("random", random, (1 << 32) - 1, f" when rounding={named.name!r}")
    return Mode(named.name, word, named.random_bits)


def checked_integer(argument: str, value: Any, largest: int, condition: str = "") -> int:
    """Return an integer argument from 0 to `largest`, or raise ArgumentError."""
    if isinstance(value, bool) or not hasattr(value, "__index__") or not 0 <= value.__index__() <= largest:
        raise ArgumentError(f"{argument}={value!r} must be an integer from 0 to {largest}{condition}.")
    return int(value.__index__())


def finite_number(value: Meaning) -> Fraction:
    """Return a meaning that is finite as a Fraction, "-0" as zero."""
    assert not isinstance(value, Real)
    return Fraction(0) if value == "-0" else Fraction(value)


def power_of_two(exponent: int) -> Fraction:
    """Return `2^exponent`."""
    return Fraction(1 << exponent) if exponent >= 0 else Fraction(1, 1 << -exponent)


def floor_log2(x: Fraction) -> int:
    """Return the largest `e` with `2^e <= x`, for positive `x`."""
    guess = x.numerator.bit_length() - x.denominator.bit_length()
    return guess if power_of_two(guess) <= x else guess - 1


def rounds_away(mode: Mode, nu: Fraction, negative: bool, odd: bool) -> bool:
    """Decide between two neighbours: true picks the one farther from zero.

    `nu` is the position between them, 0 at the one nearer zero; `odd` is the parity of that one's code.
    """
    if nu == 0:
        return False
    if mode.name.startswith("ties_to_"):
        if nu != HALF:
            return nu > HALF
        by_parity, by_sign = {"even": odd, "odd": not odd}, {"positive": not negative, "negative": negative}
        return {**by_parity, **by_sign, "away": True, "zero": False}[mode.name.removeprefix("ties_to_")]
    if mode.name.startswith("stochastic_"):
        return _stochastic(mode, nu)
    directed = {"toward_zero": False, "toward_positive": not negative, "toward_negative": negative, "to_odd": not odd}
    return mode.name == "away_from_zero" or directed[mode.name]


def _stochastic(mode: Mode, nu: Fraction) -> bool:
    """The formulas of IEEE P3109 (interim report 4.0) with R random and N bits; "equal" ignores `nu`."""
    n, r = mode.random_bits, mode.word >> (32 - mode.random_bits)
    if mode.name == "stochastic_a":
        return floor(nu * (1 << n)) + r >= 1 << n
    if mode.name == "stochastic_b":
        return floor(nu * (2 << n)) + 2 * r + 1 >= 2 << n
    if mode.name == "stochastic_c":
        return round(nu * (1 << n)) + r >= 1 << n  # Python rounds a Fraction half to even
    return mode.word >> 31 == 1


# Binary floating point


class Landmarks(NamedTuple):
    """What a float format's codes say about its ends."""

    largest_code: int
    largest: Fraction
    lowest: Fraction
    has_infinity: bool
    sign_bit: int


@lru_cache(maxsize=256)
def landmarks(fmt: Float) -> Landmarks:
    """Find the last finite code by bisection: along the non-negative codes, finite ones come first."""
    low, high = 0, 1 << (fmt.bits - fmt.signed)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if isinstance(fmt.meaning(middle), Fraction) else (low, middle)
    largest, first = fmt.meaning(low), fmt.meaning(0)
    assert isinstance(largest, Fraction)
    assert isinstance(first, Fraction)
    infinite = low + 1 < 1 << (fmt.bits - fmt.signed) and fmt.meaning(low + 1) == "inf"
    sign_bit = 1 << (fmt.bits - 1) if fmt.signed else 0
    return Landmarks(low, largest, -largest if fmt.signed else first, infinite, sign_bit)


def project_float(x: Rational, fmt: Float, mode: Mode, overflow: str) -> Rational:
    """Round once on the grid that is unbounded above, then apply the overflow mode. `x` is not NaN."""
    negative = x in ("-0", "-inf") or (isinstance(x, Fraction) and x < 0)
    if not fmt.zero and x != "inf" and (negative or x == 0):
        return "nan" if overflow == "infinity_or_nan" and fmt.has_nan else landmarks(fmt).lowest
    if x in ("inf", "-inf"):
        return _overflowed(negative, True, fmt, mode, overflow)
    magnitude = _round_magnitude(abs(x) if isinstance(x, Fraction) else Fraction(0), fmt, mode, negative)
    rounded = -magnitude if negative else magnitude
    if not landmarks(fmt).lowest <= rounded <= landmarks(fmt).largest:
        return _overflowed(negative, False, fmt, mode, overflow)
    return "-0" if negative and rounded == 0 and fmt.has_negative_zero else rounded


def _least_exponent(fmt: Float) -> int:
    """Exponent of the smallest normal values: that of exponent field 1, or 0 where that is no different."""
    assert fmt.bias is not None
    return (1 if fmt.zero and fmt.specials != "dlfloat" else 0) - fmt.bias


def _round_magnitude(a: Fraction, fmt: Float, mode: Mode, negative: bool) -> Fraction:
    assert fmt.bias is not None
    emin = _least_exponent(fmt)
    smallest_normal = power_of_two(emin)
    if fmt.specials == "dlfloat":  # the code that would be the power of two itself is zero
        smallest_normal += power_of_two(emin - fmt.mantissa_bits)
    if a < smallest_normal and not fmt.zero:
        return smallest_normal
    if a < smallest_normal and not fmt.subnormals:  # between 0, counted as even, and the smallest value
        return smallest_normal * rounds_away(mode, a / smallest_normal, negative, odd=False)
    exponent = max(floor_log2(a), emin) if a else emin
    quantum = power_of_two(exponent - fmt.mantissa_bits)
    steps = a // quantum
    # With a mantissa the code's last bit is the significand's; without one it is that of the exponent field.
    odd = bool((steps if fmt.mantissa_bits else exponent + fmt.bias) & 1)
    return (steps + rounds_away(mode, a / quantum - steps, negative, odd)) * quantum


def _overflowed(negative: bool, infinite: bool, fmt: Float, mode: Mode, overflow: str) -> Rational:
    """What becomes of a rounded value, or an infinity, beyond the finite range."""
    ends = landmarks(fmt)
    bound = ends.lowest if negative else ends.largest
    below_unsigned = negative and not fmt.signed
    infinity_exists = ends.has_infinity and not below_unsigned
    infinity = "-inf" if negative else "inf"
    if overflow == "saturate":
        return bound
    if overflow == "propagate":
        return infinity if infinite and infinity_exists else bound
    inward = mode.name in ("toward_zero", "toward_positive" if negative else "toward_negative")
    odd_end = mode.name == "to_odd" and ends.largest_code & 1 and not below_unsigned
    if not infinite and (inward or odd_end):
        return bound
    if infinity_exists:
        return infinity
    if fmt.specials == "p3109_finite" and not below_unsigned:  # P3109 keeps its NaN for what is not a number
        return bound
    return "nan" if fmt.has_nan else bound


def float_code(meaning: Meaning, fmt: Float) -> int:
    """Return the code of a value of the format, and check it against the format's own reading."""
    ends = landmarks(fmt)
    if isinstance(meaning, Fraction):
        code = _magnitude_code(abs(meaning), fmt) | (ends.sign_bit if meaning < 0 else 0)
    elif meaning == "nan":
        assert fmt.nan_code is not None
        code = fmt.nan_code
    else:
        code = (0 if meaning == "-0" else ends.largest_code + 1) | (0 if meaning == "inf" else ends.sign_bit)
    assert fmt.meaning(code) == meaning, f"{fmt.name}: {meaning} has no code"
    return code


def _magnitude_code(a: Fraction, fmt: Float) -> int:
    assert fmt.bias is not None
    if a == 0:
        return 0
    m, emin = fmt.mantissa_bits, _least_exponent(fmt)
    exponent = floor_log2(a)
    if exponent < emin:
        return int(a / power_of_two(emin - m))
    return ((exponent + fmt.bias) << m) + int(a / power_of_two(exponent - m)) - (1 << m)


# Integers and fixed point


def round_to_integer(x: Fraction, mode: Mode) -> int:
    """Round to an integer of any size; the parity is that of the integer nearer zero."""
    below = floor(abs(x))
    magnitude = below + rounds_away(mode, abs(x) - below, x < 0, bool(below & 1))
    return -magnitude if x < 0 else magnitude


def integer_range(fmt: Integer | Fixed) -> tuple[int, int]:
    """Return the smallest and largest integer that the format encodes to."""
    largest = (1 << (fmt.bits - fmt.signed)) - 1
    return (-largest - (not fmt.symmetric) if fmt.signed else 0), largest


def project_integer(x: Rational, fmt: Integer | Fixed, mode: Mode, overflow: str, saturation_bits: int) -> int:
    """Round `x * 2^fraction_bits` to an integer, then apply the overflow mode. `x` is not NaN."""
    number = {"-0": Fraction(0), "inf": BEYOND, "-inf": -BEYOND}[x] if isinstance(x, str) else x
    scaled = number * power_of_two(fmt.fraction_bits)
    n = round_to_integer(scaled, mode)
    lowest, largest = integer_range(fmt)
    if overflow == "saturate_symmetric" and fmt.signed:
        lowest = -largest
    if lowest <= n <= largest:
        return n
    if overflow == "saturate_zero":
        return 0
    if overflow in ("wrap", "wrap_sign_magnitude"):
        deleted = None if overflow == "wrap" else floor(scaled) >> fmt.bits & 1
        code = _wrap(n, fmt.bits, fmt.signed, saturation_bits, deleted)
        wrapped = code - (code >> (fmt.bits - 1) << fmt.bits) if fmt.signed else code
        return max(wrapped, lowest)  # a symmetric format does not encode its lowest code
    return min(max(n, lowest), largest)


def _wrap(n: int, bits: int, signed: bool, saturation_bits: int, deleted: int | None) -> int:
    """Keep the low bits; the top N, if any, take the pattern of the end that was passed (AP_WRAP).

    With `deleted`, the lowest bit dropped from the number before rounding, every second period runs backwards, its
    bits inverted (AP_WRAP_SM).
    """
    negative, kept = n < 0, (1 << (bits - saturation_bits)) - 1
    if deleted is not None:
        deciding = n >> (bits - max(saturation_bits, 1)) & 1  # the lowest bit that a pattern replaces, or the top bit
        inverted = {0: deciding != deleted, 1: deciding != negative}.get(saturation_bits, deciding == negative)
        n = ~n if inverted else n
    return n & kept | _end_pattern(negative, bits, signed, saturation_bits)


def _end_pattern(negative: bool, bits: int, signed: bool, count: int) -> int:
    """The top `count` bits of the largest or, if negative, the most negative code; all ones where unsigned."""
    top = ((1 << count) - 1) << (bits - count)
    sign_bit = 1 << (bits - 1)
    return top if not signed else top & (sign_bit if negative else ~sign_bit)


# Codebooks


def project_codebook(x: Rational, fmt: Codebook, mode: Mode) -> Fraction:
    """Pick one of the two neighbouring values; beyond the ends, the end. `x` is not NaN."""
    values = [Fraction(v) for v in fmt.values]
    if isinstance(x, str):
        x = {"-0": Fraction(0), "inf": values[-1], "-inf": values[0]}[x]
    if x <= values[0] or x >= values[-1]:
        return values[0] if x <= values[0] else values[-1]
    below = bisect_right(values, x) - 1
    lower, upper = values[below], values[below + 1]
    if x == lower:
        return lower
    threshold = Fraction(fmt.thresholds[below]) if fmt.thresholds else None
    up = _picks_upper(x, lower, upper, (fmt.codes[below] & 1, fmt.codes[below + 1] & 1), threshold, mode)
    return upper if up else lower


def _picks_upper(
    x: Fraction, lower: Fraction, upper: Fraction, odd: tuple[int, int], threshold: Fraction | None, mode: Mode
) -> bool:
    upper_is_smaller = abs(upper) <= abs(lower)  # of equal magnitudes the upper one counts as both smaller
    upper_is_larger = abs(upper) >= abs(lower)  # and larger
    odd_upper = odd[1] > odd[0]
    if mode.name.startswith("ties_to_"):
        if threshold is not None:
            return x > threshold
        if x - lower != upper - x:
            return x - lower > upper - x
        by_parity = {"even": not odd_upper, "odd": odd_upper}
        rules = {"away": upper_is_larger, "zero": upper_is_smaller, "positive": True, "negative": False}
        rule = mode.name.removeprefix("ties_to_")
        return rules[rule] if rule in rules else by_parity[rule] if odd[0] != odd[1] else upper_is_smaller
    if mode.name.startswith("stochastic_"):
        lower_is_base = abs(lower) <= abs(upper)
        moves = _stochastic(mode, abs(x - (lower if lower_is_base else upper)) / (upper - lower))
        return moves == lower_is_base
    if mode.name == "to_odd":
        return odd_upper if odd[0] != odd[1] else upper_is_larger
    # Toward zero is where stochastic rounding starts, so of equal magnitudes it picks the lower one.
    directed = {"toward_positive": True, "toward_negative": False, "toward_zero": not upper_is_larger}
    return directed.get(mode.name, upper_is_larger)


# All families whose values are rational


def project_code(value: Rational, form: ScalarFormat, mode: Mode, overflow: str, saturation_bits: int = 0) -> int:
    """Return the code of a number that is not NaN, by the rules of the format's family."""
    if isinstance(form, Float):
        return float_code(project_float(value, form, mode, overflow), form)
    if isinstance(form, Integer | Fixed):
        n = project_integer(value, form, mode, overflow, saturation_bits)
        code = n % (1 << form.bits)
        assert form.meaning(code) == n / power_of_two(form.fraction_bits)
        return code
    assert isinstance(form, Codebook)
    result = project_codebook(value, form, mode)
    return next(code for code in form.codes if form.meaning(code) == result)
