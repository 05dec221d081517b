"""Corners of accumulators and matrix units: random bits under alignment, scales, 64 bits, names, zeros."""

from typing import Any

import numpy as np
import pytest

import lowp
from lowp.emulation.accumulator import Accumulator, Alignment
from lowp.emulation.exact_accumulators import dot

SPECIAL = {"nan": np.nan, "inf": np.inf, "-inf": -np.inf, "-0": -0.0}


def as_float(exact: Any) -> float:
    return SPECIAL[exact] if isinstance(exact, str) else float(exact)


def oracle(accumulator: Accumulator, a: np.ndarray, b: np.ndarray, fmt: str, **more: Any) -> np.ndarray:
    rows, columns = len(a), b.shape[1]
    return np.array(
        [
            [
                as_float(
                    dot(
                        accumulator, a[i].tolist(), b[:, j].tolist(), a_format=fmt, b_format=fmt,
                        position=columns * i + j, count=rows * columns, **more,
                    )
                )
                for j in range(columns)
            ]
            for i in range(rows)
        ]
    )  # fmt: skip


def same_bits(found: Any, wanted: np.ndarray) -> None:
    np.testing.assert_array_equal(np.asarray(found, np.float64).view(np.int64), wanted.view(np.int64))


class TestRandomBitsUnderAlignment:
    @pytest.mark.parametrize("rounding", ["stochastic_a", "stochastic_b", "stochastic_c", "stochastic_equal"])
    @pytest.mark.parametrize(
        "more",
        [
            {"group": 4, "alignment": Alignment(fraction_bits=13)},
            {"group": 2, "chunk": 6, "alignment": Alignment(fraction_bits=9, cut="toward_negative", zero_exponent=-20)},
            {"group": 3, "subnormal_inputs": "zero", "alignment": Alignment(fraction_bits=20, cut="to_odd")},
            {
                "group": 4,
                "lanes": 2,
                "alignment": Alignment(
                    fraction_bits=12, lanes=2, running_sum="after", sum_fraction_bits=14, running_fraction_bits=10,
                    result_fraction_bits=6,
                ),
            },
        ],
        ids=str,
    )  # fmt: skip
    @pytest.mark.parametrize("fmt", ["float8_e5m2", "float16", "int8"])
    def test_the_oracle_s_bits(self, rounding: str, more: dict[str, Any], fmt: str) -> None:
        accumulator = Accumulator(format=fmt, rounding=rounding, seed=7, **more)
        rng = np.random.default_rng(5)
        a, b = (np.asarray(lowp.quantize(rng.standard_normal(s) * 2, "float8_e4m3fn")) for s in ((3, 13), (13, 4)))
        found = lowp.matmul(
            lowp.encode(a, "float8_e4m3fn"), lowp.encode(b, "float8_e4m3fn"), accumulator=accumulator
        )  # fmt: skip
        same_bits(found, oracle(accumulator, a, b, "float8_e4m3fn"))

    def test_what_float64_does_not_hold_is_refused(self) -> None:
        accumulator = Accumulator(rounding="stochastic_a", group=1 << 14, alignment=Alignment(fraction_bits=40))
        with pytest.raises(lowp.ArgumentError, match="fewer bits or a smaller group"):
            lowp.matmul(np.ones((1, 1 << 14)), np.ones((1 << 14, 1)), accumulator=accumulator)


def test_a_running_sum_of_zero_has_the_exponent_of_one_in_integers() -> None:
    after = Alignment(
        fraction_bits=9, running_sum="after", sum_fraction_bits=0, running_fraction_bits=7, sum_cut="toward_positive"
    )
    accumulator = Accumulator(format="uint12", rounding="toward_zero", alignment=after)
    found = lowp.matmul([[2.0**-12]], [[2.0**-12]], accumulator=accumulator)
    same_bits(found, np.array([[1.0]]))
    assert dot(accumulator, [2.0**-12], [2.0**-12]) == 1


