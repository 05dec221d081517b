"""`lowp verify`: all backends alike, and all float32 numbers right; and a planted difference is found."""

from __future__ import annotations

import os
import time
from typing import Any

import numpy as np
import pytest

from lowp.cli import verify_backends, verify_float32
from lowp.cli.verify_float32 import PIECES, check_all_float32
from tests.cli.conftest import Run, assert_refused

pytest.importorskip("numba")

#: Pieces that hold zero, the usual numbers of both signs, the last finite numbers, infinity and NaN.
SOME = sorted({0, 1000, 1015, 1016, 1020, 2039, 2040, 2041, 2048, 3064, 3070, 4087, 4088, 4095})


def test_backends_agree(lowp: Run) -> None:
    done = lowp("verify", "float8_e5m2,mxfp4", "--rounding", "ties_to_even,stochastic_b")
    assert done.code == 0
    assert "all 4 rows agree" in done.out
    assert "NumPy in place" in done.out


def test_backends_as_json(lowp: Run) -> None:
    done = lowp("verify", "posit8_es2", "--rounding", "toward_zero", "--json")
    (row,) = done.json["rows"]
    assert done.code == 0
    assert (row["format"], row["rounding"], row["agrees"], row["asked"]) == ("posit8_es2", "toward_zero", True, 256)
    assert set(row["differing"]) >= {"NumPy in place", "NumPy float64", "oracle"}
    assert set(row["differing"].values()) == {0}


