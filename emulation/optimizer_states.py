"""What an optimizer's state is kept in between two steps: formats by the state's name, and the seeds of its rounding.

Neutral between frameworks: torch names a state by its key ("exp_avg_sq"), optax by its path ("0.nu.layers.0.w").
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from fnmatch import fnmatchcase
from hashlib import blake2b
from typing import Any

from lowp._errors import ArgumentError, ArgumentTypeError, unknown_name
from lowp.emulation.casts import Cast, settings
from lowp.emulation.recipe import Recipe
from lowp.formats import Format, parse
from lowp.formats.spec import ScalarFormat
from lowp.rounding.modes import rounding as rounding_mode

#: What a state may be divided by before it is rounded.
NORMALIZATIONS = {
    "none": "nothing",
    "frobenius": "the Frobenius norm of the tensor, kept in float32; 1 where it is zero",
}
#: States that are never negative, by the names that torch and optax give them.
NON_NEGATIVE = (
    "exp_avg_sq",
    "max_exp_avg_sq",
    "square_avg",
    "sum",
    "acc_delta",
    "exp_inf",
    "step_size",
    "row_var",
    "col_var",
    "variance",
    "nu",
    "nu_max",
    "sum_of_squares",
    "e_g",
    "e_x",
    "v",
    "v_row",
    "v_col",
    "square",
)
_SIGNED_MULAW = {"format": "block[mulaw4,128,float32]"}
_MUONQ = {"format": "muonq4_tensor", "normalize": "frobenius"}
#: name -> (settings of states of either sign, settings of `NON_NEGATIVE` states).
_PRESETS: dict[str, tuple[dict[str, str], dict[str, str]]] = {
    "dynamic8": ({"format": "bnb_dynamic8_signed"}, {"format": "bnb_dynamic8_unsigned"}),
    "linear8": ({"format": "bnb_linear8_signed"}, {"format": "bnb_linear8_unsigned"}),
    "mulaw4": (_SIGNED_MULAW, {"format": "bnb_dynamic8_unsigned"}),
    "muonq4": (_MUONQ, {"format": "bnb_dynamic8_unsigned"}),
}
#: Sets of formats for all states of an optimizer.
STATE_FORMATS = {
    "dynamic8": "8-bit dynamic maps over a float32 absmax per 256 values, as bitsandbytes' 8-bit optimizers; those of "
    "second moments have no sign",
    "linear8": "equal steps over a float32 absmax per 256 values, 8 bits",
    "mulaw4": "4-bit mu-law over a float32 absmax per 128 values; second moments, which must not become zero, as in "
    "dynamic8",
    "muonq4": "MuonQ: the momentum over its Frobenius norm in 4-bit mu-law with a float16 scale per tensor; second "
    "moments as in dynamic8",
}
_CAST_FIELDS = tuple(f.name for f in fields(Cast))
_MASK = 0xFFFFFFFF


@dataclass(frozen=True)
class StateCast:
    """How one tensor is rounded: the format and what `lowp.encode` needs beside it.

    Attributes:
        format: The format.
        rounding: Rounding mode.
        overflow: Overflow mode.
        random_bits: Random bits of the stochastic modes.
        normalize: Name in `NORMALIZATIONS`.
    """

    format: Format
    rounding: str = "ties_to_even"
    overflow: str = "saturate"
    random_bits: int | None = None
    normalize: str = "none"

    @property
    def stochastic(self) -> bool:
        """Whether the rounding depends on the seed."""
        return self.rounding.startswith("stochastic")

    def options(self, seed: int) -> dict[str, Any]:
        """Return the keyword arguments of `lowp.encode`."""
        return {"rounding": self.rounding, "overflow": self.overflow, "random_bits": self.random_bits, "seed": seed}

    def nan_policy(self) -> str | None:
        """What `quantize` shall do with NaN so that it refuses what `encode` refuses."""
        lacks = isinstance(self.format, ScalarFormat) and not self.format.has_nan
        return "error" if lacks else None


#: Patterns over names with what they give, the last match counting; None leaves a tensor as it is.
Rules = tuple[tuple[str, StateCast | None], ...]


class StateRules:
    """Which state is kept how.

    Args:
        given: Name in `STATE_FORMATS`, a format, a `Cast`, the fields of one (and "normalize"), a `Recipe`, whose
            `optimizer_state` counts, or a mapping from patterns over the names of states to any of the former or None.
        rounding: Rounding mode where `given` names none.

    Raises:
        ArgumentError, ArgumentTypeError, FormatError: `given` is none of these, or asks for what states cannot have.

    Example:
        >>> rules = StateRules("dynamic8")
        >>> rules.cast("exp_avg").format.name, rules.cast("exp_avg_sq").format.name
        ('bnb_dynamic8_signed', 'bnb_dynamic8_unsigned')
        >>> StateRules({"*": "bfloat16", "exp_avg_sq": None}).cast("exp_avg_sq") is None
        True
    """

    def __init__(self, given: Any, rounding: str = "ties_to_even") -> None:
        self.rounding = rounding_mode(rounding).name
        self.recipe = given if isinstance(given, Recipe) else None
        self.rules: Rules = () if given is None or self.recipe else tuple(self._rules(given))
        self._asked = tuple(given) if is_patterns(given) else ()
        self._met: set[str] = set()

    @property
    def needs_names(self) -> bool:
        """Whether the answer depends on the name of the parameter's layer."""
        if self.recipe is None:
            return False
        return any(rule.exempt or "optimizer_state" in dict(rule.casts) for rule in self.recipe.rules)

    def cast(self, name: str, layer: str = "") -> StateCast | None:
        """Return how a state is kept, by its dotted name; None for a state that stays as it is."""
        if self.recipe is not None:
            return self._of_recipe(self.recipe, name, layer)
        chosen = None
        for pattern, cast in self.rules:
            if matches(name, pattern):
                chosen = cast
                self._met.add(pattern)
        return chosen

    def unmet(self) -> list[str]:
        """Return the caller's patterns that no state has matched so far."""
        return [pattern for pattern in self._asked if pattern not in self._met]

    def _of_recipe(self, recipe: Recipe, name: str, layer: str) -> StateCast | None:
        exempt = False
        for rule in recipe.rules:
            if rule.matches(layer, ""):
                exempt = rule.exempt
        cast = recipe.cast("optimizer_state", name=layer, operation="")
        if exempt or not cast:
            return None
        if cast.format not in _PRESETS:
            return state_cast("optimizer_state", cast)
        either, non_negative = casts_of_set("optimizer_state", cast)
        return non_negative if any(matches(name, pattern) for pattern in NON_NEGATIVE) else either

    def _rules(self, given: Any) -> Rules:
        if isinstance(given, str) and given in _PRESETS:
            either, non_negative = (state_cast(given, s, self.rounding) for s in _PRESETS[given])
            return (("*", either), *((name, non_negative) for name in NON_NEGATIVE))
        if not is_patterns(given):
            return (("*", state_cast("states", given, self.rounding)),)
        rules: list[tuple[str, StateCast | None]] = []
        for pattern, value in given.items():
            if not isinstance(pattern, str) or not pattern:
                raise ArgumentTypeError(f"states has the key {pattern!r}; each must be a pattern over names of states.")
            if value is None:
                rules.append((pattern, None))
            elif isinstance(value, str) and value in _PRESETS:
                raise ArgumentError(f"states[{pattern!r}]={value!r} is a set of formats for all states; name a format.")
            else:
                rules.append((pattern, state_cast(f"states[{pattern!r}]", value, self.rounding)))
        return tuple(rules)


