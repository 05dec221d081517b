"""Small contiguous arrays take a quick way: with the bits and errors of arrays that cannot."""

from typing import Any

import numpy as np
import pytest

import lowp
from lowp._errors import RangeError

SPECIAL = [np.nan, np.inf, -np.inf, -0.0, 0.5, 1.5, 1 + 2.0**-4]


def strided(x: np.ndarray) -> np.ndarray:
    """Return equal numbers that are not side by side."""
    wide = np.empty((*x.shape, 2), x.dtype)
    wide[..., 0] = x
    return wide[..., 0]


def same(found: Any, wanted: Any) -> None:
    assert found.dtype == wanted.dtype
    kind = {4: np.uint32, 8: np.uint64}[found.dtype.itemsize]
    np.testing.assert_array_equal(found.view(kind), wanted.view(kind))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("mode", ["ties_to_even", "toward_zero", "stochastic"])
@pytest.mark.parametrize(
    "fmt", ["nf4", "posit8_es2", "posit16_es2", "takum16_linear", "lns8_f3", "float8_e4m3fn", "mxfp4"]
)
def test_bits_are_those_of_arrays_with_gaps(fmt: str, mode: str, dtype: Any) -> None:
    rng = np.random.default_rng(3)
    for size in (0, 1, 7, 100, 600):
        x = np.ldexp(rng.standard_normal(size), rng.integers(-9, 9, size)).astype(dtype)
        x[: min(size, 7)] = SPECIAL[: min(size, 7)]
        for seed in (0, 1, 2**64 - 1):
            wanted = lowp.quantize(strided(x), fmt, mode, seed=seed)
            same(lowp.quantize(x, fmt, mode, seed=seed), wanted)
            out = np.empty_like(x)
            assert lowp.quantize(x, fmt, mode, seed=seed, out=out) is out
            same(out, wanted)
            same(lowp.quantize(x.copy(), fmt, mode, seed=seed), wanted)


@pytest.mark.parametrize("fmt", ["takum8_log", "takum16_linear"])
def test_values_that_float32_does_not_hold_are_refused_either_way(fmt: str) -> None:
    x = np.full(5, np.finfo(np.float32).max)
    for given in (x, strided(x)):
        with pytest.raises(RangeError, match="float32"):
            lowp.quantize(given, fmt, "toward_positive")


@pytest.mark.parametrize("seed", [-1, 2**64, True, 0.5, "1"])
@pytest.mark.parametrize("mode", ["stochastic", "ties_to_even"])
def test_seeds_that_are_none_are_refused(seed: Any, mode: str) -> None:
    with pytest.raises(lowp.ArgumentError, match="seed="):
        lowp.quantize(np.ones(3, np.float32), "float8_e4m3fn", mode, seed=seed)
