"""What the compiler made of a kernel: the instructions of its innermost loops, from a freshly compiled copy."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any, NamedTuple

_LABEL = re.compile(r"^(\.?[\w$.]+):")
_JUMP = re.compile(r"^\s+j\w+\s+(\.?[\w$.]+)\s*$")
_INSTRUCTION = re.compile(r"^\s+(v?[a-z][\w.]*)\b(.*)$")
_VECTOR = re.compile(r"%[xyz]mm\d+")
_WIDE = re.compile(r"%[yz]mm\d+")
#: Packed instructions on lanes of 64 bits; loads, stores, logic and shuffles say nothing about lanes.
_LANES_64 = re.compile(r"^v(p(add|sub|mull|sll|srl|sra|max[su]|min[su]|abs|cmp(eq|gt|u)?)q\w*|pmul(u)?dq|pmov[sz]xdq)$")
#: Scalar arithmetic on floats.
_SCALAR = re.compile(r"^v?(add|sub|mul|div|min|max|fn?m(add|sub)\w*|u?comi|cmp\w*|cvt\w+)s[sd]$")


class Loop(NamedTuple):
    """One innermost loop: how many instructions of each kind, and how many bytes are stored as vectors."""

    packed: int
    lanes_64: int
    scalar: int
    vector_stores: int
    gathers: int
    names: Counter[str]


def fresh_assembly(kernel: Any, signature: tuple[Any, ...]) -> str:
    """Compile a copy of a kernel, which no cache hides, and return its assembly."""
    from numba import njit

    copy = njit(nogil=True, error_model="numpy")(getattr(kernel, "py_func", kernel))
    copy.compile(signature)
    return str(copy.inspect_asm()[copy.signatures[0]])


def innermost_loops(assembly: str) -> list[Loop]:
    """Return the loops that hold no other loop: from a label to a jump back to it."""
    lines = assembly.splitlines()
    labels = {match[1]: i for i, line in enumerate(lines) if (match := _LABEL.match(line))}
    jumps = ((labels.get(match[1], len(lines)), i) for i, line in enumerate(lines) if (match := _JUMP.match(line)))
    spans = {(start, end) for start, end in jumps if start < end}
    inner = [s for s in spans if not any(o != s and s[0] <= o[0] and o[1] <= s[1] for o in spans)]
    return [_loop(lines[start:end]) for start, end in sorted(inner)]


def _loop(lines: list[str]) -> Loop:
    names: Counter[str] = Counter()
    packed = lanes_64 = scalar = stores = gathers = 0
    for line in lines:
        match = _INSTRUCTION.match(line)
        if match is None:
            continue
        name, operands = match.groups()
        names[name] += 1
        scalar += bool(_SCALAR.match(name))
        gathers += "gather" in name
        if not _VECTOR.search(operands) or _SCALAR.match(name):
            continue
        packed += bool(_WIDE.search(operands))
        lanes_64 += bool(_LANES_64.match(name)) and bool(_WIDE.search(operands))
        stores += bool(re.search(r"%[xyz]mm\d+(\s*\{[^}]*\})?,\s*\S*\(.*\)\s*(\{[^}]*\})?\s*$", operands))
    return Loop(packed, lanes_64, scalar, stores, gathers, names)


def vector_loop(kernel: Any, signature: tuple[Any, ...]) -> Loop:
    """Return the loop of a kernel with most packed instructions among those that store vectors; empty if none does."""
    loops = [loop for loop in innermost_loops(fresh_assembly(kernel, signature)) if loop.vector_stores]
    return max(loops, key=lambda loop: loop.packed, default=Loop(0, 0, 0, 0, 0, Counter()))
