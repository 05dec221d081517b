"""Tiled block quantization against the general path and the oracle: every axis, rounding mode and recipe."""

from fractions import Fraction
from typing import Any

import numpy as np
import pytest

import lowp
from lowp.formats.block import ADAPTIVE_RECIPES
from lowp.rounding import _exact_steps, exact
from lowp.rounding._blocks import quantize_blocks
from lowp.rounding._fast_blocks import try_fast
from lowp.rounding._grids import Grid, grid_of
from lowp.rounding._layout import make_layout
from lowp.rounding._tiles import prepared, quantize_tiled
from lowp.rounding.modes import ROUNDING_MODES
from lowp.rounding.random_bits import word
from lowp.rounding.request import Request, make_request
from tests.rounding.blockwise import quantized

FORMATS: dict[str, lowp.Block] = {
    **{n: lowp.parse(n) for n in ("mxfp4", "mxfp8_e4m3", "mxfp8_e5m2", "mxfp6_e2m3", "mxint8", "nvfp4", "int8_row")},
    "e5m2_g24_pow2": lowp.Block("float8_e5m2", 24),
    "int4_g2048_pow2": lowp.Block("int4", 2048),
    "tile_e3m2_pow2": lowp.Block("float6_e3m2fn", (8, 32)),
    "uint4_g32_pow2": lowp.Block("uint4", 32),
    "fp16_g32_pow2": lowp.Block("float16", 32),
    "tensor_e4m3": lowp.Block("float8_e4m3fn", "tensor", "float32"),
    "row_e5m2": lowp.Block("float8_e5m2", "row", "float32"),
    "tile_e4m3": lowp.Block("float8_e4m3fn", (16, 32), "float32"),
    "tile_1x24": lowp.Block("int4", (1, 24), "float32"),
    "tile_nvfp4": lowp.Block("float4_e2m1fn", (16, 16), "float8_e4m3fn", "float32"),
    "nvfp4_alone": lowp.Block("float4_e2m1fn", 16, "float8_e4m3fn", recipe="nvfp4_te"),
    "nvfp4_exact": lowp.Block("float4_e2m1fn", 16, "float8_e4m3fn", "float32", recipe="round"),
    "nvfp4_torchao": lowp.parse("nvfp4").with_recipe("nvfp4_torchao"),
    "e4m3_g24": lowp.Block("float8_e4m3fn", 24, "float32"),
    "e4m3fnuz_g32_bf16": lowp.Block("float8_e4m3fnuz", 32, "bfloat16"),
    "uint4_g32": lowp.Block("uint4", 32, "float32"),
    "three_quarters": lowp.Block("float4_e2m1fn", 32, "float8_e8m0fnu", "float32", recipe="three_quarters"),
    "quest": lowp.parse("mxfp4").with_recipe("quest"),
    **{
        f"fouroversix_{r}": lowp.parse("nvfp4").with_recipe(f"fouroversix_{r}")
        for r in ("6", "4", "6_unbiased", "mse", "mae", "abs_max", "mse_unbiased")
    },
    "fouroversix_6_alone": lowp.Block("float4_e2m1fn", 16, "float8_e4m3fn", recipe="fouroversix_6"),
    "fouroversix_mse_tile": lowp.Block("float4_e2m1fn", (16, 16), "float8_e4m3fn", "float32", recipe="fouroversix_mse"),
    "fouroversix_mae_int4": lowp.Block("int4", 16, "float8_e4m3fn", "float32", recipe="fouroversix_mae"),
    "ternary_absmean": lowp.Block("int2", 64, "float32", recipe="absmean"),
}  # fmt: skip
MODES = [
    *((name, None) for name in ROUNDING_MODES),
    *((f"stochastic_{v}", n) for v in "abc" for n in (1, 2, 8, 31)),
]


def request_for(mode: str = "ties_to_even", bits: int | None = None, seed: int = 7) -> Request:
    return make_request(mode, "saturate", seed, bits, 0, "keep", ("keep",))


