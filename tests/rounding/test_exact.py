"""The exact oracle against cases worked by hand from the standards, and against brute force over all values."""

import ast
import math
from fractions import Fraction
from pathlib import Path

import pytest

from lowp._errors import ArgumentError, ArgumentTypeError, FormatError, RangeError
from lowp.formats import Codebook, Fixed, Float, parse
from lowp.rounding.exact import encode, error, exact_value, neighbours, quantize
from lowp.rounding.modes import INTEGER_ONLY, OVERFLOW_MODES, ROUNDING_MODES

DETERMINISTIC = [name for name in ROUNDING_MODES if not name.startswith("stochastic")]
NONE = "infinity_or_nan"


@pytest.mark.parametrize("name", ["exact", "exact_block", "exact_ranked", "exact_rules"])
def test_uses_no_array_library_and_no_fast_path(repo: Path, name: str) -> None:
    tree = ast.parse((repo / "rounding" / f"{name}.py").read_text(encoding="utf-8"))
    froms = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    plain = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    modules = plain | {
        f"{n.module}.{a.name}" if n.module == "lowp.rounding" else str(n.module) for n in froms for a in n.names
    }
    assert not {m for m in modules if m.split(".")[0] in ("numpy", "numba", "torch")}
    own = {m for m in modules if m.startswith("lowp.rounding")}
    assert own <= {
        "lowp.rounding.exact",
        "lowp.rounding.exact_ranked",
        "lowp.rounding.exact_rules",
        "lowp.rounding.modes",
    }


# OCP OFP8, binary floats


@pytest.mark.parametrize(
    ("x", "saturating", "other"),
    [
        (448, 0x7E, 0x7E),
        (464, 0x7E, 0x7E),  # the tie between 448 and 480 goes to the even code
        (math.nextafter(464, 465), 0x7E, 0x7F),
        (-465, 0xFE, 0x7F),
        (math.inf, 0x7E, 0x7F),
        (-math.inf, 0xFE, 0x7F),
        (math.nan, 0x7F, 0x7F),
        (-0.0, 0x80, 0x80),
        (-(2.0**-10), 0x80, 0x80),  # half the smallest subnormal: a tie, to zero, whose sign stays
        (1.0001 * 2.0**-10, 0x01, 0x01),
        (-431.99999999999994, 0xFD, 0xFD),  # through float32 this would become a tie
    ],
)
def test_e4m3fn_conversion(x: float, saturating: int, other: int) -> None:
    assert encode(x, "float8_e4m3fn") == saturating
    assert encode(x, "float8_e4m3fn", overflow=NONE) == other


@pytest.mark.parametrize(
    ("x", "overflow", "value"),
    [
        (61440, "saturate", 57344),  # tie between 57344 (odd code) and 65536
        (61440, "propagate", 57344),
        (61440, NONE, "inf"),
        (61439, NONE, 57344),
        (math.inf, "saturate", 57344),
        (-math.inf, "propagate", "-inf"),
        (-math.inf, NONE, "-inf"),
    ],
)
def test_e5m2_overflow(x: float, overflow: str, value: int | str) -> None:
    assert quantize(x, "float8_e5m2", overflow=overflow) == value


@pytest.mark.parametrize(
    ("mode", "positive", "negative"),
    [
        ("ties_to_even", "inf", "-inf"),
        ("away_from_zero", "inf", "-inf"),
        ("toward_zero", 57344, -57344),
        ("toward_positive", "inf", -57344),
        ("toward_negative", 57344, "-inf"),
        ("to_odd", 57344, -57344),  # the largest finite code is odd
    ],
)
def test_directed_modes_stop_at_the_largest_finite_value(mode: str, positive: object, negative: object) -> None:
    assert quantize(1e9, "float8_e5m2", mode, NONE) == positive
    assert quantize(-1e9, "float8_e5m2", mode, NONE) == negative
    assert quantize(math.inf, "float8_e5m2", mode, NONE) == "inf"


def test_to_odd_overflows_where_the_largest_finite_code_is_even() -> None:
    assert quantize(449, "float8_e4m3fn", "to_odd", NONE) == "nan"
    assert quantize(449, "float8_e4m3fn", "to_odd") == 448
    assert quantize(441, "float8_e4m3fn", "to_odd") == 416


@pytest.mark.parametrize(
    ("x", "saturating", "other"),
    [
        (1.4, 127, 127),
        (1.5, 128, 128),
        (3.0, 128, 128),  # between codes 128 and 129
        (0.75, 126, 126),
        (2.0**-128, 0, 0),
        (5e-324, 0, 0),
        (1.5 * 2.0**-127, 0, 0),
        (1.5 * 2.0**127, 254, 254),
        (1.6 * 2.0**127, 254, 255),
        (0.0, 0, 255),
        (-0.0, 0, 255),
        (-1.0, 0, 255),
        (math.inf, 254, 255),
        (-math.inf, 0, 255),
        (math.nan, 255, 255),
    ],
)
def test_e8m0(x: float, saturating: int, other: int) -> None:
    assert encode(x, "float8_e8m0fnu") == saturating
    assert encode(x, "float8_e8m0fnu", overflow=NONE) == other


