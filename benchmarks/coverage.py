"""Which architectures edgewise prunes, proved model by model on small inputs and random weights.

For every model: the front end that traced it, the size of its graph, its units, the seconds it took
to trace, and for five random valid masks the largest relative difference of the pruned and the
masked model, whether parameters and MACs are exactly those counted on the pruned module, and
whether the pruned model exports to ONNX (tried up to 30 million parameters). Where something fails,
the reason stands in its place.

    python benchmarks/coverage.py torchvision --out benchmarks/results/coverage.json
    python benchmarks/coverage.py timm --slice 1/4 --out benchmarks/results/coverage.json
    python benchmarks/coverage.py transformers --only bert --no-onnx
    python benchmarks/coverage.py timm --widths --out benchmarks/results/coverage.json
    python benchmarks/coverage.py transformers --free --out benchmarks/results/coverage.json

With --free, what is free is tried: all kinds of units are offered, and under no removal and two
random masks the pruned network is compared with the masked one, and the unpruned one with the
model, at other batches and, where the model itself runs there, at two other lengths, heights and
widths. The result is added to the model's row, too.

With --widths the models also offer hidden channels, heads and coupled channels, in four slices, and
two random masks of all kinds of units are tried; the result is added to the model's row.

Every model runs in a process of its own, and rows already in --out are replaced.
"""

import argparse
import json
import multiprocessing
import random
import re
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import edgewise as ew
from architectures import SUITES, Architecture
from coverage_page import passed
from edgewise.errors import EdgewiseError, ObjectiveError
from edgewise.pruning.prune import rewritten
from edgewise.pruning.verify import compare
from edgewise.testing import laws
from edgewise.tracing.agreement import drawn
from machine import describe

MASKS, LIMIT_SECONDS, ONNX_PARAMETERS = 5, 900, 30_000_000


def measure(
    architecture: Architecture, onnx: bool, double: bool, masks: int = MASKS
) -> dict[str, Any]:
    """One row of the table."""
    torch.manual_seed(0)
    model, args, kwargs = architecture.build()
    model.eval()
    if double:
        model, args, kwargs = as_double(model), as_double(args), as_double(kwargs)
    row: dict[str, Any] = {"parameters": sum(p.numel() for p in model.parameters())}
    begin = time.perf_counter()
    graph = ew.trace(model, args, kwargs)
    row |= {
        "frontend": graph.frontend,
        "vertices": len(graph.vertices),
        "edges": len(graph.edges),
        "units": dict(Counter(unit.kind for unit in graph.units)),
        "trace_seconds": round(time.perf_counter() - begin, 2),
    }
    row |= masks_of(graph, masks)
    if not onnx or row["parameters"] > ONNX_PARAMETERS:
        return row
    return row | onnx_of(graph)


def as_double(value: Any) -> Any:
    if isinstance(value, torch.nn.Module):
        return value.double()
    return torch.utils._pytree.tree_map(
        lambda v: v.double() if isinstance(v, torch.Tensor) and v.is_floating_point() else v, value
    )


def masks_of(graph: ew.Graph, masks: int) -> dict[str, Any]:
    """Law 2 (pruned is masked) and law 3 (cost is exact) on random valid masks."""
    rng = random.Random(0)
    worst, problems = 0.0, []
    exact = {"params_exact": True, "macs_exact": True}
    for _ in range(masks):
        mask = laws.random_mask(graph, rng)
        small = rewritten(graph, mask, {})
        difference, allowed = compare(ew.masked(graph, mask), small, graph.program.args)
        worst = max(worst, difference)
        if not difference <= allowed:
            problems.append(f"pruned and masked differ by {difference:.2g} (allowed {allowed:g})")
        counted = ew.cost(graph, mask)
        params = sum(p.numel() for p in small.parameters())
        macs = laws.count_macs(small, laws.one_example(graph))
        exact["params_exact"] &= params == counted.params
        exact["macs_exact"] &= macs == counted.macs
        if params != counted.params:
            problems.append(f"{params} parameters, {counted.params} predicted")
        if macs != counted.macs:
            problems.append(f"{macs} MACs, {counted.macs} predicted")
    return {"max_difference": worst, **exact, "problem": "; ".join(dict.fromkeys(problems))}


def with_widths(architecture: Architecture, double: bool) -> ew.Graph:
    """The graph of a model that offers its widths as well."""
    torch.manual_seed(0)
    model, args, kwargs = architecture.build()
    if double:
        model, args, kwargs = as_double(model), as_double(args), as_double(kwargs)
    kinds = ("edge", "hidden", "heads", "channels")
    return ew.trace(model.eval(), args, kwargs, granularity=kinds, slices=4)


