"""The oracle of operations against independent arithmetic: MPFR, NumPy, a CPU, SoftPosit, CPFloat, and mpmath."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from lowp.emulation.exact_ops import OPERATIONS, dot, exact_result, operate
from lowp.formats import Float, ScalarFormat
from lowp.rounding import exact
from lowp.rounding.exact_rules import scalar_format as scalar

gmpy2: Any = pytest.importorskip("gmpy2")

Vectors = Callable[[str], Mapping[str, np.ndarray]]
IEEE_MODES = ("ties_to_even", "toward_zero", "toward_positive", "toward_negative")


def codes_agree(fmt: ScalarFormat, got: int, expected: int) -> bool:
    """Whether two codes are equal, or both NaN."""
    return got == expected or (fmt.meaning(got) == "nan" == fmt.meaning(expected))


def assert_all_agree(
    op: str, fmt: ScalarFormat, columns: Iterable[Sequence[int]], expected: Sequence[int], mode: str = "ties_to_even"
) -> None:
    for operands, wanted in zip(zip(*columns, strict=True), expected, strict=True):
        got = operate(op, [fmt.meaning(int(code)) for code in operands], fmt, mode)
        assert codes_agree(fmt, got, int(wanted)), (
            op,
            mode,
            [hex(int(c)) for c in operands],
            hex(got),
            hex(int(wanted)),
        )


def mixed_codes(fmt: ScalarFormat, count: int, seed: int) -> np.ndarray:
    """Random codes, half of them near 1 in magnitude."""
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, 1 << fmt.bits, count, dtype=np.uint64)
    near = exact.encode(1, fmt) ^ rng.integers(0, 1 << (fmt.bits // 2 + 1), count, dtype=np.uint64)
    return np.where(rng.integers(0, 2, count) == 1, codes, near | (codes & np.uint64(1 << (fmt.bits - 1))))


# MPFR


def mpfr_context(fmt: Float, mode: str) -> Any:
    """A context whose numbers are those of an IEEE format; MPFR counts exponents from 1/2."""
    rounds = {"ties_to_even": gmpy2.RoundToNearest, "toward_zero": gmpy2.RoundToZero,
              "toward_positive": gmpy2.RoundUp, "toward_negative": gmpy2.RoundDown}  # fmt: skip
    precision = fmt.mantissa_bits + 1
    return gmpy2.context(
        precision=precision, emax=fmt.emax + 1, emin=fmt.emin - precision + 2, subnormalize=True, round=rounds[mode]
    )


def to_mpfr(x: Any) -> Any:
    return gmpy2.mpfr(x.replace("-0", "-0.0") if isinstance(x, str) else gmpy2.mpq(x.numerator, x.denominator), 64)


def from_mpfr(x: Any) -> Any:
    if gmpy2.is_nan(x) or gmpy2.is_infinite(x) or x == 0:
        return "nan" if gmpy2.is_nan(x) else exact.exact_value(float(x))
    return Fraction(*map(int, x.as_integer_ratio()))


MPFR: dict[str, Any] = {
    "add": gmpy2.add, "subtract": gmpy2.sub, "multiply": gmpy2.mul, "divide": gmpy2.div, "sqrt": gmpy2.sqrt,
    "fma": gmpy2.fma, "remainder": gmpy2.remainder, "fmod": gmpy2.fmod,
    "exp": gmpy2.exp, "exp2": gmpy2.exp2, "log": gmpy2.log, "log2": gmpy2.log2, "sin": gmpy2.sin, "cos": gmpy2.cos,
    "tanh": gmpy2.tanh, "power": lambda x, y: x**y,
}  # fmt: skip


@pytest.mark.parametrize("op", MPFR)
@pytest.mark.parametrize("name", ["float8_e5m2", "float16", "bfloat16", "e7m11"])
def test_every_operation_is_that_of_mpfr(op: str, name: str) -> None:
    fmt = scalar(name)
    assert isinstance(fmt, Float)
    count, seed = OPERATIONS[op][0], 1 + list(MPFR).index(op)
    columns = [mixed_codes(fmt, 40, 10 * seed + i) for i in range(count)]
    for mode in IEEE_MODES:
        for codes in zip(*columns, strict=True):
            operands = [fmt.meaning(int(code)) for code in codes]
            with mpfr_context(fmt, mode):
                wanted = from_mpfr(MPFR[op](*map(to_mpfr, operands)))
            got = fmt.meaning(operate(op, operands, fmt, mode))
            assert got == wanted, (op, mode, operands)


def test_the_comparison_with_mpfr_can_fail() -> None:
    fmt = scalar("float16")
    assert isinstance(fmt, Float)
    with mpfr_context(fmt, "toward_zero"):
        assert from_mpfr(gmpy2.div(gmpy2.mpfr(5), gmpy2.mpfr(3))) != fmt.meaning(operate("divide", (5, 3), fmt))
        assert from_mpfr(gmpy2.div(gmpy2.mpfr("1e-7"), gmpy2.mpfr(3))).denominator <= 1 << 24  # subnormals end there


# NumPy


NUMPY = {
    "add": np.add,
    "subtract": np.subtract,
    "multiply": np.multiply,
    "divide": np.divide,
    "sqrt": np.sqrt,
    "fmod": np.fmod,
}


@pytest.mark.parametrize("op", NUMPY)
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_arithmetic_is_that_of_numpy(op: str, dtype: Any) -> None:
    fmt = scalar(np.dtype(dtype).name)
    whole: Any = np.dtype(f"u{fmt.bits // 8}")
    columns = [mixed_codes(fmt, 150, seed).astype(whole) for seed in range(OPERATIONS[op][0])]
    with np.errstate(all="ignore"):
        expected = NUMPY[op](*(c.view(dtype) for c in columns))
    assert_all_agree(op, fmt, columns, expected.astype(dtype).view(whole))


def test_remainder_is_that_of_the_c_library() -> None:
    rng = np.random.default_rng(3)
    for a, b in zip(rng.normal(size=200) * 2.0 ** rng.integers(-40, 40, 200), rng.normal(size=200), strict=True):
        assert exact_result("remainder", (Fraction(a), Fraction(b))) == Fraction(math.remainder(a, b))
    for a, b in (
        (5.0, 2.0),
        (7.0, 2.0),
        (-5.0, 2.0),
        (6.0, 4.0),
        (-0.0, 3.0),
        (4.0, 2.0),
        (-4.0, 2.0),
        (1.0, math.inf),
    ):
        wanted = exact.exact_value(math.remainder(a, b))
        assert exact_result("remainder", (exact.exact_value(a), exact.exact_value(b))) == wanted


POWERS = [0.0, -0.0, 1.0, -1.0, 2.0, -2.0, 0.5, -0.5, 3.0, -3.0, math.inf, -math.inf, math.nan]


def test_special_powers_are_those_of_c() -> None:
    for x in POWERS:
        for y in POWERS:
            try:
                wanted = math.pow(x, y)
            except ZeroDivisionError:
                wanted = math.inf
            except ValueError:  # Python raises where C returns an infinity or NaN
                pole = x == 0 and y < 0
                wanted = math.copysign(math.inf, x if y in (-1.0, -3.0) else 1.0) if pole else math.nan
            got = operate("power", (x, y), "float64")
            assert codes_agree(scalar("float64"), got, int(np.float64(wanted).view(np.uint64))), (x, y)


# Recorded vectors


X86_MODES = {"rn": "ties_to_even", "rd": "toward_negative", "ru": "toward_positive", "rz": "toward_zero"}
X86_OPERATIONS = {"add": "add", "sub": "subtract", "mul": "multiply", "div": "divide", "sqrt": "sqrt", "fmadd": "fma"}


@pytest.mark.parametrize(
    ("file", "name", "step"), [("avx512_fp16_arith", "float16", 61), ("avx512_fp32_arith", "float32", 61)]
)
@pytest.mark.parametrize("op", X86_OPERATIONS)
def test_arithmetic_is_that_of_a_cpu(vectors: Vectors, op: str, file: str, name: str, step: int) -> None:
    data, fmt = vectors(f"x86/{file}"), scalar(name)
    columns = [data[column][::step] for column in "abc"[: OPERATIONS[X86_OPERATIONS[op]][0]]]
    for suffix, mode in X86_MODES.items():
        assert_all_agree(X86_OPERATIONS[op], fmt, columns, data[f"{op}_{suffix}"][::step], mode)


SOFTPOSIT = {"posit8_es0": "posit8_es0", "posit16_es1": "posit16_es1", "posit32_es2": "posit32_es2",
             "posit12_es2_pX2": "posit12_es2", "posit20_es2_pX2": "posit20_es2"}  # fmt: skip


@pytest.mark.parametrize("file", SOFTPOSIT)
def test_posit_arithmetic_is_that_of_softposit(vectors: Vectors, file: str) -> None:
    data, fmt = vectors(f"softposit/{file}"), scalar(SOFTPOSIT[file])

    def check(op: str, inputs: Sequence[str], output: str, count: int = 150) -> None:
        sure = ~data.get(output.replace("out", "suspect"), np.zeros(len(data[output]), bool))
        which = np.flatnonzero(sure)[:: max(1, int(sure.sum()) // count)]
        assert_all_agree(op, fmt, [data[name][which] for name in inputs], data[output][which])

    for op, short in (("add", "add"), ("subtract", "sub"), ("multiply", "mul"), ("divide", "div")):
        check(op, ("bin_a", "bin_b"), f"bin_{short}")
    check("sqrt", ("sqrt_in",), "sqrt_out")
    check("fma", ("fma_a", "fma_b", "fma_c") if "fma_a" in data else ("bin_a", "bin_b", "fma_c"), "fma_out")


@pytest.mark.parametrize(
    ("file", "key"), [("posit8_es0", "qdot16"), ("posit16_es1", "qdot4"), ("posit32_es2", "qdot4")]
)
def test_the_quire_is_that_of_softposit(vectors: Vectors, file: str, key: str) -> None:
    data, fmt = vectors(f"softposit/{file}"), scalar(file)
    for a, b, wanted in zip(data[f"{key}_a"][:60], data[f"{key}_b"][:60], data[f"{key}_out"][:60], strict=True):
        left, right = ([fmt.meaning(int(code)) for code in row] for row in (a, b))
        assert dot(left, right, fmt, "quire") == int(wanted)


CPFLOAT = {"add": "add", "sub": "subtract", "mul": "multiply", "div": "divide", "sqrt": "sqrt", "fma": "fma"}


@pytest.mark.parametrize(("file", "name"), [("e4m3", "e4m3"), ("p5e6", "e6m4"), ("bfloat16", "bfloat16")])
@pytest.mark.parametrize("short", CPFLOAT)
def test_arithmetic_is_that_of_cpfloat(vectors: Vectors, file: str, name: str, short: str) -> None:
    """CPFloat rounds twice, to float64 first: so does this where that first step is not exact."""
    data, fmt, op = vectors(f"cpfloat/{file}"), scalar(name), CPFLOAT[short]
    columns = [data[f"op_{c}"][::7] for c in "abc"[: OPERATIONS[op][0]]]
    once = 0
    for suffix, mode in (("NE", "ties_to_even"), ("TZ", "toward_zero")):
        for *operands, wanted in zip(*columns, data[f"op_{short}_{suffix}"][::7], strict=True):
            first = scalar("float64").meaning(operate(op, operands, "float64"))
            is_exact = first == exact_result(op, [exact.exact_value(x) for x in operands])
            code = operate(op, operands, fmt, mode) if is_exact else operate("convert", (first,), fmt, mode)
            assert fmt.meaning(code) == exact.exact_value(wanted), (op, mode, operands)
            once += is_exact
    assert once > 20
