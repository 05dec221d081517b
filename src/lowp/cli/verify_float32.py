"""All 2^32 float32 inputs of one format and mode, beside a slower way to round them and the exact oracle.

Arithmetic formats are compared with the integer algorithm that serves every mode; posits, takums, logarithmic numbers
and codebooks with their sorted decision points, which are walked through in order and so need no search.

A deterministic mode never decreases. Where the result is the same for all inputs between two that the oracle has
confirmed, the oracle has therefore confirmed all of them: `steps_checked` equal to `steps` is a proof for every input.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from lowp.cli.verify_references import INFINITE, PIECE, as_float32, reference_of
from lowp.formats import Format, ScalarFormat, parse
from lowp.rounding import exact, quantize
from lowp.rounding.modes import overflow_mode
from lowp.rounding.modes import rounding as rounding_mode
from lowp.rounding.random_bits import word

PIECES = (1 << 32) // PIECE
#: Differences that are shown.
_SHOWN = 8
_ORACLE_S, _ORACLE_LEAST = 8.0, 256


@dataclass
class Difference:
    """An input, what lowp gives and what another way gives, as float32 bits."""

    x: int
    got: int
    wanted: int
    by: str

    def data(self) -> dict[str, str]:
        """Return the difference as it is printed."""
        bits = {"x": self.x, "got": self.got, "wanted": self.wanted}
        texts = {name: f"0x{b:08x} ({np.uint32(b).view(np.float32)!s})" for name, b in bits.items()}
        return texts | {"by": self.by}


@dataclass
class Outcome:
    """What came of all inputs.

    Attributes:
        inputs: How many were rounded.
        left_out: How many of them were not, because float32 does not hold the result.
        wrong: How many differ from the reference, or from the oracle.
        steps: Runs of equal results (deterministic modes).
        steps_checked: Runs of which the oracle has confirmed the first and the last input.
    """

    format: str
    rounding: str
    overflow: str
    reference: str
    inputs: int = 0
    left_out: int = 0
    wrong: int = 0
    steps: int = 0
    steps_checked: int = 0
    oracle_inputs: int = 0
    seconds: float = 0.0
    differences: list[Difference] = field(default_factory=list)

    def note(self, x: Any, got: Any, wanted: Any, by: str) -> None:
        """Keep the first differences."""
        self.wrong += len(x)
        for a, b, c in zip(x, got, wanted, strict=True):
            if len(self.differences) < _SHOWN:
                self.differences.append(Difference(int(a), int(b), int(c), by))

    def data(self) -> dict[str, Any]:
        """Return the outcome for JSON."""
        return vars(self) | {"differences": [d.data() for d in self.differences], "agrees": self.wrong == 0}


def check_all_float32(
    fmt: str | Format,
    rounding: str = "ties_to_even",
    overflow: str = "saturate",
    seed: int = 0,
    *,
    pieces: Iterable[int] = range(PIECES),
    advance: Callable[[int], None] = lambda steps: None,
) -> Outcome:
    """Round every float32 number and compare, bit for bit.

    Args:
        fmt: A scalar format of at most 32 bits (16 if it is no arithmetic one).
        rounding: A rounding mode; deterministic for formats that are not arithmetic.
        overflow: An overflow mode that does not wrap around.
        seed: Seed of a stochastic mode. Positions count from 0 in each piece.
        pieces: Which pieces of 2^20 inputs in the order of their bits.
        advance: Told after each piece.

    Raises:
        FormatError, ArgumentError: What cannot be checked so.
    """
    start = time.monotonic()
    form = parse(fmt)
    mode, beyond = rounding_mode(rounding), overflow_mode(overflow)
    how, reference = reference_of(form, mode, beyond, seed)
    assert isinstance(form, ScalarFormat)
    outcome = Outcome(form.name, mode.name, beyond, how)
    ends: list[Any] = []
    offsets = np.arange(PIECE, dtype=np.uint32)
    x, got, wanted = (np.empty(PIECE, np.uint32) for _ in range(3))
    for piece in pieces:
        first = piece * PIECE
        np.add(offsets, np.uint32(first), out=x)
        keep = reference(x, wanted, first)
        source = x if keep is None else np.where(keep, x, 0)
        quantize(source.view(np.float32), form, mode.name, beyond, seed, out=got.view(np.float32))
        _compare(outcome, x, got, wanted, keep)
        if not mode.variant:
            ends.append(_ends(x, got, keep))
        advance(1)
    if ends:
        runs = _joined(np.concatenate([np.stack(e, axis=1) for e in ends]))
        outcome.steps = len(runs)
        _ask_oracle(outcome, form, runs)
    else:
        _ask_about_words(outcome, form, seed)
    outcome.seconds = time.monotonic() - start
    return outcome


def _compare(outcome: Outcome, x: Any, got: Any, wanted: Any, keep: Any) -> None:
    outcome.inputs += x.size
    different = got != wanted
    if keep is not None:
        outcome.left_out += int(x.size - np.count_nonzero(keep))
        different &= keep
    if different.any():
        different &= ~(np.isnan(got.view(np.float32)) & np.isnan(wanted.view(np.float32)))  # all NaN are one result
        outcome.note(x[different], got[different], wanted[different], outcome.reference)


def _ends(x: Any, got: Any, keep: Any) -> tuple[Any, Any, Any]:
    """Return the first and the last input of each run of equal results, and that result; NaN inputs are left out."""
    some = min(max(INFINITE + 1 - int(x[0] & np.uint32(0x7FFFFFFF)), 0), x.size)
    x, got = (x[:some], got[:some]) if keep is None else (x[:some][keep[:some]], got[:some][keep[:some]])
    if not x.size:
        return x, x, got
    changes = np.flatnonzero(got[1:] != got[:-1])
    return x[np.append(0, changes + 1)], x[np.append(changes, x.size - 1)], got[np.append(0, changes + 1)]


def _joined(runs: Any) -> Any:
    """Return runs (first input, last input, result) with those joined that the end of a piece has cut."""
    first, last, got = runs.T
    begins = np.append(True, (first[1:] != last[:-1] + np.uint32(1)) | (got[1:] != got[:-1]))
    return np.stack([first[begins], last[np.append(begins[1:], True)], got[begins]], axis=1)


def _ask_oracle(outcome: Outcome, form: ScalarFormat, runs: Any) -> None:
    """Ask the oracle about both ends of runs in random order, until the time is up."""
    ask = partial(exact.quantize, fmt=form, rounding=outcome.rounding, overflow=outcome.overflow)
    until = time.monotonic() + _ORACLE_S
    for first, last, got in runs[np.random.default_rng(0).permutation(len(runs))]:
        if time.monotonic() > until and outcome.steps_checked >= _ORACLE_LEAST:
            break
        for x in {int(first), int(last)}:
            outcome.oracle_inputs += 1
            _judge(outcome, ask(float(np.uint32(x).view(np.float32))), x, int(got), form)
        outcome.steps_checked += 1


def _ask_about_words(outcome: Outcome, form: ScalarFormat, seed: int) -> None:
    """Ask the oracle about inputs of a stochastic mode, each with the random bits of its place."""
    bits = np.random.default_rng(0).integers(0, 1 << 32, 1 << 13, dtype=np.uint32)
    got = quantize(bits.view(np.float32), form, outcome.rounding, outcome.overflow, seed).view(np.uint32)
    for i in np.flatnonzero((bits & np.uint32(0x7FFFFFFF)) <= INFINITE):
        wanted = exact.quantize(
            float(bits[i : i + 1].view(np.float32)[0]),
            form,
            outcome.rounding,
            outcome.overflow,
            random=word(seed, int(i)),
        )
        outcome.oracle_inputs += 1
        _judge(outcome, wanted, int(bits[i]), int(got[i]), form)


def _judge(outcome: Outcome, wanted: Any, x: int, got: int, form: ScalarFormat) -> None:
    """Note a result that differs from the exact one: NaN of any bits is NaN."""
    right = as_float32(wanted)
    both_nan = wanted == "nan" and (got & 0x7FFFFFFF) > INFINITE
    if right != got and not both_nan:
        outcome.note([x], [got], [right], "oracle")
