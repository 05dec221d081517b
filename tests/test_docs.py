"""The pages of docs/ show what the code does."""

import doctest
import os
import re
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

_FLAGS = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS


@pytest.fixture(scope="module")
def programs(repo: Path) -> str:
    return (repo / "docs" / "programs.md").read_text(encoding="utf-8")


def blocks(page: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```$", page, flags=re.MULTILINE | re.DOTALL)


def test_every_example_of_programs_runs(programs: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("torch", "jax", "optax"):
        pytest.importorskip(name)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    shown = [block for block in blocks(programs) if block.startswith(">>> ")]
    examples = doctest.DocTestParser().get_doctest("\n\n".join(shown), {}, "programs.md", "programs.md", 0)
    result = doctest.DocTestRunner(optionflags=_FLAGS).run(examples)
    assert result.attempted >= 80
    assert result.failed == 0


def test_every_example_of_accumulators_runs(repo: Path) -> None:
    page = (repo / "docs" / "accumulators.md").read_text(encoding="utf-8")
    examples = doctest.DocTestParser().get_doctest(
        "\n\n".join(blocks(page)), {}, "accumulators.md", "accumulators.md", 0
    )
    result = doctest.DocTestRunner(optionflags=_FLAGS).run(examples)
    assert result.attempted >= 40
    assert result.failed == 0


def test_the_distributed_program_runs_in_two_processes(programs: str, repo: Path, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    if not torch.distributed.is_available() or not torch.distributed.is_gloo_available():
        pytest.skip("this torch has no gloo")
    others = [block for block in blocks(programs) if not block.startswith(">>> ")]
    assert len(others) == 1, "any other block is an example that runs"
    program = tmp_path / "train.py"
    # gloo's threads abort the end of the interpreter now and then, in programs without lowp too: it is left out
    program.write_text(others[0] + "\nprint('done', flush=True)\n__import__('os')._exit(0)\n", encoding="utf-8")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    common = {**os.environ, "PYTHONPATH": str(repo / "src"), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    common |= {"WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"}
    running = [
        subprocess.Popen(
            [sys.executable, "-W", "error::lowp.PrecisionWarning", program],
            env={**common, "RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        said = [process.communicate(timeout=240)[0] for process in running]
    finally:
        for process in running:
            process.kill()
    assert [process.returncode for process in running] == [0, 0], said
    assert all("done" in text for text in said), said


def test_links_lead_somewhere(repo: Path) -> None:
    for page in [repo / "README.md", *sorted((repo / "docs").glob("*.md"))]:
        text = page.read_text(encoding="utf-8")
        for target in re.findall(r"\]\(([^)\s]+)\)", text):
            path, _, anchor = target.partition("#")
            if target.startswith("http"):
                continue
            file = page.parent / path if path else page
            assert file.is_file(), f"{page.name}: {target}"
            if anchor and file.suffix == ".md":
                assert anchor in anchors(file.read_text(encoding="utf-8")), f"{page.name}: {target}"


def anchors(page: str) -> set[str]:
    """Return the anchors that a page's headings have on the usual sites."""
    headings = re.findall(r"^#+ (.*)$", page, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
