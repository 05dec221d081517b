"""Running a JAX program by its plan: equations that change are replaced, all others run as they are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend import core, source_info_util

from lowp.emulation._jax_attention import from_cache
from lowp.emulation._jax_convolutions import convolution, lookup, round_rows
from lowp.emulation._jax_elementwise import round_result
from lowp.emulation._jax_equations import CALLS, has_product
from lowp.emulation._jax_masks import keep_masks, mask_at, needed, produced
from lowp.emulation._jax_memory import current, remembering
from lowp.emulation._jax_origins import CONSTANT, Origin
from lowp.emulation._jax_plan import Planner
from lowp.emulation._jax_products import Hooks, product
from lowp.emulation._jax_seeds import fold
from lowp.emulation._jax_sites import Mask, MaskKey, Plan, Site, Step


class Run(NamedTuple):
    """What one run of a program needs beside its arguments.

    Attributes:
        planner: Plans what appears only while the program runs: derivative rules.
        word: Stands for the call's seed and the rounds of the loops around; None where there is neither.
        hooks: What is told to the caller.
        masks: Masks of the forward pass that backward products ask for, as far as they are there.
    """

    planner: Planner
    hooks: Hooks
    word: Any
    masks: dict[MaskKey, Any]

    @classmethod
    def start(cls, planner: Planner, hooks: Hooks, word: Any = None) -> Run:
        """Return the run of a program from its beginning."""
        return cls(planner, hooks, word, {})

    def inside(self, word: Any) -> Run:
        """Return the run of a jaxpr inside: what is kept there stays there."""
        return self._replace(word=word, masks=dict(self.masks))


def evaluate(plan: Plan, run: Run, args: Sequence[Any], consts: Sequence[Any] = ()) -> list[Any]:
    """Run a jaxpr by its plan, and return its results."""
    closed = hasattr(plan.jaxpr, "jaxpr")
    jaxpr = plan.jaxpr.jaxpr if closed else plan.jaxpr
    env: dict[Any, Any] = dict(zip(jaxpr.constvars, plan.jaxpr.consts if closed else consts, strict=True))
    env.update(zip(jaxpr.invars, args, strict=True))

    def read(atom: Any) -> Any:
        return atom.val if isinstance(atom, core.Literal) else env[atom]

    last = _last_uses(jaxpr)
    for number, (eqn, step) in enumerate(zip(jaxpr.eqns, plan.steps, strict=True)):
        stack = source_info_util.current_name_stack() + eqn.source_info.name_stack
        with source_info_util.user_context(eqn.source_info.traceback, name_stack=stack), eqn.ctx.manager:
            values = [read(v) for v in eqn.invars]
            results = bind(eqn, values) if step is None else _emulated(eqn, step, run, values)
        env.update(zip(eqn.outvars, results, strict=True))
        for variable in last.get(number, ()):
            env.pop(variable, None)
    return [read(v) for v in jaxpr.outvars]


def _last_uses(jaxpr: Any) -> dict[int, list[Any]]:
    """Return by equation the variables that nothing reads after it."""
    seen = {v for v in jaxpr.outvars if not isinstance(v, core.Literal)}
    last: dict[int, list[Any]] = {}
    for number in range(len(jaxpr.eqns) - 1, -1, -1):
        for v in (*jaxpr.eqns[number].invars, *jaxpr.eqns[number].outvars):
            if not isinstance(v, core.Literal) and v not in seen:
                seen.add(v)
                last.setdefault(number, []).append(v)
    return last


def bind(eqn: Any, values: Sequence[Any]) -> list[Any]:
    """Run one equation as it is."""
    bound = eqn.primitive.get_bind_params(eqn.params)
    functions, params = bound if isinstance(bound, tuple) else ((), bound)
    results = eqn.primitive.bind(*functions, *values, **params)
    return list(results) if eqn.primitive.multiple_results else [results]


def _emulated(eqn: Any, step: Step, run: Run, values: list[Any]) -> list[Any]:
    name = eqn.primitive.name
    if step.inner:
        kind = name if name in _INSIDE else "jit"
        return _INSIDE[kind](eqn, step, run, values)
    if any(step.cached):
        ndims = (values[0].ndim, values[1].ndim)
        pairs = zip(values, step.cached, strict=True)
        values = [
            x if c is None else from_cache(c, x, eqn.params, n, ndims, run.word) for n, (x, c) in enumerate(pairs)
        ]
    if step.site is None:
        results = bind(eqn, values)
    else:
        if step.site.product == "forward":
            keep_masks(eqn, step.site, values, run.word, run.planner.masked, run.masks)
        results = [run.hooks.tell(step.site, step.site.product, _at_site(eqn, step.site, step.mask, run, values))]
    if step.rounded is not None:
        results = [round_result(step.rounded, r, run.word, n) for n, r in enumerate(results)]
    return results


def _at_site(eqn: Any, site: Site, masked: Mask | None, run: Run, values: list[Any]) -> Any:
    dtype, mask = eqn.outvars[0].aval.dtype, mask_at(masked, run.masks)
    if eqn.primitive.name == "dot_general":
        return product(site, eqn.params, dtype, values[0], values[1], run.word, run.hooks, mask)
    if eqn.primitive.name == "conv_general_dilated":
        return convolution(site, eqn.params, dtype, values[0], values[1], run.word, run.hooks, mask)
    numbers = eqn.params["dimension_numbers"]
    if eqn.primitive.name == "scatter-add":
        table, places, rows = values
        rows = round_rows(site, rows, numbers.update_window_dims[-1], run.word)
        return bind(eqn, [table, places, rows])[0]
    (rows,) = bind(eqn, values)
    return lookup(site, rows, numbers.offset_dims[-1], run.word, run.hooks)


def _inner(plan: Plan, run: Run, consts: Sequence[Any] = ()) -> Callable[..., list[Any]]:
    def function(word: Any, *args: Any) -> list[Any]:
        return evaluate(plan, run.inside(word), args, consts)

    return function


def _jit(eqn: Any, step: Step, run: Run, values: list[Any]) -> list[Any]:
    memory, wanted = current(), produced(step.inner[0], run.planner.masked)

    def called(histories: Any, word: Any, *args: Any) -> Any:
        inside = run.inside(word)
        with nullcontext() if memory is None else remembering(histories) as own:
            results = evaluate(step.inner[0], inside, args)
            return results, [inside.masks[key] for key in wanted], histories if own is None else own.after

    called.__name__ = str(eqn.params.get("name", eqn.primitive.name))
    values = _constrained(values, eqn.params.get("in_shardings"))
    histories = {} if memory is None else memory.part(step.inner[0])
    options = {"inline": bool(eqn.params.get("inline", False))}
    results, masks, after = jax.jit(called, **options)(histories, run.word, *values)
    run.masks.update(zip(wanted, masks, strict=True))
    if memory is not None:
        memory.after.update(after)
    return _constrained(results, eqn.params.get("out_shardings"))


def _constrained(values: Sequence[Any], shardings: Any) -> list[Any]:
    if not shardings:
        return list(values)
    return [
        lax.with_sharding_constraint(v, s) if isinstance(s, jax.sharding.Sharding) else v
        for v, s in zip(values, shardings, strict=True)
    ]


def _remat(eqn: Any, step: Step, run: Run, values: list[Any]) -> list[Any]:
    """Run inside `jax.checkpoint`, by the primitive, so that what JAX has done to it stays."""
    closed = jax.make_jaxpr(_inner(step.inner[0], run))(run.word, *values)
    inputs = [*closed.consts, *([] if run.word is None else [run.word]), *values]
    open_jaxpr = closed.jaxpr
    names = open_jaxpr.debug_info._replace(arg_names=None)
    jaxpr = open_jaxpr.replace(constvars=[], invars=[*open_jaxpr.constvars, *open_jaxpr.invars], debug_info=names)
    params = dict(eqn.params)
    if isinstance(params.get("prevent_cse"), tuple):
        params["prevent_cse"] = (False,) * (len(inputs) - len(values)) + params["prevent_cse"]
    return list(eqn.primitive.bind(*inputs, **{**params, "jaxpr": jaxpr}))


def _scan(eqn: Any, step: Step, run: Run, values: list[Any]) -> list[Any]:
    consts, carried = eqn.params["num_consts"], eqn.params["num_carry"]
    fixed, carry, xs = values[:consts], values[consts : consts + carried], values[consts + carried :]
    memory, wanted = current(), produced(step.inner[0], run.planner.masked)
    taken = [key for key in needed(step.inner[0], run.planner.masked) if key in run.masks]
    last = eqn.params["length"] - 1 if eqn.params["reverse"] else 0

    def body(state: Any, x: Any) -> Any:
        number, inside = state
        args, histories, given = x
        with nullcontext() if memory is None else remembering(histories) as own:
            # a backward pass runs in reverse and draws what the forward pass drew
            within = run.inside(fold(run.word, last - number if last else number))
            within.masks.update(zip(taken, given, strict=True))
            results = evaluate(step.inner[0], within, [*fixed, *inside, *args])
        masks = [within.masks[key] for key in wanted]
        return (number + 1, results[:carried]), (results[carried:], {} if own is None else own.after, masks)

    options = {name: eqn.params[name] for name in ("length", "reverse", "unroll")}
    histories = {} if memory is None else memory.part(step.inner[0])
    given = [run.masks[key] for key in taken]
    (_, carry), (ys, after, masks) = lax.scan(body, (jnp.int32(0), carry), (xs, histories, given), **options)
    run.masks.update(zip(wanted, masks, strict=True))
    if memory is not None:
        memory.after.update(after)
    return [*carry, *ys]


def _while(eqn: Any, step: Step, run: Run, values: list[Any]) -> list[Any]:
    first, second = eqn.params["cond_nconsts"], eqn.params["body_nconsts"]
    for_cond, for_body, carry = values[:first], values[first : first + second], values[first + second :]
    condition, body = step.inner

    def going(state: Any) -> Any:
        number, inside = state
        return _inner(condition, run)(fold(run.word, number), *for_cond, *inside)[0]

    def once(state: Any) -> Any:
        number, inside = state
        return number + 1, _inner(body, run)(fold(run.word, number), *for_body, *inside)

    return list(lax.while_loop(going, once, (jnp.int32(0), carry))[1])


def _cond(eqn: Any, step: Step, run: Run, values: list[Any]) -> list[Any]:
    index, *operands = values
    branches = [_inner(plan, run) for plan in step.inner]
    return list(lax.switch(index, branches, run.word, *operands))


def _custom_jvp(eqn: Any, step: Step, run: Run, values: list[Any]) -> list[Any]:
    """Run the function emulated; its derivative stays the rule that was given."""
    consts = eqn.params["num_consts"]
    rule = eqn.params["jvp_jaxpr_fun"]
    fixed = values[:consts]

    @jax.custom_jvp
    def function(word: Any, *args: Any) -> list[Any]:
        return _inner(step.inner[0], run)(word, *fixed, *args)

    def derivative(primals: Any, tangents: Any) -> Any:
        word, *args = primals
        given = tangents[1:]
        jaxpr, rule_consts, zeros = rule.call_wrapped(*(False for _ in given))
        if has_product(jaxpr):
            run.planner.cannot(f"matrix products inside the derivative rule of {_name_of(eqn)!r} (custom_jvp)")
        results = jax.core.eval_jaxpr(jaxpr, rule_consts, *args, *given)
        out = function(word, *args)
        nonzero = iter(results[len(out) :])
        return out, [jnp.zeros_like(y) if zero else next(nonzero) for y, zero in zip(out, zeros, strict=True)]

    function.defjvp(derivative)
    return list(function(run.word, *values[consts:]))


def _name_of(eqn: Any) -> str:
    return str(eqn.params["call_jaxpr"].jaxpr.debug_info.func_name)


def _custom_vjp(eqn: Any, step: Step, run: Run, values: list[Any]) -> list[Any]:
    """Run the function emulated, and the forward and backward rules that were given as well."""
    consts = eqn.params["num_consts"]
    fixed, given = values[:consts], values[consts:]
    plan = step.inner[0]
    rule, pull = eqn.params["fwd_jaxpr_thunk"], eqn.params["bwd"]
    residual_origins: list[Origin] = []

    @jax.custom_vjp
    def function(word: Any, *args: Any) -> list[Any]:
        return _inner(plan, run)(word, *fixed, *args)

    def forward(word: Any, *args: Any) -> Any:
        jaxpr, rule_consts = rule.call_wrapped(*(True for _ in args))
        rule_plan, found = run.planner.plan(jaxpr, plan.inputs[consts:], plan.scope.inside(plan.scope.stack, "rule"))
        results = evaluate(rule_plan, run.inside(word), args, rule_consts)
        _, residual_tree, *forwarded = eqn.params["out_trees"]()
        sources = forwarded[0] if forwarded else [None] * residual_tree.num_leaves
        own = sum(source is None for source in sources)
        rest, rest_origins = iter(results[:own]), iter(found[:own])
        kept = [next(rest) if i is None else [*fixed, *args][i] for i in sources]
        residual_origins[:] = [next(rest_origins) if i is None else plan.inputs[i] for i in sources]
        return results[own:], (word, kept)

    def backward(residuals: Any, cotangents: Any) -> Any:
        word, kept = residuals
        present: list[bool] = []

        def pulled(*args: Any) -> list[Any]:
            results = pull.call_wrapped(*args)
            present[:] = [isinstance(r, jax.Array) for r in results]
            return [r for r in results if isinstance(r, jax.Array)]

        closed = jax.make_jaxpr(pulled)(*kept, *cotangents)
        gradients = [CONSTANT._replace(kind="gradient", root=object()) for _ in cotangents]
        rule_plan, _ = run.planner.plan(
            closed, [*residual_origins, *gradients], plan.scope.inside(plan.scope.stack, "rule")
        )
        results = iter(evaluate(rule_plan, run.inside(word), [*kept, *cotangents]))
        return (None, *(next(results) if there else None for there in present))

    function.defvjp(forward, backward)
    return list(function(run.word, *given))


def _shard_map(eqn: Any, step: Step, run: Run, values: list[Any]) -> list[Any]:
    params = eqn.params
    function = jax.shard_map(
        _inner(step.inner[0], run),
        mesh=params["mesh"],
        in_specs=(jax.sharding.PartitionSpec(), *params["in_specs"]),
        out_specs=list(params["out_specs"]),
        axis_names=set(params["newly_manual_axes"] if "newly_manual_axes" in params else params["manual_axes"]),
        check_vma=params["check_vma"],
    )
    return list(function(run.word, *values))


_INSIDE: dict[str, Callable[[Any, Step, Run, list[Any]], list[Any]]] = {
    "jit": _jit,
    "checkpoint": _remat,
    "remat2": _remat,
    "scan": _scan,
    "while": _while,
    "cond": _cond,
    "custom_jvp_call": _custom_jvp,
    "custom_vjp_call": _custom_vjp,
    "shard_map": _shard_map,
}
assert set(CALLS) - {"pjit", "closed_call", "core_call"} <= set(_INSIDE)
