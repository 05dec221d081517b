"""`torch.einsum` as emulated products, two operands at a time."""

from __future__ import annotations

import string
from typing import TYPE_CHECKING, Any

import torch

from lowp.emulation._torch_attention import opened
from lowp.emulation._torch_matmul import HANDLERS, PASS, prepared, roles_of
from lowp.emulation._torch_products import Spec, product

if TYPE_CHECKING:
    from lowp.emulation._torch_mode import Emulation

Tensor = torch.Tensor
_python_einsum = opened(torch.functional.einsum)


def einsum_of_operands(run: Emulation, *args: Any, **kwargs: Any) -> Any:
    """Emulate `torch.einsum` in either of its notations: torch brings it to the plain one, and asks again."""
    with run.function_mode():
        return _python_einsum(*args, **kwargs)


def einsum(run: Emulation, equation: str, operands: Any, *, path: Any = None) -> Any:
    """Emulate an einsum of two operands or more; one operand is no product. `path`: order of pairs, as torch's."""
    parsed = _parse(equation, operands)
    if parsed is None or len(operands) < 2:
        return PASS
    terms, result = parsed
    roles = ["activation" if run.thread.derived.root(x) is None else "weight" for x in operands]
    if len(operands) == 2:
        roles = list(roles_of(run, *operands))
    weight = operands[roles.index("weight")] if "weight" in roles else None
    operation = "matmul" if weight is None else "linear"
    if not run.emulates(operation, run.layer_of(weight)):
        run.start(operation, weight)
        return PASS
    checked = prepared(run, "einsum", *operands)
    if checked is None:
        return PASS
    items = [(*_distinct(x, term), role) for x, term, role in zip(checked, terms, roles, strict=True)]
    order = list(path) if path else [0, 1] * (len(items) - 1)
    for first, second in zip(order[::2], order[1::2], strict=True):
        one, two = items[first], items[second]
        items = [item for i, item in enumerate(items) if i not in (first, second)]
        needed = set(result).union(*(term for _, term, _ in items))
        items.append(_pair(run, weight, one, two, needed))
    tensor, term, _ = items[0]
    return tensor.permute([term.index(letter) for letter in result])


def _parse(equation: str, operands: Any) -> tuple[list[str], str] | None:
    """Return the letters of each operand and of the result; None for what torch is to answer."""
    left, arrow, right = equation.replace(" ", "").partition("->")
    terms = left.split(",")
    if len(terms) != len(operands) or not all(isinstance(x, Tensor) for x in operands):
        return None
    spare = [c for c in string.ascii_letters if c not in equation]
    widths = [x.ndim - len(t.replace("...", "")) for t, x in zip(terms, operands, strict=True)]
    if min(widths) < 0 or any(w and "..." not in t for t, w in zip(terms, widths, strict=True)):
        return None
    widest = max(widths)
    dots = "".join(spare[:widest])
    terms = [t.replace("...", dots[widest - w :]) for t, w in zip(terms, widths, strict=True)]
    if arrow:
        result = right.replace("...", dots)
    else:
        counted = "".join(terms)
        result = dots + "".join(sorted(c for c in set(counted) - set(dots) if counted.count(c) == 1))
    if len(set(result)) != len(result) or not set(result) <= set("".join(terms)):
        return None
    return terms, result


def _distinct(x: Tensor, term: str) -> tuple[Tensor, str]:
    """Return an operand without repeated letters: its diagonal in their place."""
    for letter in sorted(set(term)):
        while term.count(letter) > 1:
            first = term.index(letter)
            second = term.index(letter, first + 1)
            x = x.diagonal(0, first, second)
            term = term[:first] + term[first + 1 : second] + term[second + 1 :] + letter
    return x, term


def _pair(run: Emulation, weight: Any, one: Any, two: Any, needed: set[str]) -> tuple[Tensor, str, str]:
    """Return the product of two operands, summed over the letters that nothing else needs."""
    (a, term_a, role_a), (b, term_b, role_b) = one, two
    sizes: dict[str, int] = {}
    for x, term in ((a, term_a), (b, term_b)):
        for letter, size in zip(term, x.shape, strict=True):
            sizes[letter] = size if sizes.get(letter, 1) == 1 else sizes[letter]
    a, term_a = _reduced(a, term_a, needed | set(term_b))
    b, term_b = _reduced(b, term_b, needed | set(term_a))
    shared = [c for c in term_a if c in term_b]
    batch, summed = [c for c in shared if c in needed], [c for c in shared if c not in needed]
    free_a, free_b = [c for c in term_a if c not in shared], [c for c in term_b if c not in shared]
    left = _arranged(a, term_a, [batch, free_a, summed], sizes)
    right = _arranged(b, term_b, [batch, free_b, summed], sizes)
    if not batch:
        left, right = left[0], right[0]
    if role_a == role_b == "weight":
        role_b = "activation"
    operation = "linear" if "weight" in (role_a, role_b) else "matmul"
    call = run.call(operation, run.layer_of(weight))
    y = product(call, left, right, Spec(role_a, role_b))
    letters = [*batch, *free_a, *free_b]
    return y.reshape([sizes[c] for c in letters]), "".join(letters), "activation"


def _reduced(x: Tensor, term: str, keep: set[str]) -> tuple[Tensor, str]:
    """Return an operand summed over the letters that it alone has."""
    dims = [i for i, c in enumerate(term) if c not in keep]
    return (x.sum(dims), "".join(c for c in term if c in keep)) if dims else (x, term)


def _arranged(x: Tensor, term: str, groups: list[list[str]], sizes: dict[str, int]) -> Tensor:
    """Return an operand as (batch, free, summed)."""
    letters = [c for group in groups for c in group]
    x = x.permute([term.index(c) for c in letters]).expand([sizes[c] for c in letters])
    shape = []
    for group in groups:
        length = 1
        for c in group:
            length *= sizes[c]
        shape.append(length)
    return x.reshape(shape)


HANDLERS.update({torch.einsum: einsum_of_operands, torch._VF.einsum: einsum})  # type: ignore[attr-defined]
