"""Collage: weights and moments as sums of two bfloat16 numbers, in bfloat16 arithmetic, on arrays of any framework.

Numbers are float32 arrays that hold bfloat16 values. As in PyTorch, an operation is computed in float32 and rounded to
bfloat16, and hyperparameters are float32 numbers; between bfloat16 numbers that is one rounding.

Source: Yu et al., Collage: Light-Weight Low-Precision Strategy for LLM Training, arXiv:2405.03637.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from lowp.emulation.optimizer_arithmetic import nearest, square_root
from lowp.rounding import quantize
from lowp.rounding._namespaces import Namespace

#: What holds its rounding error in a second number.
VARIANTS = {
    "none": "nothing: plain bfloat16",
    "light": "the weights",
    "plus": "the weights, the second moment and its decay rate",
}
#: A number as the sum of two.
Pair = tuple[Any, Any]


def split(value: float) -> tuple[float, float]:
    """Return a number as two bfloat16 values, the second the rounded rest.

    Example:
        >>> split(0.999)
        (1.0, -0.00099945068359375)
    """
    high = _bfloat16(value)
    return high, _bfloat16(value - high)


def _bfloat16(value: float) -> float:
    return float(quantize(float(value), "bfloat16", overflow="infinity_or_nan"))


def fast_two_sum(xp: Namespace, a: Any, b: Any) -> Pair:
    """Return sum and error of `a + b`, exact where |a| >= |b| (Dekker)."""
    total = nearest(xp, a + b)
    return total, nearest(xp, b - nearest(xp, total - a))


def grow(xp: Namespace, pair: Pair, x: Any) -> Pair:
    """Add a number to a pair: Grow of the paper."""
    total, error = fast_two_sum(xp, pair[0], x)
    return fast_two_sum(xp, total, nearest(xp, pair[1] + error))


def multiply(xp: Namespace, pair: Pair, factor: Pair) -> Pair:
    """Multiply a pair by a pair; the error of the product of the first parts counts, that of the second ones does not.

    Products of two bfloat16 numbers are exact in float32, so a fused multiply-add gives the same.
    """
    (high, low), (b, c) = pair, factor
    product = nearest(xp, high * b)
    error = nearest(xp, high * b - product)
    rest = nearest(xp, nearest(xp, nearest(xp, low * b) + high * c) + error)
    return fast_two_sum(xp, product, rest)


class Scalars(NamedTuple):
    """Hyperparameters of a step as float32 scalars of the framework; `decay` is the pair that beta2 splits into."""

    beta1: Any
    beta1_rest: Any
    beta2: Any
    beta2_rest: Any
    decay: Pair
    step_size: Any
    correction: Any
    eps: Any
    shrink: Any


class Moments(NamedTuple):
    """What the optimizer keeps for a parameter, float32 arrays of bfloat16 values; unused parts are None."""

    weight_low: Any
    exp_avg: Any
    exp_avg_sq: Any
    exp_avg_sq_low: Any


def constants(beta1: float, beta2: float) -> dict[str, Any]:
    """Return the scalars of a step that do not change, as NumPy float32 numbers."""
    first, rest = split(beta2)
    return {
        "beta1": np.float32(beta1),
        "beta1_rest": np.float32(1 - beta1),
        "beta2": np.float32(beta2),
        "beta2_rest": np.float32(1 - beta2),
        "decay": (np.float32(first), np.float32(rest)),
    }


def adamw(xp: Namespace, weight: Any, gradient: Any, moments: Moments, s: Scalars, variant: str) -> tuple[Any, Moments]:
    """Return the weight and the moments after a step of AdamW, each operation rounded to bfloat16.

    Args:
        xp: The framework.
        weight: First parts of the weights.
        gradient: Gradients, bfloat16 values.
        moments: Moments before the step.
        s: Hyperparameters.
        variant: Name in `VARIANTS`.
    """
    exp_avg = nearest(xp, nearest(xp, s.beta1 * moments.exp_avg) + nearest(xp, s.beta1_rest * gradient))
    square = nearest(xp, s.beta2_rest * (gradient * gradient))
    if variant == "plus":
        decayed = multiply(xp, (moments.exp_avg_sq, moments.exp_avg_sq_low), s.decay)
        exp_avg_sq, exp_avg_sq_low = grow(xp, decayed, square)
    else:
        exp_avg_sq = nearest(xp, nearest(xp, s.beta2 * moments.exp_avg_sq) + square)
        exp_avg_sq_low = None
    root = nearest(xp, square_root(xp, exp_avg_sq))
    denominator = nearest(xp, nearest(xp, root / s.correction) + s.eps)
    update = nearest(xp, nearest(xp, -s.step_size * exp_avg) / denominator)
    update = nearest(xp, update - nearest(xp, s.shrink * weight))
    if variant == "none":
        return nearest(xp, weight + update), Moments(None, exp_avg, exp_avg_sq, None)
    weight, low = grow(xp, (weight, moments.weight_low), update)
    return weight, Moments(low, exp_avg, exp_avg_sq, exp_avg_sq_low)
