"""What a recipe's settings must satisfy together: formats for their roles, rotations that cancel, masks that fit."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from lowp._errors import ArgumentError, FormatError, warn_caller
from lowp.emulation.casts import STATE_SETS, Cast, Settings, merged
from lowp.emulation.recipe import PASSES, ROLES
from lowp.formats import Block, Packed, parse
from lowp.formats.block import ADAPTIVE_RECIPES

if TYPE_CHECKING:
    from lowp.emulation.recipe import Recipe

_SCALAR_ROLES = ("accumulator", "elementwise")
#: Roles that are not operands of products: their casts round, and do nothing else.
_PLAIN_ROLES = ("output", "accumulator", "elementwise", "optimizer_state", "kv_cache")
#: Roles whose numbers have both signs.
_SIGNED_ROLES = ("weight", "gradient", "output", "accumulator", "elementwise", "kv_cache")
#: Where casts are used: operands in products, results and sums in both, the other roles outside products.
_PLACES = [(role, product) for product, roles in PASSES.items() for role in (*roles, "output", "accumulator")]
_PLACES += [(role, "") for role in ROLES if role in _PLAIN_ROLES]


def check_operands(given: Recipe) -> None:
    """Check what concerns several settings; warn where a legal combination is biased.

    Raises:
        ArgumentError, FormatError: A format is unusable for its role, or operands do not fit together.
    """
    biased: list[str] = []
    for pattern, rules in [("", ())] + [(rule.match[0], rule.casts) for rule in given.rules if not rule.exempt]:
        biased += _check_casts(_under_rules(given, rules), f" of {pattern!r}" if pattern else "")
    if biased:
        warn_caller(
            f"{biased[0]!r} chooses between two stochastically rounded results, which biases them: their mean is not "
            "x. Use a static rule such as 'nvfp4_static6_unbiased', or rounding='ties_to_even'."
        )


def check_layer(given: Recipe, name: str, operation: str) -> None:
    """Check the settings that several rules make together for one layer; each rule alone is checked with the recipe.

    Raises:
        ArgumentError, FormatError: As `check_operands`.
    """
    if sum(bool(rule.casts) and rule.matches(name, operation) for rule in given.rules) > 1:
        _check_casts(lambda role, product: given.cast(role, product, name, operation), f" of layer {name!r}")


def _check_casts(casts: Callable[[str, str], Cast], of: str) -> list[str]:
    """Check the casts of all roles and products together; return the formats whose rounding is biased."""
    biased = []
    for role, product in _PLACES:
        where = f"{product}.{role}{of}" if product else f"{role}{of}"
        try:
            cast = casts(role, product)
        except (ArgumentError, FormatError) as error:
            raise type(error)(f"{where}: {error}") from None
        _check_role(where, role, cast)
        biased += [cast.format] if _is_biased(cast) else []
    for product, roles in PASSES.items():
        first, second = (casts(role, product) for role in roles)
        _check_pair(f"{product}{of}", product, roles, first, second)
        _check_unit(f"{product}.accumulator{of}", casts("accumulator", product), first, second)
    _check_masks(casts, of)
    return biased


def _is_biased(cast: Cast) -> bool:
    fmt = parse(cast.format) if cast.format and cast.format not in STATE_SETS else None
    return isinstance(fmt, Block) and fmt.recipe in ADAPTIVE_RECIPES and cast.rounding.startswith("stochastic")


def _check_role(where: str, role: str, cast: Cast) -> None:
    """Check one cast against what its role can be."""
    if role in _PLAIN_ROLES:
        for name in ("hadamard", "reuse", "scaling", "method"):
            if getattr(cast, name) not in (0, "none", "round"):
                raise ArgumentError(f"{where}: {name}={getattr(cast, name)!r} is for operands of products.")
    if cast.gradient != "straight_through" and role not in ("weight", "activation", "elementwise"):
        raise ArgumentError(
            f"{where}: gradient={cast.gradient!r} says how a gradient passes the rounding of weights, activations and "
            "element-wise results; it is for those."
        )
    if cast.group and role != "accumulator":
        raise ArgumentError(f"{where}: group={cast.group} is for accumulators.")
    if cast.unit and role != "accumulator":
        raise ArgumentError(f"{where}: unit={cast.unit!r} is for accumulators: it says how products are summed.")
    if not cast.format:
        return
    if cast.format in STATE_SETS:
        from lowp.emulation.optimizer_states import casts_of_set  # which needs the recipe's module

        casts_of_set(where, cast)
        return
    fmt = parse(cast.format)
    if role in _SCALAR_ROLES and isinstance(fmt, Block | Packed):
        raise FormatError(f"{where}={cast.format!r}: needs a scalar format, this one has blocks.")
    if role in _SIGNED_ROLES and getattr(fmt, "min", -1.0) >= 0:
        raise FormatError(f"{where}={cast.format!r}: needs a format with negative numbers, this one has none.")


def _check_unit(where: str, cast: Cast, first: Cast, second: Cast) -> None:
    """Check whether a matrix unit takes the operands of a product."""
    if cast.unit and not any(c.reuse and not c.requantize for c in (first, second)):
        from lowp.emulation._unit_sums import check_unit

        check_unit(where, cast, (first, second))


def _check_masks(with_rules: Any, of: str) -> None:
    """A mask lies in the forward pass's basis, so the product that it concerns must be computed in that basis."""
    for masked, product, other in (("activation", "grad_input", "weight"), ("weight", "grad_weight", "activation")):
        cast = with_rules(masked, "forward")
        if cast.masks and cast.hadamard and not with_rules(other, product).reuse:
            raise ArgumentError(
                f"forward.{masked}{of}: its gradient is masked in the rotated basis, so {product} must be computed "
                f"there: give {product}.{other} reuse=true."
            )


def _under_rules(given: Recipe, casts: tuple[tuple[str, Settings], ...]) -> Any:
    """Return a function (role, product) -> Cast under extra settings of one rule."""
    extra = dict(casts)

    def cast(role: str, product: str) -> Cast:
        own = dict(getattr(given, product)).get(role, ()) if product else ()
        return merged(getattr(given, role), own, extra.get(role, ()), extra.get(f"{product}.{role}", ()))

    return cast


def _check_pair(where: str, product: str, roles: tuple[str, ...], first: Cast, second: Cast) -> None:
    for role, cast in zip(roles, (first, second), strict=True):
        if cast.reuse and (product == "forward" or role == "gradient"):
            raise ArgumentError(f"{where}: {role} cannot reuse what the forward pass rounded; it is not there.")
    if first.rotation != second.rotation:
        described = [
            f"hadamard={h} with signs={s!r}" if h else "no rotation" for h, s in (first.rotation, second.rotation)
        ]
        raise ArgumentError(
            f"{where}: {described[0]} for {roles[0]} and {described[1]} for {roles[1]} do not cancel; give both the "
            "same."
        )
