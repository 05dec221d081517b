"""Formats that choose between grids or scales per block, and the scale rules of FP4 training: Four Over Six, MS-EDEN.

Where element and scale formats stay fixed these are `Block` formats with a scale recipe; the others are `Packed`.
"""

from __future__ import annotations

from lowp.formats.block import E8M0, FLOAT32, Block
from lowp.formats.entry import Entry
from lowp.formats.float_format import Float
from lowp.formats.integer import Integer
from lowp.formats.packed import Field, Packed
from lowp.formats.spec import Format, ScalarFormat

_E2M1 = Float(2, 1, bias=1, specials="finite")
_E2M3 = Float(2, 3, bias=1, specials="finite")
_E3M2 = Float(3, 2, bias=3, specials="finite")
_E4M3FN = Float(4, 3, specials="fn")
#: 17/16 keeps elements in range whatever the rounding of the scale; 0.93 is the best factor beside it.
#: Source: Quartet II, arXiv:2601.22813.
_EDEN_OVERRIDE = 17 / 16 * 0.93


def _nv(element: ScalarFormat, recipe: str, size: int | tuple[int, int] = 16) -> Block:
    return Block(element, size, _E4M3FN, FLOAT32, recipe=f"fouroversix_{recipe}")


def _mx(recipe: str) -> Block:
    return Block(_E2M1, 32, E8M0, FLOAT32 if recipe == "three_quarters" else None, recipe=recipe)


def _integer_or_float(grids: str, bits: int, rule: str) -> Packed:
    fields = (Field("codes", 16, bits), Field("scales", 1, 8), Field("amax", 1, 32, "tensor"))
    label = grids if rule == "mse" else f"{grids}_{rule}"
    return Packed("fouroversix.integer_or_float", 16, fields, (("grids", grids), ("rule", rule)), label=label)


def _eden(label: str, corrected: bool) -> Packed:
    fields = (
        Field("codes", 128, 4), Field("scales", 8, 8), Field("tensor_scale", 1, 32, "tensor"),
        Field("signs", 128, 1, "tensor"),
    )  # fmt: skip
    return Packed("eden.ms_eden", 128, fields, (("override", _EDEN_OVERRIDE), ("corrected", corrected)), label=label)


_RULES = {"mse": "squared error", "mae": "absolute error", "abs_max": "largest error"}


def _adaptive(rule: str, tile: bool) -> tuple[str, Entry]:
    """The name and the entry of NVFP4 with Four Over Six by one rule."""
    name = "nvfp4_4over6" + ("" if rule == "mse" else f"_{rule}") + ("_2d" if tile else "")
    two = "_2d" if tile else ""
    aliases = [f"nvfp4_{rule}{two}", f"fouroversix_{rule}{two}", f"nvfp4_fouroversix_{rule}{two}"]
    if rule == "mse":
        aliases += [f"nvfp4_4over6_mse{two}", f"fouroversix{two}", f"four_over_six{two}", f"4over6{two}"]
        aliases += [f"nvfp4_fouroversix{two}", f"nvfp4_four_over_six{two}"]
    what = f"NVFP4, Four Over Six: scale to 6 or 4 by least {_RULES[rule]}" + (", 16x16 tiles" if tile else "")
    return name, Entry(_nv(_E2M1, rule, (16, 16) if tile else 16), "block", what, tuple(aliases))


def _intfloat(grids: str, bits: int, rule: str) -> tuple[str, Entry]:
    """The name and the entry of IF3, IF4 or IF6 by one rule."""
    name = grids if rule == "mse" else f"{grids}_{rule}"
    aliases = [f"{grids}_mse"] if rule == "mse" else []
    aliases += ["if6"] if name == "if6_e2m3" else []
    what = f"{grids.upper()}: float or integer elements per block by least {_RULES[rule]}, E4M3 scale with a flag"
    return name, Entry(_integer_or_float(grids, bits, rule), "block", what, tuple(aliases))


