"""The formulas of the papers by hand, in plain NumPy: grids written out, nothing of lowp but the random words."""

import itertools
from fractions import Fraction

import numpy as np

from lowp.rounding.random_bits import word

E2M1 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6])


def small_float(exponent_bits: int, mantissa_bits: int, largest: float) -> np.ndarray:
    """Return the non-negative values of a small float up to `largest`, by the definition."""
    bias = 2 ** (exponent_bits - 1) - 1
    values = []
    for e, m in itertools.product(range(2**exponent_bits), range(2**mantissa_bits)):
        fraction = m / 2**mantissa_bits
        values.append(fraction * 2.0 ** (1 - bias) if e == 0 else (1 + fraction) * 2.0 ** (e - bias))
    grid = np.array(values)
    return grid[grid <= largest]


E4M3 = small_float(4, 3, 448)
E5M2 = small_float(5, 2, 57344)


def nearest(x: np.ndarray, grid: np.ndarray, tie: str = "even") -> np.ndarray:
    """Return the nearest grid values to x (float64), by magnitude; a tie goes to the even index, "away" or "zero"."""
    magnitude = np.minimum(np.abs(x.astype(np.float64)), grid[-1])
    high = np.clip(np.searchsorted(grid, magnitude), 1, len(grid) - 1)
    low = high - 1
    below, above = magnitude - grid[low], grid[high] - magnitude
    prefer_high = {"even": high % 2 == 0, "away": True, "zero": False}[tie]
    index = np.where((above < below) | ((above == below) & prefer_high), high, low)
    return np.where(np.signbit(x), -1.0, 1.0) * grid[index]


def stochastic(x: np.ndarray, grid: np.ndarray, seed: int) -> np.ndarray:
    """Return x rounded away from zero iff floor(nu 2^32) + R >= 2^32, R the word of its position."""
    out = np.empty(x.shape)
    for position, value in enumerate(x.reshape(-1)):
        magnitude = min(abs(float(value)), float(grid[-1]))
        high = min(max(int(np.searchsorted(grid, magnitude)), 1), len(grid) - 1)
        low, up = Fraction(float(grid[high - 1])), Fraction(float(grid[high]))
        nu = (Fraction(magnitude) - low) / (up - low)
        go_up = int(nu * 2**32) + word(seed, position) >= 2**32
        out.reshape(-1)[position] = np.copysign(float(up if go_up else low), value)
    return out


def blocks(x: np.ndarray, size: int) -> np.ndarray:
    """Return (..., blocks, size) along the last axis."""
    return x.reshape(*x.shape[:-1], -1, size)


def tiles(x: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """Return (row of tiles, column of tiles, values) of a matrix."""
    m, n = x.shape
    return x.reshape(m // rows, rows, n // columns, columns).swapaxes(1, 2).reshape(m // rows, n // columns, -1)


def untiled(t: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """Undo `tiles`."""
    a, b, _ = t.shape
    return t.reshape(a, b, rows, columns).swapaxes(1, 2).reshape(a * rows, b * columns)


def mx(b: np.ndarray, grid: np.ndarray, exponent: np.ndarray, tie: str = "even") -> np.ndarray:
    """Round blocks (..., size) with power-of-two scales of given exponents (..., 1)."""
    scale = np.ldexp(1.0, exponent)
    return (nearest(b / scale, grid, tie) * scale).astype(np.float32)


def floor_log2(x: np.ndarray) -> np.ndarray:
    return np.frexp(x)[1] - 1


def nvfp4_te(b: np.ndarray, amax: np.float32, pick=nearest) -> np.ndarray:
    """NVFP4 of blocks (..., size) in float32, as TransformerEngine: encode scale 448 * 6 / amax."""
    one, six = np.float32(1), np.float32(6)
    encode = np.float32(448 * 6) / amax
    decode = one / encode
    block_amax = np.abs(b).max(axis=-1, keepdims=True)
    scale = nearest(block_amax * (encode * (one / six)), E4M3).astype(np.float32)
    scaled = b * (one / (scale * decode))
    return (pick(scaled, E2M1) * scale.astype(np.float64) * np.float64(decode)).astype(np.float32)


def four_over_six(b: np.ndarray, amax: np.float32) -> np.ndarray:
    """Four Over Six of blocks (..., size): scale to 6 or 4, whichever has less squared error; a tie takes 6."""
    span = np.float32(6 * 256)
    candidates = []
    for expansion in (np.float32(1), np.float32(1.5)):
        encode = span / amax
        block_amax = np.abs(b).max(axis=-1, keepdims=True)
        scale = nearest(block_amax / np.float32(6) * encode * expansion, E4M3).astype(np.float32)
        elements = nearest(b * (np.float32(1) / (np.float32(1) / encode * scale)), E2M1).astype(np.float32)
        values = elements * scale * amax / span
        error = ((values - b).astype(np.float32) ** 2).astype(np.float64).sum(axis=-1, keepdims=True)
        exact = (elements.astype(np.float64) * scale * np.float64(amax / span)).astype(np.float32)
        candidates.append((error, exact))
    (six_error, six), (four_error, four) = candidates
    return np.where(four_error < six_error, four, six)


def hadamard_matrix(size: int) -> np.ndarray:
    """Return the orthonormal Walsh-Hadamard matrix by Sylvester's rule."""
    h = np.ones((1, 1))
    while len(h) < size:
        h = np.block([[h, h], [h, -h]])
    return h / np.sqrt(size)


def rotated(x: np.ndarray, size: int, signs: np.ndarray | float = 1.0) -> np.ndarray:
    """Return the last axis rotated in blocks, in float64; `signs` flip first."""
    return (blocks(x.astype(np.float64), size) * signs @ hadamard_matrix(size)).reshape(x.shape)
