"""ggml's searched and ternary types as array code on numbers made to break them, and the float32 steps beneath."""

from typing import Any

import numpy as np
import pytest

import lowp
from lowp.rounding import _packed, _portable_ggml_fits
from lowp.rounding import _portable_packed as portable
from lowp.rounding._namespaces import namespace_of
from lowp.rounding.schemes import ggml_steps
from lowp.rounding.schemes.ggml_iq import _MIDPOINTS
from tests.covering import slow, usual
from tests.rounding.test_portable_blocks import WORLDS, request, same
from tests.rounding.test_portable_packed import FORMATS, run

KINDS = [
    f"ggml_{kind}"
    for kind in ("q1_0", "q2_k", "q3_k", "q4_k", "q5_k", "q6_k", "q8_k", "iq4_nl", "iq4_xs", "tq1_0", "tq2_0")
]
#: Types whose search another type runs too.
ALIKE = ("ggml_q2_k", "ggml_q5_k", "ggml_q6_k")
ROWS = 2
#: A group whose codes still move when Q3_K goes through them for the fifth time.
FIVE_TIMES = [21, 18, -35, 3, 28, 27, 0, 27, -14, 34, 17, -37, 37, -9, 24, -23]
#: Numbers halfway between the values of the IQ4 types, whose first step is 1 or -1 here.
HALFWAY = [127, -127, *(_MIDPOINTS.tolist()), *((-_MIDPOINTS).tolist())]


