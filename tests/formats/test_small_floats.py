"""Small floats of hardware and papers, P3109 in every width, and fixed point beyond float64."""

import math
import sys
from fractions import Fraction
from itertools import product

import gfloat
import numpy as np
import pytest
from gfloat.formats import format_info_p3109
from tests.conftest import Vectors
from tests.rounding import inputs
from tests.rounding.oracle import Oracle

import lowp
from lowp._errors import FormatError, PrecisionWarning, RangeError
from lowp.formats import Fixed, Float, parse
from lowp.formats.spec import finite_values
from lowp.rounding import exact
from lowp.rounding.modes import ROUNDING_MODES
from lowp.rounding.random_bits import word

DETERMINISTIC = [m for m in ROUNDING_MODES if not m.startswith("stochastic")]
STOCHASTIC = [m for m in ROUNDING_MODES if m.startswith("stochastic")]


def facts(name: str) -> tuple[int, float, float, float]:
    """Bits, largest, smallest normal and smallest positive value."""
    fmt = parse(name)
    assert isinstance(fmt, Float)
    return fmt.bits, fmt.max, fmt.smallest_normal, fmt.smallest_subnormal


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        # IBM DLFloat, Agrawal et al., ARITH 2019: 1-6-9, bias 31, no subnormals, NaN and infinity merged
        ("dlfloat16", (16, (1 + 510 / 512) * 2.0**32, 2.0**-31 * (1 + 1 / 512), 2.0**-31 * (1 + 1 / 512))),
        # Pixar's PXR24 compression of OpenEXR: binary32 less 8 bits
        ("pxr24", (24, (2 - 2.0**-15) * 2.0**127, 2.0**-126, 2.0**-141)),
        # ATI R300: 1-7-16, bias 63, no subnormals
        ("amd_fp24", (24, (2 - 2.0**-16) * 2.0**63, 2.0**-62, 2.0**-62)),
        # IBM HFP8, Sun et al., NeurIPS 2019: 1-4-3 with bias 4, 1-5-2
        ("hfp8_143", (8, 1.75 * 2.0**11, 2.0**-3, 2.0**-6)),
        ("hfp8_152", (8, 1.5 * 2.0**16, 2.0**-14, 2.0**-16)),
        # tilus, dtypes/floats_subbyte.py: bias 2^(e-1) - 1, no infinity or NaN but for 5 exponent bits
        ("tilus_float3_e1m1", (3, 3.0, 2.0, 1.0)),
        ("tilus_float5_e2m2", (5, 7.0, 1.0, 0.25)),
        ("tilus_float5_e3m1", (5, 24.0, 0.25, 0.125)),
        ("tilus_float6_e4m1", (6, 384.0, 2.0**-6, 2.0**-7)),
        ("tilus_float7_e2m4", (7, 7.75, 1.0, 2.0**-4)),
        ("tilus_float7_e3m3", (7, 30.0, 0.25, 2.0**-5)),
        ("tilus_float7_e4m2", (7, 448.0, 2.0**-6, 2.0**-8)),
        ("tilus_float7_e5m1", (7, 49152.0, 2.0**-14, 2.0**-15)),
        # unsigned scale formats
        ("ue4m4", (8, 248.0, 2.0**-6, 2.0**-10)),
        ("ue4m5f", (9, 504.0, 2.0**-6, 2.0**-11)),
        ("tf32", (19, 3.4011621342146535e38, 2.0**-126, 2.0**-136)),
    ],
)
def test_limits_are_the_published_ones(name: str, expected: tuple[int, float, float, float]) -> None:
    assert facts(name) == expected
    assert parse(parse(name).name) == parse(name)


def test_ue5m3_has_three_codebooks() -> None:
    """Hu et al., Elucidating the Design Space of FP4 training, arXiv:2509.17791; AMD's specials."""
    fmt = parse("float8_ue5m3fn")
    assert [fmt.meaning(code) for code in (1, 8, 0xFE, 0xFF)] == [Fraction(1, 2**17), Fraction(1, 2**14), 114688, "nan"]
    assert [parse(name).max for name in ("float8_ue5m3f", "float8_ue5m3")] == [122880, 61440]
    x = [-1.0, 2 * 114688.0, math.inf]
    assert lowp.encode(x[1:], fmt, overflow="infinity_or_nan").codes.tolist() == [0xFF, 0xFF]
    assert lowp.encode(x[:1], fmt).codes.tolist() == [0]


