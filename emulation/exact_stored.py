"""What an accumulator stores, for the oracle: a sum rounded once, overflow, flushed subnormals, the sign of zero."""

from __future__ import annotations

from fractions import Fraction

from lowp._errors import ArgumentError
from lowp.emulation.accumulator import Accumulator
from lowp.emulation.exact_arithmetic import add
from lowp.emulation.exact_functions import is_zero, magnitude, negative, negative_sign, number, signed_zero
from lowp.emulation.gauss_table import GaussTable
from lowp.formats.exact_real import Real
from lowp.formats.float_format import Float
from lowp.formats.integer import Fixed, Integer
from lowp.formats.logarithmic import LNS
from lowp.formats.spec import Meaning, ScalarFormat
from lowp.rounding import exact, modes, random_bits
from lowp.rounding import exact_rules as rules

#: An overflow mode that `lowp.rounding.modes` does not have: infinity, whatever the rounding mode.
INFINITY = "infinity"


class Draws:
    """The random words of one output among `count`: the s-th stored number has that of `s * count + position`."""

    def __init__(self, position: int, count: int) -> None:
        self.position, self.count, self.stored = position, count, 0

    def word(self, seed: int) -> int:
        """Return the word of the next number."""
        found = random_bits.word(seed, self.stored * self.count + self.position)
        self.stored += 1
        return found


class Store:
    """Additions whose results are stored as an accumulator says."""

    def __init__(self, accumulator: Accumulator, draws: Draws) -> None:
        self.accumulator, self.draws = accumulator, draws
        self.format = rules.scalar_format(accumulator.format)
        self.toward_negative = modes.rounding(accumulator.rounding).name == "toward_negative"

    def exact_sum(self, *addends: Meaning) -> Meaning:
        """Return the sum of numbers by IEEE 754, not rounded."""
        total = addends[0]
        for x in addends[1:]:
            total = add(total, x, self.toward_negative)
        return total

    def read(self, x: Meaning, fmt: ScalarFormat | None) -> Meaning:
        """Return what an addition takes a number of a format for."""
        how = self.accumulator.subnormal_inputs
        if how == "keep" or not is_subnormal(x, fmt):
            return x
        return signed_zero(negative_sign(x) and how == "zero")

    def add(self, x: Meaning, y: Meaning) -> Meaning:
        """Return the stored sum of two stored numbers."""
        x, y = self.read(x, self.format), self.read(y, self.format)
        if self.accumulator.table is not None:
            self.draws.word(self.accumulator.seed)
            return add_by_table(x, y, self.format, self.accumulator.table, self.accumulator.overflow)
        return self.sum(self.exact_sum(x, y))

    def subtract(self, x: Meaning, y: Meaning) -> Meaning:
        """Return the stored difference of two stored numbers."""
        return self.add(x, negative(y))

    def sum(self, total: Meaning) -> Meaning:
        """Return what a sum is stored as."""
        stored, kept = self.number(total, self.format), self.accumulator.signed_zero
        plus = kept is False or (kept == "underflow" and is_zero(total))
        return Fraction(0) if is_zero(stored) and plus else stored

    def number(self, x: Meaning, fmt: ScalarFormat) -> Meaning:
        """Return what a sum or a product is stored as in a format, before the rule of the sign of zero."""
        mode = modes.rounding(self.accumulator.rounding)
        word = self.draws.word(self.accumulator.seed)
        named = rules.Mode(mode.name, word) if mode.variant else rules.Mode(mode.name)
        if self.accumulator.subnormal_results == "zero" and is_tiny(x, fmt, named):
            return signed_zero(negative_sign(x))
        return rounded(x, fmt, named, self.accumulator.overflow)


def rounded(x: Meaning, fmt: ScalarFormat, mode: rules.Mode, overflow: str) -> Meaning:
    """Return a number rounded to a format, NaN also where the format has none."""
    if overflow == INFINITY:
        if fmt.has_infinity and is_beyond(x, fmt, mode):
            return "-inf" if negative_sign(x) else "inf"
        overflow = "infinity_or_nan"
    elif overflow in modes.INTEGER_ONLY and not isinstance(fmt, Integer | Fixed):
        overflow = "infinity_or_nan"
    random = mode.word if mode.name.startswith("stochastic_") else None
    return exact.quantize(x, fmt, mode.name, overflow, random=random)


