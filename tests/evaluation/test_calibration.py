"""Calibration data that look other than what the network was trained on are noticed."""

import logging

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import edgewise as ew
from edgewise.evaluation.calibration import _parts, recalibrated
from zoo import build

BUDGET = ew.Budget(macs=0.7)


def losses(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(outputs, targets, reduction="none")


@pytest.fixture(scope="module")
def trained() -> tuple[nn.Module, tuple, torch.Tensor]:
    """A network whose batch norms know its data, and data on which it is always right."""
    model, args = build("residual")
    x = torch.randn(256, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    for norm in (m for m in model.modules() if isinstance(m, nn.BatchNorm2d)):
        norm.reset_running_stats()
        norm.momentum = None
    with torch.no_grad():
        model.train()(x)
    return model.eval(), args, x


def make(trained: tuple, calibration: torch.Tensor) -> ew.Study:
    model, args, x = trained
    with torch.no_grad():
        targets = model(x).argmax(1)
    recovery = ew.Recovery("batchnorm", [calibration])
    objective = ew.Objective([(x[:128], targets[:128])], losses, recovery=recovery)
    return ew.Study(ew.trace(model, args, granularity=("edge", "layer")), objective)


def test_data_of_training_change_nothing(trained: tuple, caplog: pytest.LogCaptureFixture) -> None:
    study = make(trained, trained[2])
    unpruned = study.evaluate([study.graph.empty])[0].loss
    assert recalibrated(study.graph, study.objective).loss == pytest.approx(unpruned, rel=1e-4)
    with caplog.at_level(logging.WARNING, "edgewise"):
        make(trained, trained[2]).run(8, BUDGET)
    assert "calibration" not in caplog.text


def test_other_data_are_noticed_once(trained: tuple, caplog: pytest.LogCaptureFixture) -> None:
    study = make(trained, 3 * trained[2].abs())
    before = {name: value.clone() for name, value in trained[0].state_dict().items()}
    with caplog.at_level(logging.WARNING, "edgewise"):
        study.run(8, BUDGET)
        study.run(10, BUDGET)
    assert caplog.text.count("With nothing removed, batch-norm statistics of the calibration") == 1
    after = trained[0].state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())


@pytest.mark.parametrize(("count", "sizes"), [(128, [128]), (129, [65, 64]), (300, [100] * 3)])
def test_large_batches_are_cut_evenly(count: int, sizes: list[int]) -> None:
    parts = _parts((torch.arange(count), torch.zeros(count, 2)))
    assert [len(part[0]) for part in parts] == sizes
    assert torch.equal(torch.cat([part[0] for part in parts]), torch.arange(count))
    assert all(len(a) == len(b) for a, b in parts)


def test_what_has_no_common_length_is_not_cut() -> None:
    batch = (torch.zeros(300, 1), torch.zeros(2))
    assert _parts(batch) == [batch]
    assert _parts((torch.zeros(300), None))[0][1] is None
