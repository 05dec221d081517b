"""The operations of a transformer, layer by layer, on one of the devices that share it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from lowp._errors import ArgumentError
from lowp.hw_models.model_shapes import Transformer
from lowp.hw_models.workload import Operation, Workload


@dataclass(frozen=True)
class _Run:
    """One pass: what is computed, and how it is shared."""

    shape: Transformer
    phase: str
    batch: int
    context: int
    parts: int
    fused: bool

    @property
    def queries(self) -> int:
        """New tokens of each sequence."""
        return 1 if self.phase == "decode" else self.context

    @property
    def tokens(self) -> int:
        return self.batch * self.queries

    @property
    def heads(self) -> int:
        return self.shape.heads // self.parts

    @property
    def kv_heads(self) -> int:
        """Key and value heads on one device; each has at least one, copied where there are fewer than devices."""
        return max(1, self.shape.kv_heads // self.parts)

    @property
    def ffn(self) -> int:
        return self.shape.ffn // self.parts

    def linear(
        self, name: str, n: int, k: int, role: str = "linear", m: int = 0, groups: int = 1, rows: int = 0
    ) -> Operation:
        return Operation("matmul", m or self.tokens, n, k, self.shape.layers, name, role, groups, rows=rows)

    def pointwise(self, name: str, n: int, read: int = 1, written: int = 1) -> Operation:
        """An operation on `tokens x n` values, which reads and writes so many tensors of that size."""
        values = self.tokens * n
        return Operation(
            "elementwise",
            self.tokens,
            n,
            1,
            self.shape.layers,
            name,
            "other",
            read=read * values,
            written=written * values,
        )


def transformer_workload(shape: Transformer, phase: str, batch: int, context: int, parts: int, fused: bool) -> Workload:
    """Return one pass of a transformer; arguments as `workload`, checked there but for what `parts` must divide.

    Raises:
        ArgumentError: `parts` does not divide heads, inner size or vocabulary.
    """
    _check_parts(shape, parts)
    run = _Run(shape, phase, batch, context, parts, fused)
    layer = [*_attention(run), *_feed_forward(run)]
    operations = [*_start(run), *layer, *_end(run)]
    weights = sum(_weights(op) * op.count for op in layer if op.role == "linear")
    if shape.experts > 1:  # all experts are held, whatever is read
        weights = shape.layers * (shape.layer_weights - _attention_weights(shape)) // parts
        weights += shape.layers * _attention_weights(shape) // parts
    head = shape.head_weights // parts
    other = shape.other_weights - (0 if not shape.tied else shape.hidden * shape.vocabulary)
    if shape.architecture == "vision":
        weights += shape.patch_weights
    cached = 2 * shape.layers * run.kv_heads * shape.head * batch * context if shape.architecture == "decoder" else 0
    return Workload(
        name=shape.name,
        operations=tuple(operations),
        weight_values=weights,
        other_values=other,
        head_values=head,
        cache_values=cached,
        tokens=batch if phase == "decode" else batch * context,
        phase=phase,
        devices=parts,
    )


def _weights(op: Operation) -> int:
    return op.right_values if op.kind == "matmul" else 0


def _attention_weights(shape: Transformer) -> int:
    return shape.hidden * shape.head * (2 * shape.heads + 2 * shape.kv_heads)


def _check_parts(shape: Transformer, parts: int) -> None:
    head = shape.classes if shape.architecture == "vision" else shape.vocabulary
    divided = {"heads": shape.heads, "ffn": shape.ffn}
    for name, size in divided.items():
        if size % parts:
            raise ArgumentError(f"tensor_parallel={parts!r} does not divide {name}={size!r} of {shape.name!r}.")
    if parts > head > 0:
        raise ArgumentError(f"tensor_parallel={parts!r} is more than the {head!r} outputs of {shape.name!r}.")
    if shape.kv_heads % parts and parts % shape.kv_heads:
        raise ArgumentError(
            f"tensor_parallel={parts!r} neither divides kv_heads={shape.kv_heads!r} of {shape.name!r} nor is divided."
        )


def _start(run: _Run) -> Iterator[Operation]:
    shape, hidden = run.shape, run.shape.hidden
    values = run.tokens * hidden
    if shape.architecture == "vision":
        patches = run.batch * (shape.tokens - 1)
        yield Operation("convolution", patches, hidden, 3 * shape.patch**2, 1, "patches", "linear")
        yield Operation("elementwise", run.tokens, hidden, 1, 1, "positions", "other", read=2 * values, written=values)
        return
    tables = 1 + (shape.positions > 0) + (shape.token_types > 0)
    yield Operation("elementwise", run.tokens, hidden, 1, 1, "embedding", "other", read=tables * values, written=values)


def _attention(run: _Run) -> Iterator[Operation]:
    shape, hidden, head = run.shape, run.shape.hidden, run.shape.head
    query, key = run.heads * head, run.kv_heads * head
    yield run.pointwise("layer.attention.norm", hidden, read=2, written=2)  # with the residual sum before it
    if run.fused:
        yield run.linear("layer.attention.qkv", query + 2 * key, hidden)
    else:
        yield run.linear("layer.attention.q", query, hidden)
        yield run.linear("layer.attention.k", key, hidden)
        yield run.linear("layer.attention.v", key, hidden)
    if shape.architecture == "decoder" and not shape.positions:
        yield run.pointwise("layer.attention.rotary", query + key)
    yield from _scores(run)
    yield run.linear("layer.attention.out", hidden, query)
    yield from _all_reduce(run, "layer.attention.all_reduce")


def _scores(run: _Run) -> Iterator[Operation]:
    """Queries against keys: one kernel, or products with a softmax between them. Groups share their keys."""
    shape = run.shape
    shared = run.heads // run.kv_heads
    m, groups = run.queries * shared, run.batch * run.kv_heads
    causal = shape.architecture == "decoder"
    pairs = shared * run.queries * (2 * run.context - run.queries + 1) // 2 if causal else 0
    if run.fused:
        name = "layer.attention"
        yield Operation("attention", m, run.context, shape.head, shape.layers, name, "attention", groups, pairs=pairs)
        return
    yield run.linear("layer.attention.scores", run.context, shape.head, "attention", m, groups)
    values = groups * m * run.context
    yield Operation(
        "elementwise",
        groups * m,
        run.context,
        1,
        shape.layers,
        "layer.attention.softmax",
        "other",
        read=values,
        written=values,
    )
    yield run.linear("layer.attention.values", shape.head, run.context, "attention", m, groups)


def _feed_forward(run: _Run) -> Iterator[Operation]:
    shape, hidden = run.shape, run.shape.hidden
    yield run.pointwise("layer.ffn.norm", hidden, read=2, written=2)
    rows, groups = run.tokens, 1
    if shape.experts > 1:
        yield run.linear("layer.ffn.router", shape.experts, hidden)
        groups = _active(run)
        rows *= shape.active_experts
    m = math.ceil(rows / groups)
    shared: dict[str, Any] = {"m": m, "groups": groups, "rows": rows if rows < m * groups else 0}
    if shape.gated and run.fused:
        yield run.linear("layer.ffn.gate_up", 2 * run.ffn, hidden, **shared)
    elif shape.gated:
        yield run.linear("layer.ffn.gate", run.ffn, hidden, **shared)
        yield run.linear("layer.ffn.up", run.ffn, hidden, **shared)
    else:
        yield run.linear("layer.ffn.up", run.ffn, hidden, **shared)
    values = rows * run.ffn
    yield Operation(
        "elementwise",
        rows,
        run.ffn,
        1,
        shape.layers,
        "layer.ffn.activation",
        "other",
        read=values * (2 if shape.gated else 1),
        written=values,
    )
    yield run.linear("layer.ffn.down", hidden, run.ffn, **shared)
    yield from _all_reduce(run, "layer.ffn.all_reduce")


def _active(run: _Run) -> int:
    """Experts that some token goes to, on average over random routing."""
    return run.shape.experts_read(run.tokens)


def _all_reduce(run: _Run, name: str) -> Iterator[Operation]:
    if run.parts > 1:
        yield Operation("all_reduce", run.tokens, run.shape.hidden, 1, run.shape.layers, name, "other")


def _end(run: _Run) -> Iterator[Operation]:
    shape, hidden = run.shape, run.shape.hidden
    values = run.tokens * hidden
    yield Operation("elementwise", run.tokens, hidden, 1, 1, "norm", "other", read=2 * values, written=values)
    if shape.pooler:
        yield Operation("matmul", run.batch, hidden, hidden, 1, "pooler", "linear")
    if shape.head_weights:
        outputs = math.ceil((shape.classes or shape.vocabulary) / run.parts)
        yield Operation("matmul", run.batch, outputs, hidden, 1, "head", "head")
