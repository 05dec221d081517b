"""Fields of accumulators that seldom meet, against the exact oracle."""

from typing import Any

import numpy as np
import pytest

import lowp
from lowp.emulation.accumulator import Accumulator, Alignment
from lowp.emulation.exact_accumulators import dot
from tests.emulation.test_accumulator_edges import as_float, oracle, same_bits

RANDOM = ["stochastic_a", "stochastic_b", "stochastic_c", "stochastic_equal"]


def operands(seed: int, terms: int, fmt: str = "float8_e4m3fn") -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    values = (lowp.quantize(rng.standard_normal(shape) * 3, fmt) for shape in ((2, terms), (terms, 3)))
    a, b = (np.asarray(x, np.float64) for x in values)
    return a, b


def check(accumulator: Accumulator, terms: int = 13, fmt: str = "float8_e4m3fn", **more: Any) -> None:
    a, b = operands(terms, terms, fmt)
    found = lowp.matmul(lowp.encode(a, fmt), lowp.encode(b, fmt), accumulator=accumulator)
    same_bits(found, oracle(accumulator, a, b, fmt, **more))


class TestOfOuterOnlySomeFieldsCount:
    @pytest.mark.parametrize(
        "other",
        [
            {"product": "float8_e5m2"},
            {"group": 3, "group_sum": "pairwise"},
            {"group": 4, "alignment": Alignment(fraction_bits=2)},
            {"lanes": 2},
            {"splits": 2},
        ],
        ids=str,
    )
    @pytest.mark.parametrize("order", ["sequential", (1, 0)], ids=str)
    def test_the_others_change_nothing(self, other: dict[str, Any], order: Any) -> None:
        same = Accumulator(format="bfloat16", order=order, rounding="toward_zero")
        outer = Accumulator(format="bfloat16", order=order, rounding="toward_zero", **other)
        given = Accumulator(format="float16", chunk=3, outer=outer)
        a, b = operands(1, 17)
        found = lowp.matmul(a, b, accumulator=given)
        same_bits(
            found, np.asarray(lowp.matmul(a, b, accumulator=Accumulator(format="float16", chunk=3, outer=same)), float)
        )
        same_bits(found, oracle(given, a, b, "float8_e4m3fn"))

    def test_nor_under_jit(self) -> None:
        jax = pytest.importorskip("jax")
        outer = Accumulator(format="bfloat16", group=4, alignment=Alignment(fraction_bits=2, cut="ties_to_even"))
        given = Accumulator(format="float16", chunk=3, outer=outer)
        a, b = (x.astype(np.float32) for x in operands(2, 17))
        found = jax.jit(lambda x, y: lowp.matmul(x, y, accumulator=given))(a, b)
        same_bits(found, oracle(given, a, b, "float8_e4m3fn"))


class TestRandomBitsOfFusedGroups:
    @pytest.mark.parametrize("rounding", RANDOM)
    @pytest.mark.parametrize(
        "more",
        [
            {"product": "float8_e5m2"},
            {"order": "pairwise"},
            {"order": "pairwise", "product": "float8_e5m2"},
            {"chunk": 7, "product": "bfloat16"},
            {"lanes": 2, "order": "pairwise", "outer": Accumulator(format="float8_e5m2", rounding="stochastic_a")},
        ],
        ids=str,
    )
    @pytest.mark.parametrize("group", [3, 4])
    def test_each_stored_number_has_its_own(self, rounding: str, more: dict[str, Any], group: int) -> None:
        check(Accumulator(format="float8_e5m2", rounding=rounding, group=group, seed=11, **more))


@pytest.mark.parametrize("compensation", ["kahan", "neumaier", "two_sum"])
@pytest.mark.parametrize("product", ["exact", "float8_e5m2"])
def test_corrected_partial_sums_use_up_random_bits(compensation: str, product: str) -> None:
    outer = Accumulator(format="float8_e5m2", rounding="stochastic_a", seed=3)
    check(Accumulator(format="float16", compensation=compensation, product=product, chunk=4, outer=outer))
    check(Accumulator(format="float16", compensation=compensation, product=product, lanes=9, outer=outer), terms=5)


