"""Numba made ready without SciPy, which its first kernel would import, for a third of the time that a first call takes.

When Numba prepares its first kernel it asks whether there is a BLAS for `np.dot` and `np.cov` by importing
`scipy.linalg`. No kernel here needs one. Whoever compiles a product is asked again by Numba at that point.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec

from numba.np import linalg

__all__: list[str] = []


def _prepare() -> None:
    """Import the module that asks, with the answer that SciPy is installed, if it is."""
    asks = getattr(linalg, "ensure_blas", None)
    if asks is None or {"numba.np.arraymath", "scipy.linalg"} & sys.modules.keys() or find_spec("scipy") is None:
        return
    linalg.ensure_blas = lambda: None
    try:
        from numba.np import arraymath
    finally:
        linalg.ensure_blas = asks
    arraymath.ensure_blas = asks


_prepare()
