"""What test vectors hold: which cases, which results, and a header that says it all."""

import hashlib
import json
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

import lowp
from lowp._errors import ArgumentError, ArgumentTypeError, FormatError
from lowp.emulation import exact_ops
from lowp.formats import names, parse
from lowp.rounding import exact
from lowp.rounding.exact_rules import scalar_format as scalar
from lowp.vector_files import Vectors
from lowp.vector_files.cases import landmark_codes, level_count
from lowp.vector_files.descriptions import describe_format, format_of
from lowp.vector_files.semantics import Semantics

#: One small set of each kind.
SETS: dict[str, dict[str, Any]] = {
    "convert": {"fmt": "float32", "op": "convert", "result": "float8_e4m3fn", "count": 60, "overflow": "saturate"},
    "add": {"fmt": "float16", "op": "add", "count": 60, "rounding": "toward_negative"},
    "stochastic": {"fmt": "bfloat16", "op": "mul", "count": 60, "rounding": "stochastic_b", "random_bits": 7},
    "fma": {"fmt": "float8_e5m2", "op": "fma", "result": "float16", "count": 60},
    "integers": {"fmt": "int12", "op": "div", "count": 60, "nan": "max", "overflow": "wrap"},
    "posits": {"fmt": "posit16_es1", "op": "sqrt", "count": 40},
    "quire": {"fmt": "posit8_es2", "op": "dot", "accumulator": "quire", "length": 5, "count": 20},
    "chain": {"fmt": "float8_e4m3fn", "op": "dot", "result": "float16", "accumulator": "float32", "count": 20},
    "random chain": {"fmt": "int8", "op": "dot", "length": 3, "accumulator": "fixed24_4", "rounding": "stochastic_a"},
    "logarithms": {"fmt": "lns12_f4", "op": "add", "count": 30},
    "function": {"fmt": "float16", "op": "exp", "count": 30},
    "mx": {"fmt": "mxfp4", "op": "block_quantize", "length": 8, "count": 30},
    "asymmetric": {"fmt": "int4_g64_asym", "op": "block_quantize", "length": 6, "count": 20},
    "nvfp4": {"fmt": "nvfp4", "op": "block_quantize", "count": 10},
    "packed": {"fmt": "ggml_q4_0", "op": "block_quantize", "count": 6},
    "wide": {"fmt": "fixed80_70", "op": "multiply", "count": 30},
}


def make(kind: str) -> Vectors:
    return lowp.vectors(**{"count": 20} | SETS[kind])


@pytest.mark.parametrize("kind", SETS)
def test_the_header_alone_says_how_to_recompute_the_results(kind: str) -> None:
    made = make(kind)
    header = json.loads(json.dumps(made.header))
    again = Semantics.from_header(header)
    assert again == made.semantics
    assert [again.evaluate(case) for case in made.cases] == made.answers
    assert header["count"] == len(made) == len(set(made.cases))
    assert header["columns"] == [label for c in (*again.operands, *again.results) for label in c.labels]


@pytest.mark.parametrize(
    "name", [*names(), "posit16_es1", "takum12_log", "lns8_gamma3_nozero", "ap_fixed<8,-2>", "e5m7f"]
)
def test_a_format_comes_back_from_its_parameters(name: str) -> None:
    data = json.loads(json.dumps(describe_format(parse(name))))
    assert format_of({"family": data["family"], "parameters": data["parameters"]}) == parse(name)


def test_small_sets_are_exhaustive() -> None:
    pairs = lowp.vectors("float4_e2m1fn", "add")
    assert pairs.cases == [(a, b) for a in range(16) for b in range(16)]
    assert pairs.header["order"] == [{"group": "exhaustive", "cases": 256, "holds": pairs.header["order"][0]["holds"]}]
    assert len(lowp.vectors("float8_e4m3fn", "sqrt")) == 256
    assert len(lowp.vectors("e2m1f", "fma")) == 4096
    assert len(lowp.vectors("float4_e2m1fn", "add", count=20)) == 20


def test_results_are_those_of_fast_arithmetic() -> None:
    made = lowp.vectors("float8_e5m2", "multiply", count=400, seed=4)
    a, b = (lowp.array.from_codes(codes, "float8_e5m2") for codes in made.operands.values())
    values = lowp.decode(made.results["result"], "float8_e5m2")
    np.testing.assert_array_equal((a * b).values, values)


def test_the_cases_of_a_seed_never_change() -> None:
    """The file version must change with them."""
    made = [
        lowp.vectors("float16", "mul", seed=7, count=200),
        lowp.vectors("mxfp4", "block_quantize", seed=7, count=20),
    ]
    digests = [hashlib.sha256(repr(v.cases).encode()).hexdigest()[:16] for v in made]
    assert made[0].header["version"] == 1
    assert digests == ["49d052260cb1ef4f", "4e246fd2f100579e"]
    assert lowp.vectors("float16", "mul", seed=8, count=200).cases != made[0].cases


