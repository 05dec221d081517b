"""Error measures: signal to quantization noise, cosine, and bootstrap intervals."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

BOOTSTRAP_RESAMPLES = 2000
BOOTSTRAP_SEED = 0
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Interval:
    """A value with its low and high."""

    value: float
    low: float
    high: float

    def scaled(self, factor: float) -> Interval:
        """Return the interval in another unit."""
        return Interval(self.value * factor, self.low * factor, self.high * factor)


def decibels(signal: float, noise: float) -> float:
    """Return 20 log10(signal / noise) of two norms (roots of energies).

    No noise gives infinity, also for a zero signal; noise on a zero signal gives minus infinity; a NaN stays NaN.

    Example:
        >>> decibels(10.0, 1.0), decibels(0.0, 0.0)
        (20.0, inf)
    """
    if math.isnan(signal) or math.isnan(noise):
        return math.nan
    if noise == 0:
        return math.inf
    return 20 * (math.log10(signal) - math.log10(noise)) if signal > 0 and noise < math.inf else -math.inf


def norm(x: np.ndarray) -> float:
    """Return the root of the sum of squares of a float64 vector; the squares neither overflow nor vanish.

    NaN gives NaN, infinity gives infinity, and no value at all gives 0.

    Example:
        >>> import numpy as np
        >>> norm(np.array([3e200, 4e200])) / 1e200
        5.0
    """
    import numpy as np

    largest = float(np.abs(x).max(initial=0.0))
    if largest == 0 or not math.isfinite(largest):
        return largest
    scale = 2.0 ** -max(math.frexp(largest)[1], -1000)  # a power of two: scaling rounds nothing
    scaled = x * scale
    return math.sqrt(float(np.dot(scaled, scaled))) / scale


def norms(x: Any, quantized: Any) -> tuple[float, float]:
    """Return the norms of x and of x - quantized of two torch tensors, in double precision throughout."""
    import numpy as np

    signal = noise = 0.0
    first, second = _flat(x), _flat(quantized)
    # Small pieces stay in the cache, and NumPy alone works on them: its threads and torch's, in turns for each piece,
    # keep each other from the cores.
    for start in range(0, first.size, 1 << 16):
        exact = first[start : start + (1 << 16)].astype(np.float64)
        error = exact - second[start : start + (1 << 16)]
        signal = math.hypot(signal, norm(exact))
        noise = math.hypot(noise, norm(error))
    return signal, noise


def _flat(x: Any) -> np.ndarray:
    """Return the numbers of a tensor in a row; dtypes that NumPy may lack, such as bfloat16, come as float64."""
    import torch

    plain = x.detach().cpu().reshape(-1)
    result: np.ndarray = (plain if plain.dtype in (torch.float32, torch.float64) else plain.to(torch.float64)).numpy()
    return result


def sqnr_db(x: Any, quantized: Any) -> float:
    """Return the signal-to-quantization-noise ratio of two torch tensors in dB, summed in double precision.

    Equal tensors give infinity; see `decibels` for the other special cases.
    """
    return decibels(*norms(x, quantized))


def cosines(outputs: Any, reference: Any) -> np.ndarray:
    """Return the cosine of each sample of `outputs` with the same sample of `reference`; samples lie along axis 0.

    Two zero vectors have cosine 1, one zero vector 0; a vector with NaN or infinity gives NaN.

    Example:
        >>> cosines([[1.0, 0.0], [0.0, 0.0]], [[1.0, 1.0], [0.0, 0.0]]).round(4).tolist()
        [0.7071, 1.0]
    """
    import numpy as np

    a, b = (_rows_near_one(np.asarray(x, dtype=np.float64).reshape(len(x), -1)) for x in (outputs, reference))
    with np.errstate(invalid="ignore", over="ignore"):
        norms = np.linalg.norm(a, axis=1), np.linalg.norm(b, axis=1)
        dot = np.sum(a * b, axis=1)
        cosine = dot / np.where(norms[0] * norms[1] == 0, 1.0, norms[0] * norms[1])
    both_zero = (norms[0] == 0) & (norms[1] == 0)
    return np.where(both_zero, 1.0, np.clip(cosine, -1.0, 1.0))


def _rows_near_one(rows: np.ndarray) -> np.ndarray:
    """Return the rows with powers of two taken off, so that their squares neither overflow nor vanish."""
    import numpy as np

    largest = np.abs(rows).max(axis=1, keepdims=True, initial=0.0)
    exponents = np.frexp(np.where(np.isfinite(largest), largest, 1.0))[1]
    scaled: np.ndarray = np.ldexp(rows, -exponents)
    return scaled


def bootstrap(samples: Any, resamples: int = BOOTSTRAP_RESAMPLES, seed: int = BOOTSTRAP_SEED) -> Interval:
    """Return the mean of `samples` with its 95 % percentile bootstrap interval.

    The same seed draws the same resamples of equally long inputs, so differences of two formats may be bootstrapped
    as a pair: pass the per-sample differences.

    Args:
        samples: One number per example, shape (n,).
        resamples: Number of resamples.
        seed: Seed of the resampling.

    Example:
        >>> bootstrap([0.5, 0.5, 0.5])
        Interval(value=0.5, low=0.5, high=0.5)
    """
    import numpy as np

    x = np.asarray(samples, dtype=np.float64)
    picks = np.random.default_rng(seed).integers(0, len(x), size=(resamples, len(x)))
    low, high = np.quantile(x[picks].mean(axis=1), [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Interval(float(x.mean()), float(low), float(high))
