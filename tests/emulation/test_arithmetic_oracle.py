"""Arithmetic against the exact oracle: every pair of 8-bit codes, samples and hard cases of wider formats."""

from typing import Any

import numpy as np
import pytest

import lowp
from lowp.emulation.exact_ops import operate
from lowp.formats import ScalarFormat
from lowp.rounding.random_bits import word
from tests.emulation.oracle import OPERATIONS, ask, every_pair

EIGHT_BITS = [
    name for name in lowp.formats.names() if isinstance(f := lowp.parse(name), lowp.ScalarFormat) and f.bits == 8
]
#: The formats whose pairs are tried in every run of the tests; those of the others in the long one.
QUICK = ("float8_e4m3fn", "float8_e5m2", "float8_e4m3b11fnuz", "float8_e8m0fnu", "int8", "posit8_es2", "takum8_linear")
WIDER = [
    "float16", "bfloat16", "tf32", "float32", "e11m20", "e5m10_nosub", "binary15p8se", "ue6m9", "float8_e8m0fnu",
    "binary15p2se", "binary14p1uf", "int16", "uint32", "fixed60_20", "ufixed64_m5", "fixed16_8", "ufixed24_30",
    "fixed53_20", "fixed53_52", "e8m50", "posit54_es1", "takum56_linear", "nf4", "ternary",
    "posit16_es1", "posit16_es2", "posit10_es5", "posit32_es2", "takum12_linear", "takum16_linear", "takum32_linear",
    "lns16_f7", "lns12_f4_linear", "lns10_gamma12", "takum16_log",
]  # fmt: skip
SLOW = ["float64", "posit64_es2", "takum64_linear"]
MODES = ["toward_positive", "toward_negative", "to_odd", "ties_to_away", "stochastic_a", "stochastic_c"]
BINARY = ("add", "subtract", "multiply", "divide", "remainder", "fmod", "minimum", "maximum")
UNARY = ("sqrt", "negative", "absolute", "convert")


def apply(op: str, *operands: Any, **how: Any) -> lowp.array:
    if op in ("negative", "absolute"):
        return -operands[0] if op == "negative" else abs(operands[0])
    return operands[0].astype(operands[0].format, **how) if op == "convert" else getattr(lowp, op)(*operands, **how)


@pytest.mark.parametrize("name", [pytest.param(n, marks=() if n in QUICK else pytest.mark.slow) for n in EIGHT_BITS])
def test_every_pair_of_eight_bit_codes(name: str) -> None:
    fmt = lowp.parse(name)
    assert isinstance(fmt, lowp.ScalarFormat)
    codes = np.arange(256, dtype=np.uint8)
    rows, columns = (lowp.array.from_codes(c, fmt, nan="zero") for c in (codes[:, None], codes[None, :]))
    for op in OPERATIONS:
        got, wanted = apply(op, rows, columns).codes, every_pair(op, fmt)
        bad = np.argwhere(got != wanted)
        assert not len(bad), f"{name} {op}: {len(bad)} differ, first {bad[0]}: {got[tuple(bad[0])]:#x}"


def samples(fmt: ScalarFormat, count: int, seed: int) -> list[np.ndarray]:
    """Return three arrays of codes: random ones, and ones that make sums cancel and quotients come near ties."""
    rng = np.random.default_rng(seed)
    largest = (1 << fmt.bits) - 1
    used = np.array(fmt.codes, np.uint64) if isinstance(fmt, lowp.Codebook) else None

    def random() -> np.ndarray:
        codes = rng.integers(0, largest, count, dtype=np.uint64, endpoint=True)
        return codes if used is None else used[codes % np.uint64(len(used))]

    a, b, c = random(), random(), random()
    near = a + rng.integers(0, 5, count, dtype=np.uint64) - np.uint64(2)
    sign = np.uint64(1 << (fmt.bits - 1))
    choice = rng.integers(0, 4, count)
    b = np.select([choice == 0, choice == 1], [near, near ^ sign], b) & np.uint64(largest)
    simple = np.array([lowp.encode(float(v), fmt, nan="zero").codes for v in (1.0, 2.0, 0.0, 0.5, 3.0)], np.uint64)
    c = np.where(choice == 2, rng.choice(simple, count), c)
    if used is not None:
        b = np.where(np.isin(b, used), b, used[0])
    return [a.astype(np.uint64), b.astype(np.uint64), c.astype(np.uint64)]


