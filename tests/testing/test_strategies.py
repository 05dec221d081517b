"""The strategies reach what they promise, stay within their bounds, and shrink to simple examples."""

import math
from collections import Counter
from typing import Any

import numpy as np
import pytest

import lowp
from lowp import testing
from lowp._errors import ArgumentError
from lowp.formats import Block, Codebook, Fixed, Float, Integer
from lowp.formats.spec import to_float
from lowp.rounding.modes import INTEGER_ONLY, OVERFLOW_MODES, ROUNDING_MODES

pytest.importorskip("hypothesis")

from hypothesis import HealthCheck, Phase, find, given, settings
from hypothesis.strategies import SearchStrategy, data, integers, lists

from lowp.testing import strategies as st
from lowp.testing._families import FAMILIES
from lowp.testing._points import turns

QUICK = settings(
    max_examples=60, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck)
)

MANY = settings(QUICK, max_examples=1000, phases=[Phase.generate])


def examples(strategy: SearchStrategy[Any], count: int = 300) -> list[Any]:
    """Return examples of a strategy, the same ones every time."""
    found: list[Any] = []

    @settings(QUICK, max_examples=count)
    @given(strategy)
    def collect(example: Any) -> None:
        found.append(example)

    collect()
    return found


@pytest.mark.parametrize("family", FAMILIES)
def test_formats_of_every_family_within_their_bounds(family: str) -> None:
    found = examples(st.formats([family], min_bits=3, max_bits=10), 100)
    assert len(set(found)) > 10
    widths = {fmt.element.bits if isinstance(fmt, Block) else fmt.bits for fmt in found}
    assert widths <= set(range(3, 11))
    for fmt in set(found):
        if family != "codebook" or fmt.name in lowp.formats.names():
            assert lowp.parse(fmt.name) == fmt


def test_families_go_as_far_as_their_formats() -> None:
    for bits in (2, 3, 5, 32, 64):
        assert {fmt.bits for fmt in examples(st.formats(min_bits=bits, max_bits=bits), 60)} == {bits}


def test_formats_are_of_any_convention() -> None:
    found = examples(st.formats(["float", "p3109"]), 400)
    assert {fmt.specials for fmt in found} >= {"ieee", "fn", "fnuz", "finite", "p3109", "p3109_finite"}
    assert {fmt.signed for fmt in found} == {fmt.subnormals for fmt in found} == {True, False}


def test_all_families_but_blocks_are_drawn_by_default() -> None:
    kinds = Counter(type(fmt) for fmt in examples(st.formats(), 400))
    assert set(kinds) == {Float, Integer, Fixed, Codebook, lowp.Posit, lowp.Takum, lowp.LNS}


def test_what_leaves_no_format_is_refused() -> None:
    for options in ({"families": []}, {"min_bits": 9, "max_bits": 8}, {"max_bits": 65}, {"min_bits": 1}):
        with pytest.raises(ArgumentError, match="leave no format"):
            st.formats(**options)
    with pytest.raises(ArgumentError, match="leave no format"):
        st.formats(["p3109", "codebook"], min_bits=16, max_bits=20)
    with pytest.raises(ArgumentError, match="Did you mean 'posit'"):
        st.formats(["posits"])


@QUICK
@given(st.formats(), data())
def test_conversions_of_any_format_agree_with_the_oracle(fmt: Any, draw: Any) -> None:
    x = draw.draw(st.values(fmt, allow_nan=False))
    mode = draw.draw(st.rounding_modes(stochastic=False))
    overflow = draw.draw(st.overflow_modes(fmt))
    assert int(lowp.encode(x, fmt, mode, overflow).codes) == lowp.exact.encode(x, fmt, mode, overflow)


@pytest.mark.parametrize("name", ["float8_e4m3fn", "posit16_es1", "int8", "nf4", "lns8_f3"])
def test_codes_reach_every_kind_of_code(name: str) -> None:
    fmt = lowp.parse(name)
    found = set(examples(st.codes(name)))
    assert found <= set(range(1 << fmt.bits))
    assert found >= {0, 1, (1 << fmt.bits) - 1, 1 << (fmt.bits - 1)}
    without = examples(st.codes(name, allow_nan=False))
    assert "nan" not in {fmt.meaning(code) for code in without}


