"""Sums whose every addition is rounded: kernels against the exact oracle, NumPy's own arithmetic, and each other."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import lowp
from lowp.emulation import _rounded_plan, _rounded_sums, exact_accumulators
from lowp.emulation._rounded_passes_kernels import CLAMP, CORRECTED, NATIVE, NEAREST_EVEN, NEIGHBOUR, STOCHASTIC, WIDE
from lowp.emulation.accumulator import Accumulator
from lowp.rounding import random_bits
from lowp.rounding.modes import ROUNDING_MODES, rounding
from tests.covering import slow

Array = NDArray[np.float64]
MODES = list(ROUNDING_MODES)
DETERMINISTIC = [mode for mode in MODES if rounding(mode).variant == 0]
FLOATS = [
    "float16", "bfloat16", "float32", "float64", "tf32", "float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "e3m2",
    "float6_e2m3fn", "e6m9", "e8m13", "e8m30", "binary8p4se",
]  # fmt: skip
INTEGERS = ["int8", "uint8", "int16", "int32", "fixed8_4", "fixed16_8", "fixed24_10", "fixed52_20"]


def bits(x: Any) -> NDArray[np.int64]:
    """Bit patterns to compare, of NaN one."""
    x = np.asarray(x, np.float64)
    return np.where(np.isnan(x), np.nan, x).view(np.int64)


def as_float(meaning: Any) -> float:
    """A number of the oracle as float64."""
    return float(meaning) if isinstance(meaning, Fraction) else -0.0 if meaning == "-0" else float(meaning)


def numbers(rng: random.Random, name: str, count: int) -> Array:
    """Numbers of a format, in one of several styles."""
    fmt, draws = lowp.parse(name), np.random.default_rng(rng.getrandbits(32))
    normal = getattr(fmt, "smallest_normal", 1.0)
    style = rng.choice(("codes", "normal", "small", "near", "special"))
    if style == "codes" and fmt.bits < 64:
        x = lowp.decode(draws.integers(0, 1 << fmt.bits, count).astype(np.uint64 if fmt.bits > 32 else np.uint32), fmt)
    elif style == "small":
        x = draws.standard_normal(count) * normal ** rng.choice((0.5, 0.6, 1.0)) * 2
    elif style == "near":
        x = (1 + draws.integers(-8, 8, count) / 2.0 ** rng.randrange(1, 24)) * 2.0 ** draws.integers(-3, 3, count)
    elif style == "special":
        x = draws.choice(np.array([0.0, -0.0, 1.0, -1.0, fmt.max, fmt.min, fmt.max / 2, normal, 2.0**-20]), count)
        x = np.where(draws.random(count) < 0.05 * getattr(fmt, "has_infinity", False), np.inf, x)
    else:
        x = draws.standard_normal(count) * 4
    x = np.asarray(lowp.quantize(np.asarray(x, np.float64), fmt, overflow="propagate"))
    return x if rng.random() < 0.2 else np.where(np.isfinite(x), x, 1.0)


def accumulators(rng: random.Random, name: str) -> Iterator[Accumulator]:
    """Descriptions that keep sums in a format."""
    integer = name in INTEGERS
    floats = ["infinity_or_nan", "saturate", "propagate"] + ["infinity"] * lowp.parse(name).has_infinity
    overflows = ["saturate", "wrap", "saturate_symmetric", "infinity_or_nan"] if integer else floats
    while True:
        mode = rng.choice(MODES + ["ties_to_even"] * 4)
        how: dict[str, Any] = {"format": name, "rounding": mode, "overflow": rng.choice(overflows)}
        how |= {
            "group_sum": rng.choice(("fused", "fused", "pairwise", "sequential")),
            "group": rng.choice((1, 1, 2, 3, 5)),
        }
        how |= {"order": rng.choice(("sequential",) * 4 + ("pairwise",)), "seed": rng.randrange(4)}
        if rng.random() < 0.3:
            how["product"] = name if integer else rng.choice(FLOATS)
        if rng.random() < 0.2 and rounding(mode).variant == 0:
            how |= {"order": "sequential", "group": 1, "compensation": rng.choice(("kahan", "neumaier", "two_sum"))}
        elif rng.random() < 0.3:
            how["subnormal_inputs"] = rng.choice(("zero", "positive_zero", "keep"))
        signed = all(lowp.parse(x).has_negative_zero for x in (name, how.get("product", name)))
        if rng.random() < 0.3 and signed:  # what is flushed keeps its sign: where there is a zero of either
            how["subnormal_results"] = "zero"
        if rng.random() < 0.3:
            how["signed_zero"] = rng.choice((False, "underflow"))
        yield Accumulator(**how)


def oracle(accumulator: Accumulator, a: Array, b: Array, c: Array, formats: tuple[Any, Any]) -> Array:
    """The same sums in Fractions."""
    out = np.empty(c.shape)
    for i in range(c.shape[0]):
        for j in range(c.shape[1]):
            out[i, j] = as_float(
                exact_accumulators.dot(
                    accumulator, a[i].tolist(), b[:, j].tolist(), float(c[i, j]),
                    a_format=formats[0], b_format=formats[1], position=i * c.shape[1] + j, count=c.size,
                )
            )  # fmt: skip
    return out


@pytest.mark.parametrize("name", FLOATS + INTEGERS)
def test_any_accumulator_is_the_oracle_s(name: str) -> None:
    rng = random.Random(name)  # noqa: S311
    served, descriptions = 0, accumulators(rng, name)
    for _ in range(60):
        accumulator = next(descriptions)
        one = rng.choice(INTEGERS + FLOATS if name in INTEGERS else FLOATS)
        names = one, one if rng.random() < 0.6 else rng.choice(FLOATS + INTEGERS)
        rows, terms, columns = rng.choice(((1, 7, 1), (2, 9, 3), (3, 4, 2), (1, 1, 5), (20, 3, 1)))
        a = numbers(rng, names[0], rows * terms).reshape(rows, terms)
        b = numbers(rng, names[1], terms * columns).reshape(terms, columns)
        c = (
            numbers(rng, name, rows * columns).reshape(rows, columns)
            if rng.random() < 0.6
            else np.zeros((rows, columns))
        )
        formats = lowp.parse(names[0]), lowp.parse(names[1])
        given = formats if rng.random() < 0.8 or accumulator.subnormal_inputs != "keep" else (None, None)
        if not _rounded_sums.serves(accumulator, a, b, c, *given):  # type: ignore[arg-type]
            continue
        served += 1
        found = _rounded_sums.run(a, b, c, accumulator, *given)  # type: ignore[arg-type]
        wanted = oracle(accumulator, a, b, c, formats)
        assert np.array_equal(bits(found), bits(wanted)), (accumulator.__repr__(), names, a, b, c, found, wanted)
    assert served >= 30


@pytest.mark.parametrize("signed_zero", [True, slow("underflow"), slow(False)])
def test_every_product_and_sum_of_small_formats(signed_zero: bool | str) -> None:
    """All numbers of float6_e3m2fn plus all products of two of float4_e2m1fn, in all modes."""
    small, sums = lowp.values("float4_e2m1fn"), lowp.values("float6_e3m2fn")
    c = np.tile(sums, (small.size, small.size, 1)).reshape(-1, 1, 1)
    a = np.repeat(small, small.size * sums.size).reshape(-1, 1, 1)
    b = np.tile(np.repeat(small, sums.size), small.size).reshape(-1, 1, 1)
    seen: dict[Any, float] = {}
    for mode in DETERMINISTIC:
        accumulator = Accumulator(format="float6_e3m2fn", rounding=mode, signed_zero=signed_zero)
        fmt = lowp.parse("float4_e2m1fn")
        found = _rounded_sums.run(a, b, c, accumulator, fmt, fmt).reshape(-1)  # type: ignore[arg-type]
        products = (a * b).reshape(-1)
        for p, s, x in zip(products.tolist(), c.reshape(-1).tolist(), found.tolist(), strict=True):
            key = mode, p, math.copysign(1, p), s, math.copysign(1, s)
            if key not in seen:
                seen[key] = as_float(exact_accumulators.dot(accumulator, [p], [1.0], s))
            assert bits(x) == bits(seen[key]), (mode, p, s, x, seen[key])


# The ways in which float64 is used, against 128-bit integers


PAIRS = [
    ("float16", "float16", False), ("bfloat16", "float32", False), ("tf32", "float32", False),
    ("float16", "float32", False), ("float8_e5m2", "bfloat16", False), ("float8_e4m3fn", "float16", False),
    ("bfloat16", "bfloat16", True), ("float32", "float64", False), ("float64", "float64", False),
    ("float32", "float32", True), ("float16", "bfloat16", True), ("float8_e4m3fn", "float8_e4m3fn", False),
]  # fmt: skip


def close_calls(seed: int, operand: str, result: str, size: int) -> tuple[Array, Array, Array]:
    """Products that are, or are next to, numbers and ties of the result's format; addends from tiny to huge."""
    rng = np.random.default_rng(seed)
    fmt, out = lowp.parse(operand), lowp.parse(result)
    width, own = fmt.mantissa_bits + 1, out.mantissa_bits + 1

    def few(count: int, most: int) -> Array:
        kept = rng.integers(1, most + 1, count)
        return np.ldexp((rng.integers(0, 1 << 62, count) >> (62 - kept)) | 1, 1 - kept)

    reach = min(fmt.emax, out.emax, 400) // 2
    low = max(fmt.emin, -reach * 2)
    a = few(size, width) * 2.0 ** rng.integers(low // 2, reach + 1, size)
    b = few(size, width) * 2.0 ** rng.integers(low // 2, reach + 1, size)
    c = few(size, own) * 2.0 ** rng.integers(max(out.emin, -800), min(out.emax, 800), size)
    close = rng.random(size)
    product = a * b
    c = np.where(close < 0.3, product * 2.0 ** rng.integers(-60, 60, size) * few(size, own), c)
    c = np.where(close > 0.8, -product * (1 + rng.integers(-4, 5, size) * 2.0**-own), c)
    signs = rng.choice(np.array([-1.0, 1.0]), (3, size))
    a, b, c = a * signs[0], b * signs[1], c * signs[2]
    a, b = (np.asarray(lowp.quantize(x, fmt, overflow="saturate")) for x in (a, b))
    return a, b, np.asarray(lowp.quantize(c, out, overflow="saturate"))


@pytest.mark.parametrize(("operand", "result", "lossy"), PAIRS)
@pytest.mark.parametrize("mode", MODES)
def test_float64_is_as_good_as_128_bits(
    operand: str, result: str, lossy: bool, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sums that float64 rounds first, that it rounds to odd, and those of which it keeps the error."""
    fmt = lowp.parse(operand)
    a, b, c = (x.reshape(-1, 1, 1) for x in close_calls(1, operand, result, 20_000))
    accumulator = Accumulator(format=result, rounding=mode)
    given = _rounded_sums._operands(a, b, c, accumulator, fmt, fmt)
    plans = _rounded_sums._plans(given, accumulator)
    assert plans is not None
    assert plans.term.kind in (NEAREST_EVEN, CORRECTED, STOCHASTIC) or result == "float64"
    if mode == "ties_to_even" and result != "float64":
        assert plans.term.lossy == lossy
    found = _rounded_sums.run(a, b, c, accumulator, fmt, fmt)
    monkeypatch.setattr(_rounded_plan, "_way", lambda *_: (WIDE, False))
    monkeypatch.setattr(_rounded_sums, "sum_plan", _rounded_plan.sum_plan.__wrapped__)
    wanted = _rounded_sums.run(a, b, c, accumulator, fmt, fmt)
    wrong = np.flatnonzero(bits(found) != bits(wanted))
    assert not wrong.size, [(a.flat[i], b.flat[i], c.flat[i], found.flat[i], wanted.flat[i]) for i in wrong[:4]]


@pytest.mark.parametrize("mode", DETERMINISTIC)
def test_tiny_sums_are_flushed_as_if_rounded_without_a_least_exponent(mode: str) -> None:
    """Sums just below the least normal number, in sixteenths of the last bit of those below it."""
    steps = np.arange(-64.0, 65.0)
    a, b = np.full((steps.size, 1, 1), -(2.0**-14)), (steps * 2.0**-15).reshape(-1, 1, 1)
    for sign in (-1.0, 1.0):
        c = np.full(a.shape, sign * 2.0**-14)
        accumulator = Accumulator(format="float16", rounding=mode, subnormal_results="zero")
        found = _rounded_sums.run(a, b, c, accumulator).reshape(-1)
        wanted = [
            exact_accumulators.dot(accumulator, [x], [y], z) for x, y, z in zip(a.flat, b.flat, c.flat, strict=True)
        ]
        assert np.array_equal(bits(found), bits([as_float(x) for x in wanted]))
        assert {0.0, sign * 2.0**-14} <= set(found.tolist())


def test_a_tie_and_a_much_smaller_number() -> None:
    """bfloat16: 1 + 2^-8 is a tie, which 2^-100 breaks, far beyond float64's bits."""
    fmt = lowp.parse("bfloat16")
    a, b = np.array([[1.0 + 2.0**-4]]), np.array([[1.0 - 2.0**-4 + 2.0**-7, 1.0 + 2.0**-4]])
    product = (a @ b)[0, 1]  # 1 + 2^-3 + 2^-8
    assert product == 1 + 2.0**-3 + 2.0**-8
    for tiny, wanted in ((2.0**-100, 1 + 2.0**-3 + 2.0**-7), (-(2.0**-100), 1 + 2.0**-3), (0.0, 1 + 2.0**-3)):
        found = _rounded_sums.run(a, b[:, 1:], np.array([[tiny]]), Accumulator(format="bfloat16"), fmt, fmt)  # type: ignore[arg-type]
        assert found[0, 0] == wanted


def test_a_tie_less_the_last_bit_of_a_long_product() -> None:
    """float16: 1 + 2^-10 + 2^-11 is a tie; a product of 47 bits is 2^-57 less than 2^-11, which float64's sum loses."""
    a, b = np.array([[1.0 + 2.0**-23]]), np.array([[(1.0 - 2.0**-23) * 2.0**-11]])
    for fmt in (lowp.parse("float32"), None):
        found = _rounded_sums.run(a, b, np.array([[1.0 + 2.0**-10]]), Accumulator(format="float16"), fmt, fmt)  # type: ignore[arg-type]
        assert found[0, 0] == 1.0 + 2.0**-10


def test_a_start_that_the_format_does_not_hold_may_be_a_tie() -> None:
    fmt, start = lowp.parse("float16"), np.array([[1.0 + 2.0**-10 + 2.0**-11]])
    a, b = np.array([[-(2.0**-24)]]), np.array([[2.0**-24]])
    found = _rounded_sums.run(a, b * 2.0**-12, start, Accumulator(format="float16"))
    assert found[0, 0] == 1.0 + 2.0**-10
    unchanged = _rounded_sums.run(a * 0, b, start, Accumulator(format="float16"), fmt, fmt)  # type: ignore[arg-type]
    assert unchanged[0, 0] == 1.0 + 2.0**-9


@pytest.mark.parametrize("mode", [mode for mode in MODES if rounding(mode).variant])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_random_bits_decide_beyond_float64(mode: str, sign: float) -> None:
    """Fractions of 34 bits, next to where each output's random bits send them up: float32 plus these is 57 bits."""
    words = np.array([random_bits.word(5, i) for i in range(90)])
    fractions = 4 * (2**32 - words) + np.arange(90) % 9 - 4
    a, b = np.full((1, 1), sign * 2.0**-57), fractions.astype(float)[None]
    accumulator, c = Accumulator(format="float32", rounding=mode, seed=5), np.full((1, 90), sign)
    found = _rounded_sums.run(a, b, c, accumulator)
    wanted = [exact_accumulators.dot(accumulator, a[0], b[:, i], sign, position=i, count=90) for i in range(90)]
    assert np.array_equal(bits(found[0]), bits([as_float(x) for x in wanted]))
    assert len(set(found[0].tolist())) == 2


def test_which_way_is_chosen() -> None:
    def way(fmt: str, operand: str, **how: Any) -> tuple[int, int]:
        accumulator, form = Accumulator(format=fmt, **how), lowp.parse(operand)
        zeros = np.zeros((1, 1))
        plans = _rounded_sums._plans(_rounded_sums._operands(zeros, zeros, zeros, accumulator, form, form), accumulator)
        assert plans is not None
        return plans.term.kind, plans.term.lossy

    assert way("float16", "float8_e4m3fn") == (NEAREST_EVEN, 0)
    assert way("float16", "float8_e4m3fn", rounding="toward_zero") == (CORRECTED, 0)
    assert way("float16", "float16", rounding="toward_zero") == (CORRECTED, 1)
    assert way("float64", "float64") == (NATIVE, 0)
    assert way("float64", "float64", rounding="toward_zero") == (NEIGHBOUR, 0)
    assert way("float64", "float64", rounding="stochastic_a") == (WIDE, 0)
    assert way("int32", "int8", overflow="saturate") == (CLAMP, 0)


# NumPy's own arithmetic


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_products_and_sums_rounded_apart_are_numpy_s(dtype: Any) -> None:
    rng = np.random.default_rng(2)
    a, b = (rng.standard_normal(shape).astype(dtype) for shape in ((40, 300), (300, 50)))
    name = np.dtype(dtype).name
    fmt = lowp.parse(name)
    sums = np.zeros((40, 50), dtype)
    for k in range(300):
        sums += np.multiply.outer(a[:, k], b[k])
    accumulator = Accumulator(format=name, group_sum="sequential")
    found = _rounded_sums.run(a.astype(float), b.astype(float), np.zeros((40, 50)), accumulator, fmt, fmt)  # type: ignore[arg-type]
    assert np.array_equal(bits(found), bits(sums))


def test_kahan_s_sum_is_numpy_s() -> None:
    rng = np.random.default_rng(3)
    a = rng.standard_normal((30, 200)).astype(np.float32) * np.float32(1e3)
    s, e = np.zeros(30, np.float32), np.zeros(30, np.float32)
    for k in range(200):
        y = a[:, k] - e
        t = s + y
        s, e = t, (t - s) - y
    accumulator = Accumulator(format="float32", compensation="kahan")
    found = _rounded_sums.run(a.astype(float), np.ones((200, 1)), np.zeros((30, 1)), accumulator)
    assert np.array_equal(bits(found[:, 0]), bits(s - e))


@pytest.mark.parametrize("overflow", ["wrap", "saturate"])
@pytest.mark.parametrize("group", [1, 4])
def test_integers_wrap_or_saturate_after_each_group(overflow: str, group: int) -> None:
    rng = np.random.default_rng(4)
    a, b = rng.integers(0, 256, (20, 403)), rng.integers(-128, 128, (403, 30))
    start = rng.choice(np.array([2**31 - 70000, -(2**31) + 70000, 0]), (20, 30))
    sums = start.copy()
    for first in range(0, 403, group):
        sums = sums + a[:, first : first + group] @ b[first : first + group]
        sums = np.clip(sums, -(2**31), 2**31 - 1) if overflow == "saturate" else (sums + 2**31) % 2**32 - 2**31
    accumulator = Accumulator(format="int32", overflow=overflow, group=group)
    formats = lowp.parse("uint8"), lowp.parse("int8")
    found = _rounded_sums.run(a.astype(float), b.astype(float), start.astype(float), accumulator, *formats)  # type: ignore[arg-type]
    assert np.array_equal(found, sums)
    assert (sums == 2**31 - 1).any() == (overflow == "saturate")


def test_wide_integers_wrap() -> None:
    """Products of 62 bits, which float64 does not hold."""
    rng = np.random.default_rng(5)
    a, b = rng.integers(-(2**31), 2**31, (5, 40)), rng.integers(-(2**31), 2**31, (40, 6))
    sums = np.zeros((5, 6), object)
    for k in range(40):
        sums = (sums + np.multiply.outer(a[:, k].astype(object), b[k].astype(object)) + 2**31) % 2**32 - 2**31
    fmt = lowp.parse("int32")
    accumulator = Accumulator(format="int32", overflow="wrap")
    found = _rounded_sums.run(a.astype(float), b.astype(float), np.zeros((5, 6)), accumulator, fmt, fmt)  # type: ignore[arg-type]
    assert np.array_equal(found, sums.astype(float))
