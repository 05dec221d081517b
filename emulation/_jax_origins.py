"""Where the values of a JAX program come from: parameters, data or gradients, and what the layers are called."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import jax

#: Kinds of values, the later ones first in rank where an operation mixes them.
KINDS = ("constant", "weight", "activation", "gradient")
#: Primitives that move or convert numbers and compute none. The first operand says what the result is.
LAYOUT = frozenset(
    [
        "reshape",
        "transpose",
        "squeeze",
        "expand_dims",
        "broadcast_in_dim",
        "convert_element_type",
        "slice",
        "dynamic_slice",
        "rev",
        "copy",
        "copy_p",
        "optimization_barrier",
        "sharding_constraint",
        "device_put",
        "pvary",
        "pcast",
        "name",
        "stop_gradient",
        "split",
        "reduce_precision",
        "all_gather",
        "all_gather_invariant",
        "all_gather_reduced",
        "mesh_cast",
        "reshard",
        "layout_constraint",
    ]
)
#: Further primitives whose results are no new numbers.
MOVES = LAYOUT | frozenset(
    [
        "concatenate",
        "pad",
        "gather",
        "scatter",
        "dynamic_update_slice",
        "select_n",
        "sort",
        "top_k",
        "select_and_gather_add",
        "iota",
        "bitcast_convert_type",
        "real",
        "imag",
        "complex",
        "conj",
        "ppermute",
        "all_to_all",
        "collective_permute",
        "pbroadcast",
        "psum_invariant",
        "random_bits",
        "random_seed",
        "random_wrap",
        "random_unwrap",
        "random_fold_in",
        "random_split",
        "random_gamma",
        "rng_bit_generator",
        "rng_uniform",
        "empty",
        "create_token",
        "after_all",
        "axis_index",
        "eq",
        "ne",
        "lt",
        "le",
        "gt",
        "ge",
        "is_finite",
        "while",
        "cond",
        "scan",
        "jit",
    ]
)
#: Last parts of a parameter's path that name the parameter in its layer, not the layer.
_PARAMETER = re.compile(r"(?i)(kernel|weight|embedding|bias|scale)s?([_.].*)?|w|b")
_BOX = ("value", "raw_value")
_TRANSFORM = re.compile(r"\w+\(|\)")
_NO_LAYER = ("rematted_computation", "checkpoint", "while", "body", "cond")
_ATTENTION = re.compile(r"(?i:attention|attn)|BTNH,BSNH->BNTS|BNTS,BSNH->BTNH")
_RECURRENT = re.compile(r"lstm|gru|rnn|recurrent|LSTM|GRU|RNN|Recurrent")


class Origin(NamedTuple):
    """What is known of a value.

    Attributes:
        kind: Name in `KINDS`: depends on nothing, on parameters alone, on data, on gradients.
        path: Dotted path of the parameter; of several, that of the largest.
        size: Number of elements of that parameter.
        root: The same object for values that are the same numbers in another layout; None for constants.
        scores: What is known of a value that follows from scores of attention, or None.
    """

    kind: str = "constant"
    path: str = ""
    size: int = 0
    root: Any = None
    scores: Any = None


CONSTANT = Origin()


def weight(path: str, size: int) -> Origin:
    """Return the origin of a parameter."""
    return Origin("weight", path, size, object())


def activation() -> Origin:
    """Return the origin of data."""
    return Origin("activation", root=object())


def joined(origins: Iterable[Origin]) -> Origin:
    """Return the origin of what is computed from several values."""
    given = list(origins)
    kind = max((o.kind for o in given), key=KINDS.index, default="constant")
    if kind == "constant":
        return CONSTANT
    source = max((o for o in given if o.kind == "weight"), key=lambda o: o.size, default=CONSTANT)
    return Origin(kind, source.path, source.size, object()) if kind == "weight" else Origin(kind, root=object())


def same(a: Origin, b: Origin) -> Origin:
    """Return the origin of a value that is one or the other, such as what a loop carries."""
    if a.kind == b.kind:
        return a if a.scores == b.scores else a._replace(scores=None)
    kind = max(a.kind, b.kind, key=KINDS.index)
    source = a if a.kind == kind else b
    return source._replace(root=object(), scores=None)


def carried(before: Origin, after: Origin) -> Origin:
    """Return the origin of what a loop carries: a parameter that gradients change is trained, and stays one."""
    return before if (before.kind, after.kind) == ("weight", "gradient") else same(before, after)._replace(scores=None)


def outputs(primitive: str, stack: str, inputs: Sequence[Origin], count: int) -> list[Origin]:
    """Return the origins of the results of a plain operation in a name stack.

    JAX marks the operations of the backward pass by "transpose(...)" in the name stack. All of them but changes of
    layout act on a gradient; the gradient that a backward pass starts from is a constant.
    """
    backward = is_backward(stack)
    if primitive in LAYOUT:
        sources = list(inputs[:count]) if len(inputs) >= count and primitive == "optimization_barrier" else None
        first = inputs[0] if inputs else CONSTANT
        if backward and first.kind == "constant":
            first = Origin("gradient", root=object())
        return sources or [first] * count
    if primitive == "gather" and inputs and inputs[0].kind == "weight":
        return [inputs[0]._replace(root=object())] * count
    result = joined(inputs)
    if backward:
        return [Origin("gradient", root=object()) for _ in range(count)]
    return [result if count == 1 else result._replace(root=object()) for _ in range(count)]


def is_backward(stack: str) -> bool:
    """Whether a name stack is that of a backward pass, and not of what it computes again."""
    return "transpose(" in stack and "rematted_computation" not in stack


def is_embedding(operand: Any, dimension_numbers: Any, slice_sizes: Sequence[int]) -> bool:
    """Whether a gather looks up rows of a table."""
    return (
        operand.ndim == 2
        and tuple(slice_sizes) == (1, operand.shape[1])
        and tuple(dimension_numbers.collapsed_slice_dims) in ((0,), ())
        and tuple(dimension_numbers.start_index_map)[:1] == (0,)
    )


def path_of(keys: Sequence[Any]) -> str:
    """Return the dotted path of a leaf of a pytree, without the boxes that libraries put around arrays."""
    parts = [part for part in (jax.tree_util.keystr((key,)).strip(".[]'\"") for key in keys) if part]
    while len(parts) > 1 and parts[-1] in _BOX:
        parts.pop()
    return ".".join(parts)


def layer_of(path: str) -> str:
    """Return the layer of a parameter: its path without the parameter's own name.

    Example:
        >>> layer_of("params.Dense_0.kernel"), layer_of("blocks.3"), layer_of("w")
        ('params.Dense_0', 'blocks.3', 'w')
    """
    layer, _, last = path.rpartition(".")
    return layer if layer and _PARAMETER.fullmatch(last) else path


def scope_of(stack: str) -> str:
    """Return the dotted names of the scopes in a name stack, without transformations and einsum formulas.

    Example:
        >>> scope_of("transpose(jvp(MLP))/Dense_0/ab,bc->ac")
        'MLP.Dense_0'
    """
    parts = _TRANSFORM.sub("", stack).split("/")
    return ".".join(part for part in parts if part and "->" not in part and part not in _NO_LAYER)


def operation_of(kinds: Sequence[str], hints: str) -> str:
    """Return the operation, by name of the recipe, that a matrix product belongs to.

    Args:
        kinds: Origins of the operands of the forward product.
        hints: Name stack, names of the enclosing functions, path of the weight.
    """
    if _RECURRENT.search(hints):
        return "recurrent"
    if "weight" in kinds:
        return "linear"
    return "attention" if _ATTENTION.search(hints) else "matmul"
