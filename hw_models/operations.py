"""Published areas and energies of single operations, and how they scale between nodes. Data: `data/operations.csv`.

Published energies of the same operation differ by factors: trust ratios within one table.
"""

from __future__ import annotations

from functools import cache

from lowp._errors import ArgumentError, FormatError, unknown_name
from lowp.hw_models.estimate import Estimate
from lowp.hw_models.tables import rows

_SCALES = {"pJ": (1e-12, "J"), "um2": (1e-12, "m2")}


def operation(name: str, table: str = "horowitz", quantity: str = "energy") -> Estimate:
    """Return the published energy or area of one operation.

    Args:
        name: Such as "int8_add", "float16_multiply" or "sram_8k_read64" (64 bits).
        table: "horowitz" (45 nm) or "jouppi" (7 nm).
        quantity: "energy" or "area".

    Raises:
        ArgumentError: An unknown table, operation or quantity.

    Example:
        >>> print(operation("int8_multiply"))
        200 fJ (200 to 200 fJ, compute)
    """
    chosen = [r for r in rows("operations") if r["table"] == table]
    if not chosen:
        raise ArgumentError(unknown_name("table", table, dict.fromkeys(r["table"] for r in rows("operations"))))
    chosen = [r for r in chosen if r["quantity"] == quantity]
    if not chosen:
        raise ArgumentError(unknown_name("quantity", quantity, ("energy", "area")))
    row = next((r for r in chosen if r["operation"] == name), None)
    if row is None:
        raise ArgumentError(unknown_name("name", name, [r["operation"] for r in chosen]))
    scale, unit = _SCALES[row["unit"]]
    value, low, high = (float(row[column]) * scale for column in ("value", "low", "high"))
    bound = "memory" if "read" in name else "compute"
    return Estimate(value, low, high, unit, bound, row["source"])


def memory_energy(kind: str, size: float) -> Estimate:
    """Return the energy of moving so many bytes to or from memory.

    Args:
        kind: Memory technology, such as "HBM2e".
        size: Bytes.

    Raises:
        ArgumentError: The technology has no coefficients.

    Example:
        >>> print(memory_energy("HBM2e", 2e12))  # of one second at 2 TB/s
        87.2 J (62.4 to 112 J, memory)
    """
    found = {r["key"]: r for r in rows("energy") if r["quantity"] == "memory"}
    if kind not in found:
        raise ArgumentError(unknown_name("kind", kind, found))
    low, high = (float(found[kind][end]) * size * 8 * 1e-12 for end in ("low", "high"))
    return Estimate((low + high) / 2, low, high, "J", "memory", found[kind]["source"])


def area_scaling(start: int, end: int) -> float:
    """Return how the area of logic changes from one node to another, in nm.

    Raises:
        ArgumentError: The pair of nodes has no published factor.

    Example:
        >>> area_scaling(45, 7)
        0.059
    """
    for row in rows("node_scaling"):
        if (row["quantity"], row["start"], row["end"]) == ("area", str(start), str(end)):
            return float(row["a"])
    pairs = [f"{r['start']} to {r['end']}" for r in rows("node_scaling") if r["quantity"] == "area"]
    raise ArgumentError(f"start={start!r}, end={end!r} have no published factor; allowed: {', '.join(pairs)}.")


def energy_scaling(start: int, end: int, start_voltage: float, end_voltage: float) -> float:
    """Return how the energy of logic changes from one node and supply voltage to another.

    Args:
        start: Node in nm.
        end: Node in nm.
        start_voltage: Supply voltage in V.
        end_voltage: Supply voltage in V.

    Raises:
        ArgumentError: A node without published coefficients, or a voltage that is not positive.

    Source:
        A. Stillmaker, B. Baas, "Scaling equations for the accurate prediction of CMOS device performance from 180 nm
        to 7 nm", Integration 2017.

    Example:
        >>> round(energy_scaling(45, 7, 0.9, 0.75), 4)
        0.0665
    """
    return _energy(end, "end", end_voltage) / _energy(start, "start", start_voltage)


def _energy(node: int, role: str, voltage: float) -> float:
    nodes = _polynomials()
    if node not in nodes:
        raise ArgumentError(unknown_name(role, node, map(str, nodes)))
    if not 0 < voltage <= 5:
        raise ArgumentError(f"{role}_voltage={voltage!r} must be positive, in volts.")
    a, b, c = nodes[node]
    energy = a * voltage**2 + b * voltage + c
    if energy <= 0:
        raise FormatError(f"{role}_voltage={voltage!r} is outside the range of the published fit.")
    return energy


@cache
def _polynomials() -> dict[int, tuple[float, float, float]]:
    found = (r for r in rows("node_scaling") if r["quantity"] == "energy")
    return {int(r["start"]): (float(r["a"]), float(r["b"]), float(r["c"])) for r in found}
