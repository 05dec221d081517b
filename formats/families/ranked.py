"""Posit, takum and logarithmic numbers that have names, and the rules of their names."""

from __future__ import annotations

import re

from lowp.formats.entry import Entry
from lowp.formats.logarithmic import LNS
from lowp.formats.posit import Posit
from lowp.formats.spec import Format
from lowp.formats.takum import Takum

_POSIT = re.compile(r"posit(?P<bits>\d+)(?:_?es(?P<es>\d+))?")
_TAKUM = re.compile(
    r"takum(?:(?P<bits>\d+)|_(?P<kind>linear|log(?:arithmic)?)(?P<bits2>\d+))(?:_(?P<kind2>linear|log(?:arithmic)?))?"
)
_LNS = re.compile(
    r"lns(?P<bits>\d+)_(?:f(?P<fraction>\d+)|gamma(?P<gamma>\d+))(?P<unsigned>_unsigned)?"
    r"(?P<nozero>_nozero)?(?P<linear>_linear)?"
)

ENTRIES: dict[str, Entry] = {
    **{
        f"posit{n}_es2": Entry(Posit(n), "posit", f"{n}-bit posit of the 2022 standard", (f"posit{n}",))
        for n in (8, 16, 32, 64)
    },
    "posit8_es0": Entry(Posit(8, 0), "posit", "8-bit posit before the standard, SoftPosit posit8"),
    "posit16_es1": Entry(Posit(16, 1), "posit", "16-bit posit before the standard, SoftPosit posit16"),
    "posit4_es1": Entry(Posit(4, 1), "posit", "4-bit posit, 1/16 to 16"),
    **{
        f"takum{n}_linear": Entry(Takum(n), "takum", f"{n}-bit linear takum", (f"takum{n}", f"takum_linear{n}"))
        for n in (8, 16, 32, 64)
    },
    **{
        f"takum{n}_log": Entry(Takum(n, True), "takum", f"{n}-bit logarithmic takum", (f"takum_log{n}",))
        for n in (8, 16, 32, 64)
    },
    "lns8_f3": Entry(LNS(8, 3), "logarithmic", "8-bit logarithm, 8 values per factor of two, zero"),
    "lns16_f7": Entry(LNS(16, 7), "logarithmic", "16-bit logarithm, 128 values per factor of two, zero"),
    "lns8_f3_unsigned_nozero": Entry(
        LNS(8, 3, signed_exponent=False, zero=False),
        "logarithmic",
        "LNS-Madam's 8 bits, gamma 8, 1 to 2^15.875",
        ("lns_madam",),
    ),
}


def read_name(name: str) -> Format | None:
    """Return the posit (`posit10_es1`), takum (`takum12_log`) or logarithmic format (`lns10_f4_linear`) of a name."""
    if m := _POSIT.fullmatch(name):
        return Posit(int(m["bits"]), int(m["es"] or 2))
    if m := _TAKUM.fullmatch(name):
        if m["kind"] and m["kind2"]:
            return None
        return Takum(int(m["bits"] or m["bits2"]), (m["kind"] or m["kind2"] or "linear").startswith("log"))
    if m := _LNS.fullmatch(name):
        return LNS(
            int(m["bits"]),
            int(m["fraction"]) if m["fraction"] else None,
            gamma=int(m["gamma"]) if m["gamma"] else None,
            signed_exponent=not m["unsigned"],
            zero=not m["nozero"],
            linear=bool(m["linear"]),
        )
    return None