@pytest.mark.parametrize(("mode", "rounded"), [("ties_to_away", True), ("toward_zero", False)])
def test_tf32_by_both_conversions(mode: str, rounded: bool) -> None:
    """`cvt.rna.tf32.f32` adds half a unit to the magnitude; the matrix units drop 13 bits."""
    bits = np.random.default_rng(0).integers(0, 0x7F000000, 20000, dtype=np.uint32) | np.uint32(0)
    bits = np.concatenate([bits, bits | np.uint32(0x80000000), bits & np.uint32(0xFFFFE000) | np.uint32(0x1000)])
    wanted = (bits + np.uint32(0x1000 if rounded else 0)) & np.uint32(0xFFFFE000)
    assert np.array_equal(lowp.quantize(bits.view(np.float32), "tf32", mode).view(np.uint32), wanted)


# DLFloat


def test_dlfloat_codes_of_exponent_zero_are_normal_but_for_zero() -> None:
    fmt = parse("dlfloat16")
    tiny = Fraction(1, 2**31)
    assert [fmt.meaning(c) for c in (0, 1, 0x1FF, 0x200)] == [0, tiny * 513 / 512, tiny * 1023 / 512, 2 * tiny]
    assert [fmt.meaning(c) for c in (0x7FFE, 0x7FFF, 0x8000, 0xFFFF)] == [fmt.max, "nan", "-0", "nan"]
    decoded = lowp.values("dlfloat16")
    meanings = [fmt.meaning(code) for code in range(1 << 16)]
    expected = np.array([float(m) for m in meanings])
    assert np.array_equal(decoded, expected, equal_nan=True)
    assert np.array_equal(np.signbit(decoded[:0xFFFF]), np.arange(0xFFFF) >= 0x8000)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", ["e3m2dl", "e4m3b9dl"])
@pytest.mark.parametrize("overflow", ["saturate", "infinity_or_nan"])
def test_dlfloat_rounds_as_the_oracle_says(name: str, dtype: type, overflow: str) -> None:
    fmt = parse(name)
    assert isinstance(fmt, Float)
    x = inputs.mixed(dtype, 5000, fmt)
    oracle = Oracle(x, fmt)
    decoded = lowp.values(fmt)
    for mode in DETERMINISTIC:
        codes = oracle.codes(mode, overflow)
        assert np.array_equal(lowp.encode(x, fmt, mode, overflow).codes, codes), mode
        values = lowp.quantize(x, fmt, mode, overflow)
        assert values.dtype == dtype
        assert np.array_equal(values, decoded[codes].astype(dtype), equal_nan=True), mode


@pytest.mark.parametrize("mode", STOCHASTIC)
def test_dlfloat_rounds_stochastically_in_its_gap_as_the_oracle_says(mode: str) -> None:
    fmt = parse("dlfloat16")
    x = np.random.default_rng(0).uniform(-1, 1, 300) * 2.0**-31
    codes = lowp.encode(x, fmt, mode, seed=5, random_bits=6).codes
    for i, (value, code) in enumerate(zip(x.tolist(), codes.tolist(), strict=True)):
        assert code == exact.encode(value, fmt, mode, random=word(5, i), random_bits=6)


def test_dlfloat_nearest_up_at_the_smallest_value() -> None:
    smallest = parse("dlfloat16").smallest_normal
    x = np.array([smallest / 2, np.nextafter(smallest / 2, 0), 2.0**-31, smallest * (1 - 2.0**-40)])
    assert lowp.quantize(x, "dlfloat16", "ties_to_away").tolist() == [smallest, 0, smallest, smallest]
    assert lowp.quantize(-x.astype(np.float32), "dlfloat16").tolist() == [-0.0, -0.0, -smallest, -smallest]


# P3109


def p3109_names(k: int) -> list[str]:
    """Every name of a width; with 2 bits, extended formats have room for a number beside zero only without a sign."""
    signed = [f"p3109_{k}p{p}s{domain}" for p in range(1, k) for domain in "ef" if k > 2 or domain == "f"]
    return signed + [f"p3109_{k}p{p}u{domain}" for p in range(1, k + 1) for domain in "ef"]


@pytest.mark.parametrize("k", range(2, 16))
def test_every_p3109_name_is_a_format(k: int) -> None:
    for name in p3109_names(k):
        fmt = parse(name)
        assert isinstance(fmt, Float)
        assert (fmt.bits, fmt.name) == (k, name.replace("p3109_", "binary"))
        assert parse(fmt.name) == fmt
        one = 1 << (k - 1 - fmt.signed)
        assert fmt.meaning(one) == (1 if one <= fmt.max_code else "inf")


def test_p3109_signed_two_bits_extended_has_no_room() -> None:
    with pytest.raises(FormatError, match="no finite value besides zero"):
        parse("p3109_2p1se")