@pytest.mark.parametrize("mode", DETERMINISTIC)
def test_positive_numbers_below_the_smallest_of_e8m0_round_up(mode: str) -> None:
    assert encode(2.0**-200, "float8_e8m0fnu", mode, NONE) == 0


def test_without_subnormals_the_neighbours_are_zero_and_the_smallest_value() -> None:
    fmt = Float(4, 3, subnormals=False)
    tiny = Fraction(1, 64)
    assert [quantize(tiny * k / 8, fmt) for k in (3, 4, 5)] == [0, 0, tiny]
    assert quantize(tiny / 2, fmt, "ties_to_odd") == tiny
    assert quantize(tiny / 2, fmt, "ties_to_away") == tiny
    assert quantize(-tiny / 8, fmt, "toward_positive") == "-0"
    assert quantize(tiny / 8, fmt, "to_odd") == tiny


def test_formats_without_negative_zero_get_plus_zero() -> None:
    for name in ("float8_e4m3fnuz", "binary8p4se", "ue5m3fn", "int8", "nf4"):
        assert quantize(-0.0, name) == 0
        assert quantize(-1e-30, name) == 0


# IEEE P3109

_KINDS = {"se": "binary4p2se", "sf": "binary4p2sf", "ue": "binary4p2ue", "uf": "binary4p2uf"}
_MAX = {"se": 2, "sf": 3, "ue": 6, "uf": 8}


@pytest.mark.parametrize("kind", list(_KINDS))
@pytest.mark.parametrize("mode", DETERMINISTIC)
def test_p3109_saturation(kind: str, mode: str) -> None:
    largest, extended, signed = _MAX[kind], kind[1] == "e", kind[0] == "s"
    lowest = -largest if signed else 0

    def four(overflow: str) -> list[object]:
        return [quantize(x, _KINDS[kind], mode, overflow) for x in (math.inf, -math.inf, 1000, -1000)]

    assert four("SatFinite") == [largest, lowest, largest, lowest]
    plus, minus = "inf" if extended else largest, "-inf" if extended and signed else lowest
    assert four("SatPropagate") == [plus, minus, largest, lowest]
    below = minus if signed else "nan"
    stops_above = mode in ("toward_zero", "toward_negative") or (mode == "to_odd" and kind == "ue")
    stops_below = mode in ("toward_zero", "toward_positive")
    assert four("SatNone") == [plus, below, largest if stops_above else plus, lowest if stops_below else below]


def test_p3109_unsigned_negatives_that_round_to_zero_are_zero() -> None:
    assert quantize(-1e-9, "binary4p2ue", overflow="SatNone") == 0
    assert quantize(-1e-9, "binary4p2ue", "toward_negative", "SatNone") == "nan"
    assert quantize(-1e-9, "ue4m3fn", "toward_negative", "infinity_or_nan") == "nan"
    assert quantize(-5, "ue5m3f", overflow=NONE) == 0


@pytest.mark.parametrize(
    ("nu", "away"),
    [
        (Fraction(0), ((), (), ())),
        (Fraction(1, 16), ((), (), ())),
        (Fraction(1, 8), ((), (3,), ())),
        (Fraction(3, 16), ((), (3,), (3,))),
        (Fraction(1, 2), ((2, 3), (2, 3), (2, 3))),
        (Fraction(15, 16), ((1, 2, 3), (0, 1, 2, 3), (0, 1, 2, 3))),
        (Fraction(31, 32), ((1, 2, 3), (0, 1, 2, 3), (0, 1, 2, 3))),
    ],
)
def test_p3109_stochastic_modes_with_two_bits(nu: Fraction, away: tuple[tuple[int, ...], ...]) -> None:
    for mode, expected in zip(("stochastic_a", "stochastic_b", "stochastic_c"), away, strict=True):
        for fmt, gap in (("int8", 1), ("float8_e4m3fn", Fraction(1, 4)), (Codebook([2.0, 3.0]), 1)):
            rounded = [quantize(2 + nu * gap, fmt, mode, random=r << 30, random_bits=2) for r in range(4)]
            assert [r for r in range(4) if rounded[r] != 2] == list(expected), (mode, fmt)


def test_stochastic_codebooks_measure_from_the_neighbour_nearer_zero() -> None:
    fmt = Codebook([-3.0, -2.0])
    rounded = [quantize(-2.25, fmt, "stochastic_a", random=r << 30, random_bits=2) for r in range(4)]
    assert rounded == [-2, -2, -2, -3]


