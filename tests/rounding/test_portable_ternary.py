"""Ternary, pyramid, complex and lossless formats as array code, against the NumPy path."""

from typing import Any

import numpy as np
import pytest

import lowp
from lowp.formats import Packed
from lowp.rounding import _packed
from lowp.rounding import _portable_packed as portable
from lowp.rounding._namespaces import namespace_of
from tests.covering import slow, usual
from tests.rounding.test_portable_blocks import numbers, request, same
from tests.rounding.test_portable_packed import run

pytestmark = pytest.mark.filterwarnings("ignore::lowp.PrecisionWarning")

#: Formats and arrays that fill their blocks as far as they must.
SHAPES: dict[str, tuple[int, ...]] = {
    "ptqtp1_g128": (3, 200),
    "ptqtp2_g128": (3, 200),
    "ptqtp3_g10": (3, 33),
    "ptqtp4_g7": (2, 12),
    "twn_g128": (3, 200),
    "twn_g160": (2, 400),
    "sherry_g128": (3, 200),
    "sherry_g4": (3, 21),
    "sherry_row": (5, 2, 130),
    "sherry_tensor": (9, 150),
    "stq1_0": (3, 300),
    "pvq_n8_k4": (3, 60),
    "pvq_n16_k8": (3, 60),
    "pvq_n3_k7": (3, 8),
    "pvq_n1_k1": (3, 4),
    "ifairy": (7, 40),
    "bitnet_i2_s": (3, 150),
    "bitnet_i2_s_arm": (3, 150),
    "bitnet_i2_s_rows4": (8, 33),
    "bitnet_tl1": (5, 33),
    "bitnet_tl2": (5, 100),
    "bitnet_tl1_64x32_bm32": (2, 128, 64),
    "bitnet_tl2_32x24": (64, 48),
}
#: One of each scheme, and others that take the compiler long.
COMPILED = ("ptqtp2_g128", "twn_g128", "sherry_g128", "stq1_0", "pvq_n8_k4", "ifairy", "bitnet_i2_s_rows4",
            "bitnet_tl1_64x32_bm32", "bitnet_tl2")  # fmt: skip
SLOW = ("ptqtp1_g128", "ptqtp4_g7", "sherry_tensor", "pvq_n16_k8", "bitnet_tl1", "bitnet_tl2_32x24")
KINDS = ("normal", "spread", "ties", "small", "zeros", "spoilt")


def packed(name: str) -> Packed:
    fmt = lowp.parse(name)
    assert isinstance(fmt, Packed)
    return fmt


def samples(shape: tuple[int, ...], dtype: Any) -> list[np.ndarray]:
    """Numbers of all kinds; and small integers, trits, one sign, huge and tiny ones, and NaN by itself."""
    rng = np.random.default_rng(3)
    found = [numbers(kind, shape, dtype) for kind in KINDS]
    found += [rng.integers(-n, n + 1, shape).astype(dtype) for n in (1, 2, 5)]
    found += [np.full(shape, value, dtype) for value in (0.0, -0.0, 1.0, -3e-42)]
    top = float(np.finfo(dtype).max)
    found += [(rng.uniform(-1, 1, shape) * size).astype(dtype) for size in (top, float(np.finfo(dtype).tiny), 1e5)]
    spoilt = rng.standard_normal(shape)
    spoilt.flat[3] = np.nan
    mixed = np.ldexp(rng.integers(-3, 4, shape) / 2.0, rng.integers(-60, 60, shape))
    return [*found, spoilt.astype(dtype), mixed.astype(dtype)]


def check(world: str, fmt: Packed, x: np.ndarray, axis: Any = -1) -> None:
    def both(xp: Any, v: Any) -> list[Any]:
        return [
            portable.quantize_packed(xp, v, fmt, request(), axis),
            portable.encode_packed(xp, v, fmt, request(), axis),
        ]

    values, fields = run(world, both, x)
    same(values, lowp.quantize(x, fmt, axis=axis), "values")
    parts = _packed.encode_packed(x, fmt, request(), axis).fields
    assert parts is not None
    assert set(fields) == set(parts)
    for name, part in parts.items():
        same(fields[name], part, name)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("world", "name"), [(w, n) for w in ("numpy", "torch") for n in SHAPES])