def _any_bits(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    x = rng.integers(0, 1 << 32, shape, dtype=np.uint64).astype(np.uint32).view(np.float32)
    return np.where(np.isfinite(x), x, np.float32(0))


def hard_numbers() -> np.ndarray:
    """Return rows of 512: ties of fits, squares that overflow or underflow, groups that count as zero, zeros."""
    rng, shape = np.random.default_rng(3), (ROWS, 512)
    normal = rng.standard_normal(shape)
    signs = np.where(rng.random(shape) < 0.5, 1.0, -1.0)
    per_group = np.repeat(rng.uniform(0, 1, (ROWS, 32)), 16, 1)
    whole = rng.uniform(0, 1, (ROWS, 1))
    rows = [
        rng.integers(-9, 10, shape),
        rng.integers(-2, 3, shape),
        normal * 10.0 ** (-3 + 6 * rng.random(shape)),
        normal * 10.0 ** (-20 + 39 * per_group),
        normal * 10.0 ** (17 + 4 * whole),
        np.clip(normal * 10.0 ** (36 + 2.5 * whole), -3.4e38, 3.4e38),
        signs * 3.4028234e38 * np.where(rng.random(shape) < 0.1, rng.random(shape), 1),
        normal * 10.0 ** (-17 + 4 * whole),
        normal * 10.0 ** (-24 + 6 * whole),
        normal * 10.0 ** rng.uniform(-45, -37, shape),
        np.float32(1e-15) * np.round(1 + (per_group - 0.5) * 4e-7, 7) * np.where(rng.random(shape) < 0.1, 1, whole),
        normal * np.where(rng.random(shape) < 0.01, 1e30, 1e-20),
        np.abs(normal),
        -np.abs(normal),
        -np.repeat(np.abs(normal[:, :16]), 32, 1),
        signs * 10.0 ** (10 * per_group - 5),
        np.where(rng.random(shape) < 0.05, normal, np.copysign(0.0, normal)),
        np.copysign(0.0, normal),
        _any_bits(rng, shape),
        np.tile(FIVE_TIMES, (ROWS, 32)),
        np.tile([*HALFWAY, *reversed(HALFWAY[:2]), *HALFWAY[2:]], (ROWS, 8)),
    ]
    return np.concatenate(rows).astype(np.float32)


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("world", ["numpy", "torch"])
def test_hard_numbers(world: str, name: str) -> None:
    check(world, name, hard_numbers())


@pytest.mark.parametrize("name", [(slow if name in ALIKE else usual)(name) for name in KINDS])
def test_hard_numbers_compiled_by_jax(name: str) -> None:
    check("jax", name, hard_numbers())


def check(world: str, name: str, x: np.ndarray) -> None:
    fmt, how = FORMATS[name], request()

    def both(xp: Any, v: Any) -> list[Any]:
        return [portable.quantize_packed(xp, v, fmt, how, -1), portable.encode_packed(xp, v, fmt, how, -1)]

    values, fields = run(world, both, x)
    want, parts = lowp.quantize(x, fmt), _packed.encode_packed(x, fmt, how, -1).fields
    assert parts is not None
    for start in range(0, len(x), ROWS):  # says which kind of row
        same(values[start : start + ROWS], want[start : start + ROWS], f"values of rows from {start}")
    for field, part in parts.items():
        same(fields[field], part, field)


def float32_numbers(count: int) -> np.ndarray:
    rng = np.random.default_rng(5)
    x = np.concatenate([_any_bits(rng, (count,)), rng.standard_normal(count), rng.standard_normal(count) * 1e-39])
    return np.concatenate([x.astype(np.float32), np.float32([0, -0.0, np.inf, -np.inf, np.nan, 3.4028235e38, 1e-45])])


@pytest.mark.parametrize("world", WORLDS)
def test_sums_are_those_of_float32(world: str) -> None:
    a = float32_numbers(300)
    near = np.nextafter(-a, np.float32(np.inf))  # their sums cancel, or overflow by one place
    b = np.concatenate([near, a[::-1], np.roll(a, 1), np.full_like(a, 2.0**103)])
    a = np.tile(a, 4)
    with np.errstate(all="ignore"):
        want = a + b
    pairs = np.stack([a, b]).astype(np.float64)
    same(_wide(world, lambda xp, v: _portable_ggml_fits.plus(xp, v[0], v[1]), pairs), want.astype(np.float64), "sums")


@pytest.mark.parametrize("world", WORLDS)
def test_sums_are_in_order(world: str) -> None:
    terms = np.random.default_rng(2).standard_normal((32, 40)).astype(np.float32)
    terms[:, :10] *= np.float32(1e-40)
    terms[:, 10:20] *= np.float32(1e38)
    terms[:, 20] = -0.0
    with np.errstate(all="ignore"):
        want = ggml_steps.ordered_sum(terms)
    found = _wide(world, _portable_ggml_fits.ordered_sum, terms.astype(np.float64))
    same(found, want.astype(np.float64), "sums")


@pytest.mark.parametrize("world", WORLDS)
def test_nearest_reads_the_same_bits(world: str) -> None:
    ties = np.arange(-300, 300, dtype=np.float32) / 4
    x = np.concatenate([ties, ties * np.float32(2**15), float32_numbers(300)])
    with np.errstate(all="ignore"):
        want = np.clip(ggml_steps.nearest(x), -(1 << 22), 127).astype(np.float64)

    def rounded(xp: Any, v: Any) -> Any:
        return _portable_ggml_fits.nearest(xp, v, -(1 << 22), 127)

    same(_wide(world, rounded, x.astype(np.float64)), want, "integers")


def _wide(world: str, function: Any, x: np.ndarray) -> np.ndarray:
    """Return what a function gives on float64 numbers."""
    with namespace_of(x).wide():
        if world != "jax":
            return np.asarray(WORLDS[world](function, x))
    import jax

    with jax.enable_x64(True):
        return np.asarray(jax.jit(lambda v: function(namespace_of(v), v))(x))


@pytest.mark.parametrize("world", WORLDS)
def test_scan_hands_on_the_state_and_stacks_what_steps_give(world: str) -> None:
    x = np.arange(12, dtype=np.float64).reshape(4, 3)

    def steps(xp: Any, v: Any) -> Any:
        (total,), outs = xp.scan(lambda s, p: ((s[0] * 2 + p[0],), s[0] - p[0]), (v[0],), (v[1:],))
        nothing = xp.scan(lambda s, p: ((s[0] + p[0],), None), (v[0],), (v,))[1]
        assert nothing is None
        return xp.stack([total, *outs])

    state, outs = x[0], []
    for row in x[1:]:
        outs.append(state - row)
        state = state * 2 + row
    same(_wide(world, steps, x), np.stack([state, *outs]), "states")


@pytest.mark.parametrize("name", ["ggml_q4_1", "ggml_q5_1"])
def test_scales_of_zeros_are_not_negative(name: str) -> None:
    """As ggml's loop, which takes the first zero for minimum and maximum alike."""
    x = np.copysign(np.zeros((40, 64), np.float32), np.random.default_rng(4).standard_normal((40, 64)))
    fields = lowp.encode(x, name).fields
    assert fields is not None
    assert not fields["d"].any()
    first = np.signbit(x.reshape(40, 2, 32)[..., :1])
    np.testing.assert_array_equal(fields["m"], np.where(first, 0x8000, 0))
