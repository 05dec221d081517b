"""Block formats on arrays of every shape against the exact oracle, and what `Encoded` says and packs."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lowp
from lowp.formats import Block, Integer
from lowp.formats.packing import _pack_bits, _unpack_bits, pack, unpack
from lowp.formats.tables import code_dtype
from tests.rounding import blockwise
from tests.rounding.samples import SLOW, UNPACKED, taken
from tests.rounding.vector_formats import cast, same_numbers

few = settings(max_examples=60, deadline=None, derandomize=True, database=None)

BLOCKS = {
    "mxfp4": Block("float4_e2m1fn", 4),
    "mxfp4 ceil": Block("float4_e2m1fn", 4, recipe="ceil"),
    "mxfp4 even": Block("float4_e2m1fn", 4, recipe="even"),
    "mxfp4 rceil": Block("float4_e2m1fn", 4, recipe="rceil"),
    "mxfp8": Block("float8_e4m3fn", 8),
    "mxfp8 e5m2 rceil": Block("float8_e5m2", 5, recipe="rceil"),
    "mxfp6 even": Block("float6_e2m3fn", 4, recipe="even"),
    "elements below one": Block("e2m1b5f", 4),
    "elements far below one, ceil": Block("fixed8_11_sym", 4, recipe="ceil"),
    "mxint8": Block(lowp.Fixed(8, 6, symmetric=True), 4),
    "mxint8 even": Block(lowp.Fixed(8, 6, symmetric=True), 4, recipe="even"),
    "int4 fp32": Block("int4", 4, "float32"),
    "int4 fp16": Block("int4", 4, "float16"),
    "int3 pow2": Block("int3", 4, recipe="round"),
    "int8 row": Block("int8", "row", "float32"),
    "int8 tensor": Block("int8", "tensor", "float32"),
    "nf4": Block("nf4", 4, "float32"),
    "e2m1 with e4m3 scales": Block("float4_e2m1fn", 4, "float8_e4m3fn"),
    "e2m1 with ue5m3 scales": Block("float4_e2m1fn", 4, "float8_ue5m3fn"),
    "e2m1 with rceil e4m3 scales": Block("float4_e2m1fn", 4, "float8_e4m3fn", recipe="rceil"),
    "e4m3 in tiles": Block("float8_e4m3fn", (2, 3), "float32"),
    "mxfp4 in tiles": Block("float4_e2m1fn", (3, 2)),
    "uint4 asymmetric": Block("uint4", 4, "float16", zero_point=True),
    "int4 asymmetric": Block("int4", 4, "float32", zero_point=True),
    "symmetric int4 with zero point": Block("int4_sym", 4, "float16", zero_point=True),
    "int1 asymmetric": Block("int1", 4, "float16", zero_point=True),
    "uint12 asymmetric with e4m3 scales": Block("uint12", 4, "float8_e4m3fn", zero_point=True),
    "uint8 asymmetric in tiles": Block("uint8", (2, 2), "float32", zero_point=True),
    "uint2 asymmetric per row": Block("uint2", "row", "bfloat16", zero_point=True),
}


def numbers(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Blocks of all sizes: normal numbers times a power of two, lattice points and ties, zeros, extremes."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(shape) * np.exp2(rng.integers(-20, 20, (*shape[:-1], 1)))
    lattice = rng.integers(-28, 29, shape) / 4.0
    x = np.where(rng.random(shape) < 0.4, lattice, x)
    return np.where(rng.random(shape) < 0.1, rng.choice([0.0, -0.0, 1e-30, -3e-39, 2.0**-126], shape), x).astype(
        np.float32
    )


@pytest.mark.parametrize("name", BLOCKS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
def test_codes_scales_and_values_are_the_oracles(name: str, dtype: Any) -> None:
    fmt = BLOCKS[name]
    for seed, shape in enumerate([(6, 8), (5, 9), (3, 7), (1, 2), (2, 3, 6)]):
        x = numbers(shape, seed)
        check(cast(np.clip(x, -6e4, 6e4) if dtype == np.float16 else x, dtype), fmt)


@pytest.mark.parametrize("name", BLOCKS)
def test_blocks_run_along_any_axis(name: str) -> None:
    fmt, x = BLOCKS[name], numbers((3, 5, 4), 7)
    pair = isinstance(fmt.size, tuple)
    for axis in [(0, 1), (0, 2), (2, 0), (1, 2), (-1, 1)] if pair else [0, 1, 2, -3, -2]:
        check(x, fmt, axis)


@pytest.mark.parametrize(
    "name",
    ["mxfp4", "mxfp8", "int4 fp32", "uint4 asymmetric", "nf4", "elements below one", "elements far below one, ceil"],
)
def test_extreme_blocks(name: str) -> None:
    info = np.finfo(np.float32)
    ends = np.float32(
        [info.max, info.tiny, info.smallest_subnormal, 3 * info.smallest_subnormal, 1.5e-39, 2.0**126, 2.0**127]
    )
    ends = ends[:-1] if name == "mxfp4" else ends
    x = np.stack(
        [np.float32([e, -e / 2, 0, e / 8]) for e in ends] + [np.zeros(4, np.float32), -np.zeros(4, np.float32)]
    )
    check(x, BLOCKS[name])


@given(
    st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=9),
    st.sampled_from(sorted(BLOCKS)),
)
@few
def test_any_numbers(values: list[float], name: str) -> None:
    check(np.float32([values]), BLOCKS[name])


def check(x: np.ndarray, fmt: Block, axis: Any = -1) -> None:
    """Compare with the oracle: codes, scales, zero points, values, and decoded codes with values."""
    codes, scales = blockwise.encoded(x, fmt, axis)
    q = lowp.encode(x, fmt, axis=axis)
    where = f"{fmt.name} {x.dtype} axis={axis}\n{x}"
    assert q.codes.tolist() == codes.tolist(), where
    for place, (scale, zero) in scales.items():
        assert q.scales[place] == scale, where
        assert q.zero_points is None or q.zero_points[place] == zero % (1 << fmt.element.bits), where
    assert q.scales.size == len(scales)
    got = lowp.quantize(x, fmt, axis=axis)
    wanted = blockwise.quantized(x, fmt, axis)
    assert ((cast(got) == wanted) | np.isnan(wanted) & np.isnan(got)).all(), where
    decoded = lowp.decode(q)
    assert decoded.dtype == got.dtype == x.dtype
    assert same_numbers(cast(decoded), cast(got)).all(), where


@pytest.mark.parametrize("name", ["fp8_tile128", "nvfp4", "mxfp4"])
@pytest.mark.parametrize("shape", [(256, 384), (130, 129), (128, 16), (1, 1)])
def test_large_tiles_and_sixteen_by_sixteen(name: str, shape: tuple[int, int]) -> None:
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    tiles = {
        "fp8_tile128": lowp.parse(name),
        "nvfp4": Block("float4_e2m1fn", (16, 16), "float8_e4m3fn", "float32", recipe="nvfp4_te"),
        "mxfp4": Block("float4_e2m1fn", (16, 16)),
    }
    fmt = tiles[name]
    assert isinstance(fmt, Block)
    assert isinstance(fmt.size, tuple)
    q = lowp.encode(x, fmt)
    assert q.scales.shape == tuple(-(-n // s) for n, s in zip(shape, fmt.size, strict=True))
    got = lowp.quantize(x, fmt)
    assert np.array_equal(lowp.decode(q), got)
    for i in range(0, shape[0], fmt.size[0]):
        tile = x[i : i + fmt.size[0], : fmt.size[1]]
        if fmt.tensor_scale is None:
            assert np.array_equal(lowp.quantize(tile, fmt), got[i : i + fmt.size[0], : fmt.size[1]])
            code = q.scales[i // fmt.size[0], 0]
            assert code == lowp.encode(tile, Block(fmt.element, "tensor", fmt.scale, recipe=fmt.recipe)).scales.item()


class TestEveryRegisteredFormat:
    """Scalar and block formats; packed ones have tests of their own."""

    @pytest.mark.parametrize(
        ("name", "dtype"),
        [(name, np.float32) for name in UNPACKED] + [(n, d) for n in UNPACKED[::4] for d in (np.float16, np.float64)],
    )
    def test_decoding_the_codes_gives_the_quantized_values(self, name: str, dtype: Any) -> None:
        x = taken(numbers((1, 8) if name in SLOW else (4, 256), 3), name, dtype)
        for mode in ("ties_to_even", "toward_negative", "stochastic_a"):
            got, q = lowp.quantize(x, name, mode, seed=9), lowp.encode(x, name, mode, seed=9)
            assert got.dtype == x.dtype
            assert same_numbers(cast(lowp.decode(q)), cast(got)).all(), mode

    @pytest.mark.parametrize("name", UNPACKED)
    def test_bytes_unpack_to_what_was_packed(self, name: str) -> None:
        x = taken(np.random.default_rng(4).standard_normal((5, 3 if name in SLOW else 37)), name)
        q = lowp.encode(x, name)
        for data in (q.pack(), q.pack().tobytes()):
            back = lowp.Encoded.unpack(data, name, q.shape, q.axis, q.dtype)
            assert np.array_equal(back.codes, q.codes)
            assert np.array_equal(lowp.decode(back), lowp.decode(q), equal_nan=True)
            assert np.array_equal(back.pack(), q.pack())
        with pytest.raises(lowp.ArgumentError, match=f"data has {q.nbytes + 1} bytes; .* packs to {q.nbytes}"):
            lowp.Encoded.unpack(q.pack().tobytes() + b"0", name, q.shape, q.axis)

    @pytest.mark.parametrize("name", UNPACKED)
    def test_sizes_are_those_of_the_packed_bytes(self, name: str) -> None:
        fmt = lowp.parse(name)
        for shape in ((1, 1), (0, 8), (2, 0)) if name in SLOW else ((64, 64), (3, 37), (1, 1), (0, 8), (2, 0)):
            q = lowp.encode(np.ones(shape, np.float32), name)
            parts = q.parts()
            assert q.nbytes == sum(p.nbytes for p in parts.values()) == q.pack().nbytes
            assert all(p.dtype == np.uint8 for p in parts.values())
            assert np.array_equal(unpack(parts["codes"], fmt.bits, q.codes.size), q.codes.ravel())
            if isinstance(fmt, Block):
                assert np.array_equal(unpack(parts["scales"], fmt.scale.bits, q.scales.size), q.scales.ravel())
                assert ("tensor_scale" in parts) == (fmt.tensor_scale is not None)
            if q.codes.size:
                assert q.bits_per_value == 8 * q.nbytes / q.codes.size
            else:
                assert math.isnan(q.bits_per_value)
            assert f"{q.nbytes} bytes" in repr(q)

    @pytest.mark.parametrize("name", UNPACKED)
    def test_bits_per_value_of_whole_blocks_is_that_of_the_format(self, name: str) -> None:
        fmt = lowp.parse(name)
        q = lowp.encode(np.ones((1, 8) if name in SLOW else (128, 256), np.float32), name)
        extra = 32 if isinstance(fmt, Block) and fmt.tensor_scale else 0
        if isinstance(fmt, Block) and fmt.block_elements is None:
            extra = -(-fmt.block_bits * q.scales.size // 8) * 8
        assert q.nbytes * 8 == fmt.bits_per_value * q.codes.size + extra  # type: ignore[attr-defined]


def test_true_sizes_by_hand() -> None:
    x = np.ones((2, 64), np.float32)
    sizes = {"mxfp4": 64 + 4, "nvfp4": 64 + 8 + 4, "int4_g32_asym_fp16": 64 + 4 * 2 + 2, "int8_row": 128 + 8,
             "int3_g64": 48 + 8,
             "ternary": 32, "float6_e3m2fn": 96, "ggml_q4_1": 64 + 4 * 4, "tf32": 304}  # fmt: skip
    assert {name: lowp.encode(x, name).nbytes for name in sizes} == sizes


class TestEdges:
    @pytest.mark.parametrize("name", ["mxfp4", "int4_g32", "int8_row", "int8_tensor", "int4_g128_asym", "nf4_g64"])
    @pytest.mark.parametrize("shape", [(0,), (3, 0), (0, 5), (2, 0, 4)])
    def test_axes_of_length_zero(self, name: str, shape: tuple[int, ...]) -> None:
        for axis in range(-1, len(shape)):
            x = np.zeros(shape, np.float32)
            q = lowp.encode(x, name, axis=axis)
            assert lowp.quantize(x, name, axis=axis).shape == q.codes.shape == lowp.decode(q).shape == shape
            assert q.pack().size == q.nbytes

    def test_a_block_longer_than_the_axis_is_one_short_block(self) -> None:
        x = np.float32([[1, 2, 3]])
        q = lowp.encode(x, "mxfp4")
        assert q.scales.shape == (1, 1)
        assert lowp.decode(q).tolist() == [[1, 2, 3]]
        assert q.nbytes == 2 + 1

    def test_padding_is_never_seen_by_a_zero_point(self) -> None:
        q = lowp.encode(np.float32([[5, 6, 7, 9, 9]]), Block("uint4", 4, "float32", zero_point=True))
        assert q.codes[0, 4] == 15  # its block is 0 to 9: the padding is no number, zero always counts
        assert q.zero_points.tolist() == [[0, 0]]
        assert lowp.decode(q)[0, 4] == 9

    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    @pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
    def test_nonfinite_policies(self, bad: float, dtype: Any) -> None:
        x = np.array([[1, bad, 3, 4], [1, 2, 3, 4]], dtype)
        poisoned = lowp.quantize(x, Block("float4_e2m1fn", 4))
        assert np.isnan(poisoned[0]).all()
        assert poisoned[1].tolist() == [1, 2, 3, 4]
        q = lowp.encode(x, Block("float4_e2m1fn", 4))
        assert q.codes[0].tolist() == [0] * 4
        assert q.scales[0, 0] == 255
        alone = Block("float8_e4m3fn", 4, nonfinite="element")
        wanted = [1, math.nan if math.isnan(bad) else math.copysign(448 / 64, bad), 3, 4]
        assert same_numbers(cast(lowp.quantize(x, alone)[0]), np.array(wanted)).all()
        assert same_numbers(cast(lowp.decode(lowp.encode(x, alone))[0]), np.array(wanted)).all()
        with pytest.raises(lowp.RangeError, match=r"x holds NaN or infinity, which 'block\[.*\]' refuses"):
            lowp.quantize(x, Block("float4_e2m1fn", 4, nonfinite="error"))

    @pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
    def test_the_nan_policy_does_not_depend_on_the_dtype(self, dtype: Any) -> None:
        x = np.array([1, np.nan] * 16, dtype)
        outcomes = {}
        for policy in ("keep", "zero", "max", "error"):
            try:
                outcomes[policy] = np.isnan(lowp.quantize(x, "mxfp4", nan=policy)).all()
            except lowp.Error as error:
                outcomes[policy] = type(error).__name__
        assert outcomes == {"keep": True, "zero": False, "max": "ArgumentError", "error": "RangeError"}

    @pytest.mark.parametrize("name", ["mxfp4", "nvfp4", "nvfp4_torchao", "int4_g128_asym", "nf4_g64", "ggml_q4_0"])
    def test_a_nan_policy_that_was_asked_for_holds_in_blocks(self, name: str) -> None:
        x = np.array([np.nan, 1, 2, 3] * 32, np.float32)
        for verb in (lowp.quantize, lowp.encode):
            with pytest.raises(lowp.RangeError, match="x holds NaN, which nan='error' refuses"):
                verb(x, name, nan="error")
            with pytest.raises(lowp.ArgumentError, match="nan='max' needs a format with nonfinite='element'"):
                verb(x, name, nan="max")
        zeroed = np.where(np.isnan(x), np.float32(0), x)
        assert np.array_equal(lowp.quantize(x, name, nan="zero"), lowp.quantize(zeroed, name))

    def test_scales_that_do_not_fit_the_codes_are_refused(self) -> None:
        from dataclasses import replace

        q = lowp.encode(np.ones((2, 64), np.float32), "mxfp4")
        with pytest.raises(lowp.ArgumentError, match=r"scales have shape \(1, 2\).*need \(2, 2\)"):
            lowp.decode(replace(q, scales=q.scales[:1]))


class TestPacking:
    @pytest.mark.parametrize("bits", range(1, 54))
    def test_round_trip_of_every_width(self, bits: int) -> None:
        rng = np.random.default_rng(bits)
        for count in (0, 1, 2, 7, 8, 9, 64):
            codes = rng.integers(0, (1 << bits) - 1, count, dtype=np.uint64, endpoint=True)
            fmt = Integer(bits) if bits <= 32 else lowp.Fixed(bits, 0)
            small = codes.astype(lowp.encode([0], fmt).codes.dtype)
            for given_codes in (codes, small, small[::-1].copy()[::-1]):
                data = pack(given_codes, bits)
                assert data.dtype == np.uint8
                assert data.size == -(-count * bits // 8)
                assert data.tolist() == by_hand(codes.tolist(), bits)
                assert unpack(data, bits, count).tolist() == codes.tolist()
                assert unpack(data, bits, count).dtype == small.dtype

    @given(st.sampled_from([1, 2, 4, 8, 16, 32, 64]), st.integers(0, 40), st.integers(0, 2**32 - 1), st.booleans())
    @few
    def test_fast_widths_agree_with_the_general_path(self, bits: int, count: int, seed: int, wide: bool) -> None:
        rng = np.random.default_rng(seed)
        codes = rng.integers(0, (1 << bits) - 1, count, np.uint64, endpoint=True)
        codes = codes if wide else codes.astype(code_dtype(bits))
        data = pack(codes, bits)
        assert data.tolist() == _pack_bits(codes, bits).tolist() == by_hand(codes.tolist(), bits)
        longer = np.append(data, rng.integers(0, 256, 3, np.uint8))  # what follows is not looked at
        for got in (unpack(longer, bits, count), _unpack_bits(longer, bits, count)):
            assert got.dtype == code_dtype(bits)
            assert got.tolist() == codes.tolist()
        assert not np.shares_memory(data, codes)

    def test_codes_go_in_c_order(self) -> None:
        codes = np.asfortranarray(np.array([[1, 2, 3], [4, 5, 6]], np.uint8))
        assert pack(codes, 4).tolist() == [0x21, 0x43, 0x65]
        assert pack(codes.T, 8).tolist() == [1, 4, 2, 5, 3, 6]

    def test_too_few_bytes(self) -> None:
        with pytest.raises(lowp.ArgumentError, match=r"packed has 2 bytes; 6 codes of 3 bits need 3"):
            unpack(np.zeros(2, np.uint8), 3, 6)


def by_hand(codes: list[int], bits: int) -> list[int]:
    """The bytes of codes laid back to back in one large integer."""
    number = sum(code << (i * bits) for i, code in enumerate(codes))
    return list(number.to_bytes(-(-len(codes) * bits // 8), "little"))
