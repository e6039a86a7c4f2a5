"""Pruned models in the user's own class: the same as the program, and still the user's."""

import copy
import json
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import edgewise as ew
import jobs
from edgewise.errors import FormError, PlanError
from edgewise.pruning import module_form
from edgewise.pruning.module_form import edits_of
from edgewise.pruning.verify import compare
from edgewise.testing import laws
from zoo import ZOO, build

KINDS = ("edge", "layer", "hidden", "heads")


class Attention(nn.Module):
    """Heads as many as an attribute says; one number is that of another place, too."""

    def __init__(self, place: int = 4) -> None:
        super().__init__()
        self.q, self.k, self.v, self.o = (nn.Linear(16, 16) for _ in range(4))
        self.heads, self.place, self.head = 4, place, nn.Linear(16, 3)

    def forward(self, x):
        b, n, _ = x.shape
        q, k, v = (
            part(x).view(b, n, self.heads, -1).transpose(1, 2) for part in (self.q, self.k, self.v)
        )
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, n, -1)
        return self.head(x + self.o(y))


class Sized(nn.Module):
    """A number of the code that no attribute holds, a gate, noise, a method, a setting."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.gate = nn.Linear(8, 12), nn.Linear(12, 8), nn.Linear(8, 8)
        self.note = "mine"

    def forward(self, x):
        if self.training:
            x = x + 0.1 * torch.randn_like(x)
        y = x + self.b(F.relu(self.a(x)).view(-1, 12))
        return y * torch.sigmoid(self.gate(y)), None

    def method(self) -> int:
        return len(self.note)


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 6), nn.Linear(6, 4)

    def forward(self, x):
        return x + self.second(F.relu(self.first(x)))


def only(graph: ew.Graph, *parts: str) -> ew.Mask:
    return graph.mask([u.name for u in graph.units if any(part in u.name for part in parts)])


@pytest.mark.parametrize("name", ["residual", "preactivation", "inception", "dropouts"])
def test_every_unit_of_usual_networks_has_this_form(name: str) -> None:
    model, args = build(name)
    graph = ew.trace(model, args, granularity=KINDS, slices=2)
    assert ew.without_module_form(graph) == {}


@pytest.mark.parametrize("name", sorted(ZOO))
def test_what_has_this_form_is_the_masked_model(name: str) -> None:
    """Law 9, on all units of the zoo together."""
    model, args = build(name)
    graph = ew.trace(model, args, granularity=KINDS, slices=2)
    for bits in range(0, len(graph.units), 4):
        laws.law_own_class(graph, graph.mask([bits]))


def test_it_is_the_users_model() -> None:
    model = Sized().eval()
    calls = []
    model.a.register_forward_hook(lambda *_: calls.append(1))
    graph = ew.trace(model, torch.randn(2, 8), granularity=KINDS)
    before = copy.deepcopy(model.state_dict())
    calls.clear()
    small = ew.prune(graph, graph.mask(["bypass:gate"]), form="module")
    assert type(small) is Sized
    assert (small.method(), small.training, small(torch.randn(3, 8))[1]) == (4, False, None)
    assert calls  # hooks are kept
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    x = torch.randn(2, 8)
    assert torch.equal(small(x)[0], small(x)[0])
    assert not torch.equal(small.train()(x)[0], small(x)[0])  # it draws noise, as it did


@pytest.mark.parametrize("place", [3, 4, 5])
def test_numbers_that_outputs_need_are_found(place: int) -> None:
    graph = ew.trace(Attention(place), torch.rand(2, 5, 16), granularity="heads")
    for gone in range(1, len(graph.units) + 1):
        mask = graph.mask(range(gone))
        small = ew.prune(graph, mask, form="module")
        assert (small.heads, small.place) == (4 - gone, place)
        x, full = torch.rand(3, 9, 16), ew.masked(graph, mask)
        assert torch.allclose(small(x), full(x), atol=1e-6)


def test_a_module_that_withholds_an_input_has_numbers_too() -> None:
    graph = ew.trace(Attention(), torch.rand(2, 5, 16), granularity=("edge", "heads"))
    heads = next(unit.name for unit in graph.units if unit.kind == "heads")
    mask = graph.mask([heads, "x->add"])
    small, x = ew.prune(graph, mask, form="module"), torch.rand(3, 9, 16)
    assert isinstance(small, Attention)
    assert small.heads == 3
    assert torch.allclose(small(x), ew.masked(graph, mask)(x), atol=1e-6)


def test_what_no_edit_can_say_is_refused_with_the_place() -> None:
    graph = ew.trace(Sized(), torch.randn(2, 8), granularity=KINDS, slices=2)
    lost = ew.without_module_form(graph)
    gate = next(name for name in lost if "sigmoid" in name)
    assert "test_module_form.py:" in lost[gate]
    assert "another number" in lost[gate]
    hidden = next(name for name in lost if name.startswith("hidden:"))
    assert "does not run with its modules edited" in lost[hidden]
    assert hidden in lost[hidden]
    with pytest.raises(FormError, match='or use form="program"'):
        ew.prune(graph, graph.mask([gate]), form="module")
    kept = graph.select(lambda unit: unit.name not in lost)
    assert {unit.name for unit in kept.units} == {u.name for u in graph.units} - lost.keys()


@pytest.mark.parametrize(("failing", "tried"), [("", 3), ("6.second", 7), ("2.second", 3)])
def test_of_blocks_that_are_alike_three_are_tried(
    failing: str, tried: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = nn.Sequential(*(Residual() for _ in range(7)))
    graph = ew.trace(model, torch.randn(2, 4), granularity="branch")
    asked = []

    def edits_of(graph: ew.Graph, mask: ew.Mask, tensors: object) -> dict[str, str]:
        asked.append(graph.units[mask.removed[0]].name)
        return {"reason": "it fails"} if failing and failing in asked[-1] else {}

    monkeypatch.setattr(module_form, "edits_of", edits_of)
    lost = ew.without_module_form(graph)
    assert (len(graph.units), len(asked)) == (7, tried)
    assert bool(lost) == (tried == 7)


def test_a_layer_called_twice_is_not_gone_where_one_call_is() -> None:
    model, args = build("twice")
    graph = ew.trace(model, args, granularity=("edge", "layer"))
    lost = ew.without_module_form(graph)
    assert any("layer" in reason for reason in lost.values())


class Stubborn(nn.Module):
    """It cannot be copied after tracing."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.copies = nn.Linear(4, 4), nn.Linear(4, 4), True

    def forward(self, x):
        return x + self.b(torch.relu(self.a(x)))

    def __deepcopy__(self, memo):
        if not self.copies:
            raise RuntimeError("no copies of me")
        new = Stubborn()
        new.load_state_dict(self.state_dict())
        return new


