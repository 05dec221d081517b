"""Codebooks: a user's list of values."""

import math
import re
import subprocess
import sys
from fractions import Fraction
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import lowp
from lowp.formats import Codebook
from lowp.rounding.modes import ROUNDING_MODES
from lowp.rounding.random_bits import word

few = settings(max_examples=100, deadline=None, derandomize=True, database=None)
DETERMINISTIC = [m for m in ROUNDING_MODES if not m.startswith("stochastic")]
STOCHASTIC = [m for m in ROUNDING_MODES if m.startswith("stochastic")]

values = st.lists(st.floats(-100, 100).map(lambda v: round(v * 8) / 8 + 0.0), min_size=2, max_size=9, unique=True)


@st.composite
def codebooks(draw: st.DrawFn) -> Codebook:
    """Any small codebook, with its own codes and thresholds or without."""
    numbers = draw(values)
    codes = draw(st.none() | st.permutations(range(16)).map(lambda p: p[: len(numbers)]))
    cuts = None
    if draw(st.booleans()):
        ordered = sorted(numbers)
        cuts = [a + draw(st.sampled_from([0, 0.25, 0.5, 0.75])) * (b - a) for a, b in pairwise(ordered)]
    return Codebook(numbers, codes, thresholds=cuts)


@given(codebooks())
@few
def test_every_code_means_its_value_and_every_value_has_its_code(fmt: Codebook) -> None:
    table = lowp.values(fmt)
    assert table.size == 1 << fmt.bits
    used = dict(zip(fmt.codes, fmt.values, strict=True))
    assert [v for c, v in enumerate(table.tolist()) if c in used] == [used[c] for c in sorted(used)]
    assert all(math.isnan(v) for c, v in enumerate(table.tolist()) if c not in used)
    for mode in DETERMINISTIC:
        assert lowp.encode(list(fmt.values), fmt, mode).codes.tolist() == list(fmt.codes), mode
    assert fmt.values == tuple(sorted(fmt.values))
    assert (fmt.max, fmt.min) == (fmt.values[-1], fmt.values[0])
    assert fmt.signed == (fmt.min < 0)
    assert fmt.has_zero == (0 in fmt.values)
    assert not fmt.has_nan
    assert not fmt.has_infinity


@given(codebooks(), st.integers(0, 2**32))
@example(Codebook([-1.0, 1.0]), 0)
@example(Codebook([-2.0, -1.0, 1.0, 2.0], codes=[0, 2, 4, 6]), 1)
@settings(few, max_examples=20)
def test_every_mode_is_the_oracles(fmt: Codebook, seed: int) -> None:
    ordered = [Fraction(v) for v in fmt.values]
    points = [float(a + (b - a) * Fraction(k, 8)) for a, b in pairwise(ordered) for k in range(9)]
    points += [math.nextafter(p, d) for p in points for d in (math.inf, -math.inf)] + list(fmt.thresholds or ())
    points += [math.inf, -math.inf, 1e300, -1e300, 0.0, -0.0]
    for mode in DETERMINISTIC:
        wanted = [lowp.exact.encode(p, fmt, mode) for p in points]
        assert lowp.encode(points, fmt, mode).codes.tolist() == wanted, mode
    for mode in STOCHASTIC:
        for bits in (1, 3, 32):
            wanted = [
                lowp.exact.encode(p, fmt, mode, random=word(seed, i), random_bits=bits) for i, p in enumerate(points)
            ]
            assert lowp.encode(points, fmt, mode, seed=seed, random_bits=bits).codes.tolist() == wanted, (mode, bits)


def test_order_of_values_is_free_and_codes_follow_it() -> None:
    fmt = Codebook([4.0, 0.0, 1.0])
    assert fmt.bits == 2
    assert lowp.values(fmt)[:3].tolist() == [4.0, 0.0, 1.0]
    assert lowp.encode([3.9, 0.2, 1.0], fmt).codes.tolist() == [0, 1, 2]
    assert Codebook([0.0, 1.0], codes=[5, 9]).bits == 4
    assert Codebook([0.0, 1.0], bits=7).bits == 7


def test_a_tie_goes_to_the_even_code_or_else_toward_zero_or_else_up() -> None:
    assert lowp.quantize([0.5, 1.5], Codebook([0.0, 1.0, 2.0])).tolist() == [0.0, 2.0]
    assert lowp.quantize([1.5, -1.5], Codebook([-2.0, -1.0, 1.0, 2.0], codes=[0, 2, 4, 6])).tolist() == [1.0, -1.0]
    assert lowp.quantize([0.0], Codebook([-1.0, 1.0], codes=[0, 2])).tolist() == [1.0]


def test_a_threshold_itself_goes_down() -> None:
    fmt = Codebook([0.0, 1.0, 2.0], thresholds=[0.75, 1.0])
    assert lowp.quantize([0.75, math.nextafter(0.75, 1), 1.0, math.nextafter(1.0, 2)], fmt).tolist() == [0, 1, 1, 2]


