"""Families of formats by ranges of parameters; what is no format is counted."""

import pytest

import lowp
from lowp import hw
from lowp._errors import ArgumentError, ArgumentTypeError, FormatError


def test_a_template_makes_all_combinations() -> None:
    made = hw.grid("e{e}m{m}fn", e=[4, 5], m=range(2, 4)).expand()
    assert made.formats == tuple(lowp.parse(name) for name in ("e4m2fn", "e4m3fn", "e5m2fn", "e5m3fn"))
    assert (made.skipped, made.repeated) == ((), 0)


def test_a_class_makes_the_same_as_a_template() -> None:
    by_class = hw.grid(lowp.Float, exponent_bits=range(1, 6), mantissa_bits=range(4), specials="finite").expand()
    by_name = hw.grid("e{e}m{m}f", e=range(1, 6), m=range(4)).expand()
    assert by_class.formats == by_name.formats


@pytest.mark.parametrize(
    "given",
    [
        hw.grid(lowp.Posit, bits=[6, 8], es=[0, 1, 2]),
        hw.grid("posit{n}_es{es}", n=[6, 8], es=[0, 1, 2]),
        hw.grid(lowp.LNS, bits=[6, 8], fraction_bits=[1, 2, 3]),
        hw.grid(
            lowp.Codebook, values=[[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.5], [0.0, 1.0], [0.0, 3.0], [1.0, 2.0]]
        ),
        hw.grid("fixed{n}_{f}", n=[6, 8], f=[1, 2, 3]),
        hw.grid("block[{element},{size},{scale}]", element=["int4", "e2m1f", "nf4"], size=[16, 32], scale="bf16"),
    ],
)
def test_every_family_can_be_ranged_over(given: hw.Grid) -> None:
    made = given.expand()
    assert len(given) == 6
    assert len(made.formats) == 6
    assert not made.skipped


def test_what_is_no_format_is_skipped_with_its_reason() -> None:
    given = hw.grid(lowp.Float, exponent_bits=[0, 1, 4], mantissa_bits=[0, 3], specials=["ieee", "finite"])
    made = given.expand()
    assert len(made.formats) + len(made.skipped) + made.repeated == len(given) == 12
    assert len(made.skipped) >= 4
    assert made.skipped[0].what == "Float(exponent_bits=0, mantissa_bits=0, specials='ieee')"
    assert "exponent_bits=0" in made.skipped[0].reason


def test_formats_that_come_twice_are_kept_once() -> None:
    made = hw.grid(lowp.Float, exponent_bits=4, mantissa_bits=3, bias=[None, 7, 8]).expand()
    assert len(made.formats) == 2
    assert made.repeated == 1


def test_a_grid_within_a_grid_keeps_count_of_what_it_skips() -> None:
    inner = hw.grid(lowp.Float, exponent_bits=[0, 2], mantissa_bits=[1], specials="finite")
    made = hw.grid(lowp.Block, element=inner, size=[16, 32], scale=["float8_e8m0fnu", "float8_e4m3fn"]).expand()
    assert len(made.formats) == 4
    assert len(made.skipped) == 4


def test_templates_and_parameters_must_fit() -> None:
    with pytest.raises(ArgumentError, match=r"\['e', 'm'\]"):
        hw.grid("e{e}m{m}", e=[1])
    with pytest.raises(ArgumentError, match="no value"):
        hw.grid("e{e}m3", e=[])
    with pytest.raises(ArgumentTypeError, match="template"):
        hw.grid(3, e=[1])  # type: ignore[arg-type]
    with pytest.raises(FormatError, match="not known"):  # a name by itself is a mistake, not a combination
        hw.Space(["fp8", "nonsense"])


def test_a_space_pairs_formats_accumulators_and_machines() -> None:
    space = hw.Space(["int4_g32", "mxfp4"], ["bfloat16", "fp8"], [None, "float16"], ["h100"], ["n7"], lanes=[16, 32])
    assert len(space.candidates) == 8
    assert [m.name for m in space.machines] == ["h100", "n7 x16", "n7 x32"]
    assert len(space) == 24
    assert space.candidates[1].names[1:] == ("bfloat16", "float16")
    assert hw.Space("fp8").candidates[0].activations.name == "float8_e4m3fn"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"formats": hw.grid(lowp.Float, exponent_bits=[0], mantissa_bits=[1])}, "no format"),
        ({"formats": []}, "empty"),
        ({"formats": ["fp8"], "devices": ["h1000"]}, "h1000"),
        ({"formats": ["fp8"], "devices": ["h100", "H100"]}, "more than once"),
        ({"formats": ["fp8"], "accumulators": []}, "empty"),
        ({"formats": ["fp8"], "units": ["n7"], "lanes": 0}, "lanes"),
    ],
)
def test_spaces_that_make_no_sense_raise(arguments: dict, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        hw.Space(**arguments)


def test_a_dict_of_other_things_is_no_space() -> None:
    with pytest.raises(ArgumentError, match="device"):
        hw.explore({"formats": ["fp8"], "device": "h100"}, [(8, 8, 8)], ["time"], progress=False)


def test_parameters_that_a_class_does_not_take_raise_at_once() -> None:
    with pytest.raises(ArgumentError, match=r"make=Float.*exponent_bits"):
        hw.grid(lowp.Float, exp_bits=[2, 3], mantissa_bits=3)
