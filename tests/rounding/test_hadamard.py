"""The Hadamard transform: its definition, its inverse, and the same bits from NumPy, torch and JAX."""

import math
from typing import Any

import numpy as np
import pytest

import lowp
from lowp.rounding.hadamard import hadamard
from lowp.rounding.random_bits import word
from tests.covering import slow

BLOCKS = [1, 2, 4, 8, 16, 32, 64, 256, 4096]
SHAPES = [((4096,), 0), ((3, 4096), -1), ((4096, 5), 0), ((2, 256, 33), 1), ((64, 300), 0), ((2, 3, 64), -1)]


def by_definition(x: np.ndarray, block: int, axis: int, seed: int | None, inverse: bool = False) -> np.ndarray:
    """One addition at a time, in the order that the documentation gives."""
    signs = np.ones(block) if seed is None else np.array([-1.0 if word(seed, i) >> 31 else 1.0 for i in range(block)])
    y = np.moveaxis(x, axis, -1).copy()
    shape = y.shape
    y = y.reshape(-1, block)
    y = y if inverse else y * signs.astype(x.dtype)
    h = 1
    while h < block:
        for i in range(block):
            if i & h == 0:
                u, v = y[:, i].copy(), y[:, i + h].copy()
                y[:, i], y[:, i + h] = u + v, u - v
        h *= 2
    y = y * x.dtype.type(1 / math.sqrt(block))
    y = y * signs.astype(x.dtype) if inverse else y
    return np.moveaxis(y.reshape(shape), -1, axis)


def same(a: np.ndarray, b: np.ndarray) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == np.ascontiguousarray(b).tobytes()


def samples(shape: tuple[int, ...], dtype: type = np.float32) -> np.ndarray:
    rng = np.random.default_rng(0)
    return (rng.standard_normal(shape) * np.exp2(rng.integers(-12, 12, shape))).astype(dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("shape", "axis"), SHAPES)
def test_every_block_size_as_defined(shape: tuple[int, ...], axis: int, dtype: type) -> None:
    x = samples(shape, dtype)
    for block in (b for b in BLOCKS if shape[axis] % b == 0):
        for seed in (None, 11):
            for inverse in (False, True):
                signs = "none" if seed is None else "random"
                got = hadamard(x, block, axis, seed, signs, inverse)
                assert same(got, by_definition(x, block, axis, seed, inverse)), (block, seed, inverse)


def test_it_is_the_matrix_of_hadamard() -> None:
    got = hadamard(np.eye(16), 16, signs="none")
    parity = np.array([[bin(i & j).count("1") % 2 for j in range(16)] for i in range(16)])
    assert np.array_equal(got, np.where(parity, -0.25, 0.25))


@pytest.mark.parametrize("block", [4, 16, 64])
def test_small_integers_come_back_exactly(block: int) -> None:
    x = np.random.default_rng(1).integers(-64, 65, (7, 128)).astype(np.float32)
    once = hadamard(x, block, seed=5)
    assert not np.array_equal(once, x)
    assert np.array_equal(hadamard(once, block, seed=5, inverse=True), x)
    assert np.array_equal((once.astype(np.float64) ** 2).sum(), (x.astype(np.float64) ** 2).sum())


def test_two_operands_keep_their_product() -> None:
    rng = np.random.default_rng(2)
    a, b = rng.integers(-8, 9, (5, 64)).astype(np.float64), rng.integers(-8, 9, (64, 3)).astype(np.float64)
    assert np.array_equal(hadamard(a, 16, -1, 3) @ hadamard(b, 16, 0, 3), a @ b)


def test_seeds_draw_signs() -> None:
    x = samples((4, 64))
    assert same(hadamard(x, 32), hadamard(x, 32, seed=0))
    assert not same(hadamard(x, 32, seed=0), hadamard(x, 32, seed=1))
    assert same(hadamard(x, 32, seed=3, signs="none"), hadamard(x, 32, signs="none"))
    top = hadamard(np.ones(32, np.float32), 32, seed=(1 << 64) - 1, inverse=True)
    assert top[0] == (-1 if word((1 << 64) - 1, 0) >> 31 else 1) * np.float32(32) * np.float32(1 / math.sqrt(32))


def test_special_numbers() -> None:
    x = np.zeros((4, 8), np.float32)
    x[0] = -0.0
    x[1, 3], x[2, 4], x[3] = np.nan, np.inf, 1e-45
    got = hadamard(x, 8, signs="none")
    assert np.isnan(got[1]).all()
    assert np.isinf(got[2]).all()
    assert same(got[[0, 3]], by_definition(x[[0, 3]], 8, -1, None))
    assert got[3, 0] == np.float32(8) * np.float32(1e-45) * np.float32(1 / math.sqrt(8))


