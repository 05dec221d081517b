"""`lowp.jax.every_operation`: each primitive's result rounded once, against a chain written by hand."""

import numpy as np
import pytest

import lowp

jax = pytest.importorskip("jax")
jnp = jax.numpy
from lowp.emulation._jax_emulate import every_operation  # noqa: E402
from lowp.emulation.recipe import Cast  # noqa: E402


def q(x, fmt="bfloat16", **options):
    return np.asarray(lowp.quantize(np.asarray(x), fmt, **options))


@pytest.fixture
def rng():
    return np.random.default_rng(4)


def same(a, b):
    np.testing.assert_array_equal(np.asarray(a).view(np.uint32), np.asarray(b).view(np.uint32))


@pytest.mark.parametrize("fmt", ["bfloat16", "float8_e4m3fn", "posit16", "fp16", "lns8_f3", "int8"])
@pytest.mark.parametrize("compiled", [False, True])
def test_a_chain_of_operations(rng, fmt, compiled):
    x, y = (rng.uniform(0.5, 2, 64).astype(np.float32) for _ in range(2))
    low = every_operation(lambda x, y: jnp.sqrt(x * y + x) / y - 1, fmt)
    got = (jax.jit(low) if compiled else low)(x, y)
    product = q(x * y, fmt)
    total = q(product + x, fmt)
    root = q(np.sqrt(total), fmt)
    same(got, q(q(root / y, fmt) - np.float32(1), fmt))


def test_only_and_exclude_choose(rng):
    x = rng.normal(size=32).astype(np.float32)
    function = lambda x: (x + 1) * 3  # noqa: E731
    same(every_operation(function, "bfloat16", only="add")(x), q(x + 1) * np.float32(3))
    same(every_operation(function, "bfloat16", exclude=["ad*"])(x), q((x + 1) * np.float32(3)))
    low = every_operation(function, "bfloat16")
    low(x)
    assert [(r.operation, r.cast) for r in low.report.rows] == [
        ("add", "bfloat16, overflow infinity_or_nan"), ("mul", "bfloat16, overflow infinity_or_nan"),
    ]  # fmt: skip


def test_moves_are_no_operations(rng):
    x = rng.normal(size=(4, 6)).astype(np.float32)
    moves = lambda x: jnp.concatenate([x.T[::2], x.T.reshape(4, 6)[:3, :4], jnp.where(x > 0, x, x)[:, :4]])  # noqa: E731
    same(every_operation(moves, "float8_e4m3fn")(x), moves(x))
    same(every_operation(lambda x: x.T, "float8_e4m3fn", only="transpose")(x), q(x.T, "float8_e4m3fn"))


def test_a_product_is_summed_first_and_rounded_once(rng):
    a, b = rng.normal(size=(8, 16)).astype(np.float32), rng.normal(size=(16, 8)).astype(np.float32)
    low = every_operation(jnp.matmul, "bfloat16")
    same(low(a, b), q(jnp.matmul(a, b)))
    same(every_operation(jnp.sum, "bfloat16")(a), q(jnp.sum(a)))


@pytest.mark.parametrize("compiled", [False, True])
def test_loops_branches_and_rules_are_entered(rng, compiled):
    x = rng.uniform(0.1, 1, 16).astype(np.float32)

    def program(x):
        x = jax.lax.fori_loop(0, 3, lambda i, x: x * x + 0.5, x)
        x = jax.lax.cond(x[0] > 0, lambda x: x * 3, lambda x: x * 5, x)
        x = jax.lax.scan(lambda c, _: (c * 0.7, None), x, None, length=2)[0]
        x = jax.lax.while_loop(lambda x: x[0] > 0.1, lambda x: x * 0.3, x)
        return jax.checkpoint(lambda x: jax.nn.relu(x * 1.1))(x)

    def by_hand(x):
        for _ in range(3):
            x = q(q(x * x) + np.float32(0.5))
        x = q(x * np.float32(3)) if x[0] > 0 else q(x * np.float32(5))
        for _ in range(2):
            x = q(x * np.float32(0.7))
        while x[0] > 0.1:
            x = q(x * np.float32(0.3))
        return np.maximum(q(x * np.float32(1.1)), 0)

    low = every_operation(program, "bfloat16")
    same((jax.jit(low) if compiled else low)(x), by_hand(x))


def test_derivatives_pass_straight_through_or_are_rounded_themselves(rng):
    x = rng.normal(size=16).astype(np.float32)
    function = lambda x: jnp.sum(x * x * 0.3)  # noqa: E731
    square = q(x * x)
    outside = jax.grad(every_operation(function, "bfloat16"))(x)
    np.testing.assert_allclose(np.asarray(outside), 2 * x * np.float32(0.3), rtol=1e-6)
    inside = every_operation(jax.grad(function), "bfloat16")(x)
    same(inside, q(inside))
    assert not np.array_equal(np.asarray(inside), np.asarray(outside))
    tangent = jax.jvp(every_operation(lambda x: x * x, "bfloat16"), (x,), (np.ones_like(x),))
    same(tangent[0], square)
    np.testing.assert_allclose(np.asarray(tangent[1]), 2 * x, rtol=1e-6)
    clipped = every_operation(lambda x: x * 2, "float8_e4m3fn", gradient="clipped")
    same(jax.grad(lambda x: clipped(x).sum())(np.array([1, 300], np.float32)), np.array([2, 0], np.float32))


