"""What torch.compile sees: on devices other than the CPU the bit operations themselves, which it fuses with the rest.

AOTAutograd traces an operator through its autograd kernel, which asks here whether to trace the portable code in its
place. It does not on the CPU, whose kernels are faster, while shapes are unknown, and for formats whose code is long:
the loops of packed formats' searches would be unrolled, and the logarithms of wide formats are thousands of operations.
"""

from __future__ import annotations

import sys
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Any

from lowp.formats.block import Block
from lowp.rounding import _torch_portable as portable
from lowp.rounding._format_keys import format_of
from lowp.rounding._torch_calls import axis_of, unflat
from lowp.rounding._torch_plain import portable_is_wanted

_MARK = "|"


@lru_cache(maxsize=1)
def _build() -> str:
    """A digest of the code that graphs take in, so that no cache of compiled graphs outlives a change of it."""
    files = sorted(Path(__file__).parent.glob("_*portable*.py"))
    return sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:16]


def graph_key(key: str) -> str:
    """Return a format's key as graphs hold it; makes sure that DTensor knows the operators."""
    if "torch.distributed.tensor" in sys.modules:
        from lowp.rounding._torch_distributed import register_sharding_rules

        register_sharding_rules()
    return f"{key}{_MARK}{_build()}{_MARK}{'portable' if portable_is_wanted() else ''}"


def is_taken_apart(x: Any, fmt: str) -> bool:
    """Whether AOTAutograd is tracing and should see the portable operations of a format on `x`."""
    if _MARK not in fmt or type(x).__name__ != "FunctionalTensor":
        return False
    known = all(isinstance(n, int) for n in x.shape)
    return known and (x.device.type != "cpu" or fmt.endswith(f"{_MARK}portable"))


def quantize(x: Any, fmt: str, *rest: Any) -> Any:
    """Return `x` rounded by portable operations, or None where those are many."""
    *how, _, amax = rest
    call = unflat(fmt, *how)
    if not portable.is_short(call.fmt, call.request):
        return None
    return portable.quantize(x, call.fmt, call.request, call.axis, call.shard, amax)


def in_range(x: Any, fmt: str, axis: Any, amax: Any) -> Any:
    """Return the mask of a clipped gradient by portable operations, or None for what they lack."""
    resolved = format_of(fmt)
    return portable.in_range(x, resolved, axis_of(axis), amax) if isinstance(resolved, Block) else None
