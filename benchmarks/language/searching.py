"""edgewise's search alone on SmolLM2's 60 sub-blocks: what it finds with how many sequences.

The language model is measured by `problem.py`, search text in bfloat16. Units and costs are those
of a stand-in of 60 residual branches in the same proportions (1 to 3, norms not counted), so that
nothing is traced and memory is what the model itself takes; `compare.py` runs the study on the
traced model. A row has the best mask that saw all search text, its loss there and on verify text,
what the search itself took, and the best after so many full evaluations.

    python benchmarks/language/searching.py --data ../shared/data/text --seeds 0 1 2
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[1]))
import edgewise as ew
from edgewise.evaluation.records import Evaluation
from edgewise.evaluation.sizes import sized
from edgewise.search import Ask, Space, answered, search
from edgewise.study.fitting import searching
from edgewise.surrogates.searcher import searcher
from language.problem import Problem
from language.rivals import EVALUATIONS
from machine import describe

NORMS = 1e-4  # share of parameters in norms, which the stand-in has none of


class Branches(nn.Module):
    """Sums of 30 layers of two branches, the second of which has three times the weights."""

    def __init__(self) -> None:
        super().__init__()
        pairs = (
            (nn.Linear(4, 4, False), nn.Sequential(nn.Linear(4, 6, False), nn.Linear(6, 4, False)))
            for _ in range(30)
        )
        self.branches = nn.ModuleList(branch for pair in pairs for branch in pair)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for branch in self.branches:
            x = x + branch(x)
        return x


class Run:
    """Answers a search from the problem, and counts sequences and seconds."""

    def __init__(self, problem: Problem, share: float) -> None:
        self.problem, self.share = problem, share
        self.lots = len(problem.splits["search"])
        self.seen: dict[str, set[int]] = {}
        self.spent, self.seconds, self.best = 0, 0.0, (float("inf"), "")
        self.history: list[tuple[float, float]] = []

    def __call__(self, ask: Ask) -> list[Evaluation]:
        start, rows = time.process_time(), list(ask.lots or range(self.lots))
        found = [self._measured(str(mask), rows) for mask in ask.masks]
        self.seconds += time.process_time() - start
        return found

    def _measured(self, mask: str, rows: list[int]) -> Evaluation:
        losses = self.problem.losses(mask, "search", rows)
        seen = self.seen.setdefault(mask, set())
        self.spent += len(set(rows) - seen)
        seen |= set(rows)
        each, loss = np.full(self.lots, np.nan, np.float32), float(losses.mean())
        each[rows] = losses
        within = self.problem.share(mask) >= self.share - NORMS
        if len(rows) == self.lots and within and (loss, mask) < self.best:
            self.best = loss, mask
            self.history.append((self.spent / self.lots, loss))
        split = sized("search", rows, self.lots)
        return Evaluation(mask, split, loss, samples=len(rows), each=each)


def row(problem: Problem, graph: ew.Graph, share: float, seed: int) -> dict[str, Any]:
    left = int((1 - share) * ew.cost(graph, graph.empty).params)
    space, run = Space(graph, ew.Budget(params=left)), Run(problem, share)
    fit, start = searching(searcher("auto"), graph), time.process_time()
    answered(search(space, fit, seed=seed, limit=EVALUATIONS, lots=[1] * run.lots), run)
    loss, mask = run.best
    return {
        "share": share, "seed": seed, "mask": mask, "search": loss,
        "verify": float(problem.losses(mask, "verify").mean()),
        "evaluations": run.spent / run.lots, "masks": len(run.seen),
        "whole": sum(len(rows) == run.lots for rows in run.seen.values()),
        "own_seconds": round(time.process_time() - start - run.seconds, 1),
        "measuring_seconds": round(run.seconds, 1), "history": run.history,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/text"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/language_search.json"))
    parser.add_argument("--shares", nargs="+", type=float, default=[0.25])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    options = parser.parse_args()
    torch.set_num_threads(1)
    problem = Problem(options.data)
    graph = ew.trace(Branches(), (torch.randn(1, 4),), granularity="branch")
    rows = json.loads(options.out.read_text())["rows"] if options.out.exists() else []
    for share in options.shares:
        for seed in options.seeds:
            rows = [r for r in rows if (r["share"], r["seed"]) != (share, seed)]
            rows.append(row(problem, graph, share, seed))
            told = ("search", "verify", "evaluations", "masks", "own_seconds")
            print(share, seed, *(f"{rows[-1][key]:.3f}" for key in told), flush=True)
            record = {"machine": describe(), "rows": rows}
            options.out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
