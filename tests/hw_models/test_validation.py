"""Published numbers and the models' predictions of them."""

import math

import pytest

from lowp import Error
from lowp.hw_models.validation import AREAS, KINDS, STANDINGS, validate

CHECKS = [check for area in AREAS for check in validate(area)]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.key)
def test_standing_is_what_the_data_says(check):
    assert check.standing in STANDINGS
    assert check.kind in KINDS
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
