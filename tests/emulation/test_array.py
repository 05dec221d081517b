"""`lowp.array`: construction, NumPy's ways, comparison, reductions, neighbours, classes."""

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

import lowp
from lowp.rounding.random_bits import word


def test_construction_rounds_once() -> None:
    a = lowp.array([0.1, 464.0, 465.0, -0.0], "float8_e4m3fn")
    assert a.codes.tolist() == [29, 126, 127, 128]
    assert a.codes.dtype == np.uint8
    assert lowp.array([465.0], "fp8", overflow="saturate").codes == 126
    assert lowp.array(0.3, "float16", "toward_positive").item() == 0.300048828125
    assert lowp.array(Fraction(1, 3), "posit64_es2").codes == lowp.exact.encode(Fraction(1, 3), "posit64_es2")
    assert lowp.array([math.nan], "int8", nan="zero").item() == 0
    with pytest.raises(lowp.RangeError):
        lowp.array([math.nan], "int8")
    with pytest.raises(lowp.FormatError, match="block"):
        lowp.array([1.0], "mxfp4")


def test_construction_from_an_array_converts_exactly() -> None:
    wide = lowp.array.from_codes([0x4000000000000001], "posit64_es2")
    assert lowp.array(wide, "float32").item() == 1.0
    assert lowp.array(wide, "float32", "toward_positive").item() == 1 + 2.0**-23
    assert wide.astype("posit64_es2").codes == 0x4000000000000001


def test_codes_in_and_out() -> None:
    codes = np.array([[1, 2], [3, 250]])
    a = lowp.array.from_codes(codes, "posit8_es2")
    assert (a.codes == codes).all()
    codes[0, 0] = 9
    assert a.codes[0, 0] == 1
    for bad, error in (([256], lowp.RangeError), ([-1], lowp.RangeError), ([0.5], lowp.ArgumentTypeError)):
        with pytest.raises(error):
            lowp.array.from_codes(bad, "posit8_es2")


def test_shape_and_indexing() -> None:
    a = lowp.array(np.arange(12).reshape(3, 4), "float16")
    assert (a.shape, a.ndim, a.size, len(a)) == ((3, 4), 2, 12, 3)
    assert a.T.shape == (4, 3)
    assert a.reshape(2, 6).ravel().values.tolist() == list(range(12))
    assert a[1, 2].item() == 6
    assert a[a > 9].values.tolist() == [10, 11]
    assert [row.values.sum() for row in a] == [6, 22, 38]
    a[0] = 0.1
    a[1, :2] = lowp.array([7.0, 8.0], "float32")
    assert a.values[0].tolist() == [0.0999755859375] * 4
    assert a.values[1].tolist() == [7, 8, 6, 7]
    copy = a.copy()
    copy[0] = 1
    assert a[0, 0].item() != 1
    with pytest.raises(lowp.ArgumentTypeError):
        len(a[0, 0])


def test_text() -> None:
    assert repr(lowp.array([1.5, -0.0], "float16")) == "array([1.5, -0.0], format='float16')"
    assert repr(lowp.array(2, "int8")) == "array(2.0, format='int8')"


def test_operators_take_plain_numbers_at_their_exact_values() -> None:
    a = lowp.array([1.0, 3.0], "float8_e4m3fn")
    assert (a + 0.0626).values.tolist() == [1.125, 3.0]
    assert (2 * a - 1).values.tolist() == [1, 5]
    assert (1 / a).values.tolist() == [1, 0.34375]
    assert (a / Fraction(3)).values.tolist() == [0.34375, 1]
    assert (a + 10**400).codes.tolist() == [127, 127]
    assert (7 % a).values.tolist() == [0, 1]
    assert (-a % 2).values.tolist() == [1, 1]
    assert (2**a).values.tolist() == [2, 8]
    assert (np.array([1.0, 2.0]) + a).values.tolist() == [2, 5]
    assert abs(-a).values.tolist() == [1, 3]
    with pytest.raises(TypeError):
        a + "x"


