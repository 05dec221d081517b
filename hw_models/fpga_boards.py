"""Designs on boards: how many units fit, and how fast a board's DRAM lets a language model decode."""

from __future__ import annotations

import math
from dataclasses import dataclass

from lowp._errors import ArgumentError, ArgumentTypeError, unknown_name
from lowp.formats import parse
from lowp.formats.spec import Format
from lowp.hw_models.arguments import sizes
from lowp.hw_models.estimate import Estimate
from lowp.hw_models.fpga import FpgaUnitCost, storage_bits
from lowp.hw_models.fpga_devices import RESOURCES, FpgaDevice, fpga_device, planning_limits, shell_cost
from lowp.hw_models.fpga_engines import FpgaDesign, given_clock
from lowp.hw_models.model_shapes import Shape, Transformer, model_shape
from lowp.hw_models.tables import rows

#: Resources whose mean share is limited too.
_AVERAGED = ("dsp", "bram18", "uram")


@dataclass(frozen=True)
class Fit:
    """How many units a board has room for.

    Attributes:
        device: The board.
        count: Units, with the range that the board's figures and the unit's estimates leave.
        limited_by: The resource that runs out first, or "average": of DSPs and memories together.
        shares: (resource, part of the whole board that the units take) at `count`.
        available: (resource, what the shell and the planning limits leave).
        products_per_cycle: Products per unit and cycle.
        clock: The unit's highest clock.
    """

    device: FpgaDevice
    count: Estimate
    limited_by: str
    shares: tuple[tuple[str, float], ...]
    available: tuple[tuple[str, float], ...]
    products_per_cycle: int
    clock: Estimate

    def throughput(self, clock: float | None = None) -> Estimate:
        """Return the peak rate of all units in operations per second, a multiply-add counting as two.

        Args:
            clock: In Hz; default the unit's highest.

        Raises:
            ArgumentError: The clock is not positive.
        """
        at = self.clock if clock is None else given_clock(clock)
        per_cycle = 2 * self.products_per_cycle
        value, low, high = (per_cycle * getattr(self.count, end) * getattr(at, end) for end in ("value", "low", "high"))
        return Estimate(value, low, high, "op/s", "compute", self.count.provenance)


def fit_units(
    unit: FpgaUnitCost | FpgaDesign,
    device: str | FpgaDevice,
    *,
    controllers: tuple[str, ...] | None = None,
    limits: dict[str, float] | None = None,
) -> Fit:
    """Return how many units fit a board beside its shell, within the shares that designs which meet timing may use.

    Args:
        unit: Cost of a unit, as of `mac`, `dot_unit`, `matrix_engine` or `streaming_layer` on an FPGA.
        device: A board or its name.
        controllers: What the shell has in logic: any of "ddr", "hbm", "ethernet", each as often as it is there;
            default the board's memory controllers.
        limits: Shares by resource ("lut", "ff", "dsp", "bram18", "uram", and "average" of the last three); default
            those of FINN: 0.7, 0.5, 0.8, 0.8, 0.8 and 0.7.

    Raises:
        ArgumentError: A name is unknown, the unit is of another family of FPGAs, or the board lacks a figure.
        ArgumentTypeError: The unit is no FPGA cost.

    Source: FINN, `platforms.py`.

    Example:
        >>> from lowp.hw_models.fpga import fpga_unit
        >>> narrow, wide = (fit_units(fpga_unit(f, lanes=32), "u280") for f in ("mxfp4", "mxfp8"))
        >>> narrow.limited_by, narrow.count.value > 2 * wide.count.value
        ('lut', True)
    """
    if not isinstance(unit, FpgaUnitCost | FpgaDesign):
        raise ArgumentTypeError(f"unit={unit!r} must be the cost of a unit on an FPGA, not {type(unit).__name__}.")
    board = fpga_device(device)
    if unit.target != board.target:
        raise ArgumentError(f"unit is priced for target={unit.target!r}, device={board.name!r} is {board.target!r}.")
    allowed = _limits(limits)
    parts = board.shell if controllers is None else tuple(controllers)
    needs = _needs(unit)
    found = {end: _fit(board, parts, allowed, needs, end) for end in ("value", "low", "high")}
    limited, count = found["value"]
    low, high = min(found["low"][1], count), max(found["high"][1], count)
    estimate = Estimate(count, low, high, "units", limited, f"{board.title}; FINN's planning limits")
    used = tuple((r, count * needs[r]["value"] / board.need(r)) for r in RESOURCES if needs[r]["value"])
    room = tuple((r, _room(board, parts, allowed, r, "value")) for r in RESOURCES if needs[r]["value"])
    products = unit.datapath.lanes * unit.datapath.copies if isinstance(unit, FpgaUnitCost) else unit.products_per_cycle
    clock = dict(unit.fpga or ())["clock"] if isinstance(unit, FpgaUnitCost) else unit.clock
    return Fit(board, estimate, limited, used, room, products, clock)


def _limits(given: dict[str, float] | None) -> dict[str, float]:
    defaults = planning_limits()
    for name, share in (given or {}).items():
        if name not in defaults:
            raise ArgumentError(unknown_name("limits", name, defaults))
        if not 0 < share <= 1:
            raise ArgumentError(f"limits[{name!r}]={share!r} must be above 0 and at most 1.")
    return {**defaults, **(given or {})}


