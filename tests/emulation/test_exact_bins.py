"""Exact sums of products against rational numbers, vectors of other programs, and each other on every path."""

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest

import lowp
from lowp.emulation import _exact_bins, _exact_panels, exact_ops
from lowp.emulation._operands import decoded
from lowp.emulation._target import EXACT, ODD, OPEN
from lowp.emulation.accumulator import Accumulator
from lowp.formats.parse import parse
from lowp.rounding.exact import exact_value
from tests.conftest import Vectors
from tests.emulation.exact_sums_reference import FLOAT64, NAMES, any_codes, float64_numbers, numbers, step


def is_right(value: float, state: int, wanted) -> bool:
    """Whether a float64 number and its state tell an exact result."""
    if isinstance(wanted, str):
        return state == EXACT and (np.array(value).tobytes() == np.array(NAMES[wanted]).tobytes() or wanted == "nan")
    if state == OPEN:
        size = abs(wanted)
        return 0 < size < Fraction(2) ** -1021 or size >= Fraction(2) ** 1023
    if state == EXACT:
        return Fraction(value) == wanted and not (wanted == 0 and math.copysign(1, value) < 0)
    below, above = math.nextafter(value, -math.inf), math.nextafter(value, math.inf)
    odd = np.array(value).view(np.int64) & 1 == 1
    return state == ODD and bool(odd) and Fraction(below) < wanted < Fraction(above) and Fraction(value) != wanted


def check_whole(a, b, c=None, *, divisor=1, from_zero=True, down=False, some=None) -> None:
    values, states, exactly = _exact_bins.whole(
        a, b, c, FLOAT64, FLOAT64, divisor=divisor, from_zero=from_zero, toward_negative=down
    )
    assert values.shape == states.shape == (len(a), b.shape[1])
    places = range(values.size) if some is None else some
    for i in places:
        row, column = divmod(int(i), b.shape[1])
        start = (Fraction(0) if from_zero else None) if c is None else exact_value(float(c[row, column]))
        wanted = step(zip(a[row], b[:, column], strict=True), start, down)
        wanted = Fraction(0) if wanted is None else wanted
        wanted = wanted / divisor if isinstance(wanted, Fraction) else wanted
        assert is_right(float(values.flat[i]), int(states.flat[i]), wanted), (values.flat[i], states.flat[i], wanted)
        if states.flat[i] == OPEN or wanted != "nan":
            assert exactly(int(i)) == wanted


@pytest.mark.parametrize("name", ["float8_e4m3fn", "float8_e5m2", "posit8_es2", "float8_e8m0fnu"])
def test_every_product_of_two_codes(name: str) -> None:
    fmt = parse(name)
    x = lowp.values(fmt)
    a, b = x[:, None].copy(), x[None, :].copy()
    values, states, _ = _exact_bins.whole(a, b, None, fmt, fmt)
    with np.errstate(invalid="ignore"):
        wanted = a * b + 0.0  # all of it exact in float64
    np.testing.assert_array_equal(values, wanted)
    assert not np.signbit(values[values == 0]).any()
    assert (states == EXACT).all()


def test_all_sums_of_two_products_of_a_small_format() -> None:
    pairs = np.array(list(itertools.product(lowp.values("float4_e2m1fn"), repeat=2)))
    check_whole(pairs, pairs.T.copy(), some=range(0, len(pairs) ** 2, 37))
    codes = lowp.encode(pairs, "float4_e2m1fn").codes
    a, b = (lowp.array.from_codes(x, "float4_e2m1fn") for x in (codes, codes.T))
    got = lowp.dot(a, b, accumulator="quire", fmt="float4_e2m1fn").codes
    np.testing.assert_array_equal(got, lowp.encode(pairs @ pairs.T, "float4_e2m1fn", overflow="infinity_or_nan").codes)


@pytest.mark.parametrize("terms", [0, 1, 2, 3, 17, 129])
@pytest.mark.parametrize("name", ["float16", "bfloat16", "float32", "posit16_es1", "posit16_es2", "takum16_linear"])
def test_sums_of_any_codes(name: str, terms: int) -> None:
    rng = np.random.default_rng(terms + len(name))
    a, b = numbers(rng, name, (3, terms)), numbers(rng, name, (terms, 5))
    c = numbers(rng, "float32", (3, 5))
    for start, down in itertools.product((None, c, -0.0 * np.abs(c)), (False, True)):
        check_whole(a, b, start, down=down)
    check_whole(a, b, from_zero=False)


