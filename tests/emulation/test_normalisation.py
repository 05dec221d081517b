"""Layer and RMS normalisation against transcriptions in single rounded numbers, and against exact ones."""

from typing import Any

import mpmath
import numpy as np
import pytest

import lowp
from lowp.emulation.normalisation import SCALINGS, VARIANCES, layer_norm, rms_norm
from lowp.testing import assert_bits_equal
from tests.emulation.test_softmax import Format

FORMATS = ("float16", "bfloat16", "float8_e5m2", "posit16_es1", "fixed16_8")
EPS = 1e-5


def draws(rows: int, length: int, mean: float = 2.0) -> np.ndarray:
    return np.random.default_rng(7).normal(size=(rows, length)) + mean


def total(x: list[float], f: Format) -> float:
    s = x[0]
    for v in x[1:]:
        s = f.add(s, v)
    return s


def two_pass(x: list[float], f: Format) -> tuple[float, float]:
    n = float(len(x))
    mean = f.divide(total(x, f), n)
    d = [f.subtract(v, mean) for v in x]
    return mean, f.divide(total([f.multiply(v, v) for v in d], f), n)


def one_pass(x: list[float], f: Format) -> tuple[float, float]:
    n = float(len(x))
    mean = f.divide(total(x, f), n)
    power = f.divide(total([f.multiply(v, v) for v in x], f), n)
    return mean, f.subtract(power, f.multiply(mean, mean))


def welford(x: list[float], f: Format) -> tuple[float, float]:
    mean, s = x[0], 0.0
    for k, v in enumerate(x[1:], 2):
        d = f.subtract(v, mean)
        mean = f.add(mean, f.divide(d, float(k)))
        s = f.add(s, f.multiply(d, f.subtract(v, mean)))
    return mean, f.divide(s, float(len(x)))


@pytest.mark.parametrize("fmt", FORMATS)
@pytest.mark.parametrize("moments", [two_pass, welford, one_pass])
def test_layer_norm_is_what_it_says(moments: Any, fmt: str) -> None:
    f = Format(fmt)
    x = lowp.array(draws(3, 13), fmt)
    w, b = (lowp.array(draws(1, 13, m)[0], fmt).values for m in (1.0, 0.0))
    wanted = []
    for row in x.values.tolist():
        mean, variance = moments(row, f)
        sd = f.sqrt(f.add(variance, f(EPS)))
        affine = zip(row, w.tolist(), b.tolist(), strict=True)
        wanted.append([f.add(f.multiply(f.divide(f.subtract(v, mean), sd), p), q) for v, p, q in affine])
    assert_bits_equal(layer_norm(x, fmt, w, b, variance=moments.__name__).values, np.array(wanted))


@pytest.mark.parametrize("fmt", FORMATS)
@pytest.mark.parametrize("scaling", SCALINGS)
def test_rms_norm_is_what_it_says(scaling: str, fmt: str) -> None:
    f = Format(fmt)
    x = lowp.array(draws(3, 13), fmt)
    wanted = []
    for row in x.values.tolist():
        power = f.add(f.divide(total([f.multiply(v, v) for v in row], f), 13.0), f(EPS))
        root = f.sqrt(power)
        factor = {"divide": root, "reciprocal": f.divide(1.0, root), "rsqrt": f.power(power, -0.5)}[scaling]
        wanted.append([(f.divide if scaling == "divide" else f.multiply)(v, factor) for v in row])
    assert_bits_equal(rms_norm(x, fmt, scaling=scaling).values, np.array(wanted))


def test_float32_is_numpys_arithmetic() -> None:
    x = draws(4, 32, 100.0).astype(np.float32)
    n, eps = np.float32(32), np.float32(EPS)
    mean = np.add.accumulate(x, axis=1)[:, -1:] / n
    d = x - mean
    variance = np.add.accumulate(d * d, axis=1)[:, -1:] / n
    assert_bits_equal(layer_norm(x, "float32").values, (d / np.sqrt(variance + eps)).astype(np.float64))


@pytest.mark.parametrize("fmt", ["bfloat16", "float32", "float64"])
def test_errors_are_those_against_the_exact_result(fmt: str) -> None:
    x = lowp.array(draws(3, 20, 50.0), fmt)
    w = lowp.array(draws(1, 20)[0], fmt).values
    for got, centred in ((layer_norm(x, fmt, w), True), (rms_norm(x, fmt, w), False)):
        errors = []
        with mpmath.workprec(300):
            for row, outputs in zip(x.values.tolist(), got.values.tolist(), strict=True):
                mean = mpmath.fsum(row) / 20 if centred else mpmath.mpf(0)
                d = [v - mean for v in row]
                sd = mpmath.sqrt(mpmath.fsum(v * v for v in d) / 20 + EPS)
                errors += [float(abs(y - v / sd * p)) for y, v, p in zip(outputs, d, w.tolist(), strict=True)]
        assert got.statistics.max_absolute_error == pytest.approx(max(errors), rel=1e-6)
        assert got.statistics.mean_absolute_error == pytest.approx(np.mean(errors), rel=1e-6)


