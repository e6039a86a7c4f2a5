"""Healing lowers the loss, leaves its input alone, and stops where the loss does."""

import pytest
import torch

import edgewise as ew
import jobs
from edgewise.errors import EdgewiseWarning, ObjectiveError
from edgewise.testing import build


@pytest.fixture
def case():
    graph, objective = jobs.make()
    model, _ = build("residual")
    small = ew.prune(graph, graph.mask([0, 8]))
    batches = [(x[0], y) for x, y in objective.splits["search"]]
    return model, small, batches


def score(model, batches):
    with torch.no_grad():
        return float(torch.cat([jobs.losses(model(x), y) for x, y in batches]).mean())


def test_healing_lowers_the_loss(case) -> None:
    model, small, batches = case
    before = {k: v.clone() for k, v in small.state_dict().items()}
    weights = {k: v.clone() for k, v in model.state_dict().items()}
    steps = []
    healed = ew.heal(
        small, batches, teacher=model, settings=ew.Healing(epochs=8, lr=0.05),
        progress=lambda *a: steps.append(a),
    )  # fmt: skip
    assert score(healed, batches) < score(small.eval(), batches)
    assert all(torch.equal(v, before[k]) for k, v in small.state_dict().items())
    assert all(torch.equal(v, weights[k]) for k, v in model.state_dict().items())
    assert [s[:2] for s in steps] == [(i + 1, 16) for i in range(16)]


def test_validation_keeps_the_best_epoch(case) -> None:
    _, small, batches = case
    scores = iter([1.0, 0.5, 2.0, 3.0])
    seen = []

    def validate(model):
        seen.append({k: v.clone() for k, v in model.state_dict().items()})
        return next(scores)

    healed = ew.heal(small, batches, settings=ew.Healing(epochs=3), validate=validate)
    assert all(torch.equal(v, seen[1][k]) for k, v in healed.state_dict().items())


def test_a_loss_that_explodes_stops_with_the_best_so_far(case) -> None:
    _, small, batches = case
    calls = []

    def explode(outputs, targets):
        calls.append(1)
        return jobs.losses(outputs, targets) * (float("nan") if len(calls) == 3 else 1.0)

    with pytest.warns(EdgewiseWarning, match="stopped in epoch 2, step 3: the loss is nan"):
        healed = ew.heal(small, batches, loss=explode, settings=ew.Healing(epochs=4))
    assert all(torch.isfinite(p).all() for p in healed.parameters())


def test_bad_input_is_explained(case) -> None:
    _, small, batches = case
    with pytest.raises(ObjectiveError, match="training loader is empty"):
        ew.heal(small, [])
    other = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 3))
    with pytest.raises(ObjectiveError, match="teacher's outputs have another shape"):
        ew.heal(small, batches, teacher=other)
