"""Hypothesis strategies: formats, codes, and the numbers on which conversions go wrong.

    >>> import lowp
>>> from hypothesis import given, settings
>>> @settings(max_examples=10, derandomize=True, database=None)
... @given(values("float8_e4m3fn"))
... def test_never_beyond_the_largest(x):
...     assert not abs(lowp.quantize(x, "float8_e4m3fn")) > 448
>>> test_never_beyond_the_largest()
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hypothesis_numpy
from hypothesis.strategies import SearchStrategy
from numpy.typing import NDArray

from lowp._errors import ArgumentError, unknown_name
from lowp.formats import Block, Format, ScalarFormat, parse
from lowp.formats.integer import Fixed, Integer
from lowp.formats.spec import to_float
from lowp.formats.tables import code_dtype
from lowp.rounding import modes
from lowp.testing import _points
from lowp.testing._families import FAMILIES, WIDTHS

__all__ = ["arrays", "blocks", "code_arrays", "codes", "formats", "overflow_modes", "rounding_modes", "values"]


def formats(families: Sequence[str] | None = None, *, min_bits: int = 2, max_bits: int = 16) -> SearchStrategy[Format]:
    """Generate formats, registered or not; simple ones first.

    Args:
        families: Which of "float" (any convention), "p3109", "integer", "fixed", "codebook", "posit", "takum", "lns"
            and "block"; default all but "block".
        min_bits: Fewest bits of a code, 2 or more; of blocks those of an element.
        max_bits: Most bits of a code, at most 64.

    Raises:
        ArgumentError: An unknown family, or bounds that leave no format. Families that have none are left out.

    Example:
        >>> from hypothesis import find, settings
        >>> plain = settings(derandomize=True, database=None)
        >>> find(formats(["posit"], min_bits=6), lambda fmt: True, settings=plain)
        Posit(bits=6, es=0)
    """
    chosen = [name for name in FAMILIES if name != "block"] if families is None else list(families)
    for name in chosen:
        if name not in FAMILIES:
            raise ArgumentError(unknown_name("families", name, FAMILIES))
    bounds = {name: (max(min_bits, WIDTHS[name][0]), min(max_bits, WIDTHS[name][1])) for name in chosen}
    found = st.one_of(*(FAMILIES[name](low, high) for name, (low, high) in bounds.items() if low <= high))
    if not 2 <= min_bits <= max_bits <= 64 or found.is_empty:
        raise ArgumentError(f"families={families!r}, min_bits={min_bits!r}, max_bits={max_bits!r} leave no format.")
    return found


def codes(fmt: Format | str, *, allow_nan: bool = True) -> SearchStrategy[int]:
    """Generate codes of a format: any, and often those next to zero, powers of two and the ends.

    Args:
        fmt: A scalar format of at most 64 bits, or its name.
        allow_nan: Whether NaN codes are among them.

    Raises:
        ArgumentError: Another format.

    Example:
        >>> import lowp
        >>> from hypothesis import find, settings
        >>> plain = settings(derandomize=True, database=None)
        >>> find(codes("float8_e4m3fn"), lambda code: lowp.decode(code, "float8_e4m3fn") > 1, settings=plain)
        57
    """
    form = _points.scalar(fmt)
    count = 1 << form.bits
    corner = st.sampled_from(
        sorted({(1 << k) + d for k in range(form.bits + 1) for d in (-2, -1, 0, 1) if k or d >= 0})
    )
    any_code = st.one_of(st.integers(0, count - 1), corner.map(lambda code: code % count))
    return any_code if allow_nan else any_code.filter(lambda code: form.meaning(code) != "nan")


def values(
    fmt: Format | str, *, dtype: Any = "float64", allow_nan: bool | None = None, allow_infinity: bool = True
) -> SearchStrategy[float]:
    """Generate floats at which rounding to a format is delicate.

    Values of the format, the points where rounding to nearest changes over, numbers a few ulps beside both, numbers
    below the smallest value and beyond the largest, subnormals of the dtype, zeros of both signs, infinities, NaN, and
    any other float.

    Args:
        fmt: A scalar format of at most 64 bits, or its name.
        dtype: The dtype whose floats are meant: "float16", "float32" or "float64".
        allow_nan: Whether NaN is among them; default: where the format has it.
        allow_infinity: Whether infinities are.

    Raises:
        ArgumentError: Another format or dtype.

    Example:
        >>> import lowp
        >>> from hypothesis import find, settings
        >>> plain = settings(derandomize=True, database=None)
        >>> find(values("int4"), lambda x: lowp.quantize(x, "int4") < x - 1, settings=plain)
        9.0
    """
    form, kind = _points.scalar(fmt), _points.float_dtype(dtype)
    with_nan = form.has_nan if allow_nan is None else allow_nan

    def beside(part: SearchStrategy[str], steps: SearchStrategy[int]) -> SearchStrategy[float]:
        return st.builds(lambda code, where, count: _beside(form, kind, code, where, count), codes(form), part, steps)

    turning, next_to_turning = beside(st.just("turn"), st.just(0)), beside(st.just("turn"), st.sampled_from([1, -1]))
    plain = st.floats(
        width=16 if kind.itemsize == 2 else 32 if kind.itemsize == 4 else 64,
        allow_nan=False,
        allow_infinity=allow_infinity,
    )
    specials = [0.0, -0.0] + [math.inf, -math.inf] * allow_infinity + [math.nan] * with_nan
    found = st.one_of(turning, next_to_turning, beside(_PARTS, _STEPS), plain, st.sampled_from(specials))
    return found if allow_infinity else found.filter(lambda x: not math.isinf(x))


_PARTS = st.sampled_from(["turn", "value", "between", "quarter"])
_STEPS = st.sampled_from([0, 1, -1, 2, -2, 3, -3])


def _beside(fmt: ScalarFormat, dtype: np.dtype[Any], code: int, part: str, steps: int) -> float:
    """Return a float some ulps from a value, from its turning point, or from a point between; specials as floats."""
    value = fmt.meaning(code)
    if isinstance(value, str):
        return {"inf": math.inf, "-inf": -math.inf, "-0": -0.0}.get(value, 0.0)
    turn = next(iter(_points.turns(code, fmt)), value)
    middle = {"turn": turn, "value": value, "between": (turn + value) * Fraction(1, 2)}.get(
        part, value * Fraction(1, 4)
    )
    with np.errstate(over="ignore", under="ignore"):
        x = dtype.type(to_float(middle))
        for _ in range(abs(steps)):
            x = np.nextafter(x, dtype.type(math.copysign(math.inf, steps)))
    return float(x)


def arrays(
    fmt: Format | str,
    shape: Any = None,
    *,
    dtype: Any = "float32",
    allow_nan: bool | None = None,
    allow_infinity: bool = True,
) -> SearchStrategy[NDArray[Any]]:
    """Generate arrays of the floats of `values`.

    Args:
        fmt: A scalar format of at most 64 bits, or its name.
        shape: A shape, or a strategy of shapes; default one to three axes of one to eight elements.
        dtype: As `values`.
        allow_nan: As `values`.
        allow_infinity: As `values`.

    Raises:
        ArgumentError: As `values`.

    Example:
        >>> from hypothesis import find, settings
        >>> plain = settings(derandomize=True, database=None)
        >>> find(arrays("int8", (2, 3)), lambda x: x.sum() > 0, settings=plain).shape
        (2, 3)
    """
    elements = values(fmt, dtype=dtype, allow_nan=allow_nan, allow_infinity=allow_infinity)
    return hypothesis_numpy.arrays(_points.float_dtype(dtype), _shape(shape), elements=elements)


def code_arrays(fmt: Format | str, shape: Any = None, *, allow_nan: bool = True) -> SearchStrategy[NDArray[Any]]:
    """Generate arrays of the codes of `codes`, in the smallest unsigned dtype.

    Args:
        fmt: A scalar format of at most 64 bits, or its name.
        shape: As `arrays`.
        allow_nan: As `codes`.

    Raises:
        ArgumentError: As `codes`.

    Example:
        >>> from hypothesis import find, settings
        >>> plain = settings(derandomize=True, database=None)
        >>> find(code_arrays("posit16_es1", 3), lambda codes: codes.any(), settings=plain).dtype
        dtype('uint16')
    """
    dtype = np.dtype(code_dtype(parse(fmt).bits))
    return hypothesis_numpy.arrays(dtype, _shape(shape), elements=codes(fmt, allow_nan=allow_nan))


def _shape(shape: Any) -> Any:
    return hypothesis_numpy.array_shapes(max_dims=3, max_side=8) if shape is None else shape


def blocks(
    fmt: Format | str, *, max_rows: int = 2, max_blocks: int = 2, dtype: Any = "float32", allow_nonfinite: bool = False
) -> SearchStrategy[NDArray[Any]]:
    """Generate two-dimensional arrays for a block format, whose blocks have scales that are hard to get right.

    The largest magnitude of a block lies at or an ulp beside a power of two or the format's own steps, at the ends of
    what the scale holds and beyond them, or is zero; the others are small against it or at ties of the element format
    under that scale. The last block may be shorter.

    Args:
        fmt: A block format with blocks along one axis, or its name.
        max_rows: Most rows.
        max_blocks: Most blocks in a row.
        dtype: As `values`.
        allow_nonfinite: Whether some element may be NaN or infinite.

    Raises:
        ArgumentError: Another format.

    Example:
        >>> from hypothesis import find, settings
        >>> plain = settings(derandomize=True, database=None)
        >>> find(blocks("mxfp4", max_blocks=1), lambda x: x.any(), settings=plain).shape[0]
        1
    """
    form, kind = parse(fmt), _points.float_dtype(dtype)
    if not isinstance(form, Block) or isinstance(form.size, tuple):
        raise ArgumentError(f"fmt={form.name!r} must be a block format with blocks along one axis.")
    size = form.size if isinstance(form.size, int) else 8
    amax, ratios = _amax(form, kind), _ratio(form.element)
    lengths = st.integers(1, max_blocks).flatmap(lambda count: st.integers((count - 1) * size + 1, count * size))
    return _block_rows(size, kind, st.integers(1, max_rows), lengths, amax, ratios, allow_nonfinite)


@st.composite
def _block_rows(
    draw: Any,
    size: int,
    dtype: np.dtype[Any],
    rows: SearchStrategy[int],
    lengths: SearchStrategy[int],
    amax: SearchStrategy[float],
    ratios: SearchStrategy[float],
    allow_nonfinite: bool,
) -> NDArray[Any]:
    result = np.zeros((draw(rows), draw(lengths)), dtype)
    for row in result:
        for start in range(0, len(row), size):
            room = min(size, len(row) - start)
            few = draw(st.lists(ratios, max_size=min(room - 1, 6)))
            with np.errstate(over="ignore", under="ignore"):
                block = np.clip(np.array([1.0, *few]) * draw(amax), *_finite_ends(dtype))
            place = start + draw(st.integers(0, room - len(block)))
            row[place : place + len(block)] = block
    if allow_nonfinite and draw(st.booleans()):
        place = draw(st.integers(0, result.size - 1))
        result.flat[place] = draw(st.sampled_from([math.nan, math.inf, -math.inf]))
    return result


def _finite_ends(dtype: np.dtype[Any]) -> tuple[float, float]:
    return float(np.finfo(dtype).min), float(np.finfo(dtype).max)


def _amax(fmt: Block, dtype: np.dtype[Any]) -> SearchStrategy[float]:
    """Largest magnitudes: the largest element times a delicate scale, powers of two and their neighbours, the ends."""
    ends = np.finfo(dtype)
    exponents = st.integers(int(ends.minexp) + 2, int(ends.maxexp) - 2)
    powers = st.builds(
        lambda e, ulps: math.ldexp(1 + ulps * float(ends.eps), e), exponents, st.sampled_from([0, 1, -1])
    )
    scales = values(fmt.scale, dtype=dtype, allow_nan=False, allow_infinity=False)
    scaled = scales.map(lambda scale: min(abs(scale), float(ends.max)) * fmt.element.max)
    special = st.sampled_from([1.0, 0.0, float(ends.max), float(ends.smallest_subnormal), float(ends.tiny)])
    return st.one_of(special, powers, scaled)


def _ratio(element: ScalarFormat) -> SearchStrategy[float]:
    """Elements as parts of the largest magnitude: at values and ties of the element format, or tiny."""
    inside = values(element, dtype="float64", allow_nan=False, allow_infinity=False)
    return inside.map(lambda x: max(-1.0, min(1.0, x / element.max)))


def rounding_modes(*, stochastic: bool = True) -> SearchStrategy[str]:
    """Generate names of rounding modes; the default one first.

    Args:
        stochastic: Whether stochastic modes are among them.

    Example:
        >>> from hypothesis import find, settings
        >>> plain = settings(derandomize=True, database=None)
        >>> find(rounding_modes(), lambda name: True, settings=plain)
        'ties_to_even'
    """
    return st.sampled_from([name for name in modes.ROUNDING_MODES if stochastic or not name.startswith("stochastic_")])


def overflow_modes(fmt: Format | str) -> SearchStrategy[str]:
    """Generate names of the overflow modes that a format allows; "saturate" first.

    Args:
        fmt: A format or its name.

    Example:
        >>> from hypothesis import find, settings
        >>> plain = settings(derandomize=True, database=None)
        >>> find(overflow_modes("uint8"), lambda name: name.startswith("wrap"), settings=plain)
        'wrap'
    """
    form = parse(fmt)
    wraps = isinstance(form, Integer | Fixed)
    names = [name for name in modes.OVERFLOW_MODES if wraps or name not in modes.INTEGER_ONLY]
    if wraps and not getattr(form, "signed", True):
        names.remove("wrap_sign_magnitude")
    return st.sampled_from(names)
