"""Widths as units: what is offered, the laws on real architectures, nesting, saving and loading."""

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import edgewise as ew
from edgewise.errors import EdgewiseError, NoUnitsError
from edgewise.evaluation.evaluator import Engine
from edgewise.graph.widths import kept_levels
from edgewise.search import Space
from edgewise.testing import laws
from hugging_face import one_process, pruned
from zoo import WIDTHS as ALL
from zoo import ZOO, build, traced

WIDTHS = ("hidden", "heads", "channels")


class Mlp(nn.Module):
    """Two hidden layers and a gated one."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.gate, self.up = nn.Linear(6, 16), nn.Linear(16, 8), nn.Linear(16, 8)
        self.down = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.one(x))
        return self.down(torch.sigmoid(self.gate(x)) * self.up(x))


class Attention(nn.Module):
    """A residual block of attention, queries, keys and values from one projection."""

    def __init__(self, width: int = 12, heads: int = 3) -> None:
        super().__init__()
        self.heads, self.norm = heads, nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.head = nn.Linear(width, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n, t, c = x.shape
        qkv = self.qkv(self.norm(x)).reshape(n, t, 3, self.heads, c // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        y = nn.functional.scaled_dot_product_attention(q, k, v)
        return self.head(x + self.out(y.transpose(1, 2).reshape(n, t, c)))


class Tied(nn.Module):
    """A language model whose head is its embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.mlp = nn.Embedding(11, 8), nn.Sequential(
            nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 8)
        )  # fmt: skip

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.embed(tokens)
        return (x + self.mlp(x)) @ self.embed.weight.T


def groups(graph: ew.Graph) -> dict[str, int]:
    return {graph.units[group[0]].group: len(group) for group in graph.nested}


def test_a_gated_mlp_offers_its_hidden_widths_but_not_its_outputs() -> None:
    graph = ew.trace(Mlp().double(), (torch.randn(2, 6).double(),), granularity="hidden", slices=4)
    assert groups(graph) == {"hidden:one": 3, "hidden:gate": 3}
    gated = graph.units[graph.unit_index["hidden:gate@6/8"]]
    names = [graph.vertices[v].name for v, _ in gated.removal.channels]
    assert names == ["gate", "up"]  # both sides of the gate lose the same channels
    assert len(set(gated.removal.channels.values())) == 1
    assert "output" in graph.refused["down"]
    for mask in (graph.mask([gated.name]), graph.mask(range(6))):
        for law in laws.MASK_LAWS:
            law(graph, mask)


def test_heads_take_their_queries_keys_and_values_with_them() -> None:
    graph = ew.trace(Attention().double(), (torch.randn(2, 5, 12).double(),), granularity=WIDTHS)
    assert groups(graph) == {"heads:qkv": 2}
    unit = graph.units[0]
    size, width = 4, 12
    (gone,) = unit.removal.channels.values()
    for part in range(3):
        mine = {c for c in gone if part * width <= c < (part + 1) * width}
        assert len(mine) == size
    assert {c % width for c in gone} == {c % width for c in mine}
    for law in laws.MASK_LAWS:
        law(graph, graph.mask([0, 1]))


def test_channels_of_tied_embeddings_are_refused_with_the_reason() -> None:
    graph = ew.trace(Tied(), (torch.tensor([[1, 2, 3]]),), granularity=WIDTHS)
    assert groups(graph) == {"hidden:mlp.0": 7}
    assert "cannot be cut" in graph.refused["mlp.2"]  # it adds to the tied embedding


