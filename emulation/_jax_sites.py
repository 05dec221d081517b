"""What is known of the operations of a JAX program: where they stand, what becomes of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, NamedTuple

from lowp.emulation._jax_origins import Origin
from lowp.emulation.casts import Cast
from lowp.emulation.recipe import Recipe


class Scope(NamedTuple):
    """Where a jaxpr stands in the program.

    Attributes:
        stack: Name stack outside of it.
        functions: Names of the functions around it.
        times: How often it runs, as far as that is known.
        split: Mesh axes over which the first axis of activations is split.
        rounds: Lengths of the scans around it.
        forgets: What keeps histories from coming in and out here, "" for nothing.
        chain: The jaxprs around it and itself: the primitives that hold them, and objects to tell them apart.
    """

    stack: str = ""
    functions: str = ""
    times: int = 1
    split: tuple[str, ...] = ()
    rounds: tuple[int, ...] = ()
    forgets: str = ""
    chain: tuple[tuple[str, object], ...] = ()

    def inside(self, stack: str, primitive: str, name: str = "", times: int = 1) -> Scope:
        """Return the scope of a jaxpr in an equation of this one."""
        chain = (*self.chain, (primitive, object()))
        return self._replace(stack=stack, functions=f"{self.functions}/{name}", times=self.times * times, chain=chain)


@dataclass(frozen=True)
class Site:
    """One operation that is emulated.

    Attributes:
        layer: Name in reports and in seeds.
        operation: Name in `recipe.OPERATIONS`.
        call: How many sites of this layer and operation came before.
        product: "forward", or "grad_input" and "grad_weight" where the program itself holds the backward pass.
        roles: What the operands are.
        recipe: The recipe with the rules that concern this layer, which hold for any name.
        split: Mesh axes over which activations and gradients are split.
        times: How often the site runs in one call of the program.
        rounds: Lengths of the scans around it.
        forgets: As in its scope.
        reused: For each operand the site of the forward pass whose rounded operand it takes, or None.
        first: Which of two activations comes first: its gradient is grad_input, that of the other one grad_weight.
    """

    layer: str
    operation: str
    call: int
    product: str
    roles: tuple[str, ...]
    recipe: Recipe
    split: tuple[str, ...] = ()
    times: int = 1
    rounds: tuple[int, ...] = ()
    forgets: str = ""
    reused: tuple[Site | None, ...] = ()
    first: int = 0

    def source(self, number: int) -> tuple[Site, str, int]:
        """Return the site and the product whose cast rounds operand `number`, and which operand it is there."""
        forward = self.reused[number] if self.reused else None
        if forward is None:
            return self, self.product, number
        return forward, "forward", forward.first ^ (self.product == "grad_input")  # of two activations

    def drawn_as(self, product: str, role: str, number: int = 0) -> str:
        """Return the name of operand `number` in seeds and histories: of two activations the second has its own.

        The product that gives the gradient of the first one, grad_input, reads the second.
        """
        both = product == "forward" and self.roles == ("activation", "activation") and number != self.first
        return "activation_2" if role == "activation" and (both or product == "grad_input") else role

    def cast(self, role: str, product: str = "") -> Cast:
        """Return the cast of one role in one product."""
        return _cast(self.recipe, role, product, self.operation)

    def read_cast(self, role: str, product: str) -> Cast:
        """Return the cast by which a product reads an operand: an activation turns as the gradient that it meets."""
        cast = self.cast(role, product)
        if role != "activation" or product not in ("grad_input", "grad_weight") or cast.reuse:
            return cast
        return cast.turned_as(self.cast("gradient", product))


@lru_cache(maxsize=4096)
def _cast(recipe: Recipe, role: str, product: str, operation: str) -> Cast:
    return recipe.cast(role, product, "layer", operation)


#: An operand of a forward product: its site and its number.
MaskKey = tuple[Site, int]


class Mask(NamedTuple):
    """Where a gradient passes: the operand that it belongs to, and the order of that operand's axes in the gradient."""

    key: MaskKey
    order: tuple[int, ...] | None = None


class Cached(NamedTuple):
    """An operand that is keys or values, which come out of a cache.

    Attributes:
        site: Gives the cast and the seed.
        name: Stands for the role in the seed: "kv_cache" for keys, "kv_cache_2" for values.
        head_is_summed: Whether the product sums over the head, or over the tokens.
    """

    site: Site
    name: str
    head_is_summed: bool


class Step(NamedTuple):
    """What becomes of one equation.

    Attributes:
        site: Where it stands, if it is a product.
        inner: Plans of its jaxprs.
        rounded: What its results are rounded by.
        cached: Operands that come out of a cache.
        mask: What its result, a gradient, is masked by.
    """

    site: Site | None = None
    inner: tuple[Plan, ...] = ()
    rounded: Site | None = None
    cached: tuple[Cached | None, ...] = ()
    mask: Mask | None = None


@dataclass
class Plan:
    """A jaxpr and what becomes of its equations; None for those that stay as they are."""

    jaxpr: Any
    inputs: tuple[Origin, ...]
    scope: Scope
    steps: list[Step | None] = field(default_factory=list)

    @property
    def active(self) -> bool:
        """Whether anything changes."""
        return any(step is not None for step in self.steps)
