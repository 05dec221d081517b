"""Posits, takums and logarithmic numbers on arrays: against the exact oracle and against other programs."""

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

import lowp
from lowp.formats import LNS
from lowp.formats.exact_real import Real, to_float64
from lowp.formats.ranked import RankedFormat
from lowp.rounding import exact, exact_block
from lowp.rounding.modes import ROUNDING_MODES
from lowp.rounding.random_bits import keys, words
from tests.rounding.vector_formats import Vectors

DETERMINISTIC = [name for name in ROUNDING_MODES if not name.startswith("stochastic")]
#: The posits of universal that there are vectors of.
UNIVERSAL = (
    *("5_es1", "6_es2", "8_es0", "8_es1", "8_es2", "9_es3", "10_es0"),
    *("12_es1", "16_es1", "16_es2", "16_es3", "24_es1", "32_es2"),
)
STOCHASTIC = [name for name in ROUNDING_MODES if name.startswith("stochastic")]
SMALL = ["posit2_es0", "posit5_es1", "posit6_es2", "posit8_es0", "posit8_es2", "posit7_es5", "takum4_linear",
         "takum8_linear", "takum12_linear", "takum6_log", "takum8_log", "lns4_f0", "lns5_f1_linear", "lns4_f0_linear",
         "lns7_f2", "lns7_f2_nozero_linear", "lns6_gamma3_unsigned_nozero", "lns6_f2_unsigned"]  # fmt: skip
LARGE = ["posit16_es1", "posit16_es2", "posit32_es2", "posit64_es2", "posit40_es7", "takum16_linear", "takum32_linear",
         "takum64_linear", "takum16_log", "takum32_log", "takum64_log", "lns16_f7", "lns16_f9_linear", "lns32_f23",
         "lns24_f12_linear", "lns20_gamma1000"]  # fmt: skip


def ranked(name: str) -> RankedFormat:
    fmt = lowp.parse(name)
    assert isinstance(fmt, RankedFormat)
    return fmt


def beside(points: list[Any]) -> np.ndarray:
    """The floats at and around numbers, both signs; those beyond float64 left out."""
    x = np.array([float(p) for p in points if Fraction(1, 2**1070) < p < Fraction(2) ** 1023])
    x = np.concatenate([x, np.nextafter(x, np.inf), np.nextafter(x, 0.0)])
    return np.concatenate([x, -x])


def turning_points(fmt: RankedFormat, ranks: list[int]) -> np.ndarray:
    """Values and decision points of some ranks with their neighbours, and the specials."""
    points = [fmt.rank_value(rank) for rank in ranks]
    points += [p for p in (fmt.decision_point(rank) for rank in [-1, *ranks]) if p is not None]
    ends = [0.0, -0.0, np.inf, -np.inf, np.nan, 5e-324, 2.0**-1074 * 3, -(2.0**-1030), 1.7e308, -1.7e308]
    return np.concatenate([beside(points), ends])


def oracle_codes(x: np.ndarray, name: str, mode: str, overflow: str = "saturate", **options: Any) -> list[int]:
    random = options.pop("random", None)
    each = [{"random": int(r)} for r in random] if random is not None else [{}] * len(x)
    return [
        exact.encode(v, name, mode, overflow, nan="max", **options, **extra)
        for v, extra in zip(x.tolist(), each, strict=True)
    ]


def some_ranks(fmt: RankedFormat, count: int, seed: int) -> list[int]:
    rng = np.random.default_rng(seed)
    inner = [int(r) for r in rng.integers(0, fmt.ranks, count, dtype=np.int64)]
    return sorted({0, min(1, fmt.ranks - 1), fmt.ranks - 1, max(fmt.ranks - 2, 0), *inner})