def test_a_model_that_cannot_be_copied_is_named() -> None:
    model = Stubborn()
    graph = ew.trace(model, torch.randn(2, 4), granularity="edge")
    model.copies = False
    with pytest.raises(FormError, match="no copies of me"):
        ew.prune(graph, graph.mask([0]), form="module")
    assert "no copies of me" in edits_of(graph, graph.mask([0]), {})["reason"]


class Reads(nn.Module):
    """It reads a weight outside the module that has it."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x):
        return x + self.b(torch.relu(self.a(x))) * self.b.weight.mean()


def test_reasons_of_code_that_counts_on_what_is_gone() -> None:
    graph = ew.trace(Reads(), torch.rand(2, 4), granularity="edge")
    reason = ew.without_module_form(graph)["a..mul"]
    assert "self.b.weight.mean()" in reason
    assert "'Gone' object has no attribute 'weight'" in reason

    def counting(module, given, output):
        assert output.shape[1] == 8, "eight channels"

    model, args = build("residual")
    model.blocks[0].first[0].register_forward_hook(counting)
    lost = ew.without_module_form(ew.trace(model, args, granularity="hidden", slices=2))
    assert [name for name in lost if "eight channels" in lost[name]] == list(lost)
    assert len(lost) == 1


def test_a_second_skip_is_made_by_what_reads_it() -> None:
    """x + a(x) is read by the second branch, and added to it; the sum alone may go."""

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x):
            x = x + self.first(x)
            return x + self.second(x)

    graph = ew.trace(nn.Sequential(Block(), Block()), torch.rand(2, 4), granularity="edge")
    assert ew.without_module_form(graph) == {}
    laws.law_own_class(graph, only(graph, "0.add->0.add#2", "1.add->1.add#2"))
    laws.law_own_class(graph, only(graph, "0.add->0.add#2", "0.first"))


def test_a_disagreement_is_seen(monkeypatch: pytest.MonkeyPatch, residual: ew.Graph) -> None:
    monkeypatch.setattr(module_form, "edited", lambda model, edits: model)  # forgets the edits
    with pytest.raises(FormError, match="differs from the masked model"):
        ew.prune(residual, residual.mask([0]), form="module")


def test_three_rounds() -> None:
    model, args = build("residual")
    sizes = []
    for _ in range(3):
        graph = ew.trace(model, args, granularity="edge")
        model = ew.prune(graph, graph.mask([0]), form="module")
        sizes.append(sum(p.numel() for p in model.parameters()))
    assert sizes == sorted(set(sizes), reverse=True)
    assert len(model.edgewise_edits) == 3


def test_weights_trained_after_tracing_do_not_enter() -> None:
    """A plan is of the weights that were traced."""
    model, args = build("residual")
    graph = ew.trace(model, args, granularity="edge")
    with torch.no_grad():
        next(model.parameters()).add_(1.0)
    small = ew.prune(graph, graph.mask([0]), form="module")
    worst, allowed = compare(ew.prune(graph, graph.mask([0])), small, args)
    assert worst <= allowed


def test_an_unknown_form(residual: ew.Graph) -> None:
    with pytest.raises(PlanError, match='is "program" or "module"'):
        ew.prune(residual, residual.mask([0]), form="onnx")


@pytest.fixture(scope="module")
def plan() -> ew.Plan:
    return jobs.plan_of(None, evaluations=24)


def test_plans_carry_their_edits_and_load_without_tracing(
    plan: ew.Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = jobs.make()[0]
    small = ew.prune(graph, plan, form="module")
    path, weights = plan.save(tmp_path / "plan.json"), tmp_path / "small.safetensors"
    ew.save(small, weights)
    assert json.loads(path.read_text())["edits"]["modules"]
    monkeypatch.setattr("edgewise.pruning.weights.trace", None)
    again = ew.load(lambda: copy.deepcopy(graph.program.model), path, weights)
    assert type(again) is type(graph.program.model)
    assert not again.training
    worst, _ = compare(small, again, graph.program.args)
    assert worst == 0.0
    assert ew.export(again, tmp_path / "small.pt2").free  # it knows its inputs
