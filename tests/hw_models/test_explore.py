"""Explorations: the same table whatever carries them out, and what the table says."""

from __future__ import annotations

import csv
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.hw_models.exploring import FORMATS, OBJECTIVES, SPACE, WORK, loss, processes

import lowp
from lowp import hw
from lowp._errors import ArgumentError, ArgumentTypeError, Error
from lowp.hw_models.exploration_points import Point


def run(*args: Any, **options: Any) -> hw.Exploration:
    return hw.explore(*args, **options, progress=False)


@pytest.fixture(scope="module")
def serial() -> hw.Exploration:
    return run(SPACE, WORK, OBJECTIVES, accuracy=loss)


def test_costs_are_those_of_the_models(serial: hw.Exploration) -> None:
    assert len(serial) == 2 * len(FORMATS)
    for point in serial.points[::7]:
        time, energy = hw.matmuls_cost(WORK, point.weights, point.weights, point.machine)
        assert point.metrics["time"][:3] == pytest.approx((time.value, time.low, time.high))
        assert point.metrics["energy"][:3] == pytest.approx((energy.value, energy.low, energy.high))
        assert point.metrics["time"].unit == "s"
        assert sum(point.metrics["time"].shares["bound"].values()) == pytest.approx(1)
        assert sum(point.metrics["energy"].shares["product"].values()) == pytest.approx(1)


def test_size_counts_scales() -> None:
    found = run(["mxfp4", "nvfp4", "int8_row"], [(1, 256, 128, 3)], ["size"])
    assert [p.metrics["size"].value for p in found] == [256 * 128 * 3 * b / 8 for b in (4.25, 4.5, 8)]


def test_alike_products_are_put_together() -> None:
    apart = run({"formats": ["fp8"], "devices": ["h100"]}, [(64, 256, 128)] * 5, ["time"])
    once = run({"formats": ["fp8"], "devices": ["h100"]}, [(64, 256, 128, 5)], ["time"])
    assert apart.points == once.points


@pytest.mark.parametrize("kind", [ThreadPoolExecutor, processes])
@pytest.mark.parametrize("batch", [1, 7])
def test_executors_give_the_same_table(serial: hw.Exploration, kind: Any, batch: int) -> None:
    with kind(2) as executor:
        assert run(SPACE, WORK, OBJECTIVES, executor, accuracy=loss, batch=batch) == serial


def test_the_front_lies_before_all_others(serial: hw.Exploration) -> None:
    front = serial.front()
    values = [tuple(p.metrics[name].value for name in OBJECTIVES) for p in front]
    assert values == sorted(values)
    for point in serial:
        mine = tuple(point.metrics[name].value for name in OBJECTIVES)
        beaten = any(all(x <= y for x, y in zip(v, mine, strict=True)) and v != mine for v in values)
        assert beaten != (point in front)
    surely, possibly = serial.front("surely optimal"), serial.front("possibly optimal")
    assert set(map(id, surely)) <= set(map(id, front)) <= set(map(id, possibly))
    assert all(knee in front for knee in serial.knees())


def test_a_part_is_compared_by_itself(serial: hw.Exploration) -> None:
    part = serial.where(machine="h100")
    assert {p.machine for p in part} == {"h100"}
    assert len(part) == len(FORMATS)
    assert part.front()[0].machine == "h100"
    other = serial.by(energy="min", bits="max")
    assert set(other.objectives) == {"energy", "bits"}
    with pytest.raises(ArgumentError, match="machine"):
        serial.where(machines="h100")
    with pytest.raises(ArgumentError, match="h200"):
        serial.where(machine="h200")
    with pytest.raises(ArgumentError, match="energi"):
        serial.by(energi="min")
    with pytest.raises(ArgumentError, match="at_least"):
        serial.front("best")


def test_it_says_why(serial: hw.Exploration) -> None:
    point = serial.points[0]
    assert serial.dominant(point, "time") in point.metrics["time"].shares["bound"]
    assert point.name in serial.why(point)
    assert "%" in serial.why(point, "energy")
    with pytest.raises(ArgumentError, match="area"):
        serial.why(point, "area")
    with pytest.raises(ArgumentError, match="not divided"):
        serial.dominant(point, "loss")


