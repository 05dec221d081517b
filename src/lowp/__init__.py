"""Bit-exact emulation of low-precision number formats, and what they cost on hardware.

Verbs: `quantize`, `encode`, `decode`; formats: `parse`, `values`, `lowp.formats`; the slow, exact oracle:
`lowp.exact`; torch tensors with gradients: `lowp.torch`; hardware costs: `lowp.hw`; accuracy against cost: `study`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lowp import formats, rounding
from lowp._errors import (
    ArgumentError,
    ArgumentTypeError,
    Error,
    FileError,
    FormatError,
    PrecisionWarning,
    RangeError,
)
from lowp.formats import Block, Codebook, Fixed, Float, Format, Integer, ScalarFormat, parse, values
from lowp.rounding import Encoded, decode, encode, exact, quantize

if TYPE_CHECKING:
    from lowp.studies import study

__version__ = "0.1.0"

__all__ = [
    "ArgumentError",
    "ArgumentTypeError",
    "Block",
    "Codebook",
    "Encoded",
    "Error",
    "FileError",
    "Fixed",
    "Float",
    "Format",
    "FormatError",
    "Integer",
    "PrecisionWarning",
    "RangeError",
    "ScalarFormat",
    "decode",
    "encode",
    "exact",
    "formats",
    "parse",
    "quantize",
    "rounding",
    "study",
    "values",
]


def __getattr__(name: str) -> Any:
    """Load the study when it is first asked for: it brings torch and matplotlib, `import lowp` only NumPy."""
    if name == "study":
        from lowp.studies import study

        return study
    raise AttributeError(f"module 'lowp' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
