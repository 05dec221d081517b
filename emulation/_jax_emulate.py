"""Functions of JAX arrays whose products, or all operations, are in low precision."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lowp._errors import ArgumentError, ArgumentTypeError, nearest, warn_caller
from lowp.emulation._jax_captured import captured_origins
from lowp.emulation._jax_origins import Origin, activation, path_of, weight
from lowp.emulation._jax_plan import Planner
from lowp.emulation._jax_products import Hooks
from lowp.emulation._jax_remarks import remarks
from lowp.emulation._jax_run import Run, evaluate
from lowp.emulation._jax_seeds import word_of
from lowp.emulation._jax_sites import Plan, Scope, Site
from lowp.emulation.casts import settings
from lowp.emulation.recipe import Recipe, as_recipe
from lowp.emulation.report import Report

Weights = int | str | Sequence[int | str] | None


class Traced(NamedTuple):
    """A call of a function as a jaxpr, and its plan."""

    plan: Plan
    planner: Planner
    dynamic: list[Any]
    results: Callable[[list[Any]], Any]


class Emulated:
    """A function in low precision; made by `emulate` and `every_operation`, called like the function itself.

    Attributes:
        recipe: What is done.
        report: What was done when the function was last traced (under `jax.jit`: compiled).
        weights: Which arguments are parameters; see `emulate`.
        shard_axis: Mesh axes over which activations are split.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        recipe: Recipe,
        weights: Weights = None,
        shard_axis: tuple[str, ...] = (),
        strict: bool = False,
        check_finite: bool = False,
        remembers: bool = False,
    ) -> None:
        self.function, self.recipe, self.report = function, recipe, Report()
        self._remembers = remembers
        self.weights, self.shard_axis, self._strict, self._check_finite = weights, shard_axis, strict, check_finite
        self._warned: set[str] = set()
        functools.update_wrapper(self, function, updated=())

    def __call__(self, *args: Any, seed: Any = None, **kwargs: Any) -> Any:
        """Call the function. `seed`: changes everything random, see `emulate`; all else goes to the function."""
        return self._run(self.traced(args, kwargs), word_of(seed))

    def _run(self, traced: Traced, word: Any) -> Any:
        self.report = traced.planner.report
        hooks = Hooks(traced.planner.note_backward, self._watch if self._check_finite else None)
        results = evaluate(traced.plan, Run.start(traced.planner, hooks, word), traced.dynamic)
        self._note_nonfinite(results)
        return traced.results(results)

    def with_recipe(self, recipe: Recipe) -> Emulated:
        """Return the function under another recipe."""
        return Emulated(self.function, recipe, self.weights, self.shard_axis, self._strict, self._check_finite)

    def explain(self, *args: Any, **kwargs: Any) -> Report:
        """Return what a call with these arguments would do, and what its gradient would, without computing anything.

        The gradient is that of the results with respect to the parameters, or to all arguments where there are none.
        Arguments may be shapes (`jax.ShapeDtypeStruct`).
        """
        report: list[Report] = []

        def note(traced: Traced) -> None:
            if not traced.planner.report.find(product="grad_weight"):
                _trace_gradient(traced)
            report.append(traced.planner.report)

        self._abstractly(note, args, kwargs)
        return report[-1]

    def _abstractly(self, use: Callable[[Traced], None], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Trace a call with shapes alone, and hand it to a function."""
        leaves, tree = jax.tree_util.tree_flatten((args, kwargs))
        moving = [i for i, leaf in enumerate(leaves) if hasattr(leaf, "shape") and hasattr(leaf, "dtype")]

        def run(*arrays: Any) -> None:
            filled = list(leaves)
            for i, array in zip(moving, arrays, strict=True):
                filled[i] = array
            inner_args, inner_kwargs = jax.tree_util.tree_unflatten(tree, filled)
            use(self.traced(inner_args, inner_kwargs))

        jax.eval_shape(run, *(leaves[i] for i in moving))

    def traced(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Traced:
        """Return the jaxpr of a call and its plan.

        Raises:
            ArgumentError: The recipe asks for something that cannot be done, or `weights` matches no argument.
        """
        leaves, tree = jax.tree_util.tree_flatten_with_path((self._state(), args, kwargs))
        moving = [number for number, (_, leaf) in enumerate(leaves) if _is_array(leaf)]
        dynamic = [leaves[number][1] for number in moving]
        out: dict[str, Any] = {}

        def flat(*arrays: Any) -> list[Any]:
            filled = [leaf for _, leaf in leaves]
            for number, array in zip(moving, arrays, strict=True):
                filled[number] = array
            function, inner_args, inner_kwargs = jax.tree_util.tree_unflatten(tree, filled)
            results, out["tree"] = jax.tree_util.tree_flatten((function or self.function)(*inner_args, **inner_kwargs))
            out["results"] = [None if _is_traceable(r) else r for r in results]
            return [r for r in results if _is_traceable(r)]

        closed = jax.make_jaxpr(flat)(*dynamic)
        planner = Planner(self.recipe, self._strict, self._remembers)
        inputs, any_weights = self._origins([leaves[number] for number in moving])
        captured = [] if any_weights or self.weights is not None else captured_origins(self.function, closed.consts)
        planner.parameters.update(origin.root for origin in (*inputs, *captured) if origin.kind == "weight")
        plan, _ = planner.plan(closed, inputs, Scope(split=self.shard_axis), captured)
        known = self.weights is not None or any_weights or bool(captured)
        self._warn(remarks(planner, self.recipe, known, dynamic))
        self._check_patterns(planner)

        def results_of(arrays: list[Any]) -> Any:
            rest = iter(arrays)
            filled = [next(rest) if r is None else r for r in out["results"]]
            return jax.tree_util.tree_unflatten(out["tree"], filled)

        return Traced(plan, planner, dynamic, results_of)

    def _state(self) -> Any:
        """Return the function if it is a pytree with arrays of its own, such as an Equinox module; else None."""
        leaves = jax.tree_util.tree_leaves(self.function)
        return self.function if any(_is_array(leaf) for leaf in leaves) else None

    def _origins(self, leaves: list[tuple[Any, Any]]) -> tuple[list[Origin], bool]:
        """Return the origins of the arguments' arrays, and whether there are parameters among them."""
        first, result = self._first_is_tree(leaves), []
        for keys, leaf in leaves:
            part, *rest = keys
            inside = rest[1:] if part.idx else rest
            name = path_of(rest[:1]) if part.idx else ""
            path = path_of(inside)
            chosen = not part.idx or ((first if self.weights is None else True) and self._chosen(part.idx, name, path))
            result.append(weight(path or name, leaf.size) if chosen and _is_inexact(leaf) else activation())
        found = any(origin.kind == "weight" for origin in result)
        if self.weights is not None and not found:
            raise ArgumentError(f"weights={self.weights!r} matches no array of floats among the arguments.")
        return result, found

    def _first_is_tree(self, leaves: list[tuple[Any, Any]]) -> bool:
        return any(keys[0].idx == 1 and keys[1].idx == 0 and len(keys) > 2 for keys, _ in leaves)

    def _chosen(self, part: int, name: str, path: str) -> bool:
        if self.weights is None:
            return part == 1 and name == "0"
        full = f"{name}.{path}" if path else name
        wanted = (self.weights,) if isinstance(self.weights, int | str) else self.weights
        return any(
            (part == 1 and name == str(w))
            if isinstance(w, int)
            else fnmatchcase(full, w) or fnmatchcase(full, f"{w}.*")
            for w in wanted
        )

    def _check_primitives(self, planner: Planner) -> None:
        """Say which patterns over primitives match nothing; warn if there is nothing that they match."""
        if "elementwise" not in self.recipe.operations:
            return
        found = planner.primitives
        named, left_out = (
            [p for p in patterns if p != "*" and not any(fnmatchcase(name, p) for name in found)]
            for patterns in (self.recipe.primitives, self.recipe.exclude)
        )
        for pattern in (*named, *left_out):
            message = f"primitive {pattern!r}: matches no operation.{nearest(pattern, found)}"
            if self._strict:
                raise ArgumentError(f"{message} Operations: {', '.join(sorted(found)) or 'none'}.")
            planner.report.remark(message)
            if pattern in named and len(named) == len(self.recipe.primitives):
                self._warn(message)

    def _check_patterns(self, planner: Planner) -> None:
        self._check_primitives(planner)
        for rule in self.recipe.rules:
            if rule in planner.matched or rule.optional:
                continue
            names = ", ".join(repr(p) for p in rule.match)
            message = f"rule for {names}: matches no layer.{nearest(rule.match[0], planner.layers)}"
            if self._strict:
                raise ArgumentError(
                    f"{message} Layers: {', '.join(name for name in planner.layers if name) or 'none'}."
                )
            planner.report.remark(message)
            self._warn(message)

    def _warn(self, message: str) -> None:
        if message and message not in self._warned:
            self._warned.add(message)
            warn_caller(message)

    def _watch(self, site: Site, product: str, result: Any) -> None:
        report = self.report

        def note(finite: Any) -> None:
            if not bool(np.all(finite)):
                report.remark(f"NaN or infinity in {site.layer!r}: result of {site.operation}, {product}")

        jax.debug.callback(note, jnp.isfinite(result).all())

    def _note_nonfinite(self, results: list[Any]) -> None:
        """Remark NaN and infinity in results that can be looked at."""
        for number, result in enumerate(results):
            known = not isinstance(result, jax.core.Tracer) and jnp.issubdtype(result.dtype, jnp.inexact)
            if known and not bool(jnp.isfinite(result).all()):
                self.report.remark(f"NaN or infinity in result {number}")


def _is_array(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array) or (isinstance(leaf, np.ndarray | np.generic) and leaf.dtype.kind not in "OUSMm")


def _is_traceable(leaf: Any) -> bool:
    return _is_array(leaf) or isinstance(leaf, bool | int | float | complex)


def _is_inexact(leaf: Any) -> bool:
    return bool(jnp.issubdtype(leaf.dtype, jnp.floating))


def _trace_gradient(traced: Traced) -> None:
    """Trace the gradient of a call, so that its products are reported."""
    kinds = [origin.kind for origin in traced.plan.inputs]
    wanted = [i for i, kind in enumerate(kinds) if kind == "weight"]
    wanted = wanted or [i for i, array in enumerate(traced.dynamic) if _is_inexact(array)]

    def floats(*arrays: Any) -> list[Any]:
        filled = list(traced.dynamic)
        for i, array in zip(wanted, arrays, strict=True):
            filled[i] = array
        results = evaluate(traced.plan, Run.start(traced.planner, Hooks(traced.planner.note_backward)), filled)
        return [r for r in results if _is_inexact(r)]

    try:
        results, pull = jax.vjp(floats, *(traced.dynamic[i] for i in wanted))
        pull([jnp.ones_like(r) for r in results])
    except (TypeError, ValueError, NotImplementedError) as error:
        traced.planner.report.remark(f"no gradient: {str(error).partition(chr(10))[0]}")


def emulate(
    fn: Callable[..., Any],
    recipe: Any,
    *,
    weights: Weights = None,
    shard_axis: str | Sequence[str] = (),
    strict: bool = False,
    check_finite: bool = False,
) -> Emulated:
    """Return a function that computes as `fn` does, with the operands of its products in low precision.

    The function is rewritten where it stands, as a jaxpr: matrix products and convolutions, also inside `jax.jit`,
    `scan`, `cond`, `while_loop`, `jax.checkpoint`, `custom_jvp`, `custom_vjp`, `vmap` and `shard_map`. It composes with
    all of them from outside as well; compile it, since a call outside `jax.jit` traces anew. The gradient of a product
    is that of the layer: each of its two products rounds its operands from the originals, along its own axis.

    Which operand is a weight: one that is computed from parameters alone. Parameters are the arrays of floats that
    `weights` names; by default those of the first argument if that is a tree of arrays, those of `fn` itself if it is
    one (an Equinox or NNX module), else the JAX arrays that `fn` has captured. Of two weights the left one counts as
    activation. A gather of rows of a weight is an "embedding"; a product of two activations is "matmul", in a scope
    whose name speaks of attention "attention"; scopes and paths with LSTM, GRU or RNN are "recurrent". A layer is
    called by the path of its weight without a last part such as `kernel`, `weight`, `embedding` or `w`
    (`params.Dense_0` for `params.Dense_0.kernel`), else by the scopes around it; rules of the recipe may match that,
    the whole path, or the scopes.

    Where `fn` itself takes a gradient, its products are known by JAX's name scopes, and rounded like the others. What
    reuses the forward pass's operands then is an error; take the gradient outside,
    `jax.grad(lowp.jax.emulate(loss, recipe))`. Forward-mode derivatives (`jax.jvp`) of an emulated function are not
    defined; emulate the function that takes them. Delayed scaling needs `emulate_with_state`.

    Special cases: a product of integers, of nothing, or with a constant alone stays; kernels in other languages
    (Pallas, foreign functions) stay, with a remark; another remark, and a warning, is for float64 numbers that JAX
    rounds to float32. Products have float32 sums (float64 for float64), rounded once to the program's dtype.

    Args:
        fn: Any function that `jax.jit` takes. Arguments that are no arrays stay as they are.
        recipe: A `Recipe`, its name, a format, a table or a file, as `lowp.emulation.as_recipe`.
        weights: The parameters: positions of arguments, or patterns over dotted paths ("0.params", "model.blocks.*").
        shard_axis: Inside `shard_map`: mesh axes over which the first axis of activations is split (what this finds
            in a `shard_map` of `fn` by itself). Random bits and tensor-wide scales are then those of the whole tensor.
        strict: Raise where the recipe asks for something that cannot be done, or has a rule that matches no layer,
            instead of a remark.
        check_finite: Remark the layers whose results hold NaN or infinity, by a callback to the host. Without it only
            results of calls outside `jax.jit` are looked at.

    Returns:
        A function with the arguments of `fn` and one more, the keyword `seed`: an integer, which may be traced, that
        changes everything random, such as the number of the training step. Without it every call draws the bits of the
        recipe's seed; rounds of a loop always draw their own. Its `report` says what was done, `explain(*args)` what
        would be.

    Raises:
        ArgumentError, ArgumentTypeError, FormatError, FileError: An argument, or the recipe for this function.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> def loss(params, x):
        ...     return jnp.sum((x @ params["fc"]["w"]) ** 2)
        >>> low = emulate(loss, "float8_e4m3fn")
        >>> params = {"fc": {"w": jnp.array([[0.3], [1.7]])}}
        >>> float(jax.jit(low)(params, jnp.ones((1, 2))))
        4.25390625
        >>> [(row.role, row.cast) for row in low.report.rows]
        [('activation', 'float8_e4m3fn'), ('weight', 'float8_e4m3fn')]
    """
    if not callable(fn):
        raise ArgumentTypeError(f"fn={fn!r} must be a function.")
    axes: Any = (shard_axis,) if isinstance(shard_axis, str) else shard_axis
    if not isinstance(axes, Sequence) or not all(isinstance(axis, str) for axis in axes):
        raise ArgumentTypeError(f"shard_axis={shard_axis!r} must be names of mesh axes.")
    return Emulated(fn, as_recipe(recipe), _checked(weights), tuple(axes), strict, check_finite)


def _checked(weights: Any) -> Weights:
    given = (weights,) if isinstance(weights, int | str) else weights
    if given is None:
        return None
    if not isinstance(given, Iterable) or not all(isinstance(w, int | str) and not isinstance(w, bool) for w in given):
        raise ArgumentTypeError(f"weights={weights!r} must be positions of arguments, or patterns over paths.")
    return tuple(given)


def every_operation(
    fn: Callable[..., Any],
    fmt: Any,
    *,
    only: str | Iterable[str] = ("*",),
    exclude: str | Iterable[str] = (),
    seed: int = 0,
    strict: bool = False,
    **cast: Any,
) -> Emulated:
    """Return a function that computes as `fn` does and rounds the result of every operation to a format.

    An operation is a JAX primitive ("add", "exp", "reduce_sum", "dot_general"), in loops, branches and called functions
    too. Its floating results are rounded once: a sum or a matrix product is summed in the dtype of the program first.
    Primitives that only move, select or convert numbers are left out unless `only` names them. The dtype of the
    program limits the precision: float32 results of float32 operations are what is rounded.

    Derivatives pass straight through each rounding. So `jax.grad(every_operation(f, fmt))` computes the backward pass
    in full precision, and `every_operation(jax.grad(f), fmt)` rounds its operations as well. Results beyond the range
    become infinity unless `overflow` says otherwise, as in IEEE 754 arithmetic.

    Args:
        fn: Any function that `jax.jit` takes.
        fmt: A scalar format or its name, or a `Cast`.
        only: Patterns over the names of primitives.
        exclude: Patterns over those that are left out.
        seed: Seed of stochastic rounding.
        strict: As for `emulate`.
        **cast: Fields of a `Cast`: `rounding`, `overflow`, `random_bits`, `scaling`, `gradient`.

    Returns:
        As `emulate`.

    Raises:
        ArgumentError, ArgumentTypeError, FormatError: An argument that is not allowed; a format with blocks.

    Example:
        >>> import jax.numpy as jnp
        >>> low = every_operation(lambda x: (x + 1) * 3, "bfloat16", exclude="mul")
        >>> float(low(jnp.float32(0.01)))
        3.0234375
    """
    if not callable(fn):
        raise ArgumentTypeError(f"fn={fn!r} must be a function.")
    given = {"overflow": "infinity_or_nan", **dict(settings("fmt", fmt)), **cast}
    names = tuple((patterns,) if isinstance(patterns, str) else tuple(patterns) for patterns in (only, exclude))
    recipe = Recipe(
        name="every_operation", seed=seed, operations=("elementwise",), primitives=names[0], exclude=names[1],
        elementwise=given,
    )  # fmt: skip
    return Emulated(fn, recipe, weights=None, strict=strict)
