"""The verbs of `lowp` on JAX arrays: same names, same bits, and gradients; under every transformation of JAX.

`lowp.quantize`, `lowp.encode` and `lowp.decode` accept JAX arrays too; here `quantize` also takes the gradient's rule,
and all know shards. Everything is integer operations on bits, without callbacks: `jit`, `vmap`, `grad`, `jvp`, `scan`,
`checkpoint`, `shard_map` and partitioned arrays give the bits of the plain call. It works with and without
`jax_enable_x64`; without it there are no float64 arrays, and what would need them is an error that says so.

While JAX traces, numbers cannot be looked at. What raises an error for given numbers then does this instead: a NaN that
has no code gets that of zero (`encode`), a value that the dtype cannot hold becomes NaN, so does a number that is no
code, and blocks that would be refused become NaN.
"""

from __future__ import annotations

from typing import Any

from lowp.emulation import Cast, Recipe, Report, Rule
from lowp.emulation import jax_optim as optim
from lowp.emulation._jax_emulate import Emulated, emulate, every_operation
from lowp.emulation._jax_stateful import emulate_with_state
from lowp.emulation._jax_unit import matmul as _matmul
from lowp.emulation.accumulator import Accumulator
from lowp.emulation.matrix_units import MatrixUnit
from lowp.formats import Format
from lowp.rounding import Encoded
from lowp.rounding._jax import decode_array, encode_array, quantize_array
from lowp.rounding._jax_scale import lsq_quantize_array
from lowp.rounding.gradients import GRADIENTS, register_gradient
from lowp.rounding.shard import Shard

__all__ = [
    "GRADIENTS",
    "Cast",
    "Emulated",
    "Recipe",
    "Report",
    "Rule",
    "Shard",
    "decode",
    "emulate",
    "emulate_with_state",
    "encode",
    "every_operation",
    "lsq_quantize",
    "matmul",
    "optim",
    "quantize",
    "register_gradient",
]


def quantize(
    x: Any,
    fmt: str | Format,
    rounding: str = "ties_to_even",
    overflow: str = "saturate",
    seed: Any = 0,
    axis: int | tuple[int, int] = -1,
    *,
    random_bits: int | None = None,
    saturation_bits: int = 0,
    nan: str | None = None,
    gradient: str = "straight_through",
    shard: Shard | None = None,
    axis_name: Any = None,
) -> Any:
    """Round an array to the values of a format, once; the same bits as `lowp.quantize` gives for the same numbers.

    Special cases are those of `lowp.quantize`, but for what the module says about tracing. Subnormal numbers count,
    also where the device flushes them. Backward and forward (`jvp`), gradients pass "straight_through" (Bengio, Leonard
    and Courville, arXiv:1308.3432), "clipped": only where the value lies between the format's smallest and largest
    value (in a block: those of the block), "learned_scale" as "clipped", "none" not at all, or as a rule of your own
    says, see `register_gradient` (backward alone).

    Args:
        x: Array of float16, bfloat16, float32 or float64, or of integers, which give float64, or float32 without
            `jax_enable_x64`; what NumPy makes an array of, too, as long as JAX can hold it.
        fmt: A format or its name.
        rounding: As `lowp.quantize`, like the arguments that follow.
        overflow: Overflow mode.
        seed: Seed of the stochastic modes: a Python integer, or an integer array scalar, which may be traced, so that a
            new seed needs no compilation. Equal numbers give equal bits.
        axis: Axis, or pair of axes, that blocks run along.
        random_bits: Random bits of the stochastic modes.
        saturation_bits: Saturated bits of the wrapping overflow modes.
        nan: What becomes of NaN where the format has none; "error" cannot be asked for while JAX traces.
        gradient: Name of a rule, see `GRADIENTS`.
        shard: Where `x` lies in a larger array, whose random bits it then takes: inside `shard_map`.
        axis_name: Inside `shard_map`, the mesh axis or axes over which the array is spread, so that the scale of a
            whole tensor is that of all shards.

    Returns:
        An array of the shape and dtype of `x`.

    Raises:
        ArgumentError: Also float64 numbers without `jax_enable_x64`, and, while JAX traces, a format whose largest
            value the dtype of `x` cannot hold.
        ArgumentTypeError, FormatError, RangeError: As `lowp.quantize`.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> x = jnp.array([0.3, 500.0])
        >>> jax.jit(lambda x: quantize(x, "float8_e4m3fn"))(x).tolist()
        [0.3125, 448.0]
        >>> jax.grad(lambda x: quantize(x, "float8_e4m3fn", gradient="clipped").sum())(x).tolist()
        [1.0, 0.0]
    """
    return quantize_array(
        x, fmt, rounding, overflow, seed, axis, random_bits, saturation_bits, nan, gradient, shard, axis_name
    )