def test_p3109_decodes_as_gfloat_at_the_vectors_commit(vectors: Vectors) -> None:
    tables = vectors("gfloat/p3109_decode")
    assert len(tables) == 94
    for name, expected in tables.items():
        k, sign, domain = name.split("_")
        got = lowp.values(f"binary{k[1:]}{sign[0]}{domain[0]}".lower())
        assert np.array_equal(got, expected, equal_nan=True), name


@pytest.mark.parametrize("k", range(3, 10))
def test_p3109_decodes_as_gfloat_from_pypi(k: int) -> None:
    for name in p3109_names(k):
        p, signed, extended = int(name.split("p")[2][:-2]), "s" in name[-2:], name.endswith("e")
        domain = gfloat.Domain.Extended if extended else gfloat.Domain.Finite
        info = format_info_p3109(k, p, gfloat.Signedness.Signed if signed else gfloat.Signedness.Unsigned, domain)
        expected = gfloat.decode_ndarray(info, np.arange(1 << k))
        assert np.array_equal(lowp.values(name), expected, equal_nan=True), name


#: Largest and smallest positive values: IEEE P3109 interim report 4.0, tables of extreme values.
EXTREMES = {
    "8p1se": (2.0**62, 2.0**-63), "8p1sf": (2.0**63, None), "8p2se": (2.0**31, 2.0**-32), "8p3se": (49152, 2.0**-17),
    "8p3sf": (57344, None), "8p4se": (224, 2.0**-10), "8p4sf": (240, None), "8p5se": (15, 2.0**-7),
    "8p5sf": (15.5, None),
    "8p6se": (31 / 8, 2.0**-6), "8p7se": (63 / 32, 2.0**-6), "6p3se": (12, 2.0**-5), "6p3sf": (14, None),
    "6p4se": (3.5, 2.0**-4), "4p2se": (2, 0.25), "4p2sf": (3, None), "4p3sf": (1.75, None), "3p1sf": (2, 0.5),
    "8p1ue": (2.0**125, 2.0**-127), "8p1uf": (2.0**126, None), "8p3uf": (1.5 * 2.0**31, 2.0**-33),
    "8p4ue": (53248, 2.0**-18), "8p4uf": (57344, None), "8p8uf": (127 / 64, 2.0**-7), "4p2uf": (8, 2.0**-4),
}  # fmt: skip


@pytest.mark.parametrize("name", EXTREMES)
def test_p3109_extremes_and_what_lies_beyond_them(name: str) -> None:
    fmt = parse(f"p3109_{name}")
    assert isinstance(fmt, Float)
    largest, smallest = EXTREMES[name]
    assert fmt.max == largest
    assert smallest is None or fmt.smallest_subnormal == smallest
    inf, nan, signed, extended = math.inf, math.nan, "s" in name, name.endswith("e")
    lowest = -largest if signed else 0.0
    x = [inf, -inf, largest * 4, -largest * 4]
    rules = {
        "SatFinite": [largest, lowest, largest, lowest],
        "SatPropagate": [inf if extended else largest, -inf if extended and signed else lowest, largest, lowest],
        "SatNone": [
            inf if extended else largest,
            (-inf if extended else lowest) if signed else nan,
            inf if extended else largest,
            (-inf if extended else lowest) if signed else nan,
        ],
    }
    for rule, expected in rules.items():
        np.testing.assert_array_equal(lowp.quantize(x, fmt, overflow=rule), expected, err_msg=rule)
    inward = [largest, lowest]
    assert lowp.quantize(x[2:], fmt, "toward_zero", "SatNone").tolist() == inward
    odd = lowp.quantize(x[2:3], fmt, "ToOdd", "SatNone").tolist()
    assert odd == [largest if not signed or not extended else inf]


@pytest.mark.parametrize("name", ["p3109_11p1ue", "p3109_12p1sf", "p3109_13p2se", "p3109_15p2ue", "p3109_15p1se"])
@pytest.mark.parametrize("mode", ["ties_to_even", "to_odd", "toward_positive", "stochastic_b"])
def test_p3109_ranges_past_that_of_float64_encode_exactly(name: str, mode: str) -> None:
    """Float64's subnormals are normal numbers there, and its largest numbers round to values that it lacks."""
    rng = np.random.default_rng(1)
    x = np.ldexp(rng.uniform(0.5, 2, 60), rng.integers(-1074, 1023, 60))
    x = np.concatenate(
        [x, x[:20] * 2.0**-1000, [5e-324, 2.0**-1023, 3 * 2.0**-1024, sys.float_info.max, 0.0, math.inf]]
    )
    codes = lowp.encode(x, name, mode, seed=3).codes
    expected = [exact.encode(v, name, mode, random=word(3, i)) for i, v in enumerate(x.tolist())]
    assert codes.tolist() == expected
    decoded = lowp.decode(codes, name)
    assert np.array_equal(decoded, lowp.quantize(x, name, mode, seed=3))


