"""The time of products with packed weights on CPUs: SIMD instructions, or bytes. Data: `data/cpu_unpack.csv`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from lowp._errors import ArgumentError, FormatError, unknown_name
from lowp.formats import parse
from lowp.formats.spec import Format
from lowp.hw_models.arguments import sizes
from lowp.hw_models.cpu_cores import CpuCore, Figure, cpu_core, isa_figure, memory_seconds, speedup
from lowp.hw_models.estimate import Estimate
from lowp.hw_models.lut_engine import LutEngine
from lowp.hw_models.model_shapes import Shape
from lowp.hw_models.model_workloads import workload
from lowp.hw_models.tables import rows

#: Weights that unpacking instructions are counted for.
_UNPACKED = 32
_SOURCE = "SIMD instructions per cycle of one core, or bytes at the attained share of the bandwidth"


def unpack_instructions(fmt: Format) -> Figure:
    """Return the SIMD instructions that unpack 32 weights of a format to int8.

    Raises:
        FormatError: Nothing is known for this format.

    Example:
        >>> unpack_instructions(parse("ggml_q2_k")).value
        5.5
    """
    for row in rows("cpu_unpack"):
        if fmt.name in row["format"].split("|"):
            return Figure(*(float(row[e]) for e in ("instructions", "low", "high")))
    known = ", ".join(name for row in rows("cpu_unpack") for name in row["format"].split("|"))
    raise FormatError(
        f"weights={fmt.name!r}: data/cpu_unpack.csv does not say what unpacking takes; known: {known}. Or give unpack."
    )


def cpu_gemm(
    m: int,
    n: int,
    k: int,
    weights: Any,
    core: str | CpuCore = "m2_ultra",
    threads: int = 1,
    *,
    unpack: float | None = None,
) -> Estimate:
    """Predict the time of `out[m, n] = a[m, k] @ w[n, k].T` with int8 activations and packed weights on a CPU.

    Weights are read once, unpacked by SIMD instructions (once per token, or per tile of tokens where the CPU's data
    have one), and multiplied by those of the instruction set.

    Args:
        m: Tokens.
        n: Outputs.
        k: Depth.
        weights: Format of the weights, or its name; its own storage bits are what is read.
        core: A CPU or its name.
        threads: Threads.
        unpack: SIMD instructions per 32 weights, where the data have none for the format.

    Returns:
        Seconds. `bound` is "compute", "convert" (unpacking) or "memory".

    Raises:
        ArgumentError: A size is not positive, more threads than cores, or the CPU's data lack a figure.
        FormatError: What unpacking takes is not known.

    Example:
        >>> cpu_gemm(1, 4096, 4096, "ggml_q4_0", "rpi5", threads=4).bound
        'convert'
    """
    m, n, k, threads = sizes(m=m, n=n, k=k, threads=threads)
    found = parse(weights)
    takes = unpack_instructions(found) if unpack is None else Figure(unpack, unpack, unpack)
    return _gemm(m, n, k, found, takes, cpu_core(core), threads)


@lru_cache(maxsize=16384)
def _gemm(m: int, n: int, k: int, weights: Format, takes: Figure, core: CpuCore, threads: int) -> Estimate:
    compute, unpacking = simd_seconds(m, n, k, takes, core, threads)
    amount = n * k * float(weights.bits_per_value) / 8 + m * k + 4 * m * n  # type: ignore[attr-defined]
    memory = memory_seconds(core, amount)
    bound = "memory" if memory.value >= compute.value else "convert" if unpacking > 0.5 else "compute"
    value, low, high = (max(c, b) for c, b in zip(compute, memory, strict=True))
    return Estimate(value, low, high, "s", bound, f"{_SOURCE}; {weights.name} on {core.title}")


def simd_seconds(m: int, n: int, k: int, takes: Figure, core: CpuCore, threads: int) -> tuple[Figure, float]:
    """Return the time of unpacking and multiplying without memory, and what share unpacking has in it."""
    macs, per = isa_figure(core.isa, "macs").value, isa_figure(core.isa, "mac_instructions")
    tile = core.figures.get("token_tile", Figure(1.0, 1.0, 1.0))
    ipc, faster, clock = core.need("ipc"), speedup(core, threads, "mac_contention"), core.need("clock").value

    def instructions(each: float, unpack: float, shared: float) -> tuple[float, float]:
        return m * n * k / macs * each, n * k / _UNPACKED * unpack * math.ceil(m / shared)

    value = instructions(per.value, takes.value, tile.value)
    low = instructions(per.low, takes.low, tile.high)
    high = instructions(per.high, takes.high, tile.low)
    seconds = Figure(
        sum(value) / (ipc.value * clock * faster.value),
        sum(low) / (ipc.high * clock * faster.high),
        sum(high) / (ipc.low * clock * faster.low),
    )
    return seconds, value[1] / sum(value)


def cpu_tokens_per_second(
    model: str | Shape,
    weights: Any,
    core: str | CpuCore = "m2_ultra",
    threads: int = 1,
    engine: str | LutEngine | None = None,
    *,
    batch: int = 1,
) -> Estimate:
    """Predict tokens per second of a language model on a CPU; attention and other small operations are not counted.

    Args:
        model: A name of `models()`, or a shape.
        weights: Format of all weights, or its name.
        core: A CPU or its name.
        threads: Threads.
        engine: A lookup-table engine; None: weights are unpacked and multiplied.
        batch: Sequences that are decoded at once.

    Raises:
        ArgumentError: As `cpu_gemm` or `lut_gemm`, or an unknown model.
        FormatError: As they.

    Example:
        >>> two, four = (cpu_tokens_per_second("llama-2-7b", w, "rpi5", 1, "t_mac") for w in ("int2_g128", "int4_g128"))
        >>> round(two.value / four.value, 2)
        2.0
    """
    from lowp.hw_models.lut_gemm import lut_gemm

    products = [op for op in workload(model, phase="decode", batch=batch) if op.role in ("linear", "head")]
    total: Estimate | None = None
    for op in products:
        if engine is None:
            time = cpu_gemm(op.m, op.n, op.k, weights, core, threads)
        else:
            time = lut_gemm(op.m, op.n, op.k, weights, engine=engine, core=core, threads=threads).time
        time = time * (op.count * op.groups)
        total = time if total is None else total + time
    assert total is not None
    value, low, high = (batch / seconds for seconds in (total.value, total.high, total.low))
    return Estimate(value, low, high, "tokens/s", total.bound, total.provenance)


@dataclass(frozen=True)
class MeasuredTokens:
    """A measured speed.

    Attributes:
        tokens_per_second: As published.
        joules_per_token: Measured power over speed, or None.
        source: Who published it.
    """

    tokens_per_second: float
    joules_per_token: float | None
    source: str


def measured_tokens(core: str, model: str, bits: int, engine: str, threads: int) -> MeasuredTokens:
    """Return a published speed of a language model on a CPU.

    Args:
        core: Name of the CPU.
        model: "Llama-2-7B" or "BitNet-3B".
        bits: Bits of the weights.
        engine: "t_mac" or "llama.cpp".
        threads: Threads.

    Raises:
        ArgumentError: Nothing is published for these.

    Example:
        >>> measured_tokens("m2_ultra", "Llama-2-7B", 2, "t_mac", 1).tokens_per_second
        16.68
    """
    wanted = (cpu_core(core).name, model, str(bits), engine, str(threads))
    keys = ("core", "model", "bits", "engine", "threads")
    for row in rows("cpu_measured"):
        if tuple(row[key] for key in keys) == wanted:
            speed = float(row["tokens_per_second"])
            return MeasuredTokens(speed, float(row["power"]) / speed if row["power"] else None, row["source"])
    listed = [" ".join(row[key] for key in keys) for row in rows("cpu_measured")]
    raise ArgumentError(unknown_name("measurement", " ".join(wanted), listed))
