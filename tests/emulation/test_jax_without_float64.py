"""Emulated JAX programs where JAX has no float64: what is lost is said."""

from __future__ import annotations

import numpy as np
import pytest

jax = pytest.importorskip("jax")
import jax.numpy as jnp  # noqa: E402

import lowp  # noqa: E402
import lowp.jax as lj  # noqa: E402

ROUNDED = "arguments hold float64 numbers that JAX rounds to float32 without jax_enable_x64"


@pytest.fixture(autouse=True)
def narrow() -> object:
    with jax.enable_x64(False):
        yield


@pytest.mark.parametrize("where", ["weight", "activation"])
def test_float64_arguments_are_remarked_and_warned_of_once(where: str) -> None:
    low = lj.emulate(lambda params, x: x @ params["fc"]["w"], "mxfp8")
    w, x = np.full((32, 4), 0.1), np.full((2, 32), 0.1)
    given = (
        ({"fc": {"w": w}}, jnp.asarray(x, np.float32)) if where == "weight" else ({"fc": {"w": jnp.ones((32, 4))}}, x)
    )
    with pytest.warns(lowp.PrecisionWarning, match=f"^{ROUNDED}; set it, or convert them"):
        low(*given)
    assert low.report.remarks == [ROUNDED]
    low(*given)  # warns no more, but says it
    assert low.report.remarks == [ROUNDED]


def test_float64_arguments_that_float32_holds_pass() -> None:
    low = lj.emulate(lambda params, x: x @ params["fc"]["w"], "mxfp8")
    low({"fc": {"w": np.ones((32, 4))}}, np.full((2, 32), np.nan))
    assert ROUNDED not in low.report.remarks


@pytest.mark.parametrize(
    ("fmt", "bits"), [("posit32", 28), ("posit16", 12), ("int16", 16), ("bfloat16", 0), ("float32", 0)]
)
def test_formats_that_float32_rounds_twice_are_remarked(fmt: str, bits: int) -> None:
    low = lj.every_operation(lambda x: x * x, fmt)
    low(jnp.float32([0.5]))
    assert [f"keeps up to {bits} bits" in remark for remark in low.report.remarks] == [True] * bool(bits)
    with jax.enable_x64(True):
        low(jnp.float64([0.1]))
    assert low.report.remarks == []
