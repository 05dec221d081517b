"""A product of matrices as data: what a compiled program, or an operator that takes no Python objects, is made for."""

from __future__ import annotations

import json
import math
from dataclasses import fields
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from lowp._errors import ArgumentError
from lowp.emulation import _unit_rows, _unit_run
from lowp.emulation._side import Side
from lowp.emulation.accumulator import Accumulator, Alignment
from lowp.emulation.gauss_table import GaussTable
from lowp.emulation.matmul import (
    Operand,
    as_float64,
    beyond,
    plain_format,
    product,
    resolved,
    result_dtype,
    result_format,
    stored_format,
)
from lowp.emulation.matrix_units import MatrixUnit
from lowp.formats.block import Block
from lowp.formats.spec import Format, ScalarFormat
from lowp.rounding import verbs
from lowp.rounding._format_keys import format_of, key_of
from lowp.rounding._namespaces import Namespace
from lowp.rounding._portable import quantize_values
from lowp.rounding._portable_bits import widen
from lowp.rounding._portable_doubles import narrow
from lowp.rounding._portable_shapes import spread
from lowp.rounding.encoded import Encoded
from lowp.rounding.request import QUANTIZE_NAN, make_request

_KINDS: dict[str, Any] = {kind.__name__: kind for kind in (Accumulator, Alignment, GaussTable, MatrixUnit)}


class Kind(NamedTuple):
    """What is known of an operand besides its numbers."""

    format: ScalarFormat
    scale: ScalarFormat | None = None
    block: int = 1


class Product(NamedTuple):
    """How two arrays are multiplied: the unit or accumulator, their formats, and what results are stored in."""

    how: MatrixUnit | Accumulator
    a: Kind
    b: Kind
    fmt: ScalarFormat | None = None

    @property
    def own(self) -> ScalarFormat:
        """Format of the results before they are stored."""
        return result_format(self.how)

    @property
    def dtype(self) -> str:
        """Dtype of the results."""
        return result_dtype(self.fmt or self.own)

    @property
    def accumulator(self) -> Accumulator:
        """How the sums are kept."""
        return self.how.accumulator if isinstance(self.how, MatrixUnit) else self.how


class Arrays(NamedTuple):
    """The arrays of a product; scales, addend and the factor of all results may be None."""

    a: Any
    b: Any
    c: Any = None
    scale_a: Any = None
    scale_b: Any = None
    alpha: Any = None


class Given(NamedTuple):
    """What an operand was given as: a dtype's name, or a format or its key, with what is said of its blocks."""

    format: str | Format
    axis: Any = None
    ndim: int = 0
    zero_points: bool = False

    @classmethod
    def of(cls, x: Any) -> Given:
        """Return what an array or an encoded one is given as."""
        if isinstance(x, Encoded):
            key = getattr(x, "_traced_key") if hasattr(x, "_traced_key") else x.format  # noqa: B009
            return cls(key, x.axis, len(x.codes.shape), x.zero_points is not None)
        return cls(str(x.dtype).removeprefix("torch."))

    def kind(self, role: str, axis: int) -> Kind:
        """Return what is known of the operand, whose sum runs along an axis.

        Raises:
            ArgumentError: It has zero points, or blocks along another axis than the sum's.
        """
        if isinstance(self.format, str) and not self.ndim:
            return Kind(plain_format(self.format))
        fmt = format_of(self.format) if isinstance(self.format, str) else self.format
        if isinstance(fmt, ScalarFormat):
            return Kind(fmt)
        if not isinstance(fmt, Block) or self.zero_points or not isinstance(fmt.element, ScalarFormat):
            raise ArgumentError(
                f"{role} is encoded in {fmt.name!r}; products take elements with block scales and no zero points. "
                "Decode it first."
            )
        along = self.axis
        if not isinstance(along, int) or not isinstance(fmt.size, int) or along % self.ndim != axis % self.ndim:
            raise ArgumentError(
                f"{role} has blocks along axis {along!r} of an array of {self.ndim} dimensions; a product needs them "
                f"along its own sum, axis {axis}: encode it with axis={axis}."
            )
        return Kind(fmt.element, fmt.scale, fmt.size)


def described(unit: Any, accumulator: Any, a: Given, b: Given, fmt: Any) -> Product:
    """Return the product that the arguments of `lowp.matmul` ask for.

    Raises:
        ArgumentError, ArgumentTypeError, FormatError: They do not fit together.
    """
    if unit is None and accumulator is None:
        accumulator = "float64" if "float64" in (a.format, b.format) else "float32"
    how = resolved(unit, accumulator, (None, None))
    given = Product(how, a.kind("a", -1), b.kind("b", -2), None if fmt is None else stored_format(fmt))
    check_blocks(given)
    return given


