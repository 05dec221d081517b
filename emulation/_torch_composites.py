"""Composite operators of torch as functions of primitives, for rounding each of them; backward ones included."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch._decomp import decomposition_table

Tensor = torch.Tensor
_A = torch.ops.aten
#: Operators that torch itself takes apart into primitives.
_BY_TORCH = (
    *("binary_cross_entropy", "binary_cross_entropy_backward", "gelu_backward"),
    *("binary_cross_entropy_with_logits", "hardswish", "hardswish_backward", "hardsigmoid", "hardsigmoid_backward"),
    *("huber_loss", "huber_loss_backward", "log_sigmoid_forward", "log_sigmoid_backward", "mse_loss_backward"),
    *("mish", "mish_backward", "smooth_l1_loss", "smooth_l1_loss_backward", "softplus_backward", "silu_backward"),
    *("native_layer_norm_backward", "native_batch_norm", "native_batch_norm_backward", "native_group_norm_backward"),
    *("_native_batch_norm_legit", "sigmoid_backward", "tanh_backward", "_softmax_backward_data", "elu_backward"),
    *("_log_softmax_backward_data", "leaky_relu_backward", "glu_backward"),
)


def _softmax(x: Tensor, dim: int, half_to_float: bool) -> Tensor:
    x = x.float() if half_to_float else x
    if not x.numel():
        return x.clone()
    e = (x - x.amax(dim, keepdim=True)).exp()
    return e / e.sum(dim, keepdim=True)


def _log_softmax(x: Tensor, dim: int, half_to_float: bool) -> Tensor:
    x = x.float() if half_to_float else x
    if not x.numel():
        return x.clone()
    shifted = x - x.amax(dim, keepdim=True)
    return shifted - shifted.exp().sum(dim, keepdim=True).log()


def _layer_norm(x: Tensor, shape: Any, weight: Any, bias: Any, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    axes = tuple(range(x.ndim - len(shape), x.ndim))
    mean = x.mean(axes, keepdim=True)
    centred = x - mean
    rstd = ((centred * centred).mean(axes, keepdim=True) + eps).rsqrt()
    y = centred * rstd
    y = y if weight is None else y * weight
    return (y if bias is None else y + bias), mean, rstd


def _group_norm(
    x: Tensor, weight: Any, bias: Any, n: int, c: int, hw: int, groups: int, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    y, mean, rstd = _layer_norm(x.reshape(n, groups, c // groups * hw), (c // groups * hw,), None, None, eps)
    y = y.reshape(x.shape)
    shape = (1, c, *[1] * (x.ndim - 2))
    y = y if weight is None else y * weight.reshape(shape)
    return (y if bias is None else y + bias.reshape(shape)), mean.reshape(n, groups), rstd.reshape(n, groups)


def _gelu(x: Tensor, *, approximate: str = "none") -> Tensor:
    if approximate == "tanh":
        inner = (x + x * x * x * 0.044715) * math.sqrt(2 / math.pi)
        return x * 0.5 * (inner.tanh() + 1)
    return x * 0.5 * ((x * math.sqrt(0.5)).erf() + 1)


def _silu(x: Tensor) -> Tensor:
    return x * x.sigmoid()


def _mse_loss(x: Tensor, target: Tensor, reduction: int = 1) -> Tensor:
    difference = x - target
    square = difference * difference
    return square if reduction == 0 else square.mean() if reduction == 1 else square.sum()


def _addmm(c: Tensor, a: Tensor, b: Tensor, *, beta: Any = 1, alpha: Any = 1) -> Tensor:
    y: Tensor = (_A.mv.default if b.ndim == 1 else _A.mm.default if b.ndim == 2 else _A.bmm.default)(a, b)
    y = y if alpha == 1 else y * alpha
    if beta == 0:
        return y
    addend: Tensor = c if beta == 1 else c * beta
    return y + addend


def _mean(x: Tensor, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
    x = x if dtype is None else x.to(dtype)
    axes = tuple(range(x.ndim)) if dim is None or not len(dim) else tuple(dim)
    return x.sum(axes, keepdim) / math.prod(x.shape[a] for a in axes)


def _safe_softmax(x: Tensor, dim: int, dtype: Any = None) -> Tensor:
    y = _softmax(x if dtype is None else x.to(dtype), dim, False)
    return torch.where((x == -math.inf).all(dim, keepdim=True), 0.0, y)


def _addcmul(x: Tensor, a: Tensor, b: Tensor, *, value: Any = 1) -> Tensor:
    product = a * b
    return x + (product if value == 1 else product * value)


def _addcdiv(x: Tensor, a: Tensor, b: Tensor, *, value: Any = 1) -> Tensor:
    quotient = a / b
    return x + (quotient if value == 1 else quotient * value)


def _lerp(x: Tensor, end: Tensor, weight: Any) -> Tensor:
    step: Tensor = (end - x) * weight
    return x + step


def _in_place(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Return the same function, with its result in its first argument."""
    return lambda x, *args, **kwargs: x.copy_(function(x, *args, **kwargs))


