"""What identifies a traced network in a plan or a study, as plain data."""

from dataclasses import astuple
from typing import Any

import torch

from ..evaluation.objective import Objective
from ..graph.graph import Graph, Unit
from ..tracing.architecture import operators, parameters, unsaved
from ..values.description import content, digest, lines
from ..values.identity import Identity


def weights(graph: Graph) -> tuple[str, ...]:
    """One line a tensor of a traced model, also of those that no state dict keeps.

    Of the model around a part there is one line for all that it consists of.
    """
    module = graph.program.module
    saved = sorted(module.state_dict().items())
    whole = graph.program.whole
    around = () if whole is None else (f"around it: {digest(lines('', whole.rest))}",)
    return (*(f"{name}: {_content(value)}" for name, value in saved), *unsaved(module), *around)


def _content(value: Any) -> str:
    """What an entry of a state dict holds; modules may add what is no tensor."""
    return content(value) if isinstance(value, torch.Tensor) else digest(lines("", value))


def weights_digest(graph: Graph) -> str:
    """SHA-256 of all tensors of a traced model."""
    return digest(weights(graph))


def identity(graph: Graph, objective: Objective) -> Identity:
    """What the evaluations of a study hold for."""
    parts = {"graph": graph.settings, "weights": weights(graph), "objective": objective.identity}
    return Identity.of(graph.structure, parts)


def trace_record(graph: Graph) -> dict[str, Any]:
    """What is needed to trace the model again: granularity, units, names and shapes of inputs.

    The last four are there to say how another network differs.
    """
    program = graph.program
    placeholders = program.module.graph.find_nodes(op="placeholder")
    inputs = [
        [str(node.target), list(value.shape), str(value.dtype).removeprefix("torch.")]
        for node, value in zip(placeholders, program.args, strict=False)
        if isinstance(value, torch.Tensor)
    ]
    plain = (bool, int, float, str, type(None))
    return {
        "granularity": list(graph.granularity),
        "frontend": graph.frontend,
        "units": [unit.name for unit in graph.units],
        "widths": [_record(unit) for unit in graph.units if unit.group and not unit.tied],
        "ties": [
            [*_record(unit), sorted(unit.removal.edges), sorted(unit.removal.layers)]
            for unit in graph.units
            if unit.tied
        ],
        "inputs": inputs,
        "constants": {k: v for k, v in program.fixed.items() if isinstance(v, plain)},
        "tensors_only": len(inputs) == len(program.args),
        "parameters": parameters(graph),
        "operators": operators(graph),
        "settings": list(graph.settings),
        "unsaved": list(unsaved(program.module)),
        "part": [] if program.whole is None else [list(astuple(p)) for p in program.whole.parts],
    }


def _record(unit: Unit) -> list[Any]:
    """What a unit cuts as plain data: its channels were ordered by weights that may be others."""
    slices = [[*place, sorted(cut)] for place, cut in unit.removal.channels.items()]
    return [unit.name, unit.kind, unit.group, slices]
