"""The verbs on torch tensors."""

from __future__ import annotations

from typing import Any

import torch

from lowp._errors import ArgumentError, ArgumentTypeError
from lowp.formats.packed import Packed
from lowp.formats.parse import parse
from lowp.formats.spec import Format
from lowp.formats.tables import scalar_format
from lowp.rounding import _torch_ops
from lowp.rounding._format_keys import key_of
from lowp.rounding._pieces import check_amax_suffices, depends_on_whole
from lowp.rounding._torch_calls import Call, axis_list, flat, how, signed_seed
from lowp.rounding._torch_codes import decode_parts, encode_parts, encoded_from_parts
from lowp.rounding._torch_distributed import all_amax, check_local, is_distributed, quantize_distributed, reduced_amax
from lowp.rounding._torch_gradients import differentiable, evaluate, is_plain
from lowp.rounding._torch_plain import numbers, quantize_plain
from lowp.rounding.encoded import Encoded
from lowp.rounding.gradients import gradient_rule
from lowp.rounding.request import ENCODE_NAN, QUANTIZE_NAN, check_format
from lowp.rounding.shard import Shard
from lowp.rounding.verbs import check_request

__all__ = ["decode_encoded", "decode_tensor", "encode_tensor", "quantize_plain", "quantize_tensor"]


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
    shard: Shard | None = None,
    group: Any = None,
) -> torch.Tensor:
    """Round a tensor; see `lowp.torch.quantize`."""
    if torch.compiler.is_compiling():
        arguments = (rounding, overflow, seed, axis, random_bits, saturation_bits, nan)
        return _traced(x, fmt, arguments, out, gradient, shard, group)
    if gradient != "straight_through":
        gradient_rule(gradient)
    request = how(rounding, overflow, seed, random_bits, saturation_bits, nan or "keep", QUANTIZE_NAN)
    call = Call(parse(fmt), request, axis, shard, seed)
    if is_distributed(x):
        return _of_distributed(x, call, gradient, out, shard, group)  # type: ignore[no-any-return]
    _check(x, call)
    amax = None if group is None else reduced_amax(x, call.fmt, axis, [group])
    if out is None:
        return differentiable(x, call, gradient, amax)
    _check_out(out, x)
    with torch.no_grad():
        if is_plain(x) and is_plain(out):
            return quantize_plain(x, call.fmt, request, axis, out, shard, amax)
        return out.copy_(evaluate(x, call, amax))


def _of_distributed(x: Any, call: Call, gradient: str, out: Any, shard: Any, group: Any) -> Any:
    if out is not None or shard is not None or group is not None:
        raise ArgumentError("x is a DTensor, which knows its shards and its group; leave out, shard and group out.")
    check_format(call.fmt, call.request)
    return quantize_distributed(x, call, gradient)


@torch.compiler.assume_constant_result
def _key(fmt: str | Format) -> str:
    from lowp.rounding._torch_compile import graph_key

    return graph_key(key_of(parse(fmt)))


@torch.compiler.assume_constant_result
def _scalar_key(fmt: str | Format) -> str:
    from lowp.rounding._torch_compile import graph_key

    return graph_key(key_of(scalar_format(fmt, "decode")))


@torch.compiler.assume_constant_result
def _follows_whole(fmt: str | Format) -> bool:
    check_amax_suffices(parse(fmt))
    return depends_on_whole(parse(fmt))


def _traced(
    x: torch.Tensor, fmt: str | Format, arguments: tuple[Any, ...], out: Any, gradient: str, shard: Any, group: Any
) -> torch.Tensor:
    """The same for torch.compile: one operator in the graph."""
    rounding, overflow, seed, axis, random_bits, saturation_bits, nan = arguments
    key = _key(fmt)
    call = (key, rounding, overflow, _seed(seed), axis_list(axis), random_bits or 0, saturation_bits)
    place = ([], []) if shard is None else (list(shard.offset), list(shard.shape))
    if gradient == "none" or out is not None:
        x = x.detach()
    amax = None if group is None or not _follows_whole(fmt) else all_amax(x, key, axis, [group])
    source: Any = x
    result: Any = torch.ops.lowp.quantize(x, *call, nan or "keep", *place, gradient, amax)
    if is_distributed(x):
        result = result.redistribute(source.device_mesh, source.placements)
    return result if out is None else out.copy_(result)  # type: ignore[no-any-return]


def _check(x: torch.Tensor, call: Call) -> None:
    if not isinstance(x, torch.Tensor):
        raise ArgumentTypeError(f"x must be a torch tensor, not {type(x).__name__}; lowp.quantize takes other arrays.")
    if x.dtype == torch.bool or x.dtype.is_complex or x.layout != torch.strided or x.is_quantized or x.is_meta:
        raise ArgumentTypeError(
            f"x is a {x.layout} tensor of dtype {x.dtype} on device {x.device}; allowed: dense tensors of floats or "
            "integers that hold data."
        )
    if x.dtype.is_floating_point or not is_plain(x):
        check_format(call.fmt, call.request)
    else:
        check_request(numbers(x), call.fmt, call.request)
    call.check_shape(x.ndim)
    if call.shard is not None:
        if not isinstance(call.shard, Shard):
            raise ArgumentTypeError(f"shard={call.shard!r} must be a lowp.torch.Shard or None.")
        call.shard.check(tuple(x.shape))


