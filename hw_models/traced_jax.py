"""The operations of a JAX program, read off its jaxpr, loops counted as often as they run."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import numpy as np
from jax.extend import core
from jax.interpreters import partial_eval

from lowp._errors import ArgumentError, ArgumentTypeError
from lowp.hw_models.workload import Operation, Workload

#: Primitives that only change how memory is read, or that compilers fold into their neighbours.
_FREE = frozenset(
    (
        *("reshape", "squeeze", "expand_dims", "transpose", "broadcast_in_dim", "split", "convert_element_type"),
        *("reduce_precision", "stop_gradient", "copy_p", "optimization_barrier", "iota", "name"),
        *("pvary", "sharding_constraint", "mesh_cast"),
    )
)
#: Primitives that multiply matrices in ways that are not counted here, which are refused.
_OPAQUE = frozenset(
    (
        *(
            "cholesky",
            "cholesky_update",
            "eig",
            "eigh",
            "hessenberg",
            "householder_product",
            "lu",
            "qr",
            "schur",
            "svd",
        ),
        *("geqrf", "geqp3", "ormqr", "triangular_solve", "tridiagonal", "tridiagonal_solve", "scaled_matmul_wrapper"),
        *("custom_call", "ffi_call", "pure_callback", "dot_product_attention_fwd_wrapper"),
        *("dot_product_attention_bwd_wrapper", "dot_product_attention_fp8_fwd_wrapper"),
    )
)
#: Primitives whose result is a weight, or part of one, where their operand is.
_VIEWS = _FREE | {"slice", "dynamic_slice", "copy", "rev", "concatenate"}


@dataclass
class _Walk:
    """What has been found on the way through a jaxpr.

    Attributes:
        trips: How often the body of a while loop of unknown count runs.
        operations: What runs.
        sizes: Values of each weight, by its number.
        multiplied: Numbers of the weights that products read.
    """

    trips: int | None
    operations: list[Operation] = field(default_factory=list)
    sizes: dict[int, int] = field(default_factory=dict)
    multiplied: set[int] = field(default_factory=set)

    def new_weight(self, aval: Any) -> int:
        number = len(self.sizes)
        self.sizes[number] = math.prod(getattr(aval, "shape", ()))
        return number


def trace_jax(
    program: Any, inputs: tuple[Any, ...], positions: tuple[int, ...], trips: int | None, name: str
) -> Workload:
    """Return the operations of a function or jaxpr; see `lowp.hw_models.trace.trace`."""
    if isinstance(program, core.ClosedJaxpr | core.Jaxpr):
        if inputs:
            raise ArgumentTypeError("a jaxpr knows its inputs; give none.")
        jaxpr, given = getattr(program, "jaxpr", program), []
    else:
        jaxpr = jax.make_jaxpr(program)(*inputs).jaxpr
        given = [i in positions for i, tree in enumerate(inputs) for _ in jax.tree_util.tree_leaves(tree)]
    jaxpr, _ = partial_eval.dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars), instantiate=True)  # as compilers do
    walk = _Walk(trips)
    weights = {var: walk.new_weight(var.aval) for var in jaxpr.constvars}
    weights |= {
        var: walk.new_weight(var.aval) for var, is_weight in zip(jaxpr.invars, given, strict=False) if is_weight
    }
    _walk(jaxpr, walk, weights, 1, "")
    work = Workload(name, tuple(walk.operations)).merged()
    used = sum(walk.sizes[number] for number in walk.multiplied)
    return replace(work, weight_values=used, other_values=sum(walk.sizes.values()) - used)


def _walk(jaxpr: Any, walk: _Walk, weights: dict[Any, int], count: int, path: str) -> None:
    """Record the equations of a jaxpr that runs `count` times; `weights` are its variables that are weights."""
    for eqn in jaxpr.eqns:
        name = eqn.primitive.name
        if name in _RECORDED:
            _RECORDED[name](eqn, walk, weights, count, path)
        elif name == "scan":
            inner = eqn.params["jaxpr"].jaxpr
            _inside(inner, eqn.invars, walk, weights, count * eqn.params["length"], f"{path}scan.")
        elif _inner(eqn):
            called = str(eqn.params.get("name", ""))
            runs = count * math.prod(getattr(eqn.params.get("grid_mapping"), "grid", ()))  # of a hand-written kernel
            for inner in _inner(eqn):
                inside = f"{path}{called}." if called else path
                results = _inside(inner, eqn.invars, walk, weights, runs, inside)
                weights |= {v: w for v, w in zip(eqn.outvars, results, strict=False) if w is not None}
        elif name in _OPAQUE:
            raise ArgumentError(f"program calls {name}, which multiplies matrices in a way that is not known here.")
        elif any(isinstance(p, tuple) and any(map(_is_jaxpr, p)) for p in eqn.params.values()):
            raise ArgumentError(f"program calls {name}, which runs programs in a way that is not known here.")
        elif name not in _FREE:
            _pass(eqn, walk, count, path)
        if name in _VIEWS:
            sources = [weights[v] for v in eqn.invars if not isinstance(v, core.Literal) and v in weights]
            if sources:
                weights |= dict.fromkeys(eqn.outvars, sources[0])


def _inner(eqn: Any) -> list[Any]:
    """Return the jaxprs that an equation calls: jit, remat, custom derivatives, and the like; the first if several.

    Not those of two numbers that combine the elements of an array, such as of a reduction: that is a pass over memory.
    """
    found = [getattr(p, "jaxpr", p) for p in eqn.params.values() if _is_jaxpr(p)]
    of_numbers = found and not any(_shape(v) for v in found[0].invars) and any(_shape(v) for v in eqn.invars)
    return [] if of_numbers else found[:1]


def _is_jaxpr(x: Any) -> bool:
    return isinstance(x, core.ClosedJaxpr | core.Jaxpr)


def _shape(var: Any) -> tuple[int, ...]:
    """Return the shape of a variable, or of what a reference refers to."""
    return tuple(getattr(getattr(var.aval, "inner_aval", var.aval), "shape", ()))


def _inside(inner: Any, invars: Any, walk: _Walk, weights: dict[Any, int], count: int, path: str) -> list[int | None]:
    """Walk a jaxpr that is called with the last of `invars`, as many as it takes; return its results' weights."""
    passed = list(invars)[len(invars) - len(inner.invars) :] if len(invars) >= len(inner.invars) else list(invars)
    known = {
        var: weights[outer]
        for var, outer in zip(inner.invars, passed, strict=False)
        if not isinstance(outer, core.Literal) and outer in weights
    }
    known |= {var: walk.new_weight(var.aval) for var in inner.constvars if var not in known}
    _walk(inner, walk, known, count, path)
    return [None if isinstance(v, core.Literal) else known.get(v) for v in inner.outvars]


