"""NumPy code in which the result of every operation is rounded to a format, as chop and pychop do."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from lowp._errors import ArgumentError, ArgumentTypeError, FormatError, nearest, unknown_name, warn_caller
from lowp.emulation._numpy_products import PRODUCTS, PRODUCTS_OF_ARRAYS, norm
from lowp.emulation.report import Report
from lowp.formats import Format, ScalarFormat, parse
from lowp.rounding._arrays import as_source, widen
from lowp.rounding._scalar import quantize_values
from lowp.rounding.request import QUANTIZE_NAN, check_format, make_request

SUMS = {
    "each": "sums and products of arrays are chains of rounded operations, from the first element on",
    "final": "sums and products of arrays are computed in float64 and rounded once",
}
#: Results that are no new numbers: never rounded.
_EXACT = {"absolute", "fabs", "negative", "positive", "sign", "copysign", "maximum", "minimum", "fmax", "fmin", "clip",
          "conjugate", "rint", "floor", "ceil", "trunc"}  # fmt: skip


class _Mode:
    """What the arrays of one program share: the format, which operations, and what has happened."""

    def __init__(self, fmt: ScalarFormat, request: Any, only: tuple[str, ...], exclude: tuple[str, ...], sums: str):
        self.format, self.request, self.only, self.exclude, self.sums = fmt, request, only, exclude, sums
        self.report = Report()
        self.random = request.mode.variant != 0
        self._positions = 0  # of random bits: every rounded number has one of its own

    def covers(self, name: str) -> bool:
        chosen = any(fnmatchcase(name, pattern) for pattern in self.only)
        return name not in _EXACT and chosen and not any(fnmatchcase(name, pattern) for pattern in self.exclude)

    def note(self, name: str) -> None:
        covered = self.covers(name)
        what = self.format.name if covered else "unchanged: exact" if name in _EXACT else "unchanged"
        self.report.add("", name, "", "elementwise", what)

    def round(self, name: str, x: Any) -> Any:
        """Return floating results rounded, if the operation is covered."""
        x = np.asarray(x)
        if x.dtype.kind != "f" or not self.covers(name):
            return x
        flat = np.ascontiguousarray(x, np.float64).reshape(-1)
        rounded = quantize_values(flat, self.format, self.request, start=self._positions)
        self._positions += flat.size * self.random
        return rounded.reshape(x.shape)

    def settled(self, name: str, x: Any) -> Any:
        """Return numbers that come in from outside rounded; those of the format stay, and take no random bits."""
        x = _plain(x)
        plain = np.asarray(x)
        if plain.dtype.kind != "f" and not (plain.dtype.kind in "iu" and self.covers(name)):
            return x
        return x if self.holds(plain) else self.round(name, plain.astype(np.float64))

    def holds(self, x: Any) -> bool:
        """Whether all numbers are the format's."""
        flat = np.ascontiguousarray(x, np.float64).reshape(-1)
        return bool(np.array_equal(quantize_values(flat, self.format, _TOWARD_ZERO), flat, equal_nan=True))

    def warn_inside(self, name: str) -> None:
        """Say that a function's inner steps are not rounded."""
        warn_caller(f"numpy's {name} computes inside in float64; its result alone is rounded to the format.")
        self.report.remark(f"{name}: only the result was rounded")


