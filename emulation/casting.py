"""Casting one operand: rotate, scale, round by a method. Written once; a `World` supplies the arrays of a framework."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from lowp._errors import ArgumentError
from lowp.emulation.casts import Cast
from lowp.formats import Block, Format, Packed, ScalarFormat, parse


class World(Protocol):
    """The array operations that casting needs: one class per framework; `lowp.emulation._numpy_world` is the example.

    Arrays have shape, ndim, dtype, arithmetic and comparison operators, and slicing. Python numbers beside an array
    take its dtype. Results must not depend on the framework, so nothing here may reorder or contract float operations.
    """

    def widen(self, x: Any) -> Any:
        """Return float16 and bfloat16 as float32, exactly; anything else as it is."""

    def quantize(
        self,
        x: Any,
        fmt: Format,
        *,
        rounding: str = "ties_to_even",
        overflow: str = "saturate",
        random_bits: int | None = None,
        seed: Any = 0,
        axis: Any = -1,
        shard: Any = None,
        amax: Any = None,
    ) -> Any:
        """Return `x` rounded as `lowp.quantize` rounds it.

        `axis`: ignored for scalar formats; a pair for tiles. `shard`: where `x` lies in a larger array whose positions
        the random bits follow. `amax`: the tensor's largest magnitude, where `x` is a piece of it; else None.
        """

    def encode(
        self,
        x: Any,
        fmt: Block,
        *,
        rounding: str = "ties_to_even",
        overflow: str = "saturate",
        random_bits: int | None = None,
        seed: Any = 0,
        axis: Any = -1,
        shard: Any = None,
        amax: Any = None,
    ) -> tuple[Any, Any, Any]:
        """Return elements and block scales as float32 or float64, and the tensor scale or None; as `quantize` does."""

    def hadamard(self, x: Any, block: int, axis: int, sign_seed: Any = None, inverse: bool = False) -> Any:
        """Return `lowp.rounding.hadamard`: random signs by `sign_seed` (None: none), then the orthonormal transform."""

    def limits(self, x: Any, fmt: Format, axis: Any) -> tuple[Any, Any]:
        """Return the least and the largest value of the format (in blocks: of each number's block, as `x` sets it)."""

    def uniform(self, x: Any, seed: Any, shard: Any = None) -> Any:
        """Return float32 numbers `(word(seed, position) >> 8) * 2^-24` in the shape of `x`; see `random_bits`."""

    def scalar(self, value: float, x: Any) -> Any:
        """Return a number as an array without dimensions, in the dtype and on the device of `x`."""

    def largest(self, x: Any, axis: int | None = None) -> Any:
        """Return the largest element along an axis, which is kept with length 1, or of all; 0 of none; NaN stays."""

    def abs(self, x: Any) -> Any:
        """Return magnitudes."""

    def sqrt(self, x: Any) -> Any:
        """Return correctly rounded square roots."""

    def round(self, x: Any) -> Any:
        """Return the nearest integers, ties to even."""

    def where(self, condition: Any, a: Any, b: Any) -> Any:
        """Return `a` where the condition holds, else `b`; one of them may be a Python number."""

    def isfinite(self, x: Any) -> Any:
        """Return which numbers are finite."""

    def reshape(self, x: Any, shape: tuple[int, ...]) -> Any:
        """Return the elements in C order in another shape."""

    def moveaxis(self, x: Any, source: int, destination: int) -> Any:
        """Return `x` with one axis moved."""

    def concatenate(self, parts: list[Any]) -> Any:
        """Return arrays joined along the last axis."""

    def is_positive(self, x: Any) -> Any:
        """Return which numbers are greater than 0, subnormal ones too, which a compiler may take for 0."""

    def product(self, x: Any, factor: Any) -> Any:
        """Return the correctly rounded products with one number, subnormal operands and results kept, unfused."""

    def quotient(self, a: Any, b: Any) -> Any:
        """Return the correctly rounded quotient of two single numbers, subnormal ones kept, unfused."""

    def fence(self, x: Any) -> Any:
        """Return `x`; a compiler must not fuse what made it with what uses it (no multiply-add for a product)."""


class Rounded(NamedTuple):
    """An operand in low precision.

    Attributes:
        values: The values that the product uses, in the basis of the cast's rotation; at least float32.
        mask: Where the gradient with respect to `values` passes (it is 0 elsewhere), in the same basis; None: all.
        amax: Largest magnitude of what was scaled, where the cast has a scale in front of a scalar format.
        parts: The `Elements` of the operand, where a matrix unit sums them; None elsewhere.
    """

    values: Any
    mask: Any = None
    amax: Any = None
    parts: Any = None


def round_operand(
    world: World,
    x: Any,
    cast: Cast,
    *,
    axis: int,
    outer: int | None = None,
    seed: Any = 0,
    sign_seed: Any = None,
    scale: Any = None,
    shard: Any = None,
    amax: Callable[[Any], Any] | None = None,
    forward: Rounded | None = None,
    apart: bool = False,
) -> Rounded:
    """Return one operand of a product in low precision: rotated, scaled, rounded by the cast's method, scaled back.

    A cast that changes nothing returns `x` as it is. Everything else computes in float32, or float64 for float64.

    Args:
        world: The framework.
        x: The operand in high precision.
        cast: What to do.
        axis: Axis that the product sums over.
        outer: The other axis of the product, along which tiles have their rows; default the one before `axis`.
        seed: Seed of the random bits.
        sign_seed: Seed of the rotation's signs, where the cast has signs; see `lowp.emulation.seeds.sign_seed`.
        scale: Scale of a cast with delayed scaling, from `scale_of` on its history; None: 1, or by this tensor's amax.
        shard: Where `x` lies in a larger array, or None.
        amax: Returns the largest magnitude over all pieces of a tensor from that of this piece; None for one piece.
        forward: What the forward pass made of this operand: a cast with `reuse` takes it, and `requantize` rounds it.
        apart: Whether elements and scales are wanted apart too, as `parts`, for a matrix unit.

    Raises:
        ArgumentError: A length does not fit the rotation or the method.
    """
    if cast.reuse:
        if forward is None:
            raise ArgumentError("the cast reuses what the forward pass rounded, which is not there.")
        if not cast.requantize:
            return forward if apart else Rounded(forward.values)
        x = forward.values
    if not (cast.format or cast.hadamard):
        return Rounded(x, parts=_plain_parts(x, None, apart))
    x = world.widen(x)
    if 0 in x.shape:
        return Rounded(x, amax=world.scalar(0.0, x), parts=_plain_parts(x, None, apart))
    axis, outer = _axes(x.ndim, axis, outer)
    if cast.hadamard:
        x = rotate(world, x, cast, axis, sign_seed)
    if not cast.format:
        return Rounded(x, parts=_plain_parts(x, None, apart))
    if cast.scaling != "none":
        return _scaled(world, x, cast, seed=seed, scale=scale, shard=shard, amax=amax, apart=apart)
    fmt = parse(cast.format)
    blocked: Any = {"contraction": axis, "outer": outer, "last": x.ndim - 1}[cast.axis]
    if _is_tiled(fmt):
        blocked = (outer, axis)
    from lowp.emulation.methods import METHODS

    values, mask = METHODS[cast.method](world, x, cast, fmt, axis=blocked, seed=seed, shard=shard, combine=amax)
    parts = None
    if apart:
        parts = _plain_parts(values, fmt, apart) if isinstance(fmt, ScalarFormat) else _block_parts(
            world, x, cast, fmt, blocked, (outer, axis), seed=seed, shard=shard, amax=amax
        )  # fmt: skip
    return Rounded(values, _mask(world, x, cast, fmt, blocked) if mask is None else mask, parts=parts)


def _plain_parts(values: Any, fmt: Any, apart: bool) -> Any:
    """Return elements that have no scales."""
    if not apart:
        return None
    from lowp.emulation._unit_sums import Elements

    return Elements(values, fmt)


def _block_parts(
    world: World,
    x: Any,
    cast: Cast,
    fmt: Format,
    blocked: Any,
    axes: tuple[int, int],
    *,
    seed: Any,
    shard: Any,
    amax: Any,
) -> Any:
    """Return the elements and scales of an operand whose two axes are the last ones."""
    from lowp.emulation._unit_sums import Elements, separate

    separate(fmt, cast)
    assert isinstance(fmt, Block)
    if set(axes) != {x.ndim - 1, x.ndim - 2} or (isinstance(blocked, int) and blocked not in axes):
        raise ArgumentError(f"{cast.format!r}: a matrix unit takes blocks along the two axes of a product alone.")
    values, scales, tensor_scale = world.encode(
        x, fmt, rounding=cast.rounding, overflow=cast.overflow, random_bits=cast.random_bits, seed=seed, axis=blocked,
        shard=shard, amax=amax,
    )  # fmt: skip
    lengths = x.shape[-2:]
    sizes = tuple(
        _block_length(fmt, blocked, axis, n) for axis, n in zip((x.ndim - 2, x.ndim - 1), lengths, strict=True)
    )
    scales = world.reshape(scales, (*x.shape[:-2], *(-(-n // size) for n, size in zip(lengths, sizes, strict=True))))
    assert isinstance(fmt.element, ScalarFormat)
    whole = fmt.size in ("row", "tensor")
    return Elements(values, fmt.element, scales, (sizes[0], sizes[1]), fmt.scale, tensor_scale, whole)


def _block_length(fmt: Block, blocked: Any, axis: int, length: int) -> int:
    """Return how long a block is along an axis."""
    if fmt.size == "tensor":
        return max(length, 1)
    if isinstance(fmt.size, tuple):
        return fmt.size[list(blocked).index(axis)]
    if axis != blocked:
        return 1
    return max(length, 1) if fmt.size == "row" else int(fmt.size)


def rotate(world: World, x: Any, cast: Cast, axis: int, sign_seed: Any) -> Any:
    """Return `x` in the basis of the cast's Hadamard transform.

    Raises:
        ArgumentError: The block does not divide the axis.
    """
    if x.shape[axis] % cast.hadamard:
        raise ArgumentError(
            f"hadamard={cast.hadamard} does not divide the contraction axis, of length {x.shape[axis]}; choose a "
            "smaller block, or exempt the layer with a rule."
        )
    return world.hadamard(x, cast.hadamard, axis, None if cast.signs == "none" else sign_seed)


def rotate_back(world: World, x: Any, cast: Cast, axis: int, sign_seed: Any) -> Any:
    """Return `x`, which is in the basis of the cast's Hadamard transform, in the original one."""
    if not cast.hadamard:
        return x
    return world.hadamard(x, cast.hadamard, axis, None if cast.signs == "none" else sign_seed, inverse=True)


def scale_of(world: World, amax: Any, cast: Cast, previous: Any = None) -> Any:
    """Return the scale in front of a scalar format: `largest finite value / amax / 2^margin` in float32.

    Where amax is 0, infinite or NaN the previous scale stays, 1 at first; a quotient that overflows is the largest
    float32.

    Args:
        world: The framework.
        amax: Largest magnitude, an array without dimensions; for delayed scaling the largest of the history.
        cast: Gives format and margin.
        previous: The scale before.

    Source:
        NVIDIA TransformerEngine, `_default_sf_compute` of `transformer_engine/pytorch/fp8.py`.
    """
    one = world.scalar(1.0, amax)
    stay = one if previous is None else previous
    usable = world.isfinite(amax) & world.is_positive(amax)
    fmt = parse(cast.format)
    assert isinstance(fmt, ScalarFormat)
    quotient = world.quotient(world.scalar(fmt.max, amax), world.where(usable, amax, one))
    scaled = world.product(quotient, world.scalar(2.0**-cast.margin, amax))
    scaled = world.where(world.isfinite(scaled), scaled, world.scalar(float.fromhex("0x1.fffffep127"), amax))
    return world.where(usable, scaled, stay)


def _scaled(
    world: World, x: Any, cast: Cast, *, seed: Any, scale: Any, shard: Any, amax: Callable[[Any], Any] | None,
    apart: bool = False,
) -> Rounded:  # fmt: skip
    """Round `x * scale` and multiply by the reciprocal, as TransformerEngine does."""
    found = world.largest(world.abs(x))
    if amax is not None:
        found = amax(found)
    if scale is None:
        scale = scale_of(world, found, cast) if cast.scaling == "current" else world.scalar(1.0, found)
    fmt = parse(cast.format)
    inner = world.product(x, scale)
    rounded = _plainly(world, inner, cast, fmt, -1, seed, shard, None)
    inverse = world.quotient(world.scalar(1.0, scale), scale)  # subnormal for formats with the range of float32
    parts = None
    if apart:
        from lowp.emulation._unit_sums import Elements

        sizes = tuple(max(n, 1) for n in x.shape[-2:])
        assert isinstance(fmt, ScalarFormat)
        parts = Elements(
            rounded, fmt, world.reshape(inverse, (1,) * x.ndim), (sizes[0], sizes[1]), parse("float32"), whole=True  # type: ignore[arg-type]
        )  # fmt: skip
    return Rounded(world.product(rounded, inverse), _mask(world, inner, cast, fmt, -1), found, parts)


def _plainly(world: World, x: Any, cast: Cast, fmt: Format, axis: Any, seed: Any, shard: Any, amax: Any) -> Any:
    return world.quantize(
        x,
        fmt,
        rounding=cast.rounding,
        overflow=cast.overflow,
        random_bits=cast.random_bits,
        seed=seed,
        axis=axis,
        shard=shard,
        amax=amax,
    )


def _mask(world: World, x: Any, cast: Cast, fmt: Format, axis: Any) -> Any:
    """Return what the cast's gradient rule lets through."""
    if cast.gradient == "none":
        return world.abs(x) < 0
    if cast.gradient != "clipped":
        return None
    low, high = world.limits(x, fmt, axis)
    return (x >= low) & (x <= high)


def _axes(ndim: int, axis: int, outer: int | None) -> tuple[int, int]:
    axis %= max(ndim, 1)
    return axis, (max(axis - 1, 0) if axis else min(1, ndim - 1)) if outer is None else outer % ndim


def _is_tiled(fmt: Format) -> bool:
    return isinstance(fmt.size if isinstance(fmt, Block) else getattr(fmt, "block_size", None), tuple) and isinstance(
        fmt, Block | Packed
    )
