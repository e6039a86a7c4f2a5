"""Sub-blocks of SmolLM2-135M removed by edgewise and by others: perplexity, pruned and recovered.

    python benchmarks/language/compare.py --data ../shared/data/text --layers 8
    python benchmarks/language/compare.py --methods evolution --seeds 0 1 2
    python benchmarks/language/compare.py --check    # the loop against edgewise's masked model

Rows that are in --out are not measured again; a row that was interrupted goes on with the losses
that are kept (see problem.py). All methods see the same search text, and their tokens are counted.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
import edgewise as ew
from edgewise.evaluation.evaluator import Outcome
from edgewise.evaluation.records import Evaluation
from edgewise.study import recovering
from edgewise.study.picks import picks
from edgewise.study.statistics import examples_seen
from language.problem import CACHE, LAYERS, Meter, Problem, judged, label, nats
from language.rivals import EVALUATIONS, METHODS, ONCE
from machine import describe

RECOVERED = "edgewise, finalists recovered"
NORMS = 1e-4  # share of parameters in norms, which sub-blocks of a budget may leave
CHECKED = ("0" * 60, "01" * 4 + "0" * 52, "0" * 20 + "1100110" + "0" * 33)


class Loop:
    """edgewise's executor over the loop and the losses that are kept."""

    def __init__(self, problem: Problem, objective: ew.Objective) -> None:
        self.problem, self.objective = problem, objective

    def evaluate(
        self, masks: Sequence[ew.Mask], split: str = "search", *, tensors: bool = False
    ) -> Iterator[Outcome]:
        for mask in masks:
            start, rows = time.perf_counter(), self.objective.lots(split).rows(split).tolist()
            whole = split.partition(":")[0]  # a size names the split and the sequences seen of it
            each = torch.from_numpy(self.problem.losses(bits(mask), whole, rows))
            yield Outcome(
                Evaluation(
                    str(mask), split, float(each.mean()), samples=len(each),
                    seconds=time.perf_counter() - start,
                ),
                each,
            )  # fmt: skip

    def close(self) -> None:
        """Nothing is held."""


def bits(mask: ew.Mask) -> str:
    return "".join("1" if bit else "0" for bit in mask.bits)


def each(outputs: Mapping[str, torch.Tensor], ids: torch.Tensor) -> torch.Tensor:
    """The loss of each sequence."""
    return torch.tensor(
        [nats(x[None], i[None]) for x, i in zip(outputs["logits"], ids, strict=True)]
    )


def study_of(problem: Problem) -> ew.Study:
    batches = {k: [({"input_ids": ids}, ids)] for k, ids in problem.splits.items()}
    return ew.Study(
        problem.graph,
        ew.Objective(batches["search"], loss=each, verify=batches["verify"]),
        executor=lambda graph, objective, options: Loop(problem, objective),
    )


def budget(problem: Problem, share: float) -> ew.Budget:
    left = ew.cost(problem.graph).params - int(share * problem.params.sum())
    return ew.Budget(params=left)


def influence(problem: Problem, meter: Meter, share: float, seed: int = 0) -> str:
    """What edgewise measures first: the cheapest sub-blocks by block influence, from one pass."""
    meter.count(meter.size)
    return scored(problem, share)[0]


def runs(problem: Problem, meter: Meter, share: float, seed: int = 0) -> str:
    """What it measures next: runs of 2, 4, 8, ... sub-blocks, of which search text decides."""
    meter.count(meter.size)
    return min(scored(problem, share)[1:], key=meter)


def scored(problem: Problem, share: float) -> list[str]:
    study = study_of(problem)
    return list(map(bits, picks(study.space(budget(problem, share)), study.objective)))


@cache  # one search for both of its plans
def searched(problem: Problem, share: float, seed: int) -> ew.Study:
    study = study_of(problem)
    study.run(EVALUATIONS, budget(problem, share), seed=seed)
    return study


