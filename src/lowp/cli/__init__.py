"""The command line: `lowp formats`, `show`, `round`, `compare`, `study`, `recipes`, `cost`, `vectors`,
`verify-vectors` and `verify`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import NoReturn

from lowp._errors import Error

__all__ = ["main"]

BAD_INPUT = 2
INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and leave the interpreter.

    Exit codes: 0 done; 1 a difference that `verify-vectors` or `verify` found; 2 a wrong argument or a bad file, with
    one line on stderr; 130 interrupted.

    Args:
        arguments: What follows the program's name; default `sys.argv[1:]`.

    Raises:
        SystemExit: Always.
    """
    try:
        from lowp.cli.app import app
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("lowp"):
            raise
        print(f"Error: the command line needs {error.name!r}; install lowp[cli].", file=sys.stderr)
        sys.exit(BAD_INPUT)
    try:
        app(args=None if arguments is None else list(arguments), prog_name="lowp")
    except Error as error:
        print(f"Error: {error}", file=sys.stderr)
        sys.exit(BAD_INPUT)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    sys.exit(0)
