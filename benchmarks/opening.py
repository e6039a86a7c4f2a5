"""How long a stored study takes to open: what it belongs to is compared, and one mask measured.

A torchvision ResNet-18 on 128 images of 64 x 64, and a study of 500 stored evaluations, opened in
turns without the measurement and with it; and one evaluation of the unpruned network.

    python benchmarks/opening.py --out benchmarks/results/opening.json
"""

import argparse
import json
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter

import numpy as np
import torch
import torchvision
from torch.nn import functional as F

import edgewise as ew
from edgewise.evaluation.records import Evaluation
from edgewise.study import study as studies
from machine import describe

EVALUATIONS, REPEATS = 500, 7


def losses(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(outputs, targets, reduction="none")


def fill(study: ew.Study) -> None:
    """The unpruned network measured, and random masks with made-up losses beside it."""
    study.evaluate([study.graph.empty])
    rng, samples = np.random.default_rng(0), study.objective.samples("search")
    for mask in ew.sample_masks(study.graph, EVALUATIONS - 1, removed=4, rng=rng):
        each = rng.random(samples, dtype=np.float32)
        record = Evaluation(str(mask), "search", float(each.mean()), {}, samples, 0.1)
        study.storage.add(record, each)


def opened(make) -> float:
    begin = perf_counter()
    make()
    return perf_counter() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    out = parser.parse_args().out
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = torchvision.models.resnet18().eval()
    graph = ew.trace(model, (torch.randn(1, 3, 64, 64),))
    batches = [(torch.randn(64, 3, 64, 64), torch.randint(0, 1000, (64,))) for _ in range(2)]
    confirm, without, whole, one = studies.confirm, [], [], []
    with TemporaryDirectory() as folder:

        def make() -> ew.Study:
            url = f"sqlite:///{folder}/study.db"
            return ew.Study(graph, ew.Objective(batches, losses), url)

        study = make()
        fill(study)
        for _ in range(REPEATS):
            studies.confirm = lambda *_: None
            without.append(opened(make))
            studies.confirm = confirm
            whole.append(opened(make))
            fresh = ew.Study(graph, ew.Objective(batches, losses))
            one.append(opened(lambda fresh=fresh: fresh.evaluate([graph.empty])))
    taken = {"without": median(without), "opened": median(whole), "evaluation": median(one)}
    row = {f"{name}_seconds": round(value, 4) for name, value in taken.items()}
    extra = (taken["opened"] - taken["without"]) / taken["evaluation"]
    row |= {"evaluations": EVALUATIONS, "extra_in_evaluations": round(extra, 2)}
    out.write_text(json.dumps({"machine": describe(), "rows": [row]}, indent=1) + "\n")
    print(json.dumps(row, indent=1))


if __name__ == "__main__":
    main()
