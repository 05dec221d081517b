"""bitsandbytes' double quantization, HiF4, chosen codebooks, mu-law and any4 as array code, against the NumPy path."""

import math
import re
from collections.abc import Callable
from decimal import Decimal, localcontext
from typing import Any

import numpy as np
import pytest

import lowp
from lowp._errors import RangeError
from lowp.formats import Codebook, Packed
from lowp.formats.families.codebooks import choice
from lowp.rounding import _packed, _portable_bitsandbytes, _portable_codebooks, _portable_companding
from lowp.rounding import _portable_packed as portable
from lowp.rounding._namespaces import namespace_of
from lowp.rounding.schemes import bitsandbytes
from tests.covering import slow, usual
from tests.rounding.test_portable_blocks import numbers, request, same
from tests.rounding.test_portable_packed import run

pytestmark = pytest.mark.filterwarnings("ignore::lowp.PrecisionWarning")

#: Formats of the schemes here, registered or by rule, and whether they round by the caller's mode.
FOLLOWING = {
    "bnb_nf4_dq": True,
    "bnb_fp4_dq_b2": True,
    "bitmod_fp3": True,
    "bitmod_fp4_er_g32": True,
    "ant4": True,
    "ant4_row": True,
    "ant4_block": True,
    "muonq4_tensor": True,
    "muonq8_row": True,
    "muonq2_row": True,
    "any4": False,
    "any4_g32": False,
    "hif4": True,
    "hif4_bf16": False,
}
COMPILED = ("bnb_nf4_dq", "bitmod_fp3", "ant4", "muonq4_tensor", "any4", "hif4", "hif4_bf16")
#: One whose values are not short, so that their products with scales are rounded.
LONG = choice("long", [Codebook([-1.0, 0.0, 0.1, 1 / 3]), Codebook([-0.7, 0.0, 0.1, 1.0])], 16)


def parsed(name: str) -> Packed:
    fmt = lowp.parse(name)
    assert isinstance(fmt, Packed)
    return fmt


def check(world: str, fmt: Packed, x: np.ndarray, mode: str = "ties_to_even") -> None:
    """Compare values and fields with the NumPy path, or the error."""
    how = request(mode)

    def both(xp: Any, v: Any) -> list[Any]:
        return [portable.quantize_packed(xp, v, fmt, how, -1), portable.encode_packed(xp, v, fmt, how, -1)]

    try:
        want = lowp.quantize(x, fmt, rounding=mode, seed=7)
    except RangeError as error:
        with pytest.raises(RangeError, match=re.escape(str(error))):
            run(world, both, x)
        return
    values, fields = run(world, both, x)
    parts = _packed.encode_packed(x, fmt, how, -1).fields
    assert parts is not None
    assert set(fields) == set(parts)
    for name, part in parts.items():
        same(fields[name], part, name)
    same(values, want, "values")
    if world == "numpy":
        decoded = portable.decode_packed(namespace_of(x), None, fields, fmt, -1, x.shape, x.dtype.name)
        same(decoded, want, "decoded")


@pytest.mark.parametrize("name", FOLLOWING)
@pytest.mark.parametrize("world", ["numpy", "torch"])
def test_formats(world: str, name: str) -> None:
    modes = ("ties_to_even", "stochastic", "away_from_zero") if FOLLOWING[name] else ("ties_to_even",)
    for kind in ("normal", "spread", "ties", "small", "zeros", "spoilt"):
        for dtype in (np.float32, np.float64):
            x = numbers(kind, (3, 150), dtype)
            few = kind != "normal" and (world == "torch" or name.startswith("ant4"))
            for mode in modes[: 1 if few else 3]:
                check(world, parsed(name), x, mode)


@pytest.mark.parametrize("name", COMPILED)
def test_compiled_by_jax(name: str) -> None:
    """Rows of their own sizes, so that blocks differ; columns beyond one block."""
    x = np.concatenate([numbers(kind, (2, 300), np.float32) for kind in ("normal", "spread", "small", "ties")])
    check("jax", parsed(name), x)


@pytest.mark.parametrize(
    ("name", "mode"), [usual("ant4_row", "stochastic"), slow("muonq8_row", "toward_zero"), slow("hif4", "stochastic")]
)
def test_compiled_by_jax_in_other_modes(name: str, mode: str) -> None:
    check("jax", parsed(name), numbers("normal", (3, 100), np.float64), mode)


