"""Attention in jaxprs: which operands are keys and values, found from what becomes of a product's result."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import jax

from lowp.emulation._jax_memory import current
from lowp.emulation._jax_operands import Axes, Reading, round_cached
from lowp.emulation._jax_origins import is_backward
from lowp.emulation._jax_products import DotAxes
from lowp.emulation._jax_sites import Cached, Scope, Site

if TYPE_CHECKING:
    from lowp.emulation._jax_origins import Origin
    from lowp.emulation._jax_plan import Planner

#: Primitives whose results have the axes of their operands.
_ELEMENTWISE = frozenset(
    [
        *("abs", "add", "add_any", "and", "clamp", "concatenate", "convert_element_type", "copy", "div", "exp"),
        *(
            "exp2",
            "integer_pow",
            "log",
            "log1p",
            "logistic",
            "max",
            "min",
            "mul",
            "name",
            "neg",
            "optimization_barrier",
        ),
        *("optimization_barrier", "pad", "pow", "reduce_precision", "select_n", "sharding_constraint", "slice", "sub"),
        *("stop_gradient", "tanh", "pvary", "pcast", "reshard", "mesh_cast", "layout_constraint"),
    ]
)
_EXPONENTIALS = ("exp", "exp2")


class Scores(NamedTuple):
    """Numbers that follow from one product of two activations, which may be the scores of attention.

    Attributes:
        number: The product, in the order in which a planner meets them.
        sides: For each axis the operand, 1 or 2, that it comes from; 0 for other axes.
        exponential: Whether an exponential function was taken.
        summed: The operand along whose axes exponentials were summed, as softmax does: the keys; 0 for none so far.
    """

    number: int
    sides: tuple[int, ...]
    exponential: bool = False
    summed: int = 0


def scores_of(number: int, params: Any, ndims: tuple[int, int]) -> Scores:
    """Return what is known of the result of a `dot_general`."""
    axes = DotAxes.of(params["dimension_numbers"], *ndims)
    return Scores(number, (*(0 for _ in axes.a.batch), *(1 for _ in axes.a.outer), *(2 for _ in axes.b.outer)))


def followed(eqn: Any, found: Sequence[Scores | None]) -> Scores | None:
    """Return what is known of the results of an operation on such numbers; None where the trace is lost."""
    given = [scores for scores in found if scores is not None]
    if not given or any(scores.number != given[0].number for scores in given):
        return None
    name, first = eqn.primitive.name, given[0]
    known = first._replace(exponential=any(s.exponential for s in given), summed=max(s.summed for s in given))
    if name in _ELEMENTWISE:
        shape = eqn.outvars[0].aval.shape
        if any(len(s.sides) != len(shape) for s in given):
            return None
        sides = tuple(max(s.sides[i] for s in given) for i in range(len(shape)))
        return known._replace(sides=sides, exponential=known.exponential or name in _EXPONENTIALS)
    change = _CHANGES.get(name)
    return None if change is None else change(eqn, known)


def _transpose(eqn: Any, scores: Scores) -> Scores:
    return scores._replace(sides=tuple(scores.sides[i] for i in eqn.params["permutation"]))


def _broadcast(eqn: Any, scores: Scores) -> Scores:
    sides = [0] * len(eqn.params["shape"])
    for place, side in zip(eqn.params["broadcast_dimensions"], scores.sides, strict=True):
        sides[place] = side
    return scores._replace(sides=tuple(sides))


def _reshape(eqn: Any, scores: Scores) -> Scores | None:
    """Axes that keep their place and length keep their side; those that are taken apart or joined, the common one."""
    before, after = eqn.invars[0].aval.shape, eqn.outvars[0].aval.shape
    sides, i = [], 0
    for group_before, group_after in _matched(before, after):
        own = {scores.sides[j] for j in group_before if before[j] != 1}
        if len(own) > 1:
            return None
        sides += [own.pop() if own else 0] * len(group_after)
        i += len(group_before)
    return scores._replace(sides=tuple(sides))


def _matched(before: Sequence[int], after: Sequence[int]) -> list[tuple[list[int], list[int]]]:
    """Return the groups of axes, of two shapes with equal numbers of elements, that are the same in both."""
    groups, i, j = [], 0, 0
    while i < len(before) or j < len(after):
        left, right = ([i] if i < len(before) else []), ([j] if j < len(after) else [])
        i, j = i + len(left), j + len(right)
        while math.prod(before[k] for k in left) != math.prod(after[k] for k in right):
            if math.prod(before[k] for k in left) < math.prod(after[k] for k in right) and i < len(before):
                left.append(i)
                i += 1
            elif j < len(after):
                right.append(j)
                j += 1
            else:
                left.append(i)
                i += 1
        groups.append((left, right))
    return groups


def _squeeze(eqn: Any, scores: Scores) -> Scores:
    gone = eqn.params["dimensions"]
    return scores._replace(sides=tuple(side for i, side in enumerate(scores.sides) if i not in gone))


def _reduced(eqn: Any, scores: Scores) -> Scores:
    gone = eqn.params["axes"]
    return scores._replace(sides=tuple(side for i, side in enumerate(scores.sides) if i not in gone))


def _summed(eqn: Any, scores: Scores) -> Scores:
    sides = {scores.sides[i] for i in eqn.params["axes"]}
    whole = scores.exponential and len(sides) == 1 and 0 not in sides
    return _reduced(eqn, scores)._replace(summed=sides.pop() if whole else scores.summed)


_CHANGES: dict[str, Callable[[Any, Scores], Scores | None]] = {
    "transpose": _transpose,
    "broadcast_in_dim": _broadcast,
    "reshape": _reshape,
    "squeeze": _squeeze,
    "reduce_max": _reduced,
    "reduce_sum": _summed,
}


def _is_weighting(origin: Origin, other: Origin, own: Any) -> bool:
    """Whether one operand of a product is probabilities, and the other one values that they weight."""
    scores = origin.scores
    if scores is None or other.kind != "activation" or not scores.summed:
        return False
    return bool(own.contract) and all(scores.sides[i] == scores.summed for i in own.contract)


def first_of(eqn: Any, inputs: Sequence[Origin]) -> int:
    """Return which operand of a product comes first in the formulas: probabilities before values.

    `einsum` hands operands over in an order of its own.
    """
    if eqn.primitive.name != "dot_general" or any(o.kind != "activation" for o in inputs):
        return 0
    axes = DotAxes.of(eqn.params["dimension_numbers"], *(v.aval.ndim for v in eqn.invars))
    return int(_is_weighting(inputs[1], inputs[0], axes.b) and not _is_weighting(inputs[0], inputs[1], axes.a))


class Found(NamedTuple):
    """The attention of a program, by the numbers of its products.

    Attributes:
        keys: Products of queries and keys, and which operand the keys are.
        values: Products of probabilities and values: which operand the values are, and the product of the keys.
    """

    keys: dict[int, int]
    values: dict[int, tuple[int, int]]


class Attention:
    """Finds attention in one walk of a planner, and tells the next walk what to round.

    Args:
        found: What an earlier walk over the same program has found; None in that earlier walk.
        before: What is known of the rest of the program.
    """

    def __init__(self, found: Found | None = None, before: Attention | None = None) -> None:
        self.searches = found is None
        self.found = found or Found({}, {})
        self._count = 0
        self._sites: dict[int, Site] = {}
        self.roots: dict[Any, Cached] = dict(before.roots) if before else {}  # by the origin of keys or values

    def follow(self, eqn: Any, inputs: Sequence[Origin], results: list[Origin], stack: str) -> list[Origin]:
        """Return the origins of an operation's results with what is known of scores."""
        scores = None if is_backward(stack) else followed(eqn, [o.scores for o in inputs])
        return [o if o.scores == scores else o._replace(scores=scores) for o in results]

    def meet(self, eqn: Any, inputs: Sequence[Origin], results: list[Origin]) -> tuple[int, list[Origin]]:
        """Count a product of the forward pass; return its number and the origins of its results."""
        number = self._count
        self._count += 1
        if eqn.primitive.name != "dot_general":
            return number, results
        if self.searches:
            self._search(eqn, inputs, number)
        if [o.kind for o in inputs] != ["activation", "activation"]:
            return number, results
        ndims = (eqn.invars[0].aval.ndim, eqn.invars[1].aval.ndim)
        scores = scores_of(number, eqn.params, ndims)
        return number, [o._replace(scores=scores) for o in results]

    def _search(self, eqn: Any, inputs: Sequence[Origin], number: int) -> None:
        axes = DotAxes.of(eqn.params["dimension_numbers"], eqn.invars[0].aval.ndim, eqn.invars[1].aval.ndim)
        for place, (origin, own) in enumerate(zip(inputs, axes, strict=True)):
            if _is_weighting(origin, inputs[1 - place], own):
                self.found.keys[origin.scores.number] = origin.scores.summed - 1
                self.found.values[number] = (1 - place, origin.scores.number)

    def cached(
        self, planner: Planner, number: int, site: Site | None, inputs: Any, place_of: tuple[str, Scope]
    ) -> tuple[Any, ...]:
        """Return for each operand of a product how the cache keeps it, or None; () for neither."""
        if number in self.found.keys:
            place, name, keys = self.found.keys[number], "kv_cache", number
        elif number in self.found.values:
            (place, keys), name = self.found.values[number], "kv_cache_2"
        else:
            return ()
        if keys not in self._sites:
            made = planner.cache_site(*place_of, site)
            if made is None:
                return ()
            self._sites[keys] = made
        cached = Cached(self._sites[keys], name, name == "kv_cache")
        self.roots[inputs[place].root] = cached
        planner.report_cached(cached.site)
        return (cached, None) if place == 0 else (None, cached)

    def cached_again(self, inputs: Sequence[Origin]) -> tuple[Any, ...]:
        """Return the same for a product of a backward pass that the program holds itself."""
        found = [self.roots.get(o.root) if o.root is not None and o.kind != "gradient" else None for o in inputs]
        # where the forward product sums over the head, the backward product sums over the tokens
        turned = tuple(None if c is None else c._replace(head_is_summed=not c.head_is_summed) for c in found)
        return turned if any(turned) else ()

    def misses(self, number: int, kinds: Sequence[str]) -> bool:
        """Whether a product of two activations belongs to no attention, though attention was looked for."""
        known = self.searches or number in self.found.keys or number in self.found.values
        return not known and list(kinds) == ["activation", "activation"]


def wants_cache(recipe: Any) -> bool:
    """Whether a recipe has a format for keys and values."""
    return bool(recipe.kv_cache) or any("kv_cache" in dict(rule.casts) for rule in recipe.rules)


def from_cache(cached: Cached, x: Any, params: Any, place: int, ndims: tuple[int, int], word: Any) -> Any:
    """Return keys or values as they come out of the cache, rounded along the head; the gradient passes unchanged."""
    axes: Axes = DotAxes.of(params["dimension_numbers"], *ndims)[place]

    def primal(x: Any, word: Any) -> Any:
        reading = Reading(cached.site, "forward", "kv_cache", word)
        tokens, head = (axes.outer, axes.contract) if cached.head_is_summed else (axes.contract, axes.outer)
        return round_cached(x, reading, cached.name, (axes.batch, tokens, head)).astype(x.dtype)

    def forward(x: Any, word: Any) -> Any:
        return primal(x, word), None

    def backward(_: Any, g: Any) -> Any:
        return g, None

    if current() is not None:
        return primal(x, word)
    function = jax.custom_vjp(primal)
    function.defvjp(forward, backward)
    return function(x, word)
