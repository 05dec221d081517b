"""Products packed into DSPs: exact by computing them, known modes, and the bound."""

import itertools

import pytest

from lowp._errors import ArgumentError, FormatError
from lowp.formats import Integer
from lowp.hw_models.dsp_packing import dsp_modes, dsp_packing, dsp_ports, packed_accumulations, packing_bound


def _exact(block, lanes, a_bits, packed, shared, count):
    """Accumulate packed products as a DSP does, take the lanes apart, and say whether all are right."""
    ports = dsp_ports(block)
    stride = (ports.a - 1 - a_bits) // (lanes - 1) if lanes > 1 else 0
    word = sum(x << (i * stride) for i, x in enumerate(packed))
    total = word * shared * count
    if not -(1 << (ports.a - 1)) <= word < 1 << (ports.a - 1):
        return False
    if not -(1 << (ports.p - 1)) <= total < 1 << (ports.p - 1):
        return False
    found = []
    for _ in range(lanes - 1):  # a lane's sum is the low bits as two's complement; the rest borrows from it
        low = total & ((1 << stride) - 1)
        low -= (low >> (stride - 1)) << stride
        found.append(low)
        total = (total - low) >> stride
    return [*found, total] == [x * shared * count for x in packed]


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("block", ["DSP48E1", "DSP48E2", "DSP58"])
@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 8])
def test_packed_lanes_are_exact_and_no_longer_a_product_later(block, bits, signed):
    least, most = (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if signed else (0, (1 << bits) - 1)
    packed_ends = (-(1 << (bits - 1)), (1 << (bits - 1)) - 1)
    for lanes in (2, 3, 4):
        count = packed_accumulations(lanes, bits, bits, block, signed)
        ends = [(word, shared) for word in itertools.product(packed_ends, repeat=lanes) for shared in (least, most)]
        if count:
            assert all(_exact(block, lanes, bits, word, shared, count) for word, shared in ends)
            assert not all(_exact(block, lanes, bits, word, shared, count + 1) for word, shared in ends)


def test_two_int8_products_take_seven_accumulations():
    assert packed_accumulations(2, 8, 8, "DSP48E2") == 7
    assert dsp_packing("int8", accumulations=7).mode == "int8x2"
    assert dsp_packing("int8", accumulations=8).mode == "mvu_8sx8u"


@pytest.mark.parametrize(("shared", "count"), [("int8", 7), ("uint7", 7), ("uint8", 4)])
def test_two_int8_products_by_a_shared_operand_take_as_many_accumulations_as_are_exact(shared, count):
    found = dsp_packing("int8", shared, block="DSP48E2")
    assert (found.mode, found.lanes, found.stride, found.accumulations) == ("int8x2", 2, 18, count)
    least, most = (-128, 127) if shared == "int8" else (0, 2 ** int(shared[4:]) - 1)
    for word in itertools.product((-128, 127), repeat=2):
        for operand in (least, most):
            assert _exact("DSP48E2", 2, 8, word, operand, count)
    assert dsp_packing("int8", shared, block="DSP48E2", accumulations=count).mode == "int8x2"
    assert dsp_packing("int8", shared, block="DSP48E2", accumulations=count + 1).mode == "mvu_8sx8u"


def test_four_lanes_of_a_dsp48e1_take_no_most_negative_weight():
    """The top lane of four, 21 bits up, has room in 25 bits for -7, not for -8 and the borrow of the lanes below."""
    assert dsp_packing("int4", block="DSP48E1").mode == "packed"
    assert dsp_packing(4, block="DSP48E1").lanes == 3
    narrow = dsp_packing(Integer(4, symmetric=True), "uint4", block="DSP48E1")
    assert (narrow.mode, narrow.lanes) == ("mvu_4sx4u", 4)
    assert dsp_packing("int3", "uint4", block="DSP48E1").mode == "mvu_4sx4u"
    assert dsp_packing("int4", block="DSP48E2").mode == "mvu_4sx4u"


@pytest.mark.parametrize(
    ("a", "b", "block", "lanes"),
    [
        ("int4", "uint4", "DSP48E2", 4),
        ("int4", "int4", "DSP48E1", 3),
        ("int8", "uint8", "DSP48E1", 2),
        ("int8", "uint8", "DSP58", 3),
        ("int8", "int8", "DSP58", 3),
        ("int4", "int4", "DSP58", 4),
        ("int16", "int16", "DSP48E2", 1),
        ("int18", "int27", "DSP48E2", 1),
        ("int19", "int19", "DSP48E2", 1 / 2),
        ("float32", "float32", "DSP48E2", 1 / 2),
        ("float32", "float32", "DSP58", 1),
        ("float64", "float64", "DSP48E2", 1 / 12),
        ("bfloat16", "bfloat16", "DSP48E2", 2),
        ("float16", "float16", "DSP48E2", 1),
    ],
)
def test_lanes(a, b, block, lanes):
    found = dsp_packing(a, b, block=block)
    assert found.lanes == pytest.approx(lanes)
    assert found.dsp_per_product == pytest.approx(1 / lanes)
    assert found.source


@pytest.mark.parametrize("block", ["DSP48E1", "DSP48E2", "DSP58"])
def test_no_known_mode_exceeds_the_bound(block):
    for mode in dsp_modes(block):
        if mode.name != "float32" and mode.shared:
            assert mode.lanes <= packing_bound(mode.a_bits, mode.b_bits, block, mode.accumulations or 1)
    assert packing_bound(32, 32, block) == 0


def test_wrong_operands():
    with pytest.raises(FormatError, match="must be an integer, fixed point, or a float"):
        dsp_packing("posit8")
    with pytest.raises(ArgumentError, match="block='DSP48' is not known"):
        dsp_packing("int8", block="DSP48")