@pytest.mark.parametrize("world", ["numpy", "torch", "jax"])
def test_wide_range_of_float64(world: str) -> None:
    """Largest numbers near both ends of float64, where squares overflow or vanish."""
    rng = np.random.default_rng(4)
    sizes = np.array([1e-320, 1e-300, 1e-160, 1e-60, 1.0, 1e30, 1e150, 1e307])
    x = rng.uniform(-1, 1, (8, 64)) * sizes[:, None]
    for name in ("bitmod_fp4_g64", "any4_g32") if world == "jax" else FOLLOWING:
        check(world, parsed(name), x)


@pytest.mark.parametrize("world", ["numpy", "torch", "jax"])
def test_codebooks_of_long_numbers(world: str) -> None:
    for seed in range(1 if world == "jax" else 4):
        check(world, LONG, np.random.default_rng(seed).standard_normal((4, 160)))


@pytest.mark.parametrize("world", ["numpy", "torch", "jax"])
@pytest.mark.parametrize("blocks", [1, 9, 100, 513, 40000])
def test_magnitudes_of_many_blocks_have_the_mean_of_pytorch(world: str, blocks: int) -> None:
    if world == "jax" and blocks not in (100, 40000):
        pytest.skip("one of each way of adding is enough for the compiler")
    x = np.random.default_rng(blocks).standard_normal(2 * blocks).astype(np.float32)
    check(world, parsed("bnb_nf4_dq_b2"), x)


def test_the_mean_is_added_up_in_the_same_order() -> None:
    for count in (5, 33, 700, 5000, 30000):
        for seed in range(6):
            x = np.abs(np.random.default_rng(seed).standard_normal(count)).astype(np.float32)
            xp = namespace_of(x)
            got = _portable_bitsandbytes._mean(xp, x.astype(np.float64))
            assert got.tolist() == [bitsandbytes._mean(x)]


@pytest.mark.parametrize("world", ["numpy", "torch", "jax"])
def test_numbers_between_two_levels_or_scales(world: str) -> None:
    """HiF4 with eights and fours just at their limits; any4 with scales halfway between two float16 numbers."""
    x = np.zeros((3, 64))
    x[:, [0, 4, 8, 16, 20, 24]] = 7.0, 3.0, -2.0, 1.1, 0.3, 4.0
    x[1, 24] = x[2, 8] = np.nextafter(np.float32(4), np.float32(0))
    for name in ("hif4", "hif4_bf16"):
        check(world, parsed(name), x)
    halfway = 1 + (2 * np.arange(40) + 1) / 2048
    y = np.random.default_rng(0).uniform(0, 15, (40, 32)) * halfway[:, None]
    y[:, 3], y[:, 7] = 0, 15 * halfway
    check(world, parsed("any4_g32"), y)


@pytest.mark.parametrize("world", ["numpy", "torch", "jax"])
def test_zeros_of_both_signs(world: str) -> None:
    rng = np.random.default_rng(1)
    x = np.where(rng.random((6, 256)) < 0.97, np.copysign(0.0, rng.standard_normal((6, 256))), 3.0).astype(np.float32)
    for name in ("any4", "hif4", "muonq4_tensor"):
        check(world, parsed(name), x)
        if name == "any4":
            fields = lowp.encode(x, name).fields
            assert fields is not None
            assert 0x8000 not in fields["minimum"]
            assert 0x8000 not in fields["values"]


@pytest.mark.parametrize("name", ["bitmod_fp3", "ant4_row", "muonq8_row", "any4"])
def test_a_compiled_program_gives_nan_where_others_refuse(name: str) -> None:
    jax = pytest.importorskip("jax")
    x = numbers("normal", (3, 256), np.float32)
    x[1, 5] = np.inf
    got = np.asarray(jax.jit(lambda v: lowp.quantize(v, name))(x))
    assert np.isnan(got[1, :128]).all()
    assert np.isnan(got[1, 128:]).all() == name.endswith("row")
    clean = np.delete(x, 1, axis=0)
    same(got[[0, 2]], lowp.quantize(clean, name), "other rows")


# The curve of mu-law

EDGES = [0.0, 1.0, 5e-324, 1e-310, 2.0**-149, 1e-20, 2.0**-18, 1 / 255, 3 / 255, 15 / 255, 1 / 17]


def curve(rng: np.random.Generator, count: int) -> np.ndarray:
    """Numbers from 0 to 1 of every size, and those beside the pieces' ends."""
    ends = np.arange(count) / count
    spread = rng.uniform(0.5, 1, count) * 10.0 ** rng.uniform(-46, 0, count)
    return np.concatenate([EDGES, rng.random(count), spread, ends, np.nextafter(ends, 1), np.nextafter(ends, 0)[1:]])


