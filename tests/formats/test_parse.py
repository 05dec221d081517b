"""Names to formats and back."""

import contextlib
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lowp
from lowp.formats import Block, Codebook, Fixed, Float, Format, Integer, names
from lowp.formats.float_format import SPECIALS
from lowp.formats.registry import ALIASES, REGISTRY

many = settings(max_examples=300, deadline=None, derandomize=True, database=None)


@pytest.mark.parametrize("name", names())
def test_every_registered_name_and_alias_stands_for_its_format(name: str) -> None:
    fmt = REGISTRY[name].format
    for spelling in (name, name.upper(), f" {name} ", name.replace("_", "-"), *REGISTRY[name].aliases):
        assert lowp.parse(spelling) == fmt, spelling
    assert lowp.parse(fmt) is fmt
    assert str(fmt) == fmt.name == name


def test_no_name_stands_for_two_formats() -> None:
    assert not set(ALIASES) & set(REGISTRY)
    assert len({entry.format for entry in REGISTRY.values()}) == len(REGISTRY)
    spelled = [alias for entry in REGISTRY.values() for alias in entry.aliases]
    assert len(spelled) == len(set(spelled))


def test_families_partition_the_names() -> None:
    families = ("float", "integer", "fixed point", "codebook", "posit", "takum", "logarithmic", "block")
    assert sorted(n for f in families for n in names(f)) == sorted(names())


@st.composite
def floats(draw: st.DrawFn) -> Float:
    """Any float that can exist."""
    fields = {
        "exponent_bits": draw(st.integers(1, 11)),
        "mantissa_bits": draw(st.integers(0, 12)),
        "signed": draw(st.booleans()),
        "subnormals": draw(st.booleans()),
        "specials": draw(st.sampled_from(sorted(SPECIALS))),
        "bias": draw(st.none() | st.integers(-20, 40)),
        "zero": draw(st.booleans()),
    }
    try:
        return Float(**fields)
    except lowp.FormatError:
        return Float(draw(st.integers(2, 8)), draw(st.integers(1, 12)))


@given(floats())
@many
def test_names_of_floats_read_back(fmt: Float) -> None:
    if fmt.specials.startswith("p3109") and not fmt.subnormals:
        return  # P3109 has no such formats, and its names do not say
    for name in (fmt.name, fmt.generated_name(), fmt.name.upper()):
        assert lowp.parse(name) == fmt, name


@pytest.mark.parametrize(
    "fmt", [Float(3, 2, specials="fn"), Float(2, 3, specials="fn"), Float(2, 1, specials="fn"), Float(2, 1)]
)
def test_a_format_never_has_the_name_of_another(fmt: Float) -> None:
    assert fmt.name not in REGISTRY
    assert lowp.parse(fmt.name) == fmt


@given(st.integers(1, 32), st.booleans(), st.booleans())
@many
def test_names_of_integers_read_back(bits: int, signed: bool, symmetric: bool) -> None:
    if symmetric and (not signed or bits == 1):
        return
    fmt = Integer(bits, signed, symmetric)
    assert lowp.parse(fmt.name) == fmt == lowp.parse(fmt.generated_name())


@given(st.integers(2, 53), st.integers(-900, 900), st.booleans(), st.booleans())
@many
def test_names_of_fixed_point_read_back(bits: int, fraction: int, signed: bool, symmetric: bool) -> None:
    fmt = Fixed(bits, fraction, signed, symmetric and signed)
    assert lowp.parse(fmt.name) == fmt == lowp.parse(fmt.generated_name())


@given(
    st.sampled_from(["float8_e4m3fn", "int4", "uint4", "nf4", "fixed8_6_sym", "e2m2b-3fn", "binary8p4se"]),
    st.sampled_from([1, 7, 32, "row", "tensor", (4, 8)]),
    st.sampled_from(["float8_e8m0fnu", "float32", "float8_ue5m3fn", "e5m2b-3"]),
    st.sampled_from([None, "float32"]),
    st.booleans(),
    st.sampled_from(["", "ceil", "rceil", "round"]),
    st.sampled_from(["nan_block", "element", "error"]),
)
@many
def test_names_of_blocks_read_back(
    element: str, size: int, scale: str, tensor: str | None, zero: bool, recipe: str, nonfinite: str
) -> None:
    zero = zero and "int" in element
    recipe = recipe if recipe != "ceil" or scale == "float8_e8m0fnu" else ""
    tensor = None if zero else tensor
    fmt = Block(element, size, scale, tensor, zero_point=zero, recipe=recipe, nonfinite=nonfinite)
    assert lowp.parse(fmt.name) == fmt == lowp.parse(fmt.generated_name())


