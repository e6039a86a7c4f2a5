"""A ResNet-18 of torchvision on handwritten digits, pruned to 60 % of its multiply-accumulates.

python examples/classifier.py

The whole way of a model: train, trace, search, prune, heal, save, and load without pickle.
"""

from pathlib import Path

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import resnet18

import edgewise as ew

Batches = list[tuple[Tensor, Tensor]]


def make_model() -> nn.Module:
    """The architecture alone: `ew.load` calls it, too."""
    return resnet18(num_classes=10)


def digits() -> list[Batches]:
    """scikit-learn's digits as images [batch, 3, 32, 32]: to train, search, verify and report."""
    images, labels = load_digits(return_X_y=True)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    x = torch.tensor(images / 8 - 1, dtype=torch.float32)[order].reshape(-1, 1, 8, 8)
    x = F.interpolate(x, size=(32, 32), mode="bilinear").expand(-1, 3, -1, -1)
    y = torch.tensor(labels)[order]
    parts = zip(x.split([900, 200, 200, 497]), y.split([900, 200, 200, 497]), strict=True)
    return [list(zip(a.split(50), b.split(50), strict=True)) for a, b in parts]


def losses(outputs: Tensor, targets: Tensor) -> Tensor:
    """One value an example, [batch]: from these edgewise knows how certain a difference is."""
    return F.cross_entropy(outputs, targets, reduction="none")


def accuracy(outputs: Tensor, targets: Tensor) -> Tensor:
    return (outputs.argmax(1) == targets).float()


def train(model: nn.Module, batches: Batches, epochs: int) -> nn.Module:
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for _ in range(epochs):
        for x, y in batches:
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            optimizer.step()
    return model.eval()


def main(evaluations: int = 24, epochs: int = 4, folder: Path = Path("runs/classifier")) -> None:
    """Print what was removed, and cost, loss and accuracy before and after."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    training, search, verify, report = digits()
    model = train(make_model(), training, epochs)

    graph = ew.trace(model, training[0][0][:2])
    objective = ew.Objective(
        search,
        loss=losses,
        metrics={"accuracy": accuracy},
        recovery=ew.Recovery("batchnorm", training[:5]),  # statistics again, for every mask
        verify=verify,
        report=report,
    )
    study = ew.Study(graph, objective)
    study.run(evaluations, ew.Budget(macs=0.6))
    plan = study.plan()

    small = ew.prune(graph, plan)  # the masked model and the pruned one give the same
    healed = ew.heal(small, training, teacher=model, settings=ew.Healing(epochs=1))

    folder.mkdir(parents=True, exist_ok=True)
    plan.save(folder / "plan.json")
    ew.save(healed, folder / "small.safetensors")
    loaded = ew.load(make_model, folder / "plan.json", folder / "small.safetensors")

    print(f"removed {len(plan.removed)} of {len(graph.units)} units:")
    print(*(f"  {label}" for label in plan.labels), sep="\n")
    print(f"MACs {plan.before.macs:,} -> {plan.after.macs:,}")
    print(f"parameters {plan.before.params:,} -> {plan.after.params:,}")
    for name, network in {"unpruned": model, "pruned": small, "healed": loaded}.items():
        score = objective.score(network, "report")
        print(f"{name:9} loss {score.loss:.3f}  accuracy {score.metrics['accuracy']:.1%}")


if __name__ == "__main__":
    main()
