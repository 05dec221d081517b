"""Matrix units that differ in how they are computed, and operands for them."""

import numpy as np

import lowp

HOPPER = "hopper/wgmma_m64n8k32/e4m3_e4m3/f32"
NVFP4 = "blackwell/tcgen05_m128n8k64_mxf4nvf4_block16/e2m1_e2m1_ue4m3/f32"
MXFP8 = "blackwell/tcgen05_m128n8k32_mxf8f6f4_block32/e4m3_e4m3_ue8m0/f32"
QUIRE = "posit/quire/posit16_posit16/posit16"
#: Units that differ in the array code that they take.
KINDS = [
    HOPPER,
    "hopper/mma_m16n8k32/e5m2_e4m3/f32",
    "volta/mma_m8n8k4/f16_f16/f16",
    "ampere/mma_m16n8k8/tf32_tf32/f32",
    "hopper/wgmma_m64n8k32/s8_u8/s32",
    "hopper/wgmma_m64n8k32_satfinite/s8_s8/s32",
    "cdna2/mfma_16x16x16/f16_f16/f32",
    "x86/vdpbf16ps/bf16_bf16/f32",
    "arm/bfdot/bf16_bf16/f32",
    "library/lanes8/f16_f16/f32",
    "library/pairwise/bf16_bf16/f32",
    "library/chunked64/f16_f16/f32",
]


def same(x, y):
    """Whether numbers are the same, signs of zeros too."""
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    return bool((((x == y) & (np.signbit(x) == np.signbit(y))) | (np.isnan(x) & np.isnan(y))).all())


def numbers(rng, fmt, *shape):
    """Return any numbers of a format, negative zeros, infinities and NaN among them."""
    fmt = lowp.parse(fmt) if isinstance(fmt, str) else fmt
    if fmt.bits > 16:
        return np.asarray(lowp.quantize(rng.normal(size=shape) * 2.0 ** rng.integers(-20, 20, shape), fmt))
    codes = rng.integers(0, 1 << fmt.bits, shape).astype(np.uint8 if fmt.bits <= 8 else np.uint16)
    found = np.asarray(lowp.decode(codes, fmt, dtype="float64"))
    return np.where(rng.random(shape) < 0.1, -0.0, found) if fmt.signed else found


def tamed(rng, fmt, *shape):
    """Return numbers of a format near one, in float32."""
    return np.asarray(lowp.quantize(rng.normal(size=shape).astype(np.float32), fmt))


def operands(rng, unit, k):
    """Return operands of a unit: one pair without NaN and infinities, one with any; and an addend."""
    roles = [unit.formats[x] for x in "abc"]
    a, b, c = (numbers(rng, f, *shape) for f, shape in zip(roles, ((2, 4, k), (2, k, 5), (2, 4, 5)), strict=True))
    for x in (a, b, c):
        x[0] = np.where(np.isfinite(x[0]), x[0], 0.5)
    c[:, :2] = 0
    return a, b, c


def as_float32(*arrays):
    return [x.astype(np.float32) for x in arrays]
