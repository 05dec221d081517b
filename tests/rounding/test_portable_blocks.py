"""Block formats as array code on NumPy, torch and JAX, against the NumPy path; and the integer arithmetic beneath."""

import contextlib
import itertools
import re
import warnings
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import lowp
from lowp.formats import Block, Integer
from lowp.rounding import _blocks, _exact_steps
from lowp.rounding import _portable_blocks as portable
from lowp.rounding import _portable_doubles as doubles
from lowp.rounding._namespaces import namespace_of
from lowp.rounding._portable_shapes import numpy_sum
from lowp.rounding.request import Request, make_request
from tests.covering import slow, usual

pytestmark = pytest.mark.filterwarnings("ignore::lowp.PrecisionWarning")

BLOCKS = [name for name in lowp.formats.names() if isinstance(lowp.parse(name), Block)]
#: One of each recipe and kind of layout, for the compiler, which takes its time.
KINDS = ["mxfp8_e5m2", "mxint8", "nvfp4", "nvfp4_torchao", "nvfp4_modelopt", "mxfp4_modelopt", "int8_tensor",
         "int4_g128_asym", "nf4_g64", "fp8_tile128", "nvfp4_4over6", "nvfp4_static4", "mxfp4_static6", "mxfp4_mse",
         "mxfp4_three_quarters", "mxfp4_quest"]  # fmt: skip
#: Formats that no name stands for: every recipe on other parts, sizes and policies.
MADE = {
    "even": Block("float6_e2m3fn", 8, recipe="even"),
    "ceil": Block("float4_e2m1fn", (2, 4), recipe="ceil"),
    "rceil": Block("float8_e4m3fn", 32, recipe="rceil"),
    "absmean": Block("int2_sym", "tensor", "float32", recipe="absmean"),
    "absmean rows": Block("ternary", "row", "float16", recipe="absmean"),
    "two levels": Block("float8_e4m3fn", 16, "float8_e4m3fn", "float32", recipe="round"),
    "powers under a scale": Block("float4_e2m1fn", 16, tensor_scale="float32"),
    "ignored": Block("float4_e2m1fn", 16, nonfinite="element"),
    "te ignored": Block("float4_e2m1fn", 16, "float8_e4m3fn", "float32", recipe="nvfp4_te", nonfinite="element"),
    "posits": Block("posit8", 16, "float8_e8m0fnu", recipe="floor"),
    "wide scale": Block("int8", 16, "float64", recipe="round"),
    "posit scale": Block("int8", 16, "posit16", recipe="round", nonfinite="element"),
    "wide elements": Block("int32", 16, "float32", recipe="round"),
    "offset tiles": Block(Integer(8, signed=False), (3, 5), "float32", zero_point=True),
    "offset rows": Block("int4", "row", "float8_e8m0fnu", zero_point=True, recipe="floor"),
}


def request(mode: str = "ties_to_even", overflow: str = "saturate", nan: str = "keep") -> Request:
    return make_request(mode, overflow, 7, None, 0, nan, ("keep", "zero"))


