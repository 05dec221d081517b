"""The rows of data behind matrix units, and names to rows."""

from __future__ import annotations

import re
import tomllib
from functools import lru_cache
from importlib.resources import files
from typing import Any, NamedTuple

from lowp._errors import nearest
from lowp.emulation.accumulator import Accumulator, Alignment
from lowp.formats.parse import parse
from lowp.formats.spec import ScalarFormat

_DATA = files("lowp.emulation") / "data" / "matrix_units"
_FILES = ("nvidia", "amd", "x86", "others", "gemm")
#: Bytes of an operand; others have one, packed FP4 and FP6 included.
_BYTES = {"f16": 2, "bf16": 2, "tf32": 4, "xf32": 4}
#: A step of this many terms is as good as any longer one.
_NO_STEP = 1
_INSTRUCTION = re.compile(
    r"(?P<name>mma|wmma|wgmma|tcgen05)_m\d+n\d+k(?P<k>\d+)(?:_(?P<kind>(?!block)[a-z0-9_]+?))?"
    r"(?:_block(?P<block>[1-9]\d*))?",
    re.ASCII,
)
_MFMA = re.compile(r"(?P<name>mfma)_\d+x\d+x(?P<k>\d+)(?:_(?P<kind>1k|\d+b))?", re.ASCII)
_OTHER = re.compile(r"(?P<name>[a-z0-9_]+?)(?:_block(?P<block>[1-9]\d*))?", re.ASCII)
#: Formats of results and addends that NVIDIA's instructions combine.
_ADDENDS = ("f16", "f32")


class Coding(NamedTuple):
    """How codes of an operand are stored."""

    format: ScalarFormat
    container: int
    ignored: int  # low bits that are not read
    nan: int | None


class Row(NamedTuple):
    """Units that are alike: one row of a data file."""

    architecture: str
    instruction: str
    kind: str
    block: int
    shapes: tuple[str, ...]
    operands: tuple[str, ...]  # with scales
    sums: dict[str, Accumulator]
    given: dict[str, Any]
    source: str

    def terms(self, shape: str) -> int | None:
        """Return the terms of one instruction."""
        return int(re.split("k|x", shape)[-1]) if shape else None


class Asked(NamedTuple):
    """The parts of a name."""

    architecture: str
    instruction: str
    kind: str
    block: int
    terms: int | None
    operands: str
    result: str
    addend: str


@lru_cache(maxsize=64)
def coding(name: str) -> Coding:
    """Return how codes of a format, by its name in the names of units, are stored."""
    given = _read("formats")["formats"][name]
    return Coding(parse(given["format"]), given["container"], given.get("ignored", 0), given.get("nan"))  # type: ignore[arg-type]


@lru_cache(maxsize=1)
def names() -> tuple[str, ...]:
    """Return every name that the rows list."""
    found = []
    for row in _rows():
        for shape in row.shapes or ("",):
            for operands in row.operands:
                found += [_name(row, shape, operands, result) for result in _results(row)]
    return tuple(dict.fromkeys(found))


def found(name: str) -> dict[str, Any] | None:
    """Return the fields of the unit of a name; None: no row has it."""
    asked = _asked(name)
    if asked is None:
        return None
    for row in _rows():
        if _matches(row, asked):
            return _fields(row, asked)
    return None


def unknown(name: object) -> str:
    """Return what is said to a name that no row has."""
    hint = nearest(str(name), list(names()))
    return (
        f"unit={name!r} is not known.{hint} Names are <architecture>/<instruction>/<operands>/<result>; "
        "lowp.matrix_units() lists them."
    )


@lru_cache(maxsize=8)
def _read(file: str) -> dict[str, Any]:
    return tomllib.loads((_DATA / f"{file}.toml").read_text(encoding="utf-8"))


@lru_cache(maxsize=1)
def _rows() -> tuple[Row, ...]:
    rows = []
    for file in _FILES:
        data = _read(file)
        sums = {key: _accumulator(given) for key, given in data["sums"].items()}
        for given in data["units"]:
            pairs = given.get("pairs") or [f"{a}_{b}" for a in given["operands"] for b in given["operands"]]
            operands = (
                [f"{pair}_{scale}" for pair in pairs for scale in given["scales"]] if "scales" in given else pairs
            )
            rows += [
                Row(
                    architecture,
                    given["instruction"],
                    given.get("kind", ""),
                    given.get("block", 0),
                    tuple(given.get("shapes", ())),
                    tuple(operands),
                    {result: sums[key] for result, key in given["sums"].items()},
                    given,
                    given.get("source", data["source"]),
                )
                for architecture in given["architectures"]
            ]
    return tuple(rows)


