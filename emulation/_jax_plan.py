"""What to do at each equation of a JAX program: found once, before anything runs, from the jaxpr alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from jax.extend import core

from lowp._errors import ArgumentError
from lowp.emulation import _jax_origins as origins
from lowp.emulation._jax_equations import (
    CALLS,
    LEFT_ALONE,
    PRODUCTS,
    gradient_roles,
    has_product,
    is_float,
    is_inexact,
    is_lookup,
    is_repeatable,
    is_row,
    split_axes,
)
from lowp.emulation._jax_origins import CONSTANT, Origin
from lowp.emulation._jax_sites import Plan, Scope, Site, Step
from lowp.emulation.recipe import Recipe, Rule
from lowp.emulation.report import Report


class _Reader(NamedTuple):
    """A product of the forward pass, the path of its parameter, and the shape (sorted) of the other operand."""

    site: Site
    path: str
    other: tuple[int, ...]


class Planner:
    """Walks through jaxprs, names layers, counts calls and fills a report.

    Args:
        recipe: What to do.
        strict: Raise where the recipe asks for something that cannot be emulated, instead of a remark.
        remembers: Whether the program has histories for delayed scaling.
    """

    def __init__(self, recipe: Recipe, strict: bool = False, remembers: bool = False) -> None:
        self.recipe, self.strict, self.remembers = recipe, strict, remembers
        self.report = Report()
        self.layers: dict[str, None] = {}
        self.primitives: set[str] = set()
        self.matched: set[Rule] = set()
        self._noted: set[tuple[Site, int]] = set()
        self._calls: dict[tuple[str, str], int] = {}
        self._visits: dict[tuple[Any, str, tuple[int, ...]], int] = {}
        self._readers: dict[Any, list[_Reader]] = {}
        self._effective: dict[tuple[tuple[str, ...], str], Recipe | None] = {}
        self.parameters: set[Any] = set()  # roots of parameters, and of what steps of training make of them
        if recipe.kv_cache:
            self._cannot("kv_cache: a JAX program does not say which operand is a key or a value; left alone")

    def plan(
        self, jaxpr: Any, inputs: Sequence[Origin], scope: Scope, captured: Sequence[Origin] = ()
    ) -> tuple[Plan, list[Origin]]:
        """Return the plan of a jaxpr (open or closed) and the origins of its results.

        `captured` are the origins of the jaxpr's constants, by default constants.

        Raises:
            ArgumentError: `strict`, and the recipe asks for something that cannot be done.
        """
        plain = jaxpr.jaxpr if hasattr(jaxpr, "jaxpr") else jaxpr
        known: dict[Any, Origin] = dict(zip(plain.invars, inputs, strict=True))
        known.update(zip(plain.constvars, captured, strict=False))

        def read(atom: Any) -> Origin:
            return CONSTANT if isinstance(atom, core.Literal) else known.get(atom, CONSTANT)

        plan = Plan(jaxpr, tuple(inputs), scope)
        for eqn in plain.eqns:
            stack = "/".join(part for part in (scope.stack, str(eqn.source_info.name_stack)) if part)
            step, results = self._equation(eqn, [read(v) for v in eqn.invars], stack, scope)
            known.update(zip(eqn.outvars, results, strict=True))
            plan.steps.append(step)
        return plan, [read(v) for v in plain.outvars]

    def _equation(self, eqn: Any, inputs: list[Origin], stack: str, scope: Scope) -> tuple[Step | None, list[Origin]]:
        name = eqn.primitive.name
        if name in ("scan", "while", "cond"):
            return getattr(self, f"_{name}")(eqn, inputs, stack, scope)  # type: ignore[no-any-return]
        if name in CALLS:
            return self._call(eqn, inputs, stack, scope)
        if name in PRODUCTS:
            site, results = self._product(eqn, inputs, stack, scope)
        elif name == "gather" and is_lookup(eqn, inputs):
            site, results = self._lookup(eqn, inputs, stack, scope)
        elif is_row(eqn, inputs):
            site, results = None, [origins.activation()]
            if "embedding" in self.recipe.operations:
                self._cannot("lookup of one row (primitive dynamic_slice)")
        else:
            site, results = None, origins.outputs(name, stack, inputs, len(eqn.outvars))
            if name in ("add", "sub") and not origins.is_backward(stack):
                results = self._trained(inputs, results)
            self._remark_on(eqn, stack)
        rounded = self._elementwise(eqn, stack, scope)
        return (Step(site, (), rounded) if site or rounded else None), results

    def _call(self, eqn: Any, inputs: list[Origin], stack: str, scope: Scope) -> tuple[Step | None, list[Origin]]:
        inner = scope.inside(stack, str(eqn.params.get("name", "")))
        if eqn.primitive.name not in ("jit", "pjit", "closed_call", "core_call"):
            inner = inner._replace(forgets=eqn.primitive.name)
        if eqn.primitive.name == "shard_map":
            inner = inner._replace(split=scope.split or split_axes(eqn, inputs))
        plan, results = self.plan(eqn.params[CALLS[eqn.primitive.name]], inputs, inner)
        return (Step(None, (plan,)) if plan.active else None), results

    def _scan(self, eqn: Any, inputs: list[Origin], stack: str, scope: Scope) -> tuple[Step | None, list[Origin]]:
        consts, carried = eqn.params["num_consts"], eqn.params["num_carry"]
        fixed, carry, rest = inputs[:consts], inputs[consts : consts + carried], inputs[consts + carried :]
        length = eqn.params["length"]
        inner = scope.inside(stack, times=length)._replace(rounds=(*scope.rounds, length))
        carry = self._settled(eqn.params["jaxpr"], lambda c: [*fixed, *c, *rest], carry, inner)
        plan, results = self.plan(eqn.params["jaxpr"], [*fixed, *carry, *rest], inner)
        results = [*map(origins.carried, carry, results[:carried]), *results[carried:]]
        return (Step(None, (plan,)) if plan.active else None), results

    def _while(self, eqn: Any, inputs: list[Origin], stack: str, scope: Scope) -> tuple[Step | None, list[Origin]]:
        cond_consts, body_consts = eqn.params["cond_nconsts"], eqn.params["body_nconsts"]
        for_cond, for_body = inputs[:cond_consts], inputs[cond_consts : cond_consts + body_consts]
        inner = scope.inside(stack)._replace(forgets="while_loop")
        carry = inputs[cond_consts + body_consts :]
        carry = self._settled(eqn.params["body_jaxpr"], lambda c: [*for_body, *c], carry, inner)
        condition, _ = self.plan(eqn.params["cond_jaxpr"], [*for_cond, *carry], inner)
        body, results = self.plan(eqn.params["body_jaxpr"], [*for_body, *carry], inner)
        active = condition.active or body.active
        return (Step(None, (condition, body)) if active else None), [*map(origins.carried, carry, results)]

    def _cond(self, eqn: Any, inputs: list[Origin], stack: str, scope: Scope) -> tuple[Step | None, list[Origin]]:
        inner = scope.inside(stack)._replace(forgets="cond")
        pairs = [self.plan(branch, inputs[1:], inner) for branch in eqn.params["branches"]]
        results = pairs[0][1]
        for _, others in pairs[1:]:
            results = [origins.same(a, b) for a, b in zip(results, others, strict=True)]
        plans = tuple(plan for plan, _ in pairs)
        if not any(plan.active for plan in plans):
            return None, results
        if eqn.params.get("branches_platforms"):
            self._cannot("a branch that depends on the platform")
            return None, results
        return Step(None, plans), results

    def _settled(self, body: Any, arguments: Any, carry: list[Origin], scope: Scope) -> list[Origin]:
        """Return the origins of what a loop carries, after any number of rounds."""
        for _ in range(len(origins.KINDS) * max(len(carry), 1)):
            trial = Planner(self.recipe, remembers=self.remembers)
            trial.parameters = self.parameters
            _, results = trial.plan(body, arguments(carry), scope)
            after = [origins.carried(a, b) for a, b in zip(carry, results[: len(carry)], strict=True)]
            if [o.kind for o in after] == [o.kind for o in carry]:
                break
            carry = after
        # what comes out of a round is no longer what went in
        return [o if o.kind in ("constant", "weight") else o._replace(root=object()) for o in carry]

    def _trained(self, inputs: list[Origin], results: list[Origin]) -> list[Origin]:
        """Return the origin of a sum: a parameter to which a gradient is added is a parameter, one step later."""
        for parameter, other in (inputs, inputs[::-1]):
            if parameter.kind == "weight" and parameter.root in self.parameters and other.kind == "gradient":
                trained = parameter._replace(root=object())
                self.parameters.add(trained.root)
                return [trained]
        return results

    def _product(self, eqn: Any, inputs: list[Origin], stack: str, scope: Scope) -> tuple[Site | None, list[Origin]]:
        kinds = [o.kind for o in inputs]
        backward = origins.is_backward(stack) or "gradient" in kinds
        kind = "gradient" if backward else origins.joined(inputs).kind
        joined = origins.joined(inputs)
        result = [joined if kind == joined.kind else Origin(kind, root=object())]
        if kinds == ["constant", "constant"]:
            return None, result
        what = PRODUCTS[eqn.primitive.name]
        if not all(is_float(v.aval) for v in (*eqn.invars, *eqn.outvars)):
            self._cannot(f"{what} of {' and '.join(str(v.aval.dtype) for v in eqn.invars)}", remark_only=True)
            return None, result
        if any(v.aval.size == 0 for v in (*eqn.invars, *eqn.outvars)):
            return None, result
        site = self._backward(eqn, inputs, stack, scope) if backward else self._forward(eqn, inputs, stack, scope)
        return site, result

    def _forward(self, eqn: Any, inputs: list[Origin], stack: str, scope: Scope) -> Site | None:
        kinds = [o.kind for o in inputs]
        hints = f"{stack}/{scope.functions}/{'/'.join(o.path for o in inputs)}"
        operation = origins.operation_of(kinds, hints)
        if eqn.primitive.name == "conv_general_dilated":
            operation = "conv"
        parameter = max((o for o in inputs if o.kind == "weight"), key=lambda o: o.size, default=CONSTANT)
        if kinds == ["weight", "weight"]:
            parameter = inputs[1]
            roles: tuple[str, ...] = ("activation", "weight")
        elif "weight" not in kinds and operation in ("conv", "recurrent"):
            roles = ("activation", "weight")
        else:
            roles = tuple("weight" if kind == "weight" else "activation" for kind in kinds)
        again = self._reader([parameter], "again") if "rematted_computation" in stack else None
        site = self._site(parameter.path, stack, operation, "forward", roles, scope, again and again.site)
        shapes = tuple(v.aval.shape for v in eqn.invars)
        note = site or self._unused(parameter.path, stack, operation, roles, scope)
        for origin, shape in zip(inputs, reversed(shapes), strict=True):
            if origin.root is not None and again is None:
                self._readers.setdefault(origin.root, []).append(_Reader(note, parameter.path, tuple(sorted(shape))))
        if site:
            self._rows(site, ("forward",))
        return site

    def _backward(self, eqn: Any, inputs: list[Origin], stack: str, scope: Scope) -> Site | None:
        """Return the site of a product of the backward pass: its operation is that of the forward product."""
        kinds = [o.kind for o in inputs]
        if "weight" in kinds:
            origin = inputs[kinds.index("weight")]
            roles = tuple("weight" if kind == "weight" else "gradient" for kind in kinds)
            hints = f"{stack}/{scope.functions}/{origin.path}"
            operation = origins.operation_of(kinds, hints)
            name, product = origin.path, "grad_input"
            reader = self._reader([origin], "grad_input")
        else:
            roles = gradient_roles(kinds)
            reader = self._reader(inputs, "grad_weight", tuple(sorted(eqn.outvars[0].aval.shape)))
            batched = eqn.primitive.name == "dot_general" and bool(eqn.params["dimension_numbers"][1][0])
            guess = origins.operation_of(["activation"] if batched else ["weight"], f"{stack}/{scope.functions}")
            operation, name, product = (
                reader.site.operation if reader else guess,
                reader.path if reader else "",
                "grad_weight",
            )
        if eqn.primitive.name == "conv_general_dilated":
            operation = "conv"
        forward = reader.site if reader else None
        site = self._site(name, stack, operation, product, roles, scope, forward)
        if site:
            self._rows(site, (product,))
            if forward and any(forward.cast(role, "forward").masks for role in ("activation", "weight")):
                self._cannot(
                    f"{site.layer}: the gradient's mask is not applied where the program takes the gradient itself; "
                    "take it outside: jax.grad(lowp.jax.emulate(loss, recipe))"
                )
            reused = [forward if site.cast(role, product).reuse else None for role in roles]
            for role in roles:
                if site.cast(role, product).reuse and not is_repeatable(site.cast(role, product), forward, role):
                    raise ArgumentError(
                        f"recipe: {product} of {site.layer!r} reuses what the forward pass rounded, which is not known "
                        "where the program takes the gradient; take it outside: "
                        "jax.grad(lowp.jax.emulate(loss, recipe))."
                    )
            site = replace(site, reused=tuple(reused)) if any(reused) else site
        return site

    def _reader(self, inputs: list[Origin], use: str, shape: tuple[int, ...] = ()) -> _Reader | None:
        """Return the forward site that read the same operand, and whose other operand had this shape.

        Of several, such as the calls of a shared layer, the last one first: the backward pass goes backwards.
        """
        for origin in inputs:
            found = self._readers.get(origin.root, []) if origin.root is not None else []
            if found:
                best = [reader for reader in found if reader.other == shape] or found
                visits = self._visits.get((origin.root, use, shape), 0)
                self._visits[origin.root, use, shape] = visits + 1
                return best[-1 - visits % len(best)]
        return None

    def _lookup(self, eqn: Any, inputs: list[Origin], stack: str, scope: Scope) -> tuple[Site | None, list[Origin]]:
        site = self._site(inputs[0].path, stack, "embedding", "forward", ("weight",), scope)
        if site:
            self._row(site, "weight", "forward")
        return site, [origins.activation()]

    def _elementwise(self, eqn: Any, stack: str, scope: Scope) -> Site | None:
        name = eqn.primitive.name
        self.primitives.add(name)
        named = name in self.recipe.primitives
        if not self.recipe.covers(name) or (name in origins.MOVES and not named):
            return None
        if not any(is_inexact(v.aval) for v in eqn.outvars):
            return None
        site = self._site("", stack, "elementwise", "", ("elementwise",), scope)
        if site is None or not site.cast("elementwise").format:
            return None
        self.report.add(site.layer, name, "", "elementwise", site.cast("elementwise").describe(), scope.times)
        return site

    def _site(
        self,
        path: str,
        stack: str,
        operation: str,
        product: str,
        roles: tuple[str, ...],
        scope: Scope,
        forward: Site | None = None,
    ) -> Site | None:
        layer = origins.layer_of(path)
        names = tuple(dict.fromkeys(n for n in (layer, path, origins.scope_of(stack)) if n)) or ("",)
        if operation != "elementwise":
            self.layers.update(dict.fromkeys(names))
        key = names, operation
        if key not in self._effective:
            self._effective[key] = self._recipe_for(names, operation)
        recipe = self._effective[key]
        if recipe is None:
            if operation != "elementwise":
                why = (
                    "exempt" if operation in self.recipe.operations else "left alone: not among the recipe's operations"
                )
                self.report.add(names[0], operation, product, "", why, scope.times)
            return None
        if forward is not None and (forward.layer, forward.operation) == (names[0], operation):
            call = forward.call
        else:
            call = self._calls.get((names[0], operation), 0)
            self._calls[names[0], operation] = call + 1
        return Site(
            names[0], operation, call, product, roles, recipe, scope.split, scope.times, scope.rounds, scope.forgets
        )

    def _unused(self, path: str, stack: str, operation: str, roles: tuple[str, ...], scope: Scope) -> Site:
        layer = origins.layer_of(path) or origins.scope_of(stack)
        return Site(layer, operation, 0, "forward", roles, self.recipe, scope.split, scope.times, scope.rounds)

    def _recipe_for(self, names: tuple[str, ...], operation: str) -> Recipe | None:
        """Return the recipe with those rules that match one of the names, for any name; None if it does not apply."""
        rules = [rule for rule in self.recipe.rules if any(rule.matches(name, operation) for name in names)]
        self.matched.update(rules)
        for rule in self.recipe.rules:  # a rule for another operation has still found its layer
            if any(rule.matches(name, rule.operation or operation) for name in names):
                self.matched.add(rule)
        recipe = self.recipe.replace(rules=tuple(replace(rule, match=("*",)) for rule in rules))
        return recipe if recipe.emulates(operation, names[0]) else None

    def note_backward(self, site: Site, product: str, number: int = 0) -> None:
        """Report the product of the backward pass that gives the gradient of operand `number`, once for each site."""
        if (site, number) in self._noted:
            return
        self._noted.add((site, number))
        others = [role for i, role in enumerate(site.roles) if i != number]
        for role in ("gradient", *others):
            self._row(site, role, product)
        self._row_of_sums(site, product)

    def _rows(self, site: Site, products: tuple[str, ...]) -> None:
        for product in products:
            for role in site.roles:
                self._row(site, role, product)
            self._row_of_sums(site, product)

    def _row_of_sums(self, site: Site, product: str) -> None:
        for role in ("output", "accumulator"):
            if site.cast(role, product):
                self._row(site, role, product)

    def _row(self, site: Site, role: str, product: str) -> None:
        cast = site.cast(role, product)
        if cast.scaling == "delayed" and not self.remembers:
            raise ArgumentError(
                f"{role}: scaling='delayed' needs a history of earlier steps, and a function of JAX arrays keeps no "
                "state; use lowp.jax.emulate_with_state, which hands it in and out, or scaling='current'."
            )
        if cast.scaling == "delayed" and site.forgets:
            raise ArgumentError(
                f"{role} of {site.layer!r}: scaling='delayed' inside {site.forgets!r}: histories come in and out of "
                "jit and scan alone; use scaling='current' there."
            )
        self.report.add(site.layer, site.operation, product, role, cast.describe(), site.times)

    def _remark_on(self, eqn: Any, stack: str) -> None:
        name = eqn.primitive.name
        if name in LEFT_ALONE:
            self._cannot(f"{LEFT_ALONE[name]} {name!r} in {origins.scope_of(stack)!r}")
        elif any(has_product(j) for j in core.jaxprs_in_params(eqn.params)):
            self._cannot(f"matrix products inside {name!r}")

    def _cannot(self, what: str, remark_only: bool = False) -> None:
        if self.strict and not remark_only:
            raise ArgumentError(f"recipe: cannot emulate this: {what}; pass strict=False to leave it alone.")
        self.report.remark(f"not emulated: {what}")
