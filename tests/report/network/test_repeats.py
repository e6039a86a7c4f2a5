"""Repeated blocks of the report's drawing: found where nothing is removed, drawn as one box."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from edgewise.graph.graph import Graph
from edgewise.report import render
from edgewise.report.facts import Facts, Outcome
from edgewise.report.network.repeats import Run, closed, opened
from edgewise.report.network.svg import Sheet
from edgewise.tracing.trace import trace
from report.test_report import Net, Page, plan_of, with_class

MIDDLE = "blocks.7.conv1..blocks.7.conv2"


@pytest.fixture(scope="module")
def deep() -> Graph:
    return trace(Net(24), torch.randn(2, 3, 8, 8))


def sheet(graph: Graph, *removed: str) -> Sheet:
    return Sheet(Facts(graph, [], plan_of(graph, *removed) if removed else None, Outcome()))


def test_repeated_modules_are_one_run(deep: Graph) -> None:
    (run,) = sheet(deep).runs
    assert (run.first, run.last, run.times) == ("blocks.0", "blocks.23", 24)
    assert run.label == "24 × blocks.N"


def test_what_the_plan_touches_is_in_no_run(deep: Graph) -> None:
    drawn = sheet(deep, MIDDLE)
    ends = [(run.first, run.last) for run in drawn.runs]
    assert ends == [("blocks.0", "blocks.6"), ("blocks.8", "blocks.23")]
    inside = {i for run in drawn.runs for i in range(run.start, run.stop)}
    assert not any(fate.dead or fate.forwarded for i, fate in enumerate(drawn.after) if i in inside)


def test_a_bypassed_layer_ends_a_run() -> None:
    graph = trace(Net(12), torch.randn(2, 3, 8, 8), granularity=("edge", "layer"))
    name = next(u.name for u in graph.units if u.kind == "layer" and "blocks.5." in u.name)
    ends = [(run.first, run.last) for run in sheet(graph, name).runs]
    assert ends == [("blocks.0", "blocks.4"), ("blocks.6", "blocks.11")]


def test_other_structure_ends_a_run() -> None:
    net = Net(8)
    net.blocks[3].conv1.weight.data = torch.randn(4, 4, 1, 1)
    net.blocks[3].conv1.kernel_size, net.blocks[3].conv1.padding = (1, 1), (0, 0)
    graph = trace(net, torch.randn(2, 3, 8, 8))
    found = [(run.first, run.last) for run in sheet(graph).runs]
    assert found == [("blocks.0", "blocks.2"), ("blocks.4", "blocks.7")]


def test_views_keep_every_block_and_cost(deep: Graph) -> None:
    drawn = sheet(deep, MIDDLE)
    view = closed(drawn.blocks, drawn.links, drawn.runs)
    for what in ("macs", "params"):
        whole = sum(getattr(b, what) for b in drawn.blocks)
        assert sum(getattr(b, what) for b in view.blocks) == whole
    assert sorted(v for b in view.blocks for v in b.vertices) == list(range(len(deep.vertices)))
    assert all(link.source < link.target for link in view.links)
    for run in drawn.runs:
        part = opened(drawn.blocks, drawn.links, run)
        shown = [s for s in part.sources if isinstance(s, int)]
        assert set(range(run.start, run.stop)) < set(shown)
        assert all(a < b for a, b in pairwise(shown))
        into = {link.target for link in drawn.links if link.source in range(run.start, run.stop)}
        assert into <= set(shown)


def test_a_run_is_read_by_one_line(deep: Graph) -> None:
    drawn = sheet(deep)
    view = closed(drawn.blocks, drawn.links, drawn.runs)
    at = next(i for i, source in enumerate(view.sources) if isinstance(source, Run))
    assert [link.target for link in view.links].count(at) == 1
    assert [link.source for link in view.links].count(at) == 1


def test_only_a_long_drawing_is_closed() -> None:
    short = render(trace(Net(6), torch.randn(2, 3, 8, 8)), [], None, title="Net")
    assert with_class(Page(short), "g", "run") == []
    html = render(trace(Net(90), torch.randn(2, 3, 8, 8)), [], None, title="Net")
    page = Page(html)
    (box,) = with_class(page, "g", "run")
    assert (box["aria-expanded"], box["tabindex"], box["role"]) == ("false", "0", "button")
    (panel,) = with_class(page, "div", "opened")
    assert "hidden" in panel
    assert panel["id"] == box["aria-controls"]
