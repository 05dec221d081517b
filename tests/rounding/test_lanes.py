"""Blocks in float32 lanes against the general path: every dtype, mode and layout, on ties and extremes."""

from __future__ import annotations

import tracemalloc
from fractions import Fraction
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import lowp
from lowp.rounding import _exact_steps
from lowp.rounding._arrays import to_odd_float32
from lowp.rounding._blocks import quantize_blocks
from lowp.rounding._fast_kernels import fast_plan
from lowp.rounding._tiles import prepared, quantize_short_tiled
from lowp.rounding.modes import ROUNDING_MODES, rounding
from tests.rounding.test_fast_blocks import FORMATS, alike, ends, numbers, request_for

DTYPES = {"float16": np.dtype(np.float16), "bfloat16": np.dtype(ml_dtypes.bfloat16)}
SERVED = [
    name for name, fmt in FORMATS.items() if (it := prepared(fmt, request_for(), (64, 96), -1, None)) and it.lanes
]


def short(dtype: str, x: np.ndarray) -> np.ndarray:
    """Round to a dtype; past its largest number to 1."""
    with np.errstate(over="ignore"):
        cast = x.astype(DTYPES[dtype])
    return np.where(np.isfinite(cast.astype(np.float32)), cast, DTYPES[dtype].type(1))


def assert_same(x: np.ndarray, fmt: lowp.Block, mode: str, bits: int | None, axis: Any) -> None:
    got = quantize_short_tiled(x.view(np.uint16), None, fmt, request_for(mode, bits), axis, x.dtype.name)
    assert got is not None
    with np.errstate(over="ignore"):
        wanted = quantize_blocks(x.astype(np.float32), fmt, request_for(mode, bits), axis, x.dtype.name).astype(x.dtype)
    value = got.view(x.dtype).astype(np.float32)
    differ = (got != wanted.view(np.uint16)) & ~(np.isnan(value) & np.isnan(wanted.astype(np.float32)))
    at = tuple(np.argwhere(differ)[0]) if differ.any() else ()
    assert not differ.any(), (differ.sum(), at, x[at], value[at], wanted[at])


def inputs(dtype: str, fmt: lowp.Block, shape: tuple[int, ...], seed: int) -> list[np.ndarray]:
    made = [alike(shape, seed), alike(shape, seed) * 2.0**-14, alike(shape, seed) * 2.0**-9]
    if not fmt.recipe.startswith("nvfp4"):  # their tensor scales overflow
        made += [numbers(shape, seed), ends(shape, seed)]
    return [short(dtype, x.astype(np.float32)) for x in made]


def test_most_formats_are_served() -> None:
    assert {"mxfp4", "mxint8", "nvfp4", "int8_row", "tile_e4m3", "tensor_e4m3", "e4m3_g24"} <= {*SERVED}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", SERVED)
def test_16_bits(name: str, dtype: str) -> None:
    fmt = FORMATS[name]
    for mode in ROUNDING_MODES:
        served = prepared(fmt, request_for(mode), (64, 96), -1, None)
        if served is None or served.lanes is None:
            continue
        for x in inputs(dtype, fmt, (64, 96), 3):
            for axis in (-1,) if isinstance(fmt.size, tuple) or fmt.size == "tensor" else (-1, 0):
                assert_same(x, fmt, mode, None, axis)


