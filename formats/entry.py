"""One row of the table of named formats."""

from __future__ import annotations

from typing import NamedTuple

from lowp.formats.spec import Format


class Entry(NamedTuple):
    """A named format: the format, its family, one sentence about it, and other names for it."""

    format: Format
    family: str
    summary: str
    aliases: tuple[str, ...] = ()
