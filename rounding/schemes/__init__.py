"""The rules of the packed formats: values to stored fields and back; a file holds those of one family or system."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib import import_module
from pkgutil import iter_modules
from typing import Any, NamedTuple

from numpy.typing import NDArray

from lowp._errors import FormatError, unknown_name
from lowp.formats.packed import Packed
from lowp.rounding.request import Request

#: Stored integers by field name: (rows, blocks, count), (rows, count) or (count,) as `Field.per` says.
Fields = dict[str, NDArray[Any]]


class Scheme(NamedTuple):
    """How a packed format is written and read.

    Attributes:
        encode: From values of shape (rows, blocks, values per block), float32 or float64, padded with zeros, to fields.
        decode: From fields to values of that shape, float32 or float64.
        pack: From fields to bytes, where the number of bytes depends on the values.
        unpack: From bytes and (rows, blocks) to fields, the reverse.
    """

    encode: Callable[[NDArray[Any], Packed, Request], Fields]
    decode: Callable[[Fields, Packed], NDArray[Any]]
    pack: Callable[[Fields, Packed], NDArray[Any]] | None = None
    unpack: Callable[[NDArray[Any], Packed, tuple[int, int]], Fields] | None = None


def scheme_of(fmt: Packed) -> Scheme:
    """Return the rules that `fmt.scheme` names.

    Raises:
        FormatError: There are no such rules.
    """
    module, _, rule = fmt.scheme.partition(".")
    found = _rules(module).get(rule)
    if found is None:
        known = [f"{name}.{rule}" for name in _modules() for rule in _rules(name)]
        raise FormatError(unknown_name("scheme", fmt.scheme, known))
    return found


@cache
def _modules() -> tuple[str, ...]:
    return tuple(sorted(module.name for module in iter_modules(__path__) if not module.name.endswith("_kernels")))


@cache
def _rules(module: str) -> dict[str, Scheme]:
    """Return the rules of a module by name; none where there is no such module or it only helps others."""
    return getattr(import_module(f"{__name__}.{module}"), "SCHEMES", {}) if module in _modules() else {}
