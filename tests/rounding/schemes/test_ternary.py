"""Trit planes, TWN, Sherry and STQ1_0: optimal choices by exhaustion, stored bits, published errors."""

from itertools import pairwise, product

import numpy as np
import pytest

import lowp
from lowp.rounding.schemes import ternary


@pytest.fixture(scope="module")
def normal() -> np.ndarray:
    return np.random.default_rng(0).standard_normal(1 << 18).reshape(-1, 4096)


def error(x: np.ndarray, fmt: str) -> float:
    return float(((lowp.quantize(x, fmt) - x) ** 2).sum() / (x**2).sum())


def test_trits_are_five_to_a_byte() -> None:
    trits = np.array(list(product((-1, 0, 1), repeat=5)), np.int8)
    packed = ternary.pack_trits(trits)
    assert packed.shape == (243, 1)
    assert packed.max() == 242
    assert np.array_equal(np.sort(packed[:, 0]), np.arange(243))
    assert np.array_equal(ternary.unpack_trits(packed, 5), trits)
    assert packed[trits.tolist().index([1, -1, -1, -1, -1])] == 2  # the first trit is the lowest digit


@pytest.mark.parametrize("planes", [1, 2])
def test_every_trit_is_the_best_for_the_stored_scales(planes: int) -> None:
    """PTQTP, arXiv:2509.16989: exhaustive search over the 3^K sums of each weight."""
    x = np.random.default_rng(3).standard_normal((1, 256))
    encoded = lowp.encode(x, f"ptqtp{planes}_g32")
    scales = encoded.fields["scales"].view(np.float16).astype(np.float64)[0]
    y = lowp.decode(encoded).reshape(-1, 32)
    sums = np.array(list(product((-1, 0, 1), repeat=planes))) @ scales.T
    best = np.abs(x.reshape(-1, 32, 1) - sums.T[:, None]).min(axis=-1)
    assert np.array_equal(np.abs(x.reshape(-1, 32) - y), best)


def test_one_plane_finds_the_best_of_all_sign_patterns_in_small_groups() -> None:
    """Alternation ends in a local optimum; here it is the global one for most groups, and never far away."""
    x = np.random.default_rng(4).standard_normal((400, 5))
    scales = ternary.fit_planes(x, np.abs(x).mean(axis=1, keepdims=True))
    levels = np.hstack([-scales, np.zeros_like(scales), scales])
    found = (np.abs(x[..., None] - levels[:, None]).min(axis=-1) ** 2).sum(axis=1)
    patterns = np.array([t for t in product((-1, 0, 1), repeat=5) if any(t)], np.float64)
    best = (x**2).sum(axis=1) - ((x @ patterns.T) ** 2 / (patterns**2).sum(axis=1)).max(axis=1)
    assert (found > best - 1e-9).all()
    assert np.isclose(found, best).mean() > 0.8


def test_the_fit_never_gets_worse_with_more_iterations() -> None:
    x = np.random.default_rng(5).laplace(size=(50, 64))
    start = np.abs(x).mean(axis=1, keepdims=True) / [1.0, 3.0]

    def squares(iterations: int) -> np.ndarray:
        scales = ternary.fit_planes(x, start, iterations)
        sums = scales @ np.array(list(product((-1, 0, 1), repeat=2))).T
        return (np.abs(x[..., None] - sums[:, None]).min(axis=-1) ** 2).sum(axis=1)

    errors = [squares(n) for n in (0, 1, 2, 5, 50)]
    assert all((later <= earlier + 1e-6).all() for earlier, later in pairwise(errors))
    assert errors[-1].sum() < 0.8 * errors[0].sum()


def test_published_errors_of_trit_planes(normal: np.ndarray) -> None:
    """PTQTP of normal weights in groups of 128: 0.1874 for one plane, 2.89e-2 for two (arXiv:2509.16989)."""
    assert error(normal, "ptqtp1_g128") == pytest.approx(0.1874, rel=0.01)
    assert error(normal, "ptqtp2_g128") == pytest.approx(2.89e-2, rel=0.03)


@pytest.mark.parametrize("name", ["ptqtp1_g128", "ptqtp2_g128", "twn_g128", "sherry_g128"])
@pytest.mark.parametrize(
    ("size", "dtype"), [(1e20, "float32"), (1e30, "float64"), (1e200, "float64"), (1e308, "float64")]
)
def test_values_beyond_the_scales_clip(name: str, size: float, dtype: str) -> None:
    """As at 1e10, whose squares and sums are small: the pattern of signs is the same, the scale the largest float16."""
    x = np.where(np.arange(256) % 4 == 3, 0, np.where(np.arange(256) % 3, size, -size)).astype(dtype)
    with pytest.warns(lowp.PrecisionWarning, match="its values clip"):
        got = lowp.quantize(x, name)
    with pytest.warns(lowp.PrecisionWarning, match="its values clip"):
        assert np.array_equal(got, lowp.quantize(np.sign(x) * 1e10, name))
    assert np.array_equal(np.sign(got), np.sign(x))
    assert np.abs(got).max() >= 65504


