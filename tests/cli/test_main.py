"""The program as a whole: version, help, exit codes."""

import subprocess
import sys

import pytest

import lowp as package
from lowp.cli import app as commands
from lowp.cli import main
from tests.cli.conftest import Run


def test_version(lowp: Run) -> None:
    assert lowp("--version") == (0, f"lowp {package.__version__}\n", "")


def test_help_names_every_command(lowp: Run) -> None:
    done = lowp("--help")
    assert done.code == 0
    for name in ("formats", "show", "round", "compare", "study", "recipes", "vectors", "verify-vectors"):
        assert f" {name} " in done.out


@pytest.mark.parametrize(
    "command", ["formats", "show", "round", "compare", "study", "recipes", "vectors", "verify-vectors"]
)
def test_every_command_has_json(lowp: Run, command: str) -> None:
    assert "--json" in lowp(command, "--help").out


@pytest.mark.parametrize("arguments", [["frobnicate"], ["show"], ["round", "1"], ["formats", "--frobnicate"]])
def test_wrong_usage_ends_with_2(lowp: Run, arguments: list[str]) -> None:
    done = lowp(*arguments)
    assert done.code == 2
    assert done.out == ""
    assert done.err


def test_interrupt_ends_with_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(**_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(commands, "app", interrupted)
    with pytest.raises(SystemExit) as left:
        main([])
    assert left.value.code == 130


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delitem(sys.modules, "lowp.cli.app")
    monkeypatch.setitem(sys.modules, "typer", None)
    monkeypatch.delattr("lowp.cli.app")
    with pytest.raises(SystemExit) as left:
        main([])
    assert left.value.code == 2
    assert capsys.readouterr().err == "Error: the command line needs 'typer'; install lowp[cli].\n"


def test_python_m_lowp() -> None:
    command = [sys.executable, "-m", "lowp", "round", "0.1", "fp9"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert done.stderr.startswith("Error: format='fp9' is not known.")
    assert "Traceback" not in done.stderr
