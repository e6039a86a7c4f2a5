"""Which sizes a model is found to take besides its example's."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from edgewise.errors import ObjectiveError
from edgewise.pruning.other_sizes import free_sizes, outputs


class Takes(nn.Module):
    """Any size on some axes; elsewhere those of the example only, with an error of a kind."""

    def __init__(self, free, shape, error=ValueError):
        super().__init__()
        self.free, self.shape, self.error = free, shape, error

    def forward(self, x):
        for axis, size in enumerate(self.shape):
            if axis not in self.free and x.shape[axis] != size:
                raise self.error(f"axis {axis} has size {size}")
        return x * 2


@settings(deadline=None, max_examples=10)
@given(
    shape=st.lists(st.sampled_from((2, 3, 4, 32)), min_size=2, max_size=4),
    free=st.sets(st.integers(0, 3)),
)
def test_exactly_the_axes_that_a_model_takes_are_free(shape: list[int], free: set[int]) -> None:
    """Also where axes that are free have the size of others that are not."""
    free = {axis for axis in free if axis < len(shape)}
    found = free_sizes(Takes(free, shape), {"x": torch.randn(shape)})
    assert {axis for case in found.cases for _, axis in case.axes} == free
    for case in found.cases:
        changed = {a for a, size in enumerate(case.inputs["x"].shape) if size != shape[a]}
        assert changed == {axis for _, axis in case.axes}
        assert torch.equal(case.expected, 2 * case.inputs["x"])


def test_a_single_example_is_doubled_where_that_runs() -> None:
    x = torch.randn(1, 4)
    found = free_sizes(Takes({0}, x.shape), {"x": x})
    assert found.example["x"].shape == (2, 4)
    assert sorted(len(case.inputs["x"]) for case in found.cases) == [1, 3]
    found = free_sizes(Takes({}, x.shape), {"x": x})
    assert found.example["x"].shape == (1, 4)
    assert not found.cases


def test_what_pruning_or_tracing_fixed_is_kept_with_its_reason() -> None:
    x = torch.randn(2, 5, 7)
    found = free_sizes(Takes({1}, x.shape, ObjectiveError), {"x": x})
    assert dict(found.refused) == {
        "axis 0 has size 2": frozenset({(0, 0)}),
        "axis 2 has size 7": frozenset({(0, 2)}),
    }
    assert free_sizes(Takes({1}, x.shape), {"x": x}).refused == {}


def test_axes_that_were_refused_together_have_one_reason() -> None:
    x = torch.randn(2, 8, 8)
    found = free_sizes(Takes({0}, x.shape, ObjectiveError), {"x": x})
    assert dict(found.refused) == {"axis 1 has size 8": frozenset({(0, 1), (0, 2)})}


def test_lengths_of_several_inputs_go_together() -> None:
    class Both(nn.Module):
        def forward(self, ids, mask):
            return ids * mask

    ids = torch.randint(0, 9, (2, 6))
    found = free_sizes(Both(), {"ids": ids, "mask": torch.ones_like(ids)})
    assert {case.axes for case in found.cases} == {
        frozenset({(0, 0), (1, 0)}),
        frozenset({(0, 1), (1, 1)}),
    }


def test_inputs_that_a_model_writes_into_stay() -> None:
    class Writes(nn.Module):
        def forward(self, x):
            return x.mul_(2)

    x = torch.ones(2, 3)
    assert torch.equal(outputs(Writes(), {"x": x}), torch.full((2, 3), 2.0))
    assert torch.equal(x, torch.ones(2, 3))
    for case in free_sizes(Writes(), {"x": x}).cases:
        assert torch.equal(case.expected, 2 * case.inputs["x"])


def test_errors_of_the_example_itself_are_not_hidden() -> None:
    with pytest.raises(TypeError):
        outputs(nn.Linear(2, 2), {"y": torch.ones(1, 2)})
