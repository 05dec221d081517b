"""Products by table lookup: every bit of the result and every operation that the model predicts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.hw_models.lut_oracle import exact_blocks, quantized_planes, rounded_planes

import lowp
from lowp import hw
from lowp._errors import ArgumentError
from lowp.formats.tables import decode_codes
from lowp.testing import assert_bits_equal

#: Tokens, outputs, terms; most terms are no multiple of a group or block.
SHAPES = [(1, 1, 1), (1, 3, 7), (2, 5, 64), (3, 4, 70), (1, 2, 129), (5, 3, 96)]
INTEGERS = ("int2", "int3", "int4", "int8", "uint4", "ternary", "binary", "bipolar2", "int4_sym", "bipolar4")
BLOCKS = ("int4_g32_fp16", "int2_g64", "int3_g32_asym_fp16", "int4_g48_asym", "mxint4", "ternary_g32", "int8_row")
#: Engines of integers, and weights that they take.
EXACT = {
    "tl1": ("ternary", "binary", "int2", "uint2"),
    "tl2": ("ternary", "binary"),
    "vec_lut_i1": ("ternary", "binary"),
    "vec_lut_i2": ("ternary", "binary", "int2", "uint2"),
    "deepgemm": ("ternary", "binary", "int2", "uint2", "int4"),
    "i2_s": ("ternary", "int2"),
    "dequantize": ("ternary", "int4", "int8", "pot4", "float4_e2m1fn", "dint4", "float6_e3m2fn"),
}


def planar(engine: str, **changes: Any) -> hw.LutEngine:
    """A bit-serial engine with exact tables."""
    return hw.lut_engine(engine, table="exact", **changes)


def numbers(seed: int, shape: tuple[int, int], fmt: str) -> np.ndarray[Any, Any]:
    rng = np.random.default_rng(seed)
    found = lowp.parse(fmt)
    top = found.max if isinstance(found, lowp.formats.ScalarFormat) and found.bits <= 8 else 0.0
    return rng.uniform(-1.2 * top, 1.2 * top, shape) if top > 1 else rng.normal(size=shape) * 1.5


def both(seed: int, shape: tuple[int, int, int], weights: str, activations: str) -> tuple[Any, Any]:
    m, n, k = shape
    return (
        lowp.encode(numbers(seed, (n, k), weights), weights, axis=-1),
        lowp.encode(numbers(seed + 1, (m, k), activations), activations, axis=-1),
    )


def as_predicted(run: hw.LutRun, shape: tuple[int, int, int], weights: str, activations: str) -> None:
    assert run.counts == hw.lut_gemm(*shape, weights, activations, run.engine).counts


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("weights", INTEGERS)
@pytest.mark.parametrize("mirror", [True, False])
@pytest.mark.parametrize("group", [1, 2, 4, 5])
def test_bit_planes_give_integer_products(shape, weights, mirror, group):
    w, a = both(group, shape, weights, "int8")
    run = hw.run_lut_gemm(w, a, planar("t_mac", mirror=mirror, group=group))
    expected = (lowp.decode(a) @ lowp.decode(w).T).astype(np.int64)
    assert run.result.dtype == np.int64
    np.testing.assert_array_equal(run.result, expected)
    as_predicted(run, shape, weights, "int8")


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("engine", "weights"), [(e, w) for e, listed in EXACT.items() for w in listed])
def test_engines_give_exact_products(shape, engine, weights):
    activations = "int2" if engine == "deepgemm" else "int8"
    w, a = both(3, shape, weights, activations)
    run = hw.run_lut_gemm(w, a, engine)
    np.testing.assert_array_equal(run.result, lowp.decode(a) @ lowp.decode(w).T)
    as_predicted(run, shape, weights, activations)


def spread(x: Any) -> tuple[Any, Any, int]:
    """Integers less zero points, scales, and the block's size."""
    k = x.shape[1]
    fmt = x.format
    if not isinstance(fmt, lowp.formats.Block):
        return decode_codes(x.codes, fmt), np.ones((x.shape[0], 1)), k
    block = fmt.size if isinstance(fmt.size, int) else k
    values = decode_codes(x.codes, fmt.element).astype(np.float64)
    if x.zero_points is not None:
        values = values - np.repeat(x.zero_points.astype(np.float64), block, axis=1)[:, :k]
    scales = np.broadcast_to(decode_codes(x.scales, fmt.scale), (x.shape[0], x.scales.shape[1]))
    return values, scales, block


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("weights", BLOCKS)
@pytest.mark.parametrize("activations", ["int8", "int8_g32_fp16", "int4_g48", "mxint8"])
@pytest.mark.parametrize("engine", ["planes", "dequantize"])
def test_scales_are_fused_into_float32_sums(shape, weights, activations, engine):
    w, a = both(11, shape, weights, activations)
    how = planar("lut_tensor_core") if engine == "planes" else hw.lut_engine(engine)
    run = hw.run_lut_gemm(w, a, how)
    (wv, ws, wb), (av, as_, ab) = spread(w), spread(a)
    assert_bits_equal(run.result, exact_blocks(wv, ws, wb, av, as_, ab).astype(np.float32))
    as_predicted(run, shape, weights, activations)


