"""Steps of a few terms, each summed exactly and rounded once, against rational numbers and matrix units."""

import itertools
import math
import warnings
from fractions import Fraction

import numpy as np
import pytest

from lowp.emulation import _exact_bins, _exact_groups
from lowp.emulation._operands import decoded
from lowp.emulation._stored_plan import is_storable
from lowp.emulation.accumulator import Accumulator
from lowp.formats.float_format import Float
from lowp.formats.parse import parse
from lowp.rounding import exact
from lowp.rounding.exact import exact_value
from lowp.rounding.modes import INTEGER_ONLY
from tests.conftest import Vectors
from tests.emulation.exact_sums_reference import FLOAT64, NAMES, numbers, step


def stored(total, start, fmt, accumulator: Accumulator):
    """Return what a step's exact sum is stored as, by the oracle of rounding."""
    if total in ("inf", "-inf") and accumulator.overflow == "wrap":
        return None
    code = exact.encode(total, fmt, accumulator.rounding, accumulator.overflow, nan="zero")
    return fmt.meaning(code) if total != "nan" else "nan"


def check_run(a, b, c, accumulator: Accumulator) -> int:
    fmt = accumulator.format
    got = _exact_bins.run(a, b, c, accumulator, FLOAT64, FLOAT64)
    checked = 0
    for i, j in itertools.product(range(len(a)), range(b.shape[1])):
        running = Fraction(0) if c is None else exact_value(float(c[i, j]))
        for first in range(0, a.shape[1], accumulator.group):
            terms = slice(first, first + accumulator.group)
            pairs = zip(a[i, terms], b[terms, j], strict=True)
            running = stored(step(pairs, running, accumulator.rounding == "toward_negative"), running, fmt, accumulator)
            if running in (None, "nan"):
                break
        if running is None:
            continue
        wanted = NAMES[running] if isinstance(running, str) else float(running)
        same = np.array(got[i, j]).tobytes() == np.array(wanted).tobytes() or (np.isnan(wanted) and np.isnan(got[i, j]))
        assert same, (
            accumulator, a[i].tolist(), b[:, j].tolist(), None if c is None else c[i, j], got[i, j], wanted,
        )  # fmt: skip
        checked += 1
    return checked


MODES = ("ties_to_even", "ties_to_away", "toward_zero", "toward_negative", "toward_positive", "to_odd")


@pytest.mark.parametrize(
    "fmt", ["float32", "float16", "bfloat16", "float64", "float8_e5m2", "e8m13", "int8", "fixed16_8"]
)
@pytest.mark.parametrize("rounding", MODES)
def test_steps_against_rational_numbers(fmt: str, rounding: str) -> None:
    rng = np.random.default_rng(len(fmt) * 7 + len(rounding))
    form, checked = parse(fmt), 0
    for overflow, group, terms in itertools.product(
        ("saturate", "wrap", "infinity_or_nan"), (1, 2, 4, 7, 64), (0, 1, 9, 130)
    ):
        if overflow in INTEGER_ONLY and isinstance(form, Float):
            continue
        if not is_storable(form, rounding, overflow):
            continue
        if rounding == "to_odd" and overflow == "infinity_or_nan":
            continue  # which side of the largest number is taken is the storing kernels' matter
        if group < 64 < terms:
            continue
        names = rng.choice(["float8_e4m3fn", "float16", "bfloat16", "float32", "float64", "posit16_es1", "int8"], 2)
        a, b = numbers(rng, names[0], (2, terms), rng.random() < 0.8), numbers(rng, names[1], (terms, 3))
        if terms > 2 and rng.random() < 0.5:
            half = terms // 2
            a[:, half : 2 * half], b[half : 2 * half] = -a[:, :half], b[:half]
        c = None if rng.random() < 0.3 else numbers(rng, fmt, (2, 3))
        accumulator = Accumulator(format=fmt, rounding=rounding, overflow=overflow, group=group)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            checked += check_run(a, b, c, accumulator)
    assert checked >= 90


