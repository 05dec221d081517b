"""Formats whose least number is near float32's least normal one, where products that kernels make would lose bits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import lowp
from lowp.formats import Float
from lowp.rounding import _scalar, verbs
from lowp.rounding.modes import ROUNDING_MODES, rounding

DETERMINISTIC = [m for m in ROUNDING_MODES if rounding(m).variant == 0]


def tiny(quantum: int) -> Float:
    """Return a format whose least positive number is 2^quantum."""
    fmt = Float(4, 3, bias=1 - (quantum + 3), specials="fn")
    assert fmt.smallest_subnormal == 2.0**quantum
    return fmt


def numbers(fmt: Float) -> np.ndarray:
    rng = np.random.default_rng(0)
    x = rng.random(400) * fmt.smallest_subnormal * rng.choice([1, 4, 64, 2048], 400)
    grid = np.arange(1, 40) / 8 * fmt.smallest_subnormal
    x = np.concatenate([x, grid, np.nextafter(grid.astype(np.float32), 1), [fmt.max, 2 * fmt.max, 0]])
    return np.concatenate([x, -x]).astype(np.float32)


@pytest.mark.parametrize("mode", DETERMINISTIC)
@pytest.mark.parametrize("quantum", [-126, -125, -124, -123, -100])
def test_deterministic_modes(quantum: int, mode: str) -> None:
    fmt = tiny(quantum)
    x = numbers(fmt)
    wanted = [lowp.exact.encode(v, fmt, mode) for v in x.tolist()]
    assert lowp.encode(x, fmt, mode).codes.tolist() == wanted
    values = lowp.decode(np.array(wanted), fmt, dtype=np.float32)
    assert np.array_equal(lowp.quantize(x, fmt, mode).view(np.uint32), values.view(np.uint32))


@pytest.mark.parametrize("mode", ["stochastic_a", "stochastic_b", "stochastic_c", "stochastic_equal"])
@pytest.mark.parametrize("quantum", [-126, -112, -111, -98, -97, -96, -95, -30])
def test_stochastic_modes(quantum: int, mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fmt = tiny(quantum)
    x = numbers(fmt)
    for bits in (1, 16, 17, 30, 31, 32) if mode != "stochastic_equal" else (None,):
        how: dict[str, Any] = {} if bits is None else {"random_bits": bits}
        found = lowp.quantize(x, fmt, mode, seed=9, **how)
        with monkeypatch.context() as patch:
            patch.setattr(_scalar, "_run_fast", lambda *_: False)
            patch.setattr(verbs, "quickly", lambda *_: False)
            wanted = lowp.quantize(x, fmt, mode, seed=9, **how)
        assert np.array_equal(found.view(np.uint32), wanted.view(np.uint32)), bits
