"""A format for each layer: searches against all assignments, and HAWQ-V3's published configurations."""

from __future__ import annotations

import itertools
import math
import sys
from importlib.util import find_spec

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lowp import hw
from lowp._errors import ArgumentError, ArgumentTypeError, FormatError

needs_scipy = pytest.mark.skipif(find_spec("scipy") is None, reason="needs lowp[search]")
PRECISIONS = ("int8", "int4", "int2")


@st.composite
def problems(draw: st.DrawFn) -> tuple[list[hw.PrecisionLayer], float]:
    layers = []
    for i in range(draw(st.integers(1, 6))):
        losses = {p: draw(st.integers(0, 50)) / 8 for p in PRECISIONS[: draw(st.integers(1, 3))]}
        group = draw(st.sampled_from(["", "", "twins"])) if len(losses) == 3 else ""
        weights, work = draw(st.integers(1, 40)), draw(st.integers(1, 40))
        layers.append(hw.PrecisionLayer(f"l{i}", weights, work, losses, {"time": dict.fromkeys(losses, 1.0)}, group))
    return layers, draw(st.floats(0, 1))


def best(layers: list[hw.PrecisionLayer], budgets: dict[str, float]) -> float:
    """The least loss of all assignments that keep the budgets."""
    found = math.inf
    for choices in itertools.product(*(layer.sensitivity for layer in layers)):
        groups: dict[str, set[str]] = {}
        for layer, choice in zip(layers, choices, strict=True):
            groups.setdefault(layer.group or layer.name, set()).add(choice)
        if any(len(chosen) > 1 for chosen in groups.values()):
            continue
        pairs = list(zip(layers, choices, strict=True))
        if all(sum(la.cost(c, p) for la, p in pairs) <= limit * (1 + 1e-9) for c, limit in budgets.items()):
            found = min(found, sum(la.sensitivity[p] for la, p in pairs))
    return found


@needs_scipy
@settings(max_examples=60, deadline=None)
@given(problems())
def test_all_searches_against_all_assignments(problem: tuple[list[hw.PrecisionLayer], float]) -> None:
    layers, fraction = problem
    for cost in ("size", "bops"):
        budgets = {cost: hw.budget_between(layers, cost, fraction)}
        least = best(layers, budgets)
        for method in ("ilp", "pareto", "bisection"):
            found = hw.assign_precisions(layers, budgets, method)
            assert found.costs[cost] <= budgets[cost] * (1 + 1e-9)
            assert found.loss == pytest.approx(sum(la.sensitivity[found.precisions[la.name]] for la in layers))
            assert found.loss >= least - 1e-9
            if found.optimal:
                assert found.loss == pytest.approx(least)
            assert found.optimal or method == "bisection"
            twins = {found.precisions[la.name] for la in layers if la.group}
            assert len(twins) <= 1


@needs_scipy
@settings(max_examples=40, deadline=None)
@given(problems(), st.floats(0, 1))
def test_several_budgets_at_once(problem: tuple[list[hw.PrecisionLayer], float], other: float) -> None:
    layers, fraction = problem
    budgets = {"size": hw.budget_between(layers, "size", fraction), "bops": hw.budget_between(layers, "bops", other)}
    least = best(layers, budgets)
    if math.isinf(least):
        with pytest.raises(ArgumentError, match="together"):
            hw.assign_precisions(layers, budgets)
        return
    assert hw.assign_precisions(layers, budgets).loss == pytest.approx(least)


@settings(max_examples=60, deadline=None)
@given(problems())
def test_the_front_has_the_best_of_every_budget(problem: tuple[list[hw.PrecisionLayer], float]) -> None:
    layers, _ = problem
    front = hw.precision_front(layers, "size")
    costs, losses = [f.costs["size"] for f in front], [f.loss for f in front]
    assert costs == sorted(set(costs))
    assert losses == sorted(losses, reverse=True)
    for found in front:
        assert found.loss == pytest.approx(best(layers, {"size": found.costs["size"]}))


def test_bisection_finds_the_corners_of_the_convex_hull() -> None:
    layers = [hw.PrecisionLayer(f"l{i}", 1000, 1000, {"int8": 0.0, "int4": float(i + 1)}) for i in range(8)]
    for count in range(9):
        budget = {"size": 8000.0 - 500 * count}
        found = hw.assign_precisions(layers, budget, "bisection")
        assert found.layers_with("int4") == [f"l{i}" for i in range(count)]


