"""What the exact oracle does in every format: values stay, and the neighbours are those of the list of values."""

import random
from fractions import Fraction

import pytest

from lowp.formats import Format, Integer, parse
from lowp.formats.spec import finite_values
from lowp.rounding.exact import decode, encode, neighbours, quantize
from lowp.rounding.modes import ROUNDING_MODES

DETERMINISTIC = [name for name in ROUNDING_MODES if not name.startswith("stochastic")]
_FORMATS = [
    "e4m3fn",
    "e5m2",
    "e4m3fnuz",
    "e2m1fn",
    "ue5m3",
    "binary6p3se",
    "binary5p1uf",
    "int4",
    "int5_sym",
    "fixed8_4",
]


@pytest.mark.parametrize("name", [*_FORMATS, "float8_e8m0fnu", "float8_e3m4", "binary8p8uf", "nf4", "ternary"])
def test_values_encode_to_themselves_in_every_mode(name: str) -> None:
    fmt = parse(name)
    for code in range(1 << fmt.bits):
        meaning = decode(code, fmt)
        if meaning == "nan":
            continue
        for mode in DETERMINISTIC:
            if isinstance(fmt, Integer) and fmt.symmetric and meaning == -(1 << (fmt.bits - 1)):
                continue
            assert encode(meaning, fmt, mode, "propagate") == code


@pytest.mark.parametrize("name", _FORMATS)
def test_agrees_with_brute_force_over_all_values(name: str) -> None:
    fmt, draw = parse(name), random.Random(name)  # noqa: S311
    values = [v for v in finite_values(fmt) if not (name == "int5_sym" and v == -16)]
    for _ in range(200):
        lower, upper = (values[i := draw.randrange(len(values) - 1)], values[i + 1])
        x = lower + (upper - lower) * Fraction(draw.choice((1, 3, 4, 5, 7)), 8)
        assert neighbours(x, fmt) == (lower, upper)
        for mode, value in _brute_force(x, lower, upper, fmt).items():
            assert quantize(x, fmt, mode) in (value, "-0" if value == 0 else value), (x, mode)


def _brute_force(x: Fraction, lower: Fraction, upper: Fraction, fmt: Format) -> dict[str, Fraction]:
    near, far = sorted((lower, upper), key=abs)
    directed = {"toward_positive": upper, "toward_negative": lower, "toward_zero": near, "away_from_zero": far}
    if 2 * x != lower + upper:
        nearest = min((lower, upper), key=lambda v: abs(v - x))
        return directed | dict.fromkeys((m for m in DETERMINISTIC if m.startswith("ties_to")), nearest)
    by_parity = {encode(v, fmt) & 1: v for v in (lower, upper)}
    ties = {"ties_to_positive": upper, "ties_to_negative": lower, "ties_to_zero": near, "ties_to_away": far}
    return directed | ties | {"ties_to_even": by_parity[0], "ties_to_odd": by_parity[1], "to_odd": by_parity[1]}
