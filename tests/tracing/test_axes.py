"""Sizes that go together, seen by runs without data."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import edgewise as ew
from edgewise.tracing.axes import Axes, axes


class Two(nn.Module):
    """Two inputs of one size in the example that need not have one."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(8, 8), nn.Conv1d(8, 8, 3, 2, 1)

    def forward(self, x, y):
        z = x + torch.relu(self.a(x))
        half = self.b(y.transpose(1, 2))
        return z + half.mean(2)[:, None] * z.shape[1], half


def test_axes_of_one_size_are_told_apart() -> None:
    graph = ew.trace(Two(), (torch.randn(2, 6, 8), torch.randn(2, 6, 8)), granularity="edge")
    found = axes(graph.program)
    batch, length, other = (found.inputs[place] for place in ((0, 0), (0, 1), (1, 1)))
    assert batch == found.inputs[1, 0]
    assert len({batch, length, other}) == 3
    assert set(found.inputs[0, 2]) == {8}
    convolved = next(v for v in graph.vertices if v.op == "conv")
    sizes = found.values[convolved.node]
    assert sizes[:2] == (batch, found.inputs[0, 2])
    assert sizes[2] == tuple((size + 1) // 2 for size in other)
    assert found.multiple(sizes[2]) == ((1, 1), 1, 1, 2)


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ((3, 4, 6), ((0, 0), 1, 0, 1)),
        ((12, 16, 24), ((0, 0), 4, 0, 1)),
        ((2, 2, 3), ((0, 0), 1, 1, 2)),
        ((1, 2, 3), ((0, 0), 1, 0, 2)),
        ((5, 5, 5), None),
        ((0, 1, 2), None),
    ],
)
def test_sizes_are_multiples_and_rounded_parts(sizes, expected) -> None:
    known = Axes({(0, 1): (7, 7, 7), (0, 0): (3, 4, 6)}, {})
    assert known.multiple(sizes) == expected


def test_what_has_no_shapes_without_data_is_run_with_them() -> None:
    class Made(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x):
            y = x * torch.arange(x.shape[1])[:, None]  # on the processor, wherever x is
            return y + self.b(torch.relu(self.a(y)))

    found = axes(ew.trace(Made(), torch.randn(1, 5, 4), granularity="edge").program)
    assert found.inputs[0, 0][:2] == (2, 6)
    assert len(set(found.inputs[0, 1])) > 3
