"""Rows of a weight that are looked up by indexing are an embedding, as `torch.nn.functional.embedding` has it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402
from torch.nn import functional  # noqa: E402

import lowp.torch as lt  # noqa: E402
from lowp import Cast, Recipe  # noqa: E402
from lowp._errors import ArgumentError  # noqa: E402

RECIPE = Recipe(weight="mxfp4", gradient="mxfp8", operations=("linear", "embedding"))
IDS = torch.tensor([[3, 1, 4], [1, 5, 9]])


class Table(nn.Module):
    def __init__(self, read: Callable[[Any, Any], Any]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.tokens, self.read = nn.Embedding(10, 40), read

    def forward(self, ids: Any) -> Any:
        return self.read(self.tokens.weight, ids)


def run(read: Any, recipe: Any = RECIPE, ids: Any = IDS, **options: Any) -> Any:
    model = Table(read)
    with lt.emulate(recipe, **options) as emulation:
        y = model(ids)
        torch.manual_seed(1)
        y.backward(torch.randn_like(y))
    return y.detach(), model.tokens.weight.grad, emulation.report


LOOKUPS = {
    "brackets": lambda w, i: w[i],
    "a tuple": lambda w, i: w[i, :],
    "dots": lambda w, i: w[i, ...],
    "from the end": lambda w, i: w[i - 10],
    "int32": lambda w, i: w[i.int()],
    "index_select": lambda w, i: torch.index_select(w, 0, i.flatten()).reshape(2, 3, 40),
    "index_select by names": lambda w, i: w.index_select(index=i.flatten(), dim=-2).reshape(2, 3, 40),
}


@pytest.mark.parametrize("read", LOOKUPS.values(), ids=LOOKUPS.keys())
@pytest.mark.parametrize("fmt", ["mxfp4", {"format": "fp4", "gradient": "clipped"}], ids=["mxfp4", "clipped"])
def test_a_lookup_is_an_embedding(read: Any, fmt: Any) -> None:
    recipe = RECIPE.replace(weight=fmt)
    wanted = run(lambda w, i: functional.embedding(i, w), recipe)
    found = run(read, recipe)
    assert torch.equal(found[0], wanted[0])
    assert torch.equal(found[1], wanted[1])
    assert found[2].to_dict() == wanted[2].to_dict()
    assert found[2].find(layer="tokens", operation="embedding", role="weight")
    assert not torch.equal(found[0], Table(read)(IDS))


def test_one_row() -> None:
    y, _, report = run(lambda w, i: w[i[0, 0]])
    assert torch.equal(y, lt.quantize(Table(None).tokens.weight.detach()[3], "mxfp4"))
    assert not report.remarks


OTHERS = {
    "weight[...]: a mask": lambda w, i: w[(i > 3).flatten()[:1].expand(10)],
    "weight[...]: two axes": lambda w, i: w[i, i],
    "weight[...]: columns": lambda w, i: w[:, i],
    "index_select: columns": lambda w, i: torch.index_select(w, 1, i.flatten()),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_numbers_that_data_picks_from_a_weight_are_a_remark(name: str) -> None:
    what = name.split(":", maxsplit=1)[0]
    _, _, report = run(OTHERS[name])
    why = "only rows of a matrix that one tensor of integers picks are an embedding"
    text = f"layer '', {what}: not emulated, because {why}"
    assert report.remarks == [text]
    with pytest.raises(ArgumentError, match="strict=True"):
        run(OTHERS[name], strict=True)
    _, _, report = run(OTHERS[name], RECIPE.replace(operations=("linear",)))
    assert not report.remarks


def test_what_is_no_lookup_stays() -> None:
    w, x = nn.Parameter(torch.randn(10, 32)), torch.randn(10, 32, requires_grad=True)
    with lt.emulate(RECIPE) as emulation:
        found = [w[2], w[1:4], w[None], w[[1, 2]], x[IDS], torch.index_select(x, 0, IDS[0])]
    assert not emulation.report.rows
    assert not emulation.report.remarks
    for one, other in zip(found, [w[2], w[1:4], w[None], w[[1, 2]], x[IDS], x[IDS[0]]], strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("verb", ["embedding", "index"])
def test_ranks_look_up_the_rows_that_one_process_does(verb: str) -> None:
    """Rows of a batch by their places in it, rows of positions alike; which of the two is unclear is said."""
    cast = Cast("mxfp4", rounding="stochastic_a")
    recipe = Recipe(weight=cast, gradient=cast, operations=("embedding",))
    torch.manual_seed(0)
    table, ids = nn.Parameter(torch.randn(96, 32)), torch.arange(96).reshape(8, 12)
    g = torch.randn(8, 12, 32)

    def look_up(i: Any) -> Any:
        return torch.nn.functional.embedding(i, table) if verb == "embedding" else table[i]

    def run(i: Any, g: Any, **options: Any) -> Any:
        table.grad = None
        with lt.emulate(recipe, **options) as emulation:
            rows = look_up(i)
            rows.backward(g)
        assert table.grad is not None
        return rows.detach(), table.grad, emulation.report.remarks

    rows, gradient, _ = run(ids, g)
    for rank in range(2):
        part, own = slice(4 * rank, 4 * rank + 4), slice(48 * rank, 48 * rank + 48)
        found, grad, remarks = run(ids[part], g[part], shard=(rank, 2))
        assert torch.equal(found, rows[part])
        assert torch.equal(grad[own], gradient[own])
        assert not remarks
        same, _, remarks = run(ids[0], g[0], shard=(rank, 2))
        assert torch.equal(same, run(ids[0], g[0])[0])
        assert any("rows of shape (12, 32) were rounded as rows that all ranks look up alike" in r for r in remarks)
