"""Products that reach torch's operators unseen, from inside C++ functions and scripted modules."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from lowp.emulation import _torch_fast_paths, _torch_fused
from lowp.emulation._torch_calls import Call, inside, wide
from lowp.emulation._torch_conv import Convolution, Geometry, Kept, convolution_gradients
from lowp.emulation._torch_names import next_node
from lowp.emulation._torch_products import Spec
from lowp.emulation.casts import Cast
from lowp.emulation.recipe import PASSES

if TYPE_CHECKING:
    from lowp.emulation._torch_mode import Emulation

Tensor = torch.Tensor
_A = torch.ops.aten
#: Operator -> position of its first factor.
_PRODUCTS = {
    **dict.fromkeys((_A.mm.default, _A.bmm.default, _A.mv.default, _A.dot.default), 0),
    **dict.fromkeys((_A.addmm.default, _A.baddbmm.default, _A.addmv.default), 1),
}
#: Operators with products inside that cannot be taken apart here -> the operation that a recipe calls them.
_FUSED = {
    "_scaled_dot_product_fused_attention_overrideable": "attention",
    "_flash_attention_forward": "attention",
    "_efficient_attention_forward": "attention",
    "mkldnn_rnn_layer": "recurrent",
    "_cudnn_rnn": "recurrent",
    "miopen_rnn": "recurrent",
    "embedding": "embedding",
    "_embedding_bag": "embedding",
    "_embedding_bag_forward_only": "embedding",
    "_convolution": "conv",
    "mkldnn_convolution": "conv",
    "_grouped_mm": "linear",
    "_scaled_mm": "linear",
    "_scaled_grouped_mm": "linear",
    "_linear_cross_entropy": "linear",
    "_trilinear": "linear",
    "_addmm_activation": "linear",
    "conv_tbc": "conv",
    "_int_mm": "linear",
    "_sparse_mm": "linear",
    "_sparse_addmm": "linear",
    "_sparse_mm_reduce_impl": "linear",
    "sparse_sampled_addmm": "linear",
    "_cslt_sparse_mm": "linear",
    "hspmm": "linear",
    "_weight_int8pack_mm": "linear",
    "_weight_int4pack_mm": "linear",
}
#: Layers that are taken apart.
_LAYERS = ("_native_multi_head_attention", "_transformer_encoder_layer_fwd")
_BACKWARD = _A.convolution_backward.default
_CONVOLUTIONS = (_A.convolution.default, _BACKWARD)
_RECORDS = 100_000


class Record(NamedTuple):
    """What the forward pass knew of a product: for its backward products."""

    call: Call
    spec: Spec
    first: int
    second: int


class Fallback:
    """Rounds the factors of products that nothing saw by its public name."""

    def __init__(self, run: Emulation) -> None:
        self.run = run
        self._records: dict[int, Record | _torch_fused.Record] = {}

    def knows(self, func: Any) -> bool:
        """Whether an operator is, or holds, a product."""
        known = func in _PRODUCTS or func in _CONVOLUTIONS or _fused(func) != ""
        return known or _torch_fused.is_attention(_name(func)) or _name(func) in _LAYERS

    def compute(self, func: Any, args: Any, kwargs: Any) -> tuple[bool, Any]:
        """Return whether the operator was emulated, and its result."""
        backward = torch._C._current_graph_task_id() != -1
        if func in _CONVOLUTIONS:
            result = self._convolution_backward(*args) if func is _BACKWARD else self._convolution(*args)
            return result is not None, result
        if _torch_fused.is_attention(_name(func)):
            return self._attention(func, args, kwargs)
        if _name(func) in _LAYERS:
            given = _torch_fused.bound(func, args, kwargs)
            with inside(args[0].device.type):
                result = _torch_fast_paths.take_apart(self.run, _name(func), given)
            return result is not None, result
        if func not in _PRODUCTS:
            operation = _fused(func)
            layer = self.run.names.current()
            if not backward and self.run.emulates(operation, layer):
                self.run.left(_name(func), "it is a fused operator that was called inside C++")
            return False, None
        position = _PRODUCTS[func]
        a, b = args[position : position + 2]
        if not a.is_floating_point() or not b.is_floating_point():
            return False, None
        roles = self._backward_roles(a, b) if backward else self._forward_roles(a, b)
        if roles is None:
            return False, None
        call, product, (role_a, role_b) = roles
        with inside(a.device.type):
            left, right = (x[None] if x.ndim == 1 and i == 0 else x for i, x in enumerate((a, b)))
            right = right[:, None] if right.ndim == 1 else right
            ra = call.round(left, role_a, product, -1, -2)
            rb = call.round(right, role_b, product, -2, -1, second=role_a == role_b)
            y = call.matmul(ra.values, rb.values, product, parts=(ra.parts, rb.parts))
            y = y[..., 0] if b.ndim == 1 else y
            y = y[..., 0] if a.ndim == 1 and y.ndim else y
            y = _plus(y, args[0], kwargs) if position else y
            return True, call.output(y, product, a.dtype) if y.ndim else y.to(a.dtype)

    def _attention(self, func: Any, args: Any, kwargs: Any) -> tuple[bool, Any]:
        """Return whether a fused attention was emulated, and its results."""
        if _torch_fused.is_backward(_name(func)):
            found = self._record()
            if not isinstance(found, _torch_fused.Record):
                return False, None
            return True, _torch_fused.backward(found, func, args, kwargs)
        record = _torch_fused.start(self.run, func, args, kwargs)
        if record is None:
            return False, None
        self._remember(record)
        return True, _torch_fused.forward(record, func, args, kwargs)

    def owns_node(self) -> bool:
        """Whether the node of the autograd graph that is being computed has a record."""
        return bool(self._records) and self._record() is not None

    def _remember(self, record: Record | _torch_fused.Record) -> None:
        self.run.follow_backward()
        if len(self._records) > _RECORDS:
            self._records.clear()
        self._records[next_node() - 1] = record

    def _record(self) -> Record | _torch_fused.Record | None:
        """Return what the forward pass knew of the node of the autograd graph that is being computed."""
        node: Any = torch._C._current_autograd_node()
        return self._records.get(node._sequence_nr()) if node is not None else None

    def _forward_roles(self, a: Tensor, b: Tensor) -> Any:
        owner_a, owner_b = self.run.names.storage_owner(a), self.run.names.storage_owner(b)
        weight_b = owner_b is not None
        weight_a = owner_a is not None and not weight_b
        spec = Spec("weight" if weight_a else "activation", "weight" if weight_b else "activation")
        operation = "linear" if weight_a or weight_b else self.run.thread.products_are
        layer = self.run.names.inner(owner_b if weight_b else owner_a)
        call = self._start(operation, layer, spec, a, b)
        return None if call is None else (call, "forward", (spec.role_a, spec.role_b))

    def _start(self, operation: str, layer: str, spec: Spec, a: Tensor, b: Tensor) -> Call | None:
        """Return a new call whose backward products will be known by their node of the autograd graph."""
        if not self.run.emulates(operation, layer):
            return None
        if not all(_is_simple(self.run.known_cast(layer, operation, p, r)[0]) for p in PASSES for r in PASSES[p]):
            self.run.left(operation, "it was called inside C++, and the recipe carries operands or masks backward")
            return None
        call = self.run.call(operation, layer)
        self.run.report.remark(
            f"layer {layer!r}, {operation}: a product inside a C++ function was emulated below autograd"
        )
        self._remember(Record(call, spec, _storage(a), _storage(b)))
        return call

    def _convolution(self, x: Tensor, w: Tensor, bias: Any, *geometry: Any) -> Tensor | None:
        """Return a convolution that nothing saw by its public name."""
        layer = self.run.names.inner(self.run.names.storage_owner(w))
        call = self._start("conv", layer, Spec(), x, w) if x.is_floating_point() else None
        if call is None:
            return None
        with inside(x.device.type):
            return Convolution.forward(x, w, bias, call, Geometry(*geometry), Kept())

    def _convolution_backward(self, g: Tensor, x: Tensor, w: Tensor, _: Any, *rest: Any) -> Any:
        """Return the gradients of such a convolution."""
        record = self._record()
        if not isinstance(record, Record) or record.call.operation != "conv":
            return None
        *geometry, wanted = rest
        with inside(g.device.type):
            return convolution_gradients(record.call, Geometry(*geometry), g, x, w, wanted)

    def _backward_roles(self, a: Tensor, b: Tensor) -> Any:
        record = self._record()
        if not isinstance(record, Record):
            return None
        places = {record.first: True, record.second: False}
        for x, first_factor in ((a, True), (b, False)):
            if _storage(x) in places:
                own_first = places[_storage(x)]
                role, product = record.spec.side(own_first)[0], record.spec.side(not own_first)[1]
                roles = (role, "gradient") if first_factor else ("gradient", role)
                return record.call, product, roles
        self.run.report.remark(
            f"layer {record.call.layer!r}: a backward product whose operands are unknown was left alone"
        )
        return None


def _is_simple(cast: Cast) -> bool:
    """Whether a cast leaves nothing for another pass."""
    return not cast.reuse and cast.method not in ("quest",) and cast.gradient == "straight_through"


def _plus(y: Tensor, c: Tensor, kwargs: Any) -> Tensor:
    beta, alpha = kwargs.get("beta", 1), kwargs.get("alpha", 1)
    y = y if alpha == 1 else y * alpha
    return y if beta == 0 else y + wide(c) * beta


def _name(func: Any) -> str:
    name: str = func._schema.name
    return name.rpartition("::")[2]


def _fused(func: Any) -> str:
    """Return the operation that an operator fuses with something else; "" for none."""
    name = _name(func)
    if func.namespace == "quantized" and "pack" not in name:
        return next((o for o in ("linear", "conv", "embedding") if name.startswith(o)), "")
    return _FUSED.get(name, "")


def _storage(x: Tensor) -> int:
    return x.untyped_storage().data_ptr()
