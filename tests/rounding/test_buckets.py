"""Lookups by leading bits, and tapered formats rounded by an addition, against the general path."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import lowp
from lowp.rounding import _buckets, _scalar, _tapered
from lowp.rounding.modes import ROUNDING_MODES, rounding
from tests.rounding.test_float32_runs import differ, numbers

MODES = [mode for mode in ROUNDING_MODES if rounding(mode).variant == 0]
SMALL = ["posit8_es2", "posit8_es1", "posit6_es1", "takum8", "takum8_linear", "lns8_f3", "lns8_f2", "nf4", "sf4", "af4"]
TAPERED = ["posit16_es2", "posit16_es1", "posit12_es2", "takum16_linear", "takum12_linear", "posit8_es0"]


def moderate() -> np.ndarray:
    """Numbers whose results float32 holds in every format here, zeros, NaN, infinities, and usual ones."""
    x = numbers()
    with np.errstate(invalid="ignore"):
        kept = (np.abs(x) < 1e30) & (np.abs(x) > 1e-30)
    x = x[kept | ~np.isfinite(x) | (x == 0)]
    usual = np.random.default_rng(5).standard_normal(1 << 14, dtype=np.float32)
    return np.concatenate([x, usual, usual * np.float32(2.0**-9)])


@pytest.fixture
def general(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Calls without tables of leading bits and without additions."""

    def run(call: Any) -> Any:
        with monkeypatch.context() as patch:
            patch.setattr(_buckets, "ENOUGH", 1 << 60)
            patch.setattr(_tapered, "usual_exponents", lambda _: None)
            return call()

    return run


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", [*SMALL, *TAPERED])
def test_values_and_codes(name: str, mode: str, general: Any) -> None:
    x, fmt = moderate(), lowp.parse(name)
    for overflow in ("saturate", "infinity_or_nan"):
        found, wanted = (
            lowp.quantize(x, fmt, mode, overflow),
            general(lambda o=overflow: lowp.quantize(x, fmt, mode, o)),
        )
        assert found.dtype == wanted.dtype
        assert not differ(found, wanted).size, overflow
        how: dict[str, Any] = {} if fmt.has_nan else {"nan": "zero"}
        codes = lowp.encode(x, fmt, mode, overflow, **how).codes
        assert np.array_equal(codes, general(lambda o=overflow: lowp.encode(x, fmt, mode, o, **how).codes)), overflow  # noqa: B023


@pytest.mark.parametrize("name", SMALL)
def test_there_are_tables(name: str) -> None:
    fmt, mode = lowp.parse(name), rounding("ties_to_even")
    assert _buckets.is_worth_it(moderate(), fmt)  # type: ignore[arg-type]
    assert _scalar._value_buckets(fmt, mode, "saturate") is not None  # type: ignore[arg-type]
    assert _scalar._code_buckets(fmt, mode, "saturate") is not None  # type: ignore[arg-type]


def test_what_is_too_close_for_leading_bits_has_no_table() -> None:
    steps = np.float32(1) + np.arange(3, dtype=np.float32) * np.float32(2.0**-12)
    assert _buckets.make_buckets(lambda x: np.searchsorted(steps, x).astype(np.uint8)) is None
    table = _buckets.make_buckets(lambda x: (x >= steps[1]).astype(np.uint8))
    assert table is not None
    x = np.array([steps[1], np.nextafter(steps[1], np.float32(0)), 5, -1, 0], np.float32)
    assert _buckets.looked_up(x, table).tolist() == [1, 0, 1, 0, 0]


@pytest.mark.parametrize("name", ["takum8_linear", "takum16_linear"])
def test_values_that_float32_does_not_hold_are_an_error(name: str) -> None:
    x = np.ones(1 << 15, np.float32)
    x[77] = np.finfo(np.float32).max
    y = x.copy()
    with pytest.raises(lowp.RangeError, match="float32"):
        lowp.quantize(x, name, "away_from_zero", out=x)
    assert np.array_equal(x, y)


@pytest.mark.parametrize("name", ["posit8_es1", "posit16_es1", "nf4"])
def test_in_place(name: str) -> None:
    x = moderate()
    wanted = lowp.quantize(x, name)
    assert lowp.quantize(x, name, out=x) is x
    assert not differ(x, wanted).size


def test_usual_exponents_of_a_posit() -> None:
    usual = _tapered.usual_exponents(lowp.parse("posit16_es1"))  # type: ignore[arg-type]
    assert usual is not None
    assert (usual.low, usual.high) == (127 - 24, 127 + 23)
    assert usual.powers[127] == 2.0 ** (23 - 12)
    assert usual.powers[0] == 0
