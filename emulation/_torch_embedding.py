"""Embeddings whose rows are rounded where they are read, and whose gradients are rounded where they arrive."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional

from lowp.emulation._torch_calls import Call, decided, inside
from lowp.emulation._torch_matmul import HANDLERS, PASS, prepared, stored
from lowp.emulation._torch_products import check_forgettable
from lowp.formats import parse
from lowp.rounding._pieces import depends_on_whole

if TYPE_CHECKING:
    from lowp.emulation._torch_mode import Emulation

Tensor = torch.Tensor


class Rows(torch.autograd.Function):
    """Rows of a table as the weight's cast makes them; their gradient as the gradient's cast makes it."""

    @staticmethod
    def forward(rows: Tensor, call: Call, read: bool, arriving: bool, masks: list[Tensor]) -> Tensor:
        if not read:
            return rows.view_as(rows)
        with inside(rows.device.type):
            pieces = arriving and _lie_in_pieces(rows, call, "weight", "forward")
            rounded = call.round(rows, "weight", "forward", -1, max(rows.ndim - 2, 0), pieces=pieces)
            masks.extend([] if rounded.mask is None else [rounded.mask])
            result: Tensor = call.output(rounded.values, "forward", rows.dtype)
            return result.view_as(result) if result is rows else result

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        _, ctx.call, read, ctx.arriving, masks = inputs
        ctx.read = read
        if read and not masks and ctx.call.cast("weight", "forward").masks:
            check_forgettable(ctx.call, ("weight",))
        ctx.save_for_backward(*masks)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Any, ...]:
        (g,) = gradients
        if ctx.arriving and g.layout == torch.strided:
            with inside(g.device.type):
                last = max(g.ndim - 2, 0)
                pieces = not ctx.read or _lie_in_pieces(g, ctx.call, "gradient", "grad_weight")
                g = ctx.call.round(g, "gradient", "grad_weight", -1, last, pieces=pieces).values.to(g.dtype)
        for mask in ctx.saved_tensors:
            g = g * mask.to(g.dtype)
        return g, None, None, None, None

    @staticmethod
    def vmap(info: Any, in_dims: Any, rows: Any, call: Call, read: bool, arriving: bool, masks: list[Tensor]) -> Any:
        """Round all rows at once."""
        return Rows.apply(rows, call, read, arriving, []), in_dims[0]  # type: ignore[no-untyped-call]


def _lie_in_pieces(rows: Tensor, call: Call, role: str, product: str) -> bool:
    """Whether each data-parallel rank looks up rows of its own: by tokens of a batch, not by positions in a text."""
    if call.run.shard is None:
        return False
    pieces, cast = rows.ndim > 2 and len(rows) > 1, call.cast(role, product)
    whole = bool(cast.format) and depends_on_whole(parse(cast.format))
    if not pieces and (cast.stochastic or cast.scaling != "none" or whole):
        call.run.report.remark(
            f"{call.where(product, role)}: rows of shape {tuple(rows.shape)} were rounded as rows that all ranks look "
            "up alike; those of a batch have three axes, and more than one of the first"
        )
    return pieces


def _through(rows: Tensor, call: Call, read: bool, arriving: bool) -> Tensor:
    result: Tensor = Rows.apply(rows, call, read, arriving, [])  # type: ignore[no-untyped-call]
    return result


def embedding(run: Emulation, input: Tensor, weight: Tensor, *args: Any, **kwargs: Any) -> Any:  # noqa: A002
    """Emulate `torch.nn.functional.embedding`: the rows that are looked up are one tensor for tensor-wide scales."""
    call = run.start("embedding", weight)
    if call is None or prepared(run, "embedding", weight) is None:
        return PASS
    with decided():
        rows = functional.embedding(input, weight, *args, **kwargs)
    return _through(rows, call, True, True)


def embedding_bag(run: Emulation, input: Tensor, weight: Tensor, *args: Any, **kwargs: Any) -> Any:  # noqa: A002
    """Emulate `torch.nn.functional.embedding_bag`: the whole table is rounded, then its rows are combined."""
    call = run.start("embedding", weight)
    if call is None or prepared(run, "embedding_bag", weight) is None:
        return PASS
    if kwargs.get("max_norm") is not None or (len(args) > 1 and args[1] is not None):
        run.left("embedding_bag", "max_norm changes the table in place")
        return PASS
    with decided():
        y = functional.embedding_bag(input, _through(weight, call, True, False), *args, **kwargs)
    return _through(y, call, False, True)


def embedding_rows(
    run: Emulation, weight: Tensor, indices: Tensor, padding_idx: int = -1, scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Any:  # fmt: skip
    """Emulate `torch.embedding`."""
    call = run.start("embedding", weight)
    if call is None or prepared(run, "embedding", weight) is None:
        return PASS
    with decided():
        rows = torch.embedding(weight, indices, padding_idx, scale_grad_by_freq, sparse)
    return _through(rows, call, True, True)


def getitem(run: Emulation, input: Tensor, index: Any) -> Any:  # noqa: A002
    """Emulate `weight[ids]`; a weight that data picks numbers from otherwise is a remark."""
    picks = [i for i in (index if isinstance(index, tuple | list) else (index,)) if isinstance(i, Tensor)]
    if not picks or run.thread.derived.root(input) is None:
        return PASS
    first, *rest = index if isinstance(index, tuple) else (index,)
    whole = all(i is Ellipsis or (isinstance(i, slice) and i == slice(None)) for i in rest)
    if whole and input.ndim == 2 and _is_whole_number(first):
        return _picked(run, input, lambda: input[index])
    return _left(run, "weight[...]", input, picks)


def index_select(run: Emulation, input: Tensor, dim: Any, index: Any, *, out: Any = None) -> Any:  # noqa: A002
    """Emulate `torch.index_select` of rows of a weight; of its columns it is a remark."""
    if run.thread.derived.root(input) is None or not isinstance(index, Tensor):
        return PASS
    if input.ndim == 2 and dim in (0, -2):
        rows = _picked(run, input, lambda: torch.index_select(input, dim, index))
        return rows if rows is PASS else stored(rows, out)
    return _left(run, "index_select", input, [index])


def _is_whole_number(index: Any) -> bool:
    return isinstance(index, Tensor) and index.dtype in (torch.int8, torch.int16, torch.int32, torch.int64)


def _picked(run: Emulation, weight: Tensor, rows: Callable[[], Tensor]) -> Any:
    call = run.start("embedding", weight)
    if call is None or prepared(run, "embedding", weight) is None:
        return PASS
    with decided():
        found = rows()
    return _through(found, call, True, True)


def _left(run: Emulation, name: str, weight: Tensor, picks: list[Tensor]) -> Any:
    """Remark on numbers that data picks from a weight; picked by buffers they are a weight still."""
    stays = all(run.names.is_buffer(i) or run.thread.derived.root(i) is not None for i in picks)
    if not stays and run.wants("embedding", weight) is not None:
        run.left(name, "only rows of a matrix that one tensor of integers picks are an embedding")
    return PASS


HANDLERS.update(
    {functional.embedding: embedding, functional.embedding_bag: embedding_bag, torch.embedding: embedding_rows}
)
HANDLERS.update(dict.fromkeys([torch.index_select, torch.Tensor.index_select], index_select))
HANDLERS[torch.Tensor.__getitem__] = getitem
