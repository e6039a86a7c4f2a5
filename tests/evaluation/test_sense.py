"""What the unpruned network says of data, loss and weights before anything is searched."""

from __future__ import annotations

import logging

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import edgewise as ew
from edgewise.errors import ObjectiveError
from edgewise.evaluation.sense import Sense, sense
from zoo import build

BUDGET = ew.Budget(macs=0.7)


def losses(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(outputs, targets, reduction="none")


def right(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return (outputs.argmax(1) == targets).float()


@pytest.fixture(scope="module")
def known() -> tuple[ew.Graph, torch.Tensor, torch.Tensor]:
    """A network, inputs, and the classes that it gives them."""
    model, args = build("residual")
    x = torch.randn(64, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        y = model(x).argmax(1)
    return ew.trace(model, args), x, y


@pytest.mark.parametrize("loss", [losses, F.cross_entropy, nn.CrossEntropyLoss()])
def test_what_fits_makes_sense(known: tuple, loss: object) -> None:
    graph, x, y = known
    found = sense(graph, ew.Objective([(x[:40], y[:40]), (x[40:], y[40:])], loss))
    assert found is not None
    assert not found.is_score
    assert not Sense(found.right, found.shuffled).by_chance


def test_targets_of_other_examples_are_chance(
    known: tuple, caplog: pytest.LogCaptureFixture
) -> None:
    graph, x, y = known
    study = ew.Study(graph, ew.Objective([(x, y.roll(7))], losses))
    with caplog.at_level(logging.WARNING, "edgewise"):
        study.run(4, BUDGET)
        study.run(5, BUDGET)
    assert caplog.text.count("near chance") == 1
    assert "normalised as in training" in caplog.text


def test_a_score_is_refused_before_it_is_searched(known: tuple) -> None:
    graph, x, y = known
    study = ew.Study(graph, ew.Objective([(x, y)], right))
    with pytest.raises(ObjectiveError, match=r"the loss is a score.*give 1 - score"):
        study.run(4, BUDGET)
    assert len(study.evaluations) == 1


def test_a_sure_network_that_is_wrong_too_often_is_near_chance() -> None:
    """Three in ten right of ten classes is more than chance, and less than to say nothing."""
    assert Sense(4.0, (5.0, 5.1, 4.9), 2.3).by_chance
    assert not Sense(1.0, (5.0, 5.1, 4.9), 2.3).by_chance


def nothing(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return outputs.square().mean()


def failing(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    raise RuntimeError("no mood")


@pytest.mark.parametrize("loss", [nothing, failing])
def test_losses_of_which_nothing_can_be_said(known: tuple, loss: object) -> None:
    graph, x, y = known
    assert sense(graph, ew.Objective([(x, y)], loss)) is None
    assert sense(graph, ew.Objective([(x, {"boxes": y})], losses)) is None
    assert sense(graph, ew.Objective([(x[:4], y[:4])], losses)) is None