def test_units_name_the_role_that_dominates() -> None:
    found = run({"formats": ["fp8", "int8", "posit8_es1"], "units": ["n28"]}, None, ["area", "unit_energy"])
    for point in found:
        cost = hw.dot_unit(point.weights, target="n28")
        assert point.metrics["unit_energy"].value == cost.energy.value
        assert point.metrics["area"][:3] == (cost.area.value, cost.area.low, cost.area.high)
        assert point.metrics["area"].shares["role"] == cost.shares("area")
        assert found.dominant(point, "area") == cost.area.bound
    assert found.points[0].metrics["area"].unit == "m2"


def test_accumulators_and_lanes_are_tried() -> None:
    space = {"formats": ["int8"], "accumulators": [None, "exact", "int24"], "units": ["n7"], "lanes": [16, 64]}
    found = run(space, None, ["area"])
    assert [p.accumulator for p in found] == ["", "", "exact", "exact", "int24", "int24"]
    small, large = (found.where(machine=f"n7 x{n}") for n in (16, 64))
    assert all(a.metrics["area"].value < b.metrics["area"].value for a, b in zip(small, large, strict=True))


def test_different_units_have_fronts_of_their_own() -> None:
    found = run({"formats": ["fp8", "int8"], "units": ["n7", "gate_model"]}, None, ["area"])
    assert {p.metrics["area"].unit for p in found} == {"m2", "GE"}
    assert sorted(p.machine for p in found.front()) == ["gate_model", "n7"]
    assert "GE" in str(found)


def test_a_machine_may_be_a_function() -> None:
    def tally(candidate: hw.Candidate, workload: Any) -> dict[str, Any]:
        bits = candidate.weights.bits_per_value
        return {"cycles": hw.Estimate(bits, bits / 2, bits * 2, "cycle", "table", "by hand"), "products": len(workload)}

    found = run({"formats": ["mxfp4", "fp8"], "units": [tally]}, WORK, {"cycles": "min"})
    assert [p.metrics["cycles"].high for p in found] == [8.5, 16.0]
    assert found.points[0].metrics["products"].value == 2
    with pytest.raises(ArgumentError, match="cycles"):
        run({"formats": ["mxfp4"], "units": [tally]}, WORK, ["cycles"])  # which way is better is not known


def test_errors_are_those_of_the_emulation() -> None:
    rng = np.random.default_rng(1)
    w, x = rng.standard_normal((48, 128)), rng.standard_normal((32, 128))
    space = {"formats": ["mxfp4", "nvfp4", "fp8"], "accumulators": [None, "float16"]}
    found = run(space, None, ["error", "bits"], tensors={"weights": w, "activations": x})
    for point in found:
        qw, qx = lowp.quantize(w, point.weights), lowp.quantize(x, point.weights)
        product = lowp.matmul(qx, qw.T, accumulator="float16") if point.accumulator else qx @ qw.T
        error = np.sum((product - x @ w.T) ** 2) / np.sum((x @ w.T) ** 2)
        assert point.metrics["error"].value == pytest.approx(error, rel=1e-10)
        assert point.metrics["sqnr"].value == pytest.approx(-10 * np.log10(error))
        assert point.metrics["weight_error"].value == pytest.approx(np.sum((qw - w) ** 2) / np.sum(w**2))
    plain, rounded = found.points[4:6]
    assert plain.metrics["error"].value != rounded.metrics["error"].value


def test_errors_of_several_layers_say_which_is_worst() -> None:
    rng = np.random.default_rng(2)
    layers = {"calm": rng.standard_normal((16, 64)), "wild": rng.standard_normal((16, 64))}
    layers["wild"][:, 0] = 30
    found = run(["int4_row"], None, ["error"], tensors=layers)
    assert found.dominant(found.points[0], "error") == "wild"
    assert run(["float64"], None, ["sqnr"], tensors=layers).points[0].metrics["sqnr"].value == np.inf


def test_a_function_gets_as_many_formats_as_it_takes() -> None:
    space = {"formats": ["mxfp4"], "activations": ["fp8"], "accumulators": ["float16"]}

    def three(weights: Any, activations: Any, accumulator: Any) -> float:
        return weights.bits_per_value + activations.bits_per_value + accumulator.bits

    for function, expected in ((lambda w: w.bits, 4), (lambda w, a: w.bits + a.bits, 12), (three, 28.25)):
        found = run(space, None, ["accuracy"], accuracy=function)
        assert found.points[0].metrics["accuracy"].value == expected
    with pytest.raises(ArgumentTypeError, match="accuracy"):
        run(space, None, ["accuracy"], accuracy=lambda: 1.0)


