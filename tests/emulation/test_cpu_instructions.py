"""The CPU's own dot-product instructions and the units that emulate them, bit for bit."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray

import lowp

SOURCE = Path(__file__).with_name("cpu_instructions.c")
Codes = NDArray[np.unsignedinteger[Any]]


class Kind(NamedTuple):
    """A float as a code: bits of exponent and mantissa, and the type that carries it."""

    exponent_bits: int
    mantissa_bits: int
    dtype: type

    @property
    def bias(self) -> int:
        return (1 << (self.exponent_bits - 1)) - 1

    def codes(self, rng: np.random.Generator, shape: tuple[int, ...], low: int, high: int) -> Codes:
        """Random codes whose exponent field is from `low` to `high`; half of them have few mantissa bits."""
        field = np.clip(rng.integers(low, high + 1, shape), 0, (1 << self.exponent_bits) - 2)
        mantissa = rng.integers(0, 1 << self.mantissa_bits, shape)
        few = (mantissa >> rng.integers(0, self.mantissa_bits + 1, shape)) << (self.mantissa_bits - 1)
        mantissa = np.where(rng.random(shape) < 0.5, mantissa, few & ((1 << self.mantissa_bits) - 1))
        sign = rng.integers(0, 2, shape) << (self.exponent_bits + self.mantissa_bits)
        return (sign | field << self.mantissa_bits | mantissa).astype(self.dtype)


BF16, F16, F32 = Kind(8, 7, np.uint16), Kind(5, 10, np.uint16), Kind(8, 23, np.uint32)


class Instruction(NamedTuple):
    """An instruction: its unit, the CPU's flag, the format of operands and of results, operands in a lane's word."""

    unit: str
    flag: str
    operand: Kind | tuple[str, str]
    result: Kind | None
    packed: int = 1


INSTRUCTIONS = {
    "vdpbf16ps": Instruction("bf16_bf16/f32", "avx512_bf16", BF16, F32, 2),
    "vpdpbusd": Instruction("u8_s8/s32", "avx512_vnni", ("uint8", "int8"), None, 4),
    "vpdpbusds": Instruction("u8_s8/s32", "avx512_vnni", ("uint8", "int8"), None, 4),
    "vpdpwssd": Instruction("s16_s16/s32", "avx512_vnni", ("int16", "int16"), None, 2),
    "vpdpwssds": Instruction("s16_s16/s32", "avx512_vnni", ("int16", "int16"), None, 2),
    "vfmaddps": Instruction("f32_f32/f32", "avx512f", F32, F32),
    "vfmaddps_rd": Instruction("f32_f32/f32", "avx512f", F32, F32),
    "vfmaddps_ru": Instruction("f32_f32/f32", "avx512f", F32, F32),
    "vfmaddps_rz": Instruction("f32_f32/f32", "avx512f", F32, F32),
    "vfmaddph": Instruction("f16_f16/f16", "avx512_fp16", F16, F16),
    "vfmaddph_rd": Instruction("f16_f16/f16", "avx512_fp16", F16, F16),
    "vfmaddph_ru": Instruction("f16_f16/f16", "avx512_fp16", F16, F16),
    "vfmaddph_rz": Instruction("f16_f16/f16", "avx512_fp16", F16, F16),
    "tdpbf16ps": Instruction("bf16_bf16/f32", "amx_bf16", BF16, F32, 2),
    "tdpbssd": Instruction("s8_s8/s32", "amx_int8", ("int8", "int8"), None, 4),
    "tdpbsud": Instruction("s8_u8/s32", "amx_int8", ("int8", "uint8"), None, 4),
    "tdpbusd": Instruction("u8_s8/s32", "amx_int8", ("uint8", "int8"), None, 4),
    "tdpbuud": Instruction("u8_u8/s32", "amx_int8", ("uint8", "uint8"), None, 4),
}
FLOATS = [name for name, row in INSTRUCTIONS.items() if row.result is not None]
INTEGERS = [name for name, row in INSTRUCTIONS.items() if row.result is None]
#: Exponents of products and addends relative to the least normal number, to one, or to the largest; from, to.
REGIONS = {"tiny": (-40, 6), "least": (-4, 2), "one": (-12, 12), "wide": (-100, 100), "huge": (-6, 2)}


def cpu_flags() -> set[str]:
    """The flags of this machine's CPU, where Linux tells them."""
    path = Path("/proc/cpuinfo")
    text = path.read_text() if path.is_file() else ""
    return {flag for line in text.splitlines() if line.startswith("flags") for flag in line.split(":")[1].split()}


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """The C helper, compiled."""
    if "avx512f" not in cpu_flags():
        pytest.skip("this CPU has no AVX-512")
    compiler = shutil.which("gcc")
    if compiler is None:
        pytest.skip("no gcc here")
    target = tmp_path_factory.mktemp("cpu") / "instructions.so"
    command = [compiler, "-O1", "-shared", "-fPIC", "-o", str(target), str(SOURCE)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0 and "fp16" in done.stderr:
        pytest.skip("this gcc is older than the instructions")
    assert done.returncode == 0, done.stderr
    return ctypes.CDLL(str(target))


def _pointer(x: NDArray[Any]) -> ctypes.c_void_p:
    return ctypes.c_void_p(x.ctypes.data)


def on_lanes(library: ctypes.CDLL, name: str, packed: int, a: Codes, b: Codes, c: Codes) -> Codes:
    """The products of (m, k) and (k, n), each output in a lane of its own."""
    (m, k), n = a.shape, b.shape[1]
    word = c.dtype
    left = np.ascontiguousarray(a).view(word).T  # (steps, m), packed
    right = np.ascontiguousarray(b.T).view(word).T
    assert left.shape[0] == k // packed
    lanes_a = np.ascontiguousarray(np.repeat(left, n, axis=1))
    lanes_b = np.ascontiguousarray(np.tile(right, (1, m)))
    start, out = np.ascontiguousarray(c), np.empty_like(c)
    assert c.size % (64 // word.itemsize) == 0
    count, steps = ctypes.c_long(c.size), ctypes.c_long(left.shape[0])
    getattr(library, name)(count, steps, _pointer(lanes_a), _pointer(lanes_b), _pointer(start), _pointer(out))
    return out


def on_tiles(library: ctypes.CDLL, name: str, packed: int, a: Codes, b: Codes, c: Codes) -> Codes:
    """The products of (m, k) and (k, n) of up to 16 rows and 16 columns, in tiles of up to 16 words a row."""
    if library.tiles_allowed() == 0:
        pytest.skip("the system gives no tiles")
    (m, k), n = a.shape, b.shape[1]
    sums = np.ascontiguousarray(c)
    left = np.ascontiguousarray(a).view(np.uint32)
    right = np.ascontiguousarray(np.ascontiguousarray(b.T).view(np.uint32).T)
    for first in range(0, k // packed, 16):
        x, y = np.ascontiguousarray(left[:, first : first + 16]), np.ascontiguousarray(right[first : first + 16])
        out = np.empty_like(sums)
        sizes = (ctypes.c_long(s) for s in (m, n, x.shape[1]))
        getattr(library, name)(*sizes, _pointer(x), _pointer(y), _pointer(sums), _pointer(out))
        sums = out
    return sums


def needed(name: str) -> Callable[..., Codes]:
    """How an instruction is run; skip where the CPU lacks it."""
    flag = INSTRUCTIONS[name].flag
    if flag not in cpu_flags():
        pytest.skip(f"this CPU has no {flag}")
    return on_tiles if name.startswith("tdp") else on_lanes


def shape(name: str) -> tuple[int, int]:
    """Rows and columns of a product that an instruction can do."""
    return (16, 16) if name.startswith("tdp") else (96, 96)


def region_codes(row: Instruction, region: str, size: tuple[int, int, int], seed: int) -> tuple[Codes, Codes, Codes]:
    """Operands whose products and addends meet in one region of exponents."""
    rng = np.random.default_rng(seed)
    assert isinstance(row.operand, Kind)
    assert row.result is not None
    operand, result = row.operand, row.result
    m, n, k = size
    least = 1 - result.bias
    centre = {"tiny": least, "least": least, "huge": result.bias}.get(region, 0)
    low, high = REGIONS[region]
    half = (low + centre) // 2, (high + centre) // 2
    a = operand.codes(rng, (m, k), half[0] + operand.bias, half[1] + operand.bias)
    b = operand.codes(rng, (k, n), half[0] + operand.bias, half[1] + operand.bias)
    c = result.codes(rng, (m, n), low // 2 + centre + result.bias, high + centre + result.bias)
    return a, b, c


def assert_same(name: str, found: Codes, wanted: Codes, kind: Kind | None) -> None:
    """Compare codes; of NaN it counts alone that both are."""
    if kind is not None:
        infinity = ((1 << kind.exponent_bits) - 1) << kind.mantissa_bits
        mask = (1 << (kind.exponent_bits + kind.mantissa_bits)) - 1
        nan = [(x & mask) > infinity for x in (found, wanted)]
        found, wanted = (np.where(is_nan, infinity + 1, x) for is_nan, x in zip(nan, (found, wanted), strict=True))
    wrong = np.argwhere(found != wanted)
    assert not len(wrong), f"{name}: {len(wrong)} of {found.size}, first at {wrong[0]}: {found[tuple(wrong[0])]:#x}"


def emulated(name: str, a: Codes, b: Codes, c: Codes) -> Codes:
    """What the unit of an instruction makes of the operands."""
    return lowp.matrix_unit(f"x86/{name}/{INSTRUCTIONS[name].unit}").run_codes(a, b, c).astype(c.dtype)


@pytest.mark.parametrize("region", REGIONS)
@pytest.mark.parametrize("name", FLOATS)
def test_sums_of_floats(library: ctypes.CDLL, name: str, region: str) -> None:
    run, row = needed(name), INSTRUCTIONS[name]
    for seed, steps in enumerate((1, 2, 5, 17)):
        a, b, c = region_codes(row, region, (*shape(name), steps * row.packed), seed)
        wanted = run(library, name, row.packed, a, b, c)
        assert_same(f"{name}, {steps} steps", emulated(name, a, b, c), wanted, row.result)


@pytest.mark.parametrize("name", FLOATS)
def test_all_patterns_of_floats(library: ctypes.CDLL, name: str) -> None:
    """Any bits: NaN, infinities, zeros and subnormal numbers too."""
    run, row = needed(name), INSTRUCTIONS[name]
    rng = np.random.default_rng(1)
    m, n = shape(name)
    assert isinstance(row.operand, Kind)
    assert row.result is not None
    for steps in (1, 3):
        k = steps * row.packed
        a, b, c = (
            rng.integers(0, np.iinfo(kind.dtype).max, size, dtype=kind.dtype, endpoint=True)
            for kind, size in ((row.operand, (m, k)), (row.operand, (k, n)), (row.result, (m, n)))
        )
        zeros = rng.random((3, m, n)) < 0.1
        c = np.where(
            zeros[0], c & ~np.array((1 << (row.result.exponent_bits + row.result.mantissa_bits)) - 1, c.dtype), c
        )
        wanted = run(library, name, row.packed, a, b, c)
        assert_same(f"{name}, {steps} steps", emulated(name, a, b, c), wanted, row.result)


@pytest.mark.parametrize("name", [name for name in FLOATS if "bf16" in name])
def test_tiny_results_are_flushed_as_if_rounded_without_a_least_exponent(library: ctypes.CDLL, name: str) -> None:
    """2^-126 less a few quarters of the last bit below it: from five eighths of 2^-150 on the difference is tiny."""
    run, row = needed(name), INSTRUCTIONS[name]
    m, n = shape(name)
    a, b = np.zeros((m, 2), np.uint16), np.zeros((2, n), np.uint16)
    a[:, 1] = (np.arange(m) % 16 * 2.0**-63).astype(np.float32).view(np.uint32) >> 16
    b[1] = np.float32(-(2.0**-90)).view(np.uint32) >> 16
    c = np.full((m, n), 0x00800000, np.uint32)
    wanted = run(library, name, row.packed, a, b, c)
    if name == "vdpbf16ps":
        assert wanted[:8, 0].tolist() == [0x00800000] * 5 + [0] * 3
    assert_same(name, emulated(name, a, b, c), wanted, row.result)


@pytest.mark.parametrize("extreme", [False, True], ids=["any", "extreme"])
@pytest.mark.parametrize("name", INTEGERS)
def test_sums_of_integers(library: ctypes.CDLL, name: str, extreme: bool) -> None:
    run, row = needed(name), INSTRUCTIONS[name]
    rng = np.random.default_rng(2)
    m, n = shape(name)
    assert isinstance(row.operand, tuple)

    def operand(dtype: str, size: tuple[int, int]) -> NDArray[Any]:
        limits = np.iinfo(dtype)
        if extreme:
            return rng.choice(np.array([limits.min, limits.min + 1, limits.max], dtype), size)
        return rng.integers(limits.min, limits.max, size, dtype=dtype, endpoint=True)

    for steps in (1, 3, 20):
        k = steps * row.packed
        a, b = operand(row.operand[0], (m, k)), operand(row.operand[1], (k, n))
        ends = np.array([-(1 << 31), (1 << 31) - 1, -(1 << 31) + 60000, (1 << 31) - 60000, 0])
        c = rng.choice(ends, (m, n)).astype(np.int32).view(np.uint32)
        wanted = run(library, name, row.packed, a, b, c)
        assert_same(f"{name}, {steps} steps", emulated(name, a, b, c), wanted, None)