def is_beyond(x: Meaning, fmt: ScalarFormat, mode: rules.Mode) -> bool:
    """Whether a number is rounded to one beyond a float's largest, were there more of them."""
    if isinstance(x, str):
        return x in ("inf", "-inf")
    assert isinstance(fmt, Float)
    size, largest = magnitude(x), rules.landmarks(fmt).largest
    if size <= largest:
        return False
    quantum = rules.power_of_two(rules.floor_log2(largest) - fmt.mantissa_bits)
    if size >= largest + quantum:
        return True
    nu = (size - largest) / quantum
    nu = nu.enclosure(2048)[0] if isinstance(nu, Real) else nu  # irrational: its rounding changes at rational numbers
    return rules.rounds_away(mode, nu, x < 0, bool(rules.landmarks(fmt).largest_code & 1))


def is_subnormal(x: Meaning, fmt: ScalarFormat | None) -> bool:
    """Whether a number is nearer zero than a float format's normal numbers."""
    if isinstance(x, str) or not isinstance(fmt, Float) or not fmt.subnormals:
        return False
    return 0 < magnitude(x) < rules.power_of_two(fmt.emin)


def is_tiny(x: Meaning, fmt: ScalarFormat, mode: rules.Mode) -> bool:
    """Whether a number rounds to one below the normal numbers of a float, were there normal ones of every exponent."""
    if not is_subnormal(x, fmt):
        return False
    assert isinstance(fmt, Float)
    assert not isinstance(x, str)
    size = abs(x.enclosure(2048)[0] if isinstance(x, Real) else x)
    quantum = rules.power_of_two(rules.floor_log2(size) - fmt.mantissa_bits)
    steps = size // quantum
    # Where the significand has one bit alone, the code's last bit is that of the exponent.
    odd = bool((steps if fmt.mantissa_bits else rules.floor_log2(size) - fmt.emin + 1) & 1)
    steps += rules.rounds_away(mode, size / quantum - steps, x < 0, odd)
    return steps * quantum < rules.power_of_two(fmt.emin)


def add_by_table(x: Meaning, y: Meaning, fmt: ScalarFormat, table: GaussTable, overflow: str) -> Meaning:
    """Return the sum of two logarithmic numbers of a format, looked up as `GaussTable` says."""
    if not isinstance(fmt, LNS) or fmt.gamma & (fmt.gamma - 1) or not fmt.zero:
        raise ArgumentError(f"table needs logarithmic numbers with zero and fraction bits, not {fmt.name!r}.")
    extra = fmt.gamma.bit_length() - 1 - table.fraction_bits
    if extra < 0:
        raise ArgumentError(f"table has {table.fraction_bits} fraction bits, more than {fmt.name!r}.")
    if "nan" in (x, y):
        return "nan"
    if is_zero(x) or is_zero(y):
        return x if is_zero(y) else y
    (i, minus), (j, other) = sorted((_logarithm(v, fmt) for v in (x, y)), key=lambda pair: -pair[0])
    index = (i - j) >> extra
    if minus != other and index == 0:
        return Fraction(0)
    entries = table.sums if minus == other else table.differences
    k = i + ((int(entries[index]) if index < len(entries) else 0) << extra)
    if k < fmt.least_exponent:
        return Fraction(0)
    if k > fmt.largest_exponent and overflow == "infinity_or_nan":
        return "nan"
    power = fmt.power(min(k, fmt.largest_exponent))
    return -power if minus else power


def _logarithm(x: Meaning, fmt: LNS) -> tuple[int, bool]:
    """Return the integer logarithm of a number of the format, and whether it is negative."""
    powers = Real.of(magnitude(number(x))).exponents()
    assert powers is not None
    k = powers[1] * fmt.gamma
    assert powers[0] == 0
    assert k.denominator == 1
    return int(k), negative_sign(x)