@pytest.mark.parametrize("name", ["posit8_es1", "posit32", "takum8", "takum12_log", "lns8_f3", "fp8"])
def test_plain_numbers_may_lie_beyond_float64(name: str) -> None:
    """In float64 they are zero, infinite or a subnormal number far off."""
    tiny, huge = Fraction(1, 2**5000), Fraction(2**5000)
    for number in (tiny, -tiny, huge, -huge, Fraction(1, 2**1076), Fraction(5, 2**1076), Fraction(1, 3 * 2**1074)):
        for rounding in ("ties_to_even", "away_from_zero", "toward_zero"):
            want = lowp.exact.encode(number, name, rounding, "infinity_or_nan")
            assert lowp.array(number, name, rounding=rounding).codes == want
    one = lowp.array([1.5], name)
    for number in (tiny, huge, Fraction(5, 2**1076)):
        want = lowp.exact.encode(number * Fraction(one.item()), name, "ties_to_even", "infinity_or_nan")
        assert (one * number).codes[0] == want
    large = Fraction(1, 3 * 2**1074) * 2**900
    target = lowp.array([2.0**60], "posit32")
    wanted = lowp.exact.encode(Fraction(2**60) * large, "posit32")
    assert (target * large).codes[0] == wanted


def test_modulo_follows_python() -> None:
    numbers = [-7.0, -0.0, 7.0, 5.5, 1e-3]
    a = lowp.array(numbers, "float32")
    for divisor in (3.0, -3.0, math.inf, -math.inf):
        with np.errstate(invalid="ignore"):
            wanted = np.remainder(a.values, divisor).astype(np.float32)
        got = (a % divisor).values
        assert got.tolist() == wanted.tolist()
        assert (np.signbit(got) == np.signbit(wanted)).all()


def test_mixed_formats_need_a_result_format() -> None:
    a, b = lowp.array([1.0], "float16"), lowp.array([2.0], "bfloat16")
    with pytest.raises(lowp.ArgumentError, match="fmt="):
        a + b
    assert lowp.add(a, b, fmt="float32").format == lowp.parse("float32")
    with pytest.raises(lowp.ArgumentError, match="broadcast"):
        lowp.array([1.0, 2.0], "float16") + lowp.array([1.0, 2.0, 3.0], "float16")
    with pytest.raises(lowp.ArgumentTypeError, match="rounding"):
        lowp.add(a, a, roundin="floor")  # type: ignore[call-arg]
    with pytest.raises(lowp.ArgumentError, match="round differently"):
        a + lowp.array([1.0], "float16", "toward_zero")


@pytest.mark.parametrize(
    ("a", "b", "total", "product"),
    [
        ("int8", "int8", "int9", "int16"),
        ("uint8", "uint4", "uint9", "uint12"),
        ("int8", "uint8", "int10", "int16"),
        ("fixed8_4", "fixed16_8", "fixed17_8", "fixed24_12"),
        ("fixed8_7", "ufixed4_0", "fixed13_7", "fixed12_7"),
    ],
)
def test_full_precision_results(a: str, b: str, total: str, product: str) -> None:
    ends = [[lowp.parse(f).min, lowp.parse(f).max] for f in (a, b)]  # type: ignore[attr-defined]
    x, y = lowp.array([[v] for v in ends[0]], a), lowp.array(ends[1], b)
    for got, fmt, exact in (
        (lowp.add(x, y, fmt="full"), total, x.values + y.values),
        (lowp.multiply(x, y, fmt="full"), product, x.values * y.values),
        (lowp.subtract(x, y, fmt="full"), None, x.values - y.values),
    ):
        assert fmt is None or got.format == lowp.parse(fmt)
        assert (got.values == exact).all()


def test_full_precision_is_for_integers() -> None:
    with pytest.raises(lowp.ArgumentError, match="full"):
        lowp.add(lowp.array(1, "float16"), lowp.array(1, "float16"), fmt="full")
    with pytest.raises(lowp.FormatError, match="72 bits"):
        lowp.multiply(lowp.array(1, "fixed40_0"), lowp.array(1, "int32"), fmt="full")
    least = lowp.array(-(2**31), "int32")
    assert lowp.multiply(least, least - 1, fmt="full", overflow="wrap").codes == 2**62


