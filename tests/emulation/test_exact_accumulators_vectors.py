"""The oracle of accumulators against recorded and simulated hardware: samples of every case."""

import csv
import itertools
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import Vectors, vectors_folder
from tests.emulation.machines import machine, meaning, run


def cases(folder: str) -> list[Any]:
    """Return the files of a folder of vectors with the units of their cases."""
    root = vectors_folder()
    if root is None:
        return [pytest.param("", {}, marks=pytest.mark.skip(reason="no independent test vectors here"))]
    units: dict[str, dict[str, str]] = {}
    with Path(root, folder, "units.csv").open() as rows:
        for row in csv.DictReader(rows):
            units.setdefault(row["file"], {})[row["case_id"]] = row["unit"]
    names = sorted(path.stem for path in Path(root, folder).glob("*.npz"))
    return [pytest.param(f"{folder}/{name}", units[name.removesuffix("_chained")], id=name) for name in names if
            name.removesuffix("_chained") in units]  # fmt: skip


def check(arrays: Mapping[str, np.ndarray], case: str, unit: str, count: int) -> None:
    """Compare some outputs of a case, of all its distributions in turn."""
    tile = int(case.split(".by")[1]) if ".by" in case else None
    made, rng = machine(unit, tile), np.random.default_rng(len(case))
    a, b, c, d = (arrays[f"{case}/{name}"] for name in "ABCD")
    scales = [arrays.get(f"{case}/{name}") for name in ("SA", "SB")]
    for i in range(count):
        if a.ndim == 2:
            where = int(rng.integers(len(a)))
            left, right, addend, wanted = a[where], b[where], c[where], d[where]
            sa = sb = None
        else:
            t, m, n = i * max(len(a) // count, 1) % len(a), int(rng.integers(a.shape[1])), int(rng.integers(b.shape[2]))
            left, right, addend, wanted = a[t, m], b[t, :, n], c[t, m, n], d[t, m, n]
            sa, sb = (None if s is None else s[t] for s in scales)
            sa, sb = (None if sa is None else sa[m].tolist()), (None if sb is None else sb[:, n].tolist())
        got = run(made, left.tolist(), right.tolist(), int(addend), sa, sb)
        assert got == meaning(int(wanted), made.d), (case, unit, i)


@pytest.mark.parametrize(("name", "units"), cases("matrix_units"))
def test_simulated_outputs(vectors: Vectors, name: str, units: dict[str, str]) -> None:
    arrays = vectors(name)
    for case in map(str, arrays["qualifiers"]):
        check(arrays, case, units[case], 8)


@pytest.mark.parametrize(("name", "units"), cases("recorded_gpu"))
def test_recorded_outputs(vectors: Vectors, name: str, units: dict[str, str]) -> None:
    arrays = vectors(name)
    for case in map(str, arrays["qualifiers"]):
        check(arrays, case, units[case], 25)


def test_outputs_of_x86_instructions(vectors: Vectors) -> None:
    (units,) = (p.values[1] for p in cases("x86") if p.id == "matrix_units")
    arrays = vectors("x86/matrix_units")
    for case in map(str, arrays["qualifiers"]):
        check(arrays, case, units[case], 12)


def test_outputs_of_vector_neural_network_instructions(vectors: Vectors) -> None:
    arrays = vectors("x86/avx512_vnni")
    for name, kinds in (
        ("vpdpbusd", "u8_s8"),
        ("vpdpbusds", "u8_s8"),
        ("vpdpwssd", "s16_s16"),
        ("vpdpwssds", "s16_s16"),
    ):
        unit = machine(f"x86/{name}/{kinds}/s32")
        width = np.int16 if "w" in name else None
        a, b = (np.ascontiguousarray(arrays[key]).view(width or arrays[key].dtype) for key in ("a_bytes", "b_bytes"))
        for i in range(0, len(a), 16):
            got = run(unit, a[i].tolist(), b[i].tolist(), int(arrays["c"][i]))
            assert got == int(arrays[name][i]), (name, i)


@pytest.mark.parametrize(
    ("case", "change"),
    [
        ("f32_32x32x8_f16", {"sum_fraction_bits": 26}),
        ("f32_32x32x8_f16", {"running_fraction_bits": 25}),
        ("f32_32x32x8_f16", {"sum_cut": "toward_zero"}),
        ("f32_32x32x8_f16", {"fraction_bits": 23}),
        ("f32_16x16x32_bf8_bf8", {"lanes": 1}),
        ("f32_16x16x32_bf8_bf8", {"running_reach": None}),
    ],
)
def test_a_wrong_parameter_shows(vectors: Vectors, case: str, change: dict[str, Any]) -> None:
    arrays = vectors("matrix_units/mfma_CDNA3")
    shape, kinds = case.split("_")[1], case.split("_")[2:]
    kinds = [{"bf8": "e5m2fnuz"}.get(k, k) for k in kinds] * (2 if len(kinds) == 1 else 1)
    right = machine(f"cdna3/mfma_{shape}/{'_'.join(kinds)}/f32")
    assert right.accumulator.alignment is not None
    wrong = right._replace(
        accumulator=replace(right.accumulator, alignment=replace(right.accumulator.alignment, **change))
    )
    a, b, c, d = (arrays[f"{case}/{name}"] for name in "ABCD")
    found = {True: 0, False: 0}
    for t, m in itertools.product(range(len(a)), range(0, a.shape[1], 2)):
        n = (t + m) % b.shape[2]
        for unit in (right, wrong):
            got = run(unit, a[t, m].tolist(), b[t, :, n].tolist(), int(c[t, m, n]))
            found[unit is right] += got != meaning(int(d[t, m, n]), "f32")
    assert found[True] == 0
    assert found[False] > 0
