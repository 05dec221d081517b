"""What a new process pays: for the import, for the first call, and never again for another format, mode or shape.

Times are the process's own, the least of a few, so that other programs on the machine hardly count.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lowp

pytest.importorskip("numba")

SOURCE = Path(__file__).resolve().parent.parent / "src"
IMPORT_S, WARM_S, COLD_S = 0.15, 0.5, 5.0
FIRST = """
import time, numpy as np, lowp
x = np.linspace(-3, 3, 4096, dtype=np.float32).reshape(64, 64)
start = time.process_time()
lowp.quantize(x, {name!r})
print(time.process_time() - start)
"""
IMPORT = "import time, numpy\nstart = time.process_time()\nimport lowp\nprint(time.process_time() - start)"

ARITHMETIC = (
    "float8_e4m3fn",
    "float8_e5m2",
    "bfloat16",
    "tf32",
    "e5m7",
    "float6_e3m2fn",
    "float4_e2m1fn",
    "int8",
    "fixed12_7",
)
MODES = (
    "ties_to_even",
    "ties_to_away",
    "toward_zero",
    "toward_positive",
    "toward_negative",
    "away_from_zero",
    "to_odd",
)


def seconds(code: str, **environment: str) -> float:
    """Run code in a new process and return the seconds that it prints."""
    kept = {"PYTHONDONTWRITEBYTECODE": ""}  # modules are compiled once, as everywhere
    surroundings = {**os.environ, **kept, "PYTHONPATH": str(SOURCE), **environment}
    done = subprocess.run([sys.executable, "-c", code], env=surroundings, capture_output=True, text=True, check=True)
    return float(done.stdout)


def test_the_import_costs_little_over_that_of_numpy() -> None:
    assert min(seconds(IMPORT) for _ in range(4)) < IMPORT_S


@pytest.mark.parametrize("name", ["float8_e4m3fn", "mxfp4", "posit8_es2"])
def test_the_first_call_with_compiled_code_on_disk(name: str) -> None:
    code = FIRST.format(name=name)
    seconds(code)
    assert min(seconds(code) for _ in range(4)) < WARM_S


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["float8_e4m3fn", "bfloat16", "int8", "mxfp4", "nvfp4", "int8_row", "posit8_es2", "nf4"]
)
def test_the_first_call_of_all(name: str, tmp_path: Path) -> None:
    times = [seconds(FIRST.format(name=name), NUMBA_CACHE_DIR=str(tmp_path / str(i))) for i in range(2)]
    assert min(times) < COLD_S


def test_numba_is_as_it_was() -> None:
    """Its question for a BLAS is put off, not answered for good."""
    code = """
import time, numpy as np, numba, lowp, importlib.util
lowp.quantize(np.ones(3, np.float32), "float8_e4m3fn")
from numba.np import arraymath, linalg
installed = importlib.util.find_spec("scipy") is not None
print(int(arraymath._HAVE_BLAS == installed and arraymath.ensure_blas is linalg.ensure_blas))
"""
    assert seconds(code) == 1


def compiled() -> dict[str, int]:
    """Return how many versions each compiled function of lowp has in this process."""
    from numba.core.dispatcher import Dispatcher

    modules = [m for name, m in list(sys.modules.items()) if name.startswith("lowp.")]
    found = {id(v): v for m in modules for v in vars(m).values() if isinstance(v, Dispatcher)}
    return {f"{v.py_func.__module__}.{v.py_func.__name__}": len(v.signatures) for v in found.values()}


def recompiled(before: dict[str, int]) -> dict[str, int]:
    """Return the functions that have been compiled once more; one that is new may be compiled once."""
    return {name: count for name, count in compiled().items() if count > max(before.get(name, 0), 1)}


def arrays(dtype: Any = np.float32) -> Iterator[np.ndarray]:
    """Yield numbers of many shapes and kinds of memory."""
    x = np.random.default_rng(0).standard_normal((32, 64)).astype(dtype)
    yield x
    yield x[0, 0]
    yield x[:0]
    yield x.reshape(4, 8, 64)
    yield x.T
    yield x[:, ::3]
    yield x[::-1]
    yield np.broadcast_to(x[0], (3, 64))
    yield np.frombuffer(b"0" + x.tobytes(), np.uint8)[1:].view(dtype)
    yield x.astype(x.dtype.newbyteorder())
    yield np.tile(x, (160, 1))
    locked = x.copy()
    locked.flags.writeable = False
    yield locked


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
def test_one_version_serves_every_arithmetic_format_mode_and_shape(dtype: Any) -> None:
    x = next(arrays(dtype))
    for mode in ("ties_to_even", "stochastic"):
        for name in ("float8_e4m3fn", "bfloat16", "e2m12" if dtype == np.float64 else "int8"):
            lowp.quantize(x, name, mode)
    before = compiled()
    for name in ARITHMETIC:
        if dtype == np.float16 and name in ("bfloat16", "tf32", "fixed12_7"):
            continue
        for mode in (*MODES, "stochastic"):
            for overflow in ("saturate", "infinity_or_nan", "propagate"):
                lowp.quantize(x, name, mode, overflow)
        for values in arrays(dtype):
            lowp.quantize(values, name)
            lowp.quantize(values, name, "stochastic", seed=3)
    assert recompiled(before) == {}


@pytest.mark.parametrize("verb", [lowp.quantize, lowp.encode])
@pytest.mark.parametrize("name", ["mxfp8_e4m3", "nvfp4", "int8_row", "posit8_es2", "takum16_linear", "nf4", "lns8_f3"])
def test_one_version_serves_every_shape(verb: Any, name: str) -> None:
    every = [x for x in arrays() if x.ndim]  # a block format wants a dimension
    for values in (every[0], every[1], every[-2]):  # small, empty and large arrays may take different ways
        verb(values, name)
    before = compiled()
    for values in every:
        verb(values, name)
    assert recompiled(before) == {}


def test_the_count_can_fail() -> None:
    from lowp.rounding._kernels import look_up

    table = np.zeros(4, np.int16)  # a dtype that no caller uses
    look_up(np.zeros(3, np.uint8), table.astype(np.float32), np.zeros(3, np.float32))
    before = compiled()
    look_up(np.zeros(3, np.uint8), table, np.zeros(3, np.int16))
    assert recompiled(before) == {"lowp.rounding._kernels.look_up": before["lowp.rounding._kernels.look_up"] + 1}
