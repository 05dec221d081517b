"""Block formats: what they say of themselves, and blocks that cannot exist."""

import re
from typing import Any

import numpy as np
import pytest

import lowp
from lowp.formats import Block, Integer, names
from lowp.formats.block import E8M0, SCALE_RECIPES


@pytest.mark.parametrize(
    ("name", "bits"),
    [
        ("mxfp8_e4m3", 8.25), ("mxfp8_e5m2", 8.25), ("mxfp6_e3m2", 6.25), ("mxfp6_e2m3", 6.25),
        ("mxfp4", 4.25), ("mxint8", 8.25),
        ("mxint6", 6.25), ("mxint4", 4.25), ("nvfp4", 4.5), ("nvfp4_torchao", 4.5), ("nvfp4_modelopt", 4.5),
        ("int8_row", 8.0), ("int8_tensor", 8.0), ("int4_g128", 4.125), ("int4_g128_asym", 4.15625),
        ("int3_g128", 3.125), ("int2_g64", 2.25), ("int4_g32_pow2", 4.25), ("nf4_g64", 4.5),
        ("fp8_tile128", 8 + 32 / 16384), ("mxfp4_modelopt", 4.25),
        *((f"nvfp4_4over6{rule}", 4.5) for rule in ("", "_mae", "_abs_max")),
        *((f"nvfp4_4over6{rule}_2d", 4 + 8 / 256) for rule in ("", "_mae", "_abs_max")),
        ("nvfp4_static6", 4.5), ("nvfp4_static4", 4.5), ("nvfp4_static6_unbiased", 4.5), ("nvint4", 4.5),
        ("nvfp4_static6_2d", 4 + 8 / 256), ("nvfp4_static4_2d", 4 + 8 / 256), ("nvfp6_e2m3", 6.5), ("nvfp6_e3m2", 6.5),
        *((f"msfp{bits}", bits - 7.5) for bits in range(11, 17)), ("flex16_5", 16.0), ("dfp16", 16.0), ("dfp8", 8.0),
        *((f"mxfp4_{rule}", 4.25) for rule in ("static6", "static4", "mse", "three_quarters", "quest")),
    ],
)  # fmt: skip
def test_bits_per_value_count_everything(name: str, bits: float) -> None:
    fmt = lowp.parse(name)
    assert isinstance(fmt, Block)
    assert fmt.bits_per_value == bits
    assert fmt.bits == fmt.element.bits


def test_every_registered_block_has_a_size_here() -> None:
    (mark,) = test_bits_per_value_count_everything.pytestmark  # type: ignore[attr-defined]
    assert {case[0] for case in mark.args[1]} == {n for n in names("block") if isinstance(lowp.parse(n), Block)}


def test_parts_by_name_or_by_object() -> None:
    by_name = Block("float4_e2m1fn", 16, "float8_e4m3fn", "float32")
    by_object = Block(lowp.parse("fp4"), 16, lowp.parse("fp8"), lowp.Float(8, 23))  # type: ignore[arg-type]
    assert by_name == by_object
    assert hash(by_name) == hash(by_object)
    assert Block("fp4") == Block("fp4", 32, "e8m0") == lowp.parse("mxfp4")
    assert Block("int4", [2, 3], "fp32").size == (2, 3)  # type: ignore[arg-type]
    assert Block("int4", np.int64(8), "fp32").size == 8


def test_the_default_recipe_follows_the_scale() -> None:
    assert Block("fp4").recipe == "floor"
    assert Block("fp4", 16, "fp8").recipe == "round"
    assert Block("fp4").with_recipe("rceil") == Block("fp4", recipe="rceil") == lowp.parse("mxfp4_rceil")
    assert Block("fp4").with_recipe("floor") == Block("fp4")


def test_limits_are_products_of_the_parts() -> None:
    fmt = Block("float4_e2m1fn", 16, "float8_e4m3fn", "float32")
    assert fmt.max == 6.0 * 448.0 * lowp.parse("float32").max  # type: ignore[attr-defined]
    assert fmt.min == -fmt.max
    assert Block("int4", 8, "float16").min == -8 * 65504.0
    assert Block("int4", (4, 2), "float16").block_elements == 8
    assert Block("int4", "row", "float16").block_elements is None


