"""Put the last run into docs/performance.md and draw its pictures: `python -m benchmarks.page`.

Parts between `<!-- begin NAME -->` and `<!-- end NAME -->` are made here from build/bench/results.json and
scaling.json; the rest of the page is written by hand.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from benchmarks import first_use, plots, scaling, small
from benchmarks.report import Faster, Ratio, Row, aims_table, faster_table, formats_table
from benchmarks.run import OUT

PAGE, IMAGES = Path("docs/performance.md"), Path("docs/images")


def _load(name: str) -> dict[str, Any]:
    path = OUT / name
    return dict(json.loads(path.read_text())) if path.exists() else {}


def _without_none(record: dict[str, Any]) -> dict[str, Any]:
    return {key: float("nan") if value is None else value for key, value in record.items()}


def _all(kind: Any, records: list[dict[str, Any]]) -> list[Any]:
    return [kind(**{k: v for k, v in _without_none(r).items() if k != "met"}) for r in records]


def _machine(facts: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
    before, after = facts["load before"][0], facts.get("load after", ["unknown"])[0]
    size = f", {facts['elements']:,} elements, {facts['rounds']} rounds" if "elements" in facts else ""
    return (
        f"{facts['date']}, {facts['cpu']}, {facts['cores']} cores, {facts['system']}, Python {facts['python']}; "
        f"load {before} before and {after} after{size}. {versions}."
    )


def _memory(rows: list[Row]) -> str:
    """Return the most memory beyond the result that each of lowp's calls took."""
    lines = ["| work | how | output | beyond the result, times its size |", "| --- | --- | --- | ---: |"]
    ours = [r for r in rows if r.owner in ("lowp", "lowp.torch") and r.memory == r.memory and r.memory > 0.01]
    lines += [f"| {r.work} | {r.owner}, {r.label} | {r.into} | {r.memory:.2g} |" for r in ours]
    return "\n".join(lines) if ours else "No call of lowp takes more than a hundredth of its result beyond it."


def sections(results: dict[str, Any], scaled: dict[str, Any]) -> dict[str, str]:
    """Return the parts of the page that there are data for."""
    parts: dict[str, str] = {}
    if results:
        rows = _all(Row, results["rows"])
        parts |= {
            "machine": _machine(results["machine"]),
            "faster": faster_table(_all(Faster, results["faster"]), results["machine"].get("peers", True)),
            "formats": formats_table(rows),
            "aims": aims_table(_all(Ratio, results["aims"])),
            "memory": _memory(rows),
        }
        if results["small_arrays"]:
            parts["small"] = small.table(_all(small.Small, results["small_arrays"]))
        if results["first_uses"]:
            first = [first_use.First(**r) for r in results["first_uses"]]
            parts["first use"] = first_use.table(first)
    if scaled:
        points = _all(scaling.Point, scaled["points"])
        parts["scaling machine"] = _machine(scaled["machine"])
        for kind, heading in (("size", "elements"), ("threads", "threads"), ("block", "block"), ("table", "values")):
            parts[f"by {kind}"] = scaling.table(points, kind, heading)
    return parts


def fill(page: str, parts: dict[str, str]) -> str:
    """Return the page with its marked parts replaced; a mark without data stays as it is."""
    for name, text in parts.items():
        mark = re.compile(f"(<!-- begin {re.escape(name)} -->\n).*?(<!-- end {re.escape(name)} -->)", re.DOTALL)
        page = mark.sub(lambda m, text=text: f"{m[1]}{text}\n{m[2]}", page)
    return page


def main() -> int:
    """Rewrite the page and the pictures."""
    results, scaled = _load("results.json"), _load("scaling.json")
    PAGE.write_text(fill(PAGE.read_text(), sections(results, scaled)))
    for path in plots.draw(results.get("rows", []), scaled.get("points", []), IMAGES):
        print(path)
    print(PAGE)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
