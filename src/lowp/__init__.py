"""Bit-exact emulation of low-precision number formats, and what they cost on hardware.

Verbs: `quantize`, `encode`, `decode`; arithmetic in a format: `array`, `add`, `dot`, `exp`, ...; whole programs:
`Recipe`, `every_operation`, and `emulate` in `lowp.torch` and `lowp.jax`; sums as hardware makes them: `matmul`,
`Accumulator`, `matrix_unit`; functions step by step: `softmax`, `layer_norm`, `rms_norm`, `approximation`; formats:
`parse`, `values`, `lowp.formats`; the slow, exact oracle: `lowp.exact`; test vectors for others: `vectors`; hardware
costs: `lowp.hw`; accuracy against cost: `study`.
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
from lowp.formats import (
    LNS,
    Block,
    Codebook,
    Fixed,
    Float,
    Format,
    Integer,
    Packed,
    Posit,
    ScalarFormat,
    Takum,
    parse,
    values,
)
from lowp.rounding import Encoded, decode, encode, exact, hadamard, quantize

if TYPE_CHECKING:
    from lowp.emulation import (
        Accumulator,
        Alignment,
        Cast,
        GaussTable,
        MatrixUnit,
        Recipe,
        Report,
        Rule,
        add,
        array,
        classify,
        cos,
        divide,
        dot,
        every_operation,
        exp,
        exp2,
        flip_bits,
        fma,
        fmod,
        log,
        log2,
        matmul,
        matrix_unit,
        matrix_units,
        maximum,
        minimum,
        multiply,
        next_down,
        next_up,
        power,
        remainder,
        sin,
        sqrt,
        subtract,
        tanh,
        total_order,
        ulp,
    )
    from lowp.emulation.accumulator_bounds import prove_no_overflow, safe_width
    from lowp.emulation.approximations import approximation, approximations, ulp_errors
    from lowp.emulation.normalisation import layer_norm, rms_norm
    from lowp.emulation.reproducibility import reproducibility
    from lowp.emulation.softmax import softmax
    from lowp.emulation.sum_report import SumReport
    from lowp.studies import study
    from lowp.vector_files import vectors

__version__ = "0.1.0"

__all__ = [
    "LNS",
    "Accumulator",
    "Alignment",
    "ArgumentError",
    "ArgumentTypeError",
    "Block",
    "Cast",
    "Codebook",
    "Encoded",
    "Error",
    "FileError",
    "Fixed",
    "Float",
    "Format",
    "FormatError",
    "GaussTable",
    "Integer",
    "MatrixUnit",
    "Packed",
    "Posit",
    "PrecisionWarning",
    "RangeError",
    "Recipe",
    "Report",
    "Rule",
    "ScalarFormat",
    "SumReport",
    "Takum",
    "add",
    "approximation",
    "approximations",
    "array",
    "classify",
    "cos",
    "decode",
    "divide",
    "dot",
    "encode",
    "every_operation",
    "exact",
    "exp",
    "exp2",
    "flip_bits",
    "fma",
    "fmod",
    "formats",
    "hadamard",
    "layer_norm",
    "log",
    "log2",
    "matmul",
    "matrix_unit",
    "matrix_units",
    "maximum",
    "minimum",
    "multiply",
    "next_down",
    "next_up",
    "parse",
    "power",
    "prove_no_overflow",
    "quantize",
    "remainder",
    "reproducibility",
    "rms_norm",
    "rounding",
    "safe_width",
    "sin",
    "softmax",
    "sqrt",
    "study",
    "subtract",
    "tanh",
    "total_order",
    "ulp",
    "ulp_errors",
    "values",
    "vectors",
]


#: Names that are loaded when they are first asked for, and where they are. Chains of rounded steps are half of the time
#: that an import would take.
_LATER = {
    **dict.fromkeys(
        (
            "Accumulator",
            "Alignment",
            "Cast",
            "GaussTable",
            "MatrixUnit",
            "Recipe",
            "Report",
            "Rule",
            "add",
            "array",
            "classify",
            "cos",
            "divide",
            "dot",
            "every_operation",
            "exp",
            "exp2",
            "flip_bits",
            "fma",
            "fmod",
            "log",
            "log2",
            "matmul",
            "matrix_unit",
            "matrix_units",
            "maximum",
            "minimum",
            "multiply",
            "next_down",
            "next_up",
            "power",
            "remainder",
            "sin",
            "sqrt",
            "subtract",
            "tanh",
            "total_order",
            "ulp",
        ),
        "lowp.emulation",
    ),
    **dict.fromkeys(("approximation", "approximations", "ulp_errors"), "lowp.emulation.approximations"),
    **dict.fromkeys(("layer_norm", "rms_norm"), "lowp.emulation.normalisation"),
    "SumReport": "lowp.emulation.sum_report",
    "prove_no_overflow": "lowp.emulation.accumulator_bounds",
    "reproducibility": "lowp.emulation.reproducibility",
    "safe_width": "lowp.emulation.accumulator_bounds",
    "softmax": "lowp.emulation.softmax",
}


def __getattr__(name: str) -> Any:
    """Load what not everyone needs when it is first asked for: `import lowp` loads NumPy and little else."""
    if name in _LATER:
        from importlib import import_module

        found = globals()[name] = getattr(import_module(_LATER[name]), name)
        return found
    if name == "emulation":
        from importlib import import_module

        return import_module("lowp.emulation")
    if name == "study":
        from lowp.studies import study

        return study
    if name == "vectors":
        from lowp.vector_files import vectors

        return vectors
    raise AttributeError(f"module 'lowp' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
