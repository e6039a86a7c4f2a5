"""What units and masks take away is one value."""

import random

import hypothesis.strategies as st
import pytest
from hypothesis import given

import edgewise as ew
from edgewise.graph.liveness import alive
from edgewise.graph.operators.absence import FULL
from edgewise.graph.removal import Removal
from edgewise.testing import laws
from zoo import WIDTHS, ZOO, traced

few = st.frozensets(st.integers(0, 5))
places = st.tuples(st.integers(0, 3), st.integers(0, 1))
removals = st.builds(Removal, few, few, st.dictionaries(places, few, max_size=3))


@given(removals, removals, removals)
def test_a_union_has_all_that_its_parts_have_and_no_more(
    a: Removal, b: Removal, c: Removal
) -> None:
    both = Removal.union([a, b])
    assert (both.edges, both.layers) == (a.edges | b.edges, a.layers | b.layers)
    assert both.channels == {
        place: a.channels.get(place, frozenset()) | b.channels.get(place, frozenset())
        for place in {*a.channels, *b.channels}
    }
    assert both == Removal.union([b, a]) == Removal.union([a, b, a])
    assert Removal.union([both, c]) == Removal.union([a, b, c])
    assert Removal.union([a]) == a == Removal.union([a, Removal()])


@pytest.mark.parametrize("name", ZOO)
@given(seed=st.integers(0, 10**6))
def test_what_a_mask_leaves_is_what_its_removal_leaves(name: str, seed: int) -> None:
    """Its removal is put together by hand here, of what the units say one by one."""
    graph = traced(name, WIDTHS)
    mask = laws.random_mask(graph, random.Random(seed))
    edges, layers, channels = set(), set(), {}
    for unit in mask.removed:
        removal = graph.units[unit].removal
        edges.update(removal.edges)
        layers.update(removal.layers)
        for place, cut in removal.channels.items():
            channels[place] = [*channels.get(place, []), *cut]
            assert len(set(channels[place])) == len(channels[place])  # slices have none in common
    found = Removal(
        frozenset(edges), frozenset(layers), {p: frozenset(cut) for p, cut in channels.items()}
    )
    assert graph.removal(mask) == found
    assert alive(graph, found).signature == ew.liveness(graph, mask).signature


@pytest.mark.parametrize("name", ZOO)
def test_where_a_removal_starts_something_is_lacking(name: str) -> None:
    graph = traced(name, WIDTHS)
    for unit in graph.units:
        rest, starts = alive(graph, unit.removal), graph.starts(unit.removal)
        lacking = {
            edge.target for edge, want in zip(graph.edges, rest.wants, strict=True) if not want
        }
        narrower = {index for index, state in enumerate(rest.states) if state != FULL}
        assert starts, unit.name
        assert starts <= lacking | narrower | rest.bypassed, unit.name
