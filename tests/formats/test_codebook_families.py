"""Codebooks of published systems: their values, codes and decision points."""

import math
from fractions import Fraction

import numpy as np
import pytest
from tests.conftest import Vectors

import lowp
from lowp._errors import FormatError
from lowp.formats import Codebook, parse
from lowp.formats.families import _codebook_data as data
from lowp.formats.families._codebook_grids import _student_quantiles as student_quantiles
from lowp.formats.families._codebook_grids import dynamic_map, linear_map, numbers
from lowp.formats.families.codebooks import ENTRIES


def codebook(name: str) -> Codebook:
    """Return a codebook by name."""
    fmt = parse(name)
    assert isinstance(fmt, Codebook)
    return fmt


def test_bitsandbytes_maps(vectors: Vectors) -> None:
    """Maps of fewer than 8 bits are filled up with zeros there."""
    maps = vectors("bitsandbytes/maps")
    compared = 0
    for name, values in maps.items():
        kind, sign, *rest = name.split("_")
        if kind not in ("dynamic", "linear"):
            continue
        bits = int(rest[-1][1:])
        got = (
            dynamic_map(sign == "signed", int(rest[0][1:]), bits)
            if kind == "dynamic"
            else linear_map(sign == "signed", bits)
        )
        assert len(got.values) == 1 << bits
        assert np.array_equal(np.array(got.values), np.unique(values).astype(np.float64)), name
        assert codebook(got.generated_name()) == got
        compared += 1
    assert compared == 13
    for name in ("nf4", "af4"):
        assert np.array_equal(lowp.values(name), maps[f"type4_{name}"]), name
    fp4 = lowp.values("bnb_fp4_values")
    assert math.isnan(fp4[8])  # the code of -0
    assert np.array_equal(np.nan_to_num(fp4), maps["type4_fp4"])


def test_extremes_and_counts_of_the_dynamic_map() -> None:
    """Dettmers, 8-Bit Approximations for Parallelism, arXiv:1511.04561; bitsandbytes, create_dynamic_map."""
    signed, unsigned = codebook("bnb_dynamic8_signed_values"), codebook("bnb_dynamic8_unsigned_values")
    assert (round(signed.min, 7), signed.max) == (-0.9929687, 1.0)
    assert [sum(v < 0 for v in signed.values), sum(v > 0 for v in signed.values)] == [127, 128]
    assert signed.smallest_subnormal == pytest.approx(5.5e-7, rel=1e-6)
    assert unsigned.smallest_subnormal == pytest.approx(3.25e-7, rel=1e-6)
    assert unsigned.values[-2] == pytest.approx(0.9964844, rel=1e-6)


def test_float32_decision_points() -> None:
    """The constants that bitsandbytes' kernels compare NF4 and FP4 with (csrc/kernels.cu); equal goes down."""
    cuts = [-0.8480964, -0.6106329, -0.4599953, -0.33967943, -0.2346074, -0.13791173, -0.04552502, 0.03979015]
    assert (codebook("nf4").thresholds or ())[:8] == pytest.approx(cuts, abs=6e-8)
    fp4 = [0.00260417, 0.0859375, 0.20833333, 0.29166667, 0.4166667, 0.583333, 0.8333333]
    assert np.array(codebook("bnb_fp4_values").thresholds or ())[7:] == pytest.approx(fp4, rel=1e-5)
    cut = (codebook("nf4").thresholds or ())[9]
    assert lowp.encode([cut, np.nextafter(cut, 1)], "nf4").codes.tolist() == [9, 10]


@pytest.mark.parametrize(("bits", "table"), [(4, data.STUDENT4), (3, data.STUDENT3)])
def test_published_quantiles_follow_from_their_construction(bits: int, table: dict[int, str]) -> None:
    """Learning from Students, arXiv:2405.03103: quantiles of Student's t, steps of probability as NF4's."""
    for nu, published in table.items():
        computed = sorted(student_quantiles(1 << (bits - 1), nu))
        assert computed == pytest.approx(sorted(numbers(published)), abs=1e-6), nu