def test_stochastic_results_depend_on_seed_and_position_and_chains_draw_anew() -> None:
    a = lowp.array(np.full(2000, 1.0), "float8_e4m3fn", "stochastic_a", seed=5)
    first = a + 0.03125
    assert first.codes.tolist() == [0x38 + (2**30 + word(6, i) >= 2**32) for i in range(2000)]
    second = first.settings.seed
    assert second == 7
    again = (a + 0.03125).codes
    assert (again == first.codes).all()
    assert abs(first.values.mean() - 1.03125) < 0.01
    assert (lowp.add(a, 0.03125, seed=11).codes != first.codes).any()


def test_comparisons() -> None:
    a = lowp.array([1.0, -0.0, math.nan, math.inf], "float16")
    assert (a == [1, 0, 0, 0]).tolist() == [True, True, False, False]
    assert (np.array([1, 0, 0, 0]) == a).tolist() == [True, True, False, False]
    assert (a < 2).tolist() == [True, True, False, False]
    assert (a != a).tolist() == [False, False, True, False]
    assert (a >= lowp.array(1, "float32")).tolist() == [True, False, False, True]
    assert bool(a[0])
    assert not bool(a[1])
    with pytest.raises(ValueError, match="4 elements"):
        bool(a)


def test_posits_compare_as_integers() -> None:
    nar, least, one = lowp.array.from_codes([0x80, 0x81, 0x40], "posit8_es2")
    assert bool(nar == nar)
    assert bool(nar < least)
    assert bool(least < one)
    assert not bool(nar != nar)


def test_comparisons_see_what_float64_does_not() -> None:
    close = lowp.array.from_codes([0x4000000000000000, 0x4000000000000001], "posit64_es2")
    assert bool(close[0] < close[1])
    assert bool(close[1] > 1)
    assert bool(close[0] == Fraction(1))
    root = lowp.array.from_codes(4, "lns8_f3")
    assert bool(root > 1.4142135623730949)
    assert not bool(root == math.sqrt(2))


def test_numpy_functions_work_in_the_format() -> None:
    a = lowp.array([1.0, 4.0, 9.0], "posit16_es2")
    assert np.sqrt(a).values.tolist() == [1, 2, 3]
    assert (np.add(a, a).codes == (a + a).codes).all()
    assert (np.exp(a).codes == lowp.exp(a).codes).all()
    assert np.maximum(a, 5).values.tolist() == [5, 5, 9]
    assert np.isnan(lowp.array.from_codes([0, 0x8000], "posit16_es2")).tolist() == [False, True]
    assert np.greater(a, 2).tolist() == [False, True, True]
    assert np.sum(a).item() == a.sum().item() == np.add.reduce(a).item() == 14
    assert np.concatenate([a, a]).shape == (6,)
    assert np.where(a > 2, a, -a).values.tolist() == [-1, 4, 9]
    assert np.asarray(a).tolist() == [1, 4, 9]
    assert np.square(a).values.tolist() == [1, 16, 81]


@pytest.mark.parametrize(
    "call",
    [
        np.arctan,
        np.add.accumulate,
        lambda a: np.add(a, a, out=np.zeros(2)),
        np.fft.fft,
        lambda a: np.concatenate([a, a.astype("float32")]),
    ],
)
def test_other_numpy_functions_say_so(call: Any) -> None:
    with pytest.raises(
        (lowp.ArgumentTypeError, lowp.ArgumentError), match=r"available|correctly rounded|takes no|one format"
    ):
        call(lowp.array([1.0, 2.0], "float16"))


