"""Matrix units as accumulators: what the recorded and simulated outputs of the test vectors are checked against.

Parameters are those of Khattak and Mikaitis (doi 10.1145/3830409) and of MMA-Sim (arXiv 2511.10909) for NVIDIA and AMD,
of Intel's and Arm's manuals for the others.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

import lowp
from lowp.emulation.accumulator import Accumulator, Alignment
from lowp.emulation.exact_accumulators import dot
from lowp.formats.spec import Meaning

#: Names of formats in the vectors -> names in lowp. The vectors' xf32 and tf32 are float32 patterns, 13 bits ignored.
FORMATS = {
    "f64": "float64", "f32": "float32", "f16": "float16", "bf16": "bfloat16", "tf32": "tf32", "xf32": "tf32",
    "e4m3": "float8_e4m3fn", "e5m2": "float8_e5m2", "e4m3fnuz": "float8_e4m3fnuz", "e5m2fnuz": "float8_e5m2fnuz",
    "e3m2": "float6_e3m2fn", "e2m3": "float6_e2m3fn", "e2m1": "float4_e2m1fn", "ue8m0": "float8_e8m0fnu",
    "ue4m3": "float7_ue4m3fn", "s8": "int8", "u8": "uint8", "s16": "int16", "s32": "int32",
}  # fmt: skip
READ = {name: lowp.parse(fmt) for name, fmt in FORMATS.items()}
TRUNCATED = {"tf32": 13, "xf32": 13}
#: Bytes of one operand in the data path.
WIDTHS = {"f16": 2, "bf16": 2, "tf32": 4}


class Machine(NamedTuple):
    """An accumulator and the formats of its operands.

    `reads` are the formats whose exponents count for the operands; they hold all of `a`'s and `b`'s numbers.
    """

    accumulator: Accumulator
    a: str
    b: str
    c: str
    d: str
    reads: tuple[str, str]
    scale: str | None = None


class Nvidia(NamedTuple):
    """Bytes of a step, fraction bits, and exponents of zero for float32 and float16 results."""

    step_bytes: int
    fraction_bits: int
    zero_exponent: int
    half_zero_exponent: int


NVIDIA = {
    "volta": Nvidia(8, 23, -131, -19),
    "turing": Nvidia(16, 24, -132, -20),
    "ampere": Nvidia(16, 24, -132, -20),
    "ada_lovelace": Nvidia(16, 24, -132, -20),
    "hopper": Nvidia(32, 25, -133, -21),
    "blackwell": Nvidia(32, 25, -133, -21),
    "rtx_blackwell": Nvidia(32, 25, -133, -21),
}
#: FP8 units that keep few bits.
NARROW = {("ada_lovelace", "mma"), ("hopper", "wgmma")}
#: FP8 instructions that run as two float16 ones over interleaved pairs.
REWRITTEN = {("hopper", "mma"), ("blackwell", "mma")}
EVEN_PAIRS_FIRST = tuple(k for half in (0, 1) for k in range(32) if k // 2 % 2 == half)


def machine(unit: str, tile: int | None = None) -> Machine:
    """Return the machine of a unit `<arch>/<instruction>/<inputs>/<accumulator>`.

    Args:
        unit: Its name.
        tile: Terms of one tile, where partial sums end with it (AMX); None: the whole product is one tile.
    """
    arch, instruction, inputs, result = unit.split("/")
    a, b, *scale = inputs.split("_")
    d, *c = result.split("_c")
    if arch in NVIDIA:
        accumulator, reads = nvidia(arch, instruction, (a, b), d)
    else:
        make = {"x86": x86, "arm": arm, "cdna1": cdna1, "cdna2": cdna2, "cdna3": cdna3}[arch]
        accumulator, reads = make(instruction, a, tile), (a, b)
    formats = FORMATS[reads[0]], FORMATS[reads[1]]
    return Machine(accumulator, a, b, c[0] if c else d, d, formats, scale[0] if scale else None)


# NVIDIA


def depth(instruction: str) -> int:
    """Return the k of an instruction: no step is longer."""
    found = re.search("n[0-9]+k([0-9]+)|x([0-9]+)(?:_|$)", instruction)
    return int(found[1] or found[2]) if found else 1 << 20


def nvidia(arch: str, instruction: str, inputs: tuple[str, str], d: str) -> tuple[Accumulator, tuple[str, str]]:
    """Return an accumulator and the formats that operands are read as."""
    unit = NVIDIA["volta" if "m8n8k4" in instruction and arch == "turing" else arch]
    kind = instruction.split("_", maxsplit=1)[0]
    if d == "f64":
        return Accumulator(format="float64"), inputs
    if "mxf4" in instruction:
        return nvidia_sum("f32", 64, 35, -139, scaled_group=16), inputs
    fp8 = inputs[0] not in WIDTHS
    zero = unit.zero_exponent if d == "f32" else unit.half_zero_exponent
    if fp8 and (arch, kind) in REWRITTEN:
        return rewritten(unit, d), ("f16", "f16")
    narrow = fp8 and (arch, kind) in NARROW
    bits = 13 if narrow else unit.fraction_bits
    group = min(unit.step_bytes // WIDTHS.get(inputs[0], 1), depth(instruction))
    return nvidia_sum("e8m13" if narrow and d == "f32" else d, group, bits, zero), inputs


def nvidia_sum(d: str, group: int, bits: int, zero: int, scaled_group: int | None = None) -> Accumulator:
    """Return the one model of all of NVIDIA's floating-point units."""
    return Accumulator(
        format=FORMATS.get(d, d),
        rounding="ties_to_even" if d == "f16" else "toward_zero",
        overflow="infinity",
        group=group,
        alignment=Alignment(fraction_bits=bits, zero_exponent=zero, scaled_group=scaled_group),
        signed_zero=False,
    )


