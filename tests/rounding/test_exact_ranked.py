"""The exact oracle on posits, takums and logarithmic numbers: worked values, vectors of other programs, definitions.

The worked values are those of the Posit Standard (2022), of Gustafson and Yonemoto (2017) and of arXiv:2404.18603.
"""

import math
from bisect import bisect_right
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest

from lowp._errors import FormatError, RangeError
from lowp.formats import parse
from lowp.formats.exact_real import Real
from lowp.formats.ranked import RankedFormat, TaperedFormat
from lowp.rounding.exact import decode, encode, error, exact_value, neighbours, quantize
from lowp.rounding.modes import ROUNDING_MODES
from tests.rounding.test_exact_vectors import sample
from tests.rounding.vector_formats import Vectors

NONE = "infinity_or_nan"
#: Irrational values, no zero and no sign of the exponent are among them.
SMALL = ["posit6_es2", "posit5_es0", "takum7_linear", "takum7_log", "lns6_f1", "lns6_f2_linear", "lns6_gamma3_unsigned",
         "lns6_f2_unsigned_nozero"]  # fmt: skip

VALUES = {
    "posit8_es0": "00=0 01=1/64 03=3/64 0f=15/64 1f=31/64 41=33/32 48=5/4 5f=63/32 6f=31/8 7c=16 7f=64 81=-64 a0=-2 "
    "b0=-3/2 c1=-63/64 ff=-1/64",
    "posit8_es1": "01=2^-12 02=2^-10 03=2^-9 20=1/4 41=17/16 50=2 7e=1024 7f=4096",
    "posit8_es2": "01=2^-24 02=2^-20 05=2^-15 08=2^-12 0a=2^-11 18=2^-6 3f=15/16 47=15/8 5f=15 62=24 7d=2^18 7e=2^20 "
    "7f=2^24 81=-2^24 b8=-2 ff=-2^-24",
    "posit16_es1": "0001=2^-28 0003=2^-25 1000=1/16 2800=3/8 3001=4097/8192 4001=4097/4096 7ffd=2^25 8001=-2^28",
    "posit16_es2": "0001=2^-56 0005=2^-47 3fff=4095/4096 4001=2049/2048 5c90=201/16 7ffc=2^48 7fff=2^56 b800=-2",
    "posit32_es2": "00000001=2^-120 00000002=2^-116 44000000=3/2 7ffffffe=2^116 7fffffff=2^120",
    "posit4_es1": "1=1/16 2=1/4 3=1/2 4=1 5=2 6=4 7=16 9=-16 f=-1/16",
    "takum8_linear": "01=2^-239 02=2^-223 08=2^-127 20=2^-15 2c=1/32 3a=5/8 3f=15/16 41=9/8 4a=3 64=2^23 7f=2^239 "
    "81=-2^239 bc=-3/2 c1=-15/16 c8=-1/2 ff=-2^-239",
    "takum16_linear": "1000=2^-63 3000=1/8 3c00=3/4 4001=2049/2048 4c00=4 c000=-1",
}
ROUNDED = {
    "posit8_es0": "1/128=01 2^-19=01 3/128=02 1/10=06 1/3=15 129/128=40 65/64=40 67/64=42 -65/64=c0 22/7=69 20=7c "
    "24=7d 47=7e 48=7e 49=7f 1000000000=7f",
    "posit8_es2": "17/16=40 19/16=42 1/10=25 1/3=33 22/7=4d 100=6a 1000=74 2^19=7e 2^21=7e 2^22=7e 2^23=7f 2^25=7f "
    "2^-22=02 2^-23=01 2^-100=01",
    "posit16_es1": "1/10=14cd 1/3=2555 355/113=5922 2^26=7ffe 2^27=7ffe 134217729=7fff 2^-27=0002 2^-29=0001",
    "posit16_es2": "1/10=24cd 1/3=32ab 355/113=4c91 2^49=7ffc 2^50=7ffd 2^54=7ffe 2^57=7fff 2^-54=0002 2^-57=0001",
    "posit32_es2": "1/10=24cccccd 1/3=32aaaaab 355/113=4c90fdbc 2^118=7ffffffe 2^121=7fffffff",
    "takum8_linear": "1/3=35 1/10=2f 22/7=4a 17/16=40 -22/7=b6 100=57 2^300=7f -2^-300=ff",
    "takum16_linear": "1/3=3555 1/10=2f33 22/7=4a49 17/16=4080 -22/7=b5b7 100=5720",
}
#: Codes of takum8_log and their exponents of sqrt(e).
TAKUM8_LOG = "01=-239 20=-15 30=-3 38=-1 3c=-1/2 41=1/8 44=1/2 48=1 50=3 60=15 7f=239"


