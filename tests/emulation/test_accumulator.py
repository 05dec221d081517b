"""Descriptions of accumulators: what they refuse, how they read, and their diagrams."""

import pickle
from dataclasses import FrozenInstanceError, replace
from typing import Any

import pytest

import lowp
from lowp.emulation.accumulator import Accumulator, Alignment
from lowp.emulation.accumulator_diagram import diagram
from tests.emulation.machines import machine

TABLE = lowp.GaussTable(3)
FUSED = Alignment(fraction_bits=24)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"format": "float33"}, "float33"),
        ({"format": "mxfp8_e4m3"}, "must be a scalar format: sums have no block scales"),
        ({"rounding": "nearest_evn"}, "rounding='nearest_evn'"),
        ({"overflow": "inf"}, "overflow='inf'"),
        ({"overflow": "wrap"}, "is for integers and fixed point"),
        ({"overflow": "infinity", "format": "int8"}, "needs a format with infinities, not 'int8'"),
        ({"overflow": "infinity", "format": "float8_e4m3fn"}, "needs a format with infinities"),
        ({"product": "exactly"}, "exactly"),
        ({"group": 0}, "group=0 must be from 1 to"),
        ({"chunk": 0}, "chunk=0 must be from 1 to"),
        ({"lanes": 0}, "lanes=0"),
        ({"lane_width": -1}, "lane_width=-1"),
        ({"splits": 0}, "splits=0"),
        ({"split_tile": 0}, "split_tile=0"),
        ({"seed": -1}, "seed=-1"),
        ({"seed": 1 << 64}, "seed="),
        ({"group_sum": "pairwize"}, "Did you mean 'pairwise'"),
        ({"compensation": "kahn"}, "Did you mean 'kahan'"),
        ({"subnormal_inputs": "flush"}, "subnormal_inputs='flush'"),
        ({"subnormal_results": "positive_zero"}, "subnormal_results='positive_zero'"),
        ({"signed_zero": "yes"}, "signed_zero='yes' must be True, False or 'underflow'"),
        ({"order": "backward"}, "order='backward'"),
        ({"order": (0, 2)}, "must hold each of 0 to 1 once"),
        ({"order": ()}, "must hold each of"),
        ({"alignment": FUSED, "group_sum": "pairwise"}, "alignment is for group_sum='fused'"),
        ({"alignment": FUSED, "product": "float16"}, "alignment cuts exact products"),
        ({"alignment": FUSED, "order": "pairwise"}, "alignment and order='pairwise' do not go together"),
        ({"alignment": FUSED, "format": "posit16"}, "alignment is for floats, integers and fixed point"),
        ({"compensation": "kahan", "order": "pairwise"}, "compensation needs a running sum"),
        ({"compensation": "kahan", "group": 2}, "compensation needs group=1"),
        ({"compensation": "kahan", "rounding": "stochastic"}, "compensation needs a deterministic rounding"),
        ({"compensation": "kahan", "alignment": FUSED}, "compensation and alignment do not go together"),
        ({"table": TABLE}, "table is for logarithmic formats"),
        ({"table": TABLE, "format": "lns8_f3", "group": 4}, "table needs group=1"),
        ({"outer": Accumulator()}, "outer adds partial sums"),
    ],
)
def test_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(lowp.Error) as caught:
        Accumulator(**fields)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"fraction_bits": -1}, "fraction_bits=-1"),
        ({"fraction_bits": 41}, "fraction_bits=41"),
        ({"fraction_bits": True}, "fraction_bits=True must be an integer"),
        ({"fraction_bits": 24, "cut": "stochastic_a"}, "cut='stochastic_a'"),
        ({"fraction_bits": 24, "sum_cut": "floorr"}, "sum_cut='floorr'"),
        ({"fraction_bits": 24, "lanes": 2}, "lanes=2 needs running_sum='after'"),
        ({"fraction_bits": 24, "running_sum": "before"}, "running_sum='before'"),
        ({"fraction_bits": 24, "running_sum": "after"}, "needs sum_fraction_bits and running_fraction_bits"),
        ({"fraction_bits": 24, "sum_fraction_bits": 30}, "'term' takes neither"),
        ({"fraction_bits": 24, "zero_exponent": 1 << 15}, "zero_exponent=32768"),
        ({"fraction_bits": 24, "scaled_group": 0}, "scaled_group=0"),
    ],
)
def test_refused_alignments(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(lowp.Error) as caught:
        Alignment(**fields)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "fields",
    [{"alignment": 24}, {"outer": "float32", "chunk": 2}, {"format": 32}, {"order": 3}, {"group": 1.5}, {"chunk": "4"}],
)
def test_wrong_types(fields: dict[str, Any]) -> None:
    with pytest.raises(lowp.ArgumentTypeError):
        Accumulator(**fields)


def test_frozen_hashable_and_equal_by_what_they_mean() -> None:
    one, other = Accumulator(format="half", rounding="rne"), Accumulator(format="float16", order="sequential")
    assert one == other
    assert hash(one) == hash(other)
    assert len({one, other, replace(one, group=2)}) == 2
    assert pickle.loads(pickle.dumps(one)) == one  # noqa: S301 - its own bytes
    with pytest.raises(FrozenInstanceError):
        one.group = 2  # type: ignore[misc]


