"""Two-level scales under the exact recipes, against fractions; and the format that is NVFP4 by its parts."""

from fractions import Fraction

import numpy as np
import pytest

import lowp
from lowp.rounding import exact


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("element", "scale", "recipe"),
    [("fp4", "e4m3fn", "round"), ("fp4", "e4m3fn", "rceil"), ("int4", "ue5m3fn", "round"), ("e4m3fn", "e8m0", "floor"),
     ("e2m3", "bfloat16", "rceil"), ("nf4", "fp8", "round"), ("fp4", "e8m0", "even")],
)  # fmt: skip
def test_every_step_is_one_rounding_of_the_exact_quotient(element: str, scale: str, recipe: str, dtype: type) -> None:
    fmt = lowp.Block(element, 8, scale, tensor_scale="float32", recipe=recipe)
    rng = np.random.default_rng(0)
    x = (rng.standard_normal((6, 40)) * np.exp2(rng.uniform(-9, 9, (6, 1)))).astype(dtype)
    q = lowp.encode(x, fmt)
    largest = Fraction(float(np.abs(x).max()))
    tensor = exact.quantize(largest / (Fraction(fmt.element.max) * Fraction(fmt.scale.max)), "float32")
    assert isinstance(tensor, Fraction)
    assert Fraction(q.tensor_scale) == tensor
    for row, scales, codes in zip(x, q.scales, q.codes, strict=True):
        for b, code in enumerate(scales.tolist()):
            block = [Fraction(float(v)) for v in row[8 * b : 8 * b + 8]]
            amax = max(map(abs, block))
            if recipe in ("round", "rceil"):
                mode = {"round": "ties_to_even", "rceil": "toward_positive"}[recipe]
                assert code == exact.encode(amax / (Fraction(fmt.element.max) * tensor), fmt.scale, mode)
            unit = Fraction(float(lowp.decode(code, fmt.scale))) * tensor
            expected = [exact.encode(v / unit, fmt.element) for v in block]
            assert codes[8 * b : 8 * b + 8].tolist() == expected
    assert np.array_equal(lowp.decode(q), lowp.quantize(x, fmt))


def test_zeros_have_tensor_scale_one_and_nan_spoils_its_block_alone() -> None:
    fmt = lowp.Block("fp4", 4, "e4m3fn", tensor_scale="float32")
    assert fmt.recipe == "round"
    assert lowp.encode(np.zeros(8), fmt).tensor_scale == 1.0
    x = 448.0 * np.array([1.0, 2, 3, 6, np.nan, 1, 1, 1])  # the largest magnitude makes the tensor scale 1
    assert np.isnan(lowp.quantize(x, fmt)[4:]).all()
    assert lowp.quantize(x, fmt)[:4].tolist() == x[:4].tolist()


def test_the_parts_of_nvfp4_make_nvfp4() -> None:
    built = lowp.Block(element="float4_e2m1fn", size=16, scale="float8_e4m3fn", tensor_scale="float32")
    assert built == lowp.parse("nvfp4")
    assert lowp.parse(built.with_recipe("round").name) == built.with_recipe("round")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"element": "int4", "zero_point": True}, "needs a float format and no zero point"),
        ({"element": "ternary", "recipe": "absmean"}, "has no tensor scale"),
    ],
)
def test_what_does_not_go_with_a_tensor_scale(options: dict[str, object], message: str) -> None:
    with pytest.raises(lowp.FormatError, match=message):
        lowp.Block(size=8, scale="float32", tensor_scale="float32", **options)  # type: ignore[arg-type]
