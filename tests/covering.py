"""Parameters for tests: those that show something new run always, the others in the slow run."""

import dataclasses
from collections.abc import Callable, Collection, Iterable
from typing import Any

import pytest

from lowp.formats.spec import ScalarFormat


def covering(cases: Iterable[Any], traits: Callable[[Any], Collection[Any]]) -> list[Any]:
    """Mark as slow the cases whose every trait an earlier case has."""
    seen: set[Any] = set()
    marked: list[Any] = []
    for case in cases:
        new = set(traits(case)) - seen
        seen |= new
        marked.append(usual(case) if new else slow(case))
    return marked


def usual(*values: Any) -> Any:
    """A parameter of the usual run."""
    return pytest.param(*values)


def slow(*values: Any) -> Any:
    """A parameter of the slow run."""
    return pytest.param(*values, marks=pytest.mark.slow)


def scalar_traits(fmt: ScalarFormat) -> set[Any]:
    """Return what decides which code a scalar format runs: its class, its bytes, and each policy that it has."""
    kind = type(fmt)
    fields = {f.name: getattr(fmt, f.name) for f in dataclasses.fields(fmt)}  # type: ignore[arg-type]
    policies = {(kind, k, v) for k, v in fields.items() if isinstance(v, bool | str) and k != "label"}
    return policies | {(kind, -(-fmt.bits // 8))}
