"""Parts of a model: which can be taken, what they cost, and what is refused."""

import copy

import pytest
import torch
from torch import nn

import edgewise as ew
import partial
from edgewise.errors import TraceError

X = torch.randn(2, 3, 8, 8)


class Around(nn.Module):
    """A part, and something that is done with it."""

    def __init__(self, forward, part: nn.Module | None = None) -> None:
        super().__init__()
        self.outer = nn.Sequential(partial.Block(3) if part is None else part)
        self.other = nn.Conv2d(3, 3, 1)
        self.call = forward

    def forward(self, x):
        return self.call(self, x)


def test_a_part_has_the_names_that_the_whole_model_has_for_it() -> None:
    model = partial.whole()
    before = copy.deepcopy(model.state_dict())
    graph = partial.traced(model, "backbone")
    assert all(unit.name.rpartition(":")[2].startswith("backbone.") for unit in graph.units)
    assert {p.name for v in graph.vertices for p in v.params} <= before.keys()
    assert graph.fingerprint != partial.traced(model, "neck").fingerprint
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_whole_model_that_cannot_be_traced_is_why() -> None:
    with pytest.raises(TraceError):
        ew.trace(partial.whole(), X)


def test_costs_are_those_of_the_whole_model_unless_asked_otherwise() -> None:
    model = partial.whole()
    graph, alone = (
        partial.traced(model, "backbone"),
        partial.traced(model, "backbone", costs="part"),
    )
    assert ew.cost(graph).params == sum(p.numel() for p in model.parameters())
    assert ew.cost(alone).params == sum(p.numel() for p in model.backbone.parameters())
    macs = 3 * 3 * 64 + 6 * 6 * 10 * 64 + 6 * 4  # before, the neck, the head: one example
    assert graph.rest.macs == macs == ew.cost(graph).macs - ew.cost(alone).macs
    both = partial.traced(model, ["backbone", "neck"])
    assert ew.cost(both).macs == ew.cost(graph).macs
    assert ew.cost(both).params == ew.cost(graph).params
    with pytest.raises(TraceError, match='"whole" model or of the "part"; got'):
        partial.traced(model, "backbone", costs="rest")


def test_weights_that_the_model_around_reads_too_stay() -> None:
    class Tied(partial.Whole):
        def __init__(self) -> None:
            super().__init__()
            self.neck.first.weight = self.backbone.blocks[0].first.weight

    model = Tied().eval()
    graph = partial.traced(model, "backbone")
    for mask in partial.masks(graph):
        small = ew.prune(graph, mask)
        names = [n for n, _ in small.named_parameters() if n != "backbone.blocks.0.first.weight"]
        params = sum(small.get_parameter(name).numel() for name in names)
        assert params == ew.cost(graph, mask).params  # one of the two is not counted
    assert not any("backbone.blocks.0.first" in u.name and u.kind == "hidden" for u in graph.units)


@pytest.mark.parametrize(
    ("part", "words"),
    [
        ("backbon", r"no part 'backbon'\. Did you mean 'backbone'"),
        ("", "is the whole model"),
        (["backbone", "backbone.stem"], "'backbone.stem' lies within 'backbone'"),
        (["neck", "neck"], "named twice"),
        ([], "takes a path, or a list of several; got none"),
        (nn.Linear(1, 1), "got Linear"),
    ],
)
def test_a_path_that_leads_nowhere_is_explained(part, words) -> None:
    with pytest.raises(TraceError, match=words):
        ew.trace(partial.whole(), X, part=part)


@pytest.mark.parametrize(
    ("forward", "part", "words"),
    [
        (lambda m, x: m.other(x), "outer", "never runs as a module.*Name a part that does"),
        (lambda m, x: m.outer[0](x), "outer", r"never runs.*calls outer\.0 itself: name that"),
        (lambda m, x: m.outer(m.outer[0](x)), "outer", r"calls outer\.0 itself, besides part"),
        (lambda m, x: m.outer(x)[..., :4] + m.outer(x[..., :4]), "outer",
         r"called 2 times.*not always alike: .*\(2, 3, 8, 8\).*\(1 times\).*\(2, 3, 8, 4\)"),
        (lambda m, x: m.outer(x) * m.outer[0].first.weight.mean(), "outer",
         "does more with outer than to call it"),
    ],
)  # fmt: skip
def test_what_a_model_does_with_a_part_is_told(forward, part, words) -> None:
    with pytest.raises(TraceError, match=words):
        ew.trace(Around(forward), X, part=part)


def test_what_is_neither_tensor_nor_plain_data_leads_to_a_part_below() -> None:
    class Packed:
        def __init__(self, x) -> None:
            self.x = x

    class Unpacking(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = partial.Block(3)

        def forward(self, packed):
            return self.body(packed.x)

    model = Around(lambda m, x: m.outer(Packed(x)), Unpacking())
    with pytest.raises(
        TraceError, match=r"gets Packed.*Name a part below it, such as 'outer.0.body"
    ):
        ew.trace(model, X, part="outer")
    assert ew.trace(model, X, part="outer.0.body").units


def test_a_part_that_writes_into_its_input_is_refused() -> None:
    class Writing(partial.Block):
        def forward(self, x):
            return super().forward(x.add_(1))

    with pytest.raises(TraceError, match="writes in place into what Around gives it"):
        ew.trace(Around(lambda m, x: m.outer(m.other(x)), Writing(3)), X, part="outer")


def test_a_loop_over_equal_shapes_is_one_graph() -> None:
    once, twice = (partial.traced(partial.whole(rounds), "neck") for rounds in (1, 2))
    assert once == twice
    assert 2 * ew.cost(twice).macs - ew.cost(once).macs == 6 * 6 * 10 * 64  # half the rest each


def test_parts_of_other_batches_need_an_example_of_one() -> None:
    model = Around(lambda m, x: m.other(torch.cat([m.outer(x)] * 2)))
    with pytest.raises(TraceError, match=r"different sizes \(outer: 2, other: 4\)"):
        ew.trace(model, X, part=["outer", "other"])
    assert ew.trace(model, X[:1], part=["outer", "other"]).units


@pytest.mark.parametrize(
    "inner",
    [torch.no_grad, torch.inference_mode, lambda: torch.autocast("cpu", torch.bfloat16)],
)
def test_a_part_is_traced_as_the_model_runs_it(inner) -> None:
    def forward(model, x):
        with inner():
            return model.outer(model.other(x)).float()

    model = Around(forward).eval()
    graph = ew.trace(model, X, part="outer")
    mask = graph.mask([0])
    objective = ew.Objective([(X, X)], loss=lambda y, t: (y - t).square().mean((1, 2, 3)))
    small = ew.prune(graph, mask)
    assert small(X).shape == X.shape
    with ew.Study(graph, objective) as study:
        (found,) = study.evaluate([mask])
    assert found.loss == pytest.approx(objective.score(small, "search").loss, rel=1e-2)
