"""The time of a matrix product with operands in any format, on a GPU.

Operands that are native in one and the same kernel run there. All others stay packed in memory and are multiplied in a
dtype that holds both (mostly bfloat16; fp8 or int8 for narrower elements with one scale), either unpacked inside the
kernel or unpacked by a pass of their own first, whichever is faster.

The product starts from bfloat16 activations in memory, so quantizing the activations is always part of it. Measured
fp8 and nvfp4 kernels contain that pass, in their start time and a time per value; for all others it is added, at least
as long as the start that the measured kernels spend on it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, NamedTuple

from lowp._errors import ArgumentError
from lowp.hw_models.arguments import sizes
from lowp.hw_models.devices import Device
from lowp.hw_models.devices import device as find_device
from lowp.hw_models.estimate import Estimate
from lowp.hw_models.kernels import Fit, fit, quantizing_start
from lowp.hw_models.native import WIDE, Instructions, Operand, operands
from lowp.hw_models.passes import alu_rate, quantize_cost, unpack_cost
from lowp.hw_models.tile_wave import SMALL_BATCH_TILES, TILES, Kernel, Timing, Work, roofline, tile_wave

#: Weight-only kernels for at most this many bits are described by W4A16, wider ones by W8A16.
_NARROW_BITS = 5


def gemm(
    m: int,
    n: int,
    k: int,
    a: Any,
    b: Any,
    out: Any = "bfloat16",
    device: str | Device = "h100",
    *,
    groups: int = 1,
    accumulator: str = "",
    stack: str = "",
) -> Estimate:
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
        groups: Independent products of this size in one launch, such as heads or experts.
        accumulator: Dtype of the matrix unit's sums; default the usual one. "float16" is faster on consumer cards.
        stack: Software whose kernels are predicted, such as "pytorch"; default that of the device's first fit.

    Returns:
        Seconds. `bound` is "compute", "memory", "convert" (unpacking instructions) or "launch".

    Raises:
        ArgumentError: A size is not positive, the device is unknown, it lacks every dtype that holds the operands, or
            nothing was measured on it with this software.
        FormatError: A format is unknown.

    Source:
        Tile and wave model fitted to the GEMM tables of NVIDIA AIConfigurator; see `data/gemm_fit.csv`.

    Example:
        >>> gemm(8192, 8192, 8192, a="fp8", b="fp8", device="h100").bound
        'compute'
        >>> gemm(1, 8192, 8192, a="bfloat16", b="int4_g128", device="h100").bound
        'memory'
    """
    return plan(m, n, k, a, b, out, device, groups=groups, accumulator=accumulator, stack=stack).time


@dataclass(frozen=True)
class Plan:
    """How a product is carried out: its time, and the counts that its energy follows from.

    Attributes:
        time: Seconds.
        kernel: Family of kernels.
        compute: Dtype of the multiplication.
        multiply_adds: Useful multiply-adds.
        bytes_moved: Bytes to and from memory, conversions included.
        instructions: Integer instructions of conversions.
        sent: Bytes sent to other devices.
    """

    time: Estimate
    kernel: str
    compute: str
    multiply_adds: int
    bytes_moved: float
    instructions: Instructions
    sent: float = 0.0


def plan(
    m: int,
    n: int,
    k: int,
    a: Any,
    b: Any,
    out: Any = "bfloat16",
    device: str | Device = "h100",
    *,
    groups: int = 1,
    accumulator: str = "",
    stack: str = "",
    left_values: int = 0,
    out_values: int = 0,
) -> Plan:
    """Return how `gemm` would carry out a product; same arguments and errors.

    `left_values` and `out_values` are those of the left operand and of the result where they are fewer than
    `groups * m * k` and `groups * m * n`: in convolutions.
    """
    m, n, k, groups = sizes(m=m, n=n, k=k, groups=groups)
    machine = find_device(device)
    left, right, result = operands(machine, a=a, b=b, out=out)
    written = result.bytes_per_value * (out_values or groups * m * n)
    return _plan(m, n, k, left, right, written, machine, groups, accumulator, stack, left_values or groups * m * k)


class _Way(NamedTuple):
    """A family of kernels and the dtype it multiplies in."""

    kernel: str
    compute: str


@dataclass(frozen=True)
class _Path:
    """One way to carry out a product, at one point of the interval."""

    timing: Timing
    bytes_moved: float


@lru_cache(maxsize=65536)
def _plan(
    m: int,
    n: int,
    k: int,
    a: Operand,
    b: Operand,
    written: float,
    device: Device,
    groups: int,
    accumulator: str,
    stack: str,
    left_values: int,
) -> Plan:
    work = Work(
        m=m,
        n=n,
        k=k,
        bytes_moved=a.bytes_per_value * left_values + groups * b.bytes_per_value * n * k + written,
        peak=0.0,
        bandwidth=device.need("bandwidth"),
        sms=int(device.need("sms")),
        groups=groups,
        l2=device.l2,
    )
    plans = [
        _planned(replace(work, peak=device.peak(way.compute, accumulator)), way, a, b, device, stack, left_values)
        for way in _ways(a, b, device)
    ]
    return min(plans, key=lambda plan: plan.time.value)


