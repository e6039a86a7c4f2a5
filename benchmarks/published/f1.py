"""F-1: random DAGs on MNIST, every edge a unit: which surrogate ranks masks best.

10 random networks for each of four sizes. *As published*: trained on the losses of nothing,
everything and every single edge removed, tested on 500 masks of half of the edges, most of which
disconnect the network; both on the same 1 000 images. *Sound*: connected masks only, 15 % of the
edges removed, |E| + 1 evaluations, tested on 1 000 images that no surrogate has seen.

    python benchmarks/published/f1.py --data ../shared/data --seed 0

Networks and finished evaluations are kept under --storage; run the same command again to resume.
"""

import argparse
import json
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

import baselines
import digits
import edgewise as ew
import leak
import measure
from dags import Dag, graph_of
from measure import Measured
from scores import ceiling, ranks

sys.path.insert(0, str(Path(__file__).parent.parent))
from machine import describe

SIZES = {2: "10-15", 5: "20-40", 14: "50-100", 30: "> 100"}  # pairs of blocks: edges as published
PUBLISHED = ("Graph", "FCN", "Linear", "L1", "Taylor")
OURS = ("PathSum", "CrossGamma", "GraphGP")
LEAKY = ("PathSum, leak", "GraphGP, leak")


def scores_of(
    method: str, dag: Dag, graph: ew.Graph, train: Measured, test: np.ndarray, seed: int
) -> np.ndarray:
    """How good a learned method thinks the masks `test` are."""
    good = baselines.goodness(train.losses)
    if method == "Graph":
        return baselines.GraphSurrogate(dag).fit(train.masks, good).predict(test)
    if method == "FCN":
        return baselines.fcn(train.masks, good, test, seed)
    if method == "Linear":
        return baselines.linear(train.masks, good, test)
    if method in LEAKY:
        return leaky(method, dag, graph, train, test)
    return ours(method, graph, train, test)


def ours(method: str, graph: ew.Graph, train: Measured, test: np.ndarray) -> np.ndarray:
    """Fitted on connected masks; what is disconnected comes last, as liveness knows for free."""
    known = measure.connected(graph, train.masks)
    model = surrogate(method, graph).fit(train.masks[known], train.losses[known])
    loss = model.predict_link(test)
    dead = ~measure.connected(graph, test)
    return -np.where(dead, loss.max(initial=0.0) + 1.0, loss)


def surrogate(method: str, graph: ew.Graph) -> Any:
    """The surrogate of a name."""
    if method.startswith("PathSum"):
        return ew.surrogates.PathSum(graph, saturate=True)
    if method == "CrossGamma":
        return ew.surrogates.CrossGamma(graph)
    return ew.surrogates.GraphGP(graph)


def leaky(method: str, dag: Dag, graph: ew.Graph, train: Measured, test: np.ndarray) -> np.ndarray:
    """As `ours`, knowing that a disconnected network answers with its biases."""
    known = measure.connected(graph, train.masks)
    model = surrogate(method, graph).fit(train.masks, train.losses)
    cut = train[~known]
    constant = leak.constants(dag, cut.masks, cut.losses, test)
    loss = leak.between(model, float(np.log(train.losses[0])), constant, test)
    return -np.where(measure.connected(graph, test), loss, constant)


def compare(
    protocol: str, dag: Dag, graph: ew.Graph, parts: tuple[Measured, Measured], seed: int,
    importance: dict[str, np.ndarray],
) -> Iterator[dict]:  # fmt: skip
    """A row a method."""
    train, test = parts
    weigh = baselines.mean_of_kept if protocol == "published" else baselines.less_of_removed
    for method in (*PUBLISHED, *OURS, *(LEAKY if protocol == "published" else ())):
        if method in importance:
            score = weigh(importance[method], test.masks)
        else:
            score = scores_of(method, dag, graph, train, test.masks, seed)
        count = 1 if method in importance else len(train.losses)
        yield {"method": method, "evaluations": count, **ranks(-score, test.losses)}


def network_rows(options: argparse.Namespace, steps: int, number: int, data: tuple) -> list[dict]:
    """All that is measured of one DAG."""
    fit, first, second = data
    seed, storage = options.seed, options.storage
    network = digits.trained(steps, number, seed, fit, storage)
    dag, graph = network.dag, graph_of(network)
    name = f"{seed}-{steps}-{number}"
    rng = [np.random.default_rng([seed, steps, number, k]) for k in (1, 2)]
    half = measure.published(network, first, storage / f"published-{name}.npz", rng[0])
    with measure.study_of(graph, first, second, f"sqlite:///{storage}/sound.db", name) as study:
        target = measure.sound(study, rng[1])
    whole, losses = measure.connected(graph, half[1].masks), half[1].losses
    lost = float(1 - whole.mean())
    perfect = ranks(np.where(whole, losses, losses.max() + 1), losses)["spearman"]
    importance = baselines.importances(network, *first)
    common = {
        "size": SIZES[steps],
        "dag": number,
        "edges": len(dag.edges),
        "accuracy": digits.accuracy(network, *second),
    }
    rows = []
    for protocol, parts in (("published", half), ("sound", target)):
        extra = {"disconnected": lost, "ceiling": ceiling(lost), "perfect": perfect}
        extra = extra if protocol == "published" else {}
        found = compare(protocol, dag, graph, parts, seed, importance)
        rows += [{"protocol": protocol, **common, **extra, **row} for row in found]
    return rows


def table(rows: list[dict]) -> str:
    """Means by protocol and size: ρ / τ, and the overlap of the best five and of the best tenth."""
    sizes = [s for s in SIZES.values() if any(row["size"] == s for row in rows)]
    lines = []
    for protocol in ("published", "sound"):
        chosen = [row for row in rows if row["protocol"] == protocol]
        lines += [f"{protocol:14}" + "".join(f"{size:>25}" for size in sizes)]
        names = ("edges", "accuracy", "disconnected", "ceiling", "perfect")
        for name in names if protocol == "published" else names[:2]:
            cells = [np.mean([r[name] for r in chosen if r["size"] == s]) for s in sizes]
            lines += [f"{name:14}" + "".join(f"{cell:25.3f}" for cell in cells)]
        for method in dict.fromkeys(row["method"] for row in chosen):
            same = [[r for r in chosen if (r["method"], r["size"]) == (method, s)] for s in sizes]
            names = ("spearman", "kendall", "top5", "top10")
            cells = [[np.mean([r[name] for r in group]) for name in names] for group in same]
            lines += [f"{method:14}" + "".join(
                f"{rho:9.3f} /{tau:6.3f} {100 * five:3.0f} /{100 * tenth:3.0f}"
                for rho, tau, five, tenth in cells
            )]  # fmt: skip
        lines += [""]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--storage", type=Path, default=Path("runs/f1"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/f1.json"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES), choices=SIZES)
    parser.add_argument("--dags", type=int, default=10)
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", "An input array is constant")
    data, rows = digits.load(options.data), []
    for number in range(options.dags):
        for steps in options.sizes:
            rows += network_rows(options, steps, number, data)
            result = {"machine": describe(), "seed": options.seed, "rows": rows}
            options.out.parent.mkdir(parents=True, exist_ok=True)
            options.out.write_text(json.dumps(result, indent=1) + "\n")
        print(f"{number + 1} networks a size\n{table(rows)}", flush=True)


if __name__ == "__main__":
    main()
