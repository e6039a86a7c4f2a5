"""How much of a search over SmolLM2's 60 sub-blocks is edgewise's own time, in CPU seconds.

A search of 200 evaluations of eight sequences of 128 tokens for 8 of 30 layers' worth of the
decoder's parameters, on one thread, in which edgewise's engine measures in float32 or in bfloat16.
All else is its own: scores of one pass, surrogates, proposals, storage.

    python benchmarks/language/own_time.py --data ../shared/data/text
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
import edgewise as ew
from edgewise.evaluation.evaluator import Engine, Outcome
from language.compare import budget
from language.problem import Problem, following
from machine import describe


class Timed:
    """The engine, and the CPU seconds that it took."""

    def __init__(self, graph: ew.Graph, objective: ew.Objective) -> None:
        self.engine, self.seconds = Engine(graph, objective), 0.0

    def evaluate(self, masks: Sequence[ew.Mask], *split: Any, **options: Any) -> Iterator[Outcome]:
        start = time.process_time()
        found = list(self.engine.evaluate(masks, *split, **options))
        self.seconds += time.process_time() - start
        yield from found

    def close(self) -> None:
        self.engine.close()


def row(problem: Problem, precision: str | None, evaluations: int) -> dict[str, Any]:
    ids = problem.splits["search"]
    objective = ew.Objective([((ids,), following(ids))], loss="perplexity", precision=precision)
    timed = Timed(problem.graph, objective)
    study = ew.Study(problem.graph, objective, executor=lambda *_: timed)
    start = time.process_time()
    study.run(evaluations, budget(problem, 8 / 30), seed=0)
    total = time.process_time() - start
    return {
        "precision": precision or "float32", "evaluations": evaluations,
        "masks": len({e.mask for e in study.evaluations}), "seconds": round(total, 1),
        "measuring_seconds": round(timed.seconds, 1), "own": round(1 - timed.seconds / total, 3),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/text"))
    parser.add_argument(
        "--out", type=Path, default=Path("benchmarks/results/language_own_time.json")
    )
    parser.add_argument("--evaluations", type=int, default=200)
    parser.add_argument("--precision", nargs="+", default=["float32", "bfloat16"])
    options = parser.parse_args()
    torch.set_num_threads(1)
    record: dict[str, Any] = {"machine": describe(), "rows": []}
    problem = Problem(options.data, "wikitext")
    for name in options.precision:
        found = row(problem, None if name == "float32" else name, options.evaluations)
        record["rows"].append(found)
        options.out.write_text(json.dumps(record, indent=1) + "\n")
        print(found, flush=True)


if __name__ == "__main__":
    main()
