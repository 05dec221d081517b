"""iFairy: the nearest power of i, its two scales, the error of complex normal weights."""

import numpy as np
import pytest

import lowp
from lowp.rounding.schemes.complex import quadrants


def test_the_power_of_i_nearest_in_argument() -> None:
    z = np.random.default_rng(0).standard_normal(2000) + 1j * np.random.default_rng(1).standard_normal(2000)
    distance = np.abs(z / np.abs(z) - np.array([1, 1j, -1, -1j])[:, None])
    assert np.array_equal(quadrants(z.real, z.imag), distance.argmin(axis=0))


def test_on_the_diagonals_it_is_the_next_one_counterclockwise() -> None:
    """iFairy: 1 from -pi/4 (included) to pi/4 (not), then i, -1, -i."""
    re, im = np.array([1.0, 1.0, -1.0, -1.0]), np.array([-1.0, 1.0, 1.0, -1.0])
    assert quadrants(re, im).tolist() == [0, 1, 2, 3]


def test_a_complex_array_by_hand() -> None:
    z = np.array([2 + 1j, -4 + 0.5j, 0.5 + 3j, 1 - 5j])
    y = lowp.quantize(z.view(np.float64), "ifairy").view(np.complex128)
    assert y.tolist() == [3, -3, 4j, -4j]
    encoded = lowp.encode(z.view(np.float64), "ifairy")
    assert encoded.fields["codes"].reshape(-1).tolist() == [0, 2, 1, 3]
    assert encoded.pack()[0] == 0 | 2 << 2 | 1 << 4 | 3 << 6
    assert encoded.nbytes == 1 + 8


def test_scales_have_a_floor() -> None:
    encoded = lowp.encode(np.array([1e-9, 0.0, 2e-9, 0.0]), "ifairy")
    assert encoded.fields["scales"].view(np.float32).tolist() == [np.float32(1e-5)] * 2


def test_error_and_scales_of_complex_normal_weights() -> None:
    """iFairy, theory: the error is 1 - 2/pi of the power, as of signs; scales sqrt(2/pi) for power 1."""
    x = np.random.default_rng(0).standard_normal(1 << 20) * np.sqrt(0.5)
    y = lowp.quantize(x, "ifairy")
    assert ((y - x) ** 2).sum() / (x**2).sum() == pytest.approx(1 - 2 / np.pi, rel=0.003)
    assert np.abs(y).max() == pytest.approx(np.sqrt(2 / np.pi), rel=0.003)
