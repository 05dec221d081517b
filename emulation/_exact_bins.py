"""Sums of products without error, for whole matrices: the quire, Kulisch's accumulator, and exact groups of terms.

Three ways, by the bits that the data use. Where products and their sums fit the 53 bits of float64, one matrix product
is exact in any order. Else panels of the operands are cut into slices so narrow that every product of two slices is
(Ozaki et al. 2012), and these are added up in bins of 32 bits at their own weights (Kulisch's long accumulator). Where
exponents spread so far that this takes too many slices, each product is added to the bins of its own exponent.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lowp.emulation._exact_panels import Floats, Product, Survey, bits_of, panels, share, surveyed
from lowp.emulation._operands import holds_exactly
from lowp.emulation._stored_plan import StoredPlan, stored_plan
from lowp.formats.float_format import Float
from lowp.formats.spec import Meaning, ScalarFormat

if TYPE_CHECKING:
    from lowp.emulation.accumulator import Accumulator

#: What an output costs to finish, in elements of `_threads.split`.
_FINISH_COST = 16


def whole(
    a: Floats,
    b: Floats,
    c: Floats | None,
    a_format: ScalarFormat,
    b_format: ScalarFormat,
    *,
    divisor: int = 1,
    from_zero: bool = True,
    toward_negative: bool = False,
) -> tuple[Floats, NDArray[np.uint8], Callable[[int], Meaning]]:
    """Return the exact sums `c + a @ b`, divided by an integer, as `Target.encode_odd` takes them.

    NaN and infinities are those of IEEE 754; NaR is NaN. A sum of zero has the sign that adding one by one gives it.

    Args:
        a: Numbers of `a_format`: (M, K).
        b: Numbers of `b_format`: (K, N).
        c: What the sums start from: (M, N). None: from +0, or from the first term where not `from_zero`.
        a_format: A format that float64 holds.
        b_format: A format that float64 holds.
        divisor: From 1 to 2^31 - 1.
        from_zero: Whether the sums start from +0 where there is no `c`.
        toward_negative: Whether a sum that cancels is -0.

    Returns:
        Float64 rounded to odd, (M, N); the states; and the function that tells sum `i`, in C order, exactly.
    """
    assert holds_exactly(a_format)
    assert holds_exactly(b_format)
    assert 1 <= divisor < 1 << 31
    product = surveyed(a, b, c)
    values, state = sums(product, divisor=divisor)
    sign_sums(product, from_zero, toward_negative, values, state)
    mark_specials(product, values, state)

    def exactly(i: int) -> Meaning:
        row, column = divmod(i, values.shape[1])
        first = None if c is None else float(product.c[row, column])
        return _exact(product.a[row], product.b[:, column], first, divisor, float(values[row, column]))

    return values, state, exactly


def run(
    a: Floats,
    b: Floats,
    c: Floats | None,
    accumulator: Accumulator,
    a_format: ScalarFormat,
    b_format: ScalarFormat,
    *,
    positive_zero: bool = False,
) -> Floats:
    """Return the running sums after all terms, `accumulator.group` of them at a time, each step rounded once.

    Args:
        a: Numbers of `a_format`: (M, K).
        b: Numbers of `b_format`: (K, N).
        c: Running sums to start from: (M, N). None: +0.
        accumulator: One whose format and rounding `is_storable` holds for, its steps fused, without alignment; of its
            fields this reads format, rounding, overflow, group, the flushes and `signed_zero`.
        a_format: A format that float64 holds; decides which operands are subnormal.
        b_format: The same.
        positive_zero: Whether a sum of exactly zero is +0 whatever its terms; one that rounds to zero keeps its sign.
    """
    from lowp.emulation._exact_groups import Running, read, run_steps

    fmt, how = accumulator.format, accumulator.subnormal_inputs
    assert isinstance(fmt, ScalarFormat)
    plan = stored_plan(
        fmt,
        accumulator.rounding,
        accumulator.overflow,
        accumulator.subnormal_results == "zero",
        accumulator.signed_zero,
    )
    a, b = (read(x, how, _least_normal(form)) for x, form in ((a, a_format), (b, b_format)))
    start = np.zeros((len(a), b.shape[1])) if c is None else c
    running = Running(plan, how, _least_normal(fmt), plan.signed_zero == 1 and not positive_zero, accumulator.rounding)
    return run_steps(surveyed(a, b, start), accumulator.group, running)


def _least_normal(fmt: ScalarFormat) -> float:
    return fmt.smallest_normal if isinstance(fmt, Float) else 0.0


def sums(
    product: Product, divisor: int = 1, plan: StoredPlan | None = None
) -> tuple[Floats, NDArray[np.uint8]]:  # fmt: skip
    """Return the sums rounded to odd with states, or as a plan stores them, EXACT then meaning that a sum is zero.

    Zeros have any sign; what is not finite counts as zero.
    """
    from lowp.emulation import _exact_bins_kernels as kernels

    shape = len(product.a), product.b.shape[1]
    values, state = np.zeros(shape), np.zeros(shape, np.uint8)
    if divisor == 1 and _fits_float64(product):
        total = _finite(product.a, product.left) @ _finite(product.b, product.right)
        if product.c.size:
            total += _finite(product.c, product.start)
        if plan is None:
            return np.asarray(total), state
        bits = bits_of(total)
        share(
            shape[0],
            shape[1] * _FINISH_COST,
            lambda i, j: kernels.store_exact(bits, plan, values, state, i, j),
        )
        return values, state
    c = bits_of(product.c)
    for row, column, bins in panels(product):
        at = (row, column)

        def finish(i: int, j: int, at: Any = at, bins: Any = bins) -> None:
            if plan is None:
                kernels.finish_odd(bins, product.base, c, divisor, values, state, *at, i, j)
            else:
                kernels.finish_store(bins, product.base, c, plan, values, state, *at, i, j)

        share(len(bins), bins.shape[2] * _FINISH_COST, finish)
    return values, state


def _fits_float64(product: Product) -> bool:
    """Whether all partial sums, in any order, are numbers of float64."""
    low, high = product.bounds
    return low > high or (high - low <= 53 and low >= -1074 and high <= 1023)


def sign_sums(product: Product, from_zero: bool, down: bool, values: Floats, state: NDArray[np.uint8]) -> None:
    """Give sums of exactly zero their sign; `from_zero`: without `c` they start from +0, not from the first term."""
    if not product.c.size and from_zero and not down:
        values[(values == 0) & (state == 0)] = 0.0
    else:
        sign_zeros(product, down, values, state)


def sign_zeros(product: Product, down: bool, values: Floats, state: NDArray[np.uint8]) -> None:
    """Give sums of exactly zero their sign."""
    from lowp.emulation import _exact_bins_kernels as kernels

    a, b, c = product.a, product.b, product.c
    share(len(a), values.shape[1], lambda i, j: kernels.sign_zeros(a, b, c, down, values, state, i, j))


def mark_specials(product: Product, values: Floats, state: NDArray[np.uint8]) -> None:
    """Write NaN and infinities where a term or `c` is not finite."""
    from lowp.emulation import _exact_bins_kernels as kernels

    if product.left.finite and product.right.finite and product.start.finite:
        return
    a, b, c = product.a, product.b, product.c
    rows, columns = ~np.isfinite(a).all(axis=1), ~np.isfinite(b).all(axis=0)
    share(
        len(a),
        values.shape[1] * _FINISH_COST,
        lambda i, j: kernels.mark_specials(a, b, c, rows, columns, values, state, i, j),
    )


def _exact(x: Floats, y: Floats, start: float | None, divisor: int, value: float) -> Meaning:
    """Return one sum exactly; its value tells what is not finite and the sign of zero."""
    if not np.isfinite(value):
        return "nan" if np.isnan(value) else "inf" if value > 0 else "-inf"
    terms = [Fraction(0) if start is None else Fraction(start)]
    by_weight: dict[int, int] = {}
    for left, right in zip(x.tolist(), y.tolist(), strict=True):
        (n, d), (m, e) = left.as_integer_ratio(), right.as_integer_ratio()
        by_weight[d.bit_length() + e.bit_length()] = by_weight.get(d.bit_length() + e.bit_length(), 0) + n * m
    terms += [Fraction(n, 1 << (weight - 2)) for weight, n in by_weight.items()]
    total = sum(terms, Fraction(0)) / divisor
    return "-0" if total == 0 and np.signbit(value) else total


def _finite(x: Floats, survey: Survey) -> Floats:
    return x if survey.finite else np.where(np.isfinite(x), x, 0.0)
