"""FINN's estimates against a second writing of its formulas, and the corrections of its defects."""

import itertools
import math
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lowp._errors import ArgumentError, FormatError
from lowp.hw_models.finn import (
    Mvau,
    chain_delay,
    chain_length,
    data_type_bound,
    multiplier_lut,
    mvau,
    weight_norm_bound,
)


@st.composite
def units(draw):
    pe, simd = draw(st.integers(1, 32)), draw(st.integers(1, 32))
    return Mvau(
        simd * draw(st.integers(1, 40)),
        pe * draw(st.integers(1, 40)),
        pe,
        simd,
        w=draw(st.integers(1, 8)),
        a=draw(st.integers(1, 8)),
        a_signed=draw(st.booleans()),
        accumulator=draw(st.sampled_from([16, 20, 32])),
        thresholds=draw(st.integers(0, 4)),
        multipliers=draw(st.sampled_from(["lut", "dsp"])),
        memory=draw(st.sampled_from(["block", "ultra", "distributed", "embedded", "external"])),
    )


def _lut(u):
    """The formula as FINN's source states it, term by term."""
    wmem = u.mw * u.mh // (u.pe * u.simd)
    reach = u.mw * 2 ** (u.w + u.a - 1 - int(u.a_signed))  # ceil(log2(reach + 1) + 1), without the noise of floats
    acc = min(u.accumulator, next(p for p in itertools.count(1) if 2 ** (p - 1) >= reach + 1))
    mult = 0 if u.multipliers == "dsp" else u.simd * (2 * math.ceil((u.w + u.a) / 6) - 1) * (u.w + u.a)
    tree = (u.w + u.a) * (2 * u.simd - 1)
    steps = 2**u.thresholds - 1
    thr = steps * acc * math.ceil(u.mh // u.pe / 64) if u.thresholds else 0
    c2 = 0
    if u.memory == "distributed" or (u.memory == "embedded" and wmem <= 128):
        c2 = u.pe * u.simd * u.w * math.ceil(wmem / 64)
    return int(300 + 1.1 * (u.pe * (mult + tree + acc + thr + steps * acc)) + c2)


def test_bounds_of_accumulators_are_exact_where_a_sum_nearly_fills_a_word():
    assert [data_type_bound(n, 1, 1, a_signed=True) for n in (30, 31, 32, 2**60 - 1, 2**60)] == [6, 6, 7, 61, 62]
    assert [weight_norm_bound(n, 1, a_signed=True) for n in (30, 31, 32, 2**60 - 1, 2**60)] == [6, 6, 7, 61, 62]
    assert weight_norm_bound(31.5, 1, a_signed=True) == 7


@settings(max_examples=300, deadline=None)
@given(units())
def test_luts_are_finns(unit):
    assert unit.lut() == _lut(unit)


@settings(max_examples=200, deadline=None)
@given(units())
def test_memories_are_finns(unit):
    omega, width = unit.mw * unit.mh / (unit.simd * unit.pe), unit.simd * unit.w * unit.pe
    small = unit.memory == "embedded" and omega <= 128
    blocks = 0
    if unit.memory not in ("distributed", "ultra", "external") and not small:
        widths = [(1, 1, 16384), (2, 2, 8192), (4, 4, 4096), (9, 9, 2048), (18, 18, 1024)]
        row = next((r for r in widths if width <= r[0]), (0, 18, 1024) if omega > 512 else (0, 36, 512))
        blocks = math.ceil(omega / row[2]) * math.ceil(width / row[1])
    assert unit.bram18() == blocks
    large = unit.memory == "ultra" or (unit.memory == "embedded" and omega > 128)
    assert unit.uram() == (math.ceil(width / 72) * math.ceil(omega / 4096) if large else 0)
    assert unit.cycles(3) == 3 * unit.mh * unit.mw // (unit.pe * unit.simd)


def test_large_embedded_memories_are_not_counted_twice():
    unit = Mvau(256, 256, 4, 4, w=4, a=4, memory="embedded")
    assert unit.bram18() > 0
    assert unit.uram() > 0
    assert unit.uram(corrected=True) == 0


def test_dsps_of_cores():
    wide = Mvau(48, 64, 8, 6, w=8, a=8, style="rtl", multipliers="dsp")
    assert (wide.core, wide.dsp(), wide.dsp(corrected=True)) == ("mvu_8sx8u", 12, 24)  # half of them missing
    narrow = replace(wide, w=4, a=4)
    assert (narrow.core, narrow.dsp(), narrow.dsp(corrected=True)) == ("mvu_4sx4u", 12, 12)
    versal = replace(wide, dsp_block="DSP58")
    assert (versal.core, versal.dsp(), versal.dsp(corrected=True)) == ("mvu_vvu_8sx9", 16, 16)
    versal_narrow = replace(narrow, dsp_block="DSP58")
    assert (versal_narrow.dsp(), versal_narrow.dsp(corrected=True)) == (16, 12)
    assert Mvau(64, 64, 2, 4, w=8, a=8, multipliers="dsp").dsp() == 8


def test_rtl_units_take_luts_after_all():
    unit = Mvau(64, 64, 8, 8, w=8, a=8, style="rtl", multipliers="dsp")
    assert unit.lut() == 0
    hls = replace(unit, style="hls", multipliers="dsp")
    assert 300 < unit.lut(corrected=True) < 2 * hls.lut()
    assert replace(unit, dsp_block="DSP58").lut(corrected=True) < unit.lut(corrected=True)


def test_corrected_multipliers_have_no_steps():
    values = [multiplier_lut(n, n, corrected=True) for n in range(2, 19)]
    steps = [b / a for a, b in pairwise(values)]
    assert max(steps) < 2.9
    assert multiplier_lut(4, 4) / multiplier_lut(3, 3) == 4  # FINN's
    assert multiplier_lut(8, 8, corrected=True) == pytest.approx(80)  # Yosys: 80 LUTs after pairs share


def test_accumulator_bounds():
    for terms, w, a, signed in ((9, 4, 4, False), (100, 3, 5, True), (4608, 8, 8, True)):
        largest = (1 << (a - signed)) - (not signed)
        worst = terms * (1 << (w - 1)) * largest
        bits = data_type_bound(terms, w, a, signed)
        assert worst <= 1 << (bits - 1)
        assert bits <= worst.bit_length() + 2
        assert weight_norm_bound(terms * (1 << (w - 1)), a, signed) == bits
    with pytest.raises(ArgumentError, match="norm=0"):
        weight_norm_bound(0, 4)


def test_dsp_chains():
    assert chain_delay(1) == pytest.approx(0.741e-9)
    for clock in (200e6, 400e6, 700e6):
        length = chain_length(clock, 300)
        assert chain_delay(length) <= 1 / clock < chain_delay(length + 1)
    with pytest.raises(ArgumentError, match="clock="):
        chain_length(2e9, 3)


def test_data_types():
    assert (mvau(8, 8, 1, 1, "ternary", "int4").w, mvau(8, 8, 1, 1, "binary", "uint1").w) == (2, 1)
    assert mvau(8, 8, 1, 1, "int4", "int4").a_signed
    with pytest.raises(FormatError, match="is no data type of FINN"):
        mvau(8, 8, 1, 1, "float8_e4m3fn", "int8")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pe": 3}, "pe=3 must divide mh=8"),
        ({"simd": 5}, "simd=5 must divide mw=8"),
        ({"style": "vhdl"}, "style='vhdl' is not known"),
        ({"style": "rtl"}, "multipliers='lut' is not possible in RTL"),
        ({"memory": "bram"}, "memory='bram' is not known"),
        ({"style": "rtl", "multipliers": "dsp", "dsp_block": "DSP58", "w": 9}, "do not fit the DSP58"),
        ({"w": 0}, "w=0 must be at least 1"),
    ],
)
def test_wrong_units(changes, message):
    fields = {"mw": 8, "mh": 8, "pe": 1, "simd": 1, "w": 4, "a": 4, **changes}
    with pytest.raises(ArgumentError, match=message):
        Mvau(**fields)
