"""NumPy code with every result rounded: the same bits as rounding by hand after each operation."""

import numpy as np
import pytest

import lowp
from lowp import every_operation, quantize

FORMATS = ["bfloat16", "float16", "float8_e5m2", "posit16_es1", "fixed12_7"]


def rounded(x: np.ndarray, fmt: str) -> np.ndarray:
    overflow = "saturate" if fmt.startswith("fixed") else "infinity_or_nan"
    return quantize(np.asarray(x, np.float64), fmt, overflow=overflow)


def same(got: object, wanted: np.ndarray) -> bool:
    return np.array_equal(np.asarray(got).view(np.int64), np.asarray(wanted, np.float64).view(np.int64))


@pytest.fixture
def x() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((6, 5))


@pytest.mark.parametrize("fmt", FORMATS)
def test_each_operation_of_a_chain_is_rounded(x: np.ndarray, fmt: str) -> None:
    overflow = "saturate" if fmt.startswith("fixed") else "infinity_or_nan"
    a = every_operation(x, fmt, overflow=overflow)
    got = np.exp(a * 0.3 + 1) / (a - 2)
    h = rounded(x, fmt)
    step = rounded(rounded(h * 0.3, fmt) + 1, fmt)
    assert same(got, rounded(rounded(np.exp(step), fmt) / rounded(h - 2, fmt), fmt))


@pytest.mark.parametrize("fmt", FORMATS[:4])
def test_sums_and_products_round_every_partial_sum(x: np.ndarray, fmt: str) -> None:
    a, h = every_operation(x, fmt), rounded(x, fmt)
    total = h[:, 0]
    for k in range(1, 5):
        total = rounded(total + h[:, k], fmt)
    assert same(a.sum(axis=1), total)
    assert same(np.cumsum(a, axis=1)[:, -1], total)
    product = rounded(h[:, 0] * h[0, 0], fmt)
    for k in range(1, 5):
        product = rounded(product + rounded(h[:, k] * h[0, k], fmt), fmt)
    for result in (a @ a[0], np.dot(a, a[0]), a.dot(a[0]), np.inner(a, a[0]), (a @ a.T)[:, 0]):
        assert same(result, product)


def test_final_rounds_the_result_of_a_sum_alone(x: np.ndarray) -> None:
    a = every_operation(x, "float8_e5m2", sums="final")
    assert same(a @ a[0], rounded(np.asarray(a) @ np.asarray(a)[0], "float8_e5m2"))


def test_scalars_and_pieces_keep_rounding(x: np.ndarray) -> None:
    a = every_operation(x, "bfloat16")
    for piece in (a[0, 0], next(iter(a[0])), a.sum(), np.where(a > 0, a, 0)[0, 0], np.concatenate([a, a])[0, 0]):
        third = piece / 3
        assert same(third, rounded(np.asarray(third), "bfloat16")), piece
        assert third.format.name == "bfloat16"


def test_out_and_in_place(x: np.ndarray) -> None:
    a = every_operation(x, "bfloat16")
    kept = np.asarray(a).copy()
    b = a
    b += 0.001
    assert b is a
    assert same(a, rounded(kept + 0.001, "bfloat16"))


def test_a_choice_of_operations(x: np.ndarray) -> None:
    a = every_operation(x, "float8_e5m2", only=["mul*", "exp"], exclude=["exp"])
    h = rounded(x, "float8_e5m2")
    assert same(a + 0.3, h + 0.3)
    assert same(a * 0.3, rounded(h * 0.3, "float8_e5m2"))
    assert same(np.exp(a), np.exp(h))
    assert [(row.operation, row.cast) for row in a.report.rows] == [
        ("add", "unchanged"), ("multiply", "float8_e5m2"), ("exp", "unchanged"),
    ]  # fmt: skip


def test_exact_operations_are_left_alone() -> None:
    a = every_operation([300.0], "float8_e4m3fn", overflow="saturate")
    assert float(np.maximum(a, 0.3)[0]) == 288.0
    assert float((-a)[0]) == -288.0


def test_overflow_becomes_infinity_by_default() -> None:
    assert np.isinf(float((every_operation([60000.0], "float16") * 2)[0]))
    assert float((every_operation([60000.0], "float16", overflow="saturate") * 2)[0]) == 65504.0


def test_stochastic_rounding_is_unbiased_and_repeats() -> None:
    first = every_operation(np.full(20000, 0.25), "float8_e4m3fn", "stochastic", seed=3) * 1.01
    again = every_operation(np.full(20000, 0.25), "float8_e4m3fn", "stochastic", seed=3) * 1.01
    other = every_operation(np.full(20000, 0.25), "float8_e4m3fn", "stochastic", seed=4) * 1.01
    assert same(first, np.asarray(again))
    assert not same(first, np.asarray(other))
    deviation = 0.03125 * np.sqrt(0.08 * 0.92 / 20000)
    assert abs(np.asarray(first).mean() - 0.2525) < 5 * deviation
    a = every_operation(np.full(100, 0.25), "float8_e4m3fn", "stochastic")
    assert not same(a * 1.01, np.asarray(a * 1.01)), "each operation takes new random bits"


def test_lapack_says_that_it_is_not_emulated() -> None:
    a = every_operation(np.eye(3) * 3, "float16")
    with pytest.warns(lowp.PrecisionWarning, match="solve computes inside in float64"):
        y = np.linalg.solve(a, every_operation([1.0, 2.0, 3.0], "float16"))
    assert same(y, rounded(np.array([1.0, 2.0, 3.0]) / 3, "float16"))
    assert a.report.remarks == ["solve: only the result was rounded"]


def test_a_solver_as_it_is() -> None:
    def newton_root(x: np.ndarray) -> np.ndarray:
        y = x
        for _ in range(8):
            y = 0.5 * (y + x / y)
        return y

    a = every_operation([2.0, 3.0, 5.0], "bfloat16")
    h = np.asarray(a)
    wanted = h
    for _ in range(8):
        wanted = rounded(0.5 * rounded(wanted + rounded(h / wanted, "bfloat16"), "bfloat16"), "bfloat16")
    assert same(newton_root(a), wanted)


def test_bad_input() -> None:
    a = every_operation([1.0], "bfloat16")
    with pytest.raises(lowp.FormatError, match=r"mxfp4.*blocks"):
        every_operation([1.0], "mxfp4")
    with pytest.raises(lowp.ArgumentError, match="sums='all'"):
        every_operation([1.0], "bfloat16", sums="all")
    with pytest.raises(lowp.ArgumentError, match=r"'bfloat16' and 'float16'"):
        a + every_operation([1.0], "float16")
    with pytest.raises(lowp.ArgumentError, match="like="):
        every_operation([1.0], "float16", like=a)
    with pytest.raises(lowp.ArgumentError, match=r"add\.at"):
        np.add.at(a, [0], 1.0)
    assert every_operation([2.0], "bfloat16", like=a).report is a.report
