"""JAX arrays get the bits of the NumPy path, under every transformation; what JAX cannot hold is said."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lowp
from lowp.formats.logarithms import is_logarithmic
from lowp.formats.spec import ScalarFormat
from tests.covering import covering, scalar_traits, slow
from tests.rounding.test_portable import NAMES, UNNAMED, agree, format_of, numbers, outcome, some_calls

jax = pytest.importorskip("jax")

import jax.numpy as jnp  # noqa: E402 - after the check that it is there

import lowp.jax as lj  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
ml_dtypes = pytest.importorskip("ml_dtypes")
FEW = ("float8_e4m3fn", "nf4", "posit16_es1", "int8")
#: Formats whose code for float64 differs from that for float32.
WIDE = (*FEW, "float64", "int32", "posit64_es2", "many exponents", "fixed, 53 bits", "codebook of float64")


@pytest.fixture
def x64() -> Any:
    """Turn float64 on for one test."""
    with jax.enable_x64(True):
        yield


def sample(rows: int = 6, columns: int = 32) -> np.ndarray:
    rng = np.random.default_rng(0)
    return (rng.standard_normal((rows, columns)) * np.exp2(rng.integers(-8, 8, (rows, columns)))).astype(np.float32)


def same(got: Any, wanted: np.ndarray) -> bool:
    return agree(outcome(lambda: got), outcome(lambda: wanted))


class TestSameBits:
    @pytest.mark.parametrize("name", [*covering(NAMES, lambda name: scalar_traits(format_of(name))), *UNNAMED])
    def test_float32_of_every_format(self, name: str) -> None:
        fmt, x = format_of(name), numbers(name, np.float32, 600)
        for rounding, overflow, bits in some_calls(fmt, 1 if name in NAMES else 2):
            how: dict[str, Any] = {"rounding": rounding, "overflow": overflow, "random_bits": bits, "seed": 5}
            wanted = outcome(lambda how=how: lowp.quantize(x, fmt, **how))
            assert agree(outcome(lambda how=how: lj.quantize(jnp.asarray(x), fmt, **how)), wanted), how
            if fmt.bits <= 32:
                codes = lowp.encode(x, fmt, nan="max", **how).codes
                got = lj.encode(jnp.asarray(x), fmt, nan="max", **how)
                assert same(got.codes, codes), how
                if not (is_logarithmic(fmt) and fmt.bits > 8) and name != "wide p3109":
                    wanted = outcome(lambda codes=codes: lowp.decode(codes, fmt, dtype=np.float32))
                    assert agree(outcome(lambda got=got: lj.decode(got)), wanted)

    @pytest.mark.parametrize("name", [*WIDE, *(slow(n) for n in ("dlfloat16", *UNNAMED) if n not in WIDE)])
    @pytest.mark.usefixtures("x64")
    def test_float64(self, name: str) -> None:
        fmt, x = format_of(name), numbers(name, np.float64, 600)
        for rounding, overflow, bits in some_calls(fmt, 2):
            how: dict[str, Any] = {"rounding": rounding, "overflow": overflow, "random_bits": bits, "seed": 5}
            assert same(lj.quantize(jnp.asarray(x), fmt, **how), lowp.quantize(x, fmt, **how))
            assert same(lj.encode(x, fmt, nan="zero", **how).codes, lowp.encode(x, fmt, nan="zero", **how).codes)

    @pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
    @pytest.mark.parametrize("name", ["float8_e4m3fn", slow("float8_e5m2"), slow("int4"), "nf4", slow("posit8_es2")])
    def test_all_numbers_of_16_bits(self, name: str, dtype: Any) -> None:
        x = np.arange(1 << 16, dtype=np.uint16).view(dtype)
        for how in ({}, {"rounding": "stochastic_a", "seed": 3}):
            wanted = outcome(lambda how=how: lowp.quantize(x, name, **how))
            assert agree(outcome(lambda how=how: lj.quantize(jnp.asarray(x), name, **how)), wanted)

    @pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int16, np.int32, np.uint32])
    def test_integers_are_exact(self, dtype: Any) -> None:
        info = np.iinfo(dtype)
        x = np.random.default_rng(0).integers(info.min, info.max, 200, dtype, endpoint=True)
        for name in ("float8_e5m2", "bfloat16", "int4"):
            got = lj.quantize(jnp.asarray(x), name, "toward_positive")
            assert got.dtype == jnp.float32
            assert np.array_equal(np.asarray(got, np.float64), lowp.quantize(x, name, "toward_positive"))
            assert same(lj.encode(x, name).codes, lowp.encode(x, name).codes)

    @pytest.mark.parametrize("dtype", [np.int64, np.uint64])
    @pytest.mark.usefixtures("x64")
    def test_integers_of_64_bits(self, dtype: Any) -> None:
        info = np.iinfo(dtype)
        start = [2**53 + 2**29, 2**54 - 2**30, 2**60 + 2**36, 2**62 - 2**38, 2**63 - 5, 12345]
        x = np.array([*(s + d for s in start for d in (-1, 0, 1, 2)), info.max, info.min], dtype)
        for name in ("float32", "bfloat16", "int8"):
            for rounding in ("ties_to_even", "toward_positive", "to_odd"):
                assert same(lj.quantize(x, name, rounding), lowp.quantize(x, name, rounding))
        with pytest.raises(lowp.RangeError, match=r"beyond 2\^53"):
            lj.quantize(x, "float64")

    def test_the_plain_verbs_take_jax_arrays(self) -> None:
        x = sample()
        for name in ("float8_e4m3fn", "mxfp4"):
            got = lowp.quantize(jnp.asarray(x), name, "stochastic", seed=2)
            assert isinstance(got, jax.Array)
            assert same(got, lowp.quantize(x, name, "stochastic", seed=2))
            encoded = lowp.encode(jnp.asarray(x), name)
            assert isinstance(encoded.codes, jax.Array)
            assert same(lowp.decode(encoded), lowp.decode(lowp.encode(x, name)))
        assert same(lowp.decode(jnp.arange(16, dtype=jnp.uint8), "fp4"), lowp.values("fp4").astype(np.float32))

    @pytest.mark.parametrize("shape", [(), (0,), (3, 0, 2), (1, 1)])
    def test_shapes(self, shape: tuple[int, ...]) -> None:
        x = np.full(shape, 0.3, np.float32)
        assert same(lj.quantize(jnp.asarray(x), "fp8", "stochastic"), lowp.quantize(x, "fp8", "stochastic"))
        assert lj.encode(jnp.asarray(x), "int4").codes.shape == shape


class TestTransformations:
    @pytest.mark.parametrize(
        ("name", "rounding"),
        [*((n, "stochastic_a") for n in FEW), (FEW[0], "ties_to_even"), *(slow(n, "ties_to_even") for n in FEW[1:])],
    )
    def test_control_flow_and_batches(self, name: str, rounding: str) -> None:
        x, lax = sample(), jax.lax
        whole = lowp.quantize(x, name, rounding, seed=4)
        rows = np.stack([lowp.quantize(row, name, rounding, seed=4) for row in x])

        def q(v: Any) -> Any:
            return lj.quantize(v, name, rounding, seed=4)

        assert same(jax.jit(q)(x), whole)
        assert same(jax.jit(jax.checkpoint(q))(x), whole)
        assert same(jax.jit(lambda v: lax.cond(v[0, 0] > -1e9, q, lambda u: u, v))(x), whole)
        assert same(lax.fori_loop(0, 1, lambda _, v: q(v), jnp.asarray(x)), whole)
        assert same(jax.jit(jax.vmap(q))(x), rows)
        assert same(lax.scan(lambda c, row: (c, q(row)), 0, jnp.asarray(x))[1], rows)
        assert same(jax.vmap(lambda v: lax.scan(lambda c, r: (c, q(r)), 0, v[None])[1][0])(x), rows)

    def test_a_traced_seed_needs_no_compilation_and_gives_the_same_bits(self) -> None:
        x, traces = sample(), []

        @jax.jit
        def rounded(v: Any, seed: Any) -> Any:
            traces.append(1)
            return lj.quantize(v, "fp8", "stochastic", seed=seed)

        for seed in (0, 7, 4_000_000_000):
            assert same(rounded(x, np.uint32(seed)), lowp.quantize(x, "fp8", "stochastic", seed=seed))
        assert len(traces) == 1
        assert same(
            lj.quantize(x, "fp8", "stochastic", seed=jnp.int32(7)), lowp.quantize(x, "fp8", "stochastic", seed=7)
        )

    def test_an_encoded_array_is_a_pytree(self) -> None:
        x = sample()
        encoded = jax.jit(lambda v: lj.encode(v, "mxfp4", axis=0))(x)
        wanted = lowp.encode(x, "mxfp4", axis=0)
        assert isinstance(encoded, lowp.rounding.Encoded)
        assert same(encoded.codes, wanted.codes)
        assert same(encoded.scales, wanted.scales)
        assert same(jax.jit(lj.decode)(encoded), lowp.decode(wanted))
        assert np.array_equal(encoded.pack(), wanted.pack())

    def test_no_float64_appears_in_the_results(self) -> None:
        assert jax.eval_shape(lambda v: lj.quantize(v, "posit32_es2"), sample()).dtype == np.float32

    def test_the_compiled_program_has_no_callback(self) -> None:
        for name in ("float8_e4m3fn", "nf4", "posit16_es1", "mxfp4"):
            text = jax.jit(lambda v, n=name: lj.quantize(v, n, "stochastic")).lower(sample()).as_text()
            assert "callback" not in text

    def test_devices_share_one_array(self) -> None:
        """Eight virtual devices: partitioned arrays and `shard_map` with `Shard`, in a process of its own."""
        script = Path(__file__).with_name("jax_devices.py")
        command = [sys.executable, "-W", "error", str(script)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stdout + done.stderr


class TestGradients:
    def test_straight_through_clipped_and_none(self) -> None:
        x = jnp.array([0.3, 500.0, -448.0, jnp.nan])

        def slope(gradient: str) -> list[float]:
            return jax.jit(jax.grad(lambda v: (2 * lj.quantize(v, "fp8", gradient=gradient)).sum()))(x).tolist()

        assert slope("straight_through") == [2, 2, 2, 2]
        assert slope("clipped") == slope("learned_scale") == [2, 0, 2, 0]
        assert slope("none") == [0, 0, 0, 0]

    @pytest.mark.parametrize("name", ["fp8", "nf4", "mxfp4"])
    def test_under_every_transformation(self, name: str) -> None:
        x, lax = jnp.asarray(sample()), jax.lax

        def total(v: Any) -> Any:
            return lj.quantize(v, name, gradient="clipped").sum()

        once = jax.jit(jax.vmap(jax.grad(total)))(x)
        assert np.array_equal(jax.jit(jax.vmap(jax.grad(jax.checkpoint(total))))(x), once)
        scanned = jax.jit(jax.grad(lambda v: lax.scan(lambda c, row: (c + total(row), None), 0.0, v)[0]))(x)
        assert np.array_equal(scanned, once)
        tangent = jax.jit(lambda v: jax.jvp(lambda u: lj.quantize(u, name), (v,), (v * 3,))[1])(x)
        assert np.array_equal(tangent, x * 3)
        second = jax.jit(jax.hessian(lambda v: (lj.quantize(v, name) ** 2).sum() / 2))(x[0, :4])
        assert np.array_equal(second, np.eye(4))

    def test_a_rule_of_ones_own(self) -> None:
        lj.register_gradient("test_jax_sign", lambda x, y, g: g * (x > 0) + y)
        x = jnp.array([-1.0, 3.3])
        for wrap in (lambda f: f, jax.jit, jax.checkpoint):
            found = wrap(jax.grad(lambda v: lj.quantize(v, "fp4", gradient="test_jax_sign").sum()))(x)
            assert found.tolist() == [-1, 4]
        assert "test_jax_sign" in lj.GRADIENTS
        with pytest.raises(lowp.ArgumentError, match="built-in rule"):
            lj.register_gradient("clipped", lambda x, y, g: g)
        with pytest.raises(lowp.ArgumentTypeError, match="must be a function"):
            lj.register_gradient("nothing", None)  # type: ignore[arg-type]
        with pytest.raises(lowp.ArgumentError, match=r"gradient='cliped'.*'clipped'"):
            lj.quantize(x, "fp4", gradient="cliped")

    def test_learned_scale(self) -> None:
        x = np.array([[0.3, -0.8, 9.0, -30.0], [0.04, 0.06, -0.02, 0.1]], np.float32)
        scale = np.array([[0.5], [0.02]], np.float32)
        v = x / scale
        q = np.clip(np.round(v), -8, 7)
        assert np.array_equal(lj.lsq_quantize(x, scale, "int4"), q * scale)
        gx, gs = jax.jit(jax.grad(lambda x, s: lj.lsq_quantize(x, s, "int4").sum(), argnums=(0, 1)))(x, scale)
        inside = (v > -8) & (v < 7)
        assert np.array_equal(gx, inside)
        slope = np.where(inside, q - v, np.where(v < 0, -8, 7)).sum(1, keepdims=True) / np.sqrt(4 * 7)
        assert np.allclose(gs, slope, rtol=1e-5)
        with pytest.raises(lowp.ArgumentError, match="must be positive"):
            lj.lsq_quantize(x, 0.0, "int4")
        with pytest.raises(lowp.ArgumentError, match="does not broadcast"):
            lj.lsq_quantize(x, jnp.ones(3), "int4")
        with pytest.raises(lowp.FormatError, match="needs a scalar format"):
            lj.lsq_quantize(x, 1.0, "mxfp4")


class TestSaidClearly:
    def test_float64_without_x64(self) -> None:
        for x in (np.array([0.1]), 0.1, [0.1, 0.2]):
            with pytest.raises(lowp.ArgumentError, match=r"float64.*jax_enable_x64"):
                lj.quantize(x, "fp8")
        with pytest.raises(lowp.ArgumentError, match=r"64-bit integers.*jax_enable_x64"):
            lj.quantize(np.array([1 << 40]), "fp8")
        assert lj.quantize(np.array([3, 5]), "fp8").tolist() == [3, 5]
        with pytest.raises(lowp.ArgumentError, match=r"float64.*jax_enable_x64"):
            lj.decode(jnp.arange(3), "fp8", dtype="float64")
        with pytest.raises(lowp.ArgumentError, match=r"codes of 64 bits.*jax_enable_x64"):
            lj.encode(jnp.ones(3), "posit64_es2")

    def test_a_value_without_room(self) -> None:
        x = jnp.array([3e9], jnp.float32)
        with pytest.raises(lowp.RangeError, match="does not fit dtype float32"):
            lj.quantize(x, "int32")
        with pytest.raises(lowp.ArgumentError, match=r"2147483647.*jax_enable_x64"):
            jax.jit(lambda v: lj.quantize(v, "int32"))(x)
        assert lj.quantize(jnp.array([7.5]), "int32").tolist() == [8]
        top = jnp.array([3.4e38, 1.0], jnp.float32)
        with pytest.raises(lowp.RangeError, match="does not fit dtype float32"):
            lj.quantize(top, "takum16_linear")
        assert np.isnan(jax.jit(lambda v: lj.quantize(v, "takum16_linear"))(top)).tolist() == [True, False]
        with pytest.raises(lowp.RangeError, match="does not fit dtype float32"):
            lj.decode(jnp.array([(1 << 31) - 1], jnp.uint32), "int32")

    def test_nan(self) -> None:
        x = jnp.array([jnp.nan, 2.0])
        with pytest.raises(lowp.RangeError, match="x holds NaN"):
            lj.encode(x, "int4")
        with pytest.raises(lowp.RangeError, match="x holds NaN"):
            lj.quantize(x, "int4", nan="error")
        assert lj.quantize(x, "int4", nan="max").tolist() == [7, 2]
        assert jax.jit(lambda v: lj.encode(v, "int4").codes)(x).tolist() == [0, 2]
        with pytest.raises(lowp.ArgumentError, match="nan='error' cannot be while JAX traces"):
            jax.jit(lambda v: lj.quantize(v, "int4", nan="error"))(x)
        for _ in range(2):  # from the cache of compiled functions, too
            with pytest.raises(lowp.RangeError, match="x holds NaN"):
                lj.encode(x, "int4")

    def test_numbers_that_are_no_codes(self) -> None:
        codes = jnp.array([3, 16, -1])
        with pytest.raises(lowp.RangeError, match="has codes 0 to 15"):
            lj.decode(codes, "int4")
        assert np.isnan(jax.jit(lambda c: lj.decode(c, "int4"))(codes)).tolist() == [False, True, True]

    def test_arguments(self) -> None:
        x = jnp.ones((2, 3))
        with pytest.raises(lowp.ArgumentTypeError, match="dtype bool"):
            lj.quantize(x > 0, "fp8")
        with pytest.raises(lowp.ArgumentTypeError, match="dtype complex64"):
            lj.quantize(x * 1j, "fp8")
        with pytest.raises(lowp.ArgumentTypeError, match="dtype float8_e5m2"):
            lj.quantize(x.astype(jnp.float8_e5m2), "fp8")
        with pytest.raises(lowp.ArgumentError, match="seed=-1"):
            lj.quantize(x, "fp8", seed=-1)
        with pytest.raises(lowp.ArgumentError, match="seed=-1"):
            lj.quantize(x, "fp8", seed=jnp.int32(-1))
        with pytest.raises(lowp.ArgumentTypeError, match="one integer"):
            lj.quantize(x, "fp8", seed=jnp.ones(2))
        with pytest.raises(lowp.ArgumentError, match="axis=2"):
            lj.quantize(x, "fp8", axis=2)
        with pytest.raises(lowp.ArgumentError, match="does not hold an array of shape"):
            lj.quantize(x, "fp8", shard=lj.Shard((0, 0), (2, 2)))
        with pytest.raises(lowp.ArgumentTypeError, match="Shard"):
            lj.quantize(x, "fp8", shard=3)  # type: ignore[arg-type]
        with pytest.raises(lowp.ArgumentError, match="one number of 0 or more for each dimension"):
            lj.Shard((0,), (2, 2))
        with pytest.raises(lowp.ArgumentError, match="out is for arrays that can be written"):
            lowp.quantize(x, "fp8", out=x)
        with pytest.raises(lowp.ArgumentError, match="fmt is missing"):
            lj.decode(jnp.arange(3))


def test_every_named_scalar_format_is_tested() -> None:
    scalars = {n for n in lowp.formats.names() if isinstance(lowp.parse(n), ScalarFormat)}
    assert scalars - set(NAMES) == {"takum32_log", "takum64_log"}
