"""Codes of blocks, and their values, by compiled passes against the general path."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import lowp
from lowp.formats.registry import names
from lowp.rounding import _blocks
from tests.rounding.test_fast_paths import FLOAT_SCALES, POWER_OF_TWO, rows

FORMATS = [
    *POWER_OF_TWO,
    *FLOAT_SCALES,
    "int4_row",
    "nvfp4_modelopt",
    "nvfp4_te",
    "int8_g32_asym",
    "int5_g16_asym_e8m0",
]


@pytest.fixture
def general(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Calls without the compiled passes."""

    def run(call: Any) -> Any:
        with monkeypatch.context() as patch:
            patch.setattr(_blocks, "_QUICK_FROM", 1 << 62)
            return call()

    return run


def same(a: Any, b: Any) -> bool:
    """Whether two arrays have the same bits, NaN aside."""
    assert a.dtype == b.dtype
    if a.dtype.kind in "iu":
        return np.array_equal(a, b)
    nan = np.isnan(a) & np.isnan(b)
    return bool(np.all((a.view(f"u{a.itemsize}") == b.view(f"u{b.itemsize}")) | nan))


def parts(encoded: Any) -> list[Any]:
    return [x for x in (encoded.codes, encoded.scales, encoded.zero_points) if x is not None]


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("mode", ["ties_to_even", "toward_zero", "stochastic_a"])
def test_codes(name: str, mode: str, general: Any) -> None:
    for x in (rows(), rows()[:, :100], rows().T, rows().astype(np.float64)[:40]):
        found, wanted = lowp.encode(x, name, mode), general(lambda x=x: lowp.encode(x, name, mode))
        assert all(same(a, b) for a, b in zip(parts(found), parts(wanted), strict=True))
        assert found.tensor_scale == wanted.tensor_scale


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_values(name: str, dtype: str, general: Any) -> None:
    with np.errstate(all="ignore"):
        encoded = lowp.encode(rows(), name)
        assert same(lowp.decode(encoded, dtype=dtype), general(lambda: lowp.decode(encoded, dtype=dtype)))


@pytest.mark.parametrize("name", FORMATS)
def test_values_of_any_codes(name: str, general: Any) -> None:
    """Also those that no number is encoded to: NaN, infinities, the most negative integer."""
    encoded, rng = lowp.encode(rows(), name), np.random.default_rng(3)
    for x, fmt in ((encoded.codes, encoded.format.element), (encoded.scales, encoded.format.scale)):
        x[...] = rng.integers(0, 1 << min(fmt.bits, 16), x.shape)
    found, wanted = lowp.decode(encoded), general(lambda: lowp.decode(encoded))
    assert same(found, wanted)
    encoded.codes[3, 7] = (1 << encoded.format.element.bits) % 256
    if encoded.format.element.bits < 8:
        with pytest.raises(lowp.RangeError):
            lowp.decode(encoded)


@pytest.mark.parametrize("name", [n for n in names() if isinstance(lowp.parse(n), lowp.Block)])
def test_every_block_format(name: str, general: Any) -> None:
    x = rows()[:256].reshape(256, 256)
    found, wanted = lowp.encode(x, name), general(lambda: lowp.encode(x, name))
    assert all(same(a, b) for a, b in zip(parts(found), parts(wanted), strict=True))
    assert same(lowp.decode(found), general(lambda: lowp.decode(wanted)))
