"""Packed formats without array code: concrete JAX arrays are rounded by NumPy, traced ones are refused by name."""

import numpy as np
import pytest

import lowp

jax = pytest.importorskip("jax")
jnp = jax.numpy
import lowp.jax as lj  # noqa: E402
from lowp.formats import Packed  # noqa: E402
from lowp.rounding._portable_packed import NATIVE  # noqa: E402

NAMES = [n for n in lowp.formats.names() if isinstance(lowp.parse(n), Packed) and lowp.parse(n).scheme not in NATIVE]
KINDS = list({lowp.parse(n).scheme: n for n in NAMES}.values())
ROWS = np.random.default_rng(0).standard_normal((4, 1024)).astype(np.float32)


@pytest.mark.parametrize("name", KINDS)
def test_concrete_arrays_get_the_bits_of_numpy(name: str) -> None:
    if name.startswith("dfloat11"):
        x = lowp.quantize(ROWS, "bfloat16")
    elif name.startswith(("bitnet", "twn", "sherry")):
        x = np.sign(ROWS)
    else:
        x = ROWS
    wanted = lowp.quantize(x, name)
    got = lj.quantize(jnp.asarray(x), name)
    assert isinstance(got, jax.Array)
    assert np.array_equal(np.asarray(got).view(np.int32), wanted.view(np.int32))
    encoded = lj.encode(jnp.asarray(x), name)
    assert encoded.pack().tobytes() == lowp.encode(x, name).pack().tobytes()
    assert np.array_equal(
        np.asarray(lj.decode(encoded)).view(np.int32), lowp.decode(lowp.encode(x, name)).view(np.int32)
    )


@pytest.mark.parametrize(
    ("name", "rounding"), [("takum32_log", "rne"), ("lns16_f7", "stochastic"), ("lns8_f3", "stochastic")]
)
def test_logarithmic_formats_on_concrete_arrays(name: str, rounding: str) -> None:
    x = ROWS[:1, :64]
    got = lj.quantize(jnp.asarray(x), name, rounding, seed=5)
    assert np.array_equal(np.asarray(got).view(np.int32), lowp.quantize(x, name, rounding, seed=5).view(np.int32))
    codes = lj.encode(jnp.asarray(x), name, rounding, seed=5).codes
    assert np.array_equal(np.asarray(codes), lowp.encode(x, name, rounding, seed=5).codes)


def test_bfloat16_arrays() -> None:
    x = jnp.asarray(ROWS, jnp.bfloat16)
    got = lj.quantize(x, "ggml_q4_k")
    assert got.dtype == jnp.bfloat16
    wide = lowp.quantize(np.asarray(x, np.float32), "ggml_q4_k")
    assert np.array_equal(np.asarray(got, np.float32), np.asarray(jnp.asarray(wide).astype(jnp.bfloat16), np.float32))


def test_traced_arrays_are_refused_by_name() -> None:
    with pytest.raises(lowp.ArgumentError, match=r"ggml_q4_k.*callback=True"):
        jax.jit(lambda v: lj.quantize(v, "ggml_q4_k"))(jnp.asarray(ROWS))
