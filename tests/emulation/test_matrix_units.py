"""Matrix units against recorded outputs of GPUs and CPUs, and a simulator's: every bit of every case."""

import csv
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import lowp
from lowp.emulation import _unit_rows
from lowp.emulation.matrix_units import STANDINGS
from tests.conftest import Vectors, vectors_folder

NVIDIA = ("volta", "turing", "ampere", "ada_lovelace", "hopper", "blackwell", "rtx_blackwell")
#: Fraction and exponent bits of results of floats.
FLOATS = {"f16": (10, 5), "f32": (23, 8), "f64": (52, 11)}
FOLDERS = ("matrix_units", "recorded_gpu", "x86")


def cases(folder: str) -> list[dict[str, str]]:
    """Return the rows of a folder's list of cases."""
    root = vectors_folder()
    if root is None or not (root / folder / "units.csv").exists():
        return []
    with (root / folder / "units.csv").open(newline="") as lines:
        return list(csv.DictReader(lines))


def is_nan(codes: np.ndarray, result: str) -> np.ndarray:
    if result not in FLOATS:
        return np.zeros(codes.shape, bool)
    fraction, exponent = FLOATS[result]
    magnitude = codes & codes.dtype.type((1 << (fraction + exponent)) - 1)
    return magnitude > codes.dtype.type(((1 << exponent) - 1) << fraction)


def check(unit: str, a: Any, b: Any, c: Any, d: np.ndarray, scales: tuple[Any, Any] = (None, None)) -> None:
    """Compare a unit's results with recorded codes; NaN of others than NVIDIA's floats is any NaN."""
    machine = lowp.matrix_unit(unit)
    found = machine.run_codes(a, b, c, *scales)
    wanted = np.ascontiguousarray(d).view(found.dtype)
    equal = found == wanted
    if machine.name.split("/")[0] not in NVIDIA or machine.d == "f64":
        equal |= is_nan(found, machine.d) & is_nan(wanted, machine.d)
    wrong = np.argwhere(~equal)
    assert not len(wrong), (
        f"{unit}: {len(wrong)} of {equal.size}, first {wrong[0]}: {found[~equal][0]:x}, {wanted[~equal][0]:x}"
    )


@pytest.mark.parametrize("case", cases("matrix_units"), ids=lambda case: case["unit"])
def test_simulated_outputs(case: dict[str, str], vectors: Vectors) -> None:
    chained = ("", "_chained") if case["in_chained"] == "yes" else ("",)
    for suffix in chained:
        z, q = vectors(f"matrix_units/{case['file']}{suffix}"), case["case_id"]
        scales = (z[f"{q}/SA"], z[f"{q}/SB"]) if case["scale"] else (None, None)
        check(case["unit"], z[f"{q}/A"], z[f"{q}/B"], z[f"{q}/C"], z[f"{q}/D"], scales)


@pytest.mark.parametrize("case", cases("recorded_gpu"), ids=lambda case: f"{case['file']}-{case['unit']}")
def test_outputs_recorded_on_gpus(case: dict[str, str], vectors: Vectors) -> None:
    z, q = vectors(f"recorded_gpu/{case['file']}"), case["case_id"]
    column = (slice(None), None, None)
    check(case["unit"], z[f"{q}/A"][:, None, :], z[f"{q}/B"][:, :, None], z[f"{q}/C"][column], z[f"{q}/D"][column])
    assert lowp.matrix_unit(case["unit"]).standing == "recorded"


def executed(vectors: Vectors, case: Mapping[str, str]) -> tuple[Any, Any, Any, Any]:
    """Return operands and results that a CPU executed, as matrices."""
    z, q, column = vectors(f"x86/{case['file']}"), case["case_id"], (slice(None), None, None)
    match case["file"]:
        case "matrix_units":
            return z[f"{q}/A"], z[f"{q}/B"], z[f"{q}/C"], z[f"{q}/D"]
        case "vdpbf16ps":
            return z["a"][:, None, :], z["b"][:, :, None], z["c"][column], z["d"][column]
        case "amx_tiles":  # pairs or fours of consecutive terms lie side by side
            a, b = z[f"{q}/A"], z[f"{q}/B"].transpose(0, 1, 3, 2)
            b = np.ascontiguousarray(b).reshape(len(b), -1, b.shape[3])
            if q.startswith("int8"):
                a, b = (x.view(np.int8 if sign == "s" else np.uint8) for x, sign in zip((a, b), q[5:7], strict=True))
            return a, b, z[f"{q}/C"], z[f"{q}/D"]
        case "avx512_vnni":
            a, b = z["a_bytes"], z["b_bytes"]
            if q.startswith("vpdpw"):
                a, b = (np.ascontiguousarray(x).view(np.int16) for x in (a, b))
            return a[:, None, :], b[:, :, None], z["c"][column], z[q][column]
        case _:
            return z["a"][column], z["b"][column], z["c"][column], z[q][column]