def number(text: str) -> Fraction:
    """Read "-3/4" or "2^-12"."""
    if text.startswith("-"):
        return -number(text[1:])
    base, _, power = text.partition("^")
    return Fraction(base) ** int(power or 1)


def pairs(text: str) -> list[tuple[str, str]]:
    """Split "a=b c=d"."""
    return [(a, b) for a, _, b in (item.partition("=") for item in text.split())]


@pytest.mark.parametrize("name", VALUES)
def test_values_of_codes(name: str) -> None:
    assert [decode(int(code, 16), name) for code, _ in pairs(VALUES[name])] == [
        number(v) for _, v in pairs(VALUES[name])
    ]
    assert decode(1 << (parse(name).bits - 1), name) == "nan"


@pytest.mark.parametrize("name", ROUNDED)
def test_rounding_to_nearest_on_the_bit_string(name: str) -> None:
    assert [(x, f"{encode(number(x), name):0{parse(name).bits // 4}x}") for x, _ in pairs(ROUNDED[name])] == pairs(
        ROUNDED[name]
    )


def test_logarithmic_takum_is_a_power_of_the_root_of_e() -> None:
    for code, power in pairs(TAKUM8_LOG):
        value = Real.power_of_e(Fraction(power) / 2)
        assert decode(int(code, 16), "takum8_log") == value
        assert encode(value, "takum8_log") == int(code, 16)
        assert encode(-value, "takum8_log") == 256 - int(code, 16)


# Vectors of SoftPosit, universal and libtakum


_POSITS = ["softposit/posit8_es0", "softposit/posit16_es1", "softposit/posit32_es2", "softposit/posit3_es2_pX2",
           "softposit/posit5_es2_pX2", "softposit/posit12_es2_pX2", "softposit/posit20_es2_pX2",
           "universal_posit/posit5_es1", "universal_posit/posit9_es3", "universal_posit/posit10_es0",
           "universal_posit/posit16_es3", "universal_posit/posit24_es1"]  # fmt: skip
_TAKUMS = ["libtakum/takum_linear8", "libtakum/takum_linear16", "libtakum/takum_linear32", "libtakum/takum_log8",
           "libtakum/takum_log16", "libtakum/takum_log32", "universal_takum/takum_linear8",
           "universal_takum/takum_linear12", "universal_takum/takum_log8", "universal_takum/takum_log12",
           "universal_takum/takum_log16"]  # fmt: skip


@pytest.mark.parametrize("file", [*_POSITS, *_TAKUMS])
def test_vectors(vectors: Vectors, file: str) -> None:
    """Suspect entries are those where the other program rounds twice; log takums go through its libm."""
    arrays, name = vectors(file), file.split("/")[1].removesuffix("_pX2")
    logarithmic = "log" in name
    count = 25 if logarithmic else 300
    suspect = arrays.get("from_f64_suspect", np.zeros(len(arrays["from_f64_in"]), bool))
    for i in sample(len(suspect), count):
        x, theirs = float(arrays["from_f64_in"][i]), int(arrays["from_f64_out"][i])
        flushed = file.startswith("universal_takum") and theirs == 0 and x != 0  # universal underflows to zero
        if not (suspect[i] or flushed):
            mine = encode(x, name)
            assert mine == theirs or (logarithmic and beside_a_tie(x, name)), (x, mine, theirs)
    for i in sample(len(arrays["decode_codes"]), count):
        value, theirs = decode(int(arrays["decode_codes"][i]), name), float(arrays["decode_f64"][i])
        if isinstance(value, str):
            assert not math.isfinite(theirs)
        else:
            assert abs(float(value) - theirs) <= (abs(float(value)) * 2.0**-46 if logarithmic else 0), (
                i,
                value,
                theirs,
            )