def check_blocks(given: Product) -> None:
    """Raise ArgumentError if a unit does not take the operands' block scales."""
    if not isinstance(given.how, MatrixUnit):
        return
    for role, kind in (("a", given.a), ("b", given.b)):
        if kind.scale is not None and kind.block != given.how.block:
            takes = f"takes blocks of {given.how.block}" if given.how.block else "has no block scales"
            raise ArgumentError(f"{role} has scales for blocks of {kind.block}; {given.how.name!r} {takes}.")


# On the CPU


def with_numpy(given: Product, arrays: Arrays, multiplied: Any = product) -> Any:
    """Return the product of NumPy arrays of matrices; `multiplied` computes it from operands, as `matmul.product`."""
    sides = [
        Operand(as_float64(np.asarray(x), role), kind.format, _float64(scale), kind.scale, kind.block)
        for role, x, kind, scale in (("a", arrays.a, given.a, arrays.scale_a), ("b", arrays.b, given.b, arrays.scale_b))
    ]
    addend = None if arrays.c is None else as_float64(np.asarray(arrays.c), "c")
    result = multiplied(given.how, sides[0], sides[1], addend)
    if arrays.alpha is not None:
        result = np.asarray(verbs.quantize(result * np.float64(arrays.alpha), given.own, overflow=beyond(given.own)))
    if given.fmt is not None:
        result = np.asarray(verbs.quantize(result, given.fmt, overflow=beyond(given.fmt)))
    return result.astype(given.dtype)


def _float64(x: Any) -> Any:
    return None if x is None else np.asarray(x).astype(np.float64)


# As array code


def lacks(given: Product) -> str | None:
    """Return what of a product array code does not have, in words; None: nothing."""
    from lowp.emulation import _portable_sums

    left, right = _kinds(given)
    return _portable_sums.lacks(
        given.accumulator,
        Side(None, left.format, None, left.scale, left.block),
        Side(None, right.format, None, right.scale, right.block),
    )


def _kinds(given: Product) -> tuple[Kind, Kind]:
    """Return the operands' formats as the sum sees them."""
    unit = given.how
    if not isinstance(unit, MatrixUnit):
        return given.a, given.b
    scale = _unit_rows.coding(unit.scale).format if unit.scale else None
    left, right = (Kind(_unit_rows.coding(unit.reads or x).format, scale, unit.block or 1) for x in (unit.a, unit.b))
    return left, right


def as_array_code(xp: Namespace, given: Product, arrays: Arrays, keys: Any = None) -> Any:
    """Return the product, one that lacks nothing, of arrays of any library; operands are matrices.

    `keys`: those of random bits, which may be traced, instead of the accumulator's seed.

    A value that an operand's format does not have raises an error where it can be looked at, and becomes NaN elsewhere.
    """
    from lowp.emulation import _portable_sums

    with xp.wide(), np.errstate(all="ignore"):
        values = _read(xp, given, arrays)
        a, b, c, lead = _shaped(xp, *values[:3])
        scales = [_flat(xp, s, lead) for s in values[3:]]
        left, right = _kinds(given)
        if left.scale is not None and (scales[0] is None or scales[1] is None):
            scales = _unit_scales(xp, left.block, a, b, scales)
        sides = [
            Side(x, kind.format, s, None if s is None else kind.scale, kind.block)
            for x, kind, s in ((a, left, scales[0]), (b, right, scales[1]))
        ]
        unit = given.how
        addend = unit.formats["c"] if isinstance(unit, MatrixUnit) else unit.format
        result = _portable_sums.sums(sides[0], sides[1], c, given.accumulator, addend, keys, xp)  # type: ignore[arg-type]
        result = result.reshape((*lead, a.shape[1], b.shape[2]))
        if arrays.alpha is not None:
            result = _store(xp, result * float64(xp, arrays.alpha), given.own)
        if given.fmt is not None:
            result = _store(xp, result, given.fmt)
        return narrow(xp, result, given.dtype)


def float64(xp: Namespace, x: Any) -> Any:
    """Return numbers as float64, exactly."""
    name = xp.dtype_name(x)
    if name in ("float16", "bfloat16", "float32", "float64"):
        return xp.floats(widen(xp, xp.bits(x), name, 64), "float64")
    return xp.cast(xp.cast(x, "float32") if name.startswith("float8") else x, "float64")


def _store(xp: Namespace, x: Any, fmt: ScalarFormat) -> Any:
    return quantize_values(xp, x, fmt, make_request("ties_to_even", beyond(fmt), 0, None, 0, "keep", QUANTIZE_NAN))


