"""How much each unit matters by itself, without measuring a mask: what one-shot pruning goes by.

A unit's removal changes the network first at the vertices that read what is gone (the sum behind a
residual branch) or at the vertex that is bypassed. Data-driven scores compare what such a vertex
gives with what it would give if this unit alone were gone. Widths keep the importance that they
were traced with.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import fx

from ..errors import EdgewiseError
from ..graph.graph import Graph
from ..graph.importance import inputs_of, outputs_of
from ..graph.liveness import Liveness, liveness
from ..pruning.masked import Execution
from ..values.nested import judged

Array = NDArray[np.float64]
Batch = Any  # (inputs, targets), inputs a tensor or a tuple of them
See = Callable[[str, torch.Tensor], None]


def magnitude(graph: Graph) -> Array:
    """[n_units] Euclidean norm of the weights that go when a unit alone goes.

    After Li et al., "Pruning filters for efficient ConvNets", 2017, for whole branches.

    Examples:
        >>> from edgewise.study import scores
        >>> scores.magnitude(graph).shape == (len(graph.units),)
        True
    """
    state = graph.program.module.state_dict()
    found = _widths(graph)
    for unit, alive in _alone(graph).items():
        gone = {
            p.name
            for index in alive.changed
            if not alive.runs(index)
            for p in graph.vertices[index].params
            if not p.buffer
        }
        squares = [float(state[name].detach().double().square().sum()) for name in sorted(gone)]
        found[unit] = sum(squares) ** 0.5
    return found


def taylor(graph: Graph, batches: Iterable[Batch], loss: Callable[[Any, Any], Any]) -> Array:
    """[n_units] mean size of the first-order change of a batch's loss when a unit alone goes.

    |∂L/∂v · (v' - v)| at the vertex v that changes first, after Molchanov et al., "Pruning
    convolutional neural networks for resource efficient inference", 2017, eq. 7. Scores of
    several units add up.

    Args:
        graph: the traced graph.
        batches: (inputs, targets), inputs a tuple.
        loss: of outputs and targets, a mean or one value an example.

    Raises:
        EdgewiseError: there is no batch.

    Examples:
        >>> from edgewise.study import scores
        >>> found = scores.taylor(graph, objective.splits["search"], F.cross_entropy)
        >>> found.shape == (len(graph.units),)
        True
    """
    total, count, alone = _widths(graph), 0, _alone(graph)
    for batch in batches:
        inputs, targets = inputs_of(batch, graph)
        with torch.enable_grad():
            watch = _Watch(graph, alone, lambda value, other: other - value)
            outputs = outputs_of(graph, watch.run, inputs)
            lost = torch.as_tensor(judged(loss, outputs, targets)).mean()
            values = [value for value, _ in watch.seen.values()]
            slopes = torch.autograd.grad(lost, values, allow_unused=True)
        found = np.zeros(len(total))
        for (_, changes), slope in zip(watch.seen.values(), slopes, strict=True):
            for unit, change in changes.items() if slope is not None else ():
                found[unit] += float((slope * change).sum())
        total += np.abs(found)
        count += 1
    return _mean(graph, total, count)


def influence(graph: Graph, batches: Iterable[Batch], see: See | None = None) -> Array:
    """[n_units] one minus the cosine of what an example's vertex gives with and without a unit.

    Block influence of Men et al., "ShortGPT", 2024, eq. 1, for anything that can be removed.

    Args:
        graph: the traced graph.
        batches: (inputs, targets), inputs a tuple.
        see: told each node of the program and the tensor that it gives unpruned.

    Raises:
        EdgewiseError: there is no batch.

    Examples:
        >>> from edgewise.study import scores
        >>> found = scores.influence(graph, objective.splits["search"])
        >>> bool((found >= 0).all())
        True
    """
    total, count, alone = _widths(graph), 0, _alone(graph)
    for batch in batches:
        inputs, _ = inputs_of(batch, graph)
        with torch.no_grad():
            watch = _Watch(graph, alone, _turn, see)
            outputs_of(graph, watch.run, inputs)
        found = np.zeros(len(total))
        for _, turns in watch.seen.values():
            for unit, turn in turns.items():
                found[unit] += float(turn)
        total += found
        count += 1
    return _mean(graph, total, count)


def _turn(value: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """One minus the mean cosine of examples."""
    first, second = (v.reshape(len(v), -1).double() for v in (value, other))
    return 1.0 - torch.cosine_similarity(first, second).mean()


def _widths(graph: Graph) -> Array:
    """[n_units] the importance of widths, 0 for all others."""
    return np.array([unit.importance for unit in graph.units])


def _mean(graph: Graph, total: Array, count: int) -> Array:
    if not count:
        raise EdgewiseError("Scores of units need at least one batch of data.")
    return np.where([bool(unit.group) for unit in graph.units], total, total / count)


def _alone(graph: Graph) -> dict[int, Liveness]:
    """What remains when a unit goes that is no width."""
    coarse = (index for index, unit in enumerate(graph.units) if not unit.group)
    return {index: liveness(graph, graph.mask([index])) for index in coarse}


class _Watch(Execution):
    """Runs the whole network and notes what its vertices would give without single units.

    `seen` has, for each vertex that some unit's removal changes first, its value, and by unit what
    `note` says of the value and of what it would be, as they are before anything writes into them.
    `see` is told every tensor.
    """

    def __init__(
        self, graph: Graph, alone: Mapping[int, Liveness],
        note: Callable[[torch.Tensor, torch.Tensor], Any], see: See | None = None,
    ) -> None:  # fmt: skip
        self.whole, self.note, self.see = liveness(graph, graph.empty), note, see
        super().__init__(graph.program.module.eval(), graph, self.whole)
        self.seen: dict[str, tuple[torch.Tensor, dict[int, torch.Tensor]]] = {}
        self.without: dict[str, dict[int, Liveness]] = defaultdict(dict)
        for unit, alive in alone.items():
            for index in first_changed(graph, alive):
                self.without[graph.vertices[index].node][unit] = alive

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if self.see is not None and isinstance(value, torch.Tensor):
            self.see(n.name, value)
        if n.name not in self.without or not isinstance(value, torch.Tensor):
            return value
        noted: dict[int, torch.Tensor] = {}
        with torch.no_grad():
            for unit, alive in self.without[n.name].items():
                self.alive = alive
                noted[unit] = self.note(value, super().run_node(n))
        self.alive = self.whole
        if torch.is_grad_enabled() and not value.requires_grad:
            value = value.detach().requires_grad_(value.is_floating_point())
        self.seen[n.name] = value, noted
        return value


def first_changed(graph: Graph, alive: Liveness) -> list[int]:
    """The live vertices that lack an input, or are bypassed."""
    return [
        index
        for index, flow in alive.changed.items()
        if flow.out is not None
        and (index in alive.bypassed or any(alive.wants[e] is None for e in graph.inputs[index]))
    ]