@pytest.mark.parametrize(
    ("weights", "engine"),
    [("int4_g32_fp16", "planes"), ("int2_g64", "planes"), ("ternary_g32", "tl1"), ("ternary_g32", "tl2"),
     ("ternary_g32", "vec_lut_i2"), ("mxfp4", "dequantize"), ("int4_g32_fp16", "dequantize")],
)  # fmt: skip
@pytest.mark.parametrize("shape", SHAPES)
def test_is_the_matmul_of_the_emulator(weights, engine, shape):
    w, a = both(21, shape, weights, "int8")
    how = planar("t_mac") if engine == "planes" else hw.lut_engine(engine)
    run = hw.run_lut_gemm(w, a, how)
    right = lowp.encode(numbers(21, (shape[1], shape[2]), weights).T, weights, axis=-2)
    group = lowp.parse(weights).size
    expected = lowp.matmul(a, right, accumulator=lowp.Accumulator(format="float32", group=group))
    assert_bits_equal(run.result, expected)


@pytest.mark.parametrize("shape", SHAPES)
def test_integers_are_the_matmul_of_the_emulator(shape):
    w, a = both(5, shape, "int4", "int8")
    run = hw.run_lut_gemm(w, a, planar("t_mac"))
    right = lowp.encode(lowp.decode(w).T, "int4")
    np.testing.assert_array_equal(run.result, lowp.matmul(a, right, accumulator="int32"))


def planes_of(x: Any, coded: bool = False) -> tuple[Any, Any, Any, int]:
    """Signs (outputs, planes, terms), scales, offsets, and the block's size, of integers reinterpreted in bits."""
    fmt, k = x.format, x.shape[1]
    block = fmt.size if isinstance(getattr(fmt, "size", None), int) else k
    element = fmt.element if isinstance(fmt, lowp.formats.Block) else fmt
    values = sorted(float(v) for v in set(lowp.values(element)) if np.isfinite(v))
    step, bits = values[1] - values[0], max(1, (len(values) - 1).bit_length())
    steps = ((decode_codes(x.codes, element) - values[0]) / step).astype(int)
    signs = np.stack([2 * (steps >> i & 1) - 1 for i in range(bits)], axis=1)
    scales = decode_codes(x.scales, fmt.scale) if isinstance(fmt, lowp.formats.Block) else np.ones((x.shape[0], 1))
    scales = np.broadcast_to(scales, (x.shape[0], scales.shape[1])).astype(np.float64) * step / 2
    zero = 0.0 if x.zero_points is None else x.zero_points.astype(np.float64)
    offsets = np.zeros_like(scales) + 2 * (zero - values[0]) / step + 1 - 2**bits
    return signs, scales, offsets, block


FLOAT_SHAPES = [(1, 2, 7), (2, 3, 70), (1, 2, 129)]


