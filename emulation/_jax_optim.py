"""Any optax optimizer with its state, and its parameters, in low precision."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from lowp._errors import ArgumentError, ArgumentTypeError, Error
from lowp.emulation._jax_stored import (
    StoredArray,
    difference,
    is_stored,
    lost_nans,
    optax,
    rounded,
    seed_for,
    transformation,
)
from lowp.emulation.optimizer_states import (
    StateCast,
    StateRules,
    check_wrapper,
    checked_seed,
    is_patterns,
    matches,
    state_cast,
)

_NARROW = ("float16", "bfloat16")


class LowPrecisionState(NamedTuple):
    """State of `low_precision`.

    Attributes:
        inner: State of the optimizer, arrays as codes (`StoredArray`).
        masters: float32 parameters by name; empty without master weights.
        count: Steps done.
        lost_nans: NaNs, over all steps, that had no code and became zero: the run is broken if there is one. Eager
            code raises instead.
    """

    inner: Any
    masters: dict[str, Any]
    count: Any
    lost_nans: Any


class _Names:
    """Names of parameters, and of the states that belong to them."""

    def __init__(self, params: Any) -> None:
        leaves = jax.tree_util.tree_flatten_with_path(params)[0]
        self.paths = sorted((path for path, _ in leaves), key=len, reverse=True)

    def of(self, path: Any) -> tuple[str, str]:
        """Return the parts of a state's path: its own name, and the parameter's."""
        for parameter in self.paths:
            if path[len(path) - len(parameter) :] == parameter:
                return dotted(path[: len(path) - len(parameter)]), dotted(parameter)
        return dotted(path), ""


def dotted(path: Any) -> str:
    """Return the name of a leaf: keys, fields and indices with dots between."""
    return str(jax.tree_util.keystr(path, simple=True, separator="."))


def low_precision(
    optimizer: Any,
    states: Any = None,
    *,
    parameters: Any = None,
    master_weights: bool = False,
    rounding: str = "ties_to_even",
    update_rounding: str = "ties_to_even",
    min_size: int = 0,
    encoded: bool = True,
    seed: int | None = None,
) -> Any:
    """Keep an optax optimizer's state in a number format between steps, and the parameters too if asked.

    Around the optimizer's update, floating-point arrays of its state are decoded and encoded again, without callbacks
    and under `jit`, `scan` and shardings; scalars stay. Random bits depend on the seed, the names of parameter and
    state, the number of the step and the position in the whole array alone.

    With `parameters`, what the optimizer makes of a parameter is rounded to a format: made of the parameter itself or,
    with `master_weights`, of a float32 copy in the state. Parameters of 16 bits are updated in float32 first. The
    updates are then differences to rounded values: `optax.apply_updates` gives those values, except where one falls to
    less than 2^-15 of what it was, by one rounding of the larger one; `step(gradients, state, params)` of the result
    returns new parameters and state, exactly. `start(params)` rounds the first parameters; call it after `init`.

    Args:
        optimizer: An `optax.GradientTransformation`.
        states: What the states become, as for `lowp.torch.optim.LowPrecision`; names are those of the state's fields,
            such as "mu" and "nu", and their paths.
        parameters: What the parameters become: a format, a `Cast`, or a mapping of patterns over their dotted names.
        master_weights: Keep float32 copies of the parameters that are rounded, and of those of 16 bits.
        rounding: Rounding mode of states, where `states` does not say.
        update_rounding: Rounding mode of parameters, where `parameters` does not say.
        min_size: States with fewer elements stay as they are (bitsandbytes: 4096).
        encoded: Whether states are stored as codes; else rounded arrays with the same values.
        seed: Seed of the stochastic modes; default that of the recipe, or 0.

    Returns:
        An optax transformation whose state is a `LowPrecisionState`, with `step` and `start` besides.

    Raises:
        ArgumentError, ArgumentTypeError, FormatError: An argument that is not allowed; optax is missing; at `init`: a
            pattern that matches nothing.

    Example:
        >>> import optax
        >>> optimizer = low_precision(optax.adam(1e-3), {"mu": "float8_e4m3fn", "nu": "bfloat16"})
        >>> params = {"w": jnp.ones((64, 64))}
        >>> optimizer.init(params).inner[0].mu["w"]
        StoredArray(float8_e4m3fn, shape=(64, 64))
    """
    optax()
    if not callable(getattr(optimizer, "init", None)) or not callable(getattr(optimizer, "update", None)):
        raise ArgumentTypeError(f"optimizer={optimizer!r:.80} must be an optax.GradientTransformation.")
    check_wrapper(states, parameters, master_weights, min_size, encoded)
    rules = StateRules(states, rounding)
    seed = checked_seed(seed, rules.recipe)
    work = _Work(optimizer, rules, parameters, update_rounding, master_weights, min_size, encoded, seed)
    return transformation(work.init, work.update, work.step, work.start)


class _Work:
    """What `low_precision` has been told, and the functions that do it."""

    def __init__(
        self,
        optimizer: Any,
        rules: StateRules,
        parameters: Any,
        update_rounding: str,
        master_weights: bool,
        min_size: int,
        encoded: bool,
        seed: int,
    ) -> None:
        self._optimizer, self._rules = optax().with_extra_args_support(optimizer), rules
        self._masters, self._min_size, self._encoded, self._seed = master_weights, min_size, encoded, seed
        self._patterns = parameter_patterns(parameters, update_rounding)

    def init(self, params: Any) -> LowPrecisionState:
        """Return the first state."""
        names = _Names(params)
        masters = {
            name: p.astype(jnp.float32) if str(p.dtype) in _NARROW else p
            for name, p in named_leaves(params)
            if self._masters and (self._cast(name) is not None or str(p.dtype) in _NARROW)
        }
        if self._masters and not masters:
            raise ArgumentError("master_weights=True: no parameter is rounded or has 16 bits; name a format.")
        check_parameter_patterns(self._patterns, [name for name, _ in named_leaves(params)])
        inner = self._optimizer.init(self._wide(params, masters))
        inner, lost = self._kept(inner, names, jnp.int32(0))
        if self._rules.unmet():
            found = sorted({names.of(path)[0] for path, x in _leaves(inner) if is_stored(x) or _is_rounded(x)})
            raise ArgumentError(
                f"states has patterns that match no state: {self._rules.unmet()}; this optimizer has {found}."
            )
        return LowPrecisionState(inner, masters, jnp.int32(0), lost)

    def start(self, params: Any) -> Any:
        """Return the first parameters, rounded."""
        return self._round_parameters(params, params, jnp.int32(0))

    def update(self, updates: Any, state: LowPrecisionState, params: Any = None, **extra: Any) -> tuple[Any, Any]:
        """Return updates and the new state."""
        if not (self._patterns or state.masters):
            return self._inner_update(updates, state, params, extra)
        new, state = self.step(updates, state, params, **extra)
        return difference(new, params), state

    def step(self, updates: Any, state: LowPrecisionState, params: Any, **extra: Any) -> tuple[Any, Any]:
        """Return the new parameters and the new state."""
        if params is None:
            raise ArgumentError("params=None: parameters that are rounded must be passed to update.")
        wide = self._wide(params, state.masters)
        updates = jax.tree.map(lambda g, w: g.astype(w.dtype), updates, wide)
        updates, state = self._inner_update(updates, state, wide, extra)
        new = optax().apply_updates(wide, updates)
        if state.masters:
            masters = {name: p for name, p in named_leaves(new) if name in state.masters}
            state = state._replace(masters=masters)
        return self._round_parameters(new, params, state.count), state

    def _inner_update(self, updates: Any, state: LowPrecisionState, params: Any, extra: Any) -> tuple[Any, Any]:
        inner = jax.tree.map(lambda x: x.decode() if is_stored(x) else x, state.inner, is_leaf=is_stored)
        updates, inner = self._optimizer.update(updates, inner, params, **extra)
        count = state.count + 1
        inner, lost = self._kept(inner, _Names(updates if params is None else params), count)
        return updates, LowPrecisionState(inner, state.masters, count, state.lost_nans + lost)

    def _kept(self, inner: Any, names: _Names, count: Any) -> tuple[Any, Any]:
        """Return a state rounded, and the NaNs that had no place."""
        lost = [jnp.int32(0)]

        def keep(path: Any, x: Any) -> Any:
            if not _is_rounded(x):
                return x
            name, parameter = names.of(path)
            cast = self._rules.cast(name, parameter.rpartition(".")[0])
            if cast is None or x.size < self._min_size:
                return x
            lost.append(lost_nans(x, cast))
            seed = seed_for(cast, self._seed, parameter, name, count)
            try:
                return StoredArray.of(x, cast, seed) if self._encoded else rounded(x, cast, seed)
            except Error as error:
                raise type(error)(f"state {name!r} of parameter {parameter!r}: {error}") from None

        return jax.tree_util.tree_map_with_path(keep, inner), sum(lost[1:], lost[0])

    def _cast(self, name: str) -> StateCast | None:
        return parameter_cast(self._patterns, name)

    def _wide(self, params: Any, masters: dict[str, Any]) -> Any:
        """Return the parameters that the optimizer updates: masters, and float32 where 16 bits are rounded."""

        def widen(path: Any, p: Any) -> Any:
            name = dotted(path)
            narrow = str(p.dtype) in _NARROW and self._cast(name) is not None
            return masters[name] if name in masters else p.astype(jnp.float32) if narrow else p

        return jax.tree_util.tree_map_with_path(widen, params)

    def _round_parameters(self, new: Any, old: Any, count: Any) -> Any:
        def settle(path: Any, n: Any, o: Any) -> Any:
            return rounded_parameter(n, o.dtype, self._cast(dotted(path)), dotted(path), self._seed, count)

        return jax.tree_util.tree_map_with_path(settle, new, old)


def rounded_parameter(x: Any, dtype: Any, cast: StateCast | None, name: str, seed: int, count: Any) -> Any:
    """Return a parameter rounded to a format, if any, and in its dtype."""
    if cast is None:
        return x.astype(dtype)
    try:
        return rounded(x, cast, seed_for(cast, seed, name, "parameter", count)).astype(dtype)
    except Error as error:
        raise type(error)(f"parameter {name!r}: {error}") from None


def apply_updates(
    params: Any, updates: Any, fmt: Any, *, rounding: str = "stochastic_a", seed: int = 0, step: Any = 0
) -> Any:
    """Add updates to parameters and round the sums to a format: `optax.apply_updates` for low-precision parameters.

    Args:
        params: Parameters; those of 16 bits are added in float32.
        updates: Updates that an optax transformation returned.
        fmt: A format, a `Cast`, or a mapping of patterns over the parameters' dotted names.
        rounding: Rounding mode, where `fmt` names none.
        seed: Seed of the stochastic modes.
        step: Number of the step, which may be traced: each step needs another one for fresh random bits.

    Returns:
        The new parameters, in their dtypes.

    Raises:
        ArgumentError, ArgumentTypeError, FormatError: An argument that is not allowed.

    Example:
        >>> apply_updates({"w": jnp.ones(2)}, {"w": jnp.full(2, 0.3)}, "fp4", rounding="nearest")["w"].tolist()
        [1.5, 1.5]
    """
    patterns = parameter_patterns(fmt, rounding)
    check_parameter_patterns(patterns, [name for name, _ in named_leaves(params)])

    def add(path: Any, p: Any, u: Any) -> Any:
        wide = p.astype(jnp.float32) if str(p.dtype) in _NARROW else p
        name = dotted(path)
        return rounded_parameter(wide + u.astype(wide.dtype), p.dtype, parameter_cast(patterns, name), name, seed, step)

    return jax.tree_util.tree_map_with_path(add, params, updates)


Patterns = list[tuple[str, StateCast | None, bool]]


def parameter_patterns(given: Any, rounding: str) -> Patterns:
    """Return patterns over names of parameters, what each gives, and whether it must match something."""
    if given is None:
        return []
    if not is_patterns(given):
        return [("*", state_cast("parameters", given, rounding), False)]
    return [(p, None if v is None else state_cast(f"parameters[{p!r}]", v, rounding), True) for p, v in given.items()]


def parameter_cast(patterns: Patterns, name: str) -> StateCast | None:
    """Return what a parameter is rounded to; the last pattern that matches counts."""
    return next((cast for pattern, cast, _ in reversed(patterns) if pattern == "*" or matches(name, pattern)), None)


def check_parameter_patterns(patterns: Patterns, names: list[str]) -> None:
    """Raise ArgumentError if a pattern matches no parameter."""
    unmet = [pattern for pattern, _, must in patterns if must and not any(matches(name, pattern) for name in names)]
    if unmet:
        raise ArgumentError(f"parameters has patterns that match no name: {unmet}; names are {', '.join(names[:8])}.")


def named_leaves(params: Any) -> list[tuple[str, Any]]:
    """Return the parameters with their dotted names."""
    return [(dotted(path), p) for path, p in jax.tree_util.tree_flatten_with_path(params)[0]]


def state_nbytes(state: Any) -> int:
    """Return the bytes that an optimizer's state takes.

    Example:
        >>> state_nbytes({"mu": jnp.zeros(8), "count": jnp.int32(0)})
        36
    """
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(state))


def _leaves(state: Any) -> list[Any]:
    return list(jax.tree_util.tree_flatten_with_path(state, is_leaf=is_stored)[0])


def _is_rounded(x: Any) -> bool:
    return isinstance(x, jax.Array) and jnp.issubdtype(x.dtype, jnp.floating) and x.ndim > 0