def _check_out(out: Any, x: torch.Tensor) -> None:
    dtype = _torch_ops.result_dtype(x)
    fits = isinstance(out, torch.Tensor) and out.shape == x.shape and out.dtype == dtype
    if not fits or out.layout != torch.strided:
        raise ArgumentError(f"out must be a tensor of shape {tuple(x.shape)} and dtype {dtype}, not {out!r:.80}.")
    if out.device != x.device:
        raise ArgumentError(f"out is on device {out.device}, x on {x.device}; both must be on one device.")


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
    if torch.compiler.is_compiling():
        return _traced_encode(x, fmt, (rounding, overflow, seed, axis, random_bits, saturation_bits, nan))
    check_local(x, "encode")
    request = how(rounding, overflow, seed, random_bits, saturation_bits, nan or "error", ENCODE_NAN)
    call = Call(parse(fmt), request, axis, None, seed)
    _check(x, call)
    if is_plain(x):
        parts = encode_parts(x, call.fmt, request, axis, nan)
        scale_of: Any = float
    else:
        *arguments, _, _, _ = flat(call)
        parts, scale_of = torch.ops.lowp.encode(x.detach(), *arguments, nan or ""), _itself
    return encoded_from_parts(parts, call.fmt, axis, tuple(x.shape), _torch_ops.result_dtype(x), scale_of)


def _itself(part: Any) -> Any:
    return part


#: The attribute that keeps a format's key while torch.compile traces.
_KEY = "_traced_key"


@torch.compiler.assume_constant_result
def _format(fmt: str | Format) -> Format:
    return parse(fmt)


def _traced_encode(x: torch.Tensor, fmt: str | Format, arguments: tuple[Any, ...]) -> Encoded:
    rounding, overflow, seed, axis, random_bits, saturation_bits, nan = arguments
    call = (_key(fmt), rounding, overflow, _seed(seed), axis_list(axis), random_bits or 0, saturation_bits)
    parts = torch.ops.lowp.encode(x.detach(), *call, nan or "")
    dtype = _torch_ops.result_dtype(x)
    encoded = encoded_from_parts(parts, _format(fmt), axis, tuple(x.shape), dtype, _itself)
    object.__setattr__(encoded, _KEY, call[0])  # a format made while tracing is nothing that can be asked for its key
    return encoded


def _seed(seed: int) -> int:
    if not 0 <= seed < 1 << 64:
        raise ArgumentError("seed must be an integer from 0 to 2^64 - 1.")
    return signed_seed(seed)


def decode_encoded(encoded: Encoded, dtype: Any) -> torch.Tensor:
    """Decode an encoded tensor to `dtype`, default the dtype it had."""
    target = encoded.dtype if dtype is None else _float_dtype(dtype)
    fmt = encoded.format
    if isinstance(fmt, Packed):
        assert encoded.fields is not None
        parts = [encoded.fields[field.name] for field in fmt.fields]
    else:
        parts = [part for part in (encoded.codes, encoded.scales, encoded.zero_points) if part is not None]
        if encoded.tensor_scale is not None:
            parts.append(torch.as_tensor(encoded.tensor_scale, dtype=torch.float64, device=encoded.codes.device))
    if torch.compiler.is_compiling():
        key = getattr(encoded, _KEY) if hasattr(encoded, _KEY) else _key(fmt)
        return torch.ops.lowp.decode(parts, key, axis_list(encoded.axis), list(encoded.shape), target)  # type: ignore[no-any-return]
    if len({part.device for part in parts}) > 1:
        raise ArgumentError(f"the parts of {encoded!r} are on several devices: {[str(p.device) for p in parts]}.")
    return _decoded(parts, fmt, encoded.axis, tuple(encoded.shape), target)


def _decoded(parts: list[torch.Tensor], fmt: Format, axis: Any, shape: tuple[int, ...], target: Any) -> torch.Tensor:
    if all(is_plain(part) for part in parts):
        return decode_parts(parts, fmt, axis, shape, target)
    result: torch.Tensor = torch.ops.lowp.decode(parts, key_of(fmt), axis_list(axis), shape, target)
    return result


def _float_dtype(dtype: Any) -> torch.dtype:
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise ArgumentTypeError(f"dtype={dtype!r} is not allowed: a floating-point torch.dtype, such as torch.float32.")
    return dtype


def decode_tensor(codes: torch.Tensor, fmt: str | Format, dtype: torch.dtype | None = None) -> torch.Tensor:
    """Decode plain codes to float64, or to `dtype`."""
    if torch.compiler.is_compiling():
        wanted = torch.float64 if dtype is None else dtype
        return torch.ops.lowp.decode([codes], _scalar_key(fmt), [-1], list(codes.shape), wanted)  # type: ignore[no-any-return]
    scalar = scalar_format(fmt, "decode")
    target = torch.float64 if dtype is None else _float_dtype(dtype)
    check_local(codes, "decode")
    return _decoded([codes], scalar, -1, tuple(codes.shape), target)