def _planned(work: Work, way: _Way, a: Operand, b: Operand, device: Device, stack: str, left_values: int) -> Plan:
    """Return how one family of kernels carries out a product."""
    native = a.kernel == b.kernel == way.kernel
    parameters = fit(device.name, way.kernel, stack)
    if native:
        typical, fast, slow = (
            _Path(tile_wave(work, p), work.bytes_moved) for p in (parameters.typical, parameters.fast, parameters.slow)
        )
    else:
        work = replace(work, alu_rate=alu_rate(device) / device.need("sms"))
        typical, fast, slow = (
            _converted(work, way, a, b, parameters, device, stack, end) for end in ("value", "low", "high")
        )
    included = parameters.quantizes and a.quantized
    waits = (left_values / work.bandwidth * x if included else 0.0 for x in parameters.quantize_bytes)
    value, low, high = (path.timing.seconds + w for path, w in zip((typical, fast, slow), waits, strict=True))
    product = Estimate(
        value=value,
        low=min(value, max(low / (1 + parameters.error), _floor(work, device))),
        high=high / (1 - parameters.error),
        unit="s",
        bound=typical.timing.bound,
        provenance=_provenance(a, b, way.compute, native, parameters, device),
    )
    spent = Instructions(*(path.timing.instructions for path in (typical, *sorted((fast, slow), key=_instructions))))
    multiply_adds = work.groups * work.m * work.n * work.k
    done = Plan(product, way.kernel, way.compute, multiply_adds, typical.bytes_moved, _ordered(spent))
    return _with_quantizing(done, left_values, a, included, device, stack)


def _instructions(path: _Path) -> float:
    return path.timing.instructions


def _ordered(i: Instructions) -> Instructions:
    """Keep low <= value <= high when the ends of the interval took another path."""
    return Instructions(i.value, min(i.low, i.value), max(i.high, i.value))


def _ways(a: Operand, b: Operand, device: Device) -> list[_Way]:
    """Return the families of kernels that can multiply two operands, with the dtype each computes in.

    Raises:
        ArgumentError: The device has no dtype that holds the values of both.
    """
    if a.kernel is not None and a.compute is not None and a.kernel == b.kernel:
        return [_Way(a.kernel, a.compute)]
    ways = []
    wider = a.kernel or a.wider
    if wider is not None and wider == (b.kernel or b.wider):
        ways.append(_Way(wider, wider))  # such kernels are named after their dtype
    common = next((dtype for dtype in a.wide if dtype in b.wide), None)
    if common is not None and a.compute == common and common in ("bfloat16", "float16"):
        ways.append(_Way("w4a16" if b.bits_per_value <= _NARROW_BITS else "w8a16", common))
    elif common is not None:
        ways.append(_Way("dequantize", common))
    if not ways:
        listed = ", ".join(repr(dtype) for dtype in WIDE if device.has(dtype))
        raise ArgumentError(
            f"device={device.name!r} has no dtype that holds the values of both {a.name!r} and {b.name!r}; "
            f"it has {listed}."
        )
    return ways


def _kept(o: Operand, way: _Way) -> bool:
    """Whether a kernel multiplies an operand as it is stored."""
    return o.compute is not None and way.compute == o.compute and (o.kernel == way.kernel or o.compute in WIDE)


def _converted(
    work: Work, way: _Way, a: Operand, b: Operand, parameters: Fit, device: Device, stack: str, end: str
) -> _Path:
    """Return the faster of unpacking inside the kernel and unpacking first, at one end of the interval."""
    which = {"value": "typical", "low": "fast", "high": "slow"}[end]
    unpack_a, unpack_b = (0.0 if _kept(o, way) else getattr(o.unpack, end) for o in (a, b))
    small = tuple(tile for tile in SMALL_BATCH_TILES if work.m <= tile[0])
    inside = replace(work, unpack_a=unpack_a, unpack_b=unpack_b, tiles=TILES + small)
    fused = _Path(tile_wave(inside, _parameters(parameters, which)), work.bytes_moved)
    first = _unpacked_first(work, way, a, b, device, stack, end, which)
    return min(fused, first, key=lambda path: path.timing.seconds)


def _unpacked_first(
    work: Work, way: _Way, a: Operand, b: Operand, device: Device, stack: str, end: str, which: str
) -> _Path:
    """Return the time of writing each packed operand to memory in the dtype that is computed in, then its product."""
    width = WIDE[way.compute][2] if way.compute in WIDE else 1
    counts = ((a, work.groups * work.m * work.k), (b, work.groups * work.n * work.k))
    packed = [(o, count) for o, count in counts if not _kept(o, way)]
    passes = [unpack_cost(count, o, device, width) for o, count in packed]
    widened = sum((width - o.bytes_per_value) * count for o, count in packed)
    wide = replace(work, bytes_moved=work.bytes_moved + widened)
    timing = tile_wave(wide, _parameters(fit(device.name, way.compute, stack), which))
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


def _with_quantizing(done: Plan, values: int, a: Operand, included: bool, device: Device, stack: str) -> Plan:
    """Add the pass that quantizes the activations; no time where the measured kernel contains it."""
    if not a.quantized:
        return done
    cost = quantize_cost(values, a, device)
    if included:
        return replace(
            done, bytes_moved=done.bytes_moved + cost.bytes_moved, instructions=done.instructions + cost.instructions
        )
    start = quantizing_start(device.name, stack)
    added = f"with a pass to quantize activations to {a.name}, started as late as in measured stacks"
    late = start + cost.bytes_moved / device.need("bandwidth")
    extra = Estimate(max(cost.value, late), cost.low, max(cost.high, late), "s", "launch", added)
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
    included = "; quantizing the activations is in the measured time" if native and parameters.quantizes else ""
    return f"tile and wave model; {pair} {how}; {parameters.provenance}{included}"