def test_an_operator_that_mixes_channels_keeps_them_whole() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 8), nn.Linear(8, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.b(self.a(x).flip(-1).cumsum(-1))

    with pytest.raises(NoUnitsError, match="needs all of them"):
        ew.trace(Model(), (torch.randn(2, 4),), granularity="hidden")


class Odd(nn.Module):
    """An operator whose rule of absence is a function of the user's."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * 2 if x.sum() > 0 else x


def test_a_custom_operator_that_reads_zeros_for_channels_keeps_its_inputs_whole() -> None:
    def own(vertex, shapes, ins):
        return ew.absence.join(vertex, shapes, ins)

    ew.register(Odd, ew.Rule("odd_of_test_widths", own))
    model = nn.Sequential(nn.Linear(4, 8), Odd(), nn.Linear(8, 2))
    with pytest.raises(NoUnitsError, match="reads 0 in their place"):
        ew.trace(model, (torch.randn(2, 4),), granularity="hidden", leaves=[Odd])


@pytest.mark.parametrize("name", ZOO)
def test_laws_hold_with_every_kind_of_unit(name: str) -> None:
    model, args = build(name, dtype=torch.float64)
    try:
        graph = laws.check_laws(model, args, masks=1, granularity=ALL, slices=3)
    except NoUnitsError:
        return
    rng = random.Random(1)
    for group in graph.nested:
        mask = graph.mask(group[: rng.randint(1, len(group))])
        for law in laws.MASK_LAWS[:2]:
            law(graph, mask)


@one_process
@pytest.mark.parametrize(
    ("name", "producers"),
    [("GPT2", {"heads": 1, "hidden": 1}), ("Llama", {"heads": 3, "hidden": 2})],
)
def test_language_models_lose_heads_and_hidden_channels(
    name: str, producers: dict[str, int]
) -> None:
    """Key and value heads go with the queries they serve, gates with what they gate."""
    graph, _, _ = pruned(name)
    for kind, count in producers.items():
        mine = [g for g in graph.nested if graph.units[g[0]].kind == kind]
        assert len(mine) == 3  # one a layer
        assert all(len(graph.units[g[0]].removal.channels) == count for g in mine)
    rng = random.Random(0)
    for _ in range(2):
        mask = laws.random_mask(graph, rng)
        laws.law_pruned_is_masked(graph, mask)
        laws.law_cost_is_exact(graph, mask)


def test_levels_fall_and_are_multiples() -> None:
    assert kept_levels(64, 1, 8, 1) == [56, 48, 40, 32, 24, 16, 8]
    assert kept_levels(64, 1, 8, 16) == [48, 32, 16]
    assert kept_levels(3, 1, 8, 1) == [2, 1]
    assert kept_levels(8, 4, 4, 8) == [6, 4, 2]
    assert kept_levels(8, 1, 8, 8) == []


def test_widths_keep_multiples_of_round_to() -> None:
    args = (torch.randn(2, 6),)
    graph = ew.trace(Mlp(), args, granularity="hidden", round_to=4)
    rng = np.random.default_rng(0)
    for mask in ew.sample_masks(graph, 5, removed=2, rng=rng):
        small = ew.prune(graph, mask)
        assert all(m.out_features % 4 == 0 for n, m in small.named_modules() if n in ("one", "up"))


def test_multiples_may_differ_from_width_to_width() -> None:
    args = (torch.randn(2, 6),)
    graph = ew.trace(Mlp(), args, granularity="hidden", round_to={"hidden": 2, "up": 4})
    kept = {name.partition("@")[0]: [] for name in (unit.name for unit in graph.units)}
    for unit in graph.units:
        kept[unit.group].append(int(unit.name.partition("@")[2].partition("/")[0]))
    assert kept == {"hidden:one": [14, 12, 10, 8, 6, 4, 2], "hidden:gate": [4]}
    with pytest.raises(EdgewiseError, match="No kind of unit is called 'one'"):
        ew.trace(Mlp(), args, granularity="hidden", round_to={"one:": 2})
    with pytest.raises(EdgewiseError, match="'heads': 2} names no width that can be cut"):
        ew.trace(Mlp(), args, granularity="hidden", round_to={"heads": 2})


def test_slices_and_rounding_that_leave_nothing_are_errors() -> None:
    args = (torch.randn(2, 6),)
    with pytest.raises(EdgewiseError, match="round_to=16 leaves nothing"):
        ew.trace(Mlp(), args, granularity="hidden", round_to=16)
    with pytest.raises(EdgewiseError, match="slices must be at least 2"):
        ew.trace(Mlp(), args, granularity="hidden", slices=1)
    fine = ew.trace(Mlp(), args, granularity="hidden", slices=1000)
    assert groups(fine) == {"hidden:one": 15, "hidden:gate": 7}  # channel by channel, no finer


def test_sampled_masks_and_the_space_keep_widths_nested() -> None:
    graph = ew.trace(Mlp(), (torch.randn(2, 6),), granularity="hidden")
    rng = np.random.default_rng(0)
    masks = ew.sample_masks(graph, 8, removed=4, rng=rng)
    masks += ew.sample_masks(graph, 8, budget=ew.Budget(macs=0.6), rng=rng)
    assert all(graph.nest(mask) == mask for mask in masks)
    space = Space(graph, ew.Budget(macs=0.6))
    assert set(space.here(graph.empty)) == {group[0] for group in graph.nested}
    deep = graph.mask(graph.nested[0])
    assert space.last_of(deep, graph.nested[0][0]) == graph.nested[0][-1]


def test_importance_orders_the_channels() -> None:
    model = Mlp()
    with torch.no_grad():
        model.one.weight[3] = 0.0
        model.one.bias[3] = 0.0
        model.one.weight[5] = 0.0  # a constant, which Taylor sees and L2 does not
        model.one.bias[5] = 3.0
    pairs = [(torch.randn(32, 6), torch.randint(0, 3, (32,)))]
    loss = nn.functional.cross_entropy
    first = {}
    for name, importance in {
        "l2": ew.importance.l2,
        "taylor": ew.importance.taylor(pairs, loss),
        "activation": ew.importance.activation(pairs),
    }.items():
        graph = ew.trace(model, pairs[0][:1], granularity="hidden", importance=importance)
        unit = graph.units[graph.nested[0][0]]
        (first[name],) = unit.removal.channels.values()
        assert unit.importance <= graph.units[graph.nested[0][-1]].importance
    assert first["l2"] == {3, 5}
    assert 3 in first["taylor"]
    assert 5 not in first["taylor"]
    assert 3 in first["activation"]
    with pytest.raises(EdgewiseError, match="at least one batch"):
        ew.trace(model, pairs[0][:1], granularity="hidden", importance=ew.importance.activation([]))


def test_taylor_takes_a_loss_of_each_example_too() -> None:
    pairs = [(torch.randn(16, 6), torch.randint(0, 3, (16,))) for _ in range(2)]

    def each(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return nn.functional.cross_entropy(outputs, targets, reduction="none")

    model = Mlp()
    found = [
        [unit.importance for unit in ew.trace(
            model, pairs[0][:1], granularity="hidden", importance=ew.importance.taylor(pairs, loss)
        ).units]
        for loss in (nn.functional.cross_entropy, each)
    ]  # fmt: skip
    assert found[0] == pytest.approx(found[1])


def test_a_fixed_filter_that_is_not_saved_is_a_weight_too() -> None:
    """A blur with a buffer outside of the state dict (timm's anti-aliased networks) is scored."""

    class Blurred(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 3)
            self.register_buffer("filter", torch.full((8, 1, 3, 3), 1 / 9), persistent=False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.two(nn.functional.conv2d(self.one(x), self.filter, groups=8).relu())

    x = torch.randn(2, 3, 12, 12)
    graph = ew.trace(Blurred(), (x,), granularity="hidden", slices=4)
    ew.prune(graph, graph.mask(graph.nested[0][:2]))
    assert all(graph.units[u].importance > 0 for u in graph.nested[0])


def test_a_plan_with_widths_is_saved_and_loaded_by_a_model_with_other_weights(
    tmp_path: Path,
) -> None:
    torch.manual_seed(0)
    model, x = Mlp().eval(), torch.randn(40, 6)
    batches = [(x, torch.randint(0, 3, (40,)))]
    graph = ew.trace(model, (x[:2],), granularity=("edge", "layer", "hidden"), slices=4)
    study = ew.Study(graph, ew.Objective(batches, loss=nn.functional.cross_entropy))
    study.run(evaluations=12, budget=ew.Budget(macs=0.6))
    plan = study.plan(finalists=3)
    assert graph.nest(graph.mask(bits=plan.bits)) == graph.mask(bits=plan.bits)
    small = ew.prune(graph, plan)
    plan.save(tmp_path / "plan.json")
    ew.save(small, tmp_path / "small.safetensors")
    again = ew.load(Mlp, tmp_path / "plan.json", tmp_path / "small.safetensors")
    torch.testing.assert_close(again(x), small.eval()(x))
    assert sum(p.numel() for p in again.parameters()) < sum(p.numel() for p in model.parameters())


def test_the_engine_measures_what_the_masked_model_gives() -> None:
    """Law 6 with widths and branches, with and without recovered batch norms."""
    torch.manual_seed(0)
    model, args = build("residual")
    graph = ew.trace(model, args, granularity=ALL, slices=4)
    images = torch.randn(16, *args[0].shape[1:])
    targets = torch.randint(0, 2, (16,))
    rng = random.Random(0)
    masks = [laws.random_mask(graph, rng) for _ in range(6)]
    loss = nn.functional.cross_entropy
    for recovery in (None, ew.Recovery("batchnorm", [images])):
        kept = {} if recovery is None else {"recovery": recovery}
        objective = ew.Objective([(images, targets)], loss=loss, **kept)
        engine = Engine(graph, objective)
        for outcome in engine.evaluate(masks, tensors=True):
            mask = graph.mask(bits=outcome.evaluation.mask)
            with torch.no_grad():
                expected = loss(ew.masked(graph, mask, outcome.tensors)(images), targets)
            assert outcome.evaluation.loss == pytest.approx(float(expected), rel=1e-4)


class Reader(nn.Module):
    """Layers of an LSTM whose first state the model makes itself, or a GRU's that is learnt."""

    def __init__(self, kind: type[nn.Module], **options: object) -> None:
        super().__init__()
        self.hidden, self.layers = 6, 2
        self.recurrent = kind(3, 6, 2, batch_first=True, **options)
        self.first = nn.Parameter(torch.randn(2, 1, 6)) if kind is nn.GRU else None
        self.leave = nn.Linear(options.get("proj_size", 6), 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        state = x.new_zeros(self.layers, len(x), self.hidden)
        state = state if self.first is None else state + self.first
        given = () if self.recurrent.proj_size else (state,)
        given = given if self.first is not None or not given else ((state, state),)
        return self.leave(self.recurrent(x, *given)[0])


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_recurrent_layers_lose_units_in_all_gates_and_layers(kind: type[nn.Module]) -> None:
    graph = laws.check_laws(
        Reader(kind), (torch.randn(2, 4, 3),), masks=2, granularity="hidden", slices=3
    )
    assert groups(graph) == {"hidden:recurrent": 2}
    small = ew.prune(graph, graph.mask([0]), form="module")
    assert (small.hidden, small.recurrent.hidden_size) == (4, 4)
    assert small.recurrent.weight_hh_l1.shape == (16 if kind is nn.LSTM else 12, 4)


def test_projected_states_lose_units_and_their_cells_are_refused() -> None:
    model = Reader(nn.LSTM, proj_size=4)
    graph = laws.check_laws(model, (torch.randn(2, 4, 3),), masks=2, granularity="hidden")
    assert groups(graph) == {"hidden:recurrent": 3}
    assert "cells must outnumber" in graph.refused["recurrent"]


@pytest.mark.parametrize("name", ZOO)
def test_layers_without_widths_have_a_reason(name: str) -> None:
    graph = traced(name, ALL)
    cut = {graph.vertices[v].name for u in graph.units for v, _ in u.removal.channels}
    layers = {
        v.name for v in graph.vertices if any(len(p.shape) > 1 for p in v.params) and v.module
    }
    assert layers - cut <= set(graph.refused)
