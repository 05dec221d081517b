"""The fast paths against vectors made by independent programs and by hardware, every entry of every file.

Stochastic modes are not here: the vectors give random words, `lowp.encode` takes a seed. The oracle is checked against
them in test_exact_vectors.py, and the kernels against the oracle in test_against_oracle.py.
"""

import re
from typing import Any

import numpy as np
import pytest

import lowp
from lowp.formats import Float, Format
from tests.rounding import vector_formats as vf
from tests.rounding.vector_formats import Vectors

ml_dtypes = pytest.importorskip("ml_dtypes")


def numbers(codes: np.ndarray, fmt: str | Format) -> np.ndarray:
    """Decode codes to float64."""
    return np.asarray(lowp.decode(codes, fmt))


def check_codes(
    case: str, x: np.ndarray, fmt: Any, wanted: np.ndarray, skip: np.ndarray | bool = False, **how: Any
) -> None:
    """Encode and quantize `x` and compare with the codes `wanted`, except where `skip` says so or NaN has no code."""
    form = lowp.parse(fmt)
    wide = vf.cast(x)
    kept = ~(np.broadcast_to(skip, x.shape) | (np.isnan(wide) & (not form.has_nan)))  # type: ignore[attr-defined]
    x, wanted = x[kept], wanted[kept]
    assert x.size > 100, case
    got = lowp.encode(x, form, **how).codes
    same = (got == wanted) | vf.same_numbers(numbers(got, form), numbers(wanted, form))
    assert same.all(), (
        f"{case}: {(~same).sum()} of {x.size} differ: {x[~same][0]!r} is {got[~same][0]:#x}, not {wanted[~same][0]:#x}"
    )
    values = lowp.quantize(vf.cast(x), form, **how)
    assert vf.same_numbers(values, numbers(wanted, form)).all(), case


@pytest.mark.parametrize("name", vf.ML_DTYPES)
def test_ml_dtypes_decodes_the_same(vectors: Vectors, name: str) -> None:
    arrays = vectors(f"ml_dtypes/{name}")
    assert vf.same_numbers(lowp.values(name), arrays["decode_f64"]).all()
    single = lowp.decode(np.arange(arrays["decode_f32"].size), name, dtype=np.float32)
    assert single.dtype == np.float32
    assert vf.same_numbers(single, arrays["decode_f32"]).all()


@pytest.mark.parametrize("name", vf.ML_DTYPES)
def test_ml_dtypes_casts_give_the_same_codes(vectors: Vectors, name: str) -> None:
    arrays = vectors(f"ml_dtypes/{name}")
    inputs = {
        "f32_out": arrays["f32_in"],
        "f64_out": vf.cast(arrays["f64_in"], np.float32),  # as the oracle does
        "f16_out": arrays.get("f16_in", np.arange(1 << 16, dtype=np.uint16)).view(np.float16),
        "bf16_out": arrays["bf16_in"].view(ml_dtypes.bfloat16),
    }
    for key, x in inputs.items():
        mistaken = vf.mistaken_e8m0(np.abs(vf.cast(x)), name)
        mode = vf.ml_dtypes_mode(name)
        check_codes(f"{name} {key}", x, name, arrays[key], mistaken, rounding=mode, overflow="infinity_or_nan")


def test_ml_dtypes_casts_between_its_types(vectors: Vectors) -> None:
    arrays = vectors("ml_dtypes/cross_casts")
    assert len(arrays) > 50
    for key, wanted in arrays.items():
        source, target = key.split("__to__")
        x, fmt = lowp.values(source), lowp.parse(target)
        kept = ~(np.isnan(x) & (not fmt.has_nan) | vf.mistaken_e8m0(np.abs(x), target))  # type: ignore[attr-defined]
        got = lowp.encode(x[kept], fmt, vf.ml_dtypes_mode(target), "infinity_or_nan").codes
        assert vf.same_numbers(numbers(got, fmt), numbers(wanted[kept], fmt)).all(), key


def test_ml_dtypes_integers_wrap(vectors: Vectors) -> None:
    arrays = vectors("ml_dtypes/ints")
    for name in ("int1", "int2", "int4", "uint1", "uint2", "uint4"):
        got = lowp.quantize(arrays["int32_in"], name, overflow="wrap")
        assert got.tolist() == arrays[f"{name}_from_int32"].tolist(), name


