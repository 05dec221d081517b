"""Codebooks chosen per block, row or tensor, companded integers, and tables fitted to rows."""

import itertools

import numpy as np
import pytest

import lowp
from lowp._errors import RangeError
from lowp.formats import Codebook, parse
from lowp.formats.families.codebooks import choice
from lowp.formats.packed import Packed
from lowp.rounding.schemes.codebooks import _fitted_values

NORMAL = np.random.default_rng(0).standard_normal((256, 4096))


def laplace(rows: int) -> np.ndarray:
    """Numbers of a Laplace distribution of variance 1."""
    return np.random.default_rng(0).laplace(size=(rows, 4096)) / 2**0.5


def error(x: np.ndarray, name: str, scale: float = 1.0) -> float:
    """Squared error over squared numbers, of `x` over `scale`."""
    return float((((lowp.quantize(x / scale, name)) * scale - x) ** 2).mean() / (x**2).mean())


@pytest.mark.parametrize(
    ("name", "normal", "laplacian"),
    [
        # BitMoD, HPCA 2025, arXiv:2411.11745, groups of 128, and integers with zero points as AWQ
        ("fp3_log_g128", 5.695e-2, 8.58e-2),
        ("bitmod_fp3", 3.802e-2, 5.04e-2),
        ("float4_e2m1fn_g128", 1.187e-2, 1.462e-2),
        ("bitmod_fp4", 9.58e-3, 1.134e-2),
        ("int3_g128_asym", 4.643e-2, None),
        ("int4_g128_asym", 1.011e-2, None),
        # dINT, arXiv:2311.05161, in the variant {-6..7, +-1/2} with one scale per 4096
        ("dint4_row", 1.704e-2, None),
        ("int4_sym_row", 2.484e-2, None),
    ],
)
def test_published_errors(name: str, normal: float, laplacian: float | None) -> None:
    assert error(NORMAL, name) == pytest.approx(normal, rel=0.01)
    if laplacian:
        assert error(laplace(256), name) == pytest.approx(laplacian, rel=0.01)


@pytest.mark.parametrize(
    ("name", "normal", "laplacian"), [("muonq4_row", 4.96e-2, 4.86e-2), ("muonq8_row", 1.44e-4, 1.41e-4)]
)
def test_mulaw_over_the_tensor_s_largest_number(name: str, normal: float, laplacian: float) -> None:
    """MuonQ: the error depends on the one largest number, so the numbers of rows are those that match it."""
    x = np.random.default_rng(0).standard_normal((1024, 4096))
    assert error(x, name, np.abs(x).max()) == pytest.approx(normal, rel=0.02)
    y = laplace(64)
    assert error(y, name, np.abs(y).max()) == pytest.approx(laplacian, rel=0.02)


# Choice by squared error


def test_bitmod_takes_the_special_value_of_least_error() -> None:
    """Against a search written out: every grid of base values and one special value, the scale in float16."""
    x = np.random.default_rng(3).standard_normal((8, 128)).astype(np.float32)
    x[1] *= 1e-7  # the least scale, 1e-5
    x[2] = np.abs(x[2])
    base = [0, 1, 2, 4, -1, -2, -4]
    fields = lowp.encode(x, "bitmod_fp3").fields
    assert fields is not None
    for row, (numbers, got) in enumerate(zip(x.astype(np.float64), lowp.quantize(x, "bitmod_fp3"), strict=True)):
        tried = []
        for special in (3, -3, 6, -6):
            grid = np.array(sorted([*base, special]), np.float64)
            scale = np.float64(np.float16(np.clip(np.abs(numbers).max() / np.abs(grid).max(), 1e-5, 1e4)))
            lower_at_ties = np.searchsorted((grid[1:] + grid[:-1]) / 2, numbers / scale)
            tried.append(grid[lower_at_ties] * scale)
        errors = [((t - numbers) ** 2).sum() for t in tried]
        best = int(np.argmin(errors))
        assert fields["selector"][row, 0, 0] == best
        assert np.array_equal(got, tried[best].astype(np.float32))


def test_the_special_value_has_the_code_of_negative_zero() -> None:
    x = np.zeros(128)
    x[:8] = [4, -4, 2, 1, 3, 3, 3, 3]
    encoded = lowp.encode(x, "bitmod_fp3")
    assert encoded.fields is not None
    assert encoded.fields["codes"][0, 0, :8].tolist() == [3, 7, 2, 1, 4, 4, 4, 4]
    assert (encoded.fields["selector"].item(), lowp.decode(encoded).tolist()) == (0, x.tolist())
    assert encoded.nbytes == 128 * 3 // 8 + 1 + 2


def test_of_equal_errors_the_first_codebook_wins() -> None:
    grids = [
        Codebook([-1.0, 0.0, 1.0], label="a"),
        Codebook([0.0, -1.0, 1.0], label="b"),
        Codebook([-1.0, 0.0, 0.5, 1.0]),
    ]
    fmt = choice("x", [*grids[:2]], 4)
    fields = lowp.encode([1.0, 0.0, -1.0, 0.2], fmt).fields
    assert fields is not None
    assert fields["selector"].item() == 0
    half = lowp.encode([1.0, 0.0, -1.0, 0.5], choice("y", grids, 4)).fields
    assert half is not None
    assert half["selector"].item() == 2


