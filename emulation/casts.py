"""A cast: how one operand of an operation becomes low precision, as plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Self

from lowp._errors import ArgumentError, ArgumentTypeError, FormatError, unknown_name
from lowp.formats import Block, Codebook, Float, Format, Integer, Packed, parse
from lowp.rounding.modes import overflow_mode, rounding
from lowp.rounding.request import QUANTIZE_NAN, check_format, make_request

if TYPE_CHECKING:
    from lowp.emulation.accumulator import Accumulator

#: What a cast may do instead of plain rounding; `lowp.emulation.methods` implements them.
METHODS = {
    "round": "round to the format once",
    "quest": "round in the QuEST projection and pass the gradient only where the error is small (the trust mask)",
    "ms_eden": "MS-EDEN: round to nearest with headroom, correct each rotation group's length by stochastic scales",
    "gauss_noise": "add rounded Gaussian noise of the block's step instead of rounding: Gaussian weight sampling",
    "pow2_ratio": "scales of blocks are the largest scale of their row over powers of two: ZeroQuant-FP's M2",
}
#: How the gradient passes a cast; the same names as `lowp.torch.GRADIENTS`.
GRADIENTS = {
    "straight_through": "unchanged",
    "clipped": "where the value lies between the format's smallest and largest value (in blocks: of its block)",
    "none": "nowhere",
}
#: How the scale in front of a scalar format is found.
SCALINGS = {
    "none": "no scale: the format takes the numbers as they are",
    "current": "largest finite value / amax of this tensor",
    "delayed": "largest finite value / largest amax of the last `history` steps, divided by 2^margin",
}
SIGNS = {
    "random": "new random signs at every call",
    "fixed": "random signs that depend on the recipe's seed alone",
    "none": "no sign flips: the plain Hadamard transform",
}
AXES = {
    "contraction": "blocks run along the axis that the product sums over",
    "outer": "blocks run along the other axis",
    "last": "blocks run along the last axis",
}


class ChecksNames:
    """Base of dataclasses that answer an unknown argument with the nearest name they know."""

    def __new__(cls, *_args: Any, **given: Any) -> Self:
        """Return a new instance; raises ArgumentTypeError for a name that is no field."""
        names = list(getattr(cls, "__dataclass_fields__", {}))
        for name in given:
            if name not in names:
                raise ArgumentTypeError(f"{cls.__name__}: {unknown_name('argument', name, names)}")
        return super().__new__(cls)


@dataclass(frozen=True)
class Cast(ChecksNames):
    """How one operand becomes low precision.

    Args:
        format: Name of a format, such as "mxfp4", "float8_e4m3fn" or "e4m3fn_t128x128"; "" leaves the operand alone.
        rounding: Rounding mode.
        overflow: Overflow mode.
        random_bits: Random bits of the stochastic modes; None, in files "none", for as many as the mode takes.
        method: Name in `METHODS`.
        axis: Name in `AXES`: the axis that blocks run along. Tiles cover both axes of a matrix either way.
        hadamard: Block length of a Hadamard transform along the contraction axis, a power of two; 0 for none.
        signs: Name in `SIGNS`: the sign flips in front of the transform.
        scaling: Name in `SCALINGS`, for scalar formats.
        history: Steps that delayed scaling looks back on.
        margin: Powers of two that delayed and current scaling leave free.
        gradient: Name in `GRADIENTS`: how the gradient passes this cast, in the forward pass.
        reuse: In a backward pass: take what the forward pass has rounded instead of the original.
        requantize: With `reuse`: rotate and round what was taken, by this cast; otherwise it is used as it is.
        group: Accumulators: products per partial sum that float32 holds before it is rounded; 0 for one sum in all, 1
            for rounding after every exact multiply-add.
        unit: Accumulators: name of a matrix unit (see `lowp.matrix_units`) whose sums the products are, or a
            `lowp.Accumulator` (in files a table of its fields) that makes them. `group` then says after how many
            products a sum is promoted: added to those before in float32, or in `format`.

    Raises:
        ArgumentError, ArgumentTypeError, FormatError: A part is unknown or the parts do not fit together.

    Example:
        >>> Cast("mxfp4", rounding="stochastic_a", hadamard=64)
        Cast('mxfp4', rounding='stochastic_a', hadamard=64)
    """

    format: str = ""
    rounding: str = "ties_to_even"
    overflow: str = "saturate"
    random_bits: int | None = None
    method: str = "round"
    axis: str = "contraction"
    hadamard: int = 0
    signs: str = "random"
    scaling: str = "none"
    history: int = 16
    margin: int = 0
    gradient: str = "straight_through"
    reuse: bool = False
    requantize: bool = False
    group: int = 0
    unit: str | Accumulator = ""

    def __post_init__(self) -> None:
        if self.format not in STATE_SETS:
            object.__setattr__(self, "format", format_name(self.format))
        bits: Any = self.random_bits
        if bits == "none":  # as files write it
            object.__setattr__(self, "random_bits", None)
        object.__setattr__(self, "rounding", rounding(self.rounding, self.random_bits).name)
        object.__setattr__(self, "overflow", overflow_mode(self.overflow))
        for argument, names in _NAMES.items():
            value = getattr(self, argument)
            if not isinstance(value, str) or value not in names:
                raise ArgumentError(unknown_name(argument, value, names))
        for argument, least in (("hadamard", 0), ("history", 1), ("margin", -64), ("group", 0)):
            value = getattr(self, argument)
            if isinstance(value, bool) or not hasattr(value, "__index__") or value < least:
                raise ArgumentError(f"{argument}={value!r} must be an integer, at least {least}.")
            object.__setattr__(self, argument, int(value))
        if self.margin > _LARGEST_MARGIN:
            raise ArgumentError(f"margin={self.margin} must be an integer from -64 to {_LARGEST_MARGIN}.")
        if self.random_bits is not None:
            object.__setattr__(self, "random_bits", int(self.random_bits))
        for argument in ("reuse", "requantize"):
            if not isinstance(getattr(self, argument), bool):
                raise ArgumentTypeError(f"{argument}={getattr(self, argument)!r} must be True or False.")
        if self.hadamard == 1 or self.hadamard & (self.hadamard - 1):
            raise ArgumentError(f"hadamard={self.hadamard} must be 0 or a power of two from 2 on.")
        _check_parts(self)

    def __repr__(self) -> str:
        given = [f"{name}={value!r}" for name, value in given_fields(self).items() if name != "format"]
        return f"Cast({', '.join([repr(self.format), *given])})"

    def __bool__(self) -> bool:
        """Whether the operand is changed at all."""
        return bool(self.format or self.hadamard or self.reuse or self.unit)

    @property
    def stochastic(self) -> bool:
        """Whether two calls may round differently."""
        return self.rounding.startswith("stochastic") or self.method in ("ms_eden", "gauss_noise")

    def turned_as(self, other: Cast) -> Cast:
        """Return the cast with the rotation of another one, which it meets in a product.

        Example:
            >>> Cast("fp8").turned_as(Cast("mxfp4", hadamard=8)).describe()
            'float8_e4m3fn, hadamard 8'
        """
        return self if self.rotation == other.rotation else replace(self, hadamard=other.hadamard, signs=other.signs)

    def describe(self) -> str:
        """Return the cast in a few words, for tables.

        Example:
            >>> Cast("mxfp4", rounding="stochastic_a", hadamard=64).describe()
            'mxfp4, stochastic_a, hadamard 64'
            >>> Cast().describe()
            'unchanged'
        """
        if self.reuse and not self.requantize:
            return "as rounded forward"
        if not self:
            return "unchanged"
        words = ["as rounded forward, then"] if self.reuse else []
        words += [str(self.unit) if isinstance(self.unit, str) else repr(self.unit)] if self.unit else []
        words += [self.format or "unrounded"] if self.format or not self.unit else []
        words += [self.rounding] if self.rounding != "ties_to_even" else []
        words += [f"{self.random_bits} random bits"] if self.random_bits is not None else []
        words += [f"overflow {self.overflow}"] if self.overflow != "saturate" else []
        words += [self.method] if self.method != "round" else []
        words += [f"{self.scaling} scale"] if self.scaling != "none" else []
        words += [f"blocks along {self.axis}"] if self.axis != "contraction" else []
        words += [f"hadamard {self.hadamard}"] if self.hadamard else []
        words += [f"{_SIGN_WORDS[self.signs]} signs"] if self.hadamard and self.signs != "random" else []
        words += [f"promoted every {self.group}" if self.unit else f"sums of {self.group}"] if self.group else []
        words += [f"gradient {self.gradient}"] if self.gradient != "straight_through" else []
        return ", ".join(words).replace("then, ", "then ")

    @property
    def masks(self) -> bool:
        """Whether the gradient passes this cast in some places only."""
        return bool(self.format) and (self.method == "quest" or self.gradient != "straight_through")

    @property
    def rotation(self) -> tuple[int, str]:
        """Block length and signs of the basis that the operand is brought into; (0, "") for its own."""
        return (self.hadamard, self.signs) if self.hadamard and (self.requantize or not self.reuse) else (0, "")


#: Sets of formats for the states of an optimizer, which stand in place of a format there; see `optimizer_states`.
STATE_SETS = ("dynamic8", "linear8", "mulaw4", "muonq4")
_LARGEST_MARGIN = 64
_SIGN_WORDS = {"fixed": "fixed", "none": "no"}
_NAMES = {"method": METHODS, "axis": AXES, "signs": SIGNS, "scaling": SCALINGS, "gradient": GRADIENTS}


def _check_parts(cast: Cast) -> None:
    """Check whether the parts of a cast fit together."""
    if cast.unit != "":
        _check_sums(cast)
    if cast.requantize and not cast.reuse:
        raise ArgumentError("requantize=True rounds again what the forward pass has rounded; it needs reuse=True.")
    if cast.format in STATE_SETS:
        return  # the recipe's checks, and the wrapper of the optimizer, look at each of the formats
    fmt = parse(cast.format) if cast.format else None
    if fmt is None:
        if cast.method != "round" or cast.scaling != "none":
            given = f"method={cast.method!r}" if cast.method != "round" else f"scaling={cast.scaling!r}"
            raise FormatError(f"{given} needs a format.")
        return
    check_format(fmt, make_request(cast.rounding, cast.overflow, 0, cast.random_bits, 0, "keep", QUANTIZE_NAN))
    if cast.scaling != "none" and isinstance(fmt, Block | Packed):
        raise FormatError(
            f"scaling={cast.scaling!r} puts a scale in front of a scalar format; format={cast.format!r} has scales of "
            "its own."
        )
    if cast.gradient == "clipped" and isinstance(fmt, Packed):
        raise FormatError(f"gradient='clipped' needs a range, which format={cast.format!r} does not state.")
    if cast.method != "round":
        _check_method(cast, fmt)


def _check_sums(cast: Cast) -> None:
    """Check, and resolve, what makes the sums of products."""
    from lowp.emulation.accumulator import Accumulator
    from lowp.emulation.matrix_units import MatrixUnit, matrix_unit
    from lowp.rounding.modes import rounding as mode

    unit: Any = cast.unit
    if isinstance(unit, Mapping):
        from lowp.emulation._accumulator_tables import from_table

        unit = from_table(unit)
    elif isinstance(unit, MatrixUnit) and matrix_unit(unit.name) == unit:
        unit = unit.name
    if isinstance(unit, str):
        matrix_unit(unit)
    elif not isinstance(unit, Accumulator):
        raise ArgumentTypeError(
            f"unit={unit!r} must be the name of a matrix unit, a lowp.Accumulator, or '' for neither."
        )
    elif unit.order == "random" and any(mode(x.rounding).variant for x in (unit, unit.outer or unit)):
        raise ArgumentError(
            f"unit={unit!r}: a recipe's own seed rounds at random, which leaves none for order='random'."
        )
    object.__setattr__(cast, "unit", unit)


def _check_method(cast: Cast, fmt: Format) -> None:
    needs, fits = _METHOD_FORMATS[cast.method]
    if not (isinstance(fmt, Block) and not fmt.zero_point and fits(fmt)):
        raise FormatError(f"method={cast.method!r} is for {needs}, not for format={cast.format!r}.")
    if cast.method == "ms_eden":
        if cast.hadamard % 16 or not cast.hadamard:
            raise ArgumentError(
                f"method='ms_eden' corrects rotation groups: hadamard={cast.hadamard} must be 16 or more."
            )
        if cast.rounding != "ties_to_even":
            raise ArgumentError(
                f"rounding={cast.rounding!r}: method='ms_eden' has a rounding of its own; leave it out."
            )


def _is_quest(fmt: Block) -> bool:
    if fmt.recipe == "quest":
        return True
    levels = isinstance(fmt.element, Integer | Codebook) and fmt.element.bits <= 8
    return levels and fmt.recipe == "round" and (fmt.size == "row" or isinstance(fmt.size, int))


def _is_nvfp4(fmt: Block) -> bool:
    return fmt == parse("nvfp4")


#: Block formats that a method can use: in words, and as a test.
_METHOD_FORMATS = {
    "quest": ("blocks or rows of integers or codebooks up to 8 bits, and formats with scale recipe 'quest'", _is_quest),
    "ms_eden": ("'nvfp4'", _is_nvfp4),
    "gauss_noise": (
        "blocks, rows or tiles of integers, whose bits say how large the noise is",
        lambda fmt: isinstance(fmt.element, Integer) and fmt.size != "tensor",
    ),
    "pow2_ratio": (
        "blocks of floats along one axis",
        lambda fmt: isinstance(fmt.element, Float) and isinstance(fmt.size, int),
    ),
}


def format_name(fmt: object) -> str:
    """Return the name that stands for a format in a recipe; "" and None and "none" for no format.

    Raises:
        FormatError: The format is unknown, or has no name that leads back to it.
    """
    if fmt is None or fmt == "" or (isinstance(fmt, str) and fmt.strip().lower() == "none"):
        return ""
    resolved = parse(fmt)  # type: ignore[arg-type]
    name = resolved.name
    if isinstance(fmt, Format) and not _leads_back(name, resolved):
        raise FormatError(f"format={fmt!r}: a recipe names its formats, and {name!r} does not lead back to this one.")
    readable = _leads_back(name, resolved) and not (isinstance(fmt, str) and name.startswith("block["))
    return name if readable or isinstance(fmt, Format) else str(fmt)


def _leads_back(name: str, fmt: Format) -> bool:
    try:
        return parse(name) == fmt
    except FormatError:
        return False


def given_fields(cast: Cast) -> dict[str, Any]:
    """Return the fields that differ from their defaults."""
    return {f.name: getattr(cast, f.name) for f in fields(Cast) if getattr(cast, f.name) != f.default}


#: The fields of a cast that were given, in the order of `Cast`: hashable, and mergeable with others.
Settings = tuple[tuple[str, Any], ...]


def settings(where: str, value: object) -> Settings:
    """Return the settings that a format name, a format, a `Cast` or a mapping of fields stands for.

    Raises:
        ArgumentError, ArgumentTypeError, FormatError: As `Cast`, with `where` in front.
    """
    if value is None:
        return ()
    if isinstance(value, Cast):
        given: Mapping[str, Any] = {"format": value.format, **given_fields(value)}
    elif isinstance(value, str | Format):
        given = {"format": value}
    elif isinstance(value, Mapping):
        given = value
    elif _makes_sums(value):
        given = {"unit": value}
    elif isinstance(value, tuple) and all(isinstance(pair, tuple) and len(pair) == 2 for pair in value):
        given = dict(value)
    else:
        raise ArgumentTypeError(
            f"{where}={value!r} must be the name of a format, a Cast, or a table of its fields; the accumulator "
            "also a lowp.Accumulator or a matrix unit."
        )
    names = [f.name for f in fields(Cast)]
    for name in given:
        if name not in names:
            raise ArgumentError(unknown_name(f"{where}.field", name, names))
    takes_sets = where.rpartition(".")[2] == "optimizer_state"
    try:
        cast = Cast(**given)
    except (ArgumentError, ArgumentTypeError, FormatError) as error:
        sets = f" Sets of formats: {', '.join(STATE_SETS)}." if takes_sets and isinstance(error, FormatError) else ""
        raise type(error)(f"{where}: {error}{sets}") from None
    if cast.format in STATE_SETS and not takes_sets:
        raise FormatError(f"{where}={cast.format!r} is a set of formats for optimizer states; name a format.")
    return tuple((name, getattr(cast, name)) for name in names if name in given)


def _makes_sums(value: object) -> bool:
    """Whether a setting is a matrix unit or an accumulator itself."""
    from lowp.emulation.accumulator import Accumulator
    from lowp.emulation.matrix_units import MatrixUnit

    return isinstance(value, Accumulator | MatrixUnit)


def merged(*parts: Settings) -> Cast:
    """Return the cast of several settings, the later ones first in rank; a new format resets nothing else."""
    return Cast(**{name: value for part in parts for name, value in part})
