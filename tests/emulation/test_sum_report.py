"""What a trace says of sums, against the oracle, one output and one step at a time."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

import lowp
from lowp.emulation import exact_accumulators
from lowp.emulation.matmul import matmul, operand
from lowp.emulation.sum_report import traced
from lowp.formats.spec import to_float

E8M13 = lowp.Alignment(fraction_bits=13, zero_exponent=-133)
ACCUMULATORS = {
    "fma": {"format": "float16"},
    "rounded products": {"format": "bfloat16", "product": "bfloat16"},
    "exact groups": {"format": "float16", "group": 4},
    "rounded groups": {"format": "float16", "group": 4, "group_sum": "pairwise"},
    "sequential groups": {"format": "float8_e5m2", "group": 3, "group_sum": "sequential", "product": "float16"},
    "tree": {"format": "float16", "order": "pairwise"},
    "random": {"format": "float16", "order": "random", "seed": 5},
    "permuted": {"format": "float16", "order": (2, 0, 1), "rounding": "toward_zero"},
    "chunks": {"format": "float8_e5m2", "chunk": 4, "outer": lowp.Accumulator(format="float16")},
    "lanes": {"format": "float16", "lanes": 3, "lane_width": 2},
    "splits": {"format": "float16", "splits": 2, "split_tile": 2, "chunk": 3,
               "outer": lowp.Accumulator(format="float32")},
    "tree of chunks": {"format": "float16", "chunk": 3, "outer": lowp.Accumulator(format="float16", order="pairwise")},
    "aligned": {"format": "e8m13", "rounding": "toward_zero", "overflow": "infinity", "group": 4, "alignment": E8M13},
    "aligned chunks": {"format": "e8m13", "rounding": "toward_zero", "overflow": "infinity", "group": 4, "chunk": 8,
                       "alignment": E8M13, "outer": lowp.Accumulator(format="float32")},
    "kahan": {"format": "float16", "compensation": "kahan"},
    "neumaier": {"format": "float16", "compensation": "neumaier"},
    "two_sum": {"format": "float16", "compensation": "two_sum"},
    "saturating": {"format": "int8", "overflow": "saturate"},
    "wrapping": {"format": lowp.Fixed(8, 2), "overflow": "wrap"},
    "minifloat": {"format": "float8_e4m3fn", "overflow": "saturate"},
    "posit": {"format": "posit8_es2"},
    "stochastic": {"format": "bfloat16", "rounding": "stochastic_a", "seed": 3},
}  # fmt: skip


def numbers(rng, shape):
    x = rng.standard_normal(shape) * np.exp2(rng.integers(-4, 4, shape))
    x[rng.random(shape) < 0.1] = 0
    return np.asarray(lowp.quantize(x, "float8_e4m3fn"), np.float64)


def encoded(x):
    return lowp.encode(x, "float8_e4m3fn")


@pytest.mark.parametrize("name", ACCUMULATORS)
def test_results_are_those_without_a_trace_and_losses_add_up_to_the_error(name):
    accumulator = lowp.Accumulator(**ACCUMULATORS[name])
    rng = np.random.default_rng(1)
    for terms in (1, 10):
        a, b = numbers(rng, (2, terms)), numbers(rng, (terms, 3))
        result, report = matmul(encoded(a), encoded(b), accumulator=accumulator, trace=True)
        plain = matmul(encoded(a), encoded(b), accumulator=accumulator)
        assert result.dtype == plain.dtype
        assert result.tobytes() == plain.tobytes()
        for place in range(6):
            i, j = divmod(place, 3)
            exact = sum((Fraction(x) * Fraction(y) for x, y in zip(a[i], b[:, j], strict=True)), Fraction(0))
            wanted = to_float(
                exact_accumulators.dot(
                    accumulator,
                    a[i],
                    b[:, j],
                    a_format="float8_e4m3fn",
                    b_format="float8_e4m3fn",
                    position=place,
                    count=6,
                )
            )
            assert report.result[i, j] == wanted
            assert report.exact[i, j] == float(exact)
            assert report.error[i, j] == float(Fraction(wanted) - exact)
            losses = report.losses(place)
            assert losses.total == exact - Fraction(wanted)
            assert report.losses((i, j)) == losses
            steps = report.rows(place)
            assert len(steps) == report.steps
            assert all(0 <= loss.step < report.steps for loss in losses)


@pytest.mark.parametrize("name", ACCUMULATORS)
def test_steps_end_where_the_sum_does(name):
    """The result does not come from the steps: they must lead to it by themselves."""
    accumulator = lowp.Accumulator(**ACCUMULATORS[name])
    rng = np.random.default_rng(8)
    a, b = numbers(rng, (12, 37)), numbers(rng, (37, 11))
    result, report = matmul(encoded(a), encoded(b), accumulator=accumulator, trace=True)
    stepped = report._sum.trace(lambda step: None)
    assert np.array_equal(stepped[0], result, equal_nan=True)


@pytest.mark.parametrize("mode", ["ties_to_even", "ties_to_zero", "toward_zero", "away_from_zero", "toward_positive"])
@pytest.mark.parametrize(
    ("fmt", "start", "unit"),
    [("float8_e4m3fn", 448.0, 32.0), ("float8_e5m2", 57344.0, 8192.0), ("int8", 127.0, 1.0),
     (lowp.Fixed(6, 2), 7.75, 0.25),
     ("float32", lowp.parse("float32").max, 2.0**104), ("float16", 65504.0, 32.0)],
)  # fmt: skip
@pytest.mark.parametrize("sign", [1, -1])
def test_overflow_is_decided_after_rounding(fmt, start, unit, mode, sign):
    accumulator = lowp.Accumulator(format=fmt, overflow="saturate", rounding=mode)
    wide = (
        lowp.Float(9, lowp.parse(fmt).mantissa_bits) if isinstance(lowp.parse(fmt), lowp.Float) else lowp.Fixed(20, 2)
    )
    wide = lowp.Integer(20) if fmt == "int8" else wide
    for part in (1 / 16, 7 / 16, 0.5, 9 / 16, 15 / 16, 1.0, 1.5):
        _, report = matmul([[sign * part]], [[unit]], [[sign * start]], accumulator=accumulator, trace=True)
        rounded = lowp.exact.quantize(sign * (Fraction(start) + Fraction(part) * Fraction(unit)), wide, mode)
        beyond = not Fraction(lowp.parse(fmt).min) <= rounded <= Fraction(lowp.parse(fmt).max)
        assert (report.overflows.item(), report.overflow_step.item()) == ((1, 0) if beyond else (0, -1)), part


def straight(a, b, c, accumulator):
    """The steps of a chain of one output, by the oracle: states, and what each step added."""
    states, contributions = [Fraction(c)], []
    size = accumulator.group
    for first in range(0, len(a), size):
        x, y = a[first : first + size], b[first : first + size]
        states.append(exact_accumulators.dot(accumulator, x, y, states[-1]))
        contributions.append([Fraction(p) * Fraction(q) for p, q in zip(x, y, strict=True)])
    return states, contributions


def exponent(x):
    return int(np.frexp(float(abs(x)))[1])


@pytest.mark.parametrize("group", [1, 3])
@pytest.mark.parametrize("fmt", ["float16", "float8_e4m3fn", "float8_e5m2", "bfloat16"])
def test_counts_are_those_of_the_steps(fmt, group):
    rng = np.random.default_rng(2)
    accumulator = lowp.Accumulator(format=fmt, group=group, overflow="saturate")
    a, b = numbers(rng, (3, 24)), numbers(rng, (24, 3)) * 8
    c = np.asarray(lowp.quantize(rng.standard_normal((3, 3)), fmt), np.float64)
    _, report = matmul(a, b, c, accumulator=accumulator, trace=True)
    largest = Fraction(lowp.parse(fmt).max)
    wide = lowp.Float(9, lowp.parse(fmt).mantissa_bits)
    for i, j in np.ndindex(3, 3):
        states, contributions = straight(a[i], b[:, j], c[i, j], accumulator)
        swamped = cancelled = overflows = 0
        lost = []
        states = [Fraction(0) if x == "-0" else x for x in states]
        for before, terms, after in zip(states, contributions, states[1:], strict=False):
            total = before + sum(terms)
            lost.append(total - after)
            swamped += sum(t != 0 for t in terms) if after == before and sum(terms) else 0
            addends = [abs(x) for x in (before, *terms) if x]
            if addends and after:
                cancelled = max(cancelled, exponent(max(addends)) - exponent(after))
            elif addends and not total:
                cancelled = max(cancelled, lowp.parse(fmt).mantissa_bits + 1)
            overflows += abs(lowp.exact.quantize(total, wide)) > largest if total else 0
        assert report.swamped[i, j] == swamped
        assert report.cancelled_bits[i, j] == cancelled
        assert report.overflows[i, j] == overflows
        assert report.lost[i, j] == pytest.approx(float(sum(map(abs, lost))), rel=1e-14)
        worst = max(range(len(lost)), key=lambda s: (abs(lost[s]), -s))
        assert report.worst_loss[i, j] == float(lost[worst])
        assert report.worst_step[i, j] == (worst if lost[worst] else -1)


def test_terms_that_alignment_cuts_are_swamped_and_named():
    unit = lowp.matrix_unit("hopper/wgmma_m64n8k32/e4m3_e4m3/f32")
    a = np.zeros((1, 32))
    a[0, :4] = 16.0, 2.0**-9, 2.0**-9, 1.0
    b = np.ones((32, 1))
    b[0] = 16.0
    _, report = matmul(a, b, unit=unit, trace=True)
    assert report.swamped.item() == 2  # below 2^(8 - 13)
    assert [(loss.term, loss.why, loss.lost) for loss in report.losses(0)] == [
        (1, "alignment", Fraction(1, 512)),
        (2, "alignment", Fraction(1, 512)),
    ]
    assert report.error.item() == -(2.0**-8)


def test_scaled_blocks_and_batches():
    rng = np.random.default_rng(3)
    unit = "blackwell/tcgen05_m128n8k64_mxf4nvf4_block16/e2m1_e2m1_ue4m3/f32"
    unit = next(n for n in lowp.matrix_units() if "block16" in n) if unit not in lowp.matrix_units() else unit
    a = lowp.encode(rng.standard_normal((2, 3, 128)), lowp.Block("float4_e2m1fn", 16, "float8_e4m3fn"))
    b = lowp.encode(rng.standard_normal((2, 128, 2)), lowp.Block("float4_e2m1fn", 16, "float8_e4m3fn"), axis=-2)
    result, report = matmul(a, b, unit=unit, trace=True)
    assert result.tobytes() == matmul(a, b, unit=unit).tobytes()
    assert report.result.shape == (2, 3, 2)
    x, y = (np.asarray(lowp.decode(v), np.float64) for v in (a, b))
    assert np.array_equal(report.exact, x @ y)
    for place in np.ndindex(2, 3, 2):
        exact = sum(Fraction(p) * Fraction(q) for p, q in zip(x[place[:2]], y[place[0], :, place[2]], strict=True))
        assert report.losses(place).total == exact - Fraction(float(report.result[place]))


def test_overflow_and_nan_say_when():
    a = np.array([[200.0, 200.0, 200.0, -100.0], [1.0, np.inf, -np.inf, 1.0]])
    b = np.ones((4, 1))
    _, report = matmul(a, b, accumulator="float8_e4m3fn", trace=True)
    assert report.overflow_step[:, 0].tolist() == [2, -1]
    assert report.nan_step[:, 0].tolist() == [2, 1]  # a format without infinities
    _, report = matmul(a, b, accumulator="float8_e5m2", trace=True)
    assert report.nan_step[:, 0].tolist() == [-1, 2]
    _, report = matmul(a, b, accumulator=lowp.Accumulator(format="int8", overflow="wrap"), trace=True)
    assert report.overflow_step[0, 0] == 0
    text = str(matmul(a, b, accumulator="float8_e4m3fn", trace=True)[1])
    assert "1 overflowed, the first of them (0, 0) in step 2" in text
    assert "2 became NaN, the first of them (0, 0) in step 2" in text
    assert report.losses(0)[0].why == "overflow"


def test_addends_take_part_in_the_exact_sum():
    rng = np.random.default_rng(4)
    a, b, c = rng.standard_normal((70, 5)), rng.standard_normal((5, 4)), rng.standard_normal((70, 4)) * 2.0**60
    result, report = matmul(a, b, c, accumulator="float64", trace=True)
    for i, j in np.ndindex(70, 4):
        exact = Fraction(c[i, j]) + sum(Fraction(x) * Fraction(y) for x, y in zip(a[i], b[:, j], strict=True))
        assert report.exact[i, j] == float(exact)
        assert report.error[i, j] == float(Fraction(result[i, j]) - exact)


def test_errors_in_ulps_are_in_steps_at_the_exact_sum():
    _, report = matmul([[2.0**11, 1.0, 1.0, 1.0]], np.ones((4, 1)), accumulator="float16", trace=True)
    assert (report.error.item(), report.error_ulps.item()) == (-3.0, -1.5)
    _, report = matmul([[3.0, -3.0]], np.ones((2, 1)), accumulator="float16", trace=True)
    assert report.error_ulps.item() == 0
    assert report.cancelled_bits.item() == 11
    assert report.condition.item() == np.inf


def test_partial_sums_are_named():
    chunks = lowp.Accumulator(format="float16", chunk=2, splits=2, outer=lowp.Accumulator(format="float32"))
    _, report = matmul(np.ones((1, 8)), np.ones((8, 1)), accumulator=chunks, trace=True)
    names = [(place, what) for _, _, place, what in report.rows(0)]
    assert names[:4] == [
        ("split 0, chunk 0", "0"),
        ("split 0, chunk 0", "1"),
        ("split 0, chunk 1", "2"),
        ("split 0, chunk 1", "3"),
    ]
    assert names[4:6] == [("split 0", "split 0, chunk 0"), ("split 0", "split 0, chunk 1")]
    assert names[-2:] == [("", "split 0"), ("", "split 1")]


def test_compensated_sums_are_not_swamped():
    a = np.array([[1.0] + [2.0**-12] * 64])
    b = np.ones((65, 1))
    _, plain = matmul(a, b, accumulator="float16", trace=True)
    _, kahan = matmul(a, b, accumulator=lowp.Accumulator(format="float16", compensation="kahan"), trace=True)
    assert (plain.swamped.item(), kahan.swamped.item()) == (64, 0)
    assert kahan.error.item() == 0


def test_no_outputs_no_terms_and_wrong_places():
    _, report = matmul(np.ones((0, 3)), np.ones((3, 2)), accumulator="float16", trace=True)
    assert str(report) == "3 terms in 3 steps, 0 outputs in float16"
    result, report = matmul(np.ones((2, 0)), np.ones((0, 2)), accumulator="float16", trace=True)
    assert result.tolist() == [[0, 0], [0, 0]]
    assert report.steps == 0
    with pytest.raises(lowp.ArgumentError, match="output"):
        report.losses(4)
    with pytest.raises(lowp.ArgumentError, match="output"):
        report.losses((0, 1, 2))
    with pytest.raises(lowp.ArgumentTypeError, match="output"):
        report.losses("all")


def test_vectors_and_traced_itself():
    result, report = matmul([1.0, 2.0], [3.0, 4.0], accumulator="float16", trace=True)
    assert result == 11
    assert report.result.shape == (1, 1)
    again, _ = traced(
        lowp.Accumulator(format="float16"), operand([[1.0, 2.0]], "a", -1), operand([[3.0], [4.0]], "b", -2), None
    )
    assert again.tolist() == [[11.0]]


#: Beside the accumulators above: formats whose sums are made by their codes, and products in formats of their own.
BY_CODES = {
    "logarithms, directed": {"format": "lns16_f8", "rounding": "toward_zero", "group": 3, "group_sum": "sequential"},
    "logarithms in lanes": {"format": "lns8_f3", "rounding": "toward_positive", "order": "pairwise", "lanes": 3},
    "logarithms of products": {"format": "lns16_f8", "rounding": "to_odd", "group": 3, "group_sum": "sequential",
                               "product": "bfloat16"},
    "products of more bits": {"format": "float6_e2m3fn", "product": "posit8_es2", "group": 3, "group_sum": "pairwise"},
    "products of less range": {"format": "posit6_es1", "product": lowp.Float(3, 1, specials="finite"), "group": 2,
                               "group_sum": "sequential", "rounding": "ties_to_away", "overflow": "saturate"},
    "a codebook": {"format": "nf4", "rounding": "away_from_zero", "product": "float8_e5m2", "order": "pairwise"},
    "a codebook, compensated": {"format": "nf4", "rounding": "toward_zero", "compensation": "neumaier"},
    "powers of two": {"format": "float8_e8m0fnu", "rounding": "toward_positive"},
    "a posit beside a wider one": {"format": "posit8_es2", "chunk": 2, "outer": lowp.Accumulator(format="posit16_es1")},
}  # fmt: skip


@pytest.mark.parametrize("name", BY_CODES)
def test_sums_by_codes_are_the_oracles_and_their_steps_end_there(name):
    accumulator = lowp.Accumulator(**BY_CODES[name])
    rng = np.random.default_rng(11)
    for terms in (1, 7):
        a, b = np.abs(numbers(rng, (6, terms))) + 0.5, numbers(rng, (terms, 5))
        b = np.abs(b) + 0.5 if name == "powers of two" else b
        a, b = (np.asarray(lowp.quantize(x, "float8_e4m3fn"), np.float64) for x in (a, b))
        result, report = matmul(encoded(a), encoded(b), accumulator=accumulator, trace=True)
        stepped = report._sum.trace(lambda step: None)
        assert np.array_equal(stepped[0], result, equal_nan=True)
        for i, j in np.ndindex(6, 5):
            wanted = to_float(exact_accumulators.dot(accumulator, a[i], b[:, j]))
            # float64 comes within its last bit of logarithmic numbers
            assert report.result[i, j] == pytest.approx(wanted, rel=2e-15, abs=0)


@pytest.mark.parametrize("fmt", ["float4_e2m1fn", "mxfp4", "int4"])
def test_steps_of_narrow_operands_are_aligned(fmt):
    """E2M1 is also the format in which a stored number is multiplied by one; its own products are cut all the same."""
    rng = np.random.default_rng(12)
    how = lowp.Accumulator(format="float16", alignment=lowp.Alignment(fraction_bits=1), group=1)
    a, b = (
        lowp.encode(rng.standard_normal((4, 32)) * 3, fmt),
        lowp.encode(rng.standard_normal((32, 3)) * 3, fmt, axis=0),
    )
    result, report = matmul(a, b, accumulator=how, trace=True)
    assert np.array_equal(report._sum.trace(lambda step: None)[0], result)
    assert (report.lost > 0).all()
    for place in np.ndindex(4, 3):
        assert float(report.losses(place).total) == -report.error[place]


@pytest.mark.parametrize("fmt", [None, "bfloat16", "float8_e5m2", "int4"])
@pytest.mark.parametrize("addend", [False, True])
def test_tensor_scales_and_the_store_are_steps(fmt, addend):
    rng = np.random.default_rng(13)
    a = lowp.encode(rng.standard_normal((3, 64)) * 30, "nvfp4")
    b = lowp.encode(rng.standard_normal((64, 2)), "nvfp4", axis=0)
    assert a.tensor_scale != 1 != b.tensor_scale
    c = np.asarray(lowp.quantize(rng.standard_normal((3, 2)) * 1e4, "float32"), np.float64) if addend else None
    how = "float32" if addend else "bfloat16"
    result, report = matmul(a, b, c, accumulator=how, fmt=fmt, trace=True)
    assert result.tobytes() == matmul(a, b, c, accumulator=how, fmt=fmt).tobytes()
    assert np.array_equal(report.result, result)
    assert report.format.name == lowp.parse(fmt or how).name
    assert [row[1] for row in report.rows(0)][64:] == ["scaling", "store"][: 1 + (fmt is not None)]
    scale = Fraction(a.tensor_scale) * Fraction(b.tensor_scale)
    x, y = (np.asarray(lowp.decode(replace(v, tensor_scale=1.0)), np.float64) for v in (a, b))
    overflowed = 0
    for i, j in np.ndindex(3, 2):
        exact = sum(Fraction(p) * Fraction(q) for p, q in zip(x[i], y[:, j], strict=True))
        exact = scale * (exact + (Fraction(c[i, j]) if addend else 0))
        assert report.exact[i, j] == float(exact)
        assert report.error[i, j] == float(Fraction(float(result[i, j])) - exact)
        losses = report.losses((i, j))
        assert losses.total == exact - Fraction(float(result[i, j]))
        assert report.lost[i, j] == pytest.approx(float(sum(abs(loss.lost) for loss in losses)), rel=1e-12)
        overflowed += abs(exact) > 9
    if fmt == "int4":
        assert 0 < overflowed == (report.overflows > 0).sum()
        assert set(report.overflow_step[report.overflows > 0]) == {65}


def test_tensor_scales_of_any_number_are_exact():
    a = lowp.encode([[1.0, 3.0] * 8], "nvfp4")
    a = replace(a, tensor_scale=0.1)  # no float32 number
    _, report = matmul(a, np.full((16, 1), 1 / 3), [[1e30 / 3]], accumulator="float64", trace=True)
    x = np.asarray(lowp.decode(replace(a, tensor_scale=1.0)), np.float64)[0]
    exact = Fraction(0.1) * (sum(Fraction(v) for v in x) * Fraction(1 / 3) + Fraction(1e30 / 3))
    assert report.exact.item() == float(exact)
    assert report.error.item() == float(Fraction(report.result.item()) - exact)


def test_reports_of_tensors_have_their_scales_and_store():
    torch, jnp = pytest.importorskip("torch"), pytest.importorskip("jax.numpy")
    rng = np.random.default_rng(14)
    x, y = rng.standard_normal((2, 32)).astype(np.float32), rng.standard_normal((32, 2)).astype(np.float32)
    _, wanted = matmul(lowp.encode(x, "nvfp4"), lowp.encode(y, "nvfp4", axis=0), fmt="bfloat16", trace=True)
    for of in (torch.from_numpy, jnp.asarray):
        a, b = lowp.encode(of(x), "nvfp4"), lowp.encode(of(y), "nvfp4", axis=0)
        result, report = lowp.matmul(a, b, fmt="bfloat16", accumulator="float32", trace=True)
        assert np.array_equal(np.asarray(result), report.result)
        assert np.array_equal(report.exact, wanted.exact)
        assert report.format.name == "bfloat16"


def test_no_terms_leave_the_addend_as_it_is():
    chunks = lowp.Accumulator(format="posit8_es2", chunk=2, outer=lowp.Accumulator(format="float16"))
    c = np.array([[2.658203125, -1.0009765625]])
    result, report = matmul(np.zeros((1, 0)), np.zeros((0, 2)), c, accumulator=chunks, trace=True)
    assert np.array_equal(result, c)
    assert np.array_equal(report.result, c)
    a, b = lowp.encode(np.zeros((1, 0)), "mxfp4"), lowp.encode(np.zeros((0, 2)), "mxfp4", axis=0)
    assert np.array_equal(matmul(a, b, c, accumulator="float32", trace=True)[0], c)
