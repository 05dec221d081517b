"""Delayed scaling in JAX programs: histories of amax that come in as arguments and go out as results."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from lowp._errors import ArgumentError
from lowp.emulation._jax_sites import Plan, Site
from lowp.emulation._jax_world import WORLD
from lowp.emulation.casting import scale_of
from lowp.emulation.casts import Cast


class History(NamedTuple):
    """The largest magnitudes of one operand's last calls, and the scale of the last one.

    In a scan all arrays have a leading axis: every round has a history of its own.
    """

    amax: Any
    scale: Any
    pushed: Any

    @classmethod
    def empty(cls, length: int, rounds: tuple[int, ...] = ()) -> History:
        """Return the history before the first call: scale 1."""
        return cls(jnp.zeros((*rounds, length)), jnp.ones(rounds), jnp.zeros(rounds, jnp.int32))

    def now(self, cast: Cast) -> Any:
        """Return the scale of this call: from the largest amax of the calls before; at first 1."""
        found = scale_of(WORLD, jnp.max(self.amax), cast, self.scale)
        return jnp.where(self.pushed > 0, found, self.scale)

    def after(self, scale: Any, amax: Any) -> History:
        """Return the history after a call; its amax takes the place of the oldest."""
        place = self.pushed % self.amax.shape[0]
        return History(self.amax.at[place].set(amax.astype(jnp.float32)), scale, self.pushed + 1)


Histories = Mapping[str, History]


def key_of(site: Site, product: str, role: str) -> str:
    """Return the name of an operand's history."""
    return "/".join((site.layer, site.operation, str(site.call), product, role))


class Memory:
    """The histories that a running program reads, and what they become."""

    def __init__(self, before: Histories) -> None:
        self.before, self.after = dict(before), dict(before)

    def scale(self, key: str, cast: Cast) -> Any:
        """Return the scale of an operand's call.

        Raises:
            ArgumentError: The state holds no such history: it is that of another program or recipe.
        """
        if key not in self.before:
            raise ArgumentError(f"state: no history of {key!r}; make the state with init, for the same arguments.")
        return self.before[key].now(cast)

    def push(self, key: str, scale: Any, amax: Any) -> None:
        """Note the amax of a call."""
        self.after[key] = self.before[key].after(scale, amax)

    def part(self, plan: Plan) -> dict[str, History]:
        """Return the histories of the sites of a plan."""
        return {key: self.before[key] for key in histories_of(plan) if key in self.before}


def histories_of(plan: Plan) -> dict[str, tuple[int, tuple[int, ...]]]:
    """Return the operands of a plan that have histories: by name their lengths and the lengths of the scans around."""
    found: dict[str, tuple[int, tuple[int, ...]]] = {}
    for step in plan.steps:
        if step is None:
            continue
        for inner in step.inner:
            found.update(histories_of(inner))
        if step.site is not None:
            found.update(_histories_of_site(step.site))
    return found


def _histories_of_site(site: Site) -> dict[str, tuple[int, tuple[int, ...]]]:
    read = [(*site.source(number), role) for number, role in enumerate(site.roles)]
    return {
        key_of(source, product, source.drawn_as(product, role, number)): (
            source.cast(role, product).history,
            site.rounds,
        )
        for source, product, number, role in [*read, (site, site.product, 0, "output")]
        if source.cast(role, product).scaling == "delayed"
    }


_CURRENT: ContextVar[Memory | None] = ContextVar("lowp_jax_memory", default=None)


def current() -> Memory | None:
    """Return the memory of the program that runs, None where it has none."""
    return _CURRENT.get()


@contextmanager
def remembering(histories: Histories) -> Iterator[Memory]:
    """Run a program that reads these histories."""
    memory = Memory(histories)
    token = _CURRENT.set(memory)
    try:
        yield memory
    finally:
        _CURRENT.reset(token)


@jax.custom_jvp
def no_gradient(x: Any) -> Any:
    """Return `x`; taking a derivative of it is an error."""
    return x


@no_gradient.defjvp
def _refuse(primals: Any, tangents: Any) -> Any:
    raise ArgumentError(
        "a function with state has no gradient of its own; emulate the function that takes the gradient: "
        "emulate_with_state(jax.value_and_grad(loss), recipe)."
    )
