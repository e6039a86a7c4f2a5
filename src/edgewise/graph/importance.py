"""Which channels matter least: the order in which the widths of a set are removed.

An importance is a function (graph, writes, reads) → {place: scores [channels]}. `writes` are the
outputs of the operators that produce channels, `reads` the tensors from which they are mixed into
others; scores may be given for either, and those of one class of channels are added up.

Examples:
    >>> graph = ew.trace(model, x, granularity="hidden", slices=4)
    >>> first, second = graph.nested[0][:2]
    >>> graph.units[first].importance <= graph.units[second].importance
    True
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import fx

from ..errors import EdgewiseError
from ..values.arguments import arguments, call, inputs_in, placed
from ..values.nested import batch_size, judged, moved
from .coupling import Place
from .graph import Graph

Scores = Mapping[Place, np.ndarray[Any, np.dtype[np.float64]]]
Importance = Callable[[Graph, Sequence[Place], Sequence[Place]], Scores]
Loss = Callable[[Any, Any], torch.Tensor]
_FLAT = (
    "The loss has no gradient, so Taylor's importance cannot tell which channels it needs. Order "
    'them by ew.importance.activation or .l2 (in a job, importance = "activation" in [units]).'
)


def l2(graph: Graph, writes: Sequence[Place], reads: Sequence[Place]) -> Scores:
    """The squared Euclidean norm of the weights that produce a channel.

    After Li et al., "Pruning filters for efficient ConvNets", 2017. It needs no data, and is the
    default.

    Examples:
        >>> graph = ew.trace(model, x, granularity="hidden", importance=ew.importance.l2)
    """
    module = graph.program.module
    tensors = dict(module.named_parameters(remove_duplicate=False))
    tensors |= dict(module.named_buffers(remove_duplicate=False))  # a fixed filter is a weight too
    found: dict[Place, Any] = {}
    for place in writes:
        total = np.zeros(graph.vertices[place.vertex].channels(place.axis))
        for parameter in graph.vertices[place.vertex].params:
            for axis, follow in enumerate(parameter.follows):
                if follow == ("out", place.axis) and len(parameter.shape) > 1:
                    home, normed, _ = parameter.name.partition(".parametrizations.")
                    given = module.get_submodule(home).weight if normed else tensors[parameter.name]
                    weight = given.detach().double().movedim(axis, 0)
                    rows = weight.flatten(1).square().sum(1).cpu().numpy()
                    total += rows.reshape(-1, len(total)).sum(0)  # of several gates
        found[place] = total
    return found


def activation(batches: Iterable[Any]) -> Importance:
    """The mean square of a channel where others read it.

    Args:
        batches: tuples of inputs, or (inputs, targets) pairs, whose targets are not looked at.

    Examples:
        >>> importance = ew.importance.activation(batches)
        >>> graph = ew.trace(model, x, granularity="hidden", importance=importance)
    """
    return partial(_accumulate, batches, lambda value, gradient: value.square(), None)


def taylor(batches: Iterable[Any], loss: Loss) -> Importance:
    """How much the loss of an example changes, to first order, when a channel is set to zero.

    The mean over examples of (Σ activation · gradient)², the sum over all places of the channel:
    Molchanov et al., "Importance estimation for neural network pruning", 2019, eq. 8, at the
    tensors from which others read the channel.

    Args:
        batches: (inputs, targets) pairs; inputs a tensor, a tuple or a dict by name.
        loss: maps outputs and targets to a mean loss, or to a loss of each example.

    Raises (what is returned, when a graph is traced with it):
        EdgewiseError: there is no batch, or the loss has no gradient.

    Examples:
        >>> importance = ew.importance.taylor(batches, F.cross_entropy)
        >>> graph = ew.trace(model, x, granularity="hidden", importance=importance)
    """
    return partial(_accumulate, batches, lambda value, gradient: value * gradient, loss)


def _accumulate(
    batches: Iterable[Any], product: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    loss: Loss | None, graph: Graph, writes: Sequence[Place], places: Sequence[Place],
) -> Scores:  # fmt: skip
    totals: dict[Place, torch.Tensor] = {}
    examples = 0
    for batch in batches:
        inputs, targets = inputs_of(batch, graph)
        with torch.enable_grad():
            watch = _Watch(graph, {p.vertex for p in places})
            output = outputs_of(graph, watch.run, inputs)
            held = [watch.held[p.vertex] for p in places]
            zeros = [torch.zeros_like(v) for v in held]
            gradients: Sequence[torch.Tensor] = zeros
            if loss is not None:
                lost = torch.as_tensor(judged(loss, output, targets)).mean()  # or one an example
                if not lost.requires_grad:
                    raise EdgewiseError(_FLAT)
                given = torch.autograd.grad(lost, held, allow_unused=True)
                gradients = [z if g is None else g for z, g in zip(zeros, given, strict=True)]
        size = batch_size(inputs)
        examples += size
        for place, value, gradient in zip(places, held, gradients, strict=True):
            line = product(value.detach(), gradient * size).double().movedim(place.axis, -1)
            each = line.reshape(size, -1, line.shape[-1]) if line.shape[0] == size else line[None]
            sums = each.mean(1) if loss is None else each.flatten(1, -2).sum(1).square()
            totals[place] = totals.get(place, torch.zeros(())) + sums.sum(0).cpu()
    if not examples:
        raise EdgewiseError("The importance of channels needs at least one batch of data.")
    return {place: total.numpy() / examples for place, total in totals.items()}


def inputs_of(batch: Any, graph: Graph) -> tuple[Any, Any]:
    """The inputs of a batch, where the network is, and its targets if it is a pair."""
    program, home = graph.program, graph.program.device
    if program.whole is not None:
        args, kwargs = program.example
        inputs = inputs_in(batch, len(args) + len(kwargs))
        return moved(arguments(inputs), home), None if inputs is batch else batch[1]
    inputs = inputs_in(batch, len(program.args))
    return moved(placed(inputs, program.names), home), None if inputs is batch else batch[1]


def outputs_of(graph: Graph, run: Callable[..., Any], inputs: Any) -> Any:
    """What the network gives where `run` runs its program; of a graph of a part the whole model.

    Raises:
        EdgewiseError: the graph is of several parts.
    """
    whole, traced = graph.program.whole, graph.program.traced
    if whole is None:
        return run(*inputs)
    if len(whole.parts) > 1:
        raise EdgewiseError("Activations and gradients are looked at within one part: name one.")
    return call(whole.calling(lambda *given: run(*traced.inputs((), whole.named(*given)))), inputs)


class _Watch(fx.Interpreter):
    """Runs the network and holds on to the outputs of some vertices, as leaves of autograd."""

    def __init__(self, graph: Graph, vertices: set[int]) -> None:
        super().__init__(graph.program.module.eval(), garbage_collect_values=True)
        self.nodes = {graph.vertices[v].node: v for v in vertices}
        self.held: dict[int, torch.Tensor] = {}

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if n.name in self.nodes:
            if not value.requires_grad:
                value = value.detach().requires_grad_(value.is_floating_point())
            self.held[self.nodes[n.name]] = value
        return value
