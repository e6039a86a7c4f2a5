"""The semantics, run: the original operators at full size, absent contributions neutralised.

This is the reference that every rewrite is compared with, and shares no code with it. Everything
is computed at its original size, also what is absent; only where an absent tensor or channel
meets others (a sum, a product, an operator that mixes channels, a norm that does) it is replaced
by what leaves no trace there.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import fx, nn
from torch.fx.immutable_collections import immutable_dict

from ..graph.cost import inner_outer, live_slices
from ..graph.graph import Graph, Mask
from ..graph.liveness import Liveness, liveness
from ..graph.operators.absence import State
from ..graph.operators.reference import recurrent, there
from ..graph.operators.table import TABLE
from ..graph.vertices import Vertex
from ..tracing.builder import data_inputs
from ..tracing.program import set_modes
from .numbers import held

Tensors = Mapping[str, torch.Tensor]


def masked(graph: Graph, mask: Mask, tensors: Tensors | None = None) -> nn.Module:
    """The network under a mask, at full size: a callable module.

    Args:
        graph: the traced graph.
        mask: what is removed.
        tensors: recovered tensors by name (`plan.tensors`), as for `prune`.

    Returns:
        A module with the model's inputs and outputs, in the mode of the traced model; of a graph of
        a part the whole model, the part masked. It works on copies of the weights.

    Raises:
        MaskError: the mask belongs to another graph.
        DisconnectedError: the mask cuts off a model output.
        ObjectiveError: (when called) an argument has another value, or a batch or image another
            size, than in the example, and tracing fixed it.

    Examples:
        >>> y = ew.masked(graph, graph.mask([0]))(x)
        >>> y.shape
        torch.Size([2, 5])
    """
    network, whole = masked_network(graph, mask, tensors), graph.program.whole
    return network if whole is None else cast("nn.Module", whole.around(network))


def masked_network(graph: Graph, mask: Mask, tensors: Tensors | None = None) -> Masked:
    """The same of the traced network alone, where that is a part."""
    return Masked(graph, liveness(graph, mask).require_connected(), tensors or {})


class Masked(nn.Module):
    """See `masked`."""

    def __init__(self, graph: Graph, alive: Liveness, tensors: Tensors) -> None:
        super().__init__()
        self.network = copy.deepcopy(graph.program.module)
        self._graph, self._alive = graph, alive
        self.train(graph.program.modes[""])
        set_modes(self.network, graph.program.modes)
        _load(self.network, graph, alive, tensors)
        self._traced = held(graph, alive) or graph.program.traced

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        inputs = self._traced.inputs(args, kwargs)
        return Execution(self.network, self._graph, self._alive).run(*inputs)


def _load(network: nn.Module, graph: Graph, alive: Liveness, tensors: Tensors) -> None:
    """Write recovered tensors, which have the size of what remains, into the full-size ones."""
    known = {p.name: (p, i) for i, v in enumerate(graph.vertices) for p in v.params}
    state = network.state_dict()
    for name, tensor in tensors.items():
        parameter, index = known[name]
        whole = state[name]
        lines = [torch.arange(size, device=whole.device) for size in whole.shape]
        keeps = live_slices(parameter, *inner_outer(graph, alive, index))
        for axis, keep in enumerate(keeps):
            if keep is not None:
                lines[axis] = lines[axis][torch.tensor(keep, device=whole.device)]
        with torch.no_grad():
            whole[torch.meshgrid(*lines, indexing="ij")] = tensor.to(whole.device)


def unlocked(value: Any) -> Any:
    """A value in lists and dicts that can be changed; torch.fx has others of its own."""
    if type(value) is immutable_dict:
        return {name: unlocked(part) for name, part in value.items()}
    if isinstance(value, list | tuple) and not hasattr(value, "_fields"):
        return (tuple if isinstance(value, tuple) else list)(map(unlocked, value))
    return value


class Execution(fx.Interpreter):
    """Runs a network in full size, neutralising what is absent where it is read."""

    def __init__(self, network: fx.GraphModule, graph: Graph, alive: Liveness) -> None:
        super().__init__(network, garbage_collect_values=True)
        self.alive = alive
        self.plan = {vertex.node: (i, vertex) for i, vertex in enumerate(graph.vertices)}
        self.full = graph

    def run_node(self, n: fx.Node) -> Any:
        if n.name not in self.plan or n.op == "placeholder":
            return super().run_node(n)
        index, vertex = self.plan[n.name]
        edges = self.full.inputs[index]
        if index in self.alive.bypassed:
            return self.env[data_inputs(n, self.plan)[0]]
        if self.alive.states[index] is None:
            return super().run_node(n)  # absent: whatever it gives is neutralised further on
        inputs = iter(edges)
        args, kwargs = fx.map_arg((n.args, n.kwargs), lambda a: self._input(a, vertex, inputs))
        special, state = TABLE.rules[vertex.op].reference, self.alive.states[index]
        want = self.alive.wants[edges[0]] if edges else None
        if vertex.op == "recurrent" and state is not None and not state.full:
            return recurrent(self._called(n), vertex, state, args, kwargs)
        if special and want is not None and not want.full:
            return special(self._called(n), vertex, want, args, kwargs)
        with self._set_current_node(n):
            return getattr(self, n.op)(n.target, args, kwargs)

    def output(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """What the model returns."""
        return unlocked(super().output(target, args, kwargs))

    def _called(self, n: fx.Node) -> nn.Module | None:
        return self.module.get_submodule(str(n.target)) if n.op == "call_module" else None

    def _have(self, edge: int) -> State:
        return self.alive.states[self.full.edges[edge].source]

    def _input(self, argument: fx.Node, vertex: Vertex, inputs: Any) -> Any:
        value = self.env[argument]
        if argument.name not in self.plan:
            return value
        edge = next(inputs)
        return self._neutral(value, vertex, edge)

    def _neutral(self, value: Any, vertex: Vertex, edge: int) -> Any:
        """The input with everything absent replaced by what leaves no trace in this operator."""
        have, want = self._have(edge), self.alive.wants[edge]
        if not isinstance(value, torch.Tensor):
            return value
        if want is None:
            return torch.full_like(value, self.alive.changed[self.full.edges[edge].target].fill)
        if have is None or have.full:
            return value
        fill = self.alive.fills.get(edge, 0.0)
        summed = "labels" in vertex.attrs or have.keep(vertex.attrs.get("mixes", -1)) is not None
        if want == have and not summed and TABLE.rules[vertex.op].passage.reads_all:
            return value
        return torch.where(there(have, value), value, torch.full_like(value, fill))
