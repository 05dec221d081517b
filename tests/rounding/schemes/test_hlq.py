"""HLQ, the hierarchical linear quantization of ELUTQ."""

import itertools

import numpy as np
import pytest

from lowp import FormatError, PrecisionWarning
from lowp.formats import Packed, parse
from lowp.rounding import decode, encode, quantize
from lowp.rounding.schemes.hlq import least_squares
from tests.rounding.schemes.scaled import check_round_trip, gauss, relative_error, stored_bits


def fitted(w: np.ndarray, bits: int, iterations: int) -> np.ndarray:
    """Return the fit of one group: a design matrix per value, and NumPy's least squares on it."""
    sums = np.array([[*code[::-1], 1] for code in itertools.product((0, 1), repeat=bits)], float)
    coefficients = np.append((w.max() - w.min()) / (2**bits - 1) * 2.0 ** np.arange(bits), w.min())
    for _ in range(iterations):
        nearest = np.abs(w[:, None] - sums @ coefficients).argmin(axis=1)
        coefficients = np.linalg.lstsq(sums[nearest], w, rcond=1e-10)[0]
    levels = sums @ coefficients.astype(np.float16).astype(np.float64)
    return levels[np.abs(w[:, None] - levels).argmin(axis=1)]


@pytest.mark.parametrize("bits", [1, 2, 3, 4])
@pytest.mark.parametrize("iterations", [0, 1, 10])
def test_against_plain_least_squares(bits: int, iterations: int) -> None:
    w = gauss(128, 12)
    expected = np.array([fitted(row, bits, iterations) for row in w])
    assert np.array_equal(quantize(w, f"hlq{bits}_g128_i{iterations}"), expected)


def test_numbers_on_such_a_grid_are_kept() -> None:
    """Offset -1, scales 0.75 and 2: not evenly spaced, found from the even start and exact in float16."""
    w = np.tile([-1.0, -0.25, 1.0, 1.75], 16)
    encoded = encode(w, "hlq2_g64")
    assert encoded.fields is not None
    assert encoded.fields["coefficients"].view(np.float16).ravel().tolist() == [0.75, 2.0, -1.0]
    assert encoded.codes.ravel().tolist() == [0, 1, 2, 3] * 16
    assert np.array_equal(decode(encoded), w)


@pytest.mark.parametrize(("name", "bits"), [("hlq2_g128", 2.375), ("hlq3_g128", 3.5), ("hlq2_g64", 2.75)])
def test_bits_per_value(name: str, bits: float) -> None:
    """README of Nkniexin/ELUTQ (arXiv:2510.19482), column BPW: 2.37, 3.5 and 2.75."""
    fmt = parse(name)
    assert isinstance(fmt, Packed)
    assert fmt.bits_per_value == bits
    assert stored_bits(name, 2) == 2 * fmt.block_elements * bits


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("hlq2_g128_i0", 0.2512),
        ("hlq2_g128", 0.1104),
        ("hlq3_g128_i0", 4.60e-2),
        ("hlq3_g128", 3.32e-2),
        ("hlq4_g128_i0", 1.00e-2),
        ("hlq4_g128", 8.46e-3),
    ],
)
def test_errors_of_normal_numbers(name: str, error: float) -> None:
    """Computed from ELUTQ's alternating fit (arXiv:2510.19482), before it and after ten rounds."""
    assert relative_error(gauss(rows=64), name) == pytest.approx(error, rel=0.02)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_values_fields_and_bytes_agree(dtype: str) -> None:
    x = gauss(150, 3).astype(dtype)
    for name in ("hlq2_g64", "hlq3_g128", "hlq1_g16"):
        check_round_trip(x, name)
        check_round_trip(x, name, axis=0)


def test_filling_zeros_do_not_count() -> None:
    """Values far from zero on a grid that float16 holds come back from a short group as from a full one."""
    w = np.tile([100.0, 100.75, 102.0, 102.75], 9)
    assert np.array_equal(quantize(w, "hlq2_g64"), w)
    x = gauss(40, 6) + 7
    assert np.array_equal(quantize(x, "hlq2_g64"), quantize(x, "hlq2_g40"))


@pytest.mark.parametrize("size", [1e20, 1e200, 1e308])
def test_values_beyond_float16_clip(size: float) -> None:
    x = np.tile([size, -size, size, size], 16)
    with pytest.warns(PrecisionWarning, match="its values clip"):
        got = quantize(x, "hlq2_g64")
    assert np.array_equal(np.sign(got), np.sign(x))
    assert np.abs(got).min() >= 65504


def test_constant_groups_zeros_and_nan() -> None:
    x = np.zeros((4, 64), np.float32)
    x[1] = -1.75
    x[2, 7] = np.nan
    x[3, :32] = 0.5
    result = quantize(x, "hlq2_g64")
    assert np.array_equal(result[[0, 1, 3]], x[[0, 1, 3]])
    assert np.isnan(result[2]).all()
    assert quantize(np.zeros((0, 64)), "hlq2_g64").shape == (0, 64)
    assert quantize(np.zeros((2, 0)), "hlq2_g64").shape == (2, 0)


def test_only_its_own_rounding() -> None:
    with pytest.raises(ValueError, match="rounding of its own"):
        quantize(np.ones(64), "hlq2_g64", "toward_zero")


def test_names() -> None:
    assert parse("hlq2_g128_i10") == parse("hlq2_g128")
    assert all(parse(parse(name).name) == parse(name) for name in ("hlq2_g64", "hlq4_g32", "hlq3_g128_i0"))
    for name in ("hlq0_g64", "hlq5_g64", "hlq2_g0"):
        with pytest.raises(FormatError):
            parse(name)


@pytest.mark.parametrize("bits", [1, 2, 3, 4])
def test_the_smallest_solution_where_codes_are_missing(bits: int) -> None:
    """Groups that leave codes out have singular matrices; groups too large for 64-bit integers have longer ones."""
    rng = np.random.default_rng(bits)
    for used in range(1, 1 << bits):
        w = rng.standard_normal((1, 40))
        codes = rng.choice(rng.permutation(1 << bits)[:used], w.shape).astype(np.uint8)
        rows = np.array([[*(code >> k & 1 for k in range(bits)), 1] for code in codes[0]], float)
        found = least_squares(w, codes, np.ones(w.shape, bool), bits)
        np.testing.assert_allclose(found[0], np.linalg.pinv(rows) @ w[0], rtol=1e-9, atol=1e-12)
        copies = [np.tile(part, (1, 300)) for part in (w, codes)]
        long = least_squares(copies[0], copies[1], np.ones(copies[0].shape, bool), bits)
        np.testing.assert_allclose(long, found, rtol=1e-9, atol=1e-12)
