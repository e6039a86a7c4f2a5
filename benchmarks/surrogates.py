"""How well each surrogate predicts ResNet-56 with 1 to 10 of 27 branches removed.

500 measured masks (log-loss of the raw network, or another file's). Training: the empty mask, the
27 leave-one-out masks and N others at random; 150 masks, the same ones always, are held out and
have had no part in any decision about the surrogates. Every row is the mean over draws of the N
masks, with the standard deviation over draws; the coverage of calibrated intervals over the first
ones. Then the processor seconds that 500 masks of 102 units take (seconds, where one thread has a
core).

    python benchmarks/surrogates.py --data ../shared/data --out benchmarks/results/surrogates.json
    python benchmarks/surrogates.py --masks benchmarks/results/resnet56_recovered.npz --speed 0 \
        --out benchmarks/results/surrogates_recovered.json

Five minutes on two cores; nothing is kept in between.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import kendalltau, spearmanr

import edgewise as ew
from edgewise import surrogates
from edgewise.surrogates.intervals import calibrate
from machine import describe

sys.path.insert(0, str(Path(__file__).parent.parent / "examples"))
from resnet_cifar import ResNet, resnet56

HELD, LEVELS = 150, (0.5, 0.8, 0.95)
WITH_STD = ("GraphGP", "Degree2", "Linear")


def branches(model: ResNet) -> ew.Graph:
    """The graph of a ResNet whose units are its residual branches."""
    whole = ew.trace(model.eval(), (torch.randn(1, 3, 32, 32),), granularity="edge")
    return whole.select(["* branch"])


def makers(graph: ew.Graph) -> dict[str, Callable[[], Any]]:
    return {
        "GraphGP": lambda: surrogates.GraphGP(graph),
        "Degree2": surrogates.Degree2,
        "Linear": surrogates.Linear,
        "Logistic": surrogates.Logistic,
        "PathSum": lambda: surrogates.PathSum(graph),
        "FCN": surrogates.FCN,
        "Trees": surrogates.Trees,
    }


def measures(predicted: np.ndarray, loss: np.ndarray) -> dict[str, float]:
    """Rank and error measures of predicted losses; R² on the log scale."""
    link, guess = np.log(loss), np.log(predicted)
    tenth = len(loss) // 10
    best, found = np.argsort(loss)[:tenth], np.argsort(predicted)[:tenth]
    return {
        "spearman": float(spearmanr(predicted, loss)[0]),
        "kendall": float(kendalltau(predicted, loss)[0]),
        "mape": float(np.mean(np.abs(predicted - loss) / loss)),
        "r2": float(1 - np.sum((link - guess) ** 2) / np.sum((link - link.mean()) ** 2)),
        "top10": float(len(np.intersect1d(best, found)) / tenth),
    }


def coverage(make: Callable[[], Any], train: tuple, test: tuple) -> dict[str, float]:
    """Share of held-out losses within the calibrated intervals."""
    found = calibrate(make, *train)
    shares = {}
    for level in LEVELS:
        low, high = found.predict(test[0], level)
        inside = (low <= test[1]) & (test[1] <= high)
        shares[f"cover{round(100 * level)}"] = float(inside.mean())
    return shares


def row(name: str, make: Callable[[], Any], train: tuple, test: tuple, cover: bool) -> dict:
    start = time.process_time()
    model = make().fit(*train)
    seconds = time.process_time() - start
    values = measures(model.predict(test[0]), test[1]) | {"cpu_seconds": seconds}
    return values | (coverage(make, train, test) if cover and name in WITH_STD else {})


def accuracy(
    graph: ew.Graph, X: np.ndarray, y: np.ndarray, sizes: list[int], draws: int, covered: int
) -> list[dict]:
    few = len(graph.units) + 1
    order = np.random.default_rng(0).permutation(np.arange(few, len(y)))
    pool, test = order[:-HELD], order[-HELD:]
    rows = []
    for size in sizes:
        for name, make in makers(graph).items():
            found = []
            for draw in range(draws):
                chosen = np.random.default_rng(draw).permutation(pool)[:size]
                train = np.append(np.arange(few), chosen)
                sets = (X[train], y[train]), (X[test], y[test])
                found.append(row(name, make, *sets, cover=draw < covered))
            rows.append({"surrogate": name, "masks": size, **summary(found)})
            print(line(rows[-1]), flush=True)
    return rows


def interactions(X: np.ndarray, y: np.ndarray) -> dict:
    """How far log-losses [n] of masks [n, units] are from sums of what single removals do.

    The first masks are the empty one and single units, in their order along the network. The
    excess is what a mask loses beyond the sum over its units, in nats. Its least-squares line says
    what a further pair of removed units, and one of neighbours besides, add to it.
    """
    units = X.shape[1]
    link = np.log(y) - np.log(y[0])
    sums = X @ link[1 : units + 1]
    rest = X.sum(axis=1) > 1
    X, removed, excess = X[rest], X[rest].sum(axis=1), (link - sums)[rest]
    pairs = removed * (removed - 1) / 2
    neighbours = (X[:, 1:] * X[:, :-1]).sum(axis=1)
    table = np.column_stack([np.ones(len(X)), removed, pairs, neighbours])
    line = np.linalg.lstsq(table, excess, rcond=None)[0]
    noise = np.sum((excess - table @ line) ** 2) / (len(X) - table.shape[1])
    errors = np.sqrt(noise * np.diag(np.linalg.inv(table.T @ table)))
    by_count = {int(k): round(float(excess[removed == k].mean()), 3) for k in np.unique(removed)}
    return {
        "spearman_of_sum": float(spearmanr(sums[rest], link[rest])[0]),
        "r2_of_sum": float(1 - np.sum(excess**2) / np.sum((link[rest] - link[rest].mean()) ** 2)),
        "mean_excess_by_removed": by_count,
        "excess_per_neighbours": [round(float(line[3]), 4), round(float(errors[3]), 4)],
    }


def summary(found: list[dict]) -> dict:
    known = {key: [f[key] for f in found if key in f] for key in found[0]}
    means = {key: round(float(np.mean(values)), 4) for key, values in known.items()}
    spread = round(float(np.std([f["spearman"] for f in found], ddof=1)), 4)
    return means | {"spearman_std": spread, "draws": len(found)}


def line(values: dict) -> str:
    shown = " ".join(
        f"{k} {v:.3f}" for k, v in values.items() if k not in ("surrogate", "masks", "draws")
    )
    return f"{values['surrogate']:9s} N={values['masks']:3d}  {shown}"


def speed() -> list[dict]:
    """Seconds to fit 500 masks of 102 units, and to predict 10 000 with their deviations."""
    graph = branches(ResNet(34))
    rng = np.random.default_rng(0)
    X = (rng.random((500, len(graph.units))) < rng.uniform(0.02, 0.4, (500, 1))).astype(float)
    harm = X @ rng.exponential(0.05, len(graph.units))
    y = np.exp(harm + 0.02 * (X[:, 1:] * X[:, :-1]).sum(axis=1) + rng.normal(0, 0.02, 500))
    many = (rng.random((10_000, len(graph.units))) < 0.2).astype(float)
    rows = []
    for name, make in makers(graph).items():
        start = time.process_time()
        model = make().fit(X, y)
        fitted = time.process_time()
        model.predict(many, **({"return_std": True} if name in WITH_STD else {}))
        done = time.process_time()
        units = len(graph.units)
        rows.append({"surrogate": name, "masks": 500, "units": units})
        rows[-1] |= {"fit_cpu_seconds": fitted - start, "predict_10000_cpu_seconds": done - fitted}
        print({k: round(v, 2) if isinstance(v, float) else v for k, v in rows[-1].items()})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/surrogates.json"))
    parser.add_argument("--sizes", type=int, nargs="+", default=[50, 100, 200, 300])
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--covered", type=int, default=2, help="draws with calibrated intervals")
    parser.add_argument("--masks", type=Path, help="instead of resnet56_masks.npz of --data")
    parser.add_argument("--speed", type=int, default=1, help="0 leaves the times out")
    options = parser.parse_args()
    data = np.load(options.masks or options.data / "resnet56_masks.npz")
    X, y = data["masks"].astype(float), data["loss"]
    rows = accuracy(branches(resnet56()), X, y, options.sizes, options.draws, options.covered)
    results = {"machine": describe(), "interactions": interactions(X, y), "accuracy": rows}
    if options.speed:
        results["speed"] = speed()
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
