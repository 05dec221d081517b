"""The oracle of operations by its rules: special cases, modes, logarithmic numbers, dot products, refusals."""

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from lowp._errors import ArgumentError, FormatError, RangeError
from lowp.emulation.exact_ops import dot, exact_result, operate, quantize_block
from lowp.formats import Block, parse
from lowp.formats.exact_real import Real
from lowp.rounding.exact_rules import scalar_format as scalar


@pytest.mark.parametrize(
    ("op", "operands", "mode", "result"),
    [
        ("add", (1.0, -1.0), "ties_to_even", Fraction(0)),
        ("add", (1.0, -1.0), "toward_negative", "-0"),
        ("add", (-0.0, -0.0), "ties_to_even", "-0"),
        ("add", (0.0, 0.0), "toward_negative", Fraction(0)),
        ("add", (-0.0, 0.0), "ties_to_even", Fraction(0)),
        ("add", (0.0, -0.0), "toward_negative", "-0"),
        ("subtract", (-0.0, 0.0), "ties_to_even", "-0"),
        ("fma", (-1.0, 1.0, 1.0), "toward_negative", "-0"),
        ("fma", (0.0, math.inf, 1.0), "ties_to_even", "nan"),
        ("fma", (math.inf, 1.0, -math.inf), "ties_to_even", "nan"),
        ("multiply", (-0.0, 3.0), "ties_to_even", "-0"),
        ("multiply", (-(2.0**-20), 2.0**-20), "ties_to_even", "-0"),
        ("divide", (1.0, -0.0), "ties_to_even", "-inf"),
        ("divide", (1.0, -math.inf), "ties_to_even", "-0"),
        ("divide", (0.0, 0.0), "ties_to_even", "nan"),
        ("sqrt", (-0.0,), "ties_to_even", "-0"),
        ("sqrt", (-1.0,), "ties_to_even", "nan"),
        ("minimum", (0.0, -0.0), "ties_to_even", "-0"),
        ("maximum", (-0.0, 0.0), "ties_to_even", Fraction(0)),
        ("maximum", (math.nan, 1.0), "ties_to_even", "nan"),
        ("minimum", (-math.inf, -65504.0), "ties_to_even", "-inf"),
        ("negative", (0.0,), "ties_to_even", "-0"),
        ("absolute", (-math.inf,), "ties_to_even", "inf"),
        ("multiply", (60000.0, 2.0), "toward_zero", Fraction(65504)),
        ("multiply", (60000.0, 2.0), "ties_to_even", "inf"),
        ("remainder", (math.inf, 1.0), "ties_to_even", "nan"),
        ("fmod", (-4.0, 2.0), "ties_to_even", "-0"),
        ("log", (-0.0,), "ties_to_even", "-inf"),
        ("exp", (-math.inf,), "ties_to_even", Fraction(0)),
        ("exp", (-60000.0,), "toward_positive", Fraction(1, 1 << 24)),
        ("tanh", (60000.0,), "toward_zero", 1 - Fraction(1, 1 << 11)),
        ("tanh", (-math.inf,), "ties_to_even", Fraction(-1)),
        ("sin", (math.inf,), "ties_to_even", "nan"),
        ("cos", (2.0**-24,), "toward_zero", 1 - Fraction(1, 1 << 11)),
    ],
)
def test_special_cases(op: str, operands: tuple[float, ...], mode: str, result: Any) -> None:
    assert scalar("float16").meaning(operate(op, operands, "float16", mode)) == result


@pytest.mark.parametrize(
    ("op", "operands"),
    [("divide", (1, 0)), ("divide", (0, 0)), ("sqrt", (-1,)), ("add", ("nan", 1)), ("power", ("nan", 0)), ("log", (0,)),
     ("convert", ("inf",)), ("minimum", ("nan", 1))],
)  # fmt: skip
@pytest.mark.parametrize("name", ["posit16_es1", "takum16_log"])
def test_posits_and_takums_know_one_exception(op: str, operands: tuple[Any, ...], name: str) -> None:
    assert operate(op, operands, name) == 0x8000


def test_roots_just_beside_a_value_are_told_from_it() -> None:
    tiny = Fraction(1, 1 << 300)
    beside = (1 - tiny, 1, 1 + tiny)
    assert [operate("sqrt", (x,), "float16", "toward_positive") for x in beside] == [0x3C00, 0x3C00, 0x3C01]
    assert [operate("sqrt", (x,), "float16", "toward_zero") for x in beside] == [0x3BFF, 0x3C00, 0x3C00]


def test_integers_round_the_exact_quotient() -> None:
    assert [operate("divide", (a, 2), "int8") for a in (5, 7, -5)] == [2, 4, 254]
    assert operate("divide", (5, 2), "int8", "toward_positive") == 3
    assert operate("add", (100, 100), "int8") == 127
    assert operate("add", (100, 100), "int8", overflow="wrap") == 200
    assert operate("negative", (-8,), "int4") == 7


