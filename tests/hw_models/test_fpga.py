"""Units, engines and layers on FPGAs, and how many fit boards."""

import math

import pytest

import lowp
from lowp import hw
from lowp._errors import ArgumentError, ArgumentTypeError, FormatError
from lowp.hw_models.blocks import Block
from lowp.hw_models.fpga_targets import amount, fpga_target
from lowp.hw_models.tables import KINDS

TARGETS = ("series7", "versal", "xcup")
FORMATS = (
    "int4",
    "uint8",
    "int16",
    "ternary",
    "nf4",
    "float4_e2m1fn",
    "float8_e4m3fn",
    "float8_e5m2",
    "bfloat16",
    "float32",
    "mxfp4",
    "mxfp6_e2m3",
    "mxfp8",
    "mxint8",
    "nvfp4",
    "posit8_es0",
    "posit16_es1",
    "posit32_es2",
    "takum16",
    "lns8_f3",
)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", FORMATS)
def test_units_of_all_families(name, target):
    for unit in (hw.mac(name, target=target), hw.dot_unit(name, lanes=16, target=target, stages=3)):
        for quantity in ("lut", "ff", "dsp", "bram"):
            found = getattr(unit, quantity)
            assert found.low <= found.value <= found.high
            by_role = unit.by_role("bram" if quantity == "bram" else quantity)
            assert math.isclose(sum(e.value for e in by_role.values()), found.value)
        assert 10e6 < unit.clock.low <= unit.clock.value <= unit.clock.high < 1.2e9
        assert unit.lut.value + unit.dsp.value > 0
        with pytest.raises(FormatError):
            _ = unit.area


@pytest.mark.parametrize("target", TARGETS)
def test_formats_of_different_operands(target):
    mixed = hw.mac("int4", "float16", target=target)
    assert mixed.lut.value > 0
    wide = hw.mac("int8", "int8", target=target, accumulator="int32")
    narrow = hw.mac("int8", "int8", target=target, accumulator="int24")
    assert wide.lut.value > narrow.lut.value
    assert wide.ff.value == narrow.ff.value + 8


def test_order_of_formats_at_exact_accumulation():
    def luts(name):
        unit = hw.fpga_unit(name, lanes=32, accumulator="exact", multipliers="lut")
        return unit.without("register").lut.value

    order = ["int4", "e2m1fn", "int6", "int8", "float8_e4m3fn", "float8_e5m2"]
    values = [luts(name) for name in order]
    assert values == sorted(values)
    assert luts("float6_e2m3fn") < luts("int8")


def test_dsps_take_the_place_of_luts():
    logic = hw.fpga_unit("int8", multipliers="lut", accumulator="int32")
    dsp = hw.fpga_unit("int8", multipliers="dsp", accumulator="int32")
    assert (logic.dsp.value, dsp.dsp.value) == (0, 1)
    assert dsp.lut.value == 0  # the DSP adds the product to its own register
    assert dsp.ff.value == 0
    assert dsp.clock.value > logic.clock.value
    assert hw.fpga_unit("int8", multipliers="dsp", lanes=4, accumulator="int32").lut.value > 0
    versal = {n: hw.fpga_unit("int8", target="versal", multipliers="dsp", lanes=n, accumulator="int32") for n in (3, 6)}
    assert versal[3].lut.value == 0  # one DSP58 sums three products
    assert versal[6].lut.value == pytest.approx(1.05 * 18 + 32)  # two sums of three, and the accumulator
    assert hw.fpga_unit("int8").multipliers == "auto"
    assert hw.fpga_unit("int16").dsp.value == 1
    assert hw.fpga_unit("int9").dsp.value == 0


@pytest.mark.parametrize(
    ("name", "target", "dsp"),
    [
        ("int8", "xcup", 32),  # two per DSP, which share an operand
        ("int8", "series7", 32),
        ("int4", "xcup", 16),
        ("int16", "xcup", 64),
        ("float32", "xcup", 128),
    ],
)
def test_packing_in_engines(name, target, dsp):
    accumulator = "int32" if name.startswith("int") else "float32"
    engine = hw.matrix_engine(
        name, rows=8, columns=8, target=target, multipliers="dsp", accumulator=accumulator, lanes=1
    )
    assert engine.dsp.value == dsp


