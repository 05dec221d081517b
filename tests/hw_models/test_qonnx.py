"""Data types of QONNX: values as QONNX's own checks allow them, names there and back."""

from __future__ import annotations

import numpy as np
import pytest

import lowp
from lowp import hw
from lowp.formats import Block, Codebook, Fixed, Float, Integer

EXACT = {
    "INT4": Integer(4),
    "INT1": Integer(1),
    "INT32": Integer(32),
    "INT33": Fixed(33, 0),
    "INT64": Fixed(64, 0),
    "UINT8": Integer(8, signed=False),
    "UINT48": Fixed(48, 0, signed=False),
    "BINARY": Integer(1, signed=False),
    "BIPOLAR": Codebook([-1, 1], label="bipolar1"),
    "TERNARY": Codebook([-1, 0, 1], codes=[3, 0, 1], label="ternary"),
    "FIXED<8,4>": Fixed(8, 4),
    "FIXED<6,0>": Fixed(6, 6),
    "FIXED<6,-2>": Fixed(6, 8),
    "FIXED<64,32>": Fixed(64, 32),
    "FLOAT<4,3,7>": Float(4, 3, specials="finite"),
    "FLOAT<2,1,1>": Float(2, 1, specials="finite"),
    "FLOAT<5,2,16>": Float(5, 2, bias=16, specials="finite"),
    "FLOAT<3,2,-5>": Float(3, 2, bias=-5, specials="finite"),
    "FLOAT<4,0,7>": Float(4, 0, specials="finite"),
    "FLOAT<1,2,0>": Float(1, 2, specials="finite"),
    "SCALEDINT<8>": Block("int8", size="tensor", scale="float32"),
    "FLOAT16": Float(5, 10),
    "FLOAT32": Float(8, 23),
}
#: Other ways to write the same.
ALSO = {
    "UINT1": "BINARY",
    "FLOAT<4,3>": "FLOAT<4,3,7>",
    "FLOAT<4,3,0>": "FLOAT<4,3,7>",
    "FIXED< 8 , 4 >": "FIXED<8,4>",
    "FLOAT<1,2>": "FLOAT<1,2,0>",
}


@pytest.mark.parametrize(("name", "fmt"), EXACT.items(), ids=list(EXACT))
def test_there_and_back(name: str, fmt: lowp.Format) -> None:
    assert hw.from_qonnx(name) == fmt
    assert hw.to_qonnx(fmt) == name
    assert hw.to_qonnx(fmt.name) == name


@pytest.mark.parametrize(("name", "canonical"), ALSO.items(), ids=list(ALSO))
def test_other_spellings(name: str, canonical: str) -> None:
    assert hw.from_qonnx(name) == hw.from_qonnx(canonical)
    assert hw.to_qonnx(hw.from_qonnx(name)) == canonical


@pytest.mark.parametrize(
    ("fmt", "name"),
    [("fixed8_0", "INT8"), ("int2_sym", "TERNARY"), ("binary", "BIPOLAR"), ("fp4", "FLOAT<2,1,1>")],
)
def test_formats_of_the_same_values(fmt: str, name: str) -> None:
    assert hw.to_qonnx(fmt) == name


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("int4", "Did you mean 'INT4'"),
        ("FLOAT8", "no QONNX data type"),
        ("FLOAT<4>", "no QONNX data type"),
        ("FIXED<8,4", "no QONNX data type"),
        ("BFLOAT16", "no QONNX data type"),
        ("", "no QONNX data type"),
        ("FIXED<4,4>", "fewer integer bits than bits"),
        ("INT0", "bits=0"),
        ("SCALEDINT<33>", "bits=33"),
        ("FLOAT<0,3>", "exponent_bits=0"),
        ("FLOAT<11,52>", "outside that of float64"),
    ],
)
def test_what_is_no_data_type(name: str, said: str) -> None:
    with pytest.raises(lowp.FormatError, match=said):
        hw.from_qonnx(name)


@pytest.mark.parametrize(
    ("fmt", "said"),
    [
        ("fp8", "no NaN"),
        ("bfloat16", "no NaN"),
        ("ue4m3f", "have a sign"),
        (Float(4, 3, specials="finite", subnormals=False), "have subnormals"),
        (Float(9, 3, bias=255, specials="finite"), "are float32"),
        (Float(4, 3, bias=0, specials="finite"), "a bias of 0"),
        ("int4_sym", "symmetric"),
        ("ufixed8_4", "unsigned fixed point"),
        (Fixed(8, -2), "integer part"),
        ("posit8", "Posit"),
        ("nf4", "Codebook"),
        ("mxfp4", "Quant nodes. Its elements alone are 'float4_e2m1fn'"),
        ("int8_row", "Quant nodes"),
        ("ggml_q4_0", "no QONNX data type"),
    ],
)
def test_what_has_no_data_type(fmt: str | lowp.Format, said: str) -> None:
    with pytest.raises(lowp.FormatError, match=said):
        hw.to_qonnx(fmt)


@pytest.mark.parametrize("call", [hw.from_qonnx, hw.to_qonnx])
def test_other_types_are_refused(call: object) -> None:
    with pytest.raises(lowp.ArgumentTypeError, match="must be"):
        call(4)  # type: ignore[operator]


@pytest.mark.parametrize("name", [*EXACT, *ALSO])
def test_values_are_those_that_qonnx_allows(name: str) -> None:
    """QONNX's own `allowed`, asked for every value and for numbers between and beyond them."""
    datatype = pytest.importorskip("qonnx.core.datatype")
    data_type, fmt = datatype.resolve_datatype(name), hw.from_qonnx(name)
    assert hw.from_qonnx(data_type) == fmt
    if name not in ("FLOAT16", "FLOAT32"):
        assert data_type.get_canonical_name() == hw.to_qonnx(fmt)
    if name.startswith("SCALEDINT"):
        assert data_type.bitwidth() == fmt.bits
        return
    assert (float(data_type.min()), float(data_type.max()), data_type.bitwidth()) == (fmt.min, fmt.max, fmt.bits)
    if fmt.bits > 8:
        return
    values = np.unique(lowp.decode(lowp.encode(np.linspace(fmt.min, fmt.max, 20001), fmt)))
    every = np.unique([float(fmt.meaning(code)) for code in range(1 << fmt.bits) if allowed_code(fmt, code)])
    assert set(values) <= set(every)
    tried = np.concatenate([every, (every[1:] + every[:-1]) / 2, [2 * fmt.min - 1, 2 * fmt.max + 1, 0.0]])
    for value in tried:
        assert bool(data_type.allowed(np.float32(value))) is (value in every), value


def allowed_code(fmt: lowp.Format, code: int) -> bool:
    """Whether a code has a meaning; a codebook of three values leaves one without."""
    return not isinstance(fmt, Codebook) or code in fmt.codes
