"""Products of tensors as a matrix unit computes them: `lowp::matmul`, one operator to torch's compilers and transforms.

CPU tensors go through the NumPy engines; those of other devices through array code where there is some, else through
the CPU. The gradient is that of the plain product.
"""

from __future__ import annotations

from typing import Any

import torch
from torch._functorch.autograd_function import enable_single_level_autograd_function  # type: ignore[attr-defined]
from torch.autograd import forward_ad
from torch.autograd.function import _SingleLevelFunction

from lowp._errors import ArgumentError, ArgumentTypeError
from lowp.emulation._torch_calls import inside
from lowp.emulation._torch_steps import can_compile, steps_of
from lowp.emulation._unit_product import (
    Arrays,
    Given,
    Product,
    as_array_code,
    described,
    lacks,
    product_of,
    text_of,
    with_numpy,
)
from lowp.emulation._unit_run import lead_shape
from lowp.emulation.accumulator import Accumulator
from lowp.emulation.matrix_units import MatrixUnit
from lowp.formats.block import Block
from lowp.rounding._format_keys import format_of, key_of
from lowp.rounding._namespaces import TorchNamespace, namespace_of
from lowp.rounding._torch_plain import numbers
from lowp.rounding.encoded import Encoded
from lowp.rounding.modes import rounding

Tensor = torch.Tensor


def matmul(
    a: Any, b: Any, c: Any = None, *, unit: Any = None, accumulator: Any = None, fmt: Any = None, trace: bool = False
) -> Any:
    """Return the product of tensors; see `lowp.torch.matmul`."""
    like = next(t for x in (a, b) for t in (x.codes if isinstance(x, Encoded) else x,) if isinstance(t, Tensor))
    for role, t in (("a", a), ("b", b), ("c", c)):
        if t is not None:
            _check(t.codes if isinstance(t, Encoded) else t, role, like)
    text = _text(unit, accumulator, *Given.of(a), *Given.of(b), fmt)
    x, scale_x, y, scale_y = *_operand(a), *_operand(b)
    vectors = x.ndim == 1, y.ndim == 1
    x, y = x[None] if vectors[0] else x, y[..., None] if vectors[1] else y
    scale_x = scale_x[None] if vectors[0] and scale_x is not None else scale_x
    scale_y = scale_y[..., None] if vectors[1] and scale_y is not None else scale_y
    if c is not None:
        c = c[..., None] if vectors[1] else c
        c = c[..., None, :] if vectors[0] else c
    _check_shapes(x, y, c)
    arrays = Arrays(x, y, c, scale_x, scale_y, _alpha(a, b, like))
    if trace:
        return _traced(product_of(text), arrays, vectors, (a, b))
    return _without_axes(torch.ops.lowp.matmul(*arrays, text), vectors)


@torch.compiler.assume_constant_result
def _text(unit: Any, accumulator: Any, *rest: Any) -> str:
    """Return what the operator is told of a product, with all checks that need no numbers."""
    for role, x in (("unit", unit), ("accumulator", accumulator)):
        if isinstance(x, Accumulator | MatrixUnit) and not vars(x):  # torch's compiler has not filled it in
            raise ArgumentError(f"{role} is made inside of a function that torch compiles; make it outside.")
    return text_of(described(unit, accumulator, Given(*rest[:4]), Given(*rest[4:8]), rest[8]))


def _check_shapes(x: Tensor, y: Tensor, c: Tensor | None) -> None:
    if x.ndim == 0 or y.ndim == 0:
        raise ArgumentError("a product needs vectors or matrices, not single numbers.")
    if not torch.compiler.is_compiling():  # there shapes may be symbols, and torch checks them
        lead_shape(x.shape, y.shape, None if c is None else c.shape)


def _without_axes(result: Any, vectors: tuple[bool, bool]) -> Any:
    """Return a product without the axes of vectors."""
    if vectors[1]:
        result = result[..., 0]
    if vectors[0]:
        result = result[..., 0] if vectors[1] else result[..., 0, :]
    return result


def _check(x: Any, role: str, like: Tensor) -> None:
    if not isinstance(x, Tensor):
        raise ArgumentTypeError(f"{role} of type {type(x).__name__} must be a tensor, as the other operand is.")
    if x.device != like.device:
        raise ArgumentError(f"{role} lies on {x.device}, the other operand on {like.device}; move them to one device.")
    if x.is_complex() or x.dtype == torch.bool or x.layout != torch.strided:
        raise ArgumentTypeError(
            f"{role} is a {x.layout} tensor of {x.dtype}; allowed: dense ones of floats or integers."
        )