def check(fmt: ScalarFormat, op: str, codes: list[np.ndarray], how: dict[str, Any], seed: int = 5) -> None:
    arrays = [lowp.array.from_codes(c, fmt, nan="zero") for c in codes]
    stochastic = how.get("rounding", "").startswith("stochastic")
    got = apply(op, *arrays, **how, **({"seed": seed} if stochastic else {})).codes
    for i, operands in enumerate(zip(*codes, strict=True)):
        exact = {"random": word(seed, i)} if stochastic else {}
        numbers = [fmt.meaning(int(c)) for c in operands]
        wanted = ask(op, fmt, *numbers, **how, **exact)
        assert got[i] == wanted, f"{fmt.name} {op} {how} {numbers}: {got[i]:#x}, not {wanted:#x}"


@pytest.mark.parametrize("name", [*WIDER, *SLOW])
def test_samples_of_wider_formats(name: str) -> None:
    fmt = lowp.parse(name)
    assert isinstance(fmt, lowp.ScalarFormat)
    count = 12 if name in SLOW or name.startswith("lns") or name.endswith("_log") else 40
    a, b, c = samples(fmt, count, seed=len(name))
    for op in (*BINARY, *UNARY, "fma"):
        codes = [a, b, c] if op == "fma" else [a, b] if op in BINARY else [a]
        check(fmt, op, codes, {})


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "name", ["float16", "float32", "e5m10_nosub", "posit16_es2", "fixed16_8", "lns8_f3", "takum8_log"]
)
def test_samples_in_other_rounding_modes(name: str, mode: str) -> None:
    fmt = lowp.parse(name)
    assert isinstance(fmt, lowp.ScalarFormat)
    a, b, c = samples(fmt, 25, seed=len(name + mode))
    for op in ("add", "subtract", "multiply", "divide", "sqrt", "fma", "remainder"):
        codes = [a, b, c] if op == "fma" else [a] if op == "sqrt" else [a, b]
        check(fmt, op, codes, {"rounding": mode})


@pytest.mark.parametrize("overflow", ["saturate", "wrap", "saturate_zero", "wrap_sign_magnitude", "saturate_symmetric"])
@pytest.mark.parametrize("name", ["int8", "int32", "fixed16_8", "fixed53_20"])
def test_samples_in_other_overflow_modes(name: str, overflow: str) -> None:
    fmt = lowp.parse(name)
    assert isinstance(fmt, lowp.ScalarFormat)
    a, b, c = samples(fmt, 25, seed=len(name + overflow))
    for op in ("add", "multiply", "divide", "fma"):
        check(fmt, op, [a, b, c] if op == "fma" else [a, b], {"overflow": overflow})


@pytest.mark.parametrize("target", ["float8_e4m3fn", "posit8_es2", "int8", "lns8_f3", "takum8_log", "nf4", "float16"])
@pytest.mark.parametrize("source", ["float32", "posit64_es2", "lns16_f7", "takum16_log", "fixed24_30"])
def test_conversions_and_mixed_operands(source: str, target: str) -> None:
    first, fmt = lowp.parse(source), lowp.parse(target)
    assert isinstance(first, lowp.ScalarFormat)
    assert isinstance(fmt, lowp.ScalarFormat)
    a, b, _ = samples(first, 15, seed=3)
    x, y = (lowp.array.from_codes(c, first, nan="zero") for c in (a, b))
    converted, product = x.astype(fmt).codes, lowp.multiply(x, y, fmt=fmt).codes
    for i in range(len(a)):
        numbers = [first.meaning(int(c[i])) for c in (a, b)]
        assert converted[i] == ask("convert", fmt, numbers[0])
        assert product[i] == ask("multiply", fmt, *numbers)


@pytest.mark.parametrize("name", ["p3109_8p4se", "p3109_8p4sf", "p3109_8p4ue", "p3109_6p2uf"])
def test_division_by_zero_is_nan_in_p3109(name: str) -> None:
    """IEEE P3109, interim report 4.0, Divide: its only zero has no sign."""
    nan = lowp.encode(float("nan"), name).codes.item()
    x = lowp.array([0.0, 0.5, 2.0], name)
    assert (x / 0).codes.tolist() == [nan] * 3
    assert [operate("divide", (v, 0), name) for v in (0, 1, 2)] == [nan] * 3
