"""Whether what is free in a network stays free: random networks at other batches and sizes.

Two kinds of networks of the tests: those whose sizes are all read from their inputs
(`tests/free_models.py`), and those that may write sizes out (`tests/random_models.py`). Each is
traced with all kinds of units; under no removal and under three random masks the pruned network is
compared with the masked one, and the masked one with nothing removed with the network itself, on
fresh inputs at three other batches and, where the network ran there, lengths or heights and widths.

    python benchmarks/free.py --networks 500 --out benchmarks/results/free.json
"""

import argparse
import json
import random
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import torch

import edgewise as ew
from edgewise.errors import NoUnitsError, ObjectiveError, TraceError
from edgewise.pruning.numbers import PLACES
from edgewise.pruning.prune import compare
from edgewise.testing import laws
from machine import describe

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from free_models import write_free
from random_models import random_plan, write

KINDS = ("edge", "layer", "hidden", "heads", "channels")
MASKS = 3


def free(seed: int) -> Any:
    """A network whose sizes are all read from its inputs."""
    rng = random.Random(seed)
    steps = [tuple(rng.randrange(120) for _ in range(8)) for _ in range(rng.randint(2, 7))]
    return write_free(seed, steps, seed)


NETWORKS = {"sizes read from inputs": free, "any": lambda seed: write(random_plan(seed))}


def outcome(reference: torch.nn.Module, module: torch.nn.Module, args: Any) -> str:
    """What happened at other sizes."""
    try:
        worst, allowed = compare(reference, module, args)
    except ObjectiveError as error:
        return "refused: places of a concatenation" if PLACES in str(error) else "refused"
    except Exception:
        try:
            compare(reference, reference, args)
        except Exception:
            return "the network itself does not run there"
        return "fails without a reason"
    return "equal" if worst <= allowed else "WRONG"


def of_network(recipe: Any, seed: int, found: Counter[str]) -> str:
    """Count what happens to one network at other sizes; the front end that traced it."""
    model, args = recipe.build(torch.float64)
    try:
        graph = ew.trace(model, args, granularity=KINDS, slices=3)
    except (NoUnitsError, TraceError) as error:
        return type(error).__name__
    rng = random.Random(seed)
    for other in laws.at_other_sizes(graph.program):
        found["unpruned: " + outcome(model, ew.masked(graph, graph.empty), other)] += 1
    for mask in (graph.empty, *(laws.random_mask(graph, rng) for _ in range(MASKS))):
        full, small = ew.masked(graph, mask), ew.prune(graph, mask)
        for other in laws.at_other_sizes(graph.program):
            result = outcome(full, small, other)
            found["pruned: " + result] += 1
            if result not in ("equal", "refused: places of a concatenation"):
                print(seed, result, mask, flush=True)
    return graph.frontend


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", type=int, default=500)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    rows = []
    for name, make in NETWORKS.items():
        found, front = Counter[str](), Counter[str]()
        for seed in range(options.networks):
            front[of_network(make(seed), seed, found)] += 1
        kinds = {"networks": options.networks, "traced by": dict(sorted(front.items()))}
        rows.append({"kind": name, **kinds, "at other sizes": dict(sorted(found.items()))})
        print(rows[-1], flush=True)
    record = {"machine": describe(), "masks": MASKS + 1, "rows": rows}
    options.out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
