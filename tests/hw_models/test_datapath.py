"""Which blocks a datapath has, how large they are, and how they are told and drawn."""

from __future__ import annotations

import pytest

import lowp
from lowp import hw
from lowp._errors import ArgumentError, ArgumentTypeError, FormatError
from lowp.formats import Block, Float, Integer, names, parse
from lowp.hw_models.blocks import KINDS, ROLES, adder_tree_bits
from lowp.hw_models.value_sets import factor


def _kinds(unit, role=None):
    return [block.kind for block in unit.blocks if role in (None, block.role)]


def _block(unit, kind, role=None):
    (found,) = [b for b in unit.blocks if b.kind == kind and role in (None, b.role)]
    return found


def test_integers_multiply_sum_and_accumulate():
    unit = hw.datapath("int8", lanes=32)
    assert _kinds(unit) == ["multiplier", "adder_tree", "adder", "register", "register", "register"]
    multiplier, tree = _block(unit, "multiplier"), _block(unit, "adder_tree")
    assert (multiplier.count, multiplier["ma"], multiplier["mb"]) == (32, 8, 8)
    assert (tree["inputs"], tree["bits"], tree.amount("tree_bit")) == (32, 16, 522)
    assert unit.accumulator.name == "int32"


@pytest.mark.parametrize(
    ("bits", "total"), [(8, 274), (12, 398), (16, 522), (10, 336), (14, 460), (20, 646), (38, 1204)]
)
def test_adder_trees_of_32_words_have_the_published_bits(bits, total):
    assert adder_tree_bits(32, bits) == total


@pytest.mark.parametrize("inputs", [2, 3, 5, 7, 31, 33])
def test_adder_trees_have_an_adder_less_than_words(inputs):
    assert adder_tree_bits(inputs, 1000) // 1000 == inputs - 1


def test_floats_align_under_the_largest_exponent():
    unit = hw.datapath("float8_e4m3fn", lanes=32)
    assert _kinds(unit, "align") == ["comparator_tree", "subtractor", "aligner", "negate"]
    aligner = _block(unit, "aligner")
    assert (aligner["n"], aligner["product"], aligner.count) == (24, 8, 32)
    assert _block(unit, "comparator_tree")["bits"] == 5  # 29 exponents of products
    assert unit.window == 24
    assert hw.datapath("float8_e4m3fn", lanes=32, window=32).window == 32


def test_exact_sums_of_floats_need_neither_comparison_nor_normalisation():
    unit = hw.datapath("float8_e4m3fn", lanes=32, accumulator="exact")
    kinds = _kinds(unit)
    assert "comparator_tree" not in kinds
    assert "normaliser" not in kinds
    shifter = _block(unit, "shifter")
    assert (shifter["bits"], shifter["positions"]) == (37, 29)
    assert unit.accumulator_bits == 42


def test_one_lane_is_a_fused_multiply_add():
    unit = hw.datapath("float16", accumulator="float16")
    assert _block(unit, "aligner")["n"] == 3 * 11 + 2
    assert "float_accumulator" not in _kinds(unit)
    assert unit.window is None


def test_scales_apply_once_per_group():
    nvfp4 = hw.datapath("nvfp4", lanes=32)
    assert _block(nvfp4, "adder_tree").count == 2
    assert [b.count for b in nvfp4.of_role("scale")] == [2, 2, 2, 2]
    assert _kinds(hw.datapath("mxfp4", lanes=32), "scale") == ["exponent_adder", "exponent_adder"]
    assert _kinds(hw.datapath("int8_row", lanes=32), "scale") == []
    odd = hw.datapath("mxfp4", lanes=40)
    assert [(b["inputs"], b.count) for b in odd.blocks if b.kind == "adder_tree"] == [(32, 1), (8, 1)]
    mixed = hw.datapath("mxint8", "int4_g128", lanes=64)
    assert _block(mixed, "adder_tree").count == 2


def test_pairs_of_microexponents_are_shifted():
    unit = hw.datapath("mx9", lanes=16)
    shifter = _block(unit, "shifter")
    assert (shifter.count, shifter["positions"], _block(unit, "multiplier")["ma"]) == (8, 3, 7)
    assert sum(b["bits"] * b.count for b in unit.blocks if b.operand == "a") == 9 * 16  # as many as are stored


def test_scales_of_whole_tensors_are_conversions():
    unit = hw.datapath("int8_row", conversions=True)
    (dequantizer,) = [b for b in unit.blocks if b.kind == "dequantizer"]
    assert [b.kind for b in dequantizer.parts].count("scale_multiplier") == 2


