"""The verbs: `quantize` a real to a representable real, `encode` it to a code, `decode` a code to a value."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lowp._errors import ArgumentError, ArgumentTypeError
from lowp.formats.block import Block
from lowp.formats.packed import Packed
from lowp.formats.parse import parse
from lowp.formats.spec import Format, ScalarFormat
from lowp.formats.tables import scalar_format
from lowp.rounding._arrays import Source, as_source, is_float, to_caller, unlocked
from lowp.rounding._dispatch import is_jax, is_torch
from lowp.rounding._quick import quick_blocks, quick_codes, quick_run, quick_values, quickly
from lowp.rounding._scalar import check_sticky, decode_values, encode_values, quantize_values
from lowp.rounding.encoded import Encoded
from lowp.rounding.request import ENCODE_NAN, QUANTIZE_NAN, Request, check_format, make_request, without_nan


def quantize(
    x: Any,
    fmt: str | Format,
    rounding: str = "ties_to_even",
    overflow: str = "saturate",
    seed: int = 0,
    axis: int | tuple[int, int] = -1,
    out: Any = None,
    *,
    random_bits: int | None = None,
    saturation_bits: int = 0,
    nan: str | None = None,
) -> Any:
    """Round `x` to the values of a format, once, and return real numbers of the type of `x` ("fake quantization").

    NaN stays NaN, also where a scalar format has no NaN (`nan` says otherwise). Values past the largest finite one and
    infinities follow `overflow`, decided on the rounded value. -0 is kept where the format has it, else it is +0.
    Subnormals of the format are rounded like everything else. In a block format NaN and infinity follow the format's
    `nonfinite` policy (by default the block becomes NaN, but a vendor's recipe does what the vendor's code does), and a
    last block may be shorter than the others; its values are rounded once more, to the dtype of `x`, where a product
    of element and scale needs it, and beyond that dtype they are infinite.

    Args:
        x: Array of float16, bfloat16, float32, float64 or integers (integers give float64); a Python number or nested
            lists of them; or a torch tensor or JAX array on any device. Any shape, also empty; never modified unless
            `out is x`.
        fmt: A format or its name.
        rounding: A rounding mode, see `lowp.rounding.modes.ROUNDING_MODES`. A codebook with decision points of its own,
            such as nf4, decides every nearest mode by them.
        overflow: An overflow mode, see `lowp.rounding.modes.OVERFLOW_MODES`.
        seed: Seed of the stochastic modes, 0 to 2^64 - 1. The random bits of an element depend on the seed and its
            position in `x` (C order) alone.
        axis: Axis that blocks run along, or the pair of axes of two-dimensional blocks (then default the last two).
        out: Array to write into, of the result's shape and dtype; it may be `x`.
        random_bits: Random bits of the stochastic modes, 1 to 32; default 32.
        saturation_bits: Saturated bits of overflow "wrap" and "wrap_sign_magnitude", as AMD's `ap_fixed`.
        nan: What a NaN becomes where the format has none: "keep" (the default), "zero", "max" or "error". In a block
            format the default is the format's `nonfinite` policy; "error" and "zero" take every NaN of `x`.

    Returns:
        The rounded values; Python numbers give a float, lists a float64 array.

    Raises:
        FormatError: Unknown or impossible format.
        ArgumentError, ArgumentTypeError: An argument that is not allowed; the message lists what is.
        RangeError: A NaN that has no place, or a value of a scalar format that the dtype of `x` cannot hold.

    Example:
        >>> quantize([464.0, 465.0, -0.1], "float8_e4m3fn").tolist()
        [448.0, 448.0, -0.1015625]
        >>> quantize([464.0, 465.0], "float8_e4m3fn", overflow="infinity_or_nan").tolist()
        [448.0, nan]
    """
    if is_torch(x):
        from lowp.rounding._torch import quantize_tensor

        return quantize_tensor(x, fmt, rounding, overflow, seed, axis, out, random_bits, saturation_bits, nan)
    if is_jax(x):
        from lowp.rounding._jax import quantize_array

        if out is not None:
            raise ArgumentError("out is for arrays that can be written, and JAX arrays cannot.")
        return quantize_array(x, fmt, rounding, overflow, seed, axis, random_bits, saturation_bits, nan)
    if quickly(x, out, axis, seed):
        run = quick_run(x.dtype, fmt, rounding, overflow, random_bits, saturation_bits, nan)
        found = None if run is None else run(x, np.empty(x.shape, x.dtype) if out is None else out, seed)
        if found is not None:
            return found
    resolved = parse(fmt)
    request = make_request(rounding, overflow, seed, random_bits, saturation_bits, nan or "keep", QUANTIZE_NAN)
    if isinstance(resolved, Block) and nan is None:
        found = quick_blocks(x, out, resolved, request, axis)
        if found is not None:
            return found
    source = _checked(x, resolved, request)
    check_axis(axis, source.values.ndim, resolved)
    target = _checked_out(out, source)
    values = unlocked(np.ascontiguousarray(source.values).reshape(source.values.shape))
    if isinstance(resolved, Block):
        from lowp.rounding._blocks import quantize_blocks
        from lowp.rounding._fast_blocks import try_fast

        values = without_nan(values, resolved, nan)
        result = try_fast(values, resolved, request, axis, _direct(target, values), dtype=source.dtype_name)
        if result is None:
            result = quantize_blocks(values, resolved, request, axis, source.dtype_name)
    elif isinstance(resolved, Packed):
        from lowp.rounding._packed import quantize_packed

        result = quantize_packed(without_nan(values, resolved, nan), resolved, request, axis)
    else:
        assert isinstance(resolved, ScalarFormat)
        result = quantize_values(values, resolved, request, _direct(target, values))
    return _returned(result, source, resolved, target, x)


def encode(
    x: Any,
    fmt: str | Format,
    rounding: str = "ties_to_even",
    overflow: str = "saturate",
    seed: int = 0,
    axis: int | tuple[int, int] = -1,
    *,
    random_bits: int | None = None,
    saturation_bits: int = 0,
    nan: str | None = None,
) -> Encoded:
    """Round `x` to the codes of a format, once; block formats also get scales.

    Special cases as `quantize`, but a NaN needs a code: where a scalar format has none it is an error by default. A
    block whose scale is NaN has element codes 0.

    Args:
        x: As for `quantize`.
        fmt: A format or its name.
        rounding: As for `quantize`.
        overflow: As for `quantize`.
        seed: As for `quantize`.
        axis: As for `quantize`.
        random_bits: As for `quantize`.
        saturation_bits: As for `quantize`.
        nan: What a NaN becomes where the format has none: "error" (the default), "zero" or "max". Block formats as for
            `quantize`.

    Returns:
        An `Encoded` with `.codes`, `.scales`, `.tensor_scale`, `.format`, `.nbytes` and `.pack()`.

    Raises:
        FormatError, ArgumentError, ArgumentTypeError, RangeError: As `quantize`.

    Example:
        >>> encode([0.3, 448.0, -0.0], "float8_e4m3fn").codes.tolist()
        [42, 126, 128]
    """
    if is_torch(x):
        from lowp.rounding._torch import encode_tensor

        return encode_tensor(x, fmt, rounding, overflow, seed, axis, random_bits, saturation_bits, nan)
    if is_jax(x):
        from lowp.rounding._jax import encode_array

        return encode_array(x, fmt, rounding, overflow, seed, axis, random_bits, saturation_bits, nan)
    if quickly(x, None, axis, seed):
        run = quick_codes(x.dtype, fmt, rounding, overflow, random_bits, saturation_bits, nan)
        found = None if run is None else run(x)
        if found is not None:
            return found
    resolved = parse(fmt)
    request = make_request(rounding, overflow, seed, random_bits, saturation_bits, nan or "error", ENCODE_NAN)
    source = _checked(x, resolved, request)
    check_axis(axis, source.values.ndim, resolved)
    values = unlocked(np.ascontiguousarray(source.values).reshape(source.values.shape))
    dtype = source.dtype or np.dtype(np.float64)
    if isinstance(resolved, Block):
        from lowp.rounding._blocks import encode_blocks

        values = without_nan(values, resolved, nan)
        return replace(encode_blocks(values, resolved, request, axis), dtype=dtype)
    if isinstance(resolved, Packed):
        from lowp.rounding._packed import encode_packed

        values = without_nan(values, resolved, nan)
        return replace(encode_packed(values, resolved, request, axis), dtype=dtype)
    assert isinstance(resolved, ScalarFormat)
    return Encoded(encode_values(values, resolved, request), resolved, dtype=dtype)


def decode(codes: Any, fmt: str | Format | None = None, *, dtype: Any = None) -> Any:
    """Return the values of codes.

    NaN, infinities and -0 come back as such. Scalar formats decode exactly; block formats multiply element, scale and
    tensor scale and round the exact product once to `dtype` (the recipes "nvfp4_torchao" and "nvfp4_modelopt": in the
    two float32 steps of their systems).

    Args:
        codes: An `Encoded`, or codes (any integer array, list or number) together with `fmt`.
        fmt: The format of plain codes; not given for an `Encoded`.
        dtype: float16, bfloat16, float32 or float64; default the dtype that was encoded, for plain codes float64.

    Returns:
        Values in the shape of the codes; a Python number gives a float.

    Raises:
        ArgumentError: Plain codes without a format, or an `Encoded` with another one than its own.
        ArgumentTypeError: `dtype` is not one of those above.
        FormatError: Plain codes of a block format, which need scales.
        RangeError: A number that is not a code of the format, or a value that `dtype` cannot hold.

    Example:
        >>> decode([126, 127], "float8_e4m3fn").tolist()
        [448.0, nan]
    """
    if is_jax(codes) or (isinstance(codes, Encoded) and is_jax(codes.codes)):
        from lowp.rounding._jax import decode_array

        return decode_array(codes, fmt, dtype)
    if isinstance(codes, Encoded):
        if fmt is not None and parse(fmt) != codes.format:
            raise ArgumentError(f"fmt={fmt!r} differs from the format of the encoded array, {codes.format.name!r}.")
        if is_torch(codes.codes):
            from lowp.rounding._torch import decode_encoded

            return decode_encoded(codes, dtype)
        target = codes.dtype if dtype is None else _float_dtype(dtype)
        found = quick_values(codes.codes, codes.format, target)
        if found is not None:
            return found
        codes = replace(codes, codes=unlocked(codes.codes))
        if isinstance(codes.format, Block):
            from lowp.rounding._blocks import decode_blocks

            return decode_blocks(codes, target.name).astype(target, copy=False)
        if isinstance(codes.format, Packed):
            from lowp.rounding._packed import decode_packed

            return to_caller(decode_packed(codes), Source(np.empty(0), target, False), codes.format)
        return _decoded(codes.codes, scalar_format(codes.format, "decode"), target)
    if fmt is None:
        raise ArgumentError("fmt is missing: plain codes need the format that they are codes of.")
    if is_torch(codes):
        from lowp.rounding._torch import decode_tensor

        return decode_tensor(codes, fmt, dtype)
    scalar = scalar_format(fmt, "decode")
    values = _decoded(codes, scalar, _float_dtype(np.float64 if dtype is None else dtype))
    return float(values) if isinstance(codes, int) else values


def _float_dtype(dtype: Any) -> np.dtype[Any]:
    try:
        target: np.dtype[Any] = np.dtype(dtype)
    except TypeError:
        target = np.dtype(object)
    if not is_float(target):
        raise ArgumentTypeError(f"dtype={dtype!r} is not allowed: float16, bfloat16, float32 or float64.")
    return target


def _decoded(codes: Any, fmt: ScalarFormat, dtype: np.dtype[Any]) -> NDArray[Any]:
    values = decode_values(unlocked(codes) if isinstance(codes, np.ndarray) else codes, fmt, dtype)
    return values if values.dtype == dtype else np.asarray(to_caller(values, Source(values, dtype, False), fmt))


def _checked(x: Any, fmt: Format, request: Request) -> Source:
    """Return the input made ready; every argument has been checked against the format by then."""
    source = as_source(x)
    _check(source, fmt, request)
    return source


def check_request(values: NDArray[Any], fmt: Format, request: Request) -> None:
    """Raise if `fmt` does not go with the overflow mode, or cannot take integers as large as those in `values`."""
    source = as_source(values) if values.dtype.kind in "iu" else Source(values, values.dtype, False)
    _check(source, fmt, request)


def check_axis(axis: Any, ndim: int, fmt: Format) -> None:
    """Raise ArgumentError if a scalar format is given an axis that the array lacks (block formats check their own)."""
    if isinstance(fmt, Block | Packed) or axis == -1:
        return
    axes = axis if isinstance(axis, tuple | list) else (axis,)
    if not all(hasattr(a, "__index__") and -ndim <= a < ndim for a in axes):
        raise ArgumentError(f"axis={axis!r} does not exist in an array of {ndim} dimensions.")


def _check(source: Source, fmt: Format, request: Request) -> None:
    check_format(fmt, request)
    if source.sticky and not isinstance(fmt, Packed):
        element = fmt.element if isinstance(fmt, Block) else fmt
        assert isinstance(element, ScalarFormat)
        check_sticky(element, request)


def _checked_out(out: Any, source: Source) -> NDArray[Any] | None:
    if out is None:
        return None
    if not isinstance(out, np.ndarray):
        raise ArgumentTypeError(f"out must be a NumPy array, not {type(out).__name__}.")
    wanted = source.dtype or np.dtype(np.float64)
    if out.shape != source.values.shape or out.dtype != wanted:
        raise ArgumentError(
            f"out has shape {out.shape} and dtype {out.dtype}; the result has {source.values.shape} and {wanted}."
        )
    if not out.flags.writeable:
        raise ArgumentError("out is read-only; pass an array that can be written.")
    return out


def _direct(target: NDArray[Any] | None, values: NDArray[Any]) -> NDArray[Any] | None:
    """Return `target` if kernels may write into it while they read `values`: the same memory, or none of it."""
    if target is None or target.dtype != values.dtype or not target.flags.c_contiguous:
        return None
    same = target.ctypes.data == values.ctypes.data
    return target if same or not np.may_share_memory(target, values) else None


def _returned(result: NDArray[Any], source: Source, fmt: Format, target: NDArray[Any] | None, x: Any) -> Any:
    if target is not None and result is target:
        return target
    final = to_caller(result, source, fmt)
    if target is not None:
        target[...] = final
        return target
    return final[()] if isinstance(x, np.generic) else final