def test_negative_zero_is_zero() -> None:
    fmt = Codebook([-0.0, 1.0])
    assert not np.signbit(fmt.values[0])
    assert not np.signbit(lowp.quantize(-0.0, fmt))
    with pytest.raises(lowp.FormatError, match="values holds a number twice"):
        Codebook([0.0, -0.0])


def test_codes_that_are_not_used_decode_to_nan() -> None:
    assert np.isnan(lowp.decode([2], "ternary")).all()
    assert lowp.decode([0, 1, 3], "ternary").tolist() == [0, 1, -1]


def test_nf4_is_the_table_of_qlora() -> None:
    table = lowp.values("nf4")
    assert table[[0, 7, 15]].tolist() == [-1, 0, 1]
    assert table[1] == np.float32(-0.6961928009986877)
    assert (np.diff(table) > 0).all()
    assert np.array_equal(table, table.astype(np.float32))


def test_eps_is_the_step_above_one() -> None:
    assert Codebook([0.0, 1.0, 1.25]).eps == 0.25
    assert math.isnan(Codebook([0.0, 1.0]).eps)
    assert math.isnan(Codebook([0.0, 2.0]).eps)


def test_the_largest_codebook_works_in_a_moment() -> None:
    fmt = Codebook(np.arange(65536) / 256)
    x = np.random.default_rng(0).uniform(0, 256, 2000)
    assert np.array_equal(lowp.quantize(x, fmt), lowp.quantize(x, "ufixed16_8"))
    assert lowp.values(fmt)[257] == 257 / 256


def test_the_name_is_the_same_in_every_process() -> None:
    code = "import lowp; print(lowp.Codebook([0, 1.5, 2]).name)"
    found = {
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd="src").stdout
        for _ in range(2)
    }
    assert found == {f"{Codebook([0, 1.5, 2]).name}\n"}
    assert Codebook([0, 1.5, 2]).name != Codebook([0, 1.5, 3]).name
    assert Codebook([0, 1], label="mine").name == "mine"


def test_codebooks_are_values() -> None:
    assert Codebook([1, 0]) != Codebook([0, 1])
    assert Codebook([0, 1]) == Codebook(np.array([0.0, 1.0])) == Codebook(v for v in (0, 1))  # type: ignore[arg-type]
    assert hash(Codebook([0, 1])) == hash(Codebook([0.0, 1.0], codes=[0, 1]))
    assert Codebook([0, 1]) != Codebook([0, 1], thresholds=[0.25])
    assert Codebook([0, 1]) != "binary"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"values": [1]}, "values has 1 entries; a codebook needs 2 to 65536"),
        ({"values": []}, "values has 0 entries"),
        ({"values": range(65537)}, "values has 65537 entries"),
        ({"values": [1, math.nan]}, "values holds nan; every value of a codebook must be finite"),
        ({"values": [1, -math.inf]}, "values holds -inf"),
        ({"values": [1, 2, 1]}, "values holds a number twice"),
        ({"values": ["a", "b"]}, "values=['a', 'b'] must be a sequence of numbers"),
        ({"values": 3}, "values=3 must be a sequence of numbers"),
        ({"values": [1, 10**400]}, "must be a sequence of numbers"),
        ({"values": [1, 2], "codes": [0]}, "codes=[0] must be distinct, one for each of the 2 values"),
        ({"values": [1, 2], "codes": [3, 3]}, "codes=[3, 3] must be distinct"),
        ({"values": [1, 2], "codes": [0, 65536]}, "must be distinct, one for each of the 2 values, below 65536"),
        ({"values": [1, 2], "codes": [-1, 0]}, "cannot hold the codes -1 to 0"),
        ({"values": [1, 2], "codes": [0.5, 1.5]}, "codes=[0.5, 1.5] must be integers"),
        ({"values": [1, 2], "codes": ["a", 1]}, "codes=['a', 1] must be integers"),
        ({"values": [1, 2], "codes": 7}, "codes=7 must be integers"),
        ({"values": [1, 2, 3], "bits": 1}, "bits=1 cannot hold the codes 0 to 2"),
        ({"values": [1, 2], "bits": "x"}, "must be integers"),
        ({"values": [1, 2], "thresholds": [0.5]}, "thresholds=[0.5] must lie one between each pair"),
        ({"values": [1, 2], "thresholds": [2.0]}, "thresholds=[2.0] must lie one between each pair"),
        ({"values": [1, 2], "thresholds": [1.5, 1.6]}, "must lie one between each pair of the 2 values"),
        ({"values": [1, 2], "thresholds": [math.nan]}, "must lie one between each pair"),
        ({"values": [1, 2], "thresholds": ["a"]}, "thresholds=['a'] must be a sequence of numbers"),
    ],
)  # fmt: skip
def test_codebooks_that_cannot_exist(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(lowp.FormatError, match=re.escape(message)):
        Codebook(**arguments)