def test_each_way_to_a_variance_has_its_own_error() -> None:
    x = draws(4, 64, 100.0)
    errors = {v: layer_norm(x, "float32", variance=v).statistics.variance_error for v in VARIANCES}
    assert errors["one_pass"] > 100 * errors["two_pass"]
    assert errors["welford"] < 1e-5
    bad = layer_norm(x, "bfloat16", variance="one_pass").statistics
    assert bad.variance_error > 0.9
    assert bad.nan == bad.negative_variances, "the root of each negative variance is a NaN that was not there"


def test_squares_overflow() -> None:
    x = [[300.0, 1.0, 2.0]]
    counts = rms_norm(x, "float16").statistics.steps
    assert (counts["square"].overflow, counts["sum"].overflow) == (1, 0)
    assert rms_norm(x, "float16", accumulator="bfloat16").statistics.overflow == 0
    assert rms_norm(x, "float8_e4m3fn").statistics.failed == 3, "overflow is NaN there"


def test_an_accumulator_makes_the_sums() -> None:
    x = lowp.array(draws(2, 64), "bfloat16")
    by = lowp.Accumulator(format="float32", chunk=16)
    square = lowp.multiply(x, x, fmt="float32")
    power = np.asarray(lowp.matmul(square.values, np.ones((64, 1)), accumulator=by), np.float64)
    mean = lowp.add(lowp.divide(power, 64.0, fmt="float32"), lowp.array(EPS, "float32"))
    wanted = lowp.divide(x, lowp.sqrt(mean), fmt="bfloat16")
    assert_bits_equal(rms_norm(x, "bfloat16", accumulator=by, result="bfloat16").values, wanted.values)
    assert layer_norm(x, "bfloat16", accumulator=by).statistics.max_ulps < np.inf
    assert rms_norm(x, "bfloat16", accumulator="exact").statistics.steps["sum"].operations == 2


def test_an_approximated_root() -> None:
    x = draws(2, 32)
    one, two = (rms_norm(x, "float32", scaling="rsqrt", rsqrt_by=f"rsqrt/fast_inverse_{n}").statistics for n in (1, 2))
    assert 1e-5 < one.max_absolute_error < 1e-2
    assert two.max_absolute_error < one.max_absolute_error / 10
    with pytest.raises(lowp.ArgumentError, match="needs scaling='rsqrt'"):
        rms_norm(x, "float32", rsqrt_by="rsqrt/fast_inverse_1")


@pytest.mark.parametrize("fused", [False, True])
def test_any_axis(fused: bool) -> None:
    x = draws(6, 10).reshape(2, 3, 10)
    for norm in (layer_norm, rms_norm):
        got = norm(np.moveaxis(x, -1, 0), "float16", np.arange(10.0), axis=0, fused=fused).values
        assert_bits_equal(np.moveaxis(got, 0, -1), norm(x, "float16", np.arange(10.0), fused=fused).values)


def test_fused_steps_round_once() -> None:
    x = lowp.array(draws(1, 9), "bfloat16")
    s = lowp.multiply(x[:, 0], x[:, 0])
    for k in range(1, 9):
        s = lowp.fma(x[:, k], x[:, k], s)
    sd = lowp.sqrt(lowp.add(lowp.divide(s, 9.0), lowp.array(EPS, "bfloat16")))
    assert_bits_equal(rms_norm(x, "bfloat16", fused=True).values, lowp.divide(x, sd.reshape(-1, 1)).values)


def test_the_statistics_can_be_read() -> None:
    text = str(layer_norm(draws(2, 9), "bfloat16", variance="one_pass").statistics)
    assert all(word in text for word in ("square", "ulps", "variance"))


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"variance": "welfrod"}, "Did you mean 'welford'"),
        ({"variance": "welford", "accumulator": "exact"}, "has no sums"),
        ({"scaling": "sqrt"}, "scaling='sqrt'"),
        ({"eps": -1.0}, "eps=-1.0 must be"),
        ({"eps": "small"}, "eps='small' must be"),
        ({"weight": [1.0]}, "weight has shape"),
        ({"axis": 5}, "axis=5 does not exist"),
        ({"rsqrt_by": "exp/minimax_2", "scaling": "rsqrt"}, "approximates exp, not rsqrt"),
    ],
)
def test_wrong_arguments(keywords: dict[str, Any], message: str) -> None:
    with pytest.raises(lowp.Error, match=message):
        layer_norm([[1.0, 2.0]], "float16", **keywords)


@pytest.mark.parametrize("fmt", ["float16", "float64", "takum64"])
@pytest.mark.parametrize("norm", [layer_norm, rms_norm])
def test_a_row_of_zeros_without_eps_is_no_number_in_any_format(norm, fmt):
    found = norm([[0.0, 0.0], [3.0, -3.0]], fmt, eps=0)
    assert np.isnan(found.values[0]).all()
    assert found.values[1].tolist() == [1.0, -1.0]
    assert found.statistics.failed == 0
    assert found.statistics.max_absolute_error == 0


@pytest.mark.parametrize("norm", [layer_norm, rms_norm])
@pytest.mark.parametrize("x", [[1e200, -1e200], [1e-200, -1e-200]])
def test_errors_count_where_float64_does_not_hold_the_squares(norm, x):
    found = norm(x, "e11m4", eps=0)
    statistics = found.statistics
    if x[0] > 1:  # squares are infinite, so outputs are zero; the exact ones are one
        assert found.values.tolist() == [0.0, -0.0]
        assert statistics.max_absolute_error == 1.0
    else:  # squares are zero
        assert statistics.failed == 2
