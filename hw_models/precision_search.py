"""Searches for the best choice per variable within limits: an integer program, a bisection, a Pareto front."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from lowp._errors import ArgumentError, Error

#: Points of a front that are kept while it is built.
MAX_POINTS = 100_000
_BISECTIONS = 100
#: Assignments that may be cut off because they pass a limit by less than the solver's tolerances.
_CUTS = 100
#: The largest loss as the solver sees it, whose gap is 1e-6.
_RESOLUTION = 1e6


class Problem(NamedTuple):
    """Choices to make, one per variable.

    Attributes:
        losses: By variable and choice: what is to be least in sum.
        costs: By variable, choice and cost: what must keep the limits in sum.
    """

    losses: list[list[float]]
    costs: list[list[list[float]]]


Found = tuple[list[int], bool] | None


def integer_program(problem: Problem, limits: Sequence[float]) -> Found:
    """Return the optimal choices by scipy's mixed-integer solver, HiGHS; None if no choices keep the limits.

    The solver has tolerances of a part in a million, of the loss and of the limits. It is given what choices lose and
    cost above the least of their variable, so that these are parts of what is at stake, not of the whole; choices that
    pass a limit all the same are cut off one by one.
    """
    optimize = _scipy()
    flat = [(v, c) for v, losses in enumerate(problem.losses) for c in range(len(losses))]
    loss = np.array([problem.losses[v][c] - min(problem.losses[v]) for v, c in flat])
    one_each = np.array([[float(v == variable) for v, _ in flat] for variable in range(len(problem.losses))])
    spent, room = _above_least(problem, limits, flat)
    allowed = (spent <= room[:, None]).all(axis=0)
    spent = np.divide(spent, room[:, None], out=np.zeros_like(spent), where=room[:, None] > 0)
    constraints = [optimize.LinearConstraint(one_each, 1, 1), optimize.LinearConstraint(spent, -np.inf, 1)]
    for _ in range(_CUTS):
        solved = optimize.milp(
            loss * (_RESOLUTION / (float(loss.max()) or 1.0)),
            integrality=np.ones(len(flat)),
            bounds=optimize.Bounds(0, allowed.astype(float)),
            constraints=constraints,
            options={"mip_rel_gap": 0.0},
        )
        if solved.status == 2:
            return None
        if solved.x is None:
            raise Error(f"scipy's milp found nothing: {solved.message}")
        taken = solved.x > 0.5
        choices = [c for (_, c), one in zip(flat, taken, strict=True) if one]
        if keeps(problem, choices, limits):
            return choices, solved.status == 0
        constraints.append(optimize.LinearConstraint(taken.astype(float), -np.inf, len(choices) - 1))
    raise Error(f"scipy's milp found {_CUTS} assignments that pass the limits by less than its tolerances.")


def _above_least(
    problem: Problem, limits: Sequence[float], flat: Sequence[tuple[int, int]]
) -> tuple[np.ndarray, np.ndarray]:
    """Return by limit what each choice costs above the least of its variable, and how much there is for all of them."""
    least = [[min(choice[i] for choice in choices) for i in range(len(limits))] for choices in problem.costs]
    spent = [[problem.costs[v][c][i] - least[v][i] for v, c in flat] for i in range(len(limits))]
    room = [max(0.0, limit - math.fsum(row[i] for row in least)) for i, limit in enumerate(limits)]
    return np.array(spent), np.array(room)


def _scipy() -> Any:
    try:
        from scipy import optimize
    except ModuleNotFoundError as error:
        raise ArgumentError(
            "method='ilp' needs scipy: pip install 'lowp[search]'; or use 'bisection' or 'pareto'."
        ) from error
    return optimize


def keeps(problem: Problem, choices: Sequence[int], limits: Sequence[float]) -> bool:
    """Whether choices keep all limits."""
    return all(
        math.fsum(problem.costs[v][c][i] for v, c in enumerate(choices)) <= limit for i, limit in enumerate(limits)
    )


def bisection(problem: Problem, limits: Sequence[float]) -> Found:
    """Return choices that minimise loss + price * cost, the price bisected until the limit is kept; the rest is spent.

    Choices on the lower convex hull of loss and cost are found exactly; between them the remaining budget is spent
    greedily on the best improvement that fits.
    """
    (limit,) = limits

    def at(price: float) -> list[int]:
        pairs = zip(problem.losses, problem.costs, strict=True)
        return [min(range(len(ls)), key=lambda c: (ls[c] + price * cs[c][0], cs[c][0])) for ls, cs in pairs]

    free = at(0.0)
    if keeps(problem, free, limits):
        return free, True
    cheapest = [
        min(range(len(cs)), key=lambda c: (cs[c][0], ls[c]))
        for ls, cs in zip(problem.losses, problem.costs, strict=True)
    ]
    if not keeps(problem, cheapest, limits):
        return None
    spread = max(max(ls) - min(ls) for ls in problem.losses)
    steps = [abs(x[0] - y[0]) for cs in problem.costs for x in cs for y in cs if x[0] != y[0]]
    low, high, best = 0.0, 2 * spread / min(steps), cheapest
    for _ in range(_BISECTIONS):
        price = (low + high) / 2
        choices = at(price)
        if keeps(problem, choices, limits):
            high, best = price, choices
        else:
            low = price
    return _spent(problem, best, limit), False


def _spent(problem: Problem, choices: list[int], limit: float) -> list[int]:
    """Spend what is left of the limit, on the largest gain of loss that fits first."""
    current = list(choices)
    while True:
        left = limit - math.fsum(problem.costs[v][c][0] for v, c in enumerate(current))
        moves = [
            (problem.losses[v][now] - problem.losses[v][c], v, c)
            for v, now in enumerate(current)
            for c in range(len(problem.losses[v]))
            if problem.losses[v][c] < problem.losses[v][now]
            and problem.costs[v][c][0] - problem.costs[v][now][0] <= left
        ]
        if not moves:
            return current
        _, variable, choice = max(moves)
        current[variable] = choice


def by_front(problem: Problem, limits: Sequence[float]) -> Found:
    """Return the best choices of the Pareto front that keep the limit."""
    (limit,) = limits
    found, exact = front(problem)
    spent = [math.fsum(problem.costs[v][c][0] for v, c in enumerate(choices)) for choices in found]
    position = bisect_right(spent, limit)
    return (found[position - 1], exact) if position else None


def front(problem: Problem) -> tuple[list[list[int]], bool]:
    """Return the Pareto front of loss and the first cost by ascending cost, and whether it is exact.

    Variables are added one at a time; of partial choices only those that no other dominates are kept.
    """
    cost, loss = np.zeros(1), np.zeros(1)
    history: list[tuple[np.ndarray, np.ndarray]] = []
    exact = True
    for losses, costs in zip(problem.losses, problem.costs, strict=True):
        all_costs = np.concatenate([cost + c[0] for c in costs])
        all_losses = np.concatenate([loss + one for one in losses])
        choice = np.repeat(np.arange(len(losses)), len(cost))
        parent = np.tile(np.arange(len(cost)), len(losses))
        kept = _undominated(all_costs, all_losses)
        if len(kept) > MAX_POINTS:
            exact = False
            kept = _thinned(all_costs, kept)
        cost, loss = all_costs[kept], all_losses[kept]
        history.append((choice[kept], parent[kept]))
    found = []
    for position in range(len(cost)):
        choices = []
        for choice, parent in reversed(history):
            choices.append(int(choice[position]))
            position = int(parent[position])  # noqa: PLW2901 - the walk back
        found.append(choices[::-1])
    return found, exact


def _undominated(cost: np.ndarray, loss: np.ndarray) -> np.ndarray:
    order = np.lexsort((loss, cost))
    best = np.minimum.accumulate(loss[order])
    fresh = np.concatenate([[True], best[1:] < best[:-1]])
    return np.asarray(order[fresh])


def _thinned(cost: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """Keep the last, and so best, point of each of `MAX_POINTS` equal parts of the cost's range, and the first."""
    values = cost[kept]
    part = np.floor((values - values[0]) / (values[-1] - values[0]) * (MAX_POINTS - 1)).astype(np.int64)
    last = np.concatenate([part[1:] != part[:-1], [True]])
    last[0] = True
    return np.asarray(kept[last])


#: Searches by name.
SEARCHES: dict[str, Callable[[Problem, Sequence[float]], Found]] = {
    "ilp": integer_program,
    "bisection": bisection,
    "pareto": by_front,
}
