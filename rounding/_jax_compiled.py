"""Work on JAX arrays, compiled once for each set of static choices, and the errors that its numbers can bring."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import jax

from lowp.rounding._namespaces import JaxNamespace

#: (namespace, array or arrays, static choices, traced inputs) -> result.
Work = Callable[[JaxNamespace, Any, Any, Any], Any]


class _Compiled:
    """A rounding compiled for one call and dtype, and the errors that its numbers can bring."""

    def __init__(self, work: Any) -> None:
        self._errors: list[Exception] = []
        self._run = jax.jit(lambda *arguments: self._traced(work, *arguments))

    def _traced(self, work: Any, *arguments: Any) -> Any:
        collected: list[tuple[Any, Exception]] = []
        result = work(JaxNamespace(collected), *arguments)
        self._errors[:] = [error for _, error in collected]
        return result, [holds for holds, _ in collected]

    def __call__(self, *arguments: Any) -> Any:
        result, conditions = self._run(*arguments)
        if not any(isinstance(a, jax.core.Tracer) for a in jax.tree.leaves((result, conditions))):
            for holds, error in zip(conditions, self._errors, strict=True):
                if not bool(holds):
                    raise type(error)(*error.args)
        return result


@lru_cache(maxsize=1024)
def _compiled(work: Work, call: Any, dtype: str) -> _Compiled:
    return _Compiled(lambda xp, x, inputs: work(xp, x, call, inputs))


def run(work: Work, x: Any, call: Any, inputs: Any, dtype: Any) -> Any:
    """Run compiled work: `call` is static and hashable, `x` and `inputs` are arrays, `dtype` tells the former apart."""
    return _compiled(work, call, str(dtype))(x, inputs)