def test_repr_says_what_is_not_default_and_reads_back() -> None:
    assert repr(Accumulator()) == "Accumulator(format='float32')"
    hopper = machine("hopper/wgmma_m64n8k32/e4m3_e4m3/f32").accumulator
    assert repr(hopper).startswith(
        "Accumulator(format='float22_e8m13', rounding='toward_zero', overflow='infinity', group=32"
    )
    names = {"Accumulator": Accumulator, "Alignment": Alignment, "GaussTable": lowp.GaussTable}
    for accumulator in (
        hopper,
        machine("cdna3/mfma_16x16x32/e4m3fnuz_e5m2fnuz/f32").accumulator,
        machine("blackwell/mma_m16n8k32/e4m3_e4m3/f32").accumulator,
        Accumulator(format="lns8_f3", table=TABLE, order=(1, 0), chunk=4, outer=Accumulator(format="lns8_f3")),
    ):
        assert eval(repr(accumulator), names) == accumulator  # noqa: S307 - its own text


HOPPER = """
╭─ each step of 32 terms, from c
│  multiply  exactly
│  align     products and running sum under their largest exponent E, at least -133
│  cut       each toward_zero at 2^(E - 13)
│  add       exactly
│  round     to float22_e8m13, toward_zero
│  overflow  infinity
│  zero      +0
╰─▶ running sum
══▶ float22_e8m13
"""
TILE = """
read      subnormal operands and sums as zero, their signs stay
╭─ each chunk of 32 terms, from +0
│  ╭─ each of 2 lanes, terms dealt out in turn, from +0
│  │  ╭─ each term
│  │  │  multiply  exactly
│  │  │  add       product and running sum, exactly
│  │  │  round     to float32, ties_to_even
│  │  │  flush     subnormal results to zero, their signs stay
│  │  ╰─▶ running sum
│  ╰─▶ lane's sum
│  add       lanes' sums one by one, each sum:
│  round     to float32, ties_to_even
│  flush     subnormal results to zero, their signs stay
╰─▶ partial sum
read      subnormal operands and sums as zero, their signs stay
╭─ each partial sum, from c
│  add       to the running sum
│  round     to float32, ties_to_even
│  flush     subnormal results to zero, their signs stay
╰─▶ running sum
══▶ float32
"""


def test_diagrams() -> None:
    assert diagram(machine("hopper/wgmma_m64n8k32/e4m3_e4m3/f32").accumulator) == HOPPER.strip()
    tile = machine("x86/tdpbf16ps/bf16_bf16/f32", 32).accumulator
    assert str(tile) == tile.diagram() == TILE.strip()


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"format": "bfloat16"}, "to bfloat16"),
        ({"rounding": "stochastic_a", "seed": 7}, "stochastic_a, seed 7"),
        ({"overflow": "saturate"}, "overflow  saturate"),
        ({"product": "float16"}, "multiply  rounded to float16"),
        ({"group": 4}, "each step of 4 terms"),
        ({"group": 4, "group_sum": "pairwise"}, "products in a tree of halves"),
        ({"group": 4, "group_sum": "sequential"}, "products one by one"),
        ({"alignment": FUSED}, "2^(E - 24)"),
        ({"order": "pairwise"}, "in a tree of halves, then c"),
        ({"order": "random", "seed": 3}, "at random, seed 3"),
        ({"order": (1, 0)}, "every 2 terms: 1 0"),
        ({"chunk": 64}, "each chunk of 64 terms, from +0"),
        ({"lanes": 3, "lane_width": 2}, "each of 3 lanes, terms dealt out in turn, 2 at a time"),
        ({"splits": 4, "split_tile": 128}, "each of 4 contiguous runs of terms, of whole tiles of 128"),
        (
            {"chunk": 8, "outer": Accumulator(format="bfloat16", order="pairwise", chunk=2)},
            "each chunk of 2 partial sums",
        ),
        ({"chunk": 8, "outer": Accumulator(compensation="kahan")}, "each partial sum p, s from c"),
        ({"compensation": "neumaier"}, "larger of s, p"),
        ({"subnormal_inputs": "positive_zero"}, "subnormal operands and sums as +0"),
        ({"subnormal_results": "zero"}, "flush"),
        ({"signed_zero": "underflow"}, "-0 where a negative sum becomes zero"),
        ({"format": "lns8_f3", "table": TABLE}, "in a table of 3 fraction bits, nearest"),
    ],
)
def test_diagrams_say_what_is_not_default(fields: dict[str, Any], said: str) -> None:
    text, plain = Accumulator(**fields).diagram(), Accumulator().diagram()
    assert said in text
    assert said not in plain
    assert max(map(len, text.split("\n"))) <= 100
    assert text.count("╭") == text.count("╰")


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"cut": "to_odd"}, "each to_odd"),
        ({"zero_exponent": -20}, "at least -20"),
        ({"product_limit": 128}, "2^128 and more are infinite"),
        ({"scaled_group": 16}, "16 products exactly, times scales"),
        ({"result_fraction_bits": 31}, "2^(R - 31)"),
        ({"running_sum": "after", "sum_fraction_bits": 32, "running_fraction_bits": 23, "lanes": 2}, "each of 2 lanes"),
        (
            {"running_sum": "after", "sum_fraction_bits": 32, "running_fraction_bits": 23, "running_reach": 9},
            "9 binades",
        ),
        (
            {"running_sum": "after", "sum_fraction_bits": 32, "running_fraction_bits": 23},
            "sum toward_negative at 2^(L - 32)",
        ),
    ],
)
def test_diagrams_of_alignments(fields: dict[str, Any], said: str) -> None:
    how = Alignment(**{"fraction_bits": 24} | fields)
    assert said in Accumulator(group=8, alignment=how).diagram()
    assert said not in Accumulator(group=8, alignment=FUSED).diagram()
