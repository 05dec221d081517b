"""Errors and warnings, and the one way their messages are built.

Every message names the argument, shows what came, and says what is allowed; names get a nearest suggestion.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterable
from difflib import get_close_matches


class Error(Exception):
    """Base class of everything `lowp` raises on purpose."""


class FormatError(Error, ValueError):
    """A number format that does not exist, cannot exist, or does not fit the operation."""


class ArgumentError(Error, ValueError):
    """An argument whose value is not allowed."""


class ArgumentTypeError(Error, TypeError):
    """An argument of a type or dtype that is not allowed."""


class RangeError(Error, ValueError):
    """A value that the target cannot hold, such as a NaN in a format without NaN."""


class FileError(Error, OSError):
    """A file that cannot be read or written."""


class PrecisionWarning(UserWarning):
    """Something legal but surprising, such as a result dtype that rounds a second time."""


def warn_caller(message: str) -> None:
    """Issue a PrecisionWarning at the line outside `lowp` that led here."""
    level = 1  # of the frame that calls warn: this one
    frame = sys._getframe()  # noqa: SLF001 - the standard way to find a caller
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] == "lowp":
        frame, level = frame.f_back, level + 1
    warnings.warn(message, PrecisionWarning, stacklevel=level)


def nearest(name: str, allowed: Iterable[str]) -> str:
    """Return a sentence that suggests the names closest to `name`, or an empty string."""
    close = get_close_matches(name.lower(), list(allowed), n=3, cutoff=0.5)
    return f" Did you mean {' or '.join(repr(c) for c in close)}?" if close else ""


def unknown_name(argument: str, value: object, allowed: Iterable[str]) -> str:
    """Build the message for a name that is not in a closed list."""
    names = list(allowed)
    hint = nearest(str(value), names)
    return f"{argument}={value!r} is not known.{hint} Allowed: {', '.join(names)}."
