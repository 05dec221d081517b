"""Prices of MACs, dot units and tensor cores, and the coefficients they come from."""

from __future__ import annotations

import csv
import itertools
import time
from importlib.resources import files
from pathlib import Path

import pytest

from lowp import hw
from lowp._errors import ArgumentError, ArgumentTypeError, FormatError
from lowp.formats import Float, names, parse
from lowp.formats.spec import finite_values
from lowp.hw_models.tables import KINDS, rows
from lowp.hw_models.targets import target
from lowp.hw_models.value_sets import factor, last_bit

ASIC = hw.targets("asic")
#: Those with coefficients of every block.
WHOLE = ["gate_model", "n28", "n7", "nangate45", "sky130"]
ASCENDING = {
    "integers": ["int2", "int4", "int6", "int8", "int16"],
    "floats": ["float4_e2m1fn", "float6_e2m3fn", "float8_e4m3fn", "bfloat16", "float16", "float32"],
    "blocks": ["mxfp4", "mxfp6_e2m3", "mxfp8"],
    "posits": ["posit4_es1", "posit8_es1", "posit16_es1", "posit32_es1"],
}
_FOLDER = Path(str(files("lowp.hw_models"))) / "data" / "targets"


@pytest.mark.parametrize("name", ASIC)
def test_every_coefficient_has_an_interval_a_source_and_a_kind(name):
    with (_FOLDER / f"{name}.csv").open(newline="") as file:
        table = [r for r in csv.DictReader(file) if r["block"] != "target"]
    assert table
    for row in table:
        assert None not in row, row
        assert row["source"], row
        assert row["kind"] in KINDS, row
        low, high = float(row["low"]), float(row["high"])
        if row["unit"] or row["block"] == "node":
            assert low <= float(row["value"]) <= high, row
        else:
            assert 0 < low <= 1 <= high, row


def test_recipes_of_cells_have_a_source_and_a_kind():
    for row in rows("block_cells"):
        assert row["source"]
        assert row["kind"] in KINDS
        assert 0 < float(row["low"]) <= 1 <= float(row["high"])


@pytest.mark.parametrize("name", WHOLE)
@pytest.mark.parametrize("lanes", [1, 16])
@pytest.mark.parametrize("family", ASCENDING)
def test_wider_formats_take_more(name, lanes, family):
    areas = [hw.dot_unit(fmt, lanes=lanes, target=name).area for fmt in ASCENDING[family]]
    values = [a.value for a in areas]
    assert values == sorted(values)
    assert all(a.low < a.value < a.high for a in areas)
    assert all(a.unit == ("GE" if name == "gate_model" else "m2") for a in areas)


@pytest.mark.parametrize("name", [n for n in names() if parse(n).kind != "packed"])
@pytest.mark.parametrize("where", WHOLE)
def test_every_format_has_a_price(name, where):
    for lanes in (1, 16):
        cost = hw.dot_unit(name, lanes=lanes, target=where, conversions=True)
        assert 0 < cost.area.low <= cost.area.value <= cost.area.high
        assert sum(cost.shares().values()) == pytest.approx(1)
        assert cost.area.bound == next(iter(cost.shares()))


def test_roles_add_up():
    cost = hw.dot_unit("mxfp8", target="n28")
    for quantity in ("area", "energy"):
        roles = cost.by_role(quantity)
        whole = getattr(cost, quantity)
        assert sum(e.value for e in roles.values()) == pytest.approx(whole.value)
        assert sum(e.high for e in roles.values()) == pytest.approx(whole.high)
    assert cost.without("register").area.value == pytest.approx(cost.area.value - cost.by_role()["register"].value)


def test_an_array_shares_its_operands():
    one = hw.dot_unit("int8", lanes=16, target="n28")
    array = hw.tensor_core("int8", m=4, n=8, k=16, target="n28")
    logic = one.without("register").area.value
    assert array.without("register").area.value == pytest.approx(32 * logic)
    bits = (4 + 8) * 16 * 8 + 32 * 32
    flip_flop = target("n28").of(hw.Block.of("register", "register", bits=1), "area").value
    assert array.by_role()["register"].value == pytest.approx(bits * flip_flop)
    assert hw.tensor_core("int8", m=1, n=1, k=16, target="n28").area.value == pytest.approx(one.area.value)


def test_conversions_cost_more_and_are_named():
    plain, whole = (hw.mac("posit8_es2", target="n28", conversions=flag) for flag in (False, True))
    assert whole.area.value == pytest.approx(plain.area.value + whole.by_role()["convert"].value)
    assert "convert" not in plain.by_role()


def test_missing_coefficients_raise():
    with pytest.raises(FormatError, match="'sky130' has no coefficients of energy"):
        _ = hw.mac("int8", target="sky130").energy
    with pytest.raises(FormatError, match="'n28_zigzag' has no coefficient for the area of the cell 'OR'"):
        hw.mac("bfloat16", target="n28_zigzag")
    with pytest.raises(FormatError, match="'gate_model' has no coefficient for the delay of the cell 'ND2'"):
        _ = hw.mac("int8").delay
    with pytest.raises(FormatError, match="'n28' has no lut"):
        _ = hw.mac("int8", target="n28").lut
    assert hw.mac("int8", target="n28_zigzag").area.value > 0


def test_scaled_nodes_are_their_base_times_published_factors():
    for quantity, scaling in (("area", hw.area_scaling(45, 7)), ("energy", hw.energy_scaling(45, 7, 0.9, 0.75))):
        scaled, base = (getattr(hw.dot_unit("fp8", target=name), quantity) for name in ("n7", "nangate45"))
        assert scaled.value == pytest.approx(base.value * scaling, rel=2e-3)
        assert scaled.high / scaled.value > base.high / base.value  # the factor has an interval too


