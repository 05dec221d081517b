"""The law of arithmetic: a result is the exact one, rounded once."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lowp._errors import ArgumentError, RangeError, unknown_name
from lowp.emulation import exact_ops
from lowp.formats import Format
from lowp.formats.spec import ScalarFormat
from lowp.formats.tables import code_dtype
from lowp.rounding import exact
from lowp.testing import _points
from lowp.testing._laws import Law, Subject, code_rows, enforce
from lowp.testing._show import code_text, lines, same_code
from lowp.testing.laws import deterministic

_SHORT = {
    "+": "add",
    "-": "subtract",
    "*": "multiply",
    "/": "divide",
    "sub": "subtract",
    "mul": "multiply",
    "div": "divide",
}


def check_arithmetic(
    my_op: Callable[..., Any],
    op: str,
    fmt: Format | str,
    rounding: str = "ties_to_even",
    overflow: str = "infinity_or_nan",
    *,
    nan: str = "error",
    rows: int = 4096,
    max_examples: int = 200,
) -> None:
    """Check that an operation on codes gives the code of the exact result, rounded once.

    Codes with the same meaning count as equal, so any NaN is right for a NaN. Special cases are those of
    `lowp.emulation.exact_ops.operate`. Operands whose result is NaN are left out where the format has none, unless
    `nan` says what they give.

    Args:
        my_op: The implementation: one array, or one integer, of codes per operand, to codes.
        op: An operation of `exact_ops.OPERATIONS`, or "+", "-", "*", "/", "sub", "mul", "div".
        fmt: A scalar format of at most 64 bits, or its name: of the operands and of the result.
        rounding: A deterministic rounding mode.
        overflow: An overflow mode; the default is that of IEEE 754.
        nan: What NaN becomes in a format without NaN: "error", "zero" or "max".
        rows: How many combinations of operands to go through before searching: all, if they are no more; else those of
            codes next to zero, powers of two and the ends first.
        max_examples: Examples of the search; 0 leaves it out, and Hypothesis is then not needed.

    Raises:
        AssertionError: A result is wrong; the message shows the simplest operands and both codes.
        ArgumentError, FormatError, ImportError: As `check_conversion`.

    Example:
        >>> import lowp
        >>> def product(a: int, b: int) -> int:
        ...     exact = lowp.exact.decode(a, "posit5_es1"), lowp.exact.decode(b, "posit5_es1")
        ...     return 16 if "nan" in exact else lowp.exact.encode(exact[0] * exact[1], "posit5_es1")
        >>> check_arithmetic(product, "multiply", "posit5_es1", max_examples=5)
        >>> check_arithmetic(product, "add", "posit5_es1", max_examples=0)
        Traceback (most recent call last):
        AssertionError: add in posit5_es1, ties_to_even, infinity_or_nan: broken by ... inputs, the simplest:
          operand  0x00 0|0000 = 0
          operand  0x01 0|0001 = 0.015625
          got      0x00 0|0000 = 0
          expected 0x01 0|0001 = 0.015625
    """
    form, mode, name = _points.scalar(fmt), deterministic(rounding), _SHORT.get(op, op)
    if name not in exact_ops.OPERATIONS:
        raise ArgumentError(unknown_name("op", op, [*exact_ops.OPERATIONS, *_SHORT]))
    count = exact_ops.OPERATIONS[name][0]
    subject = Subject(my_op)

    @cache
    def expected(operands: tuple[int, ...]) -> int | None:
        numbers = [form.meaning(code) for code in operands]
        try:
            return exact_ops.operate(name, numbers, form, mode, overflow, nan=nan)
        except RangeError:
            return None

    def judge(got: Any, *operands: int) -> str | None:
        wanted = expected(operands)
        if wanted is None or same_code(int(got), wanted, form):
            return None
        shown = "\n".join(lines(operand=code_text(code, form)) for code in operands)
        return f"{shown}\n{lines(got=code_text(int(got), form), expected=code_text(wanted, form))}"

    def suspects(results: NDArray[Any], *columns: NDArray[Any]) -> NDArray[np.bool_]:
        operands = zip(*(column.tolist() for column in columns), strict=True)
        return np.array([judge(got, *row) is not None for got, row in zip(results.tolist(), operands, strict=True)])

    law = Law(f"{name} in {form.name}, {mode}, {overflow}", subject, suspects, judge)
    table = [row for row in _combinations(form, count, rows) if expected(row) is not None]
    columns = tuple(np.array(column, code_dtype(form.bits)) for column in zip(*table, strict=True))

    def searched() -> Any:
        return code_rows(form, count)().filter(lambda row: expected(row) is not None)

    enforce(law, columns, searched, exhaustive=rows > 0, max_examples=max_examples)


def _combinations(fmt: ScalarFormat, count: int, rows: int) -> Iterator[tuple[int, ...]]:
    """Return every combination of `count` codes, or about `rows` of codes at corners and spread between them."""
    each = max(1, int(rows ** (1 / count) + 1e-9))
    total = 1 << fmt.bits
    if total <= each:
        chosen = list(range(total))
    else:
        one = exact.encode(1, fmt)
        corners = [
            0,
            1,
            2,
            3,
            total - 1,
            total - 2,
            total >> 1,
            (total >> 1) - 1,
            (total >> 1) + 1,
            one,
            one + 1,
            one - 1,
        ]
        spread = list(range(5, total, max(1, total // each | 1)))
        chosen = list(dict.fromkeys(code % total for code in corners + spread))[:each]
    return itertools.product(chosen, repeat=count)
