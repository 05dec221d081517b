"""The model of products by table lookup: counts in closed form, tables, bytes, cycles, time, break-even."""

from __future__ import annotations

import math

import pytest

import lowp
from lowp import hw
from lowp.hw_models.lut_counts import layout, start_sums
from lowp.hw_models.tables import KINDS, rows


@pytest.mark.parametrize("bits", [1, 2, 3, 4])
@pytest.mark.parametrize(("m", "n", "k"), [(1, 4096, 4096), (7, 96, 640), (3, 11, 4)])
def test_bit_serial_counts_in_closed_form(bits, m, n, k):
    weights = "uint1" if bits == 1 else f"int{bits}"
    cost = hw.lut_gemm(m, n, k, weights, engine=hw.lut_engine("t_mac", table_block=k))
    assert cost.tables == m * k // 4
    assert cost.build_adds == m * (k // 4) * 8
    assert cost.lookups == cost.adds == m * n * (k // 4) * bits
    assert cost.build_share == 8 / (n * bits)
    assert cost.table_bits == 64
    assert cost.table_bytes == m * (k // 4) * 8


def test_building_is_negligible_where_outputs_are_many():
    assert hw.lut_gemm(1, 4096, 4096, "int2").build_share == pytest.approx(0.001, abs=5e-5)


def test_element_wise_look_ups_do_not_grow_with_bits():
    assert hw.lut_gemm(2, 64, 96, "ternary", engine="tl2").lookups == 2 * 64 * 32
    assert hw.lut_gemm(2, 64, 96, "ternary", engine="tl1").lookups == 2 * 64 * 48
    assert hw.lut_gemm(2, 64, 96, "ternary", engine="t_mac").lookups == 2 * 64 * 24 * 2


def test_one_look_up_serves_all_tokens_of_vector_tables():
    one, many = (hw.lut_gemm(m, 64, 96, "ternary", engine="vec_lut_i2") for m in (1, 32))
    assert one.lookups == many.lookups == 64 * 24
    assert many.adds == 32 * one.adds


def test_a_table_of_products_is_built_once():
    cost = hw.lut_gemm(5, 7, 33, "int2", "int2", "deepgemm")
    assert (cost.entries, cost.tables, cost.counts.build_products) == (16, 1, 16)
    assert cost.lookups == 5 * 7 * 33


@pytest.mark.parametrize(("k", "group", "scales"), [(4096, 128, 32), (4100, 128, 33), (100, 0, 1), (64, 128, 1)])
def test_scales_per_group(k, group, scales):
    weights = f"int4_g{group}" if group else "int4_row"
    assert hw.lut_gemm(2, 3, k, weights, engine="t_mac").counts.scale_products == 2 * 3 * scales
    assert hw.lut_gemm(2, 3, k, weights, engine="lut_gemm").counts.scale_products == 2 * 3 * scales * 4


def test_tables_do_not_cross_groups():
    cut = layout(70, 4, 32, 0, 0)
    assert len(cut.table_start) == 8 + 8 + 2
    assert cut.table_length[-1] == 2
    assert layout(70, 4, 32, 48, 0).block_input == (0, 0, 1, 1)
    assert hw.lut_gemm(1, 1, 70, "int4_g30_fp16", engine="conventional").tables == 8 + 8 + 3


@pytest.mark.parametrize("base", [2, 3, 5])
@pytest.mark.parametrize("mirror", [True, False])
def test_partial_sums(base, mirror):
    for group in range(1, 6):
        sums = [math.ceil(base**n / 2) if mirror else base**n for n in range(2, group)]
        assert start_sums(base, group, mirror) == sum(sums)


def test_zero_points_and_offsets_cost_a_product_per_group():
    assert hw.lut_gemm(1, 8, 256, "int4_g128_asym").counts.offset_products == 16
    assert hw.lut_gemm(1, 8, 256, "binary").counts.offset_products == 0
    assert hw.lut_gemm(1, 8, 256, "binary").counts.sum_adds == 0


def test_bytes_of_weights_are_indices_and_scales():
    assert hw.lut_gemm(1, 64, 256, "int4_g128_fp16").bits_per_weight == 4 + 16 / 128
    assert hw.lut_gemm(1, 64, 255, "ternary", engine="tl2").bits_per_weight == pytest.approx(5 / 3)
    assert hw.lut_gemm(1, 64, 256, "ternary", engine="tl1").bits_per_weight == 2
    assert hw.lut_gemm(1, 64, 256, "ternary", engine="vec_lut_i1").bits_per_weight == 1.6
    assert hw.lut_gemm(1, 64, 256, "ggml_tq1_0", engine="dequantize").bits_per_weight == 1.6875


def test_cost_in_words():
    words = str(hw.lut_gemm(1, 64, 256, "int2", engine="t_mac", core="rpi5"))
    assert words.startswith("T-MAC 1 x 64 x 256: 64 tables of 8 x 8 bits")
    assert words.endswith(", compute)")


def test_tables_and_activations():
    full = hw.lut_gemm(1, 64, 256, "int4", "float16", "conventional")
    half = hw.lut_gemm(1, 64, 256, "int4", "float16", "t_mac")
    assert full.table_bytes / full.activation_bytes == 4
    assert half.table_bytes / half.activation_bytes == 1


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_hardware_takes_a_bit_plane_a_cycle(bits):
    weights = "binary" if bits == 1 else f"int{bits}"
    cost = hw.lut_gemm(3, 100, 9, weights, engine="lut_tensor_core")
    assert cost.cycles == 2 * 2 * 3 * bits
    assert cost.time.value == cost.cycles / 1e9
    assert hw.lut_gemm(1, 1, 1, weights, engine="t_mac").cycles is None


def test_outputs_that_share_a_table():
    whole, tiled = (hw.lut_gemm(1, 100, 64, "int2", outputs_per_table=n) for n in (None, 16))
    assert tiled.tables == 7 * whole.tables
    assert tiled.lookups == whole.lookups


def test_time_is_of_table_instructions_or_of_bytes():
    slow = hw.lut_gemm(1, 4096, 4096, "int2_g128", core="rpi5")
    core = hw.cpu_core("rpi5")
    looked = slow.lookups / 16 / (core.need("table_rate").value * core.need("clock").value)
    assert slow.cycles == pytest.approx(slow.time.value * core.need("clock").value)
    assert slow.time.bound == "compute"
    assert looked < slow.time.value < 1.02 * looked
    fast = hw.lut_gemm(1, 4096, 4096, "int2_g128", core=core.with_figures(table_rate=100.0), threads=1)
    assert fast.time.bound == "memory"
    moved = fast.weight_bytes + fast.activation_bytes + 4 * 4096
    assert fast.time.value == pytest.approx(moved / (17.1e9 * 0.74))


def test_entries_of_two_bytes_take_two_instructions():
    engine = hw.lut_engine("tl1")
    narrow, wide = (
        hw.lut_gemm(1, 4096, 4096, "ternary", "int4", hw.lut_engine(engine, entry_bits=bits), "m2_ultra").time.value
        for bits in (8, 16)
    )
    assert wide == pytest.approx(2 * narrow)


def test_what_no_data_say_raises():
    with pytest.raises(lowp.ArgumentError, match="table_rate"):
        _ = hw.lut_gemm(1, 64, 64, "int2", core="epyc_7v13")
    with pytest.raises(lowp.FormatError, match="256 entries"):
        hw.lut_gemm(1, 64, 64, "int2", engine="biqgemm", core="rpi5")
    with pytest.raises(lowp.ArgumentError, match="needs a CPU or a device"):
        _ = hw.lut_gemm(1, 64, 64, "int2").time
    with pytest.raises(lowp.ArgumentError, match="device='h100'"):
        hw.lut_gemm(1, 64, 64, "int2", engine="lut_tensor_core", device="h100")
    with pytest.raises(lowp.FormatError, match="no tensor core"):
        hw.lut_gemm(1, 64, 64, "int2", device="a100")
    with pytest.raises(lowp.ArgumentError, match="array='5'"):
        hw.lut_gemm(1, 64, 64, "int2", engine="lut_tensor_core", device="a100", array=5)
    with pytest.raises(lowp.ArgumentError, match="threads=5"):
        hw.lut_gemm(1, 64, 64, "int2", core="rpi5", threads=5)


@pytest.mark.parametrize(("unpack", "bits"), [(1, 2.3), (3, 4.6)])
def test_break_even_as_published(unpack, bits):
    found = hw.lut_break_even(unpack)
    assert found.value == pytest.approx(4 * (1 + unpack) / 3.5)
    assert found.value == pytest.approx(bits, abs=0.05)
    assert found.low < found.value < found.high


def test_break_even_moves_as_it_should():
    one = hw.lut_break_even(2)
    assert hw.lut_break_even(2, m=8, token_tile=8).value < one.value, "unpacking is shared by tokens"
    assert hw.lut_break_even(2, n=16).value < hw.lut_break_even(2, n=4096).value < one.value, "building counts"
    wide = hw.lut_break_even(2, "surface_book_3").value
    assert wide == pytest.approx((2.5 + 2) / 32 / (3.5 / 128)), "AVX2: 32 products, 2.5 instructions"
    with pytest.raises(lowp.ArgumentError, match="no bit planes"):
        hw.lut_break_even(2, engine="tl2")
    with pytest.raises(lowp.ArgumentError, match="unpack=-1"):
        hw.lut_break_even(-1)


def test_best_group():
    assert hw.optimal_lut_group(2, 4096) == 4
    assert hw.optimal_lut_group(1, 4096, "tl1", values=3) == 2
    assert hw.optimal_lut_group(1, 4096, "tl2", values=3) == 3
    for bits, n in ((1, 512), (2, 4096), (4, 11008)):
        best = hw.optimal_lut_group(bits, n, core=None)
        costs = {g: (2 ** (g - 1) / (n * bits) + 1) / g for g in range(1, 17)}
        assert costs[best] == min(costs.values())


def test_picture_marks_the_break_even_points():
    pytest.importorskip("matplotlib").use("Agg")
    ax = hw.plot_lut_break_even(unpack=(1, 3))
    points = [line for line in ax.get_lines() if line.get_marker() == "o"]
    assert [round(float(p.get_xdata()[0]), 2) for p in points] == [2.29, 4.57]
    assert ax.get_xlabel() == "bits per weight"
    with pytest.raises(lowp.ArgumentError, match="unpack is empty"):
        hw.plot_lut_break_even(unpack=())


@pytest.mark.parametrize(
    "table", ["lut_engines", "lut_tensor_cores", "cpu_isa", "cpu_cores", "cpu_unpack", "cpu_measured"]
)
def test_data_have_sources_kinds_and_intervals(table):
    for row in rows(table):
        assert row["kind"] in KINDS, row
        assert row["source"], row
        if row.get("low"):
            middle = float(row.get("value") or row["instructions"])
            assert float(row["low"]) <= middle <= float(row["high"]), row


@pytest.mark.parametrize("name", hw.lut_engines())
def test_engines(name):
    engine = hw.lut_engine(name)
    assert hw.lut_engine(engine) is engine
    assert str(engine).startswith(engine.title)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"style": "bitserial"}, "style='bitserial'"),
        ({"table": "int4"}, "table='int4'"),
        ({"group": 0}, "group=0"),
        ({"table_block": 6}, "table_block=6"),
        ({"plane_scales": True}, "plane_scales"),
        ({"grp": 3}, "attribute='grp'"),
    ],
)
def test_engines_that_cannot_be(changes, words):
    with pytest.raises(lowp.ArgumentError, match=words):
        hw.lut_engine("t_mac", **changes)


def test_units_in_hardware():
    half = hw.lut_unit("int2", "int8")
    wide = hw.lut_unit("int2", "int8", hw.lut_engine("lut_tensor_core", entry_bits=16))
    assert hw.lut_unit("int2", "int8", m=4).area.value == pytest.approx(2 * half.area.value, rel=0.02)
    assert half.area.value < wide.area.value < 2 * half.area.value
    assert half.without("accumulate", "register").area.value < half.area.value
    assert half.delay.unit == "s"
    selector = next(block for block in half.blocks if block.kind == "selector")
    assert (selector["inputs"], selector["bits"], selector.count) == (8, 8, 128)
    with pytest.raises(lowp.FormatError, match="no table per token"):
        hw.lut_unit("int2", "int2", "deepgemm")
    with pytest.raises(lowp.FormatError, match="accumulate=False"):
        hw.lut_unit("int2", "float16", "figlut")