def test_equal_probability_looks_at_the_top_bit_only() -> None:
    assert [encode(2.001, "int8", "stochastic_equal", random=r) for r in (0, 2**31 - 1, 2**31)] == [2, 2, 3]
    assert encode(2, "int8", "stochastic_equal", random=2**32 - 1) == 2


def test_stochastic_rounding_comes_before_overflow() -> None:
    words = (0, 2**32 - 1)
    assert [quantize(247, "float8_e4m3", "stochastic_a", NONE, random=r) for r in words] == [240, "inf"]
    assert [quantize(247, "float8_e4m3", "stochastic_a", random=r) for r in words] == [240, 240]


# Integers and fixed point


@pytest.mark.parametrize(
    ("mode", "values"),
    [  # of -1.5 -1.25 -0.75 -0.5 0.5 0.75 1.25 1.5
        ("AP_TRN", (-2, -2, -1, -1, 0, 0, 1, 1)),
        ("AP_TRN_ZERO", (-1, -1, 0, 0, 0, 0, 1, 1)),
        ("AP_RND", (-1, -1, -1, 0, 1, 1, 1, 2)),
        ("AP_RND_INF", (-2, -1, -1, -1, 1, 1, 1, 2)),
        ("AP_RND_MIN_INF", (-2, -1, -1, -1, 0, 1, 1, 1)),
        ("AP_RND_ZERO", (-1, -1, -1, 0, 0, 1, 1, 1)),
        ("AP_RND_CONV", (-2, -1, -1, 0, 0, 1, 1, 2)),
    ],
)
def test_ap_fixed_quantization_modes(mode: str, values: tuple[int, ...]) -> None:
    xs = (-1.5, -1.25, -0.75, -0.5, 0.5, 0.75, 1.25, 1.5)
    assert tuple(quantize(x, "int4", mode) for x in xs) == values
    assert tuple(quantize(x / 8, Fixed(6, 3), mode) for x in xs) == tuple(Fraction(v, 8) for v in values)


@pytest.mark.parametrize(
    ("overflow", "saturated", "values"),
    [  # of 9 -9 -8 16 inf, in int4
        ("AP_SAT", 0, (7, -8, -8, 7, 7)),
        ("AP_SAT_ZERO", 0, (0, 0, -8, 0, 0)),
        ("AP_SAT_SYM", 0, (7, -7, -7, 7, 7)),
        ("AP_WRAP", 0, (-7, 7, -8, 0, 0)),
        ("AP_WRAP", 1, (1, -1, -8, 0, 0)),
        ("AP_WRAP", 3, (7, -7, -8, 6, 6)),
        ("AP_WRAP_SM", 0, (6, -8, -8, -1, 0)),
        ("AP_WRAP_SM", 1, (6, -8, -8, 0, 0)),
    ],
)
def test_ap_fixed_overflow_modes(overflow: str, saturated: int, values: tuple[int, ...]) -> None:
    xs = (9, -9, -8, 16, math.inf)
    assert tuple(quantize(x, "int4", overflow=overflow, saturation_bits=saturated) for x in xs) == values


def test_wrap_sign_magnitude_takes_the_deleted_bit_before_rounding() -> None:
    assert quantize(15.5, "int4", "AP_RND", "AP_WRAP_SM") == 0
    assert quantize(16, "int4", "AP_RND", "AP_WRAP_SM") == -1


def test_symmetric_and_unsigned_ranges() -> None:
    assert [quantize(x, "int4_sym") for x in (-9, -8, -7.5, 7.5)] == [-7, -7, -7, 7]
    assert quantize(24, "int4_sym", overflow="wrap") == -7  # 24 wraps to -8, which nothing encodes to
    assert [quantize(x, "uint4") for x in (-1, -0.5, 15.5, 16)] == [0, 0, 15, 15]
    assert [encode(x, "uint4", overflow="wrap", saturation_bits=1) for x in (17, -1)] == [9, 15]
    assert encode(-3, Fixed(8, 0)) == 0xFD


# Codebooks


def test_nf4_sends_a_threshold_down_and_the_next_number_up() -> None:
    fmt = parse("nf4")
    assert isinstance(fmt, Codebook)
    assert fmt.thresholds is not None
    for i, t in enumerate(fmt.thresholds):
        for mode in ("ties_to_even", "ties_to_away", "ties_to_odd"):
            assert (encode(t, fmt, mode), encode(math.nextafter(t, 2), fmt, mode)) == (i, i + 1)
    assert [encode(x, fmt) for x in (-9, math.inf, -0.0)] == [0, 15, 7]


