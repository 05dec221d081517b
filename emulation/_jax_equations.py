"""Questions that the equation of a jaxpr answers alone."""

from __future__ import annotations

from typing import Any

from jax.extend import core

from lowp.emulation import _jax_origins as origins
from lowp.emulation._jax_origins import Origin
from lowp.emulation._jax_sites import Site
from lowp.emulation.casts import Cast
from lowp.formats import ScalarFormat, parse

#: Primitives that run a jaxpr once, and the parameter that holds it.
CALLS = {
    "jit": "jaxpr",
    "pjit": "jaxpr",
    "closed_call": "call_jaxpr",
    "core_call": "call_jaxpr",
    "checkpoint": "jaxpr",
    "remat2": "jaxpr",
    "custom_jvp_call": "call_jaxpr",
    "custom_vjp_call": "call_jaxpr",
    "shard_map": "jaxpr",
}
#: Primitives that compute products of their own, and what they are.
LEFT_ALONE = {
    "ragged_dot": "matrix product of ragged groups",
    "ragged_dot_general": "matrix product of ragged groups",
    "pallas_call": "Pallas kernel",
    "custom_call": "foreign function",
    "ffi_call": "foreign function",
    "pure_callback": "host callback",
    "io_callback": "host callback",
    "scaled_matmul_wrapper": "scaled matrix product",
    "dot_product_attention_fwd_wrapper": "attention kernel",
    "dot_product_attention_bwd_wrapper": "attention kernel",
}
PRODUCTS = {"dot_general": "matrix product", "conv_general_dilated": "convolution"}


def is_float(aval: Any) -> bool:
    """Whether an abstract value is of a float dtype that can be emulated."""
    return str(aval.dtype) in ("float16", "bfloat16", "float32", "float64")


def is_inexact(aval: Any) -> bool:
    """Whether an abstract value is of any floating dtype, complex ones too."""
    return hasattr(aval, "dtype") and (is_float(aval) or str(aval.dtype).startswith("complex"))


def is_lookup(eqn: Any, inputs: list[Origin]) -> bool:
    """Whether an equation looks rows up in a weight."""
    table = eqn.invars[0].aval
    lookup = origins.is_embedding(table, eqn.params["dimension_numbers"], eqn.params["slice_sizes"])
    return inputs[0].kind == "weight" and lookup and is_float(table)


def is_row(eqn: Any, inputs: list[Origin]) -> bool:
    """Whether an equation takes one row of a weight, at a place that depends on data."""
    if eqn.primitive.name != "dynamic_slice" or inputs[0].kind != "weight" or eqn.invars[0].aval.ndim != 2:
        return False
    row = tuple(eqn.params["slice_sizes"]) == (1, eqn.invars[0].aval.shape[1])
    return row and any(origin.kind == "activation" for origin in inputs[1:])


def gradient_roles(kinds: list[str], primitive: str) -> tuple[str, ...]:
    """Return the roles of a product without weights: one operand is a gradient, also where that cannot be seen.

    JAX's rules for transposes hand the gradient over first, but for the kernel of a convolution.
    """
    if "gradient" not in kinds:
        return ("gradient", "activation") if primitive == "dot_general" else ("activation", "gradient")
    return tuple("gradient" if kind == "gradient" else "activation" for kind in kinds)


def is_repeatable(cast: Cast, forward: Site | None, role: str) -> bool:
    """Whether rounding an operand again, in another layout, gives what the forward pass has made of it."""
    if forward is None or cast.requantize:
        return False
    first = forward.cast(role, "forward")
    scalar = not first.format or isinstance(parse(first.format), ScalarFormat)
    return scalar and not (first.hadamard or first.stochastic or first.method != "round")


def split_axes(eqn: Any, inputs: list[Origin]) -> tuple[str, ...]:
    """Return the mesh axes over which a shard_map splits the first axis of its data."""
    for origin, spec in zip(inputs, eqn.params["in_specs"], strict=True):
        parts = tuple(spec) if spec is not None else ()
        if origin.kind in ("activation", "gradient") and parts and parts[0]:
            return (parts[0],) if isinstance(parts[0], str) else tuple(parts[0])
    return ()


def has_product(jaxpr: Any) -> bool:
    """Whether a jaxpr holds a product, at any depth."""
    plain = jaxpr.jaxpr if hasattr(jaxpr, "jaxpr") else jaxpr
    return any(
        eqn.primitive.name in PRODUCTS or any(has_product(j) for j in core.jaxprs_in_params(eqn.params))
        for eqn in plain.eqns
    )