def casts_of_set(where: str, cast: Cast) -> tuple[StateCast, StateCast]:
    """Return the casts of states of either sign and of `NON_NEGATIVE` states, of a set and its fields of rounding.

    Raises:
        ArgumentError, FormatError: One of the formats cannot be rounded so.
    """
    given = {name: getattr(cast, name) for name in ("rounding", "overflow", "random_bits")}
    first, second = (state_cast(where, {**fields_of_set, **given}) for fields_of_set in _PRESETS[cast.format])
    return first, second


def matches(name: str, pattern: str) -> bool:
    """Whether a pattern matches a dotted name or one part of it.

    Example:
        >>> matches("0.nu.layers.w", "nu"), matches("exp_avg_sq", "exp_avg")
        (True, False)
    """
    return fnmatchcase(name, pattern) or any(fnmatchcase(part, pattern) for part in name.split("."))


def is_patterns(given: Any) -> bool:
    """Whether a mapping is one from patterns, not one of a cast's fields."""
    return isinstance(given, Mapping) and not all(key in (*_CAST_FIELDS, "normalize") for key in given)


def state_cast(where: str, given: Any, rounding: str = "ties_to_even") -> StateCast:
    """Return the cast that a format's name, a format, a `Cast` or a mapping of its fields stands for.

    Raises:
        ArgumentError, ArgumentTypeError, FormatError: It stands for none; or it rotates, scales or replaces the plain
            rounding, which is for operands of products.
    """
    normalize = "none"
    if isinstance(given, Mapping):
        given = dict(given)
        normalize = given.pop("normalize", "none")
        if normalize not in NORMALIZATIONS:
            raise ArgumentError(unknown_name(f"{where}.normalize", normalize, NORMALIZATIONS))
    fmt = given if isinstance(given, Format) else None
    try:
        named = {} if fmt else dict(settings(where, given))
    except ArgumentError as error:
        if isinstance(given, str) and given not in _PRESETS:
            raise type(error)(f"{error} Sets of formats: {', '.join(_PRESETS)}.") from None
        raise
    cast = Cast(**named)
    for argument in ("method", "axis", "hadamard", "scaling", "reuse", "group"):
        if getattr(cast, argument) != getattr(Cast(), argument) and (argument, cast.axis) != ("axis", "last"):
            raise ArgumentError(f"{where}: {argument}={getattr(cast, argument)!r} is for products, not for states.")
    if fmt is None and not cast.format:
        raise ArgumentError(f"{where}={given!r} names no format.")
    mode = named.get("rounding", rounding_mode(rounding).name)
    return StateCast(fmt or parse(cast.format), mode, cast.overflow, cast.random_bits, normalize)


