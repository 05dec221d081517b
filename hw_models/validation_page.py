"""The Markdown page of published numbers and predictions: `docs/validation.md`."""

from __future__ import annotations

import math
import textwrap
from collections import Counter
from collections.abc import Iterable

from lowp.hw_models.validation import AREAS, BASES, Check, validate

_TITLES = {
    "gpu": "GPUs and TPUs",
    "fpga": "FPGAs",
    "lut": "Lookup-table engines",
    "asic": "Datapaths in standard cells, and energies",
    "cpu": "CPUs",
}
_PAGE = """\
# Published numbers and what the models say

{count} numbers of others, each with the source that published it, how close a sound model should come, and what the
models give: {standings}. Every prediction calls the models as a user would; `lowp cost --validate` computes and prints
them again. "Missed" means predicted, but not within the tolerance; "open" means not predicted, for the reason given.
Kinds: an identity is exact arithmetic on published figures, analytic a model against published or synthesised hardware,
performance against measured time or power, ordinal an order.

Not every number reproduced is a test. Of {fitted} of them the kind adds "fitted": {BASES[fitted]}; of {stored}
"stored": {BASES[stored]}. The other {independent} were not used.

Written by `lowp cost --validate --markdown`.
"""


def validation_page(checks: Iterable[Check] | None = None) -> str:
    """Return the page: a heading and a table for each area.

    Args:
        checks: What `validate` returns; default all of it.

    Example:
        >>> print(validation_page(validate("cpu")).splitlines()[0])
        # Published numbers and what the models say
    """
    found = list(validate() if checks is None else checks)
    counts = Counter(check.standing for check in found)
    standings = ", ".join(f"{count} {standing}" for standing, count in counts.most_common())
    basis = Counter(check.basis or "independent" for check in found if check.standing == "reproduced")
    owing = {name: basis[name] for name in ("fitted", "stored", "independent")}
    parts = [_wrapped(_PAGE.format(count=len(found), standings=standings, BASES=BASES, **owing))]
    for area in AREAS:
        rows = [check for check in found if check.area == area]
        if rows:
            parts.append("\n".join([f"## {_TITLES[area]}\n", *_table(rows)]) + "\n")
    return "\n".join(parts)


def _wrapped(text: str) -> str:
    paragraphs = text.rstrip("\n").split("\n\n")
    return "\n\n".join(textwrap.fill(p, 120, break_long_words=False, break_on_hyphens=False) for p in paragraphs) + "\n"


def _table(checks: Iterable[Check]) -> list[str]:
    lines = ["| Number | Published | Predicted | Off by | Allowed | Kind | Source |"]
    lines.append("| --- | ---: | ---: | ---: | ---: | --- | --- |")
    for check in checks:
        quantity = check.quantity + (f" ({check.unit})" if check.unit not in ("", "1") else "")
        source = _sentence(check.source)
        if check.standing != "reproduced":
            source += f" **{check.standing.capitalize()}**: {_sentence(check.reason)}"
        cells = (quantity, _number(check.published), _number(check.predicted), _off(check), _allowed(check))
        kind = f"{check.kind}, {check.basis}" if check.basis else check.kind
        lines.append("| " + " | ".join(_cell(c) for c in (*cells, kind, source)) + " |")
    return lines


def _cell(text: str) -> str:
    return text.replace("|", "\\|").strip() or "-"


def _sentence(text: str) -> str:
    return text if text.endswith(".") else text + "."


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.4g}"


def _off(check: Check) -> str:
    if check.mode == "below" or not math.isfinite(check.error):
        return "-"
    if check.mode == "absolute":
        return _signed(f"{check.predicted - check.published:+.2g}")
    return _signed(f"{100 * check.error:+.1f}") + " %"


def _signed(text: str) -> str:
    return "0" if float(text) == 0 else text


def _allowed(check: Check) -> str:
    if check.mode == "below":
        return "at most"
    if math.isnan(check.tolerance):
        return "-"
    return f"{check.tolerance:g}" if check.mode == "absolute" else f"{100 * check.tolerance:g} %"
