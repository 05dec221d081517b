"""The oracle of accumulators against golden vectors: of a model that all recordings agree with, or executed."""

import pytest

from lowp.emulation.accumulator import Accumulator
from lowp.emulation.exact_accumulators import dot
from lowp.formats.spec import Meaning
from tests.emulation.machines import READ, machine, meaning, run


def f32(bits: str) -> Meaning:
    return meaning(int(bits, 16), "f32")


# Golden vectors: NVIDIA's and AMD's from the model that reproduced all recordings, x86's executed

HALF_ROWS: list[tuple[list[float], list[float], float, tuple[str, str, str, str]]] = [
    ([2**-12] * 2, [2**-12] * 2, 1, ("3f800000", "3f800001", "3f800001", "3f800001")),
    ([2**-12] * 4, [2**-12] * 4, 1, ("3f800000", "3f800002", "3f800002", "3f800002")),
    ([2**-13] * 8, [2**-12] * 8, 1, ("3f800000", "3f800000", "3f800002", "3f800002")),
    ([2**-13] * 16, [2**-13] * 16, 1, ("3f800000", "3f800000", "3f800000", "3f800002")),
    ([-(2**-12)], [2**-12], 1, ("3f800000", "3f7fffff", "3f7fffff", "3f7fffff")),
    ([1024, -1024], [1024, 1024], 2**-5, ("00000000", "00000000", "3d000000", "3d000000")),
]
HALF_UNITS = [
    machine("volta/mma_m8n8k4/f16_f16/f32"),
    machine("ampere/mma_m16n8k16/f16_f16/f32"),
    machine("hopper/mma_m16n8k16/f16_f16/f32"),
]
EXACT = Accumulator(format="float32", group=1 << 40)


@pytest.mark.parametrize(("a", "b", "c", "wanted"), HALF_ROWS)
def test_float16_golden_vectors(a: list[float], b: list[float], c: float, wanted: tuple[str, ...]) -> None:
    padded = [x + [0.0] * (16 - len(x)) for x in (a, b)]
    for unit, bits in zip(HALF_UNITS, wanted, strict=False):
        assert dot(unit.accumulator, *padded, c, a_format="float16", b_format="float16") == f32(bits)
    assert dot(EXACT, *padded, c) == f32(wanted[-1])


FP8_ROWS: list[tuple[list[float], list[float], float, tuple[str, str, str]]] = [
    ([1] + [2**-7] * 31, [1] + [2**-7] * 31, 0, ("3f800000", "3f800000", "3f803e00")),
    ([448] + [2**-3] * 31, [1] + [2**-3] * 31, 0, ("43e00000", "43e00000", "43e03e00")),
    ([0.5] * 32, [1 / 16] * 32, 1 + 2**-20, ("40000000", "40000000", "40000004")),
]
FP8_UNITS = [
    machine("ada_lovelace/mma_m16n8k32/e4m3_e4m3/f32"),
    machine("hopper/wgmma_m64n8k32/e4m3_e4m3/f32"),
    machine("blackwell/tcgen05_m64n8k32_f8f6f4/e4m3_e4m3/f32"),
]


@pytest.mark.parametrize(("a", "b", "c", "wanted"), FP8_ROWS)
def test_float8_golden_vectors(a: list[float], b: list[float], c: float, wanted: tuple[str, ...]) -> None:
    for unit, bits in zip(FP8_UNITS, wanted, strict=True):
        assert dot(unit.accumulator, a, b, c, a_format="float8_e4m3fn", b_format="float8_e4m3fn") == f32(bits)


VDPBF16PS = """
3f80 3f80 3380 3380 3f800000 3f800000 | 3f80 3f80 b380 3380 3f800001 3f800002 | 3f80 0001 3f80 7f00 00000000 3f800000
3f80 0000 3f80 0000 00000001 3f800000 | 0080 0000 3f00 0000 00000000 00000000 | 7f00 ff00 7f00 7f00 00000000 ff800000
3f80 7f00 3f80 7f00 ff800000 ff800000
"""


@pytest.mark.parametrize(
    "row", [row.strip() for line in VDPBF16PS.split("\n") for row in line.split("|") if row.strip()]
)
def test_vdpbf16ps_golden_vectors(row: str) -> None:
    a0, a1, b0, b1, c, d = (int(x, 16) for x in row.split())
    assert run(machine("x86/vdpbf16ps/bf16_bf16/f32"), [a0, a1], [b0, b1], c) == meaning(d, "f32")


@pytest.mark.parametrize(
    ("lost", "wanted"),
    [(1.0, "00000000"), (0.75, "00000000"), (0.625, "00000000"), (0.5, "00800000"), (0.25, "00800000")],
)
def test_what_x86_flushes_is_decided_after_rounding_without_end(lost: float, wanted: str) -> None:
    # Executed on an Intel Xeon: 2^-126 - lost * 2^-150. As subnormal numbers all but the first would round to 2^-126.
    unit = machine("x86/vdpbf16ps/bf16_bf16/f32")
    for sign in (1, -1):
        a, b, c = [-sign * lost * 2.0**-75, 0], [2.0**-75, 0], sign * 2.0**-126
        got = dot(unit.accumulator, a, b, c, a_format="bfloat16", b_format="bfloat16")
        assert got == (f32(wanted) if sign > 0 else f32(f"{int(wanted, 16) | 1 << 31:x}"))


