"""What identifies a traced network in a plan or a study, as plain data."""

from __future__ import annotations

import hashlib
from typing import Any

import torch

from .architecture import operators, parameters
from .graph import Graph, Unit


def weights_digest(graph: Graph) -> str:
    """SHA-256 of all weights and buffers of a traced model."""
    digest = hashlib.sha256()
    for name, tensor in sorted(graph.program.module.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b"")
    return digest.hexdigest()


def trace_record(graph: Graph) -> dict[str, Any]:
    """What is needed to trace the model again: granularity, units, names and shapes of inputs.

    Parameters and operators are there to say how another network differs.
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
        "widths": [_width_record(unit) for unit in graph.units if unit.group],
        "inputs": inputs,
        "constants": {k: v for k, v in program.fixed.items() if isinstance(v, plain)},
        "tensors_only": len(inputs) == len(program.args),
        "parameters": parameters(graph),
        "operators": operators(graph),
    }


def _width_record(unit: Unit) -> list[Any]:
    """A width as plain data: its channels were ordered by weights that a factory may not have."""
    slices = [[v, s.axis, list(s.channels)] for v, s in zip(unit.members, unit.slices, strict=True)]
    return [unit.name, unit.kind, unit.group, slices]