def _accumulator(given: dict[str, Any]) -> Accumulator:
    fields = dict(given)
    if "alignment" in fields:
        fields["alignment"] = Alignment(**fields["alignment"])
    if "outer" in fields:
        fields["outer"] = _accumulator(fields["outer"])
    if isinstance(fields.get("order"), list):
        fields["order"] = tuple(fields["order"])
    return Accumulator(**fields)


def _results(row: Row) -> list[str]:
    """Return the results of a row, and those with an addend of another format that NVIDIA's float16 units have."""
    results = list(row.sums)
    if row.instruction == "mma" and row.shapes == ("m8n8k4",) and "f16" in results:
        results.insert(results.index("f32") + 1, "f32_cf16")
    return results


def _name(row: Row, shape: str, operands: str, result: str) -> str:
    kind = f"_{row.kind}" if row.kind and row.kind != "blocks" else ""
    block = f"_block{row.block}" if row.block else ""
    size = f"_{shape}" if shape else ""
    return f"{row.architecture}/{row.instruction}{size}{kind}{block}/{operands}/{result}"


def _asked(name: object) -> Asked | None:
    parts = name.split("/") if isinstance(name, str) else []
    if len(parts) != 4:
        return None
    architecture, instruction, operands, result = parts
    result, other, addend = result.partition("_c")
    if other and addend not in _ADDENDS:
        return None
    match = _INSTRUCTION.fullmatch(instruction) or _MFMA.fullmatch(instruction)
    if match is None:
        plain = _OTHER.fullmatch(instruction)
        if plain is None:
            return None
        return Asked(
            architecture, plain["name"], "", int(plain["block"] or 0), None, operands, result, addend or result
        )
    parts_of = match.groupdict()
    block, kind = int(parts_of.get("block") or 0), parts_of["kind"] or ""
    return Asked(architecture, parts_of["name"], kind, block, int(parts_of["k"]), operands, result, addend or result)


def _matches(row: Row, asked: Asked) -> bool:
    if row.architecture != asked.architecture or asked.operands not in row.operands or row.block != asked.block:
        return False
    if asked.result not in row.sums or not (asked.addend == asked.result or _takes_addends(row, asked.result)):
        return False
    if not row.shapes:
        return asked.instruction == (f"{row.instruction}_{row.kind}" if row.kind else row.instruction)
    blocks = row.kind == "blocks" and (not asked.kind or asked.kind.endswith("b"))
    if row.instruction != asked.instruction or not (blocks or row.kind == asked.kind):
        return False
    return asked.terms in {row.terms(shape) for shape in row.shapes}


def _takes_addends(row: Row, result: str) -> bool:
    """Whether there may be addends of the other format: only float16 products of NVIDIA's warps have them."""
    return row.instruction in ("mma", "wmma") and row.operands == ("f16_f16",) and result in _ADDENDS


def _fields(row: Row, asked: Asked) -> dict[str, Any]:
    a, b, *scale = asked.operands.split("_")
    given, accumulator = row.given, row.sums[asked.result]
    step = given.get("step") or given.get("step_bytes", _NO_STEP) // _BYTES.get(given.get("reads", a), 1)
    if asked.terms is not None:
        step = min(step, asked.terms)
    recorded = f"{a}_{b}/{asked.result}" in given.get("recorded", ()) and asked.addend == asked.result
    return {
        "a": a,
        "b": b,
        "c": asked.addend,
        "d": asked.result,
        "terms": asked.terms,
        "accumulator": accumulator if accumulator.group > 1 else _grouped(accumulator, step),
        "scale": scale[0] if scale else None,
        "block": row.block,
        "reads": given.get("reads"),
        "standing": "recorded" if recorded else given["standing"],
        "evidence": given["evidence"] if recorded or "recorded" not in given else "as its recorded neighbours",
        "source": row.source,
    }


def _grouped(accumulator: Accumulator, step: int) -> Accumulator:
    from dataclasses import replace

    return replace(accumulator, group=max(step, 1)) if step > 1 else accumulator