def _operand(x: Any) -> tuple[Tensor, Tensor | None]:
    """Return an operand's values and scales."""
    if not isinstance(x, Encoded):
        return x, None
    keys = _keys(Given.of(x).format)
    values = torch.ops.lowp.decode([x.codes], keys[0], [-1], list(x.codes.shape), torch.float64)
    if len(keys) == 1:
        return values, None
    return values, torch.ops.lowp.decode([x.scales], keys[1], [-1], list(x.scales.shape), torch.float64)


@torch.compiler.assume_constant_result
def _keys(fmt: Any) -> tuple[str, ...]:
    """Return the keys of the formats of codes, and of scales if there are some."""
    found = format_of(fmt) if isinstance(fmt, str) else fmt
    return tuple(key_of(x) for x in ((found.element, found.scale) if isinstance(found, Block) else (found,)))


def _alpha(a: Any, b: Any, like: Tensor) -> Tensor | None:
    """Return the product of tensor scales rounded to float32, as a tensor without dimensions."""
    scales = [x.tensor_scale if isinstance(x, Encoded) else None for x in (a, b)]
    if scales == [None, None]:
        return None
    first, second = (torch.as_tensor(1.0 if s is None else s, device=like.device).to(torch.float32) for s in scales)
    return first * second


def _traced(given: Product, arrays: Arrays, vectors: tuple[bool, bool], operands: tuple[Any, Any]) -> Any:
    """Return the product of CPU numbers, and the report about its sums."""
    from lowp.emulation.sum_report import traced

    if torch.compiler.is_compiling() or not namespace_of(arrays.a).is_concrete(arrays.a):
        raise ArgumentError("trace=True looks at numbers, which are hidden while torch compiles or transforms.")
    plain = _on_cpu(arrays)
    scales = [None if (s := getattr(x, "tensor_scale", None)) is None else float(s) for x in operands]
    report: list[Any] = []

    def watched(how: Any, a: Any, b: Any, c: Any) -> Any:
        a.tensor_scale, b.tensor_scale = scales
        result, found = traced(how, a, b, c, given.fmt)
        report.append(found)
        return result

    result = torch.from_numpy(with_numpy(given, plain, watched)).to(arrays.a.device)
    return _without_axes(result, vectors), report[0]


def _on_cpu(arrays: Arrays) -> Arrays:
    return Arrays(*(None if x is None else numbers(x) for x in arrays))


def _plain(
    a: Tensor,
    b: Tensor,
    c: Tensor | None,
    scale_a: Tensor | None,
    scale_b: Tensor | None,
    alpha: Tensor | None,
    how: str,
) -> Tensor:
    """Multiply matrices; `how` is the text of a `Product`."""
    given, arrays = product_of(how), Arrays(a, b, c, scale_a, scale_b, alpha)
    if not a.is_cpu and lacks(given) is None:
        plain = Arrays(*(None if x is None else x.detach() for x in arrays))
        result: Tensor = as_array_code(_namespace(given, how), given, plain)
        return result.contiguous()
    return torch.from_numpy(with_numpy(given, _on_cpu(arrays))).to(a.device)


def _namespace(given: Product, how: str) -> Any:
    """Return the namespace for tensors of a GPU: with compiled steps where terms are aligned."""
    compiled = given.accumulator.alignment is not None and can_compile()
    return steps_of(how).restarted() if compiled else TorchNamespace()


def _fake(a: Any, b: Any, c: Any, scale_a: Any, scale_b: Any, alpha: Any, how: str) -> Any:
    lead = torch.broadcast_shapes(a.shape[:-2], b.shape[:-2])  # type: ignore[no-untyped-call]
    return torch.empty((*lead, a.shape[-2], b.shape[-1]), dtype=getattr(torch, product_of(how).dtype), device=a.device)


# The operator's own autograd kernel: those that torch.library.register_autograd makes refuse torch.func.grad.
_LIBRARY: Any = torch.library.Library("lowp", "FRAGMENT")  # type: ignore[no-untyped-call]
_LIBRARY.define("matmul" + torch.library.infer_schema(_plain, mutates_args=()), tags=torch.Tag.pt2_compliant_tag)
_LIBRARY.impl("matmul", _plain, "CompositeExplicitAutograd")
torch.library.register_fake("lowp::matmul", _fake, lib=_LIBRARY)
_OP = torch.ops.lowp.matmul.default


