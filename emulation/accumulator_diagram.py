"""An accumulator as text: its steps one a line, what repeats in a bracket."""

from __future__ import annotations

from collections.abc import Iterable

from lowp.emulation.accumulator import Accumulator, Alignment
from lowp.formats.spec import ScalarFormat
from lowp.rounding import modes
from lowp.rounding.exact_rules import scalar_format

_VERB = 10
_LONGEST_ORDER = 16
_READ_AS = {"zero": "zero, their signs stay", "positive_zero": "+0"}
_CORRECTIONS = {
    "kahan": ("y = p - e", "t = s + y", "e = (t - s) - y", "s = t"),
    "neumaier": ("t = s + p", "e = e + ((larger of s, p - t) + smaller)", "s = t"),
    "two_sum": ("t, r = TwoSum(s, p)", "s, e = Fast2Sum(t, e + r)"),
}
_ENDS = {"kahan": "s - e", "neumaier": "s + e", "two_sum": "s + e"}


def diagram(accumulator: Accumulator) -> str:
    """Return the steps of a sum, one a line, in the order in which they happen.

    Args:
        accumulator: The description.

    Example:
        >>> import lowp
        >>> print(diagram(lowp.Accumulator(format="float16", group=4, chunk=64, outer=lowp.Accumulator())))
        ╭─ each chunk of 64 terms, from +0
        │  ╭─ each step of 4 terms
        │  │  multiply  exactly
        │  │  add       products and running sum, exactly
        │  │  round     to float16, ties_to_even
        │  ╰─▶ running sum
        ╰─▶ partial sum
        ╭─ each partial sum, from c
        │  add       to the running sum
        │  round     to float32, ties_to_even
        ╰─▶ running sum
        ══▶ float32
    """
    mine = accumulator
    partial = mine.chunk is not None or mine.lanes > 1 or mine.splits > 1
    lines = [*_reading(mine), *_ordering(mine)]
    if not partial:
        return "\n".join([*lines, *_summing(mine, "c"), _result(mine)])
    inner = _summing(mine, "+0")
    if mine.lanes > 1:
        inner = [*_bracket(_lane_title(mine), inner, "lane's sum"), *_lane_additions(mine)]
    outer = _outer(mine)
    if mine.chunk is not None:
        inner = _bracket(f"each chunk of {_count(mine.chunk, 'term')}, from +0", inner, "partial sum")
    if mine.splits > 1:
        if mine.chunk is not None:
            inner = [*inner, *_additions(outer, "each partial sum, from +0")]
        tiles = f", of whole tiles of {mine.split_tile}" if mine.split_tile > 1 else ""
        inner = _bracket(f"each of {mine.splits} contiguous runs of terms{tiles}", inner, "partial sum")
    return "\n".join([*lines, *inner, *_additions(outer, "each partial sum, from c"), _result(outer)])


def _line(verb: str, text: str) -> str:
    return f"{verb:{_VERB}}{text}"


def _bracket(title: str, lines: Iterable[str], result: str) -> list[str]:
    return [f"╭─ {title}", *(f"│  {line}" for line in lines), f"╰─▶ {result}"]


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}{'s' * (n != 1)}"


def _result(accumulator: Accumulator) -> str:
    return f"══▶ {_format(accumulator).name}"


def _format(accumulator: Accumulator) -> ScalarFormat:
    return scalar_format(accumulator.format)


# Before the sum


def _reading(mine: Accumulator) -> list[str]:
    if mine.subnormal_inputs == "keep":
        return []
    return [_line("read", f"subnormal operands and sums as {_READ_AS[mine.subnormal_inputs]}")]


def _ordering(mine: Accumulator) -> list[str]:
    if mine.order == "random":
        return [_line("permute", f"all terms at random, seed {mine.seed}")]
    if isinstance(mine.order, str):
        return []
    shown = " ".join(map(str, mine.order[:_LONGEST_ORDER])) + " ..." * (len(mine.order) > _LONGEST_ORDER)
    return [_line("permute", f"every {_count(len(mine.order), 'term')}: {shown}")]


