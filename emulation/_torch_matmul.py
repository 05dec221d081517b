"""The matrix products of torch by their public names, as emulated products."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional

from lowp._errors import ArgumentError
from lowp.emulation._torch_calls import Call, decided, is_automatic
from lowp.emulation._torch_names import is_trained_leaf
from lowp.emulation._torch_pieces import arrived, has_plain_pieces
from lowp.emulation._torch_products import Spec, product

if TYPE_CHECKING:
    from lowp.emulation._torch_mode import Emulation

Tensor = torch.Tensor
#: What a handler returns where the operation is left to torch.
PASS = object()


def prepared(run: Emulation, name: str, *tensors: Any, distributed: bool = False) -> list[Any] | None:
    """Return the operands as autocast would have them; None where they are nothing to emulate.

    `distributed`: whether they may be DTensors, all of them.

    Raises:
        ArgumentError: They lie on different devices or have different dtypes.
    """
    tensors = tuple(arrived(t) for t in tensors)
    given = [t for t in tensors if t is not None]
    spread = distributed and all(has_plain_pieces(t) for t in given)
    if not spread and not all(type(t) in (Tensor, torch.nn.Parameter) or _is_plain(t) for t in given):
        run.left(name, "its operands are no plain tensors")
        return None
    if not all(t.is_floating_point() and t.layout == torch.strided for t in given):
        run.left(name, "its operands are not dense tensors of real floating-point numbers")
        return None
    devices = {str(t.device) for t in given}
    if len(devices) > 1:
        raise ArgumentError(
            f"{run.where(name)}: its operands lie on {' and '.join(sorted(devices))}; move them to one."
        )
    device = given[0].device.type
    if is_automatic(device):
        dtype = torch.get_autocast_dtype(device)
        tensors = tuple(t if t is None or t.dtype == torch.float64 else t.to(dtype) for t in tensors)
        given = [t for t in tensors if t is not None]
    dtypes = {str(t.dtype) for t in given}
    if len(dtypes) > 1:
        raise ArgumentError(
            f"{run.where(name)}: its operands are {' and '.join(sorted(dtypes))}; torch wants one dtype."
        )
    return list(tensors)


def _is_plain(t: Any) -> bool:
    """Whether a subclass of Tensor behaves as a tensor with data of its own."""
    return isinstance(t, Tensor) and type(t).__torch_dispatch__ is Tensor.__torch_dispatch__


def linear(run: Emulation, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Any:  # noqa: A002
    """Emulate `torch.nn.functional.linear`."""
    call = run.start("linear", weight)
    if call is None:
        return PASS
    return linear_of(call, "linear", input, weight, bias)


def linear_of(call: Call, name: str, x: Tensor, weight: Tensor, bias: Tensor | None) -> Any:
    """Return `x weight^T + bias`; leading axes of `x` are tokens."""
    operands = prepared(call.run, name, x, weight, bias, distributed=True)
    if operands is None:
        return PASS
    x, weight, bias = operands
    if weight.ndim == 1:
        weight = weight[None]
        return _tokens(call, x, weight, bias, Spec())[..., 0]
    return _tokens(call, x, weight, bias, Spec())


def _tokens(call: Call, x: Tensor, weight: Tensor, bias: Tensor | None, spec: Spec) -> Tensor:
    length, width = (weight.shape[1], weight.shape[0]) if spec.last_b else (weight.shape[0], weight.shape[1])
    if x.ndim == 0 or x.shape[-1] != length:
        raise RuntimeError(
            f"{call.run.where(call.operation)}: shapes {tuple(x.shape)} and {tuple(weight.shape)} do not fit"
        )
    y = product(call, x.reshape(math.prod(x.shape[:-1]), length), weight, spec, bias)
    return y.reshape(*x.shape[:-1], width)


def matmul(run: Emulation, input: Tensor, other: Tensor, *, out: Tensor | None = None) -> Any:  # noqa: A002
    """Emulate `torch.matmul` and `@`."""
    roles, changed = roles_of(run, input, other), bool(run.thread.operands)
    other = run.thread.operands.pop(0)(other) if changed else other
    operation = "linear" if "weight" in roles else run.thread.products_are
    weight = input if roles[0] == "weight" else other if roles[1] == "weight" else None
    call = run.start(operation, weight)
    result: Any = PASS if call is None else matmul_of(call, "matmul", input, other, roles)
    if result is PASS and changed:
        with decided():
            result = torch.matmul(input, other)
    return result if result is PASS else stored(result, out)


def roles_of(run: Emulation, a: Any, b: Any) -> tuple[str, str]:
    """Return the roles of a product's operands.

    Weights are parameters and what is computed from parameters alone; a trained leaf that comes second; of two the
    second.
    """
    if run.thread.derived.root(b) is not None:
        return "activation", "weight"
    if run.thread.derived.root(a) is not None:
        return "weight", "activation"
    if is_trained_leaf(b) and not is_trained_leaf(a):
        return "activation", "weight"
    return "activation", "activation"


def stored(result: Tensor, out: Tensor | None) -> Tensor:
    """Return the result, in `out` if that is given."""
    if out is None:
        return result
    with torch.no_grad():
        out.resize_(result.shape)
        return out.copy_(result)


def matmul_of(call: Call, name: str, a: Tensor, b: Tensor, roles: tuple[str, str]) -> Any:
    """Return `torch.matmul(a, b)` as one emulated product, with torch's rules for vectors and leading axes."""
    operands = prepared(call.run, name, a, b, distributed=True)
    if operands is None:
        return PASS
    a, b = operands
    if a.ndim == 0 or b.ndim == 0:
        return PASS  # torch says what is wrong
    vector_a, vector_b = a.ndim == 1, b.ndim == 1
    a, b = a[None] if vector_a else a, b[:, None] if vector_b else b
    if a.shape[-1] != b.shape[-2]:
        return PASS
    if b.ndim == 2 and roles[0] != "weight":
        y = _tokens(call, a, b, None, Spec(*roles, True, False))
    else:
        lead = torch.broadcast_shapes(a.shape[:-2], b.shape[:-2])  # type: ignore[no-untyped-call]
        a = a if a.ndim == 2 and not lead else a.expand(*lead, *a.shape[-2:])
        b = b if b.ndim == 2 and not lead else b.expand(*lead, *b.shape[-2:])
        y = product(call, a, b, Spec(*roles, True, False))
    y = y.squeeze(-2) if vector_a else y
    return y.squeeze(-1) if vector_b else y