def test_published_errors_of_three_levels(normal: np.ndarray) -> None:
    """The best three levels for a normal distribution err by 0.19017 (Quartet, arXiv:2505.14669, and Lloyd-Max)."""
    whole = normal.reshape(1, -1)
    assert error(whole, f"ptqtp1_g{whole.size}") == pytest.approx(0.19017, rel=0.005)
    assert error(whole, f"twn_g{whole.size}") == pytest.approx(0.1904, rel=0.005)  # TWN, arXiv:1605.04711
    zeros = (lowp.quantize(whole, f"twn_g{whole.size}") == 0).mean()
    assert zeros == pytest.approx(0.450, abs=0.005)


@pytest.mark.parametrize(("draw", "expected"), [("standard_normal", 1 - 2 / np.pi), ("laplace", 0.5)])
def test_signs_alone_err_by_a_known_share(draw: str, expected: float) -> None:
    """Signs times the mean magnitude: 1 - 2/pi of the power for normal, one half for Laplace (XNOR-Net, theory)."""
    x = getattr(np.random.default_rng(0), draw)(size=1 << 20)
    assert error(x, "block[binary,tensor,float32,recipe=absmean]") == pytest.approx(expected, rel=0.003)


def test_sherry_codes_are_all_patterns_of_one_zero_and_three_signs() -> None:
    table = ternary.sherry_table()
    patterns = {t for t in product((-1, 0, 1), repeat=4) if t.count(0) == 1}
    assert {tuple(map(int, row)) for row in table} == patterns
    zero = (table == 0).argmax(axis=1)
    assert np.array_equal(ternary.sherry_codes(table, zero), np.arange(32))


def test_sherry_table_is_that_of_llama_cpp() -> None:
    """llama.cpp pull request 22836, `ggml-common.h`: lanes of two bits, trit + 1, first lane lowest."""
    published = bytes.fromhex("A9892909A68626069A921A126A624A42" + "012181A1042484A4101890984048" + "6068")
    packed = ((ternary.sherry_table() + 1).astype(np.int64) << np.arange(0, 8, 2)).sum(axis=1)
    assert packed.tolist() == list(published)


def test_sherry_takes_the_best_pattern_for_its_scale() -> None:
    x = np.random.default_rng(6).standard_normal((8, 128))
    encoded = lowp.encode(x, "sherry_g128")
    scale = encoded.fields["scale"].view(np.float16).astype(np.float64)
    choices = ternary.sherry_table() * scale[..., None]
    quads = x.reshape(8, 32, 1, 4)
    errors = ((quads - choices) ** 2).sum(axis=-1)
    taken = np.take_along_axis(errors, encoded.fields["codes"].reshape(8, 32, 1).astype(int), axis=-1)[..., 0]
    assert taken == pytest.approx(errors.min(axis=-1), abs=1e-12)


def test_sherry_drops_the_first_of_equal_magnitudes_and_averages_the_others() -> None:
    y = lowp.quantize(np.array([1.0, -1.0, 1.0, 1.0, 4.0, -3.0, 2.0, 1.0]), "sherry_g8")
    scale = float(np.float16((3 + 9) / 6))
    assert y.tolist() == [0, -scale, scale, scale, scale, -scale, scale, 0]


def test_sherry_makes_a_zero_that_it_keeps_positive() -> None:
    scale = float(np.float16(2 / 3))
    assert lowp.quantize(np.array([0.0, 0.0, 1.0, -1.0]), "sherry_tensor") == pytest.approx(
        [0, scale, scale, -scale], rel=1e-3
    )


def test_published_errors_of_sherry(normal: np.ndarray) -> None:
    """Normal weights: 0.2850 with a scale per tensor, 0.2820 per 128; 1.25 bits and scales (AngelSlim)."""
    assert error(normal, "sherry_tensor") == pytest.approx(0.2850, rel=0.005)
    assert error(normal, "sherry_g128") == pytest.approx(0.2820, rel=0.005)


def test_stq_bytes() -> None:
    """STQ1_0: 42 bytes for 256 weights, groups of four weights 16 apart, scale the largest magnitude."""
    x = np.zeros(256, np.float32)
    x[[3, 35, 51]] = 2.0, -1.0, 0.5  # group 3, places 0, 2, 3: the zero is place 1
    x[[64 + 1, 64 + 17, 64 + 33]] = -1.0, -1.0, 1.0  # group 17, zero in place 3
    data = lowp.encode(x, "stq1_0").pack()
    assert data.size == 42
    signs = data[32:40]
    slots = np.stack([data[:32] & 15, data[:32] >> 4], axis=-1).reshape(-1)
    assert (slots[3], signs[0] >> 3 & 1) == (1 << 2 | 0b01, 0)
    assert (slots[17], signs[2] >> 1 & 1) == (3 << 2 | 0b10, 1)
    assert data[40:].view(np.float16)[0] == 2.0
    y = lowp.quantize(x, "stq1_0")
    assert y[[3, 19, 35, 51, 65, 81, 97, 113]].tolist() == [2, 0, -2, 2, -2, -2, 2, 0]