@pytest.mark.parametrize("group", [2, 4, 64])
def test_steps_in_floats_and_in_integers_agree(group: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(group)
    for name, fmt in (("float16", "float32"), ("bfloat16", "float32"), ("float8_e4m3fn", "float16")):
        a, b = numbers(rng, name, (9, 128)) / 2**100, numbers(rng, name, (128, 140))
        a[3, 100], a[4, 5:7], b[70, 7] = math.nan, (math.inf, -math.inf), -math.inf
        b[:, ::2] = rng.choice([1.0, -1.0, 0.5, 0.0, -0.0], b[:, ::2].shape)
        accumulator = Accumulator(format=fmt, group=group)
        fast = _exact_bins.run(a, b, None, accumulator, FLOAT64, FLOAT64)
        with monkeypatch.context() as patch:
            patch.setattr(_exact_groups, "_WAYS", {})
            patch.setattr(_exact_groups, "_LONG", 1 << 40)
            slow = _exact_bins.run(a, b, None, accumulator, FLOAT64, FLOAT64)
        np.testing.assert_array_equal(np.isnan(fast), np.isnan(slow))
        kept = ~np.isnan(fast)
        assert kept.sum() > 900
        assert np.isinf(fast).any()
        np.testing.assert_array_equal(fast[kept].view(np.int64), slow[kept].view(np.int64))


@pytest.mark.parametrize("fmt", ["int8", "int32", "fixed16_8", "float32", "float16"])
def test_steps_that_never_round_are_taken_together(fmt: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(len(fmt))
    overflows = ("wrap", "saturate") if fmt not in ("float32", "float16") else ("infinity_or_nan",)
    for overflow, scale in itertools.product(overflows, (0, -4, 1)):
        a, b = rng.integers(-8, 8, (7, 90)) * 2.0**scale, rng.integers(-8, 8, (90, 8)) * 1.0
        b[:, 0] *= rng.choice([0.0, -0.0], 90)
        c = np.where(rng.random((7, 8)) < 0.5, -0.0, rng.integers(-100, 28, (7, 8)) * 1.0)
        accumulator = Accumulator(format=fmt, overflow=overflow, group=4)
        together = _exact_bins.run(a, b, c, accumulator, FLOAT64, FLOAT64)
        with monkeypatch.context() as patch:
            patch.setattr(_exact_groups, "_never_rounds", lambda *_: False)
            apart = _exact_bins.run(a, b, c, accumulator, FLOAT64, FLOAT64)
        np.testing.assert_array_equal(together.view(np.int64), apart.view(np.int64))


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("fmt", ["int8", "int32", "uint8", "fixed16_8"])
def test_wrapping_of_large_sums(fmt: str, together: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not together:
        monkeypatch.setattr(_exact_groups, "_never_rounds", lambda *_: False)
    for exponent, c, group in itertools.product((0, 5, 20, 28, *range(50, 135, 4)), (0.0, 1.0), (1, 2, 64)):
        a, b = np.array([[3.0, -5.0, 2.0**30 + 1]]) * 2.0**exponent, np.array([[1.0], [3.0], [7.0]])
        assert check_run(a, b, np.array([[c]]), Accumulator(format=fmt, overflow="wrap", group=group)) == 1


def test_running_sums_to_start_from_may_have_more_bits() -> None:
    rng = np.random.default_rng(3)
    for rounding, group in itertools.product(("ties_to_even", "ties_to_away"), (1, 2, 64)):
        a, b, c = rng.integers(-9, 9, (3, 2)) * 1.0, rng.integers(-9, 9, (2, 40)) * 1.0, rng.standard_normal((3, 40))
        c[:, ::2] = np.round(c[:, ::2] * 64) / 64 + rng.choice([-1, 1], (3, 20)) * 2.0**-45
        accumulator = Accumulator(format="float8_e5m2", rounding=rounding, group=group)
        assert check_run(a, b, c, accumulator) == 120


@pytest.mark.parametrize("group", [2, 64])
def test_flushes_and_signs_of_zero(group: int) -> None:
    tiny = np.array([[2.0**-130, -0.0]])
    one = np.array([[1.0, -1.0, 2.0**-30], [0.0, 0.0, 0.0]])
    fmt = parse("float32")

    def run(**fields) -> list[str]:
        positive = fields.pop("positive_zero", False)
        accumulator = Accumulator(format="float32", group=group, **fields)
        c = np.array([[-0.0, -(2.0**-128), -0.0]])
        found = _exact_bins.run(tiny, one, c, accumulator, fmt, fmt, positive_zero=positive)
        return [float(x).hex() for x in found[0]]

    small, sum_of_two, zero, minus = (x.hex() for x in (2.0**-130, -5 * 2.0**-130, 0.0, -0.0))
    assert run() == [small, sum_of_two, zero]
    assert run(subnormal_results="zero") == [zero, minus, zero]
    accumulator = Accumulator(format="float32", group=group, subnormal_results="zero")
    steps = np.zeros((1, 2 * group))
    steps[0, [0, group]] = 2.0**-130, 2.0**-126  # the first is gone before the second comes
    found = _exact_bins.run(steps, np.ones((2 * group, 1)), None, accumulator, FLOAT64, FLOAT64)
    assert found.tolist() == [[2.0**-126]]
    assert run(subnormal_inputs="zero") == [zero, minus, zero]
    assert run(subnormal_inputs="positive_zero") == [zero, zero, zero]
    x, y = np.array([[-1.0, -0.0]]), np.array([[2.0**-150, 0.0], [0.0, 0.0]])
    accumulator = Accumulator(format="float32", group=group)
    for positive, wanted in ((False, [minus, minus]), (True, [minus, zero])):
        found = _exact_bins.run(x, y, np.full((1, 2), -0.0), accumulator, FLOAT64, FLOAT64, positive_zero=positive)
        assert [float(v).hex() for v in found[0]] == wanted  # the first sum is not zero, it rounds to it
    none = Accumulator(format="float32", group=group, signed_zero=False)
    found = _exact_bins.run(x, y, np.full((1, 2), -0.0), none, FLOAT64, FLOAT64)
    assert [float(v).hex() for v in found[0]] == [zero, zero]


@pytest.mark.parametrize("file", ["mfma_CDNA1", "mfma_CDNA1_chained"])
def test_matrix_units_with_exact_steps(vectors: Vectors, file: str) -> None:
    arrays = vectors(f"matrix_units/{file}")
    kinds = {"f32": ("float32", 1), "bf16": ("bfloat16", 2), "f16": ("float16", 4)}
    for case in arrays["qualifiers"]:
        name, group = next(v for k, v in kinds.items() if case.endswith(k))
        a, b, c, d = (arrays[f"{case}/{letter}"] for letter in "ABCD")
        fmt = parse(name)
        accumulator = Accumulator(format="float32", group=group)
        for tile in range(len(a)):
            got = _exact_bins.run(
                decoded(a[tile], fmt), decoded(b[tile], fmt), decoded(c[tile], parse("float32")), accumulator, fmt, fmt,
                positive_zero=group > 1,
            )  # fmt: skip
            with np.errstate(invalid="ignore"):
                found, wanted = got.astype(np.float32), d[tile].view(np.float32)
            same = (found.view(np.uint32) == d[tile]) | (np.isnan(found) & np.isnan(wanted))
            assert same.all(), (case, tile)
