"""The report page: self-contained, safe, complete, and laid out as promised."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from edgewise import latency
from edgewise.errors import EdgewiseError, MaskError, PlanError
from edgewise.evaluation.records import Evaluation
from edgewise.graph.budget import Budget
from edgewise.graph.cost import cost
from edgewise.graph.graph import Graph
from edgewise.graph.liveness import liveness
from edgewise.graph.rules import restrict
from edgewise.pruning.certificate import Certificate, Proof
from edgewise.pruning.plan import Clocked, Measured, Plan
from edgewise.report import Insight, Outcome, numbers, render, write
from edgewise.report.charts import plotly
from edgewise.report.facts import Facts
from edgewise.report.network.blocks import contract, fates
from edgewise.report.network.layout import Box, Item, Layout, arrange
from edgewise.report.network.wrap import fold
from edgewise.search import Point, Solution
from edgewise.surrogates.interactions import Interactions, Pair
from edgewise.tracing.trace import trace
from edgewise.values.markup import raw, tag
from meters import Formula


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(4, 4, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(4)
        self.conv2 = nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(x + self.conv2(torch.relu(self.bn1(self.conv1(x)))))


class Net(nn.Module):
    def __init__(self, blocks: int = 3) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.blocks = nn.Sequential(*(Residual() for _ in range(blocks)))
        self.head = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.blocks(self.stem(x)).mean((2, 3)))


BRANCH = "blocks.1.conv1..blocks.1.conv2"


@pytest.fixture(scope="module")
def graph() -> Graph:
    return trace(Net(), torch.randn(2, 3, 8, 8))


SOLVED = Solution(None, None, 0.0, 0.0, True, 0.0, 1, 0, 0.0)  # type: ignore[arg-type]


def evaluations(graph: Graph) -> list[Evaluation]:
    """The unpruned network, every unit alone, a prediction, a finalist and a failure."""
    masks = [(graph.empty, "unpruned")]
    masks += [(graph.mask([i]), "leave-one-out") for i in range(len(graph.units))]
    masks += [(graph.mask([BRANCH]), "finalist")]
    found = [
        Evaluation(str(mask), "search", 0.5 + 0.1 * i, {"accuracy": 0.8}, 64, 0.5, origin=origin)
        for i, (mask, origin) in enumerate(masks)
    ]
    found[-1] = replace(found[-1], predicted=0.6, deviation=0.1)
    found.append(
        Evaluation(str(graph.empty), "search", None, status="failed", error="ValueError: <b>no</b>")
    )
    return [replace(e, number=i) for i, e in enumerate(found)]


def plan_of(graph: Graph, *removed: str) -> Plan:
    mask = graph.mask(removed)
    measured = Measured(0.62, {"accuracy": 0.831}, 500, 0.5, {"accuracy": 0.906}, (0.6, 0.64),
                        {"accuracy": (0.795, 0.862)})  # fmt: skip
    return Plan(
        bits=str(mask),
        fingerprint=graph.fingerprint,
        removed=removed,
        protected=(graph.units[0].name,),
        budget={"macs": 0.9},
        before=cost(graph),
        after=cost(graph, mask),
        predicted={"loss": 0.6, "deviation": 0.1},
        measured={"search": measured, "report": measured},
        surrogate="GraphGP",
        recovery="batchnorm",
        trace={},
        provenance={"seed": 7, "versions": {"torch": "2.9"}},
    )


@pytest.mark.parametrize(
    ("edits", "words"),
    [
        ({"modules": {}}, "ew.prune(graph, plan, form=&quot;module&quot;)"),
        ({"reason": "it does without <sin>"}, "it does without &lt;sin&gt;"),
        ({}, None),
    ],
)
def test_the_page_says_whether_the_models_own_class_can_be_had(
    graph: Graph, edits: dict[str, Any], words: str | None
) -> None:
    plan = replace(plan_of(graph, BRANCH), edits=edits)
    page = render(graph, evaluations(graph), plan, title="t")
    assert (words or "ew.prune(graph, plan)") in page
    assert ("n the model&#x27;s own class" in page) == (words is not None)


class Page(HTMLParser):
    """Collects the elements of a page, and checks that they are nested well."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def with_class(page: Page, tag: str, *classes: str) -> list[dict[str, str | None]]:
    return [
        attrs
        for name, attrs in page.elements
        if name == tag and set(classes) <= set((attrs.get("class") or "").split())
    ]


