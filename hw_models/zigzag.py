"""Fragments of ZigZag accelerator files: operational arrays and memories of any formats.

Source: KULeuven-MICAS/zigzag 3.9, `parser/accelerator_validator.py` and `inputs/hardware/`. Sizes and bandwidths are
in bits, costs in pJ per access of a port's largest bandwidth, areas in mm2.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

from lowp._errors import ArgumentError, ArgumentTypeError, FormatError, unknown_name
from lowp.formats import Block, Packed, parse
from lowp.formats.spec import Format
from lowp.hw_models.arguments import sizes as checked_sizes
from lowp.hw_models.estimate import Estimate
from lowp.hw_models.units import UnitCost, dot_unit
from lowp.hw_models.yaml_text import yaml_text

_ENDS = ("value", "low", "high")
#: ZigZag's memory operands: first input, second input, output.
_OPERANDS = ("I1", "I2", "O")
_DIGITS = 6


@dataclass(frozen=True)
class ZigzagAccelerator:
    """A ZigZag accelerator file, or what such a file needs from the formats.

    Attributes:
        entry: The file as a dict: "name", "memories" (from the lowest up) and "operational_array".
        precision: What a workload's `operand_precision` must say for these formats: bits of an element. The bits of
            scales are in the memories.
        notes: What it is, with the intervals, which the file has no place for.
    """

    entry: dict[str, Any]
    precision: dict[str, int]
    notes: tuple[str, ...]

    @property
    def operational_array(self) -> dict[str, Any]:
        """The array of multipliers."""
        array: dict[str, Any] = self.entry["operational_array"]
        return array

    @property
    def memories(self) -> dict[str, Any]:
        """The memories, from the lowest up."""
        memories: dict[str, Any] = self.entry["memories"]
        return memories

    @property
    def yaml(self) -> str:
        """Text of the file, the notes as comments."""
        return yaml_text(self.entry, self.notes)


def zigzag_accelerator(
    a: Any,
    b: Any = None,
    target: str = "n28",
    sizes: Sequence[int] = (32, 32),
    *,
    lanes: int = 1,
    memories: Mapping[str, Mapping[str, Any]] | None = None,
    name: str = "lowp",
    end: str = "value",
    **options: Any,
) -> ZigzagAccelerator:
    """Return an array of multiply-and-add units as a ZigZag accelerator.

    The array has dimensions D1 (rows of the result) and D2 (columns); with several lanes D3 too, over which one unit
    sums. The registers of the units are its lowest memories: one word of each operand, with the bits of its scale, is
    held for a row or column, a running sum for each unit. Writing a register costs the energy of its flip-flops;
    reading one is free. They are not counted again in `unit_energy` and `unit_area`, which are of one multiplier with
    its share of what its unit has besides. Memories above the registers are yours to add; no back end makes up their
    costs.

    Args:
        a: Format of the inputs (I1), or its name.
        b: Format of the weights (I2); default that of `a`.
        target: One of `targets("asic")` that has areas in m2 and energies in J.
        sizes: Units along D1 and D2.
        lanes: Products per unit and step.
        memories: Further memories by name, from the lowest up, in ZigZag's form; see `zigzag_memory`.
        name: Name of the accelerator.
        end: Which end of the intervals: "value", "low" or "high".
        options: Further arguments of `dot_unit`.

    Raises:
        ArgumentError: An unknown target or end, sizes that are not two, not positive, a memory's name that is taken.
        FormatError: A unit that cannot be priced, or a target without areas in m2 and energies in J.

    Example:
        >>> array = zigzag_accelerator("mxfp4", target="n7", sizes=(8, 8), lanes=32)
        >>> array.operational_array["sizes"], array.memories["reg_I1"]["size"], array.precision["W"]
        ([8, 8, 32], 136, 4)
    """
    if end not in _ENDS:
        raise ArgumentError(unknown_name("end", end, _ENDS))
    rows, columns = _rows_and_columns(sizes)
    cost = dot_unit(a, b, lanes=lanes, target=target, **options)
    if cost.fpga is not None:
        raise FormatError(f"target={target!r} is an FPGA; ZigZag takes areas and energies.")
    path, logic = cost.datapath, cost.without("register")
    shape = {"D1": rows, "D2": columns, **({"D3": path.lanes} if path.lanes > 1 else {})}
    array = {
        "input_precision": [path.a.bits, path.b.bits],
        "unit_energy": _scaled(logic.energy, end, 1e12 / path.lanes, "J"),
        "unit_area": _scaled(logic.area, end, 1e6 / path.lanes, "m2"),
        "dimensions": list(shape),
        "sizes": list(shape.values()),
    }
    registers = _registers(cost, list(shape)[2:], end)
    for taken in sorted(set(registers) & set(memories or {})):
        raise ArgumentError(f"memories={taken!r} is the name of a register here; use another.")
    entry = {"name": name, "memories": {**registers, **dict(memories or {})}, "operational_array": array}
    precision = {"I": path.a.bits, "W": path.b.bits, "O": path.accumulator_bits, "O_final": path.accumulator_bits}
    notes = (
        f"{path.a.name} x {path.b.name} + {path.accumulator_name} on {target}: pJ, mm2, bits; "
        f"{'best guesses' if end == 'value' else f'{end} ends'} of intervals",
        f"a unit of {path.lanes} products: {cost}",
        f"operand_precision of workloads: {precision}",
    )
    return ZigzagAccelerator(entry, precision, notes)


def _rows_and_columns(sizes: object) -> tuple[int, ...]:
    if not isinstance(sizes, list | tuple) or len(sizes) != 2:
        raise ArgumentError(f"sizes={sizes!r} must be two: units along D1 and D2.")
    return checked_sizes(D1=sizes[0], D2=sizes[1])


def _registers(cost: UnitCost, lane_dimension: list[str], end: str) -> dict[str, Any]:
    """The registers of the units, by operand; along the other dimensions one serves all units."""
    serves = {"I1": ["D2"], "I2": ["D1"], "O": []}
    found = {}
    for operand, role in zip(_OPERANDS, ("a", "b", ""), strict=True):
        blocks = tuple(b for b in cost.datapath.of_role("register") if b.operand == role)
        bits = sum(block["bits"] * block.count for block in blocks)
        if not bits:
            raise FormatError(f"the unit has no register of {operand}.")
        held = UnitCost(cost.target, replace(cost.datapath, blocks=blocks))
        write = _scaled(held.energy, end, 1e12, "J")
        area = _scaled(held.area, end, 1e6, "m2")
        dimensions = [*serves[operand], *lane_dimension]
        found[f"reg_{operand}"] = _memory([operand], bits, bits, 0.0, write, area, dimensions)
    return found


def _memory(
    operands: Sequence[str], size: int, width: int, read: float, write: float, area: float, serves: list[str]
) -> dict[str, Any]:
    directions = {"read": ("tl", "th"), "write": ("fh", "fl")}
    ports = []
    for kind, (first, second) in directions.items():
        allocation = [f"{operand}, {first}" for operand in operands]
        allocation += [f"O, {second}"] if "O" in operands else []
        ports.append(
            {
                "name": f"{kind[0]}_port_1",
                "type": kind,
                "bandwidth_min": width,
                "bandwidth_max": width,
                "allocation": allocation,
            }
        )
    return {
        "size": size,
        "r_cost": read,
        "w_cost": write,
        "area": area,
        "latency": 1,
        "operands": list(operands),
        "ports": ports,
        "served_dimensions": serves,
    }


def zigzag_memory(
    operands: Mapping[str, Any],
    size: int,
    width: int,
    *,
    read: Estimate,
    write: Estimate,
    area: Estimate | None = None,
    dimensions: Sequence[str] = ("D1", "D2"),
    end: str = "value",
) -> dict[str, Any]:
    """Return a memory in ZigZag's form that counts the bits of block scales.

    ZigZag has whole bits per element and no scales. Its size and bandwidth are therefore given in bits of elements:
    what is left of the memory's own bits without the scales, of the operand that has the largest share of them. So an
    MXFP4 tensor (4.25 bits per value) takes 17/16 of its elements' bits in space, accesses and energy.

    Args:
        operands: Formats by ZigZag's operands "I1", "I2" and "O".
        size: Bits of the memory.
        width: Bits of one access.
        read: Energy of reading so many bits, in J.
        write: Energy of writing them, in J.
        area: Area in m2; without one ZigZag is told 0.
        dimensions: Dimensions of the array along which one such memory serves all units.
        end: Which end of the intervals: "value", "low" or "high".

    Raises:
        ArgumentError: An unknown operand or end, none, or a size that is not positive.
        FormatError: An unknown format, or one whose elements have no bits of their own.
        ArgumentTypeError: A cost that is no `Estimate`.

    Example:
        >>> cost = Estimate(1e-11, 1e-11, 1e-11, "J", "memory", "Horowitz, ISSCC 2014")
        >>> memory = zigzag_memory({"I2": "mxfp4"}, 65536, 64, read=cost, write=cost)
        >>> memory["size"], memory["ports"][0]["bandwidth_max"], memory["r_cost"]
        (61680, 60, 10.0)
    """
    if end not in _ENDS:
        raise ArgumentError(unknown_name("end", end, _ENDS))
    for operand in operands:
        if operand not in _OPERANDS:
            raise ArgumentError(unknown_name("operands", operand, _OPERANDS))
    if not operands:
        raise ArgumentError(f"operands={operands!r} must name at least one of {', '.join(_OPERANDS)}.")
    bits, access = checked_sizes(size=size, width=width)
    costs: dict[str, object] = {"read": read, "write": write, **({} if area is None else {"area": area})}
    for argument, value in costs.items():
        if not isinstance(value, Estimate):
            raise ArgumentTypeError(f"{argument}={value!r} must be an Estimate, not {type(value).__name__}.")
    share = min(_element_share(parse(fmt)) for fmt in operands.values())
    named = [operand for operand in _OPERANDS if operand in operands]
    reading, writing = (_scaled(cost, end, 1e12, "J") for cost in (read, write))
    room = 0.0 if area is None else _scaled(area, end, 1e6, "m2")
    words = [max(1, math.floor(number * share)) for number in (bits, access)]
    return _memory(named, words[0], words[1], reading, writing, room, list(dimensions))


def _element_share(fmt: Format) -> Fraction:
    """Bits of elements in the bits that a format stores."""
    if isinstance(fmt, Packed):
        raise FormatError(f"format={fmt.name!r} has no elements of a fixed width; give the memory in its own bits.")
    if not isinstance(fmt, Block):
        return Fraction(1)
    return Fraction(fmt.bits) / Fraction(fmt.bits_per_value)


def _scaled(estimate: Estimate, end: str, factor: float, unit: str) -> float:
    if estimate.unit != unit:
        raise FormatError(f"an estimate in {estimate.unit!r} is not in {unit!r}: ZigZag takes no such unit.")
    return float(f"{getattr(estimate, end) * factor:.{_DIGITS}g}")
