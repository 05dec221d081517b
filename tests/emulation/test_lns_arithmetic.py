"""Logarithmic numbers: exact sums, sums by table, and products as sums of logarithms."""

import numpy as np
import pytest

import lowp
from lowp.emulation.gauss import GaussTable

# Gauss logarithms at 160 bits, in units of 2^-F, with those of xlns 1.0.5 (F = 3, 5, 7) in agreement.
SIZES = {
    0: (2, 1),
    1: (5, 5),
    2: (14, 14),
    3: (36, 36),
    4: (89, 88),
    5: (209, 209),
    7: (1092, 1091),
    10: (11806, 11805),
}
FIRST_DIFFERENCE = {0: -1, 1: -4, 2: -11, 3: -29, 4: -73, 5: -177, 7: -964, 10: -10782}
SUMS_3 = [8, 8, 7, 7, 6, 6, 5, 5, 5, 4, 4, 4, 3, 3, 3, 3, 3, 2, 2, 2, 2, 2, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1]
DIFFERENCES_3 = [
    -29,
    -21,
    -17,
    -14,
    -12,
    -10,
    -9,
    -8,
    -7,
    -6,
    -6,
    -5,
    -5,
    -4,
    -4,
    -3,
    -3,
    -3,
    -2,
    -2,
    -2,
    -2,
    -2,
    -2,
    -1,
]
SUMS_7 = {0: 128, 1: 128, 2: 127, 16: 120, 64: 99, 128: 75, 256: 41, 512: 11}
DIFFERENCES_7 = {1: -964, 2: -837, 16: -460, 64: -227, 128: -128, 256: -53, 512: -12}


@pytest.mark.parametrize("fraction_bits", SIZES)
def test_sizes_of_gauss_tables(fraction_bits: int) -> None:
    table = GaussTable(fraction_bits)
    assert (len(table.sums), len(table.differences) - 1) == SIZES[fraction_bits]
    assert table.differences[1] == FIRST_DIFFERENCE[fraction_bits]


def test_entries_of_gauss_tables() -> None:
    table, fine = GaussTable(3), GaussTable(7)
    assert table.sums[: len(SUMS_3)].tolist() == SUMS_3
    assert table.differences[1 : 1 + len(DIFFERENCES_3)].tolist() == DIFFERENCES_3
    assert {z: int(fine.sums[z]) for z in SUMS_7} == SUMS_7
    assert {z: int(fine.differences[z]) for z in DIFFERENCES_7} == DIFFERENCES_7


def every_pair(name: str) -> tuple[lowp.array, lowp.array]:
    codes = np.arange(256, dtype=np.uint8)
    return lowp.array.from_codes(codes[:, None], name), lowp.array.from_codes(codes[None, :], name)


def test_a_full_table_adds_as_exact_addition_does() -> None:
    """Entries rounded to nearest make the nearest sum, the larger logarithm being an integer, but not past the ends."""
    a, b = every_pair("lns8_f3")
    for function in (lowp.add, lowp.subtract):
        exact, table = function(a, b), function(a, b, add_table=GaussTable(3))
        different = exact.codes != table.codes
        assert not (different & (np.abs(exact.values) > 2 * exact.format.smallest_subnormal)).any()
        assert different.sum() < 40


def test_a_short_table_leaves_the_larger_number() -> None:
    one, small = (lowp.array.from_codes(code, "lns8_f3") for code in (0, 128 - 20))
    assert lowp.add(one, small).codes == 2
    assert lowp.add(one, small, add_table=GaussTable(3, entries=20)).codes == 0
    assert lowp.add(one, small, add_table=GaussTable(3, entries=21)).codes == 2


def test_a_coarse_table_counts_for_the_upper_bits() -> None:
    a, b = (lowp.array.from_codes(np.array(code, np.uint16), "lns16_f7") for code in (256, 96))
    table = GaussTable(3)
    assert lowp.add(a, b, add_table=table).codes == 256 + (int(table.sums[160 >> 4]) << 4)


def test_zeros_nan_and_cancellation_by_table() -> None:
    a, b = every_pair("lns8_f3")
    table = GaussTable(3)
    zero, nan, one = 0x40, 0xC0, 0
    got = lowp.add(a, b, add_table=table).codes
    assert (got[zero] == np.arange(256)).all()
    assert (got[nan] == nan).all()
    assert (got[:, nan] == nan).all()
    assert got[one, one | 0x80] == zero
    assert lowp.subtract(a, b, add_table=table).codes[zero, one] == 0x80
    assert got[0x3F, 0x3F] == nan
    assert lowp.add(a, b, add_table=table, overflow="saturate").codes[0x3F, 0x3F] == 0x3F


def test_products_and_quotients_add_and_subtract_logarithms() -> None:
    k = np.arange(-60, 61, 5)
    codes = (k & 0x7F).astype(np.uint8)
    x = lowp.array.from_codes(codes, "lns8_f3")
    total = k[:, None] + k[None, :]
    inside = np.abs(total) < 63
    for mode in ("ties_to_even", "toward_positive", "to_odd", "stochastic_a"):
        product = lowp.multiply(x[:, None], -x[None, :], rounding=mode)
        assert (product.codes == (total & 0x7F | 0x80))[inside].all()
    assert (lowp.divide(x, x).codes == 0).all()


def test_square_roots_round_the_logarithm() -> None:
    x = lowp.array.from_codes(np.array([1, 2, 3, 5], np.uint8), "lns8_f3")
    assert lowp.sqrt(x).codes.tolist() == [0, 1, 2, 2]
    assert lowp.sqrt(x, rounding="toward_positive").codes.tolist() == [1, 1, 2, 3]
    assert lowp.sqrt(x, rounding="to_odd").codes.tolist() == [1, 1, 1, 3]


def test_the_table_must_fit_the_format() -> None:
    x = lowp.array([1.0], "lns8_f3")
    with pytest.raises(lowp.ArgumentError, match="fraction bits"):
        lowp.add(x, x, add_table=GaussTable(4))
    with pytest.raises(lowp.ArgumentError, match="logarithmic"):
        lowp.add(*[lowp.array([1.0], "float16")] * 2, add_table=GaussTable(4))
    for bad in ({"fraction_bits": 21}, {"fraction_bits": 3, "entries": 0}, {"fraction_bits": 3, "rounding": "up"}):
        with pytest.raises(lowp.ArgumentError):
            GaussTable(**bad)  # type: ignore[arg-type]
