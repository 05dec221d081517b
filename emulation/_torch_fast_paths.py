"""The fused layers that torch's transformer modules run in inference, taken apart where C++ calls them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional

from lowp.emulation._torch_attention import attended, cached, has_cache
from lowp.emulation._torch_calls import decided
from lowp.emulation._torch_matmul import PASS, linear_of

if TYPE_CHECKING:
    from lowp.emulation._torch_mode import Emulation

Tensor = torch.Tensor
#: The kind of masks that speak of keys, as `torch.nn.MultiheadAttention.merge_masks` numbers them.
_OF_KEYS = 1


def take_apart(run: Emulation, name: str, given: dict[str, Any]) -> Any:
    """Return the results of a fused layer from emulated products; None where it is left to torch."""
    x: Any = given.get("src", given.get("query"))
    same = "src" in given or given["query"] is given["key"] is given["value"]
    if x.is_nested or not same or given.get("need_weights"):
        run.left(name, "of its arguments: nested tensors, keys of their own, or weights that are returned")
        return None
    run.report.remark(f"{run.where(name)}: a fused layer inside C++ was emulated from its parts")
    if "src" not in given:
        return _self_attention(run, x, given), x.new_zeros(())
    first, second = ([given[f"norm_{part}_{i}"] for part in ("weight", "bias")] for i in (1, 2))

    def norm(x: Tensor, part: list[Tensor]) -> Tensor:
        return functional.layer_norm(x, [given["embed_dim"]], part[0], part[1], given["eps"])

    if given["norm_first"]:
        x = x + _self_attention(run, norm(x, first), given)
        return x + _feed_forward(run, norm(x, second), given)
    x = norm(x + _self_attention(run, x, given), first)
    return norm(x + _feed_forward(run, x, given), second)


def _feed_forward(run: Emulation, x: Tensor, given: dict[str, Any]) -> Tensor:
    hidden = _linear(run, x, given["ffn_weight_1"], given["ffn_bias_1"])
    hidden = functional.gelu(hidden) if given["use_gelu"] else functional.relu(hidden)
    return _linear(run, hidden, given["ffn_weight_2"], given["ffn_bias_2"])


def _linear(run: Emulation, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    layer = _layer(run, weight)
    if run.emulates("linear", layer):
        y: Any = linear_of(run.call("linear", layer), "linear", x, weight, bias)
        if y is not PASS:
            return y  # type: ignore[no-any-return]
    else:
        run.report.add(layer, "linear", "", "", "exempt" if "linear" in run.recipe.operations else "not emulated")
    with decided():
        return functional.linear(x, weight, bias)


def _layer(run: Emulation, weight: Tensor) -> str:
    return run.names.inner(run.names.storage_owner(weight))


def _self_attention(run: Emulation, x: Tensor, given: dict[str, Any]) -> Tensor:
    heads, layer = given.get("num_heads", given.get("num_head")), _layer(run, given["qkv_weight"])
    projected = _linear(run, x, given["qkv_weight"], given["qkv_bias"])
    query, key, value = (t.unflatten(-1, (heads, -1)).transpose(-3, -2) for t in projected.chunk(3, -1))  # type: ignore[no-untyped-call]
    mask = given["mask"]
    if mask is not None:
        mask = mask == 0  # the kernel masks where a number is not zero
        mask = mask[:, None, None] if given["mask_type"] == _OF_KEYS else mask
    if run.emulates("attention", layer):
        call = run.call("attention", layer)
        key, value = cached(call, key, value)
        y = attended(call, run.call("attention", layer), query, key, value, mask, 0.0, False, None, False)
    else:
        if has_cache(run, layer):
            key, value = cached(run.call("attention", layer), key, value)
        with decided():
            y = functional.scaled_dot_product_attention(query, key, value, mask)
    return _linear(run, y.transpose(-3, -2).flatten(-2), given["proj_weight"], given["proj_bias"])
