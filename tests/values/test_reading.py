"""Values of a file as what they are declared to be."""

import pytest

from edgewise.values.reading import read_value


@pytest.mark.parametrize("value", [True, 0, 7, 0.5, "x", None])
def test_one_of_several_plain_kinds_is_read_as_what_it_is(value: object) -> None:
    found = read_value(bool | int | float | str | None, value, "trace.constants.logits_to_keep")
    assert (found, type(found)) == (value, type(value))


def test_none_of_them_is_told() -> None:
    with pytest.raises(ValueError, match="here must be a"):
        read_value(bool | int, [1], "here")
