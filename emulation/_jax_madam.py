"""Madam for optax: multiplicative updates of floating-point or logarithmic weights."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lowp._errors import ArgumentError, ArgumentTypeError
from lowp.emulation import madam as rules
from lowp.emulation._jax_optim import named_leaves
from lowp.emulation._jax_stored import XP, difference, optax, traced_seed, transformation
from lowp.emulation.optimizer_arithmetic import root_mean_square
from lowp.emulation.optimizer_states import checked_seed
from lowp.formats import LNS, Format, Integer
from lowp.rounding._jax import decode_array, encode_array, quantize_array
from lowp.rounding.modes import rounding as rounding_mode

_DTYPES = ("float32", "bfloat16", "float16")


class MadamState(NamedTuple):
    """State of `madam`.

    Attributes:
        count: Steps done.
        power: beta to the number of the next step, float32.
        square: Running mean of squared gradients, float32.
        limit: Largest weight, by parameter.
        unit: Power of two that a logarithmic parameter is divided by; else 1.
    """

    count: Any
    power: Any
    square: Any
    limit: Any
    unit: Any


def madam(
    learning_rate: Any = 0.01,
    *,
    beta: float = 0.999,
    bound: float = 10.0,
    scale: float = 3.0,
    base: str | int = "e",
    eps: float = 0.0,
    fmt: str | Format | None = None,
    rounding: str = "ties_to_even",
    seed: int = 0,
) -> Any:
    """Madam, and with `fmt` the optimizer of LNS-Madam, as an optax optimizer.

    The rule and its arguments are those of `lowp.torch.optim.Madam`, which gives the same bits for logarithmic weights
    in the nearest rounding modes; seeds go by the parameters' names here, by their indices there. Updates are
    differences of parameters: `optax.apply_updates` gives the new ones to float32's precision, `step(gradients, state,
    params)` returns new parameters and state, exactly. With `fmt`, call `start(params)` after `init` to round the
    first parameters.

    Args:
        learning_rate: Learning rate, or a schedule: a function of the number of steps done.
        beta: Decay rate of the mean square.
        bound: Largest normalized gradient.
        scale: Largest weight in units of the root mean square of the first ones.
        base: "e", as Madam, or 2, as LNS-Madam.
        eps: Added to the root of the mean square.
        fmt: A logarithmic format, such as "lns16_f11_unsigned_nozero".
        rounding: Rounding mode of the exponent's step.
        seed: Seed of the stochastic modes.

    Returns:
        An optax transformation for parameters of float32 (without `fmt` also of 16 bits), with `step` and `start`.

    Raises:
        ArgumentError, FormatError: A hyperparameter or format that cannot be; optax is missing.
        ArgumentTypeError: A parameter of a dtype that cannot be.

    Source:
        Bernstein et al., arXiv:2006.14560; Zhao et al., LNS-Madam, arXiv:2106.13914.

    Example:
        >>> optimizer = madam(0.5, base=2, fmt="lns16_f11")
        >>> params = jnp.array([1.0, -1.0])
        >>> params, state = optimizer.step(jnp.ones(2), optimizer.init(params), params)
        >>> [round(w, 4) for w in params.tolist()]
        [0.7071, -1.4142]
    """
    optax()
    rules.check(learning_rate, beta, bound, scale, base, eps)
    grid = None if fmt is None else rules.logarithmic(fmt)
    mode = rounding_mode(rounding).name
    seed = checked_seed(seed)
    if grid is not None:
        rules.check_steps(learning_rate, bound, base, grid)

    def init(params: Any) -> MadamState:
        wide = jax.tree.map(lambda p: _wide(p, grid), params)
        limit = jax.tree.map(lambda w: root_mean_square(XP, w) * jnp.float32(scale), wide)
        unit = jax.tree.map(lambda m: jnp.ones_like(m) if grid is None else rules.scale_of(XP, m, grid), limit)
        square = jax.tree.map(jnp.zeros_like, wide)
        return MadamState(jnp.int32(0), jnp.float32(beta), square, limit, unit)

    def start(params: Any) -> Any:
        if grid is None:
            return params
        state = init(params)
        return jax.tree.map(lambda p, u: _values(_codes(p, grid, u), grid, u), params, state.unit)

    def step(gradients: Any, state: MadamState, params: Any, **extra: Any) -> tuple[Any, Any]:
        if params is None:
            raise ArgumentError("params=None: Madam needs the parameters.")
        count = state.count + 1
        lr = learning_rate(state.count) if callable(learning_rate) else learning_rate
        tree = jax.tree.structure(params)
        columns = [tree.flatten_up_to(t) for t in (gradients, state.square, state.limit, state.unit)]
        new, squares = [], []
        for (name, p), g, v, limit, unit in zip(named_leaves(params), *columns, strict=True):
            ratio, square = rules.normalized(XP, g.astype(jnp.float32), v, state.power, count, beta, bound, eps)
            if grid is None:
                fresh = _multiplied(_wide(p, None), ratio, limit, lr, base).astype(p.dtype)
            else:
                words = traced_seed(seed, name, "parameter", count) if mode.startswith("stochastic") else 0
                steps = quantize_array(ratio * _per_unit(lr, base, grid), Integer(24), rounding=mode, seed=words)
                fresh = _moved(_wide(p, grid), steps, limit, unit, grid)
            new.append(fresh)
            squares.append(square)
        done = MadamState(count, state.power * jnp.float32(beta), tree.unflatten(squares), state.limit, state.unit)
        return tree.unflatten(new), done

    def update(gradients: Any, state: MadamState, params: Any = None, **extra: Any) -> tuple[Any, Any]:
        new, state = step(gradients, state, params)
        return difference(new, params), state

    return transformation(init, update, step, start)


def _wide(p: Any, fmt: LNS | None) -> Any:
    if str(p.dtype) not in _DTYPES:
        raise ArgumentTypeError(f"a parameter has dtype {p.dtype}; allowed: {', '.join(_DTYPES)}.")
    if fmt is not None:
        rules.check_dtype(str(p.dtype))
    return p.astype(jnp.float32)


def _multiplied(w: Any, g: Any, limit: Any, lr: Any, base: Any) -> Any:
    exponent = -jnp.asarray(lr, jnp.float32) * g * jnp.sign(w)
    return jnp.clip(w * (jnp.exp(exponent) if base == "e" else jnp.exp2(exponent)), -limit, limit)


def _per_unit(lr: Any, base: Any, fmt: LNS) -> Any:
    if isinstance(lr, int | float | np.floating):
        return np.float32(rules.steps_per_unit(float(lr), base, fmt))
    return jnp.asarray(lr, jnp.float32) * np.float32(rules.steps_per_unit(1.0, base, fmt))


def _moved(w: Any, steps: Any, limit: Any, unit: Any, fmt: LNS) -> Any:
    top = XP.cast(encode_array(limit / unit, fmt, rounding="toward_zero").codes, "int32")
    codes = rules.moved(XP, _codes(w, fmt, unit), XP.cast(steps, "int32"), fmt, rules.exponents(XP, top, fmt))
    return _values(codes, fmt, unit)


def _codes(w: Any, fmt: LNS, unit: Any) -> Any:
    return XP.cast(encode_array(w / unit, fmt).codes, "int32")


def _values(codes: Any, fmt: LNS, unit: Any) -> Any:
    plain = XP.cast(codes, "uint32") & np.uint32((1 << fmt.bits) - 1)
    return decode_array(plain, fmt, "float32") * unit