def test_a_zero_point_is_subtracted():
    unit = hw.datapath("int4_g128_asym", lanes=16)
    assert len([b for b in unit.of_role("decode") if b.kind == "subtractor"]) == 2
    assert _block(unit, "multiplier")["ma"] == 5


def test_posits_and_takums_are_decoded():
    posit = hw.datapath("posit16_es1")
    decoder = posit.of_role("decode")[0]
    assert [part.kind for part in decoder.parts] == ["negate", "leading_zero_counter", "shifter"]
    assert _block(posit, "multiplier")["ma"] == 16 - 1 - 2  # n - es - 2
    takum = hw.datapath("takum16_linear")
    assert _block(takum, "multiplier")["ma"] == 16 - 4
    stored = hw.datapath("posit8_es2", accumulator="posit16_es2")
    assert {"decoder", "encoder"} <= set(_kinds(stored, "accumulate"))


def test_logarithms_add_and_are_looked_up():
    unit = hw.datapath("lns8_f3", lanes=16)
    assert _kinds(unit, "multiply") == ["exponent_adder"]
    table = _block(unit, "table")
    assert (table["entries"], table["bits"]) == (8, 5)
    inside = hw.datapath("lns8_f3", accumulator="lns16_f3")
    assert _kinds(inside, "sum") == ["subtractor", "table"]
    gauss = lowp.GaussTable(3)
    given = hw.datapath("lns8_f3", accumulator=lowp.Accumulator(format="lns8_f3", product="lns8_f3", table=gauss))
    assert _block(given, "table", "sum")["entries"] == len(gauss.sums) + len(gauss.differences)
    mixed = hw.datapath("lns8_f3", "int8")
    assert {"table", "multiplier"} <= set(_kinds(mixed))
    assert "multiplier" in _kinds(hw.datapath("takum12_log"), "linear")


def test_logarithms_of_one_per_octave_are_powers_of_two():
    assert _block(hw.datapath(lowp.LNS(8, 0)), "multiplier")["ma"] == 1


def test_codebooks_are_tables():
    unit = hw.datapath("nf4", "bfloat16", lanes=4)
    table = _block(unit, "table")
    assert (table["entries"], table.count) == (16, 4)
    ternary = hw.datapath("ternary", "int8")
    assert _block(ternary, "multiplier")["ma"] == 1
    assert ternary.product_bits == 9  # 128 too


def test_floats_with_one_exponent_are_integers():
    """One exponent bit: the subnormals continue the normal numbers."""
    assert factor(Float(1, 2, specials="finite")).exponents == 1
    assert "aligner" not in _kinds(hw.datapath("msfp12", lanes=16))


def test_mixed_pairs_align_as_the_float_does():
    unit = hw.datapath("bfloat16", "int4_g128", lanes=16)
    assert (_block(unit, "multiplier")["ma"], _block(unit, "multiplier")["mb"]) == (8, 4)
    assert not [b for b in unit.blocks if b.role == "exponent"]


def test_elements_decoded_to_integers():
    unit = hw.datapath("mxfp4", lanes=32, integers=True)
    assert (_block(unit, "multiplier")["ma"], unit.of_role("decode")[0]["bits"]) == (4, 4)
    assert "aligner" not in _kinds(unit)
    assert unit.product_bits == hw.datapath("mxfp4", lanes=32).product_bits
    assert "shifter" in _kinds(hw.datapath("posit8_es0", integers=True), "decode")


def test_a_running_sum_among_the_terms_is_aligned_with_them():
    accumulator = lowp.Accumulator(format="float32", group=32, alignment=lowp.Alignment(fraction_bits=24))
    unit = hw.datapath("float8_e4m3fn", lanes=32, accumulator=accumulator)
    assert _block(unit, "comparator_tree")["inputs"] == 33
    assert "float_accumulator" not in _kinds(unit)


def test_conversions_are_a_line_of_their_own():
    plain, whole = (hw.datapath("mxfp8", lanes=32, conversions=flag) for flag in (False, True))
    assert [b for b in whole.blocks if not b.edge] == list(plain.blocks)
    assert {b.role for b in whole.blocks if b.edge} == {"convert"}
    assert not any(b.edge for b in plain.blocks)


def test_pipeline_registers_add_up_and_change_nothing_else():
    registers = []
    for stages in range(1, 7):
        unit = hw.datapath("float16", stages=stages)
        registers.append(sum(b["bits"] * b.count for b in unit.of_role("register")))
        assert [b for b in unit.blocks if b.role != "register"] == [
            b for b in hw.datapath("float16").blocks if b.role != "register"
        ]
    assert registers == sorted(set(registers))


