"""Energy and area reference tables (ERT, ART) as Accelergy writes and Timeloop reads them.

Source: Accelergy 0.4 (Accelergy-Project/accelergy, `ERT_generator.py`, `ART_generator.py`, and the tables of
timeloop-accelergy-exercises): energies in pJ per action, areas in um2, one table per component.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lowp._errors import ArgumentError, ArgumentTypeError, FileError, FormatError, unknown_name
from lowp.formats.spec import Format
from lowp.hw_models.datapath import Datapath
from lowp.hw_models.estimate import Estimate
from lowp.hw_models.processing_elements import ProcessingElement
from lowp.hw_models.units import UnitCost, mac, price
from lowp.hw_models.yaml_text import yaml_text

#: Versions of the file format as written, and what the arguments of an action without arguments are there.
_VERSIONS: dict[str, tuple[str | float, dict[str, Any] | None]] = {"0.3": (0.3, None), "0.4": ("0.4", {})}
_ENDS = ("value", "low", "high")
_PER = ("step", "product")
#: Names are those of components, levels parted by points, with ranges such as mac[1..256].
_NAME = re.compile(r"[A-Za-z_]\w*(\[\d+(\.\.\d+)?\])?(\.[A-Za-z_]\w*(\[\d+(\.\.\d+)?\])?)*", re.ASCII)
_ACTION = re.compile(r"[A-Za-z_]\w*", re.ASCII)
_DIGITS = 6


@dataclass(frozen=True)
class AccelergyTables:
    """Reference tables of some components.

    Attributes:
        ert: The energy reference table, as Accelergy's files nest it; pJ per action.
        art: The area reference table; um2.
        notes: What each component is, with the intervals, which the tables have no place for.
    """

    ert: dict[str, Any]
    art: dict[str, Any]
    notes: tuple[str, ...]

    @property
    def ert_yaml(self) -> str:
        """Text of an ERT.yaml, the notes as comments."""
        return yaml_text(self.ert, self.notes)

    @property
    def art_yaml(self) -> str:
        """Text of an ART.yaml, the notes as comments."""
        return yaml_text(self.art, self.notes)

    def save(self, folder: str | Path) -> tuple[Path, Path]:
        """Write ERT.yaml and ART.yaml into a folder and return their paths.

        Raises:
            FileError: The folder does not exist or cannot be written to.
        """
        paths = Path(folder) / "ERT.yaml", Path(folder) / "ART.yaml"
        try:
            for path, text in zip(paths, (self.ert_yaml, self.art_yaml), strict=True):
                path.write_text(text, encoding="utf-8")
        except OSError as error:
            raise FileError(f"folder={str(folder)!r} cannot be written to: {error.strerror}.") from error
        return paths


@dataclass(frozen=True)
class _Component:
    """What a row of the tables is made from: actions with their energies, an area, how many products share both."""

    actions: Mapping[str, Estimate]
    area: Estimate | None
    products: int
    what: str


def accelergy_tables(
    units: Any,
    target: str = "n28",
    *,
    end: str = "value",
    per: str = "step",
    action: str = "compute",
    parent: str = "system",
    version: str = "0.4",
) -> AccelergyTables:
    """Return the energies and areas of units as Accelergy's reference tables.

    Leakage is not among them: no target has coefficients of it, and none is made up.

    Args:
        units: A unit, several in a list, or a mapping from component names such as "chip.PE[0..255].mac" to units. A
            unit is a format or its name (its `mac`), a pair of formats, a `Datapath`, a `UnitCost`, a
            `ProcessingElement` (one action for each format of weights it takes, per product), or a mapping from
            actions to energies (estimates in J), with the area (m2) under "area", such as of a memory.
        target: One of `targets("asic")` that has both areas and energies; a `UnitCost` has its own.
        end: Which end of the intervals: "value", "low" or "high".
        per: "step": an action is one step of the unit with all lanes busy; "product": one multiplication with its
            share of the rest, as Timeloop counts a compute, and the area is that share too.
        action: Name of the action of units.
        parent: What names of components that are made here begin with.
        version: Of the file format: "0.4" or "0.3".

    Raises:
        ArgumentError: An unknown target or choice, a component or action name that Accelergy cannot read, a component
            twice.
        FormatError: A unit that cannot be priced, or a target without energies in J and areas in m2.
        ArgumentTypeError: Something that is no unit.

    Example:
        >>> tables = accelergy_tables({"chip.PE[0..63].mac": "int8"}, target="n7")
        >>> print(tables.art_yaml)
        # pJ per action, um2; best guesses of intervals
        # chip.PE[0..63].mac: int8 x int8 + int32, 1 per step, n7
        #   compute: ...
        #   area: ...
        ART:
          version: "0.4"
          tables:
            - name: "chip.PE[0..63].mac"
              area: ...
    """
    for argument, value, allowed in (("end", end, _ENDS), ("per", per, _PER), ("version", version, list(_VERSIONS))):
        if value not in allowed:
            raise ArgumentError(unknown_name(argument, value, allowed))
    _checked(action, "action", _ACTION)
    components = {
        name: _component(name, unit, target, action) for name, unit in _named(units, _checked(parent, "parent", _NAME))
    }
    written, arguments = _VERSIONS[version]
    energies, areas, notes = [], [], []
    for name, component in components.items():
        share = component.products if per == "product" else 1
        actions = [
            {
                "name": verb,
                "arguments": arguments,
                "energy": _scaled(energy, end, 1e12 / share, f"{name}: {verb}", "J"),
            }
            for verb, energy in component.actions.items()
        ]
        energies.append({"name": name, "actions": actions})
        if component.area is not None:
            areas.append({"name": name, "area": _scaled(component.area, end, 1e12 / share, f"{name}: area", "m2")})
        notes += _notes(name, component, share)
    notes.insert(0, f"pJ per action, um2; {'best guesses' if end == 'value' else f'{end} ends'} of intervals")
    ert = {"ERT": {"version": written, "tables": energies}}
    return AccelergyTables(ert, {"ART": {"version": written, "tables": areas}}, tuple(notes))


def _checked(name: Any, argument: str, pattern: re.Pattern[str]) -> str:
    if not isinstance(name, str):
        raise ArgumentTypeError(f"{argument}={name!r} must be a name, not {type(name).__name__}.")
    if not pattern.fullmatch(name):
        hint = "" if pattern is _ACTION else ", levels parted by points, ranges as in mac[0..63]"
        raise ArgumentError(f"{argument}={name!r} must be letters, digits and underscores{hint}.")
    return name


def _named(units: Any, parent: str) -> list[tuple[str, Any]]:
    """Return names and units; a mapping of energies alone has no name and is refused."""
    if isinstance(units, Mapping):
        if any(isinstance(unit, Estimate) for unit in units.values()):
            raise ArgumentError(f"units={units!r} has no name of the component: pass a mapping from names to such.")
        return [(_checked(name, "units", _NAME), unit) for name, unit in units.items()]
    several = list(units) if isinstance(units, list) else [units]
    names = [f"{parent}.{_made_name(unit)}" for unit in several]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise ArgumentError(f"units={units!r} has the component {twice!r} twice: pass a mapping from names to units.")
    return list(zip(names, several, strict=True))


def _made_name(unit: Any) -> str:
    if isinstance(unit, ProcessingElement):
        return unit.name
    formats: Iterable[Any]
    if isinstance(unit, UnitCost | Datapath):
        path = unit.datapath if isinstance(unit, UnitCost) else unit
        formats = dict.fromkeys((path.a.name, path.b.name))
        kind = "mac" if path.lanes == 1 else f"dot{path.lanes}"
    else:
        formats, kind = (unit if isinstance(unit, tuple) else (unit,)), "mac"
    named = [fmt if isinstance(fmt, str) else getattr(fmt, "name", type(fmt).__name__) for fmt in formats]
    return re.sub(r"\W+", "_", "_".join([kind, *named]), flags=re.ASCII).strip("_")


def _component(name: str, unit: Any, target: str, action: str) -> _Component:
    if isinstance(unit, Mapping):
        return _of_energies(name, unit)
    if isinstance(unit, ProcessingElement):
        actions = {f"{action}_{weights}": unit.energy_per_product(weights, target) for weights, _ in unit.steps}
        return _Component(actions, unit.cost(target).area, 1, f"{unit.title}, {target}, energies per product")
    cost = _cost(unit, target)
    if cost.fpga is not None:
        raise FormatError(f"target={cost.target!r} is an FPGA; Accelergy's tables are of areas and energies.")
    path = cost.datapath
    what = f"{path.a.name} x {path.b.name} + {path.accumulator_name}, {path.lanes * path.copies} per step"
    return _Component({action: cost.energy}, cost.area, path.lanes * path.copies, f"{what}, {cost.target}")


def _cost(unit: Any, target: str) -> UnitCost:
    if isinstance(unit, UnitCost):
        return unit
    if isinstance(unit, Datapath):
        return price(unit, target)
    if isinstance(unit, str | Format):
        return mac(unit, target=target)
    if isinstance(unit, tuple) and len(unit) == 2:
        return mac(*unit, target=target)
    raise ArgumentTypeError(
        f"unit={unit!r} must be a format, a pair of formats, a Datapath, a UnitCost, a ProcessingElement or a mapping "
        f"from actions to energies, not {type(unit).__name__}."
    )


def _of_energies(name: str, unit: Mapping[Any, Any]) -> _Component:
    for key, value in unit.items():
        if not isinstance(value, Estimate):
            raise ArgumentTypeError(f"{name}: {key!r} must be an Estimate, not {type(value).__name__}.")
    actions = {_checked(key, "action", _ACTION): value for key, value in unit.items() if key != "area"}
    return _Component(actions, unit.get("area"), 1, "; ".join(dict.fromkeys(e.provenance for e in unit.values())))


def _scaled(estimate: Estimate, end: str, factor: float, what: str, unit: str) -> float:
    if estimate.unit != unit:
        raise FormatError(
            f"{what} is in {estimate.unit!r}, not {unit!r}: Accelergy takes no such unit; use another target."
        )
    return float(f"{getattr(estimate, end) * factor:.{_DIGITS}g}")


def _notes(name: str, component: _Component, share: int) -> list[str]:
    lines = [f"{name}: {component.what}"]
    rows = [*component.actions.items(), *([("area", component.area)] if component.area else [])]
    return lines + [f"  {row}: {estimate * (1 / share)}" for row, estimate in rows]
