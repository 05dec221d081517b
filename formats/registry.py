"""The formats that have names, their aliases, and one sentence about each."""

from __future__ import annotations

from types import ModuleType

from lowp._errors import ArgumentError, unknown_name
from lowp.formats.block import E8M0, FLOAT32, Block
from lowp.formats.codebook import Codebook
from lowp.formats.entry import Entry
from lowp.formats.families import bitnet, codebooks, fouroversix, ggml, ranked, shared_exponents, structured
from lowp.formats.families._codebook_grids import NF4
from lowp.formats.float_format import Float
from lowp.formats.integer import Fixed, Integer
from lowp.formats.spec import REGISTERED_NAMES

E2M1 = Float(2, 1, bias=1, specials="finite")
E2M3 = Float(2, 3, bias=1, specials="finite")
E3M2 = Float(3, 2, bias=3, specials="finite")
E4M3FN = Float(4, 3, specials="fn")
E5M2 = Float(5, 2)
_FLOAT16 = Float(5, 10)

_FLOATS = {
    "float64": Entry(Float(11, 52), "float", "IEEE 754 binary64", ("fp64", "f64", "double", "binary64", "e11m52")),
    "float32": Entry(FLOAT32, "float", "IEEE 754 binary32", ("fp32", "f32", "single", "binary32", "e8m23")),
    "tf32": Entry(
        Float(8, 10),
        "float",
        "NVIDIA TensorFloat-32, the 19 bits that count; cvt.rna rounds 'ties_to_away', the units 'toward_zero'",
        ("tensorfloat32", "e8m10"),
    ),
    "bfloat16": Entry(Float(8, 7), "float", "brain float, the upper half of binary32", ("bf16", "e8m7")),
    "float16": Entry(_FLOAT16, "float", "IEEE 754 binary16", ("fp16", "f16", "half", "binary16", "e5m10")),
    "float8_e5m2": Entry(E5M2, "float", "OCP OFP8 E5M2", ("e5m2", "fp8_e5m2", "bf8")),
    "float8_e4m3fn": Entry(
        E4M3FN, "float", "OCP OFP8 E4M3: NaN, no infinity", ("e4m3fn", "fp8", "fp8_e4m3", "fp8_e4m3fn")
    ),
    "float8_e4m3": Entry(Float(4, 3), "float", "E4M3 with IEEE specials", ("e4m3",)),
    "float8_e3m4": Entry(Float(3, 4), "float", "E3M4 with IEEE specials", ("e3m4",)),
    "float8_e5m2fnuz": Entry(Float(5, 2, specials="fnuz"), "float", "AMD CDNA3 bf8", ("e5m2fnuz",)),
    "float8_e4m3fnuz": Entry(Float(4, 3, specials="fnuz"), "float", "AMD CDNA3 fp8", ("e4m3fnuz",)),
    "float8_e4m3b11fnuz": Entry(Float(4, 3, bias=11, specials="fnuz"), "float", "E4M3 with bias 11", ("e4m3b11fnuz",)),
    "float8_e8m0fnu": Entry(E8M0, "float", "OCP MX scale: powers of two, NaN, no zero", ("e8m0", "ue8m0", "e8m0fnu")),
    "float8_ue5m3fn": Entry(
        Float(5, 3, signed=False, specials="fn"), "float", "unsigned E5M3, all ones is NaN, max 114688", ("ue5m3fn",)
    ),
    "float8_ue5m3f": Entry(
        Float(5, 3, signed=False, specials="finite"),
        "float",
        "unsigned E5M3, all codes finite, max 122880",
        ("ue5m3f",),
    ),
    "float8_ue5m3": Entry(
        Float(5, 3, signed=False), "float", "unsigned E5M3, top exponent reserved, max 61440", ("ue5m3",)
    ),
    "float7_ue4m3fn": Entry(
        Float(4, 3, signed=False, specials="fn"),
        "float",
        "E4M3 without its sign bit, as NVFP4 scales use it",
        ("ue4m3", "ue4m3fn"),
    ),
    "float6_e3m2fn": Entry(E3M2, "float", "OCP MX FP6 E3M2, all finite", ("e3m2", "e3m2fn", "fp6_e3m2", "e3m2f")),
    "float6_e2m3fn": Entry(
        E2M3, "float", "OCP MX FP6 E2M3, all finite", ("e2m3", "e2m3fn", "fp6_e2m3", "fp6", "e2m3f")
    ),
    "float4_e2m1fn": Entry(
        E2M1, "float", "OCP MX FP4 E2M1, all finite", ("e2m1", "e2m1fn", "fp4", "fp4_e2m1", "e2m1f")
    ),
    "pxr24": Entry(Float(8, 15), "float", "OpenEXR's 24-bit float, binary32 less 8 mantissa bits", ("e8m15",)),
    "amd_fp24": Entry(
        Float(7, 16, subnormals=False),
        "float",
        "ATI R300's 24-bit float, no subnormals; IEEE specials assumed",
        ("fp24",),
    ),
    "dlfloat16": Entry(
        Float(6, 9, specials="dlfloat"),
        "float",
        "IBM DLFloat; its own conversion is rounding='ties_to_away'",
        ("dlfloat",),
    ),
    "hfp8_143": Entry(
        Float(4, 3, bias=4, specials="fn"), "float", "IBM HFP8, forward: 1-4-3, bias 4; one NaN assumed", ("fp143",)
    ),
    "hfp8_152": Entry(Float(5, 2, specials="fn"), "float", "IBM HFP8, backward: 1-5-2; one NaN assumed", ("fp152",)),
    **{
        f"float{1 + e + m}_e{e}m{m}f": Entry(
            Float(e, m, specials="finite"),
            "float",
            "a tilus type: every code finite",
            (f"tilus_float{1 + e + m}_e{e}m{m}",),
        )
        for e, m in ((1, 1), (2, 2), (3, 1), (4, 1), (2, 4), (3, 3), (4, 2))
    },
    "float7_e5m1": Entry(Float(5, 1), "float", "a tilus type: top exponent reserved", ("tilus_float7_e5m1",)),
}
_SMALL = {
    **{f"int{n}": Entry(Integer(n), "integer", f"{n}-bit two's complement") for n in (1, 2, 3, 4, 8, 16, 32)},
    **{f"uint{n}": Entry(Integer(n, signed=False), "integer", f"{n}-bit unsigned") for n in (1, 2, 3, 4, 8, 16, 32)},
    **{f"int{n}_sym": Entry(Integer(n, symmetric=True), "integer", f"{n}-bit, symmetric range") for n in (2, 3, 4, 8)},
    "fixed8_4": Entry(Fixed(8, 4), "fixed point", "8 bits, 4 right of the point", ("ap_fixed<8,4>",)),
    "fixed16_8": Entry(Fixed(16, 8), "fixed point", "16 bits, 8 right of the point", ("ap_fixed<16,8>",)),
    "nf4": Entry(NF4, "codebook", "NormalFloat-4 of QLoRA, 16 values in [-1, 1]", ("normalfloat4", "bnb_nf4_values")),
    "ternary": Entry(
        Codebook((0.0, 1.0, -1.0), codes=(0, 1, 3), label="ternary"), "codebook", "-1, 0, 1 as two bits", ("trit",)
    ),
    "binary": Entry(Codebook((1.0, -1.0), label="binary"), "codebook", "+1 (code 0) and -1 (code 1)", ("sign",)),
}