def test_a_large_front_is_thinned_out_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    layers = [hw.PrecisionLayer(f"l{i}", 1000 + i * i, 1, {"int8": 0.0, "int4": math.sqrt(i + 2)}) for i in range(40)]
    exact = hw.precision_front(layers, "size")
    assert all(found.optimal for found in exact)
    monkeypatch.setattr("lowp.hw_models.precision_search.MAX_POINTS", 100)
    thin = hw.precision_front(layers, "size")
    assert len(thin) <= 101 < len(exact)
    assert not any(found.optimal for found in thin)
    found = hw.assign_precisions(layers, {"size": hw.budget_between(layers, "size", 0.5)}, "pareto")
    assert not found.optimal


@needs_scipy
@pytest.mark.parametrize(
    ("network", "name", "narrow"),
    [
        ("resnet18", "size_0.75", [13, 18]),
        ("resnet18", "size_0.5", [15, 17, 18]),
        ("resnet18", "size_0.25", [14, 15, 16, 17, 18]),
        ("resnet18", "bops_0.75", [8, 13, 15, 18]),
        ("resnet18", "bops_0.5", [3, 8, 12, 13, 14, 15, 16, 17, 18]),
        ("resnet18", "bops_0.25", [3, 5, *range(7, 19)]),
        ("resnet18", "latency_0.75", [8, 13, 15, 18]),
        ("resnet18", "latency_0.5", [5, 8, 12, 13, 15, 17, 18]),
        ("resnet18", "latency_0.25", [3, 5, *range(7, 19)]),
        ("resnet50", "size_0.75", 3),
        ("resnet50", "size_0.5", 10),
        ("resnet50", "size_0.25", 19),
        ("resnet50", "bops_0.75", 9),
        ("resnet50", "bops_0.5", 19),
        ("resnet50", "bops_0.25", 35),
        ("resnet50", "latency_0.75", 8),
        ("resnet50", "latency_0.5", 20),
        ("resnet50", "latency_0.25", 34),
    ],
)
@pytest.mark.parametrize("method", ["ilp", "pareto"])
def test_the_configurations_of_hawq_v3(network: str, name: str, narrow: list[int] | int, method: str) -> None:
    """bit_config.py of HAWQ, all eighteen; one of them is not the optimum of the published problem."""
    layers = hw.hawq_layers(network)
    cost, _, fraction = name.partition("_")
    budget = {cost: hw.budget_between(layers, cost, float(fraction))}
    found = hw.assign_precisions(layers, budget, method)
    chosen = [i for i, layer in enumerate(layers) if found.precisions[layer.name] == "int4"]
    assert chosen == narrow if isinstance(narrow, list) else len(chosen) == narrow
    published = next(c for c in hw.hawq_configurations(network) if c.name == name)
    differing = [i for i, la in enumerate(layers) if found.precisions[la.name] != published.precisions[la.name]]
    assert differing == ([39] if (network, name) == ("resnet50", "size_0.25") else [])


@needs_scipy
def test_the_objectives_of_hawq_v3() -> None:
    """The notebook minimises the gain of 8 bits over 4; the published ResNet50 size_0.25 misses the optimum."""

    def gain(network: str, assignment: hw.Assignment) -> float:
        return assignment.loss - hw.uniform_precision(hw.hawq_layers(network), "int4").loss

    layers = hw.hawq_layers("resnet18")
    for fraction, objective in ((0.75, -1.227748), (0.5, -1.092024), (0.25, -0.847289)):
        found = hw.assign_precisions(layers, {"bops": hw.budget_between(layers, "bops", fraction)})
        assert gain("resnet18", found) == pytest.approx(objective, abs=5e-7)
    layers = hw.hawq_layers("resnet50")
    budget = {"size": hw.budget_between(layers, "size", 0.25)}
    assert gain("resnet50", hw.assign_precisions(layers, budget)) == pytest.approx(-0.831387, abs=5e-7)
    published = next(c for c in hw.hawq_configurations("resnet50") if c.name == "size_0.25")
    given_one = hw.given_precisions(layers, published.precisions)
    assert gain("resnet50", given_one) == pytest.approx(-0.823226, abs=5e-7)
    assert given_one.costs["size"] <= budget["size"]