@pytest.fixture(scope="module")
def full(graph: Graph) -> str:
    outcome = Outcome(Measured(0.52, {"accuracy": 0.894}, 500, 0.5, {"accuracy": 0.906}))
    return render(
        graph,
        evaluations(graph),
        plan_of(graph, BRANCH),
        title="Net",
        outcome=outcome,
        extra={"Command": "edgewise run net.toml"},
    )


def test_page_needs_nothing_but_itself(full: str) -> None:
    page = Page(full)
    names = {name for name, _ in page.elements}
    assert not names & {"link", "img", "iframe", "object", "embed", "base", "image"}
    for _, attrs in page.elements:
        assert not {"src", "href", "xlink:href", "srcset", "action"} & set(attrs)
    ours = full.replace(plotly.script(), "")
    assert len(ours) < len(full)
    assert not re.search(r"https?://|url\(|@import|fetch\(|\bimport\b", ours)
    assert len(full.encode("utf-8")) < 6_000_000


def test_page_is_sound_and_says_what_was_chosen(full: str, graph: Graph) -> None:
    page = Page(full)
    ids = [attrs["id"] for _, attrs in page.elements if "id" in attrs]
    assert len(ids) == len(set(ids))
    labels = [a["aria-labelledby"] for _, a in page.elements if "aria-labelledby" in a]
    assert set(labels) <= set(ids)
    assert [name for name, _ in page.elements].count("h1") == 1
    assert f"1 of {len(graph.units)} units removed" in full
    accuracy = f"accuracy {numbers.share(0.831)} (unpruned {numbers.share(0.906)})"
    assert f"{accuracy} on untouched data, {numbers.share(0.894)} after healing." in full
    assert "[0.600, 0.640]" in full
    assert "edgewise run net.toml" in full
    assert "torch 2.9" in full


def test_units_add_up_and_the_table_says_the_same(graph: Graph) -> None:
    """A branch takes with it the layers inside, which the plan does not name."""
    plan = plan_of(graph, BRANCH)
    page = render(graph, evaluations(graph), plan, title="Net")
    found = re.search(r"(\d+) of (\d+) units removed, (\d+) more gone with them: (\d+) left", page)
    assert found is not None
    chosen, total, more, left = map(int, found.groups())
    assert (chosen, left) == (len(plan.removed), plan.after.units)
    assert chosen + more + left == total == plan.before.units
    row = re.search(r"Units</abbr></th><td>(\d+)</td><td>(\d+)</td>", page)
    assert row is not None
    assert (int(row[1]), int(row[2])) == (total, left)


def test_one_screen_comes_first_and_all_else_is_folded(graph: Graph) -> None:
    outcome = Outcome(
        files={"plan.json": "the plan"},
        load="ew.load(make)",
        next={"Heal": "edgewise heal net.toml"},
    )
    proven = Certificate(Proof("GraphGP", 0.6, 0.5))
    plan = replace(plan_of(graph, BRANCH), certificate=proven)
    page = render(graph, evaluations(graph), plan, title="Net", outcome=outcome)
    first, *folds = page[page.index("<main>") : page.index("</main>")].split('<details id="')
    for words in ("What went", "blocks.1", "plan.json", "ew.load(make)", "edgewise heal net.toml"):
        assert words in first
    for word in ("urrogate", "proven", "What is certain", "plotly", "svg"):
        assert word not in first
    assert [fold[: fold.index('"')] for fold in folds] == [
        "measured", "network", "predicted", "evaluations", "units", "reproduce",
    ]  # fmt: skip
    assert all('class="fold"><summary><h2>' in fold for fold in folds)
    assert "About the surrogate only" in folds[0]


def test_what_went_is_said_in_words() -> None:
    kinds = ("edge", "layer", "hidden")
    wide = trace(Net(), torch.randn(2, 3, 8, 8), granularity=kinds)
    slices = next(g for g in wide.nested if "blocks.0.conv1" in wide.units[g[0]].name)[:2]
    names = [BRANCH, "bypass:blocks.2.conv1", *(wide.units[i].name for i in slices)]
    page = render(wide, [], plan_of(wide, *names), title="Net")
    for kind, words in (
        ("Branches, connections", "blocks.1 branch"),
        ("Layers, passed by", "blocks.2 conv1"),
        ("Inner channels left", "blocks.0 conv1 2 of 4"),
    ):
        assert f"<dt>{kind}</dt><dd>{words}</dd>" in page


def test_words_are_explained_where_they_stand(full: str) -> None:
    words = with_class(Page(full), "abbr")
    assert len(words) > 10
    assert all(word["title"] and word["tabindex"] == "0" for word in words)