@pytest.mark.parametrize(
    ("a", "b", "rows", "columns", "dsp"),
    [
        ("int8", "int8", 3, 3, 6),  # two of the three units of a row, and one alone
        ("int8", "int8", 1, 5, 3),
        ("int8", "int8", 4, 3, 6),
        ("int4", "int4", 5, 5, 10),
        ("int4", "uint4", 4, 1, 1),
        ("int4", "uint4", 1, 4, 4),  # units of a row have no right operand in common
    ],
)
def test_packed_lanes_share_an_operand_of_a_row_or_a_column(a, b, rows, columns, dsp):
    engine = hw.matrix_engine(a, b, rows=rows, columns=columns, multipliers="dsp", accumulator="int32")
    assert engine.dsp.value == dsp


@pytest.mark.parametrize("clock", [0, -1.0, math.inf, math.nan, "fast"])
def test_clocks_are_checked_by_name(clock):
    layer = hw.streaming_layer(64, 64, "int4", pe=4, simd=4)
    fit = hw.fit_units(hw.fpga_unit("mxfp4", lanes=32), "zcu102")
    for rate in (layer.throughput, layer.vectors_per_second, fit.throughput):
        with pytest.raises(ArgumentError, match="clock="):
            rate(clock)


def test_products_that_are_kept_are_chosen_by_multiplexers():
    """128 products of 16 bits: 127 multiplexers of two words per bit, up to three of them in a LUT."""
    element = hw.processing_element("axllm")
    choice = next(b for b in element.datapath.blocks if b.label == "choice of a product")
    assert (choice.kind, choice["inputs"], choice["bits"]) == ("selector", 128, 16)
    assert element.cost("xcup").by_role("lut")["multiply"].value > 127 * 16 / 3
    assert element.cost("n28").by_role("area")["multiply"].value > 127 * 16 * 1.44e-12


def test_dot_products_in_one_dsp58():
    assert hw.fpga_unit("int8", target="versal", multipliers="dsp", lanes=9, accumulator="int32").dsp.value == 3
    engine = hw.matrix_engine(
        "int8", rows=4, columns=4, lanes=8, target="versal", multipliers="dsp", accumulator="int32"
    )
    assert engine.dsp.value == 4 * 4 * 3


def test_engine_counts_buffers_and_shares_operands():
    small, large = (hw.matrix_engine("mxfp4", rows=n, columns=n, lanes=32, depth=512) for n in (4, 8))
    assert large.products_per_cycle == 4 * small.products_per_cycle
    assert large.bram18.value == 2 * small.bram18.value  # buffers grow with the edge
    assert 3.5 < large.lut.value / small.lut.value < 4.1
    ultra = hw.matrix_engine("mxfp4", rows=4, columns=4, lanes=32, memory="ultra")
    assert (ultra.bram18.value, ultra.uram.value) == (0, 2 * 4 * math.ceil(32 * 4.25 / 72))
    assert small.throughput(200e6).value == 2 * small.products_per_cycle * 200e6
    with pytest.raises(ArgumentError, match="streaming layer"):
        small.vectors_per_second()


@pytest.mark.parametrize("estimator", ["datapath", "finn", "finn_corrected"])
def test_streaming_layers_agree_within_a_factor(estimator):
    layer = hw.streaming_layer(256, 256, "int4", "uint4", pe=16, simd=16, estimator=estimator)
    assert layer.bram18.value == 29
    assert layer.cycles == 256
    assert layer.products_per_cycle == 256
    assert 5_000 < layer.lut.value < 15_000
    assert layer.vectors_per_second(200e6).value == 200e6 / 256


@pytest.mark.parametrize("name", ["mxfp4", "mxfp8", "float8_e4m3fn", "posit8_es1", "lns8_f3", "ternary", "mxint8"])
def test_streaming_layers_of_any_format(name):
    layer = hw.streaming_layer(64, 32, name, pe=4, simd=32, memory="ultra")
    assert layer.lut.value > 300
    assert layer.uram.value > 0
    assert layer.cycles == 2 * 8