def _each(function: Callable[..., Tensor], value: str) -> Callable[..., Any]:
    """Return the same function of lists of tensors; `value` names the argument that may be one for all."""

    def each(*args: Any, **kwargs: Any) -> Any:
        lists = [a for a in args if isinstance(a, list | tuple)]
        results = []
        for i in range(len(lists[0])):
            one = [a[i] if isinstance(a, list | tuple) else a for a in args]
            named = {k: v[i] if isinstance(v, list | tuple) else v for k, v in kwargs.items()}
            if value and len(one) > 3:
                named[value] = one.pop()
            results.append(function(*one, **named))
        return results

    return each


def _families() -> dict[Any, Callable[..., Any]]:
    """Return addcmul, addcdiv and lerp in all their forms: in place, and for lists of tensors."""
    found: dict[Any, Callable[..., Any]] = {}
    for name, function, value in (("addcmul", _addcmul, "value"), ("addcdiv", _addcdiv, "value"), ("lerp", _lerp, "")):
        for written, form in (("", function), ("_", _in_place(function))):
            for overload in getattr(_A, name + written).overloads():
                if "out" not in overload:
                    found[getattr(getattr(_A, name + written), overload)] = form
            packet = getattr(_A, f"_foreach_{name}{written}")
            for overload in packet.overloads():
                if "out" not in overload and overload != "Tensor":
                    found[getattr(packet, overload)] = _none(_each(form, value)) if written else _each(form, value)
    return found


def _none(function: Callable[..., Any]) -> Callable[..., None]:
    """Return the same function without its result."""

    def nothing(*args: Any, **kwargs: Any) -> None:
        function(*args, **kwargs)

    return nothing


def _table() -> dict[Any, Callable[..., Any]]:
    found: dict[Any, Callable[..., Any]] = {}
    for name in _BY_TORCH:
        packet = getattr(_A, name)
        for overload in packet.overloads():
            operator = getattr(packet, overload)
            if operator in decomposition_table and not any(a.is_out for a in operator._schema.arguments):
                found[operator] = decomposition_table[operator]
    return found


#: Operator -> a function of primitives with the same arguments and results.
COMPOSITES: dict[Any, Callable[..., Any]] = {
    **_table(),
    **_families(),
    _A._safe_softmax.default: _safe_softmax,
    _A._softmax.default: _softmax,
    _A._log_softmax.default: _log_softmax,
    _A.native_layer_norm.default: _layer_norm,
    _A.native_group_norm.default: _group_norm,
    _A.gelu.default: _gelu,
    _A.silu.default: _silu,
    _A.mse_loss.default: _mse_loss,
    _A.addmm.default: _addmm,
    _A.baddbmm.default: _addmm,
    _A.addmv.default: _addmm,
    _A.mean.default: _mean,
    _A.mean.dim: _mean,
}