def test_intervals_stand_beside_what_was_measured(full: str) -> None:
    assert "[79.5\u202f%, 86.2\u202f%]" in full or "[79.5 %, 86.2 %]" in full
    assert "exact for accuracy" in full


def test_removed_parts_are_struck(graph: Graph, full: str) -> None:
    page = Page(full)
    drawn = [a for a in with_class(page, "g", "node", "dead") if "data-id" in a]
    blocks, _ = contract(graph)
    after = fates(blocks, liveness(graph, graph.mask([BRANCH])))
    assert [int(a["data-id"] or -1) for a in drawn] == [i for i, f in enumerate(after) if f.dead]
    assert len(drawn) == 1
    assert len(with_class(page, "path", "strike")) == len(drawn) + 1  # and the legend's
    assert len(with_class(page, "path", "edge", "dead")) == 2
    assert len(with_class(page, "tr", "removed")) == 1


def test_bypassed_layers_are_marked(graph: Graph) -> None:
    layer = "bypass:blocks.1.conv1"
    page = render(graph, [], plan_of(graph, layer), title="Net")
    assert "bypassed: conv1" in page
    assert "blocks.1.conv1 (bypassed)" in page


def test_widths_say_what_they_keep() -> None:
    wide = trace(Net(), torch.randn(2, 3, 8, 8), granularity=("edge", "hidden", "channels"))
    unit = wide.units[wide.nested[0][0]]
    page = render(wide, [], plan_of(wide, unit.name), title="Net")
    kept, size = unit.name.rpartition("@")[2].split("/")
    assert f"keeps {kept} of {size} channels" in page
    assert unit.name in page
    Page(page)


def test_names_are_escaped(graph: Graph) -> None:
    evil = "<script>alert('x')</script>\"&\udc80\0"
    vertices = tuple(replace(v, name=f"{v.name}{evil}") for v in graph.vertices)
    units = tuple(replace(u, name=f"{u.name}{evil}", label=f"{u.label}{evil}") for u in graph.units)
    bad = Graph(vertices, graph.edges, units, graph.granularity, evil)
    failed = Evaluation(
        "0" * len(units), "search", None, status="failed", error=evil, origin=evil, number=0
    )
    odd = replace(failed, loss=1.0, status="ok", metrics={evil: 1.0}, predicted=1.0)
    plan = replace(plan_of(bad, units[0].name), provenance={evil: {evil: evil}})
    point = Point(bad.mask([0]), cost(bad), 1.0, 0.1, Budget(macs=0.9), SOLVED)
    pairs = Interactions((0, 1), (Pair(0, 1, 0.5, 0.1),), str(bad.empty), "log")
    insight = Insight(None, [point], pairs, None, {evil: [[1.0]]}, evil)
    page = render(bad, [failed, odd], plan, title=evil, extra={evil: evil}, insight=insight)
    assert "<script>alert" not in page.replace(plotly.script(), "")
    scripts = [attrs for name, attrs in Page(page).elements if name == "script"]
    assert len([attrs for attrs in scripts if not attrs]) == 3
    assert len([attrs for attrs in scripts if attrs]) == 5  # the charts' data
    page.encode("utf-8")


def test_missing_pieces_leave_a_sensible_page(graph: Graph) -> None:
    nothing = render(graph, [], None, title="Net")
    assert "nothing measured yet" in nothing
    assert "Nothing has been evaluated yet." in nothing
    some = render(graph, evaluations(graph)[:3], None, title="Net")
    assert "3 evaluations so far" in some
    assert "Predicted and measured" not in some
    bare = replace(
        plan_of(graph, BRANCH), measured={}, budget={}, protected=(), predicted={}, provenance={}
    )
    assert "not measured yet" in render(graph, [], bare, title="Net")
    lossy = replace(bare, measured={"verify": Measured(0.6, {}, 5, 0.5, {})})
    assert "loss 0.600 (unpruned 0.500)" in render(graph, evaluations(graph), lossy, title="Net")
    failed = [e for e in evaluations(graph) if not e.ok]
    assert "1 failed evaluation" in render(graph, failed, None, title="Net")


def test_same_records_give_the_same_page(graph: Graph, full: str) -> None:
    first, second = (render(graph, evaluations(graph), None, title="Net") for _ in range(2))
    assert first == second