def beside_a_tie(x: float, name: str) -> bool:
    """Whether numbers within libm's error of `x` round to different codes."""
    slack = Fraction(x) * Fraction(1, 2**46)
    return encode(Fraction(x) - slack, name) != encode(Fraction(x) + slack, name)


@pytest.mark.parametrize("kind", ["linear", "log"])
def test_narrower_takums_of_takums(vectors: Vectors, kind: str) -> None:
    """A conversion to fewer bits cuts the bit string, so that half of a last bit is an exact tie of irrationals."""
    arrays = vectors(f"libtakum/takum_{kind}16")
    for i in sample(65536, 150):
        value = decode(int(arrays["to_takum8_in"][i]), f"takum16_{kind}")
        assert encode(value, f"takum8_{kind}") == int(arrays["to_takum8_out"][i])


# Every mode, against its definition


def gaps(fmt: RankedFormat) -> list[tuple[int, Fraction | Real, Fraction | Real]]:
    """Rank, lower and upper value of pairs of neighbours, of all where they are few; zero has rank -1."""
    ends = [fmt.rank_value(rank) for rank in range(fmt.ranks)]
    first = [(-1, Fraction(0), ends[0])] if fmt.decision_point(-1) is not None else []
    found = first + [(rank, *pair) for rank, pair in enumerate(pairwise(ends))]
    return found[:: 1 if len(found) < 64 and isinstance(ends[1], Fraction) else 7]


def code_of(fmt: RankedFormat, rank: int, negative: bool) -> int:
    return fmt.rank_code(rank, negative) if rank >= 0 else int(fmt.zero_code or 0)


@pytest.mark.parametrize("negative", [False, True])
@pytest.mark.parametrize("name", SMALL)
def test_deterministic_modes_in_every_gap(name: str, negative: bool) -> None:
    fmt = parse(name)
    assert isinstance(fmt, RankedFormat)
    tiny, sign = Fraction(1, 2**70), -1 if negative else 1
    for rank, lower, upper in gaps(fmt):
        codes = code_of(fmt, rank, negative), code_of(fmt, rank + 1, negative)
        odd = rank >= 0 and bool(codes[0] & 1)
        turn = fmt.decision_point(rank)
        tie = {"even": odd, "odd": not odd, "away": True, "zero": False, "positive": not negative, "negative": negative}
        for x, side in ((turn * (1 - tiny), False), (turn, None), (turn * (1 + tiny), True)):
            assert lower < x < upper
            for rule, up in tie.items():
                assert encode(x * sign, fmt, f"ties_to_{rule}") == codes[up if side is None else side]
        for x in (lower + (upper - lower) * tiny, upper * (1 - tiny)):
            directed = {"toward_zero": False, "away_from_zero": True, "toward_positive": not negative}
            directed |= {"toward_negative": negative, "to_odd": not odd}
            assert [encode(x * sign, fmt, mode) for mode in directed] == [codes[up] for up in directed.values()]
        assert {encode(upper * sign, fmt, m, random=2**32 - 1) for m in ROUNDING_MODES} == {codes[1]}


