"""What of a model can be removed, and what a plan does to its modules."""

from __future__ import annotations

import re
from collections.abc import Container
from dataclasses import asdict
from itertools import groupby
from math import prod
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from ..graph.cost import cost, full_macs
from ..graph.graph import Graph, Unit
from ..graph.units import KINDS
from ..pruning.edits import from_dict
from ..pruning.module_form import without_module_form
from ..pruning.plan import Plan
from ..pruning.prune import Form
from ..tracing.trace import trace
from .job.config import parse_model
from .job.job import random_example
from .job.sources import load_model
from .screen import Screen

COLUMNS = ("block or removable unit", "kind", "params", "MACs", "share")
FORM = "own class"  # whether the unit has the module form
OLDER = "it was made before plans had one; `edgewise prune --form module` looks for it"


def trace_named(source: str, shape: str, weights: Path | None, granularity: str) -> Graph:
    """The graph of a model named on the command line.

    Args:
        source: torchvision:NAME, timm:NAME or FILE.py:FUNCTION.
        shape: of one input example, for instance "3,224,224".
        weights: a weights file.
        granularity: kinds of units, for instance "edge,layer".

    Raises:
        ConfigError: any of them cannot be used.
    """
    kinds = [kind.strip() for kind in granularity.split(",")]
    if not set(kinds) <= set(KINDS):
        raise ConfigError(f"--granularity must list some of {', '.join(KINDS)}; got {granularity}.")
    sizes = shape.split(",")
    if not all(size.strip().isdigit() for size in sizes):
        raise ConfigError(f"--input must be whole numbers such as 3,224,224; got {shape}.")
    table: dict[str, Any] = {"source": source, "input": [int(size) for size in sizes]}
    if weights is not None:
        table["weights"] = str(weights)
    section = parse_model(table, Path.cwd())
    return trace(load_model(section), random_example(section.input or ()), granularity=kinds)


def block(unit: Unit) -> str:
    """The module that a unit belongs to: that of the last vertex in its name."""
    name = (unit.group or unit.name).rpartition(":")[2]
    last = re.split(r"\.\.|->", name)[-1]
    return last.rpartition(".")[0]


def title(graph: Graph) -> str:
    """The graph's size and cost in a line or two."""
    whole = cost(graph)
    return (
        f"{len(graph.vertices)} vertices, {len(graph.edges)} edges, {len(graph.units)} units\n"
        f"{whole.params:,} params, {whole.macs:,} MACs, {whole.activation_bytes:,} bytes of "
        "activations"
    )


def show_units(screen: Screen, graph: Graph, form: Form) -> None:
    """A table of a graph's units; for the module form also those without it, and why."""
    screen.put(**to_dict(graph))
    if form == "program":
        screen.table(title(graph), COLUMNS, rows(graph), 2)
        return
    missing = without_module_form(graph)
    screen.put(without_module_form=missing)
    screen.table(title(graph), (*COLUMNS, FORM), rows(graph, missing), 2)
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
        screen.show(f"{path.name} has no module form: {edits.get('reason', OLDER)}")
        return
    found = [[name or "(whole model)", str(edit)] for name, edit in from_dict(edits).items()]
    screen.table(f"Edits of {path.name}", ("module", "what becomes of it"), found, 2)


def rows(graph: Graph, missing: Container[str] | None = None) -> list[list[str]]:
    """A row a block with what it costs, and below it its units with what removing each saves.

    Args:
        graph: the traced graph.
        missing: units without the module form, where a last column tells that.
    """
    total = max(cost(graph).macs, 1)
    found: list[list[str]] = []
    for name, units in groupby(graph.units, block):
        whole = _figures(*_block_cost(graph, name), total)
        found.append([name or "(whole model)", "block", *whole, *([""] * (missing is not None))])
        for unit in units:
            saved = _figures(unit.cost.params, unit.cost.macs, total)
            own = [] if missing is None else ["no" if unit.name in missing else "yes"]
            found.append([f"  {unit.name}", unit.kind, *saved, *own])
    return found


def _figures(params: int, macs: int, total: int) -> list[str]:
    return [f"{params:,}", f"{macs:,}", f"{macs / total:.1%}"]


def _block_cost(graph: Graph, name: str) -> tuple[int, int]:
    """Parameters and MACs of all vertices in a module."""
    inside = [i for i, v in enumerate(graph.vertices) if v.name.startswith(f"{name}." * bool(name))]
    params = {p.name: p.shape for i in inside for p in graph.vertices[i].params if not p.buffer}
    return sum(map(prod, params.values())), sum(full_macs(graph, i) for i in inside)


def to_dict(graph: Graph) -> dict[str, Any]:
    """The same as JSON-ready data."""
    return {
        "fingerprint": graph.fingerprint,
        "frontend": graph.frontend,
        "vertices": len(graph.vertices),
        "edges": len(graph.edges),
        "cost": asdict(cost(graph)),
        "units": [
            {"name": u.name, "kind": u.kind, "block": block(u), "saves": asdict(u.cost)}
            for u in graph.units
        ],
    }
