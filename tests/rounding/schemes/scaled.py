"""Steps that the tests of scaled integers share: exact rationals, slow and plain, and checks of every packed format."""

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np

from lowp.formats import parse
from lowp.rounding import decode, encode, quantize
from lowp.rounding.encoded import Encoded

#: Rounding of an exact rational to an integer; Python's own `round` of a Fraction is to nearest even.
ROUND: dict[str, Callable[[Fraction], int]] = {
    "ties_to_even": round,
    "toward_zero": math.trunc,
    "toward_positive": math.ceil,
    "toward_negative": math.floor,
    "ties_to_away": lambda x: int(math.copysign(math.floor(abs(x) + Fraction(1, 2)), x)),
}


def floor_log2(x: Fraction) -> int:
    """Return the exponent of a positive rational."""
    exponent = x.numerator.bit_length() - x.denominator.bit_length()
    return exponent if x >= Fraction(2) ** exponent else exponent - 1


def clamped(n: int, top: int) -> int:
    return max(-top, min(top, n))


def blocks_of(x: np.ndarray, size: int) -> list[list[Fraction]]:
    """Return the last axis cut into blocks; the last one is filled up with zeros."""
    rows = x.reshape(-1, x.shape[-1])
    padded = np.pad(rows, [(0, 0), (0, -rows.shape[1] % size)])
    return [[Fraction(v) for v in block] for block in padded.astype(np.float64).reshape(-1, size).tolist()]


def joined(blocks: list[list[Fraction]], shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """Return the array of blocks' values, the filling left out."""
    rows = math.prod(shape[:-1])
    values = np.array([[float(v) for v in block] for block in blocks]).reshape(rows, -1)
    return values[:, : shape[-1]].reshape(shape).astype(dtype)


def same_bits(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two float arrays agree in dtype, values, NaN and the signs of zeros."""
    return a.dtype == b.dtype and np.array_equal(a, b, equal_nan=True) and np.array_equal(np.signbit(a), np.signbit(b))


def check_round_trip(x: np.ndarray, name: str, axis: int = -1, rounding: str = "ties_to_even") -> None:
    """Values, fields and bytes of an array say the same."""
    encoded = encode(x, name, rounding, axis=axis, seed=3)
    expected = quantize(x, name, rounding, axis=axis, seed=3)
    raw = encoded.pack()
    back = Encoded.unpack(raw.tobytes(), name, x.shape, axis, dtype=x.dtype)
    assert raw.size == encoded.nbytes
    assert same_bits(decode(encoded), expected)
    assert same_bits(decode(back), expected)
    assert np.array_equal(back.pack(), raw)


def stored_bits(name: str, blocks: int) -> int:
    """Return the bits that a row of so many whole blocks packs to, less what the row itself stores."""
    fmt = parse(name)
    size = fmt.block_elements  # type: ignore[attr-defined]
    encoded = encode(np.linspace(-1, 1, size * blocks, dtype=np.float32), name)
    shared = sum(f.count * f.bits for f in getattr(fmt, "fields", ()) if f.per == "row")
    return 8 * encoded.nbytes - shared


def relative_error(x: np.ndarray, name: str) -> float:
    """Return the mean squared error over the mean square."""
    return float(np.mean((x - quantize(x, name)) ** 2) / np.mean(x**2))


def gauss(columns: int = 4096, rows: int = 256) -> np.ndarray:
    """Return normal numbers, as the published cross-checks draw them."""
    return np.random.default_rng(0).standard_normal((rows, columns))
