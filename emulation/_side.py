"""One operand of a matrix product: the values of its elements, and its block scales."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lowp.formats.float_format import Float
from lowp.formats.spec import ScalarFormat


class Side(NamedTuple):
    """Values (batch, rows, terms) of a left operand, (batch, terms, columns) of a right one, exact in `format`.

    Arrays are float64, of NumPy, torch or JAX. Scales, where there are some, have the terms' axis divided by `block`.
    """

    values: Any
    format: ScalarFormat
    scales: Any = None
    scale_format: ScalarFormat | None = None
    block: int = 1

    def spread_scales(self, axis: int) -> Any:
        """Return a scale for each element; `axis` is that of the terms."""
        assert self.scales is not None
        return self.scales[_along(axis, np.arange(self.values.shape[axis]) // self.block)]

    def scaled_values(self, axis: int) -> Any:
        """Return elements times scales, exact where float64 holds it."""
        if self.scales is None:
            return self.values
        with np.errstate(invalid="ignore"):
            return self.values * self.spread_scales(axis)

    def taken(self, places: NDArray[np.intp] | slice, axis: int) -> Side:
        """Return the operand with some of its terms, in that order; each then has a scale of its own."""
        values = self.values[_along(axis, places)]
        values = np.ascontiguousarray(values) if isinstance(values, np.ndarray) else values
        if self.scales is None:
            return self._replace(values=values)
        return self._replace(values=values, scales=self.spread_scales(axis)[_along(axis, places)], block=1)


def read_as(x: NDArray[np.float64], fmt: ScalarFormat | None, how: str) -> NDArray[np.float64]:
    """Return what an addition reads numbers of a format as: subnormal ones, unless `how` is "keep", as zero."""
    if how == "keep" or not isinstance(fmt, Float) or not fmt.subnormals:
        return x
    subnormal = (np.abs(x) < fmt.smallest_normal) & (x != 0)
    return np.where(subnormal, 0.0 if how == "positive_zero" else np.copysign(0.0, x), x)


def _along(axis: int, places: Any) -> tuple[Any, ...]:
    """Return an index that takes places along one of three axes."""
    return (*[slice(None)] * (axis % 3), places)
