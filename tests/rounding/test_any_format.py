"""Formats drawn at random, of every width and convention, against the oracle asked for each number."""

from fractions import Fraction

import numpy as np
import pytest

import lowp
from lowp.formats.float_format import SPECIALS
from lowp.formats.spec import ScalarFormat, finite_values
from lowp.rounding import exact
from lowp.rounding.modes import INTEGER_ONLY, OVERFLOW_MODES, ROUNDING_MODES
from lowp.rounding.random_bits import word

#: Formats without subnormals whose normal range begins where that of float32 or float64 does.
FLUSHED = ["e8m3_nosub", "ue8m0fn", "e8m0fn", "ue11m1_nosub", "e11m0fn", "float8_e8m0fnu"]


def draw(rng: np.random.Generator) -> ScalarFormat:
    """Return a random format that can exist."""
    while True:
        try:
            kind = rng.random()
            if kind < 0.7:
                bias = [None, int(rng.integers(-40, 60))][int(rng.integers(2))]
                mantissa = int(rng.choice([0, 1, 2, 3, 5, 7, 10, 20, 23, 24, 30, 45, 52]))
                options = {"signed": rng.random() < 0.7, "subnormals": rng.random() < 0.75, "zero": rng.random() < 0.85}
                special = str(rng.choice(list(SPECIALS)))
                return lowp.Float(int(rng.integers(1, 12)), mantissa, bias, specials=special, **options)
            if kind < 0.85:
                return lowp.Fixed(int(rng.integers(1, 54)), int(rng.integers(-20, 60)), bool(rng.random() < 0.6))
            values = np.unique(np.round(rng.standard_normal(rng.integers(2, 20)), int(rng.choice([0, 1, 6, 17]))))
            return lowp.Codebook(values.tolist())
        except lowp.FormatError:
            continue


def numbers(fmt: ScalarFormat, rng: np.random.Generator) -> np.ndarray:
    """Return values, midpoints and neighbours, ends of the range, zeros, infinities and random bits."""
    top, small = max(abs(fmt.max), abs(fmt.min)), fmt.smallest_subnormal or 1.0
    if fmt.bits <= 12:
        values = np.array([float(v) for v in finite_values(fmt)])
    else:
        drawn = [exact.decode(int(c), fmt) for c in rng.integers(0, 2 ** min(fmt.bits, 63), 40)]
        values = np.array([float(v) for v in drawn if isinstance(v, Fraction)] + [fmt.max, fmt.min])
    with np.errstate(all="ignore"):
        points = rng.choice(values, 12)
        digits = getattr(fmt, "mantissa_bits", 4)
        x = np.concatenate([
            points, (points + np.roll(points, 1)) / 2, points + small / 2, points * (1 + 2.0 ** -(digits + 1)),
            np.nextafter(points, np.inf), np.nextafter(points, -np.inf), rng.standard_normal(6) * top / 3,
            small * np.array([0.25, 0.5, np.nextafter(0.5, 1), 0.75, 1, 1.5]), top * np.array([1.01, 1.5, 2, 1e3]),
            rng.integers(0, 2**64 - 1, 6, dtype=np.uint64).view(np.float64), [0.0, np.inf, 5e-324, 1.8e308],
        ])  # fmt: skip
    x = np.concatenate([x, -x])
    return x[~np.isnan(x)]


def check(fmt: ScalarFormat, x: np.ndarray, mode: str, overflow: str, bits: int) -> None:
    """Compare codes with the oracle's, and quantized values with decoded codes."""
    options = {"seed": 3, "random_bits": bits} if mode.startswith("stochastic") else {}
    got = lowp.encode(x, fmt, mode, overflow, nan="max", **options).codes
    for i, (number, code) in enumerate(zip(x.tolist(), got.tolist(), strict=True)):
        random = {"random": word(3, i), "random_bits": bits} if options else {}
        expected = exact.encode(number, fmt, mode, overflow, nan="max", **random)
        assert code == expected, (
            f"{fmt!r} {mode} {overflow} N={bits} {x.dtype} {number!r}: {code:#x}, not {expected:#x}"
        )
    wide = x.astype(np.float64)
    assert np.array_equal(lowp.quantize(wide, fmt, mode, overflow, **options), lowp.decode(got, fmt), equal_nan=True)


@pytest.mark.parametrize("seed", range(40))
def test_random_formats(seed: int) -> None:
    rng = np.random.default_rng(seed)
    fmt = draw(rng)
    integer = isinstance(fmt, lowp.Fixed)
    overflows = [o for o in OVERFLOW_MODES if integer or o not in INTEGER_ONLY]
    overflows = [o for o in overflows if fmt.signed or o != "wrap_sign_magnitude"]
    for dtype in (np.float64, np.float32):
        with np.errstate(all="ignore"):
            x = numbers(fmt, rng).astype(dtype)
        for mode in rng.choice(list(ROUNDING_MODES), 4, replace=False):
            check(fmt, x, str(mode), str(rng.choice(overflows)), int(rng.choice([1, 3, 8, 13, 32])))


@pytest.mark.parametrize("name", FLUSHED)
def test_below_a_normal_range_that_begins_with_the_input_s(name: str) -> None:
    fmt = lowp.parse(name)
    assert isinstance(fmt, ScalarFormat)
    for dtype in (np.float64, np.float32):
        with np.errstate(all="ignore"):
            x = numbers(fmt, np.random.default_rng(0)).astype(dtype)
        for mode in ROUNDING_MODES:
            for overflow in ("saturate", "infinity_or_nan"):
                check(fmt, x, mode, overflow, 8)
