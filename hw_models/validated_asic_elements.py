"""Published processing elements: predictions of their numbers."""

from __future__ import annotations

from functools import partial

from lowp.hw_models.processing_elements import processing_element
from lowp.hw_models.units import dot_unit
from lowp.hw_models.validation import predicts


def _area(name: str) -> float:
    return processing_element(name).cost("n28").area.value * 1e12


predicts("f44a_fp16_element")(partial(_area, "fp16_mac"))
predicts("f44b_bitmod_element")(partial(_area, "bitmod"))


@predicts("f44c_bitmod_over_fp16")
def _bitmod_over_fp16() -> float:
    return _area("bitmod") / _area("fp16_mac")


def _madam_over(fmt: str) -> float:
    """Energy of a product of the 8-bit element over that of a 16-lane dot unit of another format."""
    element = processing_element("lns_madam")
    mine = element.energy_per_product("lns8_f3_unsigned_nozero", "n28").value
    lanes = element.datapath.lanes
    return mine / (dot_unit(fmt, lanes=lanes, target="n28").energy.value / lanes)


predicts("element_lns_madam_fp32")(partial(_madam_over, "float32"))
predicts("element_lns_madam_fp8")(partial(_madam_over, "float8_e4m3fn"))
