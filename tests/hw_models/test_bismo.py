"""BISMO's bit-serial cost model."""

import pytest

from lowp import hw
from lowp._errors import ArgumentError, FormatError


def test_published_array():
    found = hw.bismo(8, 256, 8)
    assert found.lut.value == pytest.approx(64 * (1.17 * 256 + 44.1 + 120.1))
    assert found.lut.low < found.lut.value < found.lut.high
    assert found.binary_ops_per_cycle == 2 * 8 * 8 * 256
    assert found.bram36.value == 8 * (8 + 8)
    assert hw.bismo(8, 256, 8, left_words=1025).bram36.value == 8 * (16 + 8)


def test_rate_falls_with_pairs_of_bit_planes():
    found = hw.bismo(8, 256, 8)
    binary, four = found.throughput(200e6), found.throughput(200e6, "int4", 4)
    assert binary.value == pytest.approx(6.5536e12)
    assert four.value == pytest.approx(binary.value / 16)
    assert found.throughput(200e6, "int2", "uint3").value == pytest.approx(binary.value / 6)
    assert found.cycles(9, 257, 8, 2, 3) == 2 * 2 * 1 * 6


def test_first_version_takes_more():
    assert hw.bismo(version="v1").lut.value > 1.5 * hw.bismo().lut.value


def test_wrong_arguments():
    with pytest.raises(ArgumentError, match="version='v3' is not known"):
        hw.bismo(version="v3")
    with pytest.raises(ArgumentError, match="depth=0"):
        hw.bismo(8, 0, 8)
    with pytest.raises(ArgumentError, match="clock="):
        hw.bismo().throughput(0)
    with pytest.raises(FormatError, match="has no bit planes"):
        hw.bismo().throughput(2e8, "float8_e4m3fn")


def test_largest_published_array_fits_its_board():
    largest = hw.bismo(10, 256, 10)
    room = 0.7 * hw.fpga_device("ultra96").need("lut")
    assert largest.lut.value < room < hw.bismo(11, 256, 11).lut.value
    assert largest.throughput(300e6).value == pytest.approx(15.4e12, rel=0.01)
