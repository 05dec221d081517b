"""Predictions of published numbers about FPGAs."""

from __future__ import annotations

from functools import partial

from lowp.hw_models.bismo import bismo
from lowp.hw_models.datapath import datapath
from lowp.hw_models.dot_widths import dot_widths
from lowp.hw_models.finn import Mvau, multiplier_lut
from lowp.hw_models.fpga import price, product_luts
from lowp.hw_models.fpga_boards import fpga_decode
from lowp.hw_models.validation import predicts

_FLOATS = {
    "e2m1": "float4_e2m1fn",
    "e2m3": "float6_e2m3fn",
    "e3m2": "float6_e3m2fn",
    "e4m3": "float8_e4m3fn",
    "e5m2": "float8_e5m2",
}
_ALL = {**_FLOATS, "int4": "int4", "int6": "int6", "int8": "int8"}

for _letter, _bits in (("a", 4), ("b", 8), ("c", 18)):
    predicts(f"f49{_letter}_finn_{_bits}x{_bits}")(partial(multiplier_lut, _bits, _bits))
predicts("f50a_vivado_18x18_area")(partial(multiplier_lut, 18, 18))
predicts("f50b_vivado_18x18_speed")(partial(multiplier_lut, 18, 18))


@predicts("f51_finn_bram18")
def _finn_block_rams() -> float:
    return Mvau(256, 256, 16, 16, w=4, a=4).bram18()


@predicts("f52a_bismo_lut")
def _bismo_lut() -> float:
    return bismo(8, 256, 8).lut.value


@predicts("f52b_bismo_throughput")
def _bismo_throughput() -> float:
    return bismo(8, 256, 8).throughput(200e6).value / 1e12


@predicts("f53_bismo_ultra96")
def _bismo_ultra96() -> float:
    return bismo(10, 256, 10).throughput(300e6).value / 1e12


def _total(name: str, terms: int, rule: str) -> float:
    return dot_widths(name, terms=terms, rule=rule).total


for _letter, _name in zip("abcdef", ("e2m1", "e2m3", "e3m2", "e4m3", "e5m2", "int8"), strict=True):
    predicts(f"f54{_letter}_mx_width_{_name}")(partial(_total, _ALL[_name], 32, "mx_for_fpga"))
for _letter, _name in zip("abc", ("e2m3", "e3m2", "int8"), strict=True):
    predicts(f"f55{_letter}_aggarwal_width_{_name}")(partial(_total, _ALL[_name], 4608, "aggarwal"))


def _over_integer(name: str, integer: str, conversions: bool) -> float:
    """LUTs of an exact multiply-and-add of minifloats over those of integers of the same size."""

    def luts(fmt: str, convert: bool) -> float:
        unit = datapath(fmt, accumulator="exact", terms=4608, conversions=convert)
        return price(unit, "versal", multipliers="lut").lut.value

    return luts(name, conversions) / luts(integer, False)


for _letter, _name, _integer in zip("abcde", _FLOATS, ("int4", "int6", "int6", "int8", "int8"), strict=True):
    predicts(f"f56{_letter}_macc_{_name}")(partial(_over_integer, _FLOATS[_name], _integer, False))
for _letter, _name, _integer in zip("fg", ("e2m1", "e4m3"), ("int4", "int8"), strict=True):
    predicts(f"f56{_letter}_macc_converted_{_name}")(partial(_over_integer, _FLOATS[_name], _integer, True))


def _decoder(name: str) -> float:
    """LUTs of one of the two decoders of a posit unit."""
    return price(datapath(name), "series7").by_role("lut")["decode"].value / 2


for _letter, _name in zip("abc", ("posit8_es0", "posit16_es1", "posit32_es2"), strict=True):
    predicts(f"f57{_letter}_{_name.partition('_')[0]}_decode")(partial(_decoder, _name))
for _letter, _name in zip("abcdefg", (*_FLOATS, "int4", "int8"), strict=True):
    predicts(f"f58{_letter}_yosys_{_name}")(partial(product_luts, _ALL[_name], quantity="function"))


@predicts("b8a_flightllm_bound")
def _flightllm_bound() -> float:
    return fpga_decode("llama-2-7b", "u280", weights=3.5, efficiency=1.0).value


@predicts("b8b_flightllm_u280")
def _flightllm() -> float:
    return fpga_decode("llama-2-7b", "u280", weights=3.5).value
