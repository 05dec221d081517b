"""Softmax against transcriptions of the algorithms that share nothing with it but the rounding of single operations."""

import math
from typing import Any

import mpmath
import numpy as np
import pytest

import lowp
from lowp.emulation.softmax import SoftmaxResult, softmax
from lowp.emulation.step_statistics import StepCounts
from lowp.testing import assert_bits_equal

ALGORITHMS = ("three_pass", "online", "two_pass")
FORMATS = ("float16", "bfloat16", "float8_e5m2", "float8_e4m3fn", "posit16_es1", "fixed16_8", "lns8_f3", "int8")


def draws(rows: int, length: int, spread: float = 4.0) -> np.ndarray:
    return np.random.default_rng(3).normal(size=(rows, length)) * spread


class Format:
    """Single numbers in a format: what the transcriptions compute with."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, x: float) -> float:
        return lowp.array(x, self.name).item()

    def __getattr__(self, op: str) -> Any:
        return lambda *x: getattr(lowp, op)(*x, fmt=self.name).item()


def three_pass(x: list[float], f: Format) -> list[float]:
    m = max(x)
    e = [f.exp(f.subtract(v, m)) for v in x]
    d = e[0]
    for v in e[1:]:
        d = f.add(d, v)
    return [f.divide(v, d) for v in e]


def online(x: list[float], f: Format) -> list[float]:
    m, d = x[0], f.exp(0.0)
    for v in x[1:]:
        top = max(m, v)
        d = f.add(f.multiply(d, f.exp(f.subtract(m, top))), f.exp(f.subtract(v, top)))
        m = top
    return [f.divide(f.exp(f.subtract(v, m)), d) for v in x]


def two_pass(x: list[float], f: Format) -> list[float]:
    def extended(v: float) -> tuple[float, int]:
        n = round(v * 1.4426950408889634)
        high = f(math.log(2))
        low = f(math.log(2) - high)  # the rest of ln 2 does not show in formats of 16 bits
        return f.exp(f.fma(float(n), -low, f.fma(float(n), -high, v))), n

    s, e = 0.0, -(10**9)
    for v in x:
        p, n = extended(v)
        top = max(e, n)
        s = f.add(f.multiply(s, power(e - top)), f.multiply(p, power(n - top)))
        e = top
    r = f.divide(1.0, s)
    return [f.multiply(f.multiply(p, r), power(n - e)) for p, n in map(extended, x)]


def power(k: int) -> float:
    return 0.0 if k <= -127 else 2.0**k


@pytest.mark.parametrize("fmt", FORMATS)
@pytest.mark.parametrize("algorithm", [three_pass, online, two_pass])
def test_the_algorithms_are_what_they_say(algorithm: Any, fmt: str) -> None:
    rows = lowp.array(draws(3, 17), fmt)
    wanted = [algorithm(row.tolist(), Format(fmt)) for row in rows.values]
    assert_bits_equal(softmax(rows, fmt, algorithm.__name__).values, np.array(wanted))


def exp32(x: np.ndarray) -> np.ndarray:
    return np.exp(x.astype(np.float64)).astype(np.float32)


def test_float32_is_numpys_arithmetic() -> None:
    x = draws(5, 40).astype(np.float32)
    e = exp32(x - x.max(axis=1, keepdims=True))
    d = np.add.accumulate(e, axis=1)[:, -1:]
    assert_bits_equal(softmax(x, "float32").values, (e / d).astype(np.float64))


def fma32(a: Any, b: Any, c: Any) -> np.ndarray:
    """Round a product plus a number by way of float64, which shows in one result of 2^29."""
    return (np.float64(a) * np.float64(b) + np.float64(c)).astype(np.float32)


def xnnpack_exp(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    n = np.rint(x * np.float32(float.fromhex("0x1.715476p+0")))
    t = fma32(n, float.fromhex("0x1.05C61p-29"), fma32(n, float.fromhex("-0x1.62E43p-1"), x))
    p = np.full_like(x, float.fromhex("0x1.0F9F9Cp-7"))
    for c in ("0x1.573A1Ap-5", "0x1.555A80p-3", "0x1.FFFDC6p-2", "0x1.FFFFF6p-1", "0x1p0"):
        p = fma32(p, t, float.fromhex(c))
    return p, n


def test_two_passes_with_the_polynomial_are_xnnpacks() -> None:
    x = draws(6, 50, 30.0).astype(np.float32)
    p, n = xnnpack_exp(x)
    s, e = np.zeros(6, np.float32), np.full(6, -np.inf)
    for k in range(50):
        top = np.maximum(e, n[:, k])
        down, term = (np.where(v <= -127, 0, 2.0 ** np.maximum(v, -127)) for v in (e - top, n[:, k] - top))
        s, e = fma32(s, down, p[:, k] * term.astype(np.float32)), top
    scale = np.float32(1) / s
    shift = n - e[:, None]
    wanted = p * scale[:, None] * np.where(shift <= -127, 0, 2.0 ** np.maximum(shift, -127)).astype(np.float32)
    got = softmax(x, "float32", "two_pass", exp_by="exp/two_pass_p5", fused=True)
    assert_bits_equal(got.values, wanted.astype(np.float64))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("fmt", ["float16", "float64"])
def test_errors_are_those_against_the_exact_softmax(algorithm: str, fmt: str) -> None:
    x = lowp.array(draws(4, 11), fmt)
    got = softmax(x, fmt, algorithm)
    differences, sums = [], []
    with mpmath.workprec(300):
        for row, outputs in zip(x.values, got.values, strict=True):
            powers = [mpmath.exp(mpmath.mpf(v)) for v in row.tolist()]
            total = mpmath.fsum(powers)
            differences += [float(abs(y - v / total)) for y, v in zip(outputs.tolist(), powers, strict=True)]
            sums.append(float(mpmath.fsum(mpmath.mpf(y) for y in outputs.tolist()) - 1))
    said = got.statistics
    assert said.max_absolute_error == pytest.approx(max(differences), rel=1e-9)
    assert said.mean_absolute_error == pytest.approx(np.mean(differences), rel=1e-9)
    ulps = np.array(differences) / lowp.ulp(lowp.array(got.values.ravel(), fmt))
    assert said.max_ulps == pytest.approx(ulps.max(), rel=0.5)  # the step may change between result and exact value
    assert said.mean_sum_minus_one == pytest.approx(np.mean(sums), rel=1e-9, abs=1e-30)
    assert said.max_sum_minus_one == pytest.approx(max(sums, key=abs), rel=1e-9)


def test_what_underflows_is_counted_by_step() -> None:
    x = [0.0, -12.0, -17.0, -18.0, -30.0]
    steps = softmax(x, "float16").statistics.steps
    assert steps["exp"] == StepCounts(5, underflow=2)  # e^-17 rounds to 2^-24, e^-18 to zero
    assert steps["sum"] == StepCounts(4)
    assert steps["division"] == StepCounts(5)
    two = softmax(x, "float16", "two_pass").statistics
    assert (two.steps["exp"].underflow, two.overflow, two.nan) == (0, 0, 0)


def test_what_overflows_is_counted_by_step() -> None:
    statistics = softmax([60000.0, -60000.0, 0.0], "float16").statistics
    assert statistics.steps["difference"] == StepCounts(3, overflow=1)
    saturated = softmax([100.0, -100.0], "int8").statistics.steps
    assert saturated["difference"] == StepCounts(2, overflow=1), "saturation counts too"
    wide = np.zeros((1, 1000))
    assert softmax(wide, "float8_e4m3fn").statistics.overflow == 0, "its sum swallows ones from 16 on"
    assert softmax(np.full((1, 70000), 3.0), "float16", accumulator="exact", exp="float16").statistics.overflow == 1


def test_large_inputs_need_no_maximum_in_two_passes() -> None:
    got = softmax([50000.0, 49999.0, -50000.0], "float32", "two_pass")
    assert got.values == pytest.approx([0.7310586, 0.26894143, 0.0], abs=1e-3)
    assert got.statistics.overflow == got.statistics.nan == 0


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_masked_places_are_zero(algorithm: str) -> None:
    x = np.array([[-np.inf, 1.0, 2.0, -np.inf], [-np.inf, -np.inf, -np.inf, 3.0]])
    got = softmax(x, "float16", algorithm).values
    assert_bits_equal(got[:, :][x == -np.inf], np.zeros(5))
    assert_bits_equal(got[0, 1:3], softmax(x[0, 1:3], "float16", algorithm).values)
    assert got[1, 3] == 1


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_rows_without_a_softmax_are_nan(algorithm: str) -> None:
    got = softmax([[-np.inf] * 2, [np.nan, 1.0], [1.0, 2.0]], "bfloat16", algorithm)
    assert np.isnan(got.values[:2]).all()
    assert got.values[2].sum() == pytest.approx(1, abs=0.02)
    assert got.statistics.failed == 0
    assert got.statistics.nan > 0


def test_a_sum_may_be_an_accumulators() -> None:
    x = lowp.array(draws(3, 64), "bfloat16")
    by = lowp.Accumulator(format="float16", chunk=8)
    e = lowp.exp(lowp.subtract(x, x.values.max(axis=1, keepdims=True)))
    d = np.asarray(lowp.matmul(e.values, np.ones((64, 1)), accumulator=by), np.float64)
    wanted = lowp.divide(e, d, fmt="bfloat16").values
    assert_bits_equal(softmax(x, "bfloat16", accumulator=by).values, wanted)
    exact = softmax(x, "bfloat16", accumulator="exact")
    d = lowp.array(e.values.sum(axis=1, keepdims=True), "bfloat16")
    assert_bits_equal(exact.values, lowp.divide(e, d).values)


def test_each_step_has_its_format() -> None:
    x = lowp.array(draws(2, 30), "bfloat16")
    got = softmax(x, "bfloat16", exp="float16", accumulator="float32", result="float8_e4m3fn")
    e = lowp.exp(lowp.subtract(x, x.values.max(axis=1, keepdims=True), fmt="float16"))
    d = e[:, 0].astype("float32")
    for k in range(1, 30):
        d = lowp.add(d, e[:, k], fmt="float32")
    wanted = lowp.divide(e, d.reshape(-1, 1), fmt="float8_e4m3fn")
    assert got.array.format.name == "float8_e4m3fn"
    assert_bits_equal(got.values, wanted.values)


def test_a_wider_accumulator_is_better() -> None:
    x = draws(4, 500, 1.0)
    narrow, wide = (softmax(x, "bfloat16", accumulator=a).statistics for a in ("bfloat16", "float32"))
    assert abs(narrow.mean_sum_minus_one) > 10 * abs(wide.mean_sum_minus_one)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_any_axis(algorithm: str) -> None:
    x = draws(12, 5).reshape(3, 4, 5)
    got = softmax(x, "float16", algorithm, axis=1)
    assert got.values.shape == (3, 4, 5)
    assert_bits_equal(got.values, np.moveaxis(softmax(np.moveaxis(x, 1, -1), "float16", algorithm).values, -1, 1))
    assert softmax(x[0, 0, :1], "float16", algorithm).values.tolist() == [1.0]


def test_approximated_exponentials() -> None:
    x = draws(2, 20)
    good, poor = (softmax(x, "float16", exp_by=f"exp/minimax_{n}").statistics for n in (4, 2))
    assert good.mean_ulps < poor.mean_ulps
    with pytest.raises(lowp.ArgumentError, match="approximates gelu, not exp"):
        softmax(x, "float16", exp_by="gelu/tanh")


def test_stochastic_steps_draw_their_own_bits() -> None:
    x = draws(2, 40)
    runs = [softmax(x, "bfloat16", rounding="stochastic", seed=s) for s in (1, 1, 2)]
    assert_bits_equal(runs[0].values, runs[1].values)
    assert (runs[0].values != runs[2].values).any()
    ones = np.zeros((1, 400))  # to nearest, the sum of 400 ones stays at 256
    assert softmax(ones, "bfloat16").statistics.mean_sum_minus_one == 400 / 256 - 1
    sums = [softmax(ones, "bfloat16", rounding="stochastic", seed=1000 * s).values.sum() for s in range(8)]
    assert abs(np.mean(sums) - 1) < 0.1


def test_the_result_says_what_it_is() -> None:
    got = softmax([[1.0, 2.0]], "float16")
    assert isinstance(got, SoftmaxResult)
    text = str(got.statistics)
    assert all(word in text for word in ("step", "difference", "ulps", "sum of a row minus one"))


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"algorithm": "onlin"}, "Did you mean 'online'"),
        ({"axis": 2}, "axis=2 does not exist"),
        ({"accumulator": 3}, "accumulator=3 must be"),
        ({"accumulator": "exact", "algorithm": "online"}, "use algorithm='three_pass'"),
        ({"division": "multiply"}, "division='multiply'"),
        ({"exp": "mxfp4"}, "exp needs a scalar format"),
        ({"exp_by": "exp/minimx_3"}, "Did you mean 'exp/minimax_3'"),
        ({"exp_by": 3}, "exp_by=3 must be"),
        ({"rounding": "up"}, "rounding='up'"),
        ({"round": "up"}, "Did you mean 'rounding'"),
    ],
)
def test_wrong_arguments(keywords: dict[str, Any], message: str) -> None:
    with pytest.raises(lowp.Error, match=message):
        softmax([[1.0, 2.0]], "float16", **keywords)


def test_nothing_to_sum() -> None:
    with pytest.raises(lowp.ArgumentError, match="no elements"):
        softmax(np.zeros((2, 0)), "float16")


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("fmt", ["posit16", "takum12", "lns16_f8", "float8_e4m3fn", "float4_e2m1fn", "int8", "nf4"])
def test_masked_places_are_zero_in_formats_without_infinity(fmt: str, algorithm: str) -> None:
    rng = np.random.default_rng(5)
    x = np.asarray(lowp.quantize(rng.normal(size=(1, 6)), fmt), np.float64)
    for count in (1, 3, 5):
        masked = np.zeros(6, bool)
        masked[rng.permutation(6)[:count]] = True
        for given in (np.where(masked, -np.inf, x), lowp.array(np.where(masked, -np.inf, x), "float32")):
            got = softmax(given, fmt, algorithm, nan="zero")
            wanted = softmax(x[:, ~masked], fmt, algorithm, nan="zero")
            assert (got.values[:, masked] == 0).all()
            assert_bits_equal(got.values[:, ~masked], wanted.values)
            if not wanted.statistics.overflow:
                assert got.statistics.overflow == 0
            assert got.statistics.max_absolute_error == wanted.statistics.max_absolute_error


def test_a_row_of_masks_is_nan() -> None:
    for fmt in ("posit16", "float8_e4m3fn", "lns16_f8"):
        got = softmax([[-np.inf] * 3, [1.0, 2.0, -np.inf]], fmt)
        assert np.isnan(got.values[0]).all()
        assert got.values[1, 2] == 0
        assert got.statistics.failed == 0
    with pytest.raises(lowp.RangeError):
        softmax([-np.inf, -np.inf], "float4_e2m1fn")


@pytest.mark.parametrize("by", [None, "exp/two_pass_p5"])
@pytest.mark.parametrize("fmt", ["bfloat16", "float32", "float64", "takum16", "lns16_f8", "posit32"])
def test_exponents_of_any_size_in_two_passes(fmt: str, by: str | None) -> None:
    for row, largest in (
        ([1e30, 0.0, -1e30], 0), ([5.0, -3e38, 3.0], 0), ([-1e30, -1e19, -1.0], 2), ([1e10, 9e9, 5.0], 0),
    ):  # fmt: skip
        got = softmax(row, fmt, "two_pass", exp_by=by, overflow="saturate").values
        assert int(np.argmax(got)) == largest, row
        assert got[largest] > 0.8
        assert np.delete(got, largest).max() < 0.15
    if by is None:
        equal = softmax([[1e15, 1e15, 0.0], [-1e15, -1e15, -3e15]], fmt, "two_pass", overflow="saturate").values
        assert equal[:, :2] == pytest.approx(0.5, abs=0.02)


def test_inputs_of_any_kind_are_read_alike() -> None:
    torch = pytest.importorskip("torch")
    plain = np.asarray(lowp.quantize(np.random.default_rng(5).normal(size=(3, 64)).astype(np.float32), "bfloat16"))
    want = softmax(plain, "bfloat16").values
    tensor = torch.from_numpy(plain)
    given = {
        "bfloat16": tensor.bfloat16(),
        "with a gradient": tensor.clone().requires_grad_(),
        "array": lowp.array(plain, "bfloat16"),
        "codes": lowp.encode(plain, "bfloat16"),
        "codes in a tensor": lowp.encode(tensor, "bfloat16"),
    }
    for name, x in given.items():
        assert_bits_equal(softmax(x, "bfloat16").values, want, err_context=name)
    for blocks in (lowp.encode(plain, "mxfp8_e4m3"), lowp.encode(tensor, "mxfp8_e4m3")):
        assert_bits_equal(
            softmax(blocks, "bfloat16").values, softmax(np.asarray(lowp.decode(blocks)), "bfloat16").values
        )
