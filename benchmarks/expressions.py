"""Block formats as a user of NumPy, JAX or torch writes them: one expression for all three."""

from typing import Any


def cast(values: Any, dtype: Any) -> Any:
    return values.astype(dtype) if hasattr(values, "astype") else values.to(dtype)


def largest_magnitude(xp: Any, blocks: Any) -> Any:
    return xp.amax(xp.abs(blocks), -1, keepdim=True) if xp.__name__ == "torch" else abs(blocks).max(-1, keepdims=True)


def rounded(xp: Any, values: Any, dtype: Any, bound: float) -> Any:
    """Round to the values of `dtype` within +-bound, as float32."""
    return cast(cast(xp.clip(values, -bound, bound), dtype), xp.float32)


def mx(xp: Any, x: Any, dtype: Any, bound: float) -> Any:
    """OCP MX with 32 elements a block and the scale rule of the standard."""
    blocks = x.reshape(-1, 32)
    exponent = (largest_magnitude(xp, blocks).view(xp.int32) >> 23) - (135 if bound == 448 else 129)
    scale = xp.ldexp(xp.ones_like(blocks[:, :1]), xp.clip(exponent, -127, 127))
    return (rounded(xp, blocks / scale, dtype, bound) * scale).reshape(x.shape)


def nvfp4(xp: Any, x: Any, element: Any, scale_dtype: Any) -> Any:
    """NVFP4: 16 elements a block, E4M3 scales, and a scale for the tensor."""
    blocks = x.reshape(-1, 16)
    tensor_scale = abs(x).max() / xp.float32(448 * 6)
    scale = rounded(xp, largest_magnitude(xp, blocks) / 6 / tensor_scale, scale_dtype, 448) * tensor_scale
    return (rounded(xp, blocks / scale, element, 6) * scale).reshape(x.shape)


def integer_groups(xp: Any, x: Any, size: int | None, bound: int, scale_dtype: Any) -> Any:
    """Signed integers with one scale per `size` elements, or per row."""
    groups = x.reshape(-1, size or x.shape[-1])
    scale = cast(cast(largest_magnitude(xp, groups) / bound, scale_dtype), xp.float32)
    return (xp.clip(xp.round(groups / scale), -bound - 1, bound) * scale).reshape(x.shape)
