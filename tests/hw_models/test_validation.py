"""Published numbers and the models' predictions of them."""

import math

import pytest

from lowp import Error
from lowp.hw_models.validation import AREAS, BASES, KINDS, STANDINGS, validate

CHECKS = [check for area in AREAS for check in validate(area)]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.key)
def test_standing_is_what_the_data_says(check):
    assert check.standing in STANDINGS
    assert check.kind in KINDS
    assert check.basis in BASES
    assert check.source
    if check.standing == "reproduced":
        assert check.within, (check.predicted, check.published)
        assert check.tolerance >= 0 or check.mode == "below"
    elif check.standing == "missed":
        assert not check.within, "it is reproduced now: say so in the data"
        assert check.reason
    else:
        assert math.isnan(check.predicted)
        assert check.reason


def test_keys_are_unique():
    keys = [check.key for check in CHECKS]
    assert len(set(keys)) == len(keys)


def test_unknown_area():
    with pytest.raises(Error, match="area='gpus' is not known"):
        validate("gpus")


def test_numbers_that_only_show_what_was_put_in_are_named():
    by_key = {check.key: check.basis for check in CHECKS}
    assert by_key["f28_int8_add"] == "stored"
    assert by_key["f33a_mxint8"] == by_key["f58a_yosys_e2m1"] == "fitted"
    assert by_key["f35a_mixed_area"] == by_key["f14a_h100_mean_error"] == ""


def test_most_of_the_75_numbers_are_reproduced_in_all_their_parts():
    numbers = {}
    for check in CHECKS:
        if check.key[0] == "f" and check.key[1:3].isdigit():
            numbers.setdefault(int(check.key[1:3]), set()).add(check.standing)
    assert sorted(numbers) == list(range(1, 76))
    assert sum(standings == {"reproduced"} for standings in numbers.values()) >= 60