@pytest.mark.parametrize("threads", ["1", "2", "3"])
@pytest.mark.parametrize("axis", [0, 1])
def test_threads_do_not_matter(axis: int, threads: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOWP_NUM_THREADS", threads)
    x = samples((768, 640))
    for block in (16, 128):
        assert same(hadamard(x, block, axis, 1), by_definition(x, block, axis, 1))


def test_types_of_numpy() -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes")
    assert hadamard([1, 1], 2).dtype == np.float64
    assert hadamard(np.arange(4), 4).dtype == np.float64
    assert hadamard(np.empty((0, 4), np.float32), 4).shape == (0, 4)
    x = samples((4, 64))[:, ::2]
    for dtype in (np.float16, ml_dtypes.bfloat16):
        narrow = x.astype(dtype)
        assert same(hadamard(narrow, 32, 1, 3), by_definition(narrow.astype(np.float32), 32, 1, 3).astype(dtype))
    before = x.copy()
    assert same(hadamard(x, 32, seed=3), by_definition(before, 32, -1, 3))
    assert np.array_equal(x, before)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"block": 12}, "block=12 must be a power of two that divides the axis, whose length is 24"),
        ({"block": 16}, "block=16 must be a power of two"),
        ({"block": 0}, "block=0"),
        ({"block": 8, "axis": 2}, "axis=2 does not exist in an array of 2 dimensions"),
        ({"block": 8, "seed": -1}, "seed=-1"),
        ({"block": 8, "signs": "randon"}, "signs='randon'.*random"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(lowp.ArgumentError, match=message):
        hadamard(np.ones((2, 24)), **arguments)


@pytest.mark.parametrize("arguments", [{"block": 8.0}, {"block": True}, {"block": 8, "axis": 0.5}])
def test_arguments_of_a_wrong_type(arguments: dict[str, Any]) -> None:
    with pytest.raises(lowp.ArgumentTypeError):
        hadamard(np.ones((2, 24)), **arguments)
    with pytest.raises(lowp.ArgumentTypeError):
        hadamard(np.ones(8, bool), 8)


@pytest.mark.parametrize("inverse", [False, True])
@pytest.mark.parametrize(("shape", "axis"), SHAPES[2:])
def test_torch_gives_the_same_bits(shape: tuple[int, ...], axis: int, inverse: bool) -> None:
    torch = pytest.importorskip("torch")
    from lowp.rounding.hadamard import block_signs, rotate_portable

    for dtype in (np.float32, np.float64):
        x = samples(shape, dtype)
        for block in (b for b in (2, 16, 64) if shape[axis] % b == 0):
            wanted = hadamard(x, block, axis, 9, inverse=inverse)
            tensor = torch.from_numpy(x)
            assert same(hadamard(tensor, block, axis, 9, inverse=inverse).numpy(), wanted)
            turned = tensor.transpose(0, -1).contiguous().transpose(0, -1)
            assert same(hadamard(turned, block, axis, 9, inverse=inverse).numpy(), wanted)
            own = torch.tensor(block_signs(block, 9, "random"), dtype=tensor.dtype)
            factor = torch.tensor(1 / math.sqrt(block), dtype=tensor.dtype)
            plain = rotate_portable(tensor, own, axis % len(shape), inverse, torch.stack, factor)
            assert same(plain.numpy(), wanted)


def test_torch_programs() -> None:
    torch = pytest.importorskip("torch")
    x = torch.from_numpy(samples((3, 8, 64)))
    wanted = hadamard(x, 16, 1 - 2, 4)
    again = torch.func.vmap(lambda v: hadamard(v, 16, -1, 4), in_dims=1, out_dims=1)(x)
    assert torch.equal(again, wanted)
    seed = (1 << 64) - 3
    assert torch.equal(torch.compile(lambda v: hadamard(v, 16, -1, seed), backend="eager", fullgraph=True)(x),
                       hadamard(x, 16, -1, seed))  # fmt: skip
    half = x.to(torch.bfloat16)
    assert torch.equal(hadamard(half, 16), hadamard(half.float(), 16).to(torch.bfloat16))
    assert hadamard(torch.arange(4), 4).dtype == torch.float64
    torch.library.opcheck(torch.ops.lowp.hadamard, (x.requires_grad_(), 16, 2, 4, "random", False))
    with pytest.raises(lowp.ArgumentTypeError):
        hadamard(torch.ones(4, dtype=torch.complex64), 4)
    with pytest.raises(lowp.ArgumentError, match="block=3"):
        hadamard(x, 3)


def test_gradients_of_torch_are_the_inverse() -> None:
    torch = pytest.importorskip("torch")
    x = torch.from_numpy(samples((3, 64))).requires_grad_()
    g = torch.from_numpy(samples((3, 64))[::-1].copy())
    hadamard(x, 32, seed=2).backward(g)
    assert x.grad is not None
    assert torch.equal(x.grad, hadamard(g, 32, seed=2, inverse=True))
    wide = x.detach().double().requires_grad_()
    assert torch.autograd.gradcheck(lambda v: hadamard(v, 32, seed=2), wide)


@pytest.mark.parametrize("inverse", [False, True])
@pytest.mark.parametrize(("shape", "axis"), [slow(*SHAPES[2]), SHAPES[3], slow(*SHAPES[4]), SHAPES[5]])
def test_jax_gives_the_same_bits(shape: tuple[int, ...], axis: int, inverse: bool) -> None:
    jax = pytest.importorskip("jax")
    x = samples(shape)
    for block in (b for b in (2, 16, 64) if shape[axis] % b == 0):
        wanted = hadamard(x, block, axis, 9, inverse=inverse)
        assert same(np.asarray(hadamard(jax.numpy.asarray(x), block, axis, 9, inverse=inverse)), wanted)
        compiled = jax.jit(lambda v, block=block: hadamard(v, block, axis, 9, inverse=inverse))
        assert same(np.asarray(compiled(x)), wanted)


def test_jax_programs() -> None:
    jax = pytest.importorskip("jax")
    x = samples((3, 8, 64))
    mapped = jax.jit(jax.vmap(lambda v: hadamard(v, 16, -1, 4), in_axes=1, out_axes=1))(x)
    assert same(np.asarray(mapped), hadamard(x, 16, -1, 4))
    g = samples((3, 8, 64))[::-1].copy()
    pulled = jax.jit(lambda v, g: jax.vjp(lambda v: hadamard(v, 16, -1, 4), v)[1](g)[0])(x, g)
    assert np.allclose(pulled, hadamard(g, 16, -1, 4, inverse=True), rtol=1e-4, atol=1e-3)
    traced = jax.jit(lambda v, seed: hadamard(v, 16, -1, seed))
    assert same(np.asarray(traced(x, jax.numpy.uint32(7))), hadamard(x, 16, -1, 7))
    assert hadamard(jax.numpy.arange(4), 4).dtype == np.float32
    with jax.enable_x64(True):
        wide = jax.numpy.asarray(samples((3, 64), np.float64))
        assert same(np.asarray(hadamard(wide, 32, seed=6)), hadamard(samples((3, 64), np.float64), 32, seed=6))
    with pytest.raises(lowp.ArgumentTypeError):
        hadamard(jax.numpy.ones(4, bool), 4)


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")
def test_derivatives_in_torch_of_every_kind() -> None:
    """By transforms and by dual numbers, of first and second order."""
    torch = pytest.importorskip("torch")
    x = torch.randn(3, 32, dtype=torch.float64)

    def turned(t: Any) -> Any:
        return hadamard(t, 16, -1, 4)

    assert torch.equal(torch.func.jvp(turned, (x,), (x,))[1], turned(x))
    assert torch.allclose(torch.func.grad(lambda t: turned(t).square().sum())(x), 2 * x)
    assert torch.allclose(torch.func.vmap(torch.func.grad(lambda t: turned(t).square().sum()))(x), 2 * x)
    assert torch.allclose(torch.func.jacrev(turned)(x[0]), turned(torch.eye(32, dtype=x.dtype)).T)
    given = x.clone().requires_grad_()
    assert torch.autograd.gradcheck(turned, (given,), check_forward_ad=True)
    assert torch.autograd.gradgradcheck(turned, (given,))
    with torch.autograd.forward_ad.dual_level():
        dual = turned(torch.autograd.forward_ad.make_dual(x, 2 * x))
        assert torch.equal(torch.autograd.forward_ad.unpack_dual(dual).tangent, turned(2 * x))


def test_the_operator_of_torch_is_registered_in_full() -> None:
    torch = pytest.importorskip("torch")
    for x, axis in ((torch.randn(4, 32), 1), (torch.randn(32, 4).bfloat16(), 0), (torch.randn(32, 2, 3).mT, 0)):
        hadamard(x, 16, axis)
        arguments = (x.requires_grad_(), 16, axis, -5, "random", True)
        torch.library.opcheck(torch.ops.lowp.hadamard, arguments)