ENTRIES: dict[str, Entry] = {
    **dict(_adaptive(rule, tile) for tile in (False, True) for rule in _RULES),
    "nvfp4_static6": Entry(
        _nv(_E2M1, "6"),
        "block",
        "NVFP4 as fouroversix computes it (static_6)",
        ("nvfp4_static_6", "nvfp4_fouroversix_6"),
    ),
    "nvfp4_static4": Entry(
        _nv(_E2M1, "4"), "block", "NVFP4 without the element 6 (static_4)", ("nvfp4_static_4", "nvfp4_fouroversix_4")
    ),
    "nvfp4_static6_2d": Entry(
        _nv(_E2M1, "6", (16, 16)), "block", "NVFP4 as fouroversix, 16x16 tiles", ("nvfp4_static_6_2d",)
    ),
    "nvfp4_static4_2d": Entry(
        _nv(_E2M1, "4", (16, 16)), "block", "NVFP4 without the element 6, 16x16 tiles", ("nvfp4_static_4_2d",)
    ),
    "nvfp4_static6_unbiased": Entry(
        _nv(_E2M1, "6_unbiased"),
        "block",
        "NVFP4 with 17/16 of headroom, for stochastic rounding",
        ("nvfp4_static_6_unbiased", "nvfp4_static_6_stochastic_unbiased", "nvfp4_unbiased"),
    ),
    "nvint4": Entry(
        _nv(Integer(4, symmetric=True), "6"), "block", "int4 (-7 to 7) with the scales of NVFP4", ("nvint4_static_6",)
    ),
    "nvfp6_e2m3": Entry(_nv(_E2M3, "6"), "block", "E2M3 with the scales of NVFP4", ("nvfp6_e2m3_static_6", "nvfp6")),
    "nvfp6_e3m2": Entry(_nv(_E3M2, "6"), "block", "E3M2 with the scales of NVFP4", ("nvfp6_e3m2_static_6",)),
    "mxfp4_static6": Entry(
        _mx("fouroversix_6"), "block", "MXFP4 as fouroversix, scale rounded up", ("mxfp4_static_6",)
    ),
    "mxfp4_static4": Entry(_mx("fouroversix_4"), "block", "MXFP4 without the element 6", ("mxfp4_static_4",)),
    "mxfp4_mse": Entry(_mx("mse"), "block", "MXFP4, the scale of least squared error", ("mxfp4_optimal",)),
    "mxfp4_three_quarters": Entry(
        _mx("three_quarters"),
        "block",
        "MXFP4 of 3/4 x, unbiased with stochastic rounding",
        ("mxfp4_amazon", "mxfp4_3_4", "mxfp4_fp_quant", "mxfp4_quartet_backward"),
    ),
    "mxfp4_quest": Entry(
        _mx("quest"), "block", "MXFP4, scale from the standard deviation", ("mxfp4_quartet", "mxfp4_quartet_forward")
    ),
    **dict(_intfloat("if4", 4, rule) for rule in _RULES),
    **dict(_intfloat("if6_e2m3", 6, rule) for rule in _RULES),
    **dict(_intfloat("if6_e3m2", 6, rule) for rule in _RULES),
    **dict(_intfloat("if3", 3, rule) for rule in _RULES),
    "ms_eden": Entry(
        _eden("ms_eden", True),
        "block",
        "Quartet II: rotated NVFP4, unbiased by its scales",
        ("nvfp4_ms_eden", "nvfp4_eden", "eden", "quartet2_backward"),
    ),
    "ms_eden_uncorrected": Entry(
        _eden("ms_eden_uncorrected", False), "block", "rotated NVFP4 of least error, biased", ("nvfp4_eden_rtn",)
    ),
}


def read_name(name: str) -> Format | None:
    """Return the format that a name made by the rules of this family stands for, or None; there are no such rules."""
    return None