def test_values_and_fields(world: str, name: str, dtype: Any) -> None:
    for x in samples(SHAPES[name], dtype):
        check(world, packed(name), x)


@pytest.mark.parametrize("name", [*map(usual, COMPILED), *map(slow, SLOW)])
def test_compiled_by_jax(name: str) -> None:
    """One program for all numbers of a dtype."""
    jax = pytest.importorskip("jax")
    fmt = packed(name)

    @jax.jit
    def both(v: Any) -> Any:
        xp = namespace_of(v)
        fields = portable.encode_packed(xp, v, fmt, request(), -1)["fields"]
        return portable.decode_packed(xp, None, fields, fmt, -1, v.shape, v.dtype.name), fields

    for x in samples(SHAPES[name], np.float32):
        values, fields = both(x)
        same(values, lowp.quantize(x, fmt), "values")
        for field, part in (_packed.encode_packed(x, fmt, request(), -1).fields or {}).items():
            same(fields[field], part, field)


def test_float64_compiled_by_jax() -> None:
    for name in ("twn_g128", "pvq_n8_k4"):
        check("jax", packed(name), np.concatenate([numbers(kind, (2, 130), np.float64) for kind in KINDS]))


@pytest.mark.parametrize("world", ["numpy", "torch"])
@pytest.mark.parametrize(("name", "axis"), [("sherry_g4", 0), ("bitnet_i2_s_rows4", (0, 2)), ("ifairy", 1)])
def test_other_axes(world: str, name: str, axis: Any) -> None:
    check(world, packed(name), numbers("normal", (8, 6, 5), np.float32), axis)


@pytest.mark.parametrize("world", ["numpy", "torch"])
@pytest.mark.parametrize("name", ["twn_g128", "sherry_g128", "pvq_n8_k4", "ptqtp2_g128"])
def test_scales_beyond_the_range_warn(world: str, name: str) -> None:
    with pytest.warns(lowp.PrecisionWarning, match="its values clip"):
        run(world, lambda xp, v: portable.quantize_packed(xp, v, packed(name), request(), -1), np.full((1, 128), 1e10))


@pytest.mark.parametrize("world", ["numpy", "torch", "jax"])
@pytest.mark.parametrize(
    "name", ["ptqtp2_g128", "twn_g128", "sherry_g128", "sherry_tensor", "stq1_0", "ifairy", "bitnet_i2_s_rows4",
             "bitnet_i2_s", "bitnet_tl1", "bitnet_tl2", "bitnet_tl2_32x24"]
)  # fmt: skip
def test_any_stored_integers_are_read(world: str, name: str) -> None:
    """As the NumPy path reads them, also those that no encoder writes."""
    rng, fmt = np.random.default_rng(5), packed(name)
    shape = {"bitnet_tl2_32x24": (64, 48)}.get(name, (4, 512))
    encoded = _packed.encode_packed(np.zeros(shape, np.float32), fmt, request(), -1)
    assert encoded.fields is not None
    bits = {field.name: field.bits for field in fmt.fields}
    for key, part in encoded.fields.items():
        drawn = rng.integers(0, 1 << bits[key], part.shape, np.uint64)
        encoded.fields[key] = (np.where(drawn >> 23 & 0xFF == 0xFF, 0, drawn) if bits[key] == 32 else drawn).astype(
            part.dtype
        )
    want = np.asarray(_packed.decode_packed(encoded)).astype(np.float64)
    fields = dict(encoded.fields)
    names = list(fields)

    def decoded(xp: Any, v: Any) -> Any:
        given = {key: xp.constant(fields[key], v) for key in names}
        return portable.decode_packed(xp, None, given, fmt, -1, shape, "float64")

    same(run(world, decoded, np.zeros(1)), want, "decoded")