def test_best_so_far_keeps_to_the_budget(graph: Graph) -> None:
    facts = Facts(graph, evaluations(graph), plan_of(graph, BRANCH), Outcome())
    limit = 0.9 * cost(graph).macs
    allowed = {
        i: e.loss
        for i, e in enumerate(facts.search)
        if e.ok and cost(graph, graph.mask(bits=e.mask)).macs <= limit
    }
    assert 0 < len(allowed) < len(facts.search) - 1
    assert facts.best[-1][1] == min(loss for loss in allowed.values() if loss is not None)
    assert {position for position, _ in facts.best} <= set(allowed)


def test_best_so_far_keeps_to_the_rules(graph: Graph) -> None:
    edges = [i for i, unit in enumerate(graph.units) if unit.kind == "edge"]
    pair = next(p for p in combinations(edges, 2) if liveness(graph, graph.mask(p)).connected)
    ruled = restrict(graph, at_most={"edge": 1.5 / len(edges)})
    found = [
        replace(evaluations(graph)[0], mask=str(graph.mask(units)), loss=loss, number=number)
        for number, (units, loss) in enumerate(((pair[:1], 0.5), (pair, 0.4)))
    ]
    for one, best in ((graph, [(0, 0.5), (1, 0.4)]), (ruled, [(0, 0.5)])):
        facts = Facts(one, found, None, Outcome(), insight=Insight(Budget(macs=1.0)))
        assert facts.best == best


def test_latency_is_shown_and_judged_where_it_was_measured(graph: Graph) -> None:
    table = latency.measure(graph, threads=1, meter=Formula(graph.program.args))
    clocked = Clocked(
        "1", 0.007, (0.0069, 0.0072), 0.01, 0.0065, 0.0065, 3, 21, (0.02, 0.014), {"batch": 1}
    )
    plan = replace(plan_of(graph, BRANCH), latency=clocked, budget={"latency": 0.9, "macs": 1.0})
    plan = replace(plan, before=replace(plan.before, seconds=table.unpruned))
    page = render(graph, evaluations(graph), plan, title="Net")
    assert "10 ms → 7 ms" in page
    assert "quartiles 6.9 ms to 7.2 ms), limit 6.5 ms: MISSED" in page
    times = table.times(graph)
    known, blind = (Facts(graph, evaluations(graph), plan, Outcome(), t) for t in (times, None))
    slow = table.unpruned * 0.9
    for e in known.search:
        if e.ok:
            seconds = times.seconds(liveness(graph, graph.mask(bits=e.mask)))
            assert known._allowed(e.mask) == (seconds <= slow)
            assert blind._allowed(e.mask)


def test_records_of_another_graph_are_refused(graph: Graph) -> None:
    other = trace(Net(2), torch.randn(2, 3, 8, 8))
    with pytest.raises(PlanError, match="plan was made for graph"):
        render(other, [], plan_of(graph, BRANCH), title="Net")
    with pytest.raises(MaskError, match="bits"):
        render(other, evaluations(graph), None, title="Net")


def test_write(graph: Graph, tmp_path: Path) -> None:
    page = render(graph, [], None, title="Net")
    path = write(tmp_path / "new" / "report.html", page)
    assert path.read_text(encoding="utf-8") == page
    assert [p.name for p in path.parent.iterdir()] == ["report.html"]
    with pytest.raises(EdgewiseError, match="cannot be written"):
        write(path / "inside.html", page)


def test_large_network_stays_small() -> None:
    models = pytest.importorskip("torchvision").models
    graph = trace(models.densenet121(weights=None), torch.randn(1, 3, 64, 64))
    units = [graph.mask([i]) for i in range(len(graph.units))]
    found = [Evaluation(str(m), "search", 1.0 + i, number=i) for i, m in enumerate(units)]
    page = render(graph, found, None, title="DenseNet-121")
    assert len(page.replace(plotly.script(), "").encode("utf-8")) < 1_000_000
    check_layout(*drawing(graph))


# --- layout


def drawing(graph: Graph) -> tuple[Layout, list[tuple[int, int]]]:
    blocks, links = contract(graph)
    pairs = [(link.source, link.target) for link in links]
    return arrange([Item(100, 38, block.macs) for block in blocks], pairs), pairs


def overlap(a: Box, b: Box) -> bool:
    return a.left < b.right and b.left < a.right and a.top < b.bottom and b.top < a.bottom


