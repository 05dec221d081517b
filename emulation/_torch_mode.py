"""The context in which a torch program is emulated: it intercepts products by their public names."""

from __future__ import annotations

import inspect
import sys
import threading
import warnings
from bisect import bisect_right
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
import torch.nn.attention
from torch._ops import HigherOrderOperator
from torch.overrides import TorchFunctionMode

from lowp._errors import ArgumentError, warn_caller
from lowp.emulation import (
    _torch_attention,
    _torch_conv,
    _torch_einsum,
    _torch_embedding,
    _torch_flex,
    _torch_recurrent,
)
from lowp.emulation._torch_calls import decided
from lowp.emulation._torch_dispatch import DispatchMode, follow_backward
from lowp.emulation._torch_elementwise import Rounder
from lowp.emulation._torch_fallback import Fallback
from lowp.emulation._torch_matmul import HANDLERS, PASS
from lowp.emulation._torch_names import next_node
from lowp.emulation._torch_run import Run
from lowp.emulation.recipe import Recipe

#: The modules that add their functions to `HANDLERS`.
_FAMILIES = (_torch_attention, _torch_conv, _torch_einsum, _torch_embedding, _torch_flex, _torch_recurrent)
_HOOKS_WARNING = r"Using `torch\.compile\(module\)` when there are global hooks"
#: What starts a backward pass, from the loss that comes first.
_BACKWARD = {torch.Tensor.backward, torch.autograd.backward, torch.autograd.grad}
#: Contexts whose backward pass may still come.
_STEPS = 10_000
_KEYWORDS = {"mat2": "other", "vec": "other", "tensor": "other", "self": "input"}
_ADD_KEYWORDS = {"batch1": "mat1", "batch2": "mat2", "mat": "mat1", "vec": "mat2", "self": "input"}
_active = threading.local()


def running() -> list[Emulation]:
    """Return the emulations that this thread is inside of, the innermost last."""
    try:
        runs: list[Emulation] = _active.runs
    except AttributeError:
        runs = _active.runs = []
    return runs


class Emulation(Run):
    """A program's emulation: a context manager that may be entered again and again, and what it remembers.

    Made by `lowp.torch.emulate`. Counts of calls (from which random bits follow) and amax histories go on from one
    `with` to the next.

    Attributes:
        recipe: The recipe.
        report: What was done so far.
    """

    def __init__(self, recipe: Recipe, **options: Any) -> None:
        super().__init__(recipe, **options)
        products = set(recipe.operations) - {"elementwise"}
        self.fallback = Fallback(self) if products else None
        covered = "elementwise" in recipe.operations
        self.rounder = Rounder(self, self.decompose) if covered else None
        self.warns = True
        self._nodes: list[tuple[int, int]] = []
        self._hooks = Shared(self._hooked)
        if covered:
            self.names.marks = []
            self.follow_backward()

    def __enter__(self) -> Emulation:
        self.thread.depth += 1
        stack = ExitStack()
        self.thread.exits.append(stack)
        try:
            self._push(stack)
        except BaseException:
            self.thread.depth -= 1
            self.thread.exits.pop().close()
            raise
        return self

    def _push(self, stack: ExitStack) -> None:
        runs = running()
        within = bool(runs) and runs[-1] is self and not self.thread.replaying
        runs.append(self)
        stack.callback(runs.pop)
        if self.thread.depth == 1:
            if self.rounder is not None:
                stack.callback(self._remember_nodes, next_node())
            stack.callback(self.names.replace, [])
            stack.enter_context(self._hooks.held())
            stack.enter_context(_checkpoints.held())
            if "torch._dynamo" in sys.modules:
                stack.enter_context(_uncompiled.held())
        for mode in () if within else self.modes():
            stack.enter_context(mode)

    @contextmanager
    def _hooked(self) -> Iterator[None]:
        self.names.install(self.check_result, self._is_here)
        try:
            yield
        finally:
            self.names.remove()

    def _is_here(self) -> bool:
        """Whether the calling thread is inside this run; a remark if not, for modes are a thread's own."""
        if not self.thread.depth:
            self.report.remark("a module was called in a thread that did not enter this run: not emulated there")
        return self.thread.depth > 0

    def _remember_nodes(self, first: int) -> None:
        if len(self._nodes) > _STEPS:
            del self._nodes[: _STEPS // 2]
        self._nodes.append((first, next_node()))

    def owns_node(self) -> bool:
        """Whether the node of the autograd graph that is being computed was made inside this run."""
        node: Any = torch._C._current_autograd_node()
        if node is None:
            return False
        number = node._sequence_nr()
        place = bisect_right(self._nodes, (number, 1 << 64)) - 1
        return place >= 0 and number < self._nodes[place][1]

    def __exit__(self, kind: Any, value: Any, trace: Any) -> None:
        if not self.thread.depth:
            raise ArgumentError("this run was left more often than it was entered.")
        self.thread.depth -= 1
        self.thread.exits.pop().close()
        if kind is None and not self.thread.depth and not self.thread.replaying:
            for text in self.unmatched():
                if self.warns:
                    warn_caller(text)

    def follow_backward(self) -> None:
        """Have the backward pass be emulated below autograd also after the context."""
        follow_backward(self)

    def idle_primitives(self) -> list[str]:
        """Return a sentence for each pattern over primitives that matches none that ran."""
        return [] if self.rounder is None else self.rounder.idle_patterns()

    def modes(self) -> Iterator[Any]:
        """Yield the modes of torch that intercept, the outer ones first."""
        if self.rounder is not None:
            yield torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH)
        if self.rounder is not None or self.fallback is not None:
            yield DispatchMode(self, self.fallback, self.rounder)
        yield self.function_mode()

    def function_mode(self) -> FunctionMode:
        """Return a mode that hands this run the functions that it emulates."""
        return FunctionMode(self)

    @contextmanager
    def replay(self, calls: dict[Any, int], frames: list[Any]) -> Iterator[None]:
        """Run a part of the program again as it ran when the counts and the layers were these."""
        later, self.state.calls = self.state.calls, dict(calls)
        replaying, self.thread.replaying = self.thread.replaying, True
        self.__enter__()
        before = self.names.replace(frames)
        try:
            yield
        finally:
            self.names.replace(before)
            self.__exit__(None, None, None)
            self.state.calls, self.thread.replaying = later, replaying


