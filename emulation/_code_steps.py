"""Operations of posits, takums and logarithmic numbers that choose or change codes, and round nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lowp.emulation._operands import Operand
from lowp.emulation._order import ranks
from lowp.formats.ranked import RankedFormat, TaperedFormat
from lowp.formats.spec import ScalarFormat


def code_step(op: str, operands: list[Operand], fmt: ScalarFormat) -> NDArray[Any] | None:
    """Return the codes of the results; None where the operation rounds, or operands are in other formats than `fmt`."""
    codes = [x.codes for x in operands if x.codes is not None and x.fmt == fmt]
    if not isinstance(fmt, RankedFormat) or len(codes) < len(operands):
        return None
    if op in ("minimum", "maximum"):
        return _extreme(op, codes[0], codes[1], fmt)
    if op == "convert":
        return codes[0].copy()
    if op == "negative":
        return _negated(codes[0], fmt)
    if op == "absolute":
        sign = codes[0] >> codes[0].dtype.type(fmt.bits - 1) != 0
        return np.asarray(np.where(sign, _negated(codes[0], fmt), codes[0]))
    return None


def _extreme(op: str, a: NDArray[Any], b: NDArray[Any], fmt: RankedFormat) -> NDArray[Any]:
    first = ranks(a, fmt) <= ranks(b, fmt)
    chosen = np.where(first == (op == "minimum"), a, b)
    if fmt.nan_code is not None:
        chosen[(a == fmt.nan_code) | (b == fmt.nan_code)] = fmt.nan_code
    return np.asarray(chosen)


def _negated(codes: NDArray[Any], fmt: RankedFormat) -> NDArray[Any]:
    kind = codes.dtype.type
    if isinstance(fmt, TaperedFormat):
        return np.asarray((~codes + kind(1)) & kind((1 << fmt.bits) - 1))
    special = np.zeros(codes.shape, bool)
    for code in (fmt.zero_code, fmt.nan_code):
        if code is not None:
            special |= codes == kind(code)
    return np.asarray(np.where(special, codes, codes ^ kind(1 << (fmt.bits - 1))))
