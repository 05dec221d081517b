"""How the programs that made the independent vectors name formats and modes, and where they depart from the rules."""

import re
from collections.abc import Callable, Mapping

import numpy as np

from lowp.formats import Fixed, Float, parse
from lowp.formats.spec import Format

#: Reads one file of vectors.
Vectors = Callable[[str], Mapping[str, np.ndarray]]

GFLOAT_MODES = {
    "TowardZero": "toward_zero", "TowardNegative": "toward_negative", "TowardPositive": "toward_positive",
    "TiesToEven": "ties_to_even", "TiesToAway": "ties_to_away", "ToOdd": "to_odd",
    "Stochastic": "stochastic_c", "StochasticFast": "stochastic_b", "StochasticFastest": "stochastic_a",
}  # fmt: skip
GFLOAT = {
    "ocp_e4m3": "float8_e4m3fn", "ocp_e5m2": "float8_e5m2", "ocp_e3m2": "float6_e3m2fn", "ocp_e2m1": "float4_e2m1fn",
    "bfloat16": "bfloat16", "binary16": "float16",
}  # fmt: skip
GFLOAT_P3109 = [
    "k3p1_Signed_Extended", "k4p2_Signed_Extended", "k4p2_Signed_Finite", "k4p2_Unsigned_Extended",
    "k5p2_Signed_Extended", "k6p2_Signed_Finite", "k6p3_Signed_Extended", "k6p3_Unsigned_Finite",
    "k8p1_Signed_Extended", "k8p1_Unsigned_Extended", "k8p2_Signed_Extended", "k8p3_Signed_Extended",
    "k8p3_Signed_Finite", "k8p4_Signed_Extended", "k8p4_Signed_Finite", "k8p4_Unsigned_Extended",
    "k8p5_Signed_Extended", "k8p5_Unsigned_Finite", "k8p7_Signed_Extended", "k12p5_Signed_Extended",
    "k15p8_Signed_Extended", "k16p11_Signed_Extended",
]  # fmt: skip
AP_FIXED = [
    "fixed_W3_I1", "fixed_W4_I2", "fixed_W5_I3", "fixed_W6_Im2", "fixed_W8_I0", "fixed_W8_I4", "fixed_W8_I8",
    "fixed_W10_I13", "fixed_W16_I6", "fixed_W24_I8", "fixed_W32_I16", "ufixed_W4_I2", "ufixed_W6_Im1", "ufixed_W8_I0",
    "ufixed_W8_I4", "ufixed_W8_I8", "ufixed_W12_I15", "ufixed_W16_I6",
]  # fmt: skip
ML_DTYPES = [
    "bfloat16", "float4_e2m1fn", "float6_e2m3fn", "float6_e3m2fn", "float8_e3m4", "float8_e4m3", "float8_e4m3b11fnuz",
    "float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz", "float8_e8m0fnu",
]  # fmt: skip


def p3109_name(name: str) -> str:
    """Turn gfloat's `k8p4_Signed_Extended` into P3109's `binary8p4se`."""
    k, p, signed, domain = re.fullmatch(r"k(\d+)p(\d+)_(\w)\w+_(\w)\w+", name).groups()  # type: ignore[union-attr]
    return f"binary{k}p{p}{signed}{domain}".lower()


def ap_fixed_format(name: str) -> Fixed:
    """Turn `fixed_W6_Im2` into the format with 6 bits, -2 of them left of the point."""
    sign, width, integer = re.fullmatch(r"(u?)fixed_W(\d+)_I(m?\d+)", name).groups()  # type: ignore[union-attr]
    return Fixed(int(width), int(width) - int(integer.replace("m", "-")), signed=not sign)


def cpfloat_format(precision: int, emin: int, emax: int, subnormals: bool) -> Float:
    """Turn CPFloat's parameters into an IEEE-style format."""
    return Float((2 * emax + 1).bit_length(), precision - 1, bias=1 - emin, subnormals=subnormals)


def ml_dtypes_mode(name: str) -> str:
    """The rounding mode of ml_dtypes casts; its ties go up between powers of two."""
    return "ties_to_away" if name == "float8_e8m0fnu" else "ties_to_even"


def mistaken_e8m0(x: np.ndarray, name: str) -> np.ndarray:
    """Where ml_dtypes rounds a subnormal float32 up to 2^-126 although 2^-127 is nearer."""
    return (name == "float8_e8m0fnu") & (x > 2.0**-127) & (x < 1.5 * 2.0**-127)


def beyond_the_rules(fmt: Format, x: np.ndarray, mode: str) -> np.ndarray:
    """Where gfloat leaves the finite range although P3109 stays at its end (without saturation, `x` not NaN).

    Without infinities P3109 clamps, gfloat gives NaN or raises. Rounding to odd stops at the largest finite value if
    its code is odd, as P3109 says for unsigned formats; gfloat goes on.
    """
    assert isinstance(fmt, Float)
    if fmt.specials in ("finite", "p3109_finite"):
        return ~np.isnan(x)
    return np.isfinite(x) & (mode == "ToOdd" and fmt.max_code & 1 == 1)


def cast(x: np.ndarray, dtype: type = np.float64) -> np.ndarray:
    """Convert without NumPy's warnings about signalling NaN and overflow."""
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        return x.astype(dtype)


def same_numbers(got: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Where two arrays hold the same number, signs of zero included; NaNs are equal."""
    equal = (got == wanted) & (np.signbit(got) == np.signbit(wanted))
    return equal | (np.isnan(got) & np.isnan(wanted))


def gfloat_format(name: str) -> tuple[str, Format]:
    """Return the vectors' file and the format of a name in `GFLOAT` or `GFLOAT_P3109`."""
    if name in GFLOAT:
        return f"gfloat/{name}", parse(GFLOAT[name])
    return f"gfloat/p3109_{name}", parse(p3109_name(name))