@pytest.mark.parametrize("name", [*vf.GFLOAT, *vf.GFLOAT_P3109])
def test_gfloat_in_its_deterministic_modes(vectors: Vectors, name: str) -> None:
    file, fmt = vf.gfloat_format(name)
    assert isinstance(fmt, Float)
    arrays = vectors(file)
    assert vf.same_numbers(lowp.values(fmt), arrays["decode"]).all()
    x = arrays["x"]
    largest = fmt.max_code | np.where(np.signbit(x) & fmt.signed, 1 << (fmt.bits - 1), 0)
    cases = [k for k in arrays if re.fullmatch(r"T\w+_sat[01]", k)]
    assert len(cases) == 12
    for key in cases:
        mode, saturating = key.removesuffix("_sat0").removesuffix("_sat1"), key.endswith("1")
        suspect = arrays.get(f"{mode}_sat1_suspect", np.False_) | arrays.get(f"{key}_suspect", np.False_)
        theirs = arrays[key]
        if not saturating:
            went_beyond = (theirs < 0) | ~np.isfinite(numbers(np.maximum(theirs, 0), fmt))
            theirs = np.where(went_beyond & vf.beyond_the_rules(fmt, x, mode), largest, theirs)
        overflow = "saturate" if saturating else "infinity_or_nan"
        check_codes(f"{name} {key}", x, fmt, theirs, suspect, rounding=vf.GFLOAT_MODES[mode], overflow=overflow)


def test_every_p3109_value_table(vectors: Vectors) -> None:
    tables = vectors("gfloat/p3109_decode")
    assert len(tables) > 80
    for name, values in tables.items():
        assert vf.same_numbers(lowp.values(vf.p3109_name(name)), values).all(), name


@pytest.mark.parametrize("name", vf.AP_FIXED)
def test_ap_fixed_in_every_mode(vectors: Vectors, name: str) -> None:
    fmt = vf.ap_fixed_format(name)
    arrays = vectors(f"ap_fixed/ap_{name}")
    assert len(arrays) > 40
    for key in arrays.keys() - {"x"}:
        mode, overflow, saturated = key.split("/")
        got = lowp.encode(arrays["x"], fmt, mode, overflow, saturation_bits=int(saturated)).codes
        wanted = arrays[key].astype(np.int64) & ((1 << fmt.bits) - 1)
        bad = np.flatnonzero(got != wanted)
        assert not bad.size, (name, key, arrays["x"][bad[0]], got[bad[0]], wanted[bad[0]])


@pytest.mark.parametrize(
    "name",
    ["float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz", "float8_e8m0fnu", "bfloat16", "float16"],
)
def test_torch_casts(vectors: Vectors, name: str) -> None:
    arrays = vectors("torch_casts/float8_casts")
    inputs = {
        "f32": arrays["f32_in"],
        "f64": vf.cast(arrays["f64_in"], np.float32),  # as the oracle does
        "f16": arrays["f16_in"].view(np.float16),
        "bf16": arrays["f16_in"].view(ml_dtypes.bfloat16),
    }
    how = {
        "rounding": vf.ml_dtypes_mode(name),
        "overflow": "saturate" if name == "float8_e4m3fn" else "infinity_or_nan",
    }
    for source, x in inputs.items():
        wide = vf.cast(x)
        skip = vf.mistaken_e8m0(wide, name)
        if name == "float8_e8m0fnu":  # torch drops signs here and maps 0 to 2^-127
            skip |= ~(wide > 0) | np.isinf(wide)
        if f"{name}_from_{source}" in arrays:
            check_codes(f"{name} {source}", x, name, arrays[f"{name}_from_{source}"], skip, **how)
    if f"{name}_decode_f32" in arrays:
        assert vf.same_numbers(lowp.values(name), vf.cast(arrays[f"{name}_decode_f32"])).all()


def test_torchao_casts_saturate(vectors: Vectors) -> None:
    arrays = vectors("torchao/element_casts")
    for key, name in {"fp4_e2m1": "float4_e2m1fn", "fp6_e2m3": "float6_e2m3fn", "fp6_e3m2": "float6_e3m2fn"}.items():
        check_codes(key, arrays["x"], name, arrays[key])


_X86_MODES = {
    "n": "ties_to_even",
    "rne": "ties_to_even",
    "rn": "ties_to_even",
    "rd": "toward_negative",
    "ru": "toward_positive",
    "rz": "toward_zero",
}


@pytest.mark.parametrize(
    ("instruction", "fmt"), [("vcvtps2ph", "float16"), ("vcvtpd2ph", "float16"), ("vcvtpd2ps", "float32")]
)
@pytest.mark.parametrize("suffix", ["rn", "rd", "ru", "rz"])
def test_x86_conversions(vectors: Vectors, instruction: str, fmt: str, suffix: str) -> None:
    single = instruction == "vcvtps2ph"
    arrays = vectors("x86/f16c_bf16_converts" if single else "x86/f64_converts")
    x = arrays["f32_in"].view(np.float32) if single else arrays["f64_in"].view(np.float64)
    wanted = arrays[f"{instruction}_{'rne' if single and suffix == 'rn' else suffix}"]
    check_codes(f"{instruction} {suffix}", x, fmt, wanted, rounding=_X86_MODES[suffix], overflow="infinity_or_nan")


