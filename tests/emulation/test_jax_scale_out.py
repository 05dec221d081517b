"""Eight virtual JAX devices give the quantized tensors of one, stochastic rounding included."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("jax")


def test_eight_devices_round_as_one(repo):
    program = Path(__file__).with_name("jax_scale_out_program.py")
    environment = {**os.environ, "PYTHONPATH": str(repo / "src")}
    run = subprocess.run([sys.executable, program], capture_output=True, text=True, env=environment, timeout=900)
    assert run.returncode == 0, run.stderr[-4000:]
    assert run.stdout.strip() == "same bits"
