"""What is put together of pieces is what is worked out at once."""

import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

import edgewise as ew
from edgewise.graph.cost import cost_of
from edgewise.graph.liveness import alive
from edgewise.graph.pieces import apart, unused
from edgewise.graph.removal import Removal
from exact_cases import random_graph
from free_models import free_recipes
from zoo import WIDTHS, ZOO, traced


def hold(graph: ew.Graph, draw: random.Random) -> None:
    """Of some mask, and of some neighbours of it, which are worked out from one another."""
    units = range(len(graph.units))
    mask = graph.mask(draw.sample(units, draw.randint(0, len(units))))
    for unit in draw.choices(units, k=4) if units else ():
        found, whole = ew.liveness(graph, mask), alive(graph, graph.removal(mask.bits))
        assert found.flows == whole.flows
        assert found.missing == whole.missing
        assert found.bypassed == whole.bypassed
        assert found.mark == whole.mark
        assert cost_of(graph, found) == cost_of(graph, whole)
        mask = mask.flipped(unit)


@pytest.mark.parametrize("name", ZOO)
@given(seed=st.integers(0, 10**6))
def test_pieces_together_are_the_whole(name: str, seed: int) -> None:
    hold(traced(name, WIDTHS), random.Random(seed))


@given(free_recipes(), st.integers(0, 10**6))
def test_so_they_are_of_any_model(recipe, seed: int) -> None:
    model, args = recipe.build()
    draw = random.Random(seed)
    graph = ew.trace(model, args, granularity="raw")
    for _ in range(10):
        hold(graph, draw)


def test_branches_are_apart_until_they_take_the_last_reader(residual: ew.Graph) -> None:
    """A branch and its own skip meet; branches of two blocks do not."""
    first, second = (residual.unit_index[f"blocks.{i}.first.0..blocks.{i}.norm"] for i in (0, 1))
    skip = residual.unit_index["blocks.0.relu->blocks.1.add"]
    assert len(apart(residual, [first, second])) == 2
    assert len(apart(residual, [second, skip])) == 1


def test_a_unit_in_two_places_is_gone_once_both_are(residual: ew.Graph) -> None:
    first, second = (residual.unit_index[f"blocks.{i}.first.0..blocks.{i}.norm"] for i in (0, 1))
    removal = Removal.union(residual.units[u].removal for u in (first, second))
    both = replace(residual.units[first], name="both", removal=removal)
    graph = replace(residual, units=(*residual.units, both))
    one, other, mask = graph.mask([first]), graph.mask([second]), graph.mask([first, second])
    gone = [len(graph.units) - ew.cost(graph, m).units for m in (one, other, mask)]
    assert len(ew.liveness(graph, mask).parts) == 2
    assert gone[2] == gone[0] + gone[1] + 1


def test_what_nobody_reads_is_left_out_once_whatever_else_goes() -> None:
    graph = random_graph(27, units=40)
    assert graph is not None
    assert unused(graph)
    for seed in range(20):
        hold(graph, random.Random(seed))
