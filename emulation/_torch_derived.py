"""Tensors that a program computes from its parameters alone: they are weights, as the parameters are."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.utils.weak import WeakTensorKeyDictionary

if TYPE_CHECKING:
    from lowp.emulation._torch_run import Run

Tensor = torch.Tensor
_T: Any = torch.Tensor
#: What asks for a gradient, which is none of the parameters' numbers.
_OTHER_NUMBERS = {
    _T.grad.__get__,
    _T._grad.__get__,
    torch.autograd.grad,
    torch.Tensor.backward,
    torch.autograd.backward,
}


class Derived:
    """The tensors of one thread that are computed from parameters alone, each with the largest of these."""

    def __init__(self) -> None:
        self._roots: Any = WeakTensorKeyDictionary()

    def root(self, x: Any) -> Any:
        """Return the parameter that a tensor is, is a view of, or is computed from; None for other tensors."""
        if isinstance(x, nn.Parameter):
            return x
        if not isinstance(x, Tensor):
            return None
        base = x._base
        if isinstance(base, nn.Parameter):
            return base
        return self._roots.get(x) if self._roots.data else None

    def follow(self, run: Run, func: Any, args: Any, kwargs: Any, result: Any) -> None:
        """Note what a function of torch has returned or changed."""
        first = args[0] if args and not self._roots.data else None
        if type(first) is Tensor and self.root(first) is None and not run.names.is_buffer(first):
            return  # the common case, at little cost: data, and nothing that is derived
        written = _written(func, args)
        if written is None and not isinstance(result, Tensor | tuple | list):
            return
        root = None if func in _OTHER_NUMBERS or _is_filled(func) else self._common(run, args, kwargs)
        if root is None and not self._roots.data:
            return
        for x in _tensors((result,) if written is None else (written,)):
            if root is None or isinstance(x, nn.Parameter):
                self._roots.pop(x, None)
            else:
                self._roots[x] = root

    def _common(self, run: Run, args: Any, kwargs: Any) -> Any:
        """Return the largest parameter behind arguments that follow from parameters alone; buffers do not count."""
        largest = None
        for x in _tensors((*args, *kwargs.values())):
            root = self.root(x)
            if root is None:
                if run.names.is_buffer(x):
                    continue
                return None
            if largest is None or root.numel() > largest.numel():
                largest = root
        return largest


def _tensors(values: Any) -> Iterator[Tensor]:
    for x in values:
        if isinstance(x, Tensor):
            yield x
        elif isinstance(x, tuple | list):
            yield from _tensors(x)


def _written(func: Any, args: Any) -> Any:
    """Return what a function writes to, beside its result; None for nothing."""
    name = getattr(func, "__name__", "")
    in_place = name == "__setitem__" or (name.endswith("_") and not name.endswith("__"))
    return args[0] if in_place and args else None


def _is_filled(func: Any) -> bool:
    """Whether a function takes no more than the shape of a tensor."""
    name = getattr(func, "__name__", "")
    return name.endswith("_like") or name.startswith("new_")