def _read(xp: Namespace, given: Product, arrays: Arrays) -> list[Any]:
    """Return the numbers as the unit, or the accumulator, reads them: a, b, c and the scales."""
    unit = given.how
    plain: list[Any] = [None if x is None else float64(xp, x) for x in arrays[:5]]
    if not isinstance(unit, MatrixUnit):
        if plain[2] is not None:
            plain[2] = _checked(xp, plain[2], given.own, "c")
        return plain
    for i, name in enumerate((unit.a, unit.b, unit.c)):
        known = (given.a, given.b, None)[i]
        coding = _unit_rows.coding(name)
        if plain[i] is None or (known is not None and known.format == coding.format):
            continue
        if coding.ignored:
            plain[i] = _truncated(xp, plain[i], coding.format, "abc"[i])
        else:
            plain[i] = _checked(xp, plain[i], coding.format, "abc"[i])
    return plain


def _truncated(xp: Namespace, x: Any, fmt: ScalarFormat, role: str) -> Any:
    x = _checked(xp, x, format_of("float32"), role)  # type: ignore[arg-type]
    return quantize_values(
        xp, x, fmt, make_request("toward_zero", _unit_run.keeping(fmt), 0, None, 0, "keep", QUANTIZE_NAN)
    )


def _checked(xp: Namespace, x: Any, fmt: ScalarFormat, role: str) -> Any:
    read = quantize_values(
        xp, x, fmt, make_request("ties_to_even", _unit_run.keeping(fmt), 0, None, 0, "keep", QUANTIZE_NAN)
    )
    right = (read == x) | (x != x)
    seen = xp.require(right, x, lambda: ArgumentError(_wrong(xp, x, right, fmt, role)))
    return x if seen else xp.where(right, x, float("nan"))


def _wrong(xp: Namespace, x: Any, right: Any, fmt: ScalarFormat, role: str) -> str:
    some = "numbers" if not xp.is_concrete(x) else repr(float(x[~right].reshape(-1)[0]))
    return (
        f"{role} holds {some}, which {fmt.name!r} does not have; round it first: lowp.quantize({role}, {fmt.name!r})."
    )


def _shaped(xp: Namespace, a: Any, b: Any, c: Any) -> tuple[Any, Any, Any, tuple[int, ...]]:
    """Return operands with one batch axis, and the batch's shape."""
    lead = _unit_run.lead_shape(a.shape, b.shape, None if c is None else c.shape)
    shape = (*lead, a.shape[-2], b.shape[-1])
    c = _zeros(xp, a, shape) if c is None else spread(xp, c, shape)
    return (
        _flat(xp, a, lead),
        _flat(xp, b, lead),
        c.reshape((math.prod(lead), *shape[-2:])),
        lead,
    )


def _zeros(xp: Namespace, like: Any, shape: tuple[int, ...]) -> Any:
    return xp.cast(xp.iota(shape, 0, "int64", like) * 0, "float64")


def _flat(xp: Namespace, x: Any, lead: tuple[int, ...]) -> Any:
    if x is None:
        return None
    whole = spread(xp, x, (*lead, *x.shape[-2:]))
    return whole.reshape((math.prod(lead), *x.shape[-2:]))


def _unit_scales(xp: Namespace, block: int, a: Any, b: Any, scales: list[Any]) -> list[Any]:
    """Return scales, ones where none are given."""
    blocks = -(-a.shape[2] // block)
    wanted = (a.shape[0], a.shape[1], blocks), (b.shape[0], blocks, b.shape[2])
    return [_zeros(xp, a, shape) + 1.0 if s is None else s for s, shape in zip(scales, wanted, strict=True)]


# As text


@lru_cache(maxsize=256)
def text_of(given: Product) -> str:
    """Return a product as a string, which `product_of` reads; the same in every process."""
    kinds = [[x.format, x.scale, x.block] for x in (given.a, given.b)]
    return json.dumps([_plain(x) for x in (given.how, kinds, given.fmt)])


@lru_cache(maxsize=256)
def product_of(text: str) -> Product:
    """Return the product of a string that `text_of` made."""
    how, kinds, fmt = (_made(x) for x in json.loads(text))
    return Product(how, Kind(*kinds[0]), Kind(*kinds[1]), fmt)


def _plain(x: Any) -> Any:
    if isinstance(x, Format):
        return {"format": key_of(x)}
    if type(x).__name__ in _KINDS:
        own = {f.name: getattr(x, f.name) for f in fields(x)}
        return {"kind": type(x).__name__, **{name: _plain(value) for name, value in own.items() if value is not None}}
    return [_plain(y) for y in x] if isinstance(x, list | tuple) else x


def _made(x: Any) -> Any:
    if isinstance(x, dict) and "kind" in x:
        given = {name: _made(value) for name, value in x.items() if name != "kind"}
        return _KINDS[x["kind"]](**given)
    if isinstance(x, dict):
        return format_of(x["format"])
    return [_made(y) for y in x] if isinstance(x, list) else x


__all__ = [
    "Arrays",
    "Given",
    "Kind",
    "Product",
    "as_array_code",
    "described",
    "lacks",
    "product_of",
    "text_of",
    "with_numpy",
]
