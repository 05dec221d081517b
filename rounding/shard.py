"""Where a piece of an array lies in the whole, so that its random bits are those of the whole."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lowp._errors import ArgumentError, ArgumentTypeError


@dataclass(frozen=True)
class Shard:
    """The place of a piece of a distributed array.

    Random bits follow the C order of the whole array, so every device rounds its piece as one device would round all.

    Args:
        offset: Index in the whole array of the piece's first element, one integer a dimension (JAX: traced ones too,
            such as `lax.axis_index("x") * size`).
        shape: Shape of the whole array.

    Raises:
        ArgumentError: `offset` and `shape` have different lengths, or hold a negative number.
        ArgumentTypeError: They are not sequences, or `shape` holds something other than integers.

    Example:
        >>> Shard(offset=(4, 0), shape=(8, 16)).shape
        (8, 16)
    """

    offset: tuple[Any, ...]
    shape: tuple[int, ...]

    def __post_init__(self) -> None:
        try:
            offset, shape = tuple(self.offset), tuple(int(n.__index__()) for n in self.shape)
        except (TypeError, AttributeError) as error:
            raise ArgumentTypeError(
                f"offset={self.offset!r}, shape={self.shape!r}: one integer for each dimension is wanted."
            ) from error
        known = [n for n in offset if isinstance(n, int)]
        if len(offset) != len(shape) or any(n < 0 for n in (*known, *shape)):
            raise ArgumentError(
                f"offset={offset!r} and shape={shape!r} must have one number of 0 or more for each dimension."
            )
        object.__setattr__(self, "offset", offset)
        object.__setattr__(self, "shape", shape)

    def check(self, piece: tuple[int, ...]) -> None:
        """Raise ArgumentError unless a piece of that shape lies inside the whole array, as far as that is known."""
        fits = len(piece) == len(self.shape) and all(
            n <= whole and (not isinstance(first, int) or first + n <= whole)
            for first, n, whole in zip(self.offset, piece, self.shape, strict=True)
        )
        if not fits:
            raise ArgumentError(f"shard={self!r} does not hold an array of shape {piece}.")
