"""What is best when several things count: fronts of points that have intervals, and their knees."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lowp._errors import ArgumentError

#: How a point stands, from best to worst. One point dominates another if it is at least as good in every objective
#: and better in one.
STANDINGS = {
    "surely optimal": "no point dominates it, wherever in their intervals the truth lies",
    "optimal": "no point dominates it by the best guesses; the intervals leave open whether one does",
    "possibly optimal": "a point dominates it by the best guesses; the intervals leave open whether it does",
    "dominated": "a point dominates it wherever in their intervals the truth lies",
}
#: Pairs of points that are compared at a time: bounds the memory.
_PAIRS = 1 << 21

Matrix = NDArray[np.float64]
#: Low, value and high.
Ends = Sequence[Matrix]


def standings(
    value: ArrayLike,
    low: ArrayLike | None = None,
    high: ArrayLike | None = None,
    shared: Sequence[Hashable] | None = None,
) -> list[str]:
    """Return how each point stands among all: one of `STANDINGS`.

    Intervals are taken to be independent of each other, which is on the safe side, unless points are said to share
    their errors: of such points one is surely better if it is so at both ends and by the best guess.

    Args:
        value: Best guesses, one row per point and one column per objective; smaller is better.
        low: Lower ends of the intervals; default the best guesses.
        high: Upper ends.
        shared: A label per point; those of one label share their errors. None as a label: with no other point.

    Raises:
        ArgumentError: The arrays are not two-dimensional and alike, hold NaN, or are not low <= value <= high.

    Example:
        >>> standings([[1.0, 4.0], [2.0, 2.0], [2.5, 3.0]], high=[[1.0, 4.0], [3.0, 3.5], [2.5, 3.0]])
        ['surely optimal', 'optimal', 'possibly optimal']
        >>> standings([[1.0], [2.0]], [[0.5], [1.0]], [[3.0], [6.0]], shared=["one chip", "one chip"])
        ['surely optimal', 'dominated']
    """
    guesses, lows, highs = _checked(value, low, high)
    if shared is not None and len(shared) != len(guesses):
        raise ArgumentError(f"shared has {len(shared)} labels for {len(guesses)} points; allowed: one for each.")
    numbers: dict[Hashable, int] = {}
    labels = [
        -1 - i if label is None else numbers.setdefault(label, len(numbers)) for i, label in enumerate(shared or [])
    ]
    of = np.array(labels or -1 - np.arange(len(guesses)))
    ends = (lows, guesses, highs)
    sure = _dominated(highs, lows, of, lambda a, b: (_all(a, b), a[1] < b[1]), ends)
    guessed = _dominated(guesses, guesses)
    possible = _dominated(lows, highs, of, lambda a, b: (_any(a, b), _any(a, b, less=True)), ends)
    names = list(STANDINGS)
    worse = sure.astype(int) + guessed + possible  # each implies the next
    return [names[count] for count in worse]


def pareto_front(value: ArrayLike, low: ArrayLike | None = None, high: ArrayLike | None = None) -> list[int]:
    """Return the positions of the points that no other dominates by the best guesses, by the first objective.

    Args:
        value: Best guesses, one row per point and one column per objective; smaller is better.
        low: Lower ends of the intervals, which are only checked.
        high: Upper ends.

    Raises:
        ArgumentError: As `standings`.

    Example:
        >>> pareto_front([[3, 1], [1, 3], [2, 2], [3, 3]])
        [1, 2, 0]
    """
    guesses, _, _ = _checked(value, low, high)
    kept = np.flatnonzero(~_dominated(guesses, guesses))
    order = np.lexsort(guesses[kept].T[::-1])
    return [int(i) for i in kept[order]]


def knees(value: ArrayLike) -> list[int]:
    """Return the knees of the Pareto front, sharpest first: where a little less of one costs much more of another.

    Objectives are scaled to 0 to 1 over the front, by logarithms where all are positive and span more than a factor of
    two. A knee is a corner of the front's lower convex hull, its ends left out; its sharpness is the distance from the
    line through the ends. With three objectives or more, only the point of the front with the least sum is returned.

    Args:
        value: Best guesses, one row per point and one column per objective; smaller is better.

    Returns:
        Positions of points; none if the front has no corner between its ends.

    Raises:
        ArgumentError: As `standings`.

    Source:
        I. Das, "On characterizing the 'knee' of the Pareto curve based on normal-boundary intersection", Structural
        Optimization 18 (1999).

    Example:
        >>> knees([[0, 10], [1, 2], [5, 1], [10, 0]])
        [1, 2]
    """
    guesses, _, _ = _checked(value, None, None)
    front = [i for i in pareto_front(guesses) if np.isfinite(guesses[i]).all()]
    if len(front) < 3:
        return []
    scaled = _scaled(guesses[front])
    sums = scaled.sum(axis=1)
    if scaled.shape[1] != 2:
        return [front[int(np.argmin(sums))]]
    corners = [i for i in _lower_hull(scaled) if 1 - sums[i] > 1e-9]
    return [front[i] for i in sorted(corners, key=lambda i: sums[i])]


def _checked(value: ArrayLike, low: ArrayLike | None, high: ArrayLike | None) -> tuple[Matrix, Matrix, Matrix]:
    guesses = np.asarray(value, dtype=np.float64)
    lows, highs = (guesses if end is None else np.asarray(end, dtype=np.float64) for end in (low, high))
    if guesses.ndim != 2 or not guesses.shape[1] or lows.shape != guesses.shape or highs.shape != guesses.shape:
        raise ArgumentError(
            f"value, low and high have shapes {guesses.shape}, {lows.shape}, {highs.shape}; "
            "allowed: one shape (points, objectives), at least one objective."
        )
    if not ((lows <= guesses) & (guesses <= highs)).all():
        raise ArgumentError("low, value and high must be numbers in ascending order; one is NaN or out of order.")
    return guesses, lows, highs


def _all(a: Ends, b: Ends) -> NDArray[np.bool_]:
    """Whether a is at most b at both ends and in the middle."""
    return (a[0] <= b[0]) & (a[1] <= b[1]) & (a[2] <= b[2])


def _any(a: Ends, b: Ends, less: bool = False) -> NDArray[np.bool_]:
    """Whether a is at most b, or less, at an end or in the middle."""
    if less:
        return (a[0] < b[0]) | (a[1] < b[1]) | (a[2] < b[2])
    return (a[0] <= b[0]) | (a[1] <= b[1]) | (a[2] <= b[2])


def _dominated(
    better: Matrix,
    worse: Matrix,
    labels: NDArray[np.int64] | None = None,
    together: Callable[[Ends, Ends], tuple[NDArray[np.bool_], NDArray[np.bool_]]] | None = None,
    ends: Ends | None = None,
) -> NDArray[np.bool_]:
    """Return for each point whether another one, at `better`, dominates it at `worse`.

    Pairs of one label are compared by `together`, which takes their `ends` in one objective and says whether the first
    is not worse, and whether it is better.
    """
    count = len(better)
    result = np.zeros(count, dtype=bool)
    step = max(1, _PAIRS // max(count, 1))
    for start in range(0, count, step):
        rows = np.arange(start, min(start + step, count))
        not_worse = np.ones((len(rows), count), dtype=bool)
        less = np.zeros((len(rows), count), dtype=bool)
        for objective in range(better.shape[1]):
            left, right = better[None, :, objective], worse[rows, None, objective]
            at_most, below = left <= right, left < right
            if labels is not None and together is not None and ends is not None:
                same = labels[rows, None] == labels[None, :]
                pair = ([e[None, :, objective] for e in ends], [e[rows, None, objective] for e in ends])
                also = together(*pair)
                at_most, below = np.where(same, also[0], at_most), np.where(same, also[1], below)
            not_worse &= at_most
            less |= below
        not_worse &= less
        not_worse[np.arange(len(rows)), rows] = False  # a point does not dominate itself
        result[rows] = not_worse.any(axis=1)
    return result


def _scaled(front: Matrix) -> Matrix:
    columns = []
    for values in front.T:
        drawn = np.log(values) if values.min() > 0 and values.max() > 2 * values.min() else values
        spread = float(np.ptp(drawn))
        columns.append((drawn - drawn.min()) / spread if spread > 0 else np.zeros_like(drawn))
    return np.stack(columns, axis=1)


def _lower_hull(points: Sequence[Sequence[float]] | Matrix) -> list[int]:
    """Return the corners of the lower convex hull of points with ascending x, without the ends."""
    hull: list[int] = []
    for i, (x, y) in enumerate(points):
        while len(hull) >= 2:
            (x0, y0), (x1, y1) = points[hull[-2]], points[hull[-1]]
            if (x1 - x0) * (y - y0) > (y1 - y0) * (x - x0):
                break
            hull.pop()
        hull.append(i)
    return hull[1:-1]
