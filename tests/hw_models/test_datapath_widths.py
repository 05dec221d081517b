"""Widths of datapaths against the emulator: nothing overflows in them, and something does one bit below."""

from __future__ import annotations

import itertools
from fractions import Fraction

import numpy as np
import pytest

import lowp
from lowp import hw
from lowp.emulation.accumulator_bounds import prove_no_overflow, safe_width
from lowp.formats import LNS, Block, Codebook, Fixed, Float, Integer, Posit, ScalarFormat, Takum, names, parse
from lowp.formats.spec import finite_values
from lowp.hw_models.value_sets import factor, last_bit, product_range, sum_bits

_EMULATED_BITS = 53  # of fixed-point words whose every number float64 holds


def _floats(bits: int) -> list[Float]:
    found = []
    for exponent in range(1, bits):
        for specials in ("ieee", "fn", "fnuz", "finite", "p3109", "p3109_finite"):
            for subnormals in (True, False):
                try:
                    found.append(Float(exponent, bits - 1 - exponent, specials=specials, subnormals=subnormals))
                except lowp.FormatError:
                    continue
    return found


def _small(bits: int) -> list[ScalarFormat]:
    """Formats of so many bits, of every family whose numbers lie on a grid."""
    fixed = [Integer(bits), Integer(bits, signed=False), Integer(bits, symmetric=True), Fixed(bits, 2), Fixed(bits, -3)]
    tapered = [Posit(bits, es) for es in (0, 1, 2)] + [Takum(bits), LNS(bits, 0), LNS(bits, 0, zero=False)]
    uneven = Codebook([(-1) ** i * (i * i + 3) / 8 for i in range(1 << bits)], label=f"squares{bits}")
    return list(dict.fromkeys([*fixed, *_floats(bits), *tapered, uneven]))


SMALL = _small(4) + _small(6)
#: Each format with itself, and with the next one of the list.
PAIRS = [(a, a) for a in SMALL] + list(itertools.pairwise(SMALL))
_IDS = [f"{a}-{b}" for a, b in PAIRS]
LISTED = [f for f in map(parse, names()) if isinstance(f, ScalarFormat) and factor(f).unit is not None]


def _integers(fmt: ScalarFormat) -> list[int]:
    """All numbers of a format in units, from its codes."""
    unit = Fraction(2) ** factor(fmt).unit
    scaled = [x / unit for x in finite_values(fmt)]
    assert all(x.denominator == 1 for x in scaled)
    return [int(x) for x in scaled]


def _fits(x: int, bits: int) -> bool:
    return -(1 << (bits - 1)) <= x < 1 << (bits - 1)


@pytest.mark.parametrize(("a", "b"), PAIRS, ids=_IDS)
def test_every_product_of_small_formats_fits_and_some_not_in_one_bit_less(a, b):
    unit = hw.datapath(a, b)
    products = {x * y for x in _integers(a) for y in _integers(b)}
    assert all(_fits(x, unit.product_bits) for x in products)
    assert unit.product_bits == 1 or not all(_fits(x, unit.product_bits - 1) for x in products)
    assert unit.product_unit == factor(a).unit + factor(b).unit
    assert any(x & 1 for x in products), "a larger unit would do"


@pytest.mark.parametrize(("a", "b"), PAIRS, ids=_IDS)
def test_every_sum_of_two_products_fits_and_some_not_in_one_bit_less(a, b):
    bits = hw.datapath(a, b, lanes=2, accumulator="exact").accumulator_bits
    products = sorted({x * y for x in _integers(a) for y in _integers(b)} | {0})
    sums = {products[0] + products[0], products[-1] + products[-1]}
    if len(products) < 700:  # every pair; of more products the ends decide
        column = np.array(products, object)
        sums |= set(np.add.outer(column, column).ravel().tolist())
    assert all(_fits(x, bits) for x in sums)
    assert bits == 1 or not all(_fits(x, bits - 1) for x in sums)


@pytest.mark.parametrize("fmt", [f for f in SMALL if f.bits == 4], ids=str)
def test_every_sum_of_three_products_of_four_bits(fmt):
    bits = hw.datapath(fmt, lanes=3, accumulator="exact").accumulator_bits
    products = sorted({x * y for x in _integers(fmt) for y in _integers(fmt)} | {0})
    sums = {x + y + z for x, y, z in itertools.combinations_with_replacement(products, 3)}
    assert all(_fits(x, bits) for x in sums)
    assert bits == 1 or not all(_fits(x, bits - 1) for x in sums)


