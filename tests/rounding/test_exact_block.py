"""The exact block oracle: scale rules worked by hand, zero points, and the codes of torchao."""

import math
from collections.abc import Callable, Mapping
from fractions import Fraction

import numpy as np
import pytest

from lowp._errors import ArgumentError, FormatError, RangeError
from lowp.formats import Integer
from lowp.rounding.exact_block import decode_block, encode_block

Vectors = Callable[[str], Mapping[str, np.ndarray]]
E8M0 = "float8_e8m0fnu"


@pytest.mark.parametrize(
    ("element", "amax", "codes"),
    [  # biased scales by floor, ceil, even, rceil
        ("e4m3fn", 224, (126, 127, 126, 126)),
        ("e4m3fn", 226.24, (126, 127, 126, 127)),
        ("e4m3fn", 256, (127, 127, 127, 127)),
        ("e4m3fn", 403.2, (127, 128, 127, 127)),
        ("e4m3fn", 448, (127, 128, 127, 127)),
        ("e4m3fn", 452.5, (127, 128, 127, 128)),
        ("e4m3fn", 512, (128, 128, 128, 128)),
        ("e4m3fn", 1, (119, 119, 119, 119)),
        ("e4m3fn", 0, (0, 0, 0, 0)),
        ("e2m1fn", 3, (126, 127, 126, 126)),
        ("e2m1fn", 5.4, (127, 128, 127, 127)),
        ("e2m1fn", 6, (127, 128, 127, 127)),
        ("e2m1fn", 6.06, (127, 128, 127, 128)),
        ("e2m1fn", 7, (127, 128, 128, 128)),  # 1.75 rounds half up to 2 with one mantissa bit
        ("e2m1fn", 8, (128, 128, 128, 128)),
        ("e5m2", 63078, (127, 128, 128, 128)),
        ("fixed8_6", 1.9921875, (127, 128, 128, 128)),  # 127.5/64 has eight significant bits, an element seven
        ("fixed8_6", 1.984375, (127, 128, 127, 127)),
        ("int4", 7.5, (127, 128, 128, 128)),
        ("e2m1fn", math.nextafter(8, 0), (127, 128, 128, 128)),  # where a float32 logarithm says 3
        ("e2m1fn", 1e-40, (0, 0, 0, 0)),
        ("e2m1fn", Fraction(2) ** 200, (254, 254, 254, 254)),
    ],
)
def test_power_of_two_scales(element: str, amax: float, codes: tuple[int, ...]) -> None:
    block = [0, -amax, Fraction(amax) / 3]
    assert (
        tuple(encode_block(block, element, E8M0, recipe)[0] for recipe in ("floor", "ceil", "even", "rceil")) == codes
    )


def test_floor_clips_and_rceil_does_not() -> None:
    values = [957, 100]
    for recipe, largest in (("floor", 896), ("rceil", 960), ("ceil", 960)):
        scale, codes, offset = encode_block(values, "e4m3fn", E8M0, recipe)
        assert decode_block(scale, codes, offset, "e4m3fn", E8M0)[0] == largest


def test_scales_with_a_mantissa() -> None:
    scale, codes, offset = encode_block([7, -3.5, 0.5], "int4", "float16", "round")
    assert (scale, codes, offset) == (0x3C00, [7, 12, 0], None)  # -3.5 and 0.5 go to the even neighbour
    assert encode_block([1], "e2m1fn", "e4m3fn", "round")[0] == 0x23  # 1/6 is nearest to 1.375/8
    assert (
        encode_block([1.0001], "int8", "float32", "rceil")[0]
        == encode_block([1.0001], "int8", "float32", "round")[0] + 1
    )


def test_a_scale_of_zero_makes_every_element_zero() -> None:
    for recipe in ("round", "rceil"):
        assert encode_block([0, -0.0], "int4", "float16", recipe) == (0, [0, 0], None)
    assert encode_block([1e-12, -1e-12], "e2m1fn", "e4m3fn", "round") == (0, [0, 0], None)
    assert encode_block([1e-12, -1e-12], "e2m1fn", "e4m3fn", "rceil")[0] == 1


def test_all_zero_blocks_keep_the_sign_of_zero_where_the_scale_is_positive() -> None:
    assert encode_block([0.0, -0.0], "e2m1fn") == (0, [0, 8], None)


