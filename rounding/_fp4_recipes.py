"""NVFP4 and MXFP4 as three systems compute them: the same float32 operations in the same order.

Each recipe also gives the system's own codes for NaN, infinity and division by zero: under nonfinite="nan_block" no
NaN is left among the scaled elements; under "element" a NaN of the input is left to the caller's NaN policy. Callers
silence floating-point warnings.

Sources: NVIDIA TransformerEngine `core_nvfp4.cuh`, `quantize_transpose_nvfp4.cuh`; torchao 0.18 `nvfp4_quantize`;
NVIDIA TensorRT Model Optimizer 5a4242f `NVFP4QTensor` and `MXFP4QTensor`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lowp._errors import warn_caller
from lowp.formats.block import Block
from lowp.formats.float_format import Float
from lowp.formats.tables import decode_codes
from lowp.rounding._layout import Layout
from lowp.rounding._scalar import encode_values
from lowp.rounding.recipes import Scales, scale_request

Float32 = NDArray[np.float32]
_FLOAT32_MAX = np.float32(np.finfo(np.float32).max)


def float32(x: NDArray[Any]) -> Float32:
    """Return `x` as the float32 tensor that every one of these systems works on."""
    narrow = x.astype(np.float32)
    if x.dtype != np.float32 and not np.array_equal(np.isfinite(narrow), np.isfinite(x)):
        warn_caller("x holds numbers beyond float32, in which this recipe's system computes; they count as infinite.")
    return narrow


def settled(scaled: NDArray[Any], v: NDArray[Any], nan_value: Any, fmt: Block) -> NDArray[Any]:
    """Return `scaled`, made from `v`, with each NaN as the element value that the system's conversion makes of it."""
    nan = np.isnan(scaled)
    if fmt.nonfinite == "element":
        nan &= ~np.isnan(v)
    return np.where(nan, nan_value, scaled)


def nvfp4_te(x: NDArray[Any], layout: Layout, fmt: Block) -> Scales:
    """TransformerEngine: encode with `448 * 6 / amax`, scale each block by products and reciprocals.

    fmax ignores NaN, and the FP4 conversion makes NaN +6. An infinite tensor maximum counts as a tensor scale of 1, its
    block gets the largest scale. A zero block has scale 0, as has a block too small for the smallest scale.
    """
    x = float32(x)
    element_max, scale_max = np.float32(fmt.element.max), np.float32(fmt.scale.max)
    magnitude = np.where(np.isnan(x), np.float32(0), np.abs(x))
    encode = te_encode_scale(magnitude, scale_max * element_max) if fmt.tensor_scale else np.float32(1)
    tensor = np.float32(1) / encode
    amax = layout.reduce(magnitude, np.max)
    wanted = np.minimum(amax * (encode * (np.float32(1) / element_max)), _FLOAT32_MAX)
    codes = _to_scale(wanted, fmt)
    values = decode_codes(codes, fmt.scale)
    inverse = np.minimum(np.float32(1) / (values.astype(np.float32) * tensor), _FLOAT32_MAX)

    def scaled(v: NDArray[Any]) -> NDArray[Any]:
        return settled(float32(v) * layout.spread(inverse), v, element_max, fmt)

    tensor_scale = float(tensor) if fmt.tensor_scale else None
    return Scales(codes, values, scaled, tensor_scale, own_nan_codes=True, multiplier=inverse)


def te_encode_scale(magnitude: Float32, span: np.float32) -> np.float32:
    amax = np.max(magnitude, initial=np.float32(0))
    encode = np.minimum(span / amax, _FLOAT32_MAX)
    return np.float32(1) if amax == 0 or encode == 0 else encode