@pytest.mark.parametrize("name", SERVED)
def test_codes(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of every mode and layout, against the general path: codes, scales, the tensor's scale."""
    from lowp.rounding import _blocks

    fmt = FORMATS[name]
    for x in (alike((64, 96), 5), numbers((64, 96), 5), ends((64, 96), 5), np.zeros((64, 96), np.float32)):
        if fmt.recipe.startswith("nvfp4") and np.abs(x).max() > 1e6:
            continue  # its tensor scale overflows
        if name in ("mxfp4", "e4m3_g24", "tile_e4m3"):
            x[9, 3] = np.nan
        for mode in ("ties_to_even", "toward_zero", "toward_negative", "stochastic_a", "stochastic_c"):
            for axis in (-1,) if isinstance(fmt.size, tuple) or fmt.size == "tensor" else (-1, 0):
                got = lowp.encode(x, fmt, mode, axis=axis, seed=3)
                with monkeypatch.context() as patch:
                    patch.setattr(_blocks, "_QUICK_FROM", 1 << 62)
                    wanted = lowp.encode(x, fmt, mode, axis=axis, seed=3)
                assert got.codes.dtype == wanted.codes.dtype
                assert got.scales.dtype == wanted.scales.dtype
                assert np.array_equal(got.codes, wanted.codes)
                assert np.array_equal(got.scales, wanted.scales)
                assert (got.tensor_scale, got.axis) == (wanted.tensor_scale, wanted.axis)


@pytest.mark.parametrize("fmt", [lowp.Block("int8", 2100, "float32"), lowp.Block("int4", 3000)], ids=str)
@pytest.mark.parametrize("mode", ["ties_to_even", "stochastic_a"])
def test_codes_of_tiles_larger_than_a_piece(fmt: lowp.Block, mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Several tiles a row, each in pieces; scales far from 1, tiles of zeros and a NaN among them."""
    from lowp.rounding import _blocks

    x = alike((3, 6300), 8) * np.exp2(np.float32([[-100], [100], [0]]))
    x[0, 2050:4300], x[1, 6200], x[2, ::2100] = 0, np.nan, 1e30
    for axis in (-1, 0):
        got = lowp.encode(x, fmt, mode, axis=axis, seed=3)
        with monkeypatch.context() as patch:
            patch.setattr(_blocks, "_QUICK_FROM", 1 << 62)
            wanted = lowp.encode(x, fmt, mode, axis=axis, seed=3)
        assert np.array_equal(got.codes, wanted.codes)
        assert np.array_equal(got.scales, wanted.scales)
        quick = lowp.quantize(x, fmt, mode, axis=axis, seed=3)
        general = quantize_blocks(x, fmt, request_for(mode, seed=3), axis, "float32")
        nan = np.isnan(quick) & np.isnan(general)
        assert np.array_equal(np.where(nan, 0, quick).view(np.int32), np.where(nan, 0, general).view(np.int32))


@pytest.mark.parametrize("name", ["mxfp4", "mxint8", "e4m3_g24", "int8_row", "tile_e4m3"])
@pytest.mark.parametrize("mode", ["away_from_zero", "toward_positive", "to_odd", "stochastic_equal", "stochastic_a"])
def test_numbers_that_underflow_beside_large_ones(name: str, mode: str) -> None:
    """What is not 0 goes up, however small it is beside its scale."""
    rng = np.random.default_rng(13)
    x = (rng.integers(-9, 10, (64, 96)) * 2.0**-149).astype(np.float32)
    x[:, ::12] = np.ldexp(rng.standard_normal((64, 8)), rng.integers(20, 85, (64, 1)))
    fmt = FORMATS[name]
    for axis in (-1,) if isinstance(fmt.size, tuple) else (-1, 0):
        got = lowp.quantize(x, fmt, mode, axis=axis, seed=7)
        wanted = quantize_blocks(x, fmt, request_for(mode), axis, "float32")
        assert np.array_equal(got.view(np.int32), wanted.view(np.int32))


SMALL_SCALES = {
    "int4_g32_fp16": lowp.Block("int4", 32, "float16"),
    "int4_g8_e4m3": lowp.Block("int4", 8, "float8_e4m3fn"),
    "tile_e4m3_bf16": lowp.Block("float8_e4m3fn", (4, 32), "bfloat16"),
}


@pytest.mark.parametrize("name", ["mxfp4", "nvfp4", "int8_row", *SMALL_SCALES])
@pytest.mark.parametrize("mode", ["ties_to_even", "toward_negative", "stochastic_a", "stochastic_b"])
def test_tiles_of_zeros(name: str, mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Zeros of both signs among others, and numbers whose scale is 0."""
    from lowp.rounding import _blocks

    fmt = FORMATS.get(name) or SMALL_SCALES[name]
    x = alike((64, 1024), 12)
    x[:, 128:256], x[3], x[12:40, 700:704] = 0, -0.0, -0.0
    x[5:9, 256:400] *= np.float32(1e-8)
    for axis in (-1,) if isinstance(fmt.size, tuple) else (-1, 0):
        for dtype in ("float32", "float16"):
            given = x.astype(dtype)
            wanted = quantize_blocks(given.astype(np.float32), fmt, request_for(mode), axis, dtype).astype(dtype)
            got = lowp.quantize(given, fmt, mode, axis=axis, seed=7)
            assert np.array_equal(got.view(f"u{got.itemsize}"), wanted.view(f"u{got.itemsize}"))
        quick = lowp.encode(x, fmt, mode, axis=axis)
        with monkeypatch.context() as patch:
            patch.setattr(_blocks, "_QUICK_FROM", 1 << 62)
            general = lowp.encode(x, fmt, mode, axis=axis)
        assert np.array_equal(quick.codes, general.codes)
        assert np.array_equal(quick.scales, general.scales)


@pytest.mark.parametrize("name", ["mxfp4", "nvfp4", "int8_row", "int4_g128", "tile_e4m3", "e4m3_g24"])
@pytest.mark.parametrize("dtype", ["float32", *DTYPES])
def test_the_public_call(name: str, dtype: str) -> None:
    """With and without `out`, in place, from memory that is read-only, with a seed."""
    fmt = FORMATS.get(name) or lowp.parse(name)
    assert isinstance(fmt, lowp.Block)
    x = alike((64, 256), 6) if dtype == "float32" else short(dtype, alike((64, 256), 6))
    for mode, axis, seed in (("ties_to_even", -1, 0), ("toward_zero", -1, 0), ("stochastic_a", -1, 7)):
        wide = np.asarray(x, np.float32)
        general = quantize_blocks(wide, fmt, request_for(mode, seed=seed), axis, dtype).astype(x.dtype)
        bits = general.view(f"u{x.itemsize}")
        locked, out, same = x.copy(), np.empty_like(x), x.copy()
        locked.flags.writeable = False
        assert np.array_equal(lowp.quantize(locked, fmt, mode, axis=axis, seed=seed).view(bits.dtype), bits)
        assert lowp.quantize(x, fmt, mode, axis=axis, seed=seed, out=out) is out
        assert lowp.quantize(same, fmt, mode, axis=axis, seed=seed, out=same) is same
        assert np.array_equal(out.view(bits.dtype), bits)
        assert np.array_equal(same.view(bits.dtype), bits)


def test_a_scale_of_zero_clears_a_last_tile_that_is_short() -> None:
    from lowp.rounding._lane_kernels import clear_zeros

    numbers, f = np.ones(50, np.float32), np.ones((7, 4), np.float32)
    f[0, [0, 3]] = 0
    clear_zeros(numbers, f, 16)
    assert numbers.tolist() == [0.0] * 16 + [1.0] * 32 + [0.0] * 2


def hard_divisions() -> tuple[np.ndarray, np.ndarray]:
    """Divisors from 1 to 2, and numbers at and next to their products with short numbers and with neighbours of 1."""
    rng = np.random.default_rng(11)
    divisor = (1 + rng.integers(0, 1 << 23, 1 << 16) / 2**23).astype(np.float32)
    divisor[:64] = np.float32(1) + np.arange(64, dtype=np.float32) * np.float32(2.0**-23)
    divisor[64:128] = np.float32(2) - np.arange(1, 65, dtype=np.float32) * np.float32(2.0**-23)
    quotient = np.where(rng.integers(0, 2, divisor.size) == 0, rng.integers(1, 512, divisor.size) / 2, 1.0)
    x = (quotient * divisor.astype(np.float64)).astype(np.float32)
    x = (x.view(np.int32) + rng.integers(-2, 3, x.size, dtype=np.int32)).view(np.float32)
    return x * np.exp2(rng.integers(-60, 1, x.size)).astype(np.float32), divisor


def test_quotients_are_rounded_to_odd() -> None:
    from lowp.rounding._lane_kernels import prepare_quotients

    x, divisor = hard_divisions()
    f = np.ones((7, x.size), np.float32)
    f[1], f[4] = divisor, np.float32(1) / divisor
    for sign in (1, -1):
        got = np.empty_like(x)
        prepare_quotients(np.float32(sign) * x, got, f, 1, np.float32(2.0**20))
        wanted = to_odd_float32(_exact_steps.divide(sign * x.astype(np.float64), divisor.astype(np.float64)))
        assert np.array_equal(got.view(np.int32), wanted.view(np.int32))


@pytest.mark.parametrize("bits", [1, 8, 31, 32])
@pytest.mark.parametrize("element", ["int8", "float8_e4m3fn", "int4"])
def test_random_integers_at_the_very_edge(element: str, bits: int) -> None:
    """The least random integer that takes a quotient up, and the one before it; the bits below are of no concern."""
    from lowp.rounding._lane_random_kernels import quotients_by_carries, truncated_quotients

    fmt = lowp.parse(element)
    assert isinstance(fmt, lowp.Integer | lowp.Float)
    x, divisor = (part[::16] for part in hard_divisions())
    x = np.where(x > 0.01, x, x * np.float32(2.0**50))
    x = np.where((x < fmt.max) & (x > 2.0**-30), x, np.float32(1.3)).astype(np.float32)
    f = np.ones((7, x.size), np.float32)
    f[1], f[4] = divisor, np.float32(1) / divisor
    plan = fast_plan(fmt, rounding("stochastic_a"), "saturate")
    q, rests, got = np.empty_like(x), np.empty_like(x), np.empty_like(x)
    truncated_quotients(x, q, rests, f, 1, plan.floats[2])
    exact = [Fraction(float(a)) / Fraction(float(b)) for a, b in zip(x, divisor, strict=True)]
    low = [Fraction(lowp.exact.quantize(v, fmt, "toward_zero")) for v in exact]
    high = [Fraction(lowp.exact.quantize(v, fmt, "away_from_zero")) for v in exact]
    inside = np.array([a < v < b for a, v, b in zip(low, exact, high, strict=True)])
    whole = [int((v - a) / (b - a) * 2**bits) if a < b else 0 for a, v, b in zip(low, exact, high, strict=True)]
    for less in (0, 1):
        random = np.array([2**bits - w - less for w in whole], object)
        fits = inside & (random < 2**bits) & (random >= 0)
        words = np.array([int(r) << (32 - bits) if k else 0 for r, k in zip(random, fits, strict=True)], np.uint32)
        words |= np.uint32((1 << (32 - bits)) - 1)
        quotients_by_carries(q, rests, got, words, plan.integers, plan.floats, bits)
        wanted = np.array([float(a if less else b) for a, b in zip(low, high, strict=True)], np.float32)
        assert fits.sum() > 100
        assert np.array_equal(got[fits], wanted[fits])


@pytest.mark.parametrize("dtype", ["float32", *DTYPES])
@pytest.mark.parametrize(
    "name", ["mxfp4", "mxfp8_e4m3", "mxint8", "nvfp4", "int8_row", "int4_g128", "tile_e4m3", "tensor_e4m3"]
)
def test_memory(name: str, dtype: str) -> None:
    """The result, and no more than the threads' buffers; codes too."""
    fmt = FORMATS.get(name) or lowp.parse(name)
    x = np.random.default_rng(9).standard_normal((1 << 9, 1 << 12), dtype=np.float32)
    given = x if dtype == "float32" else x.astype(DTYPES[dtype])

    def peak(call: Any) -> int:
        call()
        tracemalloc.start()
        try:
            call()
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    out = np.empty_like(given)
    for mode in ("ties_to_even", "toward_zero", "stochastic_a"):
        for axis in (-1,) if isinstance(fmt.size, tuple) or fmt.size == "tensor" else (-1, 0):
            assert peak(lambda m=mode, a=axis: lowp.quantize(given, fmt, m, axis=a, seed=1, out=out)) < x.size // 4
            assert peak(lambda m=mode, a=axis: lowp.quantize(given, fmt, m, axis=a)) < given.nbytes + x.size // 4
    if dtype == "float32":
        encoded = lowp.encode(x, fmt)
        least = encoded.codes.nbytes + encoded.scales.nbytes
        assert peak(lambda: lowp.encode(x, fmt)) < least + x.size // 2


@pytest.mark.parametrize("size", [32, "row"])
@pytest.mark.parametrize("element", ["int4", "uint4"])
def test_scales_beyond_their_format_are_told(size: Any, element: str) -> None:
    """By every path: scales by rule, scales given, elements that lanes do not serve; in place nothing is lost."""
    fmt = lowp.Block(element, size, "float16")
    x = np.abs(alike((4, 3008), 14))
    x[2, 40] = 1e7
    with pytest.warns(Warning, match="needs a scale beyond"):
        wanted = quantize_blocks(x, fmt, request_for(), -1, "float32")
    for out in (None, x.copy()):
        with pytest.warns(Warning, match="needs a scale beyond"):
            got = lowp.quantize(x if out is None else out, fmt, out=out)
        assert np.array_equal(got.view(np.int32), wanted.view(np.int32))
    with pytest.warns(Warning, match="needs a scale beyond"):
        lowp.encode(x, fmt)
