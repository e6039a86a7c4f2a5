"""How much of the lost nats linear recovery gives back, by the text that it is fitted to.

The mask of edgewise in language.json, recovered once on WikiText-2's first half of valid, judged on
other text of it: verify (sequences of 128 tokens) and eight sequences of 512 of its test text. Rows
that are in --out are not measured again.

    python benchmarks/language/calibration.py --data ../shared/data/text
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1]))
import edgewise as ew
from language.problem import SIZES, Problem, nats, wikitext
from machine import describe

TEXTS = ((48, 128), (192, 128), (48, 512))  # sequences and their length
FOUND = Path("benchmarks/results/language.json")


def losses(problem: Problem, logits: Callable[[Tensor], Tensor]) -> dict[str, float]:
    texts = {"verify": problem.splits["verify"], "test": problem.splits["report wikitext"][::2]}
    with torch.inference_mode():
        return {
            name: float(np.mean([nats(logits(ids[None]), ids[None]) for ids in some]))
            for name, some in texts.items()
        }


def row(problem: Problem, mask: str, count: int, length: int, data: Path) -> dict[str, Any]:
    others = SIZES["search"][0] * SIZES["search"][1] // length  # the search text takes no part
    text = problem._cut(wikitext(data)["search"], count, length, others)
    removed = problem.graph.mask(bits=mask)
    begin = time.process_time()
    small = ew.recover(problem.graph, removed, [{"input_ids": ids} for ids in text.split(8)])
    seconds = time.process_time() - begin
    found = losses(problem, lambda ids: small(input_ids=ids)["logits"])
    return {"sequences": count, "length": length, "seconds": seconds, "recovered": found}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/text"))
    out = Path("benchmarks/results/language_calibration.json")
    parser.add_argument("--out", type=Path, default=out)
    options = parser.parse_args()
    torch.set_num_threads(1)
    problem = Problem(options.data, "wikitext", fast=False)
    rows = json.loads(FOUND.read_text())["rows"]
    mask = next(r["mask"] for r in rows if (r["method"], r["share"]) == ("edgewise", 8 / 30))
    record: dict[str, Any] = {"machine": describe(), "mask": mask, "rows": []}
    if options.out.exists():
        record = json.loads(options.out.read_text())
        mask = record["mask"]
    else:
        record["unpruned"] = losses(problem, lambda ids: problem.exact.logits(problem.none, ids))
        record["pruned"] = losses(problem, lambda ids: problem.exact.logits(mask, ids))
    done = [(r["sequences"], r["length"]) for r in record["rows"]]
    for count, length in TEXTS:
        if (count, length) not in done:
            record["rows"].append(row(problem, mask, count, length, options.data))
            options.out.write_text(json.dumps(record, indent=1) + "\n")
            print(record["rows"][-1], flush=True)


if __name__ == "__main__":
    main()
