"""Masks that scores of one pass choose: of single units and of runs."""

import pytest
import torch
from torch import Tensor, nn

import edgewise as ew
from edgewise.study.picks import chains, picks


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