class EveryOperation(np.ndarray):
    """A float64 array that rounds the result of every operation on it; made by `lowp.every_operation`."""

    _mode: _Mode

    def __array_finalize__(self, source: Any) -> None:
        mode = getattr(source, "_mode", None)
        if mode is not None:
            self._mode = mode

    @property
    def format(self) -> ScalarFormat:
        """The format that results are rounded to."""
        return self._mode.format

    @property
    def report(self) -> Report:
        """What the operations of this program did so far: which were rounded, how often."""
        return self._mode.report

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, out: Any = None, **options: Any) -> Any:
        mode = _common(inputs + (out or ()))
        plain = [_plain(x) for x in inputs]
        if method not in ("__call__", "reduce", "accumulate", "outer"):
            raise ArgumentError(f"numpy.{ufunc.__name__}.{method} is not emulated; write it as a loop over elements.")
        mode.note(ufunc.__name__)
        result = _compute(mode, ufunc, method, plain, options)
        results = result if isinstance(result, tuple) else (result,)
        if any(np.iscomplexobj(r) for r in results):
            _warn_complex(mode, ufunc.__name__)
        if out is not None:
            wrapped = tuple(
                _wrapped(mode, new) if given is None else _stored(given, new)
                for given, new in zip(out, results, strict=True)
            )
        else:
            wrapped = tuple(_wrapped(mode, r) for r in results)
        return wrapped if isinstance(result, tuple) else wrapped[0]

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        name = function.__name__
        if function in PRODUCTS:
            mode = _common(args)
            mode.note(name)
            out = kwargs.get("out")
            options = {k: _plain(v) for k, v in kwargs.items() if k != "out"}
            result = _wrapped(mode, PRODUCTS[function](mode, *[_plain(a) for a in args], **options))
            return result if out is None else _stored(out, result)
        if name == "norm" and isinstance(args[0], EveryOperation) and (result := norm(*args, **kwargs)) is not None:
            return result
        if name in _INSIDE:
            mode = _common(args)
            mode.warn_inside(name)
            result = function(*[_plain(a) for a in args], **{k: _plain(v) for k, v in kwargs.items()})
            parts = tuple(_wrapped(mode, mode.round(name, r)) for r in (result if _is_tuple(result) else (result,)))
            return type(result)(*parts) if hasattr(result, "_fields") else parts if _is_tuple(result) else parts[0]
        return _rewrapped(_find(args, kwargs), name, super().__array_function__(function, types, args, kwargs))

    def __setitem__(self, index: Any, value: Any) -> None:
        super().__setitem__(index, self._mode.settled("array", value))

    def fill(self, value: Any) -> None:
        """Fill the array with one number, rounded."""
        super().fill(self._mode.settled("array", value))

    def round(self, decimals: Any = 0, out: Any = None) -> Any:
        """Round to decimal places, and then to the format."""
        result = _wrapped(self._mode, self._mode.settled("round", np.asarray(self).round(decimals)))
        return result if out is None else _stored(out, result)

    def __reduce__(self) -> Any:
        parts: Any = super().__reduce__()
        return parts[0], parts[1], (parts[2], self._mode)

    def __setstate__(self, state: Any) -> None:
        super().__setstate__(state[0])
        self._mode = state[1]

    def __getitem__(self, index: Any) -> Any:
        return _wrapped(self._mode, super().__getitem__(index))

    def __iter__(self) -> Any:
        if not self.ndim:
            raise TypeError("iteration over a 0-d array")
        return (self[i] for i in range(len(self)))

    def dot(self, other: Any, out: Any = None) -> Any:
        """Return the product of two arrays, as `numpy.dot`."""
        return np.dot(self, other) if out is None else _stored(out, np.dot(self, other))

    def __float__(self) -> float:
        return float(np.asarray(self).item())

    def __str__(self) -> str:
        return np.array_str(self.view(np.ndarray))

    def __repr__(self) -> str:
        return f"{np.array_repr(np.asarray(self))[:-1]}, {self._mode.format.name!r})".replace(
            "array", "every_operation"
        )


