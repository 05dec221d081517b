"""The mean-magnitude recipe of ternary and binary networks, against the definition."""

import numpy as np
import pytest

import lowp


@pytest.mark.parametrize("name", ["ternary_g64_absmean", "binary_g64_absmean", "ternary_row_absmean"])
def test_scale_is_the_mean_magnitude_of_the_elements_that_are_there(name: str) -> None:
    x = np.random.default_rng(0).standard_normal((3, 100)).astype(np.float32)
    encoded = lowp.encode(x, name)
    parts = [x] if "row" in name else [x[:, :64], x[:, 64:]]
    expected = [[np.float32(np.abs(part[i].astype(np.float64)).mean()) for part in parts] for i in range(3)]
    assert lowp.decode(encoded.scales, "float32").tolist() == expected


def test_elements_are_the_nearest_of_three_values() -> None:
    x = np.array([[0.4, -0.6, 1.0, -2.0, 0.5, 0.5, 1.5, 1.5]], np.float32)  # mean 1; 0.5 is a tie and goes to 0
    assert lowp.quantize(x, "ternary_row_absmean").tolist() == [[0, -1, 1, -1, 0, 0, 1, 1]]
    assert lowp.quantize(x, "binary_row_absmean").tolist() == [[1, -1, 1, -1, 1, 1, 1, 1]]


def test_zero_blocks_stay_zero_and_nan_spoils_its_block_only() -> None:
    x = np.zeros((3, 64), np.float32)
    x[1, 5] = np.nan
    x[2] = 2
    y = lowp.quantize(x, "ternary_g64_absmean")
    assert (y[0] == 0).all()
    assert np.isnan(y[1]).all()
    assert (y[2] == 2).all()
    assert np.array_equal(lowp.decode(lowp.encode(x, "ternary_g64_absmean")), y, equal_nan=True)