def _while(eqn: Any, walk: _Walk, weights: dict[Any, int], count: int, path: str) -> None:
    trips = _counted_trips(eqn)
    trips = walk.trips if trips is None else trips
    if trips is None:
        raise ArgumentError("trips=None, but a while loop does not say how often its body runs; give trips.")
    inner, skipped = eqn.params["body_jaxpr"].jaxpr, eqn.params["cond_nconsts"]
    _inside(inner, eqn.invars[skipped:], walk, weights, count * trips, f"{path}while.")
    condition = _Walk(walk.trips, sizes=walk.sizes, multiplied=walk.multiplied)
    read = [*eqn.invars[:skipped], *eqn.invars[skipped + eqn.params["body_nconsts"] :]]
    _inside(eqn.params["cond_jaxpr"].jaxpr, read, condition, weights, count * (trips + 1), f"{path}while.")
    walk.operations += [op for op in condition.operations if op.m * op.n > 1]  # comparing counters is free


def _counted_trips(eqn: Any) -> int | None:
    """Return the count of a loop whose counter goes from a literal to another in equal steps; else None."""
    condition, body = eqn.params["cond_jaxpr"].jaxpr, eqn.params["body_jaxpr"].jaxpr
    if len(condition.eqns) != 1 or condition.eqns[0].primitive.name not in _COMPARED:
        return None
    if list(condition.outvars) != list(condition.eqns[0].outvars):
        return None
    consts, skipped = eqn.params["cond_nconsts"], eqn.params["body_nconsts"]
    carried, inside = eqn.invars[consts + skipped :], body.invars[skipped:]
    places = {var: i for i, var in enumerate(condition.invars[consts:])}
    outer = dict(zip(condition.invars, [*eqn.invars[:consts], *carried], strict=True))
    ends, steps = [], []
    for var in condition.eqns[0].invars:
        literal = isinstance(var, core.Literal)
        end = var if literal else outer.get(var)
        step = 0 if literal or var not in places else _step(body, inside[places[var]], body.outvars[places[var]])
        if not isinstance(end, core.Literal) or step is None or not isinstance(end.val, int | np.integer):
            return None
        ends.append(int(end.val))
        steps.append(step)
    return _trips(condition.eqns[0].primitive.name, ends[1] - ends[0], steps[0] - steps[1])


