"""Every named recipe on a linear layer of torch: the same bits as its six operands on NumPy, put together by hand."""

from typing import Any

import numpy as np
import pytest

from lowp import Recipe
from lowp.emulation._numpy_world import NUMPY
from lowp.emulation.casting import Rounded, rotate_back, round_operand
from lowp.emulation.seeds import sign_seed, site_seed

torch = pytest.importorskip("torch")

from lowp.torch import emulate  # noqa: E402
from tests.emulation.recipe_operands import G, W, X  # noqa: E402

LAYER = "blocks.0.fc"
TENSORS = {"activation": X, "weight": W, "gradient": G}
#: Product -> the roles of its operands, and the axis of each that the product sums over.
OPERANDS = {
    "forward": (("activation", 1), ("weight", 1)),
    "grad_input": (("gradient", 1), ("weight", 0)),
    "grad_weight": (("gradient", 0), ("activation", 0)),
}


def operands(recipe: Recipe, product: str, forward: dict[str, Rounded], call: int) -> dict[str, Rounded]:
    found = {}
    for role, axis in OPERANDS[product]:
        cast = recipe.cast(role, product, LAYER)
        found[role] = round_operand(
            NUMPY,
            TENSORS[role],
            cast,
            axis=axis,
            outer=1 - axis,
            seed=site_seed(recipe.seed, LAYER, "linear", call, product, role),
            sign_seed=sign_seed(recipe.seed, LAYER, "linear", call, product, cast.signs) if cast.hadamard else None,
            forward=forward.get(role),
        )
    return found


def product(left: Any, right: Any, group: int) -> Any:
    step = group or left.shape[1]
    total = left[:, :step] @ right[:step]
    for k in range(step, left.shape[1], step):
        total = total + left[:, k : k + step] @ right[k : k + step]
    return total.numpy()


def gradient(recipe: Recipe, name: str, forward: dict[str, Rounded], call: int) -> Any:
    """Return a gradient, where need be taken out of the basis of the forward pass."""
    own, other = ("activation", "weight") if name == "grad_input" else ("weight", "activation")
    found = operands(recipe, name, forward, call)
    g, x = (torch.from_numpy(found[role].values) for role in ("gradient", other))
    y = product(g if name == "grad_input" else g.T, x, recipe.cast("accumulator", name, LAYER).group)
    if forward[own].mask is not None:
        y = y * forward[own].mask
    cast = recipe.cast(own, "forward", LAYER)
    if recipe.cast(other, name, LAYER).reuse and cast.hadamard:
        signs = sign_seed(recipe.seed, LAYER, "linear", call, "forward", cast.signs)
        y = rotate_back(NUMPY, y, cast, 1, signs)
    return y


class Net(torch.nn.Module):
    """A model whose layer has the name that the operands are cast for."""

    def __init__(self) -> None:
        super().__init__()
        block = torch.nn.Sequential()
        block.fc = torch.nn.Linear(W.shape[1], W.shape[0], bias=False)
        self.blocks = torch.nn.Sequential(block)

    def forward(self, x: Any) -> Any:
        return self.blocks(x)


@pytest.mark.filterwarnings("ignore::lowp.PrecisionWarning")  # of a recipe that is biased as published
@pytest.mark.parametrize("name", [n for n in Recipe.names() if not Recipe.named(n).cast("accumulator").unit])
def test_a_linear_layer_under_a_named_recipe(name: str) -> None:
    recipe = Recipe.named(name)
    net = Net()
    layer = net.blocks[0].fc
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(W))
    with emulate(recipe) as run:
        for call in range(2):
            x = torch.from_numpy(X).requires_grad_()
            y = net(x)
            layer.weight.grad = None
            y.backward(torch.from_numpy(G))
            delayed = recipe.cast("activation", "forward", LAYER).scaling == "delayed"
            if call and delayed:
                continue  # the second scale follows the first amax; test_torch_emulate_state computes those
            forward = operands(recipe, "forward", {}, call)
            group = recipe.cast("accumulator", "forward", LAYER).group
            values = [torch.from_numpy(forward[role].values) for role in ("activation", "weight")]
            wanted = product(values[0], values[1].T, group)
            output = recipe.cast("output", "forward", LAYER)
            assert not output, "no named recipe rounds its outputs"
            assert np.array_equal(y.detach().numpy().view(np.int32), wanted.view(np.int32))
            for got, which in ((x.grad, "grad_input"), (layer.weight.grad, "grad_weight")):
                wanted = gradient(recipe, which, forward, call)
                assert np.array_equal(got.numpy(), wanted), (which, call)
    assert not run.report.remarks
