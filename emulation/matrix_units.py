"""Matrix units by name: whose sums of products, in which formats, and how sure that is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from numpy.typing import ArrayLike, NDArray

from lowp._errors import ArgumentError
from lowp.emulation import _unit_rows
from lowp.emulation.accumulator import Accumulator
from lowp.formats.spec import ScalarFormat

STANDINGS = {
    "recorded": "reproduces recorded outputs of the hardware, every bit",
    "model": "follows a published model or definition; no outputs of the hardware were compared",
    "assumed": "no published model says so",
}


@dataclass(frozen=True, kw_only=True)
class MatrixUnit:
    """A machine's matrix instruction: formats of operands and results, and the accumulator of its sums.

    Args:
        name: `<architecture>/<instruction>/<operands>/<result>`.
        a: Name of the format of the left operand, as in the unit's name ("e4m3", "tf32"); see `formats`.
        b: That of the right operand.
        c: That of the addend.
        d: That of the result.
        terms: Terms of one instruction; longer products are chains of instructions, the result of one the addend of the
            next. None: the instruction has no size of its own.
        accumulator: How its sums are kept.
        scale: Name of the format of the block scales; None: there are none.
        block: Elements that share a scale.
        reads: Name of the format as which operands are aligned, where it is not their own.
        standing: "recorded", "model" or "assumed"; see `STANDINGS`.
        evidence: What it was compared with.
        source: Where the definition is from.

    Example:
        >>> import lowp, numpy as np
        >>> unit = lowp.matrix_unit("hopper/wgmma_m64n8k32/e4m3_e4m3/f32")
        >>> unit.standing, unit.accumulator.alignment.fraction_bits
        ('recorded', 13)
        >>> ones = [[0x38] * 32]  # 1.0 in E4M3
        >>> [hex(code) for code in unit.run_codes(ones, np.transpose(ones), [[0]])[0]]
        ['0x42000000']
    """

    name: str
    a: str
    b: str
    c: str
    d: str
    accumulator: Accumulator
    terms: int | None = None
    scale: str | None = None
    block: int = 0
    reads: str | None = None
    standing: str = "assumed"
    evidence: str = ""
    source: str = ""

    @property
    def formats(self) -> dict[str, ScalarFormat]:
        """The formats of a, b, c, d, and of the scales where there are some."""
        named = {"a": self.a, "b": self.b, "c": self.c, "d": self.d, "scale": self.scale}
        return {role: _unit_rows.coding(name).format for role, name in named.items() if name}

    def run_codes(
        self,
        a: ArrayLike,
        b: ArrayLike,
        c: ArrayLike | None = None,
        scale_a: ArrayLike | None = None,
        scale_b: ArrayLike | None = None,
    ) -> NDArray[Any]:
        """Return the codes of `a @ b + c`, from codes.

        NaN results are the unit's NaN where it has one; see `source`. Each code is in the low bits of its own entry,
        FP4 and FP6 too; bits of TF32 patterns that the unit does not read do not matter.

        Args:
            a: Codes of shape (..., m, k); unsigned integers, or integers of the format's own sign.
            b: Codes of shape (..., k, n).
            c: Codes of shape (..., m, n); None: +0.
            scale_a: Codes of shape (..., m, k / block); None where the unit has no scales, or all are one.
            scale_b: Codes of shape (..., k / block, n).

        Returns:
            Codes of shape (..., m, n), in the unsigned dtype of the result's container; signed integers in a signed
            one.

        Raises:
            ArgumentError: Shapes or scales that do not fit the unit, or codes beyond the format.
        """
        from lowp.emulation._unit_run import run_codes

        return run_codes(self, a, b, c, scale_a, scale_b)

    def run(
        self, a: ArrayLike, b: ArrayLike, c: ArrayLike | None = None, scale_a: Any = None, scale_b: Any = None
    ) -> Any:
        """Return the values of `a @ b + c` as float64, from values that the unit's formats have.

        Raises:
            ArgumentError: A value that the operand's format does not have (TF32 operands are truncated instead, as the
                unit does); shapes that do not fit.
        """
        from lowp.emulation._unit_run import run_values

        return run_values(self, a, b, c, scale_a, scale_b)

    def __str__(self) -> str:
        """Return a card: formats, steps, standing and evidence."""
        scales = f" with {self.scale} scales of {self.block}" if self.scale else ""
        lines = [
            self.name,
            f"  d ({self.d}) = c ({self.c}) + a ({self.a}) x b ({self.b}){scales}",
            f"  {self.standing}: {STANDINGS[self.standing]}",
            f"  evidence: {self.evidence}",
            f"  source: {self.source}",
            *("  " + line for line in self.accumulator.diagram().splitlines()),
        ]
        return "\n".join(lines)


def matrix_units() -> list[str]:
    """Return the names of the matrix units, one shape of each kind of instruction and more where they differ.

    `matrix_unit` knows other shapes of the same instructions too.

    Example:
        >>> import lowp
        >>> [name for name in lowp.matrix_units() if name.startswith("volta/mma")]
        ['volta/mma_m8n8k4/f16_f16/f32', 'volta/mma_m8n8k4/f16_f16/f32_cf16', 'volta/mma_m8n8k4/f16_f16/f16']
    """
    return list(_unit_rows.names())


def matrix_unit(name: str) -> MatrixUnit:
    """Return the matrix unit of a name.

    Args:
        name: `<architecture>/<instruction>/<operands>/<result>` in lower case; see `matrix_units`. Any m and n of a
            listed instruction are accepted, they do not enter the arithmetic; `_c<format>` after the result names
            another format of the addend.

    Raises:
        ArgumentError: There is no such unit; the message has the nearest name.

    Example:
        >>> import lowp
        >>> lowp.matrix_unit("x86/vdpbf16ps/bf16_bf16/f32").accumulator
        Accumulator(format='float32', order=(1, 0), subnormal_inputs='zero', subnormal_results='zero')
    """
    found = _unit_rows.found(name)
    if found is None:
        raise ArgumentError(_unit_rows.unknown(name))
    return MatrixUnit(name=name, **found)


__all__ = ["STANDINGS", "MatrixUnit", "matrix_unit", "matrix_units"]
