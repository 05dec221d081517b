"""AdamW with weights and moments as sums of two bfloat16 numbers, for optax."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lowp._errors import ArgumentError, ArgumentTypeError, unknown_name
from lowp.emulation._jax_stored import XP, difference, optax, transformation
from lowp.emulation.collage import VARIANTS, Moments, Scalars, adamw, constants
from lowp.emulation.optimizer_arithmetic import load, nearest, separate, square_root, store


class CollageState(NamedTuple):
    """State of `collage_adamw`.

    Attributes:
        count: Steps done.
        power1: beta1 to the number of the next step, float32.
        power2: The same of beta2.
        moments: A `Moments` of bfloat16 arrays for each parameter.
    """

    count: Any
    power1: Any
    power2: Any
    moments: Any


def collage_adamw(
    learning_rate: Any = 1e-3,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    weight_decay: float = 1e-2,
    *,
    variant: str = "plus",
) -> Any:
    """AdamW in bfloat16 arithmetic, with multi-component weights and second moments: Collage, as an optax optimizer.

    The arithmetic is that of `lowp.torch.optim.CollageAdamW`, with the same bits. Updates are differences of parameters
    in float32: `optax.apply_updates` adds them exactly, unless a parameter falls to less than 2^-15 of what it was;
    `step(gradients, state, params)` returns new parameters and state instead, always exactly.

    Args:
        learning_rate: Learning rate, or a schedule: a function of the number of steps done.
        b1: Decay rate of the first moment.
        b2: Decay rate of the second moment.
        eps: Added to the root of the second moment.
        weight_decay: Decoupled weight decay.
        variant: "none", "light" or "plus".

    Returns:
        An optax transformation for parameters of bfloat16 or float32, with `step`.

    Raises:
        ArgumentError: A hyperparameter out of range, another variant, or optax is missing.
        ArgumentTypeError: A parameter of another dtype.

    Source:
        Yu et al., Collage: Light-Weight Low-Precision Strategy for LLM Training, arXiv:2405.03637.

    Example:
        >>> optimizer = collage_adamw(1e-3, weight_decay=0.0)
        >>> params = jnp.ones(2, jnp.bfloat16)
        >>> params, state = optimizer.step(jnp.ones(2, jnp.bfloat16), optimizer.init(params), params)
        >>> params.tolist(), [round(x, 6) for x in state.moments.weight_low.tolist()]
        ([1.0, 1.0], [-0.001007, -0.001007])
    """
    optax()
    if variant not in VARIANTS:
        raise ArgumentError(unknown_name("variant", variant, VARIANTS))
    plain = {"eps": eps, "weight_decay": weight_decay}
    for name, value in (plain if callable(learning_rate) else {"learning_rate": learning_rate, **plain}).items():
        if not 0 <= value < float("inf"):
            raise ArgumentError(f"{name}={value!r} must be a finite number, 0 or more.")
    if not (0 <= b1 < 1 and 0 <= b2 < 1):
        raise ArgumentError(f"b1={b1!r}, b2={b2!r}: both lie from 0 to below 1.")

    def init(params: Any) -> CollageState:
        moments = jax.tree.map(lambda p: _start(p, variant), params)
        return CollageState(jnp.int32(0), jnp.float32(b1), jnp.float32(b2), moments)

    def step(gradients: Any, state: CollageState, params: Any, **extra: Any) -> tuple[Any, Any]:
        _check_params(params)
        count = state.count + 1
        lr = learning_rate(state.count) if callable(learning_rate) else learning_rate
        scalars = _scalars(lr, b1, b2, eps, weight_decay, state, count)
        leaves, tree = jax.tree.flatten(params)
        kept = tree.flatten_up_to(state.moments)
        done = [
            _update(p, g, m, scalars, variant)
            for p, g, m in zip(leaves, tree.flatten_up_to(gradients), kept, strict=True)
        ]
        new = tree.unflatten([p for p, _ in done])
        moments = tree.unflatten([m for _, m in done])
        powers = state.power1 * jnp.float32(b1), state.power2 * jnp.float32(b2)
        return new, CollageState(count, *powers, moments)

    def update(gradients: Any, state: CollageState, params: Any = None, **extra: Any) -> tuple[Any, Any]:
        _check_params(params)
        new, state = step(gradients, state, params)
        return difference(new, params), state

    def start(params: Any) -> Any:
        return jax.tree.map(lambda p: nearest(XP, p) if p.dtype == jnp.float32 else p, params)

    return transformation(init, update, step, start)


def _check_params(params: Any) -> None:
    if params is None:
        raise ArgumentError("params=None: parameters that are updated in low precision must be passed.")


def _start(p: Any, variant: str) -> Moments:
    if p.dtype not in (jnp.bfloat16, jnp.float32):
        raise ArgumentTypeError(f"a parameter has dtype {p.dtype}; allowed: bfloat16 and float32.")
    zeros = jnp.zeros(p.shape, jnp.bfloat16)
    wide = load(XP, p)
    low = store(XP, nearest(XP, wide - nearest(XP, wide)), "bfloat16") if variant != "none" else None
    return Moments(low, zeros, zeros, zeros if variant == "plus" else None)


def _update(p: Any, g: Any, kept: Moments, scalars: Scalars, variant: str) -> tuple[Any, Moments]:
    weight = nearest(XP, load(XP, p))
    gradient = nearest(XP, load(XP, g) if g.dtype == jnp.bfloat16 else g.astype(jnp.float32))
    moments = Moments(*(None if m is None else load(XP, m) for m in kept))
    weight, moments = adamw(XP, weight, gradient, moments, scalars, variant)
    stored = Moments(*(None if m is None else store(XP, m, "bfloat16") for m in moments))
    return store(XP, weight, str(p.dtype)), stored


def _scalars(lr: Any, b1: float, b2: float, eps: float, decay: float, state: CollageState, count: Any) -> Scalars:
    fixed = constants(b1, b2)
    rate = jnp.asarray(lr, jnp.float32)
    return Scalars(
        **fixed,
        step_size=rate / (1 - separate(XP, state.power1, count)),
        correction=separate(XP, square_root(XP, 1 - separate(XP, state.power2, count)), count),
        eps=np.float32(eps),
        shrink=rate * np.float32(decay),
    )
