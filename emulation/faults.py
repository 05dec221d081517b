"""Bit flips: what a faulty memory does to codes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lowp._errors import ArgumentError, ArgumentTypeError
from lowp.emulation._operands import Coded, array_format
from lowp.emulation.array import array
from lowp.formats.spec import Format
from lowp.rounding.random_bits import keys, words


def flip_bits(
    x: Any,
    rate: float,
    seed: int = 0,
    *,
    fmt: str | Format | None = None,
    bits: Any = None,
    positions: bool = False,
) -> Any:
    """Flip each bit of each code with probability `rate`, independently.

    Bit `j` of element `i` (C order) flips if the random word of the seed at position `i * width + j` is below
    `rate * 2^32`, rounded to nearest; `width` is the format's. So a flip depends on the seed and its place alone, and
    the flips at a lower rate are among those at a higher one.

    Args:
        x: An array in a format, or codes together with `fmt`.
        rate: Probability of a flip, 0 to 1.
        seed: Seed, 0 to 2^64 - 1.
        fmt: The format of plain codes.
        bits: Which bits may flip, 0 the lowest; default all.
        positions: Whether to return the flipped bits too.

    Returns:
        What came, with bits flipped; with `positions`, a pair of it and a table of element and bit, one row a flip.

    Raises:
        ArgumentError: A rate or a bit out of range, or plain codes without a format.
        ArgumentTypeError: Plain codes that are not integers.

    Example:
        >>> flipped, where = flip_bits(array([1.0, 1.0], "float16"), 0.1, seed=3, positions=True)
        >>> where.tolist(), [hex(code) for code in flipped.codes.tolist()]
        ([[0, 14], [0, 15], [1, 2]], ['0xfc00', '0x3c04'])
    """
    codes, form = (x.codes, x.format) if isinstance(x, Coded) else _plain(x, fmt)
    if not _is_probability(rate):
        raise ArgumentError(f"rate={rate!r} must be a number from 0 to 1.")
    limit = round(rate * 2**32)
    key, width = keys(seed), form.bits
    mask = np.zeros(codes.size, codes.dtype)
    found = []
    for bit in _checked_bits(bits, width):
        flips = _words(key, codes.size, width, bit) < limit
        mask |= flips.astype(codes.dtype) << codes.dtype.type(bit)
        if positions:
            found.append(np.stack([np.flatnonzero(flips), np.full(int(flips.sum()), bit)], axis=1))
    result: Any = codes ^ mask.reshape(codes.shape)
    if isinstance(x, Coded):
        result = array.from_codes(result, form).with_settings(x.settings)
    if not positions:
        return result
    table = np.concatenate(found) if found else np.empty((0, 2), np.int64)
    return result, table[np.lexsort((table[:, 1], table[:, 0]))]


def _is_probability(rate: object) -> bool:
    return isinstance(rate, int | float) and not isinstance(rate, bool) and 0 <= rate <= 1


def _words(key: tuple[int, int], count: int, width: int, bit: int) -> NDArray[np.uint64]:
    """Return the random words of one bit of every element."""
    return np.asarray(words(key, 0, count * width)[bit::width], np.uint64)


def _plain(x: Any, fmt: str | Format | None) -> tuple[NDArray[Any], Any]:
    if fmt is None:
        raise ArgumentError("fmt=None: plain codes need the format that they are codes of.")
    codes, form = np.asarray(x), array_format(fmt, "fmt")
    if codes.dtype.kind not in "iu":
        raise ArgumentTypeError(f"x has dtype {codes.dtype}; codes must be integers.")
    return array.from_codes(codes, form).codes, form


def _checked_bits(bits: Any, width: int) -> list[int]:
    chosen = range(width) if bits is None else [int(b) for b in np.atleast_1d(np.asarray(bits)).tolist()]
    if any(not 0 <= b < width for b in chosen):
        raise ArgumentError(f"bits={bits!r} must be from 0 to {width - 1}.")
    return sorted(set(chosen))