def test_sums_round_in_order() -> None:
    a = lowp.array([2048.0, 1.0, 1.0], "float16")
    assert a.sum().item() == 2048
    assert a[::-1].sum().item() == 2050
    assert a.sum(accumulator="exact").item() == 2050
    assert a.sum(accumulator="float32").item() == 2050
    assert lowp.array([[1.0, 2.0], [3.0, 4.0]], "int8").sum(axis=0).values.tolist() == [4, 6]
    assert a.prod().item() == 2048
    assert (a.min().item(), a.max().item()) == (1, 2048)
    assert lowp.array([100, 100], "int8").mean().item() == 64
    assert lowp.array([100, 100], "int8").mean(accumulator="exact").item() == 100
    assert lowp.array([1, 2], "float16").mean(accumulator="exact").item() == 1.5
    assert np.signbit(lowp.array([-0.0, -0.0], "float16").sum(accumulator="exact").item())
    with pytest.raises(lowp.RangeError, match="no elements"):
        lowp.array([], "float16").sum()
    with pytest.raises(lowp.ArgumentError, match="axis"):
        a.sum(axis=1)


@pytest.mark.parametrize("name", ["float16", "posit8_es2", "int8", "lns8_f3", "takum8_log", "float8_e4m3fn"])
@pytest.mark.parametrize("accumulator", [None, "float32", "exact"])
def test_dot_agrees_with_the_oracle(name: str, accumulator: str | None) -> None:
    from lowp.emulation.exact_ops import dot

    fmt = lowp.parse(name)
    assert isinstance(fmt, lowp.ScalarFormat)
    codes = np.random.default_rng(8).integers(0, 256, (2, 6, 5))
    if name == "float16":
        codes = codes * 257 % 31744
    a, b = (lowp.array.from_codes(c, fmt, nan="zero") for c in (codes[0], codes[1].T))
    got = lowp.dot(a, b, accumulator=accumulator).codes
    assert got.shape == (6, 6)
    for i, j in ((0, 0), (1, 4), (5, 2), (3, 3)):
        x, y = ([fmt.meaning(int(c)) for c in row] for row in (codes[0][i], codes[1][j]))
        assert got[i, j] == dot(x, y, fmt, accumulator, nan="zero"), (x, y)


def test_dot_shapes() -> None:
    a, b = lowp.array(np.eye(3), "float16"), lowp.array([1.0, 2.0, 3.0], "float16")
    assert (a @ b).values.tolist() == [1, 2, 3]
    assert (a @ a).shape == (3, 3)
    assert (b @ b).item() == 14
    assert np.dot(b, b).item() == 14
    with pytest.raises(lowp.ArgumentError, match="inner lengths"):
        b @ lowp.array([1.0], "float16")


def test_exact_dot_products_of_specials() -> None:
    def product(x: list[float], y: list[float], **how: Any) -> float:
        a, b = lowp.array(x, "float16"), lowp.array(y, "float16")
        return lowp.dot(a, b, accumulator="exact", **how).item()

    assert product([math.inf, 1], [2, 3]) == math.inf
    assert math.isnan(product([math.inf, 1], [0, 3]))
    assert math.isnan(product([math.inf, -math.inf], [1, 1]))
    assert math.isnan(product([math.nan, 1], [1, 1]))
    assert np.signbit(product([1, -1], [1, 1], rounding="toward_negative"))
    assert not np.signbit(product([1, -1], [1, 1]))


@pytest.mark.parametrize(
    "name",
    ["float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e8m0fnu", "e3m2_nosub", "binary6p3se", "int8_sym",
     "uint4", "fixed8_4", "nf4", "lns8_f3", "lns8_f3_unsigned_nozero"],
)  # fmt: skip
def test_neighbours_walk_through_the_values(name: str) -> None:
    fmt = lowp.parse(name)
    assert isinstance(fmt, lowp.ScalarFormat)
    values = lowp.values(fmt)
    if name == "int8_sym":
        values = values[values > -128]
    every = np.unique(values[~np.isnan(values)])
    x = lowp.array.from_codes([lowp.encode(v, fmt, overflow="propagate").codes for v in every], fmt)
    assert lowp.next_up(x).values.tolist() == [*every[1:].tolist(), every[-1]]
    assert lowp.next_down(x).values.tolist() == [every[0], *every[:-1].tolist()]


