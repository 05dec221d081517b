"""What tracing a PyTorch program leaves as it was: gradients, optimizers' state, modules, numbers changed in place."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor
from torch.optim import optimizer as optimizers
from torch.utils._python_dispatch import _disable_current_modes

#: Objects within objects that are searched for modules.
_DEPTH = 4


def storage(tensor: torch.Tensor) -> int:
    """Return what tensors have in common that are views of the same memory."""
    try:
        return int(tensor.untyped_storage()._cdata)
    except (NotImplementedError, RuntimeError):  # sparse tensors have none
        return -id(tensor)


class Kept:
    """Puts back what a traced program does to tensors that were there before.

    Attributes:
        values: Whether all numbers are put back too; on fake tensors only counters change.
    """

    def __init__(self, program: Any, values: bool) -> None:
        self.values = values
        self._gradients: dict[int, tuple[torch.Tensor, torch.Tensor | None]] = {}
        self._states: dict[int, tuple[Any, dict[Any, Any], list[dict[str, Any]]]] = {}
        self._numbers: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        self._modules: list[tuple[Any, Any]] = []
        self._made: set[int] = set()
        self._hook: Any = None
        for thing in _within(program, _DEPTH, set()):
            if isinstance(thing, torch.nn.Module):
                for parameter in thing.parameters():
                    self.leaf(parameter)
                for buffer in thing.buffers():
                    if values:  # some operations do not say that they change them
                        self._written(buffer)
                self._attributes(thing)
            elif isinstance(thing, torch.optim.Optimizer):
                self._optimizer(thing)
            elif isinstance(thing, torch.Tensor):
                self.leaf(thing)

    def __enter__(self) -> Kept:
        def before(optimizer: Any, _args: Any, _kwargs: Any) -> None:
            self._optimizer(optimizer)

        self._hook = optimizers.register_optimizer_step_pre_hook(before)
        return self

    def __exit__(self, *_: object) -> None:
        self._hook.remove()
        for holder, contents in self._modules:
            holder.clear()
            holder.update(contents) if isinstance(holder, dict) else holder.extend(contents)
        with torch.no_grad():
            for tensor, numbers in self._numbers.values():
                tensor.copy_(numbers)
        for tensor, gradient in self._gradients.values():
            tensor.grad = gradient
        for optimizer, state, groups in self._states.values():
            optimizer.state.clear()
            optimizer.state.update({key: dict(value) for key, value in state.items()})
            for group, kept in zip(optimizer.param_groups, groups, strict=False):
                group.clear()
                group.update(kept)

    def _attributes(self, module: torch.nn.Module) -> None:
        """Keep what modules hold, such as a cache that a call fills."""
        for child in module.modules():
            if isinstance(child, torch.jit.ScriptModule):
                continue
            for holder in (child.__dict__, *child.__dict__.values()):
                if type(holder) in (dict, list):
                    self._modules.append((holder, holder.copy()))

    def leaf(self, tensor: torch.Tensor) -> None:
        """Keep the gradient of a tensor that has one of its own."""
        if tensor.is_leaf and tensor.requires_grad and id(tensor) not in self._gradients:
            self._gradients[id(tensor)] = (tensor, tensor.grad)
            if self.values and tensor.grad is not None:
                self._written(tensor.grad)

    def _optimizer(self, optimizer: Any) -> None:
        if id(optimizer) in self._states:
            return
        state = {key: dict(value) for key, value in optimizer.state.items()}
        self._states[id(optimizer)] = (optimizer, state, [dict(group) for group in optimizer.param_groups])
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                self.leaf(parameter)
                if self.values:
                    self._written(parameter)
        for value in state.values():
            for number in value.values():
                if isinstance(number, torch.Tensor) and self._changes(number):
                    self._written(number)

    def before(self, func: Any, args: tuple[Any, ...]) -> None:
        """Keep what an operation is about to change."""
        for argument, described in zip(args, func._schema.arguments, strict=False):
            if not isinstance(argument, torch.Tensor):
                continue
            self.leaf(argument)
            written = described.alias_info is not None and described.alias_info.is_write
            if written and self._changes(argument) and storage(argument) not in self._made:
                self._written(argument)

    def after(self, func: Any, sources: list[torch.Tensor], results: list[torch.Tensor]) -> None:
        """Note tensors that the program made itself, whose numbers are its own."""
        if self.values and not func._schema.is_mutable:
            self._made |= {storage(t) for t in results} - {storage(t) for t in sources}

    def _changes(self, tensor: torch.Tensor) -> bool:
        """Whether an operation in place changes a tensor; of fake runs, real counters of one number alone."""
        return self.values or (tensor.numel() == 1 and not isinstance(tensor, FakeTensor))

    def _written(self, tensor: torch.Tensor) -> None:
        if id(tensor) not in self._numbers:
            with _disable_current_modes():
                self._numbers[id(tensor)] = (tensor, tensor.detach().clone())


def _within(thing: Any, depth: int, seen: set[int]) -> Iterator[Any]:
    """Yield modules, optimizers and tensors that a program holds: in closures, globals it names, and attributes."""
    if id(thing) in seen:
        return
    seen.add(id(thing))
    if isinstance(thing, torch.nn.Module | torch.optim.Optimizer | torch.Tensor):
        yield thing
    parts = _parts(thing) if depth else []
    for part in parts:
        yield from _within(part, depth - 1, seen)


def _parts(thing: Any) -> list[Any]:
    if isinstance(thing, torch.Tensor | str | int | float | type) or inspect.ismodule(thing):
        return []
    if isinstance(thing, partial):
        return [thing.func, *thing.args, *thing.keywords.values()]
    if inspect.ismethod(thing):
        return [thing.__func__, thing.__self__]
    if inspect.isfunction(thing):
        return _of_function(thing)
    if isinstance(thing, Mapping):
        return list(thing.values())
    if isinstance(thing, list | tuple):
        return list(thing)
    return list(getattr(thing, "__dict__", {}).values())


def _of_function(function: Any) -> list[Any]:
    found = [function.__globals__.get(name) for name in function.__code__.co_names]
    for cell in function.__closure__ or ():
        try:
            found.append(cell.cell_contents)
        except ValueError:  # not given a value yet
            continue
    return found
