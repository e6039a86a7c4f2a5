"""Which units can be removed in the model's own class, model by model.

Every model of the coverage benchmark is traced with edges, hidden channels and heads as units. Up
to 8 of each kind, drawn once, are removed one at a time in the model's own class, which is then
compared with the masked model on the example, at another batch and at every other length and image
size at which the model runs; a random mask of all that can be removed so, three times. What cannot
be is listed with the reason.

    python benchmarks/module_form.py zoo --out benchmarks/results/module_form.json
    python benchmarks/module_form.py timm --slice 1/4 --out benchmarks/results/module_form.json
"""

import argparse
import json
import random
import re
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import torch

import edgewise as ew
from architectures import SUITES, Architecture
from coverage import elsewhere, short
from edgewise.errors import FormError
from edgewise.pruning.module_form import in_own_class
from edgewise.testing import laws
from machine import describe

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from zoo import ZOO

KINDS, EACH = ("edge", "hidden", "heads"), 8
DETECTORS = re.compile("rcnn|fcos|retinanet|ssd")  # torchvision's, of which parts are traced


def zoo() -> list[Architecture]:
    """The tiny models of the project's own tests."""
    return [
        Architecture("zoo", name, name, lambda make=make: (*make(), {}))
        for name, make in ZOO.items()
    ]


def measure(architecture: Architecture, limit: float) -> dict[str, Any]:
    """One row: for each kind, units tried within half the limit, and those that have the form."""
    torch.manual_seed(0)
    model, args, kwargs = architecture.build()
    graph = ew.trace(model.eval(), args, kwargs, granularity=KINDS, slices=4)
    rng = random.Random(0)
    tried: Counter[str] = Counter()
    held: Counter[str] = Counter()
    reasons: dict[str, str] = {}
    names: list[str] = []
    begin = time.perf_counter()
    for unit in rng.sample(graph.units, len(graph.units)):
        if tried[unit.kind] < EACH and time.perf_counter() - begin < limit / 2:
            tried[unit.kind] += 1
            names.append(unit.name)
            try:
                in_own_class(graph, graph.mask([unit.name]), {})
                held[unit.kind] += 1
            except FormError as reason:
                reasons[unit.name] = kind_of(str(reason))
    known = [name for name in names if name not in reasons]
    restricted = graph.select(lambda unit: unit.name in known) if held else graph
    joint = []
    for _ in range(3 if held else 0):
        try:
            in_own_class(restricted, laws.random_mask(restricted, rng), {})
            joint.append("")
        except FormError as reason:
            joint.append(kind_of(str(reason)))
    return {
        "units": dict(Counter(unit.kind for unit in graph.units)),
        "tried": dict(tried),
        "held": dict(held),
        "sizes": len(graph.program.sizes),
        "reasons": reasons,
        "joint": joint,
    }


def kind_of(reason: str) -> str:
    """A reason without what differs from unit to unit."""
    return re.sub(r"\. (That is unit|Removed:).*", "", short(reason))


def allowed(row: dict[str, Any]) -> float:
    """The seconds in which a model could not be tried; infinite where it could, or failed."""
    found = re.fullmatch(r"over (\d+) s", row.get("error", ""))
    return float(found[1]) if found else float("inf")


def read(path: Path | None) -> list[dict[str, Any]]:
    """The rows of a file that may not exist yet."""
    return json.loads(path.read_text())["rows"] if path and path.exists() else []


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    """Add rows to the file; rows of the same model are replaced."""
    merged = {(row["suite"], row["name"]): row for row in [*read(path), *rows]}
    record = {"machine": describe(), "rows": [merged[key] for key in sorted(merged)]}
    path.write_text(json.dumps(record, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("suite", choices=["zoo", *sorted(SUITES)])
    parser.add_argument("--slice", default="1/1", help="part of the suite: 2/4 is the second of 4")
    parser.add_argument("--only", help="only models whose name contains this")
    parser.add_argument("--limit", type=float, default=80, help="seconds for one model")
    parser.add_argument(
        "--missing", action="store_true",
        help="only models without a row in --out, or whose time was less than --limit",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, help="the JSON file to add rows to")
    options = parser.parse_args()
    part, parts = map(int, options.slice.split("/"))
    suite = zoo() if options.suite == "zoo" else SUITES[options.suite]()
    done = {
        (row["suite"], row["name"]) for row in (read(options.out) if options.missing else ())
        if allowed(row) >= options.limit
    }  # fmt: skip
    suite = [a for a in suite if a.suite != "torchvision" or not DETECTORS.search(a.name)]
    for architecture in [a for a in suite if (options.only or "") in a.name][part - 1 :: parts]:
        if (architecture.suite, architecture.name) in done:
            continue
        row = elsewhere(lambda a=architecture: measure(a, options.limit), options.limit)
        row = {"suite": architecture.suite, "name": architecture.name, **row}
        print({k: v for k, v in row.items() if k != "reasons"}, flush=True)
        if options.out:
            write(options.out, [row])


if __name__ == "__main__":
    main()