def test_stochastic_rounding_draws_anew_in_every_round_and_for_every_seed(rng):
    x = np.full(256, 1.3, np.float32)
    low = every_operation(lambda x: jax.lax.scan(lambda c, _: (c, c * 1.1), x, None, length=3)[1], Cast(
        "float8_e4m3fn", rounding="stochastic_a"))  # fmt: skip
    rows = np.asarray(low(x))
    assert set(np.unique(rows)) == {1.375, 1.5}
    assert not np.array_equal(rows[0], rows[1])
    assert not np.array_equal(rows[1], rows[2])
    same(rows, jax.jit(low)(x))
    assert not np.array_equal(rows, low(x, seed=1))
    np.testing.assert_allclose(rows.mean(), 1.43, atol=5 * 0.0625 / np.sqrt(768))


def test_complex_results_are_rounded_by_their_parts(rng):
    x = (rng.normal(size=8) + 1j * rng.normal(size=8)).astype(np.complex64)
    got = np.asarray(every_operation(lambda x: x + (1 + 2j), "bfloat16")(x))
    wanted = x + np.complex64(1 + 2j)
    same(got.real, q(wanted.real))
    same(got.imag, q(wanted.imag))


def test_float64_programs_are_rounded_from_float64():
    with jax.enable_x64(True):
        x = jnp.asarray(np.random.default_rng(0).normal(size=64))
        got = every_operation(lambda x: x * x + 1, "float32")(x)
        wanted = q(q(np.asarray(x) ** 2, "float32") + 1.0, "float32")
        np.testing.assert_array_equal(np.asarray(got).view(np.uint64), wanted.view(np.uint64))


def test_conjugate_gradients_in_a_compiled_loop_equal_the_loop_in_numpy(rng):
    n = 32
    a = np.diag(np.linspace(1, 10, n)).astype(np.float32) + np.float32(0.01)
    b = np.ones(n, np.float32)

    def cg(a, b):
        def body(state):
            number, x, r, p, rs = state
            ap = a @ p
            alpha = rs / jnp.sum(p * ap)
            x, r = x + alpha * p, r - alpha * ap
            new = jnp.sum(r * r)
            return number + 1, x, r, r + (new / rs) * p, new

        start = (0, jnp.zeros_like(b), b, b, jnp.sum(b * b))
        return jax.lax.while_loop(lambda s: (s[0] < 40) & (s[4] > 1e-4), body, start)

    sums = jax.jit(jnp.sum)
    product = jax.jit(lambda a, p: jnp.matmul(a, p, precision="highest"))

    def by_hand(a, b):
        x, r, p, rs, number = np.zeros_like(b), b, b, q(sums(q(b * b))), 0
        while number < 40 and rs > 1e-4:
            ap = q(product(a, p))
            alpha = q(rs / q(sums(q(p * ap))))
            x, r = q(x + q(alpha * p)), q(r - q(alpha * ap))
            new = q(sums(q(r * r)))
            p, rs, number = q(r + q(q(new / rs) * p)), new, number + 1
        return number, x

    number, x, *_ = jax.jit(every_operation(cg, "bfloat16"))(a, b)
    wanted_number, wanted = by_hand(a, b)
    assert int(number) == wanted_number
    np.testing.assert_allclose(np.asarray(x), wanted, rtol=1e-2, atol=1e-3)  # sums of another order in between
    exact = jax.jit(cg)(a, b)
    assert int(number) >= int(exact[0])


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: every_operation(jnp.sin, "mxfp4"), "elementwise.*scalar"),
        (lambda: every_operation(jnp.sin, "fp99"), "fp99"),
        (lambda: every_operation(3, "fp8"), "fn=3"),
        (lambda: every_operation(jnp.sin, "fp8", rounding="up"), "rounding"),
        (lambda: every_operation(jnp.sin, "fp8", colour="red"), "colour"),
    ],
)
def test_bad_arguments(call, match):
    with pytest.raises(lowp.Error, match=match):
        call()


def test_magnitudes_of_complex_numbers_are_rounded() -> None:
    low = every_operation(lambda x: jax.numpy.abs(jax.numpy.fft.fft(x)), "bfloat16")
    y = np.asarray(low(jax.numpy.arange(1.0, 9.0)))
    assert np.array_equal(lowp.quantize(y, "bfloat16"), y)


def test_an_excluded_pattern_that_matches_nothing_is_told_of() -> None:
    low = every_operation(lambda x: x + 1, "bfloat16", exclude=["multiply"])
    low(jax.numpy.ones(2))
    assert any("multiply" in str(remark) for remark in low.report.remarks)
