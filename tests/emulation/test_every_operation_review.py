"""NumPy functions that leave the array's class or store numbers: rounded, or said to be unrounded."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest

from lowp import every_operation, quantize
from lowp._errors import ArgumentError, ArgumentTypeError, PrecisionWarning

FMT = "float8_e4m3fn"


def rounded(x: Any) -> Any:
    return quantize(np.asarray(x, np.float64), FMT, "ties_to_even", "infinity_or_nan")


def chain(terms: Any) -> Any:
    total = terms[0]
    for term in terms[1:]:
        total = rounded(total + term)
    return total


@pytest.fixture
def x() -> np.ndarray:
    return np.random.default_rng(5).standard_normal((4, 7))


def test_norms_are_chains_of_rounded_operations(x: np.ndarray) -> None:
    a, h = every_operation(x, FMT), rounded(x)
    squares = rounded(h * h)
    assert float(np.linalg.norm(a[0])) == rounded(np.sqrt(chain(squares[0])))
    assert np.array_equal(np.linalg.norm(a, axis=1), rounded(np.sqrt(chain(squares.T))))
    assert float(np.linalg.norm(a)) == float(np.linalg.norm(a, "fro")) == rounded(np.sqrt(chain(squares.reshape(-1))))
    assert float(np.linalg.norm(a, 1)) == chain(abs(h)).max()
    assert float(np.linalg.norm(a, np.inf)) == chain(abs(h).T).max()
    assert np.array_equal(np.linalg.norm(a, -np.inf, axis=0), abs(h).min(axis=0))


@pytest.mark.parametrize("ord", [None, "fro", 1, -1, np.inf, -np.inf])
@pytest.mark.parametrize("axis", [None, (0, 1), (1, 0), (-1, 0)])
@pytest.mark.parametrize("keepdims", [False, True])
def test_norms_are_numpys(x: np.ndarray, ord: Any, axis: Any, keepdims: bool) -> None:  # noqa: A002
    a = every_operation(x, "float64")
    wanted = np.linalg.norm(x, ord, axis, keepdims)
    got = np.linalg.norm(a, ord, axis, keepdims)
    assert np.shape(got) == np.shape(wanted)
    np.testing.assert_allclose(np.asarray(got), wanted, rtol=1e-13)


def test_what_numpy_computes_inside_is_rounded_at_the_end_and_said(x: np.ndarray) -> None:
    a = every_operation(x, FMT)
    for name, call in {
        "interp": lambda: np.interp(a[0], np.arange(5.0), np.arange(5.0) / 3),
        "cov": lambda: np.cov(a),
        "cross": lambda: np.cross(a[:, :3], a[:, 3:6]),
        "norm": lambda: np.linalg.norm(a, 2),
    }.items():
        with pytest.warns(PrecisionWarning, match=name):
            result = call()
        assert np.array_equal(result, rounded(result)), name
        assert f"{name}: only the result was rounded" in a.report.remarks
    with pytest.warns(PrecisionWarning, match="complex"):
        a + 1j


def test_numbers_that_are_stored_are_rounded(x: np.ndarray) -> None:
    a = every_operation(x, FMT)
    a[x > 0] = 0.3
    assert np.array_equal(a, np.where(x > 0, rounded(0.3), rounded(x)))
    assert float(np.where([True], 0.3, a[0, :1])[0]) == rounded(0.3)
    assert float(np.round(a, 1)[x > 0][0]) == rounded(0.3)
    a.fill(0.7)
    assert (np.asarray(a) == rounded(0.7)).all()


def test_numbers_of_the_format_take_no_random_bits(x: np.ndarray) -> None:
    first, second = (every_operation(x, FMT, "stochastic_a", seed=3) for _ in range(2))
    second[0] = np.asarray(second[0])
    np.concatenate([second, second])
    assert np.array_equal(first * 0.3, second * 0.3)


def test_dot_into_an_array_and_a_copy_by_pickle(x: np.ndarray) -> None:
    a, out = every_operation(x, FMT), np.zeros((4, 4))
    np.dot(a, a.T, out=out)
    assert np.array_equal(out, a @ a.T)
    assert np.array_equal(pickle.loads(pickle.dumps(a)) / 3, a / 3)  # noqa: S301


@pytest.mark.parametrize("x", [[1.3 + 2j], "0.3", [0.1, None], [True], np.longdouble("0.1")])
def test_what_is_no_array_of_real_numbers_is_refused(x: Any) -> None:
    with pytest.raises(ArgumentTypeError, match=r"^x (has dtype|of type)"):
        every_operation(x, "bfloat16")


@pytest.mark.parametrize("argument", ["only", "exclude"])
@pytest.mark.parametrize(
    ("pattern", "hint"), [("exq", "Did you mean 'exp"), ("true_divide", "NumPy's own name of it is 'divide'.")]
)
def test_patterns_that_no_function_of_numpy_has_are_errors(argument: str, pattern: str, hint: str) -> None:
    with pytest.raises(ArgumentError, match=f"^{argument}='{pattern}' matches no function of NumPy. {hint}"):
        every_operation(1.0, "fp8", **{argument: ["add", pattern]})
