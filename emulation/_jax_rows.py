"""What the plan of a JAX program reports: operands and results that are rounded, and what cannot be."""

from __future__ import annotations

from collections.abc import Sequence

from lowp._errors import ArgumentError
from lowp.emulation._jax_origins import Origin
from lowp.emulation._jax_sites import Scope, Site
from lowp.emulation.report import Report


class Rows:
    """The report of a planner.

    Args:
        strict: Raise where the recipe asks for something that cannot be emulated, instead of a remark.
        remembers: Whether the program has histories for delayed scaling.
    """

    def __init__(self, strict: bool, remembers: bool) -> None:
        self.strict, self.remembers = strict, remembers
        self.report = Report()
        self._noted: set[tuple[Site, int]] = set()

    def note_backward(self, site: Site, product: str, number: int = 0) -> None:
        """Report the product of the backward pass that gives the gradient of operand `number`, once for each site."""
        if (site, number) in self._noted:
            return
        self._noted.add((site, number))
        others = [role for i, role in enumerate(site.roles) if i != number]
        for role in ("gradient", *others):
            self._row(site, role, product)
        self._row_of_sums(site, product)

    def _rows(self, site: Site, products: tuple[str, ...]) -> None:
        for product in products:
            for role in site.roles:
                self._row(site, role, product)
            self._row_of_sums(site, product)

    def _row_of_sums(self, site: Site, product: str) -> None:
        for role in ("output", "accumulator"):
            if site.cast(role, product):
                self._row(site, role, product)

    def _row(self, site: Site, role: str, product: str) -> None:
        cast = site.read_cast(role, product)
        if cast.scaling == "delayed" and not self.remembers:
            raise ArgumentError(
                f"{role}: scaling='delayed' needs a history of earlier steps, and a function of JAX arrays keeps no "
                "state; use lowp.jax.emulate_with_state, which hands it in and out, or scaling='current'."
            )
        if cast.scaling == "delayed" and site.forgets:
            raise ArgumentError(
                f"{role} of {site.layer!r}: scaling='delayed' inside {site.forgets!r}: histories come in and out of "
                "jit and scan alone; use scaling='current' there."
            )
        self.report.add(site.layer, site.operation, product, role, cast.describe(), site.times)

    def _no_mask(self, site: Site) -> None:
        self.cannot(
            f"{site.layer}: the gradient's mask is not applied where the program takes the gradient itself; "
            "take it outside: jax.grad(lowp.jax.emulate(loss, recipe))"
        )

    def cannot(self, what: str, remark_only: bool = False) -> None:
        """Remark on what is left alone, or raise ArgumentError where nothing may be."""
        if self.strict and not remark_only:
            raise ArgumentError(f"recipe: cannot emulate this: {what}; pass strict=False to leave it alone.")
        self.report.remark(f"not emulated: {what}")


def hints(stack: str, scope: Scope, inputs: Sequence[Origin]) -> str:
    """Return what names may be found in: the scopes, the functions and the paths of the operands."""
    return f"{stack}/{scope.functions}/{'/'.join(o.path for o in inputs)}"