def test_quantiles_of_any_degree() -> None:
    wide, nearly_normal = codebook("sf4_nu1"), codebook("sf4_nu1000")
    assert wide.values[8] < codebook("sf4").values[8] < nearly_normal.values[8]
    assert nearly_normal.values == pytest.approx(codebook("nf4").values, abs=2e-3)
    assert codebook("sf4_nu5") is codebook("sf4")
    assert len(codebook("sf5_nu4").values) == 32
    with pytest.raises(FormatError, match="nu of at least 1"):
        parse("sf4_nu0")


def test_flint_codes() -> None:
    """ANT, arXiv:2208.14286, table II: above half of the codes, the first one among the lower bits is the exponent."""
    unsigned = [0, 1, 2, 3, 4, 5, 6, 7, 64, 32, 16, 24, 8, 10, 12, 14]
    assert lowp.values("flint4_unsigned").tolist() == unsigned
    assert lowp.values("flint5")[:16].tolist() == unsigned
    assert lowp.values("flint4")[:8].tolist() == [0, 1, 2, 3, 16, 8, 4, 6]
    assert lowp.values("flint4")[9:].tolist() == [-1, -2, -3, -16, -8, -4, -6]
    assert sorted(codebook("flint6").values)[-4:] == [64, 96, 128, 256]
    assert lowp.values("pot4")[:8].tolist() == [0, 1, 2, 4, 8, 16, 32, 64]
    assert codebook("pot4_unsigned").max == 2.0**14


def test_dint_gives_two_codes_to_a_half() -> None:
    assert codebook("dint4").values == (-6, -5, -4, -3, -2, -1, -0.5, 0, 0.5, 1, 2, 3, 4, 5, 6, 7)
    assert lowp.values("dint4")[[8, 9, 10, 15, 7]].tolist() == [-0.5, 0.5, -6, -1, 7]
    assert codebook("dint8").min == -126


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_mulaw_rounds_to_nearest_in_the_companded_domain(bits: int) -> None:
    fmt = codebook(f"mulaw{bits}")
    top = (1 << (bits - 1)) - 1
    x = np.random.default_rng(0).uniform(-1.2, 1.2, 4000)
    companded = np.copysign(np.log1p(255 * np.minimum(np.abs(x), 1)) / math.log(256), x)
    assert np.array_equal(lowp.encode(x, fmt).codes, np.rint(companded * top) + top + 1)
    steps = np.arange(-top, top + 1) / top
    expanded = np.copysign((256 ** np.abs(steps) - 1) / 255, steps)
    assert fmt.values == pytest.approx(expanded.tolist(), rel=1e-14)
    assert fmt.values[-1] == 1


def test_a_rational_decision_point_of_mulaw_is_not_passed() -> None:
    """256^(1/2) = 16, so steps 3 and 4 of mulaw4 meet at 15/255 = 1/17, which no float is."""
    cut = (codebook("mulaw4").thresholds or ())[10]
    assert Fraction(cut) < Fraction(1, 17) < Fraction(math.nextafter(cut, 1))


def test_values_in_the_code_of_negative_zero() -> None:
    assert lowp.values("fp4_range").tolist() == [0, 0.5, 1, 1.5, 2, 3, 4, 6, 8, -0.5, -1, -1.5, -2, -3, -4, -6]
    assert lowp.values("apot4_sp")[8] == 0.5
    assert math.isnan(lowp.values("apot4")[8])
    assert lowp.encode([5.0, 5.5, 5.6], "fp4_prec2").codes.tolist() == [8, 8, 7]  # halfway goes down


@pytest.mark.parametrize("name", ENTRIES)
def test_every_entry_reads_back(name: str) -> None:
    fmt = parse(name)
    assert fmt.name == name
    assert parse(fmt.generated_name()) == fmt
    assert parse(name.upper().replace("_", "-")) == fmt


@pytest.mark.parametrize(
    "name", ["dint2", "flint2", "pot9", "mulaw1", "mulaw9", "muonq3_row", "dint4_unsigned", "bitmod_fp5"]
)
def test_names_that_cannot_be(name: str) -> None:
    with pytest.raises(FormatError):
        parse(name)
