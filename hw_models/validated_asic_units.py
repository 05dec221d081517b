"""Areas and energies of MACs and dot units: predictions of published numbers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from itertools import pairwise

from lowp.emulation.accumulator import Accumulator, Alignment
from lowp.formats import Packed, parse
from lowp.formats.block import Block
from lowp.formats.integer import Integer
from lowp.hw_models.datapath import datapath
from lowp.hw_models.units import UnitCost, dot_unit, mac, price
from lowp.hw_models.validation import predicts

# The gate model of INT v.s. FP: combinational logic, per lane; the unit of reference is MXFP8 with E4M3 elements


def _per_lane(cost: UnitCost, quantity: str) -> float:
    logic = cost.without("register")
    value: float = (logic.area if quantity == "area" else logic.energy).value
    return value / cost.datapath.lanes


def _gates(a: str, lanes: int, quantity: str, b: str | None = None) -> float:
    return _per_lane(dot_unit(a, b, lanes), quantity)


def _over_mxfp8(name: str, lanes: int, quantity: str) -> float:
    return _gates(name, lanes, quantity) / _gates("mxfp8", 32, quantity)


for _number, _quantity in (("f33", "area"), ("f34", "energy")):
    for _letter, _name, _lanes in (("a", "mxint8", 32), ("b", "nvfp4", 16), ("c", "nvint4", 16)):
        predicts(f"{_number}{_letter}_{_name}")(partial(_over_mxfp8, _name, _lanes, _quantity))


def _mixed(quantity: str) -> float:
    """Units for 8 and 4 bits: two int8 x int4 products per 8-bit lane, against an E4M3 and an E2M1 lane.

    Energies are of one 8-bit product and two 4-bit products, of which one uses the wider float lane.
    """
    integer = 2 * _gates("int8_g16_e4m3fn", 32, quantity, "int4_g16_e4m3fn")
    wide, narrow = _gates("e4m3fn_g16_e4m3fn", 16, quantity), _gates("nvfp4", 16, quantity)
    return integer / (wide + narrow) if quantity == "area" else 2 * integer / (2 * wide + narrow)


predicts("f35a_mixed_area")(partial(_mixed, "area"))
predicts("f35b_mixed_energy")(partial(_mixed, "energy"))


# FormatScope: 32 lanes on sky130; operands are not registered, the running sum is


def _aligned(window: int) -> Accumulator:
    return Accumulator(format="float32", group=32, alignment=Alignment(fraction_bits=window))


@cache
def _sky130(a: str, window: int | None = None, integers: bool = False) -> UnitCost:
    accumulator = None if window is None else _aligned(window)
    unit = datapath(a, lanes=32, accumulator=accumulator, integers=integers)
    return price(replace(unit, blocks=tuple(b for b in unit.blocks if not b.operand)), "sky130")


def _square_micrometres(find: Callable[[], UnitCost]) -> float:
    return find().area.value * 1e12


for _key, _arguments in {
    "f37a_int8": ("int8",),
    "f37b_int4": ("int4",),
    "f37c_fp8": ("float8_e4m3fn", 24),
    "f37d_mxint8": ("mxint8",),
    "f37e_mxfp4": ("mxfp4", None, True),
    "f37f_fp8_window32": ("float8_e4m3fn", 32),
}.items():
    predicts(_key)(partial(_square_micrometres, partial(_sky130, *_arguments)))


@predicts("f38_window_ratio")
def _window_ratio() -> float:
    wide, narrow = (_sky130("float8_e4m3fn", window).area.value for window in (32, 24))
    return wide / narrow


@predicts("f39_align_share")
def _align_share() -> float:
    return 100 * _sky130("float8_e4m3fn", 24).shares()["align"]


# Zhang, He, Ko: multiply-add units at 28 nm, every stage registered


@cache
def _fused(name: str) -> float:
    return mac(name, target="n28", accumulator=name, stages=6).area.value


def _ratio(first: str, second: str) -> float:
    return _fused(first) / _fused(second)


predicts("f40a_posit8")(partial(_ratio, "posit8_es4", "float8_e4m3fn"))
predicts("f40b_posit16")(partial(_ratio, "posit16_es5", "float16"))
predicts("f40c_posit32")(partial(_ratio, "posit32_es8", "float32"))
predicts("f41a_fp16_over_fp8")(partial(_ratio, "float16", "float8_e4m3fn"))
predicts("f41b_fp32_over_fp8")(partial(_ratio, "float32", "float8_e4m3fn"))


def _delay(name: str) -> float:
    return mac(name, target="n28", accumulator=name, stages=6).delay.value / 1e-9


for _name in ("float8_e4m3fn", "float16", "float32"):
    predicts(f"delay_{_name}")(partial(_delay, _name))


# Densities and costs relative to another format


def _msfp_density(bits: int) -> float:
    lanes = 16
    block = dot_unit(f"msfp{bits}", lanes=lanes, target="n7").area.value / lanes
    return mac("float32", target="n7").area.value / block


for _bits in range(16, 10, -1):
    predicts(f"f43_msfp{_bits}")(partial(_msfp_density, _bits))


def _microexponents(name: str) -> float:
    """Area of 64 lanes times memory, over those of FP8."""
    fmt = parse(name)
    assert isinstance(fmt, Packed)
    return _gates(name, 64, "area") / _gates("float8_e4m3fn", 64, "area") * fmt.bits_per_value / 8


predicts("f46a_mx6")(partial(_microexponents, "mx6"))
predicts("f46b_mx4")(partial(_microexponents, "mx4"))


@predicts("f47_fp8_over_int8")
def _fp8_over_int8() -> float:
    fp8, int8 = mac("float8_e4m3fn", accumulator="float16", target="n28"), mac("int8", target="n28")
    return fp8.area.value / int8.area.value


@predicts("f48_mxfp4_over_mxint8")
def _energy_gain() -> float:
    int8, fp4 = (dot_unit(name, target="n28").energy.value for name in ("mxint8", "mxfp4"))
    return int8 / fp4


@predicts("f72_vs_quant")
def _vs_quant() -> float:
    narrow = dot_unit(Block(Integer(4), 16, Integer(4, signed=False)), lanes=16, target="n28")
    return narrow.area.value / dot_unit("int8", lanes=16, target="n28").area.value - 1


# Orders


@predicts("f74_int8_below_fp8")
def _int8_below_fp8() -> float:
    """Targets on which INT8 takes more than FP8 does, both with float32 sums or both with int32-wide ones."""
    count = 0
    for name in ("gate_model", "sky130", "nangate45", "n28", "n7"):
        int8 = dot_unit("int8", target=name, accumulator="float32").without("register").area.value
        fp8 = dot_unit("float8_e4m3fn", target=name, accumulator="float32").without("register").area.value
        count += int8 > fp8
    return count


_ASCENDING = (
    ("int4",),
    ("float4_e2m1fn",),
    ("int6", "float6_e2m3fn", "float6_e3m2fn"),
    ("int8",),
    ("float8_e4m3fn",),
    ("float8_e5m2",),
)


@predicts("f75_order")
def _order() -> float:
    """Neighbours in the published order that are the wrong way round, on all targets, with exact sums of 32 lanes."""
    wrong = 0
    for name in ("gate_model", "sky130", "nangate45", "n28", "n7"):
        areas = [
            [dot_unit(fmt, target=name, accumulator="exact").without("register").area.value for fmt in group]
            for group in _ASCENDING
        ]
        wrong += sum(max(low) >= min(high) for low, high in pairwise(areas))
    return wrong