def test_streaming_layer_follows_finn():
    from lowp.hw_models.finn import Mvau

    layer = hw.streaming_layer(96, 64, "int8", "uint8", pe=4, simd=6, estimator="finn", thresholds=3)
    unit = Mvau(96, 64, 4, 6, w=8, a=8, thresholds=3)
    assert layer.lut.value == unit.lut()
    dsp = hw.streaming_layer(96, 64, "int8", "uint8", pe=4, simd=6, estimator="finn_corrected", multipliers="dsp")
    assert dsp.dsp.value == 2 * 6
    with pytest.raises(FormatError, match="no data type of FINN"):
        hw.streaming_layer(64, 64, "mxfp4", pe=1, simd=32, estimator="finn")


def test_pipelining_raises_the_clock_and_adds_registers():
    one, four = (hw.dot_unit("mxfp8", target="xcup", stages=n) for n in (1, 4))
    assert four.clock.value > 1.5 * one.clock.value
    assert four.ff.value > one.ff.value
    assert four.lut.value == one.lut.value
    assert hw.mac("int8", target="series7").clock.value < hw.mac("int8", target="xcup").clock.value


def test_conversions_are_an_option():
    bare, whole = (hw.dot_unit("mxfp4", target="xcup", conversions=c) for c in (False, True))
    assert whole.lut.value > bare.lut.value
    assert whole.without("convert").lut.value == pytest.approx(bare.lut.value)
    with pytest.raises(ArgumentError, match="role='conversion' is not known"):
        whole.without("conversion")
    assert next(iter(bare.shares("lut").values())) >= 1 / len(bare.shares("lut"))


def test_wide_tables_become_block_rams():
    found = hw.mac("lns16_f7", target="xcup")
    assert found.bram.value == 0
    wide = hw.mac(lowp.LNS(16, 12), target="xcup") if hasattr(lowp.LNS, "gamma") else None
    assert wide is None or wide.lut.value + wide.bram.value > 0


# Boards


def test_fit_follows_limits_and_shell():
    unit = hw.fpga_unit("int8", multipliers="lut", accumulator="int32", lanes=16)
    fit = hw.fit_units(unit, "zcu102")
    assert fit.limited_by == "lut"
    assert fit.count.value == math.floor(0.7 * 274_080 / unit.lut.value)
    shell = hw.fit_units(unit, "zcu102", controllers=("ddr", "ethernet"))
    assert shell.count.value == math.floor(0.7 * (274_080 - 33_256 - 35_219) / unit.lut.value)
    free = hw.fit_units(unit, "zcu102", limits={"lut": 1.0})
    assert free.count.value > fit.count.value
    assert dict(fit.shares)["lut"] <= 0.7
    assert fit.throughput(1e8).value == 2 * 16 * 1e8 * fit.count.value


def test_fit_by_dsp_and_average():
    engine = hw.matrix_engine("int8", rows=8, columns=8, multipliers="dsp", accumulator="int32", depth=128)
    fit = hw.fit_units(engine, "u50")
    assert fit.limited_by in ("dsp", "bram18", "average")
    everything = hw.fit_units(engine, "u50", limits={"average": 1.0})
    assert everything.count.value >= fit.count.value
    assert fit.count.low <= fit.count.value <= fit.count.high


def test_fit_refuses_what_does_not_belong_together():
    unit = hw.mac("int8", target="xcup")
    with pytest.raises(ArgumentError, match="device='vck190' is 'versal'"):
        hw.fit_units(unit, "vck190")
    with pytest.raises(ArgumentError, match="has no figure 'ff'"):
        hw.fit_units(hw.mac("int8", target="versal"), "vhk158")
    with pytest.raises(ArgumentError, match="limits='luts' is not known"):
        hw.fit_units(unit, "u50", limits={"luts": 0.5})
    with pytest.raises(ArgumentError, match="controller='pcie' is not known"):
        hw.fit_units(unit, "u50", controllers=("pcie",))
    with pytest.raises(ArgumentTypeError, match="must be the cost of a unit on an FPGA"):
        hw.fit_units(hw.mac("int8", target="n28"), "u50")