def edgewise(problem: Problem, meter: Meter, share: float, seed: int = 0) -> str:
    """The joint search over the same 60 sub-blocks, on the same text; verify text decides."""
    study = searched(problem, share, seed)
    meter.count(examples_seen(e for e in study.evaluations if e.split.startswith("search")))
    return study.plan().bits


def finalists(problem: Problem, meter: Meter, share: float, seed: int = 0) -> str:
    """The same search, whose finalists and masks of scores are recovered before verify decides."""
    study = searched(problem, share, seed)
    meter.count(examples_seen(e for e in study.evaluations if e.split.startswith("search")))
    batches = [{"input_ids": problem.splits["calibration"]}]
    return study.plan(recovery=ew.Recovery("linear", batches)).bits


ALL = {
    **METHODS, "influence": influence, "runs": runs, "edgewise": edgewise, RECOVERED: finalists,
}  # fmt: skip


class Remembered:
    """What recovers masks for edgewise, each once for all rows; it tells of verify text only."""

    def __init__(self, problem: Problem) -> None:
        self.problem, self.folder = problem, CACHE / f"recovered {problem.text}"
        self.folder.mkdir(parents=True, exist_ok=True)

    def evaluate(
        self, masks: Sequence[ew.Mask], split: str, *, tensors: bool = False
    ) -> Iterator[Outcome]:
        for mask in masks:
            text, start = self.of(bits(mask))["recovered"]["verify"], time.perf_counter()
            yield Outcome(
                Evaluation(
                    str(mask), split, text["loss"], samples=len(self.problem.splits["verify"]),
                    seconds=time.perf_counter() - start,
                ),
            )  # fmt: skip

    def of(self, mask: str) -> dict[str, Any]:
        """A mask's recovery, and how it is judged on each text."""
        file = self.folder / f"{mask}.json"
        known = json.loads(file.read_text()) if file.exists() else {"recovered": {}}
        if not set(told_of(self.problem)) <= set(known["recovered"]):  # or a text came later
            known = recovered(self.problem, self.problem.graph, mask)
            file.write_text(json.dumps(known))
        return known


def check(problem: Problem) -> float:
    """How far the loop is from edgewise's masked model at most, relative to the logits."""
    graph, ids, worst = problem.graph, problem.splits["search"][:2], 0.0
    with torch.no_grad():
        for bits in CHECKED:
            masked = ew.masked(graph, graph.mask(bits=bits))
            wanted = masked(input_ids=ids, use_cache=False)["logits"]
            found = problem.exact.logits(bits, ids)
            worst = max(worst, float((found - wanted).abs().max() / wanted.abs().max()))
    return worst


def row(problem: Problem, method: str, share: float, seed: int) -> dict[str, Any]:
    meter, start = Meter(problem), time.process_time()
    mask = problem.none if method == "unpruned" else ALL[method](problem, meter, share, seed)
    seconds = time.process_time() - start
    ours = searched(problem, share, seed) if method in (edgewise.__name__, RECOVERED) else None
    return {
        "method": method, "share": share, "seed": seed, "mask": mask,
        "removed": [label(k) for k, bit in enumerate(mask) if bit == "1"],
        "share_removed": problem.share(mask), "evaluations": meter.evaluations,
        "tokens": meter.tokens, "seconds": round(seconds, 1),
        "search": float(problem.losses(mask, "search").mean()),
        "verify": float(problem.losses(mask, "verify").mean()),
        "pruned": {k: judged(problem, mask, k) for k in problem.splits if k.startswith("report")},
    } | ({} if ours is None else told(problem, ours, share))  # fmt: skip


def told(problem: Problem, study: ew.Study, share: float) -> dict[str, Any]:
    """What measuring took a search, and its best loss on all search text after so many masks."""
    search = [e for e in study.evaluations if e.split.startswith("search")]
    full, best, history = examples_seen(search[:1]), float("inf"), []
    for number, e in enumerate(search, 1):
        within = problem.share(e.mask) >= share - NORMS
        if e.split == "search" and e.loss is not None and within and e.loss < best:
            best = e.loss
            history.append((round(examples_seen(search[:number]) / full, 2), best))
    return {"history": history, "measuring_seconds": round(sum(e.seconds for e in search), 1)}