def test_x86_bfloat16_conversion_but_for_subnormal_inputs(vectors: Vectors) -> None:
    arrays = vectors("x86/f16c_bf16_converts")
    x = arrays["f32_in"].view(np.float32)
    flushed = (np.abs(x) < np.finfo(np.float32).tiny) & (x != 0)
    check_codes("vcvtneps2bf16", x, "bfloat16", arrays["vcvtneps2bf16"], flushed, overflow="infinity_or_nan")
    codes = np.arange(1 << 16, dtype=np.uint16)
    assert vf.same_numbers(
        lowp.decode(codes, "float16", dtype=np.float32), arrays["vcvtph2ps_all"].view(np.float32)
    ).all()
    assert vf.same_numbers(lowp.values("float16"), arrays["vcvtph2pd_all"].view(np.float64)).all()


_CPFLOAT_MODES = {
    "NE": "ties_to_even", "NA": "ties_to_away", "NZ": "ties_to_zero", "TP": "toward_positive", "TN": "toward_negative",
    "TZ": "toward_zero", "OD": "to_odd",
}  # fmt: skip


@pytest.mark.parametrize("name", ["bfloat16", "binary16", "e4m3", "e5m2", "e8m23", "p2e3", "p5e6", "tf32"])
def test_cpfloat(vectors: Vectors, name: str) -> None:
    arrays = vectors(f"cpfloat/{name}")
    x = arrays["x"]
    for mode, rounding in _CPFLOAT_MODES.items():
        for saturating in (0, 1):
            for subnormals in (0, 1):
                fmt = vf.cpfloat_format(*arrays["params"].tolist(), subnormals=bool(subnormals))
                key = f"{mode}_explim1_inf1_sat{saturating}_subn{subnormals}"
                wanted = arrays[key]
                got = lowp.quantize(x, fmt, rounding, "saturate" if saturating else "infinity_or_nan")
                same = vf.same_numbers(got, wanted) | arrays.get(f"{key}_differs_ieee", np.False_)
                if mode in ("TP", "TN"):  # its zeros lose their sign there
                    same |= (got == 0) & (wanted == 0)
                assert same.all(), (name, key, x[~same][:3], got[~same][:3], wanted[~same][:3], (~same).sum())


_MX_ROUNDING = {"nearest": "ties_to_away", "floor": "toward_zero", "even": "ties_to_even"}
_MX_ELEMENTS: dict[str, Any] = {
    "int8": "fixed8_6_sym", "int4": "fixed4_2_sym", "int2": "fixed2_0_sym",
    "fp8_e5m2": "float8_e5m2", "fp8_e4m3": "float8_e4m3fn", "fp6_e3m2": "float6_e3m2fn", "fp6_e2m3": "float6_e2m3fn",
    "fp4_e2m1": "float4_e2m1fn",
}  # fmt: skip


@pytest.mark.parametrize("name", _MX_ELEMENTS)
def test_microxcaling_elements_saturating(vectors: Vectors, name: str) -> None:
    arrays = vectors("microxcaling/elementwise")
    for key, rounding in _MX_ROUNDING.items():
        check_microxcaling(arrays, f"elem_{name}_{key}_sat1_denorm1", _MX_ELEMENTS[name], rounding, "saturate")


@pytest.mark.parametrize(
    ("name", "fmt"),
    [("bfloat20", "e8m11"), ("bfloat16", "e8m7"), ("bfloat12", "e8m3"), ("bfloat10", "e8m1")]
    + [(f"fp_{f}", f) for f in ("e5m10", "e5m2", "e6m9", "e8m7")],
)
def test_microxcaling_floats_with_infinities(vectors: Vectors, name: str, fmt: str) -> None:
    arrays = vectors("microxcaling/elementwise")
    top = 2.0 ** (int(np.log2(lowp.parse(fmt).max)) + 1)  # type: ignore[attr-defined]
    for key, rounding in _MX_ROUNDING.items():
        largest = top if key == "floor" else np.inf  # from there on its "floor" gives infinity
        check_microxcaling(arrays, f"{name}_{key}_denorm1", fmt, rounding, "infinity_or_nan", largest)


def check_microxcaling(arrays: Any, key: str, fmt: Any, rounding: str, overflow: str, largest: float = np.inf) -> None:
    """Compare values but for signs of zero, infinities, the top binade and exponents that its float32 log2 missed."""
    x = arrays["x"]
    kept = ~arrays["log2_edge"] & (np.abs(x) < min(2.0**127, largest))
    got, wanted = lowp.quantize(vf.cast(x[kept]), fmt, rounding, overflow), arrays[key][kept]
    same = (got == wanted) | (np.isnan(got) & np.isnan(wanted))
    assert same.all(), (key, x[kept][~same][:5], got[~same][:5], wanted[~same][:5], (~same).sum())
