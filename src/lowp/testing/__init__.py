"""Tools for testing number formats: comparisons that look at bits, laws to check, strategies to draw from.

`lowp.testing.strategies` needs Hypothesis (`pip install 'lowp[testing]'`) and is loaded when it is first asked for.
"""

from __future__ import annotations

from typing import Any

from lowp.testing.arithmetic import check_arithmetic
from lowp.testing.asserts import assert_bits_equal
from lowp.testing.laws import check_conversion, check_decode, check_quantize, check_round_trip
from lowp.testing.properties import check_directed, check_idempotent, check_monotone, check_nearest, check_symmetric
from lowp.testing.stochastic import check_stochastic

__all__ = [
    "assert_bits_equal",
    "check_arithmetic",
    "check_conversion",
    "check_decode",
    "check_directed",
    "check_idempotent",
    "check_monotone",
    "check_nearest",
    "check_quantize",
    "check_round_trip",
    "check_stochastic",
    "check_symmetric",
]


def __getattr__(name: str) -> Any:
    if name == "strategies":
        import importlib

        return importlib.import_module("lowp.testing.strategies")
    raise AttributeError(f"module 'lowp.testing' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), "strategies"})