@pytest.mark.parametrize("terms", [513, 1030])
def test_long_sums_in_several_panels(terms: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_exact_panels, "_ROWS", 4)
    monkeypatch.setattr(_exact_panels, "_COLUMNS", 5)
    monkeypatch.setattr(_exact_panels, "_ELEMENTS", 1 << 10)
    rng = np.random.default_rng(terms)
    for name in ("float16", "bfloat16", "float32"):
        a, b = numbers(rng, name, (7, terms)), numbers(rng, name, (terms, 11))
        b[: terms // 2] *= 0  # a panel without numbers comes first
        check_whole(a, b, some=rng.integers(0, 77, 9))


@pytest.mark.parametrize("spread", [0, 20, 300, 1000])
def test_cancellation_and_spread_of_float64(spread: int) -> None:
    rng = np.random.default_rng(spread)
    x, y = float64_numbers(rng, (3, 20), spread), float64_numbers(rng, (20, 4), spread)
    a, b = np.concatenate([x, -x, x[:, :1] * 0 + 1], axis=1), np.concatenate([y, y, y[:1] * 0 + 2.0**-1074])
    check_whole(a, b)
    places = rng.permutation(41)
    check_whole(a[:, places], b[places], np.full((3, 4), 5e-324))
    check_whole(a[:, :40], b[:40])


def test_results_beyond_float64_are_open_and_told_exactly() -> None:
    a = np.array(
        [[2.0**1000, 2.0**1000], [2.0**-1000, 2.0**-1000], [2.0**-600, -(2.0**-1074)], [2.0**-1022, 2.0**-1074]]
    )
    b = np.array([[2.0**1000, 2.0**-1000, 2.0**-400, 1.0], [2.0**1000, 2.0**-1000, 1.0, 1.0]])
    values, states, exactly = _exact_bins.whole(a, b, None, FLOAT64, FLOAT64)
    check_whole(a, b)
    assert states[0, 0] == states[1, 1] == OPEN
    assert exactly(0) == 2 * Fraction(2) ** 2000
    assert (states[3, 3], values[3, 3]) == (EXACT, 2.0**-1022 + 5e-324)  # a subnormal number's bits are enough
    check_whole(np.array([[2.0**-1023, 2.0**-600], [2.0**-1024, 2.0**-599]]), np.array([[1.0, 1.0], [2.0**-475, 0.0]]))
    for large, states in ((2.0**600, [[OPEN]]), (-(2.0**511), [[EXACT]])):
        check_whole(np.array([[large]]), np.array([[large]]))
        assert _exact_bins.whole(np.array([[large]]), np.array([[large]]), None, FLOAT64, FLOAT64)[1].tolist() == states


@pytest.mark.parametrize("name", ["float16", "bfloat16", "float32", "float64"])
def test_slices_and_bins_agree(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(len(name))
    a, b = (float64_numbers(rng, s, 40) if name == "float64" else numbers(rng, name, s) for s in ((33, 150), (150, 70)))
    c = numbers(rng, "float32", (33, 70))
    found = []
    for most in (0, 25, 10_000):
        monkeypatch.setattr(_exact_panels, "_MOST_SLICES", most)
        _exact_panels._slices.cache_clear()
        found.append(_exact_bins.whole(a, b, c, FLOAT64, FLOAT64)[:2])
    _exact_panels._slices.cache_clear()
    for values, states in found[1:]:
        np.testing.assert_array_equal(values.view(np.int64), found[0][0].view(np.int64))
        np.testing.assert_array_equal(states, found[0][1])
    monkeypatch.undo()
    check_whole(a, b, c, some=rng.integers(0, 33 * 70, 12))


@pytest.mark.parametrize("most", [0, 10_000])
@pytest.mark.parametrize("width", [8, 12, 24, 53])
def test_many_terms_of_full_significands(most: int, width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_exact_panels, "_MOST_SLICES", most)
    _exact_panels._slices.cache_clear()
    full, terms = 2.0**width - 1, 3071
    a = np.full((2, terms), full) * [[1.0], [-1.0]]
    a[:, -1] = 1.0
    b = np.full((terms, 2), full) * [1.0, 2.0**40 if width > 24 else 1.0]
    for low in (-2, -17, -30, -31, -33):  # where bins begin
        check_whole(a, b, np.full((2, 2), 2.0**low), some=[0, 3])
    _exact_panels._slices.cache_clear()


def test_carries_of_many_panels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_exact_panels, "_TERMS", 2)
    monkeypatch.setattr(_exact_panels, "_MOST_TERMS", 2)
    full = np.full((1, 9001), 2.0**26 - 1)
    check_whole(full, full.T, np.full((1, 1), 2.0**-31))  # products of 52 bits begin at a bin's last bit


def test_threads_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(8)
    a, b = numbers(rng, "bfloat16", (90, 300)), numbers(rng, "bfloat16", (300, 110))
    one, two = [], []
    for threads, found in (("1", one), ("3", two)):
        monkeypatch.setenv("LOWP_NUM_THREADS", threads)
        found.extend(_exact_bins.whole(a, b, None, FLOAT64, FLOAT64)[:2])
        accumulator = Accumulator(format="float16", group=2)
        found.append(_exact_bins.run(a / 2**100, b, None, accumulator, FLOAT64, FLOAT64))
    for x, y in zip(one, two, strict=True):
        np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize("c", [None, 1.0, math.inf, -math.inf, math.nan, -0.0])
def test_nan_and_infinities(c: float | None) -> None:
    some = np.array([math.inf, -math.inf, math.nan, 0.0, -0.0, 1.0, -(2.0**-900)])
    a = np.array(list(itertools.product(some, repeat=2)))
    b = a.T.copy()
    rng = np.random.default_rng(0)
    for down in (False, True):
        check_whole(a, b, None if c is None else np.full((49, 49), c), down=down, some=rng.integers(0, 49 * 49, 400))


@pytest.mark.parametrize("divisor", [1, 2, 3, 7, 1000, (1 << 31) - 1])
def test_quotients(divisor: int) -> None:
    rng = np.random.default_rng(divisor)
    for name in ("float8_e4m3fn", "posit16_es1", "float32"):
        a, b = numbers(rng, name, (2, 9)), numbers(rng, name, (9, 5))
        check_whole(a, b, divisor=divisor, from_zero=False)
        check_whole(a, b * 0, divisor=divisor, from_zero=False)


FORMATS = ("float8_e4m3fn", "float8_e5m2", "float16", "float32", "float64", "posit8_es2", "posit16_es1", "int8")
RESULTS = (*FORMATS, "bfloat16", "lns8_f3", "nf4", "takum16_linear", "int16", "posit32_es2")


@pytest.mark.parametrize("fmt", RESULTS)
@pytest.mark.parametrize("rounding", ["ties_to_even", "toward_negative", "to_odd", "stochastic_a"])
def test_dot_products_in_every_kind_of_format(fmt: str, rounding: str) -> None:
    rng = np.random.default_rng(len(fmt) + len(rounding))
    random_bits = 12 if rounding == "stochastic_a" else None
    options = {"rounding": rounding, "random_bits": random_bits}
    for name, terms in itertools.product(FORMATS, (1, 6)):
        form = parse(name)
        a, b = (lowp.array.from_codes(any_codes(rng, form, s), form) for s in ((3, terms), (terms, 3)))
        x, y = decoded(a.codes, form), decoded(b.codes, form)
        a, b = (lowp.array(np.where(np.isfinite(z), z, 0.0), form) for z in (x, y))
        if form.has_negative_zero and rng.random() < 0.5:
            b = lowp.array(-0.0 * np.abs(decoded(b.codes, form)), form)
        got = lowp.dot(a, b, accumulator="quire", fmt=fmt, seed=5, **options)
        for i, j in itertools.product(range(3), range(3)):
            rows = [form.meaning(int(k)) for k in a.codes[i]], [form.meaning(int(k)) for k in b.codes[:, j]]
            words = None if random_bits is None else [_word(5, 3 * i + j)]
            wanted = exact_ops.dot(*rows, fmt, "quire", rounding, random=words, random_bits=random_bits)
            assert int(got.codes[i, j]) == wanted, (name, rows)


def _word(seed: int, position: int) -> int:
    from lowp.rounding.random_bits import words
    from lowp.rounding.request import make_request

    request = make_request("stochastic_a", "infinity_or_nan", seed, 12, 0, "error", ("error",))
    return int(words((request.key0, request.key1), position, 1)[0])


def test_wrapping_integers_and_float64_results() -> None:
    rng = np.random.default_rng(4)
    a, b = (lowp.array(numbers(rng, "float32", s), "float32") for s in ((20, 40), (40, 20)))
    x, y = (decoded(z.codes, parse("float32")) for z in (a, b))
    wrapped = lowp.dot(a, b, accumulator="quire", fmt="int16", overflow="wrap")
    double = lowp.dot(a, b, accumulator="quire", fmt="float64")
    for i, j in itertools.product(range(20), range(0, 20, 7)):
        pairs = list(map(float, x[i])), list(map(float, y[:, j]))
        assert int(wrapped.codes[i, j]) == exact_ops.dot(*pairs, "int16", "quire", overflow="wrap")
        assert int(double.codes[i, j]) == exact_ops.dot(*pairs, "float64", "quire")


@pytest.mark.parametrize("name", ["posit8_es0", "posit16_es1", "posit16_es2_pX2", "posit32_es2", "posit20_es2_pX2"])
def test_quires_of_softposit(vectors: Vectors, name: str) -> None:
    arrays, fmt = vectors(f"softposit/{name}"), name.removesuffix("_pX2")
    keys = [key.removesuffix("_a") for key in arrays if key.startswith("qdot") and key.endswith("_a")]
    assert keys
    for key in keys:
        a, b = arrays[f"{key}_a"], arrays[f"{key}_b"].T
        got = lowp.dot(*(lowp.array.from_codes(x, fmt) for x in (a, b)), accumulator="quire").codes
        suspect = arrays.get(f"{key}_suspect", np.zeros(len(got), bool)).astype(bool)
        np.testing.assert_array_equal(np.diag(got)[~suspect], arrays[f"{key}_out"][~suspect])
