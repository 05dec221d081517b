"""Which products of the forward pass read a value: how a backward product is known."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from lowp.emulation._jax_masks import Product
from lowp.emulation._jax_origins import Origin
from lowp.emulation._jax_sites import Site


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
