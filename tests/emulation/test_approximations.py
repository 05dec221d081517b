"""Approximations against an interpreter in fractions, published figures, and their errors by brute force."""

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import mpmath
import numpy as np
import pytest

import lowp
from lowp.emulation import _reference_functions as references
from lowp.emulation._approximation_programs import Constant, Named, Table
from lowp.emulation.approximations import Approximation, approximation, approximations, ulp_errors
from lowp.emulation.exact_ops import operate
from lowp.testing import assert_bits_equal

FLOAT16 = lowp.parse("float16")
EXACT: dict[str, Callable[[Any], Any]] = {
    "exp": mpmath.exp, "exp2": lambda x: mpmath.mpf(2) ** x, "log2": lambda x: mpmath.log(x, 2),
    "rsqrt": lambda x: 1 / mpmath.sqrt(x), "reciprocal": lambda x: 1 / x, "tanh": mpmath.tanh, "sqrt": mpmath.sqrt,
    "sigmoid": lambda x: 1 / (1 + mpmath.exp(-x)), "silu": lambda x: x / (1 + mpmath.exp(-x)), "erf": mpmath.erf,
    "gelu": lambda x: x * mpmath.erfc(-x / mpmath.sqrt(2)) / 2,
    "gelu_tail": lambda x: -abs(x) * mpmath.erfc(abs(x) / mpmath.sqrt(2)) / 2,
}  # fmt: skip


# An interpreter of programs in exact numbers, each rounded by the oracle


def number(meaning: Any) -> Fraction:
    return Fraction(0) if meaning == "-0" else meaning


def fraction(x: Any) -> Fraction:
    """Return one of mpmath's numbers; far ones are brought nearer."""
    sign, significand, exponent, size = x._mpf_
    if significand and abs(exponent + size) > 5000:
        significand, exponent = 1, 5000 if exponent > 0 else -5000
    return (-1) ** sign * Fraction(int(significand)) * Fraction(2) ** int(exponent)


def rounded(x: Fraction, fmt: Any) -> Fraction:
    return number(fmt.meaning(operate("convert", (x,), fmt, overflow="saturate")))