def test_decoding_is_bound_by_memory_or_units():
    wide, narrow = (hw.fpga_decode("llama-2-7b", "u280", weights=w) for w in ("float16", "int4_g128"))
    assert 3.5 < narrow.value / wide.value < 4
    weights = 32 * (4 * 4096**2 + 3 * 4096 * 11008) + 4096 * 32000
    fastest = hw.fpga_device("u280").figure("bandwidth").high
    assert narrow.high == pytest.approx(fastest / (weights * lowp.parse("int4_g128").bits_per_value / 8))
    assert hw.fpga_decode("llama-2-7b", "u280", weights=3.5, efficiency=1.0).bound == "memory"
    unit = hw.fpga_unit("int4", multipliers="lut", accumulator="int32")
    fit = hw.fit_units(unit, "pynq_z1") if unit.target == "series7" else hw.fit_units(unit, "ultra96")
    batched = hw.fpga_decode("llama-2-7b", "u280", weights="int4_g128", batch=512, fit=fit, clock=1e8)
    assert batched.bound == "compute"
    assert batched.value == pytest.approx(
        fit.throughput(1e8).value / (2 * (32 * (4 * 4096**2 + 3 * 4096 * 11008) + 4096 * 32000))
    )
    long = hw.fpga_decode("llama-2-7b", "u280", weights="int4_g128", context=4096, batch=8)
    short = hw.fpga_decode("llama-2-7b", "u280", weights="int4_g128", context=128, batch=8)
    assert long.value < short.value
    with pytest.raises(ArgumentError, match="is no language model"):
        hw.fpga_decode("vit-b16", "u280")
    with pytest.raises(ArgumentError, match=r"efficiency=1\.5"):
        hw.fpga_decode("llama-2-7b", "u280", efficiency=1.5)


def test_decoding_reads_the_experts_that_are_taken():
    layer, expert = 2 * 4096 * 128 * (32 + 8) + 8 * 4096, 3 * 4096 * 14336
    head = 4096 * 32000
    for batch, taken in ((1, 2), (64, 8)):
        rate = hw.fpga_decode("mixtral-8x7b", "v80", weights=4, batch=batch, efficiency=1.0)
        band = hw.fpga_device("v80").figure("bandwidth").value
        assert rate.value == pytest.approx(batch * band / (32 * (layer + taken * expert) + head) * 2)


def test_models_beyond_a_boards_memory_are_named():
    assert "takes 137 GB of a memory of 8.59 GB" in hw.fpga_decode("llama-2-70b", "u50").provenance
    assert "takes" not in hw.fpga_decode("llama-2-7b", "u50", weights="int4_g128").provenance


# Coefficients


@pytest.mark.parametrize("target", TARGETS)
def test_coefficients_have_ranges_and_sources(target):
    from lowp.hw_models import fpga_targets

    for row in fpga_targets._rows(target):
        assert None not in row.values(), row
        if row["block"] == "target":
            continue
        assert float(row["low"]) <= float(row["value"]) <= float(row["high"]), row
        assert row["kind"] in KINDS, row
        assert row["source"], row
        assert row["unit"] or row["block"] == "node", row


def test_missing_coefficients_raise():
    with pytest.raises(FormatError, match="has no coefficient for the energy of block 'adder'"):
        fpga_target("xcup").count(Block.of("adder", "sum", bits=8), "energy")
    with pytest.raises(FormatError, match="has no constant 'price'"):
        fpga_target("xcup").constant("price")
    with pytest.raises(ArgumentError, match="is no FPGA"):
        fpga_target("n28")
    with pytest.raises(ArgumentError, match="multipliers='luts' is not known"):
        hw.fpga_unit("int8", multipliers="luts")


def test_amounts():
    grown = Block.of("shifter", "align", bits=38, positions=29)
    assert amount(grown, "mux4") == (10 + 3) + (10 + 3 + 12)
    assert amount(grown, "mux2") == 38
    whole = Block.of("normaliser", "normalise", bits=16)
    assert amount(whole, "mux4") == 32
    assert amount(Block.of("table", "linear", entries=100, bits=3), "lut6") == 3 * 2


def test_units_and_designs_have_their_block_rams_by_one_name():
    unit = hw.dot_unit("lns16_f7", target="xcup")
    design = hw.matrix_engine("int8", rows=2, columns=2)
    assert unit.bram == unit.bram18
    assert design.bram == design.bram18
    assert design.bram.unit == unit.bram.unit == "BRAM18"