def _needs(unit: FpgaUnitCost | FpgaDesign) -> dict[str, dict[str, float]]:
    if isinstance(unit, FpgaUnitCost):
        found = dict(unit.fpga or ())
        estimates = {"lut": found["lut"], "ff": found["ff"], "dsp": found["dsp"], "bram18": found["bram"], "uram": None}
    else:
        estimates = {name: getattr(unit, name) for name in RESOURCES}
    ends = ("value", "low", "high")
    return {name: {end: getattr(e, end) if e else 0.0 for end in ends} for name, e in estimates.items()}


def _room(board: FpgaDevice, shell: tuple[str, ...], limits: dict[str, float], resource: str, end: str) -> float:
    taken = sum(shell_cost(part)[resource] for part in shell)
    whole: float = getattr(board.figure(resource), end)
    return max((whole - taken) * limits[resource], 0.0)


def _fit(
    board: FpgaDevice, shell: tuple[str, ...], limits: dict[str, float], needs: dict[str, dict[str, float]], end: str
) -> tuple[str, float]:
    """The resource that runs out first and the whole units until then; pessimistic ends take dear units."""
    other = {"value": "value", "low": "high", "high": "low"}[end]
    counts = {}
    for resource in RESOURCES:
        need = needs[resource][other]
        if need:
            counts[resource] = _room(board, shell, limits, resource, end) / need
    share = sum(needs[r][other] / max(getattr(board.figure(r), end), 1.0) for r in _AVERAGED if needs[r][other]) / len(
        _AVERAGED
    )
    if share:
        counts["average"] = limits["average"] / share
    if not counts:
        raise ArgumentError("unit takes no resource of the board; there is no limit to how many fit.")
    first = min(counts, key=lambda name: counts[name])
    return first, float(math.floor(counts[first] + 1e-9))


def fpga_decode(
    model: str | Shape,
    device: str | FpgaDevice,
    *,
    weights: str | Format | float = "float16",
    kv_cache: str | Format | float = "float16",
    head: str | Format | float | None = None,
    batch: int = 1,
    context: int = 0,
    efficiency: float | None = None,
    fit: Fit | None = None,
    clock: float | None = None,
) -> Estimate:
    """Predict the rate at which a board decodes a language model, bound by its DRAM or by the units that fit.

    All weights, of a mixture those of the experts that are taken, and keys and values of the context, are read once
    per step. Where a model exceeds the board's memory, the provenance says so.

    Args:
        model: A name of `models()` or a shape; a decoder.
        device: A board or its name.
        weights: Format of the weights of the layers, or average bits per weight.
        kv_cache: Format of keys and values, or bits.
        head: Format of the last layer; default that of the weights.
        batch: Sequences at once.
        context: Keys of each sequence.
        efficiency: Part of the bandwidth that is reached; default that of `data/fpga_system.csv`, with its range, up
            to all of it.
        fit: Units that compute; default as many as the memory can feed.
        clock: Of those units, in Hz.

    Returns:
        Tokens per second of all sequences; its high end is the bound by all of the highest bandwidth.

    Raises:
        ArgumentError: A name is unknown, a size not positive, the model is no decoder, or no efficiency in (0, 1].

    Example:
        >>> rate = fpga_decode("llama-2-7b", "u280", weights=3.5)
        >>> rate.bound, 150 < rate.high < 180
        ('memory', True)
    """
    shape, board = model_shape(model), fpga_device(device)
    if not isinstance(shape, Transformer) or shape.architecture != "decoder":
        raise ArgumentError(f"model={shape.name!r} is no language model.")
    (batch,), (context,) = sizes(batch=batch), (sizes(context=context + 1)[0] - 1,)
    if efficiency is not None and not 0 < efficiency <= 1:
        raise ArgumentError(f"efficiency={efficiency!r} must be above 0 and at most 1.")
    last = weights if head is None else head
    other = shape.head_weights * _bytes("head", last)
    other += batch * context * shape.cache_values_per_token * _bytes("kv_cache", kv_cache)
    read = shape.layers * shape.weights_read(batch) * _bytes("weights", weights) + other
    reach = _efficiency() if efficiency is None else (efficiency, efficiency, efficiency)
    band = board.figure("bandwidth")
    value, low, high = (batch * b * e / read for b, e in zip((band.value, band.low, band.high), reach, strict=True))
    bound = "memory"
    if fit is not None:
        rate = fit.throughput(clock)
        steps = 2 * (shape.layers * shape.weights_read(1) + shape.head_weights)
        bound = "compute" if rate.value / steps < value else bound
        value, low, high = (min(x, y / steps) for x, y in ((value, rate.value), (low, rate.low), (high, rate.high)))
    held = shape.layers * shape.layer_weights * _bytes("weights", weights) + other
    source = f"{board.title} ({band.source}); weights read once per step{_shortage(board, held)}"
    return Estimate(value, low, high, "tokens/s", bound, source)


def _shortage(board: FpgaDevice, held: float) -> str:
    """Say by how much a model exceeds a board's memory, where that is known."""
    capacity = next((figure.value for name, figure in board.figures if name == "capacity"), math.inf)
    return f"; takes {held / 1e9:.3g} GB of a memory of {capacity / 1e9:.3g} GB" if held > capacity else ""


def _bytes(name: str, value: str | Format | float) -> float:
    if isinstance(value, str | Format):
        return storage_bits(parse(value)) / 8
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ArgumentTypeError(f"{name}={value!r} must be a format, its name, or bits, not {type(value).__name__}.")
    if not 0 < value < math.inf:
        raise ArgumentError(f"{name}={value!r} bits must be positive and finite.")
    return value / 8


def _efficiency() -> tuple[float, float, float]:
    row = next(r for r in rows("fpga_system") if r["quantity"] == "bandwidth_efficiency")
    return float(row["value"]), float(row["low"]), float(row["high"])
