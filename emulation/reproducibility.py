"""How the results of one product change with the order in which its terms are summed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lowp._errors import ArgumentError, ArgumentTypeError
from lowp.emulation._order import ranks
from lowp.emulation.accumulator import Accumulator
from lowp.emulation.array import array
from lowp.emulation.matmul import matmul, resolved, result_format
from lowp.emulation.matrix_units import MatrixUnit
from lowp.formats.parse import parse
from lowp.formats.spec import Format, ScalarFormat

#: Of a permutation of more terms, its name shows the first ones alone.
_ENTRIES = 8

__all__ = ["Reproducibility", "Variant", "reproducibility", "variants"]


@dataclass(frozen=True)
class Variant:
    """One way to sum, beside the first one.

    Args:
        name: What it is called.
        differing: Fraction of the outputs that differ from those of the first way.
        max_ulps: Largest difference in steps of the results' format; inf where a result is not finite in one of them.
        mean_ulps: Mean of the finite differences of all outputs.
        max_difference: Largest finite difference.
    """

    name: str
    differing: float
    max_ulps: float
    mean_ulps: float
    max_difference: float


@dataclass(frozen=True, repr=False)
class Reproducibility:
    """The results of one product, summed in several ways.

    Args:
        format: Format of the results.
        variants: Each way beside the first.
        results: Results of each way, (ways, ..., m, n).
        distinct: How many different results each output has; zeros of both signs are one, and so are NaN.

    Example:
        >>> import lowp
        >>> a, b = lowp.quantize([[1.0, 2.0**-8, 2.0**-8, -1.0]], "bfloat16"), [[1.0]] * 4
        >>> report = reproducibility(a, b, accumulator="bfloat16", splits=(1, 2), groups=(1, 2))
        >>> report.distinct.tolist(), report.results[:, 0, 0].tolist()
        ([[2]], [0.0, 0.00390625, 0.00390625])
        >>> print(report)
        3 ways to sum 1 output in bfloat16, 1 of them with several results, up to 2
                     differing   max ulps  mean ulps  max difference
        first                0         0          0               0
        2 splits             1  1.523e+04   1.52e+04          0.0039
        groups of 2          1  1.523e+04   1.52e+04          0.0039
    """

    format: ScalarFormat
    variants: tuple[Variant, ...]
    results: NDArray[Any]
    distinct: NDArray[np.int64]

    @property
    def differing(self) -> float:
        """Fraction of the outputs that are not the same in all ways."""
        return float((self.distinct > 1).mean()) if self.distinct.size else 0.0

    def __repr__(self) -> str:
        return f"<Reproducibility: {len(self.variants)} ways, {100 * self.differing:.3g} % of the outputs differ>"

    def __str__(self) -> str:
        """Return a table."""
        outputs = self.distinct.size
        several = int((self.distinct > 1).sum())
        lines = [
            f"{len(self.variants)} ways to sum {outputs} output{'s' * (outputs != 1)} in {self.format.name}, "
            f"{several} of them with several results, up to {int(self.distinct.max(initial=1))}"
        ]
        width = max(len(v.name) for v in self.variants)
        lines.append(f"{'':{width}}  differing   max ulps  mean ulps  max difference")
        for v in self.variants:
            numbers = f"{v.differing:>9.3g}  {v.max_ulps:>9.4g}  {v.mean_ulps:>9.3g}  {v.max_difference:>14.2g}"
            lines.append(f"{v.name:{width}}  {numbers}")
        return "\n".join(lines)


def reproducibility(
    a: Any,
    b: Any,
    c: Any = None,
    *,
    unit: str | MatrixUnit | None = None,
    accumulator: Accumulator | str | Format | None = None,
    ways: Mapping[str, Any] | None = None,
    orders: Sequence[str | tuple[int, ...]] = (),
    seeds: Iterable[int] = (),
    groups: Sequence[int] = (),
    splits: Sequence[int] = (1, 2, 4, 8),
    split_tile: int = 1,
    outer: str | Format | Accumulator | None = None,
    fmt: str | Format | None = None,
) -> Reproducibility:
    """Return how the results of a product differ when its terms are summed in other orders.

    What a library does to one product when the batch, the GPU or its own version change: another kernel, which cuts the
    sum elsewhere. The first way is the accumulator's own; each of the others changes one thing.

    Args:
        a: Left operand, as for `lowp.matmul`; NumPy arrays or lists.
        b: Right operand.
        c: Addend.
        unit: Matrix unit, or its name.
        accumulator: Accumulator or format, in place of a unit.
        ways: More ways, by name: accumulators, formats, units, or names of units.
        orders: Other orders of the terms.
        seeds: Random orders with these seeds.
        groups: Other numbers of terms in one step.
        splits: Split-K factors; 1 is the accumulator's own way.
        split_tile: Terms of a tile.
        outer: Accumulator, or format, in which the sums of splits are added. None: the accumulator's own format.
        fmt: Format that results are rounded to in the end, such as "bfloat16"; None: they are not.

    Raises:
        ArgumentError, ArgumentTypeError: As `lowp.matmul` does.

    Source:
        J. Yuan et al., "Give Me FP32 or Give Me Death? Challenges and Solutions for Reproducible Reasoning",
        arXiv:2506.09501.
    """
    how = resolved(unit, accumulator, (a, b))
    kinds: dict[str, Any] = {"orders": orders, "seeds": seeds, "groups": groups, "splits": splits}
    chosen = {"first": how, **dict(variants(how, **kinds, split_tile=split_tile, outer=outer))}
    if taken := sorted(set(chosen) & set(ways or {})):
        raise ArgumentError(f"ways holds {taken[0]!r}, which another way is called; give it another name.")
    chosen |= ways or {}
    results, own = [], None
    for name, way in chosen.items():
        given = _resolved(name, way)
        own = own or result_format(given)
        parts = (given, None) if isinstance(given, MatrixUnit) else (None, given)
        results.append(np.asarray(matmul(a, b, c, parts[0], accumulator=parts[1], fmt=fmt), np.float64))
    found = parse(fmt) if fmt is not None else own
    assert isinstance(found, ScalarFormat)
    stacked = np.stack(results)
    rows = tuple(_variant(name, stacked[0], x, found) for name, x in zip(chosen, stacked, strict=True))
    return Reproducibility(found, rows, stacked, _distinct(stacked))


def variants(
    how: MatrixUnit | Accumulator,
    *,
    orders: Sequence[str | tuple[int, ...]] = (),
    seeds: Iterable[int] = (),
    groups: Sequence[int] = (),
    splits: Sequence[int] = (),
    split_tile: int = 1,
    outer: str | Format | Accumulator | None = None,
) -> Iterator[tuple[str, MatrixUnit | Accumulator]]:
    """Yield an accumulator, or a unit, with one thing changed at a time, by names; see `reproducibility`."""
    adding = outer if outer is None or isinstance(outer, Accumulator) else Accumulator(format=outer)
    for argument, given in (("orders", orders), ("seeds", seeds), ("groups", groups), ("splits", splits)):
        if isinstance(given, str) or not isinstance(given, Iterable):
            raise ArgumentTypeError(f"{argument}={given!r} must be several, such as a list or a tuple.")
    for i, order in enumerate(orders):
        yield f"order {_named(order, i)}", _changed(how, order=order)
    for seed in seeds:
        yield f"random order {seed}", _changed(how, order="random", seed=seed)
    for count in splits:
        if count != 1:
            yield f"{count} splits", _changed(how, splits=count, split_tile=split_tile, outer=adding)
    for group in groups:
        if group != (how.accumulator if isinstance(how, MatrixUnit) else how).group:
            yield f"groups of {group}", _changed(how, group=group)


def _named(order: Any, place: int) -> str:
    """Return what an order is called; of a long permutation its place among the orders, and its first entries."""
    if isinstance(order, str) or not isinstance(order, Iterable):
        return str(order)
    entries = list(order)
    if len(entries) <= _ENTRIES:
        return f"({', '.join(map(str, entries))})"
    return f"{place} ({', '.join(map(str, entries[:3]))}, ... {len(entries)} terms)"


def _changed(how: MatrixUnit | Accumulator, **changes: Any) -> MatrixUnit | Accumulator:
    if isinstance(how, MatrixUnit):
        return replace(how, accumulator=replace(how.accumulator, **changes))
    return replace(how, **changes)


def _resolved(name: str, way: Any) -> MatrixUnit | Accumulator:
    if isinstance(way, MatrixUnit | Accumulator):
        return way
    if not isinstance(way, str | Format):
        raise ArgumentTypeError(
            f"ways[{name!r}]={way!r} must be an accumulator, a format, or a matrix unit or its name."
        )
    return (
        resolved(way, None, (None, None)) if isinstance(way, str) and "/" in way else resolved(None, way, (None, None))
    )


def _variant(name: str, first: NDArray[np.float64], other: NDArray[np.float64], fmt: ScalarFormat) -> Variant:
    if other.shape != first.shape:
        raise ArgumentError(f"ways[{name!r}] gives results of another shape.")
    same = (first == other) | (np.isnan(first) & np.isnan(other))
    steps = _ulps(first, other, fmt)
    finite = np.isfinite(first) & np.isfinite(other)
    difference = np.abs(np.where(finite, first, 0.0) - np.where(finite, other, 0.0))
    known = steps[np.isfinite(steps)]
    return Variant(
        name,
        float((~same).mean()) if same.size else 0.0,
        float(steps.max(initial=0.0)),
        float(known.mean()) if known.size else 0.0,
        float(difference.max(initial=0.0)),
    )


def _ulps(x: NDArray[np.float64], y: NDArray[np.float64], fmt: ScalarFormat) -> NDArray[np.float64]:
    """Return how many numbers of the format apart results are; infinity where one of them is not finite."""
    finite = np.isfinite(x) & np.isfinite(y)
    places = [ranks(array(np.where(finite, v, 0.0) + 0.0, fmt).codes, fmt).astype(np.float64) for v in (x, y)]
    if fmt.has_negative_zero:
        places = [np.where(p < 0, p + 1, p) for p in places]  # zeros of both signs are one number
    same = (x == y) | (np.isnan(x) & np.isnan(y))
    return np.where(same, 0.0, np.where(finite, np.abs(places[0] - places[1]), np.inf))


def _distinct(results: NDArray[np.float64]) -> NDArray[np.int64]:
    ordered = np.sort(results + 0.0, axis=0)  # NaN come last
    changes = (ordered[1:] != ordered[:-1]) & ~(np.isnan(ordered[1:]) & np.isnan(ordered[:-1]))
    return np.asarray(1 + changes.sum(axis=0), np.int64)
