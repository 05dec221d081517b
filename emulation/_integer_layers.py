"""Layers of a small network as data, and what they compute in float64."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lowp._errors import ArgumentError, ArgumentTypeError
from lowp.emulation._integer_windows import Window, images, pair, rows, windows

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Conv2d:
    """A convolution (cross-correlation, as in PyTorch) of images (N, C, H, W).

    Args:
        weight: (outputs, C, height, width).
        bias: (outputs,), or None for zeros.
        stride: Step of the window, one integer or two.
        padding: Zeros around the image, one integer or two.
    """

    weight: ArrayLike
    bias: ArrayLike | None = None
    stride: int | tuple[int, int] = 1
    padding: int | tuple[int, int] = 0

    def __post_init__(self) -> None:
        _set_parameters(self, 4)
        object.__setattr__(self, "stride", pair(self.stride, "stride", 1))
        object.__setattr__(self, "padding", pair(self.padding, "padding", 0))

    @property
    def window(self) -> Window:
        """Where the convolution looks."""
        return Window(np.shape(self.weight)[2:], self.stride, self.padding)  # type: ignore[arg-type]


@dataclass(frozen=True, eq=False)
class Linear:
    """A matrix product of rows (N, inputs).

    Args:
        weight: (outputs, inputs).
        bias: (outputs,), or None for zeros.
    """

    weight: ArrayLike
    bias: ArrayLike | None = None

    def __post_init__(self) -> None:
        _set_parameters(self, 2)


@dataclass(frozen=True, eq=False)
class BatchNorm:
    """Batch normalisation with fixed statistics of channels; it is folded into the product before it.

    Args:
        mean: (C,).
        variance: (C,).
        weight: (C,), or None for ones.
        bias: (C,), or None for zeros.
        eps: Added to the variance.
    """

    mean: ArrayLike
    variance: ArrayLike
    weight: ArrayLike | None = None
    bias: ArrayLike | None = None
    eps: float = 1e-5


@dataclass(frozen=True)
class ReLU:
    """The larger of x and 0."""


@dataclass(frozen=True)
class Flatten:
    """From (N, C, H, W) to (N, C * H * W)."""


@dataclass(frozen=True)
class MaxPool2d:
    """The largest number of each window."""

    size: int | tuple[int, int]
    stride: int | tuple[int, int] | None = None
    padding: int | tuple[int, int] = 0

    @property
    def window(self) -> Window:
        """Where the pool looks."""
        size = pair(self.size, "size", 1)
        stride = size if self.stride is None else pair(self.stride, "stride", 1)
        return Window(size, stride, pair(self.padding, "padding", 0))


@dataclass(frozen=True)
class AveragePool2d:
    """The mean of each window; of the whole image, as (N, C, 1, 1), if size is None."""

    size: int | tuple[int, int] | None = None
    stride: int | tuple[int, int] | None = None

    def window_of(self, shape: tuple[int, ...]) -> Window:
        """Return where the pool looks in images of some shape."""
        size = (shape[-2], shape[-1]) if self.size is None else pair(self.size, "size", 1)
        return Window(size, size if self.stride is None else pair(self.stride, "stride", 1))


@dataclass(frozen=True, eq=False)
class Residual:
    """The sum of two branches of one input.

    Args:
        main: Layers.
        shortcut: Layers; none: the input itself.
    """

    main: Sequence[Any]
    shortcut: Sequence[Any] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "main", folded(self.main))
        object.__setattr__(self, "shortcut", folded(self.shortcut))


PRODUCTS = (Conv2d, Linear)
KINDS = (Conv2d, Linear, BatchNorm, ReLU, Flatten, MaxPool2d, AveragePool2d, Residual)


def folded(layers: Sequence[Any]) -> tuple[Any, ...]:
    """Return layers with batch normalisations folded into the products before them.

    Raises:
        ArgumentError: One does not follow a product.
        ArgumentTypeError: Something is no layer.
    """
    result: list[Any] = []
    for layer in layers:
        if not isinstance(layer, KINDS):
            allowed = ", ".join(kind.__name__ for kind in KINDS)
            raise ArgumentTypeError(f"layers holds {layer!r}; layers are {allowed}, of lowp.emulation.dyadic.")
        if isinstance(layer, BatchNorm):
            if not result or not isinstance(result[-1], PRODUCTS):
                raise ArgumentError("a BatchNorm must follow a Conv2d or a Linear, into which it is folded.")
            result[-1] = _folded_product(result[-1], layer)
        else:
            result.append(layer)
    return tuple(result)


def _folded_product(layer: Any, norm: BatchNorm) -> Any:
    outputs = len(layer.weight)
    mean, variance = _of_channels(norm.mean, outputs, "mean"), _of_channels(norm.variance, outputs, "variance")
    scale = np.ones(outputs) if norm.weight is None else _of_channels(norm.weight, outputs, "weight")
    offset = np.zeros(outputs) if norm.bias is None else _of_channels(norm.bias, outputs, "bias")
    if (variance + norm.eps <= 0).any():
        raise ArgumentError("variance + eps must be positive.")
    factor = scale / np.sqrt(variance + norm.eps)
    weight = layer.weight * factor.reshape(-1, *[1] * (layer.weight.ndim - 1))
    return replace(layer, weight=weight, bias=offset + (layer.bias - mean) * factor)


def _set_parameters(layer: Any, ndim: int) -> None:
    weight = np.array(layer.weight, np.float64)
    if weight.ndim != ndim or not weight.size or not np.isfinite(weight).all():
        raise ArgumentError(f"weight must be finite, with {ndim} axes that are not empty, not of shape {weight.shape}.")
    object.__setattr__(layer, "weight", weight)
    bias = np.zeros(len(weight)) if layer.bias is None else _of_channels(layer.bias, len(weight), "bias")
    object.__setattr__(layer, "bias", bias)


def _of_channels(x: ArrayLike, outputs: int, name: str) -> Floats:
    values = np.array(x, np.float64)
    if values.shape != (outputs,) or not np.isfinite(values).all():
        raise ArgumentError(f"{name} must hold {outputs} finite numbers, one an output; got shape {values.shape}.")
    return values


def forward(layers: Sequence[Any], x: Floats) -> Floats:
    """Return what folded layers compute in float64."""
    for layer in layers:
        x = one_forward(layer, x)
    return x


def one_forward(layer: Any, x: Floats) -> Floats:
    """Return what one layer computes in float64."""
    if isinstance(layer, PRODUCTS):
        return real_product(x, matrix(layer.weight), layer.bias, getattr(layer, "window", None))  # type: ignore[arg-type]
    if isinstance(layer, ReLU):
        return np.maximum(x, 0.0)
    if isinstance(layer, Flatten):
        return x.reshape(len(x), -1)
    if isinstance(layer, MaxPool2d):
        return np.asarray(windows(x, layer.window, -np.inf).max(axis=2))
    if isinstance(layer, AveragePool2d):
        return np.asarray(windows(x, layer.window_of(x.shape), 0.0).mean(axis=2))
    return forward(layer.main, x) + forward(layer.shortcut, x)


def matrix(weight: NDArray[Any]) -> NDArray[Any]:
    """Return weights (outputs, ...) as (terms, outputs)."""
    return np.ascontiguousarray(weight.reshape(len(weight), -1).T)


def real_product(x: Floats, weight: Floats, bias: Floats, window: Window | None) -> Floats:
    """Return a convolution, or without a window a matrix product, in float64."""
    check_terms(x, len(weight), window)
    if window is None:
        return x @ weight + bias
    return images(rows(x, window) @ weight + bias, window, x.shape)


def check_terms(x: NDArray[Any], terms: int, window: Window | None) -> None:
    """Raise ArgumentError if activations do not fit weights of so many terms."""
    if window is None:
        if x.ndim != 2 or x.shape[1] != terms:
            raise ArgumentError(f"a Linear of {terms} inputs got shape {x.shape}; put a Flatten before it.")
        return
    channels = terms // (window.size[0] * window.size[1])
    if x.ndim != 4 or x.shape[1] != channels:
        raise ArgumentError(f"a Conv2d of {channels} channels got activations of shape {x.shape}, not (N, C, H, W).")