def measure_widths(architecture: Architecture, double: bool) -> dict[str, Any]:
    """The widths that a model offers, and whether laws 2 and 3 hold when they are removed too."""
    graph = with_widths(architecture, double)
    found = masks_of(graph, 2)
    sets = Counter(graph.units[group[0]].kind for group in graph.nested)
    return {"widths": dict(sets), "width_difference": found["max_difference"],
            "width_problem": found["problem"]}  # fmt: skip


AXES = {2: ("batch", "length"), 3: ("batch", "length", "features"),
        4: ("batch", "channels", "height", "width"),
        5: ("batch", "channels", "frames", "height", "width")}  # fmt: skip


def measure_free(architecture: Architecture, double: bool) -> dict[str, Any]:
    """Which sizes are free in a pruned model, of those that are in the model itself (law 8)."""
    graph = with_widths(architecture, double)
    program, rng = graph.program, random.Random(0)
    masks = [graph.empty, *(laws.random_mask(graph, rng) for _ in range(2))]
    pairs = [(ew.masked(graph, mask), ew.prune(graph, mask)) for mask in masks]
    results: dict[str, set[str]] = {"batch": set()}
    tried: list[tuple[list[str], int, Any]] = []
    if not program.takes:
        tried += [(["batch"], 1, {}), (["batch"], program.batch + 2, {})]
    leaves = torch.utils._pytree.tree_leaves(program.args)
    for varied in program.sizes:
        names = [AXES[leaves[place].ndim][axis] for place, axis in varied]
        near = {
            (p, a): leaves[p].shape[a] + (n - leaves[p].shape[a]) * 2
            for (p, a), n in varied.items()
        }
        least = all(size > 0 for size in near.values())
        tried += [(names, program.batch, sizes) for sizes in [varied] + [near] * least]
    for names, batch, sizes in tried:
        inputs = drawn(program.args, program.batch, batch, sizes)
        for name in names:
            results.setdefault(name, set()).update(
                outcomes(program.model, pairs, inputs, program.names)
            )
    return {
        "free": sorted(name for name, found in results.items() if found == {"equal"}),
        "told": list(dict.fromkeys(text for text in graph.fixed if "argument" not in text)),
        "free_problem": "; ".join(
            f"{name}: {', '.join(sorted(found - {'equal'}))}"
            for name, found in results.items()
            if found - {"equal"}
        ),
    }


def outcomes(model: Any, pairs: Any, inputs: Any, names: tuple[str, ...]) -> set[str]:
    """What pruned networks do on inputs: the same as masked ones, refuse, or something else."""
    found = set()
    unpruned = Named(model, names)
    for reference, module in [(unpruned, pairs[0][1]), *pairs]:
        try:
            worst, allowed = compare(reference, module, inputs)
        except ObjectiveError as error:
            found.add(f"refused ({short(str(error))})")
        except Exception as error:
            try:
                compare(reference, reference, inputs)
            except Exception:
                continue  # the model itself takes no such size
            found.add(f"fails ({short(str(error))})")
        else:
            allowed *= 10 if reference is unpruned else 1
            found.add("equal" if worst <= allowed else f"differs by {worst:.2g}")
    return found


class Named(torch.nn.Module):
    """A model that takes its inputs in the order of a program."""

    def __init__(self, model: torch.nn.Module, names: tuple[str, ...]) -> None:
        super().__init__()
        self.model, self.names = model, names

    def forward(self, *inputs: Any) -> Any:
        return self.model(**dict(zip(self.names, inputs, strict=True)))


def onnx_of(graph: ew.Graph) -> dict[str, Any]:
    small = ew.prune(graph, laws.random_mask(graph, random.Random(1)))
    with tempfile.TemporaryDirectory() as folder:
        try:
            written = ew.export(small, Path(folder) / "model.onnx")
        except Exception as error:
            return {"onnx": f"{type(error).__name__}: {short(str(error))}"}
    return {"onnx": True, "opset": written.opset, "onnx_difference": written.difference}


def short(text: str) -> str:
    """The first line of a message, and that of the other front end, without paths of a machine."""
    text = re.sub(r"\x1b\[\d+m|(/[\w.+-]+)+/site-packages/", "", text)
    text = re.sub(r"(?<![\w.])/[\w./+-]*/(?=\w+\.py:\d)", "", text)
    lines = [line.strip()[:300] for line in text.splitlines() if line.strip()]
    return " ".join(lines[:1] + [line for line in lines[1:] if "other front end" in line])


