"""Widths of accumulators, and proofs that none can overflow, against every input there is."""

from __future__ import annotations

import itertools
from fractions import Fraction
from functools import cache

import numpy as np
import pytest

import lowp
from lowp.emulation.accumulator_bounds import (
    CounterExample,
    Proof,
    Undecided,
    a2q_bound,
    a2q_plus_bound,
    a2q_plus_width,
    a2q_width,
    data_type_width,
    prove_no_overflow,
    safe_width,
)
from lowp.emulation.exact_accumulators import dot
from lowp.formats.spec import finite_values, to_float


class TestPublishedBounds:
    @pytest.mark.parametrize(
        ("bits", "inputs", "signed", "bound"),
        [(16, 8, False, 127.996), (16, 8, True, 255.992), (20, 8, False, 2047.996), (12, 4, False, 127.9375)],
    )
    def test_a2q(self, bits, inputs, signed, bound):
        assert float(a2q_bound(bits, inputs, signed=signed)) == pytest.approx(bound, abs=1e-3)

    @pytest.mark.parametrize(("bits", "inputs", "bound"), [(16, 8, 256.996), (20, 8, 4112.055), (12, 4, 272.933)])
    def test_a2q_plus(self, bits, inputs, bound):
        assert float(a2q_plus_bound(bits, inputs)) == pytest.approx(bound, abs=1e-3)

    @pytest.mark.parametrize("signed", [False, True])
    def test_widths_are_the_least_that_keep_the_bounds(self, signed):
        for norm in range(1, 600):
            p = a2q_width([norm], 5, signed=signed)
            assert a2q_bound(p, 5, signed=signed) >= norm
            assert a2q_bound(p - 1, 5, signed=signed) < norm
        for half in range(1, 300):
            p = a2q_plus_width([half, -half], 5)
            assert a2q_plus_bound(p, 5) >= 2 * half > a2q_plus_bound(p - 1, 5)

    @pytest.mark.parametrize("signed", [False, True])
    def test_no_order_overflows_a_width_that_keeps_the_bound(self, signed):
        rng = np.random.default_rng(3)
        inputs = lowp.Integer(4, signed=signed)
        for _ in range(50):
            weights = rng.integers(-30, 30, 6)
            centred = weights - np.append(np.zeros(5, int), weights.sum())
            for w, p in ((weights, a2q_width(weights, 4, signed=signed)), (centred, a2q_plus_width(centred, 4))):
                # A2Q+ speaks of the final sum of weights centred on zero, or of partial sums of one sign
                x = np.where(w > 0, inputs.max, inputs.min)
                fmt = lowp.Integer(p)
                for sign in (-1, 1):
                    part = sign * w > 0
                    for order in (np.arange(6), rng.permutation(6)):
                        partial = np.cumsum((x * w)[order] * part[order])
                        assert (partial <= fmt.max).all()
                        assert (partial >= fmt.min).all()

    def test_data_type_bound_is_the_formula(self):
        for k, n, m, signed in itertools.product((1, 5, 256, 1000), (4, 8), (4, 8), (False, True)):
            alpha = np.log2(k) + n + m - 1 - signed
            formula = int(np.ceil(alpha + np.log2(1 + 2.0**-alpha) + 1))
            assert data_type_width(k, n, m, signed=signed) == formula

    def test_weights_must_be_integers_and_centred(self):
        with pytest.raises(lowp.ArgumentError, match="integers"):
            a2q_width([0.5], 8)
        with pytest.raises(lowp.ArgumentError, match="sum to zero"):
            a2q_plus_width([1, 2], 8)


def brute_width(a, b, order):
    """Every partial sum, in units of the last bit that a product has."""
    outputs = [[[Fraction(x) * Fraction(y) for x, y in zip(r, c, strict=True)] for c in b.T] for r in a]
    products = [p for row in outputs for terms in row for p in terms if p]
    unit = min((Fraction(p.numerator & -p.numerator, p.denominator) for p in products), default=Fraction(1))
    sums = [Fraction(0)]
    for terms in itertools.chain.from_iterable(outputs):
        if order == "final":
            sums.append(sum(terms, Fraction(0)))
        elif order == "given":
            sums += itertools.accumulate(terms)
        else:
            sums += [sum((p for p in terms if p > 0), Fraction(0)), sum((p for p in terms if p < 0), Fraction(0))]
    low, high = min(sums) / unit, max(sums) / unit
    bits = 1
    while not (-(2 ** (bits - 1)) <= low and high <= 2 ** (bits - 1) - 1):
        bits += 1
    return bits


