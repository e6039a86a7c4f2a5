"""How long the solver takes to find and prove the best mask of a surrogate, and that it is right.

*brute force*: small random networks with one to three limits; every optimum beside the best of all
masks. *sizes*: path sums with random weights, and linear surrogates with random coefficients, of
random DAGs (those of F-1, every edge a unit), of residual networks (branches and skips) and of
ResNet-56 with widths. *limit*: what a network that takes long gives when it is stopped. One thread.
With --rules the same under each kind of rule for what may go, on other networks and ResNet-56.

    python benchmarks/milp.py --out benchmarks/results/milp.json
    python benchmarks/milp.py --rules --networks 40 --out benchmarks/results/rules.json
"""

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import numpy as np
import torch

import edgewise as ew
from edgewise.errors import BudgetError
from edgewise.search import Space, solve
from edgewise.search.solver.model import Frame
from edgewise.surrogates.path_fit import PathFit
from edgewise.surrogates.reduction import reduce_graph
from machine import describe

ROOT = Path(__file__).parent.parent
for folder in ("tests", "examples", "benchmarks/published"):
    sys.path.insert(0, str(ROOT / folder))
from dags import Network, graph_of, random_dag  # noqa: E402
from exact_cases import Case, cases  # noqa: E402
from resnet_cifar import ResNet  # noqa: E402

STEPS = {"DAG 78": 14, "DAG 152": 30, "DAG 386": 75, "DAG 448": 85}
BLOCKS = {"residual 54": 9, "residual 150": 25, "residual 396": 66}
BUDGETS = (ew.Budget(units=0.85), ew.Budget(macs=0.7), ew.Budget(macs=0.5))
LIMIT = 10.0  # seconds
KINDS = ("keep", "at_most", "at_least", "tie", "alike")
RULES: dict[str, dict[str, Any]] = {
    "none": {},
    "half of any block's channels": {"at_most": {"hidden:layer*.*": 0.5}},
    "a third of any stage": {"at_most": {"layer*": 0.33}},
    "12 channels left": {"at_least": {"hidden": 12}},
    "no first block": {"keep": ["layer*.0"]},
    "blocks as one unit": {"tie": "layer*.*"},
    "a stage's channels alike": {"alike": [f"hidden:layer{i}.*" for i in (1, 2, 3)]},
}


def path_sum(graph: ew.Graph, seed: int) -> ew.surrogates.PathSum:
    """A path sum whose softmax parameters are standard normal."""
    model = ew.surrogates.PathSum(graph)
    model.flow_ = reduce_graph(graph)
    theta = np.random.default_rng(seed).normal(size=len(model.flow_.tails))
    model.fit_ = PathFit(theta, 0.0, 1.0, 0.0, 1.0, model.flow_.softmax(theta))
    return model


def linear(graph: ew.Graph, seed: int) -> ew.surrogates.Linear:
    model = ew.surrogates.Linear()
    model.coef_ = np.random.default_rng(seed).lognormal(size=len(graph.units))
    model.intercept_ = 0.0
    return model


def brute_force(count: int, rule: str = "") -> dict[str, Any]:
    """How many optima agree, and the worst difference on the link scale."""
    worst, agree, impossible, seconds, cuts, binding = 0.0, 0, 0, 0.0, 0, 0
    for case in cases(count, rule=rule):
        best = case.best
        binding += bool(unruled(case) != best)
        start = perf_counter()
        try:
            found = solve(case.space, case.model, pairs=1000)
        except BudgetError:
            impossible += 1
            agree += best is None
            continue
        seconds += perf_counter() - start
        cuts += found.cuts
        if best is not None and case.space.allows(found.mask) and found.optimal:
            off = abs(found.value - float(best))
            worst = max(worst, off)
            agree += off <= 1e-5 * (1 + abs(float(best)))
    return {
        "networks": count,
        "agree": agree,
        "impossible budgets": impossible,
        "limits that decide": binding,
        "worst difference": worst,
        "cuts": cuts,
        "seconds a network": seconds / count,
    }


def unruled(case: Case) -> float | None:
    """The least prediction within the budget if limits of rules are no matter."""
    graph, space = replace(case.space.graph, limits=()), case.space
    free = Space(graph, space.budget)
    values = zip(case.model.predict_link(case.X), case.masks, strict=True)
    return min((value for value, mask in values if free.allows(mask)), default=None)


