"""What the modes above autograd cannot see: products inside C++ functions, and every single operation."""

from __future__ import annotations

import weakref
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import torch
from torch._ops import HigherOrderOperator
from torch.utils._python_dispatch import TorchDispatchMode

from lowp.emulation._torch_calls import is_decided, is_inside
from lowp.emulation._torch_elementwise import Rounder
from lowp.emulation._torch_fallback import Fallback

if TYPE_CHECKING:
    from lowp.emulation._torch_mode import Emulation


class DispatchMode(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Sees every operator below autograd, forward and backward."""

    def __init__(self, run: Emulation, fallback: Fallback | None, rounder: Rounder | None, late: bool = False) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.run, self.fallback, self.rounder, self.late = run, fallback, rounder, late
        self.supports_higher_order_operators = True

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        with torch._C.DisableTorchFunction():  # the modes above have had their say
            return self._compute(func, args, kwargs or {})

    def _compute(self, func: Any, args: Any, kwargs: Any) -> Any:
        if is_inside() or self.run.thread.passing:
            return func(*args, **kwargs)
        rounder, fallback = self._concerned()
        if rounder is None and fallback is None:
            return func(*args, **kwargs)
        if isinstance(func, HigherOrderOperator):
            self.run.left(_name_of(func), "what it runs is hidden inside a higher-order operator")
            return func(*args, **kwargs)
        if fallback is not None and not is_decided() and fallback.knows(func):
            done, result = fallback.compute(func, args, kwargs)
            if done:
                return result
        if rounder is None:
            return func(*args, **kwargs)
        parts = rounder.parts(func)
        if parts is not None:
            with self:
                return parts(*args, **kwargs)
        self.run.thread.passing = True  # another mode of this run, around a recomputation, is not to round again
        try:
            result = func(*args, **kwargs)
        finally:
            self.run.thread.passing = False
        return rounder.finish(func, args, kwargs, result)

    def _concerned(self) -> tuple[Rounder | None, Fallback | None]:
        """Return what looks at the operator that comes now; after the run was left: at that of a node of its own."""
        if not self.late:
            return (self.rounder, self.fallback) if self.run.acts() else (None, None)
        followed = self.fallback is not None and self.fallback.owns_node()
        owned = self.rounder is not None and self.run.owns_node()
        return self.rounder if owned else None, self.fallback if followed else None


def _name_of(func: Any) -> str:
    name: str = func.name()
    return name


_late: weakref.WeakSet[Any] = weakref.WeakSet()


def follow_backward(run: Emulation) -> None:
    """Have the backward pass of what a run made be rounded too, where it runs after the context has ended."""
    _late.add(run)
    if torch.autograd._engine_run_backward is not _run_backward:  # type: ignore[attr-defined]
        torch.autograd._engine_run_backward = _run_backward  # type: ignore[attr-defined]


_engine = torch.autograd._engine_run_backward  # type: ignore[attr-defined]


def _run_backward(*args: Any, **kwargs: Any) -> Any:
    """Run torch's backward pass under the runs that left their context."""
    with ExitStack() as stack:
        for run in list(_late):
            if not run.thread.depth:
                stack.enter_context(DispatchMode(run, run.fallback, run.rounder, late=True))
        return _engine(*args, **kwargs)
