"""What tells a caller's function from another, the same in every run: its code, and what it was made with."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np

#: Objects within objects that are looked into.
_DEPTH = 8
#: Numbers of a large array that are looked at.
_NUMBERS = 1 << 16


def digest(text: str | bytes) -> str:
    """Return a hexadecimal fingerprint."""
    return hashlib.sha256(text.encode() if isinstance(text, str) else text).hexdigest()


def function_name(function: Callable[..., Any]) -> str:
    """Return a function's name, or that of a callable object's class."""
    if isinstance(function, partial):
        return function_name(function.func)
    return str(getattr(function, "__qualname__", None) or type(function).__qualname__)


def fingerprint(function: Callable[..., Any]) -> str:
    """Return a function's name and a digest of its code and of what it was made with.

    That is: names and constants in the code, defaults, what it closes over, attributes of a callable object, numbers
    and texts among the globals it reads, and other functions of its module that it calls. Other modules are not looked
    into; of a large array some numbers are.

    Example:
        >>> fingerprint(lambda fmt: fmt.bits) == fingerprint(lambda fmt: fmt.max)
        False
    """
    return f"{function_name(function)} {digest('|'.join(_parts(function, {}, _DEPTH)))[:16]}"


def _parts(thing: Any, seen: dict[int, Any], depth: int) -> Iterator[str]:
    """Yield texts that depend on what a thing is, and not on where it lies in memory; each thing is entered once."""
    if isinstance(thing, _Text):
        yield thing
        return
    yield type(thing).__qualname__
    if thing is None or isinstance(thing, bool | int | float | complex | str | bytes):
        yield repr(thing)
    elif isinstance(thing, ModuleType):
        yield thing.__name__
    elif depth and id(thing) not in seen:
        seen[id(thing)] = thing
        for part in _inside(thing):
            yield from _parts(part, seen, depth - 1)


class _Text(str):
    """A text that is yielded as it is."""

    __slots__ = ()


def _inside(thing: Any) -> Iterator[Any]:
    """Yield what a thing is made of."""
    if isinstance(thing, CodeType):
        yield _Text(f"{thing.co_code!r}{thing.co_names}{thing.co_freevars}{thing.co_varnames[: thing.co_argcount]}")
        yield from thing.co_consts
    elif isinstance(thing, FunctionType):
        yield from (thing.__code__, thing.__defaults__, thing.__kwdefaults__, *_closed_over(thing), *_globals(thing))
    elif isinstance(thing, MethodType):
        yield from (thing.__func__, thing.__self__)
    elif isinstance(thing, partial):
        yield from (thing.func, thing.args, thing.keywords)
    elif isinstance(thing, Mapping):
        yield from (part for item in thing.items() for part in item)
    elif isinstance(thing, tuple | list):
        yield from thing
    elif isinstance(thing, set | frozenset):
        yield _Text(sorted(map(str, thing)))
    elif isinstance(thing, type):
        yield from (value for value in vars(thing).values() if isinstance(value, FunctionType))
    else:
        yield from _of_object(thing)


def _of_object(thing: Any) -> Iterator[Any]:
    array = _numbers(thing)
    if array is not None:
        step = max(1, array.size // _NUMBERS)
        yield _Text(f"{array.shape}{array.dtype}{digest(array.reshape(-1)[::step].tobytes())}")
    elif dataclasses.is_dataclass(thing):
        yield _Text(repr(thing))
    else:
        yield from (vars(kind).get("__call__") for kind in type(thing).__mro__)
        yield getattr(thing, "__dict__", None)


def _numbers(thing: Any) -> Any:
    """Return an array or tensor as a NumPy array; of anything else None."""
    if hasattr(thing, "detach"):
        thing = thing.detach().cpu()
        thing = thing.float() if "bfloat16" in str(getattr(thing, "dtype", "")) else thing
    if not isinstance(thing, np.ndarray) and not hasattr(thing, "__array__"):
        return None
    array = np.asarray(thing)
    return None if array.dtype.hasobject else array


def _closed_over(function: FunctionType) -> Iterator[Any]:
    for cell in function.__closure__ or ():
        try:
            yield cell.cell_contents
        except ValueError:  # not given a value yet
            yield None


def _globals(function: FunctionType) -> Iterator[Any]:
    """Yield the constants among the globals that a function reads, and functions of its module."""
    for name in function.__code__.co_names:
        value = function.__globals__.get(name)
        own = isinstance(value, FunctionType) and value.__module__ == function.__module__
        if own or isinstance(value, bool | int | float | str | tuple):
            yield value
