"""Scalar formats by additions in float64 against the algorithm on bits: every mode, on random bits and on ties."""

import numpy as np
import pytest

import lowp
from lowp.rounding._kernels import quantize_any_bits, quantize_bits
from lowp.rounding._stochastic_kernels import chunk_plan
from lowp.rounding.lowering import kernel_plan
from lowp.rounding.modes import ROUNDING_MODES, rounding

SERVED = [
    "float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e4m3", "float4_e2m1fn", "float6_e3m2fn", "bfloat16",
    "float16", "int8", "uint8", "int4", "fixed8_4",
]  # fmt: skip
INPUTS = {
    32: (np.float32, np.int32, 0x7F800000, 0x7FFFFFFF),
    64: (np.float64, np.int64, 0x7FF << 52, (1 << 63) - 1),
}


def numbers(width: int) -> np.ndarray:
    """Random bits, normal numbers at many scales, lattices around the quanta of small formats, and special values."""
    rng = np.random.default_rng(0)
    floats = INPUTS[width][0]
    bits = rng.integers(0, 1 << width, 8000, dtype=np.uint64).astype(f"uint{width}").view(floats)
    usual = rng.standard_normal(6000) * np.exp2(rng.integers(-20, 20, 6000))
    lattice = rng.integers(-4000, 4000, 8000) / 2.0 ** rng.integers(0, 40, 8000)
    special = [0.0, -0.0, np.inf, -np.inf, np.nan, np.finfo(floats).max, -np.finfo(floats).smallest_subnormal]
    return np.concatenate([bits, usual.astype(floats), lattice.astype(floats), np.array(special, floats)])


@pytest.mark.parametrize("width", [32, 64])
@pytest.mark.parametrize("name", SERVED)
def test_every_mode(name: str, width: int) -> None:
    fmt, x = lowp.parse(name), numbers(width)
    assert isinstance(fmt, lowp.Float | lowp.Integer | lowp.Fixed)
    _, integers, infinite, mask = INPUTS[width]
    source, start = x.view(integers), (1 << 32) - 10_000
    overflows = ("saturate", "infinity_or_nan", "propagate") if isinstance(fmt, lowp.Float) else ("saturate",)
    for mode in ROUNDING_MODES:
        for bits in (32, 31, 8, 1) if mode.startswith("stochastic") else (None,):
            for overflow in overflows:
                plan = kernel_plan(fmt, rounding(mode, bits), overflow, width)
                assert chunk_plan(plan) is not None
                got, wanted = np.empty_like(source), np.empty_like(source)
                quantize_bits(source, got, plan, infinite, mask, start, 5, (1 << 32) - 1)
                quantize_any_bits(source, wanted, plan, infinite, mask, start, 5, (1 << 32) - 1)
                at = np.flatnonzero(got != wanted)[:3]
                assert not at.size, (mode, bits, overflow, x[at], got[at].view(x.dtype), wanted[at].view(x.dtype))


@pytest.mark.parametrize("name", ["float8_e8m0fnu", "float8_e3m4", "float32", "int32"])
def test_what_is_not_served_takes_the_general_kernel(name: str) -> None:
    fmt, x = lowp.parse(name), numbers(64)
    assert isinstance(fmt, lowp.Float | lowp.Integer | lowp.Fixed)
    source = x.view(np.int64)
    plan = kernel_plan(fmt, rounding("stochastic_a"), "saturate", 64)
    got, wanted = np.empty_like(source), np.empty_like(source)
    quantize_bits(source, got, plan, *INPUTS[64][2:], 0, 5, 6)
    quantize_any_bits(source, wanted, plan, *INPUTS[64][2:], 0, 5, 6)
    assert np.array_equal(got, wanted)


def test_a_nan_keeps_its_payload_in_place() -> None:
    x = np.array([0x7F812345, -0x3EDCBB, 0x3F800001], np.int32)
    plan = kernel_plan(lowp.parse("float8_e5m2"), rounding("stochastic_b"), "saturate", 32)  # type: ignore[arg-type]
    before = x.copy()
    quantize_bits(x, x, plan, 0x7F800000, 0x7FFFFFFF, 0, 1, 2)
    assert np.array_equal(x[:2], before[:2])
    assert x[2] == 0x3F800000
