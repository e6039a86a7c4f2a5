"""Pruned parts in their places in the whole model."""

from typing import Any

from torch import fx, nn
from torch.fx.graph_module import _USER_PRESERVED_ATTRIBUTES_KEY as PRESERVED

from ..errors import VerificationError
from ..graph.graph import Graph
from ..tracing.program import Program, as_module, attribute, set_modes
from ..tracing.signature import Traced, as_traced, sign
from ..tracing.whole import Part
from .edited import marked
from .verify import compare, rounding


def in_place(graph: Graph, small: nn.Module, full: nn.Module) -> nn.Module:
    """The whole model with the traced parts as a network of them has them, verified.

    Raises:
        VerificationError: the whole model gives something else with the two.
    """
    program: Program = graph.program
    whole = program.whole
    assert whole is not None
    split: Any = _split if isinstance(small, fx.GraphModule) else _taken
    model = whole.holding([split(small, program, number) for number in range(len(whole.parts))])
    if edits := getattr(small, "edgewise_edits", None):
        marked(model, edits[-1], {})
    if whole.example is not None:
        own: Any = whole.around(full)
        args, kwargs = whole.example
        difference, allowed = compare(own, model, args, kwargs)
        if not (difference <= allowed or rounding(own, model, args, kwargs)):
            raise VerificationError(
                f"{whole.name} with its part pruned differs by {difference:.3g} (relative; allowed "
                f"{allowed:g}) from itself with the part masked, although the parts agree. Nothing "
                "is returned. Does it read more of the part than it gets by calling it?"
            )
    return model


def _taken(small: nn.Module, program: Program, number: int) -> nn.Module:
    """A part of the user's own class."""
    whole: Any = program.whole
    part: Part = whole.parts[number]
    module = small.get_submodule(part.path)
    example = dict(zip(program.names, program.args, strict=True)) | dict(program.fixed)
    named: Any = module
    named.edgewise_example = {own: example[n] for own, n in zip(part.own, part.names, strict=True)}
    return module


def _split(small: fx.GraphModule, program: Program, number: int) -> fx.GraphModule:
    """A program of parts as that of one of them, its modules named as in that part."""
    whole: Any = program.whole
    part, stand = whole.parts[number], whole.rest.get_submodule(whole.paths[number])
    names = dict(zip(part.names, part.own, strict=True))
    graph = fx.Graph()
    value: Any = graph.graph_copy(small.graph, {})
    value = value if len(whole.parts) == 1 else value[number]
    if whole.written:  # by the model, into what the part gives; it may be what the part was given
        value = fx.map_arg(value, lambda n: n if n.op == "call_module" else _cloned(graph, n))
    graph.output(value)
    for node in reversed(list(graph.nodes)):
        if node.op == "placeholder":
            node.target = names.get(str(node.target), node.target)
        if node.target is as_traced or not (node.users or node.op == "output"):
            graph.erase_node(node)
    attributes = {}
    for node in graph.nodes:
        if node.op in ("call_module", "get_attr"):
            own = str(node.target).removeprefix(part.path).removeprefix(".") or "module"
            attributes[own] = attribute(small, str(node.target))
            node.target = own
    traced: Traced = small.meta["edgewise_traced"].only(names, whole.given)
    sign(graph, traced)
    module = as_module(attributes, graph, type(stand).__name__)
    inputs = zip(program.names, program.args, strict=True)
    args = traced.positional(tuple(given for name, given in inputs if name in names))
    kept = {k: v for k, v in vars(stand).items() if k not in {*vars(module), "forward"}}
    module.__dict__.update(kept)  # what the model reads of the part besides calling it
    module.meta |= {"edgewise_args": args, "edgewise_traced": traced, PRESERVED: kept}
    modes = program.modes.items()
    own_modes = {
        k[len(part.path) + 1 :]: v for k, v in modes if f"{k}.".startswith(f"{part.path}.")
    }
    set_modes(module, own_modes)
    return module


def _cloned(graph: fx.Graph, node: fx.Node) -> fx.Node:
    return graph.call_method("clone", (node,))
