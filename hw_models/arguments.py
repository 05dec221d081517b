"""Checks of arguments that every cost model takes."""

from __future__ import annotations

import operator

from lowp._errors import ArgumentError, ArgumentTypeError


def sizes(**named: object) -> tuple[int, ...]:
    """Return sizes as Python integers, in the order given.

    Raises:
        ArgumentTypeError: A size is not an integer.
        ArgumentError: A size is not positive.

    Example:
        >>> sizes(m=3, k=4)
        (3, 4)
    """
    return tuple(_size(name, value) for name, value in named.items())


def _size(name: str, value: object) -> int:
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise ArgumentTypeError(f"{name}={value!r} must be an integer, not {type(value).__name__}.")
    number = operator.index(value)
    if number < 1:
        raise ArgumentError(f"{name}={number!r} must be at least 1.")
    return number
