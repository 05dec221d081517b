"""Operands of the products of one linear layer, as a named recipe casts them."""

import numpy as np

from lowp import Recipe
from lowp.emulation._numpy_world import NUMPY
from lowp.emulation.casting import Rounded, round_operand
from lowp.emulation.casts import Cast

RNG = np.random.default_rng(7)
TOKENS, INPUTS, OUTPUTS = 128, 256, 384
X = (RNG.standard_normal((TOKENS, INPUTS)) * np.exp(RNG.standard_normal(INPUTS))).astype(np.float32)
W = (RNG.standard_normal((OUTPUTS, INPUTS)) * 0.02).astype(np.float32)
G = (RNG.standard_normal((TOKENS, OUTPUTS)) * 1e-4).astype(np.float32)
#: Operand of a role, and the axis that each product sums over: inputs, outputs, tokens.
TENSORS = {"activation": X, "weight": W, "gradient": G}
AXES = {
    ("forward", "activation"): 1, ("forward", "weight"): 1, ("grad_input", "gradient"): 1, ("grad_input", "weight"): 0,
    ("grad_weight", "gradient"): 0, ("grad_weight", "activation"): 0,
}  # fmt: skip
SIX = list(AXES)


def cast_of(recipe: str, product: str, role: str) -> Cast:
    return Recipe.named(recipe).cast(role, product, "blocks.0.fc")


def operand(recipe: str, product: str, role: str, seed: int = 5, **options) -> Rounded:
    """Return what a recipe makes of an operand, its contraction axis last."""
    axis = AXES[product, role]
    cast = cast_of(recipe, product, role)
    r = round_operand(NUMPY, TENSORS[role], cast, axis=axis, outer=1 - axis, seed=seed, sign_seed=9, **options)
    turn = (lambda a: None if a is None else a.T) if axis == 0 else (lambda a: a)
    return Rounded(turn(r.values), turn(r.mask), r.amax)


def source(product: str, role: str) -> np.ndarray:
    """Return the operand in high precision, its contraction axis last."""
    return np.ascontiguousarray(TENSORS[role].T if AXES[product, role] == 0 else TENSORS[role])


def same_bits(got: np.ndarray, wanted: np.ndarray) -> None:
    assert got.dtype == np.float32
    np.testing.assert_array_equal(np.ascontiguousarray(got).view(np.uint32), wanted.astype(np.float32).view(np.uint32))


def reused(recipe: str, product: str, role: str, requantize: bool = False) -> bool:
    cast = cast_of(recipe, product, role)
    return cast.reuse and cast.requantize is requantize