#: Comparisons that loops go on by, as what is added to the difference of their ends so that it must stay positive.
_COMPARED = {"lt": 0, "le": 1, "gt": 0, "ge": 1, "ne": 0}


def _trips(comparison: str, distance: int, step: int) -> int | None:
    """Return how often `left < left + distance` and the like hold while the distance shrinks by `step`."""
    if comparison in ("gt", "ge"):
        distance, step = -distance, -step
    if comparison == "ne":
        if not step or distance % step or distance // step < 0:
            return None
        return distance // step
    distance += _COMPARED[comparison]
    if distance <= 0:
        return 0
    return math.ceil(distance / step) if step > 0 else None


def _step(body: Any, before: Any, after: Any) -> int | None:
    """Return what a loop's body adds to a variable; None if that is no literal."""
    if after is before:
        return 0
    made = next((e for e in body.eqns if after in e.outvars), None)
    if made is None or made.primitive.name not in ("add", "sub"):
        return None
    left, right = made.invars
    if left is before and isinstance(right, core.Literal):
        return int(right.val) if made.primitive.name == "add" else -int(right.val)
    if made.primitive.name == "add" and right is before and isinstance(left, core.Literal):
        return int(left.val)
    return None


def _cond(eqn: Any, walk: _Walk, weights: dict[Any, int], count: int, path: str) -> None:
    """Record the branch that multiplies most."""
    found = []
    for branch in eqn.params["branches"]:
        taken = _Walk(walk.trips, sizes=walk.sizes)
        _inside(branch.jaxpr, eqn.invars[1:], taken, weights, count, f"{path}cond.")
        found.append(taken)
    most = max(found, key=lambda w: (Workload("", tuple(w.operations)).multiply_adds, len(w.operations)))
    walk.operations += most.operations
    walk.multiplied |= most.multiplied


def _linear_solve(eqn: Any, walk: _Walk, weights: dict[Any, int], count: int, path: str) -> None:
    """Record the solver of `custom_linear_solve`; its other programs are for derivatives."""
    constants = eqn.params["const_lengths"]
    first = constants.matvec + constants.vecmat
    read = [*eqn.invars[first : first + constants.solve], *eqn.invars[sum(constants) :]]
    _inside(eqn.params["jaxprs"].solve.jaxpr, read, walk, weights, count, f"{path}solve.")


def _add(walk: _Walk, kind: str, m: int, n: int, k: int, *, count: int, name: str, role: str, **more: int) -> None:
    if count > 0 and 0 not in (m, n, k):
        walk.operations.append(Operation(kind, m, n, k, count, name, role, **more))


def _weight(var: Any, walk: _Walk, weights: dict[Any, int]) -> bool:
    if isinstance(var, core.Literal) or var not in weights:
        return False
    walk.multiplied.add(weights[var])
    return True


def _dot(eqn: Any, walk: _Walk, weights: dict[Any, int], count: int, path: str) -> None:
    left, right = eqn.invars
    (left_contract, right_contract), (left_batch, right_batch) = eqn.params["dimension_numbers"]
    shape, other = left.aval.shape, right.aval.shape
    k = math.prod(shape[i] for i in left_contract)
    groups = math.prod(shape[i] for i in left_batch)
    m = math.prod(size for i, size in enumerate(shape) if i not in (*left_contract, *left_batch))
    n = math.prod(size for i, size in enumerate(other) if i not in (*right_contract, *right_batch))
    by_right, by_left = _weight(right, walk, weights), _weight(left, walk, weights)
    if by_left and not by_right:
        m, n = n, m
    role = "linear" if by_right or by_left else "activations"
    if groups == 0:
        return
    _add(walk, "matmul", m, n, k, count=count, name=f"{path}dot_general", role=role, groups=groups)


