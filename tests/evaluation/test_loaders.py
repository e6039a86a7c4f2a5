"""Data, losses and metrics as people have them, and what is told of data that mislead."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch
import torchmetrics
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, TensorDataset

import edgewise as ew
from edgewise.errors import ObjectiveError
from edgewise.evaluation.loaders import TOGETHER

X = torch.randn(300, 4, generator=torch.Generator().manual_seed(0))
Y = X.argmax(1)
PLAIN = [(X[:TOGETHER], Y[:TOGETHER]), (X[TOGETHER:], Y[TOGETHER:])]


class Items(Dataset[Any]):
    """Single examples, some of them random."""

    def __init__(self, noise: float = 0.0) -> None:
        self.noise = noise

    def __len__(self) -> int:
        return len(X)

    def __getitem__(self, i: int) -> tuple[torch.Tensor, int]:
        return X[i] + self.noise * torch.randn(4), int(Y[i])


FORMS = {
    "a data set": lambda: Items(),
    "a data set of tensors": lambda: TensorDataset(X, Y),
    "a loader": lambda: DataLoader(Items(), TOGETHER),
    "two tensors": lambda: (X, Y),
    "two arrays": lambda: (X.double().numpy(), Y.numpy()),
    "batches of arrays": lambda: [(x.numpy(), y.numpy()) for x, y in PLAIN],
}


@pytest.mark.parametrize("form", FORMS)
def test_all_forms_of_data_are_the_same(form: str) -> None:
    wanted = ew.Objective(PLAIN, F.cross_entropy)
    assert ew.Objective(FORMS[form](), F.cross_entropy).fingerprint == wanted.fingerprint


@pytest.mark.parametrize("data", [X, X.numpy(), TensorDataset(X[:100], Y[:100])])
def test_calibration_data_may_be_an_array_or_a_data_set(data: Any) -> None:
    recovery = ew.Recovery("batchnorm", data)
    count = 100 if isinstance(data, Dataset) else len(X)
    assert [tuple(x.shape) for (x,) in recovery.batches] == [(count, 4)]


@pytest.mark.parametrize("one_hot", [False, True])
def test_measures_have_names_as_in_a_job(one_hot: bool) -> None:
    targets = F.one_hot(Y, 4) if one_hot else Y
    for metrics in ("accuracy", ["accuracy"], {"accuracy": "accuracy"}):
        objective = ew.Objective((X, targets), "cross_entropy", metrics)
        found = objective.measure([x for (x,), _ in objective.splits["search"]], "search")
        assert found.metrics == {"accuracy": 1.0}
        assert found.loss == pytest.approx(float(F.cross_entropy(X, Y)))
    assert list(ew.Objective((X, Y), F.cross_entropy, F.mse_loss).metrics) == ["mse_loss"]


def test_misspelt_names_are_told() -> None:
    with pytest.raises(ObjectiveError, match=r"No loss is called 'cross_entrop'\. Did you mean"):
        ew.Objective(PLAIN, "cross_entrop")
    with pytest.raises(ObjectiveError, match=r"No metric is called 'f1'\. Known: accuracy, top5"):
        ew.Objective(PLAIN, "mse", ["accuracy", "f1"])


@pytest.mark.parametrize("targets", [Y + 1, Y - 1, Y * 7])
def test_targets_out_of_range_say_what_they_are(targets: torch.Tensor) -> None:
    objective = ew.Objective((X, targets), "cross_entropy")
    low, high = int(targets.min()), int(targets.max())
    with pytest.raises(ObjectiveError, match=rf"from {low} to {high}, .* 4 classes apart, 0 to 3"):
        objective.measure([x for (x,), _ in objective.splits["search"]], "search")


@pytest.mark.parametrize("named", [True, False])
def test_metrics_that_give_dicts_are_several(named: bool) -> None:
    kinds = {"task": "multiclass", "num_classes": 4}
    metrics: Any = torchmetrics.MetricCollection(
        {"hits": torchmetrics.Accuracy(**kinds), "f1": torchmetrics.F1Score(**kinds)}
    )
    objective = ew.Objective(PLAIN, F.cross_entropy, {"all": metrics} if named else metrics)
    found = objective.measure([x for (x,), _ in objective.splits["search"]], "search")
    assert found.metrics == {"hits": 1.0, "f1": 1.0}


def test_loaders_that_mislead_are_told(caplog: pytest.LogCaptureFixture) -> None:
    loaders = {
        "shuffles": {"loader": DataLoader(Items(), 100, shuffle=True)},
        "data are random": {"loader": DataLoader(Items(noise=1.0), 100)},
        "The search and the verify split begin with the same": {"loader": PLAIN, "verify": PLAIN},
        "The search and the report split begin with the same": {
            "loader": DataLoader(Items(), 100), "report": DataLoader(Items(), 100)
        },
    }  # fmt: skip
    for words, given in loaders.items():
        caplog.clear()
        with caplog.at_level(logging.WARNING, "edgewise"):
            objective = ew.Objective(loss=F.cross_entropy, **given)
            objective.placed(["x"])
        assert caplog.text.count("WARNING") == 1
        assert words in caplog.text
    caplog.clear()
    ew.Objective(PLAIN[:1], F.cross_entropy, verify=PLAIN[1:], report=[(X[50:60], Y[50:60])])
    assert not caplog.text