def test_a_function_that_gives_no_number_is_a_reason() -> None:
    found = run(["mxfp4", "fp8"], None, ["accuracy"], accuracy=lambda fmt: 1.0 if fmt.bits == 8 else float("nan"))
    assert [p.weights for p in found.compared] == ["float8_e4m3fn"]
    assert "NaN" in found.failed[0].reason
    with pytest.raises(ArgumentError, match="must be a number"):
        run(["mxfp4"], None, ["accuracy"], accuracy=lambda fmt: "good")


def test_what_a_model_refuses_is_kept_with_its_reason() -> None:
    space = {"formats": ["fp8", "lns8_f4"], "units": ["n7"], "accumulators": ["exact"]}
    found = run(space, None, ["area"])
    assert len(found) == 2
    assert [p.weights for p in found.compared] == ["float8_e4m3fn"]
    assert [p.weights for p in found.incomplete] == ["lns8_f4"]
    assert "irrational" in found.failed[0].reason
    assert "irrational" in found.why(found.points[1])


def test_what_a_target_does_not_have_is_a_reason() -> None:
    found = run({"formats": ["fp8"], "units": ["sky130"]}, None, ["area"])
    assert "energy" in found.failed[0].reason
    with pytest.raises(ArgumentError, match="no coefficients of energy"):
        run({"formats": ["fp8"], "units": ["sky130"]}, None, ["area", "unit_energy"])


def test_a_device_without_energies_still_has_times(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(*_: Any, **__: Any) -> Any:
        raise ArgumentError("no joules here")

    monkeypatch.setattr("lowp.hw_models.exploration_costs.plan_energy", refuses)
    found = run({"formats": ["fp8"], "devices": ["h100"]}, WORK, ["time"])
    assert found.points[0].metrics["time"].value > 0
    assert found.failed[0].reason == "h100: no joules here"


def test_combinations_that_are_no_format_are_counted() -> None:
    formats = hw.grid(lowp.Float, exponent_bits=[0, 4], mantissa_bits=[3], specials=["ieee", "fn"])
    found = run({"formats": formats, "devices": ["h100"]}, WORK, ["time"])
    assert (len(found), len(found.skipped)) == (2, 2)
    assert "2 combinations skipped" in str(found)


def test_objectives_that_nothing_has_raise_before_any_work() -> None:
    calls: list[Any] = []
    for objectives in (["area"], ["error"], ["tyme"], [], ["time", "clock"]):
        with pytest.raises(ArgumentError, match="objectives"):
            run(SPACE, WORK, objectives)
    with pytest.raises(ArgumentError, match="'min' or 'max'"):
        run(SPACE, WORK, {"time": "down"}, accuracy=calls.append)
    with pytest.raises(ArgumentError, match="cannot be compared"):
        run({"formats": ["lns8_f4"], "units": ["n7"], "accumulators": ["exact"]}, None, ["area"])
    assert not calls


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch": 0}, "batch"),
        ({"store": "results.txt"}, "store"),
        ({"store": 3}, "store"),
        ({"executor": 3}, "executor"),
        ({"tensors": np.zeros((2, 2))}, "zero"),
        ({"tensors": {"weights": np.ones((2, 3)), "activations": np.ones((2, 4))}}, "inputs"),
        ({"tensors": {"layer": {"weight": np.ones((2, 3))}}}, "layer"),
        ({"tensors": {}}, "empty"),
        ({"accuracy": 3}, "accuracy"),
        ({"out": "nonsense"}, "nonsense"),
    ],
)
def test_arguments_that_make_no_sense_raise(options: dict[str, Any], message: str) -> None:
    with pytest.raises(Error, match=message):
        run(SPACE, WORK, ["time"], **options)


@pytest.mark.parametrize("workload", [[], [(1, 2)], [(0, 1, 1)], 3, [(1, 1, 1, 0)], ["llama"], "llama-9-900b"])
def test_workloads_that_make_no_sense_raise(workload: Any) -> None:
    with pytest.raises(Error):
        run(SPACE, workload, ["time"])


