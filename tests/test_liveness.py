"""What remains: branches die as a whole, bridges disconnect, dead ends go."""

import pytest
import torch

import edgewise as ew
from edgewise.errors import DisconnectedError
from edgewise.testing import build


def live_names(graph: ew.Graph, mask: ew.Mask) -> set[str]:
    states = ew.liveness(graph, mask).states
    return {v.name for v, state in zip(graph.vertices, states, strict=True) if state is not None}


def test_a_removed_branch_is_gone_and_the_sum_with_it(residual: ew.Graph) -> None:
    mask = residual.mask(["blocks.1.first.0..blocks.1.norm"])
    alive = ew.liveness(residual, mask)
    names = live_names(residual, mask)
    assert "blocks.1.conv" not in names
    assert "blocks.1.norm" not in names
    add = next(i for i, v in enumerate(residual.vertices) if v.name == "blocks.1.add")
    assert add in alive.forwarded


def test_both_ways_removed_disconnects_and_names_the_output(residual: ew.Graph) -> None:
    mask = residual.mask(["blocks.1.first.0..blocks.1.norm", "blocks.0.relu->blocks.1.add"])
    alive = ew.liveness(residual, mask)
    assert not alive.connected
    with pytest.raises(DisconnectedError, match=r"output head\.linear"):
        alive.require_connected()
    for refuse in (ew.masked, ew.prune, ew.cost):
        with pytest.raises(DisconnectedError):
            refuse(residual, mask)


def test_every_output_must_stay() -> None:
    model, args = build("several")
    graph = ew.trace(model, args, granularity="raw")
    edge = next(u.name for u in graph.units if u.name == "second.linear->output")
    alive = ew.liveness(graph, graph.mask([edge]))
    assert alive.missing == ("second.linear",)


def test_a_bias_does_not_survive_its_input() -> None:
    class Biased(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = torch.nn.Linear(3, 3), torch.nn.Linear(3, 3)

        def forward(self, x):
            return x + self.b(self.a(x) + 1.0)

    graph = ew.trace(Biased(), (torch.randn(2, 3),))
    branch = next(u.name for u in graph.units if u.kind == "edge" and u.name.startswith("a"))
    assert branch == "a..b"
    x = torch.randn(4, 3)
    assert torch.equal(ew.prune(graph, graph.mask([branch]))(x), x)


def test_equal_removals_are_one_unit(residual: ew.Graph) -> None:
    """No two units leave the same network."""
    left = [ew.liveness(residual, residual.mask([u])).signature for u in range(len(residual.units))]
    assert len(set(left)) == len(left)
