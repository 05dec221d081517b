"""Running the command line in this process."""

import json
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

pytest.importorskip("typer")

from lowp.cli import main


class Done(NamedTuple):
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The whole of stdout as strict JSON."""
        return json.loads(self.out, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


Run = Callable[..., Done]


@pytest.fixture
def lowp(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run `lowp` with these arguments; text is 200 columns wide and without colours."""
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("NO_COLOR", "1")

    def run(*arguments: object) -> Done:
        with pytest.raises(SystemExit) as left:
            main([str(a) for a in arguments])
        return Done(int(left.value.code or 0), *capsys.readouterr())

    return run


def assert_refused(done: Done, *parts: str) -> None:
    """A bad input ends with code 2, one line on stderr with these parts, and nothing on stdout."""
    assert done.code == 2
    assert done.out == ""
    assert done.err.startswith("Error: ")
    assert done.err.count("\n") == 1
    for part in parts:
        assert part in done.err
