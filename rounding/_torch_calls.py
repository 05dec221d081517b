"""A call of a verb as data, and as the flat arguments that a torch operator takes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from lowp._errors import ArgumentError
from lowp.formats.block import Block
from lowp.formats.packed import Packed
from lowp.formats.spec import Format
from lowp.rounding._format_keys import format_of, key_of
from lowp.rounding._layout import checked_axes
from lowp.rounding.request import Request, make_request
from lowp.rounding.shard import Shard
from lowp.rounding.verbs import check_axis


class Call(NamedTuple):
    """What is done to a tensor: format, rounding, blocked axis, place in a larger array.

    `seed` is kept beside the keys that `request` holds of it, because operators are told the seed.
    """

    fmt: Format
    request: Request
    axis: Any = -1
    shard: Shard | None = None
    seed: int = 0

    @property
    def needs_positions(self) -> bool:
        """Whether the result depends on where in the array a number lies."""
        return self.request.mode.variant != 0

    def check_shape(self, ndim: int) -> None:
        """Raise if the format has no blocks in an array of that many dimensions, or the axis does not exist."""
        check_axis(self.axis, ndim, self.fmt)
        if isinstance(self.fmt, Block) and self.fmt.size != "tensor":
            checked_axes(self.axis, ndim, isinstance(self.fmt.size, tuple), self.fmt)
        elif isinstance(self.fmt, Block) and ndim == 0:
            checked_axes(0, 0, False, self.fmt)


def how(
    rounding: str,
    overflow: str,
    seed: int,
    random_bits: int | None,
    saturation_bits: int,
    nan: str,
    allowed_nan: tuple[str, ...],
) -> Request:
    """Return the checked request of these arguments, the same object for the same arguments."""
    try:
        return _known(rounding, overflow, seed, random_bits, saturation_bits, nan, allowed_nan)
    except TypeError:  # something that cannot be hashed; the checks say what
        return make_request(rounding, overflow, seed, random_bits, saturation_bits, nan, allowed_nan)


_known = lru_cache(maxsize=512, typed=True)(make_request)


def flat(call: Call) -> tuple[Any, ...]:
    """Return the arguments that an operator takes: fmt, rounding, overflow, seed, axis, ... as in `unflat`."""
    request, shard = call.request, call.shard
    return (
        key_of(call.fmt),
        request.mode.name,
        request.overflow,
        signed_seed(call.seed),
        axis_list(call.axis),
        request.mode.random_bits,
        int(request.saturation_bits),
        request.nan,
        [] if shard is None else list(shard.offset),
        [] if shard is None else list(shard.shape),
    )


@lru_cache(maxsize=512)
def _request(rounding: str, overflow: str, seed: int, random_bits: int, saturation_bits: int, nan: str) -> Request:
    return make_request(rounding, overflow, seed, random_bits or None, saturation_bits, nan, (nan,))


def unflat(
    fmt: str,
    rounding: str,
    overflow: str,
    seed: int,
    axis: Sequence[int],
    random_bits: int,
    saturation_bits: int,
    nan: str,
    offset: Sequence[int],
    shape: Sequence[int],
) -> Call:
    """Return the call of an operator's arguments; the reverse of `flat`."""
    unsigned = int(seed) % (1 << 64)
    request = _request(rounding, overflow, unsigned, int(random_bits), int(saturation_bits), nan)
    shard = Shard(tuple(offset), tuple(shape)) if len(shape) else None
    return Call(format_of(fmt), request, axis_of(axis), shard, unsigned)


def signed_seed(seed: int) -> int:
    """Return a seed of 64 bits as the signed integer of the same bits, which operators take."""
    return seed if seed < 1 << 63 else seed - (1 << 64)


def axis_list(axis: Any) -> list[int]:
    """Return the axis, or pair of axes, as a list."""
    return [int(a) for a in axis] if isinstance(axis, tuple | list) else [int(axis)]


def axis_of(axes: Sequence[int]) -> Any:
    """Return an integer for one axis, a tuple for two."""
    return int(axes[0]) if len(axes) == 1 else tuple(int(a) for a in axes)


def axis_under_batch(axis: Any) -> Any:
    """Return the same axis of an array that got one more dimension in front."""
    if isinstance(axis, tuple | list):
        return tuple(axis_under_batch(a) for a in axis)
    return axis if axis < 0 else axis + 1


def is_per_block(call: Call) -> bool:
    """Whether pieces of an array that hold whole blocks are rounded alone as they are in the array."""
    fmt = call.fmt
    if call.needs_positions or isinstance(fmt, Packed):
        return False
    return not isinstance(fmt, Block) or (fmt.size != "tensor" and fmt.tensor_scale is None)


def no_range(fmt: Format) -> ArgumentError:
    """The error for a clipped gradient where no range is."""
    return ArgumentError(f"gradient='clipped' is not defined for {fmt.name!r}: its blocks have no fixed range.")
