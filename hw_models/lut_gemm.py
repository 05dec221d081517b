"""The cost of a product by table lookup: tables, operations, bytes, cycles, time."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from typing import Any

from lowp._errors import ArgumentError, FormatError, unknown_name
from lowp.formats import parse
from lowp.formats.spec import Format
from lowp.hw_models.arguments import sizes
from lowp.hw_models.cpu_cores import CpuCore, Figure, cpu_core, isa_figure, memory_seconds, speedup
from lowp.hw_models.cpu_simd import simd_seconds, unpack_instructions
from lowp.hw_models.devices import device as find_device
from lowp.hw_models.estimate import Estimate
from lowp.hw_models.lut_counts import LutCounts, predicted
from lowp.hw_models.lut_engine import LutEngine, lut_engine
from lowp.hw_models.lut_formats import Digits, Inputs, resolved
from lowp.hw_models.tables import rows

#: Bytes of activations that tables of rounded sums are compared with.
_WIDE_BYTES = 2


@dataclass(frozen=True)
class LutGemm:
    """What a product by table lookup takes.

    Attributes:
        engine: How it is looked up.
        shape: (tokens, outputs, terms).
        counts: Operations, as `run_lut_gemm` counts them when it carries the product out.
        entries: Entries of a table.
        entry_bits: Bits of an entry.
        planes: Look-ups per group of weights: bit planes, or 1.
        weight_bytes: Indices as the engine stores them, with scales and zero points.
        activation_bytes: Activations, with scales; float16 where tables are rounded sums.
        cycles: Of one hardware unit, or of one thread's SIMD instructions; None where neither is given.
        seconds: Time, where a CPU, GPU or hardware unit is given.
    """

    engine: LutEngine
    shape: tuple[int, int, int]
    counts: LutCounts
    entries: int
    entry_bits: int
    planes: int
    weight_bytes: float
    activation_bytes: float
    cycles: float | None
    seconds: Estimate | None

    def __str__(self) -> str:
        m, n, k = self.shape
        time = "" if self.seconds is None else f", {self.seconds}"
        kept = f"{self.tables} tables of {self.entries} x {self.entry_bits} bits, " if self.entries else ""
        return f"{self.engine.title} {m} x {n} x {k}: {kept}{self.counts}{time}"

    @property
    def tables(self) -> int:
        """Tables built."""
        return self.counts.tables

    @property
    def build_adds(self) -> int:
        """Additions that make table entries, one each; `counts.start_adds` come before them."""
        return self.counts.build_adds

    @property
    def lookups(self) -> int:
        """Look-ups."""
        return self.counts.lookups

    @property
    def adds(self) -> int:
        """Additions of what was looked up."""
        return self.counts.adds

    @property
    def table_bits(self) -> int:
        """Bits of one table."""
        return self.entries * self.entry_bits

    @property
    def table_bytes(self) -> float:
        """Bytes of all tables of all tokens, each counted once."""
        m, _, k = self.shape
        kept = 1 if self.engine.style == "product" else m * math.ceil(k / self.engine.group)
        return 0.0 if self.engine.style == "dequantize" else kept * self.table_bits / 8

    @property
    def build_share(self) -> float:
        """Additions that make entries, over look-ups: E / (outputs x planes)."""
        return self.build_adds / self.lookups if self.lookups else 0.0

    @property
    def bits_per_weight(self) -> float:
        """Stored bits per weight."""
        return 8 * self.weight_bytes / (self.shape[1] * self.shape[2])

    @property
    def time(self) -> Estimate:
        """Seconds.

        Raises:
            ArgumentError: Neither a CPU nor a device was given, and the engine is no hardware of known clock.
        """
        if self.seconds is None:
            raise ArgumentError(f"time of engine={self.engine.name!r} needs a CPU or a device: give core or device.")
        return self.seconds


def lut_gemm(
    m: int,
    n: int,
    k: int,
    weights: Any,
    activations: Any = None,
    engine: str | LutEngine = "t_mac",
    core: str | CpuCore | None = None,
    threads: int = 1,
    *,
    device: str | None = None,
    array: int = 4,
    units: int = 1,
    outputs_per_table: int | None = None,
) -> LutGemm:
    """Predict what `out[m, n] = a[m, k] @ w[n, k].T` takes when weights index tables of activations' sums.

    Args:
        m: Tokens (rows of the activations).
        n: Outputs (rows of the weights).
        k: Depth.
        weights: Format of the weights, or its name.
        activations: Format of the activations; default "int8_row" for engines with exact tables, "int2" for tables of
            products, else "float16".
        engine: A `LutEngine` or a name of `lut_engines()`.
        core: A CPU or its name, for the time in software.
        threads: Threads on it.
        device: A GPU with lookup-table tensor cores in place of its own, for the time there.
        array: How many times the rate of its float16 tensor cores these have; a column of `data/lut_tensor_cores.csv`.
        units: Hardware units that share the work.
        outputs_per_table: Outputs that a table serves before it is built again; default all.

    Raises:
        ArgumentError: A size is not positive, or the data lack a figure of the CPU or device.
        FormatError: The engine cannot multiply these formats, or its tables fit no SIMD register of the CPU.

    Source:
        T-MAC (arXiv 2407.00088), LUT Tensor Core (arXiv 2408.06003), bitnet.cpp (arXiv 2502.11880).

    Example:
        >>> cost = lut_gemm(1, 4096, 4096, "int2", engine="t_mac")
        >>> cost.tables, cost.build_adds, cost.lookups, round(cost.build_share, 5)
        (1024, 8192, 8388608, 0.00098)
    """
    m, n, k, threads, units = sizes(m=m, n=n, k=k, threads=threads, units=units)
    how = lut_engine(engine)
    if activations is None:
        activations = {"exact": "int8_row"}.get(how.table, "float16") if how.style != "product" else "int2"
    place = None if core is None else cpu_core(core)
    left, right = parse(weights), parse(activations)
    served = n if outputs_per_table is None else sizes(outputs_per_table=outputs_per_table)[0]
    return _cost(m, n, k, left, right, how, place, threads, device, array, units, served)


@lru_cache(maxsize=65536)
def _cost(
    m: int,
    n: int,
    k: int,
    weights: Format,
    activations: Format,
    engine: LutEngine,
    core: CpuCore | None,
    threads: int,
    device: str | None,
    array: int,
    units: int,
    served: int,
) -> LutGemm:
    parts, read = resolved(weights, activations, engine)
    counts = _rebuilt(predicted(m, n, k, parts, read, engine), math.ceil(n / served))
    cycles = unit_cycles(m, n, k, parts.planes, engine)
    cost = LutGemm(
        engine,
        (m, n, k),
        counts,
        engine.entries(parts.base, read.values),
        engine.entry_bits,
        parts.planes,
        _weight_bytes(n, k, weights, parts, engine),
        m * k * _activation_bytes(activations, read, engine),
        cycles,
        None,
    )
    if core is not None and device is not None:
        raise ArgumentError(f"core={core.name!r} and device={device!r}: give one of them.")
    if core is not None:
        seconds: Estimate | None
        seconds, took = _software(cost, weights, core, threads)
        cost = replace(cost, cycles=took)
    elif device is not None:
        seconds = _on_device(cost, device, array)
    elif cycles is not None:
        alone = cycles / engine.clock / units
        seconds = Estimate(alone, alone, alone, "s", "compute", f"{engine.title}, {units} units without memory")
    else:
        seconds = None
    return replace(cost, seconds=seconds)


def _rebuilt(counts: LutCounts, times: int) -> LutCounts:
    if times == 1:
        return counts
    built = ("tables", "build_adds", "start_adds", "quantized_entries")
    return replace(counts, **{name: times * getattr(counts, name) for name in built})


def unit_cycles(m: int, n: int, k: int, planes: int, engine: LutEngine) -> int | None:
    """Return the cycles of a hardware unit that takes one bit plane per cycle; None without such a unit.

    Example:
        >>> unit_cycles(2, 64, 4, 3, lut_engine("lut_tensor_core"))
        3
    """
    if not engine.unit_m:
        return None
    return math.ceil(m / engine.unit_m) * math.ceil(n / engine.unit_n) * math.ceil(k / engine.unit_k) * planes


def _weight_bytes(n: int, k: int, weights: Format, parts: Digits, engine: LutEngine) -> float:
    """Indices and scales; what is unpacked is stored as its format says."""
    found = parts.elements
    if engine.style == "dequantize" and not engine.index_bits:
        return n * k * float(weights.bits_per_value) / 8  # type: ignore[attr-defined]
    groups = math.ceil(k / found.group) if found.group else 0
    index = engine.stored_index_bits(parts.base) / engine.group * parts.planes
    return n * (k * index + groups * found.scale_bits) / 8


def _activation_bytes(fmt: Format, read: Inputs, engine: LutEngine) -> float:
    if engine.table != "exact" and read.bits > 16:
        return float(read.bits) / 8
    return _WIDE_BYTES if engine.table != "exact" else float(fmt.bits_per_value) / 8  # type: ignore[attr-defined]


def _software(cost: LutGemm, weights: Format, core: CpuCore, threads: int) -> tuple[Estimate, float]:
    """Return the time, and the cycles that a thread computes."""
    if cost.engine.style == "dequantize":
        compute, _ = simd_seconds(*cost.shape, unpack_instructions(weights), core, threads)
        bound = "compute"
    else:
        compute, bound = _table_seconds(cost, core, threads)
    m, n, _ = cost.shape
    memory = memory_seconds(core, cost.weight_bytes + cost.activation_bytes + 4 * m * n)
    value, low, high = (max(c, b) for c, b in zip(compute, memory, strict=True))
    bound = "memory" if memory.value >= compute.value else bound
    source = f"{cost.engine.title} on {core.title}: SIMD table instructions per cycle, or bytes"
    return Estimate(value, low, high, "s", bound, source), compute.value * core.need("clock").value


def _table_seconds(cost: LutGemm, core: CpuCore, threads: int) -> tuple[Figure, str]:
    """Return the time of building and looking up, without memory.

    A table instruction looks bytes up among 16; entries of several bytes take as many. The rate of table instructions
    was measured with the additions that belong to them.
    """
    engine, counts = cost.engine, cost.counts
    clock, faster = core.need("clock").value, speedup(core, threads, "table_contention")
    register, rate = isa_figure(core.isa, "register_bytes").value, isa_figure(core.isa, "table_add_rate")
    wide = math.ceil(cost.entry_bits / 8)
    adding = 4 if engine.table != "exact" else wide
    build = counts.build * adding / register
    if engine.style == "vector":
        build += counts.adds * wide / register
        looked, table_rate = 0.0, rate
    else:
        limit = isa_figure(core.isa, "table_entries").value
        if cost.entries > limit:
            raise FormatError(
                f"engine={engine.name!r} has tables of {cost.entries} entries; SIMD table instructions look up among "
                f"{limit:g}, and data/cpu_isa.csv has no rate of look-ups in memory."
            )
        looked, table_rate = counts.lookups * wide / isa_figure(core.isa, "lookups").value, core.need("table_rate")
    value, low, high = (
        (looked / t + build / a) / (clock * s)
        for t, a, s in (
            (table_rate.value, rate.value, faster.value),
            (table_rate.high, rate.high, faster.high),
            (table_rate.low, rate.low, faster.low),
        )
    )
    return Figure(value, low, high), "compute" if looked / table_rate.value >= build / rate.value else "convert"


@cache
def _array(device: str, array: int) -> dict[str, Figure]:
    name = find_device(device).name
    listed = [row for row in rows("lut_tensor_cores") if row["device"] == name]
    arrays = sorted({row["array"] for row in listed} - {"*"})
    if str(array) not in arrays:
        known = arrays or sorted({row["device"] for row in rows("lut_tensor_cores")})
        raise ArgumentError(unknown_name("array" if arrays else "device", str(array) if arrays else device, known))
    found = [row for row in listed if row["array"] in ("*", str(array))]
    return {row["quantity"]: Figure(*(float(row[e]) for e in ("value", "low", "high"))) for row in found}


def _on_device(cost: LutGemm, device: str, array: int) -> Estimate:
    """A GPU whose tensor cores are those of LUT Tensor Core: their density times their area, one bit plane a cycle."""
    if not cost.engine.unit_m:
        raise FormatError(f"engine={cost.engine.name!r} is no tensor core; allowed: 'lut_tensor_core'.")
    figures, machine = _array(device, array), find_device(device)
    peak = figures["area_per_sm"].value * figures["density"].value * 1e12 * machine.need("sms")
    m, n, k = cost.shape
    work = 2 * m * n * k * cost.planes / figures["planes"].value
    moved = cost.weight_bytes + cost.activation_bytes + 2 * m * n
    share, memory = figures["efficiency"], figures["memory_efficiency"]
    times = [
        (work / (peak * e), moved / (machine.need("bandwidth") * b))
        for e, b in ((share.value, memory.value), (share.high, memory.high), (share.low, memory.low))
    ]
    value, low, high = (max(pair) for pair in times)
    bound = "compute" if times[0][0] >= times[0][1] else "memory"
    source = f"LUT Tensor Core (arXiv 2408.06003), {array} times the array, on {machine.title}"
    return Estimate(value, low, high, "s", bound, source)