def numbers(kind: str, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """Normal numbers, spread out, tied, subnormal, mostly zero, or spoilt."""
    rng = np.random.default_rng(len(kind))
    x = rng.standard_normal(shape)
    if kind == "spread":
        x *= 10.0 ** (rng.uniform(-30, 30, (*shape[:-1], 1)) + rng.uniform(-6, 6, shape))
    elif kind == "ties":
        x = np.ldexp(rng.integers(-96, 97, shape) / 16.0, rng.integers(-2, 2, shape))
    elif kind == "small":
        x *= 10.0 ** rng.uniform(-46, -36, shape)
    elif kind == "zeros":
        x = np.where(rng.random(shape) < 0.9, np.copysign(0.0, x), x)
        x[0] = 0
    elif kind == "spoilt":
        x.flat[rng.integers(0, x.size, 3)] = [np.nan, np.inf, -np.inf]
    return (np.clip(x, -3e38, 3e38) if kind == "spread" else x).astype(dtype)


def same(got: Any, want: Any, what: str) -> None:
    got, want = np.asarray(got), np.asarray(want)
    assert (got.dtype, got.shape) == (want.dtype, want.shape), what
    if want.dtype.kind in "fV":
        nan = np.isnan(want.astype(np.float64))
        np.testing.assert_array_equal(np.isnan(got.astype(np.float64)), nan, what)
        got, want = (np.where(nan, 0, v.view(f"u{v.itemsize}")) for v in (got, want))
    np.testing.assert_array_equal(got, want, what)


def on_numpy(function: Callable[..., Any], x: np.ndarray) -> Any:
    return function(namespace_of(x), x)


def on_torch(function: Callable[..., Any], x: np.ndarray) -> Any:
    torch = pytest.importorskip("torch")
    result = function(namespace_of(torch.zeros(1)), torch.from_numpy(x))
    if isinstance(result, tuple):
        values, parts = result
        return values, portable.BlockParts(*(None if part is None else part.numpy() for part in parts))
    return result


def on_jax(function: Callable[..., Any], x: np.ndarray) -> Any:
    jax = pytest.importorskip("jax")
    with jax.enable_x64(True) if x.dtype == np.float64 else contextlib.nullcontext():
        array = jax.numpy.asarray(x)
        return jax.jit(lambda v: function(namespace_of(v), v))(array)


WORLDS = {"numpy": on_numpy, "torch": on_torch, "jax": on_jax}


def refused(x: np.ndarray, fmt: Block, how: Request, axis: Any) -> lowp.Error | None:
    """Return the error that the NumPy path raises, if it does."""
    try:
        _blocks.quantize_blocks(x, fmt, how, axis, x.dtype.name)
    except lowp.Error as error:
        return error
    return None


def check(world: str, x: np.ndarray, fmt: Block, how: Request, axis: Any = -1) -> None:
    """Compare values, parts and decoded values with the NumPy path, or the error."""
    run = WORLDS[world]
    coded = how._replace(nan="zero")
    refusal = refused(x, fmt, how, axis)
    if refusal:
        with pytest.raises(type(refusal), match=re.escape(str(refusal))):
            run(lambda xp, v: portable.quantize_blocks(xp, v, fmt, how, axis), x)
        return
    want = _blocks.quantize_blocks(x, fmt, how, axis, x.dtype.name)
    parts = _blocks.encode_blocks(x, fmt, coded, axis)
    values, found = run(
        lambda xp, v: (
            portable.quantize_blocks(xp, v, fmt, how, axis),
            portable.encode_blocks(xp, v, fmt, coded, axis),
        ),
        x,
    )
    same(values, want, "values")
    same(found.codes, parts.codes, "codes")
    same(found.scales, parts.scales, "scales")
    if parts.zero_points is not None:
        same(found.zero_points, parts.zero_points, "zero points")
    if parts.tensor_scale is not None:
        np.testing.assert_array_equal(np.float64(found.tensor_scale), parts.tensor_scale)
    if world == "numpy":
        decoded = portable.decode_blocks(namespace_of(x), found, fmt, axis, x.dtype.name)
        same(decoded, _blocks.decode_blocks(parts, x.dtype.name), "decoded")


MODES = ("ties_to_even", "toward_negative", "stochastic")
ON_TORCH = [*KINDS, *(name for name in MADE if name not in ("ceil", "rceil", "absmean rows", "ignored"))]


@pytest.mark.parametrize(
    ("world", "name", "every_mode"),
    [
        *(("numpy", name, False) for name in [*BLOCKS, *MADE]),
        *(("torch", name, False) for name in ON_TORCH),
        *(slow(world, name, True) for world in ("numpy", "torch") for name in [*BLOCKS, *MADE]),
    ],
)
def test_formats(world: str, name: str, every_mode: bool) -> None:
    fmt = MADE.get(name) or lowp.parse(name)
    assert isinstance(fmt, Block)
    kinds = ("normal", "spread", "ties", "small", "zeros", "spoilt")
    for i, (kind, dtype) in enumerate(itertools.product(kinds, (np.float32, np.float64))):
        x = numbers(kind, (5, 41), dtype)
        for mode in MODES if every_mode else (MODES[0], MODES[1 + (i // 2 + i) % 2]):
            check(world, x, fmt, request(mode), -1 if isinstance(fmt.size, tuple) else int(mode == "ties_to_even") - 1)


#: JAX compiles these, or their like, for test_casting_worlds.py too.
COMPILED_ELSEWHERE = ("fp8_tile128", "nvfp4_static4", "mxfp4_static6", "mxfp4_three_quarters", "mxfp4_quest", "absmean")


@pytest.mark.parametrize(
    "name",
    [
        (slow if name in COMPILED_ELSEWHERE else usual)(name)
        for name in [*KINDS, "even", "absmean", "two levels", "wide scale", "offset rows"]
    ],
)
def test_compiled_by_jax(name: str) -> None:
    fmt = MADE.get(name) or lowp.parse(name)
    assert isinstance(fmt, Block)
    x = np.concatenate([numbers(kind, (3, 41), np.float32) for kind in ("spread", "small", "ties", "zeros")])
    check("jax", x, fmt, request())
    if name in ("mxfp8_e5m2", "nvfp4", "int8_tensor"):
        check("jax", numbers("normal", (3, 41), np.float64), fmt, request("stochastic"))


@pytest.mark.parametrize("name", ["mxfp4", "nvfp4", "int4_g128_asym"])
@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_sixteen_bits(name: str, dtype: Any) -> None:
    every = np.arange(1 << 16, dtype=np.uint16).view(dtype).reshape(-1, 256)
    x = np.where(np.isfinite(every.astype(np.float32)), every, dtype(0))
    x[3] = x[3] * dtype(0)
    fmt = lowp.parse(name)
    want = lowp.quantize(x, fmt)
    for world in ("numpy", "jax"):
        same(WORLDS[world](lambda xp, v: portable.quantize_blocks(xp, v, fmt, request(), -1), x), want, world)


@pytest.mark.parametrize("fmt", [MADE["ceil"], lowp.parse("mxint8"), MADE["absmean rows"], MADE["offset tiles"]])
@pytest.mark.parametrize("shape", [(3, 4, 5, 6), (1, 1), (7, 13)])
def test_axes(fmt: Block, shape: tuple[int, ...]) -> None:
    x = numbers("spread", shape, np.float32)
    axes = [(0, 1), (1, 0), (-1, 0)] if isinstance(fmt.size, tuple) else [0, 1, -2]
    for axis in axes:
        check("numpy", x, fmt, request(), axis)


@pytest.mark.parametrize("shape", [(0,), (3, 0), (0, 4)])
def test_empty_arrays(shape: tuple[int, ...]) -> None:
    x = np.zeros(shape, np.float32)
    for name in ("nvfp4", "int4_g128_asym", "int8_tensor"):
        check("numpy", x, lowp.parse(name), request())  # type: ignore[arg-type]


@pytest.mark.parametrize("overflow", ["infinity_or_nan", "propagate", "wrap"])
def test_overflow_modes(overflow: str) -> None:
    x = numbers("spoilt", (4, 40), np.float32)
    for name in ("mxfp8_e5m2", "mxint8", "ignored"):
        fmt = MADE.get(name) or lowp.parse(name)
        assert isinstance(fmt, Block)
        if overflow != "wrap" or name == "mxint8":
            check("numpy", x, fmt, request(overflow=overflow))


@pytest.mark.parametrize(
    "fmt",
    [lowp.parse(n) for n in ("nvfp4", "nvfp4_torchao", "int8_tensor", "nvfp4_4over6", "dfp8")] + [MADE["two levels"]],
)
@pytest.mark.parametrize("kind", ["spread", "spoilt"])
def test_parts_of_a_tensor_agree_with_the_whole(fmt: Block, kind: str) -> None:
    x = numbers(kind, (6, 64), np.float32)
    xp, how = namespace_of(x), request("stochastic")
    whole = portable.quantize_blocks(xp, x, fmt, how, -1)
    positions = np.arange(x.size).reshape(x.shape)
    pieces = [slice(0, 2), slice(2, 6)]
    amax = np.max([portable.tensor_amax(xp, x[piece], fmt, -1) for piece in pieces])
    for piece in pieces:
        part = portable.quantize_blocks(xp, x[piece], fmt, how, -1, positions[piece], amax)
        same(part, whole[piece], "part")


def test_amax_is_refused_where_it_is_not_enough() -> None:
    x = numbers("normal", (4, 4), np.float32)
    with pytest.raises(lowp.ArgumentError, match="amax"):
        portable.quantize_blocks(namespace_of(x), x, MADE["absmean"], request(), -1, amax=np.float32(1))


@pytest.mark.parametrize("name", ["mxfp4", "nvfp4", "int4_g128_asym", "fp8_tile128"])
def test_range(name: str) -> None:
    x, fmt = numbers("spread", (5, 40), np.float32), lowp.parse(name)
    assert isinstance(fmt, Block)
    low, high = _blocks.representable_range(x, fmt, -1)
    for world in WORLDS.values():
        found = world(lambda xp, v: portable.inside_range(xp, v, fmt, -1), x)
        np.testing.assert_array_equal(np.asarray(found), (x >= low) & (x <= high))


def test_a_block_that_would_be_an_error_is_nan_where_numbers_are_hidden() -> None:
    x = numbers("spoilt", (4, 64), np.float32)
    fmt = Block("int8", 16, "float8_e8m0fnu", nonfinite="error")
    got = np.asarray(on_jax(lambda xp, v: portable.quantize_blocks(xp, v, fmt, request(), -1), x))
    bad = ~np.isfinite(x.reshape(4, 4, 16)).all(axis=-1).repeat(16).reshape(x.shape)
    clean = _blocks.quantize_blocks(np.where(bad, np.float32(0), x), fmt, request(), -1, "float32")
    same(got, np.where(bad, np.float32(np.nan), clean), "values")


SPECIAL = [0.0, -0.0, np.inf, -np.inf, np.nan, 5e-324, -1e-310, 2.0**-1022, 1.7e308, 1.0, -3.0, 1 - 2.0**-53]


def pairs() -> tuple[np.ndarray, np.ndarray]:
    """Numbers of any bits, numbers of few bits, and the special ones against each other."""
    rng = np.random.default_rng(3)
    any_bits = rng.integers(0, 1 << 64, (2, 4000), dtype=np.uint64).view(np.float64)
    few = np.ldexp(rng.integers(-64, 65, (2, 4000)).astype(float), rng.integers(-60, 60, (2, 4000)))
    long = np.ldexp(rng.integers(-(2**53), 2**53, (2, 4000)).astype(float), rng.integers(-60, 60, (2, 4000)))
    special = np.array([v.ravel() for v in np.meshgrid(SPECIAL, SPECIAL)])
    a, b = np.concatenate([any_bits, few, long, special], axis=1)
    return a, b


def in_world(world: str, function: Callable[..., Any], *arrays: np.ndarray) -> np.ndarray:
    if world == "jax":
        jax = pytest.importorskip("jax")
        with jax.enable_x64(True):
            return np.asarray(jax.jit(lambda *v: function(namespace_of(v[0]), *v))(*map(jax.numpy.asarray, arrays)))
    torch = pytest.importorskip("torch")
    if world == "torch":
        return np.asarray(function(namespace_of(torch.zeros(1)), *map(torch.from_numpy, arrays)))
    with np.errstate(all="ignore"):
        return np.asarray(function(namespace_of(arrays[0]), *arrays))


@pytest.mark.parametrize("world", WORLDS)
def test_products_and_quotients(world: str) -> None:
    a, b = pairs()
    positive = np.where(np.isfinite(b) & (b != 0), np.abs(b), 1.0)
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        same(in_world(world, doubles.quotient, a, b), a / b, "quotient")
        same(in_world(world, doubles.product, a, b), a * b, "product")
        odd = in_world(world, lambda xp, x, y: doubles.quotient(xp, x, y, odd=True), a, positive)
        same(odd, _exact_steps.divide(a, positive), "odd quotient")
        near = (np.abs(np.frexp(a)[1]) < 400) & (np.abs(np.frexp(b)[1]) < 400)
        a, b = a[near], b[near]
        odd = in_world(world, lambda xp, x, y: doubles.product(xp, x, y, odd=True), a, b)
        same(odd, _exact_steps.multiply(a, b), "odd product")
        a, b = np.abs(a), np.abs(b)
        same(in_world(world, doubles.sum_to_odd, a, b), _exact_steps.subtract(a, -b), "odd sum")


@pytest.mark.parametrize("world", WORLDS)
def test_quotients_by_one_number_for_many(world: str) -> None:
    """XLA multiplies by the reciprocal there, which misses ties."""
    rng = np.random.default_rng(6)
    units = np.ldexp(rng.integers(1, 1 << 24, (4000, 1)) * 1.0, rng.integers(-30, 30, (4000, 1)))
    x = units * (1 - rng.integers(0, 2000, (4000, 16)) * 2.0**-53)
    odd = in_world(world, lambda xp, a, b: doubles.quotient(xp, a, b, odd=True), x, units)
    same(odd, _exact_steps.divide(x, np.broadcast_to(units, x.shape).copy()), "odd quotient")


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize(
    ("element", "scale"), [("int4", "float32"), ("int8", "bfloat16"), ("float8_e4m3fn", "float32"), ("nf4", "float32")]
)
def test_numbers_at_and_beside_points_of_decision(world: str, element: str, scale: str) -> None:
    fmt = Block(element, 16, scale, recipe="round")
    rng = np.random.default_rng(7)
    units = np.ldexp(rng.integers(1, 1 << 7, (1500, 1)) * 1.0, rng.integers(-140, 60, (1500, 1)))
    values = np.unique([float(v) for v in lowp.values(element) if np.isfinite(v)])
    middles = (values[1:] + values[:-1]) / 2
    x = (rng.choice(np.concatenate([values, middles]), (1500, 16)) * units).astype(np.float32)
    moved = rng.integers(-1, 2, x.shape).astype(np.int32) * (rng.random(x.shape) < 0.5).astype(np.int32)
    x = (x.view(np.int32) + np.where(x == 0, 0, moved)).view(np.float32)
    x[:, 0] = (fmt.element.max * units[:, 0]).astype(np.float32)
    for mode in ("ties_to_even", "toward_zero"):
        how = request(mode)
        got = WORLDS[world](lambda xp, v, how=how: portable.quantize_blocks(xp, v, fmt, how, -1), x)
        same(got, _blocks.quantize_blocks(x, fmt, how, -1, "float32"), mode)


@pytest.mark.parametrize("world", WORLDS)
def test_float32_steps(world: str) -> None:
    rng = np.random.default_rng(4)
    singles = rng.integers(0, 1 << 32, 8000, dtype=np.uint32).view(np.float32)
    singles[:2000].view(np.uint32)[:] &= 0x807FFFFF
    with np.errstate(invalid="ignore"):
        between = singles.astype(np.float64) * (1 + rng.integers(-2, 3, singles.size) * 2.0**-25)
    tiny = np.ldexp(rng.integers(-(2**10), 2**10, 4000).astype(float), -rng.integers(140, 160, 4000))
    x = np.concatenate([between, tiny, SPECIAL])
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        same(in_world(world, doubles.widen, singles), singles.astype(np.float64), "widened")
        same(in_world(world, doubles.to_float32, x), x.astype(np.float32).astype(np.float64), "rounded")
        for name in ("float32", "float16"):
            got = in_world(world, lambda xp, v, name=name: doubles.narrow(xp, v, name), x)
            same(got, x.astype(name), name)


def test_sums_run_in_the_order_of_numpy() -> None:
    rng = np.random.default_rng(5)
    for size in (*range(1, 140), 255, 1000, 1024, 4099, 9999, 65536):
        x = rng.standard_normal((2, size))
        np.testing.assert_array_equal(numpy_sum(namespace_of(x), x), x.sum(axis=-1))