@pytest.mark.parametrize("name", SMALL)
def test_stochastic_modes_count_the_position(name: str) -> None:
    """Over all 2^N integers R as many round away from zero as the position has units of 2^-N, cut or rounded."""
    fmt = parse(name)
    assert isinstance(fmt, RankedFormat)
    bits, logarithmic = 4, "log" in name or (name.startswith("lns") and not name.endswith("linear"))
    for rank, lower, upper in gaps(fmt)[::5]:
        in_logarithm = logarithmic and rank >= 0
        for part in (
            Fraction(0),
            Fraction(1, 9),
            Fraction(5, 32),
            Fraction(3, 8),
            Fraction(31, 32),
            Fraction(499, 500),
        ):
            x = (
                Real.of(lower) * (Real.of(upper) / lower).to_power(part)
                if in_logarithm
                else lower + (upper - lower) * part
            )
            wanted = {"a": math.floor(part * 16), "b": math.floor(part * 16 + Fraction(1, 2)), "c": round(part * 16)}
            for variant, count in wanted.items():
                codes = [encode(x, fmt, f"stochastic_{variant}", random=r << 28, random_bits=bits) for r in range(16)]
                assert codes == sorted(codes, key=(code_of(fmt, rank, False), code_of(fmt, rank + 1, False)).index)
                assert codes.count(code_of(fmt, rank + 1, False)) == count, (part, variant)


@pytest.mark.parametrize("mode", ROUNDING_MODES)
def test_posits_and_takums_saturate_at_both_ends_in_every_mode(mode: str) -> None:
    for name in ("posit8_es2", "takum8_linear", "takum8_log"):
        fmt = parse(name)
        assert isinstance(fmt, TaperedFormat)
        for overflow in ("saturate", "propagate", NONE):
            options = {"rounding": mode, "overflow": overflow, "random": 0}
            assert [encode(x, fmt, **options) for x in (2.0**300, -(2.0**300), 5e-324, -5e-324)] == [127, 129, 1, 255]
            assert {encode(x, fmt, **options) for x in (math.inf, -math.inf, math.nan)} == {128}
            assert {encode(x, fmt, **options) for x in (0, -0.0)} == {0}


# Logarithmic numbers


@pytest.mark.parametrize(("gamma", "log_turn", "linear_turn"), [(1, 1.41421, 1.5), (8, 1.04427, 1.04525)])
def test_lns_decides_in_the_domain_it_names(gamma: int, log_turn: float, linear_turn: float) -> None:
    for suffix, turn in (("", log_turn), ("_linear", linear_turn)):
        name = f"lns12_f{gamma.bit_length() - 1}{suffix}"
        assert [encode(turn + slack, name) for slack in (-1e-5, 1e-5)] == [0, 1]


def test_lns_addition_tables_are_roundings_of_exact_sums() -> None:
    """Gauss logarithms log2(1 +- 2^(z/8)) in eighths, z = 0, -1, ... and -1, -2, ...: the table of LNS with F = 3."""
    sums = [8, 8, 7, 7, 6, 6, 5, 5, 5, 4, 4, 4, 3, 3, 3, 3, 3, 2, 2, 2, 2, 2, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1]
    differences = [-29, -21, -17, -14, -12, -10, -9, -8, -7, -6, -6, -5, -5, -4, -4, -3, -3, -3, -2, -2, -2, -2, -2, -2]
    powers = [Real.power_of_two(Fraction(-z, 8)) for z in range(32)]
    assert [encode(1 + p, "lns12_f3") for p in powers] == sums
    assert [encode(1 - p, "lns12_f3") for p in powers[1:25]] == [d % 2048 for d in differences]


def test_lns_ends() -> None:
    """8 bits with 3 of fraction: 2^-7.875 to 2^7.875, zero 0x40, NaN 0xC0; the largest code is odd."""
    largest, least = Real.power_of_two(Fraction(63, 8)), Real.power_of_two(Fraction(-63, 8))
    assert decode(0x3F, "lns8_f3") == largest
    assert decode(0x41, "lns8_f3") == least
    above = {
        "ties_to_even": 0xC0,
        "toward_zero": 0x3F,
        "toward_negative": 0x3F,
        "toward_positive": 0xC0,
        "to_odd": 0x3F,
    }
    for mode, code in above.items():
        assert encode(2.0**9, "lns8_f3", mode, NONE) == code
        assert encode(2.0**9, "lns8_f3", mode) == 0x3F
        assert encode(math.inf, "lns8_f3", mode, NONE) == 0xC0
        assert encode(-math.inf, "lns8_f3", mode, "propagate") == 0xBF
    turn = Real.power_of_two(Fraction(127, 16))
    assert [encode(turn * scale, "lns8_f3", "ties_to_zero", NONE) for scale in (1, Fraction(10001, 10000))] == [
        0x3F,
        0xC0,
    ]
    below = {"ties_to_even": 0x40, "ties_to_away": 0x41, "toward_zero": 0x40, "away_from_zero": 0x41, "to_odd": 0x41}
    tie = Real.power_of_two(Fraction(-127, 16))
    assert {mode: encode(tie, "lns8_f3", mode) for mode in below} == below
    assert encode(-tie, "lns8_f3", "toward_negative") == 0xC1
    assert encode(least * Fraction(1, 2), "lns8_f3_linear") == 0x40


