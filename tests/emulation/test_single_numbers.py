"""Arrays of one number and no axes, in every named scalar format."""

import pytest

import lowp

SCALARS = [name for name in lowp.formats.names() if isinstance(lowp.parse(name), lowp.ScalarFormat)]


@pytest.mark.parametrize("name", SCALARS)
def test_a_single_number_has_no_axes(name: str) -> None:
    one = lowp.array(1.0, name)
    row = lowp.array([1.0], name)
    assert one.values.shape == ()
    assert one.item() == row.values[0]
    assert lowp.decode(one.codes, name) == row.values[0]
    assert (one * one).item() == (row * row).values[0]
