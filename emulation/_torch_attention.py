"""Attention whose two products are emulated, and whose keys and values are kept in a format."""

from __future__ import annotations

import math
from types import FunctionType
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional

from lowp.emulation._torch_calls import Call, decided, inside
from lowp.emulation._torch_matmul import HANDLERS, PASS, prepared
from lowp.emulation._torch_products import Spec, product

if TYPE_CHECKING:
    from lowp.emulation._torch_mode import Emulation

Tensor = torch.Tensor


class Cache(torch.autograd.Function):
    """Keys or values as the cast of the key-value cache makes them, along the head; the gradient passes."""

    @staticmethod
    def forward(x: Tensor, call: Call, name: str) -> Tensor:
        with inside(x.device.type):
            rounded: Tensor = call.round(x, "kv_cache", "forward", -1, -2, second=name == "value").values.to(x.dtype)
            return rounded.view_as(rounded)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Any, ...]:
        return gradients[0], None, None

    @staticmethod
    def vmap(info: Any, in_dims: Any, x: Any, call: Call, name: str) -> Any:
        """Round all at once."""
        return Cache.apply(x, call, name), in_dims[0]  # type: ignore[no-untyped-call]


def cached(call: Call, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """Return keys and values as they come out of the cache."""
    if not call.cast("kv_cache", "forward"):
        return key, value
    return Cache.apply(key, call, "key"), Cache.apply(value, call, "value")  # type: ignore[no-untyped-call]


def attention(
    run: Emulation, query: Tensor, key: Tensor, value: Tensor, attn_mask: Any = None, dropout_p: float = 0.0,
    is_causal: bool = False, scale: float | None = None, enable_gqa: bool = False,
) -> Any:  # fmt: skip
    """Emulate `torch.nn.functional.scaled_dot_product_attention`: q k^T, times the scale, masked; softmax; p v.

    Scores and probabilities are kept in float32 (float64 for float64) between the two products.
    """
    call = run.start("attention")
    if call is None:
        return _from_cache(run, query, key, value, attn_mask, dropout_p, is_causal, scale, enable_gqa)
    operands = prepared(run, "scaled_dot_product_attention", query, key, value)
    if operands is None:
        return PASS
    query, key, value = operands
    key, value = cached(call, key, value)
    again = run.call("attention", call.layer)
    return attended(call, again, query, key, value, attn_mask, dropout_p, is_causal, scale, enable_gqa)


def attended(
    call: Call, again: Call, query: Tensor, key: Tensor, value: Tensor, mask: Any, dropout_p: float, is_causal: bool,
    scale: float | None, enable_gqa: bool,
) -> Tensor:  # fmt: skip
    """Return attention by its two products, which are two calls; keys and values come out of the cache already."""
    dtype = query.dtype
    if enable_gqa:
        key = key.repeat_interleave(query.shape[-3] // key.shape[-3], -3)
        value = value.repeat_interleave(query.shape[-3] // value.shape[-3], -3)
    lead = torch.broadcast_shapes(query.shape[:-2], key.shape[:-2], value.shape[:-2])  # type: ignore[no-untyped-call]
    query, key, value = (t.expand(*lead, *t.shape[-2:]) for t in (query, key, value))
    both = Spec("activation", "activation")
    scores = product(call, query, key, both).to(computed(dtype))
    scores = scores * (1 / math.sqrt(query.shape[-1]) if scale is None else scale)
    scores = masked(scores, mask, is_causal)
    weights = torch.softmax(scores, -1)
    if mask is not None and mask.dtype == torch.bool:
        weights = torch.where((scores == -math.inf).all(-1, keepdim=True), 0.0, weights)  # nothing to attend to
    weights = functional.dropout(weights, dropout_p) if dropout_p else weights
    return product(again, weights.to(dtype), value, both._replace(last_b=False))


def computed(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype of scores and probabilities between the two products."""
    return dtype if dtype == torch.float64 else torch.float32


def masked(scores: Tensor, mask: Any, is_causal: bool) -> Tensor:
    """Return scores under a boolean or an added mask."""
    if is_causal:
        keep = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
        scores = scores.masked_fill(~keep, -math.inf)
    if mask is None:
        return scores
    return scores.masked_fill(~mask, -math.inf) if mask.dtype == torch.bool else scores + mask


def has_cache(run: Emulation, layer: str | None = None) -> bool:
    """Whether the recipe has a format for keys and values in a layer, by default the running one."""
    layer = run.names.current() if layer is None else layer
    exempt = ([rule.exempt for rule in run.recipe.rules if rule.matches(layer, "attention")] or [False])[-1]
    return not exempt and bool(run.known_cast(layer, "attention", "forward", "kv_cache")[0])


def _from_cache(run: Emulation, query: Tensor, key: Tensor, value: Tensor, *rest: Any) -> Any:
    """Return torch's own attention of cached keys and values, where a recipe names a format for them alone."""
    if not has_cache(run):
        return PASS
    call = run.call("attention", run.names.current())
    key, value = cached(call, key, value)
    mask, dropout, causal, scale, gqa = rest
    with decided():
        return functional.scaled_dot_product_attention(
            query, key, value, mask, dropout, causal, scale=scale, enable_gqa=gqa
        )


def opened(function: Any) -> Any:
    """Return a copy of one of torch's Python functions that runs its body instead of asking the modes first."""
    never = {name: lambda *_: False for name in function.__globals__ if name.startswith("has_torch_function")}
    copy = FunctionType(
        function.__code__,
        {**function.__globals__, **never},
        function.__name__,
        function.__defaults__,
        function.__closure__,
    )
    copy.__kwdefaults__ = function.__kwdefaults__
    return copy


_multi_head = opened(functional.multi_head_attention_forward)


def multi_head_attention(run: Emulation, *args: Any, **kwargs: Any) -> Any:
    """Emulate `torch.nn.functional.multi_head_attention_forward`: its projections and its attention one by one."""
    before = run.thread.products_are, run.thread.operands
    plain_products = kwargs.get("need_weights", True) and has_cache(run)
    run.thread.products_are, run.thread.operands = "attention", _operands_of(run) if plain_products else []
    try:
        with run.function_mode():
            return _multi_head(*args, **kwargs)
    finally:
        run.thread.products_are, run.thread.operands = before


def _operands_of(run: Emulation) -> list[Any]:
    """Return what the second operands of the two plain products of attention become: keys, which are turned; values."""
    layer = run.names.current()
    if run.emulates("attention", layer):  # the cache belongs to the call of the first product
        call = Call(run, layer, "attention", run.state.calls.get((layer, "attention"), 0), run.thread.replaying)
    else:
        call = run.call("attention", layer)
    return [
        lambda key: Cache.apply(key.mT, call, "key").mT,  # type: ignore[no-untyped-call]
        lambda value: Cache.apply(value, call, "value"),  # type: ignore[no-untyped-call]
    ]


HANDLERS.update(
    {
        functional.scaled_dot_product_attention: attention,
        functional.multi_head_attention_forward: multi_head_attention,
    }
)