@pytest.mark.parametrize(
    ("values", "element", "scale", "zero", "decoded"),
    [
        ([0, 1.5, 3], "uint2", 0x3C00, 0, [0, 2, 3]),
        ([-1, 2], "uint2", 0x3C00, 1, [-1, 2]),
        ([5, 30], "uint4", 0x4000, 0, [4, 30]),  # the range includes zero; 2.5 steps go to 2
        ([-15, -3], "uint4", 0x3C00, 15, [-15, -3]),
        ([-8, 7], "int4", 0x3C00, 0, [-8, 7]),
        ([0, 15], "int4", 0x3C00, -8, [0, 15]),
        ([-1, 13], "int4_sym", 0x3C00, -6, [-1, 13]),
        ([0, 0], "uint4", 0, 0, [0, 0]),
    ],
)
def test_zero_points(values: list[float], element: str, scale: int, zero: int, decoded: list[int]) -> None:
    result = encode_block(values, element, "float16", "round", zero_point=True)
    assert (result[0], result[2]) == (scale, zero)
    assert decode_block(*result, element, "float16") == decoded


def test_zero_point_with_power_of_two_scales() -> None:
    scale, codes, offset = encode_block([-1, 15.5], Integer(4, signed=False), E8M0, "floor", zero_point=True)
    assert (scale, codes, offset) == (128, [0, 8], 0)  # 16.5 over 15 steps: 2^(4-3); -0.5 steps go to 0
    assert encode_block([-1, 15.5], "uint4", E8M0, "ceil", zero_point=True)[0] == 129
    assert encode_block([0, 15.5], "uint4", E8M0, "even", zero_point=True)[0] == 128  # to four bits: 16


def test_power_of_two_scales_stay_positive_where_the_scale_format_has_zero() -> None:
    assert encode_block([2.0**-140], "e2m1fn", "binary8p1uf", "floor")[0] == 1
    assert encode_block([0.0], "e2m1fn", "binary8p1uf", "floor") == (0, [0], None)


def test_stochastic_elements_take_one_word_each() -> None:
    words = [0, 2**32 - 1, 2**31]
    codes = encode_block([4, 1.25, 1.25], "e2m1fn", rounding="stochastic_a", random=words)[1]
    assert codes == [6, 3, 3]
    assert encode_block([4, 1.25, 1.25], "e2m1fn", rounding="stochastic_a", random=[0, 0, 2**31 - 1])[1] == [6, 2, 2]


@pytest.mark.parametrize("recipe", ["floor", "ceil", "even", "rceil"])
@pytest.mark.parametrize(
    ("name", "element"),
    [
        ("fp4_e2m1", "e2m1fn"),
        ("fp6_e2m3", "e2m3fn"),
        ("fp6_e3m2", "e3m2fn"),
        ("fp8_e4m3", "e4m3fn"),
        ("fp8_e5m2", "e5m2"),
    ],
)
def test_torchao(vectors: Vectors, name: str, element: str, recipe: str) -> None:
    arrays = vectors(f"torchao/mx_{name}")
    codes = arrays[f"bs32_{recipe}_codes"]
    if name == "fp4_e2m1":
        codes = np.stack([codes & 15, codes >> 4], axis=-1).reshape(len(codes), -1)
    for row in range(0, len(codes), 3):
        for block in range(4):
            span = slice(32 * block, 32 * block + 32)
            values = arrays["x"][row, span]
            if not np.isfinite(values).all():
                continue
            scale, mine, _ = encode_block(values.tolist(), element, E8M0, recipe)
            assert scale == arrays[f"bs32_{recipe}_scales"][row, block]
            if scale > 0:  # torchao divides by at least 2^-126, or loses the block, where the scale is 2^-127
                assert mine == codes[row, span].tolist()


@pytest.mark.parametrize(
    ("arguments", "options", "kind", "message"),
    [
        (([], "int4"), {}, ArgumentError, "values has 0 entries"),
        (([1], "int4"), {"random": [1, 2]}, ArgumentError, "values has 1 entries, random 2"),
        (([1, math.inf], "int4"), {}, RangeError, "NaN or an infinity"),
        (([1], "int4", E8M0, "nvfp4_te"), {}, ArgumentError, "recipe='nvfp4_te' is not known"),
        (([1], "int4", "float16", "floor"), {}, FormatError, "holds others too"),
        (([1], "e2m1fn"), {"zero_point": True}, FormatError, "needs an Integer element"),
        (([1], "int1"), {}, FormatError, "no positive value"),
        (([1], "nf4", E8M0, "even"), {}, FormatError, "is a codebook"),
    ],
)
def test_wrong_arguments_are_named(
    arguments: tuple[object, ...], options: dict[str, object], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        encode_block(*arguments, **options)
