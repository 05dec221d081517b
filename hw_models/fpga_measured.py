"""Measured LUT counts of small modules, and the model's for the same: what the FPGA coefficients were fitted to.

Data: `data/fpga_yosys.csv`; each module is a block, a product unit or a posit decoder of `block_verilog`. Dot products
were measured too; no coefficient was fitted to those.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

from lowp.formats import parse
from lowp.formats.posit import Posit
from lowp.hw_models.block_verilog import block_verilog, dot_verilog, posit_decoder_verilog, product_verilog
from lowp.hw_models.blocks import Block
from lowp.hw_models.datapath import datapath
from lowp.hw_models.datapath_formats import decoders
from lowp.hw_models.fpga import price, product_luts
from lowp.hw_models.fpga_targets import fpga_target
from lowp.hw_models.tables import rows


class Module(NamedTuple):
    """A synthesised module.

    Attributes:
        name: Of the module.
        kind: Kind of its block; or "product", "decoder" or "dot" (products and their running sum) of a format.
        signed: Whether its words are two's complement.
        style: Role of a block, which shapes a shifter; style of a product; lanes and terms of a dot product.
        sizes: Sizes of a block as "name=value" pairs, or the format.
        functions: LUTs as Yosys counts them.
        lut: LUT sites after pairs share.
        carry: Carry-chain cells.
        mux: Wide multiplexers.
        levels: Cells on the longest path.
        family: Family of FPGAs.
        version: Of Yosys.
    """

    name: str
    kind: str
    signed: bool
    style: str
    sizes: str
    functions: int
    lut: int
    carry: int
    mux: int
    levels: int
    family: str
    version: str


@cache
def measured_modules(family: str = "xcup") -> tuple[Module, ...]:
    """Return the measured modules of a family of FPGAs.

    Example:
        >>> next(m.lut for m in measured_modules() if m.sizes == "ma=8 mb=8" and m.signed)
        80
    """
    return tuple(
        Module(
            r["name"],
            r["block"],
            r["signed"] == "yes",
            r["style"],
            r["sizes"],
            int(r["functions"]),
            int(r["lut"]),
            int(r["carry"]),
            int(r["mux"]),
            int(r["levels"]),
            r["family"],
            r["version"],
        )
        for r in rows("fpga_yosys")
        if r["family"] == family
    )


def _pairs(text: str) -> dict[str, int]:
    return {name: int(value) for name, _, value in (pair.partition("=") for pair in text.split())}


def _block(module: Module) -> Block:
    return Block(module.kind, tuple(_pairs(module.sizes).items()), 1, module.style)


def _dot(fmt: str, target: str, quantity: str, lanes: int, terms: int) -> float:
    unit = price(datapath(fmt, lanes=lanes, accumulator="exact", terms=terms), target, multipliers="lut")
    return sum(each.value for each in unit.without("register").by_role(quantity).values())


def module_verilog(module: Module) -> str:
    """Return the module's Verilog."""
    if module.kind == "product":
        return product_verilog(module.sizes, module.name, module.style)
    if module.kind == "dot":
        return dot_verilog(module.sizes, module.name, **_pairs(module.style))
    if module.kind == "decoder":
        return posit_decoder_verilog(module.sizes, module.name)
    return block_verilog(_block(module), module.name, module.signed)


def predicted(module: Module, quantity: str = "lut", target: str = "xcup") -> float:
    """Return the model's count for a measured module.

    Args:
        module: The module.
        quantity: "lut" or "function".
        target: The target.
    """
    if module.kind == "product":
        return product_luts(module.sizes, target, quantity)
    if module.kind == "dot":
        return _dot(module.sizes, target, quantity, **_pairs(module.style))
    if module.kind == "decoder":
        fmt = parse(module.sizes)
        assert isinstance(fmt, Posit)
        (block,) = decoders(fmt, 1, "decode")
        return fpga_target(target).count(block, quantity).value
    signed = module.signed and module.kind == "multiplier"
    return fpga_target(target).count(_block(module), quantity, signed).value