def check_wrapper(states: Any, parameters: Any, master_weights: Any, min_size: Any, encoded: Any) -> None:
    """Raise ArgumentError or ArgumentTypeError for arguments of the wrappers that cannot be."""
    for name, flag in (("master_weights", master_weights), ("encoded", encoded)):
        if not isinstance(flag, bool):
            raise ArgumentTypeError(f"{name}={flag!r} must be True or False.")
    if isinstance(min_size, bool) or not isinstance(min_size, int) or min_size < 0:
        raise ArgumentError(f"min_size={min_size!r} must be a number of elements, 0 or more.")
    if states is None and parameters is None and not master_weights:
        raise ArgumentError("states=None, parameters=None: nothing to keep in low precision; name a format for one.")


def checked_seed(seed: Any, recipe: Recipe | None = None) -> int:
    """Return a seed; None stands for that of the recipe, or 0.

    Raises:
        ArgumentError: It is no integer from 0 to 2^64 - 1.

    Example:
        >>> checked_seed(None, Recipe(seed=3))
        3
    """
    if seed is None:
        return recipe.seed if recipe else 0
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 1 << 64:
        raise ArgumentError(f"seed={seed!r} must be an integer from 0 to 2^64 - 1.")
    return seed


def site_seed(seed: int, parameter: str, state: str) -> int:
    """Return the 64-bit seed of one tensor of an optimizer, at step 0.

    Example:
        >>> site_seed(0, "0", "exp_avg") != site_seed(0, "1", "exp_avg")
        True
    """
    text = f"optimizer|{seed}|{parameter}|{state}".encode()
    return int.from_bytes(blake2b(text, digest_size=8).digest(), "little")


def step_seed(site: int, step: int) -> int:
    """Return the seed of a tensor at a step: the step is added to the low 32 bits, which wrap around.

    Example:
        >>> hex(step_seed(0x1_FFFFFFFF, 2))
        '0x100000001'
    """
    return (site & ~_MASK) | ((site + step) & _MASK)