@pytest.mark.parametrize("case", cases("x86"), ids=lambda case: f"{case['file']}-{case['case_id']}")
def test_outputs_of_a_cpu(case: dict[str, str], vectors: Vectors) -> None:
    check(case["unit"], *executed(vectors, case))


def test_fp8_mma_of_hopper_and_blackwell_is_not_their_native_one(vectors: Vectors) -> None:
    z, q = vectors("recorded_gpu/B200"), "mma.m16n8k32.f32.e4m3.e4m3.f32"
    native = lowp.matrix_unit("blackwell/tcgen05_m64n8k32_f8f6f4/e4m3_e4m3/f32")
    found = native.run_codes(z[f"{q}/A"][:, None, :], z[f"{q}/B"][:, :, None], z[f"{q}/C"][:, None, None])
    assert 0.5 < (found[:, 0, 0] == z[f"{q}/D"]).mean() < 0.8


#: Hopper's steps of bfloat16 products, changed a little.
CHANGES = [
    {"fraction_bits": 24}, {"fraction_bits": 26}, {"cut": "toward_negative"}, {"cut": "ties_to_even"},
    {"zero_exponent": -132}, {"zero_exponent": -134},
]  # fmt: skip


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_a_parameter_that_is_off_by_one_is_seen(change: dict[str, Any], vectors: Vectors) -> None:
    z, q = vectors("matrix_units/wgmma_Hopper"), "m64n8k16.f32.bf16.bf16"
    unit = lowp.matrix_unit("hopper/wgmma_m64n8k16/bf16_bf16/f32")
    assert unit.accumulator.alignment is not None
    alignment = replace(unit.accumulator.alignment, **change)
    changed = replace(unit, accumulator=replace(unit.accumulator, alignment=alignment))
    found = changed.run_codes(z[f"{q}/A"], z[f"{q}/B"], z[f"{q}/C"])
    assert (found != z[f"{q}/D"]).any()


def test_every_name_of_the_vectors_is_known() -> None:
    names = [case["unit"] for folder in FOLDERS for case in cases(folder)]
    if not names:
        pytest.skip("no independent test vectors here: set LOWP_VECTORS to their folder")
    for name in names:
        assert lowp.matrix_unit(name).name == name


def test_every_listed_name_is_a_unit_that_runs() -> None:
    standings: Counter[str] = Counter()
    for name in one_of_each():
        unit = lowp.matrix_unit(name)
        standings[unit.standing] += 1
        terms = unit.terms or 8
        values = {role: ones(fmt) for role, fmt in (("a", unit.a), ("b", unit.b), ("c", unit.c))}
        a = np.full((2, terms), values["a"])
        b = np.full((terms, 3), values["b"])
        found = unit.run_codes(a, b, np.full((2, 3), values["c"]))
        wanted = np.full((2, 3), terms + 1.0)
        got = unit.run(np.ones((2, terms)), np.ones((terms, 3)), np.ones((2, 3)))
        np.testing.assert_array_equal(got, wanted)
        coding = _unit_rows.coding(unit.d)
        assert found.dtype == (f"int{coding.container}" if unit.d.startswith("s") else f"uint{coding.container}")
        codes = found.view(f"uint{coding.container}")
        np.testing.assert_array_equal(lowp.decode(codes, coding.format), wanted)
        assert str(unit).startswith(name)
        assert unit.evidence
        assert unit.source
    assert set(standings) == set(STANDINGS)


def one_of_each() -> Iterator[str]:
    """Return one name of each row of the data."""
    seen = set()
    for name in lowp.matrix_units():
        architecture, instruction, _, result = name.split("/")
        kind = (architecture, instruction, result)
        if kind not in seen:
            seen.add(kind)
            yield name


