"""Logarithmic formats as array code, wide ones and stochastic modes, against the NumPy path and exact arithmetic."""

from fractions import Fraction
from typing import Any

import numpy as np
import pytest

import lowp
from lowp.formats.logarithmic import LNS
from lowp.formats.ranked import RankedFormat
from lowp.formats.takum import Takum
from lowp.rounding import _portable_long as long
from lowp.rounding import _portable_scalar as portable
from lowp.rounding._namespaces import namespace_of
from lowp.rounding.request import make_request
from tests.rounding.test_portable_blocks import WORLDS, same

NARROW = [LNS(8, 3), LNS(10, gamma=5, linear=True), LNS(8, 3, signed_exponent=False, zero=False),
          LNS(6, 0, linear=True), LNS(2, 0), Takum(12, True), Takum(4, True), Takum(2, True)]  # fmt: skip
WIDE = [LNS(32, 20), LNS(24, 12, linear=True), LNS(64, 54), LNS(20, gamma=1001), LNS(17, 0, linear=True),
        LNS(64, 52, signed_exponent=False, zero=False), LNS(32, 0), Takum(17, True), Takum(32, True),
        Takum(64, True)]  # fmt: skip
MODES = (
    "ties_to_even",
    "toward_negative",
    "to_odd",
    "stochastic_a",
    "stochastic_b",
    "stochastic_c",
    "stochastic_equal",
)


def numbers(dtype: Any, size: int = 60) -> np.ndarray:
    """Normal numbers, powers of two, ends of the range, and numbers all over it."""
    rng = np.random.default_rng(3)
    ends = [0.0, -0.0, np.inf, -np.inf, np.nan, 1.5, -0.75, 5e-324, 1e-310, 3e38, 1e308, 1 - 2**-53, 1 + 2**-52, 1e-45]
    parts = [rng.standard_normal(size), 2.0 ** rng.integers(-30, 30, size), ends]
    parts.append(rng.standard_normal(size) * np.exp(rng.uniform(-90, 90, size)))
    with np.errstate(all="ignore"):
        return np.concatenate(parts).astype(dtype)


def check(
    world: str, fmt: RankedFormat, x: np.ndarray, mode: str, overflow: str = "saturate", bits: Any = None
) -> None:
    how = make_request(mode, overflow, 5, bits, 0, "keep", ("keep",))._replace(nan="zero")
    options = {} if bits is None else {"random_bits": bits}
    want = lowp.encode(x, fmt, rounding=mode, overflow=overflow, seed=5, nan="zero", **options).codes
    got = WORLDS[world](lambda xp, v: portable.encode_values(xp, v, fmt, how), x)
    same(got, want, f"{fmt.name} {mode}")


@pytest.mark.parametrize("fmt", [*NARROW, *WIDE], ids=lambda fmt: fmt.name)
def test_codes_are_those_of_numpy(fmt: RankedFormat) -> None:
    for dtype in (np.float32, np.float64):
        x = numbers(dtype, 20)
        for mode in MODES:
            check("numpy", fmt, x, mode, "infinity_or_nan" if mode == "to_odd" else "saturate")
        check("numpy", fmt, x, "stochastic_c", "infinity_or_nan", 2)
        check("torch", fmt, x, "stochastic_b", bits=32)


@pytest.mark.parametrize("fmt", [NARROW[1], WIDE[1], WIDE[8]], ids=lambda fmt: fmt.name)
def test_codes_compiled_by_jax(fmt: RankedFormat) -> None:
    check("jax", fmt, numbers(np.float32), "stochastic_a")


@pytest.mark.parametrize("fmt", WIDE, ids=lambda fmt: fmt.name)
def test_values_of_wide_codes_are_those_of_numpy(fmt: RankedFormat) -> None:
    """Codes all over the range of float64, and below it: subnormal numbers are rounded once."""
    x = np.concatenate([numbers(np.float64), 2.0 ** np.arange(-1074.0, -1000, 3) * 1.1, [-1.0]])
    codes = lowp.encode(x[np.isfinite(x)], fmt).codes
    xp = namespace_of(codes)
    same(portable.decode_values(xp, codes, fmt, "float64"), lowp.decode(codes, fmt, dtype=np.float64), fmt.name)


def test_ties_between_powers_of_two() -> None:
    """Values 2^k decided in the linear domain: 1.5 and 3 are ties, and under mode C half way stays at odd multiples."""
    x = np.ldexp(np.array([1.5, 1.25, 1.75, 1.125] * 64), np.repeat(np.arange(-8, 8), 16))
    for mode in ("ties_to_even", "ties_to_odd", "stochastic_b", "stochastic_c"):
        for bits in (1, 2) if "stochastic" in mode else (None,):
            check("numpy", LNS(17, 0, linear=True), x, mode, bits=bits)


def as_fraction(words: list[Any], place: int) -> Fraction:
    return sum(
        Fraction(int(word[place])) * Fraction(2) ** (long.BITS * (i - long.WORDS)) for i, word in enumerate(words)
    )


def test_logarithms_and_powers_to_two_hundred_bits() -> None:
    mp = pytest.importorskip("mpmath").mp.clone()
    mp.prec = 320
    rng = np.random.default_rng(1)
    fraction = np.concatenate([[0, 1, (1 << 52) - 1, 1 << 44], rng.integers(0, 1 << 52, 40)])
    xp = namespace_of(fraction)
    natural = long.logarithm(xp, fraction)
    assert as_fraction(natural, 0) == 0
    exponent = [rng.integers(0, 1 << long.BITS, 40) for _ in range(long.WORDS)]
    for word in exponent:
        word[:2] = (0, long.MASK)
    power = long.power_of_two(xp, exponent)
    assert as_fraction(power, 0) == 0
    for i, n in enumerate(fraction.tolist()):
        found = as_fraction(natural, i)
        exact = mp.log(1 + mp.mpf(n) / 2**52)
        assert abs(mp.mpf(found.numerator) / found.denominator - exact) < mp.mpf(2) ** -200
    for i in range(40):
        found, given = as_fraction(power, i), as_fraction(exponent, i)
        exact = mp.power(2, mp.mpf(given.numerator) / given.denominator) - 1
        assert abs(mp.mpf(found.numerator) / found.denominator - exact) < mp.mpf(2) ** -200
