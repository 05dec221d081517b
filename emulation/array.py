"""Arrays of numbers in a format, whose arithmetic rounds every result once; made by `lowp.array`."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import Any, Unpack

import numpy as np
from numpy.typing import NDArray

from lowp._errors import ArgumentError, ArgumentTypeError, RangeError
from lowp.emulation import _reductions
from lowp.emulation._compare import compare
from lowp.emulation._evaluate import after, evaluate
from lowp.emulation._operands import Coded, How, Options, Settings, array_format, decoded
from lowp.formats.spec import Format
from lowp.formats.tables import code_dtype
from lowp.rounding.verbs import encode

_EDGE_ITEMS = 1000
#: What operators take; to anything else they leave the answer to the other operand.
_NUMBERS = (Coded, int, float, Fraction, np.generic, np.ndarray, list, tuple)


class array(Coded):  # noqa: N801 - called like `numpy.array`
    """Numbers in a format: `+ - * / % **`, comparisons, reductions and NumPy functions work in that format.

    Every result is the exact result rounded once, see `lowp.emulation.arithmetic`. Operands are arrays of one format,
    and plain numbers, which count at their exact values; other mixtures need `lowp.add(a, b, fmt=...)`.

    The array keeps how it was rounded, and results of operators are rounded in the same way. With a stochastic mode,
    each result continues with the next seed, so that a chain of operations draws new random bits; of two operands the
    larger seed counts.

    Args:
        x: Numbers as for `lowp.encode`, a Fraction, or an array in any format, which is converted.
        fmt: A scalar format or its name.
        rounding: A rounding mode, see `lowp.rounding.modes`.
        overflow: An overflow mode; the default is IEEE 754's: infinity, NaN where there is no infinity, else saturate.
        seed: Seed of the stochastic modes; the random bits of an element depend on it and the element's position.
        nan: What a NaN becomes where the format has none: "error", "zero" or "max".
        random_bits: Random bits of the stochastic modes, 1 to 32; default 32.
        saturation_bits: Saturated bits of overflow "wrap" and "wrap_sign_magnitude".

    Raises:
        FormatError, ArgumentError, ArgumentTypeError, RangeError: As `lowp.encode`.

    Example:
        >>> a = array([1.5, 2.25, -3.0], "posit8_es2")
        >>> a * a + 1
        array([3.25, 6.0, 10.0], format='posit8_es2')
    """

    __slots__ = ()
    __hash__ = None  # type: ignore[assignment]
    __array_priority__ = 1000

    def __init__(
        self,
        x: Any,
        fmt: str | Format,
        rounding: str = "ties_to_even",
        overflow: str = "infinity_or_nan",
        seed: int = 0,
        nan: str = "error",
        *,
        random_bits: int | None = None,
        saturation_bits: int = 0,
    ) -> None:
        form = array_format(fmt, "fmt")
        settings = Settings(rounding, overflow, seed, random_bits, saturation_bits, nan)
        if isinstance(x, Coded | Fraction):
            made = evaluate("convert", (x,), settings.options(form))
            super().__init__(made.codes, form, made.settings)
            return
        encoded = encode(
            x, form, rounding, overflow, seed, random_bits=random_bits, saturation_bits=saturation_bits, nan=nan
        )
        super().__init__(np.asarray(encoded.codes), form, after(settings))

    @classmethod
    def _made(cls, coded: Coded) -> array:
        result = object.__new__(cls)
        Coded.__init__(result, coded.codes, coded.format, coded.settings)
        return result

    @classmethod
    def from_codes(cls, codes: Any, fmt: str | Format, **options: Unpack[How]) -> array:
        """Return an array of the numbers that codes stand for.

        Args:
            codes: Integers, any shape; copied.
            fmt: The scalar format that they are codes of.
            **options: How results are rounded: rounding, overflow, seed, nan, random_bits, saturation_bits.

        Raises:
            ArgumentTypeError: The codes are not integers.
            RangeError: One is not a code of the format.

        Example:
            >>> array.from_codes([0x40, 0x81], "posit8_es2").values.tolist()
            [1.0, -16777216.0]
        """
        form = array_format(fmt, "fmt")
        given = np.asarray(codes)
        if given.dtype.kind not in "iu" and given.size:
            raise ArgumentTypeError(f"codes have dtype {given.dtype}; allowed: integers.")
        if given.size and (int(given.max()) >> form.bits or int(given.min()) < 0):
            raise RangeError(
                f"codes range from {given.min()} to {given.max()}; {form.name!r} has 0 to {(1 << form.bits) - 1}."
            )
        settings = Settings().changed(options)
        settings.request(form)
        return cls._made(Coded(given.astype(code_dtype(form.bits)), form, settings))

    def with_settings(self, settings: Settings) -> array:
        """Return the same numbers with other settings for results."""
        return array._made(Coded(self._codes, self._format, settings))

    def _with(self, codes: Any) -> array:
        return array._made(Coded(np.asarray(codes), self._format, self._settings))

    # What it holds

    @property
    def values(self) -> NDArray[np.float64]:
        """The numbers as float64: exact, or nearest where float64 cannot hold them."""
        return decoded(self._codes, self._format)

    def to_numpy(self) -> NDArray[np.float64]:
        """Return `values`."""
        return self.values

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return self.values if dtype is None else self.values.astype(dtype)

    @property
    def shape(self) -> tuple[int, ...]:
        """Lengths of the axes."""
        return self._codes.shape

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return self._codes.ndim

    @property
    def size(self) -> int:
        """Number of elements."""
        return self._codes.size

    @property
    def T(self) -> array:  # noqa: N802 - NumPy's name
        """The array with its axes reversed."""
        return self._with(self._codes.T)

    def item(self) -> float:
        """Return the only element as a Python float."""
        if self.size != 1:
            raise ArgumentError(f"an array of {self.size} elements is not one number.")
        return float(self.values.reshape(-1)[0])

    def __float__(self) -> float:
        return self.item()

    def __bool__(self) -> bool:
        """Whether the only element is not zero."""
        return self.item() != 0

    def __len__(self) -> int:
        if not self.ndim:
            raise ArgumentTypeError("an array without axes has no length.")
        return len(self._codes)

    def __iter__(self) -> Iterator[array]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, key: Any) -> array:
        return self._with(self._codes[key])

    def __setitem__(self, key: Any, value: Any) -> None:
        """Assign numbers, rounded into the format."""
        same = isinstance(value, Coded) and value.format == self._format
        source = value if same else evaluate("convert", (value,), self._settings.options(self._format))
        self._codes[key] = source.codes

    def __repr__(self) -> str:
        if not self.ndim:
            return f"array({self.item()!r}, format={self._format.name!r})"
        text = np.array2string(
            self.values, separator=", ", prefix="array(", threshold=_EDGE_ITEMS, formatter={"float_kind": repr_of}
        )
        return f"array({text}, format={self._format.name!r})"

    # Shapes

    def reshape(self, *shape: Any) -> array:
        """Return the numbers in another shape."""
        return self._with(self._codes.reshape(*shape))

    def ravel(self) -> array:
        """Return the numbers in one row."""
        return self._with(self._codes.reshape(-1))

    def transpose(self, *axes: Any) -> array:
        """Return the array with its axes permuted, by default reversed."""
        return self._with(self._codes.transpose(*axes))

    def copy(self) -> array:
        """Return a copy."""
        return self._with(self._codes.copy())

    def astype(self, fmt: str | Format, **options: Unpack[How]) -> array:
        """Return the numbers rounded into another format.

        Args:
            fmt: A scalar format or its name.
            **options: What to change of the array's settings: rounding, overflow, seed, nan, ...

        Example:
            >>> array([1.0, 300.0], "float16").astype("int8", overflow="wrap")
            array([1.0, 44.0], format='int8')
        """
        return array._made(evaluate("convert", (self,), Options(fmt=fmt, **options)))

    # Operators

    def _apply(self, op: str, *operands: Any) -> Any:
        if not all(isinstance(x, _NUMBERS) for x in operands):
            return NotImplemented
        return array._made(evaluate(op, operands, {}))

    def __add__(self, other: Any) -> Any:
        return self._apply("add", self, other)

    def __radd__(self, other: Any) -> Any:
        return self._apply("add", other, self)

    def __sub__(self, other: Any) -> Any:
        return self._apply("subtract", self, other)

    def __rsub__(self, other: Any) -> Any:
        return self._apply("subtract", other, self)

    def __mul__(self, other: Any) -> Any:
        return self._apply("multiply", self, other)

    def __rmul__(self, other: Any) -> Any:
        return self._apply("multiply", other, self)

    def __truediv__(self, other: Any) -> Any:
        return self._apply("divide", self, other)

    def __rtruediv__(self, other: Any) -> Any:
        return self._apply("divide", other, self)

    def __mod__(self, other: Any) -> Any:
        """Return the remainder of division rounded down, as Python and NumPy."""
        return self._apply("modulo", self, other)

    def __rmod__(self, other: Any) -> Any:
        return self._apply("modulo", other, self)

    def __pow__(self, other: Any) -> Any:
        return self._apply("power", self, other)

    def __rpow__(self, other: Any) -> Any:
        return self._apply("power", other, self)

    def __matmul__(self, other: Any) -> Any:
        return self.dot(other) if isinstance(other, array) else NotImplemented

    def __neg__(self) -> Any:
        return self._apply("negative", self)

    def __pos__(self) -> array:
        return self.copy()

    def __abs__(self) -> Any:
        return self._apply("absolute", self)

    def _compared(self, relation: str, other: Any) -> Any:
        return compare(relation, self, other) if isinstance(other, _NUMBERS) else NotImplemented

    def __eq__(self, other: object) -> Any:
        return self._compared("equal", other)

    def __ne__(self, other: object) -> Any:
        return self._compared("not_equal", other)

    def __lt__(self, other: Any) -> Any:
        return self._compared("less", other)

    def __le__(self, other: Any) -> Any:
        return self._compared("less_equal", other)

    def __gt__(self, other: Any) -> Any:
        return self._compared("greater", other)

    def __ge__(self, other: Any) -> Any:
        return self._compared("greater_equal", other)

    # Reductions

    def sum(
        self, axis: int | None = None, accumulator: str | Format | None = None, **options: Unpack[Options]
    ) -> array:
        """Return the sum along an axis, or of all elements in C order, from first to last.

        Args:
            axis: The axis; None for all elements.
            accumulator: None: each addition is rounded into the array's format. A format: into that one, and the sum
                once more into the result's. "exact" or "quire": the exact sum is rounded once.
            **options: How to round, and `fmt` of the result.

        Example:
            >>> a = array([2048.0, 1.0, 1.0], "float16")
            >>> a.sum().item(), a.sum(accumulator="exact").item()
            (2048.0, 2050.0)
        """
        return array._made(_reductions.total(self, axis, accumulator, options))

    def prod(self, axis: int | None = None, **options: Unpack[Options]) -> array:
        """Return the product along an axis, or of all elements in C order; each multiplication is rounded."""
        return array._made(_reductions.fold("multiply", self, axis, options))

    def min(self, axis: int | None = None) -> array:
        """Return the smallest number along an axis, or of all; NaN if one is NaN."""
        return array._made(_reductions.fold("minimum", self, axis, {}))

    def max(self, axis: int | None = None) -> array:
        """Return the largest number along an axis, or of all; NaN if one is NaN."""
        return array._made(_reductions.fold("maximum", self, axis, {}))

    def mean(
        self, axis: int | None = None, accumulator: str | Format | None = None, **options: Unpack[Options]
    ) -> array:
        """Return the sum, as `sum`, divided by the number of elements; with "exact" rounded only once."""
        return array._made(_reductions.mean(self, axis, accumulator, options))

    def dot(self, other: array, accumulator: str | Format | None = None, **options: Unpack[Options]) -> array:
        """Return the dot or matrix product, see `lowp.dot`."""
        return array._made(_reductions.dot(self, other, accumulator, options))

    # NumPy's protocols

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **keywords: Any) -> Any:
        from lowp.emulation._numpy import call_ufunc

        return call_ufunc(ufunc, method, inputs, keywords)

    def __array_function__(self, function: Any, types: Any, args: Any, keywords: Any) -> Any:
        from lowp.emulation._numpy import call_function

        return call_function(function, args, keywords)


def repr_of(number: Any) -> str:
    """Return the shortest text of a float."""
    return repr(float(number))
