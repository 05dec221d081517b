"""MS-EDEN: unbiased NVFP4 whose randomness lies in a rotation and in the block scales, not in the elements.

Each 128 values are rotated by a randomised Hadamard transform and rounded to nearest with slightly small scales. The
factor that makes the projection of the result on the input exact again is then folded into the block scales, which are
rounded stochastically. The signs of the rotation are stored, so that decoding rotates back.

Source: Quartet II, arXiv:2601.22813; IST-DASLab/Quartet-II, `quantizers/eden.py`, `kernels/csrc/round_eden_fp4.cu`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lowp._errors import ArgumentError
from lowp.formats.float_format import Float
from lowp.formats.packed import Packed
from lowp.formats.tables import decode_codes
from lowp.rounding._fp4_recipes import Float32, float32
from lowp.rounding._scalar import encode_values
from lowp.rounding.modes import rounding
from lowp.rounding.recipes import scale_request
from lowp.rounding.request import Request
from lowp.rounding.schemes import Fields, Scheme
from lowp.rounding.schemes.rotation import draw_signs, rotate, rotate_back

GROUP, BLOCK = 128, 16
_E2M1 = Float(2, 1, bias=1, specials="finite")
_E4M3FN = Float(4, 3, specials="fn")
#: The largest block scale before the correction.
_SCALE_MAX = np.float32(255.99)
_NAN_SCALE = 0x7F


def encode(blocks: NDArray[Any], fmt: Packed, request: Request) -> Fields:
    """Rotate, round elements to nearest (ties away from zero), correct the scales and round them stochastically.

    A group that holds NaN or infinity, or leaves float32 when rotated, has NaN scales and becomes NaN. A zero block has
    scale 0.
    """
    if request.mode.name != "ties_to_even":
        raise ArgumentError(f"rounding={request.mode.name!r}: {fmt.name!r} has a rounding of its own; leave it out.")
    x = float32(blocks)
    bad = ~np.isfinite(x).all(axis=-1, keepdims=True)
    signs = draw_signs((request.key0, request.key1), GROUP)
    rotated = rotate(np.where(bad, np.float32(0), x), signs).astype(np.float32)
    bad |= ~np.isfinite(rotated).all(axis=-1, keepdims=True)
    rotated = np.where(bad, np.float32(0), rotated)
    z = rotated.reshape(*rotated.shape[:2], GROUP // BLOCK, BLOCK)
    largest = np.float32(_E2M1.max / fmt.option("override"))

    block_amax = np.max(np.abs(z), axis=-1)
    tensor_scale = np.max(block_amax, initial=np.float32(0)) / _SCALE_MAX / largest
    nearest = encode_values(_quotient(block_amax / largest, tensor_scale), _E4M3FN, scale_request("ties_to_even"))
    scales = decode_codes(nearest, _E4M3FN).astype(np.float32)
    scaled = _quotient(z, scales[..., np.newaxis] * tensor_scale)
    codes = encode_values(scaled, _E2M1, scale_request("ties_to_away"))
    if fmt.option("corrected"):
        corrected = scales * _corrections(scaled, decode_codes(codes, _E2M1))[..., np.newaxis]
        nearest = encode_values(corrected.astype(np.float32), _E4M3FN, request._replace(mode=rounding("stochastic")))
    return {
        "codes": codes.reshape(rotated.shape),
        "scales": np.where(bad, np.uint8(_NAN_SCALE), nearest),
        "tensor_scale": np.array([tensor_scale], np.float32).view(np.uint32),
        "signs": signs,
    }


def decode(fields: Fields, fmt: Packed) -> NDArray[np.float64]:
    """Return element times scales, rotated back."""
    codes = fields["codes"]
    elements = decode_codes(codes, _E2M1).reshape(*codes.shape[:2], GROUP // BLOCK, BLOCK)
    tensor_scale = fields["tensor_scale"].astype(np.uint32).view(np.float32)[0]
    units = elements * decode_codes(fields["scales"], _E4M3FN)[..., np.newaxis] * np.float64(tensor_scale)
    return rotate_back(units.reshape(codes.shape), fields["signs"])


def _corrections(z: NDArray[Any], rounded: NDArray[Any]) -> NDArray[np.float64]:
    """Return `sum z^2 / sum z q` of each group, over scaled numbers z and elements q; 1 where that is 0/0."""
    z = z.astype(np.float64)
    own, projected = (z * z).sum(axis=(-2, -1)), (z * rounded).sum(axis=(-2, -1))
    return np.where(projected > 0, own / projected, 1.0)


def _quotient(a: Float32, b: Any) -> Float32:
    """Return a / b, and 0 where b is 0."""
    return np.ascontiguousarray(np.where(b == 0, np.float32(0), a / b), dtype=np.float32)


SCHEMES = {"ms_eden": Scheme(encode, decode)}