def graphs(quick: bool) -> Iterator[tuple[str, ew.Graph]]:
    for name, steps in list(STEPS.items())[: 1 if quick else None]:
        yield name, graph_of(Network(random_dag(steps, np.random.default_rng(1))))
    for name, blocks in list(BLOCKS.items())[: 1 if quick else None]:
        example = (torch.randn(1, 3, 8, 8),)
        yield name, ew.trace(ResNet(blocks).eval(), example, granularity="edge")
    if not quick:
        whole = (torch.randn(1, 3, 32, 32),)
        graph = ew.trace(ResNet(9).eval(), whole, granularity=("edge", "hidden"))
        yield "ResNet-56, branches and widths", graph


def solved(name: str, graph: ew.Graph, budget: ew.Budget, seed: int, limit: float) -> Iterator:
    """A row for each kind of surrogate."""
    space = Space(graph, budget)
    start = perf_counter()
    frame = Frame(graph, tuple(space.limits))
    built = perf_counter() - start
    for kind, make in (("PathSum", path_sum), ("Linear", linear)):
        start, used = perf_counter(), process_time()
        found = solve(space, make(graph, seed), time_limit=limit, frame=frame)
        yield {
            "network": name,
            "units": len(graph.units),
            "vertices": len(graph.vertices),
            "budget": str(budget),
            "surrogate": kind,
            "seed": seed,
            "variables": len(frame.rows.lower),
            "rows": len(frame.rows.bounds),
            "rows built, seconds": built,
            "seconds": perf_counter() - start,
            "processor seconds": process_time() - used,
            "optimal": found.optimal,
            "value": found.value,
            "gap": found.gap,
            "rounds": found.rounds,
            "cuts": found.cuts,
            "removed": len(found.mask.removed),
        }


def under_rules(options: argparse.Namespace) -> dict[str, Any]:
    """Brute force under each kind of rule, and ResNet-56 with branches and widths under some."""
    brute = {}
    for kind in KINDS if options.networks else ():
        brute[kind] = brute_force(options.networks, kind)
        print(kind, brute[kind], flush=True)
    whole = (torch.randn(1, 3, 32, 32),)
    graph = ew.trace(ResNet(9).eval(), whole, granularity=("edge", "hidden"))
    rows: list[dict[str, Any]] = []
    for name, rules in RULES.items():
        start = perf_counter()
        ruled = ew.restrict(graph, **rules) if rules else graph
        seconds = perf_counter() - start
        for budget in (ew.Budget(macs=0.8), ew.Budget(macs=0.7)):
            for seed in range(options.seeds):
                try:
                    found = list(solved("ResNet-56", ruled, budget, seed, LIMIT))
                except BudgetError as error:
                    found = [{"units": len(ruled.units), "budget": str(budget), "told": str(error)}]
                rows += [{"rules": name, "rules applied, seconds": seconds} | row for row in found]
                print(
                    name, budget, [(r.get("optimal"), r.get("seconds")) for r in found], flush=True
                )
    return {"brute force": brute, "limit, seconds": LIMIT, "sizes": rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--networks", type=int, default=200, help="for brute force")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="the smallest networks only")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--rules", action="store_true", help="solve under rules for what may go")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.rules:
        result = {"machine": describe()} | under_rules(options)
        write(result, options.out)
        return
    result = {"machine": describe(), "brute force": brute_force(options.networks)}
    print(result["brute force"], flush=True)
    rows: list[dict[str, Any]] = []
    for name, graph in graphs(options.quick):
        for budget in BUDGETS:
            for seed in range(options.seeds):
                rows += solved(name, graph, budget, seed, LIMIT)
                for row in rows[-2:]:
                    print(*(f"{row[k]:.3g}" if isinstance(row[k], float) else row[k] for k in (
                        "network", "units", "budget", "surrogate", "seconds", "processor seconds",
                        "optimal", "gap", "cuts")), flush=True)  # fmt: skip
    result |= {"limit, seconds": LIMIT, "sizes": rows}
    write(result, options.out)


def write(result: dict[str, Any], path: Path | None) -> None:
    if path:
        path.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