def test_the_mx_formats_are_those_of_the_standard() -> None:
    for name, largest in {
        "mxfp8_e4m3": 448,
        "mxfp8_e5m2": 57344,
        "mxfp6_e3m2": 28,
        "mxfp6_e2m3": 7.5,
        "mxfp4": 6,
        "mxint8": 127 / 64,
    }.items():
        fmt = lowp.parse(name)
        assert isinstance(fmt, Block)
        assert (fmt.size, fmt.scale, fmt.recipe, fmt.tensor_scale) == (32, E8M0, "floor", None)
        assert fmt.element.max == largest
    assert (E8M0.min, E8M0.max, E8M0.bits) == (2.0**-127, 2.0**127, 8)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"element": "mxfp4"}, "element='mxfp4' is a block format"),
        ({"element": "fp5"}, "format='fp5' is not known"),
        ({"element": 4}, "element=4 is not a scalar format or the name of one"),
        ({"element": None}, "element=None is not a scalar format"),
        ({"element": "fp4", "scale": "mxfp4"}, "scale='mxfp4' is a block format"),
        ({"element": "fp4", "tensor_scale": 1.0}, "tensor_scale=1.0 is not a scalar format"),
        ({"element": "fp4", "size": 0}, "size=0 must be a positive integer, (rows, columns), 'row' or 'tensor'"),
        ({"element": "fp4", "size": -4}, "size=-4 must be a positive integer"),
        ({"element": "fp4", "size": 1.5}, "size=1.5 must be a positive integer"),
        ({"element": "fp4", "size": True}, "size=True must be a positive integer"),
        ({"element": "fp4", "size": (4, 0)}, "size=(4, 0) must be a positive integer"),
        ({"element": "fp4", "size": (1, 2, 3)}, "size=(1, 2, 3) must be a positive integer"),
        ({"element": "fp4", "size": ()}, "size=() must be a positive integer"),
        ({"element": "fp4", "size": None}, "size=None must be a positive integer"),
        ({"element": "fp4", "size": "rows"}, "size='rows' is not known; allowed: a positive integer, (rows, col"),
        ({"element": "fp4", "scale": "int1"}, "scale='int1' has no positive value"),
        ({"element": "fp4", "zero_point": True}, "zero_point=True needs Integer elements, not 'float4_e2m1fn'"),
        ({"element": "fp4", "recipe": "flor"}, "recipe='flor' is not known. Did you mean 'floor'"),
        ({"element": "fp4", "nonfinite": "nan"}, "nonfinite='nan' is not known. Did you mean 'nan_block'"),
        ({"element": "fp4", "scale": "fp8", "recipe": "floor"}, "makes powers of two, scale='float8_e4m3fn' holds"),
        ({"element": "fp4", "scale": "fp8", "recipe": "nvfp4_te"}, "is defined for blocks of 16 (or 16x16), not"),
    ],
)  # fmt: skip
def test_blocks_that_cannot_exist(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(lowp.FormatError, match=re.escape(message)):
        Block(**arguments)


def test_every_recipe_is_documented_and_implemented() -> None:
    needs_fp8, needs_tensor_scale = ("nvfp4", "fouroversix"), ("nvfp4", "fouroversix", "three_quarters")
    for recipe, text in SCALE_RECIPES.items():
        fmt = Block(
            "fp4",
            16 if recipe.startswith("nvfp4") else 32,
            "fp8" if recipe.startswith(needs_fp8) else "e8m0",
            "fp32" if recipe.startswith(needs_tensor_scale) else None,
            recipe=recipe,
        )
        x = np.linspace(-3, 3, 64, dtype=np.float32)
        limit = 1.6 if recipe == "quest" else 0.7  # "quest" clips
        assert np.abs(lowp.quantize(x, fmt) - x).max() < limit, recipe
        assert text


def test_integers_of_any_width_take_zero_points() -> None:
    x = np.linspace(-1, 3, 64, dtype=np.float32)
    for bits in (2, 4, 8, 12, 16):
        for signed in (False, True):
            fmt = Block(Integer(bits, signed), 16, "float32", zero_point=True)
            assert fmt.block_bits == 32 + bits
            q = lowp.encode(x, fmt)
            assert np.array_equal(lowp.decode(q), lowp.quantize(x, fmt))
            # one step of rounding for the value, one for the zero point
            assert np.abs(lowp.decode(q) - x).max() <= 4 / (2**bits - 1)
