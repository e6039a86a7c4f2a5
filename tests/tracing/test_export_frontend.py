"""The torch.export front end: what it gives is what the model is, and obeys the same laws."""

import copy
import random
from collections import OrderedDict
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, library, nn
from torch.nn import functional as F

import edgewise as ew
from edgewise.testing import laws
from zoo import ZOO, build

WIDTHS = ("edge", "layer", "hidden", "heads", "channels")


@dataclass
class Answer:
    logits: Tensor
    hidden: Tensor | None = None


torch.export.register_dataclass(Answer)


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        self.drop = nn.Dropout(0.5)
        self.scale = nn.Parameter(torch.ones(width))

    def forward(self, x, mask=None):
        y = self.norm(x) if x.shape[1] > 2 else x  # a shape decides: torch.fx cannot follow
        y = self.down(F.gelu(self.up(y))) * self.scale
        y = F.dropout(y, 0.3, self.training)
        if mask is not None:
            y = y * mask[:, :, None]
        return x + self.drop(y)


class Encoder(nn.Module):
    """Token ids and a mask in, a dataclass out; weights of the embedding shared with the head."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 8)
        self.blocks = nn.ModuleList(Block(8) for _ in range(3))
        self.bn = nn.BatchNorm1d(8)
        self.head = nn.Linear(8, 11, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, tokens, mask=None, **options):
        x = self.embed(tokens) + torch.arange(tokens.shape[1])[None, :, None] / 10
        for block in self.blocks:
            x = block(x, mask)
        x = self.bn(x.transpose(1, 2)).transpose(1, 2)
        return Answer(self.head(x), x if options.get("hidden") else None)


@pytest.fixture(scope="module")
def encoder() -> tuple[Encoder, ew.Graph]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Encoder()
    tokens, mask = torch.arange(12).reshape(2, 6) % 11, torch.ones(2, 6)
    kinds = ("edge", "layer")
    return model, ew.trace(model, (tokens,), {"mask": mask, "hidden": True}, granularity=kinds)


def test_it_reads_like_the_model(encoder: tuple[Encoder, ew.Graph]) -> None:
    _, graph = encoder
    assert graph.frontend == "torch.export"
    code = graph.program.module.code
    assert 'self.blocks, "1").up(' in code
    assert ".drop(" in code
    assert "torch.ops.aten" not in code
    assert "device(type" not in code, "constants must follow the device of the input"
    assert {p.name for v in graph.vertices for p in v.params} >= {"blocks.0.scale", "bn.weight"}
    block = next(v for v in graph.vertices if v.name == "blocks.0.up")
    assert "test_export_frontend.py" in next(v.source for v in graph.vertices if v.op == "mul")
    assert block.op == "linear"


def test_branches_and_skips_are_units(encoder: tuple[Encoder, ew.Graph]) -> None:
    _, graph = encoder
    names = [unit.name for unit in graph.units]
    for number in range(3):
        assert any(n.startswith(f"blocks.{number}.norm..blocks.{number}.drop") for n in names)
    assert "blocks.0.add->blocks.1.add" in names


def test_batch_and_length_stay_free(encoder: tuple[Encoder, ew.Graph]) -> None:
    _, graph = encoder
    for unit in range(len(graph.units)):
        small = ew.prune(graph, graph.mask([unit])).eval()
        for batch, length in ((1, 6), (5, 3), (2, 9)):
            tokens = torch.randint(11, (batch, length))
            mask = torch.ones(batch, length)
            answer = small(tokens=tokens, mask=mask)
            assert isinstance(answer, Answer)
            assert answer.logits.shape == (batch, length, 11)
            full = ew.masked(graph, graph.mask([unit])).eval()
            expected = full(tokens, torch.ones(batch, length)).logits
            torch.testing.assert_close(small(tokens, mask).logits, expected)


def test_it_follows_train_and_eval(encoder: tuple[Encoder, ew.Graph]) -> None:
    _, graph = encoder
    small = ew.prune(graph, graph.empty)
    assert small.training
    args = graph.program.args
    with torch.random.fork_rng():
        assert not torch.equal(small(*args).logits, small(*args).logits), "dropout must be active"
    assert small.bn.num_batches_tracked == 2
    small.eval()
    assert torch.equal(small(*args).logits, small(*args).logits)
    assert small.bn.num_batches_tracked == 2


def test_it_saves_and_loads(encoder: tuple[Encoder, ew.Graph], tmp_path) -> None:
    _, graph = encoder
    objective = ew.Objective(
        [((graph.program.args), torch.zeros(2))],
        loss=lambda out, target: out.logits.square().mean((1, 2)) - target,
        verify=[((graph.program.args), torch.zeros(2))],
    )
    study = ew.Study(graph, objective, storage=f"sqlite:///{tmp_path}/a.db", name="a")
    study.run(evaluations=12, budget=ew.Budget(params=0.8))
    plan = study.plan(budget=ew.Budget(params=0.8))
    small = ew.prune(graph, plan).eval()
    plan.save(tmp_path / "plan.json")
    ew.save(small, tmp_path / "small.safetensors")
    again = ew.load(Encoder, tmp_path / "plan.json", tmp_path / "small.safetensors")
    args = graph.program.args
    assert torch.equal(again(*args).logits, small(*args).logits)


@pytest.mark.parametrize("name", ZOO)
def test_the_zoo_obeys_the_laws(name: str) -> None:
    """What torch.fx traces, torch.export traces too, with the same meaning."""
    model, args = build(name)
    graph = ew.trace(model, args, frontend="torch.export")
    laws.law_nothing_removed(model, graph)
    rng = random.Random(0)
    for _ in range(2):
        mask = laws.random_mask(graph, rng)
        laws.law_pruned_is_masked(graph, mask)
        laws.law_cost_is_exact(graph, mask)
        laws.law_less_costs_less(graph, mask)


class Ordered(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, xs):
        y = xs["a"] + self.layer(xs["b"][0])
        return OrderedDict(out=y, aux=y * 2)


@pytest.mark.parametrize("frontend", ["torch.fx", "torch.export"])
def test_nested_inputs_and_ordered_outputs(frontend: str) -> None:
    xs = {"a": torch.randn(2, 4), "b": [torch.randn(2, 4)]}
    graph = ew.trace(Ordered(), (xs,), frontend=frontend)
    small = ew.prune(graph, graph.mask([unit for unit in graph.unit_index if "layer" in unit]))
    assert type(small(xs)) is OrderedDict
    assert torch.equal(small(xs)["aux"], xs["a"] * 2)


def test_hooks_run_once(encoder: tuple[Encoder, ew.Graph]) -> None:
    model = copy.deepcopy(encoder[0])
    seen = []
    model.blocks[0].up.register_forward_hook(lambda *_: seen.append(1))
    graph = ew.trace(model, (torch.zeros(2, 6, dtype=torch.long),))
    small = ew.prune(graph, graph.empty)
    seen.clear()
    small(*graph.program.args)
    assert len(seen) == 1


@library.custom_op("edgewise_tests::twice", mutates_args=())
def twice(x: Tensor) -> Tensor:
    return x * 2


@twice.register_fake
def _(x: Tensor) -> Tensor:
    return torch.empty_like(x)


class Custom(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x):
        return x + twice(self.layer(x)) if x.shape[0] else x


def test_a_custom_operator_gets_a_rule_as_the_error_says() -> None:
    with pytest.raises(ew.errors.UnknownOperatorError) as caught:
        ew.trace(Custom(), torch.randn(2, 4))
    advice = next(line for line in str(caught.value).splitlines() if "ew.register" in line)
    assert advice.strip().startswith("ew.register(torch.ops.edgewise_tests.twice.default, ew.Rule(")
    try:
        exec(advice.strip(), {"ew": ew, "torch": torch})
        graph = ew.trace(Custom(), torch.randn(2, 4))
        ew.prune(graph, graph.mask([0]))
    finally:
        target = torch.ops.edgewise_tests.twice.default
        rule = ew.ops.TABLE.targets.pop(target)
        del ew.ops.TABLE.rules[rule.name]


class Written(nn.Module):
    """Parts of tensors written in place, beside a batch norm of vectors along time."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.norm = nn.Conv1d(3, 4, 1), nn.BatchNorm1d(4)
        self.inner, self.leave = nn.Conv1d(4, 4, 1), nn.Conv1d(4, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.norm(self.enter(x))
        z = torch.zeros_like(y)
        z[:, :, 1:] = y[:, :, :-1]
        z[:, :, 0] += 1
        return self.leave(y + self.inner(z))


def test_slices_are_written_beside_a_batch_norm() -> None:
    graph = laws.check_laws(Written(), (torch.randn(2, 3, 5),), masks=3, granularity=WIDTHS)
    assert graph.frontend == "torch.export"
    assert isinstance(graph.program.module.get_submodule("norm"), nn.BatchNorm1d)
    assert "channels:enter" in {unit.group for unit in graph.units}


@pytest.mark.parametrize("frontend", ["torch.fx", "torch.export"])
@pytest.mark.parametrize("layer", [True, False])
def test_deformable_convolutions_lose_channels(frontend, layer: bool) -> None:
    ops = pytest.importorskip("torchvision.ops")

    class Deformed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.enter, self.offset = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 18, 1)
            kind = ops.DeformConv2d if layer else nn.Conv2d
            self.deform, self.leave = kind(4, 5, 3, padding=1), nn.Conv2d(5, 2, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y, offset = self.enter(x), self.offset(x)
            if layer:
                return self.leave(self.deform(y, offset))
            weights = self.deform.weight, self.deform.bias
            return self.leave(ops.deform_conv2d(y, offset, *weights, padding=1))

    args = (torch.randn(2, 3, 6, 6),)
    options = {"granularity": "hidden", "frontend": frontend}
    graph = laws.check_laws(Deformed(), args, masks=2, slices=3, **options)
    assert len({unit.group for unit in graph.units}) == 2
    assert "offset" in graph.refused
