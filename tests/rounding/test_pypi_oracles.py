"""The same numbers through other programs from the package index: softposit, gfloat, ml_dtypes."""

from typing import Any

import numpy as np
import pytest

import lowp


def posit_inputs(count: int, seed: int) -> np.ndarray:
    """Numbers of every size, with ties of posit(8,0) and posit(16,1) among them."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(count) * np.exp2(rng.uniform(-20, 20, count))
    codes = rng.integers(1, 1 << 16, count // 4)
    ties = lowp.decode(codes, "posit17_es1")
    return np.concatenate([x, ties[np.isfinite(ties)], [0.0, 1e30, -1e30, 1e-30]])


@pytest.mark.parametrize(
    ("name", "kind"), [("posit8_es0", "posit8"), ("posit16_es1", "posit16"), ("posit32_es2", "posit32")]
)
def test_softposit(name: str, kind: str) -> None:
    softposit = pytest.importorskip("softposit")
    make, mask = getattr(softposit, kind), (1 << lowp.parse(name).bits) - 1
    x = posit_inputs(2000, 1)
    assert lowp.encode(x, name).codes.tolist() == [int(make(float(v)).v.v) & mask for v in x]
    a, b = x[:500], x[500:1000]
    ours = lowp.array(a, name), lowp.array(b, name)
    theirs = [make(float(v)) for v in a], [make(float(v)) for v in b]
    for op in ("__add__", "__sub__", "__mul__", "__truediv__"):
        got = getattr(ours[0], op)(ours[1]).codes.tolist()
        wanted = [int(getattr(p, op)(q).v.v) & mask for p, q in zip(*theirs, strict=True)]
        assert got == wanted, op


@pytest.mark.parametrize(("k", "p"), [(8, 3), (8, 4), (6, 2), (5, 3), (4, 2)])
@pytest.mark.parametrize("mode", ["TiesToEven", "TowardZero", "TowardNegative", "TowardPositive", "TiesToAway"])
def test_gfloat_p3109(k: int, p: int, mode: str) -> None:
    gfloat = pytest.importorskip("gfloat")
    from gfloat.formats import format_info_p3109

    info = format_info_p3109(k, p, domain=gfloat.Domain.Extended)
    name = f"p3109_{k}p{p}se"
    values = lowp.values(name)
    assert np.array_equal(values, [gfloat.decode_float(info, c).fval for c in range(1 << k)], equal_nan=True)
    x = np.random.default_rng(k * p).standard_normal(200) * lowp.parse(name).max / 3  # type: ignore[attr-defined]
    rounding = gfloat.RoundMode[mode]
    wanted = [gfloat.encode_float(info, gfloat.round_float(info, float(v), rounding, sat=True)) for v in x]
    assert lowp.encode(x, name, mode).codes.tolist() == wanted


@pytest.mark.parametrize(
    "name", ["float8_e4m3fn", "float8_e5m2", "float8_e4m3", "float8_e3m4", "bfloat16", "float6_e3m2fn"]
)
def test_arithmetic_of_ml_dtypes(name: str) -> None:
    """ml_dtypes computes in float32 and rounds again; for + - * of these formats that is one rounding."""
    ml_dtypes = pytest.importorskip("ml_dtypes")
    dtype: Any = getattr(ml_dtypes, name)
    rng = np.random.default_rng(5)
    with np.errstate(all="ignore"):
        a, b = (rng.standard_normal(3000).astype(np.float32).astype(dtype) for _ in range(2))
        x, y = (lowp.array.from_codes(v.view(f"u{v.itemsize}"), name) for v in (a, b))
        for ours, theirs in ((x + y, a + b), (x - y, a - b), (x * y, a * b)):
            assert np.array_equal(ours.values, theirs.astype(np.float64), equal_nan=True)
