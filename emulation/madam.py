"""Madam: multiplicative updates, which are additions to the exponents of logarithmic numbers; for any framework.

Numbers are float32, every operation rounded once.

Source: Bernstein et al., Learning compositional functions via multiplicative weight updates, arXiv:2006.14560 (Madam);
Zhao et al., LNS-Madam, IEEE Transactions on Computers 2022, arXiv:2106.13914 (logarithmic weights).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from lowp._errors import ArgumentError, ArgumentTypeError, FormatError
from lowp.emulation.optimizer_arithmetic import separate, square_root
from lowp.formats import LNS, Format, parse
from lowp.rounding._namespaces import Namespace
from lowp.rounding._portable_words import signed

#: Values per factor of two up to which float32 tells neighbours apart.
_MAX_GAMMA = 1 << 20
#: Largest step of an exponent, which is an integer in float32 on its way.
_MAX_STEP = (1 << 23) - 1


def logarithmic(fmt: str | Format) -> LNS:
    """Return the format of logarithmic weights.

    Raises:
        FormatError: It is no logarithmic format, has more than 32 bits or steps too fine for float32.

    Example:
        >>> logarithmic("lns16_f11_unsigned_nozero").gamma
        2048
    """
    resolved = parse(fmt)
    if not isinstance(resolved, LNS) or resolved.bits > 32 or resolved.gamma > _MAX_GAMMA:
        raise FormatError(
            f"fmt={fmt!r} must be logarithmic, such as 'lns16_f11_unsigned_nozero', of at most 32 bits and 2^20 "
            "values per factor of two."
        )
    return resolved


def check(lr: Any, beta: Any, bound: Any, scale: Any, base: Any, eps: Any) -> None:
    """Raise ArgumentError for a hyperparameter out of range."""
    positive = {"bound": bound, "scale": scale} if callable(lr) else {"lr": lr, "bound": bound, "scale": scale}
    for name, value in positive.items():
        if not 0 <= value < math.inf:
            raise ArgumentError(f"{name}={value!r} must be a finite number, 0 or more.")
    if not 0 <= beta < 1 or not 0 <= eps < math.inf:
        raise ArgumentError(f"beta={beta!r}, eps={eps!r}: beta lies from 0 to below 1, eps is finite and not negative.")
    if base not in ("e", 2):
        raise ArgumentError(f"base={base!r} must be 'e' (Madam) or 2 (LNS-Madam).")


def normalized(
    xp: Namespace, gradient: Any, square: Any, power: Any, step: Any, beta: float, bound: float, eps: float
) -> tuple[Any, Any]:
    """Return the bounded normalized gradient and the new mean square.

    Args:
        xp: The framework.
        gradient: Gradient, float32.
        square: Mean square before the step.
        power: beta to the number of this step, a float32 scalar.
        step: Number of this step, int32, 1 for the first.
        beta: Decay rate of the mean square.
        bound: Largest magnitude of the result.
        eps: Added to the root mean square.
    """
    old = separate(xp, _scalar(xp, beta, gradient) * square, step)
    new = _scalar(xp, 1 - beta, gradient) * separate(xp, gradient * gradient, step)
    square = old + separate(xp, new, step)
    root = separate(xp, square_root(xp, square / (1 - separate(xp, power, step))), step)
    ratio = gradient / (root + _scalar(xp, eps, gradient) if eps else root)
    ratio = xp.where(ratio != ratio, xp.full_like(ratio, 0), ratio)
    limit = xp.full_like(ratio, 0) + _scalar(xp, bound, gradient)
    return xp.where(ratio > limit, limit, xp.where(ratio < -limit, -limit, ratio)), square


def _scalar(xp: Namespace, value: float, like: Any) -> Any:
    return xp.constant(np.float32(value), like)


def moved(xp: Namespace, codes: Any, steps: Any, fmt: LNS, limit: Any) -> Any:
    """Return the codes of logarithmic numbers after an update: an integer addition to each exponent.

    An exponent stops at the least one of the format and at `limit`; zero stays zero.

    Args:
        xp: The framework.
        codes: Codes as int32.
        steps: Steps toward zero for positive numbers, away from it for negative ones; int32.
        fmt: The format.
        limit: Largest exponent, int32.
    """
    width, k = fmt.bits - 1, exponents(xp, codes, fmt)
    negative = (codes >> width) & 1 == 1
    least = xp.full_like(k, fmt.least_exponent)
    fresh = k - xp.where(negative, -steps, steps)
    fresh = xp.where(fresh < least, least, xp.where(fresh > limit, limit, fresh))
    signs = xp.where(negative, xp.full_like(k, signed(1 << width)), xp.full_like(k, 0))
    fresh = (fresh & ((1 << width) - 1)) | signs
    return xp.where(k < least, codes, fresh) if fmt.zero else fresh


def exponents(xp: Namespace, codes: Any, fmt: LNS) -> Any:
    """Return the exponents k of codes, as int32."""
    width = fmt.bits - 1
    k = codes & ((1 << width) - 1)
    top = (k >> (width - 1)) & 1 == 1
    return xp.where(top, k | signed(-(1 << width)), k) if fmt.signed_exponent else k


def scale_of(xp: Namespace, limit: Any, fmt: LNS) -> Any:
    """Return the power of two that weights are divided by so that the largest one, `limit`, suits the format.

    Formats with signed exponents take weights as they are: 1.
    """
    one = xp.full_like(limit, 1)
    if fmt.signed_exponent:
        return one
    exponent = ((xp.bits(limit) >> 23) & 255) - (math.frexp(fmt.max)[1] - 2)
    exponent = xp.where(exponent < 1, xp.full_like(exponent, 1), exponent)
    return xp.where(limit > 0, xp.floats(exponent << 23, "float32"), one)


def steps_per_unit(lr: float, base: Any, fmt: LNS) -> float:
    """Return the exponent steps that a normalized gradient of 1 makes.

    Example:
        >>> steps_per_unit(1 / 128, 2, logarithmic("lns16_f11_unsigned_nozero"))
        16.0
    """
    return lr * fmt.gamma * (1 if base == 2 else math.log2(math.e))


def check_steps(lr: Any, bound: float, base: Any, fmt: LNS) -> None:
    """Raise ArgumentError if a step of an exponent could have more digits than float32."""
    if not callable(lr) and steps_per_unit(float(lr), base, fmt) * bound > _MAX_STEP:
        raise ArgumentError(f"lr={lr!r}, bound={bound!r}: a step of {fmt.name} would exceed 2^23 exponent steps.")


def check_dtype(name: str) -> None:
    """Raise ArgumentTypeError for weights that cannot hold logarithmic values."""
    if name != "float32":
        raise ArgumentTypeError(f"a parameter has dtype {name}; logarithmic weights are kept in float32.")
