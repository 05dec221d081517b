"""The verbs on torch tensors: CPU memory is shared with the NumPy kernels, other devices copy there and back."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch

from lowp._errors import ArgumentError, ArgumentTypeError, unknown_name
from lowp.formats.block import Block
from lowp.formats.codebook import Codebook
from lowp.formats.logarithms import is_logarithmic
from lowp.formats.packed import Packed
from lowp.formats.parse import parse
from lowp.formats.spec import Format, ScalarFormat
from lowp.formats.tables import decode_codes, scalar_format
from lowp.rounding._arrays import as_source, no_room
from lowp.rounding._blocks import decode_blocks, encode_blocks, quantize_blocks, representable_range
from lowp.rounding._fast_blocks import try_fast
from lowp.rounding._packed import decode_packed, encode_packed, quantize_packed
from lowp.rounding._scalar import encode_values, quantize_values
from lowp.rounding.encoded import Encoded, as_numpy
from lowp.rounding.request import ENCODE_NAN, QUANTIZE_NAN, Request, make_request, without_nan
from lowp.rounding.verbs import check_axis, check_request

GRADIENTS = {
    "straight_through": "the gradient passes unchanged",
    "clipped": "the gradient passes where the value lies in the format's range and is zero elsewhere",
    "none": "no gradient: the result is detached",
}


def quantize_tensor(
    x: torch.Tensor,
    fmt: str | Format,
    rounding: str = "ties_to_even",
    overflow: str = "saturate",
    seed: int = 0,
    axis: Any = -1,
    out: torch.Tensor | None = None,
    random_bits: int | None = None,
    saturation_bits: int = 0,
    nan: str | None = None,
    gradient: str = "straight_through",
) -> torch.Tensor:
    """Round a tensor; see `lowp.torch.quantize`."""
    if gradient not in GRADIENTS:
        raise ArgumentError(unknown_name("gradient", gradient, GRADIENTS))
    resolved = parse(fmt)
    request = make_request(rounding, overflow, seed, random_bits, saturation_bits, nan or "keep", QUANTIZE_NAN)
    values = _values(x)
    check_request(values, resolved, request)
    check_axis(axis, x.ndim, resolved)
    if isinstance(resolved, Block | Packed):
        values = without_nan(_floats(values), resolved, nan)
    if out is not None:
        return _into(out, _rounded(x, values, resolved, request, axis), x)
    if gradient == "none" or not (x.requires_grad and torch.is_grad_enabled()):
        return _rounded(x, values, resolved, request, axis)
    result: torch.Tensor = _Quantize.apply(x, values, resolved, request, axis, gradient == "clipped")  # type: ignore[no-untyped-call]
    return result


class _Quantize(torch.autograd.Function):
    """Rounding with a straight-through gradient, optionally clipped to the representable range."""

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, values: Any, fmt: Format, request: Request, axis: Any, clip: bool
    ) -> torch.Tensor:
        ctx.save_for_backward(_inside(x, values, fmt, axis) if clip else None)
        return _rounded(x, values, fmt, request, axis)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (inside,) = ctx.saved_tensors
        (gradient,) = gradients
        passed = gradient if inside is None else torch.where(inside, gradient, 0)
        return (passed, None, None, None, None, None)


def _values(x: torch.Tensor) -> Any:
    """Return the numbers of a tensor as a contiguous NumPy array, exactly; CPU float32 and float64 share memory.

    Integers keep their dtype; other floats come as float32.
    """
    if not isinstance(x, torch.Tensor):
        raise ArgumentTypeError(f"x must be a torch tensor, not {type(x).__name__}; lowp.quantize takes other arrays.")
    if x.dtype == torch.bool or x.dtype.is_complex or x.layout != torch.strided or x.is_quantized or x.is_meta:
        raise ArgumentTypeError(
            f"x is a {x.layout} tensor of dtype {x.dtype} on device {x.device}; allowed: dense tensors of floats or "
            "integers that hold data."
        )
    plain = x.detach().resolve_neg()
    if plain.dtype.is_floating_point and plain.dtype not in (torch.float32, torch.float64):
        plain = plain.to(torch.float32)
    return plain.cpu().contiguous().numpy()


def _floats(values: Any) -> Any:
    return values if values.dtype.kind == "f" else as_source(values).values


def _rounded(x: torch.Tensor, values: Any, fmt: Format, request: Request, axis: Any) -> torch.Tensor:
    floats = _floats(values)
    dtype = x.dtype if x.dtype.is_floating_point else torch.float64
    if isinstance(fmt, Block):
        name = str(dtype).removeprefix("torch.")
        fast = dtype == torch.float32
        result = try_fast(floats, fmt, request, axis, None) if fast else None
        if result is None:
            result = quantize_blocks(floats, fmt, request, axis, name)
        return torch.from_numpy(result).to(device=x.device, dtype=dtype)
    if isinstance(fmt, Packed):
        return _as_dtype(quantize_packed(floats, fmt, request, axis), dtype).to(x.device)
    assert isinstance(fmt, ScalarFormat)
    return _narrowed(quantize_values(floats, fmt, request), dtype, fmt).to(x.device)


def _as_dtype(values: Any, dtype: torch.dtype) -> torch.Tensor:
    """Return NumPy values as a tensor of `dtype`; bfloat16 numbers by their bits, since torch's cast drops payloads."""
    exact = torch.from_numpy(values)
    if dtype == torch.bfloat16 and exact.dtype == torch.float32:
        bits = exact.view(torch.int32)
        if not (bits & 0xFFFF).any():
            return (bits >> 16).to(torch.int16).view(torch.bfloat16)
    return exact.to(dtype)


