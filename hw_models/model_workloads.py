"""The operations of known models, from their shapes."""

from __future__ import annotations

import math
from functools import lru_cache

from lowp._errors import ArgumentError, unknown_name
from lowp.formats.spec import check_flag
from lowp.hw_models.arguments import sizes
from lowp.hw_models.model_shapes import Residual, Shape, Transformer, model_shape
from lowp.hw_models.residual_workload import residual_workload
from lowp.hw_models.transformer_workload import transformer_workload
from lowp.hw_models.workload import Workload

#: What a model does: all tokens at once, one more token per sequence, or either's like without a cache.
PHASES = ("prefill", "decode", "forward")
#: Tokens per sequence where none are given.
DEFAULT_CONTEXT = 2048


def workload(
    model: str | Shape,
    *,
    phase: str | None = None,
    batch: int = 1,
    context: int | None = None,
    tensor_parallel: int = 1,
    fused: bool = True,
) -> Workload:
    """Return the operations of a model on one of the devices that share it.

    Args:
        model: A name of `models()`, or a shape.
        phase: "prefill": all `context` tokens of each sequence; "decode": one more token per sequence, with `context`
            keys in the cache, its own included; "forward" for models without a cache. Default "decode" for decoders,
            else "forward".
        batch: Sequences, or images.
        context: Tokens per sequence; default 2048, at most the model's positions; images set it themselves.
        tensor_parallel: Devices that share each layer: heads and inner sizes are divided, sums exchanged.
        fused: Whether queries, keys and values, gate and first product, and attention are one kernel each, and masked
            pairs are skipped, as in serving; False takes them apart, as plain PyTorch modules do.

    Raises:
        ArgumentError: An unknown model or phase; a size below 1; a context beyond the model's positions or with an
            image model; heads, inner size or vocabulary that `tensor_parallel` does not divide.

    Source:
        Counted as in Yuan et al. (arXiv 2402.16363); keys and values are those of `kv_heads`.

    Example:
        >>> work = workload("llama-2-7b", phase="prefill", batch=1, context=2048)
        >>> [op.name for op in work if op.kind == "attention"]
        ['layer.attention']
    """
    shape = model_shape(model)
    check_flag("fused", fused)
    if phase is not None and phase not in PHASES:
        raise ArgumentError(unknown_name("phase", phase, PHASES))
    batch, tensor_parallel = sizes(batch=batch, tensor_parallel=tensor_parallel)
    decoder = shape.architecture == "decoder"
    chosen = phase or ("decode" if decoder else "forward")
    if (chosen == "forward") == decoder:
        allowed = "'prefill', 'decode'" if decoder else "'forward'"
        raise ArgumentError(f"phase={chosen!r} of {shape.name!r}; allowed: {allowed}.")
    return _workload(shape, chosen, batch, _context(shape, context), tensor_parallel, fused)


def _context(shape: Shape, context: int | None) -> int:
    if shape.architecture in ("vision", "residual"):
        if context is not None:
            raise ArgumentError(f"context={context!r} of {shape.name!r}, whose image sets it; leave it out.")
        return shape.tokens if isinstance(shape, Transformer) else 1
    assert isinstance(shape, Transformer)
    limit = shape.positions or math.inf
    if context is None:
        return int(min(DEFAULT_CONTEXT, limit))
    (tokens,) = sizes(context=context)
    if tokens > limit:
        raise ArgumentError(f"context={context!r} is beyond the {shape.positions} positions of {shape.name!r}.")
    return tokens


@lru_cache(maxsize=4096)
def _workload(shape: Shape, phase: str, batch: int, context: int, parts: int, fused: bool) -> Workload:
    if isinstance(shape, Residual):
        if parts > 1:
            raise ArgumentError(f"tensor_parallel={parts!r} of {shape.name!r}; allowed: 1.")
        return residual_workload(shape, batch)
    return transformer_workload(shape, phase, batch, context, parts, fused)
