"""What an operation is given: arrays in formats, and plain numbers at their exact values."""

from __future__ import annotations

import math
import warnings
from fractions import Fraction
from functools import lru_cache
from typing import Any, NamedTuple, TypedDict, cast

import numpy as np
from numpy.typing import NDArray

from lowp._errors import ArgumentError, ArgumentTypeError, FormatError, PrecisionWarning, unknown_name
from lowp.formats.codebook import Codebook
from lowp.formats.exact_real import Real
from lowp.formats.float_format import Float
from lowp.formats.logarithms import is_logarithmic
from lowp.formats.posit import Posit
from lowp.formats.ranked import RankedFormat, TaperedFormat
from lowp.formats.spec import Format, Meaning, ScalarFormat, to_float
from lowp.formats.tables import scalar_format
from lowp.formats.takum import Takum
from lowp.rounding._arrays import as_source, widen
from lowp.rounding._scalar import decode_values
from lowp.rounding.exact import exact_value
from lowp.rounding.request import ENCODE_NAN, Request, check_format, make_request


class How(TypedDict, total=False):
    """How results are rounded; what is not given comes from the operands."""

    rounding: str
    overflow: str
    seed: int
    random_bits: int | None
    saturation_bits: int
    nan: str


class Options(How, total=False):
    """How an operation rounds, and the format of its result."""

    fmt: str | Format | None


#: Formats whose codes NumPy reads itself.
#: Bits of the widest logarithmic formats whose codes are found again from float64.
_MOST_LOGARITHMIC = 52
_HARDWARE: dict[ScalarFormat, Any] = {Float(8, 23): np.float32, Float(11, 52): np.float64}
OPTIONS = ("fmt", "rounding", "overflow", "seed", "random_bits", "saturation_bits", "nan")


def check_options(options: Any) -> None:
    """Raise ArgumentTypeError for a keyword that no operation has."""
    unknown = [name for name in options if name not in OPTIONS]
    if unknown:
        raise ArgumentTypeError(unknown_name("keyword", unknown[0], OPTIONS))


def array_format(fmt: Any, purpose: str) -> ScalarFormat:
    """Return a scalar format, given by itself or by name, whose codes arrays hold; else raise FormatError."""
    form = scalar_format(fmt, purpose)
    if form.bits > 64:
        raise FormatError(f"{purpose}={form.name!r} has {form.bits} bits; arrays hold codes of up to 64.")
    return form


class Settings(NamedTuple):
    """How results are rounded, as an array carries it along."""

    rounding: str = "ties_to_even"
    overflow: str = "infinity_or_nan"
    seed: int = 0
    random_bits: int | None = None
    saturation_bits: int = 0
    nan: str = "error"

    def request(self, fmt: ScalarFormat) -> Request:
        """Return the same, checked, for results in `fmt`."""
        request = make_request(*self._replace(nan="error")[:5], self.nan, ENCODE_NAN)
        check_format(fmt, request)
        return request

    def options(self, fmt: ScalarFormat) -> Options:
        """Return the settings as options of an operation with results in `fmt`."""
        return cast("Options", {"fmt": fmt, **self._asdict()})

    def changed(self, options: How | Options) -> Settings:
        """Return the settings with those of `options` in place of its own."""
        given: dict[str, Any] = {k: v for k, v in options.items() if k in Settings._fields}
        return self._replace(**given)


class Coded:
    """Codes of a scalar format and how to round what is computed from them: the base of `lowp.array`."""

    __slots__ = ("_codes", "_format", "_settings")

    def __init__(self, codes: NDArray[Any], fmt: ScalarFormat, settings: Settings) -> None:
        self._codes, self._format, self._settings = codes, fmt, settings

    @property
    def codes(self) -> NDArray[Any]:
        """The codes, in the smallest unsigned dtype; a view: writing to it changes the array."""
        return self._codes

    @property
    def format(self) -> ScalarFormat:
        """The format."""
        return self._format

    @property
    def settings(self) -> Settings:
        """Rounding mode, overflow mode, seed and NaN policy of results."""
        return self._settings


