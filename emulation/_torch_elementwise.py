"""Every operation of a torch program rounded: results of primitives, forward and backward, below autograd."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch
from torch.utils._pytree import tree_leaves, tree_map

from lowp._errors import nearest
from lowp.emulation._torch_calls import inside
from lowp.emulation._torch_composites import COMPOSITES
from lowp.emulation._torch_world import TORCH
from lowp.emulation.casting import round_operand
from lowp.emulation.casts import Cast
from lowp.emulation.seeds import site_seed

if TYPE_CHECKING:
    from lowp.emulation._torch_mode import Emulation

_EXACT_NAMES = """
    abs absolute alias amax amin aminmax arange as_strided bernoulli broadcast_tensors cat ceil chunk clamp
    clamp_max clamp_min clone concat conj conj_physical constant_pad_nd copy copysign cummax cummin detach
    diag_embed diagonal diagonal_copy dropout embedding empty empty_like empty_strided expand expand_copy
    exponential eye fill flip floor fmax fmin full full_like gather hardtanh im2col index index_copy index_fill
    index_put index_select isfinite isnan kthvalue lift lift_fresh lift_fresh_copy local_scalar_dense masked_fill
    masked_scatter masked_select max max_pool2d_with_indices max_pool3d_with_indices maximum median min minimum mode
    narrow native_channel_shuffle neg negative new_empty new_empty_strided new_full new_ones new_zeros nonzero
    normal ones ones_like permute pixel_shuffle pixel_unshuffle positive rand rand_like randint randn randn_like
    random randperm record_stream reflection_pad1d reflection_pad2d reflection_pad3d relu repeat repeat_interleave
    replication_pad1d replication_pad2d replication_pad3d reshape resize roll round scalar_tensor scatter select
    select_backward select_scatter set sgn sign slice slice_backward slice_scatter sort split squeeze stack t take
    threshold threshold_backward tile to_copy to_cpu topk transpose tril triu trunc unbind unfold uniform
    unsafe_view unsqueeze upsample_nearest1d upsample_nearest2d upsample_nearest3d view view_as view_copy where zero
    zeros zeros_like
