"""What a plan keeps of a network, so that another one can be told where it differs."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import fx, nn

from ..graph.graph import Graph
from ..graph.operators.runtime import precision
from ..graph.vertices import Vertex
from ..values.description import brief, content, hooks_of, settings_of
from .program import attribute


def parameters(graph: Graph) -> list[str]:
    """One line a parameter in the order in which operators read them: "stem.0.weight: 8x3x3x3"."""
    lines = [
        f"{parameter.name}: {_shape(parameter.shape)}"
        for vertex in graph.vertices
        for parameter in vertex.params
        if not parameter.buffer
    ]
    return list(dict.fromkeys(lines))


def operators(graph: Graph) -> list[str]:
    """One line an operator: its name, what it calls, the shape it gives and what it reads."""
    return [_line(graph, index, vertex) for index, vertex in enumerate(graph.vertices)]


def settings(module: fx.GraphModule) -> tuple[str, ...]:
    """One line an operator of a program: what it calls, with which settings and constants.

    Neither weights nor devices enter, nor does their own precision.
    """
    own = next((p.dtype for p in module.parameters() if p.is_floating_point()), None)
    found = []
    for node in module.graph.nodes:
        if node.op in ("placeholder", "get_attr") or node.target is precision:
            continue
        if node.op == "call_module":
            called = _module_settings(module.get_submodule(str(node.target)))
        elif node.op == "call_method":
            called = f"Tensor.{node.target}"
        else:
            called = brief(node.target)
        given = [_argument(a, own) for a in node.args]
        given += [f"{name}={_argument(a, own)}" for name, a in sorted(node.kwargs.items())]
        found.append(f"{node.name}: {called} of ({', '.join(given)})")
    return tuple(found)


def unsaved(module: fx.GraphModule) -> tuple[str, ...]:
    """One line for each tensor that a program reads and no state dict has: "shift: float32 1 …".

    These are the buffers that are not saved, and tensors that the model's code made when traced.
    """
    saved = module.state_dict().keys()
    found = {name: tensor for name, tensor in module.named_buffers() if name not in saved}
    for node in module.graph.nodes:
        target = str(node.target)
        if node.op == "get_attr" and target not in saved:
            value = attribute(module, target)
            found |= {target: value} if isinstance(value, torch.Tensor) else {}
        elif node.op == "call_module":
            for name, value in _plain_settings(module.get_submodule(target)):
                found |= {f"{target}.{name}": value} if isinstance(value, torch.Tensor) else {}
    return tuple(f"{name}: {content(found[name])}" for name in sorted(found))


def _module_settings(module: nn.Module) -> str:
    """A layer with its settings, hooks and layers: "LeakyReLU(negative_slope=0.01)"."""
    given = [
        f"{name}={brief(value)}"
        for name, value in _plain_settings(module)
        if not isinstance(value, torch.Tensor)
    ]
    given += [f"{name}: {brief(hooks)}" for name, hooks in hooks_of(module).items()]
    given += [f"{name}={_module_settings(part)}" for name, part in module.named_children()]
    kind = type(module)
    called = kind.__qualname__ if kind.__module__.startswith("torch.") else brief(kind)
    return f"{called}({', '.join(given)})"


def _plain_settings(module: nn.Module) -> list[tuple[str, Any]]:
    """Attributes of a layer that decide what it computes; torch derives its private ones."""
    private = type(module).__module__.startswith("torch.")
    names = (n for n in settings_of(module) if not (private and n.startswith("_")))
    return [(name, getattr(module, name)) for name in names if name not in ("device", "dtype")]


def _argument(value: Any, own: torch.dtype | None) -> str:
    if isinstance(value, fx.Node):
        limit = value.args[1:]
        if value.target is not precision:
            return f"%{value.name}"
        return (
            repr(getattr(torch.finfo(own), str(limit[0])))
            if own and limit
            else "the weights' dtype"
        )
    if isinstance(value, torch.device):
        return "device"
    if isinstance(value, torch.dtype):
        return "the weights' dtype" if value == own else str(value)
    if isinstance(value, tuple | list):
        return f"[{', '.join(_argument(part, own) for part in value)}]"
    if isinstance(value, slice):
        ends = (value.start, value.stop, value.step)
        return f"slice({', '.join(_argument(end, own) for end in ends)})"
    if isinstance(value, dict):
        parts = (f"{name}: {_argument(part, own)}" for name, part in value.items())
        return f"{{{', '.join(parts)}}}"
    return repr(value) if isinstance(value, bool | int | float | str | None) else brief(value)


def other_parameter(lines: Sequence[str], model: nn.Module) -> str | None:
    """The first parameter that a model lacks or has in another shape, in words; None if none."""
    own = {name: _size(p) for name, p in model.named_parameters(remove_duplicate=False)}
    for name, shape in (line.rsplit(": ", 1) for line in lines):
        if name not in own:
            return f"it has no parameter {name!r} ({shape})"
        if own[name] != shape:
            return f"parameter {name!r} is {own[name]} instead of {shape}"
    return None


def other_constant(stored: Sequence[str], graph: Graph) -> str | None:
    """The first tensor without a place in a state dict that differs; one of another dtype may."""
    now = dict(line.split(": ", 1) for line in unsaved(graph.program.module))
    for name, was in (line.split(": ", 1) for line in stored):
        own = now.get(name)
        if own is None:
            return f"it has no buffer {name!r} ({was})"
        if own.split()[0] == was.split()[0] and own != was:
            return f"buffer {name!r}, which no state dict keeps, was {was} and is {own}"
    return None


def _line(graph: Graph, index: int, vertex: Vertex) -> str:
    sources = (graph.vertices[graph.edges[edge].source].name for edge in graph.inputs[index])
    shape = "" if vertex.shape is None else f" {_shape(vertex.shape)}"
    return f"{vertex.name}: {vertex.target}{shape} of {', '.join(sources) or 'nothing'}"


def _size(parameter: nn.Parameter) -> str:
    lazy = isinstance(parameter, nn.UninitializedParameter)
    return "not initialised" if lazy else _shape(parameter.shape)


def _shape(sizes: Sequence[Any]) -> str:
    return "x".join(map(str, sizes)) or "scalar"