def _mxint(bits: int) -> Block:
    return Block(Fixed(bits, bits - 2, symmetric=True))


_MX = {
    "mxfp8_e4m3": Entry(Block(E4M3FN), "block", "OCP MXFP8 with E4M3 elements", ("mxfp8", "mxfp8_e4m3fn")),
    "mxfp8_e5m2": Entry(Block(E5M2), "block", "OCP MXFP8 with E5M2 elements"),
    "mxfp6_e3m2": Entry(Block(E3M2), "block", "OCP MXFP6 with E3M2 elements", ("mxfp6_e3m2fn",)),
    "mxfp6_e2m3": Entry(Block(E2M3), "block", "OCP MXFP6 with E2M3 elements", ("mxfp6", "mxfp6_e2m3fn")),
    "mxfp4": Entry(Block(E2M1), "block", "OCP MXFP4", ("mxfp4_e2m1", "mxfp4_e2m1fn")),
    "mxint8": Entry(_mxint(8), "block", "OCP MXINT8, element range kept symmetric"),
    "mxint6": Entry(_mxint(6), "block", "MXINT8's relative with 6 bits, elements in quanta of 2^-4"),
    "mxint4": Entry(_mxint(4), "block", "MXINT8's relative with 4 bits, elements in quanta of 2^-2, as microxcaling"),
}


def _nvfp4(system: str) -> Block:
    return Block(E2M1, 16, E4M3FN, FLOAT32, recipe=f"nvfp4_{system}")


