"""Whole designs on FPGAs: matrix engines with their buffers, and streaming layers with all weights on chip."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

from lowp._errors import ArgumentError, unknown_name
from lowp.formats import parse
from lowp.formats.integer import Fixed, Integer
from lowp.formats.spec import Format
from lowp.hw_models.arguments import sizes
from lowp.hw_models.datapath import Datapath, datapath
from lowp.hw_models.estimate import Estimate
from lowp.hw_models.finn import Mvau, data_type_bound, mvau
from lowp.hw_models.fpga import FpgaUnitCost, price, storage_bits
from lowp.hw_models.fpga_memories import MEMORY_STYLES, bram18, fifo, lutram, uram
from lowp.hw_models.fpga_targets import fpga_target

ESTIMATORS = ("datapath", "finn", "finn_corrected")
#: Design-level uncertainty of LUTs and flip-flops: control, buffers and routing are not in the sum of the parts.
_CONTROL_LOW, _CONTROL_HIGH = 0.7, 1.3
_FIFO_DEPTH = 32


@dataclass(frozen=True)
class FpgaDesign:
    """What a design takes on an FPGA, and how fast it is.

    Attributes:
        target: Name of the target.
        lut: LUTs.
        ff: Flip-flops.
        dsp: DSPs.
        bram18: Block RAMs, as 18 Kb halves.
        uram: UltraRAMs.
        clock: Highest clock, in Hz.
        products_per_cycle: Products that are made and added per clock cycle.
        cycles: Cycles per activation vector, of streaming layers; else 0.
        unit: The datapath's cost without buffers and control; None for FINN's estimates.
    """

    target: str
    lut: Estimate
    ff: Estimate
    dsp: Estimate
    bram18: Estimate
    uram: Estimate
    clock: Estimate
    products_per_cycle: int
    cycles: int = 0
    unit: FpgaUnitCost | None = None

    @property
    def bram(self) -> Estimate:
        """Block RAMs, as 18 Kb halves: `bram18`, under the name that units have them by."""
        return self.bram18

    def throughput(self, clock: float | None = None) -> Estimate:
        """Return the peak rate in operations per second, a multiply-add counting as two.

        Args:
            clock: In Hz; default the design's highest.

        Raises:
            ArgumentError: The clock is not positive.
        """
        at = self.clock if clock is None else given_clock(clock)
        per_cycle = 2 * self.products_per_cycle
        rates = (at.value * per_cycle, at.low * per_cycle, at.high * per_cycle)
        return Estimate(*rates, "op/s", "compute", at.provenance)

    def vectors_per_second(self, clock: float | None = None) -> Estimate:
        """Return how many activation vectors a streaming layer takes per second.

        Raises:
            ArgumentError: The design is no streaming layer, or the clock is not positive.
        """
        if not self.cycles:
            raise ArgumentError("cycles=0: only a streaming layer has a rate of vectors.")
        at = self.clock if clock is None else given_clock(clock)
        value, low, high = (x / self.cycles for x in (at.value, at.low, at.high))
        return Estimate(value, low, high, "vectors/s", "compute", at.provenance)

    def __str__(self) -> str:
        parts = ((name, getattr(self, name)) for name in ("lut", "ff", "dsp", "bram18", "uram", "clock"))
        return "; ".join(f"{name} {estimate}" for name, estimate in parts)


def given_clock(clock: Any) -> Estimate:
    """Return a clock as an estimate without an interval.

    Raises:
        ArgumentError: It is not positive and finite.

    Example:
        >>> given_clock(200e6).value
        200000000.0
    """
    if isinstance(clock, bool) or not isinstance(clock, int | float) or not 0 < clock < math.inf:
        raise ArgumentError(f"clock={clock!r} must be a positive and finite number of Hz.")
    return Estimate(float(clock), float(clock), float(clock), "Hz", "static", "given clock")


def _array(unit: Datapath, rows: int, columns: int) -> Datapath:
    """Return an array of a unit, whose rows share left operands and whose columns share right ones."""
    shared = {"a": rows, "b": columns}
    blocks = tuple(block.times(shared.get(block.operand, rows * columns)) for block in unit.blocks)
    return replace(unit, blocks=blocks, copies=rows * columns)


def _count(value: float, unit: str, bound: str, source: str) -> Estimate:
    return Estimate(value, value, value, unit, bound, source)


def _logic(cost: Estimate, more: float) -> Estimate:
    value = cost.value + more
    low, high = (cost.low + more) * _CONTROL_LOW, (cost.high + more) * _CONTROL_HIGH
    return Estimate(value, min(low, value), max(high, value), cost.unit, cost.bound, cost.provenance)


def matrix_engine(
    a: str | Format,
    b: str | Format | None = None,
    *,
    rows: int = 16,
    columns: int = 16,
    lanes: int = 1,
    target: str = "xcup",
    multipliers: str = "auto",
    depth: int = 512,
    memory: str = "block",
    **options: Any,
) -> FpgaDesign:
    """Price an array of `rows` x `columns` dot units of `lanes` products, with double-buffered operands and results.

    Args:
        a: Format of the left operand, or its name; a row of units shares it.
        b: Format of the right operand; default that of `a`.
        rows: Rows of the array.
        columns: Columns.
        lanes: Products per unit and cycle.
        target: "xcup" (UltraScale+), "versal" or "series7".
        multipliers: "lut", "dsp", or "auto".
        depth: Words of `lanes` numbers that each row and column buffers, twice.
        memory: "block", "ultra" or "distributed".
        options: Further arguments of `datapath`: accumulator, conversions, window, terms, integers, stages.

    Raises:
        ArgumentError: A name is unknown, or a size not positive.
        FormatError: A format is unknown, has no such unit, or the target lacks a coefficient.

    Example:
        >>> engine = matrix_engine("int8", rows=32, columns=32, multipliers="dsp", accumulator="int32")
        >>> engine.dsp.value, engine.products_per_cycle
        (512.0, 1024)
    """
    rows, columns, lanes, depth = sizes(rows=rows, columns=columns, lanes=lanes, depth=depth)
    if memory not in MEMORY_STYLES:
        raise ArgumentError(unknown_name("memory", memory, MEMORY_STYLES))
    unit = _array(datapath(a, b, lanes=lanes, **options), rows, columns)
    cost = price(unit, target, multipliers)
    left, right = (math.ceil(lanes * storage_bits(f)) for f in (unit.a, unit.b))
    counts = [_memory(memory, left, 2 * depth, rows), _memory(memory, right, 2 * depth, columns)]
    blocks, ultra, luts = (sum(c[i] for c in counts) for i in range(3))
    control = fpga_target(target).constant("control").value
    return _design(target, cost, luts + control, blocks, ultra, rows * columns * lanes)


def _memory(style: str, width: int, words: int, count: int) -> tuple[int, int, int]:
    """Block RAMs, UltraRAMs and LUTs of so many memories."""
    return (
        count * bram18(width, words) if style == "block" else 0,
        count * uram(width, words) if style == "ultra" else 0,
        count * lutram(width, words) if style == "distributed" else 0,
    )


def _design(
    target: str, cost: FpgaUnitCost, luts: float, blocks: float, ultra: float, products: int, cycles: int = 0
) -> FpgaDesign:
    title = fpga_target(target).title
    found = dict(cost.fpga or ())
    return FpgaDesign(
        target,
        _logic(found["lut"], luts),
        _logic(found["ff"], luts),  # control: about a flip-flop per LUT
        found["dsp"],
        _count(found["bram"].value + blocks, "BRAM18", "memory", title),
        _count(ultra, "URAM", "memory", title),
        found["clock"],
        products,
        cycles,
        cost,
    )


def streaming_layer(
    mw: int,
    mh: int,
    weights: str | Format,
    activations: str | Format | None = None,
    *,
    pe: int = 1,
    simd: int = 1,
    target: str = "xcup",
    multipliers: str = "auto",
    memory: str = "block",
    estimator: str = "datapath",
    accumulator: Any = None,
    thresholds: int = 0,
    **options: Any,
) -> FpgaDesign:
    """Price a streaming matrix-vector layer: `pe` dot units of `simd` lanes, all weights on chip, FIFOs at both ends.

    Args:
        mw: Length of a dot product; `simd` divides it.
        mh: Outputs; `pe` divides it.
        weights: Format of the weights, or its name.
        activations: Format of the activations; default that of the weights.
        pe: Processing elements.
        simd: Products per processing element and cycle.
        target: "xcup" (UltraScale+), "versal" or "series7".
        multipliers: "lut", "dsp", or "auto".
        memory: Of the weights: "block", "ultra" or "distributed".
        estimator: "datapath": any formats, from their blocks; "finn": FINN's own formulas, for integers;
            "finn_corrected": those without their known defects.
        accumulator: As of `datapath`; default exact for integers. FINN's formulas take an integer's width.
        thresholds: Bits of a fused activation of FINN's formulas; 0: none.
        options: Further arguments of `datapath`, or fields of FINN's unit.

    Raises:
        ArgumentError: A size is not positive or does not divide, or a name is unknown.
        FormatError: A format without such a unit, or that FINN has no data type for.

    Example:
        >>> layer = streaming_layer(256, 256, "int4", "uint4", pe=16, simd=16)
        >>> layer.bram18.value, layer.cycles
        (29.0, 256)
        >>> streaming_layer(64, 64, "mxfp4", pe=4, simd=32).products_per_cycle
        128
    """
    if estimator not in ESTIMATORS:
        raise ArgumentError(unknown_name("estimator", estimator, ESTIMATORS))
    right = weights if activations is None else activations
    if estimator != "datapath":
        corrected = estimator == "finn_corrected"
        return _finn_layer(
            mw, mh, pe, simd, weights, right, target, multipliers, memory, accumulator, thresholds, corrected, options
        )
    mw, mh, pe, simd = sizes(mw=mw, mh=mh, pe=pe, simd=simd)
    for name, whole, part in (("pe", mh, pe), ("simd", mw, simd)):
        if whole % part:
            raise ArgumentError(f"{name}={part!r} must divide {'mh' if name == 'pe' else 'mw'}={whole!r}.")
    if memory not in MEMORY_STYLES:
        raise ArgumentError(unknown_name("memory", memory, MEMORY_STYLES))
    w, x = parse(weights), parse(right)
    whole = isinstance(w, Integer | Fixed) and isinstance(x, Integer | Fixed)
    if accumulator is None and whole:
        accumulator, options = "exact", {"terms": mw, **options}
    unit = datapath(w, x, lanes=simd, accumulator=accumulator, **options)
    cost = price(_array(unit, pe, 1), target, multipliers)
    words = (mw // simd) * (mh // pe)
    width = math.ceil(pe * simd * storage_bits(w))
    blocks, ultra, luts = _memory(memory, width, words, 1)
    streams = (math.ceil(simd * storage_bits(x)), pe * unit.accumulator_bits)
    luts += sum(fifo(bits, _FIFO_DEPTH)["lut"] for bits in streams)
    luts += lutram(streams[0], mw // simd)  # the vector, replayed for every group of outputs
    control = fpga_target(target).constant("control").value
    return _design(target, cost, luts + control, blocks, ultra, pe * simd, words)


def _finn_layer(
    mw: int,
    mh: int,
    pe: int,
    simd: int,
    weights: Any,
    activations: Any,
    target: str,
    multipliers: str,
    memory: str,
    accumulator: Any,
    thresholds: int,
    corrected: bool,
    options: dict[str, Any],
) -> FpgaDesign:
    found = fpga_target(target)
    style = options.pop("style", "rtl" if multipliers == "dsp" else "hls")
    width = 32 if accumulator is None else parse(accumulator).bits
    unit = mvau(
        mw,
        mh,
        pe,
        simd,
        weights,
        activations,
        accumulator=width,
        thresholds=thresholds,
        style=style,
        multipliers="dsp" if multipliers == "dsp" else "lut",
        memory=memory,
        dsp_block=found.dsp_block,
        **options,
    )
    luts, dsps = float(unit.lut(corrected)), float(unit.dsp(corrected))
    source = "FINN's estimate" + (", defects corrected" if corrected else "")
    spread = (_CONTROL_LOW, _CONTROL_HIGH)
    registers = _finn_registers(unit, found.constant("ff_per_bit").value)
    return FpgaDesign(
        target,
        Estimate(luts, luts * spread[0], luts * spread[1], "LUT", "compute", source),
        Estimate(
            registers, registers / 2, registers * 2, "FF", "compute", "registers of the unit's streams and stages"
        ),
        _count(dsps, "DSP", "compute", source),
        _count(float(unit.bram18()), "BRAM18", "memory", source),
        _count(float(unit.uram(corrected)), "URAM", "memory", source),
        _finn_clock(unit, target),
        pe * simd,
        unit.cycles(),
    )


def _finn_registers(unit: Mvau, per_bit: float) -> float:
    """FINN estimates no flip-flops: streams, and a pipeline register behind each multiplier, tree and accumulator."""
    product = unit.w + unit.a
    streams = unit.word_bits + unit.simd * unit.a + unit.pe * unit.accumulator_bits
    stages = unit.pe * (unit.simd * product + data_type_bound(unit.simd, unit.w, unit.a, unit.a_signed))
    inside = 0 if unit.multipliers == "dsp" else stages
    return per_bit * (streams + inside + unit.pe * unit.accumulator_bits)


def _finn_clock(unit: Mvau, target: str) -> Estimate:
    """Products, adders and accumulators in stages of their own; the slowest of those decides."""
    w, a = Integer(unit.w), Integer(unit.a)
    steps = datapath(w, a, lanes=unit.simd, accumulator="exact", terms=unit.mw, stages=4)
    cost = price(steps, target, unit.multipliers)
    return dict(cost.fpga or ())["clock"]
