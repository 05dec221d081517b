"""Which products and lookups of the forward pass read a value: how those of the backward pass are known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from lowp.emulation._jax_masks import Product
from lowp.emulation._jax_origins import Origin
from lowp.emulation._jax_sites import Scope, Site


class Reader(NamedTuple):
    """An operand of a forward product: the path of its parameter, the shape (sorted) of the other operand."""

    product: Product
    number: int
    path: str
    other: tuple[int, ...]

    @property
    def site(self) -> Site:
        """Where the product stands."""
        return self.product.site


class Readers:
    """The products of a forward pass by what they read.

    Attributes:
        products: By their site; of a product that is computed again, the latest.
    """

    def __init__(self) -> None:
        self.products: dict[Site, Product] = {}
        self._readers: dict[Any, list[Reader]] = {}
        self._visits: dict[tuple[Any, str, tuple[int, ...]], int] = {}

    def copy(self) -> Readers:
        """Return what is known so far, apart from this."""
        other = Readers()
        other.products, other._visits = dict(self.products), dict(self._visits)
        other._readers = {root: list(readers) for root, readers in self._readers.items()}
        return other

    def add(self, product: Product, path: str, inputs: Sequence[Origin]) -> None:
        """Note a product, and what it reads where that is new."""
        self.products[product.site] = product
        for number, origin in enumerate(inputs):
            if origin.root is not None:
                reader = Reader(product, number, path, tuple(sorted(product.shapes[1 - number])))
                self._readers.setdefault(origin.root, []).append(reader)

    def find(self, inputs: Sequence[Origin], use: str, shape: tuple[int, ...] = ()) -> Reader | None:
        """Return the forward product that read the same operand, and whose other operand had this shape.

        Of several, such as the calls of a shared layer, the last one first: the backward pass goes backwards.
        """
        for origin in inputs:
            found = self._readers.get(origin.root, []) if origin.root is not None else []
            if found:
                best = [reader for reader in found if reader.other == shape] or found
                visits = self._visits.get((origin.root, use, shape), 0)
                self._visits[origin.root, use, shape] = visits + 1
                return best[-1 - visits % len(best)]
        return None


class Lookups:
    """The gathers of a forward pass in order: a scatter-add of the backward pass undoes one of them."""

    def __init__(self) -> None:
        self._found: dict[Any, list[tuple[Any, Site | None]]] = {}
        self._visits: dict[Any, int] = {}

    def copy(self) -> Lookups:
        """Return what is known so far, apart from this."""
        other = Lookups()
        other._found = {places: list(found) for places, found in self._found.items()}
        other._visits = dict(self._visits)
        return other

    def add(self, eqn: Any, indices: Origin, site: Site | None) -> None:
        """Note a gather; without a site it looks up nothing that is rounded."""
        self._found.setdefault(_places(eqn), []).append((indices.root, site))

    def find(self, eqn: Any, indices: Origin, use: str) -> Site | None:
        """Return the site whose rows these are: the same places, the same indices if those are known, the last first.

        Raises:
            LookupError: There is none, though a table of this shape is looked up.
        """
        places = _places(eqn)
        found = self._found.get(places, [])
        if not found:
            if any(key[0] == places[0] and any(site for _, site in noted) for key, noted in self._found.items()):
                raise LookupError
            return None
        best = [site for root, site in found if root is not None and root is indices.root]
        best = best or [site for _, site in found]
        visit = (places, use, indices.root if len(best) < len(found) else None)
        number = self._visits.get(visit, 0)
        self._visits[visit] = number + 1
        return best[-1 - number % len(best)]


def gradient_site(forward: Site, scope: Scope) -> Site:
    """Return where the gradient of the rows of a lookup stands."""
    return replace(
        forward, product="grad_weight", roles=("gradient",), split=scope.split, times=scope.times,
        rounds=scope.rounds, forgets=scope.forgets,
    )  # fmt: skip


def _places(eqn: Any) -> tuple[Any, ...]:
    """Return the shapes of table and rows of a gather or scatter-add, and how indices name the rows."""
    numbers = eqn.params["dimension_numbers"]
    table, indices = eqn.invars[0].aval.shape, eqn.invars[1].aval.shape
    if eqn.primitive.name == "gather":
        rows, axes = eqn.outvars[0].aval.shape, (numbers.offset_dims, numbers.collapsed_slice_dims)
        return table, rows, indices, *axes, numbers.start_index_map
    rows, axes = eqn.invars[2].aval.shape, (numbers.update_window_dims, numbers.inserted_window_dims)
    return table, rows, indices, *axes, numbers.scatter_dims_to_operand_dims