@pytest.mark.parametrize("world", ["numpy", "torch", "jax"])
def test_all_bfloat16_numbers_are_kept(world: str) -> None:
    """Bit for bit, NaN too; float64 holds those that are quiet."""
    fmt = packed("dfloat11")
    codes = np.arange(1 << 16, dtype=np.uint32)
    quiet = (codes & 0x7F80 != 0x7F80) | (codes & 0x40 != 0) | (codes & 0x7F == 0)
    whole = (codes << 16).view(np.float32)
    for x in (whole, whole[quiet].astype(np.float64)):
        with np.errstate(invalid="ignore"):
            check(world, fmt, x)
        values = run(world, lambda xp, v: portable.quantize_packed(xp, v, fmt, request(), -1), x)
        same(values.view(f"u{x.itemsize}"), x.view(f"u{x.itemsize}"), "bits")


def test_bfloat16_arrays_are_kept() -> None:
    jax = pytest.importorskip("jax")
    fmt, codes = packed("dfloat11"), np.arange(1 << 16, dtype=np.uint16)

    def bits(given: Any) -> Any:
        x = jax.lax.bitcast_convert_type(given, jax.numpy.bfloat16)
        return jax.lax.bitcast_convert_type(
            portable.quantize_packed(namespace_of(x), x, fmt, request(), -1), jax.numpy.uint16
        )

    same(jax.jit(bits)(codes), codes, "bits")


def test_other_numbers_are_refused_or_nan() -> None:
    jax = pytest.importorskip("jax")
    fmt = packed("dfloat11")
    nan = [np.uint64(0x7FF8 << 48 | 1 << bit).view(np.float64) for bit in (0, 29, 44)]
    wide = [np.array([1.0, value]) for value in (1.001, 1 + 2**-40, 1e300, 5e-324, *nan)]
    for x in (*wide, np.float32([1, 1.001]), np.uint32([0x7FC00001]).view(np.float32)):
        with pytest.raises(lowp.RangeError, match="is no bfloat16 number"):
            _packed.encode_packed(x, fmt, request(), -1)
        for world in ("numpy", "torch"):
            with pytest.raises(lowp.RangeError, match="is no bfloat16 number"):
                run(world, lambda xp, v: portable.encode_packed(xp, v, fmt, request(), -1), x)
    found = jax.jit(lambda v: portable.quantize_packed(namespace_of(v), v, fmt, request(), -1))(np.float32([1, 1.001]))
    same(found, np.float32([1, np.nan]), "values")


@pytest.mark.parametrize("world", ["numpy", "torch", "jax"])
def test_half_the_mean_is_zero(world: str) -> None:
    check(world, packed("bitnet_tl1"), np.float32([[0.5, -0.5, 1.0, 3.0], [-0.5, 1.5, 0.5, 0.5]]))


@pytest.mark.parametrize("world", ["numpy", "torch"])
def test_an_index_of_no_vector_is_refused(world: str) -> None:
    fmt = packed("pvq_n8_k4")
    fields = {"index": np.array([[[2816]]], np.uint16), "gain": np.array([[[0x3C00]]], np.uint16)}

    def decoded(xp: Any, v: Any) -> Any:
        given = {key: xp.constant(part, v) for key, part in fields.items()}
        return portable.decode_packed(xp, None, given, fmt, -1, (8,), "float32")

    with pytest.raises(lowp.RangeError, match="beyond the 2816 vectors of 8 values and 4 pulses"):
        run(world, decoded, np.zeros(1))


@pytest.mark.parametrize("name", ["twn_g128", "stq1_0", "pvq_n8_k4", "ifairy"])
def test_other_roundings_are_refused(name: str) -> None:
    x = np.zeros((2, 256))
    with pytest.raises(lowp.ArgumentError, match="leave it out"):
        portable.quantize_packed(namespace_of(x), x, packed(name), request("toward_zero"), -1)


def test_parts_of_blocks_are_refused_where_no_bytes_can_hold_them() -> None:
    for name, shape in (("ifairy", (3, 5)), ("bitnet_i2_s_rows4", (6, 4))):
        x = np.zeros(shape)
        with pytest.raises(lowp.ArgumentError, match="does not fill whole blocks"):
            portable.quantize_packed(namespace_of(x), x, packed(name), request(), -1)
