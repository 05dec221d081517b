"""The compiled paths for blocks and for many codes against the general ones, on ties, extremes and many scales."""

from typing import Any

import numpy as np
import pytest

import lowp
from lowp.formats.logarithms import is_logarithmic
from lowp.formats.tables import decode_codes
from lowp.rounding._blocks import quantize_blocks
from lowp.rounding._fast_blocks import try_fast
from lowp.rounding.modes import rounding
from lowp.rounding.request import make_request
from tests.rounding.vector_formats import cast

REQUEST = make_request("ties_to_even", "saturate", 0, None, 0, "keep", ("keep",))
POWER_OF_TWO = ["mxfp4", "mxfp8_e4m3", "mxfp8_e5m2", "mxfp6_e2m3", "mxfp6_e3m2", "mxint8", "int4_g32_pow2"]
FLOAT_SCALES = [
    "int8_row", "int8_tensor", "int4_g128", "int4_g128_asym", "int2_g64", "nf4_g64", "nvfp4", "nvfp4_torchao",
    "e4m3fn_g128", "ternary_g64", "ternary_g64_absmean", "binary_g64", "int4_g64_asym_e8m0", "e2m1_g16_e4m3fn",
    "fp16_g32", "nf4_g64_pow2", "uint4_g32", "int8_g32_ue5m3fn", "fixed8_4_g32",
]  # fmt: skip


def rows() -> np.ndarray:
    """Rows of 256: normal numbers at many scales, lattices whose blocks divide into exact ties, and extremes."""
    rng = np.random.default_rng(0)
    usual = rng.standard_normal((200, 256)) * np.exp2(rng.integers(-40, 40, (200, 1)))
    lattice = rng.integers(-28, 29, (200, 256)) / 4
    lattice[:, ::16] = np.array([7.0, -7.0, 6.0, 1.0])[rng.integers(0, 4, (200, 16))]
    small = rng.integers(-4, 5, (50, 256)) * 0.25 * np.exp2(rng.integers(-145, -120, (50, 1)))
    large = rng.standard_normal((50, 256)) * np.exp2(rng.integers(110, 126, (50, 1)))
    x = np.concatenate([usual, lattice, small, large]).astype(np.float32)
    x[0] = 0
    x[1, :64] = -0.0
    x[2, 3] = np.float32(1e-45)
    return x


def same(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two float32 arrays have the same bits."""
    return np.array_equal(a.view(np.uint32), b.view(np.uint32))


@pytest.mark.parametrize("name", POWER_OF_TWO + FLOAT_SCALES)
def test_blocks(name: str) -> None:
    fmt, x = lowp.parse(name), rows()
    assert isinstance(fmt, lowp.Block)
    recipes = ("floor", "ceil", "even", "rceil") if name in POWER_OF_TWO else (fmt.recipe,)
    for recipe in recipes:
        fast = try_fast(x, fmt.with_recipe(recipe), REQUEST, -1, None)
        assert fast is not None
        assert same(fast, quantize_blocks(x, fmt.with_recipe(recipe), REQUEST, -1, "float32")), recipe


@pytest.mark.parametrize("name", ["mxfp4", "nvfp4", "int4_g128_asym", "int8_row", "nf4_g64", "fp8_tile128"])
def test_blocks_along_other_axes(name: str) -> None:
    fmt = lowp.parse(name)
    assert isinstance(fmt, lowp.Block)
    x = np.ascontiguousarray(rows()[:256].reshape(2, 128, 256))
    for axis in (0, 1, -2, -3) if name != "fp8_tile128" else ((0, 1), (1, 2)):
        general = quantize_blocks(x, fmt, REQUEST, axis, "float32")
        assert same(lowp.quantize(x, fmt, axis=axis), general)
        out = np.empty_like(x)
        assert lowp.quantize(x, fmt, axis=axis, out=out) is out
        assert same(out, general)


@pytest.mark.parametrize("name", POWER_OF_TWO)
def test_blocks_that_hold_nan_or_infinity(name: str) -> None:
    fmt, x = lowp.parse(name), rows()
    assert isinstance(fmt, lowp.Block)
    x[::3, 5], x[1::3, 200] = np.nan, -np.inf
    fast = try_fast(x, fmt, REQUEST, -1, None)
    assert fast is not None
    assert np.array_equal(fast, quantize_blocks(x, fmt, REQUEST, -1, "float32"), equal_nan=True)


@pytest.mark.parametrize("name", [n for n in lowp.formats.names() if n not in lowp.formats.names("block")])
def test_decoding_many_codes(name: str) -> None:
    fmt = lowp.parse(name)
    assert isinstance(fmt, lowp.ScalarFormat)
    used = min(fmt.bits, 16)
    codes = np.random.default_rng(1).integers(0, 1 << used, 1 << 17).astype(lowp.encode([1.0], fmt).codes.dtype)
    values = decode_codes(codes, fmt)
    for dtype in (np.float32, np.float64):
        expected = cast(values, dtype)
        fits = (expected == values) | np.isnan(values)
        if isinstance(fmt, lowp.Codebook) or is_logarithmic(fmt):  # their values are rounded to the dtype
            fits = np.isfinite(expected) == np.isfinite(values)
        if not fits.all():
            with pytest.raises(lowp.RangeError, match=f"a value of {name!r} does not fit dtype float32"):
                lowp.decode(codes, fmt, dtype=dtype)
        for some in (codes[fits], codes[fits][:99]):
            got = lowp.decode(some, fmt, dtype=dtype)
            assert got.dtype == dtype
            wanted = expected[fits][: some.size]
            assert np.array_equal(got, wanted, equal_nan=True)
            assert np.array_equal(np.signbit(got), np.signbit(wanted))


@pytest.mark.parametrize(("name", "overflow", "mirrored"), [
    ("float8_e4m3fn", "saturate", True), ("float8_e5m2", "saturate", True), ("float8_e5m2", "infinity_or_nan", True),
    ("float8_e5m2", "propagate", False), ("float8_e4m3fn", "infinity_or_nan", False), ("bfloat16", "saturate", True),
    ("bfloat16", "infinity_or_nan", True), ("float8_e4m3fnuz", "saturate", False), ("int8", "saturate", False),
])  # fmt: skip
def test_which_formats_take_the_shorter_loop(name: str, overflow: str, mirrored: bool) -> None:
    from lowp.rounding import _fast_kernels as fast

    fmt: Any = lowp.parse(name)
    if fast.has_float32_exponents(fmt):
        assert fast.shift_plan(fmt, rounding("ties_to_even"), overflow)[7] == mirrored
    else:
        assert fast.fast_plan(fmt, rounding("ties_to_even"), overflow).integers[3] == mirrored
