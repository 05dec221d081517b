"""Fused attention kernels that are called inside C++: their two products are emulated below autograd."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from lowp.emulation._torch_attention import attended, cached, has_cache
from lowp.emulation._torch_calls import Call, differentiable, inside
from lowp.emulation.report import Report

if TYPE_CHECKING:
    from lowp.emulation._torch_mode import Emulation

_KINDS = ("flash_attention_for_cpu", "flash_attention", "efficient_attention", "cudnn_attention")
_FORWARD = {f"_scaled_dot_product_{kind}" for kind in _KINDS}
_BACKWARD = {f"{name}_backward" for name in _FORWARD}


class Record(NamedTuple):
    """A fused attention of the forward pass: the calls of its two products; only the first where it is not emulated."""

    calls: tuple[Call, ...]


def is_attention(name: str) -> bool:
    """Whether an operator is a fused attention, forward or backward."""
    return name in _FORWARD or name in _BACKWARD


def is_backward(name: str) -> bool:
    """Whether it is a backward one."""
    return name in _BACKWARD


def start(run: Emulation, func: Any, args: Any, kwargs: Any) -> Record | None:
    """Return the record of a fused attention that is emulated, or that reads a cache; None for neither."""
    layer = run.names.current()
    emulated = run.emulates("attention", layer)
    if not emulated and not has_cache(run):
        return None
    if bound(func, args, kwargs)["dropout_p"]:
        run.left("attention", "a fused operator inside C++ draws the random numbers of its dropout itself")
        return None
    run.report.remark(f"layer {layer!r}, attention: a fused operator inside C++ was emulated below autograd")
    return Record(tuple(run.call("attention", layer) for _ in range(2 if emulated else 1)))


def forward(record: Record, func: Any, args: Any, kwargs: Any) -> Any:
    """Return the results of a fused attention; beside the first they are those of the kernel."""
    given = bound(func, args, kwargs)
    if len(record.calls) == 1:
        return func(*_with_cache(record, func, args, given), **kwargs)
    result = func(*args, **kwargs)
    return _attended(record, given)[0].to(result[0].dtype), *result[1:]


def backward(record: Record, func: Any, args: Any, kwargs: Any) -> Any:
    """Return the gradients of a fused attention: those of the same products, computed again."""
    given = bound(func, args, kwargs)
    if len(record.calls) == 1:
        return func(*_with_cache(record, func, args, given), **kwargs)
    run = record.calls[0].run
    again = Record(tuple(Call(run, c.layer, c.operation, c.index, replayed=True) for c in record.calls))
    with differentiable():
        told, run.report = run.report, Report()  # the forward pass is in the report already
        try:
            y, leaves = _attended(again, given, leaves=True)
        finally:
            run.report = told
        g = given["grad_out"] if "grad_out" in given else given["grad_out_"]
        found: Any = torch.autograd.grad(y, leaves, g.to(y.dtype), allow_unused=True)
    gradients = [None if d is None else d.to(x.dtype) for d, x in zip(found, leaves, strict=True)]
    if len(func._schema.returns) > 3:  # the mask's too
        return *gradients[:3], gradients[3] if len(gradients) > 3 else None
    return tuple(gradients[:3])


def _attended(record: Record, given: dict[str, Any], leaves: bool = False) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Return the emulated attention, and what its gradient is taken of."""
    operands = [given[name].detach() for name in ("query", "key", "value")]
    mask = given.get("attn_mask", given.get("attn_bias"))
    if mask is not None and mask.is_floating_point():
        operands.append(mask.detach())
    operands = [x.requires_grad_() for x in operands] if leaves else operands
    query, key, value, *added = operands
    call, again = record.calls
    key, value = cached(call, key, value)
    mask = added[0] if added else mask
    y = attended(call, again, query, key, value, mask, 0.0, given["is_causal"], given["scale"], False)
    return y, operands


def _with_cache(record: Record, func: Any, args: Any, given: dict[str, Any]) -> list[Any]:
    names = [a.name for a in func._schema.arguments]
    with inside(given["key"].device.type):
        key, value = cached(record.calls[0], given["key"], given["value"])
    new = {"key": key, "value": value}
    return [new.get(name, x) for name, x in zip(names, args, strict=False)]


def bound(func: Any, args: Any, kwargs: Any) -> dict[str, Any]:
    """Return the arguments of an operator by name."""
    arguments = func._schema.arguments
    found = {a.name: a.default_value for a in arguments}
    found.update(zip((a.name for a in arguments), args, strict=False))
    return {**found, **kwargs}
