"""`flex_attention` emulated: its two products, and the functions of scores and masks that the program hands in."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch

from lowp.emulation._torch_attention import cached, computed, has_cache
from lowp.emulation._torch_calls import decided
from lowp.emulation._torch_matmul import HANDLERS, PASS, prepared
from lowp.emulation._torch_products import Spec, product

if TYPE_CHECKING:
    from lowp.emulation._torch_mode import Emulation

Tensor = torch.Tensor
NAME = "flex_attention"


def flex_attention(
    run: Emulation, query: Tensor, key: Tensor, value: Tensor, score_mod: Any, block_mask: Any, scale: float,
    kernel_options: Any, score_mod_other_buffers: Any = (), mask_mod_other_buffers: Any = (),
) -> Any:  # fmt: skip
    """Emulate the operator behind `torch.nn.attention.flex_attention`; all scores are there, as in torch's eager mode.

    Returns the result, and logarithms of sums and largest scores to base 2, as the operator does.
    """
    rest = (score_mod, block_mask, scale, kernel_options, score_mod_other_buffers, mask_mod_other_buffers)
    call = run.start("attention")
    if call is None:
        if not has_cache(run):
            return PASS
        key, value = cached(run.call("attention", run.names.current()), key, value)
        with decided():
            return torch.ops.higher_order.flex_attention(query, key, value, *rest)
    operands = prepared(run, NAME, query, key, value)
    if operands is None:
        return PASS
    query, key, value = operands
    key, value = cached(call, key, value)
    groups = query.shape[1] // key.shape[1]
    key, value = (t.repeat_interleave(groups, 1).expand(len(query), -1, -1, -1) for t in (key, value))
    both = Spec("activation", "activation")
    scores = product(call, query, key, both).to(computed(query.dtype)) * scale
    scores = _modified(scores, score_mod, score_mod_other_buffers, block_mask[-1], mask_mod_other_buffers)
    empty = (scores == -math.inf).all(-1)
    sums = torch.where(empty, -math.inf, scores.logsumexp(-1)) / math.log(2)
    largest = scores.amax(-1) / math.log(2)
    weights = torch.where(empty[..., None], 0.0, torch.softmax(scores, -1))
    again = run.call("attention", call.layer)
    return product(again, weights.to(query.dtype), value, both._replace(last_b=False)), sums, largest


def _modified(scores: Tensor, score_mod: Any, buffers: Any, mask_mod: Any, mask_buffers: Any) -> Tensor:
    """Return scores as the program's functions of score, batch, head, query and key make them, masked."""
    from torch._dynamo._trace_wrapped_higher_order_op import TransformGetItemToIndex
    from torch.nn.attention.flex_attention import _vmap_for_bhqkv

    places = [torch.arange(n, device=scores.device) for n in scores.shape]
    changed = _vmap_for_bhqkv(score_mod, prefix=(0,), suffix=(None,) * len(buffers))
    allowed = _vmap_for_bhqkv(mask_mod, prefix=(), suffix=(None,) * len(mask_buffers))
    with TransformGetItemToIndex():
        return torch.where(allowed(*places, *mask_buffers), changed(scores, *places, *buffers), -math.inf)


HANDLERS[NAME] = flex_attention