_GROUPS = {
    "nvfp4": Entry(_nvfp4("te"), "block", "NVIDIA NVFP4, scales as TransformerEngine", ("nvfp4_te",)),
    "nvfp4_torchao": Entry(_nvfp4("torchao"), "block", "NVIDIA NVFP4, scales as torchao"),
    "nvfp4_modelopt": Entry(_nvfp4("modelopt"), "block", "NVIDIA NVFP4, scales as TensorRT Model Optimizer"),
    "mxfp4_modelopt": Entry(Block(E2M1, recipe="mxfp4_modelopt"), "block", "MXFP4 as TensorRT Model Optimizer"),
    "int8_row": Entry(Block(Integer(8), "row", FLOAT32), "block", "int8, one float32 scale per row"),
    "int8_tensor": Entry(Block(Integer(8), "tensor", FLOAT32), "block", "int8, one float32 scale per tensor"),
    "int4_g128": Entry(Block(Integer(4), 128, _FLOAT16), "block", "int4, a float16 scale per 128"),
    "int4_g128_asym": Entry(
        Block(Integer(4, signed=False), 128, _FLOAT16, zero_point=True), "block", "uint4 with zero point, per 128"
    ),
    "int3_g128": Entry(Block(Integer(3), 128, _FLOAT16), "block", "int3, a float16 scale per 128"),
    "int2_g64": Entry(Block(Integer(2), 64, _FLOAT16), "block", "int2, a float16 scale per 64"),
    "int4_g32_pow2": Entry(Block(Integer(4), 32, E8M0), "block", "int4, a power-of-two scale per 32"),
    "nf4_g64": Entry(Block(NF4, 64, FLOAT32), "block", "NF4, a float32 absmax per 64, as QLoRA", ("nf4_block64",)),
    "fp8_tile128": Entry(
        Block(E4M3FN, (128, 128), FLOAT32), "block", "E4M3, a float32 scale per 128x128 tile", ("fp8_128x128",)
    ),
}

#: Families that have files of their own.
FAMILIES: tuple[ModuleType, ...] = (ranked, codebooks, shared_exponents, fouroversix, ggml, structured, bitnet)
#: Headings of the scalar families, and of block formats by the file that lists them.
_HEADINGS = {
    "float": "Floats",
    "integer": "Integers",
    "fixed point": "Fixed point",
    "posit": "Posits",
    "takum": "Takums",
    "logarithmic": "Logarithmic numbers",
    "codebook": "Codebooks",
    "registry": "Blocks: one element format, one scale",
    "codebooks": "Blocks of codebooks",
    "shared_exponents": "Blocks that share exponents or bits",
    "fouroversix": "FP4 with chosen scales or grids",
    "ggml": "ggml",
    "structured": "Codes for several values, planes",
    "bitnet": "bitnet.cpp, lossless coding",
}
#: Every registered format by name.
REGISTRY: dict[str, Entry] = {**_FLOATS, **_SMALL, **_MX, **_GROUPS}
for _family in FAMILIES:
    REGISTRY |= _family.ENTRIES
#: Every alias and the name it stands for.
ALIASES: dict[str, str] = {alias: name for name, entry in REGISTRY.items() for alias in entry.aliases}
for _name, _entry in REGISTRY.items():
    REGISTERED_NAMES[_entry.format] = _name


def sections() -> dict[str, list[str]]:
    """Return the registered names under the headings of docs/formats.md: scalar families, and block formats by kind.

    Example:
        >>> sections()["Takums"][0]
        'takum8_linear'
    """
    found: dict[str, list[str]] = {heading: [] for heading in _HEADINGS.values()}
    for name, entry in REGISTRY.items():
        found[_HEADINGS[entry.family if entry.family != "block" else _file(name)]].append(name)
    return found


def _file(name: str) -> str:
    """The file that lists a format."""
    return next((m.__name__.rpartition(".")[2] for m in FAMILIES if name in m.ENTRIES), "registry")


def names(family: str | None = None) -> list[str]:
    """Return every registered name, or those of one family.

    Args:
        family: "float", "integer", "fixed point", "codebook", "posit", "takum", "logarithmic" or "block"; or a heading
            of docs/formats.md, such as "ggml". Case does not matter, and `-` and `_` are spaces. None for all.

    Returns:
        Names in the order of registration.

    Raises:
        ArgumentError: There is no such family.

    Example:
        >>> names("codebook")[:3], names("ggml")[0]
        (['nf4', 'ternary', 'binary'], 'ggml_q1_0')
    """
    if family is None:
        return list(REGISTRY)
    groups: dict[str, list[str]] = {}
    for name, entry in REGISTRY.items():
        groups.setdefault(entry.family, []).append(name)
    groups |= {heading.lower(): chosen for heading, chosen in sections().items()}
    key = str(family).lower().replace("_", " ").replace("-", " ")
    if key not in groups:
        raise ArgumentError(unknown_name("family", family, groups))
    return groups[key]
