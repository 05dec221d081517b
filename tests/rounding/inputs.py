"""Numbers to round: specials, exact values, ties and their neighbours, thresholds, and random bits."""

import numpy as np

from lowp.formats.spec import ScalarFormat, finite_values


def every_half(name: str) -> np.ndarray:
    """All 2^16 float16 or bfloat16 numbers except NaN, as float32."""
    codes = np.arange(1 << 16, dtype=np.uint16)
    if name == "float16":
        numbers = codes.view(np.float16).astype(np.float32)
    else:
        numbers = (codes.astype(np.uint32) << np.uint32(16)).view(np.float32)
    return numbers[~np.isnan(numbers)]


def mixed(dtype: type, count: int, fmt: ScalarFormat, seed: int = 0) -> np.ndarray:
    """`count` numbers: a third random bits, a third of the format's size, the rest on and beside values and ties."""
    rng = np.random.default_rng(seed)
    bits = {4: np.uint32, 8: np.uint64}[np.dtype(dtype).itemsize]
    anything = rng.integers(0, np.iinfo(bits).max, count // 3, dtype=bits, endpoint=True).view(dtype)
    scale = np.exp2(rng.uniform(-6, 3, count // 3))
    with np.errstate(over="ignore"):
        usual = (rng.standard_normal(count // 3) * scale * max(fmt.max, fmt.smallest_normal) / 4).astype(dtype)
    near = rng.choice(special(dtype, fmt), count - 2 * (count // 3))
    x = np.concatenate([anything, usual, near])
    return x[~np.isnan(x)]


def special(dtype: type, fmt: ScalarFormat) -> np.ndarray:
    """Values and ties of a format with their float neighbours, both signs, with zeros, infinities and extremes."""
    values = np.array([float(v) for v in finite_values(fmt)])
    middles = np.array([float((a + b) / 2) for a, b in zip(finite_values(fmt), finite_values(fmt)[1:], strict=False)])
    info = np.finfo(dtype)
    top = max(abs(fmt.max), abs(fmt.min))
    rest = [0.0, np.inf, info.max, info.smallest_subnormal, info.tiny, top * 1.0625, top * 1.5, top * 2, top * 4]
    with np.errstate(over="ignore", under="ignore"):
        x = np.concatenate([values, middles, rest]).astype(dtype)
        near = np.concatenate([x, np.nextafter(x, dtype(np.inf)), np.nextafter(x, dtype(-np.inf))])
    return np.concatenate([near, -near])