def test_wrapping_waits_for_the_low_bits() -> None:
    """The low bits of e^60 and of an irrational root are known only to bounds closer than one."""
    from mpmath import mp, workdps

    with workdps(100):
        assert operate("exp", (60,), "int16", "toward_zero", "wrap") == int(mp.floor(mp.exp(60))) % 65536
    root = math.isqrt(2 * 10**60)
    assert operate("sqrt", (2 * 10**60,), "uint8", "toward_zero", "wrap") == root % 256
    assert operate("power", (3, 200), "uint8", "toward_zero", "wrap") == 3**200 % 256
    with pytest.raises(RangeError, match="too far out"):
        operate("exp", (1 << 20,), "uint8", overflow="wrap")


def test_a_nan_without_a_code_is_refused_or_replaced() -> None:
    with pytest.raises(RangeError, match="'int8' has no NaN"):
        operate("divide", (0, 0), "int8")
    assert [operate("divide", (0, 0), "int8", nan=policy) for policy in ("zero", "max")] == [0, 127]


def test_random_words_decide_stochastic_rounding() -> None:
    words = (0, 1 << 30, 3 << 30)
    assert [operate("add", (1, Fraction(1, 2)), "int8", "stochastic_a", random=w) for w in words] == [1, 1, 2]


# Logarithmic numbers: products are exact, roots and powers too, sums irrational


def test_logarithmic_products_are_sums_of_codes() -> None:
    fmt = scalar("lns12_f4")
    for i, j in ((5, 9), (100, 37), (200, 3)):
        assert operate("multiply", (fmt.meaning(i), fmt.meaning(j)), fmt) == i + j
        assert operate("divide", (fmt.meaning(i + j), fmt.meaning(j)), fmt) == i
        assert operate("sqrt", (fmt.meaning(2 * i),), fmt) == i
        assert operate("power", (fmt.meaning(i), 3), fmt) == 3 * i
        assert operate("exp2", (Fraction(i, 16),), fmt) == i
    assert operate("log2", (fmt.meaning(33),), "fixed16_8") == 33 << 4


@pytest.mark.parametrize("name", ["lns12_f4", "takum12_log"])
def test_logarithmic_sums_are_the_nearest(name: str) -> None:
    from mpmath import mp, workdps

    fmt = scalar(name)
    rng = np.random.default_rng(5)
    with workdps(60):

        def log(code: int) -> Any:
            x = fmt.meaning(code)
            near = x if isinstance(x, Fraction) else Real.of(x).enclosure(190)[0]  # type: ignore[arg-type]
            return mp.log(mp.mpf(near.numerator) / near.denominator)

        for a, b in rng.integers(1, 900, (25, 2)).tolist():
            code = operate("add", (fmt.meaning(a), fmt.meaning(b)), fmt)
            wanted = mp.log(mp.exp(log(a)) + mp.exp(log(b)))
            below, here, above = log(code - 1), log(code), log(code + 1)
            assert (below + here) / 2 <= wanted <= (here + above) / 2


def test_integer_of_an_irrational_quotient() -> None:
    root = Real.power_of_two(Fraction(1, 2))
    assert exact_result("fmod", (Fraction(10), root)) == 10 - 7 * root
    assert exact_result("remainder", (Fraction(11), root)) == 11 - 8 * root


# Dot products and blocks


def test_a_chain_rounds_every_step() -> None:
    a, b = (2048, 1, 1, 1, 1), (1, 1, 1, 1, 1)
    assert dot(a, b, "float16") == operate("convert", (2048,), "float16")
    assert dot(a, b, "float16", "exact") == operate("convert", (2052,), "float16")
    assert dot(a, b, "float16", "float32") == operate("convert", (2052,), "float16")
    assert dot(a, b, "float32", "float16") == operate("convert", (2048,), "float32")
    assert dot((), (), "float16", "exact") == 0


def test_a_chain_takes_a_random_word_per_rounding() -> None:
    halves = ((Fraction(1, 2),) * 2, (1, 1))
    up, down = (1 << 32) - 1, 0
    assert dot(*halves, "int8", None, "stochastic_a", random=(up, down)) == 1
    assert dot(*halves, "int8", None, "stochastic_a", random=(up, up)) == 2
    assert dot(*halves, "int8", "fixed16_4", "stochastic_a", random=(down, down, down)) == 1
    with pytest.raises(ArgumentError, match="rounds 2 times"):
        dot(*halves, "int8", random=(1,))


def test_wrong_calls_are_refused() -> None:
    with pytest.raises(ArgumentError, match="'subtract'"):
        operate("substract", (1, 2), "float16")
    with pytest.raises(ArgumentError, match="'fma' takes 3"):
        operate("fma", (1, 2), "float16")
    with pytest.raises(ArgumentError, match="a has 1 numbers, b 2"):
        dot((1,), (1, 2), "float16")
    nvfp4 = parse("nvfp4")
    assert isinstance(nvfp4, Block)
    with pytest.raises(FormatError, match="whole tensor"):
        quantize_block([1.0] * 16, nvfp4)
