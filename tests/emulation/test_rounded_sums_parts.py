"""Sums whose every addition is rounded: shapes, parts and threads do not change a bit of any output."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import lowp
from lowp.emulation import _rounded_sums, exact_accumulators, exact_stored
from lowp.emulation.accumulator import Accumulator
from tests.emulation.test_rounded_sums import Array, bits


def half(rng: np.random.Generator, *shape: int) -> Array:
    return rng.standard_normal(shape).astype(np.float16).astype(float)


@pytest.mark.parametrize("mode", ["ties_to_even", "stochastic_a"])
@pytest.mark.parametrize("shape", [(3, 40, 300), (300, 40, 3), (1, 9, 1), (2, 1, 513), (0, 5, 4), (4, 5, 0)])
def test_outputs_do_not_depend_on_tiles_or_threads(
    mode: str, shape: tuple[int, int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(6)
    rows, terms, columns = shape
    a, b, c = half(rng, rows, terms), half(rng, terms, columns), half(rng, rows, columns)
    fmt, accumulator = lowp.parse("float16"), Accumulator(format="float16", rounding=mode, seed=3)
    whole = _rounded_sums.run(a, b, c, accumulator, fmt, fmt)  # type: ignore[arg-type]
    for i in range(0, rows, max(rows // 3, 1)):
        for j in range(0, columns, max(columns // 3, 1)):
            one = _rounded_sums.run(
                a[i : i + 1], b[:, j : j + 1], c[i : i + 1, j : j + 1], accumulator, fmt, fmt,  # type: ignore[arg-type]
                position=i * columns + j, count=c.size,
            )  # fmt: skip
            assert bits(one)[0, 0] == bits(whole)[i, j]
    monkeypatch.setattr("lowp.rounding._threads.SERIAL_BELOW", 1)
    monkeypatch.setenv("LOWP_NUM_THREADS", "3")
    assert np.array_equal(bits(_rounded_sums.run(a, b, c, accumulator, fmt, fmt)), bits(whole))  # type: ignore[arg-type]


@pytest.mark.parametrize("mode", ["toward_zero", "stochastic_b"])
def test_a_batch_is_its_items_and_a_run_its_parts(mode: str) -> None:
    rng = np.random.default_rng(7)
    a, b, c = half(rng, 3, 5, 20), half(rng, 3, 20, 7), half(rng, 3, 5, 7)
    fmt, accumulator = lowp.parse("float16"), Accumulator(format="float16", rounding=mode)
    whole = _rounded_sums.run(a, b, c, accumulator, fmt, fmt)  # type: ignore[arg-type]
    items = [
        _rounded_sums.run(a[i], b[i], c[i], accumulator, fmt, fmt, position=i * 35, count=105)  # type: ignore[arg-type]
        for i in range(3)
    ]
    assert np.array_equal(bits(whole), bits(np.stack(items)))
    first = _rounded_sums.run(a[..., :8], b[:, :8], c, accumulator, fmt, fmt)  # type: ignore[arg-type]
    second = _rounded_sums.run(a[..., 8:], b[:, 8:], first, accumulator, fmt, fmt, first_step=8)  # type: ignore[arg-type]
    assert np.array_equal(bits(whole), bits(second))


@pytest.mark.parametrize(
    "how", [{}, {"group": 3, "group_sum": "pairwise"}, {"product": "bfloat16"}, {"order": "pairwise"}]
)
def test_numbers_that_a_run_stores(how: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """The words that the oracle draws for 13 terms, so that a run that comes next goes on from there."""
    made: list[exact_stored.Draws] = []

    class Recorded(exact_stored.Draws):
        def __init__(self, *given: Any) -> None:
            super().__init__(*given)
            made.append(self)

    monkeypatch.setattr(exact_accumulators, "Draws", Recorded)
    accumulator = Accumulator(format="float16", rounding="stochastic_a", **how)
    exact_accumulators.dot(accumulator, [1.0] * 13, [1.0] * 13)
    assert _rounded_sums.stored_count(accumulator, 13) == made[0].stored


def test_operands_are_not_changed() -> None:
    rng = np.random.default_rng(8)
    given = half(rng, 4, 6) * 2.0**-16, half(rng, 6, 3) * 2.0**-16, half(rng, 4, 3)
    copies = [x.copy() for x in given]
    fmt = lowp.parse("float16")
    for how in ({"subnormal_inputs": "zero"}, {"order": "pairwise"}, {"compensation": "two_sum"}):
        _rounded_sums.run(*given, Accumulator(format="float16", **how), fmt, fmt)  # type: ignore[arg-type]
    assert all(np.array_equal(bits(x), bits(y)) for x, y in zip(given, copies, strict=True))


def test_what_is_not_served() -> None:
    wide = np.array([[1.0, 2.0**40]]), np.array([[1.0], [2.0**-30]]), np.zeros((1, 1))
    assert not _rounded_sums.serves(Accumulator(format="float32", group=2), *wide)
    assert _rounded_sums.serves(Accumulator(format="float32", group=1), *wide)
    assert not _rounded_sums.serves(Accumulator(format="posit16"), *wide)
    alignment = lowp.Alignment(fraction_bits=24)
    assert not _rounded_sums.serves(Accumulator(format="float32", alignment=alignment), *wide)