def every_operation(
    x: ArrayLike,
    fmt: str | Format,
    rounding: str = "ties_to_even",
    overflow: str = "infinity_or_nan",
    seed: int = 0,
    *,
    only: Iterable[str] = ("*",),
    exclude: Iterable[str] = (),
    sums: str = "each",
    like: Any = None,
) -> EveryOperation:
    """Return an array on which NumPy code runs with the result of each operation rounded to a format.

    The array holds float64 and results are rounded from there: exact for sums, products, quotients and square roots
    in formats of at most 25 significant bits; other functions are NumPy's, rounded. NaN and infinity follow the
    overflow mode. Signs, comparisons, maxima and rounding to integers are never rounded, so that a plain number in
    `maximum` or `clip` stays what it is; numbers stored by an index are rounded. What LAPACK and other compiled code of
    NumPy (`interp`, `cov`, `polyfit`) computes inside is not; only its result is, with a warning and a remark. Complex
    results are plain arrays, with the same. `np.vectorize`, SciPy and `np.asarray` leave the class, and the emulation.

    Args:
        x: Numbers; they are rounded too.
        fmt: A scalar format or its name.
        rounding: Rounding mode; stochastic modes take new random bits at each operation.
        overflow: Overflow mode; by default results beyond the range become infinity, as in IEEE 754 arithmetic.
        seed: Seed of the stochastic modes.
        only: Patterns over the names of NumPy's functions ("add", "exp*"): which results are rounded.
        exclude: Patterns of those that are not.
        sums: "each" rounds every partial sum of `sum`, `dot`, `@`, `cumsum`; "final" their result only.
        like: An array whose mode, counts and random numbers this one shares; `fmt` and the rest must be the same.

    Returns:
        A float64 array of a class that NumPy's functions know how to handle; `.report` says what happened.

    Raises:
        ArgumentError, ArgumentTypeError, FormatError, RangeError: As `lowp.quantize`; `fmt` has blocks; a pattern
            matches no function of NumPy.

    Source: N. J. Higham and S. Pranesh, "Simulating Low Precision Floating-Point Arithmetic", SIAM J. Sci. Comput.
    41(5), 2019.

    Example:
        >>> import numpy as np
        >>> x = every_operation([1.0, 2.0, 3.0], "bfloat16")
        >>> float(np.sum(x / 3))
        2.0
        >>> float(x[2] / 3 / 10)
        0.10009765625
    """
    if like is not None:
        if not isinstance(like, EveryOperation) or parse(fmt) != like.format:
            raise ArgumentError(f"like={like!r:.60} must be an array of every_operation in {parse(fmt).name!r}.")
        return _wrapped(like._mode, like._mode.round("array", _numbers(x)))  # type: ignore[no-any-return]
    resolved = parse(fmt)
    if not isinstance(resolved, ScalarFormat):
        raise FormatError(f"fmt={resolved.name!r} has blocks; every operation needs a scalar format.")
    if sums not in SUMS:
        raise ArgumentError(unknown_name("sums", sums, SUMS))
    request = make_request(rounding, overflow, seed, None, 0, "keep", QUANTIZE_NAN)
    check_format(resolved, request)
    values = _numbers(x)
    mode = _Mode(resolved, request, _patterns("only", only), _patterns("exclude", exclude), sums)
    rounded = quantize_values(np.ascontiguousarray(values).reshape(-1), resolved, request)
    mode._positions = values.size * mode.random
    return _wrapped(mode, rounded.reshape(values.shape))  # type: ignore[no-any-return]


def _numbers(x: Any) -> Any:
    """Return real numbers as a float64 array of its own."""
    return np.array(widen(as_source(_plain(x)).values))


def _patterns(argument: str, value: Any) -> tuple[str, ...]:
    patterns = (value,) if isinstance(value, str) else tuple(value)
    if not all(isinstance(p, str) for p in patterns):
        raise ArgumentTypeError(f"{argument}={value!r} must be patterns over names of NumPy functions.")
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in _names()):
            own = getattr(getattr(np, pattern, None), "__name__", None)
            hint = f" NumPy's own name of it is {own!r}." if own in _names() else nearest(pattern, _names())
            raise ArgumentError(f"{argument}={pattern!r} matches no function of NumPy.{hint}")
    return patterns


@lru_cache(maxsize=1)
def _names() -> frozenset[str]:
    """Return the names that NumPy's functions give themselves."""
    found = [f for module in (np, np.linalg, np.fft) for f in vars(module).values() if callable(f)]
    return frozenset(f.__name__ for f in found if hasattr(f, "__name__")) | {"array", "round"}


def _wrapped(mode: _Mode, result: Any) -> Any:
    array = np.asarray(result)
    if array.dtype.kind != "f":
        return result
    view = np.asarray(array, np.float64).view(EveryOperation)
    view._mode = mode
    return view


def _rewrapped(mode: _Mode | None, name: str, result: Any) -> Any:
    """Return what a NumPy function made of such arrays, in their class; functions that compute inside drop it."""
    if mode is None or isinstance(result, EveryOperation):
        return result
    if isinstance(result, list) or type(result) is tuple:
        return type(result)(_rewrapped(mode, name, r) for r in result)
    if not isinstance(result, np.ndarray | np.generic):
        return result
    if result.dtype.kind == "c":
        _warn_complex(mode, name)
    if result.dtype.kind != "f":
        return result
    if mode.covers(name) and not mode.holds(result):
        if name not in _MOVES:
            mode.warn_inside(name)
        result = mode.round(name, result)
    return _wrapped(mode, result)