def _worker(pipe: Any, work: Callable[[], dict[str, Any]]) -> None:
    try:
        pipe.send(work())
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        where = "" if isinstance(error, EdgewiseError) else f" at {place.filename}:{place.lineno}"
        pipe.send({"error": short(f"{type(error).__name__}{where}: {error}")})


def elsewhere(work: Callable[[], dict[str, Any]], seconds: float = LIMIT_SECONDS) -> dict[str, Any]:
    """What work returns in another process, which may take too long or die."""
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe()
    process = context.Process(target=_worker, args=(there, work))
    process.start()
    there.close()
    row: dict[str, Any]
    try:
        row = here.recv() if here.poll(seconds) else {"error": f"over {seconds:g} s"}
    except EOFError:
        row = {"error": "the process died (out of memory?)"}
    process.kill()
    process.join()
    return row


def run(architecture: Architecture, onnx: bool, double: bool = False) -> dict[str, Any]:
    """A row of the table."""
    begin = time.perf_counter()
    row = elsewhere(lambda: measure(architecture, onnx, double))
    names = {"suite": architecture.suite, "name": architecture.name, "family": architecture.family}
    precision = {"precision": "float64"} if double else {}
    return {**names, **precision, **row, "seconds": round(time.perf_counter() - begin, 1)}


def run_part(architecture: Architecture, double: bool, free: bool) -> dict[str, Any]:
    """The part of a row that is about widths, or about what is free."""
    names = {"suite": architecture.suite, "name": architecture.name}
    names |= {"precision": "float64"} if double else {}
    measured, problem = (
        (measure_free, "free_problem") if free else (measure_widths, "width_problem")
    )
    found = elsewhere(lambda: measured(architecture, double), LIMIT_SECONDS / (5 if free else 9))
    return {**names, **({problem: found["error"]} if "error" in found else found)}


def line(row: dict[str, Any]) -> str:
    if "error" in row:
        return f"FAIL {row['name']}: {row['error']}"
    text = "ok  " if passed(row) else "FAIL"
    text += f" {row['name']}: {row['frontend']}, {row['vertices']} vertices, {row['units']}, "
    text += f"trace {row['trace_seconds']} s, difference {row['max_difference']:.1e}"
    onnx = row.get("onnx")
    text += "" if onnx is None else ", ONNX" if onnx is True else f", no ONNX: {onnx}"
    return text + (f"; {row['problem']}" if row["problem"] else "")


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    """Add rows to the file; rows of the same model are replaced."""
    record = json.loads(path.read_text()) if path.exists() else {"rows": []}
    old = record["rows"]

    def key(row: dict[str, Any]) -> tuple[str, str, str]:
        return row["suite"], row["name"], row.get("precision", "float32")

    merged = {key(row): row for row in old}
    for row in rows:
        part = "width_problem" in row or "free_problem" in row
        before = merged.get(key(row), {}) if part else {}
        merged[key(row)] = {**before, **row}
    place = "free_machine" if any("free_problem" in row for row in rows) else "machine"
    record = {**record, place: describe(), "rows": [merged[k] for k in sorted(merged)]}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("suite", choices=sorted(SUITES))
    parser.add_argument("--slice", default="1/1", help="part of the suite: 2/4 is the second of 4")
    parser.add_argument("--only", help="only models whose name contains this")
    parser.add_argument("--out", type=Path, help="the JSON file to add rows to")
    parser.add_argument("--no-onnx", action="store_true")
    parser.add_argument("--widths", action="store_true", help="add what widths give to the rows")
    parser.add_argument("--free", action="store_true", help="add which sizes are free")
    parser.add_argument("--double", action="store_true", help="float64, where 1e-10 is allowed")
    options = parser.parse_args()
    part, parts = map(int, options.slice.split("/"))
    chosen = [a for a in SUITES[options.suite]() if not options.only or options.only in a.name]
    rows = []
    for architecture in chosen[part - 1 :: parts]:
        if options.widths or options.free:
            found = run_part(architecture, options.double, options.free)
            print({k: found[k] for k in found if k != "suite"}, flush=True)
            write(options.out, [found])
            continue
        rows.append(run(architecture, not options.no_onnx, options.double))
        print(line(rows[-1]), flush=True)
        if options.out:
            write(options.out, rows[-1:])
    print(f"{sum(map(passed, rows))} of {len(rows)} pass")


if __name__ == "__main__":
    main()