def test_p3109_values_past_float64_are_the_nearest_float64() -> None:
    fmt = parse("p3109_15p1se")
    assert (fmt.max, fmt.smallest_subnormal) == (math.inf, 0.0)
    assert fmt.meaning(1) == Fraction(1, 2**8191)
    table = lowp.values(fmt)
    assert table[[0, 1, 1 << 13, (1 << 14) - 2]].tolist() == [0, 0, 1, math.inf]


# Fixed point


@pytest.mark.parametrize(
    "name", ["ap_fixed<54,20>", "ap_fixed<64,32>", "ap_ufixed<64,64>", "ap_ufixed<60,-3>", "fixed64_0_sym"]
)
def test_wide_fixed_point_encodes_as_the_oracle_says(name: str) -> None:
    fmt = parse(name)
    assert isinstance(fmt, Fixed)
    rng = np.random.default_rng(2)
    unit = 2.0**-fmt.fraction_bits
    x = np.concatenate(
        [np.ldexp(rng.uniform(-2, 2, 40), rng.integers(0, fmt.bits + 2, 40)) * unit, [unit / 2, 1.5 * unit]]
    )
    edge = [2.0 ** (fmt.bits - s) * unit for s in (0, 1, 2)]
    x = np.concatenate([x, edge, np.negative(edge), np.nextafter(edge, 0), [math.inf, -math.inf, 0.0]])
    overflows = ["saturate", "saturate_zero", "saturate_symmetric", "wrap"] + ["wrap_sign_magnitude"] * fmt.signed
    for overflow, mode in product(overflows, ["ties_to_even", "toward_negative", "AP_RND_INF", "stochastic_c"]):
        saturated = 3 if overflow.startswith("wrap") else 0
        got = lowp.encode(x, fmt, mode, overflow, seed=1, saturation_bits=saturated).codes
        assert got.dtype == np.uint64
        expected = [
            exact.encode(v, fmt, mode, overflow, random=word(1, i), saturation_bits=saturated)
            for i, v in enumerate(x.tolist())
        ]
        assert got.tolist() == expected, (overflow, mode)


def test_wide_fixed_point_decodes_to_the_nearest_float64_and_says_so() -> None:
    codes = np.array([1, 1 << 62, (1 << 63) - 1024, (1 << 64) - 3], np.uint64)
    assert lowp.decode(codes, "fixed64_10").tolist() == [2.0**-10, 2.0**52, (2.0**63 - 1024) / 1024, -3 * 2.0**-10]
    with pytest.warns(PrecisionWarning, match="needs more than the 53 bits"):
        assert lowp.decode([(1 << 53) + 3], "ufixed64_0").tolist() == [2.0**53 + 4]
    with pytest.warns(PrecisionWarning, match="fixed64_0"):
        assert lowp.quantize([1e30, math.nan], "fixed64_0").tolist()[0] == 2.0**63
    packed = lowp.encode([0.5, -3.25], "ap_fixed<57,9>")
    assert packed.nbytes == 15
    assert lowp.decode(lowp.Encoded.unpack(packed.pack(), packed.format, (2,))).tolist() == [0.5, -3.25]


def test_fixed_point_past_64_bits_is_for_the_oracle_alone() -> None:
    third = exact.encode(Fraction(1, 3), "ap_fixed<200,8>")
    assert third == (1 << 192) // 3
    assert exact.decode(third, "ap_fixed<200,8>") == Fraction(third, 1 << 192)
    for call in (lowp.encode, lowp.quantize):
        with pytest.raises(FormatError, match=r"64 bits; use lowp\.exact"):
            call([0.5], "ap_fixed<200,8>")
    with pytest.raises(FormatError, match="wider than float64"):
        parse("block[fixed60_20,32,float32]")
    with pytest.raises(FormatError, match="allowed: 1 to 1024"):
        Fixed(1025, 0)


def test_integers_that_float64_cannot_hold_are_refused_by_wide_fixed_point() -> None:
    with pytest.raises(RangeError, match=r"use lowp\.exact"):
        lowp.encode(np.array([(1 << 60) + 1]), "fixed64_0")


def test_a_name_that_says_too_much_is_refused() -> None:
    for name in ("e6m0dl", "e5m23dl", "e12m2", "p3109_17p1se"):
        with pytest.raises(FormatError, match=r"mantissa_bits|exponent_bits"):
            parse(name)
    assert len(finite_values(Float(3, 2, specials="dlfloat"))) == 2 * 30 + 1
