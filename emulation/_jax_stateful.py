"""Functions of JAX arrays in low precision whose delayed scaling hands its histories in and out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp

from lowp._errors import ArgumentTypeError
from lowp.emulation._jax_emulate import Emulated, Weights, emulate
from lowp.emulation._jax_memory import Histories, History, histories_of, no_gradient, remembering
from lowp.emulation._jax_seeds import word_of
from lowp.emulation.report import Report


class EmulatedWithState(Emulated):
    """A function in low precision that takes a state and returns its results with the next one.

    Attributes:
        recipe: What is done.
        report: What was done when the function was last traced.
    """

    def init(self, *args: Any, **kwargs: Any) -> Histories:
        """Return the state before the first call; arguments may be shapes (`jax.ShapeDtypeStruct`)."""
        found: dict[str, tuple[int, tuple[int, ...]]] = {}
        self._abstractly(lambda traced: found.update(histories_of(traced.plan)), args, kwargs)
        return {key: History.empty(length, rounds) for key, (length, rounds) in found.items()}

    def explain(self, *args: Any, **kwargs: Any) -> Report:
        reports: list[Report] = []
        self._abstractly(lambda traced: reports.append(traced.planner.report), args, kwargs)
        return reports[-1]

    def __call__(self, *args: Any, seed: Any = None, **kwargs: Any) -> Any:
        """Return the results of a call and the next state. The first argument is the state."""
        if not args or not isinstance(args[0], dict):
            raise ArgumentTypeError("state is missing: the first argument must be what init or the last call returned.")
        state, *rest = args
        traced = self.traced(tuple(rest), kwargs)
        guarded = [no_gradient(x) if jnp.issubdtype(x.dtype, jnp.floating) else x for x in traced.dynamic]
        with remembering(state) as memory:
            results = self._run(traced._replace(dynamic=guarded), word_of(seed))
        return results, memory.after


def emulate_with_state(
    fn: Callable[..., Any],
    recipe: Any,
    *,
    weights: Weights = None,
    shard_axis: str | Sequence[str] = (),
    strict: bool = False,
    check_finite: bool = False,
) -> tuple[Callable[..., Histories], EmulatedWithState]:
    """Return `init` and `apply` of a function in low precision, for recipes with delayed scaling.

    `state = init(*args)` is the state before the first call: a dictionary with the largest magnitudes of the last calls
    of each operand, by layer, operation, call, product and role. `result, state = apply(state, *args)` computes as
    `emulate(fn, recipe)` does, scales each operand by the calls before this one, and adds this one.

    Special cases: the state passes through `jax.jit` and `scan` (every round of a scan has its own histories); delayed
    scaling inside other control flow is an error. `apply` has no gradient, since its backward pass could not hand out
    what it saw: emulate the function that takes the gradient.

    Args:
        fn: As for `emulate`, like the other arguments; a training step or `jax.value_and_grad(loss)`.
        recipe: What to do.
        weights: The parameters.
        shard_axis: Mesh axes over which the first axis of activations is split.
        strict: Raise instead of a remark.
        check_finite: Remark the layers whose results hold NaN or infinity.

    Returns:
        `init` and `apply`; `apply` also takes `seed`, and has a `report` and `explain(*args)`.

    Raises:
        ArgumentError, ArgumentTypeError, FormatError, FileError: As `emulate`.

    Source:
        NVIDIA TransformerEngine, delayed scaling.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> def loss(params, x):
        ...     return jnp.sum((x @ params["fc"]["w"]) ** 2)
        >>> init, apply = emulate_with_state(jax.value_and_grad(loss), "fp8_transformer_engine")
        >>> args = {"fc": {"w": jnp.ones((2, 1))}}, 3 * jnp.ones((1, 2))
        >>> state = init(*args)
        >>> (value, gradient), state = jax.jit(apply)(state, *args)
        >>> float(state["fc/linear/0/forward/activation"].amax[0])
        3.0
    """
    plain = emulate(fn, recipe, weights=weights, shard_axis=shard_axis, strict=strict, check_finite=check_finite)
    low = EmulatedWithState(fn, plain.recipe, plain.weights, plain.shard_axis, strict, check_finite, remembers=True)
    return low.init, low
