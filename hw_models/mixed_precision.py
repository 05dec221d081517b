"""A format for each layer: the least loss of accuracy within budgets of size, operations or time."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Real
from typing import Any

from lowp._errors import ArgumentError, ArgumentTypeError, unknown_name
from lowp.formats import Packed, parse
from lowp.hw_models.arguments import sizes
from lowp.hw_models.gemm import gemm
from lowp.hw_models.precision_search import SEARCHES, Problem, front

#: Costs that follow from a layer's sizes and its formats.
COSTS = {"size": "bytes of the weights, scales included", "bops": "multiply-adds times bits of both operands"}
_SLACK = 1e-9


@dataclass(frozen=True)
class PrecisionLayer:
    """A layer and what each precision that it may have costs and loses.

    A precision is named by the weights' format, which the activations are in too ("int4"), or by both: "int4/int8",
    weights first.

    Attributes:
        name: Unique among the layers.
        weights: How many weights it has.
        multiply_adds: Multiply-adds of one run.
        sensitivity: By precision: what choosing it adds to the loss; see `hw.hessian_trace`, `hw.empirical_fisher`,
            `hw.weight_sensitivity`.
        costs: Further costs by name and precision, such as a latency measured for each: {"latency": {"int4": 1e-4}}.
        group: Layers of one group, "" apart, all get the same precision: an addition's two branches, for example.

    Raises:
        ArgumentError: No precision, one that is no format, a number that is not finite or positive, or a cost that not
            all precisions have.
        ArgumentTypeError: Sensitivities or costs that are no dict of numbers.

    Example:
        >>> layer = PrecisionLayer("fc", 1000, 1000, {"int4": 0.5, "int8": 0.01})
        >>> layer.cost("size", "int4"), layer.cost("bops", "int8")
        (500.0, 64000.0)
    """

    name: str
    weights: int
    multiply_adds: int
    sensitivity: Mapping[str, float]
    costs: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    group: str = ""

    def __post_init__(self) -> None:
        sizes(weights=self.weights, multiply_adds=self.multiply_adds)
        _check_numbers("sensitivity", self.sensitivity, self.name)
        for cost, by_precision in self.costs.items():
            _check_numbers(f"costs[{cost!r}]", by_precision, self.name)
        if not self.sensitivity:
            raise ArgumentError(f"sensitivity={self.sensitivity!r} of layer {self.name!r} has no precision.")
        for precision, loss in self.sensitivity.items():
            _formats(precision)
            if not math.isfinite(loss):
                raise ArgumentError(f"sensitivity[{precision!r}]={loss!r} of layer {self.name!r} must be finite.")
        for cost, by_precision in self.costs.items():
            if cost in COSTS:
                raise ArgumentError(
                    f"costs={cost!r} of layer {self.name!r} follows from its sizes; give it another name."
                )
            lacking = [precision for precision in self.sensitivity if precision not in by_precision]
            if lacking or not all(0 <= value < math.inf for value in by_precision.values()):
                raise ArgumentError(
                    f"costs[{cost!r}]={by_precision!r} of layer {self.name!r} must have a finite number, not negative, "
                    f"for each of: {', '.join(self.sensitivity)}."
                )

    def cost(self, name: str, precision: str) -> float:
        """Return a cost of the layer in a precision: "size" in bytes, "bops", or one of `costs`.

        Raises:
            ArgumentError: No such cost or precision.
        """
        if precision not in self.sensitivity:
            raise ArgumentError(unknown_name("precision", precision, self.sensitivity))
        if name in self.costs:
            return float(self.costs[name][precision])
        if name not in COSTS:
            raise ArgumentError(unknown_name("cost", name, [*COSTS, *self.costs]))
        weights, activations = _formats(precision)
        if name == "size":
            return float(self.weights * weights.bits_per_value / 8)
        return float(self.multiply_adds * _code_bits(weights) * _code_bits(activations))


@dataclass(frozen=True)
class Assignment:
    """A precision for each layer.

    Attributes:
        precisions: By layer.
        loss: The sum of the layers' sensitivities.
        costs: By name, of all layers together.
        budgets: The limits that were to be kept.
        method: How it was found.
        optimal: Whether no assignment within the budgets has less loss; False: perhaps one has.
    """

    precisions: Mapping[str, str]
    loss: float
    costs: Mapping[str, float]
    budgets: Mapping[str, float]
    method: str
    optimal: bool

    def layers_with(self, precision: str) -> list[str]:
        """Return the names of the layers in a precision."""
        return [name for name, chosen in self.precisions.items() if chosen == precision]

    def __str__(self) -> str:
        counts: dict[str, int] = {}
        for precision in self.precisions.values():
            counts[precision] = counts.get(precision, 0) + 1
        costs = ", ".join(
            f"{name} {cost:.6g}" + (f" of {self.budgets[name]:.6g}" if name in self.budgets else "")
            for name, cost in self.costs.items()
        )
        chosen = ", ".join(f"{count} in {precision}" for precision, count in counts.items())
        return f"{chosen}; loss {self.loss:.6g}; {costs}"


def assign_precisions(
    layers: Iterable[PrecisionLayer], budgets: Mapping[str, float], method: str = "ilp"
) -> Assignment:
    """Choose a precision for each layer so that the summed sensitivity is least within the budgets.

    Args:
        layers: The layers, each with the precisions it may have.
        budgets: By cost, the most that all layers together may have: "size" in bytes, "bops", or a cost of the layers'
            own. `hw.budget_between` makes one.
        method: "ilp": integer linear programming with scipy's milp (HiGHS), optimal; "bisection": a Lagrange multiplier
            is bisected until one budget is kept, then what is left is spent greedily: fast, close to optimal; "pareto":
            the front of all assignments is built layer by layer, optimal unless it grows past 100 000 points; one
            budget too.

    Raises:
        ArgumentError: No layers or budgets, two layers of one name, an unknown cost or method, more than one budget for
            a method that takes one, layers of a group without a common precision, or budgets that no assignment keeps.
        ArgumentTypeError: An argument of another type.

    Source:
        Z. Yao et al., "HAWQ-V3: Dyadic Neural Network Quantization", ICML 2021 (the integer program); Z. Dong et al.,
        "HAWQ-V2", NeurIPS 2020 (the Pareto front); Y. Cai et al., "ZeroQ", CVPR 2020.

    Example:
        >>> layers = [PrecisionLayer(f"l{i}", 1000, 1000, {"int8": 0.01, "int4": 0.1 * i + 0.1}) for i in range(4)]
        >>> assign_precisions(layers, {"size": 3000}).layers_with("int4")
        ['l0', 'l1']
    """
    listed = _checked(layers)
    if method not in SEARCHES:
        raise ArgumentError(unknown_name("method", method, SEARCHES))
    _check_budgets(budgets)
    if method != "ilp" and len(budgets) > 1:
        raise ArgumentError(f"budgets={budgets!r}: method={method!r} takes one, 'ilp' any number.")
    problem, groups = _problem(listed, list(budgets))
    limits = [float(limit) * (1 + _SLACK) for limit in budgets.values()]
    least = [sum(min(row[c] for row in rows) for rows in problem.costs) for c in range(len(limits))]
    for name, limit, smallest in zip(budgets, limits, least, strict=True):
        if smallest > limit:
            raise ArgumentError(
                f"budgets[{name!r}]={budgets[name]!r} cannot be kept; the least possible is {smallest:g}."
            )
    found = SEARCHES[method](problem, limits)
    if found is None:
        raise ArgumentError(f"budgets={dict(budgets)!r} cannot be kept together by any assignment.")
    choices, optimal = found
    return _assignment(listed, groups, problem, choices, dict(budgets), method, optimal)


def precision_front(layers: Iterable[PrecisionLayer], cost: str = "size") -> list[Assignment]:
    """Return the Pareto front of loss and one cost over all assignments, by ascending cost.

    The front is exact unless it grows past 100 000 points; then neighbours closer than the same part of the cost's
    range are thinned out, and the assignments are marked as perhaps not optimal.

    Args:
        layers: The layers, each with the precisions it may have.
        cost: "size", "bops", or a cost of the layers' own.

    Raises:
        ArgumentError: As `assign_precisions`.

    Example:
        >>> layers = [PrecisionLayer(f"l{i}", 1000, 1000, {"int8": 0.01, "int4": 0.1 * i + 0.1}) for i in range(4)]
        >>> [round(found.loss, 2) for found in precision_front(layers)]
        [1.0, 0.61, 0.32, 0.13, 0.04]
    """
    listed = _checked(layers)
    problem, groups = _problem(listed, [cost])
    found, exact = front(problem)
    return [_assignment(listed, groups, problem, choices, {}, "pareto", exact) for choices in found]


def uniform_precision(layers: Iterable[PrecisionLayer], precision: str) -> Assignment:
    """Return the assignment of one precision to all layers, to compare with.

    Raises:
        ArgumentError: A layer does not have that precision.
    """
    listed = _checked(layers)
    return _total(listed, {layer.name: precision for layer in listed}, {}, "uniform", False)


def given_precisions(layers: Iterable[PrecisionLayer], precisions: Mapping[str, str]) -> Assignment:
    """Return what an assignment that is known already costs and loses.

    Raises:
        ArgumentError: A layer is not in `precisions`, or does not have that precision.
    """
    listed = _checked(layers)
    lacking = [layer.name for layer in listed if layer.name not in precisions]
    if lacking:
        raise ArgumentError(f"precisions={precisions!r} lacks: {', '.join(lacking)}.")
    return _total(listed, {layer.name: precisions[layer.name] for layer in listed}, {}, "given", False)


def budget_between(layers: Iterable[PrecisionLayer], cost: str, fraction: float) -> float:
    """Return a budget a fraction of the way from the least to the most that the layers can cost: HAWQ-V3's limits.

    Args:
        layers: The layers.
        cost: "size", "bops", or a cost of the layers' own.
        fraction: 0 to 1.

    Raises:
        ArgumentError: An unknown cost, or a fraction out of range.

    Example:
        >>> budget_between([PrecisionLayer("l", 1000, 1000, {"int8": 0.0, "int4": 1.0})], "size", 0.5)
        750.0
    """
    if not 0 <= fraction <= 1:
        raise ArgumentError(f"fraction={fraction!r} must be from 0 to 1.")
    listed = _checked(layers)
    all_costs = [[layer.cost(cost, p) for p in layer.sensitivity] for layer in listed]
    low, high = sum(map(min, all_costs)), sum(map(max, all_costs))
    return low + (high - low) * fraction


def latency_costs(
    shape: tuple[int, int, int], precisions: Iterable[str], device: Any = "h100", out: Any = "bfloat16"
) -> dict[str, float]:
    """Return a layer's predicted time in each precision, for `PrecisionLayer.costs`.

    Args:
        shape: m, n, k of its matrix product.
        precisions: The precisions.
        device: A GPU.
        out: Format of the results.

    Raises:
        ArgumentError: As `hw.gemm`.

    Example:
        >>> times = latency_costs((4096, 4096, 4096), ["int8", "bfloat16"], "h100")
        >>> times["int8"] < times["bfloat16"]
        True
    """
    m, n, k = shape
    found = {}
    for precision in precisions:
        weights, activations = _formats(precision)
        found[precision] = gemm(m, n, k, activations, weights, out, device).value
    return found


def _check_numbers(what: str, given: Any, layer: str) -> None:
    if not isinstance(given, Mapping) or not all(isinstance(number, Real) for number in given.values()):
        raise ArgumentTypeError(f"{what}={given!r} of layer {layer!r} must be a dict of numbers by precision.")


def _check_budgets(budgets: Any) -> None:
    if not isinstance(budgets, Mapping) or not budgets:
        raise ArgumentTypeError(f"budgets={budgets!r} must be a dict of at least one limit by cost.")
    for name, limit in budgets.items():
        if isinstance(limit, bool) or not isinstance(limit, Real) or not 0 <= float(limit) < math.inf:
            raise ArgumentError(f"budgets[{name!r}]={limit!r} must be finite and not negative.")


def _formats(precision: str) -> tuple[Any, Any]:
    if not isinstance(precision, str):
        raise ArgumentTypeError(
            f"precision={precision!r} must be 'weights' or 'weights/activations', names of formats."
        )
    weights, both, activations = precision.partition("/")
    left = parse(weights)
    return left, parse(activations) if both else left


def _code_bits(fmt: Any) -> int:
    """Return the bits of a code; of packed formats, those of a value without its share of the scales."""
    return max(1, int(fmt.bits_per_value)) if isinstance(fmt, Packed) else int(fmt.bits)


def _checked(layers: Iterable[PrecisionLayer]) -> list[PrecisionLayer]:
    listed = list(layers)
    for layer in listed:
        if not isinstance(layer, PrecisionLayer):
            raise ArgumentTypeError(f"layers has {layer!r}; allowed: PrecisionLayer.")
    names = [layer.name for layer in listed]
    if not names or len(set(names)) < len(names):
        raise ArgumentError(f"layers={names!r} must be at least one, each with a name of its own.")
    return listed


def _problem(
    layers: Sequence[PrecisionLayer], costs: Sequence[str]
) -> tuple[Problem, list[tuple[list[PrecisionLayer], list[str]]]]:
    """Return the problem with a variable per group, and the layers and precisions of each."""
    by_group: dict[str, list[PrecisionLayer]] = {}
    for layer in layers:
        by_group.setdefault(f"group {layer.group}" if layer.group else f"layer {layer.name}", []).append(layer)
    groups = []
    for name, members in by_group.items():
        common = [p for p in members[0].sensitivity if all(p in layer.sensitivity for layer in members)]
        if not common:
            raise ArgumentError(f"the layers of {name} have no precision in common.")
        groups.append((members, common))
    losses = [[math.fsum(layer.sensitivity[p] for layer in ms) for p in ps] for ms, ps in groups]
    spent = [[[math.fsum(layer.cost(c, p) for layer in ms) for c in costs] for p in ps] for ms, ps in groups]
    return Problem(losses, spent), groups


def _assignment(
    layers: Sequence[PrecisionLayer],
    groups: Sequence[tuple[list[PrecisionLayer], list[str]]],
    problem: Problem,
    choices: Sequence[int],
    budgets: Mapping[str, float],
    method: str,
    optimal: bool,
) -> Assignment:
    chosen: dict[str, str] = {}
    for (members, precisions), choice in zip(groups, choices, strict=True):
        chosen |= {layer.name: precisions[choice] for layer in members}
    return _total(layers, {layer.name: chosen[layer.name] for layer in layers}, budgets, method, optimal)


def _total(
    layers: Sequence[PrecisionLayer],
    precisions: Mapping[str, str],
    budgets: Mapping[str, float],
    method: str,
    optimal: bool,
) -> Assignment:
    pairs = [(layer, precisions[layer.name]) for layer in layers]
    shared = [name for name in layers[0].costs if all(name in layer.costs for layer in layers)]
    costs = {name: math.fsum(layer.cost(name, p) for layer, p in pairs) for name in [*COSTS, *shared]}
    loss = math.fsum(layer.sensitivity[p] for layer, p in pairs)
    return Assignment(dict(precisions), loss, costs, budgets, method, optimal)
