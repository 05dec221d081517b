"""Aligned sums in float32 and float64 columns against the exact oracle, at the ends of what each holds."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

import lowp
from lowp.emulation import _aligned_sums as sums
from lowp.emulation.accumulator import Accumulator, Alignment
from tests.emulation.test_accumulator_edges import oracle, same_bits

NARROW = Alignment(fraction_bits=13)


@pytest.fixture
def chosen(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The dtypes that sums were computed in."""
    found: list[Any] = []
    choose = sums._dtype

    def noted(*arguments: Any) -> Any:
        found.append(choose(*arguments))
        return found[-1]

    monkeypatch.setattr(sums, "_dtype", noted)
    return found


def operands(rng: np.random.Generator, fmt: str, rows: int, terms: int, columns: int) -> tuple[np.ndarray, np.ndarray]:
    def some(shape: tuple[int, int]) -> np.ndarray:
        x = np.ldexp(rng.standard_normal(shape), rng.integers(-12, 5, shape)) * (rng.random(shape) > 0.2)
        return np.asarray(lowp.quantize(x, fmt))

    return some((rows, terms)), some((terms, columns))


@pytest.mark.parametrize("rounding", ["toward_zero", "ties_to_even", "toward_negative", "toward_positive"])
@pytest.mark.parametrize("cut", ["toward_zero", "toward_negative"])
@pytest.mark.parametrize("group", [1, 3, 4, 7, 8, 13, 20])
def test_groups_of_any_size(chosen: list[Any], rounding: str, cut: str, group: int) -> None:
    rng = np.random.default_rng(group)
    alignment = Alignment(fraction_bits=int(rng.integers(3, 14)), cut=cut, zero_exponent=-20)
    accumulator = Accumulator(
        format=lowp.formats.Float(8, 13), group=group, rounding=rounding, overflow="infinity", alignment=alignment
    )
    for fmt in ("float8_e4m3fn", "float8_e5m2", "int8"):
        a, b = operands(rng, fmt, 3, 21, 9)
        found = lowp.matmul(lowp.encode(a, fmt), lowp.encode(b, fmt), accumulator=accumulator)
        same_bits(found, oracle(accumulator, a, b, fmt))
    assert chosen == [np.float32] * 3


@pytest.mark.parametrize("exponent", [-149, -126, -100, -61, -60, -59, 0, 59, 60, 61, 100, 127])
@pytest.mark.parametrize("out", ["float32", "bfloat16", "float16"])
def test_addends_of_any_size(chosen: list[Any], exponent: int, out: str) -> None:
    rng = np.random.default_rng(exponent + 200)
    accumulator = Accumulator(
        format=out, group=8, rounding="toward_zero", overflow="infinity", alignment=NARROW, signed_zero=True
    )
    a, b = operands(rng, "float8_e5m2", 4, 24, 8)
    b[:, :4] = 0  # the addend alone
    size = np.ldexp(rng.choice([1.0, 1.5], (4, 8)), exponent - rng.integers(0, 2, (4, 8)))
    c = np.asarray(lowp.quantize(size * rng.choice([-1.0, 1.0], (4, 8)), out, overflow="saturate"))
    found = lowp.matmul(lowp.encode(a, "float8_e5m2"), lowp.encode(b, "float8_e5m2"), c, accumulator=accumulator)
    wanted = [[oracle(accumulator, a[i : i + 1], b[:, j : j + 1], "float8_e5m2", c=float(c[i, j]), c_format=out)[0, 0]
               for j in range(8)] for i in range(4)]  # fmt: skip
    same_bits(found, np.array(wanted))
    size = np.abs(c[c != 0])
    assert chosen[-1] is (np.float32 if not size.size or (size.min() >= 2**-60 and size.max() <= 2**60) else np.float64)


@pytest.mark.parametrize(("fraction_bits", "group", "dtype"), [(19, 4, np.float32), (19, 5, np.float64),
                                                               (17, 16, np.float32), (18, 16, np.float64)])  # fmt: skip
def test_sums_as_wide_as_float32_holds(chosen: list[Any], fraction_bits: int, group: int, dtype: type) -> None:
    accumulator = Accumulator(
        format="float32", group=group, rounding="toward_zero", alignment=Alignment(fraction_bits=fraction_bits)
    )
    a, b = np.full((1, 2 * group), 1.875), np.full((2 * group, 1), 1.875)
    b[1] = 2.0**-9
    found = lowp.matmul(
        lowp.encode(a, "float8_e4m3fn"), lowp.encode(b, "float8_e4m3fn"), np.array([[1.9999998]], np.float32),
        accumulator=accumulator,
    )  # fmt: skip
    same_bits(found, oracle(accumulator, a, b, "float8_e4m3fn", c=float(np.float32(1.9999998))))
    assert chosen == [dtype]


@pytest.mark.parametrize("out", ["float16", "bfloat16", lowp.formats.Float(8, 2), lowp.formats.Float(8, 13)], ids=str)
@pytest.mark.parametrize("zero_exponent", [None, -60, -20])
def test_sums_of_zeros_and_of_tiny_products(chosen: list[Any], out: Any, zero_exponent: int | None) -> None:
    accumulator = Accumulator(
        format=out, group=4, rounding="ties_to_even", overflow="infinity",
        alignment=Alignment(fraction_bits=10, zero_exponent=zero_exponent),
    )  # fmt: skip
    a = np.array([[0, 0, 0, 0, 1, 1.5, 0, 0], [1, 1, 1, 1, 0, 0, 0, 0], [1.25] * 8]) * 2.0**-14
    b = np.array([[0], [1], [1.75], [0], [-1], [0], [1], [1.25]]) * np.array([2.0**-14, 2.0**-13, 2.0**-2, 0])
    found = lowp.matmul(lowp.encode(a, "float8_e5m2"), lowp.encode(b, "float8_e5m2"), accumulator=accumulator)
    same_bits(found, oracle(accumulator, a, b, "float8_e5m2"))
    assert chosen == [np.float32]