@pytest.mark.parametrize("shape", FLOAT_SHAPES)
@pytest.mark.parametrize("weights", ["int2", "int4_g32_asym_fp16", "ternary_g32", "binary", "int3_g64"])
@pytest.mark.parametrize("engine", ["lut_gemm", "biqgemm", "figlut", "conventional", "t_mac_float"])
def test_rounded_tables(shape, weights, engine):
    w, a = both(31, shape, weights, "float16")
    how = hw.lut_engine("t_mac", table="float32") if engine == "t_mac_float" else hw.lut_engine(engine)
    run = hw.run_lut_gemm(w, a, how)
    signs, scales, offsets, block = planes_of(w)
    dtype = {"float16": np.float16, "float32": np.float32}[how.table]
    x = lowp.decode(a).astype(np.float32)
    if how.plane_scales:
        per_plane = scales[:, :, None] * 2.0 ** np.arange(signs.shape[1])
        expected = rounded_planes(signs, per_plane, offsets * scales, x, how.group, block, dtype, True)
    else:
        expected = rounded_planes(signs, scales, offsets, x, how.group, block, dtype, False)
    assert_bits_equal(run.result, expected)
    as_predicted(run, shape, weights, "float16")


@pytest.mark.parametrize("shape", FLOAT_SHAPES)
@pytest.mark.parametrize("weights", ["int2", "int4_g32_asym_fp16", "ternary_g32", "int2_g128"])
@pytest.mark.parametrize("activations", ["float16", "float32", "int8_row"])
@pytest.mark.parametrize("engine", ["t_mac", "lut_tensor_core"])
def test_quantized_tables(shape, weights, activations, engine):
    w, a = both(41, shape, weights, activations)
    run = hw.run_lut_gemm(w, a, engine)
    signs, scales, offsets, block = planes_of(w)
    x = lowp.decode(lowp.encode(lowp.decode(a), "float32")).astype(np.float32)
    expected = quantized_planes(signs, scales, offsets, x, run.engine.group, block, run.engine.table_block)
    assert_bits_equal(run.result, expected)
    as_predicted(run, shape, weights, activations)


@pytest.mark.parametrize("engine", ["t_mac", "lut_tensor_core", "lut_gemm", "biqgemm", "figlut", "conventional"])
def test_every_bit_serial_engine_is_exact_with_exact_tables(engine):
    w, a = both(95, (2, 3, 70), "int3", "int8")
    run = hw.run_lut_gemm(w, a, planar(engine))
    np.testing.assert_array_equal(run.result, lowp.decode(a) @ lowp.decode(w).T)
    as_predicted(run, (2, 3, 70), "int3", "int8")


@pytest.mark.parametrize("shape", SHAPES)
def test_a_bit_plane_is_the_matmul_of_the_emulator(shape):
    """Entries added from first to last, and then one after the other, in float32."""
    w, a = both(51, shape, "binary", "float32")
    run = hw.run_lut_gemm(w, a, "lut_gemm")
    accumulator = lowp.Accumulator(format="float32", group=8, group_sum="sequential")
    expected = lowp.matmul(lowp.decode(a).astype(np.float32), lowp.decode(w).T.astype(np.float32),
                           accumulator=accumulator)  # fmt: skip
    assert_bits_equal(run.result, expected)


@pytest.mark.parametrize("weights", ["nf4", "nf4_g64", "af4", "mxfp4"])
def test_tables_of_codebook_products(weights):
    shape = (2, 3, 70)
    w, a = both(61, shape, weights, "float32")
    run = hw.run_lut_gemm(w, a, "codebook")
    values, scales, block = spread(w)
    x = lowp.decode(a).astype(np.float32)
    digits = values.astype(np.float32)[:, None, :]
    zero = np.zeros_like(scales)
    assert_bits_equal(run.result, rounded_planes(digits, scales, zero, x, 1, block, np.float32, False))
    as_predicted(run, shape, weights, "float32")


PACKED = ("bitnet_i2_s", "bitnet_tl1", "bitnet_tl2", "ggml_q1_0", "ggml_q2_0", "ggml_q4_0", "ggml_q5_0", "ggml_q8_0",
          "ggml_tq1_0", "ggml_tq2_0", "ggml_iq4_nl", "twn_g128")  # fmt: skip


