"""Every format by name in compiled JAX programs, to the bits of NumPy; and packed formats outside of them."""

from typing import Any

import numpy as np
import pytest

import lowp
from lowp.formats import Block, Packed
from lowp.formats.logarithms import is_logarithmic
from lowp.formats.spec import ScalarFormat
from tests.covering import covering
from tests.rounding.test_portable_blocks import numbers
from tests.rounding.test_portable_packed import ALIKE, modes
from tests.rounding.test_portable_ternary import SHAPES

jax = pytest.importorskip("jax")
jnp = jax.numpy
import lowp.jax as lj  # noqa: E402 - after the check that it is there
from lowp.rounding import _jax_host  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::lowp.PrecisionWarning")

NAMES = lowp.formats.names()
PACKED = [name for name in NAMES if isinstance(lowp.parse(name), Packed)]


def traits(name: str) -> set[Any]:
    """What decides which code a format runs; `test_jax.py` and `test_portable_blocks.py` compile other formats."""
    fmt = lowp.parse(name)
    if isinstance(fmt, ScalarFormat):
        return {(type(fmt), is_wide(name), is_logarithmic(fmt))}
    if isinstance(fmt, Block):
        return {(fmt.zero_point, fmt.tensor_scale is None)}
    return {ALIKE if name in ALIKE else fmt.scheme}


def is_wide(name: str) -> bool:
    """Whether a format has values that float32 does not hold."""
    fmt = lowp.parse(name)
    return isinstance(fmt, ScalarFormat) and fmt.bits > 16


def sample(name: str) -> np.ndarray:
    """Numbers spread out, tied and tiny; bfloat16 ones where a format stores nothing else."""
    if isinstance(lowp.parse(name), ScalarFormat):
        x = np.random.default_rng(0).standard_normal((3, 40)) * np.exp2(np.arange(-60, 60).reshape(3, 40) / 3)
    else:
        shape = SHAPES.get(name, (3, 150))
        x = np.concatenate([numbers(kind, shape, np.float32) for kind in ("spread", "small", "ties")])
    if name.startswith("dfloat11"):
        return lowp.quantize(x.astype(np.float32), "bfloat16")
    return x.astype(np.float64 if is_wide(name) else np.float32)


def same(got: Any, wanted: Any) -> bool:
    """Whether two arrays have the same dtype and bits, NaN aside."""
    got, wanted = np.asarray(got), np.asarray(wanted)
    if got.dtype != wanted.dtype or got.shape != wanted.shape:
        return False
    nan = np.isnan(wanted)
    return np.array_equal(np.isnan(got), nan) and got[~nan].tobytes() == wanted[~nan].tobytes()


def program(x: Any, name: str, rounding: str) -> tuple[Any, Any, Any]:
    encoded = lj.encode(x, name, rounding, seed=5, nan="zero")
    return lj.quantize(x, name, rounding, seed=5), encoded, lj.decode(encoded)


def check(name: str, rounding: str = "ties_to_even") -> None:
    x = sample(name)
    compiled = jax.jit(lambda v: program(v, name, rounding))
    with jax.enable_x64(is_wide(name)):
        given = jnp.asarray(x)
        assert "callback" not in compiled.lower(given).as_text()
        values, encoded, decoded = compiled(given)
    wanted = lowp.encode(x, name, rounding, seed=5, nan="zero")
    assert same(values, lowp.quantize(x, name, rounding, seed=5))
    assert encoded.pack().tobytes() == wanted.pack().tobytes()
    assert same(decoded, lowp.decode(wanted))


@pytest.mark.parametrize("name", covering(NAMES, traits))
def test_compiled(name: str) -> None:
    check(name)


def rounded_at_random(name: str) -> bool:
    fmt = lowp.parse(name)
    return is_logarithmic(fmt) or (isinstance(fmt, Packed) and len(modes(fmt)) > 1)


