"""Formats as strings, for graphs and operators that take no Python objects."""

from __future__ import annotations

from functools import lru_cache
from hashlib import sha256

from lowp._errors import FormatError
from lowp.formats.parse import parse
from lowp.formats.spec import Format

#: Formats that `parse` cannot make from their names, by their keys.
_UNNAMED: dict[str, Format] = {}


@lru_cache(maxsize=1024)
def key_of(fmt: Format) -> str:
    """Return a string that stands for a format: its name, or where that does not lead back to it, name and digest.

    The string depends on the format's parameters alone, so it is the same in every process.

    Example:
        >>> from lowp.formats import Codebook
        >>> key_of(parse("mxfp4")), format_of(key_of(Codebook([0.0, 1.5, 4.0]))).values
        ('mxfp4', (0.0, 1.5, 4.0))
    """
    try:
        if parse(fmt.name) == fmt:
            return fmt.name
    except FormatError:
        pass
    key = f"{fmt.name.replace('|', '/')}@{sha256(repr(fmt).encode()).hexdigest()[:24]}"
    _UNNAMED[key] = fmt
    return key


def format_of(key: str) -> Format:
    """Return the format that `key_of` gave a key; what follows a "|" in it is not about the format.

    Raises:
        FormatError: The key is neither a name nor one that `key_of` has given in this process.
    """
    key = key.partition("|")[0]
    known = _UNNAMED.get(key)
    if known is None and "@" in key:
        raise FormatError(f"format={key!r} is not known in this process: make the format first, then lowp can read it.")
    return known or parse(key)
