"""What a pruned network has numbers of the example for: nothing that its inputs decide."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

import edgewise as ew
from edgewise.errors import ObjectiveError
from edgewise.evaluation.evaluator import Engine
from edgewise.pruning import numbers
from edgewise.pruning.lower import lower
from edgewise.tracing.axes import Axes
from zoo.sized import Branches, Gated, Heads, Merged, Normed, Pyramid

KINDS = ("edge", "layer", "hidden", "heads", "channels")
CASES = {
    "heads": (Heads, (2, 5, 16), [(2, 9, 16), (3, 2, 16)]),
    "merged": (Merged, (2, 5, 16), [(2, 9, 16), (3, 2, 16)]),
    "gated": (Gated, (2, 3, 12, 12), [(2, 3, 9, 11), (1, 3, 18, 18)]),
    "pyramid": (Pyramid, (2, 3, 12, 12), [(2, 3, 9, 11), (1, 3, 18, 7)]),
    "normed": (Normed, (2, 4, 6), [(2, 4, 9), (3, 4, 5)]),
    "branches": (Branches, (2, 3, 6, 6), [(2, 3, 9, 8), (1, 3, 4, 7)]),
}


def drawn(shape: tuple[int, ...]) -> Tensor:
    generator = torch.Generator().manual_seed(sum(shape))
    return torch.randn(shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("frontend", ["torch.fx", "torch.export"])
@pytest.mark.parametrize("name", CASES)
def test_what_is_free_stays_free(name: str, frontend: str) -> None:
    make, example, others = CASES[name]
    model = make().double().eval()
    x = drawn(example)
    graph = ew.trace(model, x, granularity=KINDS, slices=4, frontend=frontend)
    assert graph.fixed == ()
    masks = [graph.empty, *(graph.mask([unit]) for unit in range(len(graph.units)))]
    for mask in masks:
        if not ew.liveness(graph, mask).connected:
            continue
        full, small = ew.masked(graph, mask).eval(), ew.prune(graph, mask).eval()
        for shape in (example, *others):
            with torch.no_grad():
                expected, found = (module(drawn(shape)) for module in (full, small))
            torch.testing.assert_close(found, expected)
            if mask == graph.empty:
                torch.testing.assert_close(found, model(drawn(shape)))


def test_no_size_of_the_example_is_written_out() -> None:
    """Sizes that are no size of the model's own, so that each is seen."""
    graph = ew.trace(Heads(), torch.randn(17, 19, 16), granularity="heads")
    program = lower(graph, ew.liveness(graph, graph.mask([0]))).graph
    written: list[int] = []
    for node in program.nodes:
        fx.node.map_aggregate(
            (node.args, node.kwargs), lambda a: written.append(a) if isinstance(a, int) else a
        )
    assert not {17, 19}.intersection(written)
    assert 3 in written  # the heads that remain


def test_a_number_that_has_to_stand_for_a_size_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Axes, "multiple", lambda self, sizes: None)
    graph = ew.trace(Pyramid().double().eval(), drawn((2, 3, 12, 12)), granularity="edge")
    found = [graph.mask([unit]) for unit in range(len(graph.units))]
    found = [mask for mask in found if ew.liveness(graph, mask).connected]
    written = [mask for mask in found if lower(graph, ew.liveness(graph, mask)).guard]
    assert written
    small = ew.prune(graph, written[0])
    small(drawn((2, 3, 12, 12)))
    with pytest.raises(ObjectiveError, match=numbers.REASON):
        small(drawn((2, 3, 12, 16)))
    data = [(drawn((2, 3, 12, 16)), torch.zeros(2))]
    objective = ew.Objective(data, lambda out, _: out.mean((1, 2, 3)))
    evaluation = next(Engine(graph, objective).evaluate([written[0]])).evaluation
    assert evaluation.status == "failed"
    assert numbers.REASON in str(evaluation.error)


class Joined(nn.Module):
    """A concatenation along the length, of which a piece may be absent."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.o = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x):
        return self.o(torch.cat([x, F.relu(self.a(x))], 1))


def test_places_that_are_gone_are_known_at_the_traced_length_only() -> None:
    graph = ew.trace(Joined().double().eval(), drawn((2, 5, 4)), granularity="edge")
    for unit in range(len(graph.units)):
        mask = graph.mask([unit])
        for module in (ew.masked(graph, mask), ew.prune(graph, mask)):
            module(drawn((3, 5, 4)))
            with pytest.raises(ObjectiveError, match=numbers.PLACES):
                module(drawn((2, 7, 4)))
    ew.prune(graph, graph.empty)(drawn((2, 7, 4)))
