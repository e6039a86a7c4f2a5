"""Masks a second on SmolLM2-135M: edgewise's engine against plain loops that skip sub-blocks.

All 60 masks without one sub-block, 32 random ones without a quarter of them, and the first 96 that
edgewise's search asks for at that budget, in its order, on some sequences of 128 tokens; CPU
seconds of one thread, in one run, in which the ways take turns every 16 masks. The loops are those
of problem.py (a batch at a time, nothing shared); `error` is how far losses are from those of the
float32 loop at most, `median_error` in the middle. Rows of other processors in --out are kept.

    python benchmarks/language/speed.py --data ../shared/data/text --sequences 1 4
    python benchmarks/language/speed.py --float32    # on a processor without bfloat16
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
import edgewise as ew
from edgewise.evaluation.evaluator import Engine
from language.compare import budget, study_of
from language.problem import Net, Problem, following, nats
from machine import describe

TURN, ASKED = 16, 96  # masks


def loop(net: Net, ids: torch.Tensor) -> Callable[[Sequence[str]], list[float]]:
    def run(masks: Sequence[str]) -> list[float]:
        with torch.inference_mode():
            pairs = (zip(net.logits(mask, ids), ids, strict=True) for mask in masks)
            return [float(np.mean([nats(z[None], i[None]) for z, i in some])) for some in pairs]

    return run


def engine(
    graph: ew.Graph, ids: torch.Tensor, precision: Any
) -> Callable[[Sequence[str]], list[float]]:
    data = [((ids,), following(ids))]
    made = Engine(graph, ew.Objective(data, loss="perplexity", precision=precision))

    def run(masks: Sequence[str]) -> list[float]:
        asked = [graph.mask(bits=mask) for mask in masks]
        found = {str(o.evaluation.mask): o.evaluation.loss for o in made.evaluate(asked)}
        return [found[str(mask)] for mask in asked]

    return run


@cache  # one search for all numbers of sequences
def searched(problem: Problem) -> list[str]:
    """The masks at a quarter that a search asks for, as often as it does."""
    study, share = study_of(problem), 1 / 4
    study.run(ASKED, budget(problem, share), seed=0)
    masks = [e.mask for e in study.evaluations if e.split.startswith("search")]
    return [mask for mask in masks if problem.share(mask) > share - 0.01][:ASKED]


def rows(problem: Problem, count: int, halves: bool) -> Iterator[dict[str, Any]]:
    graph, ids, draw = problem.graph, problem.splits["search"][:count], random.Random(0)
    sets = {
        "without one": [problem.mask([k]) for k in range(60)],
        "without a quarter": [problem.mask(draw.sample(range(60), 15)) for _ in range(32)],
        "of a search": searched(problem),
    }
    for name, masks in sets.items():
        ways = {"float32 loop": loop(problem.exact, ids), "engine": engine(graph, ids, None)}
        if halves:
            ways["bfloat16 loop"] = loop(problem.fast, ids)
            ways["engine, bfloat16"] = engine(graph, ids, "bfloat16")
        for run in ways.values():
            run([problem.none])
        seconds, losses = Counter[str](), {way: list[float]() for way in ways}
        for begin in range(0, len(masks), TURN):
            for way, run in ways.items():
                start = time.process_time()
                losses[way] += run(masks[begin : begin + TURN])
                seconds[way] += time.process_time() - start
        for way, found in losses.items():
            apart = np.abs(np.subtract(found, losses["float32 loop"]))
            yield {
                "processor": describe()["processor"], "sequences": count, "masks": name, "way": way,
                "seconds_a_mask": seconds[way] / len(masks),
                "error": float(apart.max()), "median_error": float(np.median(apart)),
            }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/text"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/language_speed.json"))
    parser.add_argument("--sequences", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--float32", action="store_true", help="only")
    options = parser.parse_args()
    torch.set_num_threads(1)
    record: dict[str, Any] = {"machine": describe(), "rows": []}
    if options.out.exists():
        kept = json.loads(options.out.read_text())["rows"]
        here = record["machine"]["processor"]
        record["rows"] = [row for row in kept if row["processor"] != here]
    problem = Problem(options.data, fast=not options.float32)
    for count in options.sequences:
        for row in rows(problem, count, not options.float32):
            record["rows"].append(row)
            options.out.write_text(json.dumps(record, indent=1) + "\n")
            print(row, flush=True)


if __name__ == "__main__":
    main()