@pytest.mark.parametrize("how", ["zero", "positive_zero"])
@pytest.mark.parametrize("world", ["numpy", "jax"])
def test_elements_with_scales_are_subnormal_by_their_own_format(how: str, world: str) -> None:
    accumulator = Accumulator(format="float32", product="float32", group_sum="sequential", subnormal_inputs=how)
    x = np.array([[0.5, 1.0, 6.0, -0.5] * 8], np.float32)  # of E2M1, whose only subnormal number is 0.5
    a, b = lowp.encode(x, "mxfp4", axis=-1), lowp.encode(x.T.copy(), "mxfp4", axis=0)
    assert a.scales is not None
    wanted = np.array([[8 * 37.0]])
    if world == "numpy":
        same_bits(lowp.matmul(a, b, accumulator=accumulator), wanted)
        return
    jax = pytest.importorskip("jax")
    encoded = [lowp.encode(jax.numpy.asarray(y), "mxfp4", axis=axis) for y, axis in ((x, -1), (x.T, 0))]
    multiply = jax.jit(lambda p, q: lowp.matmul(p, q, accumulator=accumulator))
    same_bits(multiply(*encoded), wanted)


class TestSixtyFourBits:
    """Running sums pass through float64 between steps of several terms and from partial sums to their sum."""

    @pytest.mark.parametrize("name", ["posit64_es2", "takum64_linear", "fixed64_0"])
    @pytest.mark.parametrize(
        "more", [{"group": 4}, {"chunk": 4}, {"lanes": 2}, {"splits": 2}, {"compensation": "kahan"}], ids=str
    )
    def test_what_float64_would_lose_is_refused(self, name: str, more: dict[str, Any]) -> None:
        a = np.arange(8.0) + 0.3
        with pytest.raises(lowp.ArgumentError, match="float64"):
            lowp.matmul(a, a, accumulator=Accumulator(format=name, **more))

    @pytest.mark.parametrize("more", [{}, {"group": 8}, {"order": "pairwise"}], ids=str)
    def test_the_rest_is_exact(self, more: dict[str, Any]) -> None:
        accumulator = Accumulator(format="posit64_es2", **more)
        a = np.arange(8.0) + 0.3
        assert lowp.matmul(a, a, accumulator=accumulator) == as_float(dot(accumulator, a.tolist(), a.tolist()))


class TestWideIntegers:
    @pytest.mark.parametrize("overflow", ["wrap", "saturate"])
    @pytest.mark.parametrize("group", [1, 3])
    def test_48_bits(self, overflow: str, group: int) -> None:
        rng = np.random.default_rng(1)
        a, b = (rng.integers(-(2**26), 2**26, s) for s in ((2, 9), (9, 2)))
        found = lowp.matmul(a, b, accumulator=Accumulator(format="int48", overflow=overflow, group=group))
        wanted = np.zeros((2, 2), np.int64)
        for k in range(0, 9, group):
            wanted += a[:, k : k + group] @ b[k : k + group]
            wanted = (
                (wanted + 2**47) % 2**48 - 2**47 if overflow == "wrap" else np.clip(wanted, -(2**47), 2**47 - 1)
            )  # fmt: skip
        np.testing.assert_array_equal(found, wanted)
        assert np.abs(a.astype(float) @ b).max() > 2**47

    def test_names(self) -> None:
        assert Accumulator(format="uint40").format == lowp.Fixed(40, 0, signed=False)
        assert Accumulator(format="int32").format == lowp.Integer(32)
        with pytest.raises(lowp.FormatError, match="bits=65"):
            Accumulator(format="int65")

    def test_operands_beyond_float64_are_refused(self) -> None:
        with pytest.raises(lowp.RangeError, match="a holds an integer beyond"):
            lowp.matmul([[2**53 + 1]], [[1]], accumulator="float64")