def ones(name: str) -> int:
    """Return the code of one."""
    coding = _unit_rows.coding(name)
    return int(lowp.encode([1.0], coding.format).codes[0]) << coding.ignored


def test_signed_integers_come_as_such() -> None:
    unit = lowp.matrix_unit("x86/tdpbssd/s8_s8/s32")
    found = unit.run_codes(np.full((1, 4), -128, np.int8), np.full((4, 1), 127, np.int8), np.full((1, 1), 5, np.int32))
    assert found.dtype == np.int32
    assert found.item() == 5 - 4 * 128 * 127


class TestShapes:
    unit = lowp.matrix_unit("ampere/mma_m16n8k16/f16_f16/f32")

    def test_batches_broadcast(self) -> None:
        rng = np.random.default_rng(1)
        a = rng.integers(0, 0x3C00, (2, 1, 5, 20), np.uint16)
        b = rng.integers(0, 0x3C00, (3, 20, 7), np.uint16)
        c = rng.integers(0, 0x3F000000, (5, 7), np.uint32)
        whole = self.unit.run_codes(a, b, c)
        assert whole.shape == (2, 3, 5, 7)
        for i in range(2):
            for j in range(3):
                np.testing.assert_array_equal(whole[i, j], self.unit.run_codes(a[i, 0], b[j], c))

    def test_empty(self) -> None:
        a, b = np.zeros((0, 16), np.uint16), np.zeros((16, 3), np.uint16)
        assert self.unit.run_codes(a, b).shape == (0, 3)
        c = np.full((2, 3), 0x80000000, np.uint32)
        no_terms = self.unit.run_codes(np.zeros((2, 0), np.uint16), np.zeros((0, 3), np.uint16), c)
        np.testing.assert_array_equal(no_terms, c)

    def test_low_bits_of_tf32_are_not_read(self) -> None:
        unit = lowp.matrix_unit("ampere/mma_m16n8k8/tf32_tf32/f32")
        a, b = np.full((1, 8), 0x3F801FFF, np.uint32), np.full((8, 1), 0x3F800000, np.uint32)
        assert unit.run_codes(a, b)[0, 0] == 0x41000000


class TestSaidClearly:
    def test_names(self) -> None:
        with pytest.raises(lowp.ArgumentError, match=r"hopper/wgmma_m64n8k32/e4m3_e4m3/f64.*Did you mean"):
            lowp.matrix_unit("hopper/wgmma_m64n8k32/e4m3_e4m3/f64")
        with pytest.raises(lowp.ArgumentError, match="matrix_units"):
            lowp.matrix_unit(3)  # type: ignore[arg-type]

    def test_operands(self) -> None:
        unit = lowp.matrix_unit("hopper/wgmma_m64n8k32/e4m3_e4m3/f32")
        with pytest.raises(lowp.ArgumentError, match="do not fit"):
            unit.run_codes(np.zeros((2, 3), np.uint8), np.zeros((4, 2), np.uint8))
        with pytest.raises(lowp.ArgumentError, match="scale_a was given"):
            unit.run_codes(np.zeros((2, 3), np.uint8), np.zeros((3, 2), np.uint8), scale_a=np.zeros((2, 1), np.uint8))
        with pytest.raises(lowp.ArgumentError, match=r"a holds 0\.1.*lowp\.quantize"):
            unit.run(np.full((1, 2), 0.1), np.ones((2, 1)))
        with pytest.raises(lowp.ArgumentTypeError, match="integer codes"):
            unit.run_codes(np.zeros((1, 2)), np.zeros((2, 1)))
        with pytest.raises(lowp.ArgumentError, match="codes that e2m1"):
            lowp.matrix_unit("blackwell/tcgen05_m64n8k32_f8f6f4/e2m1_e2m1/f32").run_codes(
                np.full((1, 2), 16, np.uint8), np.zeros((2, 1), np.uint8)
            )
        with pytest.raises(lowp.ArgumentError, match="one scale for 32"):
            lowp.matrix_unit("blackwell/tcgen05_m128n8k32_mxf8f6f4_block32/e4m3_e4m3_ue8m0/f32").run_codes(
                np.zeros((1, 64), np.uint8), np.zeros((64, 1), np.uint8), scale_a=np.zeros((1, 1), np.uint8)
            )