TILES: list[tuple[list[float], list[float], str, str]] = [
    ([1] * 32, [2**-25] * 32, "3f800000", "3f800008"),
    ([1] * 32, [1] + [2**-25] * 31, "00000000", "3f800004"),
    ([1] * 32, [1, -1] + [2**-25] * 30, "00000000", "00000000"),
    ([1.0078125] * 4, [1.0078125, -1.0078125, 0.50390625, 2**-24], "3e800001", "3f420202"),
    ([2.0**-126, 0], [0.5, 0], "00800000", "00800000"),
]


@pytest.mark.parametrize(("a", "b", "c", "wanted"), TILES)
def test_tdpbf16ps_golden_vectors(a: list[float], b: list[float], c: str, wanted: str) -> None:
    unit = machine("x86/tdpbf16ps/bf16_bf16/f32")
    assert dot(unit.accumulator, a, b, f32(c), a_format="bfloat16", b_format="bfloat16") == f32(wanted)


SMALL = [1] + [2**-12] * 15
CANCELLED = ([1024, -1024, 2**-12], [1024, 1024, 2**-12])
AMD: list[tuple[str, list[float], list[float], float, str]] = [
    ("cdna1/mfma_16x16x16/f16_f16/f32", SMALL, SMALL, 0, "3f800008"),
    ("cdna2/mfma_16x16x16/f16_f16/f32", SMALL, SMALL, 0, "3f800007"),
    ("cdna3/mfma_16x16x16/f16_f16/f32", SMALL, SMALL, 0, "3f800008"),
    ("cdna1/mfma_16x16x16/f16_f16/f32", *CANCELLED, 0, "33800000"),
    ("cdna2/mfma_16x16x16/f16_f16/f32", *CANCELLED, 0, "33800000"),
    ("cdna3/mfma_16x16x16/f16_f16/f32", *CANCELLED, 0, "00000000"),
    ("cdna1/mfma_16x16x8/bf16_bf16/f32", SMALL[:8], SMALL[:8], 0, "3f800003"),
    ("cdna2/mfma_16x16x16_1k/bf16_bf16/f32", SMALL, SMALL, 0, "3f800007"),
    ("cdna3/mfma_16x16x16/bf16_bf16/f32", SMALL, SMALL, 0, "3f800008"),
    ("cdna3/mfma_16x16x32/e4m3fnuz_e4m3fnuz/f32", [1] + [2**-7] * 31, [1] + [2**-7] * 31, 0, "3f803e00"),
    ("cdna3/mfma_16x16x32/e4m3fnuz_e4m3fnuz/f32", [2**-7] * 4, [2**-7] * 4, -1, "bf7ff000"),
    ("cdna3/mfma_16x16x32/e4m3fnuz_e4m3fnuz/f32", [240, -240, 2**-9], [240, 240, 2**-9], 0, "00000000"),
]


@pytest.mark.parametrize(("name", "a", "b", "c", "wanted"), AMD)
def test_amd_golden_vectors(name: str, a: list[float], b: list[float], c: float, wanted: str) -> None:
    unit = machine(name)
    assert dot(unit.accumulator, a, b, c, a_format=unit.reads[0], b_format=unit.reads[1]) == f32(wanted)


NVFP4 = "blackwell/tcgen05_m128n8k64_mxf4nvf4_block16/e2m1_e2m1_ue4m3/f32"
MXFP4 = "blackwell/tcgen05_m128n8k64_mxf4_block32/e2m1_e2m1_ue8m0/f32"
MXFP8 = "blackwell/tcgen05_m128n8k32_mxf8f6f4_block32/e4m3_e4m3_ue8m0/f32"
ONES = [1.0] * 64
SCALED: list[tuple[str, list[float], list[float], list[float], list[float], float, str]] = [
    (NVFP4, ONES, ONES, [1] * 4, [1] * 4, 0, "42800000"),
    (NVFP4, [6] * 64, [6] * 64, [448] * 4, [448] * 4, 1, "4ddc8000"),
    (NVFP4, ONES, ONES, [448, 2**-9, 1, 1.125], [1] * 4, 2**-20, "45e11040"),
    (MXFP4, ONES, ONES, [2**-30, 1], [1, 1], 1, "42040000"),
    (MXFP4, [1] * 32 + [0] * 32, ONES, [2**-28, 1], [1, 1], 1, "3f800001"),
    (MXFP4, [1] * 32 + [0] * 32, [-1] * 64, [2**-28, 1], [1, 1], 1, "3f7ffffe"),
    (MXFP8, [1] + [2**-7] * 31, [1] + [2**-7] * 31, [4], [0.5], 1, "40403e00"),
    (MXFP8, [1] * 32, [1] * 32, [2**-26], [1], 1, "3f800000"),
    (MXFP8, [1] * 32, [-1] * 32, [2**-25], [1], 1, "3f7ffff0"),
    (MXFP8, [1] * 32, [1] * 32, [2.0**-127], [2.0**-10], 0, "00020000"),
]


@pytest.mark.parametrize(("name", "a", "b", "sa", "sb", "c", "wanted"), SCALED)
def test_block_scaled_golden_vectors(
    name: str, a: list[float], b: list[float], sa: list[float], sb: list[float], c: float, wanted: str
) -> None:
    unit = machine(name)
    got = dot(
        unit.accumulator, a, b, c, a_format=unit.reads[0], b_format=unit.reads[1],
        scales_a=sa, scales_b=sb, scale_format=READ[unit.scale or ""],
    )  # fmt: skip
    assert got == f32(wanted)
