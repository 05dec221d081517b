"""Gradients of rounding by name, for every framework: the built-in rules, and a user's own.

Rounding is a staircase whose derivative is zero almost everywhere, so training replaces it by a rule.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from lowp._errors import ArgumentError, ArgumentTypeError, unknown_name

#: What a rule computes: (input, rounded input, gradient of the rounded input) -> gradient of the input.
Rule = Callable[[Any, Any, Any], Any]


class GradientRule(NamedTuple):
    """A gradient rule.

    Attributes:
        name: Its name.
        description: One sentence.
        rule: The user's function; None for the built-in rules, which the frameworks implement by name: some of them
            need the format's range, which `rule(x, y, g)` is not told.
    """

    name: str
    description: str
    rule: Rule | None = None


_BUILT_IN = {
    "straight_through": "the gradient passes unchanged",
    "clipped": "the gradient passes where the value lies in the format's range and is zero elsewhere",
    "none": "no gradient: the result is detached",
    "learned_scale": "as clipped for the value; lsq_quantize adds the gradient of a learned scale",
}
_RULES = {name: GradientRule(name, text) for name, text in _BUILT_IN.items()}
#: Name -> what the rule does; `register_gradient` adds to it.
GRADIENTS = dict(_BUILT_IN)


def register_gradient(name: str, rule: Rule, description: str = "") -> None:
    """Give a gradient rule a name, by which `lowp.torch` and `lowp.jax` then know it.

    A name may be registered again, with another rule; calls that are compiled already keep the old one. The names of
    the built-in rules are taken.

    Args:
        name: The name.
        rule: `rule(x, y, g)` returns the gradient of the input `x`, given the rounded value `y` and the gradient `g` of
            `y`; all have one shape. Written with operators alone it serves tensors and JAX arrays alike.
        description: What it does, in one sentence.

    Raises:
        ArgumentTypeError: `name` is not a string, or `rule` cannot be called.
        ArgumentError: The name is empty or that of a built-in rule.

    Example:
        >>> register_gradient("halved", lambda x, y, g: g / 2, "half of the gradient passes")
        >>> gradient_rule("halved").rule(1.0, 1.0, 8.0)
        4.0
    """
    if not isinstance(name, str):
        raise ArgumentTypeError(f"name={name!r} must be a string.")
    if not callable(rule):
        raise ArgumentTypeError(f"rule={rule!r} must be a function of (x, y, g).")
    if not name or name in _BUILT_IN:
        taken = ", ".join(_BUILT_IN)
        raise ArgumentError(f"name={name!r} is empty or that of a built-in rule ({taken}); choose another.")
    _RULES[name] = GradientRule(name, description or "a user's rule", rule)
    GRADIENTS[name] = _RULES[name].description


def gradient_rule(name: Any) -> GradientRule:
    """Return the rule of that name.

    Raises:
        ArgumentError: No such rule; the message lists those there are.

    Example:
        >>> gradient_rule("straight_through").description
        'the gradient passes unchanged'
    """
    if not isinstance(name, str) or name not in _RULES:
        raise ArgumentError(unknown_name("gradient", name, GRADIENTS))
    return _RULES[name]
