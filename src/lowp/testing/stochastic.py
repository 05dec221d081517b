"""The law of stochastic rounding: over its random integers, a number moves as often as its position says."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np

from lowp._errors import ArgumentError
from lowp.formats import Format
from lowp.formats.logarithms import is_logarithmic
from lowp.formats.spec import ScalarFormat, to_float
from lowp.rounding import exact, modes
from lowp.testing import _points
from lowp.testing._laws import Subject, parameters
from lowp.testing._show import code_text, lines, number_text, same_code, simplicity

#: With at most this many random bits every random integer is tried.
_EVERY_INTEGER = 12
#: Draws of a number that is a value, none of which may move it.
_STAYING = 64
#: How likely a right implementation may be called wrong.
_RISK = 1e-9


class _Case(NamedTuple):
    """A number, the codes of its neighbours toward and away from zero, and the counts of integers that may move it."""

    x: float
    toward: int
    away: int
    least: int
    most: int


def check_stochastic(
    my_encode: Callable[..., Any],
    fmt: Format | str,
    random_bits: int,
    rounding: str | None = None,
    *,
    takes_random: bool | None = None,
    draws: int = 20_000,
) -> None:
    """Check that stochastic rounding with N random bits is unbiased within its N bits.

    A number at position nu between two values must round away from zero for floor(nu 2^N) or one more of the 2^N random
    integers, for exactly nu 2^N where that is an integer; under a named mode for the number that its formula says. A
    value itself must stay. Results other than the two neighbours are wrong.

    An implementation that takes the random integer is called with every one, up to 12 bits, and counted exactly.
    Otherwise a number is rounded `draws` times, and the share that moves may be off by t = sqrt(ln(2 m / 1e-9) / 2 /
    draws), m the count of numbers tried: by Hoeffding's inequality a right implementation fails with probability below
    1e-9.

    Args:
        my_encode: The implementation: numbers to codes, `my_encode(x)`, or `my_encode(x, r)` with integers r of N bits.
        fmt: A scalar format of at most 64 bits, or its name.
        random_bits: N, 1 to 32.
        rounding: "stochastic_a", "stochastic_b", "stochastic_c" or "stochastic_equal"; default any unbiased rule.
        takes_random: Whether the function takes r; default whether it has two required parameters.
        draws: Roundings of each number where integers are drawn.

    Raises:
        AssertionError: The share that moves is wrong, or a result is.
        ArgumentError, FormatError: An argument that is not allowed.

    Source:
        IEEE P3109 interim report 4.0 (the modes A, B, C); Hoeffding, Journal of the American Statistical Association 58
        (1963).

    Example:
        >>> import lowp
        >>> def mine(x: float, r: int) -> int:
        ...     return lowp.exact.encode(x, "e2m1", "stochastic_a", random=r << 28, random_bits=4)
        >>> check_stochastic(mine, "e2m1", 4)
        >>> check_stochastic(lambda x, r: lowp.encode(x, "e2m1").codes, "e2m1", 4)
        Traceback (most recent call last):
        AssertionError: stochastic rounding to float4_e2m1fn with 4 bits: broken by 78 of 104 numbers, the simplest:
          input    0.25
          between  0x0 0|00|0 = 0 and 0x1 0|00|1 = 0.5
          away     0 of 16 random integers
          expected 8
    """
    form, bits = _points.scalar(fmt), _checked_bits(random_bits)
    mode = None if rounding is None else _stochastic_mode(rounding)
    with_integers = parameters(my_encode) >= 2 if takes_random is None else takes_random
    subject = Subject(my_encode)
    cases = list(_cases(form, bits, mode))
    if not cases:
        raise ArgumentError(f"fmt={form.name!r} has no float64 between its values to be rounded.")
    tolerance = math.sqrt(math.log(2 * len(cases) / _RISK) / (2 * draws))
    complaints = {}
    for case in cases:
        integers = _integers(bits, draws) if with_integers else None
        complaint = _complaint(subject, form, case, bits, integers, draws, tolerance)
        if complaint:
            complaints[case.x] = complaint
    if complaints:
        simplest = complaints[min(complaints, key=simplicity)]
        title = f"stochastic rounding to {form.name} with {bits} bits" + (f", {mode}" if mode else "")
        raise AssertionError(f"{title}: broken by {len(complaints)} of {len(cases)} numbers, the simplest:\n{simplest}")


def _integers(bits: int, draws: int) -> np.ndarray[Any, Any]:
    """Return every random integer, or as many as asked for, spread evenly but for a random offset."""
    if bits <= _EVERY_INTEGER:
        return np.arange(1 << bits, dtype=np.uint32)
    return np.random.default_rng(1963).integers(0, 1 << bits, draws, dtype=np.uint32)


def _complaint(
    subject: Subject, fmt: ScalarFormat, case: _Case, bits: int, integers: Any, draws: int, tolerance: float
) -> str | None:
    """Round one number many times; say what is wrong with the results, or None."""
    exhaustive = integers is not None and bits <= _EVERY_INTEGER
    count = len(integers) if integers is not None else draws if case.toward != case.away else min(draws, _STAYING)
    columns = (np.full(count, case.x),) if integers is None else (np.full(count, case.x), integers)
    results = Counter(int(code) for code in subject(*columns))
    strangers = [c for c in results if not (same_code(c, case.toward, fmt) or same_code(c, case.away, fmt))]
    between = " and ".join(dict.fromkeys(code_text(code, fmt) for code in (case.toward, case.away)))
    if strangers:
        return lines(input=number_text(case.x), between=between, got=code_text(min(strangers), fmt))
    if case.toward == case.away:
        return None
    moved = sum(times for code, times in results.items() if same_code(code, case.away, fmt))
    if exhaustive:
        if case.least <= moved <= case.most:
            return None
        away = f"{moved} of {count} random integers"
        return lines(input=number_text(case.x), between=between, away=away, expected=_range(case.least, case.most))
    low, high = case.least / 2**bits - tolerance, case.most / 2**bits + tolerance
    certain = case.least == case.most and case.least in (0, 1 << bits)
    if low <= moved / count <= high and (not certain or moved == (count if case.least else 0)):
        return None
    share = _range(case.least / 2**bits, case.most / 2**bits)
    expected = f"a share of {share}, give or take {tolerance:.3g} (a right one fails with probability below {_RISK:g})"
    return lines(input=number_text(case.x), between=between, away=f"{moved} of {count} draws", expected=expected)


def _range(least: float, most: float) -> str:
    return f"{least}" if least == most else f"{least} or {most}" if isinstance(least, int) else f"{least} to {most}"


def _cases(fmt: ScalarFormat, bits: int, mode: str | None) -> Iterator[_Case]:
    """Numbers at telling positions between some values of both signs, and the values themselves."""
    parts = {Fraction(0), Fraction(1, 2), Fraction(1, 3), Fraction(13, 16), Fraction(1, 1 << bits)}
    parts |= {1 - Fraction(1, 1 << bits), Fraction(3, 2 << bits), Fraction(1, 4 << bits)}
    seen = set()
    for lower, upper in _some_gaps(fmt):
        for part in sorted(parts):
            x = to_float(lower + (upper - lower) * part)
            toward, away = (exact.encode(x, fmt, name) for name in ("toward_zero", "away_from_zero"))
            if math.isfinite(x) and x not in seen:
                seen.add(x)
                yield _Case(x, toward, away, *_counts(x, fmt, bits, mode))


def _some_gaps(fmt: ScalarFormat) -> Iterator[tuple[Any, Any]]:
    """Pairs of neighbouring values: the first, one near 1, the last, and some spread over the codes."""
    codes = _points.spread_codes(fmt)
    chosen = {*codes[:: max(1, len(codes) // (4 if is_logarithmic(fmt) else 10))], codes[1]}
    for code in sorted(chosen):
        for turn in _points.turns(code, fmt)[:1]:
            below, above = exact.neighbours(to_float(turn), fmt)
            if below is not None and above is not None and below != above:
                yield below, above


def _counts(x: float, fmt: ScalarFormat, bits: int, mode: str | None) -> tuple[int, int]:
    """Return the least and the largest number of random integers that may move a number away from zero."""
    count = _moving(x, fmt, bits, mode or "stochastic_a")
    if mode is not None:
        return count, count
    below, above = exact.neighbours(x, fmt)
    if isinstance(below, Fraction) and isinstance(above, Fraction) and below != above:
        scaled = (abs(Fraction(x)) - min(abs(below), abs(above))) / (above - below) * (1 << bits)
        if scaled.denominator == 1:
            return count, count
    return count, count + 1


def _moving(x: float, fmt: ScalarFormat, bits: int, mode: str) -> int:
    """Return how many integers move a number: the large ones do. A guess is checked by the oracle, or bisected."""
    away, total = exact.encode(x, fmt, "away_from_zero"), 1 << bits
    if away == exact.encode(x, fmt, "toward_zero"):
        return 0

    def moves(r: int) -> bool:
        if not 0 <= r < total:
            return r >= total
        return exact.encode(x, fmt, mode, random=r << (32 - bits), random_bits=bits) == away

    guess = total - math.floor(_position(x, fmt) * total)
    low, high = (guess - 1, guess) if moves(guess) and not moves(guess - 1) else (-1, total)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if moves(middle) else (middle, high)
    return total - high


def _position(x: float, fmt: ScalarFormat) -> float:
    """Return about where a number lies between its neighbours, from the one nearer zero."""
    below, above = exact.neighbours(x, fmt)
    assert below is not None
    assert above is not None
    inner, outer = sorted((abs(to_float(below)), abs(to_float(above))))
    if is_logarithmic(fmt) and inner > 0:
        return math.log(abs(x) / inner) / math.log(outer / inner)
    return (abs(x) - inner) / (outer - inner)


def _checked_bits(random_bits: int) -> int:
    modes.rounding("stochastic_a", random_bits)
    return int(random_bits)


def _stochastic_mode(rounding: str) -> str:
    name = modes.rounding(rounding).name
    if not name.startswith("stochastic_"):
        raise ArgumentError(f"rounding={rounding!r} is not stochastic; see check_conversion.")
    return name