class Operand(NamedTuple):
    """Numbers of one operand: codes of a format, or plain numbers.

    `exact` says that float64 holds each of them; `literal` is the one plain number that it does not hold.
    """

    exact: bool
    fmt: ScalarFormat | None = None
    codes: NDArray[Any] | None = None
    plain: NDArray[np.float64] | None = None
    literal: Meaning | None = None

    @property
    def values(self) -> NDArray[np.float64]:
        """The numbers in float64, exact or nearest."""
        if self.plain is not None:
            return self.plain
        assert self.fmt is not None
        return decoded(self._stored, self.fmt)

    @property
    def _stored(self) -> NDArray[Any]:
        stored = self.plain if self.codes is None else self.codes
        assert stored is not None
        return stored

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the numbers."""
        return self._stored.shape

    def flat(self, shape: tuple[int, ...]) -> Operand:
        """Return the numbers broadcast to a shape and laid out in one row."""
        same = self._stored if self.shape == shape else np.broadcast_to(self._stored, shape)
        return self._holding(np.ascontiguousarray(same).reshape(-1))

    def part(self, start: int, stop: int) -> Operand:
        """Return some of the numbers of a flat operand."""
        return self._holding(self._stored[start:stop])

    def _holding(self, stored: NDArray[Any]) -> Operand:
        return self._replace(plain=stored) if self.codes is None else self._replace(codes=stored)

    def meaning(self, i: int) -> Meaning:
        """Return number `i` of a flat operand, exactly."""
        if self.literal is not None:
            return self.literal
        if self.fmt is not None:
            return self.fmt.meaning(int(self._stored[i]))
        return exact_value(float(self._stored[i]))


def decoded(codes: NDArray[Any], fmt: ScalarFormat) -> NDArray[np.float64]:
    """Return the values of codes in float64, exact or nearest."""
    if fmt in _HARDWARE:
        with np.errstate(invalid="ignore"):  # signalling NaN
            return np.asarray(codes.view(_HARDWARE[fmt]), np.float64)
    flat = np.ascontiguousarray(codes).reshape(-1)
    if holds_exactly(fmt):
        return decode_values(flat, fmt, np.float64).reshape(codes.shape)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PrecisionWarning)  # nearest is what is asked for
        return decode_values(flat, fmt, np.float64).reshape(codes.shape)


def coded(codes: NDArray[Any], fmt: ScalarFormat) -> Operand:
    """Return codes of a format as an operand."""
    return Operand(holds_exactly(fmt), fmt, codes)


def operand(x: Any) -> Operand:
    """Read an array in a format, a number (int, float, Fraction, NumPy scalar) or a plain array at its exact value."""
    if isinstance(x, Coded):
        return coded(x.codes, x.format)
    if isinstance(x, int | Fraction) and not isinstance(x, bool):
        number = exact_value(x)
        assert isinstance(number, Fraction)
        value = to_float(number)
        exact = math.isfinite(value) and Fraction(value) == number
        return Operand(exact, plain=np.array(value), literal=None if exact else number)
    source = as_source(x)
    if source.sticky:
        raise ArgumentError("an operand holds integers beyond 2^53; pass them as one Python int, or lowp.array them.")
    return Operand(True, plain=widen(source.values))


@lru_cache(maxsize=256)
def holds_exactly(fmt: ScalarFormat) -> bool:
    """Whether float64 holds every value of a format."""
    if isinstance(fmt, Codebook):
        return True
    if isinstance(fmt, Float):
        return fmt.emax <= 1023 and fmt.emin - fmt.mantissa_bits >= -1074
    if isinstance(fmt, RankedFormat):
        return not is_logarithmic(fmt) and precision(fmt) <= 53 and within_float64(fmt)
    return precision(fmt) - fmt.signed <= 53


def check_comes_back(fmt: ScalarFormat, what: str, instead: str) -> None:
    """Raise ArgumentError if numbers of a format are not found again from what float64 has of them.

    Logarithmic ones of up to 52 bits are: float64 is closer to them than half of their spacing.
    """
    if not holds_exactly(fmt) and not (is_logarithmic(fmt) and fmt.bits <= _MOST_LOGARITHMIC):
        raise ArgumentError(
            f"{what} in {fmt.name!r} are passed on as float64, which does not have all of its numbers; take {instead}, "
            "or lowp.emulation.exact_accumulators."
        )


@lru_cache(maxsize=256)
def precision(fmt: ScalarFormat) -> int:
    """Return the most significant bits that a value has; logarithmic formats and codebooks: 64."""
    if isinstance(fmt, Posit):
        return max(fmt.bits - 2 - fmt.es, 1)
    if isinstance(fmt, Takum) and not fmt.logarithmic:
        return max(fmt.bits - 4, 1)
    if fmt.kind == "table":
        return 64
    return int(getattr(fmt, "mantissa_bits", fmt.bits - 1)) + 1


@lru_cache(maxsize=256)
def within_float64(fmt: ScalarFormat) -> bool:
    """Whether every value, and what lies between zero and the smallest, is well inside float64's range."""
    if isinstance(fmt, TaperedFormat) and isinstance(fmt, Posit):
        return (fmt.bits - 2) << fmt.es <= 960
    largest, _, _, smallest = fmt._limits  # noqa: SLF001 - the exact limits, which the public ones round
    if isinstance(largest, Real) or isinstance(smallest, Real):
        return fmt.max < 2.0**960 and fmt.smallest_subnormal > 2.0**-960
    return largest < Fraction(2) ** 960 and smallest > Fraction(1, 2**960)
