"""The oracle of accumulators against plain loops: orders, partial sums, corrections, random bits, special numbers."""

import math
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

import lowp
from lowp.emulation.accumulator import Accumulator, Alignment
from lowp.emulation.exact_accumulators import dot
from lowp.emulation.exact_stored import add_by_table
from lowp.rounding import exact, random_bits
from tests.emulation.machines import machine


def numbers(seed: int, count: int, spread: int = 6) -> tuple[list[float], list[float]]:
    """Return operands that bfloat16 holds, of mixed signs and sizes."""
    rng = np.random.default_rng(seed)
    return tuple(  # type: ignore[return-value]
        (rng.integers(-127, 128, count) * 2.0 ** rng.integers(-spread, spread, count)).tolist() for _ in range(2)
    )


@pytest.mark.parametrize("seed", range(4))
def test_sequential_float16_is_numpys(seed: int) -> None:
    a, b = numbers(seed, 30, 2)
    total = np.float16(0.5)
    for x, y in zip(a, b, strict=True):
        total = np.float16(float(total) + x * y)  # exact in float64
    assert dot(Accumulator(format="float16"), a, b, 0.5) == Fraction(float(total))
    separate, total = Accumulator(format="float16", product="float16"), np.float16(0.5)
    for x, y in zip(a, b, strict=True):
        total = total + np.float16(x * y)
    assert dot(separate, a, b, 0.5) == Fraction(float(total))


def tree32(values: list[np.float32]) -> np.float32:
    half = (len(values) + 1) // 2
    return values[0] if len(values) == 1 else np.float32(tree32(values[:half]) + tree32(values[half:]))


@pytest.mark.parametrize("count", [1, 2, 3, 7, 8, 21])
def test_pairwise_float32_is_numpys(count: int) -> None:
    a, b = numbers(count, count, 12)
    products = [np.float32(x * y) for x, y in zip(a, b, strict=True)]
    wanted = np.float32(np.float32(0.1) + tree32(products))
    assert dot(Accumulator(order="pairwise"), a, b, np.float32(0.1)) == Fraction(float(wanted))
    groups = [tree32(products[i : i + 4]) for i in range(0, count, 4)]
    total = np.float32(0.1)
    for group in groups:
        total = np.float32(total + group)
    assert dot(Accumulator(group=4, group_sum="pairwise"), a, b, np.float32(0.1)) == Fraction(float(total))


def float32_sum(pairs: list[tuple[float, float]], start: float = 0.0) -> float:
    """Return a chain of fused multiply-adds."""
    total = Fraction(start)
    for x, y in pairs:
        total = exact.quantize(total + Fraction(x) * Fraction(y), "float32")  # type: ignore[assignment]
    return float(total)