def nvfp4_torchao(x: NDArray[Any], layout: Layout, fmt: Block) -> Scales:
    """torchao: scales at least the smallest normal number, elements times a reciprocal.

    NaN as on x86-64, where an invalid operation gives a negative NaN and a NaN keeps its sign: NaN scales have code
    0x7F in a block that holds NaN, else 0xFF; their elements have code 12 with a tensor scale, 4 without. (In a
    bfloat16 tensor that holds NaN torch's maximum is a positive NaN: scales 0x7F, codes 3.)
    """
    x = float32(x)
    assert isinstance(fmt.scale, Float)
    element_max, smallest = np.float32(fmt.element.max), np.float32(fmt.scale.smallest_normal)
    one = np.float32(1)
    amax = layout.amax(x)
    tensor = _tensor_scale(x, fmt) if fmt.tensor_scale else None
    wanted = amax / element_max if tensor is None else amax / element_max / tensor
    codes = _to_scale(np.clip(wanted, smallest, np.float32(fmt.scale.max)), fmt, negative_nan=~np.isnan(amax))
    values = decode_codes(codes, fmt.scale)
    inverse = (one if tensor is None else one / tensor) / values.astype(np.float32)

    def scaled(v: NDArray[Any]) -> NDArray[Any]:
        product = float32(v) * layout.spread(inverse)
        # The conversion reads the bits of a NaN as a number: -1.5 for 0 * inf, else 2 with the sign of the scale's NaN.
        of_scale = np.float32(2 if tensor is None else -2)
        return settled(product, v, np.where(layout.spread(np.isnan(inverse)), of_scale, np.float32(-1.5)), fmt)

    tensor_scale = None if tensor is None else float(tensor)
    return Scales(codes, values, scaled, tensor_scale, own_nan_codes=True, multiplier=inverse)


def nvfp4_modelopt(x: NDArray[Any], layout: Layout, fmt: Block) -> Scales:
    """Model Optimizer: a zero scale becomes 1 before it is rounded, elements are divided; zeros have no sign.

    NaN counts as 6, with code 7, also the 0/0 of an all-zero tensor or of a block whose scale rounds to 0; NaN scales
    have code 0x7F if the tensor holds NaN (its sign depends on torch's vector width), else 0xFF. Release 0.47 differs:
    it raises every scale to at least 2^-9.
    """
    x = float32(x)
    element_max, one = np.float32(fmt.element.max), np.float32(1)
    tensor = _tensor_scale(x, fmt) if fmt.tensor_scale else one
    amax = layout.amax(x)
    wanted = amax / (element_max * tensor)
    codes = _to_scale(np.where(wanted == 0, one, wanted), fmt, negative_nan=~np.isnan(tensor) & ~np.isnan(amax))
    values = decode_codes(codes, fmt.scale)
    divisor = values.astype(np.float32) * tensor

    def scaled(v: NDArray[Any]) -> NDArray[Any]:
        return settled(float32(v) / layout.spread(divisor) + np.float32(0), v, element_max, fmt)

    return Scales(codes, values, scaled, float(tensor) if fmt.tensor_scale else None, own_nan_codes=True)


def _tensor_scale(x: Float32, fmt: Block) -> np.float32:
    """Return the tensor's largest magnitude over the largest product of an element and a block scale."""
    amax = np.max(np.abs(x), initial=np.float32(0))
    return np.float32(amax / np.float32(fmt.element.max * fmt.scale.max))


def _to_scale(wanted: Float32, fmt: Block, negative_nan: Any = False) -> NDArray[Any]:
    """Round to the scale format, saturating; NaN gets the NaN code, with a sign bit where `negative_nan`."""
    codes = encode_values(np.ascontiguousarray(wanted), fmt.scale, scale_request("ties_to_even"))
    assert isinstance(fmt.scale, Float)
    assert fmt.scale.nan_code is not None
    sign = 1 << (fmt.scale.bits - 1) if fmt.scale.signed else 0
    nan_codes = np.where(negative_nan, fmt.scale.nan_code | sign, fmt.scale.nan_code).astype(codes.dtype)
    return np.where(np.isnan(wanted), nan_codes, codes)


def mxfp4_modelopt(x: NDArray[Any], layout: Layout, fmt: Block) -> Scales:
    """Model Optimizer MXFP4: the ceiling of a float32 logarithm, ties toward zero, exact zeros negative.

    The float32 logarithm of amax / 6 rounds a quotient just above a power of two down to it. A block with NaN or
    infinity has scale code 0 and every element code 8, as on x86-64.
    """
    x = float32(x)
    amax = layout.amax(x)
    logarithm = np.log2((amax / np.float32(fmt.element.max)).astype(np.float64)).astype(np.float32)
    exponent = np.ceil(np.maximum(logarithm, np.float32(-127)))
    bad = ~np.isfinite(amax)
    codes = (np.where(bad, -127, exponent) + 127).astype(np.uint8)
    values = decode_codes(codes, fmt.scale)
    divisor = np.where(bad, np.inf, values).astype(np.float32)

    def scaled(v: NDArray[Any]) -> NDArray[Any]:
        quotient = settled(float32(v) / layout.spread(divisor), v, 0, fmt)
        return np.where(quotient == 0, np.float32(-0.0), quotient)

    return Scales(codes, values, scaled, element_rounding="ties_to_zero", own_nan_codes=True)
