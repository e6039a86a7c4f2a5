"""Tracing: the model is left alone, names and lines are told, bad models are explained."""

import pytest
import torch
from torch import nn

import edgewise as ew
from edgewise.errors import NoUnitsError, TraceError, UnknownOperatorError
from zoo import build


def test_what_happens_in_train_mode_only_is_told() -> None:
    model, args = build("noisy")
    assert any("something else in train mode" in told for told in ew.trace(model, args).fixed)
    plain, inputs = build("dropouts")
    assert ew.trace(plain, inputs).fixed == ()


def test_an_operator_that_torch_lacks_leaves_the_other_front_end_its_chance(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def lacking(*args, **options):
        raise NotImplementedError('"relu" not implemented for this dtype')

    model, args = build("twice")
    monkeypatch.setattr("edgewise.tracing.capture.traced", lacking)
    assert ew.trace(model, args).frontend == "torch.export"
    with pytest.raises(TraceError, match=r"torch\.fx makes a program that torch cannot run"):
        ew.trace(model, args, frontend="torch.fx")


def test_the_model_is_not_changed() -> None:
    model, args = build("residual")
    model.train()
    model.head.eval()
    handle = model.stem.register_forward_hook(lambda *_: None)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    modes = [m.training for m in model.modules()]
    random = torch.get_rng_state()
    graph = ew.trace(model, args)
    ew.prune(graph, graph.mask([0])).train()(*args)
    assert [m.training for m in model.modules()] == modes
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)
    assert handle.id in model.stem._forward_hooks
    assert all(p.grad is None for p in model.parameters())


def test_parallel_edges_and_slots() -> None:
    model, args = build("parallel")
    graph = ew.trace(model, args, granularity="raw")
    mul = next(i for i, v in enumerate(graph.vertices) if v.name == "mul")
    edges = [graph.edges[e] for e in graph.inputs[mul]]
    assert [e.slot for e in edges] == [0, 1]
    assert edges[0].source == edges[1].source


def test_raw_granularity_offers_every_edge() -> None:
    model, args = build("residual")
    graph = ew.trace(model, args, granularity="raw")
    assert len(graph.units) == len(graph.edges)
    with pytest.raises(ew.errors.EdgewiseError, match="cannot be mixed"):
        ew.trace(model, args, granularity=("raw", "edge"))
    with pytest.raises(ew.errors.EdgewiseError, match="must name some of"):
        ew.trace(model, args, granularity="filters")


def test_vertices_know_their_source_line() -> None:
    model, args = build("residual")
    graph = ew.trace(model, args)
    add = next(v for v in graph.vertices if v.name == "blocks.0.add")
    assert "testing.py" in add.source or add.source


class Branching(nn.Module):
    def forward(self, x):
        if x.sum() > 0:
            return x
        return -x


class Odd(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x):
        return x + torch.special.bessel_j0(self.layer(x))


def test_control_flow_names_the_line() -> None:
    with pytest.raises(TraceError, match=r"test_trace.py:\d+ \(if x.sum\(\) > 0:\)"):
        ew.trace(Branching(), (torch.randn(2, 3),))


def test_an_unknown_operator_is_named_and_can_be_registered() -> None:
    with pytest.raises(UnknownOperatorError, match=r"bessel_j0.*test_trace.py:\d+") as caught:
        ew.trace(Odd(), (torch.randn(2, 4),))
    assert "ew.register" in str(caught.value)
    rule = ew.Rule("bessel", ew.absence.by_axes, read=ew.ops.same_axes)
    ew.register(torch.special.bessel_j0, rule)
    try:
        graph = ew.trace(Odd(), (torch.randn(2, 4),))
        ew.prune(graph, graph.mask([0]))
    finally:
        del ew.ops.TABLE.rules["bessel"], ew.ops.TABLE.targets[torch.special.bessel_j0]


def test_a_chain_has_no_edge_to_remove() -> None:
    chain = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    with pytest.raises(NoUnitsError, match="plain chain"):
        ew.trace(chain, (torch.randn(2, 4),))
    square = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    graph = ew.trace(square, (torch.randn(2, 4),))
    assert [u.name for u in graph.units] == ["bypass:0"]


class Writes(nn.Module):
    def forward(self, x):
        y = x * 1.0
        y[:, 0].add_(1.0)
        return y + x


class Assigns(nn.Module):
    def forward(self, x):
        y = x * 1.0
        y[:, 0] = 0.0
        return y + x


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Writes(), r"test_trace.py:\d+\) writes into 'getitem', whose memory 'mul' .* shares"),
        (Assigns(), r"writes into a tensor.*torch\.where"),
    ],
    ids=["view", "assignment"],
)
def test_writes_need_torch_export(model: nn.Module, message: str) -> None:
    """torch.fx cannot express a write into part of a tensor; torch.export can."""
    with pytest.raises(TraceError, match=message):
        ew.trace(model, (torch.randn(2, 3),), frontend="torch.fx")
    graph = ew.trace(model, (torch.randn(2, 3),))
    assert graph.frontend == "torch.export"
    x = torch.randn(5, 3)
    assert torch.equal(ew.masked(graph, graph.empty)(x), model(x))


def test_a_front_end_can_be_forced() -> None:
    model, args = build("residual")
    assert ew.trace(model, args).frontend == "torch.fx"
    graph = ew.trace(model, args, frontend="torch.export")
    assert graph.frontend == "torch.export"
    assert "front end: torch.export" in graph.summary()
    with pytest.raises(TraceError, match="frontend is one of"):
        ew.trace(model, args, frontend="dynamo")
    with pytest.raises(TraceError, match=r"`leaves` need torch\.fx"):
        ew.trace(model, args, leaves=[nn.Linear], frontend="torch.export")


class Sorting(nn.Module):
    """Data-dependent code, to be treated as one operator."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x):
        return self.layer(x) if float(x.sum()) > 0 else -self.layer(x)


@pytest.mark.parametrize("leaves", [[Sorting], ["inner"]], ids=["class", "path"])
def test_a_module_can_be_one_operator(leaves: list) -> None:
    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = Sorting()

        def forward(self, x):
            return x + self.inner(x)

    with pytest.raises(TraceError, match="leaves="):
        ew.trace(Outer(), torch.randn(2, 4))
    ew.register(Sorting, ew.Rule("sorting", ew.absence.join))
    try:
        graph = ew.trace(Outer(), torch.randn(2, 4), leaves=leaves)
        small = ew.prune(graph, graph.mask(["inner"]))
        assert not list(small.parameters())
    finally:
        del ew.ops.TABLE.rules["sorting"], ew.ops.TABLE.targets[Sorting]


def test_the_batch_size_stays_free() -> None:
    for name in ("shuffle", "attention", "fast_attention", "several"):
        model, args = build(name)
        graph = ew.trace(model, args)
        for unit in range(len(graph.units)):
            mask = graph.mask([unit])
            small = ew.prune(graph, mask)
            more = tuple(torch.cat([a, a, a]) for a in args)
            leaves = torch.utils._pytree.tree_leaves(small(*more))
            assert all(len(leaf) == 3 * len(args[0]) for leaf in leaves)