class TestSafeWidth:
    @pytest.mark.parametrize("order", ["any", "given", "final"])
    @pytest.mark.parametrize("fmt", ["int4", "float8_e4m3fn", "float8_e5m2", "float16", "posit8_es2", "float64"])
    def test_of_tensors_is_the_least_width(self, fmt, order):
        rng = np.random.default_rng(1)
        for trial in range(12):
            spread = 2.0 ** rng.integers(-6, 6, (3, 7)) if trial % 2 else 1.0
            a = np.asarray(lowp.quantize(rng.standard_normal((3, 7)) * 4 * spread, fmt), np.float64)
            b = np.asarray(lowp.quantize(rng.standard_normal((7, 2)) * 4, fmt), np.float64)
            width = safe_width(a, b, order=order)
            # the unit is that of the terms' last bits, below which no product has any
            found = brute_width(a, b, order)
            assert width.bits >= found
            products = [Fraction(x) * Fraction(y) for r in a for c in b.T for x, y in zip(r, c, strict=True)]
            assert all((p / Fraction(2) ** -width.fraction_bits).denominator == 1 for p in products)
            least = min(
                (Fraction(p.numerator & -p.numerator, p.denominator) for p in products if p), default=Fraction(1)
            )
            assert width.bits - found == int(least * Fraction(2) ** width.fraction_bits).bit_length() - 1

    def test_an_accumulator_of_that_width_is_exact_and_one_bit_less_is_not(self):
        rng = np.random.default_rng(2)
        a, b = rng.integers(-8, 8, (4, 16)), rng.integers(-8, 8, (16, 4))
        width = safe_width(a, b)
        exact = a @ b
        saturating = lowp.Accumulator(format=width.format, overflow="saturate")
        assert np.array_equal(lowp.matmul(a, b, accumulator=saturating), exact)
        final = safe_width(a, b, order="final")
        wrapping = lowp.Accumulator(format=final.format, overflow="wrap")
        assert np.array_equal(lowp.matmul(a, b, accumulator=wrapping), exact)
        narrower = lowp.Accumulator(format=lowp.Integer(final.bits - 1), overflow="wrap")
        assert not np.array_equal(lowp.matmul(a, b, accumulator=narrower), exact)

    @pytest.mark.parametrize(
        ("fmt", "unit", "largest"),
        [("float4_e2m1fn", -2, 36), ("float6_e3m2fn", -8, 784), ("float6_e2m3fn", -6, 56.25),
         ("float8_e4m3fn", -18, 448**2), ("float16", -48, 65504**2)],
    )  # fmt: skip
    def test_of_formats_is_that_of_their_largest_products(self, fmt, unit, largest):
        width = safe_width(fmt, fmt, terms=1)
        assert (-width.fraction_bits, float(width.largest)) == (unit, largest)
        assert width.bits == int(Fraction(largest) / Fraction(2) ** unit).bit_length() + 1

    @pytest.mark.parametrize(("fmt", "bits"), [("posit8_es2", 128), ("posit16_es2", 256), ("posit32_es2", 512)])
    def test_of_posits_is_the_quire(self, fmt, bits):
        assert safe_width(fmt, fmt, terms=2**31 - 1).bits == bits

    def test_of_a_block_format_covers_its_scales(self):
        inside = safe_width("float8_e4m3fn", "float8_e4m3fn", terms=32)
        whole = safe_width("mxfp8_e4m3", "mxfp8_e4m3", terms=32)
        assert whole.bits == inside.bits + 2 * 2 * 127 * 2 // 2
        assert whole.fraction_bits == inside.fraction_bits + 2 * 127

    def test_of_encoded_blocks_is_that_of_their_numbers(self):
        rng = np.random.default_rng(5)
        a, b = (
            lowp.encode(rng.standard_normal((2, 64)), "mxfp4"),
            lowp.encode(rng.standard_normal((64, 3)), "mxfp4", axis=0),
        )
        plain = np.asarray(lowp.decode(a), np.float64), np.asarray(lowp.decode(b), np.float64)
        assert safe_width(a, b) == safe_width(*plain)

    @pytest.mark.parametrize("order", ["any", "given", "final"])
    def test_of_weights_and_a_format_holds_for_every_input(self, order):
        rng = np.random.default_rng(6)
        values = [int(x) for x in finite_values(lowp.Integer(2))]
        for _ in range(10):
            weights = rng.integers(-5, 6, (3, 1))
            every = np.array(list(itertools.product(values, repeat=3)))
            assert safe_width("int2", weights, order=order).bits >= max(
                brute_width(row[None], weights, order) for row in every
            )
            assert safe_width("int2", weights, order=order).bits - 2 <= max(
                brute_width(row[None], weights, order) for row in every
            )

    def test_of_integers_counts_in_ones(self):
        even = np.array([90, -52, 30, -68])  # a register of integers has a last bit of weight one
        for weights in (even, even.tolist(), lowp.array(even, "int8"), lowp.encode(even, "int8")):
            width = safe_width(weights, "uint8")
            assert (width.bits, width.fraction_bits, width.format.name) == (16, 0, "int16")
            assert prove_no_overflow(lowp.Accumulator(format=width.format, overflow="saturate"), weights, "uint8")
            assert not prove_no_overflow(lowp.Accumulator(format="int15", overflow="saturate"), weights, "uint8")
        assert safe_width(even * 2, even, order="final").fraction_bits == 0
        assert safe_width(even.astype(float), "uint8").fraction_bits == -1

    def test_of_sums_beyond_float64(self):
        for largest in range(3):
            a = np.full((3, 1), 2.0**600)
            a[largest] = 2.0**603
            width = safe_width(a, [[2.0**600]])
            assert width.largest == 2**1203
            assert str(width).endswith("2^1203 and more")

    def test_wrong_arguments(self):
        with pytest.raises(lowp.ArgumentError, match="terms"):
            safe_width("int8", "int8")
        with pytest.raises(lowp.ArgumentError, match="terms"):
            safe_width([[1]], "int8", terms=3)
        with pytest.raises(lowp.ArgumentError, match="order"):
            safe_width([[1]], [[1]], order="all")
        with pytest.raises(lowp.ArgumentError, match="do not fit"):
            safe_width([[1, 2]], [[1]])
        with pytest.raises(lowp.ArgumentError, match="not finite"):
            safe_width([[np.inf]], [[1]])
        with pytest.raises(lowp.ArgumentError, match="irrational"):
            safe_width("lns8_f3", "lns8_f3", terms=2)