class _Node(_SingleLevelFunction):
    """What a call of the operator leaves for the backward pass, at one level of transforms."""

    @staticmethod
    def forward(ctx: Any, keyset: Any, *args: Any) -> Any:
        lower = torch.enable_grad(), forward_ad._set_fwd_grad_enabled(True)  # levels of transforms below record too
        with lower[0], lower[1], torch._C._AutoDispatchBelowAutograd():
            y = _OP.redispatch(keyset & torch._C._after_autograd_keyset, *args)
        a, b, c, scale_a, scale_b, alpha, ctx.how = args
        ctx.save_for_backward(a, b, scale_a, scale_b, alpha)
        ctx.save_for_forward(a, b, scale_a, scale_b, alpha)
        ctx.addend = None if c is None else (c.shape, c.dtype)
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Any, ...]:
        return None, *_gradients(ctx, gradients[0]), None, None, None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        a, b, scale_a, scale_b, alpha = ctx.saved_tensors
        given = product_of(ctx.how)
        dtype = getattr(torch, given.dtype)
        left, right = _scaled(a, scale_a, given.a.block, -1).to(dtype), _scaled(b, scale_b, given.b.block, -2).to(dtype)
        y = torch.zeros((), dtype=dtype, device=a.device)
        if tangents[1] is not None:
            y = y + _scaled(tangents[1].to(dtype), scale_a, given.a.block, -1) @ right
        if tangents[2] is not None:
            y = y + left @ _scaled(tangents[2].to(dtype), scale_b, given.b.block, -2)
        if tangents[3] is not None:
            y = y + tangents[3].to(dtype)
        y = y if alpha is None else y * alpha.to(dtype)
        lead = torch.broadcast_shapes(a.shape[:-2], b.shape[:-2])  # type: ignore[no-untyped-call]
        return y.expand((*lead, a.shape[-2], b.shape[-1])).clone()


def _autograd(keyset: Any, *args: Any) -> Any:
    transformed = forward_ad._current_level >= 0 or torch._C._functorch.maybe_current_level() is not None
    needed = any(x is not None and x.requires_grad for x in args[:3])
    if transformed or (torch.is_grad_enabled() and needed):
        with enable_single_level_autograd_function():
            return _Node.apply(keyset, *args)  # type: ignore[attr-defined]
    with torch._C._AutoDispatchBelowAutograd():
        return _OP.redispatch(keyset & torch._C._after_autograd_keyset, *args)


_LIBRARY.impl("matmul", _autograd, "Autograd", with_keyset=True)


def _gradients(ctx: Any, g: Tensor) -> tuple[Any, Any, Any]:
    """Return the gradients of both operands and of the addend, as far as they are floats and wanted."""
    a, b, scale_a, scale_b, alpha = ctx.saved_tensors
    given = product_of(ctx.how)
    with inside(g.device.type):
        g = g if alpha is None else g * alpha.to(g.dtype)
        da = db = dc = None
        if ctx.needs_input_grad[1]:
            da = _of(g @ _scaled(b, scale_b, given.b.block, -2).to(g.dtype).mT, a, scale_a, given.a.block, -1)
        if ctx.needs_input_grad[2]:
            db = _of(_scaled(a, scale_a, given.a.block, -1).to(g.dtype).mT @ g, b, scale_b, given.b.block, -2)
        if ctx.needs_input_grad[3]:
            shape, dtype = ctx.addend
            dc = g.sum_to_size(shape).to(dtype)
    return da, db, dc


def _of(gradient: Tensor, x: Tensor, scale: Tensor | None, block: int, axis: int) -> Tensor:
    """Return the gradient of an operand's elements, from that of what they are with their scales."""
    return _scaled(gradient, scale, block, axis).sum_to_size(x.shape).to(x.dtype)


def _scaled(x: Tensor, scale: Tensor | None, block: int, axis: int) -> Tensor:
    if scale is None:
        return x
    return x * scale.repeat_interleave(block, axis).narrow(axis, 0, x.shape[axis]).to(x.dtype)


def _batch_first(x: Any, dim: int | None, lead: int) -> Any:
    """Return a tensor with its batch axis in front of `lead` others."""
    if x is None or dim is None:
        return x
    first = x.movedim(dim, 0)
    return first.reshape(len(first), *[1] * (lead - first.ndim + 1), *first.shape[1:])


def _batched(info: Any, in_dims: Any, *arguments: Any) -> Any:
    *tensors, how = arguments
    count = info.batch_size
    if rounding(product_of(how).accumulator.rounding).variant or (tensors[5] is not None and in_dims[5] is not None):
        each = [
            torch.ops.lowp.matmul(
                *(x if d is None else x.select(d, i) for x, d in zip(tensors, in_dims, strict=False)), how
            )
            for i in range(count)
        ]
        return torch.stack(each), 0
    lead = max(x.ndim - (d is not None) for x, d in zip(tensors[:5], in_dims, strict=False) if x is not None)
    rows = [_batch_first(x, d, lead) for x, d in zip(tensors[:5], in_dims, strict=False)]
    if all(d is None for d in in_dims[:2]):  # the addend alone differs
        rows[0] = rows[0].expand(count, *[1] * (lead - rows[0].ndim), *rows[0].shape)
    return torch.ops.lowp.matmul(*rows, tensors[5], how), 0


torch.library.register_vmap("lowp::matmul", _batched, lib=_LIBRARY)