def test_lns_madam_without_zero() -> None:
    """Eight bits, gamma 8: exponents 0 to 127 eighths; what is smaller, zero included, becomes 1."""
    for x in (0, -0.0, 1e-9, 1, Fraction(1, 2)):
        assert encode(x, "lns_madam") == 0
    assert [encode(x, "lns_madam") for x in (-0.3, 2, -4, 1e6, -math.inf)] == [0x80, 8, 0x90, 0x7F, 0xFF]
    assert encode(1e6, "lns_madam", overflow=NONE) == 0x7F
    with pytest.raises(RangeError, match="no NaN"):
        encode(math.nan, "lns_madam")
    assert quantize(math.nan, "lns_madam") == "nan"


# Irrational numbers, neighbours, errors


def test_irrational_numbers_round_into_every_family() -> None:
    root = Real.power_of_two(Fraction(1, 2))
    assert exact_value(root) is root
    assert exact_value(root * root) == Fraction(2)
    assert quantize(root, "float32") == Fraction(float(np.float32(math.sqrt(2))))
    assert quantize(-root, "float8_e4m3fn", "toward_negative") == Fraction(-3, 2)
    assert [encode(root * 3, "int4", mode) for mode in ("toward_zero", "away_from_zero")] == [4, 5]
    assert encode(root * (1 << 200), "int8", "toward_zero", "wrap") == math.isqrt(2 << 400) % 256
    assert quantize(root, "nf4") == 1
    assert encode(root, "float8_e4m3fn", "stochastic_a", random=0) == encode(1.375, "float8_e4m3fn")
    assert encode(root, "float8_e4m3fn", "stochastic_a", random=2**32 - 1) == encode(1.5, "float8_e4m3fn")


def test_neighbours_and_errors() -> None:
    assert neighbours(1e-9, "posit8_es2") == (0, Fraction(1, 2**24))
    assert neighbours(-(2.0**30), "posit8_es2") == (None, -(2**24))
    assert neighbours(math.inf, "posit8_es2") == (2**24, None)
    assert neighbours(-1.1, "posit8_es2") == (Fraction(-9, 8), -1)
    assert neighbours(0, "posit8_es2") == (0, 0)
    assert neighbours(0, "lns_madam") == (-1, 1)
    lower, upper = neighbours(1.05, "takum8_log")
    assert (lower, upper) == (1, Real.power_of_e(Fraction(1, 16)))
    assert error(3, "posit4_es1") == 1  # a tie: 4 has the even code
    assert error(1, "lns8_f3") == 0
    assert error(Fraction(11, 10), "lns8_f3") == Real.power_of_two(Fraction(1, 8)) - Fraction(11, 10)
    with pytest.raises(FormatError, match="for integers"):
        encode(1, "posit8_es2", overflow="wrap")


@pytest.mark.parametrize("name", ["posit5_es1", "takum8_log", "lns7_f2"])
def test_nearest_agrees_with_a_search_among_float64_thresholds(name: str) -> None:
    fmt = parse(name)
    assert isinstance(fmt, RankedFormat)
    turns = [
        float(fmt.decision_point(rank)) for rank in range(-1, fmt.ranks - 1) if fmt.decision_point(rank) is not None
    ]
    first = -1 if fmt.decision_point(-1) is not None else 0
    for x in np.exp2(np.random.default_rng(5).uniform(-20, 20, 150)).tolist():
        assert encode(x, fmt) == code_of(fmt, bisect_right(turns, x) + first, False)
