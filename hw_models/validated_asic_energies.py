"""Energies of single operations, their scaling, and whole dies: predictions of published numbers."""

from __future__ import annotations

from functools import partial

from lowp.hw_models.blocks import Block
from lowp.hw_models.die_area import die_area
from lowp.hw_models.operations import energy_scaling, memory_energy, operation
from lowp.hw_models.targets import target
from lowp.hw_models.validation import predicts

_PICO = 1e-12
_HOROWITZ = (
    "int8_add",
    "int32_add",
    "int8_multiply",
    "int32_multiply",
    "float16_add",
    "float32_add",
    "float16_multiply",
    "float32_multiply",
    "sram_8k_read64",
    "sram_32k_read64",
    "sram_1m_read64",
    "dram_read64",
)


def _published(name: str, quantity: str) -> float:
    return operation(name, "horowitz", quantity).value / _PICO


for _name in _HOROWITZ:
    predicts(f"f28_{_name}")(partial(_published, _name, "energy"))
for _name in _HOROWITZ[:8]:
    predicts(f"f28_area_{_name}")(partial(_published, _name, "area"))


@predicts("f29_bitnet_ratio")
def _bitnet() -> float:
    energy = {name: operation(name, "jouppi").value for name in ("float16_multiply", "float16_add", "int8_add")}
    return (energy["float16_multiply"] + energy["float16_add"]) / energy["int8_add"]


def _multiplier(bits: int) -> float:
    return target("nangate45").of(Block.of("multiplier", "multiply", ma=bits, mb=bits), "energy").value / _PICO


predicts("f30a_int8_multiply")(partial(_multiplier, 8))
predicts("f30b_int32_multiply")(partial(_multiplier, 32))


@predicts("f31_energy_45_to_7")
def _node() -> float:
    return energy_scaling(45, 7, 0.9, 0.75)


@predicts("f32_hbm2_power")
def _hbm() -> float:
    return memory_energy("HBM2", 2.0e12).low


@predicts("f70a_full_adder_area")
def _full_adder_area() -> float:
    adder = Block.of("adder", "sum", bits=1)
    nand = Block.of("table", "linear", entries=2, bits=1)  # half an ND2 per bit
    n28 = target("n28_zigzag")
    return n28.of(adder, "area").value / n28.of(nand, "area").value


@predicts("f70b_full_adder_energy")
def _full_adder_energy() -> float:
    return target("n28_zigzag").of(Block.of("adder", "sum", bits=1), "energy").value / 1e-15


def _die(name: str) -> float:
    return die_area(name).value * 1e6


predicts("f71a_ga100")(partial(_die, "ga100"))
predicts("f71b_aldebaran")(partial(_die, "aldebaran"))
