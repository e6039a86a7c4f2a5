"""Speed beside another version of edgewise, in one run: liveness, prune, engine, search in turns.

Each version does the same in processes of its own, one after the other and again; the ratio is that
of the medians of processor seconds, and above 1 this version is slower.

    git worktree add /tmp/before COMMIT
    python benchmarks/against.py --before /tmp/before/src --out benchmarks/results/against.json
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from time import process_time

TURNS = 3


def seconds(what: Callable[[], object]) -> float:
    """Processor seconds that something takes."""
    begin = process_time()
    what()
    return process_time() - begin


def work() -> dict[str, float]:
    """Processor seconds of this version, by what was done."""
    import numpy as np
    import torch
    import torchvision
    from torch.nn import functional as F

    import edgewise as ew

    def losses(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(outputs, targets, reduction="none")

    torch.set_num_threads(1)
    torch.manual_seed(0)
    taken, rng = {}, np.random.default_rng(0)
    for name, size in {"resnet50": 64, "densenet121": 64, "vit_b_16": 224}.items():
        model = getattr(torchvision.models, name)()
        kinds = ("edge", "layer", "hidden")
        graph = ew.trace(model, (torch.randn(1, 3, size, size),), granularity=kinds)
        masks = [m for k in (1, 4, 8) for m in ew.sample_masks(graph, 20, removed=k, rng=rng)]
        found = []
        for mask in masks * 3:
            graph.derived.pop(ew.liveness, None)  # what it remembers of masks that it has seen
            begin = process_time()
            ew.liveness(graph, mask)
            found.append(process_time() - begin)
        taken[f"liveness of {name}"] = median(found)
        if name == "resnet50":
            some = [partial(ew.prune, graph, mask) for mask in masks[::12]]
            taken[f"prune of {name}"] = median(map(seconds, some))
            image = torch.randn(1, 3, size, size)
            taken[f"trace of {name}"] = seconds(partial(ew.trace, model, (image,)))
    model, images = torchvision.models.resnet18().eval(), torch.randn(32, 3, 32, 32)
    graph = ew.trace(model, (images[:1],))
    study = ew.Study(graph, ew.Objective([(images, torch.randint(0, 1000, (32,)))], losses))
    masks = ew.sample_masks(graph, 40, removed=3, rng=rng)
    begin = process_time()
    study.evaluate(masks)
    taken["40 masks of a resnet18"] = process_time() - begin
    begin = process_time()
    study.run(60, ew.Budget(macs=0.7), seed=1)
    taken["search of 60 evaluations"] = process_time() - begin
    return taken


def measured(source: Path) -> dict[str, float]:
    environment = os.environ | {"PYTHONPATH": str(source), "OMP_NUM_THREADS": "1"}
    words = [sys.executable, __file__, "--work"]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--before", type=Path, help="the other version's src folder")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--work", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        print(json.dumps(work()))
        return
    from machine import describe

    own = Path(__file__).resolve().parents[1] / "src"
    turns = [(measured(options.before), measured(own)) for _ in range(TURNS)]
    rows = []
    for what in turns[0][0]:
        before, now = (median(turn[side][what] for turn in turns) for side in (0, 1))
        row = {"what": what, "before_seconds": before, "now_seconds": now, "ratio": now / before}
        rows.append({k: round(v, 6) if isinstance(v, float) else v for k, v in row.items()})
        print(f"{what:<28} {row['ratio']:.2f}")
    text = json.dumps({"machine": describe(), "turns": TURNS, "rows": rows}, indent=1)
    options.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
