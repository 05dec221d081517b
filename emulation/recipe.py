"""Which tensors of a program use which format: a recipe, as plain data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from lowp._errors import ArgumentError, ArgumentTypeError, unknown_name
from lowp.emulation.casts import Cast, ChecksNames, Settings, merged, settings

#: What a recipe can name, and where it is rounded.
ROLES = {
    "weight": "parameters, where an operation reads them",
    "activation": "the other operands of the forward pass",
    "gradient": "gradients that arrive at an operation in the backward pass",
    "output": "results of emulated operations, forward and backward",
    "accumulator": "partial sums of products",
    "elementwise": "results of element-wise operations",
    "optimizer_state": "moments that an optimizer keeps",
    "kv_cache": "keys and values of attention",
}
#: The products of a layer, and the operands of each: X and W; dY and W; X and dY.
PASSES = {
    "forward": ("activation", "weight"),
    "grad_input": ("gradient", "weight"),
    "grad_weight": ("activation", "gradient"),
}
OPERATIONS = {
    "linear": "matrix products with a weight",
    "matmul": "matrix products of two activations",
    "conv": "convolutions, transposed ones too",
    "attention": "scaled dot-product attention: both of its products",
    "embedding": "embedding tables",
    "recurrent": "matrix products inside recurrent layers",
    "elementwise": "element-wise operations and reductions: those that `primitives` names",
}
_DEFAULT_OPERATIONS = ("linear", "conv", "recurrent")


@dataclass(frozen=True)
class Rule(ChecksNames):
    """What differs for the layers whose name matches a pattern.

    Args:
        match: Shell pattern over the layer's dotted name ("lm_head", "*.attn.*"), or several.
        operation: Only for this operation; "" for all.
        exempt: Leave these layers in their own precision.
        optional: Say nothing where no layer matches.
        casts: Settings by place: a role ("weight"), or a pass and a role ("grad_weight.gradient").

    Raises:
        ArgumentError, ArgumentTypeError, FormatError: A part is unknown.

    Example:
        >>> Rule("lm_head", exempt=True).matches("lm_head", "linear")
        True
    """

    match: tuple[str, ...]
    operation: str = ""
    exempt: bool = False
    optional: bool = False
    casts: tuple[tuple[str, Settings], ...] = ()

    def __post_init__(self) -> None:
        given: Any = self.match
        patterns = (given,) if isinstance(given, str) else tuple(given) if isinstance(given, Iterable) else ()
        if not all(isinstance(p, str) and p for p in patterns) or not patterns:
            raise ArgumentTypeError(f"match={self.match!r} must be a pattern over layer names, or several.")
        object.__setattr__(self, "match", patterns)
        operation: Any = self.operation
        if operation != "" and (not isinstance(operation, str) or operation not in OPERATIONS):
            raise ArgumentError(unknown_name("operation", operation, OPERATIONS))
        for argument in ("exempt", "optional"):
            if not isinstance(getattr(self, argument), bool):
                raise ArgumentTypeError(f"{argument}={getattr(self, argument)!r} must be True or False.")
        object.__setattr__(self, "casts", _places("rule", _table(self.casts)))
        if self.exempt and self.casts:
            raise ArgumentError(f"the rule for {', '.join(self.match)} is exempt and has casts; it can be one of both.")

    def matches(self, name: str, operation: str) -> bool:
        """Whether the rule speaks of this layer."""
        return self.operation in ("", operation) and any(fnmatchcase(name, pattern) for pattern in self.match)


@dataclass(frozen=True, kw_only=True)
class Recipe(ChecksNames):
    """Formats and rounding for the tensors of a program.

    A role's settings hold for every pass; `forward`, `grad_input` and `grad_weight` change them for one product; rules
    change both for layers by name, later rules over earlier ones. Each of them is a format's name, a `Cast`, or a
    mapping of the fields of a `Cast`. An operand without a format stays as it is.

    Args:
        name: What the recipe is called.
        source: Where it is defined.
        seed: Seed of everything random.
        operations: Names in `OPERATIONS`: what is emulated.
        primitives: Patterns over the primitives ("exp", "*") that "elementwise" covers.
        exclude: Patterns over primitives that it leaves out.
        weight: Settings of a role, like the arguments that follow.
        activation: Operands of the forward pass that are no weights.
        gradient: Gradients with respect to an operation's result.
        output: Results of emulated products.
        accumulator: Partial sums of products.
        elementwise: Results of element-wise operations.
        optimizer_state: Moments that an optimizer keeps; read by the optimizer wrappers.
        kv_cache: Keys and values, where attention reads them.
        forward: Settings of the forward product by role.
        grad_input: Settings of the product that gives the gradient of the input.
        grad_weight: Settings of the product that gives the gradient of the weight.
        rules: What differs by layer name.

    Raises:
        ArgumentError, ArgumentTypeError, FormatError: A part is unknown, or unusable for its role.

    Example:
        >>> recipe = Recipe(weight="mxfp4", activation="mxfp4", gradient="mxfp4", rules=[Rule("lm_head", exempt=True)])
        >>> recipe.cast("weight", "forward", "blocks.0.fc").format
        'mxfp4'
        >>> recipe.emulates("linear", "lm_head")
        False
    """

    name: str = ""
    source: str = ""
    seed: int = 0
    operations: tuple[str, ...] = _DEFAULT_OPERATIONS
    primitives: tuple[str, ...] = ("*",)
    exclude: tuple[str, ...] = ()
    weight: Any = ()
    activation: Any = ()
    gradient: Any = ()
    output: Any = ()
    accumulator: Any = ()
    elementwise: Any = ()
    optimizer_state: Any = ()
    kv_cache: Any = ()
    forward: Any = ()
    grad_input: Any = ()
    grad_weight: Any = ()
    rules: Any = field(default=())

    def __post_init__(self) -> None:
        _check_plain(self)
        for role in ROLES:
            object.__setattr__(self, role, settings(role, getattr(self, role)))
        for name in PASSES:
            given = getattr(self, name)
            if not isinstance(given, Mapping | tuple):
                raise ArgumentTypeError(f"{name}={given!r} must be a table of roles.")
            places = _places(name, {f"{name}.{role}": value for role, value in dict(given).items()})
            object.__setattr__(self, name, tuple((place.partition(".")[2], value) for place, value in places))
        object.__setattr__(self, "rules", tuple(_rule(r) for r in _listed("rules", self.rules)))
        from lowp.emulation._recipe_checks import check_operands  # which needs this module's names

        check_operands(self)

    def emulates(self, operation: str, name: str = "") -> bool:
        """Whether an operation in the layer of that name is emulated at all.

        Raises:
            ArgumentError, FormatError: Several rules speak of the layer, and what they say does not fit together.
        """
        exempt = False
        for rule in self.rules:
            if rule.matches(name, operation):
                exempt = rule.exempt
        if exempt or operation not in self.operations:
            return False
        from lowp.emulation._recipe_checks import check_layer  # which needs this module's names

        check_layer(self, name, operation)
        return True

    def cast(self, role: str, product: str = "", name: str = "", operation: str = "linear") -> Cast:
        """Return the cast of a role, in one product ("forward", "grad_input", "grad_weight") of one layer.

        Raises:
            ArgumentError: Unknown role or product.
        """
        if role not in ROLES:
            raise ArgumentError(unknown_name("role", role, ROLES))
        if product and product not in PASSES:
            raise ArgumentError(unknown_name("product", product, PASSES))
        parts = [getattr(self, role), dict(getattr(self, product)).get(role, ()) if product else ()]
        for rule in self.rules:
            if rule.matches(name, operation):
                casts = dict(rule.casts)
                parts += [casts.get(role, ()), casts.get(f"{product}.{role}", ())]
        return merged(*parts)

    def covers(self, primitive: str) -> bool:
        """Whether the results of an element-wise primitive are rounded."""
        chosen = any(fnmatchcase(primitive, p) for p in self.primitives)
        return "elementwise" in self.operations and chosen and not any(fnmatchcase(primitive, p) for p in self.exclude)

    def replace(self, **changes: Any) -> Recipe:
        """Return the recipe with other values for some of its arguments."""
        names = [f.name for f in fields(self)]
        for name in changes:
            if name not in names:
                raise ArgumentError(unknown_name("argument", name, names))
        return replace(self, **changes)

    def explain(self, program: Any, *inputs: Any) -> Any:
        """Return what would happen to every operation of a program, as a report that prints as a table.

        Args:
            program: A torch module, or a function of JAX arrays.
            *inputs: Example inputs; without them, the layers of a torch module are listed by name.

        Raises:
            ArgumentTypeError: `program` is neither.
        """
        from lowp.emulation.explain import explain

        return explain(self, program, *inputs)

    def to_dict(self) -> dict[str, Any]:
        """Return the recipe as nested dictionaries and lists, without what is at its default."""
        from lowp.emulation.recipe_files import to_dict

        return to_dict(self)

    def save(self, path: str | Path) -> None:
        """Write the recipe to a .toml or .json file, atomically.

        Raises:
            ArgumentError: Another ending.
            FileError: The file cannot be written.
        """
        from lowp.emulation.recipe_files import save

        save(self, path)

    @staticmethod
    def names() -> tuple[str, ...]:
        """Return the names of the published recipes that come with lowp.

        Example:
            >>> "mxfp8" in Recipe.names()
            True
        """
        from lowp.emulation.recipe_files import names

        return names()

    @staticmethod
    def named(name: str) -> Recipe:
        """Return the published recipe of that name; its `source` says where it is defined.

        Raises:
            ArgumentError: There is none of that name.
        """
        from lowp.emulation.recipe_files import named

        return named(name)

    @staticmethod
    def load(path: str | Path) -> Recipe:
        """Read a recipe from a .toml or .json file.

        Raises:
            FileError: The file cannot be read, or is no TOML or JSON.
            ArgumentError, ArgumentTypeError, FormatError: It holds no valid recipe.
        """
        from lowp.emulation.recipe_files import load

        return load(path)

    def __str__(self) -> str:
        from lowp.emulation.recipe_files import to_text

        return to_text(self)


def as_recipe(given: Any) -> Recipe:
    """Return the recipe that a name, a path to a file, a mapping, a format or a recipe stands for.

    A format's name that is no recipe's means: weights, activations and gradients in this format.

    Raises:
        ArgumentError, ArgumentTypeError, FormatError, FileError: It stands for none.

    Example:
        >>> as_recipe("float8_e4m3fn").cast("gradient").format
        'float8_e4m3fn'
    """
    from lowp.emulation.recipe_files import resolve

    return resolve(given)


def _table(casts: Any) -> dict[str, Any]:
    try:
        return dict(casts)
    except (TypeError, ValueError):
        raise ArgumentTypeError(f"casts={casts!r} must be a table of settings by place.") from None


def _listed(argument: str, value: Any) -> tuple[Any, ...]:
    if isinstance(value, str | Mapping) or not isinstance(value, Iterable):
        raise ArgumentTypeError(f"{argument}={value!r} must be a list.")
    return tuple(value)


def _check_plain(given: Recipe) -> None:
    for name in ("name", "source"):
        if not isinstance(getattr(given, name), str):
            raise ArgumentTypeError(f"{name}={getattr(given, name)!r} must be a string.")
    seed = given.seed
    if isinstance(seed, bool) or not hasattr(seed, "__index__") or not 0 <= seed < 1 << 64:
        raise ArgumentError(f"seed={seed!r} must be an integer from 0 to 2^64 - 1.")
    object.__setattr__(given, "seed", int(seed))
    for name in ("operations", "primitives", "exclude"):
        value = _listed(name, getattr(given, name))
        if not all(isinstance(v, str) for v in value):
            raise ArgumentTypeError(f"{name}={value!r} must be a list of names.")
        object.__setattr__(given, name, value)
    for operation in given.operations:
        if operation not in OPERATIONS:
            raise ArgumentError(unknown_name("operation", operation, OPERATIONS))


def _places(where: str, given: Mapping[str, Any]) -> tuple[tuple[str, Settings], ...]:
    """Return settings by "role" or "pass.role", checked; tables of a pass are flattened to "pass.role"."""
    flat: dict[str, Any] = {}
    for place, value in given.items():
        if place in PASSES and isinstance(value, Mapping):
            flat.update({f"{place}.{role}": v for role, v in value.items()})
        else:
            flat[place] = value
    checked = []
    for place, value in flat.items():
        product, _, role = place.rpartition(".")
        if product and product not in PASSES:
            raise ArgumentError(unknown_name(f"{where}: product", product, PASSES))
        allowed = (*PASSES[product], "output", "accumulator") if product else tuple(ROLES)
        if role not in allowed:
            raise ArgumentError(unknown_name(f"{where}: role", role, allowed))
        checked.append((place, settings(place, value)))
    return tuple(checked)


def _rule(given: Any) -> Rule:
    if isinstance(given, Rule):
        return given
    if not isinstance(given, Mapping):
        raise ArgumentTypeError(f"rules holds {given!r}; each must be a Rule or a table of its fields.")
    own = {k: v for k, v in given.items() if k in ("match", "operation", "exempt", "optional", "casts")}
    rest = {k: v for k, v in given.items() if k not in own}
    for key in rest:
        if key not in ROLES and key not in PASSES and "." not in key:
            allowed = ["match", "operation", "exempt", "optional", *ROLES, *PASSES]
            raise ArgumentError(unknown_name("rules: field", key, allowed))
    if "match" not in own:
        raise ArgumentError(f"a rule needs a pattern over layer names in 'match'; this one has {sorted(given)}.")
    return Rule(**{**own, "casts": tuple({**_table(own.get("casts", ())), **rest}.items())})
