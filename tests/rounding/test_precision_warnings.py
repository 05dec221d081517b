"""What is legal but surprising is said by a named warning."""

import numpy as np
import pytest

import lowp


@pytest.mark.parametrize(
    ("x", "fmt", "message"),
    [
        ([1e10, 1.0], "int4_g128", "a block needs a scale beyond 'float16', which ends at 65504.0; its elements clip"),
        ([1e300, 1.0], "mxfp4", "a block needs a scale beyond 'float8_e8m0fnu'"),
        ([1e300, 1.0], "nvfp4", "x holds numbers beyond float32"),
    ],
)
def test_a_scale_that_cannot_be_held(x: list[float], fmt: str, message: str) -> None:
    for verb in (lowp.quantize, lowp.encode):
        with pytest.warns(lowp.PrecisionWarning, match=message):
            verb(np.array(x), fmt)