@pytest.mark.parametrize("network", ["resnet18", "resnet50"])
def test_sizes_and_operations_that_hawq_v3_published(network: str) -> None:
    """model_zoo.md of HAWQ. Uniform rows agree to 2 %; the source does not say how mixed ones were counted.

    The published mixed rows are no sum over layers of 4 and 8 bits: ResNet18's 103 GBOPS of size_0.75 lie between the
    two nearest sums, 102.2 and 105.0. Speed-ups need latencies of the first and last layer and of float32, accuracies
    ImageNet; neither is published.
    """
    layers = hw.hawq_layers(network, fixed=True)
    ends = {layer.name: "int8" for layer in layers if len(layer.sensitivity) == 1}
    assert len(ends) == 2
    for row in hw.hawq_configurations(network):
        found = hw.given_precisions(layers, row.precisions | ends)
        if row.name.startswith("uniform"):
            assert found.costs["bops"] == pytest.approx(row.bops, abs=0.75e9)
            assert found.costs["size"] == pytest.approx(row.size, abs=0.2 * 2**20)
        assert found.costs["bops"] == pytest.approx(row.bops, rel=0.035)
        assert found.costs["size"] == pytest.approx(row.size, rel=0.035)


def test_costs_of_a_layer() -> None:
    losses = {"int4_row": 1.0, "int8_row": 0.0, "mxfp4/fp8": 2.0}
    layer = hw.PrecisionLayer(
        "fc", 320, 1000, losses, {"latency": {"int4_row": 1.0, "int8_row": 2.0, "mxfp4/fp8": 0.5}}
    )
    assert [layer.cost("size", p) for p in losses] == [160, 320, 320 * 4.25 / 8]
    assert [layer.cost("bops", p) for p in losses] == [16_000, 64_000, 32_000]
    assert layer.cost("latency", "mxfp4/fp8") == 0.5
    for cost, precision in (("speed", "int4_row"), ("size", "int2")):
        with pytest.raises(ArgumentError):
            layer.cost(cost, precision)


def test_predicted_times_are_those_of_gemm() -> None:
    found = hw.latency_costs((64, 4096, 4096), ["int4_g128/bfloat16", "fp8"], "h100")
    assert found["int4_g128/bfloat16"] == hw.gemm(64, 4096, 4096, "bfloat16", "int4_g128", device="h100").value
    assert found["fp8"] == hw.gemm(64, 4096, 4096, "fp8", "fp8", device="h100").value


@needs_scipy
def test_the_integer_program_tells_losses_apart_that_are_far_below_the_largest() -> None:
    # a solver's gap of 1e-6 of the largest loss would leave all of "b" to "e" to chance
    layers = [hw.PrecisionLayer("a", 10, 10, {"int8": 0.0, "int4": 1.0})]
    layers += [hw.PrecisionLayer(n, 10, 10, {"int8": 0.0, "int4": 1e-9 * w}) for w, n in enumerate("bcde", 1)]
    found = hw.assign_precisions(layers, {"size": 40.0})
    assert found.optimal
    assert found.layers_with("int4") == ["b", "c"]


@needs_scipy
@pytest.mark.parametrize("method", ["ilp", "pareto", "bisection"])
@pytest.mark.parametrize("scale", [1, 999983, 10**12])
def test_the_least_budget_is_kept_by_the_cheapest_choices(method: str, scale: int) -> None:
    losses = {"int8": 0.0, "int4": 1.0, "int2": 7.0}
    layers = [hw.PrecisionLayer(f"l{i}", size, scale * size, losses) for i, size in enumerate((1, 7, 123457))]
    for cost in ("size", "bops"):
        found = hw.assign_precisions(layers, {cost: hw.budget_between(layers, cost, 0.0)}, method)
        assert len(found.layers_with("int2")) == 3


@needs_scipy
def test_a_cost_that_choices_do_not_have_may_have_no_budget() -> None:
    costs = {"repacking": {"int8": 0.0, "int4": 2.0}}
    layers = [hw.PrecisionLayer(n, 10, 10, {"int8": 1.0, "int4": 0.0}, costs) for n in "ab"]
    for method in ("ilp", "pareto", "bisection"):
        assert hw.assign_precisions(layers, {"repacking": 0}, method).layers_with("int8") == ["a", "b"]


