"""Every published cast gives the same bits through torch and JAX as through NumPy."""

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest

import lowp
from lowp import Cast, PrecisionWarning, Recipe
from lowp.emulation._numpy_world import NUMPY
from lowp.emulation.casting import Rounded, rotate_back, round_operand
from lowp.emulation.recipe import PASSES
from lowp.formats import Block
from tests.covering import covering

RNG = np.random.default_rng(11)
X = (RNG.standard_normal((128, 384)) * np.exp(2 * RNG.standard_normal((128, 1)))).astype(np.float32)
X[5, 7], X[64:96] = 3e4, 0


def casts() -> list[Cast]:
    """Return every cast of a published recipe, reading the original operand."""
    found = {}
    for name in Recipe.names():
        recipe = Recipe.named(name)
        for product, roles in PASSES.items():
            for role in roles:
                cast = recipe.cast(role, product)
                given = {field: getattr(cast, field) for field in cast.__dataclass_fields__}
                plain = Cast(**{**given, "reuse": False, "requantize": False})
                if plain:
                    found[plain] = None
    return [*found, Cast("int4_sym", gradient="clipped"), Cast("mxfp4", gradient="clipped"), Cast(hadamard=64)]


def traits(cast: Cast) -> set[Any]:
    """Return what decides which code a cast runs."""
    fmt = lowp.parse(cast.format) if cast.format else None
    found: set[Any] = {
        cast.method, cast.rounding, cast.gradient, ("scaling", cast.scaling),
        (cast.hadamard > 0, cast.signs) if cast.hadamard else False,
    }  # fmt: skip
    if isinstance(fmt, Block):
        return found | {fmt.recipe, (type(fmt.size), fmt.tensor_scale is None, fmt.zero_point), type(fmt.element)}
    return found | {type(fmt)}


Run = Callable[..., tuple[Any, Any]]


def by_torch(cast: Cast, **options: Any) -> Rounded:
    torch = pytest.importorskip("torch")
    from lowp.emulation._torch_world import TORCH

    if options.get("scale") is not None:
        options["scale"] = torch.tensor(options["scale"])
    return plain(round_operand(TORCH, torch.from_numpy(X), cast, **options))


def by_jax(cast: Cast, **options: Any) -> Rounded:
    jax = pytest.importorskip("jax")
    from lowp.emulation._jax_world import WORLD

    run = jax.jit(lambda x: round_operand(WORLD, x, cast, **options))
    return plain(run(jax.numpy.asarray(X)))


def plain(r: Rounded) -> Rounded:
    return Rounded(*(None if part is None else np.asarray(part) for part in r))


def same(got: Rounded, wanted: Rounded) -> None:
    assert got.values.dtype == wanted.values.dtype
    np.testing.assert_array_equal(got.values.view(np.uint32), wanted.values.view(np.uint32))
    assert (got.mask is None) == (wanted.mask is None)
    if wanted.mask is not None:
        np.testing.assert_array_equal(got.mask, wanted.mask)
    if wanted.amax is not None:
        assert got.amax == wanted.amax


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("cast", casts(), ids=lambda cast: cast.describe())
def test_torch_gives_the_same_bits(axis: int, cast: Cast) -> None:
    check(by_torch, axis, cast)


@pytest.mark.parametrize("cast", covering(casts(), traits), ids=lambda cast: cast.describe())
def test_jax_gives_the_same_bits(cast: Cast) -> None:
    check(by_jax, 0, cast)


def check(run: Run, axis: int, cast: Cast) -> None:
    options: dict[str, Any] = {"axis": axis, "outer": 1 - axis, "seed": 12345678901, "sign_seed": 98765}
    if cast.scaling == "delayed":
        options["scale"] = np.float32(1.7)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PrecisionWarning)
        wanted = round_operand(NUMPY, X, cast, **options)
        same(run(cast, **options), wanted)


def test_a_fence_keeps_products_from_sums() -> None:
    """Under jit, `a * b + c` would be one multiply-add; behind the fence the product is rounded first."""
    jax = pytest.importorskip("jax")
    from lowp.emulation._jax_world import WORLD

    a, b, c = RNG.standard_normal((3, 4096)).astype(np.float32)
    got = np.asarray(jax.jit(lambda a, b, c: WORLD.fence(a * b) + c)(a, b, c))
    np.testing.assert_array_equal(got.view(np.uint32), (a * b + c).view(np.uint32))
    special = np.array([0, -0.0, np.inf, -np.inf, 1e-45, -3e-39, 3e38], np.float32)
    np.testing.assert_array_equal(np.asarray(jax.jit(WORLD.fence)(special)).view(np.uint32), special.view(np.uint32))


def test_torch_rotates_back_with_the_same_bits() -> None:
    torch = pytest.importorskip("torch")
    from lowp.emulation._torch_world import TORCH

    cast = Cast(hadamard=32)
    back = rotate_back(TORCH, torch.from_numpy(X), cast, 0, 7).numpy()
    np.testing.assert_array_equal(back.view(np.uint32), rotate_back(NUMPY, X, cast, 0, 7).view(np.uint32))


@pytest.mark.parametrize(
    "cast",
    [
        Cast("nvfp4", method="ms_eden", hadamard=64), Cast("int4_t32x32", method="gauss_noise"),
        Cast("nvfp4", rounding="stochastic_a"), Cast("fp8", scaling="current", rounding="stochastic_a"),
        Cast("e2m1_g32", method="pow2_ratio", rounding="stochastic_b"), Cast("int4_g32", method="quest"),
    ],
    ids=lambda cast: cast.describe(),
)  # fmt: skip
@pytest.mark.parametrize("axis", [0, 1])
def test_pieces_of_a_tensor_have_the_bits_of_the_whole(cast: Cast, axis: int) -> None:
    """Pieces along the axis that is not summed over; their random bits and their largest magnitude are the whole's."""
    torch = pytest.importorskip("torch")
    from lowp.emulation._torch_world import TORCH
    from lowp.rounding.shard import Shard

    whole = round_operand(NUMPY, X, cast, axis=axis, outer=1 - axis, seed=5, sign_seed=6)
    turned = NUMPY.hadamard(X, cast.hadamard, axis, 6) if cast.hadamard else X
    largest = torch.tensor(np.abs(turned).max())
    pieces = []
    for part in range(2):
        cut = np.split(X, 2, axis=1 - axis)[part]
        offset = [0, 0]
        offset[1 - axis] = part * cut.shape[1 - axis]
        piece = partial(
            round_operand, TORCH, torch.from_numpy(np.ascontiguousarray(cut)), cast, axis=axis, outer=1 - axis
        )
        got = piece(seed=5, sign_seed=6, shard=Shard(tuple(offset), X.shape), amax=lambda _: largest)
        pieces.append(got.values.numpy())
    joined = np.concatenate(pieces, axis=1 - axis)
    np.testing.assert_array_equal(joined.view(np.uint32), np.ascontiguousarray(whole.values).view(np.uint32))
