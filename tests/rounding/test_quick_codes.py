"""Small arrays are encoded, decoded and rounded in blocks by quick ways: with the bits and errors of the long ones."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest

import lowp
from lowp.formats import ScalarFormat, names
from lowp.rounding import verbs

SCALARS = [n for n in names() if isinstance(lowp.parse(n), ScalarFormat)]
BLOCKS = ["mxfp4", "mxfp6_e2m3", "mxfp8_e5m2", "mxint8", "int8_row", "int8_tensor", "int4_g128", "nvfp4", "e4m3fn_g128"]
WAYS: list[dict[str, Any]] = [
    {}, {"overflow": "infinity_or_nan"}, {"rounding": "toward_zero", "nan": "zero"}, {"nan": "max"},
    {"overflow": "wrap"}, {"rounding": "stochastic", "seed": 3}, {"rounding": "to_odd", "overflow": "propagate"},
]  # fmt: skip


@pytest.fixture
def long(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Calls without the quick ways."""

    def run(*call: Any, **how: Any) -> Any:
        with monkeypatch.context() as patch:
            patch.setattr(verbs, "quickly", lambda *_: False)
            patch.setattr(verbs, "quick_values", lambda *_: None)
            patch.setattr(verbs, "quick_blocks", lambda *_: None)
            return outcome(*call, **how)

    return run


def outcome(verb: Any, *arguments: Any, **how: Any) -> Any:
    """What a call returns, or how it fails, and its warnings."""
    with warnings.catch_warnings(record=True) as said, np.errstate(all="ignore"):
        warnings.simplefilter("always")
        try:
            found = verb(*arguments, **how)
        except lowp.Error as error:
            return type(error), str(error)
    return found, [str(w.message) for w in said]


def same(a: Any, b: Any) -> None:
    assert a.dtype == b.dtype
    assert a.shape == b.shape
    assert np.array_equal(np.isnan(a), np.isnan(b))
    bits = f"u{a.itemsize}"
    assert np.array_equal(np.where(np.isnan(a), 0, a).view(bits), np.where(np.isnan(b), 0, b).view(bits))


def numbers() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    x = np.ldexp(rng.standard_normal(120), rng.integers(-20, 20, 120)).astype(np.float32)
    x[:6] = [0, -0.0, np.inf, -np.inf, 1e-40, 3e38]
    with_nan = x.copy()
    with_nan[7] = np.nan
    return [x, with_nan, x[:0], x[:1], x.reshape(10, 12), np.float32(3).reshape(()), x[6:].astype(np.float64)]


@pytest.mark.parametrize("name", [*SCALARS, "e8m3", "e7m22", "uint12", "fixed12_7", "e3m1b-60"])
def test_codes_and_values(name: str, long: Any) -> None:
    fmt = lowp.parse(name)
    for x in numbers():
        for way in WAYS:
            found, wanted = outcome(lowp.encode, x, fmt, **way), long(lowp.encode, x, fmt, **way)
            if isinstance(wanted[0], type):
                assert found == wanted
                continue
            assert found[1] == wanted[1]
            assert np.array_equal(found[0].codes, wanted[0].codes)
            assert (found[0].codes.dtype, found[0].dtype) == (wanted[0].codes.dtype, wanted[0].dtype)
        codes = lowp.encode(np.nan_to_num(x), fmt)
        for dtype in (None, np.float32, np.float64, np.float16):
            values, expected = outcome(lowp.decode, codes, dtype=dtype), long(lowp.decode, codes, dtype=dtype)
            if isinstance(expected[0], type):
                assert values == expected
                continue
            assert values[1] == expected[1]
            same(values[0], expected[0])


@pytest.mark.parametrize("name", ["float6_e3m2fn", "posit8", "int5"])
def test_codes_that_a_format_does_not_have(name: str) -> None:
    fmt = lowp.parse(name)
    codes = lowp.encode(np.ones(4, np.float32), fmt)
    codes.codes[2] = 255
    if fmt.bits == 8:
        assert lowp.decode(codes).shape == (4,)
        return
    with pytest.raises(lowp.Error, match="255"):
        lowp.decode(codes)


@pytest.mark.parametrize("mode", ["ties_to_even", "toward_zero", "stochastic"])
@pytest.mark.parametrize("name", BLOCKS)
def test_blocks(name: str, mode: str, long: Any) -> None:
    rng = np.random.default_rng(1)
    for shape in ((1,), (33,), (3, 100), (2, 3, 64), (300, 300)):
        x = np.ldexp(rng.standard_normal(shape), rng.integers(-9, 9, shape)).astype(np.float32)
        x.flat[: min(x.size, 2)] = [-0.0, 0.0][: min(x.size, 2)]
        if x.size > 99:
            x.flat[50], x.flat[99] = np.nan, np.inf
        wanted = long(lowp.quantize, x, name, mode)[0]
        same(lowp.quantize(x, name, mode), wanted)
        same(lowp.quantize(x, name, mode), wanted)
        locked = x.copy()
        locked.flags.writeable = False
        same(lowp.quantize(locked, name, mode), wanted)
        assert lowp.quantize(x, name, mode, out=x) is x
        same(x, wanted)