class TestCompiledZerosAndTurns:
    """XLA takes x + 0 for x, and float64 has no unit of a large sum."""

    @pytest.fixture(autouse=True)
    def _jax(self) -> Any:
        jax = pytest.importorskip("jax")
        with jax.enable_x64(True):
            yield

    @pytest.mark.parametrize(
        "more",
        [
            {"product": "float8_e5m2"},
            {"product": "float8_e5m2", "chunk": 1},
            {"group_sum": "sequential", "rounding": "toward_positive"},
            {"order": "pairwise"},
            {"product": "float8_e5m2", "rounding": "toward_negative"},
        ],
        ids=str,
    )
    def test_a_sum_of_zeros(self, more: dict[str, Any]) -> None:
        import jax

        accumulator = Accumulator(format="float8_e5m2", **more)
        a, b = np.float32([[-1.0], [1e-9], [0.0]]), np.float32([[0.0, 1e-9, -0.0]])
        found = jax.jit(lambda x, y: lowp.matmul(x, y, accumulator=accumulator))(a, b)
        same_bits(found, np.asarray(lowp.matmul(a, b, accumulator=accumulator), np.float64))

    @pytest.mark.parametrize("fmt", ["uint12", "int8", "fixed16_8"])
    @pytest.mark.parametrize("rounding", ["ties_to_even", "toward_zero", "stochastic_b"])
    def test_what_wraps_many_times(self, fmt: str, rounding: str) -> None:
        import jax

        accumulator = Accumulator(format=fmt, rounding=rounding, overflow="wrap")
        rng = np.random.default_rng(2)
        a, b = (np.ldexp(rng.standard_normal(s), rng.integers(-9, 90, s)).astype(np.float32) for s in ((4, 6), (6, 4)))
        found = jax.jit(lambda x, y: lowp.matmul(x, y, accumulator=accumulator))(a, b)
        same_bits(found, np.asarray(lowp.matmul(a, b, accumulator=accumulator), np.float64))

    def test_aligned_random_bits_are_not_array_code(self) -> None:
        import jax

        accumulator = Accumulator(format="float16", rounding="stochastic_a", alignment=Alignment(fraction_bits=13))
        with pytest.raises(lowp.ArgumentError, match="aligned sums with rounding='stochastic_a'"):
            jax.jit(lambda x: lowp.matmul(x, x, accumulator=accumulator))(np.ones((2, 2), np.float32))


