"""The time of a matrix product with operands in any format, on a GPU.

Operands that are native in one and the same kernel run there. All others stay packed in memory and are multiplied in
bfloat16, either unpacked inside the kernel or unpacked by a pass of their own first, whichever is faster.

The product starts from bfloat16 activations in memory, so quantizing the activations is always part of it. Measured
fp8 and nvfp4 kernels contain that pass in their start time; for all others it is added, at least as long as the start
that the measured kernels spend on it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from lowp.hw_models.arguments import sizes
from lowp.hw_models.devices import Device
from lowp.hw_models.devices import device as find_device
from lowp.hw_models.estimate import Estimate
from lowp.hw_models.kernels import Fit, fit, quantizing_start
from lowp.hw_models.native import DEQUANTIZED, Instructions, Operand, operand
from lowp.hw_models.passes import WIDE_BYTES, alu_rate, quantize_cost, unpack_cost
from lowp.hw_models.tile_wave import SMALL_BATCH_TILES, TILES, Kernel, Timing, Work, roofline, tile_wave

#: Weight-only kernels for at most this many bits are described by W4A16, wider ones by W8A16.
_NARROW_BITS = 5


def gemm(m: int, n: int, k: int, a: Any, b: Any, out: Any = "bfloat16", device: str | Device = "h100") -> Estimate:
    """Predict the time of `out[m, n] = a[m, k] @ b[k, n]` (or `b[n, k]` transposed; the time is the same).

    The interval covers nine of ten measured shapes where parameters were fitted on this device and dtype; elsewhere it
    is widened, and the provenance says so. Its lower end is never below the roofline, except that operands which fit
    the last-level cache may beat the memory bandwidth.

    Args:
        m: Rows of the activations (tokens).
        n: Columns of the weights.
        k: Depth.
        a: Format of the activations: a name, a `lowp.formats` format, or an `Operand`.
        b: Format of the weights.
        out: Format of the result.
        device: A device or its name.

    Returns:
        Seconds. `bound` is "compute", "memory", "convert" (unpacking instructions) or "launch".

    Raises:
        ArgumentError: A size is not positive, the device is unknown, or it lacks the dtype that is computed in.
        FormatError: A format is unknown.

    Source:
        Tile and wave model fitted to the GEMM tables of NVIDIA AIConfigurator; see `data/gemm_fit.csv`.

    Example:
        >>> gemm(8192, 8192, 8192, a="fp8", b="fp8", device="h100").bound
        'compute'
        >>> gemm(1, 8192, 8192, a="bfloat16", b="int4_g128", device="h100").bound
        'memory'
    """
    return plan(m, n, k, a, b, out, device).time


@dataclass(frozen=True)
class Plan:
    """How a product is carried out: its time, and the counts that its energy follows from.

    Attributes:
        time: Seconds.
        compute: Dtype of the multiplication.
        multiply_adds: Useful multiply-adds.
        bytes_moved: Bytes to and from memory, conversions included.
        instructions: Integer instructions of conversions.
    """

    time: Estimate
    compute: str
    multiply_adds: int
    bytes_moved: float
    instructions: Instructions


def plan(m: int, n: int, k: int, a: Any, b: Any, out: Any = "bfloat16", device: str | Device = "h100") -> Plan:
    """Return how `gemm` would carry out a product; same arguments and errors."""
    m, n, k = sizes(m=m, n=n, k=k)
    machine = find_device(device)
    left, right, result = (operand(f, machine) for f in (a, b, out))
    return _plan(m, n, k, left, right, result.bytes_per_value, machine)


@dataclass(frozen=True)
class _Path:
    """One way to carry out a product, at one point of the interval."""

    timing: Timing
    bytes_moved: float


@lru_cache(maxsize=65536)
def _plan(m: int, n: int, k: int, a: Operand, b: Operand, out_bytes: float, device: Device) -> Plan:
    kernel, compute = _kernel(a, b)
    native = a.kernel == b.kernel == kernel
    parameters = fit(device.name, kernel)
    work = Work(
        m=m,
        n=n,
        k=k,
        bytes_moved=a.bytes_per_value * m * k + b.bytes_per_value * n * k + out_bytes * m * n,
        peak=device.peak(compute),
        bandwidth=device.bandwidth,
        sms=device.sms,
        alu_rate=alu_rate(device) / device.sms,
    )
    if native:
        typical, fast, slow = (
            _Path(tile_wave(work, p), work.bytes_moved) for p in (parameters.typical, parameters.fast, parameters.slow)
        )
    else:
        typical, fast, slow = (_converted(work, a, b, parameters, device, end) for end in ("value", "low", "high"))
    product = Estimate(
        value=typical.timing.seconds,
        low=min(typical.timing.seconds, max(fast.timing.seconds / (1 + parameters.error), _floor(work, device))),
        high=slow.timing.seconds / (1 - parameters.error),
        unit="s",
        bound=typical.timing.bound,
        provenance=_provenance(a, b, compute, native, parameters, device),
    )
    spent = Instructions(*(path.timing.instructions for path in (typical, *sorted((fast, slow), key=_instructions))))
    done = Plan(product, compute, m * n * k, typical.bytes_moved, _ordered(spent))
    return _with_quantizing(done, m * k, a, native and parameters.quantizes, device)


def _instructions(path: _Path) -> float:
    return path.timing.instructions


def _ordered(i: Instructions) -> Instructions:
    """Keep low <= value <= high when the ends of the interval took another path."""
    return Instructions(i.value, min(i.low, i.value), max(i.high, i.value))


def _kernel(a: Operand, b: Operand) -> tuple[str, str]:
    """Return the kernel family and the compute dtype of a pair of operands."""
    if a.kernel is not None and a.compute is not None and a.kernel == b.kernel:
        return a.kernel, a.compute
    if a.compute in ("bfloat16", "float16"):
        return ("w4a16" if b.bits_per_value <= _NARROW_BITS else "w8a16"), a.compute
    return "dequantize", DEQUANTIZED


def _converted(work: Work, a: Operand, b: Operand, parameters: Fit, device: Device, end: str) -> _Path:
    """Return the faster of unpacking inside the kernel and unpacking first, at one end of the interval."""
    which = {"value": "typical", "low": "fast", "high": "slow"}[end]
    kept = ("bfloat16", "float16")  # activations that the kernel multiplies as they are
    unpack_a = 0.0 if a.kernel in kept else getattr(a.unpack, end)
    small = tuple(tile for tile in SMALL_BATCH_TILES if work.m <= tile[0])
    inside = replace(work, unpack_a=unpack_a, unpack_b=getattr(b.unpack, end), tiles=TILES + small)
    fused = _Path(tile_wave(inside, _parameters(parameters, which)), work.bytes_moved)
    first = _unpacked_first(work, a, b, device, end, which)
    return min(fused, first, key=lambda path: path.timing.seconds)


def _unpacked_first(work: Work, a: Operand, b: Operand, device: Device, end: str, which: str) -> _Path:
    """Return the time of writing each packed operand to memory as bfloat16, then a bfloat16 product."""
    counts = ((a, work.m * work.k), (b, work.n * work.k))
    packed = [(o, count) for o, count in counts if o.kernel not in ("bfloat16", "float16")]
    passes = [unpack_cost(count, o, device) for o, count in packed]
    widened = sum((WIDE_BYTES - o.bytes_per_value) * count for o, count in packed)
    wide = replace(work, bytes_moved=work.bytes_moved + widened)
    timing = tile_wave(wide, _parameters(fit(device.name, DEQUANTIZED), which))
    return _Path(
        Timing(
            timing.seconds + sum(getattr(p, end) for p in passes),
            timing.bound,
            sum(getattr(p.instructions, end) for p in passes),
        ),
        wide.bytes_moved + sum(p.bytes_moved for p in passes),
    )


def _parameters(of: Fit, which: str) -> Kernel:
    return {"typical": of.typical, "fast": of.fast, "slow": of.slow}[which]


def _floor(work: Work, device: Device) -> float:
    """Return the roofline; without its memory part where everything fits the last-level cache."""
    return roofline(replace(work, bytes_moved=0.0) if work.bytes_moved < device.l2 else work)


def _with_quantizing(done: Plan, values: int, a: Operand, included: bool, device: Device) -> Plan:
    """Add the pass that quantizes the activations, unless the measured kernel contains it."""
    if included or not a.quantized:
        return done
    cost = quantize_cost(values, a, device)
    start = quantizing_start(device.name)
    added = f"with a pass to quantize activations to {a.name}, started as late as in measured stacks"
    extra = Estimate(max(cost.value, start), cost.low, max(cost.high, start), "s", "launch", added)
    time = replace(done.time + extra, bound=done.time.bound)
    return replace(
        done,
        time=time,
        bytes_moved=done.bytes_moved + cost.bytes_moved,
        instructions=done.instructions + cost.instructions,
    )


def _provenance(a: Operand, b: Operand, compute: str, native: bool, parameters: Fit, device: Device) -> str:
    how = "native" if native else f"not native on {device.name}, unpacked to {compute}"
    pair = a.name if a.name == b.name else f"{a.name} x {b.name}"
    included = "; quantizing the activations is in the measured start time" if native and parameters.quantizes else ""
    return f"tile and wave model; {pair} {how}; {parameters.provenance}{included}"
