"""What a candidate costs on a machine: the work that an exploration hands out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from lowp._errors import ArgumentError, ArgumentTypeError, Error
from lowp.hw_models.arguments import sizes
from lowp.hw_models.devices import Device
from lowp.hw_models.energy import plan_energy
from lowp.hw_models.estimate import Estimate
from lowp.hw_models.exploration_accuracy import Tensors, function_metrics, tensor_metrics
from lowp.hw_models.exploration_points import Metric, Point, named_metrics, point
from lowp.hw_models.gemm import Plan, plan
from lowp.hw_models.native import operand
from lowp.hw_models.space import Candidate, Machine
from lowp.hw_models.units import UnitCost, dot_unit
from lowp.hw_models.workload import Operation, Workload

#: Roles of products that read weights, or make their gradients; all others cost the same whatever the candidate.
WEIGHT_ROLES = ("linear", "head", "input_gradient", "weight_gradient")
#: A product as callers' functions read it: m, n, k, how often, and a name.
Shape = tuple[int, int, int, int, str]
#: What units have: on standard cells and on FPGAs, by attribute, the metric.
_OF_CELLS = {"area": "area", "energy": "unit_energy"}
_OF_FPGAS = {name: name for name in ("lut", "ff", "dsp", "bram", "clock")}


@dataclass(frozen=True)
class Task:
    """What every candidate is tried with.

    Attributes:
        products: What runs, alike products put together.
        weight_values: Weights of all of them.
        machines: Where they run.
        out: Format of the results.
        tensors: What accuracy is measured on, or None.
        accuracy: The caller's function of formats, or None.
    """

    products: tuple[Operation, ...]
    weight_values: int
    machines: tuple[Machine, ...]
    out: Any
    tensors: Tensors | None
    accuracy: Callable[..., Any] | None

    @property
    def workload(self) -> tuple[Shape, ...]:
        """The products as callers' functions read them, each of a group counted as a run of its own."""
        return tuple((op.m, op.n, op.k, op.count * op.groups, op.name) for op in self.products)


def read_workload(given: Any) -> tuple[tuple[Operation, ...], int]:
    """Return the products with weights, alike ones put together, and how many weights they have.

    Args:
        given: A `Workload`; (m, n, k) or (m, n, k, count) of each product, each run having weights of its own; the name
            of a model, for what `hw.workload` makes of it; or None for nothing.

    Raises:
        ArgumentError: Sizes that are not positive, or no product at all.
        ArgumentTypeError: Something else.
    """
    if given is None:
        return (), 0
    if isinstance(given, str):
        from lowp.hw_models.model_workloads import workload as of_model

        given = of_model(given)
    if isinstance(given, Workload):
        listed = [op for op in given.products if op.kind != "attention" and op.role in WEIGHT_ROLES]
        weights = given.weight_values + given.head_values
    elif isinstance(given, Iterable) and not isinstance(given, bytes):
        listed = [_product(one) for one in given]
        weights = 0
    else:
        raise ArgumentTypeError(f"workload={given!r} must be a Workload, a list of (m, n, k, count), or None.")
    if not listed:
        raise ArgumentError("workload has no product with weights; allowed: at least one (m, n, k, count).")
    forward = (op for op in listed if op.role in ("linear", "head"))
    return _together(listed), weights or sum(op.right_values * op.count for op in forward)


def _product(given: Any) -> Operation:
    shape = tuple(given) if isinstance(given, Iterable) and not isinstance(given, str) else ()
    if not 3 <= len(shape) <= 4:
        raise ArgumentTypeError(f"workload has {given!r}; allowed: (m, n, k) or (m, n, k, count).")
    m, n, k, count = sizes(**dict(zip("mnk", shape, strict=False)), count=shape[3] if len(shape) == 4 else 1)
    return Operation("matmul", m, n, k, count)


def _together(listed: Sequence[Operation]) -> tuple[Operation, ...]:
    """Put products together that differ in nothing but their count and name, whatever their role."""
    counts: dict[Operation, int] = {}
    names: dict[Operation, dict[str, None]] = {}
    for op in listed:
        key = replace(op, count=1, name="", role="linear")
        counts[key] = counts.get(key, 0) + op.count
        names.setdefault(key, {})[op.name or f"{op.m}x{op.n}x{op.k}"] = None
    return tuple(replace(key, count=count, name=", ".join(names[key])) for key, count in counts.items())


def evaluate(task: Task, candidates: Sequence[Candidate]) -> list[list[dict[str, Any]]]:
    """Return the rows of each candidate, one per machine: what an executor's worker runs.

    What a model or the emulation refuses becomes the reason why metrics are missing; any other exception is raised.
    """
    return [[found.record() for found in _points(task, candidate)] for candidate in candidates]