class TestAlignedSumsInFormatsThatNoKernelStores:
    @pytest.mark.parametrize("overflow", ["saturate_zero", "wrap_sign_magnitude", "wrap", "saturate"])
    @pytest.mark.parametrize("fmt", ["int8", "fixed16_8"])
    @pytest.mark.parametrize("rounding", ["ties_to_even", "toward_negative"])
    def test_integers(self, overflow: str, fmt: str, rounding: str) -> None:
        alignment = Alignment(fraction_bits=12, cut="ties_to_zero")
        check(Accumulator(format=fmt, overflow=overflow, rounding=rounding, group=2, alignment=alignment), terms=40)

    @pytest.mark.parametrize(
        "fmt", ["dlfloat16", lowp.Float(5, 3, subnormals=False), lowp.Float(5, 3, signed=False)], ids=str
    )
    @pytest.mark.parametrize("rounding", ["ties_to_even", "toward_negative", "to_odd"])
    @pytest.mark.parametrize("after", [False, True])
    def test_floats_without_subnormals_or_sign(self, fmt: Any, rounding: str, after: bool) -> None:
        later: dict[str, Any] = {"running_sum": "after", "sum_fraction_bits": 9, "running_fraction_bits": 9}
        alignment = Alignment(fraction_bits=12, **(later if after else {}))
        given = Accumulator(format=fmt, rounding=rounding, alignment=alignment)
        least = lowp.parse(fmt).smallest_normal
        for x in (0.25, 0.5, 0.75, 1.25, 1.5):
            for y in (0.25, -0.5, 0.625):
                found = lowp.matmul([[least, least]], [[x], [y]], accumulator=given)
                wanted = dot(given, [least, least], [x, y], a_format="float64", b_format="float64")
                same_bits(found, np.array([[as_float(wanted)]]))

    def test_what_float64_does_not_hold_is_refused(self) -> None:
        given = Accumulator(format="dlfloat16", group=1 << 14, alignment=Alignment(fraction_bits=40))
        with pytest.raises(lowp.ArgumentError, match=r"dlfloat16.*fewer bits or a smaller group"):
            lowp.matmul(np.ones((1, 1 << 14)), np.ones((1 << 14, 1)), accumulator=given)


@pytest.mark.parametrize("fmt", ["int8", "uint8", "int40", "fixed16_8"])
@pytest.mark.parametrize("power", [40, 60, 63, 64, 66, 70, 100])
def test_aligned_sums_far_beyond_an_integer_wrap_to_its_last_bits(fmt: str, power: int) -> None:
    given = Accumulator(format=fmt, overflow="wrap", alignment=Alignment(fraction_bits=5))
    b = [1.0, -1.25]
    for large in (1.5, 1.25, 1.75):
        a = [3.0, large * 2.0**power]
        wanted = dot(given, a, b, a_format="float64", b_format="float64")
        same_bits(lowp.matmul([a], [[x] for x in b], accumulator=given), np.array([[as_float(wanted)]]))