# Partial sums


def _outer(mine: Accumulator) -> Accumulator:
    """Return how partial sums are added."""
    return mine.outer or Accumulator(
        format=mine.format,
        rounding=mine.rounding,
        overflow=mine.overflow,
        subnormal_inputs=mine.subnormal_inputs,
        subnormal_results=mine.subnormal_results,
        signed_zero=mine.signed_zero,
        table=mine.table,
        seed=mine.seed,
    )


def _lane_title(mine: Accumulator) -> str:
    width = f", {mine.lane_width} at a time" if mine.lane_width > 1 else ""
    return f"each of {mine.lanes} lanes, terms dealt out in turn{width}, from +0"


def _lane_additions(mine: Accumulator) -> list[str]:
    how = "in a tree of halves" if mine.order == "pairwise" else "one by one"
    return [_line("add", f"lanes' sums {how}, each sum:"), *_storing(mine)]


def _additions(outer: Accumulator, title: str) -> list[str]:
    """Return how partial sums are added."""
    start = title.rsplit(" ", 1)[1]
    lines = [*_reading(outer), *_ordering(outer)]
    inner = _terms(outer, "partial sum", start)
    if outer.chunk is not None:
        inner = _terms(outer, "partial sum", "+0")
        inner = _bracket(f"each chunk of {_count(outer.chunk, 'partial sum')}, from +0", inner, "sum of a chunk")
        inner += _bracket(f"each sum of a chunk, from {start}", _adding(outer, start), "running sum")
    return [*lines, *inner]


def _terms(outer: Accumulator, noun: str, start: str) -> list[str]:
    if outer.compensation is not None:
        return _corrected(outer, f"each {noun} p, s from {start}", [])
    if outer.order == "pairwise":
        return [_line("add", f"{noun}s in a tree of halves, then {start}, each sum:"), *_storing(outer)]
    return _bracket(f"each {noun}, from {start}", _adding(outer, start), "running sum")


def _adding(outer: Accumulator, start: str) -> list[str]:
    return [_line("add", "to the running sum"), *_storing(outer)]


# One sum


def _summing(mine: Accumulator, start: str) -> list[str]:
    """Return how a run of terms is summed."""
    if mine.compensation is not None:
        return _corrected(mine, f"each term, s from {start}", [_multiplying(mine, "exact product p", "product p")])
    own = mine.order == "pairwise"
    title = "each term" if mine.group == 1 else _steps(mine.group)
    lines = _step(mine, own)
    if not own:
        from_zero = ", from c" if start == "c" else ""
        return _bracket(f"{title}{from_zero}", lines, "running sum")
    tree = [_line("add", f"the steps' sums in a tree of halves, then {start}, each sum:"), *_storing(mine)]
    return [*_bracket(title, lines, "sum of a step"), *tree]


def _steps(group: int) -> str:
    """Return what a group is called; one of the largest size is what an exact sum is described by."""
    return "one step of all terms" if group >= 1 << 40 else f"each step of {group} terms"


def _step(mine: Accumulator, own: bool) -> list[str]:
    """Return the lines of one step; `own`: of its own sum, without a running one."""
    plural = "products" if mine.group > 1 else "product"
    if mine.alignment is not None:
        return [_line("multiply", "exactly"), *_aligning(mine.alignment, plural), *_storing(mine)]
    if mine.group_sum == "fused" and mine.table is None:
        lines = [_multiplying(mine, "exactly", "")]
        if not own or mine.group > 1:
            lines.append(_line("add", f"{plural}{'' if own else ' and running sum'}, exactly"))
        return [*lines, *_storing(mine)]
    lines = [_multiplying(mine, "", "")]
    if mine.group > 1:
        how = "in a tree of halves" if mine.group_sum == "pairwise" else "one by one"
        lines += [_line("add", f"{plural} {how}, each sum:"), *_storing(mine)]
    return lines if own else [*lines, _line("add", "to the running sum"), *_storing(mine)]