def test_results_and_operands_outlive_the_next_call() -> None:
    rng = np.random.default_rng(1)
    unit = "hopper/wgmma_m64n8k32/e4m3_e4m3/f32"
    first, second = (operands(rng, "float8_e4m3fn", 70, 64, 40) for _ in range(2))
    kept = [x.copy() for x in first]
    found = lowp.matmul(*first, unit=unit)
    again = found.copy()
    lowp.matmul(*second, unit=unit)
    np.testing.assert_array_equal(found, again)
    for x, y in zip(first, kept, strict=True):
        np.testing.assert_array_equal(x, y)


def test_a_zero_that_the_format_does_not_have_stays_in_the_operand() -> None:
    a = np.array([[-0.0, 1.0] * 16] * 2)
    found = lowp.matrix_unit("hopper/wgmma_m64n8k32/s8_s8/s32").run(a, a.T)
    np.testing.assert_array_equal(found, np.full((2, 2), 16.0))
    assert np.signbit(a[:, 0]).all()


def test_calls_of_several_threads_do_not_meet() -> None:
    rng = np.random.default_rng(2)
    unit = "hopper/wgmma_m64n8k32/e4m3_e4m3/f32"
    given = [operands(rng, "float8_e4m3fn", 64, 96, 48) for _ in range(8)]
    alone = [lowp.matmul(*x, unit=unit) for x in given]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(5):
            for found, wanted in zip(pool.map(lambda x: lowp.matmul(*x, unit=unit), given), alone, strict=True):
                np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("reach", [20, 21, 22, 33])
@pytest.mark.parametrize("out", ["float32", lowp.formats.Float(8, 13)], ids=str)
def test_exponents_at_the_ends_of_their_integers(chosen: list[Any], reach: int, out: Any) -> None:
    rng = np.random.default_rng(reach)
    accumulator = Accumulator(format=out, group=11, rounding="toward_zero", overflow="infinity", alignment=NARROW)
    ends = np.ldexp([0, 1, 1, 1.9921875, -1.5, -1], [0, reach, -reach, -reach, reach, 0])
    pairs = np.array(np.meshgrid(ends, ends)).reshape(2, -1)  # every pair alone, among products with a zero
    terms = 11 * pairs.shape[1]
    a, b = np.zeros((2, terms)), np.zeros((terms, 3))
    for i, (x, y) in enumerate(pairs.T):
        first, second, third = 11 * i + rng.permutation(11)[:3]
        a[0, first], b[first] = x, y
        a[:, second], b[third] = np.ldexp(1.25, reach), np.ldexp(1.75, reach)
    a[1] = a[0][rng.permutation(terms)]
    b[:, 1:] = rng.choice(ends, (terms, 2))
    starts = np.arange(0, terms, 11)
    for start in starts:  # each step by itself: what a step before has left may hide what it gets wrong
        x, y = a[:, start : start + 11], b[start : start + 11]
        for c in (0.0, 2.0**-58 * (1 + 2.0**-13)):  # so small that the exponent of a zero would show
            given = lowp.encode(x, "bfloat16"), lowp.encode(y, "bfloat16")
            found = lowp.matmul(*given, np.full((2, 3), c, np.float32), accumulator=accumulator)
            same_bits(found, oracle(accumulator, x, y, "bfloat16", c=c))
    assert set(chosen) == {np.float32}


@pytest.mark.parametrize("columns", [1, 7, 63, 64, 65, 129, 255, 256, 257, 300, 513])
def test_tiles_of_any_number_of_columns(columns: int) -> None:
    rng = np.random.default_rng(columns)
    unit = "hopper/wgmma_m64n8k32/e4m3_e4m3/f32"
    a, b = operands(rng, "float8_e4m3fn", 3, 64, columns)
    found = lowp.matmul(a, b, unit=unit)
    one_by_one = [lowp.matmul(a, b[:, j : j + 1], unit=unit) for j in range(columns)]
    np.testing.assert_array_equal(found, np.concatenate(one_by_one, axis=1))


@pytest.mark.parametrize("out", ["float32", "bfloat16", "float8_e4m3fn", "float8_e5m2"])
@pytest.mark.parametrize("overflow", ["infinity_or_nan", "saturate"])
def test_running_sums_that_are_not_finite(chosen: list[Any], out: str, overflow: str) -> None:
    accumulator = Accumulator(
        format=out, group=4, rounding="toward_zero", overflow=overflow, alignment=Alignment(fraction_bits=10)
    )
    a, b = operands(np.random.default_rng(7), "float8_e5m2", 2, 12, 5)
    special = [np.nan, np.inf, -np.inf, 1.0, 0.0]
    c = np.array([special, special])
    if out == "float8_e4m3fn":
        c = np.where(np.isinf(c), 448.0, c)
    found = lowp.matmul(lowp.encode(a, "float8_e5m2"), lowp.encode(b, "float8_e5m2"), c, accumulator=accumulator)
    wanted = [[oracle(accumulator, a[i : i + 1], b[:, j : j + 1], "float8_e5m2", c=float(c[i, j]), c_format=out)[0, 0]
               for j in range(5)] for i in range(2)]  # fmt: skip
    same_bits(found, np.array(wanted))
