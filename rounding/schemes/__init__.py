"""The rules of the packed formats: values to stored fields and back; a file holds those of one family or system."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any, NamedTuple

from numpy.typing import NDArray

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
    """Return the rules that `fmt.scheme` names."""
    module, _, rule = fmt.scheme.partition(".")
    schemes: dict[str, Scheme] = import_module(f"lowp.rounding.schemes.{module}").SCHEMES
    return schemes[rule]