"""
#: Primitives whose results are no new numbers: moved, chosen, drawn, or signs changed. Never rounded.
EXACT = frozenset(_EXACT_NAMES.split())
#: Other names by which a primitive may be chosen: those of NumPy and JAX.
ALIASES = {
    "add": ("add_any",),
    "mul": ("multiply",),
    "sub": ("subtract",),
    "div": ("divide", "true_divide"),
    "pow": ("power",),
    "sum": ("reduce_sum",),
    "prod": ("reduce_prod",),
    "sigmoid": ("logistic",),
    "reciprocal": ("integer_pow",),
    **dict.fromkeys(("mm", "bmm", "mv", "dot", "addmm", "baddbmm", "addmv"), ("matmul", "dot_general")),
    "convolution": ("conv", "conv_general_dilated"),
}


@lru_cache(maxsize=2048)
def primitive_of(func: Any) -> str:
    """Return the name of an operator's primitive: "add" for `aten._foreach_add_.List`.

    Example:
        >>> primitive_of(torch.ops.aten._foreach_add_.List)
        'add'
    """
    name: str = func._schema.name.rpartition("::")[2]
    return name.removeprefix("_foreach_").strip("_")


@lru_cache(maxsize=2048)
def written(func: Any) -> tuple[tuple[int, str], ...]:
    """Return position and name of the arguments that an operator writes to."""
    arguments = func._schema.arguments
    return tuple((i, a.name) for i, a in enumerate(arguments) if a.alias_info is not None and a.alias_info.is_write)


@lru_cache(maxsize=2048)
def is_view(func: Any) -> bool:
    """Whether an operator returns views of its arguments."""
    return any(r.alias_info is not None and not r.alias_info.is_write for r in func._schema.returns)


#: What is added to a seed for imaginary parts: more than the results of one operator.
_IMAGINARY = 1 << 32


class Rounder:
    """Rounds what operators return, as the recipe's "elementwise" cast says."""

    def __init__(self, run: Emulation, decompose: bool) -> None:
        self.run, self.decompose = run, decompose
        self._chosen: dict[str, bool] = {}
        self._casts: dict[str, Cast | None] = {}

    def chooses(self, primitive: str) -> bool:
        """Whether the recipe covers a primitive by any of its names."""
        found = self._chosen.get(primitive)
        if found is None:
            recipe = self.run.recipe
            names = (primitive, *ALIASES.get(primitive, ()))
            wanted = any(fnmatchcase(n, p) for n in names for p in recipe.primitives)
            found = wanted and not any(fnmatchcase(n, p) for n in names for p in recipe.exclude)
            self._chosen[primitive] = found
        return found

    def idle_patterns(self) -> list[str]:
        """Return a sentence for each pattern over primitives that matches none that ran."""
        ran = sorted({name for p in self._chosen for name in (p, *ALIASES.get(p, ()))})
        patterns = (*self.run.recipe.primitives, *self.run.recipe.exclude) if ran else ()
        idle = [p for p in patterns if not any(fnmatchcase(name, p) for name in ran)]
        return [f"the pattern {p!r} over primitives matches none that ran.{nearest(p, ran)}" for p in idle]

    def cast(self, layer: str) -> Cast | None:
        """Return the cast in a layer; None where the layer is left alone."""
        if layer not in self._casts:
            self.run.saw(layer, "elementwise")
            cast = self.run.recipe.cast("elementwise", "", layer, "elementwise")
            self._casts[layer] = cast if cast and self.run.recipe.emulates("elementwise", layer) else None
        return self._casts[layer]

    def parts(self, func: Any) -> Callable[..., Any] | None:
        """Return the function of primitives that a composite operator stands for, if it is to be taken apart."""
        return COMPOSITES.get(func) if self.decompose else None

    def finish(self, func: Any, args: Any, kwargs: Any, result: Any) -> Any:
        """Return an operator's results rounded; what it wrote to is rounded in place."""
        primitive = primitive_of(func)
        if is_view(func) or (primitive in EXACT and not _is_modulus(primitive, args)):
            return result
        layer = self._layer()
        cast = self.cast(layer)
        targets = list(_targets(func, args, kwargs))
        results = tree_leaves(result)
        if not any(_is_float(t) for t in (*targets, *results)):
            return result
        chosen = self.chooses(primitive)
        if cast is None or not chosen:
            self.run.report.add(layer, primitive, "", "elementwise", "unchanged")
            return result
        self.run.report.add(layer, primitive, "", "elementwise", cast.describe())
        seed = 0
        if cast.stochastic:
            seed = self._seed(layer, primitive)
        device = next(t.device.type for t in (*targets, *results) if _is_float(t))
        with inside(device):
            for number, target in enumerate(targets):
                if _is_float(target):
                    target.copy_(self._rounded(target, cast, seed + number))
            return tree_map(self._once(cast, seed + len(targets), {id(t) for t in targets}), result)

    def _once(self, cast: Cast, seed: int, done: set[int]) -> Callable[[Any], Any]:
        """Return a function that rounds results one after another, but for those that were written in place."""
        numbers = itertools.count(seed)

        def rounded(t: Any) -> Any:
            return self._rounded(t, cast, next(numbers)) if _is_float(t) and id(t) not in done else t

        return rounded

    def _layer(self) -> str:
        node: Any = torch._C._current_autograd_node()
        if node is None or self.run.thread.replaying:
            return self.run.names.current()
        return self.run.names.of_node(node._sequence_nr())

    def _seed(self, layer: str, primitive: str) -> int:
        call = self.run.state.next_call(layer, primitive)
        return site_seed(self.run.recipe.seed, layer, primitive, call, "", "elementwise") >> 1

    def _rounded(self, y: torch.Tensor, cast: Cast, seed: int) -> torch.Tensor:
        if y.is_meta or not y.numel():
            return y
        if y.is_complex():
            parts = torch.view_as_real(y.resolve_conj()).unbind(-1)
            real, imaginary = (
                self._rounded(part.contiguous(), cast, seed + n * _IMAGINARY) for n, part in enumerate(parts)
            )
            return torch.complex(real, imaginary)
        values: torch.Tensor = round_operand(TORCH, y, cast, axis=-1, seed=seed).values
        return values.to(y.dtype)


def _is_float(t: Any) -> bool:
    return isinstance(t, torch.Tensor) and (t.is_floating_point() or t.is_complex()) and t.layout == torch.strided


def _is_modulus(primitive: str, args: Any) -> bool:
    """Whether an operator computes magnitudes of complex numbers, which are new numbers."""
    given = args[0] if primitive == "abs" and args else ()
    return any(isinstance(t, torch.Tensor) and t.is_complex() for t in tree_leaves(given))


def _targets(func: Any, args: Any, kwargs: Any) -> Iterator[Any]:
    """Yield the tensors that an operator has written to."""
    for position, name in written(func):
        given = args[position] if position < len(args) else kwargs.get(name)
        yield from given if isinstance(given, list | tuple) else [given]
