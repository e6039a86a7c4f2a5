"""What of a model can be removed, and what a plan does to its modules."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from ..errors import ConfigError
from ..graph.cost import cost
from ..graph.graph import Graph
from ..graph.summary import COLUMNS, table
from ..graph.units import KINDS
from ..pruning.edits import from_dict
from ..pruning.module_form import without_module_form
from ..pruning.plan import Plan
from ..pruning.prune import Form
from ..tracing.trace import trace
from .job.config import parse_model
from .job.job import random_example
from .job.sources import load_model
from .job.texts import LENGTH
from .job.toml_sections import HF
from .screen import Screen

SIZES = {False: ["3", "224", "224"], True: [str(LENGTH)]}  # of an example: an image, or tokens
LINES = 40  # of the table, which then fits a screen
FORM = "own class"  # whether the unit has the module form


def trace_named(
    source: str, shape: str, weights: Path | None, granularity: str, part: str | None = None
) -> Graph:
    """The graph of a model named on the command line.

    Args:
        source: torchvision:NAME, timm:NAME, hf:FOLDER or FILE.py:FUNCTION.
        shape: of one input example, for instance "3,224,224"; of hf:FOLDER how many tokens.
        weights: a weights file.
        granularity: kinds of units, for instance "edge,layer".
        part: paths of the parts to trace, for instance "backbone,neck".

    Raises:
        ConfigError: any of them cannot be used.
    """
    kinds = [kind.strip() for kind in granularity.split(",")]
    if not set(kinds) <= set(KINDS):
        raise ConfigError(f"--granularity must list some of {', '.join(KINDS)}; got {granularity}.")
    sizes = shape.split(",") if shape else SIZES[source.startswith(HF)]
    if not all(size.strip().isdigit() for size in sizes):
        raise ConfigError(f"--input must be whole numbers such as 3,224,224; got {shape}.")
    if source.startswith(HF) and len(sizes) > 1:
        raise ConfigError(f"--input of {source} is a number of tokens; got {shape}.")
    table: dict[str, Any] = {"source": source, "input": [int(size) for size in sizes]}
    if weights is not None:
        table["weights"] = str(weights)
    section = parse_model(table, Path.cwd())
    parts, named = part.split(",") if part else None, {}
    args: Any = random_example(section.input or ())
    if source.startswith(HF):
        args, named = (), {"input_ids": torch.zeros_like(args, dtype=torch.int64)}
    return trace(load_model(section), args, named, granularity=kinds, part=parts)


def title(graph: Graph) -> str:
    """The graph's size and cost."""
    whole = cost(graph)
    return (
        f"{len(graph.vertices)} vertices, {len(graph.edges)} edges, {len(graph.units)} units; "
        f"{whole.params:,} params, {whole.macs:,} MACs, {whole.activation_bytes:,} bytes of "
        "activations"
    )


def show_units(screen: Screen, graph: Graph, form: Form, every: bool) -> None:
    """A table of a graph's blocks and, where they fit or every one is asked for, its units.

    For the module form also how many have it, and why others do not.
    """
    screen.put(**to_dict(graph))
    missing = without_module_form(graph) if form == "module" else {}
    if form == "module":
        screen.put(without_module_form=missing)
    rows = []
    for cells, units in table(graph.blocks, graph.units, None if every else LINES):
        served = sum(unit.name not in missing for unit in units)
        own = f"{served} of {len(units)}" if len(units) != 1 else "yes" if served else "no"
        rows.append([*cells, *([own if units else ""] if form == "module" else [])])
    columns = (*COLUMNS, *([FORM] if form == "module" else []))
    screen.table(title(graph), columns, rows, 2)
    for name, reason in missing.items():
        screen.show(f"{name}: {reason}")


def show_edits(screen: Screen, path: Path) -> None:
    """A table of what a plan does to each module, or why it has no module form.

    Raises:
        PlanError: it cannot be read.
    """
    edits = Plan.load(path).edits
    screen.put(edits=edits)
    if "modules" not in edits:
        why = edits.get("reason", "it does not say why")
        screen.show(f"{path.name} has no module form: {why}")
        return
    found = [[name or "(whole model)", str(edit)] for name, edit in from_dict(edits).items()]
    screen.table(f"Edits of {path.name}", ("module", "what becomes of it"), found, 2)


def to_dict(graph: Graph) -> dict[str, Any]:
    """The same as JSON-ready data."""
    return {
        "fingerprint": graph.fingerprint,
        "frontend": graph.frontend,
        "vertices": len(graph.vertices),
        "edges": len(graph.edges),
        "cost": asdict(cost(graph)),
        "units": [
            {"name": u.name, "label": u.label, "kind": u.kind, "block": u.block}
            | {"saves": asdict(u.cost)}
            for u in graph.units
        ],
    }
