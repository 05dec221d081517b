"""The benchmark runs, writes what it should, and puts a faster peer at the top."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
pytest.importorskip("numba")


def run(module: str, *arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    surroundings = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "src")])}
    command = [sys.executable, "-m", f"benchmarks.{module}", *arguments]
    return subprocess.run(command, cwd=folder, env=surroundings, capture_output=True, text=True, timeout=300)


def test_one_work(tmp_path: Path) -> None:
    arguments = ("fp4", "pack_fp4", "decode_mxfp4", "--no-peers", "--rounds", "1", "--size", "8192")
    done = run("run", *arguments, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "build/bench/results.json").read_text())
    rows = [r for r in results["rows"] if r["owner"] == "lowp"]
    assert {r["work"] for r in rows} == {"fp4", "pack_fp4", "decode_mxfp4"}
    assert all((r["status"], r["bits"]) == ("ok", "same") for r in rows)
    assert {(a["work"], a["target"]) for a in results["aims"]} >= {("fp4", 1.1), ("fp4", 1.3), ("pack_fp4", 1.1)}
    report = (tmp_path / "build/bench/results.md").read_text()
    assert report.index("## Peers that are faster") < report.index("## Formats") < report.index("## Aims")
    assert run("run", "fp5", folder=tmp_path).returncode == 2


def test_a_faster_peer_is_named_and_an_aim_that_is_missed() -> None:
    sys.path.insert(0, str(ROOT))
    try:
        from benchmarks import page, report
        from benchmarks.works import WORKS
    finally:
        sys.path.remove(str(ROOT))

    def row(owner: str, into: str, ns: float) -> report.Row:
        return report.Row("e4m3fn", owner, "call", into, n=1 << 20, ns=ns, ns_min=ns)

    rows = [
        row("copy", "existing", 1.0),
        row("copy", "new", 2.0),
        row("lowp", "existing", 1.05),
        row("lowp", "new", 3.0),
    ]
    assert report.faster_peers(rows) == []
    assert report.faster_table([]) == "No peer is faster than lowp in any work."
    rows += [row("quick", "new", 2.5), row("slow", "existing", 2.0)]
    (found,) = report.faster_peers(rows)
    assert (found.peer, found.ns, found.lowp_ns) == ("quick, call", 2.5, 3.0)
    assert "| e4m3fn | quick, call | 2.5 |" in report.faster_table([found])
    aims = report.ratios(WORKS[0], rows)
    assert [(a.x, a.met) for a in aims] == [(1.05, True), (1.5, False)]
    text = "a\n<!-- begin faster -->\nold\n<!-- end faster -->\nb"
    assert page.fill(text, {"faster": "new"}) == "a\n<!-- begin faster -->\nnew\n<!-- end faster -->\nb"
