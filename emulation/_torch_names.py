"""Which layer of a torch program is running: dotted names by hooks on every module call."""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn.modules import module as _module

#: Modules that stand around another one and lend it their attribute of that name; names leave it out.
_WRAPPERS = {
    "DistributedDataParallel": "module",
    "DataParallel": "module",
    "OptimizedModule": "_orig_mod",
    "FullyShardedDataParallel": "_fsdp_wrapped_module",
}
_TRANSPARENT = {"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}


_MARKS = 1_000_000


def next_node() -> int:
    """Return the number that the next node of this thread's autograd graph gets."""
    number: int = torch._C._autograd._get_sequence_nr()
    return number


class Frame(NamedTuple):
    """A module that is being called: its name, and the names of all modules and parameter owners under the root."""

    name: str
    modules: dict[int, str]
    owners: dict[int, str]
    parameters: dict[int, str]  # by the address of their storage, filled when first asked for
    root: Any = None
    buffers: frozenset[int] = frozenset()


def clean(name: str) -> str:
    """Return a dotted name without the parts that wrappers put in.

    Example:
        >>> clean("blocks.0._checkpoint_wrapped_module.fc")
        'blocks.0.fc'
    """
    return ".".join(part for part in name.split(".") if part not in _TRANSPARENT)


def unwrapped(module: nn.Module) -> nn.Module:
    """Return the module inside data-parallel and compiling wrappers."""
    while type(module).__name__ in _WRAPPERS:
        module = getattr(module, _WRAPPERS[type(module).__name__])
    return module


def root_frame(root: nn.Module) -> Frame:
    """Return the frame of an outermost module, whose name is ''."""
    inner = unwrapped(root)
    modules: dict[int, str] = {id(root): ""}
    owners: dict[int, str] = {}
    for raw, module in inner.named_modules():
        name = clean(raw)
        modules.setdefault(id(module), name)
        for parameter in module._parameters.values():
            if parameter is not None:
                owners.setdefault(id(parameter), name)
    return Frame("", modules, owners, {}, inner, frozenset(map(id, inner.buffers())))


class Names:
    """The stack of modules that are being called, in each thread."""

    def __init__(self) -> None:
        self._local = threading.local()
        self._hooks: list[Any] = []
        #: Every name of a layer under the outermost modules that were called.
        self.known: set[str] = set()
        #: First node of the autograd graph, and layer, of each stretch of the forward pass; None: not followed.
        self.marks: list[tuple[int, str]] | None = None

    @property
    def stack(self) -> list[Frame]:
        """The frames of this thread, the innermost last."""
        try:
            frames: list[Frame] = self._local.frames
        except AttributeError:
            frames = self._local.frames = []
        return frames

    def replace(self, frames: list[Frame]) -> list[Frame]:
        """Put another stack in place of this thread's; return the one it had."""
        before = self.stack
        self._local.frames = list(frames)
        return before

    @contextmanager
    def inside(self, root: nn.Module) -> Iterator[None]:
        """Return a context in which what runs belongs to a module, unless another is running."""
        if self.stack:
            yield
            return
        frame = root_frame(root)
        self.known.update(frame.modules.values())
        self.stack.append(frame)
        try:
            yield
        finally:
            self.replace([])

    def current(self, weight: Any = None) -> str:
        """Return the name of the running layer; of a module inside it if the weight belongs there.

        Some modules read the weights of their children instead of calling them, as nn.MultiheadAttention does.
        """
        stack = self.stack
        if not stack:
            return ""
        frame = stack[-1]
        if weight is not None:
            owner = frame.owners.get(id(weight), "")
            if owner.startswith(frame.name + "." if frame.name else "") and owner:
                return owner
        return frame.name

    def is_buffer(self, x: Any) -> bool:
        """Whether a tensor is a buffer of the modules that are running."""
        return bool(self.stack) and id(x) in self.stack[-1].buffers

    def storage_owner(self, x: torch.Tensor) -> str | None:
        """Return the name of the layer whose parameter shares the memory of a tensor, or None."""
        if isinstance(x, nn.Parameter):
            return self.current(x)
        if not self.stack:
            return None
        frame = self.stack[-1]
        if not frame.parameters and frame.root is not None:
            for parameter in frame.root.parameters():
                frame.parameters.setdefault(parameter.untyped_storage().data_ptr(), frame.owners.get(id(parameter), ""))
        return frame.parameters.get(x.untyped_storage().data_ptr())

    def inner(self, owner: str | None) -> str:
        """Return the running layer, or the layer inside it that owns a weight."""
        name = self.current()
        return owner if owner and owner.startswith(f"{name}." if name else "") else name

    def _mark(self, name: str) -> None:
        if self.marks is not None:
            if len(self.marks) > _MARKS:
                del self.marks[: _MARKS // 2]
            self.marks.append((next_node(), name))

    def of_node(self, number: int) -> str:
        """Return the layer whose forward pass made a node of the autograd graph; "" where that is not known."""
        marks = self.marks or []
        place = bisect_right(marks, (number, "\U0010ffff")) - 1
        return marks[place][1] if place >= 0 else ""

    def install(self, on_result: Any, is_here: Any) -> None:
        """Start to follow module calls.

        Args:
            on_result: Function of each outermost module's result.
            is_here: Function that says whether the calls of the calling thread concern this run.
        """

        def enter(module: nn.Module, inputs: Any) -> None:
            stack = self.stack
            if not stack and not is_here():
                return
            if stack:
                parent = stack[-1]
                stack.append(parent._replace(name=parent.modules.get(id(module), parent.name)))
            else:
                frame = root_frame(module)
                self.known.update(frame.modules.values())
                stack.append(frame)
            self._mark(stack[-1].name)

        def leave(module: nn.Module, inputs: Any, output: Any) -> None:
            stack = self.stack
            if not stack:
                return
            stack.pop()
            self._mark(stack[-1].name if stack else "")
            if not stack:
                on_result(output)

        # torch.jit cannot see Python hooks; its modules have no names of layers inside.
        self._hooks = [
            _module.register_module_forward_pre_hook(enter),
            _module.register_module_forward_hook(leave, always_call=True),
        ]

    def remove(self) -> None:
        """Stop to follow module calls."""
        for hook in self._hooks:
            hook.remove()
        self._hooks = []


def layers(module: nn.Module) -> dict[str, nn.Module]:
    """Return the modules inside one by their name as `Names` gives it."""
    return {clean(name): child for name, child in unwrapped(module).named_modules()}


def is_trained_leaf(x: Any) -> bool:
    """Whether a tensor is what a program without modules trains."""
    return isinstance(x, torch.Tensor) and x.is_leaf and x.requires_grad
