"""OliVe: the two lists of numbers, pairs and victims, the search of the scale."""

import numpy as np
import pytest

import lowp
from lowp.rounding.schemes import outliers

#: OliVe, arXiv:2304.07493: abfloat E2M1 with bias 5, 32 left out, beside int4 times four.
ABFLOAT = (48, 64, 96, 128, 192, 256, 384)


def nearest(value: float) -> float:
    """The repository's rule: of equally near numbers the last in the list of integers, then outliers, ascending."""
    grid = [4.0 * n for n in range(-7, 8)] + sorted([*ABFLOAT, *(-v for v in ABFLOAT)])
    return min(reversed(grid), key=lambda g: abs(g - value))


def rounded_pair(a: float, b: float) -> tuple[float, float]:
    one, other = nearest(a), nearest(b)
    if abs(one) > 32:
        return one, 0.0
    return (0.0, other) if abs(other) > 32 else (one, other)


def test_pairs_round_as_in_the_repository() -> None:
    rng = np.random.default_rng(0)
    ties = np.array([2.0, -2.0, 38.0, -38.0, 56.0, -56.0, 80.0, 26.0, -26.0, 400.0, -400.0, 0.0])
    q = np.concatenate([rng.standard_normal((300, 2)) * 40, np.stack(np.meshgrid(ties, ties), -1).reshape(-1, 2)])
    assert outliers._round_pairs(q).tolist() == [list(rounded_pair(*pair)) for pair in q.tolist()]


def test_codes_say_which_neighbour_is_the_victim() -> None:
    pairs = np.array([[48.0, 0.0], [0.0, -384.0], [28.0, -28.0], [0.0, 4.0], [64.0, 0.0]])
    codes = outliers._pair_codes(pairs)
    assert codes.tolist() == [[1, 8], [8, 15], [7, 9], [0, 1], [2, 8]]


def test_every_pair_of_codes_without_two_identifiers_decodes_and_encodes_back() -> None:
    first, second = np.divmod(np.arange(256), 16)
    pairs = np.stack([first, second], axis=-1)
    used = (pairs == 8).sum(axis=-1) < 2
    used &= ~((pairs[:, ::-1] == 8) & (pairs % 8 == 0)).any(axis=-1)  # no outlier is 0 or 8
    pairs = pairs[used]
    fmt = lowp.parse("olive4")
    fields = {"codes": pairs[None].astype(np.uint8), "scale": np.float32([[1.0]]).view(np.uint32)}
    values = outliers._decode(fields, fmt)
    assert np.array_equal(outliers._pair_codes(values)[0], pairs)
    assert np.array_equal(outliers._round_pairs(values), values)


def test_an_outlier_takes_its_neighbours_place() -> None:
    x = np.random.default_rng(1).standard_normal((1, 512)) * 0.1
    x[0, 100], x[0, 201], x[0, 300:302] = 3.0, -2.5, (2.0, 4.0)
    y = lowp.quantize(x, "olive4")
    assert y[0, [101, 200, 301]].tolist() == [0, 0, 0]
    assert y[0, [100, 201, 300]] == pytest.approx(x[0, [100, 201, 300]], rel=0.3)


def test_the_scale_is_the_best_of_those_tried() -> None:
    x = np.random.default_rng(2).standard_t(4, (3, 256))
    y = lowp.quantize(x, "olive4")
    for row, got in zip(x, y, strict=True):
        reach = abs(row.mean()) + 3 * row.std(ddof=1)
        tried = []
        for percent in range(75, 150, 2):
            unit = reach * percent / 100 / 28
            pairs = [rounded_pair(a / unit, b / unit) for a, b in row.reshape(-1, 2).tolist()]
            tried.append(((np.array(pairs).reshape(-1) * unit - row) ** 2).sum())
        assert ((got - row) ** 2).sum() == pytest.approx(min(tried), rel=1e-4)
