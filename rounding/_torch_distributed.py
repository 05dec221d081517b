"""Distributed tensors: every process rounds its piece as one process would round the whole.

Random bits follow positions in the whole tensor, and a tensor-wide scale follows its largest magnitude, which is
reduced over the processes that hold pieces. Blocks must lie within pieces.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch

from lowp._errors import ArgumentError, ArgumentTypeError
from lowp.formats.block import Block
from lowp.formats.packed import Packed
from lowp.formats.spec import Format
from lowp.rounding._format_keys import format_of, key_of
from lowp.rounding._layout import make_layout
from lowp.rounding._pieces import check_amax_suffices, depends_on_whole
from lowp.rounding._torch_calls import Call, axis_list, axis_of, is_per_block, unflat
from lowp.rounding._torch_gradients import differentiable
from lowp.rounding.shard import Shard


def is_distributed(x: Any) -> bool:
    """Whether `x` is a DTensor; never imports torch.distributed."""
    return type(x) is not torch.Tensor and type(x).__name__ == "DTensor"


def reduced_amax(x: torch.Tensor, fmt: Format, axis: Any, groups: list[Any]) -> torch.Tensor | None:
    """Return the largest magnitude that a tensor-wide scale follows, over the pieces of all processes of groups.

    `groups` are what functional collectives take: process groups, or pairs of a device mesh and one of its dimensions.
    None where no scale follows a largest magnitude.
    """
    if not groups or not depends_on_whole(fmt):
        return None
    check_amax_suffices(fmt)
    return all_amax(x, key_of(fmt), axis, groups)


def all_amax(x: torch.Tensor, key: str, axis: Any, groups: list[Any]) -> torch.Tensor:
    """Return the largest magnitude over the pieces of all processes of groups, for a format that follows one."""
    from torch.distributed._functional_collectives import all_reduce, wait_tensor

    # Bits of magnitudes are ordered as the magnitudes are, and NaN is above all, which no float maximum promises.
    bits = torch.ops.lowp.tensor_amax(x.detach(), key, axis_list(axis)).view(torch.int64)
    for group in groups:
        bits = wait_tensor(all_reduce(bits, "max", group))  # type: ignore[no-untyped-call]
    amax: torch.Tensor = bits.view(torch.float64)
    return amax


def quantize_distributed(x: Any, call: Call, gradient: str) -> Any:
    """Round a DTensor; the result has its mesh and placements, pending sums are carried out first."""
    from torch.distributed.tensor import DTensor, Replicate
    from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

    if any(place.is_partial() for place in x.placements):
        x = x.redistribute(placements=[Replicate() if p.is_partial() else p for p in x.placements])
    call.check_shape(x.ndim)
    _check_pieces(x, call)
    if call.needs_positions and not isinstance(call.fmt, Packed):  # which every process has the whole of
        _, offset = compute_local_shape_and_global_offset(x.shape, x.device_mesh, x.placements)
        call = call._replace(shard=Shard(tuple(offset), tuple(x.shape)))
    local = x.to_local()
    sharded = [(x.device_mesh, i) for i, place in enumerate(x.placements) if place.is_shard()]
    amax = reduced_amax(local, call.fmt, call.axis, sharded)
    y = differentiable(local, call, gradient, amax)
    strides = torch.empty(x.shape, device="meta").stride()
    return DTensor.from_local(y, x.device_mesh, x.placements, run_check=False, shape=x.shape, stride=strides)


def _check_pieces(x: Any, call: Call) -> None:
    """Raise ArgumentError where a block, or what the format keeps for a whole row, lies in more than one piece.

    All processes look at all pieces, so that all raise.
    """
    from torch.distributed.tensor import Replicate
    from torch.distributed.tensor import Shard as Split

    fmt = call.fmt
    plain = all(type(p) in (Split, Replicate) for p in x.placements)
    if not plain and (call.needs_positions or isinstance(fmt, Block | Packed)):
        raise ArgumentError(
            f"x has placements {tuple(x.placements)}; {fmt.name!r} with rounding={call.request.mode.name!r} allows "
            "Shard and Replicate. Redistribute x first."
        )
    if isinstance(fmt, Packed) and any(p.is_shard() and x.device_mesh.size(i) > 1 for i, p in enumerate(x.placements)):
        raise ArgumentError(f"x is sharded; {fmt.name!r} takes whole tensors. Redistribute x with Replicate() first.")
    if not isinstance(fmt, Block) or fmt.size == "tensor":
        return
    layout = make_layout(tuple(x.shape), fmt, call.axis)
    for axis, size in zip(layout.axes, layout.sizes, strict=True):
        parts = [x.device_mesh.size(i) for i, p in enumerate(x.placements) if p.is_shard() and p.dim % x.ndim == axis]
        if not _whole_blocks({x.shape[axis]}, parts, size):
            raise ArgumentError(
                f"x of shape {tuple(x.shape)} is sharded along dimension {axis}, whose blocks of {size} ({fmt.name!r}) "
                "would lie in two pieces. Redistribute x, or choose another axis."
            )


def _whole_blocks(lengths: set[int], parts: list[int], size: int) -> bool:
    """Whether cutting lengths into so many pieces, again and again, cuts no block of that size."""
    for count in parts:
        pieces: set[int] = set()
        for length in lengths:
            piece = -(-length // count)
            if piece < length and piece % size:
                return False
            pieces |= {piece, max(length - piece * ((length - 1) // piece), 0) if piece else 0}
        lengths = pieces
    return True


def check_local(x: Any, verb: str) -> None:
    """Raise ArgumentTypeError for a DTensor where a plain tensor is wanted."""
    if is_distributed(x):
        raise ArgumentTypeError(f"{verb} takes plain tensors; x is a DTensor. Pass x.to_local() or x.full_tensor().")


@lru_cache(maxsize=1)
def register_sharding_rules() -> None:
    """Tell DTensor how the operator acts on pieces, for compiled programs, which see nothing of the function above.

    Where results depend on the rest of the tensor, the operator asks for the whole of it: the same bits, more traffic.
    """
    from torch.distributed.tensor import DTensor, Replicate
    from torch.distributed.tensor import Shard as Split
    from torch.distributed.tensor._op_schema import RuntimeSchemaInfo
    from torch.distributed.tensor.experimental import register_sharding

    def along(spec: Any, fmt: str, axis: Any, independent: bool, extra: int) -> list[Any]:
        resolved, ndim = format_of(fmt), len(spec.shape)
        whole = [([Replicate()], [Replicate(), *([None] * extra)])]
        if not independent:
            return whole
        blocked = make_layout(tuple(spec.shape), resolved, axis_of(axis)).axes if isinstance(resolved, Block) else ()
        free = [d for d in range(ndim) if d not in blocked]
        return whole + [([Split(d)], [Split(d), *([None] * extra)]) for d in free]

    @register_sharding(torch.ops.lowp.quantize.default)
    def _(x: Any, fmt: str, *rest: Any) -> list[Any]:
        return along(x, fmt, rest[3], is_per_block(unflat(fmt, *rest[:9])), 12)

    @register_sharding(torch.ops.lowp.in_range.default)
    def _(x: Any, fmt: str, axis: Any, amax: Any = None) -> list[Any]:
        return along(x, fmt, axis, not depends_on_whole(format_of(fmt)), 3)

    # Rules are kept by what arguments they were asked for, of which register_sharding leaves out the strings.
    known = DTensor._op_dispatcher.sharding_propagator.op_to_schema_info
    for op in (torch.ops.lowp.quantize.default, torch.ops.lowp.in_range.default):
        known[op] = RuntimeSchemaInfo(1, needs_pytree=True)