def test_neighbours_of_zero_and_nan() -> None:
    x = lowp.array([0.0, -0.0, -(2.0**-24), math.nan], "float16")
    assert lowp.next_up(x).codes.tolist() == [1, 1, 0x8000, 0x7E00]
    assert lowp.next_down(x).codes.tolist() == [0x8001, 0x8001, 0x8002, 0x7E00]
    assert lowp.next_up(lowp.array.from_codes([0x7F, 0x80, 0xFF], "posit8_es2")).codes.tolist() == [0x80, 0x81, 0]
    with pytest.raises(lowp.ArgumentTypeError):
        lowp.next_up(1.0)  # type: ignore[arg-type]


def test_ulp() -> None:
    assert lowp.ulp(lowp.array([1, 2, -0.0, 65504, math.inf], "float16")).tolist() == [
        2**-10,
        2**-9,
        2**-24,
        32,
        math.inf,
    ]
    assert lowp.ulp(lowp.array([-128, 127], "int8")).tolist() == [1, 1]
    assert lowp.ulp(lowp.array([1.0, -1.0, 2.0**24], "posit8_es2")).tolist() == [0.125, 0.125, 2.0**24 - 2.0**20]
    assert math.isnan(lowp.ulp(lowp.array([math.nan], "float16"))[0])
    assert lowp.ulp(lowp.array.from_codes([0], "lns8_f3"))[0] == pytest.approx(2**0.125 - 1, abs=1e-16)


def test_classes() -> None:
    x = lowp.array([1.0, -1e-7, 0.0, -0.0, math.inf, -math.inf, math.nan], "float16")
    wanted = ["+normal", "-subnormal", "+zero", "-zero", "+infinity", "-infinity", "nan"]
    assert lowp.classify(x).tolist() == wanted
    assert lowp.classify(lowp.array.from_codes([0, 0x80, 1, 0xFF], "posit8_es2")).tolist() == [
        "+zero", "nan", "+normal", "-normal",
    ]  # fmt: skip


def test_total_order() -> None:
    ordered = lowp.array.from_codes([0xFE01, 0xFE00, 0xFC00, 0x8001, 0x8000, 0, 1, 0x7C00, 0x7E00, 0x7E01], "float16")
    table = lowp.total_order(ordered[:, None], ordered[None, :])
    assert (table == np.triu(np.ones((10, 10), bool))).all()
    posits = lowp.array.from_codes([0x80, 0xFF, 0, 1, 0x7F], "posit8_es2")
    assert (lowp.total_order(posits[:, None], posits[None, :]) == np.triu(np.ones((5, 5), bool))).all()
    with pytest.raises(lowp.ArgumentError, match="one format"):
        lowp.total_order(posits, ordered)


def test_large_arrays_are_computed_in_parts_with_the_same_result() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((2, 300_000))
    for name, how in (("float32", {"rounding": "stochastic_a", "seed": 3}), ("posit16_es2", {}), ("float8_e4m3fn", {})):
        a, b = lowp.array(x, name, **how), lowp.array(y, name, **how)  # type: ignore[arg-type]
        whole = (a * b).codes
        seed = {"seed": a.settings.seed} if how else {}
        for i in (0, 65535, 65536, 131073, 299_999):
            exact = {"random": word(seed["seed"], i)} if how else {}
            product = Fraction(float(a[i])) * Fraction(float(b[i]))
            mode = how.get("rounding", "ties_to_even")
            assert whole[i] == lowp.exact.encode(product, name, str(mode), "infinity_or_nan", **exact)


@pytest.mark.parametrize("accumulator", ["quire", None])
def test_a_dot_product_of_nothing_is_zero(accumulator: str | None) -> None:
    empty, wide = lowp.array(np.zeros((2, 0)), "posit16"), lowp.array(np.zeros((0, 3)), "posit16")
    assert lowp.dot(empty[0], wide[:, 0], accumulator=accumulator).item() == 0
    assert lowp.dot(empty, wide, accumulator=accumulator).codes.tolist() == [[0] * 3] * 2