@pytest.mark.parametrize("name", SMALL)
def test_turning_points_in_every_mode(name: str) -> None:
    fmt = ranked(name)
    linear = name.startswith(("posit", "takum")) and not name.endswith("log")
    check_all_modes(
        name, list(range(fmt.ranks)) if linear and fmt.ranks < 40 else some_ranks(fmt, 6 if linear else 0, 8)
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_all_turning_points_in_every_mode(name: str) -> None:
    check_all_modes(name, list(range(ranked(name).ranks)))


def check_all_modes(name: str, ranks: list[int]) -> None:
    x = turning_points(ranked(name), ranks)
    for mode in DETERMINISTIC:
        for overflow in ("saturate", "infinity_or_nan"):
            got = lowp.encode(x, name, mode, overflow, nan="max").codes.tolist()
            assert got == oracle_codes(x, name, mode, overflow), (mode, overflow)


@pytest.mark.parametrize("name", LARGE)
def test_wide_formats_at_turning_points(name: str) -> None:
    check_wide(name, 2 if "lns" in name or "log" in name else 10)


@pytest.mark.slow
@pytest.mark.parametrize("name", LARGE)
def test_wide_formats_at_many_turning_points(name: str) -> None:
    check_wide(name, 100)


def check_wide(name: str, count: int) -> None:
    fmt, rng = ranked(name), np.random.default_rng(3)
    x = turning_points(fmt, some_ranks(fmt, count, 7)[-count - 2 :])
    x = np.concatenate([x, rng.standard_normal(count), rng.integers(0, 1 << 63, count).view(np.float64)])
    for mode in ("ties_to_even", "toward_zero", "toward_positive", "to_odd"):
        assert lowp.encode(x, fmt, mode, nan="max").codes.tolist() == oracle_codes(x, name, mode), mode


@pytest.mark.parametrize("mode", STOCHASTIC)
@pytest.mark.parametrize(
    "name",
    [
        "posit8_es2",
        "posit16_es1",
        "takum12_linear",
        "takum8_log",
        "takum4_log",
        "lns7_f2",
        "lns6_f1_linear",
        "takum32_log",
    ],
)
def test_stochastic_modes_use_the_random_words_of_their_positions(name: str, mode: str) -> None:
    fmt = ranked(name)
    rng = np.random.default_rng(1)
    x = np.concatenate([turning_points(fmt, some_ranks(fmt, 3, 5)), rng.standard_normal(30)])
    for n in (3, 32):
        got = lowp.encode(x, fmt, mode, seed=9, random_bits=n, nan="max").codes.tolist()
        random = words(keys(9), 0, len(x))
        assert got == oracle_codes(x, name, mode, random=random, random_bits=n), n


@pytest.mark.parametrize("name", [*SMALL, *LARGE])
def test_float32_gives_the_codes_of_float64(name: str) -> None:
    count = 20 if lowp.parse(name).bits > 16 else 300
    x = np.random.default_rng(2).integers(0, 1 << 32, count, dtype=np.uint32).view(np.float32)
    x = np.concatenate([x[~np.isnan(x)], np.float32([1e-45, -1e-40, 3e38, 0.0, -0.0, 1.0, np.inf])])
    for mode in ("ties_to_even", "toward_negative"):
        single = lowp.encode(x, name, mode, nan="max").codes
        assert np.array_equal(single, lowp.encode(x.astype(np.float64), name, mode, nan="max").codes), mode


@pytest.mark.parametrize("name", [*SMALL, *LARGE])
def test_codes_decode_to_the_nearest_float64(name: str) -> None:
    fmt = ranked(name)
    rng = np.random.default_rng(4)
    codes = np.arange(1 << fmt.bits) if fmt.bits <= 7 else rng.integers(0, 1 << min(fmt.bits, 63), 150, dtype=np.int64)
    ends = [fmt.nan_code or 0, fmt.zero_code or 0, 1, (1 << fmt.bits) - 1]
    codes = np.concatenate([codes.astype(np.uint64), np.array(ends, np.uint64)])
    for code, value in zip(codes.tolist(), lowp.decode(codes, fmt).tolist(), strict=True):
        wanted = fmt.meaning(code)
        assert math.isnan(value) if wanted == "nan" else value == rounded(wanted), hex(code)


def rounded(x: Any) -> float:
    """The nearest float64; of an irrational number checked by exact comparisons with the points halfway to others."""
    if isinstance(x, Fraction):
        return to_float64(x)
    assert isinstance(x, Real)
    value = float(x)
    for other in (math.nextafter(value, math.inf), math.nextafter(value, -math.inf)):
        if value and math.isfinite(value) and math.isfinite(other):
            middle = (Fraction(value) + Fraction(other)) / 2
            assert (x < middle) == (value < other)
    return value


@pytest.mark.parametrize(
    "name", ["posit16_es1", "posit32_es2", "posit64_es2", "takum32_linear", "takum64_linear", "posit20_es3"]
)
def test_many_codes_decode_as_few_do(name: str) -> None:
    fmt = ranked(name)
    codes = (
        np.random.default_rng(6).integers(0, 1 << 63, 1 << 17, dtype=np.uint64)
        << np.uint64(1)
        >> np.uint64(64 - fmt.bits)
    )
    codes = codes.astype(f"uint{max(8, 1 << (fmt.bits - 1).bit_length())}")
    codes[:3] = 0, fmt.nan_code, 1
    few = np.concatenate([lowp.decode(part, fmt) for part in np.array_split(codes, 4)])
    assert np.array_equal(lowp.decode(codes, fmt), few, equal_nan=True)


@pytest.mark.parametrize("name", ["posit16_es2", "takum16_linear", "takum16_log", "lns16_f7", "posit8_es0", "lns8_f3"])
def test_every_code_comes_back(name: str) -> None:
    fmt = ranked(name)
    codes = np.arange(1 << fmt.bits, dtype=f"uint{fmt.bits}")
    values = lowp.decode(codes, fmt)
    assert np.array_equal(lowp.encode(values, fmt).codes, codes)
    finite = values[np.isfinite(values)]
    assert np.array_equal(lowp.quantize(finite, fmt), finite)


@pytest.mark.parametrize("library", ["softposit", "universal_posit", "libtakum", "universal_takum"])
def test_other_libraries_give_the_same_codes(library: str, vectors: Vectors) -> None:
    files = {
        "softposit": [("posit8_es0",) * 2, ("posit16_es1",) * 2, ("posit32_es2",) * 2]
        + [(f"posit{n}_es2_pX2", f"posit{n}_es2") for n in (3, 4, 5, 6, 8, 12, 16, 20, 32)],
        "universal_posit": [(f"posit{n}",) * 2 for n in UNIVERSAL],
        "libtakum": [(f"takum_{k}{n}", f"takum{n}_{k}") for k in ("linear", "log") for n in (8, 16, 32)],
        "universal_takum": [(f"takum_{k}{n}", f"takum{n}_{k}") for k in ("linear", "log") for n in (8, 12, 16, 32)],
    }[library]  # fmt: skip
    for file, name in files:
        data = vectors(f"{library}/{file}")
        x, wanted = data["from_f64_in"], data["from_f64_out"]
        if name.endswith("32_log"):
            x, wanted = x[::80], wanted[::80]
        got = lowp.encode(x, name).codes
        differs = got != wanted
        if "from_f64_out_suspect" in data and not name.endswith("32_log"):
            differs &= ~data["from_f64_out_suspect"]
        for i in np.flatnonzero(differs):
            assert explained(library, name, float(x[i]), int(got[i]), int(wanted[i])), (file, x[i], got[i], wanted[i])
        assert decodes_equal(lowp.decode(data["decode_codes"], name), data["decode_f64"], name), file


def explained(library: str, name: str, x: float, ours: int, theirs: int) -> bool:
    """Known differences, where the exact oracle confirms our code.

    universal flushes small magnitudes to zero (Takum rounds none to zero); libtakum converts float64 to its 8- and
    16-bit linear takums through float32, which rounds twice beside ties.
    """
    if exact.encode(x, name) != ours:
        return False
    if library == "universal_takum":
        smallest = ranked(name).rank_value(0)
        return theirs == 0 and abs(Fraction(x)) < smallest
    if library != "libtakum" or abs(ours - theirs) != 1:
        return False
    fmt = ranked(name)
    ranks = [found[0] for found in map(fmt.code_rank, (ours, theirs)) if found]
    tie = fmt.decision_point(min(ranks))
    assert isinstance(tie, Fraction)
    return abs(abs(Fraction(x)) / tie - 1) < Fraction(1, 1 << 23)


def decodes_equal(ours: np.ndarray, theirs: np.ndarray, name: str) -> bool:
    """Equal values; logarithmic ones within the error of a C library's exp."""
    slack = 2.0**-46 if "log" in name else 0.0
    with np.errstate(invalid="ignore"):
        same = (ours == theirs) | (np.abs(ours - theirs) <= np.abs(theirs) * slack)
    return bool((same | (np.isnan(ours) & ~np.isfinite(theirs))).all())


def test_an_infinity_is_nar_and_zero_has_one_code() -> None:
    x = np.array([np.inf, -np.inf, np.nan, 0.0, -0.0])
    for name in ("posit16_es2", "takum16_linear", "takum16_log"):
        assert lowp.encode(x, name).codes.tolist() == [0x8000, 0x8000, 0x8000, 0, 0]
        assert np.isnan(lowp.quantize(x, name)[:3]).all()
        assert not np.signbit(lowp.quantize(x, name)[3:]).any()
    assert lowp.quantize(x[:2], "lns8_f3").tolist() == [lowp.parse("lns8_f3").max, lowp.parse("lns8_f3").min]
    assert np.isnan(lowp.quantize(x[:2], "lns8_f3", overflow="infinity_or_nan")).all()


def test_a_value_beyond_the_dtype_is_refused() -> None:
    with pytest.raises(lowp.RangeError, match="'takum12_linear' does not fit dtype float32"):
        lowp.quantize(np.float32([3e38]), "takum12_linear")
    assert lowp.quantize(3e38, "takum12_linear") == 2.0**128


@pytest.mark.parametrize("name", ["lns8_f3", "lns7_f2_nozero_linear", "takum8_log", "takum10_log", "lns5_f1_unsigned"])
def test_limits_are_those_of_the_codes(name: str) -> None:
    fmt = ranked(name)
    values = sorted(v for v in (fmt.meaning(code) for code in range(1 << fmt.bits)) if not isinstance(v, str))
    positive = [v for v in values if v > 0]
    assert (fmt.max, fmt.min) == (rounded(values[-1]), rounded(values[0]))
    assert fmt.smallest_subnormal == fmt.smallest_normal == rounded(positive[0])
    above = next((v for v in positive if v > 1), None)
    assert 1 not in values or above is None or fmt.eps == rounded(above - 1)


def test_one_dlfloat_number_has_one_code() -> None:
    assert lowp.encode(2.0**-31, "dlfloat16").codes.shape == ()


@pytest.mark.parametrize(
    ("name", "target"), [("posit8_es0", 2), ("posit16_es2", 16), ("takum16_linear", 2), ("posit4_es1", 4)]
)
def test_blocks_scale_to_the_end_of_the_most_precise_range(name: str, target: float) -> None:
    fmt, x = ranked(name), np.random.default_rng(8).standard_normal((4, 32)).astype(np.float32)
    assert fmt.scale_target == target
    encoded = lowp.encode(x, lowp.Block(name, 32, "float32"))
    for row, scale, codes in zip(x.tolist(), encoded.scales[:, 0], encoded.codes.tolist(), strict=True):
        assert (int(scale), codes, None) == exact_block.encode_block(row, name, "float32", "round")


def test_values_far_beyond_float64() -> None:
    """The ends are 2^(2^30) and its inverse: compared without writing them out."""
    x = np.array([5e-324, -1e-310, 0.0, 3.0, 1e308, -np.inf])
    for fmt in (LNS(32, 0), LNS(40, 0, signed_exponent=False), LNS(64, 0, linear=True)):
        for mode in ("ties_to_even", "toward_positive"):
            codes = lowp.encode(x, fmt, mode).codes
            assert codes.tolist() == [lowp.exact.encode(v, fmt, rounding=mode) for v in x.tolist()]
    assert lowp.decode(lowp.encode(x[3:], LNS(32, 0)), dtype=np.float64).tolist() == [4.0, 2.0**1023, -np.inf]