def _multiplying(mine: Accumulator, exact: str, noun: str) -> str:
    """Return the line of the products; no text for exact ones: they are rounded to the accumulator's format."""
    if mine.product == "exact" and exact and mine.table is None:
        return _line("multiply", exact)
    fmt = _format(mine) if mine.product == "exact" else scalar_format(mine.product)
    flushed = ", subnormal ones become zero" if mine.subnormal_results == "zero" else ""
    looked_up = f", then to {_format(mine).name}" if mine.table is not None and fmt != _format(mine) else ""
    return _line("multiply", f"{noun}, rounded to {fmt.name}{flushed}{looked_up}".removeprefix(", "))


def _corrected(mine: Accumulator, title: str, lines: list[str]) -> list[str]:
    assert mine.compensation is not None
    steps = [_line("compute", step) for step in _CORRECTIONS[mine.compensation]]
    lines = [*lines, *steps, _line("store", "every result:"), *_storing(mine)]
    return [*_bracket(f"{title}, e from +0", lines, "s and e"), _line("add", _ENDS[mine.compensation])]


def _storing(mine: Accumulator) -> list[str]:
    """Return how a sum is stored."""
    if mine.table is not None:
        rounding = f"in a table of {_count(mine.table.fraction_bits, 'fraction bit')}, {mine.table.rounding}"
        verb, text = "look up", f"{_format(mine).name} {rounding}"
    else:
        seed = f", seed {mine.seed}" if modes.rounding(mine.rounding).variant else ""
        verb, text = "round", f"to {_format(mine).name}, {mine.rounding}{seed}"
    lines = [_line(verb, text)]
    if mine.overflow != "infinity_or_nan":
        lines.append(_line("overflow", mine.overflow))
    if mine.subnormal_results == "zero":
        lines.append(_line("flush", "subnormal results to zero, their signs stay"))
    if mine.signed_zero is not True:
        exceptions = ", or -0 where a negative sum becomes zero" if mine.signed_zero else ""
        lines.append(_line("zero", f"+0{exceptions}"))
    return lines


def _aligning(how: Alignment, plural: str) -> list[str]:
    """Return the lines of a step whose terms are cut."""
    lines = []
    if how.product_limit is not None:
        lines.append(_line("overflow", f"products of 2^{how.product_limit} and more are infinite"))
    if how.scaled_group is not None:
        count = _count(how.scaled_group, "product")
        lines.append(_line("add", f"{count} exactly, times scales; exponent: that of the scales"))
        plural = "these sums"
    after = how.running_sum == "after"
    floor = f", at least {how.zero_exponent}" if how.zero_exponent is not None else ""
    what = plural if after else f"{plural} and running sum"
    cut = [
        _line("align", f"{what} under their largest exponent E{floor}"),
        _line("cut", f"each {how.cut} at 2^(E - {how.fraction_bits})"),
        _line("add", "exactly"),
    ]
    if how.lanes > 1:
        cut = _bracket(f"each of {how.lanes} lanes, {plural} dealt out in turn", cut, "lane's sum")
        cut.append(_line("align", f"lanes' sums under the largest E, cut {how.sum_cut} at 2^(E - {how.fraction_bits})"))
        cut.append(_line("add", "exactly"))
    lines += cut
    if after:
        lines += _running_sum_after(how)
    if how.result_fraction_bits is not None:
        lines.append(_line("cut", f"result, of exponent R, {how.sum_cut} at 2^(R - {how.result_fraction_bits})"))
    return lines


def _running_sum_after(how: Alignment) -> list[str]:
    lines = [
        _line("align", "sum and running sum under the larger exponent L"),
        _line("cut", f"sum {how.sum_cut} at 2^(L - {how.sum_fraction_bits})"),
        _line("cut", f"running sum {how.sum_cut} at 2^(L - {how.running_fraction_bits})"),
    ]
    if how.running_reach is not None:
        lines.append(_line("drop", f"running sum if more than {how.running_reach} binades below L"))
    return [*lines, _line("add", "exactly")]