def _word(bits: int, unit: int) -> Fixed:
    return Fixed(bits, -unit)


def _emulated(a: ScalarFormat, b: ScalarFormat, bits: int, unit: int) -> np.ndarray:
    """Every product of two formats as the emulator stores it in a word that wraps around."""
    left = np.array([[float(x)] for x in finite_values(a)])
    right = np.array([[float(x) for x in finite_values(b)]])
    word = lowp.Accumulator(format=_word(bits, unit), overflow="wrap", rounding="toward_zero", signed_zero=False)
    return np.asarray(lowp.matmul(left, right, accumulator=word, fmt="float64"))


#: Wider words hold numbers that float64 does not; the tests with exact integers above cover them.
EMULATED = [(a, b) for a, b in PAIRS if hw.datapath(a, b).product_bits <= _EMULATED_BITS]


@pytest.mark.parametrize(("a", "b"), EMULATED, ids=[f"{a}-{b}" for a, b in EMULATED])
def test_the_emulator_stores_every_product_in_the_width_and_not_in_one_bit_less(a, b):
    unit = hw.datapath(a, b)
    exact = np.array([[float(x * y) for y in finite_values(b)] for x in finite_values(a)])
    assert np.array_equal(_emulated(a, b, unit.product_bits, unit.product_unit), exact)
    if unit.product_bits > 1:
        assert not np.array_equal(_emulated(a, b, unit.product_bits - 1, unit.product_unit), exact)


@pytest.mark.parametrize("fmt", LISTED, ids=str)
@pytest.mark.parametrize("terms", [1, 32, 4608])
def test_registered_formats_have_the_widths_of_the_emulator(fmt, terms):
    found = hw.datapath(fmt, accumulator="exact", terms=terms)
    width = safe_width(fmt, fmt, terms=terms)
    assert found.accumulator_bits == width.bits
    assert found.product_unit == -width.fraction_bits
    if terms == 1:
        assert found.product_bits == width.bits


@pytest.mark.parametrize("bits", [8, 16, 17, 24])
@pytest.mark.parametrize(
    "make", [lambda bits: Integer(bits, symmetric=True), lambda bits: Fixed(bits, 3, symmetric=True)]
)
def test_the_code_below_the_least_number_counts_in_symmetric_formats_of_all_sizes(make, bits):
    width = safe_width(make(bits), make(bits), terms=1)
    assert width.bits == hw.datapath(make(bits), accumulator="exact").accumulator_bits == 2 * bits


@pytest.mark.parametrize("fmt", ["mxfp4", "mxint8", "mxfp8", "nvfp4", "int4_g128", "msfp12"])
def test_exact_sums_of_scaled_blocks_have_the_widths_of_the_emulator(fmt):
    block = parse(fmt)
    assert isinstance(block, Block)
    plain = Block(block.element, block.size, block.scale)  # the tensor's scale multiplies the finished sum
    found = hw.datapath(fmt, lanes=32, accumulator="exact")
    assert found.accumulator_bits == safe_width(plain, plain, terms=32).bits


@pytest.mark.parametrize(("name", "bits", "shifts"), [("mx9", 7, 1), ("mx6", 4, 1), ("mx4", 2, 1), ("hif4", 3, 2)])
def test_elements_that_share_shifts(name, bits, shifts):
    numbers = {sign * n << shift for n in range(1 << bits) for shift in range(shifts + 1) for sign in (-1, 1)}
    products = {x * y for x in numbers for y in numbers}
    found = hw.datapath(name).product_bits
    assert all(_fits(x, found) for x in products)
    assert not all(_fits(x, found - 1) for x in products)


