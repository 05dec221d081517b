"""What to do at each equation of a JAX program: found once, before anything runs, from the jaxpr alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from jax.extend import core

from lowp._errors import ArgumentError
from lowp.emulation import _jax_origins as origins
from lowp.emulation._jax_attention import Attention, first_of, wants_cache
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
from lowp.emulation._jax_masks import Product, gradient_of, is_masked, mask_for
from lowp.emulation._jax_origins import CONSTANT, Origin
from lowp.emulation._jax_products import product_of
from lowp.emulation._jax_readers import Lookups, Reader, Readers, gradient_site
from lowp.emulation._jax_rows import Rows, hints
from lowp.emulation._jax_sites import Mask, MaskKey, Plan, Scope, Site, Step
from lowp.emulation.recipe import Recipe, Rule


class Planner(Rows):
    """Walks through jaxprs, names layers, counts calls and fills a report.

    Args:
        recipe: What to do.
        strict: Raise where the recipe asks for something that cannot be emulated, instead of a remark.
        remembers: Whether the program has histories for delayed scaling.
    """

    def __init__(self, recipe: Recipe, strict: bool = False, remembers: bool = False) -> None:
        super().__init__(strict, remembers)
        self.recipe = recipe
        self.layers: dict[str, None] = {}
        self.primitives: set[str] = set()
        self.matched: set[Rule] = set()
        self._calls: dict[tuple[str, str], int] = {}
        self._readers, self._lookups = Readers(), Lookups()
        self.masked: set[MaskKey] = set()
        self._effective: dict[tuple[tuple[str, ...], str], Recipe | None] = {}
        self.parameters: set[Any] = set()  # roots of parameters, and of what steps of training make of them
        self.attention = Attention()

    def plan(
        self, jaxpr: Any, inputs: Sequence[Origin], scope: Scope, captured: Sequence[Origin] = ()
    ) -> tuple[Plan, list[Origin]]:
        """Return the plan of a jaxpr (open or closed) and the origins of its results.

        `captured` are the origins of the jaxpr's constants, by default constants.

        Raises:
            ArgumentError: `strict`, and the recipe asks for something that cannot be done.
        """
        if wants_cache(self.recipe):
            scout = self._scout()
            scout.walk(jaxpr, inputs, scope, captured)
            self.attention = Attention(scout.attention.found, self.attention)
        return self.walk(jaxpr, inputs, scope, captured)

    def _scout(self) -> Planner:
        """Return a planner that looks at a jaxpr without any effect on this one."""
        scout = Planner(self.recipe, remembers=self.remembers)
        scout.parameters, scout._readers, scout._lookups = self.parameters, self._readers.copy(), self._lookups.copy()
        return scout

    def walk(
        self, jaxpr: Any, inputs: Sequence[Origin], scope: Scope, captured: Sequence[Origin] = ()
    ) -> tuple[Plan, list[Origin]]:
        """Plan a jaxpr; see `plan`."""
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
        step = Step()
        if name in PRODUCTS:
            step, results = self._product(eqn, inputs, stack, scope)
            site = step.site
        elif name == "gather" and is_lookup(eqn, inputs):
            site, results = self._lookup(eqn, inputs, stack, scope)
        elif name == "scatter-add" and origins.is_backward(stack):
            site, results = self._undone_lookup(eqn, inputs, scope), origins.outputs(name, stack, inputs, 1)
        elif is_row(eqn, inputs):
            site, results = None, [origins.activation()]
            if "embedding" in self.recipe.operations:
                self.cannot("lookup of one row (primitive dynamic_slice)")
        else:
            site, results = None, origins.outputs(name, stack, inputs, len(eqn.outvars))
            if name == "gather":
                self._lookups.add(eqn, inputs[1], None)
            if name in ("add", "sub") and not origins.is_backward(stack):
                results = self._trained(inputs, results)
            results = self.attention.follow(eqn, inputs, results, stack)
            self._remark_on(eqn, stack)
        rounded = self._elementwise(eqn, stack, scope)
        step = step._replace(site=site, rounded=rounded)
        return (step if site or rounded or any(step.cached) else None), results

    def _call(self, eqn: Any, inputs: list[Origin], stack: str, scope: Scope) -> tuple[Step | None, list[Origin]]:
        inner = scope.inside(stack, eqn.primitive.name, str(eqn.params.get("name", "")))
        if eqn.primitive.name not in ("jit", "pjit", "closed_call", "core_call"):
            inner = inner._replace(forgets=eqn.primitive.name)
        if eqn.primitive.name == "shard_map":
            inner = inner._replace(split=scope.split or split_axes(eqn, inputs))
        plan, results = self.walk(eqn.params[CALLS[eqn.primitive.name]], inputs, inner)
        return (Step(None, (plan,)) if plan.active else None), results

    def _scan(self, eqn: Any, inputs: list[Origin], stack: str, scope: Scope) -> tuple[Step | None, list[Origin]]:
        consts, carried = eqn.params["num_consts"], eqn.params["num_carry"]
        fixed, carry, rest = inputs[:consts], inputs[consts : consts + carried], inputs[consts + carried :]
        length = eqn.params["length"]
        inner = scope.inside(stack, "scan", times=length)._replace(rounds=(*scope.rounds, length))
        carry = self._settled(eqn.params["jaxpr"], lambda c: [*fixed, *c, *rest], carry, inner)
        plan, results = self.walk(eqn.params["jaxpr"], [*fixed, *carry, *rest], inner)
        results = [*map(origins.carried, carry, results[:carried]), *results[carried:]]
        return (Step(None, (plan,)) if plan.active else None), results

    def _while(self, eqn: Any, inputs: list[Origin], stack: str, scope: Scope) -> tuple[Step | None, list[Origin]]:
        cond_consts, body_consts = eqn.params["cond_nconsts"], eqn.params["body_nconsts"]
        for_cond, for_body = inputs[:cond_consts], inputs[cond_consts : cond_consts + body_consts]
        inner = scope.inside(stack, "while")._replace(forgets="while_loop")
        carry = inputs[cond_consts + body_consts :]
        carry = self._settled(eqn.params["body_jaxpr"], lambda c: [*for_body, *c], carry, inner)
        condition, _ = self.walk(eqn.params["cond_jaxpr"], [*for_cond, *carry], inner)
        body, results = self.walk(eqn.params["body_jaxpr"], [*for_body, *carry], inner)
        active = condition.active or body.active
        return (Step(None, (condition, body)) if active else None), [*map(origins.carried, carry, results)]

    def _cond(self, eqn: Any, inputs: list[Origin], stack: str, scope: Scope) -> tuple[Step | None, list[Origin]]:
        inner = scope.inside(stack, "cond")._replace(forgets="cond")
        pairs = [self.walk(branch, inputs[1:], inner) for branch in eqn.params["branches"]]
        results = pairs[0][1]
        for _, others in pairs[1:]:
            results = [origins.same(a, b) for a, b in zip(results, others, strict=True)]
        plans = tuple(plan for plan, _ in pairs)
        if not any(plan.active for plan in plans):
            return None, results
        if eqn.params.get("branches_platforms"):
            self.cannot("a branch that depends on the platform")
            return None, results
        return Step(None, plans), results

    def _settled(self, body: Any, arguments: Any, carry: list[Origin], scope: Scope) -> list[Origin]:
        """Return the origins of what a loop carries, after any number of rounds."""
        for _ in range(len(origins.KINDS) * max(len(carry), 1)):
            _, results = self._scout().walk(body, arguments(carry), scope)
            after = [origins.carried(a, b) for a, b in zip(carry, results[: len(carry)], strict=True)]
            if [o.kind for o in after] == [o.kind for o in carry]:
                break
            carry = after
        # what comes out of a round is no longer what went in
        return [o if o.kind in ("constant", "weight") else o._replace(root=object(), scores=None) for o in carry]

    def _trained(self, inputs: list[Origin], results: list[Origin]) -> list[Origin]:
        """Return the origin of a sum: a parameter to which a gradient is added is a parameter, one step later."""
        for parameter, other in (inputs, inputs[::-1]):
            if parameter.kind == "weight" and parameter.root in self.parameters and other.kind == "gradient":
                trained = parameter._replace(root=object())
                self.parameters.add(trained.root)
                return [trained]
        return results

    def _product(self, eqn: Any, inputs: list[Origin], stack: str, scope: Scope) -> tuple[Step, list[Origin]]:
        kinds = [o.kind for o in inputs]
        backward = origins.is_backward(stack) or "gradient" in kinds
        kind = "gradient" if backward else origins.joined(inputs).kind
        joined = origins.joined(inputs)
        result = [joined if kind == joined.kind else Origin(kind, root=object())]
        if kinds == ["constant", "constant"]:
            return Step(), result
        what = PRODUCTS[eqn.primitive.name]
        if not all(is_float(v.aval) for v in (*eqn.invars, *eqn.outvars)):
            self.cannot(f"{what} of {' and '.join(str(v.aval.dtype) for v in eqn.invars)}", remark_only=True)
            return Step(), result
        if any(v.aval.size == 0 for v in (*eqn.invars, *eqn.outvars)):
            return Step(), result
        if backward:
            site, mask = self._backward(eqn, inputs, stack, scope)
            return Step(site, cached=self.attention.cached_again(inputs), mask=mask), result
        site = self._forward(eqn, inputs, stack, scope)
        number, result = self.attention.meet(eqn, inputs, result)
        names = hints(stack, scope, inputs)
        if self.attention.misses(number, kinds) and origins.operation_of(kinds, names) == "attention":
            self.cannot(f"kv_cache: which operands of {origins.scope_of(stack)!r} are keys and values was not found")
        return Step(site, cached=self.attention.cached(self, number, site, inputs, (stack, scope))), result

    def _forward(self, eqn: Any, inputs: list[Origin], stack: str, scope: Scope) -> Site | None:
        kinds = [o.kind for o in inputs]
        operation = origins.operation_of(kinds, hints(stack, scope, inputs))
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
        again = self._readers.find([parameter], "again") if "rematted_computation" in stack else None
        site = self._site(parameter.path, stack, operation, "forward", roles, scope, again and again.site)
        if site and first_of(eqn, inputs):
            site = replace(site, first=1)
        shapes = tuple(v.aval.shape for v in eqn.invars)
        note = site or self._unused(parameter.path, stack, operation, roles, scope)
        made = Product(note, eqn.primitive.name, eqn.params, shapes, scope)
        self._readers.add(made, parameter.path, inputs if again is None else ())
        if site:
            self._rows(site, ("forward",))
        return site

    def _backward(self, eqn: Any, inputs: list[Origin], stack: str, scope: Scope) -> tuple[Site | None, Mask | None]:
        """Return site and mask of a product of the backward pass: its operation is that of the forward product."""
        kinds = [o.kind for o in inputs]
        if "weight" in kinds:
            origin = inputs[kinds.index("weight")]
            roles = tuple("weight" if kind == "weight" else "gradient" for kind in kinds)
            operation = origins.operation_of(kinds, hints(stack, scope, [origin]))
            name, product = origin.path, "grad_input"
            reader = self._readers.find([origin], "grad_input")
        else:
            roles = gradient_roles(kinds, eqn.primitive.name)
            reader = self._readers.find(inputs, "grad_weight", tuple(sorted(eqn.outvars[0].aval.shape)))
            batched = eqn.primitive.name == "dot_general" and bool(eqn.params["dimension_numbers"][1][0])
            guess = origins.operation_of(["activation"] if batched else ["weight"], f"{stack}/{scope.functions}")
            operation, name = (reader.site.operation, reader.path) if reader else (guess, "")
            product = "grad_weight"
            if reader and "weight" not in reader.site.roles:
                product = product_of(reader.site, gradient_of(reader.product, reader.number, eqn))
        if eqn.primitive.name == "conv_general_dilated":
            operation = "conv"
        forward = reader.site if reader else None
        site = self._site(name, stack, operation, product, roles, scope, forward)
        mask = self._mask(site, reader, eqn, scope) if site and reader else None
        if site:
            self._rows(site, (product,))
            reused = [forward if site.cast(role, product).reuse else None for role in roles]
            for role in roles:
                if site.cast(role, product).reuse and not is_repeatable(site.cast(role, product), forward, role):
                    raise ArgumentError(
                        f"recipe: {product} of {site.layer!r} reuses what the forward pass rounded, which is not known "
                        "where the program takes the gradient; take it outside: "
                        "jax.grad(lowp.jax.emulate(loss, recipe))."
                    )
            site = replace(site, reused=tuple(reused)) if any(reused) else site
        return site, mask

    def _mask(self, site: Site, reader: Reader, eqn: Any, scope: Scope) -> Mask | None:
        """Return the mask of the gradient that a backward product gives."""
        number = gradient_of(reader.product, reader.number, eqn)
        if not is_masked(reader.site, number):
            return None
        mask = mask_for(self._readers.products[reader.site], number, eqn, scope)
        if mask is None:
            self._no_mask(site)
        else:
            self.masked.add(mask.key)
        return mask

    def _lookup(self, eqn: Any, inputs: list[Origin], stack: str, scope: Scope) -> tuple[Site | None, list[Origin]]:
        site = self._site(inputs[0].path, stack, "embedding", "forward", ("weight",), scope)
        self._lookups.add(eqn, inputs[1], site)
        if site:
            self._row(site, "weight", "forward")
        return site, [origins.activation()]

    def _undone_lookup(self, eqn: Any, inputs: list[Origin], scope: Scope) -> Site | None:
        """Return the site of the gradient of an embedding, which adds the gradients of rows to those of a table."""
        try:
            forward = self._lookups.find(eqn, inputs[1], "grad_weight")
        except LookupError:
            self.cannot("gradient of an embedding, taken by the program itself: which lookup it is of was not found")
            return None
        if forward is None:
            return None
        site = gradient_site(forward, scope)
        self._rows(site, ("grad_weight",))
        if forward.cast("weight", "forward").masks:
            self._no_mask(site)
        return site

    def _elementwise(self, eqn: Any, stack: str, scope: Scope) -> Site | None:
        name = eqn.primitive.name
        self.primitives.add(name)
        named = name in self.recipe.primitives
        modulus = name == "abs" and str(eqn.invars[0].aval.dtype).startswith("complex")  # a new number
        if not self.recipe.covers(name) or (name in origins.MOVES and not named and not modulus):
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
            call = self._next_call(names[0], operation)
        return Site(
            names[0], operation, call, product, roles, recipe, scope.split, scope.times, scope.rounds, scope.forgets
        )

    def _next_call(self, name: str, operation: str) -> int:
        call = self._calls.get((name, operation), 0)
        self._calls[name, operation] = call + 1
        return call

    def cache_site(self, stack: str, scope: Scope, product: Site | None) -> Site | None:
        """Return the site of the cache of keys and values that a product reads; None where it has no format."""
        name = origins.scope_of(stack)
        self.layers[name] = None
        operations = dict.fromkeys((*self.recipe.operations, "attention"))
        recipe = self._recipe_for((name,), "attention", self.recipe.replace(operations=tuple(operations)))
        if recipe is None or not recipe.cast("kv_cache", "forward", "layer", "attention"):
            return None
        known = product is not None and product.operation == "attention"
        call = product.call if product and known else self._next_call(name, "attention")
        return Site(name, "attention", call, "forward", ("kv_cache",), recipe, scope.split, scope.times, scope.rounds)

    def report_cached(self, site: Site) -> None:
        """Report that keys or values come out of a cache."""
        self._row(site, "kv_cache", "forward")

    def _unused(self, path: str, stack: str, operation: str, roles: tuple[str, ...], scope: Scope) -> Site:
        layer = origins.layer_of(path) or origins.scope_of(stack)
        return Site(layer, operation, 0, "forward", roles, self.recipe, scope.split, scope.times, scope.rounds)

    def _recipe_for(self, names: tuple[str, ...], operation: str, recipe: Recipe | None = None) -> Recipe | None:
        """Return the recipe with those rules that match one of the names, for any name; None if it does not apply."""
        rules = [rule for rule in self.recipe.rules if any(rule.matches(name, operation) for name in names)]
        self.matched.update(rules)
        for rule in self.recipe.rules:  # a rule for another operation has still found its layer
            if any(rule.matches(name, rule.operation or operation) for name in names):
                self.matched.add(rule)
        recipe = (recipe or self.recipe).replace(rules=tuple(replace(rule, match=("*",)) for rule in rules))
        return recipe if recipe.emulates(operation, names[0]) else None

    def _remark_on(self, eqn: Any, stack: str) -> None:
        name = eqn.primitive.name
        if name in LEFT_ALONE:
            self.cannot(f"{LEFT_ALONE[name]} {name!r} in {origins.scope_of(stack)!r}")
        elif any(has_product(j) for j in core.jaxprs_in_params(eqn.params)):
            self.cannot(f"matrix products inside {name!r}")
