"""A small job that tests run in this process and in others."""

import sys
import time
from pathlib import Path

import torch
from torch.nn import functional as F

import edgewise as ew
from edgewise.testing import build

BUDGET = ew.Budget(macs=0.7)
EVALUATIONS = 36


def losses(outputs, targets):
    return F.cross_entropy(outputs, targets, reduction="none")


def slow_losses(outputs, targets):
    time.sleep(0.03)
    return F.cross_entropy(outputs, targets, reduction="none")


def accuracy(outputs, targets):
    return (outputs.argmax(1) == targets).float()


def make(loss=losses, recovery="batchnorm", **options):
    """A graph and an objective: a network that must imitate itself."""
    model, args = build("residual")
    random = torch.Generator().manual_seed(0)
    x = torch.randn(96, 3, 8, 8, generator=random)
    with torch.no_grad():
        y = model(x).argmax(1)
    graph = ew.trace(model, args)
    splits = {"verify": [(x[32:64], y[32:64])], "report": [(x[64:], y[64:])]}
    objective = ew.Objective(
        [(x[:16], y[:16]), (x[16:32], y[16:32])],
        loss=loss,
        metrics={"accuracy": accuracy},
        recovery=ew.Recovery(recovery, [x[:32]] if recovery == "batchnorm" else None),
        **(splits | options),
    )
    return graph, objective


def plan_of(storage, evaluations=EVALUATIONS, loss=losses):
    graph, objective = make(loss)
    study = ew.Study(graph, objective, storage, "job")
    study.run(evaluations, BUDGET, seed=3)
    return study.plan(finalists=5)


if __name__ == "__main__":
    torch.set_num_threads(1)
    plan_of(f"sqlite:///{sys.argv[1]}", loss=slow_losses).save(Path(sys.argv[2]))