def test_the_curve_of_mulaw_is_right() -> None:
    x = curve(np.random.default_rng(0), 2048)
    got = _portable_companding.compressed(namespace_of(x), x)
    assert np.array_equal(got, got.astype(np.float32))
    assert np.array_equal(_portable_companding.compressed(namespace_of(x), -x), -got)
    with localcontext(prec=50):
        whole = Decimal(256).ln()
        for v, found in zip(x.tolist(), got.tolist(), strict=True):
            assert found == float(np.float32(float((1 + 255 * Decimal(v)).ln() / whole))), v


def test_the_inverse_of_the_curve_is_right() -> None:
    rng = np.random.default_rng(1)
    scales = np.arange(0x7C00, dtype=np.uint16).view(np.float16).astype(np.float64)
    y = np.concatenate([np.repeat(np.arange(9.0), 200) * rng.choice(scales[:0x4800], 1800), [0, 1, 0.5, 16.9, 17.1]])
    xp = namespace_of(y)
    with np.errstate(over="ignore"):
        got = _portable_companding.expanded(xp, y)
        ends = _portable_companding.expanded(xp, np.array([-0.0, 25.1, -1e9, np.inf, np.nan]))
        with localcontext(prec=50):
            for v, found in zip(y.tolist(), got.tolist(), strict=True):
                assert found == (math.inf if v > 18 else float(np.float32(float((256 ** Decimal(v) - 1) / 255)))), v
    assert ends[:4].tolist() == [0.0, math.inf, -math.inf, math.inf]
    assert np.signbit(ends[0])
    assert np.isnan(ends[4])


def test_the_curve_and_its_inverse_are_right_to_50_bits() -> None:
    """Before they are rounded; where the tables' pieces end, the series counts most."""
    xp = namespace_of(np.zeros(1))
    ends = np.arange(1, 4097) * 2.0**-18
    x = np.concatenate([ends * (1 - 2.0**-40), np.random.default_rng(0).uniform(2.0**-20, 1, 2000)])
    y = np.concatenate(
        [np.arange(1, 2049) * 2.0**-13 - 2.0**-30, np.random.default_rng(1).integers(1, 1 << 19, 2000) * 2.0**-18]
    )
    with localcontext(prec=50):
        whole = Decimal(256).ln()
        for v, found in zip(x.tolist(), _portable_companding._curve(xp, x).tolist(), strict=True):
            assert abs(Decimal(found) / ((1 + 255 * Decimal(v)).ln() / whole) - 1) < Decimal(2) ** -50, v
        for v, found in zip(y.tolist(), _portable_companding._inverse(xp, y).tolist(), strict=True):
            assert abs(Decimal(found) * 255 / (256 ** Decimal(v) - 1) - 1) < Decimal(2) ** Decimal("-49.9"), v


@pytest.mark.parametrize("world", ["torch", "jax"])
def test_the_curve_is_the_same_in_every_library(world: str) -> None:
    x = curve(np.random.default_rng(2), 4096)
    n = np.repeat(np.arange(-7.0, 8.0), 512)
    y = n * np.random.default_rng(3).integers(0, 0x7C00, n.size).astype(np.uint16).view(np.float16)

    def both(function: Callable[..., Any], numbers: np.ndarray) -> None:
        with np.errstate(over="ignore"):
            want = function(namespace_of(numbers), numbers)
        same(run(world, function, numbers), want, function.__name__)

    both(_portable_companding.compressed, x)
    both(_portable_companding.compressed, -x)
    both(_portable_companding.expanded, y)
    both(_portable_companding._curve, x[(x == 0) | (x > 1e-300)])  # before float32 rounds them to zero
    both(_portable_companding._inverse, np.abs(y)[np.abs(y) < 25])


def test_sums_of_squares_are_added_up_as_numpy_adds_them() -> None:
    """A compiler that joins a square with the sum it goes into would round once less."""
    rng = np.random.default_rng(5)
    for axes, size in (((2,), 7), ((2,), 170), ((1, 2), 170), ((0, 1, 2), 170)):
        x = rng.standard_normal((20, 3, size))

        def total(xp: Any, v: Any, axes: tuple[int, ...] = axes) -> Any:
            return _portable_codebooks._shared_sum(xp, _portable_codebooks._squared(xp, v), axes)

        for world in ("numpy", "torch", "jax"):
            same(run(world, total, x), (x**2).sum(axis=axes, keepdims=True), world)