def check_layout(layout: Layout, links: list[tuple[int, int]]) -> None:
    """Edges go down from box to box, through no other box; boxes are apart, also folded."""
    assert not any(overlap(a, b) for a, b in combinations(layout.boxes, 2))
    for (source, target), line in zip(links, layout.lines, strict=True):
        start, end = layout.boxes[source], layout.boxes[target]
        assert line[0] == (start.x, start.bottom)
        assert line[-1] == (end.x, end.top)
        for (x, y), (to_x, to_y) in pairwise(line):
            assert to_y >= y
            assert x == to_x or y == to_y
            low, high = min(x, to_x), max(x, to_x)
            for box in layout.boxes:
                inside = low < box.right and box.left < high and y < box.bottom and box.top < to_y
                assert not inside
    folded = fold(layout, 700)
    assert not any(overlap(a, b) for a, b in combinations(folded.boxes, 2))
    for box in folded.boxes:
        assert 0 <= box.left < box.right <= folded.width
        assert 0 <= box.top < box.bottom <= folded.height
    for pieces in folded.lines:
        assert all(to_y >= y for piece in pieces for (_, y), (_, to_y) in pairwise(piece))


@st.composite
def dags(draw: st.DrawFn) -> tuple[list[Item], list[tuple[int, int]]]:
    count = draw(st.integers(1, 24))
    sizes = st.tuples(st.integers(20, 160), st.integers(20, 40), st.integers(0, 9))
    items = [Item(*map(float, draw(sizes))) for _ in range(count)]
    links = [
        (draw(st.integers(max(0, i - reach), i - 1)), i)
        for i in range(1, count)
        for reach in draw(st.lists(st.integers(1, 12), max_size=3))
    ]
    return items, links


@settings(max_examples=150, deadline=None)
@given(dags())
def test_layout_law(dag: tuple[list[Item], list[tuple[int, int]]]) -> None:
    check_layout(arrange(*dag), dag[1])


@settings(max_examples=100, deadline=None)
@given(dags())
def test_lanes_of_different_sources_are_apart(
    dag: tuple[list[Item], list[tuple[int, int]]],
) -> None:
    layout = arrange(*dag)
    lanes = [
        (source, a[0], a[1], b[1])
        for (source, _), line in zip(dag[1], layout.lines, strict=True)
        if len(line) >= 5
        for a, b in [(line[2], line[3])]
    ]
    for (one, x, top, bottom), (two, other, low, high) in combinations(lanes, 2):
        assert one == two or abs(x - other) > 1 or bottom <= low or high <= top


def test_blocks_partition_the_graph(graph: Graph) -> None:
    blocks, links = contract(graph)
    assert sorted(i for b in blocks for i in b.vertices) == list(range(len(graph.vertices)))
    assert all(link.source < link.target for link in links)
    assert "blocks.1" in [block.label for block in blocks]
    assert sum(block.macs for block in blocks) == cost(graph).macs
    assert [block.label for block in blocks].count("+") == 3


def test_empty_layout() -> None:
    assert arrange([], []).boxes == ()
    assert fold(arrange([], []), 500).boxes == ()


# --- small parts


def test_figures() -> None:
    thin = numbers.THIN
    assert numbers.count(4_718_592) == f"4.72{thin}M"
    assert numbers.count(8_448) == f"8{thin}448"
    assert numbers.count(999_960) == f"1.00{thin}M"
    assert numbers.size(7_520_000) == f"7.52{thin}MB"
    assert numbers.size(640) == f"640{thin}B"
    assert numbers.change(10, 7) == f"−30.0{thin}%"
    assert numbers.change(0, 0) == "–"
    assert numbers.plain(1.5e-5) == "1.50e−5"
    assert numbers.plain(float("nan")) == "nan"
    assert numbers.metric("accuracy", 0.5) == f"50.0{thin}%"
    assert numbers.metric("mae", 0.5) == "0.500"


def test_markup_escapes_text_but_not_markup() -> None:
    assert tag("p", "<", raw("<b>"), None, ["&"], class_='"', hidden=False, open=True) == (
        '<p class="&quot;" open>&lt;<b>&amp;</p>'
    )


def test_the_smallest_and_infinite_values_are_borne(graph: Graph) -> None:
    odd = [
        replace(e, loss=float("inf"), predicted=float("nan"), deviation=float("inf"))
        for e in evaluations(graph)
    ]
    tiny = [replace(e, loss=5e-324, predicted=1e-320) for e in evaluations(graph)]
    facts = Facts(graph, [*evaluations(graph), *odd, *tiny], None, Outcome())
    assert len(facts.foreseen) == 1 + len(tiny) - 1  # the failure has no loss to compare with
    Page(render(graph, facts.evaluations, None, title="Net"))