@pytest.mark.parametrize("name", [n for n in names() if parse(n).kind != "packed"] + ["mx9", "hif4"])
@pytest.mark.parametrize("lanes", [1, 17])
def test_every_format_has_a_datapath(name, lanes):
    unit = hw.datapath(name, lanes=lanes, conversions=True)
    assert all(block.kind in KINDS and block.role in ROLES for block in unit.leaves())
    assert unit.describe().count("\n") >= len(unit.blocks)


def test_describe_is_a_tree_of_sizes():
    text = hw.datapath("mxfp4", lanes=32).describe()
    assert text.splitlines()[:2] == [
        "mxfp4 x mxfp4 + float32, 32 lanes",
        "  product 9 bits, window 10 bits, accumulator 32 bits",
    ]
    assert "    32 x multiplier ma=2 mb=2" in text
    assert "      rounder bits=24" in text


def test_plot_draws_every_block(tmp_path):
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    unit = hw.datapath("nvfp4", lanes=16, conversions=True)
    ax = unit.plot()
    assert len(ax.patches) >= len(unit.blocks)
    assert {t.get_text() for t in ax.texts} >= {"align", "registers", "16 x aligner"}
    ax.figure.savefig(tmp_path / "unit.png")
    matplotlib.pyplot.close(ax.figure)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"a": "ggml_q4_0"}, FormatError, "packed format"),
        ({"a": "fp88"}, FormatError, "not known"),
        ({"a": 8}, ArgumentTypeError, "a=8 must be a format"),
        ({"a": "int8", "lanes": 0}, ArgumentError, "lanes=0"),
        ({"a": "int8", "stages": 7}, ArgumentError, "stages=7"),
        ({"a": "int8", "lanes": 8, "terms": 4}, ArgumentError, "terms=4"),
        ({"a": "int8", "conversions": 1}, ArgumentTypeError, "conversions=1"),
        ({"a": "lns8_f3", "accumulator": "exact"}, FormatError, "irrational"),
        ({"a": "lns8_f3", "integers": True}, FormatError, "logarithmic"),
        ({"a": "int8", "accumulator": "nf4"}, FormatError, "no format in which"),
        ({"a": "int8", "accumulator": "mxfp4"}, FormatError, "no format in which"),
        ({"a": "mxint8", "accumulator": "int32"}, FormatError, "scaled blocks"),
        ({"a": "int8", "accumulator": "lns8_f3"}, FormatError, "adds logarithms"),
        ({"a": "lns8_f3", "b": "takum12_log"}, FormatError, "do not add"),
    ],
)
def test_refusals(arguments, error, message):
    with pytest.raises(error, match=message):
        hw.datapath(**arguments)


def test_blocks_refuse_other_sizes():
    with pytest.raises(ArgumentError, match="kind='multiplyer'"):
        hw.Block.of("multiplyer", "multiply", ma=2, mb=2)
    with pytest.raises(ArgumentError, match="allowed"):
        hw.Block.of("multiplier", "multiply", bits=2)
    with pytest.raises(ArgumentError, match="size='n'"):
        hw.Block.of("multiplier", "multiply", ma=2, mb=2)["n"]
    assert hw.datapath(Block(Integer(3), 8), lanes=8).product_bits == 6


def test_accumulators_say_which_sums_are_rounded():
    chain = hw.datapath("float16", lanes=8, accumulator=lowp.Accumulator(format="float32"))
    assert _block(chain, "aligner").count == 8
    assert "adder_tree" not in _kinds(chain)
    fours = hw.datapath("float8_e5m2", lanes=8, accumulator=lowp.Accumulator(format="float32", group=4))
    assert (_block(fours, "adder_tree")["inputs"], _block(fours, "adder_tree").count) == (4, 2)
    rounded = hw.datapath("float16", accumulator=lowp.Accumulator(format="float16", product="float16"))
    assert _block(rounded, "aligner")["n"] == 2 * 11 + 2
    assert [b.label for b in rounded.blocks if b.kind == "rounder"] == ["products to float16", ""]
    two = lowp.Accumulator(format="float16", chunk=64, outer=lowp.Accumulator(format="float32"))
    assert _block(hw.datapath("float8_e4m3fn", accumulator=two), "float_accumulator")["bits"] == 32


@pytest.mark.parametrize("field", [{"compensation": "kahan"}, {"rounding": "stochastic_a", "seed": 1}])
def test_accumulators_without_blocks_are_refused(field):
    with pytest.raises(FormatError, match=next(iter(field))):
        hw.datapath("float16", accumulator=lowp.Accumulator(format="float32", **field))
