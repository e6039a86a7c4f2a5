"""Masks that scores of one pass choose: of single units and of runs."""

import pytest
import torch
from torch import Tensor, nn

import edgewise as ew
from edgewise.study.picks import _channels, _direction, chains, picks


class Stream(nn.Module):
    """Six branches on a stream, of which the fourth takes back what the third adds."""

    def __init__(self, between: nn.Module) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.branches = nn.ModuleList(nn.Linear(8, 8, bias=False) for _ in range(6))
        self.between = between
        added = 3.0 * torch.eye(8).roll(4, 0)
        with torch.no_grad():
            self.branches[2].weight.copy_(added)
            self.branches[3].weight.copy_(-added @ torch.linalg.inv(torch.eye(8) + added))

    def forward(self, x: Tensor) -> Tensor:
        for branch in self.branches:
            x = self.between(x + branch(x))
        return x


def study_of(between: nn.Module) -> ew.Study:
    x = torch.randn(16, 8, generator=torch.Generator().manual_seed(1))
    graph = ew.trace(Stream(between).eval(), (x[:2],), granularity="branch")
    objective = ew.Objective([(x, torch.zeros(16))], lambda outputs, _: outputs.square().mean(1))
    return ew.Study(graph, objective)


@pytest.mark.parametrize("budget", [ew.Budget(params=4 / 6), ew.Budget(units=4)])
def test_a_run_is_chosen_whose_units_undo_each_other(budget: ew.Budget) -> None:
    study = study_of(nn.Identity())
    space = study.space(budget)
    single, pair = picks(space, study.objective)
    assert pair == space.graph.mask([2, 3])
    assert single != pair  # either of the two turns the stream most of all


@pytest.mark.parametrize(
    ("between", "lengths"),
    [
        (nn.Identity(), [6]),
        (nn.ReLU(), [6]),  # keeps the form of the stream
        (nn.Linear(8, 8), [1] * 6),  # makes another one
    ],
)
def test_units_on_one_stream_are_a_chain(between: nn.Module, lengths: list[int]) -> None:
    study = study_of(between)
    found = chains(study.space(ew.Budget(params=0.5)))
    assert [len(chain) for chain in found] == lengths
    units = [link.unit for chain in found for link in chain]
    assert units == sorted(units)


def test_a_run_may_end_within_itself_where_the_budget_is_met() -> None:
    study = study_of(nn.Identity())
    for share in (0.9, 0.5, 0.2):
        space = study.space(ew.Budget(params=share))
        found = picks(space, study.objective)
        assert found == list(dict.fromkeys(found))
        assert all(map(space.allows, found))
        assert len({len(mask.removed) for mask in found}) == 1  # units that save alike


class Residual(nn.Module):
    """Two branches of a kind."""

    def __init__(self, make) -> None:
        super().__init__()
        self.branches = nn.ModuleList(make() for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(x)  # of a form that no parameters tell
        for branch in self.branches:
            x = x + branch(x)
        return x


@pytest.mark.parametrize(
    ("make", "shape", "axis"),
    [
        (lambda: nn.Linear(6, 6), (4, 5, 5, 6), 3),  # an image with its channels last
        (lambda: nn.Conv1d(6, 6, 1), (4, 6, 9), 1),  # a sequence with its channels first
        (lambda: nn.Conv2d(6, 6, 1), (4, 6, 5, 5), 1),
    ],
)
def test_a_stream_points_along_its_channels(make, shape: tuple[int, ...], axis: int) -> None:
    """A stream of which only the size differs from place to place is not turned."""
    torch.manual_seed(0)
    x, size = torch.randn(shape), [1] * len(shape)
    size[axis] = shape[axis]
    graph = ew.trace(Residual(make).eval(), (x,), granularity="branch")
    objective = ew.Objective([(x, torch.zeros(4))], lambda out, _: out.flatten(1).square().mean(1))
    space = ew.Study(graph, objective).space(ew.Budget(units=1))
    [chain] = chains(space)
    assert len(chain) == 2
    found = _channels(graph, chain[-1].behind)
    assert found == axis
    assert picks(ew.Study(graph, objective).space(ew.Budget(macs=0.6)), objective)
    scaled = x * torch.rand([1 if n == axis else s for n, s in enumerate(shape)])
    assert torch.allclose(_direction(x, found), _direction(scaled, found), atol=1e-6)
    turned = _direction(x * torch.linspace(0.1, 3, shape[axis]).reshape(size), found)
    assert (_direction(x, found) * turned).sum(-1).mean() < 0.95


def test_examples_may_be_numbers() -> None:
    """Streams of one number an example have no place and no channel."""

    class Sum(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.parts = nn.ModuleList(nn.Linear(6, 1) for _ in range(3))

        def forward(self, x: Tensor) -> Tensor:
            y = self.parts[0](x).squeeze(1)
            for part in list(self.parts)[1:]:
                y = y + part(x).squeeze(1)
            return y

    x = torch.randn(8, 6)
    graph = ew.trace(Sum().eval(), (x[:2],), granularity="branch")
    study = ew.Study(graph, ew.Objective([(x, torch.zeros(8))], lambda out, _: out.square()))
    study.run(6, ew.Budget(params=0.7))
    assert study.plan().bits.count("1")