@pytest.mark.parametrize(
    ("mode", "values"),
    [  # of -2.5 -0.5 0.5 2.5; codes -4:3 -1:0 0:2 1:1 4:4
        ("ties_to_even", (-1, 0, 0, 4)),  # -1 and 0 both even: the smaller magnitude
        ("ties_to_odd", (-4, 0, 1, 1)),
        ("ties_to_away", (-4, -1, 1, 4)),
        ("ties_to_zero", (-1, 0, 0, 1)),
        ("ties_to_positive", (-1, 0, 1, 4)),
        ("ties_to_negative", (-4, -1, 0, 1)),
        ("toward_zero", (-1, 0, 0, 1)),
        ("away_from_zero", (-4, -1, 1, 4)),
        ("toward_positive", (-1, 0, 1, 4)),
        ("toward_negative", (-4, -1, 0, 1)),
        ("to_odd", (-4, -1, 1, 1)),  # -1 and 0 both even: the larger magnitude
    ],
)
def test_codebook_modes(mode: str, values: tuple[int, ...]) -> None:
    fmt = Codebook([-4, -1, 0, 1, 4], codes=[3, 0, 2, 1, 4])
    assert tuple(quantize(x, fmt, mode) for x in (-2.5, -0.5, 0.5, 2.5)) == values


def test_of_two_equal_magnitudes_the_upper_wins_save_toward_zero() -> None:
    even = Codebook([-1.0, 1.0], codes=[2, 4])
    modes = ("ties_to_even", "ties_to_odd", "ties_to_away", "ties_to_zero", "away_from_zero", "to_odd")
    assert {quantize(0, even, mode) for mode in modes} == {1}
    assert quantize(0, even, "toward_zero") == quantize(0, even, "stochastic_a", random=0) == -1


# The other functions, bad input


def test_numbers_of_every_kind_are_exact() -> None:
    assert exact_value(2**2000) == 2**2000
    assert exact_value(Fraction(1, 3)) == Fraction(1, 3)
    assert [exact_value(x) for x in (math.nan, -math.inf, -0.0, "inf")] == ["nan", "-inf", "-0", "inf"]
    assert quantize(Fraction(1, 3), "float64") == Fraction(1 / 3)
    assert quantize(10**400, "float64", overflow=NONE) == "inf"


def test_neighbours_and_error() -> None:
    assert neighbours(1000, "e4m3fn") == (448, None)
    assert neighbours(-math.inf, "int8") == (None, -128)
    assert neighbours(-1, "e8m0") == (None, Fraction(1, 2**127))
    assert neighbours(-0.0, "e4m3fn") == (0, 0)
    assert error(-1e-9, "e4m3fn") == Fraction(1e-9)
    with pytest.raises(RangeError, match="becomes 'inf'"):
        error(1e9, "e5m2", overflow=NONE)
    with pytest.raises(ArgumentError, match="no neighbours"):
        neighbours(math.nan, "e5m2")


def test_nan_where_there_is_none() -> None:
    with pytest.raises(RangeError, match="x is NaN, and 'int8' has no NaN"):
        encode(math.nan, "int8")
    assert [encode(math.nan, "int8", nan=p) for p in ("zero", "max")] == [0, 127]
    assert quantize(math.nan, "nf4", nan="max") == 1
    assert quantize(math.nan, "nf4") == "nan"


@pytest.mark.parametrize(
    ("arguments", "options", "kind", "message"),
    [
        (("one", "int8"), {}, ArgumentError, "x='one' is not known"),
        ((True, "int8"), {}, ArgumentTypeError, "x=True must be a number"),
        ((1, "mxfp4"), {}, FormatError, "block format"),
        ((1, "int8", "stochastic"), {}, ArgumentError, "random=None must be an integer from 0 to 4294967295"),
        ((1, "int8", "stochastic"), {"random": 2**32}, ArgumentError, "random=4294967296"),
        ((1, "int8"), {"nan": "keep"}, ArgumentError, "nan='keep' is not known"),
        (
            (1, "int8"),
            {"overflow": "wrap", "saturation_bits": 9},
            ArgumentError,
            "saturation_bits=9 must be an integer from 0 to 8",
        ),
        ((1, "int8"), {"saturation_bits": 1}, ArgumentError, "saturation_bits=1 needs overflow 'wrap'"),
        ((1, "uint8"), {"overflow": "wrap_sign_magnitude"}, FormatError, "needs a signed format"),
    ],
)
def test_wrong_arguments_are_named(
    arguments: tuple[object, ...], options: dict[str, object], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        encode(*arguments, **options)


@pytest.mark.parametrize("overflow", INTEGER_ONLY)
def test_integer_overflow_modes_are_refused_elsewhere(overflow: str) -> None:
    assert overflow in OVERFLOW_MODES
    for name in ("e4m3fn", "nf4"):
        with pytest.raises(FormatError, match="for integers and fixed point"):
            encode(1, name, overflow=overflow)