@pytest.mark.parametrize("weights", PACKED)
def test_packed_weights(weights):
    """Integers of the packed codes, times the stored scale, whatever the layout."""
    rng = np.random.default_rng(7)
    w = lowp.encode(rng.normal(size=(3, 256)), weights)
    a = lowp.encode(rng.integers(-128, 128, (2, 256)), "int8")
    run = hw.run_lut_gemm(w, a, "dequantize")
    decoded, blocks = lowp.decode(w), lowp.parse(weights)
    block = 256 if weights.startswith("bitnet") else blocks.block_elements
    size = np.ones((3, 256 // block))
    expected = exact_blocks(decoded, size, block, lowp.decode(a), np.ones((2, 1)), 256)
    assert_bits_equal(run.result, expected.astype(np.float32))
    assert run.counts == hw.lut_gemm(2, 3, 256, weights, "int8", "dequantize").counts


@pytest.mark.parametrize("engine", ["lut_gemm", "biqgemm", "figlut"])
def test_binary_coding_has_a_scale_per_plane(engine):
    rng = np.random.default_rng(8)
    w = lowp.encode(rng.normal(size=(2, 200)), "hlq2_g128")
    a = rng.normal(size=(2, 200)).astype(np.float32)
    run = hw.run_lut_gemm(w, a, hw.lut_engine(engine, table="float32"))
    codes = w.fields["codes"].reshape(2, -1)[:, :200].astype(int)
    signs = np.stack([2 * (codes >> i & 1) - 1 for i in range(2)], axis=1)
    stored = decode_codes(w.fields["coefficients"], lowp.parse("float16")).astype(np.float64)
    scales = stored[..., :2] / 2
    offsets = -(stored[..., 2] + scales.sum(axis=-1))
    expected = rounded_planes(signs, scales, offsets, a, run.engine.group, 128, np.float32, True)
    assert_bits_equal(run.result, expected)
    assert run.counts == hw.lut_gemm(2, 2, 200, "hlq2_g128", "float32", run.engine).counts


def test_scales_of_tokens_and_tensors_come_last():
    w, a = both(71, (3, 4, 70), "nvfp4", "int8_row")
    w16 = lowp.encode(numbers(71, (4, 80), "nvfp4"), "nvfp4", axis=-1)
    a16 = lowp.encode(numbers(72, (3, 80), "int8_row"), "int8_row", axis=-1)
    run = hw.run_lut_gemm(w16, a16, "dequantize")
    values, scales, _ = spread(w16)
    inputs, tokens, _ = spread(a16)
    before = exact_blocks(values, scales, 16, inputs, np.ones((3, 1)), 80)
    factor = (tokens.astype(np.float32) * np.float32(w16.tensor_scale)).astype(np.float64)
    assert_bits_equal(run.result, (before * factor).astype(np.float32))
    assert run.counts.output_products == 12
    assert w.shape[1] == a.shape[1]


@settings(max_examples=60, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 4), st.integers(1, 5), st.integers(1, 90)),
    group=st.integers(1, 6),
    mirror=st.booleans(),
    weights=st.sampled_from(["int2", "int4_g32_fp16", "ternary", "ternary_g16", "int3_g24_asym", "binary", "uint3"]),
    activations=st.sampled_from(["int8", "int4", "int8_row", "int8_g16", "int8_g20_fp16"]),
    seed=st.integers(0, 1 << 16),
)
def test_any_group_and_shape(shape, group, mirror, weights, activations, seed):
    w, a = both(seed, shape, weights, activations)
    run = hw.run_lut_gemm(w, a, planar("t_mac", group=group, mirror=mirror))
    plain = hw.run_lut_gemm(w, a, "dequantize")
    assert_bits_equal(run.result, plain.result)
    as_predicted(run, shape, weights, activations)
    as_predicted(plain, shape, weights, activations)


def test_many_tokens_are_taken_in_turns(monkeypatch):
    from lowp.hw_models import lut_run

    w, a = both(81, (9, 4, 70), "int4_g32_fp16", "int8")
    whole = [hw.run_lut_gemm(w, a, e) for e in ("t_mac", "dequantize")]
    monkeypatch.setattr(lut_run, "_ENTRIES_AT_ONCE", 300)
    for run in whole:
        again = hw.run_lut_gemm(w, a, run.engine)
        assert_bits_equal(again.result, run.result)
        assert again.counts == run.counts


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("engine", ["planes", "dequantize"])
def test_sums_are_rounded_once(engine, sign):
    """2^24 + 1 + 2^-33: float64 does not hold it, and float32 would round what it holds down."""
    scale = 683 * 20857 * 2.0**-33
    assert 9 * 67 * int(scale * 2**33) == 2**33 + 1
    w = lowp.encode(np.array([[sign, sign * 9]]), "int8")
    scales = lowp.encode(np.array([[2.0**24, scale]]), "float32").codes
    coded = type(w)(w.codes, lowp.parse("int8_g1"), scales=scales, axis=-1)
    how = planar("t_mac") if engine == "planes" else hw.lut_engine(engine)
    run = hw.run_lut_gemm(coded, np.array([[1, 67]], np.int8), how)
    assert run.result[0, 0] == sign * (2**24 + 2)