@pytest.mark.parametrize("name", ["float8_e4m3fn", "posit8_es2", "int8", "lns8_f3"])
def test_values_lie_on_and_beside_turning_points(name: str) -> None:
    fmt = lowp.parse(name)
    found = examples(st.values(name), 600)
    points = {to_float(turn) for code in range(1 << fmt.bits) for turn in turns(code, fmt)}
    beside = {math.nextafter(p, way) for p in points for way in (-math.inf, math.inf)}
    assert sum(x in points for x in found) > 60
    assert sum(x in beside for x in found) > 60
    assert {math.inf, -math.inf} <= set(found)
    assert any(x == 0 and math.copysign(1, x) < 0 for x in found)
    assert any(x != x for x in found) is fmt.has_nan
    assert any(0 < abs(x) < fmt.smallest_subnormal for x in found)
    assert any(fmt.max < x < math.inf for x in found)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_values_are_floats_of_the_dtype(dtype: str) -> None:
    found = examples(st.values("float8_e5m2", dtype=dtype, allow_nan=False, allow_infinity=False))
    assert all(float(np.dtype(dtype).type(x)) == x for x in found)
    assert all(math.isfinite(x) for x in found)


def test_values_shrink_to_simple_numbers() -> None:
    assert find(st.values("int8"), lambda x: x > 3, settings=QUICK) in (3.5, 4)
    assert find(st.values("posit8_es2"), lambda x: x > 1, settings=QUICK) in (1.0625, 2)
    assert find(st.codes("int8"), lambda code: code > 100, settings=QUICK) == 101


def test_arrays_of_values_and_of_codes() -> None:
    for x in examples(st.arrays("float4_e2m1fn"), 40):
        assert x.dtype == np.float32
        assert 1 <= x.ndim <= 3
    codes = examples(st.code_arrays("posit16_es1", (2, 2)), 20)
    assert {c.shape for c in codes} == {(2, 2)}
    assert {c.dtype.name for c in codes} == {"uint16"}
    assert len({x.shape for x in examples(st.arrays("int8", lists(integers(0, 3), max_size=2).map(tuple)), 40)}) > 3


@pytest.mark.parametrize("name", ["mxfp4", "int4_g8", "block[e4m3fn,16,bf16]", "int8_row"])
def test_blocks_have_scales_at_every_edge(name: str) -> None:
    fmt = lowp.parse(name)
    info, one = np.finfo(np.float32), st.blocks(name, max_rows=1, max_blocks=1)
    for amax in (0.0, 1.0, float(info.max), float(info.smallest_subnormal)):
        find(one, lambda x, amax=amax: np.abs(x).max() == amax, settings=MANY)
    for part in (0.5, 0.5 + float(info.epsneg)):  # a power of two, and an ulp more
        find(
            one,
            lambda x, part=part: math.frexp(np.abs(x).max())[0] == part,
            settings=settings(QUICK, max_examples=1000),
        )
    found = examples(st.blocks(name), 40)
    assert len({x.shape for x in found}) > 4
    assert all(x.dtype == np.float32 and np.isfinite(x).all() for x in found)
    assert any(not np.isfinite(x).all() for x in examples(st.blocks(name, allow_nonfinite=True), 40))
    for x in found:
        assert lowp.quantize(np.clip(x, -1e30, 1e30), fmt).shape == x.shape


def test_blocks_are_only_for_block_formats_along_one_axis() -> None:
    for name in ("int8", "e4m3fn_t128x128"):
        with pytest.raises(ArgumentError, match="must be a block format"):
            st.blocks(name)


def test_modes() -> None:
    assert set(examples(st.rounding_modes())) == set(ROUNDING_MODES)
    assert not any(name.startswith("stochastic") for name in examples(st.rounding_modes(stochastic=False)))
    assert set(examples(st.overflow_modes("int8"))) == set(OVERFLOW_MODES)
    assert set(examples(st.overflow_modes("uint8"))) == set(OVERFLOW_MODES) - {"wrap_sign_magnitude"}
    assert set(examples(st.overflow_modes("posit8"))) == set(OVERFLOW_MODES) - set(INTEGER_ONLY)


def test_strategies_are_an_attribute_of_the_testing_module() -> None:
    assert testing.strategies is st
    assert "strategies" in dir(testing)
    with pytest.raises(AttributeError, match="no attribute 'strategy'"):
        testing.strategy  # noqa: B018
