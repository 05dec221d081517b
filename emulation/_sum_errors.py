"""Exact sums of products and the errors of results, each rounded once to float64."""

from __future__ import annotations

import itertools

import numpy as np

from lowp.emulation._sum_epilogue import Epilogue
from lowp.emulation._sum_terms import Sums, exact_sums
from lowp.emulation.array import array
from lowp.emulation.neighbours import ulp
from lowp.formats.spec import ScalarFormat
from lowp.rounding import verbs

#: Rows whose errors are summed at a time, where an addend takes part.
_ROWS = 64
_HALF_BITS = 26


def errors(a: Sums, b: Sums, c: Sums, result: Sums, epilogue: Epilogue) -> tuple[Sums, Sums, Sums]:
    """Return the exact sums, the errors of results, and the sums of magnitudes.

    Args:
        a: Left operands, block scales included: (batch, rows, terms).
        b: Right operands.
        c: What is added.
        result: The results.
        epilogue: Where tensor scales are, which belong to the exact sums.
    """
    if epilogue.is_scaled:
        parts = [_scaled(a[:, i : i + _ROWS], b, c[:, i : i + _ROWS], epilogue.scales) for i in _starts(a)]
        exact, magnitude = (_joined([exact_sums(f(x), f(y), None) for x, y in parts], c) for f in (lambda x: x, np.abs))
        error = _joined(
            [-exact_sums(x, y, -result[:, i : i + _ROWS]) for i, (x, y) in zip(_starts(a), parts, strict=True)], c
        )
        infinite = np.where(np.isfinite(c), 0.0, c)
        exact, magnitude, error = exact + infinite, magnitude + np.abs(infinite), error - infinite
    else:
        exact = exact_sums(a, b, c)
        magnitude = exact_sums(np.abs(a), np.abs(b), np.abs(c))
        error = _plain_error(a, b, c, result)
    same = (result == exact) | (np.isnan(result) & np.isnan(exact))
    return exact, np.where(same & ~np.isfinite(exact), 0.0, error) + 0.0, magnitude


def _starts(a: Sums) -> range:
    return range(0, a.shape[1], _ROWS)


def _joined(parts: list[Sums], like: Sums) -> Sums:
    return np.concatenate(parts, axis=1) if parts else np.zeros_like(like)


def _plain_error(a: Sums, b: Sums, c: Sums, result: Sums) -> Sums:
    if not c.any():
        return -exact_sums(a, b, -result)
    parts = [_less(a[:, i : i + _ROWS], b, c[:, i : i + _ROWS], result[:, i : i + _ROWS]) for i in _starts(a)]
    return _joined(parts, c)


def _less(a: Sums, b: Sums, c: Sums, result: Sums) -> Sums:
    """Return `result - (c + a @ b)`."""
    keeps = np.isfinite(c)
    return np.where(keeps, -exact_sums(*_with_addend(a, b, c), -result), result - c)


def _with_addend(a: Sums, b: Sums, c: Sums) -> tuple[Sums, Sums]:
    """Return operands whose product is `c + a @ b`: c takes part as the product of the identity and itself."""
    identity = np.broadcast_to(np.eye(a.shape[1]), (len(a), a.shape[1], a.shape[1]))
    finite = np.where(np.isfinite(c), c, 0.0)  # zero times infinity would be NaN in the other rows
    return np.concatenate([a, identity], 2), np.concatenate([b, finite], 1)


def _scaled(a: Sums, b: Sums, c: Sums, scales: tuple[float, float]) -> tuple[Sums, Sums]:
    """Return operands whose product is `(c + a @ b) * scales[0] * scales[1]`, exactly."""
    left, right = _with_addend(a, b, c) if c.any() else (a, b)
    pairs = list(itertools.product(_times(left, scales[0]), _times(right, scales[1])))
    return np.concatenate([x for x, _ in pairs], 2), np.concatenate([y for _, y in pairs], 1)


def _times(x: Sums, scale: float) -> list[Sums]:
    """Return arrays that add up to `x * scale`; float64 holds products of halves."""
    halves = list(itertools.product(_halves(x), _halves(np.array(scale))))
    with np.errstate(invalid="ignore", over="ignore"):
        products = [np.asarray(p * s) for p, s in halves if s]
    return [p for i, p in enumerate(products) if not i or p.any()]


def _halves(x: Sums) -> list[Sums]:
    """Return the upper 26 bits of numbers and the rest."""
    significand, exponent = np.frexp(x)
    high = np.where(np.isfinite(x), np.ldexp(np.rint(np.ldexp(significand, _HALF_BITS)), exponent - _HALF_BITS), x)
    with np.errstate(invalid="ignore"):
        return [high, np.where(np.isfinite(x), x - high, 0.0)]


def ulps(error: Sums, exact: Sums, fmt: ScalarFormat) -> Sums:
    """Return errors in steps of a format at the exact sums."""
    near = np.asarray(verbs.quantize(exact, fmt, "toward_zero", overflow="saturate"))
    known = ~np.isnan(near)
    codes = array(np.where(known, near, 0.0), fmt)
    with np.errstate(invalid="ignore"):
        return np.where(error == 0, 0.0, np.where(known, error / ulp(codes).reshape(error.shape), np.nan))