@cache
def rounded(exact, fmt, mode):
    found = lowp.exact.quantize(exact, fmt, mode)
    return Fraction(0) if found == "-0" else found


def overflows(accumulator, weights, values):
    """Whether some inputs overflow: all are tried, every stored sum rounded as if there were no end."""
    fmt = accumulator.format
    wide = lowp.Float(7, fmt.mantissa_bits) if isinstance(fmt, lowp.Float) else lowp.Integer(30)
    for x in itertools.product(values, repeat=len(weights)):
        products = [p * Fraction(int(w * 8), 8) for p, w in zip(x, weights, strict=True)]
        if accumulator.overflow == "wrap":
            if not fmt.min <= sum(products) <= fmt.max:
                return True
            continue
        total = Fraction(0)
        for i in range(0, len(products), accumulator.group):
            exact = total + sum(products[i : i + accumulator.group], Fraction(0))
            total = rounded(exact, wide, accumulator.rounding)
            if not fmt.min <= total <= fmt.max:
                return True
    return False


class TestProofs:
    @pytest.mark.parametrize("overflow", ["wrap", "saturate"])
    @pytest.mark.parametrize("group", [1, 2])
    @pytest.mark.parametrize("inputs", ["int2", "uint2"])
    def test_of_integers_is_exactly_right(self, overflow, group, inputs):
        accumulator = lowp.Accumulator(format=lowp.Integer(4), overflow=overflow, group=group)
        values = finite_values(lowp.parse(inputs))
        seen = set()
        for weights in itertools.product(range(-3, 4, 1), repeat=3):
            found = prove_no_overflow(accumulator, list(weights), inputs)
            assert bool(found) != overflows(accumulator, weights, values), (weights, found)
            self.check(accumulator, np.array(weights, float), found)
            seen.add(type(found))
        assert seen == {Proof, CounterExample}

    @pytest.mark.parametrize("rounding", ["ties_to_even", "toward_zero", "away_from_zero", "toward_positive"])
    @pytest.mark.parametrize("group", [1, 2])
    def test_of_minifloats_is_exactly_right(self, rounding, group):
        rng = np.random.default_rng(7)
        fmt = lowp.Float(3, 2, specials="finite")
        accumulator = lowp.Accumulator(format=fmt, overflow="saturate", rounding=rounding, group=group)
        values = finite_values(lowp.parse("float4_e2m1fn"))
        seen = set()
        for _ in range(16):
            weights = rng.integers(-12, 13, 3) / 4
            found = prove_no_overflow(accumulator, weights, "float4_e2m1fn")
            assert bool(found) != overflows(accumulator, weights, values), (weights, found)
            self.check(accumulator, weights, found)
            seen.add(type(found))
        assert seen == {Proof, CounterExample}

    @staticmethod
    def check(accumulator, weights, found):
        """A counterexample is one: lowp's own accumulator saturates, wraps or is infinite there."""
        if isinstance(found, CounterExample):
            x = np.asarray(lowp.decode(found.codes, "float64") if found.codes is None else found.inputs)
            result = dot(accumulator, x.tolist(), weights.tolist())
            assert to_float(result) == found.result
            _, report = lowp.matmul(x[None], weights[:, None], accumulator=accumulator, trace=True)
            assert report.overflow_step.item() == found.step
            if accumulator.overflow == "wrap":
                assert found.result != found.exact
        else:
            assert isinstance(found, Proof)
            assert accumulator.format.min <= found.least <= found.largest <= accumulator.format.max

    def test_codes_are_those_of_the_inputs(self):
        found = prove_no_overflow("float8_e4m3fn", [448.0, 1.0], "float8_e5m2")
        assert np.array_equal(np.asarray(lowp.decode(found.codes, "float8_e5m2")), found.inputs)

    def test_partial_sums_are_each_looked_at(self):
        chunks = lowp.Accumulator(format="int8", overflow="saturate", chunk=2, outer=lowp.Accumulator(format="int32"))
        assert prove_no_overflow(chunks, [30, 1, 30, 1], "uint2")
        assert not prove_no_overflow(chunks, [30, 13, 30, 1], "uint2")
        plain = lowp.Accumulator(format="int8", overflow="saturate")
        assert not prove_no_overflow(plain, [30, 1, 30, 1], "uint2")

    def test_additions_inside_a_group_are_looked_at(self):
        tree = lowp.Accumulator(format="int8", overflow="saturate", group=4, group_sum="pairwise")
        fused = lowp.Accumulator(format="int8", overflow="saturate", group=4)
        found = prove_no_overflow(tree, [70, 70, -70, -70], "uint1", input_range=(1, 1))
        assert isinstance(found, CounterExample)
        assert prove_no_overflow(fused, [70, 70, -70, -70], "uint1", input_range=(1, 1))

    def test_wrapping_fixed_point_with_rounded_terms(self):
        fixed = lowp.Accumulator(format=lowp.Fixed(6, 2), overflow="wrap")
        assert prove_no_overflow(fixed, [0.3, -0.7, 1.1], (-3.0, 3.0))
        found = prove_no_overflow(fixed, [0.3, -0.7, 2.1], (-3.0, 3.0))
        assert isinstance(found, CounterExample)
        assert abs(found.result - float(found.exact)) > 4

    def test_matrix_units_have_a_bound(self):
        hopper = lowp.matrix_unit("hopper/wgmma_m64n8k32/e4m3_e4m3/f32").accumulator
        weights = np.random.default_rng(0).integers(-8, 9, (64, 4)).astype(float)
        assert isinstance(prove_no_overflow(hopper, lowp.encode(weights, "float8_e4m3fn"), "float8_e4m3fn"), Proof)
        half = lowp.matrix_unit("hopper/wgmma_m64n8k32/e4m3_e4m3/f16").accumulator
        assert isinstance(prove_no_overflow(half, weights * 32, "float8_e4m3fn"), CounterExample)

    def test_what_cannot_be_decided_says_so(self):
        kahan = lowp.Accumulator(format="float8_e4m3fn", overflow="saturate", compensation="kahan")
        assert isinstance(prove_no_overflow(kahan, [1.0, 1.0], "float4_e2m1fn"), Undecided)
        random = lowp.Accumulator(format="float8_e4m3fn", overflow="saturate", rounding="stochastic_a")
        assert isinstance(prove_no_overflow(random, [1.0, 1.0], "float4_e2m1fn"), Proof)
        assert isinstance(prove_no_overflow(random, [70.0, 4.5], "float4_e2m1fn"), Undecided | CounterExample)

    def test_wrong_arguments(self):
        with pytest.raises(lowp.ArgumentError, match="input_range"):
            prove_no_overflow("int8", [1], "uint2", input_range=(0.2, 0.8))
        with pytest.raises(lowp.ArgumentTypeError, match="inputs"):
            prove_no_overflow("int8", [1], 7)
        with pytest.raises(lowp.ArgumentError, match="finite"):
            prove_no_overflow("int8", [1], (0, np.inf))

    def test_a_counterexample_of_random_roundings_overflows_by_itself(self):
        rng = np.random.default_rng(0)
        for seed in range(40):
            accumulator = lowp.Accumulator(format="float8_e4m3fn", rounding="stochastic_a", seed=seed)
            weights = np.asarray(lowp.quantize(rng.uniform(0, 75, (3, 5)), "float8_e4m3fn"), np.float64)
            found = prove_no_overflow(accumulator, weights, "float4_e2m1fn")
            if isinstance(found, CounterExample):
                column = weights[:, found.output, None]
                result, report = lowp.matmul(found.inputs[None], column, accumulator=accumulator, trace=True)
                assert report.overflow_step.item() == found.step, seed
                assert np.array_equal(result.item(), found.result, equal_nan=True)

    def test_of_narrow_inputs_runs_the_alignment(self):
        fields = {"format": lowp.Fixed(6, 2), "rounding": "toward_negative", "overflow": "wrap"}
        accumulator = lowp.Accumulator(**fields, alignment=lowp.Alignment(fraction_bits=1))
        found = prove_no_overflow(accumulator, [2.25, 1.0], "float4_e2m1fn")
        assert isinstance(found, CounterExample)
        inputs = lowp.encode(found.inputs[None], "float4_e2m1fn")
        weights = np.array([[2.25], [1.0]], np.float32)
        assert lowp.matmul(inputs, weights, accumulator=accumulator).item() == found.result == 2.0

    def test_sums_that_become_infinite_after_wrapping_ones(self):
        outer = lowp.Accumulator(format=lowp.Float(3, 2))
        found = prove_no_overflow(
            lowp.Accumulator(format="int8", overflow="wrap", chunk=2, outer=outer), [10, 7, 10, 7], "uint1"
        )
        assert isinstance(found, CounterExample)
        assert found.result == np.inf
        assert "wrapped" not in found.why


def test_units_stand_for_their_accumulators():
    name = "hopper/wgmma_m64n8k32/e4m3_e4m3/f32"
    unit, weights = lowp.matrix_unit(name), lowp.array(np.linspace(-400.0, 400.0, 64), "fp8")
    want = prove_no_overflow(unit.accumulator, weights, "fp8")
    assert isinstance(want, Proof)
    assert prove_no_overflow(name, weights, "fp8") == prove_no_overflow(unit, weights, "fp8") == want
    with pytest.raises(lowp.ArgumentError, match="unit='hopper/none'"):
        prove_no_overflow("hopper/none", weights, "fp8")