class TestArithmeticOfTheFormatItself:
    @pytest.mark.parametrize("signed_zero", [True, False, "underflow"])
    @pytest.mark.parametrize("rounding", ["ties_to_even", "toward_negative", "toward_zero"])
    @pytest.mark.parametrize("more", [{}, {"group": 2}, {"group": 2, "group_sum": "pairwise"}], ids=str)
    @pytest.mark.parametrize("c", [0.0, -0.0, 1.0])
    def test_the_sign_of_zero(self, signed_zero: Any, rounding: str, more: dict[str, Any], c: float) -> None:
        given = Accumulator(
            format=lowp.Float(4, 0, specials="finite"), signed_zero=signed_zero, rounding=rounding, **more
        )
        b = [-0.0, 2.0**-12, -1.0]
        for a in ([1.0, -1.0, 0.0], [1.0, -1.0, 1.0], [1.0, 0.0, -0.0], [0.0, -1.0, 2.0**-9]):
            wanted = dot(given, a, b, c, a_format="float64", b_format="float64")
            found = lowp.matmul([a], [[x] for x in b], [[c]], accumulator=given)
            same_bits(found, np.array([[as_float(wanted)]]))

    @pytest.mark.parametrize("fmt", ["posit16", "dlfloat16", "takum16_linear"])
    @pytest.mark.parametrize("how", ["zero", "positive_zero"])
    @pytest.mark.parametrize("more", [{}, {"group": 3}, {"group": 3, "group_sum": "sequential"}], ids=str)
    def test_formats_without_subnormals_have_none_to_flush(self, fmt: str, how: str, more: dict[str, Any]) -> None:
        given = Accumulator(format=fmt, subnormal_inputs=how, subnormal_results="zero", **more)
        a, b = [[2.0**-9, 1.5, 3.0, -0.0]], [[448.0], [2.0**-8], [1.25], [-1.0]]
        found = lowp.matmul(lowp.encode(a, "float8_e4m3fn"), lowp.encode(b, "float8_e4m3fn"), accumulator=given)
        same_bits(found, oracle(given, np.array(a), np.array(b), "float8_e4m3fn"))
        assert found[0, 0] == 3.75  # subnormal operands are zero


@pytest.mark.parametrize("product", ["nf4", "posit8", "float16"])
@pytest.mark.parametrize("overflow", ["wrap", "saturate_zero", "wrap_sign_magnitude"])
def test_products_that_an_integer_s_overflow_is_not_for(product: str, overflow: str) -> None:
    check(Accumulator(format="int8", overflow=overflow, product=product, group=3))


class TestTables:
    MORE = (
        {},
        {"compensation": "kahan"},
        {"compensation": "neumaier", "lanes": 2},
        {"compensation": "two_sum", "chunk": 3},
        {"product": "lns16_f8"},
        {"product": "lns16_f8", "compensation": "two_sum"},
        {"group": 3, "group_sum": "pairwise", "order": "pairwise"},
        {"group": 2, "group_sum": "sequential", "product": "float16"},
    )

    @pytest.mark.parametrize("more", MORE, ids=str)
    @pytest.mark.parametrize("fraction_bits", [2, 6])
    def test_every_addition_is_looked_up(self, more: dict[str, Any], fraction_bits: int) -> None:
        check(Accumulator(format="lns12_f6", table=lowp.GaussTable(fraction_bits), **more), terms=7)

    @pytest.mark.parametrize("more", MORE, ids=str)
    def test_random_bits_of_what_follows(self, more: dict[str, Any]) -> None:
        outer = Accumulator(format="float8_e5m2", rounding="stochastic_a", seed=2)
        given = Accumulator(format="lns12_f6", table=lowp.GaussTable(3), splits=3, outer=outer, **more)
        check(given)

    @pytest.mark.parametrize("more", MORE, ids=str)
    def test_the_trace_has_the_same_result(self, more: dict[str, Any]) -> None:
        given = Accumulator(format="lns12_f6", table=lowp.GaussTable(3), **more)
        a, b = operands(5, 7)
        found, _ = lowp.matmul(a, b, accumulator=given, trace=True)
        same_bits(found, np.asarray(lowp.matmul(a, b, accumulator=given), float))

    def test_the_diagram_says_what_products_are_rounded_to(self) -> None:
        kahan = Accumulator(format="lns12_f6", table=lowp.GaussTable(3), compensation="kahan")
        assert "multiply  product p, rounded to lns12_f6\n" in kahan.diagram()
        other = Accumulator(format="lns12_f6", table=lowp.GaussTable(3), product="lns16_f8")
        assert "multiply  rounded to lns16_f8, then to lns12_f6\n" in other.diagram()