def test_partial_sums() -> None:
    a, b = numbers(1, 43, 3)
    pairs = list(zip(a, b, strict=True))

    def added(sums: list[float], start: float) -> float:
        for x in sums:
            start = float(np.float32(np.float32(start) + np.float32(x)))
        return start

    chunks = [float32_sum(pairs[i : i + 8]) for i in range(0, 43, 8)]
    assert dot(Accumulator(chunk=8), a, b, 3) == Fraction(added(chunks, 3.0))
    lanes = [float32_sum([p for i, p in enumerate(pairs) if i // 2 % 3 == lane]) for lane in range(3)]
    assert dot(Accumulator(lanes=3, lane_width=2), a, b, 3) == Fraction(added([added(lanes[1:], lanes[0])], 3.0))
    splits = [float32_sum(pairs[i : i + 16]) for i in range(0, 43, 16)]  # 11 tiles of 4, 4 to each of 3 splits
    assert dot(Accumulator(splits=3, split_tile=4), a, b, 3) == Fraction(added(splits, 3.0))
    nested = [
        added([float32_sum(pairs[i : i + 8]) for i in range(s, min(s + 16, 43), 8)], 0.0) for s in range(0, 43, 16)
    ]
    assert dot(Accumulator(splits=3, split_tile=4, chunk=8), a, b, 3) == Fraction(added(nested, 3.0))
    narrow: Any = Fraction(3)
    for x in splits:
        narrow = exact.quantize(narrow + Fraction(x), "bfloat16")
    assert dot(Accumulator(splits=3, split_tile=4, outer=Accumulator(format="bfloat16")), a, b, 3) == narrow
    outer = Accumulator(order="pairwise", chunk=4)
    wanted = added([float(tree32([np.float32(x) for x in chunks[i : i + 4]])) for i in (0, 4)], 3.0)
    assert dot(Accumulator(chunk=8, outer=outer), a, b, 3) == Fraction(wanted)


def test_orders() -> None:
    a, b = numbers(2, 11, 12)
    pairs = list(zip(a, b, strict=True))
    turned = [pairs[first + i] for first in range(0, 11, 4) for i in (2, 0, 3, 1) if first + i < 11]
    assert dot(Accumulator(order=(2, 0, 3, 1)), a, b) == Fraction(float32_sum(turned))
    shuffled = np.random.Generator(np.random.PCG64(5)).permutation(11)
    assert dot(Accumulator(order="random", seed=5), a, b) == Fraction(float32_sum([pairs[i] for i in shuffled]))


def float32_kahan(values: list[float]) -> float:
    s = e = np.float32(0)
    for p in values:
        y = np.float32(np.float32(p) - e)
        t = s + y
        s, e = t, (t - s) - y
    return float(s - e)


def float32_neumaier(values: list[float]) -> float:
    s = e = np.float32(0)
    for p in map(np.float32, values):
        t = s + p
        e = e + ((s - t) + p if abs(s) >= abs(p) else (p - t) + s)
        s = t
    return float(s + e)


def float32_two_sum(values: list[float]) -> float:
    high = low = np.float32(0)
    for p in map(np.float32, values):
        t = high + p
        q = t - high
        low = low + ((high - (t - q)) + (p - q))
        high, low = t + low, low - ((t + low) - t)
    return float(high + low)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", ["kahan", "neumaier", "two_sum"])
def test_compensated_sums_are_numpys(name: str, seed: int) -> None:
    values = (
        (np.random.default_rng(seed).standard_normal(50) * 10.0 ** np.arange(50) ** 0.3).astype(np.float32).tolist()
    )
    plain = {"kahan": float32_kahan, "neumaier": float32_neumaier, "two_sum": float32_two_sum}[name]
    got = dot(Accumulator(compensation=name), values, [1] * 50)
    assert got == Fraction(plain(values))
    true = math.fsum(values)
    assert abs(float(got) - true) <= abs(float32_sum([(x, 1.0) for x in values]) - true)  # type: ignore[arg-type]


def test_what_compensation_saves() -> None:
    ones = [2.0**24] + [1.0] * 8
    assert dot(Accumulator(), ones, [1] * 9) == 2**24
    for name in ("kahan", "neumaier", "two_sum"):
        assert dot(Accumulator(compensation=name), ones, [1] * 9) == 2**24 + 8
    large = [1, 1e30, 1, -1e30]
    assert dot(Accumulator(format="float64", compensation="kahan"), large, [1] * 4) == 0
    assert dot(Accumulator(format="float64", compensation="neumaier"), large, [1] * 4) == 2


def test_stochastic_rounding_draws_a_word_for_every_stored_number() -> None:
    a, b = numbers(3, 6)
    mine, total, step = (
        Accumulator(format="bfloat16", rounding="stochastic_b", seed=9, product="bfloat16"),
        Fraction(1),
        0,
    )
    for x, y in zip(a, b, strict=True):
        rounded = []
        for product in (True, False):
            word = random_bits.word(9, step * 10 + 4)
            value = Fraction(x) * Fraction(y) if product else total + rounded[0]
            rounded.append(exact.quantize(value, "bfloat16", "stochastic_b", "infinity_or_nan", random=word))
            step += 1
        total = rounded[1]  # type: ignore[assignment]
    assert dot(mine, a, b, 1, position=4, count=10) == total
    got = {dot(replace(mine, seed=seed), a, b, 1) for seed in range(20)}
    assert len(got) > 1


def test_stochastic_partial_sums_go_on_with_the_next_word() -> None:
    a, b = numbers(4, 4)
    mine = Accumulator(format="bfloat16", rounding="stochastic_a", chunk=2, seed=3)
    sums, step = [], 0
    for chunk in (0, 2):
        total: Any = Fraction(0)
        for k in (chunk, chunk + 1):
            word = random_bits.word(3, step)
            total = exact.quantize(total + Fraction(a[k]) * Fraction(b[k]), "bfloat16", "stochastic_a", random=word)
            step += 1
        sums.append(total)
    total = Fraction(7)
    for x in sums:
        total = exact.quantize(total + x, "bfloat16", "stochastic_a", random=random_bits.word(3, step))
        step += 1
    assert dot(mine, a, b, 7) == total


def test_integers_wrap_and_saturate() -> None:
    a, b = [127] * 3, [100] * 3
    assert dot(Accumulator(format="int16", overflow="wrap"), a, b) == 38100 - 65536
    assert dot(Accumulator(format="int16", overflow="saturate"), [*a, -1], [*b, 100]) == 32667
    assert dot(Accumulator(format="int16", overflow="saturate", group=4), [*a, -100], [*b, 100]) == 28100


def test_a_quire_is_the_exact_sum() -> None:
    a, b = [2.0**20, 1.0, -(2.0**20)], [2.0**20, 2.0**-20, 2.0**20]
    assert dot(Accumulator(format="posit16_es2", group=1 << 40), a, b) == Fraction(1, 1 << 20)
    assert dot(Accumulator(format="posit16_es2"), a, b) == 0


def test_logarithmic_sums_by_table_are_those_of_add() -> None:
    fmt, table = lowp.parse("lns8_f3"), lowp.GaussTable(3)
    values = [fmt.meaning(code) for code in range(256)]  # type: ignore[attr-defined]
    x, y = (m.reshape(-1) for m in np.meshgrid(np.arange(256, dtype=np.uint8), np.arange(256, dtype=np.uint8)))
    wanted = lowp.add(lowp.array.from_codes(x, fmt), lowp.array.from_codes(y, fmt), add_table=table).codes
    for i in range(0, 65536, 131):
        got = add_by_table(values[x[i]], values[y[i]], fmt, table, "infinity_or_nan")  # type: ignore[arg-type]
        assert exact.encode(got, fmt) == wanted[i]
    one = dot(Accumulator(format=fmt, table=table), [1, 1], [1, 1])
    assert one == 2


# Infinities, NaN, zeros


@pytest.mark.parametrize(
    ("a", "b", "c", "wanted"),
    [
        (["inf", 1], [1, 1], 0, "inf"), (["inf", "-inf"], [1, 1], 0, "nan"), (["inf", 1], [0, 1], 0, "nan"),
        (["nan", 1], [0, 1], 0, "nan"), ([1, 1], [1, 1], "-inf", "-inf"), (["inf", 1], [1, 1], "-inf", "nan"),
        ([2.0**120, 1], [2.0**20, 1], 0, "inf"),
    ],
)  # fmt: skip
def test_special_numbers_in_every_kind_of_step(a: list[Any], b: list[Any], c: Any, wanted: str) -> None:
    aligned = machine("hopper/mma_m16n8k16/bf16_bf16/f32").accumulator
    floored = machine("cdna3/mfma_16x16x16/bf16_bf16/f32").accumulator
    for accumulator in (
        Accumulator(),
        Accumulator(group=2),
        Accumulator(group=2, group_sum="pairwise"),
        aligned,
        floored,
    ):
        assert dot(accumulator, a, b, c) == wanted, accumulator
    assert dot(Accumulator(order="pairwise"), a, b, c) == wanted


def test_overflow_to_infinity_is_not_that_of_rounding_toward_zero() -> None:
    a, b, largest = [2.0**64], [2.0**64], Fraction(float(np.finfo(np.float32).max))
    assert dot(Accumulator(rounding="toward_zero"), a, b) == largest
    assert dot(Accumulator(rounding="toward_zero", overflow="infinity"), a, b) == "inf"
    below = [2.0**64 * (1 - 2.0**-40)]
    assert dot(Accumulator(rounding="toward_zero", overflow="infinity"), below, b) == largest
    assert dot(Accumulator(rounding="away_from_zero", overflow="infinity"), below, b) == "inf"
    halfway = [2.0**64 * (1 - 2.0**-25)]
    for mode, wanted in (("ties_to_even", "inf"), ("ties_to_zero", largest), ("ties_to_odd", largest)):
        assert dot(Accumulator(rounding=mode, overflow="infinity"), halfway, b) == wanted


def test_signs_of_zero() -> None:
    minus, tiny = ["-0"], [-(2.0**-149)]
    for kept, of_zeros, of_cancelled, of_underflow in (
        (True, "-0", 0, "-0"), ("underflow", 0, 0, "-0"), (False, 0, 0, 0),
    ):  # fmt: skip
        mine = Accumulator(signed_zero=kept)  # type: ignore[arg-type]
        assert dot(mine, minus, [1], "-0") == of_zeros
        assert dot(mine, [1, -1], [1, 1]) == of_cancelled
        assert dot(mine, tiny, [0.25]) == of_underflow
    down = Accumulator(rounding="toward_negative")
    assert dot(down, [1, -1], [1, 1]) == "-0"
    assert dot(machine("cdna3/mfma_16x16x16/bf16_bf16/f32").accumulator, minus, [1], "-0") == 0


def test_subnormal_numbers() -> None:
    small = 2.0**-130
    for how, wanted in (("keep", Fraction(-small)), ("zero", "-0"), ("positive_zero", 0)):
        mine = Accumulator(subnormal_inputs=how)
        assert dot(mine, [-small], [1], "-0", a_format="float32", b_format="float32") == wanted
    assert dot(Accumulator(subnormal_results="zero"), [-small], [1], "-0") == "-0"
    assert dot(Accumulator(subnormal_inputs="zero"), [0], [0], small) == 0
    assert dot(Accumulator(subnormal_inputs="zero"), [small], [1], a_format="float64") == Fraction(small)


def test_no_terms() -> None:
    for accumulator in (Accumulator(), Accumulator(chunk=4), Accumulator(format="float16", order="pairwise")):
        assert dot(accumulator, [], [], 0.1) == Fraction(0.1)
        assert dot(accumulator, [], []) == 0


def test_wrong_arguments() -> None:
    with pytest.raises(lowp.ArgumentError, match="a has 1 numbers, b 2"):
        dot(Accumulator(), [1], [1, 2])
    with pytest.raises(lowp.ArgumentError, match="2 scales do not divide 3 terms"):
        dot(Accumulator(), [1] * 3, [1] * 3, scales_a=[1, 1])
    scaled = Accumulator(group=4, alignment=Alignment(fraction_bits=10, scaled_group=4))
    with pytest.raises(lowp.ArgumentError, match="scaled_group=4 needs one pair of scales"):
        dot(scaled, [1] * 4, [1] * 4, scales_a=[1, 2])
    with pytest.raises(lowp.ArgumentError, match="not for logarithmic"):
        dot(Accumulator(alignment=Alignment(fraction_bits=10)), [lowp.parse("lns8_f3").meaning(1)], [1])  # type: ignore[attr-defined]