@pytest.mark.parametrize(
    "name", ["nf4", "mxfp8_e4m3", "int4_g128", "int8_row", "nvfp4", "takum16_linear", "lns8_f3", "bfloat16"]
)
def test_every_kind_of_format(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    here = {key: way for key, way in verify_backends.backends().items() if key.startswith("NumPy")}
    monkeypatch.setattr(verify_backends, "backends", lambda: here)
    for row in verify_backends.check([name], ["ties_to_even", "stochastic_a"]):
        assert row.agrees, row
        assert row.asked or name == "nvfp4"


def test_a_backend_that_differs_is_found(lowp: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def careless(x: Any, *arguments: Any) -> Any:
        result = verify_backends.quantize(x, *arguments[:2], seed=arguments[2])
        result[-1, -1] = np.nextafter(result[-1, -1], np.float32(np.inf))
        return result

    def broken(*arguments: Any) -> Any:
        raise ValueError("no device")

    monkeypatch.setattr(verify_backends, "backends", lambda: {"careless": careless, "broken": broken})
    done = lowp("verify", "int8", "--rounding", "ties_to_even")
    assert done.code == 1
    assert "1 of 1 rows differ" in done.out
    assert "ValueError: no device" in done.out
    data = lowp("verify", "int8", "--rounding", "ties_to_even", "--json").json
    assert data["rows"][0]["differing"]["careless"] == 1
    assert data["agrees"] is False


def test_a_wrong_result_of_numpy_is_found_by_the_oracle(monkeypatch: pytest.MonkeyPatch) -> None:
    right = verify_backends.quantize
    monkeypatch.setattr(verify_backends, "backends", dict)
    monkeypatch.setattr(verify_backends, "quantize", lambda x, *a, **k: -right(x, *a, **k))
    for name in ("float8_e4m3fn", "mxfp4", "nf4"):
        (row,) = verify_backends.check([name], ["ties_to_even"])
        assert row.differing["oracle"] not in (0, "–")


@pytest.mark.parametrize(
    ("name", "rounding", "overflow"),
    [
        ("float8_e4m3fn", "ties_to_even", "infinity_or_nan"),
        ("float8_e5m2", "to_odd", "saturate"),
        ("float8_e4m3fn", "stochastic_c", "saturate"),
        ("int8", "toward_negative", "saturate_zero"),
        ("posit8_es2", "ties_to_even", "saturate"),
        ("takum8_linear", "toward_zero", "saturate"),
        ("nf4", "ties_to_even", "saturate"),
        ("lns8_f3", "ties_to_even", "infinity_or_nan"),
    ],
)
def test_some_of_all_numbers(name: str, rounding: str, overflow: str) -> None:
    outcome = check_all_float32(name, rounding, overflow, pieces=SOME)
    assert outcome.inputs == len(SOME) << 20
    assert (outcome.wrong, outcome.differences) == (0, [])
    assert outcome.oracle_inputs > 0
    assert outcome.steps == outcome.steps_checked


def test_results_that_float32_does_not_hold_are_left_out() -> None:
    outcome = check_all_float32("takum16_linear", pieces=[0, 2039])
    assert outcome.wrong == 0
    assert 0 < outcome.left_out < outcome.inputs


@pytest.mark.parametrize("name", ["float8_e4m3fn", "posit8_es2", "nf4"])
def test_one_wrong_number_of_all_is_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    right = verify_float32.quantize

    def planted(x: Any, *arguments: Any, out: Any = None) -> Any:
        result = right(x, *arguments, out=out)
        if out is not None and x.view(np.uint32)[0] == 1016 << 20:
            result[12345] = np.float32(0.25) if result[12345] != 0.25 else np.float32(0.5)
        return result

    monkeypatch.setattr(verify_float32, "quantize", planted)
    outcome = check_all_float32(name, pieces=[1015, 1016, 1017])
    assert outcome.wrong >= 1
    assert {d.x for d in outcome.differences} >= {(1016 << 20) + 12345}
    assert "oracle" in {d.by for d in outcome.differences}  # a step of its own, both ends of which are asked about


def test_a_result_that_is_wrong_in_both_ways_is_found_by_the_oracle(monkeypatch: pytest.MonkeyPatch) -> None:
    """A decision point that lies wrong is the end of a step."""

    def late(x: Any, *arguments: Any, out: Any = None) -> Any:
        out[...] = np.where(np.abs(x) < 1.0, np.float32(0), np.float32(1))
        return out

    def reference(x: Any, wanted: Any, first: int) -> None:
        late(x.view(np.float32), out=wanted.view(np.float32))

    monkeypatch.setattr(verify_float32, "quantize", late)
    monkeypatch.setattr(verify_float32, "reference_of", lambda *a: ("another", reference))
    outcome = check_all_float32("uint1", pieces=[1008, 1016])
    assert outcome.wrong >= 1
    assert {d.by for d in outcome.differences} == {"oracle"}


def test_all_float32_from_the_command_line(lowp: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def some(*arguments: Any, advance: Any) -> Any:
        return check_all_float32(*arguments, pieces=SOME[:3], advance=advance)

    monkeypatch.setattr(verify_float32, "check_all_float32", some)
    done = lowp("verify", "fp8", "--all-float32")
    assert done.code == 0
    assert "none differ" in done.out
    assert "which proves all inputs" in done.out
    data = lowp("verify", "fp8", "--rounding", "stochastic", "--all-float32", "--seed", "9", "--json").json
    assert (data["agrees"], data["rounding"], data["inputs"]) == (True, "stochastic_a", 3 << 20)


def test_a_difference_among_all_float32_has_exit_code_1(lowp: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    outcome = verify_float32.Outcome("float8_e4m3fn", "ties_to_even", "saturate", "integer algorithm", 1)
    outcome.note([0x3F800000], [0x3F800001], [0x3F800000], "oracle")
    monkeypatch.setattr(verify_float32, "check_all_float32", lambda *a, **k: outcome)
    done = lowp("verify", "fp8", "--all-float32")
    assert done.code == 1
    assert "0x3f800000 (1.0) gives 0x3f800001 (1.0000001), not 0x3f800000 (1.0) (oracle)" in done.out
    assert lowp("verify", "fp8", "--all-float32", "--json").code == 1


def test_bad_input_is_refused(lowp: Run) -> None:
    assert_refused(lowp("verify", "fp9"), "format='fp9'")
    assert_refused(lowp("verify", "fp8", "--rounding", "up"), "rounding='up'")
    assert_refused(lowp("verify", "fp8", "--overflow", "propagate"), "--all-float32")
    assert_refused(lowp("verify", "--all-float32"), "takes one format")
    assert_refused(lowp("verify", "mxfp4", "--all-float32"), "'mxfp4' is not a scalar format")
    assert_refused(lowp("verify", "int8", "--overflow", "wrap", "--all-float32"), "wrap")
    assert_refused(lowp("verify", "nf4", "--rounding", "stochastic", "--all-float32"), "deterministic")
    assert_refused(lowp("verify", "posit32_es2", "--all-float32"), "up to 16")
    assert_refused(lowp("verify", "float64", "--all-float32"), "float32 does not hold")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "rounding"),
    [("float8_e4m3fn", "ties_to_even"), ("bfloat16", "stochastic_a"), ("posit8_es2", "ties_to_even"), ("nf4", "rne")],
)
def test_all_float32_numbers(name: str, rounding: str) -> None:
    """The time is that of the processor, spread over two cores."""
    start = time.process_time()
    outcome = check_all_float32(name, rounding)
    used = time.process_time() - start
    assert outcome.inputs == 1 << 32 == PIECES << 20
    assert (outcome.wrong, outcome.steps) == (0, outcome.steps_checked)
    assert used / min(2, os.cpu_count() or 1) < 60
