"""Where programs of approximations run: in a format, each operation rounded, or in 240 bits."""

from __future__ import annotations

from fractions import Fraction
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lowp._errors import FormatError
from lowp.emulation import _accurate, _reference_functions
from lowp.emulation._approximation_programs import Constant, Named, Step, Table
from lowp.emulation._counted import Steps
from lowp.emulation._operands import decoded, holds_exactly
from lowp.emulation.array import array
from lowp.formats.float_format import Float
from lowp.formats.spec import ScalarFormat

#: Powers of two that float64 holds are multiplied at once.
_AT_ONCE = 1000


def run(steps: tuple[Step, ...], world: Any, x: Any) -> dict[str, Any]:
    """Return the results of all steps by name."""
    found: dict[str, Any] = {"x": x}
    for step in steps:
        found[step.name] = world.step(step.op, [_read(a, found, world) for a in step.arguments])
    return found


def _read(argument: Any, found: dict[str, Any], world: Any) -> Any:
    if isinstance(argument, Named):
        value = found[argument.name]
        return world.negated(value) if argument.negated else value
    if isinstance(argument, Constant):
        return argument
    if isinstance(argument, Table):
        return argument
    return tuple(Constant(c) for c in argument)


class FormatWorld:
    """Arrays in a format; integers that tell exponents apart are float64 and not rounded."""

    def __init__(self, fmt: ScalarFormat, steps: Steps, fused: bool, name: str) -> None:
        self.fmt, self._steps, self._fused, self._name = fmt, steps, fused, name

    def step(self, op: str, arguments: list[Any]) -> Any:
        """Return the result of one operation of a program."""
        own = getattr(self, f"_{op}", None)
        if own is not None:
            return own(*arguments)
        return self._do(op, *arguments)

    def _do(self, op: str, *arguments: Any) -> array:
        return self._steps.do(self._name, op, *(self._number(a) for a in arguments), fmt=self.fmt)

    def _number(self, argument: Any) -> Any:
        return stored(argument.value, argument.part, self.fmt) if isinstance(argument, Constant) else argument

    def negated(self, x: Any) -> Any:
        """Return `-x`, which is exact: as a plain number, since an unsigned format has no such value."""
        if isinstance(x, array) and not holds_exactly(x.format):
            return self._do("negative", x)
        return -plain(x)

    def _square(self, x: array) -> array:
        return self._do("multiply", x, x)

    def _fma(self, a: Any, b: Any, c: Any) -> array:
        return self._do("fma", a, b, c) if self._fused else self._do("add", self._do("multiply", a, b), c)

    def _horner(self, x: array, coefficients: tuple[Constant, ...]) -> array:
        total: Any = coefficients[-1]
        for c in coefficients[-2::-1]:
            total = self._fma(total, x, c)
        return total if isinstance(total, array) else self._do("convert", total)

    def _round(self, x: Any) -> array:
        return self._do("convert", np.rint(plain(x)))

    def _floor(self, x: Any) -> array:
        return self._do("convert", np.floor(plain(x)))

    def _exponent(self, x: array) -> NDArray[np.float64]:
        values = decoded(x.codes, x.format)
        proper = np.isfinite(values) & (values != 0)
        return np.where(proper, np.frexp(np.where(proper, values, 1.0))[1] - 1.0, 0.0)

    def _half(self, k: Any) -> NDArray[np.float64]:
        return np.floor(plain(k) / 2)

    def _scale(self, x: array, k: Any, times: Constant | None = None) -> array:
        powers = whole(k) * (1 if times is None else int(times.value))
        far = np.abs(powers) > _AT_ONCE
        if not far.any():
            return self._do("multiply", x, _power(powers))
        first = np.where(far, powers // 2, powers)  # half of a far one is exact, or makes zero or infinity anyway
        return self._do("multiply", self._do("multiply", x, _power(first)), _power(powers - first))

    def _lookup(self, table: Table, i: Any) -> array:
        entries = table_in(table, self.fmt)
        place = np.clip(whole(i), 0, table.entries - 1).astype(np.intp)
        found = array.from_codes(entries.codes[place], self.fmt)
        unknown = np.isnan(plain(i))
        if np.any(unknown) and self.fmt.has_nan:
            found[unknown] = np.nan
        return found

    def _interpolate(self, table: Table, u: array) -> array:
        low = np.clip(np.floor(plain(u)), 0.0, table.entries - 2.0)
        fraction = self._do("subtract", u, low)
        a, b = self._lookup(table, low), self._lookup(table, low + 1)
        return self._fma(fraction, self._do("subtract", b, a), a)

    def _copysign(self, x: array, y: array) -> array:
        size, negative = np.abs(plain(x)), np.signbit(plain(y))
        return self._do("convert", np.where(negative, -size, size))

    def _magic_rsqrt(self, x: array, sigma: Constant) -> array:
        fmt = self.fmt
        if not isinstance(fmt, Float) or not fmt.mantissa_bits:
            raise FormatError(f"fmt={fmt.name!r}: magic_rsqrt works on codes of a float with mantissa bits.")
        assert fmt.bias is not None
        magic = int(Fraction(3, 2) * 2**fmt.mantissa_bits * (fmt.bias - sigma.value))
        sign = 1 << (fmt.bits - 1) if fmt.signed else 1 << fmt.bits
        codes = magic - (x.codes.astype(np.int64) & (sign - 1)) // 2
        return array.from_codes(np.clip(codes, 0, sign - 1), fmt)


def plain(x: Any) -> NDArray[np.float64]:
    """Return the numbers of an array, a constant or plain numbers."""
    if isinstance(x, array):
        return x.values
    return np.asarray(float(x.value) if isinstance(x, Constant) else x, np.float64)


def whole(k: Any) -> NDArray[np.int64]:
    """Return integers; of numbers that are none, or far beyond every exponent, 0 or the far end."""
    values = np.nan_to_num(plain(k), nan=0.0, posinf=1e6, neginf=-1e6)
    return np.clip(np.rint(values), -1e6, 1e6).astype(np.int64)


def _power(k: NDArray[np.int64]) -> NDArray[np.float64]:
    return np.ldexp(1.0, np.clip(k, -1074, 1023).astype(np.int32))


@lru_cache(maxsize=4096)
def stored(value: Fraction, part: str, fmt: ScalarFormat) -> array:
    """Return a constant as an array of one number: nearest in the format, or what that leaves, nearest."""
    number = array(value, fmt, overflow="saturate")
    if part == "low":
        meaning = fmt.meaning(int(number.codes))
        number = array(value - _accurate.rational(meaning), fmt, overflow="saturate")
    return number


@lru_cache(maxsize=256)
def table_in(table: Table, fmt: ScalarFormat) -> array:
    """Return the correctly rounded entries of a table."""
    points = [table.start + i * table.step for i in range(table.entries)]
    return _reference_functions.rounded(table.function, np.array([float(p) for p in points]), fmt)


class ExactWorld:
    """Single numbers of 240 bits."""

    def step(self, op: str, arguments: list[Any]) -> Any:
        """Return the result of one operation of a program."""
        given = [self._number(a) for a in arguments]
        function: Any = getattr(self, f"_{op}")
        return function(*given)

    def _number(self, argument: Any) -> Any:
        if isinstance(argument, Constant):
            return _accurate.big(Fraction(0) if argument.part == "low" else argument.value)
        return tuple(self._number(c) for c in argument) if type(argument) is tuple else argument

    def negated(self, x: Any) -> Any:
        """Return `-x`."""
        return -x

    def _add(self, a: Any, b: Any) -> Any:
        return a + b

    def _subtract(self, a: Any, b: Any) -> Any:
        return a - b

    def _multiply(self, a: Any, b: Any) -> Any:
        return a * b

    def _square(self, x: Any) -> Any:
        return x * x

    def _divide(self, a: Any, b: Any) -> Any:
        return a / b if b else _accurate.context().inf

    def _fma(self, a: Any, b: Any, c: Any) -> Any:
        return a * b + c

    def _sqrt(self, x: Any) -> Any:
        return _accurate.context().sqrt(x)

    def _exp(self, x: Any) -> Any:
        return _accurate.context().exp(x)

    def _exp2(self, x: Any) -> Any:
        return _accurate.context().mpf(2) ** x

    def _tanh(self, x: Any) -> Any:
        return _accurate.context().tanh(x)

    def _negative(self, x: Any) -> Any:
        return -x

    def _absolute(self, x: Any) -> Any:
        return abs(x)

    def _minimum(self, a: Any, b: Any) -> Any:
        return min(a, b)

    def _maximum(self, a: Any, b: Any) -> Any:
        return max(a, b)

    def _copysign(self, x: Any, y: Any) -> Any:
        return -abs(x) if y < 0 else abs(x)

    def _round(self, x: Any) -> Any:
        return _accurate.context().nint(x)

    def _floor(self, x: Any) -> Any:
        return _accurate.context().floor(x)

    def _exponent(self, x: Any) -> Any:
        return _accurate.context().frexp(x)[1] - 1

    def _half(self, k: Any) -> Any:
        return int(k) // 2

    def _scale(self, x: Any, k: Any, times: Any = 1) -> Any:
        return _accurate.context().ldexp(x, int(k) * int(times))

    def _horner(self, x: Any, coefficients: tuple[Any, ...]) -> Any:
        return _accurate.context().polyval(coefficients[::-1], x)

    def _lookup(self, table: Table, i: Any) -> Any:
        place = min(max(int(i), 0), table.entries - 1)
        return _reference_functions.big(table.function, _accurate.big(table.start + place * table.step))

    def _interpolate(self, table: Table, u: Any) -> Any:
        low = min(max(int(_accurate.context().floor(u)), 0), table.entries - 2)
        a, b = self._lookup(table, low), self._lookup(table, low + 1)
        return a + (u - low) * (b - a)

    def _magic_rsqrt(self, x: Any, sigma: Any) -> Any:
        """Return what the codes of a float of many bits give: the logarithm as a line between powers of two."""
        mp = _accurate.context()
        significand, exponent = mp.frexp(x)
        line = (3 * -sigma - (exponent - 1 + 2 * significand - 1)) / 2  # log2 of x is about that, without the bias
        power = mp.floor(line)
        return mp.ldexp(1 + line - power, int(power))
