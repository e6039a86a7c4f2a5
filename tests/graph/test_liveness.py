"""What remains: branches die as a whole, bridges disconnect, dead ends go."""

import importlib
import random
from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import edgewise as ew
import jobs
from edgewise.errors import DisconnectedError
from edgewise.graph.liveness import Liveness, alive, shows
from edgewise.graph.operators.table import TABLE
from edgewise.graph.removal import Removal
from zoo import WIDTHS, ZOO, build, traced


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


def random_removals(graph: ew.Graph, rng: random.Random) -> tuple[frozenset[int], frozenset[int]]:
    """Some edges, and some vertices that keep their input's shape."""
    same = [
        index
        for index, vertex in enumerate(graph.vertices)
        if graph.input_shapes[index] == (vertex.shape,) and vertex.op != "output"
    ]
    edges = rng.sample(range(len(graph.edges)), rng.randint(0, 3))
    return frozenset(edges), frozenset(rng.sample(same, rng.randint(0, min(2, len(same)))))


def look_at_every_vertex(graph: ew.Graph, removed: set[int], bypassed: set[int]) -> tuple:
    """States, wants and fills as the definition has them: every vertex asked, none left out."""
    states, flows = [], []
    for index, vertex in enumerate(graph.vertices):
        ins = [None if e in removed else states[graph.edges[e].source] for e in graph.inputs[index]]
        shapes = [graph.vertices[graph.edges[e].source].shape for e in graph.inputs[index]]
        rule = TABLE.rules[vertex.op]
        flow = None if index in bypassed else rule.flow(vertex, shapes, ins)
        states.append(flow.out if flow else ins[0])
        flows.append((flow.wants, flow.fill) if flow else (tuple(ins), 0.0))
    needed = [vertex.op == "output" for vertex in graph.vertices]
    wants, fills = [None] * len(graph.edges), {}
    for index in reversed(range(len(states))):
        if not needed[index] or states[index] is None:
            states[index] = None
            continue
        for edge, want in zip(graph.inputs[index], flows[index][0], strict=True):
            wants[edge] = want
            needed[graph.edges[edge].source] |= want is not None
            if want is not None and want != states[graph.edges[edge].source]:
                fills[edge] = flows[index][1]
    return tuple(states), tuple(wants), fills


@pytest.mark.parametrize("name", ZOO)
@given(seed=st.integers(0, 10**6))
def test_agrees_with_looking_at_every_vertex(name: str, seed: int) -> None:
    graph = traced(name)
    removed, bypassed = random_removals(graph, random.Random(seed))
    found = alive(graph, Removal(removed, bypassed))
    states, wants, fills = look_at_every_vertex(graph, removed, bypassed)
    assert found.states == states
    assert found.wants == wants
    assert {edge: found.fills.get(edge, 0.0) for edge in fills} == fills
    assert found.bypassed == {index for index in bypassed if states[index] is not None}


@pytest.mark.parametrize("name", ZOO)
def test_signatures_are_equal_where_networks_are(name: str) -> None:
    graph, rng = traced(name), random.Random(0)
    found = [alive(graph, Removal(*random_removals(graph, rng))) for _ in range(30)]
    networks = {(rest.states, rest.wants, rest.bypassed) for rest in found}
    both = {(rest.signature, rest.states, rest.wants, rest.bypassed) for rest in found}
    assert len({rest.signature for rest in found}) == len(networks) == len(both)


def test_only_what_a_removal_reaches_is_looked_at(residual: ew.Graph) -> None:
    """A removed branch changes its own vertices and the sum, whatever the size of the network."""
    mask = residual.mask(["blocks.1.first.0..blocks.1.norm"])
    changed = {residual.vertices[i].name for i in ew.liveness(residual, mask).changed}
    inside = {v.name for v in residual.vertices if v.name.startswith("blocks.1.")}
    assert changed == inside - {"blocks.1.relu"}
    assert not ew.liveness(residual, residual.empty).changed


def test_an_input_that_nothing_reads_is_dead() -> None:
    class Unread(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = torch.nn.Linear(3, 3)

        def forward(self, x, y):
            return x + self.a(x)

    graph = ew.trace(Unread(), (torch.randn(2, 3), torch.randn(2, 3)))
    states = ew.liveness(graph, graph.empty).states
    dead = [v.name for v, state in zip(graph.vertices, states, strict=True) if state is None]
    assert dead == ["y"]


@pytest.mark.parametrize("name", ZOO)
@given(seed=st.integers(0, 10**6))
def test_what_shows_is_missed(name: str, seed: int) -> None:
    """A unit of which that is said does make a difference."""
    graph, draw = traced(name, WIDTHS), random.Random(seed)
    units = range(len(graph.units))
    mask = graph.mask(draw.sample(units, draw.randint(1, len(units))))
    left = ew.liveness(graph, mask)
    for unit in mask.removed:
        other = ew.liveness(graph, mask.with_kept(unit))
        if shows(graph, left, graph.units[unit]):
            assert other.signature != left.signature, graph.units[unit].name


@pytest.mark.parametrize("name", ["residual", "attention"])
def test_what_shows(name: str) -> None:
    """Alone, every skip, bypass and width shows; of a branch that is gone no edge has an end."""
    graph = traced(name, WIDTHS)
    for index, unit in enumerate(graph.units):
        shown = shows(graph, ew.liveness(graph, graph.mask([index])), unit)
        assert shown == (len(unit.removal.edges) < 2), unit.name


def test_liveness_of_a_measured_mask_is_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    module = importlib.import_module(ew.liveness.__module__)
    computed, count = module._under, Counter[str]()

    def counted(graph: ew.Graph, bits: tuple[bool, ...]) -> Liveness:
        count["".join("01"[bit] for bit in bits)] += 1
        return computed(graph, bits)

    monkeypatch.setattr(module, "_under", counted)
    graph, objective = jobs.make()
    study = ew.Study(graph, objective)
    study.run(jobs.EVALUATIONS, jobs.BUDGET, seed=3)
    ew.prune(graph, study.plan())
    times = [count[evaluation.mask] for evaluation in study.evaluations]
    assert 1 <= min(times) <= max(times) <= 2
