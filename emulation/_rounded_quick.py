"""Which sums the quick kernels do, and with which numbers: most of those that round to nearest even, and truncation."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lowp.emulation._rounded_passes_kernels import NEAREST_EVEN
from lowp.emulation._rounded_plan import FLOAT64_BITS, Extent, SumPlan, Target, sum_bits, sum_plan
from lowp.emulation._rounded_quick_kernels import PRODUCT_AND_SUM, SUM, SUM_TOWARD_ZERO
from lowp.formats.float_format import Float

#: Significant bits, and weights that magnitudes and their last bits stay between, of the numbers computed with.
_FLOAT32 = (np.float32, 24, -126, 126)
_FLOAT64 = (np.float64, 53, -1022, 1022)


class QuickPlan(NamedTuple):
    """What a kernel needs to know, as numbers and integers of one size; fields of exponents are in place."""

    exponent_mask: Any
    least_field: Any
    raise_by: Any
    zero_sign: Any
    kept_bits: Any  # a mask
    top: Any
    bottom: Any
    above: Any
    below: Any


class Quick(NamedTuple):
    """The way of a kernel, its plans, and the type of its arrays."""

    way: int
    product: QuickPlan
    sum: QuickPlan
    dtype: Any


class Sums(NamedTuple):
    """Sums of single products: their targets, and the bits of operands' products and of running sums.

    `product` is None where products are not rounded, or rounding changes nothing.
    """

    target: Target
    product: Target | None
    term: Extent
    running: Extent


def quick(sums: Sums) -> Quick | None:
    """Return the quick way of some sums; None if there is none."""
    target, product, term, running = sums
    if not _is_plain(target) or not (product is None or _is_plain(product)):
        return None
    if target.mode.name == "toward_zero":
        return _truncation(target, term, running) if product is None else None
    if product is None:
        plan = sum_plan(target, term, running)
        return Quick(SUM, *_plans(_FLOAT64, plan, plan)) if _is_to_nearest(plan) else None
    first, second = sum_plan(product, term, None), sum_plan(target, product.extent, running)
    if not (_is_to_nearest(first) and _is_to_nearest(second)):
        return None
    single = _fits(_FLOAT32, term, product, target) and _holds_sums(product.extent, running, target.extent)
    return Quick(PRODUCT_AND_SUM, *_plans(_FLOAT32 if single else _FLOAT64, first, second))


def _is_plain(target: Target) -> bool:
    """Whether a target is a float that keeps its subnormals and zeros."""
    return isinstance(target.fmt, Float) and not target.flush and target.signed_zero is True


def _is_to_nearest(plan: SumPlan) -> bool:
    return plan.kind == NEAREST_EVEN and plan.lossy == 0


def changes_nothing(target: Target, term: Extent) -> bool:
    """Whether a format has all products, and keeps their zeros and specials."""
    fmt = target.fmt
    if not (isinstance(fmt, Float) and _is_plain(target)):
        return False
    plan, own = sum_plan(target, term, None), target.extent
    keeps = (
        fmt.specials == "ieee" and fmt.has_negative_zero and plan.infinite_above == np.inf and not target.mode.variant
    )
    return bool(keeps and term.bits <= own.bits and term.least >= own.least and term.most <= own.most)


def _truncation(target: Target, term: Extent, running: Extent) -> Quick | None:
    """Return the way that drops bits: sums are exact, no less than the format's least number, and do not overflow."""
    fmt, own = target.fmt, target.extent
    assert isinstance(fmt, Float)
    plan = sum_plan(target, term, running)
    exact = term.moderate and running.moderate and sum_bits(term, running, 1) <= FLOAT64_BITS
    exact &= min(term.least, running.least) >= own.least and max(term.most, running.most) + 2 <= own.most
    keeps = _keeps_specials(fmt, plan) and fmt.mantissa_bits > 0  # the bit that makes a NaN
    return Quick(SUM_TOWARD_ZERO, *_plans(_FLOAT64, plan, plan)) if exact and keeps else None


def _keeps_specials(fmt: Float, plan: SumPlan) -> bool:
    return fmt.specials == "ieee" and fmt.has_negative_zero and plan.infinite_above == np.inf


def _fits(numbers: tuple[Any, int, int, int], term: Extent, *targets: Target) -> bool:
    """Whether numbers of a type hold products exactly, and round to the targets."""
    _, bits, least, most = numbers
    if term.bits > bits or term.least < least or term.most > most:
        return False
    own = [target.extent for target in targets]
    return all(x.least >= least and x.most + bits - x.bits <= most and x.bits < bits - 1 for x in own)


def _holds_sums(product: Extent, running: Extent, own: Extent) -> bool:
    """Whether float32 may round sums of two numbers of a format first (Figueroa 1995: 2 p + 1 bits are enough)."""
    inside = all(x.bits <= own.bits and x.least >= own.least for x in (product, running))
    return inside and 2 * own.bits + 1 <= _FLOAT32[1]


def _plans(numbers: tuple[Any, int, int, int], *plans: SumPlan) -> tuple[QuickPlan, QuickPlan, Any]:
    first, second = (_plan(plan, *numbers[:2]) for plan in plans)
    return first, second, numbers[0]


def _plan(p: SumPlan, dtype: Any, bits: int) -> QuickPlan:
    """Return a plan in numbers of a type with so many significant bits; `p` is in float64."""
    integer, fraction = (np.int32, 23) if dtype is np.float32 else (np.int64, 52)
    size = 32 if dtype is np.float32 else 64
    bias = (1 << (size - 2 - fraction)) - 1
    mantissa = p.precision - 1

    def outward(x: float) -> Any:
        """Return the first number from x on, away from zero."""
        found = dtype(x)
        return found if abs(float(found)) >= abs(x) else np.nextafter(found, dtype(np.copysign(np.inf, x)))

    return QuickPlan(
        exponent_mask=integer((2 * bias + 1) << fraction),
        least_field=integer((p.least_bit + mantissa + bias) << fraction),
        raise_by=integer(((fraction - mantissa) << fraction) + (1 << (fraction - 1))),
        zero_sign=integer(-(1 << (size - 1)) if p.zero_sign else 0),
        kept_bits=integer(-(1 << (fraction - mantissa))),
        top=outward(p.top),
        bottom=outward(p.bottom),
        above=dtype(p.above),
        below=dtype(p.below),
    )


def arrays(found: Quick, *numbers: NDArray[np.float64]) -> tuple[NDArray[Any], ...]:
    """Return arrays as the kernel takes them."""
    with np.errstate(over="ignore", invalid="ignore"):
        return tuple(np.ascontiguousarray(x, found.dtype) for x in numbers)
