"""Measured GEMM latencies, where they are at hand: `LOWP_GEMM_DATA`, or `shared/data` beside the checkout."""

from __future__ import annotations

import csv
import os
from pathlib import Path
from typing import NamedTuple

import pytest

_BESIDE = Path(__file__).resolve().parents[3] / "shared" / "data" / "gemm_latency" / "gemm_latency.csv"


class Measured(NamedTuple):
    """One measured product; seconds."""

    m: int
    n: int
    k: int
    seconds: float


@pytest.fixture(scope="session")
def measured_gemms() -> dict[tuple[str, str, str], list[Measured]]:
    """Measured products by (device, stack, dtype), as the measurements name them."""
    path = Path(os.environ.get("LOWP_GEMM_DATA") or _BESIDE)
    if not path.is_file():
        pytest.skip(f"no measured latencies at {path}; set LOWP_GEMM_DATA to a gemm_latency.csv")
    tables: dict[tuple[str, str, str], list[Measured]] = {}
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            point = Measured(int(row["m"]), int(row["n"]), int(row["k"]), float(row["latency_us"]) * 1e-6)
            tables.setdefault((row["device"], row["stack"], row["dtype"]), []).append(point)
    return tables