def addmm(
    run: Emulation,
    input: Tensor,  # noqa: A002
    mat1: Tensor,
    mat2: Tensor,
    *,
    beta: Any = 1,
    alpha: Any = 1,
    out: Any = None,
) -> Any:
    """Emulate `torch.addmm`, `baddbmm` and `addmv`: the product is emulated, the rest is torch's."""
    roles = roles_of(run, mat1, mat2)
    if run.thread.operands:
        return _masked_scores(run, input, mat1, mat2)
    operation = "linear" if "weight" in roles else run.thread.products_are
    call = run.start(operation, mat1 if roles[0] == "weight" else mat2 if roles[1] == "weight" else None)
    if call is None:
        return PASS
    fits = mat2.ndim == 2 and mat1.shape[-1] == len(mat2) and tuple(input.shape) == (mat2.shape[1],)
    if fits and beta == alpha == 1 and roles[0] != "weight":  # a bias
        operands = prepared(run, "addmm", mat1, mat2, input, distributed=True)
        if operands is None:
            return PASS
        return stored(_tokens(call, operands[0], operands[1], operands[2], Spec(*roles, True, False)), out)
    y = matmul_of(call, "addmm", mat1, mat2, roles)
    if y is PASS:
        return PASS
    y = y if alpha == 1 else y * alpha
    if beta != 0:  # beta=0 ignores what `input` holds, NaN too
        input = input.to(y.dtype)  # noqa: A001
        y = y + (input if beta == 1 else input * beta)
    return stored(y, out)


def _masked_scores(run: Emulation, mask: Tensor, query: Tensor, key: Tensor) -> Tensor:
    """Return the scores of torch's multi-head attention under an added mask, with keys that are changed first."""
    scores: Tensor = matmul(run, query, key)
    return mask.to(scores.dtype) + scores


def addbmm(
    run: Emulation,
    input: Tensor,  # noqa: A002
    batch1: Tensor,
    batch2: Tensor,
    *,
    beta: Any = 1,
    alpha: Any = 1,
    out: Any = None,
) -> Any:
    """Emulate `torch.addbmm`: one product over batch and columns together."""
    if batch1.ndim != 3 or batch2.ndim != 3:
        return PASS
    a = batch1.transpose(0, 1).reshape(batch1.shape[1], -1)
    return addmm(run, input, a, batch2.reshape(-1, batch2.shape[2]), beta=beta, alpha=alpha, out=out)


def addmm_(run: Emulation, input: Tensor, mat1: Tensor, mat2: Tensor, *, beta: Any = 1, alpha: Any = 1) -> Any:  # noqa: A002
    """Emulate `Tensor.addmm_` and its kin, in place."""
    y = addmm(run, input, mat1, mat2, beta=beta, alpha=alpha)
    return y if y is PASS else input.copy_(y)


def addbmm_(run: Emulation, input: Tensor, batch1: Tensor, batch2: Tensor, *, beta: Any = 1, alpha: Any = 1) -> Any:  # noqa: A002
    """Emulate `Tensor.addbmm_`, in place."""
    y = addbmm(run, input, batch1, batch2, beta=beta, alpha=alpha)
    return y if y is PASS else input.copy_(y)


def rmatmul(run: Emulation, input: Tensor, other: Tensor) -> Any:  # noqa: A002
    """Emulate `Tensor.__rmatmul__`."""
    return matmul(run, other, input)


def inner(run: Emulation, input: Tensor, other: Tensor, *, out: Tensor | None = None) -> Any:  # noqa: A002
    """Emulate `torch.inner`: a sum over both last axes."""
    if input.ndim == 0 or other.ndim == 0:
        return PASS
    return tensordot(run, input, other, ([-1], [-1]), out)


