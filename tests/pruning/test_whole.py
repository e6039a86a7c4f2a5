"""Pruned parts in the whole model: in both forms, saved, loaded, exported."""

from pathlib import Path

import pytest
import torch
from torch import nn

import edgewise as ew
import partial
from edgewise.errors import ObjectiveError, PlanError, VerificationError
from edgewise.pruning.verify import compare
from edgewise.testing.laws import count_macs

X = torch.randn(3, 3, 8, 8)
PARTS = ["backbone", ["backbone", "neck"]]


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return partial.whole()


@pytest.mark.parametrize("part", PARTS, ids=str)
def test_the_whole_model_is_given_back_in_its_own_class(model, part) -> None:
    graph = partial.traced(model, part)
    for mask in partial.masks(graph):
        full, small = ew.masked(graph, mask), ew.prune(graph, mask)
        assert type(small) is type(full) is type(model)
        assert compare(full, small, (X,))[0] <= 1e-5
        assert sum(p.numel() for p in small.parameters()) == ew.cost(graph, mask).params
        assert count_macs(small, (X[:1],)) == ew.cost(graph, mask).macs
        assert small.state_dict().keys() <= model.state_dict().keys()
        assert small.backbone.width == 6
    assert compare(model, ew.masked(graph, graph.empty), (X,))[0] <= 1e-6


def test_both_forms_of_a_part_are_saved_and_loaded_from_the_whole_models_factory(
    model, tmp_path: Path
) -> None:
    graph = partial.traced(model, "backbone")
    objective = ew.Objective(partial.batches(), loss=partial.loss)
    with ew.Study(graph, objective) as study:
        study.run(8, ew.Budget(macs=0.8))
        plan = study.plan()
    assert plan.after.macs <= 0.8 * ew.cost(graph).macs
    path = plan.save(tmp_path / "plan.json")
    for form, kind in (("module", partial.Backbone), ("program", torch.fx.GraphModule)):
        small = ew.prune(graph, plan, form=form)
        assert isinstance(small.backbone, kind)
        again = ew.load(partial.Whole, path, ew.save(small, tmp_path / f"{form}.safetensors"))
        assert torch.equal(again(X), small(X))
        out = ew.export(small.backbone, tmp_path / f"{form}.pt2")
        assert out.difference <= 1e-5
    bare = plan.to_dict() | {"edits": {}}
    (tmp_path / "bare.json").write_text(__import__("json").dumps(bare))
    again = ew.load(partial.Whole, tmp_path / "bare.json", tmp_path / "program.safetensors")
    assert isinstance(again.backbone, torch.fx.GraphModule)
    assert torch.equal(again(X), small(X))
    with pytest.raises(PlanError, match="another network"):
        ew.load(lambda: nn.Sequential(nn.Linear(3, 3)), path, tmp_path / "program.safetensors")


def test_a_name_in_a_plan_is_no_code(model, tmp_path: Path) -> None:
    graph = partial.traced(model, "neck")
    with ew.Study(graph, ew.Objective(partial.batches(), loss=partial.loss)) as study:
        study.run(3, ew.Budget(macs=0.9))
        path = study.plan().save(tmp_path / "plan.json")
    path.write_text(path.read_text().replace('["x"]', '["x=print(1)"]').replace(
        '[\n          "x"\n        ]', '["x=print(1)"]'))  # fmt: skip
    with pytest.raises(PlanError, match="arguments that a function cannot have"):
        ew.Plan.load(path)


def test_what_the_model_writes_into_a_part_is_not_its_input() -> None:
    """A part of which only a skip is left gives its own input, and the model reads that again."""

    class Writing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.part = partial.Block(3)

        def forward(self, x):
            y = self.part(x)
            y += 1
            return y * x

    model = Writing().eval()
    graph = ew.trace(model, X, part="part")
    mask = graph.mask(["part.first..part.last"])
    small = ew.prune(graph, mask)
    assert torch.allclose(small(X.clone()), (X + 1) * X)


def test_a_whole_model_is_healed_with_what_run_gives(model) -> None:
    graph = partial.traced(model, "backbone")
    small = ew.prune(graph, graph.mask([0]))
    seen = []

    def run(model, batch):
        seen.append(model.training)
        return model(batch[0], scale=1.5)

    settings = ew.Healing(epochs=1, lr=0.05, distill=0.0)
    healed = ew.heal(small, partial.batches(), loss=partial.loss, settings=settings, run=run)
    assert seen == [True, True]
    assert type(healed) is type(model)
    assert not torch.equal(healed.head.weight, small.head.weight)
    assert not torch.equal(healed.backbone.stem.weight, small.backbone.stem.weight)
    with pytest.raises(ObjectiveError, match="teaches by logits"):
        ew.heal(small, partial.batches(), teacher=model, run=run)


def test_a_wrong_part_is_seen_in_the_whole_model(monkeypatch: pytest.MonkeyPatch, model) -> None:
    from edgewise.pruning import whole

    graph = partial.traced(model, "neck")
    monkeypatch.setattr(whole, "_split", lambda *_: nn.Identity())
    with pytest.raises(VerificationError, match="Whole with its part pruned differs"):
        ew.prune(graph, graph.mask(["hidden:neck.first@2/6"]))