def recovered(problem: Problem, graph: ew.Graph, mask: str) -> dict[str, Any]:
    """The same mask with linear recovery on calibration text, once."""
    batches = [{"input_ids": ids} for ids in problem.splits["calibration"].split(8)]
    start = time.process_time()
    small = ew.recover(graph, graph.mask(bits=mask), batches)
    seconds = round(time.process_time() - start, 1)
    return {"recovery_seconds": seconds} | {
        "recovered": {name: judged(problem, small, name) for name in told_of(problem)}
    }


def told_of(problem: Problem) -> list[str]:
    """The texts that a recovered model is judged on."""
    return [name for name in problem.splits if name.startswith(("verify", "report"))]


def add_recovered(
    problem: Problem, record: dict[str, Any], methods: Sequence[str], out: Path
) -> None:
    """Recovery on a problem's text for the rows of some methods that lack it or a report of it."""
    wanted = [r for m in methods for r in record["rows"] if r["method"] == m and "1" in r["mask"]]
    reports = {name for name in problem.splits if name.startswith("report")}
    for found in wanted:
        if found["text"] != problem.text or reports <= set(found.get("recovered", ())):
            continue
        found |= Remembered(problem).of(found["mask"])
        out.write_text(json.dumps(record, indent=1) + "\n")
        before, after = (
            [f"{p['perplexity']:.1f}" for k, p in found[key].items() if k != "verify"]
            for key in ("pruned", "recovered")
        )
        print(f"{found['method']:22}{found['share']:6.3f} perplexity {' / '.join(before)} -> "
              f"{' / '.join(after)}, {found['recovery_seconds']:.0f} s", flush=True)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/text"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/language.json"))
    parser.add_argument("--methods", nargs="+", default=["unpruned", *ALL])
    parser.add_argument("--layers", nargs="+", type=int, default=list(LAYERS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--text", default="both", choices=["both", "wikitext", "brown"])
    parser.add_argument("--float32", action="store_true", help="for search text, too")
    parser.add_argument("--recover", action="store_true", help="linear recovery for all rows")
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    problem = Problem(options.data, options.text, not options.float32)
    if options.check:
        print(f"the loop differs from edgewise's masked model by {check(problem):.1e}")
        return
    record: dict[str, Any] = {"machine": describe(), "rows": []}
    if options.out.exists():
        record = json.loads(options.out.read_text())
    recovering._engine = lambda *_: Remembered(problem)
    own = {"text": options.text, "search_in": "float32" if options.float32 else "bfloat16"}
    done = {(r["method"], r["share"], r["seed"], *[r[k] for k in own]) for r in record["rows"]}
    for share in (2 * count / len(problem.params) for count in options.layers):
        for method in options.methods:
            for seed in [0] if method in (*ONCE, "influence", "runs") else options.seeds:
                of = 0.0 if method == "unpruned" else share
                if (method, of, seed, *own.values()) in done:
                    continue
                done.add((method, of, seed, *own.values()))
                found = row(problem, method, of, seed) | own
                record["rows"].append(found)
                options.out.write_text(json.dumps(record, indent=1) + "\n")
                perplexities = [f"{p['perplexity']:.1f}" for p in found["pruned"].values()]
                print(f"{method:22}{of:6.3f} {seed} {found['evaluations']:6.1f} evaluations, "
                      f"search {found['search']:.3f}, verify {found['verify']:.3f}, perplexity "
                      f"{' / '.join(perplexities)}, {found['seconds']:.0f} s",
                      flush=True)  # fmt: skip
    for found in record["rows"]:  # texts that were not there when it was measured
        for name in problem.splits:
            ours = len(found["mask"]) == len(problem.none)  # else a row of widths.py
            if ours and name.startswith("report") and name not in found["pruned"]:
                found["pruned"][name] = judged(problem, found["mask"], name)
                options.out.write_text(json.dumps(record, indent=1) + "\n")
    if options.recover:
        add_recovered(problem, record, options.methods, options.out)


if __name__ == "__main__":
    main()