class TestUnits:
    @pytest.mark.parametrize(
        "name",
        [
            "hopper/wgmma_m64n8k32/e4m3_e4m3/f32_c", "hopper/wgmma_m64n8k32/e4m3_e4m3/f32_cf16",
            "hopper/wgmma_m64n8k32_block0/e4m3_e4m3/f32", "x86/vdpbf16ps_blockx/bf16_bf16/f32",
            "x86/tdpbssd/s8_s8/s32_cf32", "cdna3/mfma_16x16x16/f16_f16/f32_cf16", "hopper/mma_m１6n8k16/f16_f16/f32",
        ],
    )  # fmt: skip
    def test_what_is_no_name(self, name: str) -> None:
        with pytest.raises(lowp.ArgumentError, match="is not known"):
            lowp.matrix_unit(name)

    @pytest.mark.parametrize("name", ["volta/mma_m8n8k4/f16_f16/f32_cf16", "ampere/wmma_m16n16k16/f16_f16/f16_cf32"])
    def test_addends_of_another_format(self, name: str) -> None:
        assert lowp.matrix_unit(name).c == name[-3:]

    def test_fp8_of_16_terms_was_not_recorded(self) -> None:
        for name, standing in (("ada_lovelace", "model"), ("hopper", "assumed"), ("blackwell", "assumed")):
            assert lowp.matrix_unit(f"{name}/mma_m16n8k16/e4m3_e4m3/f32").standing == standing

    @pytest.mark.parametrize(
        "name", ["hopper/mma_m16n8k16/e4m3_e5m2/f16", "blackwell/mma_m16n8k16/e4m3_e5m2/f32",
                 "blackwell/mma_m16n8k32/e4m3_e5m2/f32", "rtx_blackwell/mma_m16n8k8/f16_f16/f16"]
    )  # fmt: skip
    def test_long_products_are_chains_of_instructions(self, name: str) -> None:
        unit, rng = lowp.matrix_unit(name), np.random.default_rng(3)
        k = unit.terms or 0
        high = 0x7C if unit.a == "e4m3" else 0x5000
        a, b = rng.integers(0, high, (3, 3 * k)), rng.integers(0, high if unit.b != "e5m2" else 0x5C, (3 * k, 2))
        chained = np.zeros((3, 2), np.int64)
        for start in range(0, 3 * k, k):
            part = slice(start, start + k)
            chained = unit.run_codes(a[:, part], b[part], chained).astype(np.int64)
        np.testing.assert_array_equal(unit.run_codes(a, b), chained)

    def test_scales_may_have_batch_axes_of_their_own(self) -> None:
        unit = lowp.matrix_unit("blackwell/tcgen05_m128n8k64_mxf4nvf4_block16/e2m1_e2m1_ue4m3/f32")
        ones, scales = np.full((2, 64), 2, np.uint8), np.full((5, 2, 4), 0x38, np.uint8)
        scales[1] |= 0x80  # the sign is not read, in a signed dtype either
        found = unit.run_codes(ones, ones.T, None, scales, scales[0].T)
        np.testing.assert_array_equal(found, np.full((5, 2, 2), 0x42800000))
        np.testing.assert_array_equal(unit.run_codes(ones, ones.T, None, scales.view(np.int8), scales[0].T), found)
        with pytest.raises(lowp.ArgumentError, match="batch axes do not fit"):
            unit.run_codes(np.stack([ones] * 3), ones.T, None, scales)

    def test_values_are_real_numbers_and_scales_are_for_units_that_have_them(self) -> None:
        unit = lowp.matrix_unit("ampere/mma_m16n8k16/f16_f16/f32")
        for wrong in ("x", np.ones((1, 1)) * 1j):
            with pytest.raises(lowp.ArgumentTypeError, match="a must hold real numbers"):
                unit.run(wrong, np.ones((1, 1)))
        with pytest.raises(lowp.ArgumentError, match="has no block scales"):
            unit.run(np.ones((1, 1)), np.ones((1, 1)), scale_a=np.ones((1, 1)))


def test_dot_adds_to_a_number() -> None:
    ones = np.ones(4, np.float32)
    assert lowp.dot(ones, ones, c=2.0, unit="hopper/wgmma_m64n8k32/e4m3_e4m3/f32") == 6
    assert lowp.dot(ones, ones, "float16", c=1.0) == 5
    x = lowp.array(ones, "float8_e4m3fn")
    assert lowp.dot(x, x, Accumulator(format="float16"), c=1.0).item() == 5
    with pytest.raises(lowp.ArgumentTypeError, match=r"lowp\.Accumulator"):
        lowp.dot(x, x, c=1.0)


@pytest.mark.parametrize("name", ["uint8", "int8", "int32", "fixed16_8"])
@pytest.mark.parametrize("order", ["pairwise", "sequential", "fused"])
@pytest.mark.parametrize("product", ["exact", "float32", "bfloat16"])
def test_wrapping_keeps_its_last_bits_beside_any_term(name: str, order: str, product: str) -> None:
    """Terms far above the unit count for nothing but their last bits, also where 128 bits do not hold a sum."""
    scales = 2.0 ** np.array([127, 100, 64, 60, 20, 5, 0, -3, -100, -140])
    rng = np.random.default_rng(7)
    a = (rng.standard_normal((12, 5)) * rng.choice(scales, (12, 5))).astype(np.float32)
    a[0], a[1] = [2.0**127, 0.25, 0, 0, 0], [2.0**126, -(2.0**126), 0.75, 2.0**-140, -3.5]
    b = rng.choice([1, 2.0**-3, 3], (5, 4)).astype(np.float32)
    b[:, 0] = 1
    for rounding in ("ties_to_even", "toward_negative", "away_from_zero"):
        accumulator = Accumulator(
            format=name, overflow="wrap", product=product, group=2, group_sum=order, rounding=rounding
        )
        found, wanted = lowp.matmul(a, b, accumulator=accumulator), oracle(accumulator, a, b, "float32")
        np.testing.assert_array_equal(found, wanted)
