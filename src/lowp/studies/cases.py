"""Which formats a study runs: the default list, and how a user's list is read."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol

from lowp._errors import ArgumentError, ArgumentTypeError

WEIGHTS = "weights"
BOTH = "weights+activations"
MODES = (WEIGHTS, BOTH)
#: What the unquantized operand is: float32 in the measurement, bfloat16 in the predicted hardware run.
UNQUANTIZED = "float32"
UNQUANTIZED_ON_HARDWARE = "bfloat16"


@dataclass(frozen=True)
class Case:
    """A format for the weights and one for the activations; `None` means the same one."""

    weights: Any
    activations: Any = None


#: The demo's formats. Codebooks of weights run with 8-bit integer activations, as the systems that use them do;
#: so do the integers of 4 bits and fewer, in a second line. Scales are along the contraction axis.
DEFAULT_CASES = (
    # floats without a scale: the weights as they are
    Case("bfloat16"),
    Case("float16"),
    Case("float8_e4m3fn"),
    Case("float8_e5m2"),
    Case("float6_e3m2fn"),
    Case("float6_e2m3fn"),
    Case("float4_e2m1fn"),
    # OCP microscaling: blocks of 32 with a power-of-two scale; NVFP4: blocks of 16 with an FP8 scale
    Case("mxfp8_e4m3"),
    Case("mxfp8_e5m2"),
    Case("mxint8"),
    Case("mxfp6_e3m2"),
    Case("mxfp6_e2m3"),
    Case("mxfp4"),
    Case("nvfp4"),
    # integers with one scale per row (output channel, token) or per group of 128
    Case("int8_row"),
    Case("int4_g128"),
    Case("int4_g128_asym"),
    Case("int4_g128", "int8_row"),
    Case("int3_g128", "int8_row"),
    Case("int2_g64", "int8_row"),
    # fixed point: no scale at all
    Case("fixed16_8"),
    Case("fixed8_6", "fixed8_4"),
    # codebooks
    Case("nf4_g64", "int8_row"),
    Case("ternary_g64_absmean", "int8_row"),
    Case("binary_g64_absmean", "int8_row"),
)
#: Families by the class of a format, or of a block format's elements.
FAMILIES = {"Float": "float", "Integer": "integer", "Fixed": "fixed point", "Codebook": "codebook"}
BLOCK_FAMILIES = {"Float": "block float", "Integer": "block integer", "Fixed": "block integer", "Codebook": "codebook"}
DEFAULT_DEVICES = ("h100", "h200", "b200")


class Engine(Protocol):
    """The number formats a study calculates with; `lowp` itself unless a test puts something in its place."""

    def parse(self, name: Any) -> Any:
        """Return the format of a name, or the format itself."""

    def quantize(self, x: Any, fmt: Any, axis: int = -1) -> Any:
        """Return the tensor rounded to the format, blocks along `axis`."""


@dataclass(frozen=True)
class Operand:
    """A parsed format and the name a person knows it by."""

    name: str
    format: Any

    @classmethod
    def of(cls, given: Any, engine: Engine) -> Operand:
        """Parse a name; a name that comes as a string is kept for tables."""
        fmt = engine.parse(given)
        return cls(given if isinstance(given, str) else format_name(fmt), fmt)


@dataclass(frozen=True)
class Job:
    """A case that is ready to run."""

    weights: Operand
    activations: Operand


def read_cases(formats: Iterable[Any] | None, engine: Engine) -> list[Job]:
    """Return the cases of a user's list with every name parsed; default `DEFAULT_CASES`.

    An item is a name, a format, a pair (weights, activations) as tuple or list, or a `Case`. A case that comes twice is
    kept once.

    Raises:
        FormatError: A name that is not known.
        ArgumentError: An empty list, or an item that is neither one format nor a pair.
        ArgumentTypeError: `formats` is a string or not iterable.
    """
    if formats is None:
        formats = DEFAULT_CASES
    if isinstance(formats, str) or not isinstance(formats, Iterable):
        raise ArgumentTypeError(f"formats={formats!r} must be a list of formats, such as ['mxfp4', 'int8_row'].")
    jobs: dict[tuple[Any, Any], Job] = {}
    for item in formats:
        case = _case(item)
        weights = Operand.of(case.weights, engine)
        activations = weights if case.activations is None else Operand.of(case.activations, engine)
        jobs.setdefault((weights.format, activations.format), Job(weights, activations))
    if not jobs:
        raise ArgumentError("formats=[] is empty; at least one format is needed.")
    return list(jobs.values())


def _case(item: Any) -> Case:
    if isinstance(item, (tuple, list)):
        if len(item) != 2:
            raise ArgumentError(f"formats: {item!r} has {len(item)} items; a pair (weights, activations) is needed.")
        return Case(*item)
    return item if isinstance(item, Case) else Case(item)


def read_modes(mode: str | Iterable[str]) -> tuple[str, ...]:
    """Return the modes asked for, in the order of `MODES`.

    Raises:
        ArgumentError: A mode that is not known, or none.
        ArgumentTypeError: `mode` is neither a string nor iterable.

    Example:
        >>> read_modes("weights")
        ('weights',)
    """
    if not isinstance(mode, Iterable):
        raise ArgumentTypeError(f"mode={mode!r} must be a string, or several. Allowed: {', '.join(map(repr, MODES))}.")
    asked = [mode] if isinstance(mode, str) else list(mode)
    unknown = [m for m in asked if m not in MODES]
    if unknown or not asked:
        raise ArgumentError(f"mode={mode!r} is not known. Allowed: {', '.join(map(repr, MODES))}, or several of them.")
    return tuple(m for m in MODES if m in asked)


def format_name(fmt: Any) -> str:
    """Return a format's name."""
    return str(getattr(fmt, "name", fmt))


def family(fmt: Any) -> str:
    """Return the family a format is drawn in: by its values and, for block formats, by its elements' values.

    Example:
        >>> from lowp.formats import parse
        >>> family(parse("float8_e4m3fn")), family(parse("mxfp8_e4m3")), family(parse("int4_g128"))
        ('float', 'block float', 'block integer')
    """
    element = getattr(fmt, "element", None)
    families = FAMILIES if element is None else BLOCK_FAMILIES
    return families.get(type(element or fmt).__name__, "other")
