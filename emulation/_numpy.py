"""NumPy functions on arrays in a format: which are known, and what they become."""

from __future__ import annotations

from typing import Any

import numpy as np

from lowp._errors import ArgumentError, ArgumentTypeError
from lowp.emulation._compare import compare
from lowp.emulation._evaluate import evaluate
from lowp.emulation._operands import Coded
from lowp.emulation.array import array

_OPERATIONS = {
    np.add: "add", np.subtract: "subtract", np.multiply: "multiply", np.divide: "divide", np.sqrt: "sqrt",
    np.remainder: "modulo", np.fmod: "fmod", np.minimum: "minimum", np.maximum: "maximum", np.negative: "negative",
    np.positive: "convert", np.absolute: "absolute", np.exp: "exp", np.exp2: "exp2", np.log: "log", np.log2: "log2",
    np.sin: "sin", np.cos: "cos", np.tanh: "tanh", np.power: "power", np.float_power: "power",
}  # fmt: skip
_RELATIONS = {
    np.equal: "equal", np.not_equal: "not_equal", np.less: "less", np.less_equal: "less_equal",
    np.greater: "greater", np.greater_equal: "greater_equal",
}  # fmt: skip
_TESTS = (np.isnan, np.isinf, np.isfinite, np.signbit)
_REDUCTIONS = {np.add: "sum", np.multiply: "prod", np.minimum: "min", np.maximum: "max"}


def call_ufunc(ufunc: Any, method: str, inputs: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
    """Return what a universal function gives in the format.

    Raises:
        ArgumentTypeError: The function, its method or a keyword is not available on arrays in a format.
    """
    if method == "reduce" and ufunc in _REDUCTIONS:
        axis = keywords.pop("axis", 0)
        _refuse(keywords, f"np.{ufunc.__name__}.reduce")
        return getattr(inputs[0], _REDUCTIONS[ufunc])(axis)
    if method != "__call__":
        raise ArgumentTypeError(f"np.{ufunc.__name__}.{method} is not available on arrays in a format.")
    _refuse(keywords, f"np.{ufunc.__name__}")
    if ufunc in _RELATIONS:
        return compare(_RELATIONS[ufunc], *inputs)
    if ufunc in _TESTS:
        return ufunc(inputs[0].values)
    if ufunc is np.matmul:
        return inputs[0] @ inputs[1]
    if ufunc is np.square:
        return inputs[0] * inputs[0]
    if ufunc is np.reciprocal:
        return 1 / inputs[0]
    if ufunc not in _OPERATIONS:
        known = ", ".join(sorted(u.__name__ for u in (*_OPERATIONS, *_RELATIONS, *_TESTS)))
        raise ArgumentTypeError(
            f"np.{ufunc.__name__} has no correctly rounded form here; use .values, or one of: {known}."
        )
    return array._made(evaluate(_OPERATIONS[ufunc], inputs, {}))  # noqa: SLF001 - the class's own wrapper


def call_function(function: Any, args: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
    """Return what one of the few supported NumPy functions gives.

    Raises:
        ArgumentTypeError: The function is not one of them.
    """
    name = function.__name__
    if name in ("sum", "prod", "min", "max", "amin", "amax", "mean", "reshape", "ravel", "transpose", "copy", "dot"):
        return getattr(args[0], name.removeprefix("a") if name in ("amin", "amax") else name)(*args[1:], **keywords)
    if name in ("shape", "ndim", "size"):
        return getattr(args[0], name)
    if name in ("concatenate", "stack", "vstack", "hstack"):
        return _joined(function, args[0], args[1:], keywords)
    if name == "where" and len(args) == 3:
        chosen = _same_format(args[1:])
        return _wrapped(np.where(np.asarray(args[0]), chosen[0].codes, chosen[1].codes), chosen[0])
    raise ArgumentTypeError(f"np.{name} is not available on arrays in a format; use .values.")


def _joined(function: Any, arrays: Any, args: tuple[Any, ...], keywords: dict[str, Any]) -> array:
    parts = _same_format(arrays)
    return _wrapped(function([x.codes for x in parts], *args, **keywords), parts[0])


def _same_format(arrays: Any) -> list[Coded]:
    parts = list(arrays)
    formats = {x.format if isinstance(x, Coded) else None for x in parts}
    if len(formats) != 1 or None in formats:
        raise ArgumentError("the arrays must all be in one format; convert with .astype.")
    return parts


def _wrapped(codes: Any, like: Coded) -> array:
    return array._made(Coded(codes, like.format, like.settings))  # noqa: SLF001 - the class's own wrapper


def _refuse(keywords: dict[str, Any], name: str) -> None:
    given = [key for key, value in keywords.items() if key not in ("keepdims",) or value]
    if given:
        raise ArgumentTypeError(f"{name} takes no {given[0]}= on arrays in a format.")
