"""What a plan says of its mask."""

from __future__ import annotations

import edgewise as ew
from edgewise.study.planning import said
from zoo import build


def test_of_nested_slices_the_last_says_what_is_left() -> None:
    model, args = build("residual")
    graph = ew.trace(model, args, granularity=("branch", "hidden"), slices=4)
    group = graph.nested[0]
    branch = next(u for u, unit in enumerate(graph.units) if unit.kind == "edge")
    mask = graph.mask([*group[:2], branch])
    assert sorted(said(graph, mask)) == sorted(graph.units[u].label for u in (group[1], branch))
    assert said(graph, graph.empty) == ()