@pytest.mark.parametrize(("per", "choices"), [("block", (2, 4)), ("row", (2,)), ("tensor", (1,))])
def test_ant_chooses_once_per_block_row_or_tensor(per: str, choices: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    x = np.stack([rng.uniform(-1, 1, 256), np.exp2(rng.integers(0, 7, 256)) * rng.choice([-1, 1], 256)])
    fields = lowp.encode(x, f"ant4_{per}").fields
    assert fields is not None
    assert fields["selector"].shape[: len(choices)] == choices
    if per == "row":
        assert fields["selector"].ravel().tolist() == [0, 2]  # integers for uniform numbers, powers of two for others
        assert np.array_equal(lowp.quantize(x, "ant4_row")[1], x[1])


def test_ant_clips_where_that_helps() -> None:
    x = np.append(np.tile([7.0, -7, 3, 1, -5, 2, 6, -3], 128), 9.0)
    quantized = lowp.quantize(x, "ant4")
    assert quantized[:-1] == pytest.approx(x[:-1], abs=0.2)
    assert quantized[-1] < 8


@pytest.mark.parametrize("name", ["bitmod_fp3", "bitmod_fp4", "ant4", "ant4_row"])
@pytest.mark.parametrize("size", [1e150, 1e160, 1e307])
def test_numbers_whose_squares_overflow_clip(name: str, size: float) -> None:
    x = np.random.default_rng(1).uniform(0.5, 1, (2, 128)) * [[1], [-1]] * size
    got = lowp.quantize(x, name)
    assert np.isfinite(got).all()
    assert np.array_equal(np.sign(got), np.sign(x))
    assert np.array_equal(got, lowp.quantize(np.sign(x) * 1e100, name))


def test_ant_chooses_by_error_where_squares_vanish() -> None:
    """Float32 scales go down to 1e-45; squares of float64 numbers vanish there no more than around 1."""
    x = np.random.default_rng(1).standard_normal(256)
    assert np.array_equal(lowp.quantize(x * 2.0**-100, "ant4"), lowp.quantize(x, "ant4") * 2.0**-100)


# any4


def best_partition(x: np.ndarray, count: int) -> float:
    """Least squared error of `count` values for sorted numbers, by trying every partition."""
    costs = [
        sum(((part - part.mean()) ** 2).sum() for part in np.split(x, cuts))
        for cuts in itertools.combinations(range(1, x.size), count - 1)
    ]
    return float(min(costs))


def test_fitted_values_are_a_fixed_point_near_the_optimum() -> None:
    x = np.sort(np.random.default_rng(5).standard_normal(14))
    values = _fitted_values(x, 3)
    nearest = values[np.abs(x[:, None] - values).argmin(axis=1)]
    assert [x[nearest == v].mean() for v in values] == pytest.approx(values.tolist())
    assert ((x - nearest) ** 2).sum() <= 1.2 * best_partition(x, 3)


def test_any4_gives_each_row_its_own_values() -> None:
    rng = np.random.default_rng(0)
    levels = np.concatenate([[[0.0]] * 2, np.sort(rng.uniform(0, 15, (2, 14)), axis=1), [[15.0]] * 2], axis=1)
    x = np.tile(levels, 32)  # every group spans 0 to 15
    assert lowp.quantize(x, "any4") == pytest.approx(x, abs=1e-2)
    encoded = lowp.encode(x, "any4")
    assert encoded.nbytes == x.size // 2 + 8 * 4 + 2 * 32
    assert error(NORMAL[:16], "any4") < error(NORMAL[:16], "nf4_g128")


def test_any4_does_not_fit_filling_zeros() -> None:
    """A short group is fitted as a full one of its size; far from zero, zeros would widen its range."""
    x = np.random.default_rng(0).standard_normal((3, 40)) + 9
    assert np.array_equal(lowp.quantize(x, "any4_g128"), lowp.quantize(x, "any4_g40"))


# All of them


@pytest.mark.parametrize(
    "name", ["bitmod_fp3", "bitmod_fp4_ea_g64", "any4_g32", "muonq4_tensor", "muonq2_row", "muonq8_row", "ant4"]
)
@pytest.mark.parametrize("shape", [(5, 100), (130,), (2, 3, 8)])
def test_bytes_come_back(name: str, shape: tuple[int, ...]) -> None:
    x = np.random.default_rng(2).uniform(-1, 1, shape).astype(np.float32)
    encoded = lowp.encode(x, name)
    again = lowp.Encoded.unpack(encoded.pack(), name, shape, dtype=np.float32)
    assert np.array_equal(lowp.decode(again), lowp.decode(encoded))
    assert np.array_equal(lowp.quantize(x, name), lowp.decode(encoded))
    mode = "ties_to_even" if name.startswith("any4") else "stochastic"  # any4 takes the nearest value alone
    twice = [lowp.quantize(x, name, mode, seed=7) for _ in range(2)]
    assert np.array_equal(twice[0], twice[1])


@pytest.mark.parametrize("name", ["bitmod_fp4", "any4", "muonq4_tensor", "ant4"])
def test_zeros_stay_and_nan_is_refused(name: str) -> None:
    assert lowp.quantize(np.zeros((2, 200)), name).tolist() == np.zeros((2, 200)).tolist()
    with pytest.raises(RangeError, match=name):
        lowp.quantize([1.0, np.nan], name)
    assert np.isfinite(lowp.quantize([1.0, np.nan], name, nan="zero")).all()


@pytest.mark.parametrize(
    ("name", "bits"),
    [("bitmod_fp3", 3 + 18 / 128), ("bitmod_fp4_er", 4 + 17 / 128), ("any4", 4 + 32 / 128), ("ant4", 4)],
)
def test_bits_per_value(name: str, bits: float) -> None:
    fmt = parse(name)
    assert isinstance(fmt, Packed)
    assert fmt.bits_per_value == bits


def test_muonq_codes_are_offset_below_8_bits() -> None:
    x = [1.0, -1.0, 0.0, 2.0]
    assert lowp.encode(x, "muonq4_tensor").pack()[:2].tolist() == [0x1F, 0xF8]
    assert lowp.encode(x, "muonq8_tensor").pack()[:4].tolist() == [127, 129, 0, 127]