def tensordot(run: Emulation, a: Tensor, b: Tensor, dims: Any = 2, out: Tensor | None = None) -> Any:
    """Emulate `torch.tensordot`."""
    if isinstance(dims, Tensor):
        dims = dims.tolist()
    if isinstance(dims, int):
        dims = (range(a.ndim - dims, a.ndim), range(dims))
    summed_a, summed_b = [d % a.ndim for d in dims[0]], [d % b.ndim for d in dims[1]]
    roles = roles_of(run, a, b)
    operation = "linear" if "weight" in roles else run.thread.products_are
    call = run.start(operation, a if roles[0] == "weight" else b if roles[1] == "weight" else None)
    if call is None:
        return PASS
    operands = prepared(run, "tensordot", a, b)
    if operands is None:
        return PASS
    a, b = operands
    for i, j in zip(summed_a, summed_b, strict=True):  # torch sums an operand over what the other has once
        a = a if b.shape[j] != 1 else a.sum(i, keepdim=True)
        b = b if a.shape[i] != 1 else b.sum(j, keepdim=True)
        if a.shape[i] != b.shape[j]:
            return PASS
    free_a = [d for d in range(a.ndim) if d not in summed_a]
    free_b = [d for d in range(b.ndim) if d not in summed_b]
    shape = [a.shape[d] for d in free_a] + [b.shape[d] for d in free_b]
    length = math.prod(a.shape[d] for d in summed_a)
    left = a.permute(*free_a, *summed_a).reshape(math.prod(a.shape[d] for d in free_a), length)
    right = b.permute(*free_b, *summed_b).reshape(math.prod(b.shape[d] for d in free_b), length)
    return stored(product(call, left, right, Spec(*roles)).reshape(shape), out)


def vecdot(run: Emulation, x: Tensor, y: Tensor, *, dim: int = -1, out: Tensor | None = None) -> Any:
    """Emulate `torch.linalg.vecdot`: one sum of products for each pair of vectors."""
    roles = roles_of(run, x, y)
    operation = "linear" if "weight" in roles else run.thread.products_are
    call = run.start(operation, x if roles[0] == "weight" else y if roles[1] == "weight" else None)
    if call is None:
        return PASS
    operands = prepared(run, "vecdot", x, y)
    if operands is None:
        return PASS
    a, b = (t.movedim(dim, -1)[..., None, :] for t in torch.broadcast_tensors(*operands))  # type: ignore[no-untyped-call]
    return stored(product(call, a, b, Spec(*roles))[..., 0, 0], out)


def bilinear(run: Emulation, input1: Tensor, input2: Tensor, weight: Tensor, bias: Tensor | None = None) -> Any:
    """Emulate `torch.nn.functional.bilinear`: a product with the weight, then one of two activations."""
    call = run.start("linear", weight)
    if call is None:
        return PASS
    operands = prepared(run, "bilinear", input1, input2, weight, bias)
    if operands is None:
        return PASS
    input1, input2, weight, bias = operands
    out, first, second = weight.shape
    x1, x2 = input1.reshape(-1, first), input2.reshape(-1, second)
    half = product(call, x1, weight.permute(0, 2, 1).reshape(-1, first), Spec()).reshape(-1, out, second)
    again = run.call("linear", call.layer)
    y = product(again, half, x2[:, None], Spec("activation", "activation"))[..., 0]
    y = y if bias is None else y + bias
    return y.reshape(*input1.shape[:-1], out)


_T, _A = torch.Tensor, torch.ops.aten
#: Function of torch -> what emulates it.
HANDLERS: dict[Any, Any] = {
    functional.linear: linear,
    _A.linear: linear,
    _A.linear.default: linear,
    torch.bilinear: bilinear,
    functional.bilinear: bilinear,
    torch.tensordot: tensordot,
    torch.inner: inner,
    torch.linalg.vecdot: vecdot,
    _T.inner: inner,
    _T.__rmatmul__: rmatmul,
    torch.addbmm: addbmm,
    _T.addbmm: addbmm,
    _T.addbmm_: addbmm_,
    **dict.fromkeys(
        [
            *(torch.matmul, torch.mm, torch.bmm, torch.mv, torch.dot, torch.vdot, torch.linalg.matmul),
            *(_T.matmul, _T.__matmul__, _T.mm, _T.bmm, _T.mv, _T.dot, _T.vdot),
            *(_A.matmul, _A.mm, _A.bmm, _A.mv, _A.dot, _A.matmul.default, _A.mm.default, _A.bmm.default, _A.mv.default),
            _A.dot.default,
        ],
        matmul,
    ),
    **dict.fromkeys(
        [
            *(torch.addmm, torch.baddbmm, torch.addmv, _T.addmm, _T.baddbmm, _T.addmv),
            *(_A.addmm, _A.baddbmm, _A.addmv, _A.addmm.default, _A.baddbmm.default, _A.addmv.default),
        ],
        addmm,
    ),
    **dict.fromkeys([_T.addmm_, _T.baddbmm_, _T.addmv_], addmm_),
}