def test_an_exception_of_the_callers_function_is_raised() -> None:
    def broken(fmt: Any) -> float:
        raise ZeroDivisionError(fmt.name)

    with pytest.raises(ZeroDivisionError):
        run(["fp8"], None, ["accuracy"], accuracy=broken)
    with ThreadPoolExecutor(1) as executor, pytest.raises(ZeroDivisionError):
        run(["fp8"], None, ["accuracy"], executor, accuracy=broken)


def test_an_executor_that_is_shut_down_raises() -> None:
    executor = ThreadPoolExecutor(1)
    executor.shutdown()
    with pytest.raises(ArgumentError, match="takes no work"):
        run(["fp8"], None, ["bits"], executor)


def test_only_some_batches_are_handed_out_at_a_time() -> None:
    waiting, most, lock = 0, 0, threading.Lock()

    class Counting(ThreadPoolExecutor):
        def submit(self, *args: Any, **options: Any) -> Any:
            nonlocal waiting, most
            with lock:
                waiting += 1
                most = max(most, waiting)
            future = super().submit(*args, **options)
            future.add_done_callback(lambda _: finished())
            return future

    def finished() -> None:
        nonlocal waiting
        with lock:
            waiting -= 1

    with Counting(1) as executor:
        found = run(hw.grid("fixed{n}_{f}", n=range(20, 40), f=range(8)), None, ["bits"], executor, batch=1)
    assert len(found) == 160
    assert most <= 64


def test_rows_are_read_back_as_they_were(serial: hw.Exploration) -> None:
    for point in serial:
        assert Point.from_record(point.record()) == point


def test_the_table_is_written_as_csv(serial: hw.Exploration, tmp_path: Path) -> None:
    with serial.to_csv(tmp_path / "table.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == len(serial)
    assert {row["standing"] for row in rows} <= {*hw.STANDINGS}
    assert float(rows[3]["time_high"]) == serial.points[3].metrics["time"].high


def test_progress_is_shown_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    hw.explore(["fp8", "mxfp4"], None, ["bits"], progress=True)
    shown = capsys.readouterr()
    assert "2/2" in shown.err
    assert shown.out == ""


def test_500_formats_on_three_devices_take_seconds() -> None:
    import time

    formats = hw.grid(
        "block[e{e}m{m}f,{size},{scale}]",
        e=range(1, 6),
        m=range(5),
        size=[16, 32, 64, 128],
        scale=["e8m0", "e4m3fn", "bf16", "fp32", "fp16"],
    )
    began = time.monotonic()
    space = {"formats": formats, "devices": ["a100", "h100", "b200"]}
    found = run(space, hw.workload("llama-2-7b", phase="prefill"), ["time", "size"])
    assert len(found) == 1500
    assert time.monotonic() - began < 60  # about 4 s on one core


@pytest.mark.parametrize("model", ["mixtral-8x7b", "resnet-50"])
def test_a_workload_costs_what_it_costs_by_itself(model: str) -> None:
    """Groups run in one launch, and convolutions read their input once."""
    work = hw.workload(model, batch=4)
    found = hw.explore({"formats": ["fp8"], "devices": ["h100"]}, work, ["time", "energy"], progress=False)
    alone = hw.workload_cost(work, weights="fp8", activations="fp8", device="h100")
    costs = [c for c in alone.operations if c.operation.role == "linear" and c.operation.is_product]
    head = [op for op in work.products if op.role == "head"]
    rest = hw.explore(
        {"formats": ["fp8"], "devices": ["h100"]}, hw.Workload("head", tuple(head)), "time", progress=False
    )
    linear = found.points[0].metrics["time"].value - rest.points[0].metrics["time"].value
    assert linear == pytest.approx(sum(c.time.value for c in costs))


def test_the_gradients_of_a_training_step_count() -> None:
    forward = hw.Workload("mine", (hw.Operation("matmul", 512, 1024, 256),), weight_values=1024 * 256)
    once, thrice = (
        hw.explore({"formats": ["fp8"], "devices": ["h100"]}, work, "time", progress=False).points[0].metrics["time"]
        for work in (forward, hw.training_workload(forward))
    )
    assert thrice.value > 2.5 * once.value


def test_only_points_have_reasons(serial: hw.Exploration) -> None:
    for ask in (lambda: serial.why("fp8"), lambda: serial.dominant(0, "time")):
        with pytest.raises(ArgumentTypeError, match="one of the points"):
            ask()
