"""Quick kernels of rounded sums against NumPy's float16, the other kernels and the exact oracle."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import lowp
from lowp.emulation import _rounded_sums, exact_accumulators
from lowp.emulation._rounded_quick import Quick, Sums, quick
from lowp.emulation._rounded_quick_kernels import PRODUCT_AND_SUM, SUM, SUM_TOWARD_ZERO
from lowp.emulation.accumulator import Accumulator
from tests.emulation.test_rounded_sums import as_float, bits

#: Operands, accumulator, rounding, and the way and type that are taken.
CASES = [
    ("float16", {"format": "float16"}, PRODUCT_AND_SUM, np.float32),
    ("float8_e5m2", {"format": "float16", "overflow": "saturate"}, PRODUCT_AND_SUM, np.float32),
    ("float8_e5m2", {"format": "float8_e5m2"}, PRODUCT_AND_SUM, np.float32),
    ("float8_e4m3fn", {"format": "float8_e4m3fn"}, PRODUCT_AND_SUM, np.float32),
    ("float8_e4m3fnuz", {"format": "float8_e4m3fnuz", "overflow": "saturate"}, PRODUCT_AND_SUM, np.float32),
    ("float6_e2m3fn", {"format": "float6_e2m3fn", "overflow": "saturate"}, PRODUCT_AND_SUM, np.float32),
    ("bfloat16", {"format": "bfloat16"}, PRODUCT_AND_SUM, np.float64),
    ("float16", {"format": "float32"}, SUM, np.float64),
    ("float8_e4m3fn", {"format": "float16"}, PRODUCT_AND_SUM, np.float32),
    ("float8_e4m3fn", {"format": "e8m13", "rounding": "toward_zero"}, SUM_TOWARD_ZERO, np.float64),
    ("float6_e3m2fn", {"format": "bfloat16", "rounding": "toward_zero"}, SUM_TOWARD_ZERO, np.float64),
]


@pytest.fixture
def ways(monkeypatch: pytest.MonkeyPatch) -> list[Quick | None]:
    """What is chosen, in order."""
    from lowp.emulation import _rounded_quick

    found: list[Quick | None] = []

    def spy(sums: Sums) -> Quick | None:
        found.append(quick(sums))
        return found[-1]

    monkeypatch.setattr(_rounded_quick, "quick", spy)
    return found


def operands(name: str, seed: int, finite: bool = False) -> tuple[Any, ...]:
    """Numbers of all codes of a format, specials among them; some rows of ordinary numbers; and a start."""
    rng = np.random.default_rng(seed)
    fmt = lowp.parse(name)
    codes = rng.integers(0, 1 << fmt.bits, (2, 23, 67)).astype(np.uint16)
    x = np.asarray(lowp.decode(codes, fmt), np.float64)
    x[:, ::3] = np.asarray(lowp.quantize(rng.standard_normal(x[:, ::3].shape), fmt))
    x = np.where(rng.random(x.shape) < (0.9 if finite else 0.3), x, 0.0)
    x = np.where(np.isfinite(x), x, 1.0) if finite else x
    return x[0], np.ascontiguousarray(x[1].T), fmt


@pytest.mark.parametrize(("name", "how", "way", "dtype"), CASES)
@pytest.mark.parametrize("finite", [True, False])
def test_quick_sums_are_the_others(
    name: str, how: dict[str, Any], way: int, dtype: Any, finite: bool, ways: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b, fmt = operands(name, 3, finite)
    accumulator = Accumulator(group_sum="sequential", **how)
    c = np.asarray(lowp.quantize(np.random.default_rng(4).standard_normal((23, 23)), accumulator.format), np.float64)
    found = _rounded_sums.run(a, b, c, accumulator, fmt, fmt)
    assert [(x.way, x.dtype) for x in ways] == [(way, dtype)]
    for i, j in [(0, 0), (3, 6), (7, 11), (22, 20)]:
        wanted = exact_accumulators.dot(accumulator, a[i], b[:, j], c[i, j])
        assert bits(found[i, j]) == bits(as_float(wanted)), (i, j)
    monkeypatch.setattr(_rounded_sums, "_quick_sums", lambda *_: None)
    assert np.array_equal(bits(found), bits(_rounded_sums.run(a, b, c, accumulator, fmt, fmt)))


@pytest.mark.parametrize(
    "how",
    [
        {"format": "float16", "rounding": "toward_zero"},  # products of float16 are longer than a sum in float64
        {"format": "float16", "rounding": "ties_to_away"},
        {"format": "float16", "rounding": "stochastic_a"},
        {"format": "float16", "subnormal_results": "zero"},
        {"format": "float16", "signed_zero": "underflow"},
        {"format": "float8_e4m3fn", "rounding": "toward_zero"},
        {"format": "int32"},
    ],
)
def test_what_has_no_quick_way(how: dict[str, Any], ways: Any) -> None:
    a, b, fmt = operands("float16", 5, finite=True)
    _rounded_sums.run(a, b, np.zeros((23, 23)), Accumulator(group_sum="sequential", **how), fmt, fmt)
    assert ways == [None]


def test_all_products_and_sums_of_float16_are_numpy_s() -> None:
    rng = np.random.default_rng(8)
    a, b = (rng.integers(0, 1 << 16, shape).astype(np.uint16).view(np.float16) for shape in ((300, 2), (2, 400)))
    with np.errstate(all="ignore"):
        wanted = a[:, :1] * b[:1] + a[:, 1:] * b[1:]
    fmt, accumulator = lowp.parse("float16"), Accumulator(format="float16", group_sum="sequential")
    found = _rounded_sums.run(a.astype(float), b.astype(float), np.full((300, 400), -0.0), accumulator, fmt, fmt)
    assert np.array_equal(bits(found), bits(wanted))
