"""Programs that follow the precision of their network, although they were traced in one.

Tracing writes `x.to(y.dtype)` down as `x.to(torch.float32)`, and leaves it out where x was that.
The same network traced in another precision tells which of these the model's code wrote so itself.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional as F
from torch.utils import _pytree as pytree

from ..errors import TraceError
from ..graph.operators.runtime import precision
from .train_eval import aligned, merged

DTYPE = "edgewise_dtype"  # of what a node gives, where that is known
IDLE = "edgewise_idle"  # marks a conversion into the dtype that its input has already
OTHERS = (torch.bfloat16, torch.float64)  # some models call other kernels in half precision
LIMITS = ("min", "max", "eps", "tiny")  # of a dtype, that are written down as numbers


def follow_dtypes(
    module: fx.GraphModule,
    inputs: Mapping[str, Any],
    trace_again: Callable[[torch.dtype], fx.Graph],
) -> None:
    """Make dtypes that the model's code took from a tensor those of the live network.

    Args:
        module: the program; its graph is changed in place.
        inputs: the example, by the names of the placeholders.
        trace_again: traces the same model in another precision.
    """
    own = weights_dtype(module)
    if own is not None and _depends_on_dtype(module.graph, own):
        other, pairs = _other_trace(module.graph, own, trace_again)
        merge = _Merge(module, inputs, own, other, {there: node for node, there in pairs})
        for node, there in pairs:
            if IDLE in node.meta:
                node.meta[IDLE] = node.meta[IDLE] and there.meta[IDLE]
            node.args = merged(node.args, there.args, partial(merge, node))
            node.kwargs = merged(node.kwargs, there.kwargs, partial(merge, node))
    for node in module.graph.find_nodes(op="call_method", target="to"):
        if node.meta.get(IDLE):
            node.replace_all_uses_with(node.all_input_nodes[0])
            module.graph.erase_node(node)


def weights_dtype(module: nn.Module) -> torch.dtype | None:
    """The precision of the first weight of floating point; None where there is none."""
    return next((p.dtype for p in module.parameters() if p.is_floating_point()), None)


def in_dtype(value: Any, own: torch.dtype | None, other: torch.dtype) -> Any:
    """The same with its tensors of one dtype in another."""
    return pytree.tree_map_only(
        torch.Tensor, lambda leaf: leaf.to(other) if leaf.dtype == own else leaf, value
    )


def _depends_on_dtype(graph: fx.Graph, own: torch.dtype) -> bool:
    limits = [getattr(torch.finfo(own), name) for name in LIMITS]
    return any(
        leaf == own if isinstance(leaf, torch.dtype) else isinstance(leaf, float) and leaf in limits
        for node in graph.nodes
        for leaf in pytree.tree_leaves((node.args, node.kwargs))
    )


def _other_trace(
    graph: fx.Graph, own: torch.dtype, trace_again: Callable[[torch.dtype], fx.Graph]
) -> tuple[torch.dtype, list[tuple[fx.Node, fx.Node]]]:
    """A precision in which the model runs the same calls, and the nodes of both traces in pairs."""
    for other in OTHERS:
        try:
            pairs = _paired(graph, own, trace_again(other), other) if other != own else []
        except TraceError:
            continue
        if pairs:
            return other, pairs
    return own, []


def _paired(
    graph: fx.Graph, own: torch.dtype, other: fx.Graph, dtype: torch.dtype
) -> list[tuple[fx.Node, fx.Node]]:
    """The nodes of two traces of one model in pairs; none where they do not run the same calls.

    Where conversions that do nothing were dropped already, they are put in again.
    """
    pairs = aligned(graph, other)
    if pairs is not None:
        return pairs
    twins: dict[Any, fx.Node] = {}
    rest = iter(list(graph.nodes))
    here = next(rest)
    for there in other.nodes:
        while here.target == "to" and there.target != "to":
            here = next(rest)
        source = twins.get(there.args[0]) if there.target == "to" else None
        if source is not None and not (here.target == "to" and here.args[0] is source):
            with graph.inserting_before(here):
                kind: Any = own if there.args[1] == dtype else there.args[1]
                new = graph.call_method("to", (source, kind))
            new.meta |= {**there.meta, IDLE: True}
            twins[there] = new
        elif (here.op, here.target) == (there.op, there.target):
            twins[there], here = here, next(rest, here)
        else:
            return []
    return [(node, there) for there, node in twins.items()]


class _Merge:
    """Turns what two traces in different precisions have in one place into what follows it.

    What a value is read from is as in the other trace: where a conversion does nothing, it gives
    the tensor itself, and torch.export takes all that is read of that later for the conversion's.
    """

    def __init__(
        self, module: fx.GraphModule, inputs: Mapping[str, Any], own: torch.dtype,
        other: torch.dtype, twins: Mapping[fx.Node, fx.Node],
    ) -> None:  # fmt: skip
        self.graph, self.own, self.other, self.twins = module.graph, own, other, twins
        self.reference = _reference(module, inputs, own)
        self.made: dict[Any, fx.Node] = {}
        order = {node: place for place, node in enumerate(self.graph.nodes)}
        self.later = {n for n in order if self.reference and order[n] > order[self.reference]}

    def __call__(self, node: fx.Node, own: Any, other: Any) -> Any:
        """A part of a node's arguments, of what it is in either trace."""
        if isinstance(own, fx.Node):
            return self.twins.get(other, own)
        if node not in self.later:
            return own
        if (own, other) == (self.own, self.other):
            return self._precision(self.reference)
        if isinstance(own, float) and isinstance(other, float) and own != other:
            for limit in LIMITS:
                both = [getattr(torch.finfo(dtype), limit) for dtype in (self.own, self.other)]
                if [own, other] == both:
                    inputs = node.all_input_nodes
                    near = [n for n in inputs if n.meta.get(DTYPE) == self.own]
                    return self._precision(near[0] if near else self.reference, limit)
        return own

    def _precision(self, source: fx.Node | None, *limit: str) -> fx.Node:
        assert source is not None
        if (source, limit) not in self.made:
            with self.graph.inserting_after(source):
                self.made[source, limit] = self.graph.call_function(precision, (source, *limit))
        return self.made[source, limit]


def _reference(
    module: fx.GraphModule, inputs: Mapping[str, Any], own: torch.dtype
) -> fx.Node | None:
    """An input in the precision of the weights, or else the first embedding."""
    for node in list[fx.Node](module.graph.find_nodes(op="placeholder")):
        value = inputs.get(str(node.target))
        if isinstance(value, torch.Tensor) and value.dtype == own:
            return node
    for node in list[fx.Node](module.graph.nodes):
        called = module.get_submodule(str(node.target)) if node.op == "call_module" else node.target
        if isinstance(called, nn.Embedding) or called is F.embedding:
            return node
    return None
