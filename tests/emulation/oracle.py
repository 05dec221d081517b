"""The exact oracle for every pair of 8-bit codes, at the speed of a search.

Rounding is monotone. So the pairs are sorted by their exact results, and where two of them have one code, so have all
between. Results are sorted as integers: rational ones exactly (quotients by their digits as far as any decision point
has some, and whether more follow). Irrational ones are sorted by float64 estimates, and every pair whose estimate lies
next to a change of the code is asked for.
"""

from collections.abc import Callable
from fractions import Fraction
from functools import cache
from math import lcm
from typing import Any

import numpy as np

from lowp.emulation.exact_ops import operate
from lowp.formats import ScalarFormat
from lowp.formats.exact_real import Real
from lowp.formats.spec import Meaning

OPERATIONS = ("add", "subtract", "multiply", "divide")
_CLOSE = 1e-12


def ask(op: str, fmt: ScalarFormat, *operands: Meaning, **how: Any) -> int:
    """Return the oracle's code; a NaN without a code becomes zero."""
    return operate(op, operands, fmt, **({"nan": "zero"} | how))


@cache
def every_pair(op: str, fmt: ScalarFormat) -> np.ndarray:
    """Return the oracle's code for every pair of codes of an 8-bit format."""
    count = 1 << fmt.bits
    numbers = [fmt.meaning(code) for code in range(count)]
    finite = np.array([not isinstance(x, str) and x != 0 for x in numbers])
    first, second = (side.ravel() for side in np.meshgrid(range(count), range(count), indexing="ij"))
    ordinary = np.flatnonzero(finite[first] & finite[second])
    keys = _keys(op, numbers)(op, numbers, first[ordinary], second[ordinary])
    rational = keys.dtype == object
    zero = keys == 0
    codes = np.full(count * count, -1)
    for i in [*np.flatnonzero(~(finite[first] & finite[second])), *ordinary[zero]]:
        codes[i] = ask(op, fmt, numbers[first[i]], numbers[second[i]])
    ordinary, keys = ordinary[~zero], keys[~zero]
    order = np.argsort(keys, kind="stable")

    def code_at(position: int) -> int:
        i = ordinary[order[position]]
        if codes[i] < 0:
            codes[i] = ask(op, fmt, numbers[first[i]], numbers[second[i]])
        return int(codes[i])

    distinct = _first_of_each(keys[order]) if rational else np.arange(len(order))
    found = np.empty(len(distinct), int)
    negative = int(np.sum(keys[order][distinct] < 0))  # each sign by itself: both may overflow to one NaN
    changes = [
        change
        for part in (slice(0, negative), slice(negative, len(distinct)))
        for change in _fill(found[part], lambda n, part=part: code_at(int(distinct[part][n])), part.start)
    ]
    if not rational:
        for n in _near(keys[order], changes):
            found[n] = code_at(int(n))
    repeats = np.diff(np.append(distinct, len(order)))
    codes[ordinary[order]] = np.repeat(found, repeats)
    return codes.reshape(count, count)


def _integer_keys(op: str, numbers: list[Any], a: np.ndarray, b: np.ndarray) -> np.ndarray:
    values = [x if isinstance(x, Fraction) else Fraction(0) for x in numbers]
    scale = max(x.denominator.bit_length() - 1 for x in values)
    n = np.array([int(x * (1 << scale)) for x in values], object)
    if op in ("add", "subtract"):
        return np.asarray(n[a] + n[b] if op == "add" else n[a] - n[b])
    if op == "multiply":
        return np.asarray(n[a] * n[b])
    whole, rest = n[a] << (scale + 80), n[b]
    quotient = whole // rest
    return np.asarray(2 * quotient + (quotient * rest != whole).astype(object))


def _keys(op: str, numbers: list[Any]) -> Callable[..., np.ndarray]:
    if all(isinstance(x, Fraction | str) for x in numbers):
        return _integer_keys
    return _logarithm_keys if op in ("multiply", "divide") else _float_keys


def _logarithm_keys(op: str, numbers: list[Any], a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return integers in the order of products or quotients of powers of 2, or of e."""
    logarithms = [
        sum(Real.of(abs(x)).exponents() or ()) if not isinstance(x, str) and x else Fraction(0) for x in numbers
    ]
    scale = lcm(*(x.denominator for x in logarithms))
    n = np.array([int(x * scale) for x in logarithms], object)
    minus = np.array([not isinstance(x, str) and x < 0 for x in numbers])
    size = (n[a] + n[b] if op == "multiply" else n[a] - n[b]) + 4 * int(max(n) - min(n))
    return np.asarray(np.where(minus[a] ^ minus[b], -size, size), object)


def _float_keys(op: str, numbers: list[Any], a: np.ndarray, b: np.ndarray) -> np.ndarray:
    values = np.array([0.0 if isinstance(x, str) else float(x) for x in numbers])
    x, y = values[a], values[b]
    return {"add": lambda: x + y, "subtract": lambda: x - y, "multiply": lambda: x * y, "divide": lambda: x / y}[op]()


def _first_of_each(keys: np.ndarray) -> np.ndarray:
    return np.flatnonzero(np.append(True, keys[1:] != keys[:-1])) if len(keys) else np.empty(0, int)


def _fill(found: np.ndarray, code_at: Callable[[int], int], offset: int) -> list[int]:
    """Fill in the codes of sorted results by bisection; return, plus `offset`, after which ones the code changes."""
    changes: list[int] = []
    if not len(found):
        return changes
    found[0], found[-1] = code_at(0), code_at(len(found) - 1)
    parts = [(0, len(found) - 1)]
    while parts:
        low, high = parts.pop()
        if found[low] == found[high]:
            found[low:high] = found[low]
        elif high - low == 1:
            changes.append(low + offset)
        else:
            middle = (low + high) // 2
            found[middle] = code_at(middle)
            parts += [(low, middle), (middle, high)]
    return changes


def _near(keys: np.ndarray, changes: list[int]) -> np.ndarray:
    """Return the results whose estimate does not tell on which side of a change they are."""
    close = np.zeros(len(keys), bool)
    for end in (0, 1):
        edge = keys[np.array(changes, int) + end]
        low, high = (np.searchsorted(keys, edge + sign * np.abs(edge) * _CLOSE) for sign in (-1, 1))
        for start, stop in zip(low, high, strict=True):
            close[start : stop + 1] = True
    return np.flatnonzero(close)
