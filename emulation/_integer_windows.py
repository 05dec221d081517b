"""Windows of images (N, C, H, W) of any dtype: rows for products, and pooling. They move numbers, and compute none."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lowp._errors import ArgumentError

Array = NDArray[Any]


class Window(NamedTuple):
    """Height and width of a window, its steps and the padding around the image."""

    size: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int] = (0, 0)

    def reaches(self, shape: tuple[int, ...]) -> tuple[int, int]:
        """Return how many windows fit below each other and side by side.

        Raises:
            ArgumentError: None do.
        """
        if len(shape) != 4:
            raise ArgumentError(f"windows need (N, C, H, W), not {shape}.")
        down, across = (
            (n + 2 * p - k) // s + 1
            for n, k, s, p in zip(shape[-2:], self.size, self.stride, self.padding, strict=True)
        )
        if down < 1 or across < 1:
            raise ArgumentError(f"a window of {self.size} does not fit {shape[-2:]}, padded by {self.padding}.")
        return down, across


def windows(x: Array, window: Window, fill: Any) -> Array:
    """Return (N, C, size, down, across): what each place of the window sees."""
    down, across = window.reaches(x.shape)
    (kh, kw), (sh, sw), (ph, pw) = window
    n, c, h, w = x.shape
    if ph or pw:
        padded = np.full_like(x, fill, shape=(n, c, h + 2 * ph, w + 2 * pw))
        padded[:, :, ph : ph + h, pw : pw + w] = x
        x = padded
    seen = np.empty_like(x, shape=(n, c, kh * kw, down, across))
    height, width = sh * (down - 1) + 1, sw * (across - 1) + 1
    for place in range(kh * kw):
        i, j = divmod(place, kw)
        seen[:, :, place] = x[:, :, i : i + height : sh, j : j + width : sw]
    return seen


def rows(x: Array, window: Window) -> Array:
    """Return (N * down * across, C * size): the operand of a convolution as a product."""
    seen = windows(x, window, 0)
    return seen.transpose(0, 3, 4, 1, 2).reshape(-1, seen.shape[1] * seen.shape[2])


def images(products: Array, window: Window, shape: tuple[int, ...]) -> Array:
    """Return (N, outputs, down, across) from the rows of a product, of images of some shape."""
    return products.reshape(shape[0], *window.reaches(shape), -1).transpose(0, 3, 1, 2)


def pair(value: Any, name: str, least: int) -> tuple[int, int]:
    """Return two integers from one or two.

    Raises:
        ArgumentError: It is something else, or less than `least`.
    """
    both = tuple(value) if isinstance(value, tuple | list) else (value, value)
    if len(both) != 2 or any(isinstance(v, bool) or not isinstance(v, int) or v < least for v in both):
        raise ArgumentError(f"{name}={value!r} must be an integer of at least {least}, or two such.")
    return both[0], both[1]