def encode(
    x: Any, fmt: str | Format, rounding: str = "ties_to_even", overflow: str = "saturate", **options: Any
) -> Encoded:
    """Round an array to the codes of a format; codes and scales are JAX arrays, without gradient.

    Special cases, arguments and errors are those of `lowp.encode` and, for `seed`, `shard` and `axis_name`, of
    `quantize`. The result is a pytree: it passes through `jit` and its kin. Codes of more than 32 bits need
    `jax_enable_x64`.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> jax.jit(lambda x: encode(x, "float8_e4m3fn"))(jnp.array([0.3, 448.0])).codes.tolist()
        [42, 126]
    """
    return encode_array(x, fmt, rounding, overflow, **options)


def decode(codes: Any, fmt: str | Format | None = None, *, dtype: Any = None) -> Any:
    """Return the values of codes as a JAX array.

    Special cases are those of `lowp.decode`, but for what the module says about tracing.

    Args:
        codes: An `Encoded`, or codes (any integer array) together with `fmt`.
        fmt: The format of plain codes.
        dtype: float16, bfloat16, float32 or float64; default the dtype that was encoded, for plain codes float64, or
            float32 without `jax_enable_x64`.

    Raises:
        ArgumentError: Also dtype float64 without `jax_enable_x64`.
        ArgumentTypeError, FormatError, RangeError: As `lowp.decode`.

    Example:
        >>> import jax.numpy as jnp
        >>> decode(jnp.array([126, 127], jnp.uint8), "float8_e4m3fn").tolist()
        [448.0, nan]
    """
    return decode_array(codes, fmt, dtype)


def lsq_quantize(x: Any, scale: Any, fmt: str | Format, rounding: str = "ties_to_even", **options: Any) -> Any:
    """Return `quantize(x / scale) * scale` with a gradient for the scale, so that it is learned (LSQ).

    The gradient of `x` passes where `x / scale` lies strictly inside the range of the format. That of the scale is the
    sum of `quantize(x / scale) - x / scale` inside and of the format's end outside, divided by `sqrt(n * fmt.max)` for
    the n elements that share a scale.

    Args:
        x: Array of floats.
        scale: Positive scale: a number or array that broadcasts to the shape of `x` (one for each channel, say).
        fmt: A scalar format or its name.
        rounding: A rounding mode.
        options: `overflow`, `seed`, `random_bits` and `shard` as `quantize`.

    Raises:
        ArgumentError: The scale does not broadcast to `x`, or is not positive (unless JAX traces).
        FormatError: A block format.

    Source:
        Esser et al., Learned Step Size Quantization, arXiv:1902.08153, equations 1 to 4 and section 2.2.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> x, scale = jnp.array([0.3, 9.0]), jnp.float32(0.5)
        >>> lsq_quantize(x, scale, "int4").tolist()
        [0.5, 3.5]
        >>> round(float(jax.grad(lambda s: lsq_quantize(x, s, "int4").sum())(scale)), 4)
        1.9777
    """
    return lsq_quantize_array(x, scale, fmt, rounding, **options)


def matmul(
    a: Any,
    b: Any,
    c: Any = None,
    unit: str | MatrixUnit | None = None,
    *,
    accumulator: Accumulator | str | Format | None = None,
    fmt: str | Format | None = None,
    trace: bool = False,
    callback: bool = False,
) -> Any:
    """Return `a @ b + c`, summed as a matrix unit or an accumulator does; the same bits as `lowp.matmul`.

    Arrays on the CPU whose numbers can be looked at are summed by the NumPy kernels. Under `jit`, `vmap`, `grad` and
    `shard_map` everything is array code, without callbacks, and a value that an operand's format does not have becomes
    NaN. Gradients and tangents are those of the plain product (straight-through); scales of encoded operands get none.

    Args:
        a: Array of shape (..., m, k) or (k,), or `lowp.Encoded` codes whose blocks run along the last axis.
        b: Array of shape (..., k, n) or (k,); blocks run along the axis of k.
        c: Addend of shape (..., m, n), or None for +0.
        unit: A matrix unit or its name, see `lowp.matrix_units()`.
        accumulator: An `Accumulator` in place of a unit, or a format for one that adds in it.
        fmt: Format that results are rounded to in the end, once more.
        trace: Return a `SumReport` with the result; not while JAX traces.
        callback: Whether a traced program may call back to the host for what no array code does: sums that are wider
            than float64 (quires, Kulisch accumulators), lanes of alignments (CDNA3), products of float64 numbers.

    Returns:
        An array of float32 where that holds the results' format, else of float64.

    Raises:
        ArgumentError: As `lowp.matmul`; also results that need float64 without `jax_enable_x64`, and, while JAX traces,
            what array code does not have.
        ArgumentTypeError, FormatError: As `lowp.matmul`.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> a = quantize(jnp.full((1, 4096), 0.0625), "float8_e4m3fn")
        >>> jax.jit(lambda a: matmul(a, a.T, unit="hopper/wgmma_m64n8k32/e4m3_e4m3/f32"))(a).tolist()
        [[16.0]]
    """
    return _matmul(a, b, c, unit=unit, accumulator=accumulator, fmt=fmt, trace=trace, callback=callback)