@pytest.mark.parametrize("name", covering([n for n in NAMES if rounded_at_random(n)], traits))
def test_compiled_with_random_bits(name: str) -> None:
    check(name, "stochastic_b")


@pytest.mark.parametrize("name", ["bnb_nf4", "hif4", "qrazor_w4", "lns16_f8"])
def test_under_transformations(name: str) -> None:
    x = np.random.default_rng(1).standard_normal((3, 2, 64)).astype(np.float32)
    given = jnp.asarray(x)
    wanted = np.stack([lowp.quantize(row, name) for row in x])
    assert same(jax.vmap(lambda v: lj.quantize(v, name))(given), wanted)
    assert same(jax.jit(jax.vmap(lambda v: lj.decode(lj.encode(v, name))))(given), wanted)
    slope = jax.grad(lambda v: (lj.quantize(v, name) ** 2).sum() / 2)(given)
    assert same(slope, lowp.quantize(x, name))
    tangent = jax.jvp(lambda v: lj.quantize(v, name), (given,), (3 * given,))[1]
    assert same(tangent, 3 * x)


class TestPackedOutsidePrograms:
    """NumPy rounds them, where JAX would have to compile first."""

    @pytest.mark.parametrize("name", covering(PACKED, traits))
    def test_bits_of_numpy(self, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        from lowp.rounding import _jax, _jax_decode

        for module in (_jax, _jax_decode):
            monkeypatch.setattr(module, "run", None)
        x = sample(name)
        values, encoded, decoded = program(jnp.asarray(x), name, "ties_to_even")
        wanted = lowp.encode(x, name, seed=5, nan="zero")
        assert all(isinstance(a, jax.Array) for a in jax.tree.leaves((values, encoded, decoded)))
        assert same(values, lowp.quantize(x, name, seed=5))
        assert encoded.pack().tobytes() == wanted.pack().tobytes()
        assert same(decoded, lowp.decode(wanted))

    @pytest.mark.parametrize("dtype", ["bfloat16", "float16", "int32"])
    @pytest.mark.parametrize("name", ["hif4", "ggml_q8_0"])
    def test_other_dtypes_as_when_compiled(self, name: str, dtype: str) -> None:
        x = jnp.asarray(np.random.default_rng(0).integers(-99, 99, (2, 64))).astype(dtype)
        here, there = program(x, name, "ties_to_even"), jax.jit(lambda v: program(v, name, "ties_to_even"))(x)
        assert jax.tree.structure(here) == jax.tree.structure(there)
        for a, b in zip(jax.tree.leaves(here), jax.tree.leaves(there), strict=True):
            assert a.dtype == b.dtype
            assert np.array_equal(np.asarray(a, np.float64), np.asarray(b, np.float64))
        assert here[0].dtype == ("float32" if dtype == "int32" else dtype)

    def test_what_numpy_does_not_round(self) -> None:
        x, fmt = jnp.ones(32), lowp.parse("bnb_nf4")
        assert _jax_host.numpy_is_quicker(fmt, x, 3)
        assert not _jax_host.numpy_is_quicker(lowp.parse("mxfp4"), x)
        seen = []
        jax.jit(lambda v: seen.append(_jax_host.numpy_is_quicker(fmt, 1.0, v)) or v)(x)
        assert seen == [False]

    def test_gradients_that_are_not_defined(self) -> None:
        with pytest.raises(lowp.ArgumentError, match="gradient='clipped' is not defined for 'ggml_q4_k'"):
            lj.quantize(jnp.ones(32), "ggml_q4_k", gradient="clipped")


def test_constant_arrays_compile_without_complaint(capfd: pytest.CaptureFixture[str]) -> None:
    """XLA's simplifier moves constants through the code; where that takes it long it says that it is stuck."""
    jax.jit(lambda: lj.quantize(jnp.zeros((4, 32)), "muonq4_tensor")).lower().compile()
    assert "simplif" not in capfd.readouterr().err
