"""Blocks of 16-bit floats: products of elements and scales rounded once, by the quick paths as by the general one."""

from typing import Any

import ml_dtypes
import numpy as np
import pytest

import lowp
from lowp.formats.block import ADAPTIVE_RECIPES
from lowp.rounding import _narrow
from lowp.rounding._blocks import quantize_blocks
from lowp.rounding._fast_blocks import try_fast
from tests.rounding.blockwise import quantized
from tests.rounding.test_fast_blocks import FORMATS, alike, numbers, request_for

DTYPES = {"float16": np.dtype(np.float16), "bfloat16": np.dtype(ml_dtypes.bfloat16)}
OTHERS = {
    n: lowp.parse(n)
    for n in ("nf4_g64", "int4_g128_asym", "int4_g128", "ternary_g64", "binary_g64", "nf4_g64_pow2", "fixed8_4_g32")
}


def short_numbers(dtype: str, shape: tuple[int, ...], seed: int) -> list[np.ndarray]:
    """Numbers of a 16-bit dtype at many scales, near its ends too, as float32."""
    rng = np.random.default_rng(seed)
    usual = rng.standard_normal(shape) * np.exp2(rng.integers(-24, 15, (*shape[:-1], 1)))
    made = [alike(shape, seed), usual, numbers(shape, seed) if dtype == "bfloat16" else usual * 2.0**-9]
    with np.errstate(over="ignore"):
        cast = [x.astype(np.float32).astype(DTYPES[dtype]).astype(np.float32) for x in made]
    return [np.where(np.isfinite(x), x, np.float32(1)) for x in cast]


def assert_same_short(x: np.ndarray, fmt: lowp.Block, mode: str, axis: Any, dtype: str) -> None:
    got = try_fast(x, fmt, request_for(mode), axis, None, dtype=dtype)
    assert got is not None
    assert got.dtype == np.float32
    wanted = quantize_blocks(x, fmt, request_for(mode), axis, dtype).astype(np.float32)
    differ = (got.view(np.int32) != wanted.view(np.int32)) & ~(np.isnan(got) & np.isnan(wanted))
    at = tuple(np.argwhere(differ)[0]) if differ.any() else ()
    assert not differ.any(), (differ.sum(), at, x[at], got[at], wanted[at])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", [*FORMATS, *OTHERS])
def test_the_general_path_agrees(name: str, dtype: str) -> None:
    fmt = {**FORMATS, **OTHERS}[name]
    random = name not in OTHERS and fmt.recipe not in ADAPTIVE_RECIPES
    for seed, x in enumerate(short_numbers(dtype, (128, 256), 3)):
        if fmt.recipe.startswith(("nvfp4", "fouroversix")) and seed == 2:
            continue  # their tensor scales overflow
        for mode in ("ties_to_even", "stochastic_a") if random else ("ties_to_even",):
            for axis in (-1,) if isinstance(fmt.size, tuple) or fmt.size == "tensor" else (-1, 0):
                assert_same_short(x, fmt, mode, axis, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["mxfp4", "mxfp8_e4m3", "e4m3_g24", "tile_e4m3", "int8_row"])
def test_the_oracle_agrees(name: str, dtype: str) -> None:
    """One rounding of the exact value, which float32 may not hold."""
    fmt = FORMATS[name]
    for x in short_numbers(dtype, (16, 96), 5):
        wanted = quantized(x.astype(DTYPES[dtype]), fmt, -1)
        got = try_fast(x, fmt, request_for(), -1, None, dtype=dtype)
        assert got is not None
        assert np.array_equal(got.astype(np.float64).view(np.int64), wanted.view(np.int64))


@pytest.mark.parametrize("dtype", DTYPES)
def test_arrays_and_tensors_of_16_bits(dtype: str) -> None:
    torch = pytest.importorskip("torch")
    x = short_numbers(dtype, (24, 256), 7)[1]
    x[3, 5], x[4, 70] = np.nan, np.inf
    tensor = torch.from_numpy(x).to(getattr(torch, dtype))
    for name in ("mxfp4", "mxfp8_e5m2", "nvfp4", "int8_row", "int4_g128", "nf4_g64", "int4_g128_asym"):
        fmt = lowp.parse(name)
        assert isinstance(fmt, lowp.Block)
        wanted = quantize_blocks(x, fmt, request_for(), -1, dtype).astype(np.float32)
        got = lowp.quantize(x.astype(DTYPES[dtype]), name)
        assert got.dtype == DTYPES[dtype]
        assert np.array_equal(got.astype(np.float32), wanted, equal_nan=True)
        short = lowp.quantize(tensor, name)
        assert short.dtype == tensor.dtype
        assert np.array_equal(short.to(torch.float32).numpy(), wanted, equal_nan=True)


def test_products_past_the_largest_number_of_a_dtype_are_infinite() -> None:
    x = np.full((1, 64), 65504, np.float32)
    x[0, 32:] = -6.1e4
    for name in ("mxfp4", "mxfp8_e4m3", "tile_1x24"):
        fmt = FORMATS[name] if name != "tile_1x24" else lowp.Block("int4", 32, "bfloat16")
        got = try_fast(x, fmt, request_for(), -1, None, dtype="float16")
        assert got is not None
        assert np.array_equal(got, quantize_blocks(x, fmt, request_for(), -1, "float16").astype(np.float32))
    ceil = lowp.Block("float4_e2m1fn", 32, recipe="ceil")  # both become four times 2^14
    assert np.array_equal(lowp.quantize(x.astype(np.float16), ceil), np.copysign(np.float16(np.inf), x))


@pytest.mark.parametrize("through_float32", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
def test_narrowing_rounds_once(dtype: str, through_float32: bool) -> None:
    """Every neighbourhood of a tie between two values, the subnormal ones and the largest too."""
    from lowp.rounding._tile_kernels import narrow_chunk

    bits = np.arange(0, 0x10000, dtype=np.uint32).astype(np.uint16)
    values = bits.view(DTYPES[dtype])[: 0x7C00 if dtype == "float16" else 0x7F80].astype(np.float64)
    middle = (values[:-1] + values[1:]) / 2
    largest = values[-1] + (values[-1] - values[-2]) / 2
    v = np.concatenate([values, middle, [largest, 2.0**129, np.inf]])
    v = np.concatenate([v, np.nextafter(v, np.inf), np.nextafter(v, 0)])
    v = np.concatenate([v, -v, [np.nan]])
    got = v.copy()
    narrow_chunk(got, _narrow._numbers(dtype, through_float32))
    with np.errstate(over="ignore"):
        source = v.astype(np.float32).astype(np.float64) if through_float32 else v
    wanted = lowp.quantize(source, dtype, overflow="infinity_or_nan")
    same = (got.view(np.int64) == wanted.view(np.int64)) | (np.isnan(got) & np.isnan(wanted))
    assert same.all(), (v[~same][:3], got[~same][:3], wanted[~same][:3])