def test_pipelines_are_faster_and_larger():
    one, six = (hw.mac("float16", target="n28", stages=stages) for stages in (1, 6))
    assert six.delay.value == pytest.approx(one.delay.value / 6)
    assert six.area.value > one.area.value


def test_full_adders_and_muxes_of_small_blocks():
    """By hand: a 2 x 2 array multiplier has four ANDs and two full adders; a shift by 0 to 3 two stages."""
    multiplier = hw.Block.of("multiplier", "multiply", ma=2, mb=2)
    assert (multiplier.amount("cell"), multiplier.amount("full_adder")) == (4, 2)
    aligner = hw.Block.of("aligner", "align", n=4, product=2)
    # by 1: three outputs, one of them cleared or passed; by 2: four outputs, two of them
    assert (aligner.amount("mux"), aligner.amount("mask")) == (2 + 2, 1 + 2)
    normaliser = hw.Block.of("normaliser", "normalise", bits=8)
    assert normaliser.amount("mux") + normaliser.amount("mask") == 8 * 3


def test_units_of_floats_need_no_list_of_their_numbers():
    """The last bit of a float's numbers follows from its fields, but for the smallest."""
    for exponent, mantissa in itertools.product(range(1, 5), range(1, 7)):
        for specials in ("ieee", "fn", "fnuz", "finite", "p3109", "p3109_finite"):
            for subnormals in (True, False):
                try:
                    fmt = Float(exponent, mantissa, specials=specials, subnormals=subnormals)
                except FormatError:
                    continue
                listed = min(last_bit(abs(x)) for x in finite_values(fmt) if x)
                assert factor(fmt).unit == listed, fmt


def test_prices_are_quick_enough_to_explore():
    formats = [f"e{e}m{m}" for e in range(2, 6) for m in range(1, 8)]
    hw.dot_unit("int8", target="n7")
    start = time.process_time()
    for fmt in formats:
        _ = hw.dot_unit(fmt, target="n7").energy
    assert (time.process_time() - start) / len(formats) < 0.005  # under 1 ms where nothing else runs


def test_refusals():
    with pytest.raises(ArgumentError, match=r"target='sky13'.*sky130"):
        hw.mac("int8", target="sky13")
    with pytest.raises(ArgumentTypeError, match="target=7"):
        hw.mac("int8", target=7)
    with pytest.raises(ArgumentError, match="technology='pld'"):
        hw.targets("pld")
    with pytest.raises(ArgumentError, match="role='registers'"):
        hw.mac("int8", target="n28").without("registers")
    with pytest.raises(ArgumentError, match="quantity='power'"):
        hw.mac("int8", target="n28").by_role("power")
    with pytest.raises(ArgumentError, match="m=0"):
        hw.tensor_core("int8", m=0)


def test_operations_dies_and_scaling_refuse_what_is_not_published():
    with pytest.raises(ArgumentError, match=r"table='horrowitz'.*horowitz"):
        hw.operation("int8_add", "horrowitz")
    with pytest.raises(ArgumentError, match="name='int9_add'"):
        hw.operation("int9_add")
    with pytest.raises(ArgumentError, match="no published factor"):
        hw.area_scaling(45, 5)
    with pytest.raises(ArgumentError, match="end=5"):
        hw.energy_scaling(45, 5, 0.9, 0.7)
    with pytest.raises(ArgumentError, match="name='ga101'"):
        hw.die_area("ga101")
    with pytest.raises(ArgumentError, match="kind='HBM9'"):
        hw.memory_energy("HBM9", 1.0)


@pytest.mark.parametrize("name", hw.processing_elements())
def test_processing_elements_say_what_they_assume(name):
    element = hw.processing_element(name)
    assert element.source
    assert element.assumed
    assert element.source in element.describe()
    cost = element.cost("n28")
    assert 0 < cost.area.low < cost.area.value < cost.area.high
    for weights, steps in element.steps:
        assert element.products_per_step(weights) == element.datapath.lanes / steps
        energy = element.energy_per_product(weights).value
        at_every_step = cost.energy.value * steps / element.datapath.lanes
        assert energy < at_every_step if element.seldom else energy == pytest.approx(at_every_step)
    with pytest.raises(ArgumentError, match="weights='int99'"):
        element.products_per_step("int99")


def test_what_a_group_shares_counts_once_for_the_group():
    mixpe = hw.processing_element("MixPE")
    scale = sum(b.kind == "scale_multiplier" for b, products in mixpe.seldom if products == 128)
    assert scale == 1
    parts = mixpe.cost("n28").shares("energy")
    assert parts["scale"] > 0.4  # of a step in which all blocks work, but a product costs no scale of its own
    assert mixpe.energy_per_product("int4").value < 0.4 * mixpe.cost("n28").energy.value
    axllm = hw.processing_element("axllm")
    assert axllm.energy_per_product("int8").value < 0.6 * axllm.cost("n28").energy.value


def test_bit_serial_elements_trade_bits_for_steps():
    bitmod, mixpe = hw.processing_element("bitmod"), hw.processing_element("mixpe")
    assert bitmod.energy_per_product("fp3").value < bitmod.energy_per_product("int8").value
    assert mixpe.products_per_step("int4") == 2 * mixpe.products_per_step("int8")
    with pytest.raises(ArgumentError, match=r"name='bitmode'.*bitmod"):
        hw.processing_element("bitmode")