class Interpreter:
    """Runs the steps of an approximation on one number; the results of all operations are rounded by the oracle."""

    def __init__(self, fmt: Any, fused: bool) -> None:
        self.fmt, self.fused = fmt, fused

    def run(self, program: Approximation, x: Fraction) -> Fraction:
        found = {"x": x}
        for step in program.steps:
            given = [self.read(a, found) for a in step.arguments]
            found[step.name] = getattr(self, step.op, lambda *a, op=step.op: self.do(op, *a))(*given)
        return found[program.steps[-1].name]

    def read(self, argument: Any, found: dict[str, Fraction]) -> Any:
        if isinstance(argument, Named):
            return -found[argument.name] if argument.negated else found[argument.name]
        if isinstance(argument, Table):
            return argument
        if isinstance(argument, Constant):
            high = rounded(argument.value, self.fmt)
            return rounded(argument.value - high, self.fmt) if argument.part == "low" else high
        return [rounded(c, self.fmt) for c in argument]

    def do(self, op: str, *operands: Fraction) -> Fraction:
        return number(self.fmt.meaning(operate(op, operands, self.fmt)))

    def square(self, x: Fraction) -> Fraction:
        return self.do("multiply", x, x)

    def fma(self, a: Fraction, b: Fraction, c: Fraction) -> Fraction:
        return self.do("fma", a, b, c) if self.fused else self.do("add", self.do("multiply", a, b), c)

    def horner(self, x: Fraction, c: list[Fraction]) -> Fraction:
        y = c[-1]
        for k in reversed(c[:-1]):
            y = self.fma(y, x, k)
        return y

    def round(self, x: Fraction) -> Fraction:
        return Fraction(round(x))

    def floor(self, x: Fraction) -> Fraction:
        return Fraction(math.floor(x))

    def exponent(self, x: Fraction) -> Fraction:
        return Fraction(math.frexp(float(x))[1] - 1)

    def half(self, k: Fraction) -> Fraction:
        return Fraction(math.floor(k / 2))

    def scale(self, x: Fraction, k: Fraction, times: Fraction = Fraction(1)) -> Fraction:
        return self.do("convert", x * Fraction(2) ** int(k * times))

    def lookup(self, table: Table, i: Fraction) -> Fraction:
        at = table.start + max(0, min(int(i), table.entries - 1)) * table.step
        with mpmath.workprec(120):
            value = fraction(EXACT[table.function](mpmath.mpf(at.numerator) / at.denominator))
        return rounded(value, self.fmt)

    def interpolate(self, table: Table, u: Fraction) -> Fraction:
        i = max(0, min(math.floor(u), table.entries - 2))
        a, b = self.lookup(table, Fraction(i)), self.lookup(table, Fraction(i + 1))
        return self.fma(self.do("subtract", u, Fraction(i)), self.do("subtract", b, a), a)

    def copysign(self, x: Fraction, y: Fraction) -> Fraction:
        return -abs(x) if y < 0 else abs(x)

    def magic_rsqrt(self, x: Fraction, sigma: Fraction) -> Fraction:
        del sigma  # rounded; the constant itself follows
        f = self.fmt
        magic = math.floor(Fraction(3, 2) * 2**f.mantissa_bits * (f.bias - Fraction("0.0450465679168701171875")))
        return number(f.meaning(magic - operate("convert", (x,), f) // 2))


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("name", approximations())
def test_programs_run_as_an_interpreter_in_fractions_runs_them(name: str, fused: bool) -> None:
    program = approximation(name)
    low, high = program.bounds(FLOAT16)
    low, high = max(low, -10.0), min(high, 10.0)
    draws = np.random.default_rng(5).uniform(low, high, 60)
    x = lowp.array(draws, FLOAT16)
    got = program.evaluate(x, FLOAT16, fused=fused)
    wanted = [float(Interpreter(FLOAT16, fused).run(program, Fraction(v))) for v in x.values.tolist()]
    assert_bits_equal(np.abs(got.values), np.abs(wanted))
    assert (got.values == wanted).all()


# Published figures


def test_two_pass_softmax_polynomial_has_its_published_error() -> None:
    """At most 2 ulps; 1.964 and a relative error of 1.63e-7 on [-87, 88] in float32 with fused operations."""
    x = np.random.default_rng(0).uniform(-87, 88, 1 << 20).astype(np.float32)
    report = ulp_errors("exp/two_pass_p5", "float32", inputs=x)
    assert report.max_ulps == pytest.approx(1.964, abs=0.01)
    assert report.max_relative == pytest.approx(1.63e-7, rel=0.02)
    assert (report.max_steps, report.failed) == (2, 0)
    assert vars(report.operations) | {"fmas": 7, "multiplies": 1, "roundings": 1, "shifts": 1} == vars(
        report.operations
    )


def test_ten_operations_reach_autonumerics_zeros_error() -> None:
    """Below 5.4e-15 in exact arithmetic on [-1/2, 1/2]; 1.81e-15 with these constants; on [0, 1] 1.03e-13."""
    program = approximation("exp2/autonumerics_zero_10")
    assert program.operations().total == 10
    assert program.relative_error(points=4001) < 5.4e-15
    assert program.relative_error(points=4001) == pytest.approx(1.81e-15, rel=0.02)
    assert program.relative_error(0, 1, points=401) > 1e-13


@pytest.mark.parametrize("name", [n for n in approximations() if approximation(n).error is not None])
def test_the_data_states_the_error_in_exact_arithmetic(name: str) -> None:
    program = approximation(name)
    assert program.error is not None
    assert 0.3 * program.error < program.relative_error(points=3001) <= 1.001 * program.error


def test_the_magic_number_is_quakes() -> None:
    x = np.array([0.15625, 2.0, 1e10], np.float32)
    i = np.uint32(0x5F3759DF) - (x.view(np.uint32) >> np.uint32(1))
    guess = i.view(np.float32)
    wanted = guess * (np.float32(1.5) - (x * np.float32(0.5)) * guess * guess)
    program = approximation("rsqrt/fast_inverse_1")
    steps = program.steps[1]
    assert_bits_equal(single(program, steps.name, x), guess.astype(np.float64))
    assert program.evaluate(x, "float32").values == pytest.approx(wanted, rel=1e-6)


def single(program: Approximation, step: str, x: np.ndarray) -> np.ndarray:
    shorter = Approximation("part", program.function, program.domain, program.steps[: 1 + names(program).index(step)])
    return shorter.evaluate(x, "float32").values


def names(program: Approximation) -> list[str]:
    return [s.name for s in program.steps]


# The functions that they are compared with


@pytest.mark.parametrize("fmt", ["float8_e4m3fn", "float8_e5m2", "posit8_es2", "fixed8_4", "int8", "takum8_linear"])
@pytest.mark.parametrize("function", sorted(references.FUNCTIONS))
def test_references_are_correctly_rounded(function: str, fmt: str) -> None:
    form = lowp.parse(fmt)
    x = lowp.array.from_codes(np.arange(256), fmt)
    got = references.rounded(function, x, form)  # type: ignore[arg-type]
    near = references.exact(function, x, True)
    for value, code, about in zip(x.values.tolist(), got.codes.tolist(), near, strict=True):
        if not math.isfinite(value) or (value <= 0 and function in ("log2", "sqrt", "rsqrt")) or value == 0:
            continue
        if abs(value) < 1000:
            with mpmath.workprec(200):
                assert abs(about - EXACT[function](mpmath.mpf(value))) <= abs(about) * mpmath.mpf(2) ** -150
        assert same_but_zeros(form, code, operate("convert", (fraction(about),), form)), (value, code)


def same_but_zeros(fmt: Any, a: int, b: int) -> bool:
    zeros = ("-0", Fraction(0))
    return a == b or (fmt.meaning(a) in zeros and fmt.meaning(b) in zeros)


@pytest.mark.parametrize(
    ("function", "x", "wanted"),
    [
        ("gelu", -math.inf, -0.0), ("gelu", math.inf, math.inf), ("gelu", -0.0, -0.0), ("gelu", -1e4, -0.0),
        ("sigmoid", -math.inf, 0.0), ("sigmoid", 0.0, 0.5), ("sigmoid", math.inf, 1.0), ("silu", -math.inf, -0.0),
        ("erf", math.inf, 1.0), ("erf", -math.inf, -1.0), ("gelu_tail", 60000.0, -0.0), ("rsqrt", 0.0, math.inf),
        ("gelu", math.nan, math.nan),
    ],
)  # fmt: skip
def test_references_at_special_values(function: str, x: float, wanted: float) -> None:
    assert_bits_equal(references.rounded(function, lowp.array([x], "float16"), FLOAT16).values, np.array([wanted]))  # type: ignore[arg-type]


# Errors in ulps


@pytest.mark.parametrize(
    "name", ["exp/minimax_2", "gelu/tanh", "rsqrt/table_96_newton_1", "tanh/pade_3_2", "sigmoid/hard"]
)
@pytest.mark.parametrize("fmt", ["float8_e5m2", "float8_e3m4", "posit8_es1"])
def test_reports_are_brute_force(name: str, fmt: str) -> None:
    program, form = approximation(name), lowp.parse(fmt)
    low, high = program.bounds(form)  # type: ignore[arg-type]
    most = form.max + float(lowp.ulp(lowp.array(form.max, fmt))) / 2
    report = ulp_errors(name, fmt)
    errors, at, wrong, count = [], [], 0, 0
    for value in lowp.values(fmt).tolist():
        if not (math.isfinite(value) and low <= value <= high):
            continue
        with mpmath.workprec(200):
            want = fraction(EXACT[program.function](mpmath.mpf(value)))
        nearest = lowp.array.from_codes(operate("convert", (want,), form), fmt)  # type: ignore[arg-type]
        if abs(want) > most or not math.isfinite(nearest.item()):
            continue
        got = program.evaluate([value], fmt).item()
        count += 1
        wrong += got != nearest.item()
        errors.append(float(abs(Fraction(got) - want)) / float(lowp.ulp(nearest)) if math.isfinite(got) else math.inf)
        at.append(value)
    assert report.inputs == count
    assert report.max_ulps == pytest.approx(max(errors), rel=1e-12)
    finite = [e for e in errors if e < math.inf]
    assert report.mean_ulps == pytest.approx(np.mean(finite), rel=1e-9)
    assert report.failed == len(errors) - len(finite)
    assert report.correctly_rounded == pytest.approx(1 - wrong / count)
    assert errors[at.index(report.at)] == max(errors)


def test_a_better_polynomial_has_a_smaller_error() -> None:
    errors = [ulp_errors(f"exp2/minimax_{n}", "float16").max_ulps for n in (2, 3)]
    assert errors[0] > 4 * errors[1]
    assert ulp_errors("exp2/table_64", "float16").max_ulps < 1.5
    assert ulp_errors("exp2/table_64", "float16").operations.lookups == 2


def test_without_fused_operations_there_are_more() -> None:
    fused, split = (approximation("exp/minimax_3").operations(f) for f in (True, False))
    assert (fused.fmas, fused.multiplies, fused.adds) == (5, 1, 0)
    assert (split.fmas, split.multiplies, split.adds) == (0, 6, 5)
    assert ulp_errors("exp/minimax_3", "float8_e4m3fn", fused=False).operations == split


def test_a_range_and_a_wide_format() -> None:
    assert ulp_errors("exp/minimax_3", "float16", lo=0, hi=1).inputs == 15362, "and -0"
    wide = ulp_errors("exp/minimax_4", "float64", inputs=np.linspace(-1, 1, 50))
    assert wide.max_relative == pytest.approx(2.6e-6, rel=0.1)
    with pytest.raises(lowp.ArgumentError, match="give inputs="):
        ulp_errors("exp/minimax_4", "float32")


def test_digits_are_autonumerics_zeros_measure() -> None:
    report = ulp_errors("exp2/minimax_3", "float8_e5m2")
    assert report.digits == -math.log10(report.max_relative)
    assert "correctly rounded" in str(report)


# One's own


def test_one_can_write_ones_own() -> None:
    mine = Approximation.from_mapping(
        "exp2/mine",
        {
            "function": "exp2",
            "steps": "n = floor(x)\nf = subtract(x, n)\np = horner(f, c)\ny = scale(p, n)",
            "coefficients": {"c": ["1", "0.66", "0.34"]},
            "domain": [-3, 3],
        },
    )
    assert mine.evaluate([1.5], "float32").values == pytest.approx([2 * (1 + 0.33 + 0.085)], rel=1e-6)
    assert ulp_errors(mine, "bfloat16").max_ulps < 2
    assert hash(mine) == hash(mine)
    assert "horner" in str(mine)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"function": "exp", "steps": "y = ad(x, 1)"}, "Did you mean 'add'"),
        ({"function": "exp", "steps": "y = add(x, z)"}, "'z' is not known before this step"),
        ({"function": "exp", "steps": "y = add(x)"}, "add takes 2 to 2 arguments|has 1 arguments"),
        ({"function": "exp", "steps": "y: add(x, 1)"}, "is no step"),
        ({"function": "exp", "steps": ""}, "has no steps"),
        ({"function": "expo", "steps": "y = add(x, 1)"}, "Did you mean 'exp"),
        ({"function": "exp"}, "there is no 'steps'"),
        ({"function": "exp", "steps": "y = add(x, 1)", "stps": ""}, "Did you mean 'steps'"),
        ({"function": "exp", "steps": "y = horner(x, x)"}, "argument 2 of horner"),
        ({"function": "exp", "steps": "y = add(x, c)", "constants": {"c": "one"}}, "'one' is no number"),
        ({"function": "exp", "steps": "y = lookup(t, x)", "tables": {"t": {"function": "exp"}}}, "entries=None"),
    ],
)
def test_wrong_programs(given: dict[str, Any], message: str) -> None:
    with pytest.raises(lowp.ArgumentError, match=message):
        Approximation.from_mapping("mine", given)