def _points(task: Task, candidate: Candidate) -> Iterable[Point]:
    shared: dict[str, Metric] = {}
    reasons: list[str] = []
    if task.weight_values:
        bits = float(candidate.weights.bits_per_value)  # type: ignore[attr-defined]
        shared["size"] = Metric.of(task.weight_values * bits / 8, unit="B", provenance="storage")
    shared["bits"] = Metric.of(float(candidate.weights.bits_per_value), unit="bit", provenance="storage")  # type: ignore[attr-defined]
    tensors, function = task.tensors, task.accuracy
    if tensors is not None:
        _try(shared, reasons, candidate, "accuracy", lambda: tensor_metrics(candidate, tensors))
    given: dict[str, Metric] = {}
    if function is not None:
        _try(given, reasons, candidate, "accuracy", lambda: function_metrics(candidate, function))
        _join(shared, given, given, reasons)
    for machine in task.machines:
        metrics, why = dict(shared), list(reasons)
        costs: dict[str, Metric] = {}
        _try(costs, why, candidate, machine.name, lambda: _costs(task, candidate, machine, why))  # noqa: B023 - called at once
        _join(metrics, costs, given, why)
        yield point(candidate, machine, metrics, "; ".join(why))


def _join(metrics: dict[str, Metric], found: dict[str, Metric], given: dict[str, Metric], reasons: list[str]) -> None:
    """Add what was found; what `given`, the caller's function, and a model both name is neither's, and is left out."""
    twice = [name for name in found if name in given and name in metrics]
    metrics |= found
    for name in twice:
        del metrics[name]
        reasons.append(f"accuracy: the function names {name!r}, which a model gives too; give it another name.")


def _try(
    metrics: dict[str, Metric],
    reasons: list[str],
    candidate: Candidate,
    what: str,
    run: Callable[[], dict[str, Metric]],
) -> None:
    try:
        metrics |= run()
    except Error as error:
        reason = f"{what}: {error}"
        if reason not in reasons:  # of several metrics for one reason
            reasons.append(reason)
    except Exception as error:
        error.add_note(f"raised by {what} of {candidate.names}")
        raise


def _costs(task: Task, candidate: Candidate, machine: Machine, reasons: list[str]) -> dict[str, Metric]:
    if machine.kind == "gpu":
        return _gpu_costs(task, candidate, machine, reasons)
    if machine.kind == "unit":
        return _unit_costs(candidate, machine, reasons)
    if machine.kind == "function":
        return named_metrics(machine.what(candidate, task.workload), machine.name)
    return {}


def _gpu_costs(task: Task, candidate: Candidate, machine: Machine, reasons: list[str]) -> dict[str, Metric]:
    a, b, out = (operand(fmt, machine.what) for fmt in (candidate.activations, candidate.weights, task.out))
    metrics = {"size": Metric.of(task.weight_values * b.bytes_per_value, unit="B", provenance="storage")}

    def of_all(model: Callable[[Plan], Estimate]) -> Metric:
        found = [model(product_plan(op, a, b, out, machine.what)) * op.count for op in task.products]
        return _total(found, [op.name for op in task.products])

    if task.products:
        _try(metrics, reasons, candidate, machine.name, lambda: {"time": of_all(lambda done: done.time)})
        _try(
            metrics,
            reasons,
            candidate,
            machine.name,
            lambda: {"energy": of_all(lambda done: plan_energy(done, machine.what))},
        )
    return metrics


def product_plan(op: Operation, a: Any, b: Any, out: Any, device: Device) -> Plan:
    """Return how a device carries out a product of a workload in given formats."""
    done = plan(
        *(op.m, op.n, op.k, a, b, out, device),
        groups=op.groups,
        left_values=op.left_values,
        out_values=op.out_values,
    )
    return replace(done, multiply_adds=op.multiply_adds)


def _total(estimates: Sequence[Estimate], names: Sequence[str]) -> Metric:
    """Return the sum, with what bounds its parts and which products they are."""
    total = estimates[0]
    for estimate in estimates[1:]:
        total = total + estimate
    bounds: dict[str, float] = {}
    for estimate in estimates:
        bounds[estimate.bound] = bounds.get(estimate.bound, 0.0) + estimate.value / total.value
    products = {name: estimate.value / total.value for name, estimate in zip(names, estimates, strict=True)}
    shares = {"bound": bounds} | ({"product": products} if len(products) > 1 else {})
    return Metric.of(total, shares=shares)._replace(bound=max(bounds, key=lambda name: bounds[name]))


def _unit_costs(candidate: Candidate, machine: Machine, reasons: list[str]) -> dict[str, Metric]:
    cost = dot_unit(
        candidate.activations,
        candidate.weights,
        lanes=machine.lanes,
        target=machine.what,
        accumulator=candidate.accumulator,
    )
    wanted = _OF_CELLS if cost.fpga is None else _OF_FPGAS
    found: dict[str, Metric] = {}
    for attribute, name in wanted.items():
        _try(found, reasons, candidate, machine.name, lambda: {name: _unit_metric(cost, attribute)})  # noqa: B023 - called at once
    return found


def _unit_metric(cost: UnitCost, attribute: str) -> Metric:
    """Return a metric of a unit, with what each role of its blocks takes where that is known."""
    estimate: Estimate = getattr(cost, attribute)
    return Metric.of(estimate, shares={} if cost.fpga is not None else {"role": cost.shares(attribute)})