@pytest.mark.parametrize("name", ["mx9", "mx6", "mx4"])
def test_the_unit_of_shared_shifts_is_that_of_the_emulators_numbers(name):
    """Quantized numbers over the power of two of their block are multiples of the unit, and not of twice the unit."""
    blocks = lowp.quantize(np.random.default_rng(1).normal(size=(64, 64)), name).reshape(-1, 16)
    scale = 2.0 ** np.floor(np.log2(np.abs(blocks).max(axis=1, keepdims=True)))
    units = blocks / scale / 2.0 ** (hw.datapath(name).product_unit // 2)
    assert np.array_equal(units, np.rint(units))
    assert (units % 2 == 1).any()


@pytest.mark.parametrize(
    ("a", "b", "lanes"),
    [
        ("int8", "int8", 32),
        ("uint8", "int8", 64),
        ("int8", "uint4", 512),
        ("float8_e3m4", "float8_e3m4", 32),
        ("float8_e4m3fn", "float4_e2m1fn", 16),
        ("float8_e4m3fn", "float8_e4m3fn", 32),
        ("posit8_es0", "int8", 16),
        ("ternary", "int8", 257),
        ("fixed16_8", "int4", 100),
    ],
)
def test_a_proof_at_the_width_and_a_counterexample_one_bit_below(a, b, lanes):
    unit = hw.datapath(a, b, lanes=lanes, accumulator="exact")
    bits, least = unit.accumulator_bits, unit.product_unit
    left, right = factor(parse(a)), factor(parse(b))
    low, high = product_range(left, right)
    deeper = high if sum_bits(left, right, lanes) == (high * lanes).bit_length() + 1 else low
    ends = [w for w in (right.least, right.largest) if deeper in (w * left.least, w * left.largest)]
    weights = [float(Fraction(ends[0]) * Fraction(2) ** right.unit)] * lanes
    proof = prove_no_overflow(lowp.Accumulator(format=_word(bits, least), overflow="saturate"), weights, a)
    assert proof, proof.why
    against = prove_no_overflow(lowp.Accumulator(format=_word(bits - 1, least), overflow="saturate"), weights, a)
    assert not against
    assert abs(against.exact) > abs(against.result)


@pytest.mark.parametrize("name", ["float32", "bfloat16", "posit32_es2", "takum16_linear", "int32", "float16"])
def test_wide_formats_have_a_witness(name):
    """The largest products, as exact fractions: they fit, and do not in one bit less."""
    fmt = parse(name)
    unit = hw.datapath(fmt, lanes=32, accumulator="exact")
    largest, least = fmt._limits[0], fmt._limits[1]
    step = Fraction(2) ** unit.product_unit
    ends = [32 * x * y / step for x in (largest, least) for y in (largest, least)]
    assert all(x.denominator == 1 and _fits(int(x), unit.accumulator_bits) for x in ends)
    assert not all(_fits(int(x), unit.accumulator_bits - 1) for x in ends)
    smallest = fmt._limits[3]
    assert last_bit(smallest) * 2 == unit.product_unit


@pytest.mark.parametrize(
    "name", ["float4_e2m1fn", "float6_e2m3fn", "float6_e3m2fn", "float5_e2m2f", "float5_e3m1f", "posit6_es0"]
)
def test_the_default_window_loses_nothing_where_it_is_narrow(name):
    """Alignment under the largest exponent, as the emulator cuts it; a bit is for the carry of two products."""
    fmt = parse(name)
    unit = hw.datapath(fmt, lanes=2)
    assert unit.window == unit.product_bits + 1
    values = np.array([float(x) for x in finite_values(fmt)])
    largest, smallest = np.full(len(values), values.max()), np.full(len(values), values[values > 0].min())
    left, right = np.stack([largest, values], axis=1), np.stack([largest, smallest], axis=0)
    exact = left @ right

    def cut(window: int) -> np.ndarray:
        alignment = lowp.Alignment(fraction_bits=window - 3)  # sign and two integer bits
        accumulator = lowp.Accumulator(format="float64", group=2, alignment=alignment)
        return np.asarray(lowp.matmul(left, right, accumulator=accumulator, fmt="float64"))

    assert np.array_equal(cut(unit.window), exact)
    assert not np.array_equal(cut(unit.window - 2), exact)


def test_an_accumulators_alignment_sets_the_window():
    accumulator = lowp.Accumulator(format="float32", group=32, alignment=lowp.Alignment(fraction_bits=13))
    assert hw.datapath("float8_e4m3fn", lanes=32, accumulator=accumulator).window == 16