def test_level_two_has_more_and_holds_more_landmarks() -> None:
    one, two = (landmark_codes(scalar("float16"), level) for level in (1, 2))
    assert set(one) < set(two)
    assert {0x0000, 0x8000, 0x7C00, 0xFC00, 0x7BFF, 0x0001, 0x03FF, 0x0400, 0x3C00, 0x7C01, 0x7FFF} <= set(one)
    assert [level_count(make("add").semantics, level) for level in (1, 2)] == [2048, 16384]
    assert [level_count(make("mx").semantics, level) for level in (1, 2)] == [1024, 8192]
    assert len(lowp.vectors("float16", "dot", accumulator="exact", length=64)) == 128


@pytest.mark.parametrize("op", ["add", "multiply", "fma"])
def test_levels_hold_ties_cancellation_overflow_and_specials(op: str) -> None:
    made, fmt = lowp.vectors("float16", op, count=1000), scalar("float16")
    seen = {"tie": 0, "zero": 0, "special": 0, "above": 0, "subnormal": 0}
    for case in made.cases:
        x = exact_ops.exact_result(made.semantics.operation, [fmt.meaning(code) for code in case])
        if isinstance(x, str):
            seen["special"] += 1
            continue
        assert isinstance(x, Fraction)
        below, above = exact.neighbours(x, fmt)
        if below is None or above is None:
            seen["above"] += 1
        elif x != below:
            seen["tie"] += 2 * x == below + above
        seen["zero"] += x == 0
        seen["subnormal"] += 0 < abs(x) < 2.0**-14
    assert seen.pop("zero") >= 1
    assert min(seen.values()) >= 5, seen


def test_cases_without_a_result_are_left_out_or_replaced() -> None:
    left_out, replaced = (lowp.vectors("int4", "divide", nan=nan) for nan in ("skip", "max"))
    assert (0, 0) not in left_out.cases
    assert (len(left_out), left_out.header["left_out"]) == (255, 1)
    assert replaced.answers[0] == (7,)


def test_stochastic_sets_bring_their_random_words() -> None:
    made = make("stochastic")
    assert [c.name for c in made.semantics.operands] == ["a", "b", "random"]
    fmt = scalar("bfloat16")
    a, b, word = made.cases[-1]
    wanted = exact_ops.operate(
        "multiply", (fmt.meaning(a), fmt.meaning(b)), fmt, "stochastic_b", random=word, random_bits=7
    )
    assert made.answers[-1] == (wanted,)
    assert make("random chain").operands["random"].shape == (20, 4)


def test_arrays_have_a_row_per_case() -> None:
    made = make("chain")
    assert {name: (x.shape, x.dtype.name) for name, x in made.operands.items()} == {
        "a": ((20, 4), "uint8"),
        "b": ((20, 4), "uint8"),
    }
    assert made.results["result"].dtype == np.uint16
    assert make("wide").results["result"].dtype == object


def test_blocks_are_those_of_encode() -> None:
    made = make("mx")
    x = made.operands["x"].view(np.float32)
    for row, scale, elements in zip(x, made.results["scale"], made.results["elements"], strict=True):
        done = lowp.encode(row, "mxfp4")
        assert (int(done.scales[0]), done.codes.tolist()) == (int(scale), elements.tolist())
    packed = make("packed")
    blocks = [lowp.encode(row, "ggml_q4_0").pack() for row in packed.operands["x"].view(np.float32)]
    np.testing.assert_array_equal(packed.results["bytes"], blocks)
    assert "no exact definition" in packed.header["computed_by"]


@pytest.mark.parametrize(
    ("error", "says", "arguments"),
    [
        (ArgumentError, "'multiply'", {"op": "multiplyy"}),
        (ArgumentError, "level=3", {"level": 3}),
        (ArgumentError, "count=0", {"count": 0}),
        (ArgumentError, "seed=-1", {"seed": -1}),
        (ArgumentError, "style='hexx'", {"style": "hexx"}),
        (ArgumentError, "'ties_to_even'", {"rounding": "ties_to_evn"}),
        (ArgumentError, "nan='error'", {"nan": "error"}),
        (ArgumentError, "length=3 goes with", {"length": 3}),
        (ArgumentError, "accumulator='exact' goes with", {"accumulator": "exact"}),
        (ArgumentError, "length=0", {"op": "dot", "length": 0}),
        (ArgumentError, "more than one block", {"op": "block_quantize", "fmt": "mxfp4", "length": 33}),
        (FormatError, "'int9x'", {"fmt": "int9x"}),
        (FormatError, "integers and fixed point", {"overflow": "wrap"}),
        (FormatError, "needs a block format", {"op": "block_quantize"}),
        (ArgumentTypeError, "scalar format", {"fmt": "mxfp4"}),
        (FormatError, "from a seed", {"op": "block_quantize", "fmt": "nvfp4", "rounding": "stochastic"}),
    ],
)
def test_wrong_arguments_are_refused(error: type[Exception], says: str, arguments: dict[str, Any]) -> None:
    with pytest.raises(error, match=says):
        lowp.vectors(**{"fmt": "float16", "op": "add"} | arguments)
