"""FPGA boards, their shells and on-chip memories."""

import math

import pytest

from lowp import hw
from lowp._errors import ArgumentError, ArgumentTypeError
from lowp.hw_models.fpga_devices import planning_limits, shell_cost
from lowp.hw_models.fpga_memories import bram18, fewest_bram18, fifo, lutram, uram
from lowp.hw_models.tables import KINDS, rows

TABLES = ("fpga_devices", "fpga_shells", "fpga_bismo", "fpga_dsp", "fpga_finn", "fpga_system", "fpga_yosys")


@pytest.mark.parametrize("table", TABLES)
def test_every_row_has_a_source_and_a_kind(table):
    for row in rows(table):
        assert row["kind"] in KINDS, row
        assert row["source"], row
        assert None not in row, row
        assert None not in row.values(), row


@pytest.mark.parametrize("name", hw.fpga_devices())
def test_figures_are_ranges_of_plausible_size(name):
    board = hw.fpga_device(name)
    for quantity, figure in board.figures:
        assert figure.low <= figure.value <= figure.high, quantity
        assert math.isfinite(figure.high)
    assert 5e4 < board.need("lut") < 3e6
    assert board.dsp_block == {"series7": "DSP48E1", "xcup": "DSP48E2", "versal": "DSP58"}[board.target]
    assert board.need("bram18") == 2 * board.need("bram36")


@pytest.mark.parametrize(
    ("name", "lut", "dsp", "bram36", "uram"),
    [
        ("PYNQ-Z1", 53_200, 220, 140, 0),
        ("zcu102", 274_080, 2520, 912, 0),
        ("Alveo U50", 742_560, 5352, 1128, 608),
        ("u280", 1_163_520, 8496, 1752, 960),
        ("VCK190", 899_840, 1968, 967, 463),
        ("v80", 2_574_208, 10_848, 3741, 1925),
    ],
)
def test_resources_of_boards(name, lut, dsp, bram36, uram):
    board = hw.fpga_device(name)
    assert [board.need(q) for q in ("lut", "dsp", "bram36", "uram")] == [lut, dsp, bram36, uram]


def test_conflicting_sources_are_kept_as_ranges():
    assert hw.fpga_device("u250").figure("lut").high == 1_728_000
    assert hw.fpga_device("v80").figure("bandwidth").low == 460e9
    assert hw.fpga_device("ultra96").figure("bram36")[:3] == (216, 206, 216)


def test_missing_figures_and_wrong_names_raise():
    with pytest.raises(ArgumentError, match="device='vhk158' has no figure 'ff'"):
        hw.fpga_device("vhk158").need("ff")
    with pytest.raises(ArgumentError, match="Did you mean"):
        hw.fpga_device("u281")
    with pytest.raises(ArgumentTypeError, match="device=250 must be a name"):
        hw.fpga_device(250)
    with pytest.raises(ArgumentError, match="controller='pcie' is not known"):
        shell_cost("pcie")


def test_shells_and_limits_are_finns():
    assert shell_cost("ddr") == {"lut": 33256, "ff": 44889, "bram18": 199, "uram": 0, "dsp": 3}
    assert planning_limits() == {"lut": 0.7, "ff": 0.5, "bram18": 0.8, "uram": 0.8, "dsp": 0.8, "average": 0.7}


@pytest.mark.parametrize(
    ("width", "words", "blocks"),
    [
        (1, 16385, 2),
        (2, 8192, 1),
        (3, 4097, 2),
        (9, 2048, 1),
        (10, 1024, 1),
        (18, 1025, 2),
        (19, 512, 1),
        (36, 513, 2),  # deeper than 512 words: 18 bits wide
        (1024, 256, 29),
    ],
)
def test_block_rams(width, words, blocks):
    assert bram18(width, words) == blocks
    assert fewest_bram18(width, words) <= blocks


def test_other_memories():
    assert uram(73, 4097) == 4
    assert lutram(3, 64) == 3
    assert fifo(8, 32) == {"lut": 2 * 5 + 4, "bram18": 0, "uram": 0}
    assert fifo(8, 33)["lut"] == 2 * 6 + 8
    assert fifo(72, 4096, "ultra") == {"lut": 24, "bram18": 0, "uram": 1}
    with pytest.raises(ArgumentError, match="style='bram' is not known"):
        fifo(8, 8, "bram")
    with pytest.raises(ArgumentError, match="width=0 must be at least 1"):
        bram18(0, 1)


def test_what_nobody_looked_up_is_assumed():
    for row in (*rows("fpga_devices"), *rows("devices")):
        if row["source"].endswith(("from memory", "unverified")):
            assert row["kind"] == "assumed", row