def test_wrong_names_and_formats() -> None:
    with pytest.raises(lowp.ArgumentError, match="approximation='exp/minimx_3'"):
        ulp_errors("exp/minimx_3", "float16")
    with pytest.raises(lowp.ArgumentError, match="function='exq'"):
        approximations("exq")
    with pytest.raises(lowp.FormatError, match="magic_rsqrt works on codes of a float"):
        ulp_errors("rsqrt/fast_inverse_1", "posit8_es1")
    with pytest.raises(lowp.ArgumentError, match=r"lo=2\.0 is not below hi=1\.0"):
        ulp_errors("exp/minimax_3", "float16", lo=2, hi=1)
    with pytest.raises(lowp.ArgumentError, match="has no arguments from"):
        ulp_errors("exp/minimax_3", "float8_e4m3fn", lo=1.01, hi=1.02)
    with pytest.raises(lowp.ArgumentError, match="give both"):
        approximation("gelu/tanh").relative_error()


@pytest.mark.parametrize("name", approximations())
def test_a_result_does_not_depend_on_its_neighbours(name: str) -> None:
    program = approximation(name)
    x = lowp.array.from_codes(np.arange(256), "float8_e3m4")
    together = program.evaluate(x, "float8_e3m4").values
    some = range(0, 256, 5)
    alone = [program.evaluate(x[i : i + 1], "float8_e3m4").item() for i in some]
    assert_bits_equal(together[list(some)], np.array(alone))