def rewritten(unit: Nvidia, d: str) -> Accumulator:
    """Return FP8 `mma.sync` of sm_90 and sm_100: two float16 instructions from +0, then C is added."""
    zero = unit.zero_exponent if d == "f32" else unit.half_zero_exponent
    return Accumulator(
        format=FORMATS[d],
        rounding="ties_to_even" if d == "f16" else "toward_zero",
        overflow="infinity",
        group=16,
        alignment=Alignment(fraction_bits=25, zero_exponent=zero),
        signed_zero=False,
        order=EVEN_PAIRS_FIRST,
        chunk=32,
        outer=Accumulator(format=FORMATS[d]),
    )


# AMD


def cdna1(instruction: str, a: str, tile: int | None = None) -> Accumulator:
    """Return MI100's: four or two products and the running sum, exactly; chains of fused multiply-adds for float32."""
    if a == "f32":
        return Accumulator(format="float32")
    return Accumulator(format="float32", group={"f16": 4, "bf16": 2}[a], signed_zero="underflow")


def cdna2(instruction: str, a: str, tile: int | None = None) -> Accumulator:
    """Return MI200's: a tree of rounded additions that flush subnormals; chains of fused multiply-adds else."""
    if a in ("f32", "f64"):
        return Accumulator(format=FORMATS[a])
    return Accumulator(
        format="float32",
        group=2 if a == "bf16" and not instruction.endswith("_1k") else 4,
        group_sum="pairwise",
        product="float32",
        subnormal_inputs="positive_zero",
        subnormal_results="zero",
        signed_zero="underflow",
    )


def cdna3(instruction: str, a: str, tile: int | None = None) -> Accumulator:
    """Return MI300's: the running sum comes after the products, cut toward minus infinity."""
    if a in ("f32", "f64"):
        return Accumulator(format=FORMATS[a])
    fp8 = a.endswith("fnuz")
    group = min({"xf32": 4}.get(a, 16 if fp8 else 8), depth(instruction))
    alignment = Alignment(
        fraction_bits=24,
        running_sum="after",
        sum_fraction_bits=32,
        running_fraction_bits=24,
        sum_cut="toward_negative",
        result_fraction_bits=31,
        product_limit=None if fp8 else 128,
        lanes=2 if fp8 else 1,
        running_reach=25 if fp8 else None,
    )
    return Accumulator(format="float32", group=group, alignment=alignment)


# x86 and Arm


def x86(instruction: str, a: str, tile: int | None = None) -> Accumulator:
    """Return a vector instruction's or a tile's; MXCSR's DAZ and FTZ do not concern those of float16."""
    if instruction.startswith("vfmadd"):
        suffix = "_".join(instruction.split("_")[1:])
        modes = {"rd": "toward_negative", "ru": "toward_positive", "rz": "toward_zero"}
        return Accumulator(format=FORMATS[a], rounding=modes.get(suffix, "ties_to_even"))
    if instruction == "vdpbf16ps":
        return Accumulator(format="float32", order=(1, 0), subnormal_inputs="zero", subnormal_results="zero")
    if instruction == "tdpbf16ps":
        return Accumulator(format="float32", chunk=tile, lanes=2, subnormal_inputs="zero", subnormal_results="zero")
    if re.fullmatch("tdpb[su][su]d", instruction):
        return Accumulator(format="int32", overflow="wrap", group=4)
    overflow = "saturate" if instruction.endswith("s") else "wrap"
    return Accumulator(format="int32", overflow=overflow, group=2 if instruction.startswith("vpdpw") else 4)


def arm(instruction: str, a: str, tile: int | None = None) -> Accumulator:
    """Return BFDOT's and BFMMLA's, or with `_ebf` those of FPCR.EBF = 1: both add two products to each other first."""
    if instruction.endswith("_ebf"):
        return Accumulator(format="float32", group=2, chunk=2)
    return Accumulator(
        format="float32",
        rounding="to_odd",
        overflow="infinity",
        group=2,
        group_sum="pairwise",
        product="float32",
        subnormal_inputs="zero",
        subnormal_results="zero",
    )


# Codes


@lru_cache(maxsize=1 << 16)
def meaning(code: int, name: str) -> Meaning:
    """Return what a code of the vectors stands for."""
    fmt = READ[name]
    return fmt.meaning(code >> TRUNCATED.get(name, 0) & ((1 << fmt.bits) - 1))


def run(
    unit: Machine, a: list[int], b: list[int], c: int, sa: list[int] | None = None, sb: list[int] | None = None
) -> Meaning:
    """Return the result of a machine on codes."""
    numbers = [[meaning(code, name) for code in codes] for codes, name in ((a, unit.a), (b, unit.b))]
    scales: list[list[Meaning] | None] = [
        None if s is None or unit.scale is None else [meaning(code, unit.scale) for code in s] for s in (sa, sb)
    ]
    return dot(
        unit.accumulator, *numbers, meaning(c, unit.c),
        a_format=unit.reads[0], b_format=unit.reads[1], c_format=READ[unit.c],
        scales_a=scales[0], scales_b=scales[1], scale_format=READ[unit.scale] if unit.scale else None,
    )  # fmt: skip
