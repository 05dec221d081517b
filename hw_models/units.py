"""Multiply-and-add units of any formats, priced: a MAC, a dot unit, an array of dot units."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from importlib import import_module
from typing import Any

from lowp._errors import ArgumentError, FormatError, unknown_name
from lowp.hw_models.arguments import sizes as checked_sizes
from lowp.hw_models.blocks import ROLES, Block
from lowp.hw_models.datapath import Datapath, datapath
from lowp.hw_models.depths import path_levels
from lowp.hw_models.estimate import Estimate
from lowp.hw_models.targets import NOTHING, Amount, known
from lowp.hw_models.targets import target as find_target

_FPGA_QUANTITIES = ("lut", "ff", "dsp", "bram", "clock")


@dataclass(frozen=True)
class UnitCost:
    """What a unit takes on a target.

    On standard cells there are `area` and, where the target has coefficients of them, `energy`, of one step with all
    lanes busy, and `delay`; on an FPGA `lut`, `ff`, `dsp`, `bram` and `clock`. What the target does not have raises a
    FormatError.

    Attributes:
        target: Name of the target.
        datapath: The unit's blocks.
        fpga: Estimates by name, of FPGAs; else None.
        left_out: Roles that are not counted.
    """

    target: str
    datapath: Datapath
    fpga: tuple[tuple[str, Estimate], ...] | None = None
    left_out: tuple[str, ...] = ()

    @property
    def blocks(self) -> tuple[Block, ...]:
        """The blocks that are counted."""
        return tuple(block for block in self.datapath.blocks if block.role not in self.left_out)

    @cached_property
    def area(self) -> Estimate:
        """Area in m2, or in gate equivalents; `bound` is the role that takes the most."""
        return self._total("area")

    @cached_property
    def energy(self) -> Estimate:
        """Energy of one step in J, or in switched gate equivalents; `bound` is the role that takes the most."""
        return self._total("energy")

    @cached_property
    def delay(self) -> Estimate:
        """Time of the longest path through the logic, in s; of a pipeline, of one of its stages, cut evenly.

        Raises:
            FormatError: The target has no delay of a gate.
        """
        if self.fpga is not None:
            raise FormatError(f"target={self.target!r} is an FPGA; it has a clock, no delay.")
        found = find_target(self.target)
        amount = found.gate_delay.times(path_levels(self.datapath) / self.datapath.stages)
        return Estimate(amount.value, amount.low, amount.high, "s", "compute", f"gate levels; {found.title}")

    def by_role(self, quantity: str = "area") -> dict[str, Estimate]:
        """Return the area or the energy of each role that the unit has blocks of.

        Raises:
            FormatError: The target has no such coefficients.
        """
        self._of_cells(quantity)
        unit, found = find_target(self.target).unit(quantity), {}
        for role in ROLES:
            blocks = [block for block in self.blocks if block.role == role]
            if blocks:
                found[role] = self._estimate(self._sum(blocks, quantity), unit, role)
        return found

    def shares(self, quantity: str = "area") -> dict[str, float]:
        """Return what part of the whole each role takes, largest first.

        Example:
            >>> from lowp import hw
            >>> next(iter(hw.dot_unit("float8_e4m3fn", target="sky130").shares()))
            'align'
        """
        roles = {role: estimate.value for role, estimate in self.by_role(quantity).items()}
        total = sum(roles.values()) or 1.0
        return {role: value / total for role, value in sorted(roles.items(), key=lambda item: -item[1])}

    def without(self, *roles: str) -> UnitCost:
        """Return the cost less that of some roles, such as "register" or "convert".

        Raises:
            ArgumentError: An unknown role.
        """
        for role in roles:
            if role not in ROLES:
                raise ArgumentError(unknown_name("role", role, ROLES))
        if self.fpga is not None:
            raise FormatError(f"target={self.target!r} prices the unit as a whole; roles cannot be left out.")
        return UnitCost(self.target, self.datapath, None, (*self.left_out, *roles))

    def __getattr__(self, name: str) -> Estimate:
        if name not in _FPGA_QUANTITIES:
            raise AttributeError(name)
        found = dict(self.fpga or ())
        if name not in found:
            raise FormatError(f"target={self.target!r} has no {name}.")
        return found[name]

    def __str__(self) -> str:
        parts = [f"{name} {estimate}" for name, estimate in self.fpga or ()]
        if self.fpga is None:
            parts = [f"area {self.area}"]
            try:
                parts.append(f"energy {self.energy}")
            except FormatError:
                parts.append("energy unknown")
        return "; ".join(parts)

    def _of_cells(self, quantity: str) -> None:
        if quantity not in ("area", "energy"):
            raise ArgumentError(unknown_name("quantity", quantity, ("area", "energy")))
        if self.fpga is not None:
            raise FormatError(f"target={self.target!r} is an FPGA; it has no {quantity}.")

    def _total(self, quantity: str) -> Estimate:
        self._of_cells(quantity)
        unit = find_target(self.target).unit(quantity)
        totals = {role: self._sum([b for b in self.blocks if b.role == role], quantity) for role in ROLES}
        whole = NOTHING
        for amount in totals.values():
            whole += amount
        return self._estimate(whole, unit, max(totals, key=lambda role: totals[role].value))

    def _sum(self, blocks: list[Block], quantity: str) -> Amount:
        found, total = find_target(self.target), NOTHING
        for block in blocks:
            total += found.of(block, quantity)
        return total

    def _estimate(self, amount: Amount, unit: str, bound: str) -> Estimate:
        found = find_target(self.target)
        return Estimate(
            amount.value, amount.low, amount.high, unit, bound, f"{found.title}; {'; '.join(found.sources)}"
        )


def price(unit: Datapath, target: str) -> UnitCost:
    """Return what a datapath takes on a target.

    Raises:
        ArgumentError: The target is unknown.
        FormatError: The target lacks a coefficient for a block.
    """
    if known(target) == "fpga":
        cost: UnitCost = import_module("lowp.hw_models.fpga").price(unit, target)
        return cost
    cost = UnitCost(target, unit)
    _ = cost.area  # what cannot be priced fails here
    return cost


def mac(a: Any, b: Any = None, target: str = "gate_model", **options: Any) -> UnitCost:
    """Price a unit that multiplies two numbers and adds the product to a running sum.

    Into a float it is a fused multiply-add, which rounds once and loses nothing before that; two lanes that are aligned
    within a window may take less.

    Args:
        a: Format of the left operand, or its name.
        b: Format of the right operand; default that of `a`.
        target: One of `targets()`.
        options: Further arguments of `datapath`: accumulator, conversions, terms, integers, stages.

    Raises:
        ArgumentError: The target is unknown.
        FormatError: A format is unknown, has no such unit, or the target lacks a coefficient for one of its blocks.

    Example:
        >>> mac("int8", target="nangate45").area.value < mac("bfloat16", target="nangate45").area.value
        True
    """
    return price(datapath(a, b, **options), target)


def dot_unit(a: Any, b: Any = None, lanes: int = 32, target: str = "gate_model", **options: Any) -> UnitCost:
    """Price a unit that multiplies `lanes` pairs of numbers and adds the products to a running sum.

    Args:
        a: Format of the left operand, or its name.
        b: Format of the right operand; default that of `a`.
        lanes: Products per step.
        target: One of `targets()`.
        options: Further arguments of `datapath`: accumulator, conversions, window, terms, integers, stages.

    Raises:
        ArgumentError: The target is unknown, or a size not positive.
        FormatError: As `mac`.

    Example:
        >>> cost = dot_unit("mxfp8", target="gate_model")
        >>> cost.area.bound, cost.area.unit
        ('align', 'GE')
    """
    return price(datapath(a, b, lanes=lanes, **options), target)


def tensor_core(
    a: Any, b: Any = None, m: int = 8, n: int = 8, k: int = 16, target: str = "gate_model", **options: Any
) -> UnitCost:
    """Price `m` times `n` dot units of `k` lanes: a matrix product of m x k by k x n per step.

    Operands are held once per row or column of the array, running sums once per dot unit.

    Args:
        a: Format of the left operand, or its name.
        b: Format of the right operand; default that of `a`.
        m: Rows of the result.
        n: Columns of the result.
        k: Products per result and step.
        target: One of `targets()`.
        options: Further arguments of `datapath`, as of `dot_unit`; conversions count once per dot unit.

    Raises:
        ArgumentError: As `dot_unit`.
        FormatError: As `dot_unit`.

    Example:
        >>> narrow, wide = (tensor_core(fmt, m=4, n=4, target="n7").area for fmt in ("mxfp4", "float16"))
        >>> narrow.value < wide.value / 4
        True
    """
    rows, columns = checked_sizes(m=m, n=n)
    unit = datapath(a, b, lanes=k, **options)
    shared = {"a": rows, "b": columns}
    blocks = tuple(block.times(shared.get(block.operand, rows * columns)) for block in unit.blocks)
    return price(replace(unit, blocks=blocks, copies=rows * columns), target)