def _ragged_dot(eqn: Any, walk: _Walk, weights: dict[Any, int], count: int, path: str) -> None:
    """Record a product whose rows, or depth, are parts of unlike length: as if they were alike, all rows counted."""
    left, right, sizes = eqn.invars
    numbers = eqn.params["ragged_dot_dimension_numbers"]
    (left_contract, right_contract), (left_batch, right_batch) = numbers.dot_dimension_numbers
    (ragged,), of_groups = numbers.lhs_ragged_dimensions, numbers.rhs_group_dimensions
    shape, other = left.aval.shape, right.aval.shape
    parts = int(sizes.aval.shape[-1])
    k = math.prod(shape[i] for i in left_contract)
    batch = math.prod(shape[i] for i in left_batch)
    m = math.prod(size for i, size in enumerate(shape) if i not in (*left_contract, *left_batch))
    n = math.prod(size for i, size in enumerate(other) if i not in (*right_contract, *right_batch, *of_groups))
    role = "linear" if _weight(right, walk, weights) else "activations"
    more: dict[str, Any] = {"count": count, "name": f"{path}ragged_dot", "role": role}
    if 0 in (m, n, k, batch, parts):
        return
    if ragged in left_batch:
        _add(walk, "matmul", m, n, k, groups=batch, **more)
    elif ragged in left_contract:
        _add(walk, "matmul", m, n, math.ceil(k / parts), groups=batch * parts, **more)
    else:
        groups = min(parts, m)
        part = math.ceil(m / groups)
        uneven = batch * m if part * groups > m else 0
        _add(walk, "matmul", part, n, k, groups=batch * groups, rows=uneven, **more)


def _convolution(eqn: Any, walk: _Walk, weights: dict[Any, int], count: int, path: str) -> None:
    source, kernel = (var.aval.shape for var in eqn.invars)
    (out,) = (var.aval.shape for var in eqn.outvars)
    numbers, groups = eqn.params["dimension_numbers"], eqn.params["feature_group_count"]
    batch_groups = eqn.params["batch_group_count"]
    outputs, inputs = (kernel[i] for i in numbers.rhs_spec[:2])
    window = math.prod(kernel[i] for i in numbers.rhs_spec[2:])
    per_group = outputs // (groups * batch_groups)
    m, n, k = math.prod(out) // outputs, per_group, inputs * window
    if max(eqn.params["lhs_dilation"], default=1) > 1 and max(eqn.params["window_strides"], default=1) == 1:
        # Transposed: of a dilated input only its own values are multiplied, each by the whole kernel.
        m, n, k = math.prod(source) // (inputs * groups), per_group * window, inputs
    role = "linear" if _weight(eqn.invars[1], walk, weights) else "activations"
    more = {"read": math.prod(source), "written": math.prod(out), "groups": groups * batch_groups}
    _add(walk, "convolution", m, n, k, count=count, name=f"{path}conv_general_dilated", role=role, **more)


def _pass(eqn: Any, walk: _Walk, count: int, path: str) -> None:
    """Record an operation that reads its operands and writes its results."""
    name = eqn.primitive.name
    written = sum(math.prod(getattr(v.aval, "shape", ())) for v in eqn.outvars)
    read = sum(math.prod(getattr(v.aval, "shape", ())) for v in eqn.invars if not isinstance(v, core.Literal))
    if name in ("gather", "dynamic_slice", "slice", "dynamic_update_slice"):
        read = written
    if not written or count < 1:
        return
    shape = getattr(eqn.outvars[0].aval, "shape", ()) or (1,)
    columns = max(1, shape[-1])
    _add(
        walk,
        "elementwise",
        max(1, math.prod(shape) // columns),
        columns,
        1,
        count=count,
        name=f"{path}{name}",
        role="other",
        read=read,
        written=written,
    )


#: What records a primitive's products, or what runs inside it.
_RECORDED = {
    "dot_general": _dot,
    "ragged_dot_general": _ragged_dot,
    "conv_general_dilated": _convolution,
    "while": _while,
    "cond": _cond,
    "custom_linear_solve": _linear_solve,
}
