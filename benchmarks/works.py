"""What is timed: each work is a format, a verb, modes and an input, with the ratio to the limit that lowp aims at."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

import lowp

COLUMNS = 4096
#: With a new output, times a copy into a new array.
TARGET_NEW = 1.3
#: Tensors against the NumPy path, and jax.jit against the copy.
TARGET_TORCH, TARGET_JAX = 1.2, 4.0


@dataclass(frozen=True)
class Work:
    """What is to be done to the input.

    Attributes:
        verb: "quantize" (fake quantization), "encode", "pack" (encode and pack the codes) or "decode".
        target: Times the fastest copy into an array that is there, with the same bytes in and out.
        headline: Whether a faster peer makes the run fail.
    """

    name: str
    format: str
    verb: str = "quantize"
    rounding: str = "ties_to_even"
    overflow: str = "saturate"
    dtype: str = "float32"
    target: float = 1.1
    headline: bool = False


WORKS = [
    Work("e4m3fn", "float8_e4m3fn", headline=True),
    Work("mxfp4", "mxfp4", target=1.3, headline=True),
    Work("e5m2", "float8_e5m2"),
    Work("bf16", "bfloat16"),
    Work("fp16", "float16"),
    Work("e5m7", "e5m7"),
    Work("fp6", "float6_e3m2fn"),
    Work("fp6_e2m3", "float6_e2m3fn"),
    Work("fp4", "float4_e2m1fn"),
    Work("int8_row", "int8_row"),
    Work("int4_g128", "int4_g128"),
    Work("e4m3fn_zero", "float8_e4m3fn", rounding="toward_zero"),
    Work("e4m3fn_nonsat", "float8_e4m3fn", overflow="infinity_or_nan"),
    Work("e5m2_away", "float8_e5m2", rounding="ties_to_away", overflow="infinity_or_nan"),
    Work("e5m7_odd", "e5m7", rounding="to_odd"),
    Work("bf16_up", "bfloat16", rounding="toward_positive", overflow="propagate"),
    Work("e4m3fn_sr", "float8_e4m3fn", rounding="stochastic", target=1.6),
    Work("bf16_sr", "bfloat16", rounding="stochastic", target=1.6),
    Work("e5m7_sr", "e5m7", rounding="stochastic_c", target=1.6),
    Work("mxfp8", "mxfp8_e4m3", target=1.3),
    Work("mxfp6", "mxfp6_e2m3", target=1.3),
    Work("mxint8", "mxint8", target=1.3),
    Work("mxfp4_sr", "mxfp4", rounding="stochastic", target=1.6),
    Work("nvfp4", "nvfp4", target=1.8),
    Work("posit8", "posit8_es2", target=1.4),
    Work("posit16", "posit16_es2", target=1.4),
    Work("takum16", "takum16_linear", target=1.4),
    Work("lns8", "lns8_f3", target=1.4),
    Work("nf4", "nf4", target=1.4),
    Work("encode_e4m3fn", "float8_e4m3fn", verb="encode"),
    Work("encode_bf16", "bfloat16", verb="encode"),
    Work("encode_mxfp4", "mxfp4", verb="encode"),
    Work("encode_posit8", "posit8_es2", verb="encode"),
    Work("pack_fp4", "float4_e2m1fn", verb="pack"),
    Work("decode_e4m3fn", "float8_e4m3fn", verb="decode"),
    Work("decode_mxfp4", "mxfp4", verb="decode"),
    Work("f64_e4m3fn", "float8_e4m3fn", dtype="float64", target=1.2),
    Work("f64_bf16", "bfloat16", dtype="float64", target=1.2),
    Work("bf16_e4m3fn", "float8_e4m3fn", dtype="bfloat16", target=1.2),
    Work("bf16_mxfp4", "mxfp4", dtype="bfloat16", target=1.3),
    Work("fp16_e4m3fn", "float8_e4m3fn", dtype="float16", target=1.2),
]
ALL = tuple(w.name for w in WORKS)
QUANTIZE = tuple(w.name for w in WORKS if w.verb == "quantize")
#: Casts that packages of dtypes can do, and the names that they have there.
CASTS = ("e4m3fn", "e5m2", "bf16", "fp16")
SMALL_CASTS = (*CASTS, "fp6", "fp6_e2m3", "fp4")
GROUPS = {"int8_row": (None, 127, np.float32), "int4_g128": (128, 7, np.float16)}
#: Exponent and mantissa bits.
BITS = {
    "e4m3fn": (4, 3),
    "e4m3fn_sr": (4, 3),
    "e5m2": (5, 2),
    "bf16": (8, 7),
    "bf16_sr": (8, 7),
    "fp16": (5, 10),
    "e5m7": (5, 7),
    "e5m7_odd": (5, 7),
    "fp6": (3, 2),
    "fp6_e2m3": (2, 3),
    "fp4": (2, 1),
}
MX_ELEMENTS = {"mxfp4": ("float4_e2m1fn", 6.0), "mxfp8": ("float8_e4m3fn", 448.0), "mxfp6": ("float6_e2m3fn", 7.5)}


def make_input(size: int) -> np.ndarray:
    """Return N(0, 1) in rows of 4096; the first row spans the range of E4M3 and is full of ties."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((size // COLUMNS, COLUMNS), dtype=np.float32)
    wide = np.ldexp(rng.standard_normal(COLUMNS), rng.integers(-12, 8, COLUMNS)).clip(-448, 448).astype(np.float32)
    wide[::2] = (wide[::2].view(np.uint32) & 0xFFF80000).view(np.float32)
    x[0] = wide
    return x


def input_of(work: Work, x: np.ndarray) -> np.ndarray:
    """Return the work's input: numbers of its dtype, or codes."""
    if work.verb == "decode":
        return lowp.encode(x, work.format).codes
    return x if work.dtype == "float32" else x.astype(dtype_of(work))


def dtype_of(work: Work) -> np.dtype:
    """Return the dtype of the numbers that go in."""
    if work.dtype == "bfloat16":
        import ml_dtypes

        return np.dtype(ml_dtypes.bfloat16)
    return np.dtype(work.dtype)


def wanted(work: Work, x: np.ndarray) -> np.ndarray:
    """Return lowp's result."""
    if work.verb in ("encode", "pack"):
        codes = lowp.encode(x, work.format, work.rounding, work.overflow)
        return codes.pack().reshape(len(x), -1) if work.verb == "pack" else codes.codes
    if work.verb == "decode":
        return decoded(work, x)
    return lowp.quantize(x, work.format, work.rounding, work.overflow)


def decoded(work: Work, codes: np.ndarray) -> np.ndarray:
    """Decode; codes of a block format get scales of 1, one for each block."""
    if work.format == "mxfp4":
        return lowp.decode(block_codes(codes), dtype=np.float32)
    return lowp.decode(codes, work.format, dtype=np.float32)


def block_codes(codes: np.ndarray) -> lowp.Encoded:
    """Return codes of MXFP4 with all scales 1."""
    scales = np.full((len(codes), codes.shape[-1] // 32), 127, np.uint8)
    return lowp.Encoded(codes, lowp.parse("mxfp4"), scales=scales, dtype=np.dtype(np.float32))
