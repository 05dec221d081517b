"""Formats that need a table or a search, beside the FP8 kernel: encode, decode and quantize in the same turns."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
from benchmarks.timing import take_turns

import lowp

REFERENCE = "float8_e4m3fn"
FORMATS = ("posit8_es2", "posit16_es2", "takum16_linear", "takum16_log", "lns8_f3", "nf4")
VERBS = ("encode", "decode", "quantize")
HEADLINES = ("posit16_es2", "takum16_linear", "nf4")
LIMIT = 4.0  # encode and decode of the headlines take at most so many times what FP8 takes

Verb = Callable[[], np.ndarray]


@dataclass(frozen=True)
class Figure:
    """What one verb of one format took, in ns per element; `ratio` is its least sample over FP8's in the same run."""

    format: str
    verb: str
    ns: float
    ns_min: float
    ratio: float


def calls(name: str, x: np.ndarray) -> Iterator[tuple[str, Verb]]:
    """Yield each verb and its call with a new output."""
    codes = lowp.encode(x, name).codes
    yield "encode", lambda: lowp.encode(x, name).codes
    yield "decode", partial(lowp.decode, codes, name, dtype=np.float32)
    yield "quantize", partial(lowp.quantize, x, name)


def measure(x: np.ndarray, rounds: int) -> list[Figure]:
    """Time every verb of every format in turns."""
    work = {(name, verb): call for name in (REFERENCE, *FORMATS) for verb, call in calls(name, x)}
    for call in work.values():  # makes the tables and compiles
        call()
    timings = take_turns(work, rounds, budget_s=1.0)
    return [
        Figure(name, verb, t.median / x.size, t.min / x.size, t.min / timings[REFERENCE, verb].min)
        for (name, verb), t in timings.items()
    ]


def table(figures: list[Figure]) -> str:
    """Return a row for each format: ns per element and the multiple of FP8 of each verb, as Markdown."""
    head = "".join(f" {verb} | x FP8 |" for verb in VERBS)
    lines = [f"| format |{head}", "| --- |" + " ---: | ---: |" * len(VERBS)]
    for name in (REFERENCE, *FORMATS):
        cells = [f"{f.ns:.3g} | {f.ratio:.2g}" for verb in VERBS for f in figures if (f.format, f.verb) == (name, verb)]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def slow(figures: list[Figure]) -> list[str]:
    """Return the headlines that take more than `LIMIT` times what FP8 takes."""
    return [
        f"{f.format} {f.verb} {f.ratio:.2g}x"
        for f in figures
        if f.format in HEADLINES and f.verb != "quantize" and f.ratio > LIMIT
    ]
