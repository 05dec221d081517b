"""Stochastic kernels at the random words where a number just goes up, or just does not, against the exact oracle."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest

import lowp
from lowp.rounding import _fast_kernels as fast
from lowp.rounding._fast_stochastic_kernels import _round_bits_randomly, _round_randomly
from lowp.rounding._lane_random_kernels import rounded_by_carries
from lowp.rounding._stochastic_kernels import chunk_plan, round_chunk
from lowp.rounding.lowering import kernel_plan
from lowp.rounding.modes import rounding

MODES = ["stochastic_a", "stochastic_b", "stochastic_c", "stochastic_equal"]


def cases(fmt: Any, bits: int, wide: bool) -> tuple[np.ndarray, np.ndarray]:
    """Numbers whose fraction ends at, one below and one past the last bit that N random ones see, and words."""
    rng = np.random.default_rng(bits)
    kept = (52 if wide else 23) - fmt.mantissa_bits
    x, words = [], []
    for negative in (False, True):
        for _ in range(5):
            low = 1 + int(rng.integers(1 << fmt.mantissa_bits)) / 2**fmt.mantissa_bits
            for tail in {0, 1, 1 << max(kept - bits, 0), 3 << max(kept - bits - 1, 0), 1 << max(kept - bits - 1, 0)}:
                fraction = (int(rng.integers(1 << kept)) >> max(kept - bits, 0) << max(kept - bits, 0)) + tail
                nu = Fraction(fraction % (1 << kept), 1 << kept)
                u = int(nu * 2**bits)
                for r in {2**bits - u - 2, 2**bits - u - 1, 2**bits - u, 0, 2**bits - 1, 2 ** (bits - 1)}:
                    if 0 <= r < 2**bits:
                        rest = (1 << (32 - bits)) - 1
                        x += [(-1.0 if negative else 1.0) * (low + float(nu) / 2**fmt.mantissa_bits)] * 2
                        words += [r << (32 - bits), r << (32 - bits) | rest]
    return np.array(x, np.float64 if wide else np.float32), np.array(words, np.uint32)


@pytest.mark.parametrize("bits", [1, 2, 8, 19, 31, 32])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("name", "kernel"), [("float8_e4m3fn", "lanes"), ("bfloat16", "bits"), ("e5m7", "wide")])
def test_words_at_the_very_edge(name: str, kernel: str, mode: str, bits: int) -> None:
    fmt, how = lowp.parse(name), rounding(mode, bits)
    assert isinstance(fmt, lowp.Float)
    x, words = cases(fmt, bits, kernel == "wide")
    out = np.empty_like(x)
    if kernel == "lanes":
        plan = fast.fast_plan(fmt, how, "saturate")
        _round_randomly(x, out, words, plan.integers, plan.floats, how.variant, how.random_bits)
        if mode == "stochastic_a":
            other = np.empty_like(x)
            rounded_by_carries(x, other, words, plan.integers, plan.floats, how.random_bits)
            assert np.array_equal(other, out)
    elif kernel == "bits":
        shift = fast.shift_plan(fmt, how, "saturate")
        _round_bits_randomly(x.view(np.int32), out.view(np.int32), words, shift, how.variant, how.random_bits)
    else:
        chunk = chunk_plan(kernel_plan(fmt, how, "saturate", 64))
        assert chunk is not None
        out[:] = x
        round_chunk(out, words, chunk.integers, chunk.floats, *chunk.mode)
    wanted = [
        float(lowp.exact.quantize(v, fmt, mode, random=w, random_bits=bits))
        for v, w in zip(x.tolist(), words.tolist(), strict=True)
    ]
    assert len({*wanted}) > 6
    assert np.array_equal(out, np.array(wanted, out.dtype))
