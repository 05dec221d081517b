"""iFairy: complex weights 1, i, -1, -i, two bits each, with one scale for the real ones and one for the imaginary ones.

A complex number is two neighbours along the axis, real part first, which is how NumPy and C store it: pass
`z.view(real_dtype)`, and view the result back. Code `k` stands for `i^k`. The argument of a number decides: from
-pi/4 (included) to pi/4 (not) it is 1, from there on i, -1, -i, each from its lower end; zero is 1. The scales are the
mean of `|Re|` over the numbers that became 1 or -1 and the mean of `|Im|` over the others, at least 1e-5, in float32
(assumed; the model's code keeps them in the dtype of its weights). NaN or infinity anywhere make both scales NaN.
Source: iFairy, model code `modeling_Fairy_plus_minus_i.py` of the Fairy +-i repository.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lowp.formats.packed import Packed
from lowp.rounding.request import Request
from lowp.rounding.schemes import Fields, Scheme
from lowp.rounding.schemes.scaled_integers import only_nearest
from lowp.rounding.schemes.structured import check_whole, scale_field, scale_values, shared_mean

#: Least scale.
_FLOOR = 1e-5
#: Real and imaginary part of `i^k`.
_UNITS = np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])


def quadrants(re: NDArray[Any], im: NDArray[Any]) -> NDArray[np.uint8]:
    """Return the power of i nearest in argument, exactly, ties to the next one counterclockwise.

    Example:
        >>> quadrants(np.array([1, 1, -1, -1, 0]), np.array([-1, 1, 1, -1, 0])).tolist()
        [0, 1, 2, 3, 0]
    """
    up = (im >= re) & (im > -re)
    left = (im > re) & (im <= -re)
    down = (im <= re) & (im < -re)
    return np.select([up, left, down], [1, 2, 3], 0).astype(np.uint8)


def _encode(x: NDArray[Any], fmt: Packed, request: Request) -> Fields:
    only_nearest(request, fmt)
    check_whole(request, fmt)
    re, im = x[..., :1], x[..., 1:]
    codes = quadrants(re, im)
    real = codes % 2 == 0
    means = [shared_mean(np.abs(re), real, "tensor"), shared_mean(np.abs(im), ~real, "tensor")]
    scales = np.maximum(np.concatenate(means, axis=-1), _FLOOR)
    if not np.isfinite(x).all():
        scales = np.full_like(scales, np.nan)
    stored, _ = scale_field(scales, fmt, "scales")
    return {"codes": codes, "scales": stored}


def _decode(fields: Fields, fmt: Packed) -> NDArray[Any]:
    return _UNITS[fields["codes"][..., 0]] * scale_values(fields["scales"], fmt, "scales")


SCHEMES: dict[str, Scheme] = {"powers_of_i": Scheme(_encode, _decode)}