LAYER = hw.PrecisionLayer("a", 10, 10, {"int8": 0.0, "int4": 1.0})


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: hw.assign_precisions([], {"size": 1}), ArgumentError, "layers"),
        (lambda: hw.assign_precisions([LAYER, LAYER], {"size": 1}), ArgumentError, "layers"),
        (lambda: hw.assign_precisions([1], {"size": 1}), ArgumentTypeError, "layers"),
        (lambda: hw.assign_precisions([LAYER], {}), ArgumentTypeError, "budgets"),
        (lambda: hw.assign_precisions([LAYER], {"size": 4.9}), ArgumentError, "least possible is 5"),
        (lambda: hw.assign_precisions([LAYER], {"size": -1}), ArgumentError, "not negative"),
        (lambda: hw.assign_precisions([LAYER], {"sise": 9}), ArgumentError, "size"),
        (lambda: hw.assign_precisions([LAYER], {"size": 9}, "milp"), ArgumentError, "ilp"),
        (lambda: hw.assign_precisions([LAYER], {"size": 9, "bops": 9}, "pareto"), ArgumentError, "takes one"),
        (lambda: hw.budget_between([LAYER], "size", 1.5), ArgumentError, "fraction"),
        (lambda: hw.uniform_precision([LAYER], "int2"), ArgumentError, "int2"),
        (lambda: hw.given_precisions([LAYER], {}), ArgumentError, "lacks: a"),
        (lambda: hw.PrecisionLayer("a", 0, 1, {"int8": 0.0}), ArgumentError, "weights"),
        (lambda: hw.PrecisionLayer("a", 1, 1, {}), ArgumentError, "no precision"),
        (lambda: hw.PrecisionLayer("a", 1, 1, {"int8": math.nan}), ArgumentError, "finite"),
        (lambda: hw.PrecisionLayer("a", 1, 1, {"nonsense": 1.0}), FormatError, "nonsense"),
        (lambda: hw.PrecisionLayer("a", 1, 1, {"int8": 1.0}, {"t": {"int4": 1.0}}), ArgumentError, "each of: int8"),
        (lambda: hw.PrecisionLayer("a", 1, 1, {"int8": 1.0}, {"size": {"int8": 1.0}}), ArgumentError, "another name"),
        (lambda: hw.PrecisionLayer("a", 1, 1, [1.0]), ArgumentTypeError, "sensitivity"),
        (lambda: hw.PrecisionLayer("a", 1, 1, {"int8": "1"}), ArgumentTypeError, "sensitivity"),
        (lambda: hw.PrecisionLayer("a", 1, 1, {"int8": 1.0}, {"t": 1.0}), ArgumentTypeError, "costs"),
        (lambda: hw.hawq_layers("resnet101"), ArgumentError, "resnet18"),
    ],
)
def test_what_makes_no_sense_raises(call: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()  # type: ignore[operator]


def test_groups_need_a_common_precision() -> None:
    other = hw.PrecisionLayer("b", 1, 1, {"int2": 0.0}, group="g")
    with pytest.raises(ArgumentError, match="in common"):
        hw.precision_front([hw.PrecisionLayer("a", 1, 1, {"int8": 0.0}, group="g"), other])


def test_the_integer_program_says_what_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy", None)
    with pytest.raises(ArgumentError, match="scipy"):
        hw.assign_precisions([LAYER], {"size": 9})
    assert hw.assign_precisions([LAYER], {"size": 9}, "pareto").precisions == {"a": "int4"}


def test_operations_count_the_bits_of_codes_without_scales():
    bits = {"ggml_q4_0": 4, "ggml_q8_0": 8, "ggml_q6_k": 6, "mxfp4": 4, "nvfp4": 4, "int4_g128": 4, "nf4": 4}
    layer = hw.PrecisionLayer("fc", 100, 10, dict.fromkeys(bits, 0.0))
    assert {precision: layer.cost("bops", precision) for precision in bits} == {
        p: 10.0 * b * b for p, b in bits.items()
    }


def test_a_precision_names_both_formats_or_one():
    with pytest.raises(FormatError):
        hw.PrecisionLayer("fc", 100, 10, {"int4/": 0.0})
