"""S-1: a ResNet-50 that tells ships from trucks; which surrogate predicts its AUC after pruning.

Units are whole branches and skips, and layers bypassed by identity; every mask removes 15 % of
them. *As published*: masks drawn uniformly, so that some disconnect the network (their AUC is that
of a constant answer, 0.5); trained on 300, tested on 100 others, on the same test images. *Sound*:
connected masks only, and the 100 are measured on other images; the loss is predicted as well.
Three draws of the training and the held-out masks from one pool.

    python benchmarks/published/s1.py --data ../shared/data --seed 0

The network and finished evaluations are kept under --storage; run the same command to resume.
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.base import clone
from sklearn.metrics import r2_score
from torch import Tensor

import edgewise as ew
import ship_truck
from scores import mape, ranks

sys.path.insert(0, str(Path(__file__).parent.parent))
from machine import describe

SHARE, TRAIN, TEST, FRESH = 0.15, 300, 100, 150  # FRESH masks are measured on other images too
IMAGES, BATCH, DRAWS, FOLDS = 200, 100, 3, 5
CONSTANT = 0.5  # the AUC of a network that answers all images alike
LINKS = {"auc": ("logit", "identity"), "loss": ("log", "identity")}


class AUC:
    """A metric of all batches together, for ew.Objective."""

    def reset(self) -> None:
        self.seen: list[tuple[Tensor, Tensor]] = []

    def update(self, out: Tensor, y: Tensor) -> None:
        self.seen.append((out, y))

    def compute(self) -> Tensor:
        out, y = (torch.cat(parts) for parts in zip(*self.seen, strict=True))
        return torch.tensor(ship_truck.auc(out, y))


def study_of(options: argparse.Namespace, model: torch.nn.Module) -> tuple[ew.Study, float]:
    """The study, and the AUC of the whole network on all test images."""
    x, y = ship_truck.images(options.data, "test")
    x = ship_truck.resized(x)
    with torch.no_grad():
        whole = ship_truck.auc(torch.cat([model(part) for part in x.split(BATCH)]), y)
    parts = [
        list(zip(x[start:stop].split(BATCH), y[start:stop].split(BATCH), strict=True))
        for start, stop in ((0, IMAGES), (IMAGES, 2 * IMAGES))
    ]
    objective = ew.Objective(parts[0], "cross_entropy", {"auc": AUC()}, verify=parts[1])
    graph = ew.trace(model, (x[:2],), granularity=("edge", "layer"))
    url = f"sqlite:///{options.storage}/s1.db"
    return ew.Study(graph, objective, url, f"resnet50-{options.seed}"), whole


def pool(graph: ew.Graph, rng: np.random.Generator) -> tuple[list[ew.Mask], list[ew.Mask]]:
    """(400 masks drawn uniformly, the first 400 connected ones of the same sequence), distinct."""
    removed, count = round(SHARE * len(graph.units)), TRAIN + TEST
    drawn: dict[ew.Mask, bool] = {}
    while sum(drawn.values()) < count:
        mask = graph.mask(int(u) for u in rng.choice(len(graph.units), removed, replace=False))
        if mask not in drawn:
            drawn[mask] = ew.liveness(graph, mask).connected
    return list(drawn)[:count], [mask for mask, whole in drawn.items() if whole][:count]


def values(study: ew.Study, masks: list[ew.Mask], split: str) -> dict[ew.Mask, dict[str, float]]:
    """AUC and loss of connected masks."""
    records = study.evaluate(masks, split)
    return {
        mask: {"auc": record.metrics["auc"], "loss": record.loss}
        for mask, record in zip(masks, records, strict=True)
    }


def models(graph: ew.Graph, target: str) -> dict[str, list[Any]]:
    """Surrogates by name; of several candidates cross-validation takes one."""
    s, links = ew.surrogates, LINKS[target]
    return {
        "LinReg": [s.Linear(link="identity")],
        "LogReg": [s.Logistic(link=links[0])],
        "FCN": [s.FCN(link="identity")],
        "PathSum": [s.PathSum(graph, link=link, saturate=True) for link in links],
        "GraphGP": [s.GraphGP(graph, link=link) for link in links],
    }


def chosen(candidates: list[Any], X: np.ndarray, y: np.ndarray) -> Any:
    """The candidate of the lowest cross-validated MAPE on the training masks, fitted."""
    errors = [0.0] * len(candidates)
    if len(candidates) > 1:
        fold = np.arange(len(y)) % FOLDS
        for (i, model), k in ((pair, k) for pair in enumerate(candidates) for k in range(FOLDS)):
            held = clone(model).fit(X[fold != k], y[fold != k]).predict(X[fold == k])
            errors[i] += mape(held, y[fold == k])
    return candidates[int(np.argmin(errors))].fit(X, y)


def rows_of(
    graph: ew.Graph, target: str, train: tuple[np.ndarray, np.ndarray],
    test: tuple[np.ndarray, np.ndarray], alive: Callable[[np.ndarray], np.ndarray],
) -> Iterator[dict]:  # fmt: skip
    """A row a surrogate. Ours know which masks disconnect, and neither learn nor guess those."""
    (X, y), (Z, held) = train, test
    for name, candidates in models(graph, target).items():
        knows = name in ("PathSum", "GraphGP")
        rows = alive(X) if knows else np.ones(len(X), bool)
        model = chosen(candidates, X[rows], y[rows])
        guess = model.predict(Z)
        if knows:
            guess = np.where(alive(Z), guess, CONSTANT)
        yield {
            "method": name,
            "link": model.link,
            "mape": mape(guess, held),
            "r2": float(r2_score(held, guess)),
            **ranks(guess, held),
        }


def report(study: ew.Study, seed: int) -> Iterator[dict]:
    """All rows of both protocols."""
    graph = study.graph
    uniform, whole = pool(graph, np.random.default_rng([seed, 1]))
    first = values(study, whole, "search")
    second = values(study, whole[-FRESH:], "verify")
    constant = {"auc": CONSTANT}

    def alive(X: np.ndarray) -> np.ndarray:
        return np.array([graph.mask(bits=row.astype(int)) in first for row in X])

    def arrays(masks: list[ew.Mask], known: dict, target: str) -> tuple[np.ndarray, np.ndarray]:
        return graph.matrix(masks), np.array([known.get(m, constant)[target] for m in masks])

    for draw in range(DRAWS):
        rng = np.random.default_rng([seed, 2, draw])
        mixed = [uniform[i] for i in rng.permutation(len(uniform))]
        held = [whole[-FRESH:][i] for i in rng.permutation(FRESH)[:TEST]]
        rest = [mask for mask in whole if mask not in set(held)]
        cases = [("published", "auc", mixed[:TRAIN], first, mixed[TRAIN:], first)]
        cases += [("sound", target, rest, first, held, second) for target in ("auc", "loss")]
        for protocol, target, train, known, test, fresh in cases:
            parts = arrays(train, known, target), arrays(test, fresh, target)
            lost = float(np.mean([mask not in first for mask in test]))
            for row in rows_of(graph, target, *parts, alive):
                extra = {"draw": draw, "disconnected": lost, "mean": float(parts[1][1].mean())}
                yield {"protocol": protocol, "target": target, **extra, **row}


def table(rows: list[dict]) -> str:
    """Means over the draws, and each draw's MAPE."""
    lines = []
    for protocol, target in dict.fromkeys((r["protocol"], r["target"]) for r in rows):
        same = [r for r in rows if (r["protocol"], r["target"]) == (protocol, target)]
        lines.append(f"{protocol}, {target} (mean {np.mean([r['mean'] for r in same]):.3f})")
        for method in dict.fromkeys(r["method"] for r in same):
            mine = [r for r in same if r["method"] == method]
            errors = [r["mape"] for r in mine]
            rho, r2 = (np.mean([r[k] for r in mine]) for k in ("spearman", "r2"))
            each = " / ".join(f"{e:.1f}" for e in errors)
            lines.append(f"  {method:8} MAPE {np.mean(errors):5.1f} % ({each})  ρ {rho:.3f}"
                         f"  R² {r2:.3f}")  # fmt: skip
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--storage", type=Path, default=Path("runs/s1"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/s1.json"))
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    weights = options.storage / f"resnet50-{options.seed}.safetensors"
    study, whole = study_of(options, ship_truck.trained(options.data, weights, options.seed))
    print(f"unpruned AUC {whole:.4f}; {len(study.graph.units)} units", flush=True)
    rows = list(report(study, options.seed))
    print(table(rows))
    result = {"machine": describe(), "seed": options.seed, "unpruned_auc": whole, "rows": rows}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
