"""What an exploration goes through: formats, accumulators, and the machines that would run them."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from lowp._errors import ArgumentError, ArgumentTypeError, unknown_name
from lowp.emulation.accumulator import Accumulator
from lowp.formats import Format
from lowp.hw_models.arguments import sizes
from lowp.hw_models.devices import Device
from lowp.hw_models.devices import device as find_device
from lowp.hw_models.fingerprints import digest, fingerprint, function_name
from lowp.hw_models.grids import Expansion, Grid, Skipped, expanded
from lowp.hw_models.targets import targets

#: What machines there are: GPUs, circuits of a target, and a function of the caller's.
KINDS = ("gpu", "unit", "function", "none")


class Candidate(NamedTuple):
    """Formats that are tried together.

    Attributes:
        weights: Format of the weights.
        activations: Format of the activations.
        accumulator: Of running sums: a format, a `lowp.Accumulator`, "exact", or None for what machines do by default.
    """

    weights: Format
    activations: Format
    accumulator: Format | Accumulator | str | None = None

    @property
    def names(self) -> tuple[str, str, str]:
        """Names of the weights' and the activations' format and of the accumulator ("" for None)."""
        return self.weights.name, self.activations.name, _accumulator_name(self.accumulator)


@dataclass(frozen=True)
class Machine:
    """What runs a candidate: a device, a unit of `lanes` products per step in a target, or a function.

    Attributes:
        kind: One of `KINDS`.
        name: Unique among the machines of a space.
        what: The device, the target's name, or the function.
        lanes: Products per step of a unit.
        fingerprint: Of a function its code, of a device that is not in the catalogue its data.
    """

    kind: str
    name: str
    what: Any = None
    lanes: int = 0
    fingerprint: str = ""


@dataclass(frozen=True)
class Space:
    """The candidates and the machines of an exploration: every candidate is tried on every machine.

    Args:
        formats: Of the weights: a format, a name, a `hw.grid`, or a list of these.
        activations: Of the activations, likewise; each is paired with each format of the weights. None: the activations
            are in the weights' format.
        accumulators: Accumulators to try with each pair: formats, names, grids, `lowp.Accumulator`s, "exact", or None
            for the default of each machine (float32, or integers wide enough) and of the emulation (float32).
        devices: GPUs to predict times and energies for.
        units: Targets that a dot-product unit is sized for, by the names `hw.targets()` lists; or functions
            `f(candidate, workload)` that return a dict of metrics (numbers or Estimates).
        lanes: Products per step of the units, one number or several.

    Raises:
        ArgumentError: No combination of parameters is a format, or a device or target is unknown.
        ArgumentTypeError: Something of another type.
        FormatError: A name that was given by itself is not a format.

    Example:
        >>> from lowp.hw_models.grids import grid
        >>> space = Space(grid("e{e}m{m}fn", e=[2, 3, 4], m=[1, 2, 3]), devices=["h100", "b200"])
        >>> len(space.candidates), [m.name for m in space.machines], len(space)
        (9, ['h100', 'b200'], 18)
    """

    formats: Any
    activations: Any = None
    accumulators: Any = (None,)
    devices: Any = ()
    units: Any = ()
    lanes: Any = 32
    candidates: tuple[Candidate, ...] = field(init=False, repr=False)
    machines: tuple[Machine, ...] = field(init=False, repr=False)
    skipped: tuple[Skipped, ...] = field(init=False, repr=False)
    repeated: int = field(init=False, repr=False)

    def __post_init__(self) -> None:
        weights = _some("formats", self.formats)
        activations = None if self.activations is None else _some("activations", self.activations)
        accumulators, expansions = _accumulators(self.accumulators)
        if activations is None:
            pairs: Iterable[tuple[Format, Format]] = ((fmt, fmt) for fmt in weights.formats)
        else:
            pairs = itertools.product(weights.formats, activations.formats)
        made = tuple(Candidate(w, a, acc) for (w, a), acc in itertools.product(pairs, accumulators))
        object.__setattr__(self, "candidates", made)
        object.__setattr__(self, "machines", _machines(self.devices, self.units, self.lanes))
        expansions += [weights] + ([activations] if activations else [])
        object.__setattr__(self, "skipped", tuple(s for expansion in expansions for s in expansion.skipped))
        object.__setattr__(self, "repeated", sum(expansion.repeated for expansion in expansions))

    def __len__(self) -> int:
        """The number of points: candidates times machines."""
        return len(self.candidates) * len(self.machines)


def as_space(given: Any) -> Space:
    """Return a space; a mapping gives the arguments of one, anything else its formats.

    Raises:
        ArgumentError: The mapping has other keys than the arguments of `Space`; else as `Space`.
    """
    if isinstance(given, Space):
        return given
    if not isinstance(given, Mapping):
        return Space(given)
    allowed = list(inspect.signature(Space).parameters)
    unknown = [key for key in given if key not in allowed]
    if unknown or "formats" not in given:
        raise ArgumentError(f"space={given!r} must have 'formats' and may have: {', '.join(allowed[1:])}.")
    return Space(**given)


def _some(name: str, given: Any) -> Expansion:
    expansion = expanded(given)
    if not expansion.formats:
        reasons = "; ".join(f"{s.what}: {s.reason}" for s in expansion.skipped[:3]) or "it is empty"
        raise ArgumentError(f"{name}={given!r} has no format; {len(expansion.skipped)} were skipped: {reasons}.")
    return expansion


def _accumulators(given: Any) -> tuple[tuple[Any, ...], list[Expansion]]:
    """Return the accumulators, and the expansions of the grids among them."""
    single = given is None or isinstance(given, str | Format | Accumulator | Grid)
    found: dict[Any, None] = {}
    expansions = []
    for one in (given,) if single else tuple(given):
        if one is None or isinstance(one, Accumulator) or (isinstance(one, str) and one == "exact"):
            found[one] = None
        else:
            expansions.append(_some("accumulators", one))
            found |= dict.fromkeys(expansions[-1].formats)
    if not found:
        raise ArgumentError(f"accumulators={given!r} is empty; allowed: at least one, which may be None.")
    return tuple(found), expansions


def _accumulator_name(accumulator: Any) -> str:
    if accumulator is None:
        return ""
    return (
        accumulator.name
        if isinstance(accumulator, Format)
        else str(accumulator if accumulator == "exact" else repr(accumulator))
    )


def _machines(devices: Any, units: Any, lanes: Any) -> tuple[Machine, ...]:
    made = [_gpu(one) for one in _listed(devices, str | Device)]
    widths = sizes(**{f"lanes[{i}]": n for i, n in enumerate(_listed(lanes, int))})
    for unit in _listed(units, str):
        if callable(unit):
            made.append(Machine("function", function_name(unit), unit, fingerprint=fingerprint(unit)))
        elif isinstance(unit, str):
            if unit not in targets():
                raise ArgumentError(unknown_name("units", unit, targets()))
            made += [Machine("unit", unit if len(widths) == 1 else f"{unit} x{n}", unit, n) for n in widths]
        else:
            raise ArgumentTypeError(f"units={unit!r} must be the name of a target or a function.")
    names = [machine.name for machine in made]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise ArgumentError(f"devices and units name {', '.join(map(repr, sorted(twice)))} more than once.")
    return tuple(made) or (Machine("none", ""),)


def _gpu(one: Any) -> Machine:
    found = find_device(one)
    known = not isinstance(one, Device) or find_device(found.name) == found
    return Machine("gpu", found.name, found, fingerprint="" if known else digest(repr(found)))


def _listed(given: Any, single: Any) -> list[Any]:
    if isinstance(given, single) or callable(given):
        return [given]
    if not isinstance(given, Iterable):
        raise ArgumentTypeError(f"{given!r} must be one or a list of: devices, units, or lanes.")
    return list(given)


def point_id(candidate: Candidate, machine: Machine) -> str:
    """Return what tells a point from all others, the same in every run.

    Example:
        >>> from lowp.formats import parse
        >>> int8 = parse("int8")
        >>> point_id(Candidate(int8, int8), Machine("none", ""))
        '867d4d997cb997ee3823'
    """
    parts = (repr(candidate.weights), repr(candidate.activations), repr(candidate.accumulator))
    return digest("|".join((*parts, machine.kind, machine.name, machine.fingerprint)))[:20]