def test_sums_beyond_the_tables_format_are_infinite():
    w = lowp.encode(np.ones((1, 8)), "binary")
    a = np.full((1, 8), 60000, np.float16)
    assert hw.run_lut_gemm(w, a, "figlut").result[0, 0] == np.inf
    assert hw.run_lut_gemm(w, a, "lut_gemm").result[0, 0] == 480000


def test_magnitudes_too_small_for_a_table_scale():
    w = lowp.encode(np.ones((1, 8)), "binary")
    x = np.full((1, 8), 1e-40, np.float32)
    signs, scales, offsets, block = planes_of(w)
    assert_bits_equal(hw.run_lut_gemm(w, x).result, quantized_planes(signs, scales, offsets, x, 4, block, 64))


def test_mirrored_tables_hold_half():
    w, a = both(91, (2, 3, 64), "int4", "int8")
    full, half = (hw.run_lut_gemm(w, a, planar("t_mac", mirror=m)) for m in (False, True))
    np.testing.assert_array_equal(full.result, half.result)
    assert full.counts.build_adds == 2 * half.counts.build_adds


@pytest.mark.parametrize(
    ("weights", "activations", "engine", "words"),
    [
        (np.ones((2, 8)), np.ones((1, 8), np.int8), "tl1", "weights of dtype float64"),
        (np.ones((2, 8), np.int8), np.ones((1, 9), np.int8), "dequantize", "different terms"),
        (np.ones((2, 8), np.int8), np.ones((1, 8), np.float32), "dequantize", "quantize them"),
        (np.ones((2, 8), np.int8), np.ones(8, np.int8), "dequantize", "shape"),
        (np.ones((2, 8), np.int8), np.full((1, 8), np.nan, np.float32), "t_mac", "NaN or infinity"),
        (np.ones((2, 8), np.int8), np.ones((1, 8), np.int8), "t-mca", "Did you mean"),
    ],
)
def test_wrong_arguments(weights, activations, engine, words):
    with pytest.raises(lowp.Error, match=words):
        hw.run_lut_gemm(weights, activations, engine)


@pytest.mark.parametrize(
    ("weights", "engine", "words"),
    [
        ("nf4", "t_mac", "evenly spaced"),
        ("nf4", "tl1", "power of two"),
        ("int4", "tl2", "symmetric"),
        ("float16", "t_mac", "at most 8"),
        ("hlq2_g128", "t_mac", "scale per bit plane"),
        ("hlq2_g128", "tl2", "no bit planes"),
        ("ggml_q4_k", "t_mac", "one scale per group"),
        ("int4", "i2_s", "do not fit the 2-bit indices"),
        ("int4", "vec_lut_i1", "too many"),
        ("int4", "tl1", "do not fit the 4-bit indices"),
    ],
)
def test_formats_that_an_engine_cannot_multiply(weights, engine, words):
    with pytest.raises(lowp.FormatError, match=words):
        hw.lut_gemm(1, 64, 64, weights, engine=engine)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("engine", ["t_mac", "lut_gemm", "tl1", "dequantize"])
def test_what_is_not_finite_is_refused_not_clipped(engine: str, value: float):
    activations = np.array([[value, 1]], np.float32)
    for fmt in (None, "float16", "int8_row"):
        with pytest.raises(ArgumentError, match="activations hold NaN or infinity"):
            hw.run_lut_gemm(np.array([[1, -1]]), activations, engine, weight_format="ternary", activation_format=fmt)


@pytest.mark.parametrize("engine", ["t_mac", "figlut", "codebook"])
def test_activations_beyond_float32_name_what_to_do(engine):
    a = np.full((1, 8), 1 / 3)
    with pytest.raises(ArgumentError, match="activation_format='float32'"):
        hw.run_lut_gemm(np.ones((2, 8)), a, engine, weight_format="int2", activation_format="float64")
    run = hw.run_lut_gemm(np.ones((2, 8)), a, engine, weight_format="int2", activation_format="float32")
    assert run.result.shape == (1, 2)