def numbers(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Normal numbers at many scales, lattices that divide into ties, subnormals, extremes and zeros of both signs."""
    rng = np.random.default_rng(seed)
    count = int(np.prod(shape))
    usual = rng.standard_normal(count) * np.exp2(np.repeat(rng.integers(-20, 20, -(-count // 64)), 64)[:count])
    lattice = rng.integers(-28, 29, count) / 4
    tiny = rng.integers(-9, 10, count) * 2.0**-149
    huge = rng.standard_normal(count) * 2.0**125
    kind = np.repeat(rng.integers(0, 12, -(-count // 96)), 96)[:count]
    x = np.select([kind < 5, kind < 10, kind < 11], [usual, lattice, tiny], huge).astype(np.float32)
    x[rng.integers(0, count, count // 50)] = 0.0
    x[rng.integers(0, count, count // 50)] = -0.0
    return x.reshape(shape)


def alike(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Numbers that share a tensor scale well: normal ones, and lattices that divide into ties."""
    rng = np.random.default_rng(seed)
    count = int(np.prod(shape))
    x = rng.standard_normal(count) * np.exp2(np.repeat(rng.integers(-3, 4, -(-count // 32)), 32)[:count])
    lattice = np.repeat(rng.integers(0, 2, -(-count // 48)), 48)[:count] == 1
    x = np.where(lattice, rng.integers(-24, 25, count) / 4, x)
    return x.astype(np.float32).reshape(shape)


def ends(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Normal numbers and lattices, thousands in a row near one end of float32, where powers of two lack reciprocals."""
    rng = np.random.default_rng(seed)
    count = int(np.prod(shape))
    scale = np.exp2(np.resize(np.repeat([-126.0, 125, -98, 98], 2048), count))
    x = np.where(rng.integers(0, 2, count) == 0, rng.standard_normal(count) / 4, rng.integers(-7, 8, count) / 4)
    return (x * scale).astype(np.float32).reshape(shape)


def beside_steps(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Numbers of which every 32nd, in both directions, is on or next to one of three significant bits, the largest."""
    rng = np.random.default_rng(seed)
    x = (rng.integers(-7, 8, shape) / 8).astype(np.float32)
    steps = (1 + rng.integers(0, 8, shape) / 8).astype(np.float32).view(np.int32)
    steps += rng.integers(-1, 2, shape, dtype=np.int32)
    large = np.add.outer(np.arange(shape[0]), np.arange(shape[1])) % 32 == 0
    return np.where(large, steps.view(np.float32), x)


def assert_same(x: np.ndarray, fmt: lowp.Block, request: Request, axis: Any) -> None:
    """Compare the tiled result with the general one: bits, but one NaN is as good as another."""
    fast = quantize_tiled(x, None, fmt, request, axis, 0, None)
    assert fast is not None
    general = quantize_blocks(x, fmt, request, axis, "float32")
    differ = (fast.view(np.int32) != general.view(np.int32)) & ~(np.isnan(fast) & np.isnan(general))
    at = tuple(np.argwhere(differ)[0]) if differ.any() else ()
    assert not differ.any(), (differ.sum(), at, x[at], fast[at], general[at])


def axes_of(fmt: lowp.Block, ndim: int) -> list[Any]:
    if isinstance(fmt.size, tuple):
        return [-1, (ndim - 2, ndim - 1), (ndim - 1, ndim - 2)]
    return [-1] if fmt.size == "tensor" else list(range(ndim))


def modes_of(fmt: lowp.Block) -> list[tuple[str, int | None]]:
    """Return the modes that are served: adaptive recipes compare results, which are not to be random."""
    return [m for m in MODES if fmt.recipe not in ADAPTIVE_RECIPES or not m[0].startswith("stochastic")]


@pytest.mark.parametrize("name", FORMATS)
def test_every_mode(name: str) -> None:
    for x in (numbers((64, 96)), alike((64, 96))):
        for mode, bits in modes_of(FORMATS[name]):
            assert_same(x, FORMATS[name], request_for(mode, bits), -1)


def test_what_takes_one_pass() -> None:
    def passes(name: str, mode: str = "ties_to_even", axis: int = -1) -> int:
        it = prepared(FORMATS[name], request_for(mode), (64, 4096), axis, None)
        assert it is not None
        return 2 if it.lanes is None or not it.lanes.rule.ruled or it.needs_most else 1

    for name in ("mxfp4", "mxfp8_e4m3", "mxfp8_e5m2", "mxfp6_e2m3", "mxint8", "e5m2_g24_pow2", "tile_e3m2_pow2"):
        for mode in ("ties_to_even", "toward_zero", "stochastic_a"):
            assert passes(name, mode) == 1
    assert passes("e4m3_g24") == passes("tile_e4m3") == passes("int8_row", axis=0) == 1
    assert passes("int4_g2048_pow2") == passes("int4_g2048_pow2", axis=0) == 1
    for name in ("uint4_g32_pow2", "fp16_g32_pow2", "three_quarters", "int8_row", "nvfp4"):
        assert passes(name) == 2


def test_quotients_keep_what_they_lost() -> None:
    from lowp.rounding._tile_kernels import ODD_QUOTIENT, _prepare

    rng = np.random.default_rng(10)
    x, scales = numbers((4096,), 10), np.abs(rng.standard_normal(4096).astype(np.float32)).astype(np.float64)
    scales[::7], scales[::5] = 2.0 ** rng.integers(-30, 30, 586), (1 + rng.integers(0, 8, 820) / 8) * scales[::5]
    got = np.empty(4096)
    _prepare(x, scales, got, ODD_QUOTIENT, np.nan)
    assert np.array_equal(got.view(np.int64), _exact_steps.divide(x, scales).view(np.int64))
    _prepare(x, np.zeros(4096), got, ODD_QUOTIENT, np.nan)
    assert not got.view(np.int64).any()


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("shape", [(96,), (64, 96), (3, 70, 37), (2, 3, 33, 5), (3, 2500)])
def test_every_axis_and_ragged_blocks(name: str, shape: tuple[int, ...]) -> None:
    fmt, made = FORMATS[name], (numbers(shape, 1), alike(shape, 1))
    if isinstance(fmt.size, tuple) and len(shape) < 2:
        pytest.skip("tiles need two axes")
    for axis in axes_of(fmt, len(shape)):
        for mode in {"ties_to_even", "stochastic_a"} & {m for m, _ in modes_of(fmt)}:
            for x in made:
                assert_same(x, fmt, request_for(mode), axis)


@pytest.mark.parametrize("recipe", ["floor", "ceil", "even", "rceil", "round"])
@pytest.mark.parametrize("element", ["float4_e2m1fn", "float6_e3m2fn", "float8_e4m3fn", "float8_e5m2", "int8", "int4"])
def test_every_rule_of_power_of_two_scales(recipe: str, element: str) -> None:
    fmt = lowp.Block(element, 32, recipe=recipe)
    for seed in range(3):
        for axis in (0, 1):
            assert_same(numbers((128, 64), seed), fmt, request_for(), axis)
            assert_same(ends((128, 64), seed), fmt, request_for(), axis)
            assert_same(beside_steps((128, 64), seed), fmt, request_for(), axis)


@pytest.mark.parametrize(
    "name",
    [
        "mxfp4",
        "mxfp8_e5m2",
        "tile_e3m2_pow2",
        "three_quarters",
        "tensor_e4m3",
        "row_e5m2",
        "tile_e4m3",
        "e4m3fnuz_g32_bf16",
    ],
)
def test_nan_and_infinity_take_their_block(name: str) -> None:
    x = numbers((64, 96), 2)
    x[5, 7], x[40, 90], x[41, 2] = np.nan, np.inf, -np.inf
    for mode in ("ties_to_even", "stochastic_a"):
        for axis in axes_of(FORMATS[name], 2):
            assert_same(x, FORMATS[name], request_for(mode), axis)


@pytest.mark.parametrize("name", ["nvfp4", "nvfp4_exact"])
def test_what_is_not_served_goes_the_general_way(name: str) -> None:
    fmt, x = FORMATS[name], numbers((32, 96), 2)
    x[5, 7] = np.nan
    assert quantize_tiled(x, None, fmt, request_for(), -1, 0, None) is None
    got = lowp.quantize(x, fmt, "stochastic_a", seed=7)
    assert np.array_equal(got, quantize_blocks(x, fmt, request_for("stochastic_a"), -1, "float32"), equal_nan=True)


def test_policies_for_nan_in_an_element() -> None:
    fmt = lowp.Block("float4_e2m1fn", 32, nonfinite="element")
    x = numbers((32, 96), 3)
    assert_same(x, fmt, request_for("stochastic_a"), 0)
    x[3, 3] = np.inf
    assert quantize_tiled(x, None, fmt, request_for(), -1, 0, None) is None


@pytest.mark.parametrize("name", ["mxfp4", "nvfp4", "tile_e4m3", "tensor_e4m3"])
def test_threads_and_the_place_of_the_result_do_not_matter(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fmt, x = FORMATS[name], np.random.default_rng(4).standard_normal((640, 1030)).astype(np.float32)
    results = []
    for threads in ("1", "2", "5"):
        monkeypatch.setenv("LOWP_NUM_THREADS", threads)
        for axis in axes_of(fmt, 2)[:2]:
            out = x.copy()
            assert lowp.quantize(out, fmt, "stochastic_a", axis=axis, seed=3, out=out) is out
            results.append((axis, out))
    for axis, result in results:
        assert np.array_equal(result, next(r for a, r in results if a == axis))


@pytest.mark.parametrize("name", ["mxfp4", "nvfp4_alone", "row_e5m2", "tile_e4m3", "three_quarters"])
def test_pieces_of_an_array_get_the_bits_of_the_whole(name: str) -> None:
    fmt, x = FORMATS[name], np.random.default_rng(5).standard_normal((128, 192)).astype(np.float32)
    request = request_for("stochastic_a")
    for axis in (0, 1) if not isinstance(fmt.size, tuple) else (-1,):
        whole = try_fast(x, fmt, request, axis, None)
        assert whole is not None
        if axis != 0 or fmt.size != "row":
            rows = try_fast(np.ascontiguousarray(x[64:]), fmt, request, axis, None, start=64 * 192)
            assert rows is not None
            assert np.array_equal(rows, whole[64:])
        if axis == 0 or fmt.size != "row":
            columns = try_fast(np.ascontiguousarray(x[:, 96:]), fmt, request, axis, None, start=96, pitch=192)
            assert columns is not None
            assert np.array_equal(columns, whole[:, 96:])


def test_positions_past_two_to_the_32() -> None:
    fmt, x = FORMATS["mxfp4"], np.full((4, 64), 0.3, np.float32)
    x[:, ::32] = 6
    near = try_fast(x, fmt, request_for("stochastic_a"), -1, None, start=(1 << 32) - 128)
    assert near is not None
    for start in ((1 << 32) - 64, 1 << 32):
        row = try_fast(x[:1], fmt, request_for("stochastic_a"), -1, None, start=start)
        assert row is not None
        assert np.array_equal(row[0], near[(start - (1 << 32) + 128) // 64])
    random = exact_bits(np.arange((1 << 32) - 128, (1 << 32) + 128), 7)
    wanted = np.where(random + np.floor(np.float64(np.float32(0.3)) * 2 * 2**32) >= 2**32, 0.5, 0.0)
    inside = np.arange(256) % 32 != 0
    assert np.array_equal(near.reshape(-1)[inside], wanted[inside].astype(np.float32))


def exact_bits(positions: np.ndarray, seed: int) -> np.ndarray:
    return np.array([word(seed, int(p)) for p in positions], np.float64)


@pytest.mark.parametrize(
    "name", ["mxfp4", "mxfp8_e4m3", "mxint8", "e5m2_g24_pow2", "e4m3_g24", "tile_e4m3", "row_e5m2", "int8_row"]
)
def test_the_oracle_agrees(name: str) -> None:
    fmt, x = FORMATS[name], numbers((32, 48), 6)
    for axis in axes_of(fmt, 2)[:2]:
        got = quantize_tiled(x, None, fmt, request_for(), axis, 0, None)
        assert got is not None
        assert np.array_equal(got.view(np.int32), quantized(x, fmt, axis).astype(np.float32).view(np.int32))


@pytest.mark.parametrize("mode", ["stochastic_a", "stochastic_b", "stochastic_c", "stochastic_equal"])
@pytest.mark.parametrize("bits", [1, 4, 32])
def test_the_oracle_agrees_on_random_steps(mode: str, bits: int) -> None:
    fmt, x = FORMATS["e4m3_g24"], numbers((4, 48), 8)
    for axis in (0, 1):
        got = quantize_tiled(x, None, fmt, request_for(mode, bits), axis, 0, None)
        assert got is not None
        scales = lowp.decode(lowp.encode(x, fmt, axis=axis).scales, fmt.scale)
        for (i, j), v in np.ndenumerate(x):
            scale = Fraction(float(scales[i // 24 if axis == 0 else i, j // 24 if axis == 1 else j]))
            ratio = Fraction(float(v)) / scale if scale else Fraction(0)
            element = exact.quantize(ratio, fmt.element, mode, random_bits=bits, random=word(7, i * 48 + j))
            assert float(got[i, j]) == np.float32(float(Fraction(element) * scale))


@pytest.mark.parametrize(
    ("shape", "size", "axis", "grid"),
    [
        ((4, 64), 32, -1, Grid(1, 1, 256, 1, 32)),
        ((4, 60), 32, -1, Grid(1, 4, 60, 1, 32)),
        ((4, 60), 32, 0, Grid(1, 4, 60, 32, 1)),
        ((2, 4, 60), 2, 1, Grid(2, 4, 60, 2, 1)),
        ((2, 4, 60), (2, 30), (1, 2), Grid(2, 4, 60, 2, 30)),
        ((2, 4, 60), (30, 2), (2, 1), Grid(2, 4, 60, 2, 30)),
        ((2, 4, 60), (2, 30), (0, 2), None),
        ((2, 4), "tensor", -1, Grid(1, 1, 8, 1, 8)),
        ((2, 4), "row", 0, Grid(1, 2, 4, 2, 1)),
    ],
)
def test_grids(shape: tuple[int, ...], size: Any, axis: Any, grid: Grid | None) -> None:
    assert grid_of(make_layout(shape, lowp.Block("int4", size), axis)) == grid
