"""The package's data files: one CSV per subject, each row with its source and how sure it is."""

from __future__ import annotations

import csv
from functools import cache
from importlib.resources import files

#: How sure a figure is, from surest to least sure.
KINDS = ("measured", "published", "derived", "assumed")


@cache
def rows(name: str) -> tuple[dict[str, str], ...]:
    """Return the rows of `data/<name>.csv` by column name; callers must not change them."""
    text = (files("lowp.hw_models") / "data" / f"{name}.csv").read_text(encoding="utf-8")
    return tuple(csv.DictReader(text.splitlines()))
