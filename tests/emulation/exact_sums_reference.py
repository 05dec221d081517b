"""Operands for exact sums of products, and what adding them up without rounding gives."""

import math

import numpy as np

from lowp.emulation import exact_ops
from lowp.emulation._operands import decoded
from lowp.formats.parse import parse
from lowp.formats.tables import code_dtype
from lowp.rounding.exact import exact_value

FLOAT64 = parse("float64")
NAMES = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf, "-0": -0.0}


def any_codes(rng: np.random.Generator, fmt, shape):
    codes = rng.integers(0, 1 << min(fmt.bits, 63), shape, dtype=np.uint64)
    if rng.random() < 0.4:  # zeros of both signs and the ends of the range
        few = [0, 1, 1 << (fmt.bits - 1), (1 << (fmt.bits - 1)) + 1, (1 << fmt.bits) - 2]
        codes = np.where(rng.random(shape) < 0.9, rng.choice(np.array(few, np.uint64), shape), codes)
    return codes.astype(code_dtype(fmt.bits))


def numbers(rng: np.random.Generator, name: str, shape, finite: bool = True):
    fmt = parse(name)
    x = decoded(any_codes(rng, fmt, shape), fmt)
    return np.where(np.isfinite(x), x, 0.0) if finite else x


def float64_numbers(rng: np.random.Generator, shape, spread: int):
    return np.ldexp(rng.standard_normal(shape), rng.integers(-spread, spread + 1, shape))


def step(terms, start, down: bool):
    """Return what adding products one by one, without rounding, to `start` gives."""
    total = start
    for x, y in terms:
        product = exact_ops.exact_result("multiply", (exact_value(float(x)), exact_value(float(y))))
        total = product if total is None else exact_ops.exact_result("add", (total, product), down)
    return total