class FunctionMode(TorchFunctionMode):
    """Hands the functions in `HANDLERS` to what emulates them."""

    def __init__(self, run: Emulation) -> None:
        super().__init__()
        self.run = run

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in _BACKWARD and self.run.acts() and args:
            self.run.check_loss(args[0])
        result = self._result(func, args, kwargs or {})
        self.run.thread.derived.follow(self.run, func, args, kwargs or {}, result)
        return result

    def _result(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        known: Any = func
        handler = HANDLERS.get(known.name() if isinstance(func, HigherOrderOperator) else func)
        if handler is None or not self.run.acts():
            return func(*args, **kwargs)
        renamed = _renamed(handler, kwargs) if kwargs else {}
        if renamed is None:
            self.run.left(_name(func), f"of its arguments {', '.join(kwargs)}")
        else:
            result = handler(self.run, *args, **renamed)
            if result is not PASS:
                return result
        with decided():
            return func(*args, **kwargs)


def _name(func: Any) -> str:
    return str(getattr(func, "__name__", func))


_signatures: dict[Any, frozenset[str]] = {}


def _renamed(handler: Any, kwargs: dict[str, Any]) -> dict[str, Any] | None:
    """Return keyword arguments under the handler's names; None where it lacks one."""
    if handler not in _signatures:
        _signatures[handler] = frozenset(inspect.signature(handler).parameters)
    known = _signatures[handler]
    if "kwargs" in known:
        return kwargs
    names = _ADD_KEYWORDS if "mat1" in known else _KEYWORDS
    renamed = {k if k in known else names.get(k, k): v for k, v in kwargs.items()}
    return renamed if all(k in known or v is None for k, v in renamed.items()) else None


def uncompiled() -> Any:
    """Return a context in which functions of `torch.compile` run as they were written.

    Raises:
        ArgumentError: This runs inside a compiled function already.
    """
    if _HOOKS_WARNING not in {getattr(f[1], "pattern", "") for f in warnings.filters}:
        warnings.filterwarnings("ignore", message=_HOOKS_WARNING)  # hooks that fire twice do no harm here
    try:
        return torch.compiler.set_stance("force_eager")
    except RuntimeError as error:
        raise ArgumentError(
            "emulate was entered inside a function that torch.compile compiles; enter it around the call instead, or "
            "wrap the module: emulate(recipe, model)."
        ) from error


class Shared:
    """A change to the process that is made once, and undone when the last of those who need it is done."""

    def __init__(self, change: Callable[[], Any]) -> None:
        self._change, self._lock, self._users = change, threading.RLock(), 0
        self._undo = ExitStack()

    @contextmanager
    def held(self) -> Iterator[None]:
        """Return a context in which the change is there."""
        with self._lock:
            if not self._users:
                self._undo.enter_context(self._change())
            self._users += 1
        try:
            yield
        finally:
            with self._lock:
                self._users -= 1
                if not self._users:
                    self._undo.close()


@contextmanager
def patched_checkpoints() -> Iterator[None]:
    """Have `torch.utils.checkpoint` recompute what it forgets under the emulation, with the same counts of calls."""
    from torch.utils import checkpoint

    generator, function = checkpoint._checkpoint_without_reentrant_generator, checkpoint.CheckpointFunction

    def without_reentrance(fn: Any, *args: Any, **kwargs: Any) -> Any:
        return generator(_replaying(fn), *args, **kwargs)

    class Reentrant:
        @staticmethod
        def apply(fn: Any, *args: Any) -> Any:
            return function.apply(_replaying(fn), *args)  # type: ignore[no-untyped-call]

    checkpoint._checkpoint_without_reentrant_generator = without_reentrance
    checkpoint.CheckpointFunction = Reentrant  # type: ignore[misc,assignment]
    try:
        yield
    finally:
        checkpoint._checkpoint_without_reentrant_generator = generator
        checkpoint.CheckpointFunction = function  # type: ignore[misc]


def _replaying(fn: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that in the backward pass repeats the run of now, of each emulation around it."""
    for run in reversed(dict.fromkeys(running())):
        fn = _replaying_in(run, fn)
    return fn


def _replaying_in(run: Emulation, fn: Callable[..., Any]) -> Callable[..., Any]:
    calls, frames = dict(run.state.calls), list(run.names.stack)

    def again(*args: Any, **kwargs: Any) -> Any:
        if torch._C._current_graph_task_id() == -1:
            return fn(*args, **kwargs)
        with run.replay(calls, frames):
            return fn(*args, **kwargs)

    return again


_checkpoints, _uncompiled = Shared(patched_checkpoints), Shared(uncompiled)
