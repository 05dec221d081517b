"""The block types of ggml, with ggml's own bytes: the fields of a block in the order of its C struct.

Source: ggml-org/ggml, `src/ggml-common.h`.
"""

from __future__ import annotations

from lowp.formats.entry import Entry
from lowp.formats.packed import Field, Packed
from lowp.formats.spec import Format

_D = Field("d", 1, 16)
_DMIN = Field("dmin", 1, 16)
_NIBBLES = Field("qs", 32, 4)
#: Type -> module of its rules, values in a block, fields, one sentence.
_TYPES: dict[str, tuple[str, int, tuple[Field, ...], str]] = {
    "q1_0": ("ggml", 128, (_D, Field("qs", 128, 1)), "signs times the mean magnitude"),
    "q2_0": ("ggml", 64, (_D, Field("qs", 64, 2)), "-1, 0, 1, 2 times the largest magnitude"),
    "q4_0": ("ggml", 32, (_D, _NIBBLES), "4 bits, a float16 scale per 32"),
    "q4_1": ("ggml", 32, (_D, Field("m", 1, 16), _NIBBLES), "4 bits, a float16 scale and minimum per 32"),
    "q5_0": ("ggml", 32, (_D, Field("qh", 32, 1), _NIBBLES), "5 bits, a float16 scale per 32"),
    "q5_1": (
        "ggml",
        32,
        (_D, Field("m", 1, 16), Field("qh", 32, 1), _NIBBLES),
        "5 bits, a float16 scale and minimum per 32",
    ),
    "q8_0": ("ggml", 32, (_D, Field("qs", 32, 8)), "8 bits, a float16 scale per 32"),
    "q8_1": ("ggml", 32, (_D, Field("s", 1, 16), Field("qs", 32, 8)), "Q8_0 with the sum of each block"),
    "mxfp4": ("ggml", 32, (Field("e", 1, 8), _NIBBLES), "E2M1 and a power of two per 32"),
    "nvfp4": ("ggml", 64, (Field("d", 4, 8), Field("qs", 64, 4)), "E2M1 and a UE4M3 scale per 16, no tensor scale"),
    "q2_k": (
        "ggml_k",
        256,
        (Field("scales", 32, 4), Field("qs", 256, 2), _D, _DMIN),
        "2 bits, 4-bit scales and minima per 16",
    ),
    "q3_k": (
        "ggml_k",
        256,
        (Field("hmask", 256, 1), Field("qs", 256, 2), Field("scales_l", 16, 4), Field("scales_h", 16, 2), _D),
        "3 bits, 6-bit scales per 16",
    ),
    "q4_k": (
        "ggml_k",
        256,
        (_D, _DMIN, Field("scales", 12, 8), Field("qs", 256, 4)),
        "4 bits, 6-bit scales and minima per 32",
    ),
    "q5_k": (
        "ggml_k",
        256,
        (_D, _DMIN, Field("scales", 12, 8), Field("qh", 256, 1), Field("qs", 256, 4)),
        "5 bits, 6-bit scales and minima per 32",
    ),
    "q6_k": (
        "ggml_k",
        256,
        (Field("ql", 256, 4), Field("qh", 256, 2), Field("scales", 16, 8), _D),
        "6 bits, 8-bit scales per 16",
    ),
    "q8_k": (
        "ggml_k",
        256,
        (Field("d", 1, 32), Field("qs", 256, 8), Field("bsums", 16, 16)),
        "8 bits, a float32 scale per 256 and sums per 16",
    ),
    "iq4_nl": ("ggml_iq", 32, (_D, _NIBBLES), "16 listed integers, a float16 scale per 32"),
    "iq4_xs": (
        "ggml_iq",
        256,
        (_D, Field("scales_h", 8, 2), Field("scales_l", 8, 4), Field("qs", 256, 4)),
        "16 listed integers, 6-bit scales per 32",
    ),
    "tq1_0": (
        "ggml_ternary",
        256,
        (Field("qs", 48, 8), Field("qh", 4, 8), _D),
        "-1, 0, 1 times the largest magnitude, five to a byte",
    ),
    "tq2_0": ("ggml_ternary", 256, (Field("qs", 256, 2), _D), "-1, 0, 1 times the largest magnitude, four to a byte"),
}


def _entry(kind: str, module: str, size: int, fields: tuple[Field, ...], summary: str) -> Entry:
    fmt = Packed(f"{module}.{kind}", size, fields, interleaved=True, label=f"ggml_{kind}")
    return Entry(fmt, "block", f"ggml {kind.upper()}: {summary}")


ENTRIES: dict[str, Entry] = {f"ggml_{kind}": _entry(kind, *parts) for kind, parts in _TYPES.items()}


def read_name(name: str) -> Format | None:
    """Return the format that a name made by the rules of this family stands for, or None."""
    return None