def _warn_complex(mode: _Mode, name: str) -> None:
    warn_caller(f"numpy's {name} gives complex numbers, which are not rounded to the format; use their parts.")
    mode.report.remark(f"not emulated: complex results of {name}")


def _find(args: Any, kwargs: Any) -> _Mode | None:
    """Return the mode of the first such array among arguments, lists of arrays included."""
    for x in [*args, *kwargs.values()]:
        if isinstance(x, EveryOperation):
            return x._mode
        if isinstance(x, list | tuple) and (found := _find(x, {})) is not None:
            return found
    return None


def _plain(x: Any) -> Any:
    return x.view(np.ndarray) if isinstance(x, EveryOperation) else x


def _is_tuple(x: Any) -> bool:
    return isinstance(x, tuple)


def _common(inputs: Any) -> _Mode:
    """Return the mode of the arrays in an operation; they must have one."""
    modes = [x._mode for x in inputs if isinstance(x, EveryOperation)]
    for mode in modes[1:]:
        if mode is not modes[0] and (mode.format, mode.request) != (modes[0].format, modes[0].request):
            raise ArgumentError(
                f"the operands round to {modes[0].format.name!r} and {mode.format.name!r} or in two ways; "
                "convert one of them first."
            )
    return modes[0]


def _stored(target: Any, result: Any) -> Any:
    np.copyto(_plain(target), _plain(result), casting="same_kind")
    return target


def _compute(mode: _Mode, ufunc: np.ufunc, method: str, plain: list[Any], options: dict[str, Any]) -> Any:
    name = ufunc.__name__
    chained = mode.sums == "each" and ufunc in (np.add, np.multiply, np.subtract)
    with np.errstate(all="ignore"):
        if ufunc in (np.matmul, np.vecdot):
            return PRODUCTS_OF_ARRAYS[name](mode, *plain)
        if method in ("reduce", "accumulate") and chained:
            return _chain(mode, ufunc, method, plain[0], **options)
        result = getattr(ufunc, method)(*plain, **options)
    if isinstance(result, tuple):
        return tuple(mode.round(name, r) for r in result)
    return mode.round(name, result)


def _chain(
    mode: _Mode, ufunc: Any, method: str, x: Any, axis: Any = 0, dtype: Any = None, keepdims: bool = False,
    initial: Any = None, where: Any = True,
) -> Any:  # fmt: skip
    """Reduce or accumulate one element after another, rounding each time."""
    x = np.asarray(x)
    if where is not True or x.dtype.kind not in "fiub":
        raise ArgumentError(f"numpy.{ufunc.__name__}.{method} of {x.dtype} numbers or with where= is not emulated.")
    axes = tuple(range(x.ndim)) if axis is None else tuple(a % x.ndim for a in np.atleast_1d(axis)) if x.ndim else ()
    kept = [a for a in range(x.ndim) if a not in axes]
    moved = np.transpose(x, [*axes, *kept]).reshape(-1, *[x.shape[a] for a in kept]).astype(np.float64)
    total: Any = None if initial is None else np.full(moved.shape[1:], float(initial))
    partial = []
    for row in moved:
        total = row if total is None else mode.round(ufunc.__name__, ufunc(total, row))
        partial.append(total)
    if method == "accumulate":
        return np.moveaxis(np.array(partial).reshape(moved.shape), 0, axes[0])
    if total is None:
        total = np.full(moved.shape[1:], float(ufunc.identity or 0))
    return np.reshape(total, [1 if a in axes else x.shape[a] for a in range(x.ndim)]) if keepdims else total


_TOWARD_ZERO = make_request("toward_zero", "saturate", 0, None, 0, "keep", QUANTIZE_NAN)
#: Functions that compute where NumPy does not let one look: LAPACK's, and those that sum inside.
_INSIDE = {
    *("einsum", "convolve", "correlate", "tensordot", "solve", "inv", "lstsq", "cholesky", "qr", "svd", "eig", "eigh"),
    *("eigvals", "eigvalsh", "det", "slogdet", "pinv", "matrix_power", "tensorsolve", "tensorinv"),
}
#: Functions that only move numbers: those from outside are rounded as they come in.
_MOVES = {
    *("where", "concatenate", "stack", "vstack", "hstack", "dstack", "column_stack", "block", "append", "insert"),
    *("pad", "select", "choose", "full_like", "nan_to_num"),
}
