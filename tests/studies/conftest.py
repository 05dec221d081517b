"""Stand-ins for number formats and hardware, so that these tests are about the study alone."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lowp._errors import ArgumentError
from lowp.formats import parse
from lowp.studies import StudyResult, study

torch = pytest.importorskip("torch")
FORMATS = ["float8_e4m3fn", "int8_row", "mxfp4"]


class StubEngine:
    """Real names; rounds to multiples of 2^-bits. Keeps the calls, and can be told to be interrupted."""

    def __init__(self) -> None:
        self.quantized: list[str] = []
        self.interrupt_at: str | None = None

    def parse(self, name: Any) -> Any:
        return parse(name)

    def quantize(self, x: torch.Tensor, fmt: Any, axis: int = -1) -> torch.Tensor:
        assert axis == -1
        if fmt.name == self.interrupt_at:
            raise KeyboardInterrupt
        self.quantized.append(fmt.name)
        step = 2.0**-fmt.bits
        return torch.round(x / step) * step


class StubHardware:
    """Costs proportional to the bits moved; knows the device "toy" alone, and no int4."""

    def matmuls_cost(self, shapes: Any, a: Any, b: Any, device: str) -> tuple[Any, Any]:
        if device != "toy":
            raise ArgumentError(f"device={device!r} is not known. Allowed: toy.")
        if parse(b).name == "int4_g128":
            raise ArgumentError("int4_g128 has no kernel on toy.")
        bits = sum(c * (m * k * parse(a).bits + n * k * parse(b).bits) for m, n, k, c in shapes)
        return tuple(
            SimpleNamespace(value=v, low=v / 2, high=v * 2, bound="memory", provenance="a stub; no source")
            for v in (bits * 1e-9, bits * 1e-12)
        )


@pytest.fixture
def engine() -> StubEngine:
    return StubEngine()


@pytest.fixture
def hardware() -> StubHardware:
    return StubHardware()


@pytest.fixture
def model() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(8, 6), torch.nn.ReLU(), torch.nn.Dropout(0.5), torch.nn.Linear(6, 4))


@pytest.fixture
def inputs() -> list[torch.Tensor]:
    return [torch.linspace(-1, 1, 8 * n).reshape(n, 8) for n in (3, 2)]


@pytest.fixture
def run(model: Any, inputs: Any, engine: Any, hardware: Any, tmp_path: Path) -> Any:
    """Return a function that runs the tiny study; keywords replace its arguments."""

    def call(**changes: Any) -> StudyResult:
        arguments: dict[str, Any] = {"model": model, "data": inputs, "formats": FORMATS, "devices": ["toy"]}
        arguments |= {"out": tmp_path, "progress": False, "engine": engine, "hardware": hardware}
        return study(**(arguments | changes))

    return call


@pytest.fixture
def no_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out plots and report, which take most of the time."""
    monkeypatch.setattr("lowp.studies.report.write_report", lambda result: None)