@pytest.mark.parametrize(
    ("name", "fmt"),
    [
        ("e5m7", Float(5, 7)),
        ("fp13_e5m7", Float(5, 7)),
        ("e4m3b9fn", Float(4, 3, bias=9, specials="fn")),
        ("e2m2b-3fn", Float(2, 2, bias=-3, specials="fn")),
        ("E2M2B-3FN", Float(2, 2, bias=-3, specials="fn")),
        ("float8-e4m3fn", Float(4, 3, specials="fn")),
        ("ue6m2f", Float(6, 2, signed=False, specials="finite")),
        ("e3m2_nosub", Float(3, 2, subnormals=False)),
        ("binary8p4se", Float(4, 3, specials="p3109")),
        ("binary6p3uf", Float(4, 2, signed=False, specials="p3109_finite")),
        ("int5", Integer(5)),
        ("uint12", Integer(12, signed=False)),
        ("int6_sym", Integer(6, symmetric=True)),
        ("fixed12_7", Fixed(12, 7)),
        ("ufixed6_m2", Fixed(6, -2, signed=False)),
        ("ap_fixed<12,5>", Fixed(12, 7)),
        ("ap_ufixed< 6, -2 >", Fixed(6, 8, signed=False)),
        ("int4_g64", Block("int4", 64, "float32")),
        ("nf4_g128_bf16", Block("nf4", 128, "bfloat16")),
        ("int4_g32_asym", Block("uint4", 32, "float32", zero_point=True)),
        ("int3_g16_pow2", Block("int3", 16)),
        ("e4m3fn_t128x128", Block("float8_e4m3fn", (128, 128), "float32")),
        ("int8_row", Block("int8", "row", "float32")),
        ("int8_tensor_bf16", Block("int8", "tensor", "bfloat16")),
        ("mxfp4_rceil", Block("float4_e2m1fn", recipe="rceil")),
        ("block[int4,16,e4m3fn,tensor=fp32]", Block("int4", 16, "float8_e4m3fn", "float32")),
        ("block[e4m3fn,2x4,fp32]", Block("float8_e4m3fn", (2, 4), "float32")),
    ],
)
def test_names_by_rule(name: str, fmt: Format) -> None:
    assert lowp.parse(name) == fmt


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("float8_e4m3nf", "float8_e4m3fn"),
        ("mxpf4", "mxfp4"),
        ("nf5", "nf4"),
        ("bfloat17", "bfloat16"),
        ("intt4", "int4"),
    ],
)
def test_unknown_names_get_the_nearest(name: str, nearest: str) -> None:
    with pytest.raises(lowp.FormatError, match=re.escape(f"format={name!r} is not known. Did you mean")) as caught:
        lowp.parse(name)
    assert repr(nearest) in str(caught.value)
    assert "lowp.formats.names() lists all" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "format='' is not known"),
        ("zzzzzzzz", "format='zzzzzzzz' is not known"),
        ("float9_e4m3", "format='float9_e4m3' says 9 bits, but its fields make 8"),
        ("int0", "bits=0 is out of range; allowed: 1 to 32"),
        ("int33", "bits=33 is out of range; allowed: 1 to 32"),
        ("int1_sym", "bits=1 is out of range; allowed: 2 to 32"),
        ("uint4_sym", "symmetric=True needs signed=True"),
        ("fixed1025_3", "bits=1025 is out of range; allowed: 1 to 1024"),
        ("fixed8_901", "fraction_bits=901 is out of range; allowed: -900 to 900"),
        ("e0m3", "exponent_bits=0 is out of range; allowed: 1 to 11"),
        ("e12m3", "exponent_bits=12 is out of range; allowed: 1 to 11"),
        ("e5m53", "mantissa_bits=53 is out of range; allowed: 0 to 52"),
        ("e5m0", "specials='ieee' needs mantissa_bits >= 1"),
        ("ue4m3fnuz", "specials='fnuz' puts NaN in the code of -0"),
        ("e8m3b2000", "outside that of float64"),
        ("binary4p4se", "exponent_bits=0 is out of range"),
        ("binary8p0se", "mantissa_bits=-1 is out of range"),
        ("int4_g0", "size=0 must be a positive integer"),
        ("e4m3fn_t0x4", "size=(0, 4) must be a positive integer"),
        ("e4m3fn_g32_asym", "zero_point=True needs Integer elements, not 'float8_e4m3fn'"),
        ("mxfp4_g32", "'mxfp4' is a block format; elements and scales must be scalar formats"),
        ("int8_floor", "only block formats have a scale recipe"),
        ("int4_g32_floor", "recipe='floor' makes powers of two, scale='float32' holds others too"),
        ("mxfp4_nvfp4_te", "recipe='nvfp4_te' is defined for blocks of 16 (or 16x16), not size=32"),
        ("block[int8]", "must read block[element,size,scale]"),
        ("block[int8,abc,fp32]", "must read block[element,size,scale]"),
        ("block[int8,4,fp32,tensr=fp32]", "must read block[element,size,scale]"),
        ("block[int8,4,fp33]", "format='fp33' is not known"),
        ("block[int8,4,fp32,recipe=celi]", "recipe='celi' is not known. Did you mean 'ceil'"),
    ],
)
def test_names_that_stand_for_nothing(name: str, message: str) -> None:
    with pytest.raises(lowp.FormatError, match=re.escape(message)):
        lowp.parse(name)


@pytest.mark.parametrize("thing", [None, 8, 1.5, b"fp8", ["fp8"], float])
def test_only_names_and_formats_are_formats(thing: object) -> None:
    with pytest.raises(
        lowp.ArgumentTypeError,
        match=re.escape(f"format={thing!r} must be a name or a Format, not {type(thing).__name__}"),
    ):
        lowp.parse(thing)  # type: ignore[arg-type]


@given(st.text(max_size=20))
@many
def test_any_text_is_a_format_or_a_format_error(text: str) -> None:
    with contextlib.suppress(lowp.FormatError):  # the only error there may be
        assert isinstance(lowp.parse(text), Format)


def test_labels_do_not_enter_equality() -> None:
    assert Codebook([0, 1], label="a") == Codebook([0, 1], label="b")
    assert Codebook([0, 1], label="a").name == "a"