def _narrowed(values: Any, dtype: torch.dtype, fmt: Format) -> torch.Tensor:
    """Return NumPy values as a tensor of `dtype`; those of codebooks and logarithms may be rounded, others must fit."""
    exact = torch.from_numpy(values)
    narrowed = exact.to(dtype)
    if dtype == exact.dtype:
        return narrowed
    back = narrowed.to(exact.dtype)
    same = back.isfinite() == exact.isfinite() if isinstance(fmt, Codebook) or is_logarithmic(fmt) else back == exact
    if not bool((same | (back.isnan() & exact.isnan())).all()):
        raise no_room(fmt.name, str(dtype))
    return narrowed


def _inside(x: torch.Tensor, values: Any, fmt: Format, axis: Any) -> torch.Tensor:
    floats = _floats(values)
    if isinstance(fmt, Packed):
        raise ArgumentError(f"gradient='clipped' is not defined for {fmt.name!r}: its blocks have no fixed range.")
    if isinstance(fmt, Block):
        low, high = representable_range(floats, fmt, axis)
    else:
        assert isinstance(fmt, ScalarFormat)
        low, high = np.array(fmt.min), np.array(fmt.max)
    return torch.from_numpy(np.asarray((floats >= low) & (floats <= high))).to(x.device)


def _into(out: Any, result: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    if not isinstance(out, torch.Tensor) or out.shape != result.shape or out.dtype != result.dtype:
        raise ArgumentError(
            f"out must be a tensor of shape {tuple(x.shape)} and dtype {result.dtype}, not {out!r:.80}."
        )
    with torch.no_grad():
        out.copy_(result)
    return out


def encode_tensor(
    x: torch.Tensor,
    fmt: str | Format,
    rounding: str = "ties_to_even",
    overflow: str = "saturate",
    seed: int = 0,
    axis: Any = -1,
    random_bits: int | None = None,
    saturation_bits: int = 0,
    nan: str | None = None,
) -> Encoded:
    """Encode a tensor; the codes and scales are tensors on its device. No gradient."""
    resolved = parse(fmt)
    request = make_request(rounding, overflow, seed, random_bits, saturation_bits, nan or "error", ENCODE_NAN)
    values = _values(x)
    check_request(values, resolved, request)
    check_axis(axis, x.ndim, resolved)
    if isinstance(resolved, Block | Packed):
        values = without_nan(_floats(values), resolved, nan)
    floats = _floats(values)
    if isinstance(resolved, Block):
        encoded = encode_blocks(floats, resolved, request, axis)
    elif isinstance(resolved, Packed):
        encoded = encode_packed(floats, resolved, request, axis)
    else:
        assert isinstance(resolved, ScalarFormat)
        encoded = Encoded(encode_values(floats, resolved, request), resolved)

    def tensor(part: Any) -> Any:
        return None if part is None else torch.from_numpy(np.require(part, requirements=["C", "W"])).to(x.device)

    return replace(
        encoded,
        codes=tensor(encoded.codes),
        scales=tensor(encoded.scales),
        zero_points=tensor(encoded.zero_points),
        fields=encoded.fields and {name: tensor(part) for name, part in encoded.fields.items()},
        dtype=x.dtype if x.dtype.is_floating_point else torch.float64,
    )


def decode_encoded(encoded: Encoded, dtype: Any) -> torch.Tensor:
    """Decode an encoded tensor to `dtype`, default the dtype it had."""
    target = encoded.dtype if dtype is None else _float_dtype(dtype)
    plain = replace(
        encoded,
        codes=as_numpy(encoded.codes),
        scales=_or_none(encoded.scales),
        zero_points=_or_none(encoded.zero_points),
        fields=encoded.fields and {name: as_numpy(part) for name, part in encoded.fields.items()},
    )
    if isinstance(encoded.format, Block):
        values = decode_blocks(plain, str(target).removeprefix("torch."))
    elif isinstance(encoded.format, Packed):
        values = decode_packed(plain)
    else:
        values = decode_codes(plain.codes, scalar_format(encoded.format, "decode"))
        return _narrowed(values, target, encoded.format).to(encoded.codes.device)
    return _as_dtype(np.asarray(values), target).to(encoded.codes.device)


def _float_dtype(dtype: Any) -> torch.dtype:
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise ArgumentTypeError(f"dtype={dtype!r} is not allowed: a floating-point torch.dtype, such as torch.float32.")
    return dtype


def _or_none(part: Any) -> Any:
    return None if part is None else as_numpy(part)


def decode_tensor(codes: torch.Tensor, fmt: str | Format, dtype: torch.dtype | None = None) -> torch.Tensor:
    """Decode plain codes to float64, or to `dtype`."""
    scalar = scalar_format(fmt, "decode")
    target = torch.float64 if dtype is None else _float_dtype(dtype)
    return _narrowed(decode_codes(as_numpy(codes), scalar), target, scalar).to(codes.device)
