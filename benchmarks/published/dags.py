"""The random networks of F-1: DAGs of ReLU(Linear(x)) blocks for MNIST.

The value of a vertex is the sum, over its incoming edges, of its block applied to the edge's tail.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

import edgewise as ew

PIXELS, FIRST, LAST, CLASSES = 784, 400, 20, 10
IMAGE = -1  # the tail of the first edge


@dataclass(frozen=True)
class Dag:
    """A random DAG.

    Args:
        widths: [n_vertices] of the vertices' values; vertex 0 is the flattened image.
        inner: [n_vertices] of what their blocks read.
        edges: (tail, head) in an order in which every tail is finished before it is read.
    """

    widths: tuple[int, ...]
    inner: tuple[int, ...]
    edges: tuple[tuple[int, int], ...]


def random_dag(steps: int, rng: np.random.Generator) -> Dag:
    """A DAG grown by `steps` pairs of blocks, each pair summed by a third.

    Two vertices drawn with replacement get a block each, of one random width in 2³..2⁸; a third
    block, of a random width too, reads both. In the end every vertex that nothing reads goes
    through a block of width 20 into the classifier.
    """
    widths, inner = [PIXELS, FIRST], [PIXELS, PIXELS]
    edges = [(IMAGE, 0), (0, 1)]

    def add(width: int, *tails: int) -> int:
        inner.append(widths[tails[0]])
        widths.append(width)
        edges.extend((tail, len(widths) - 1) for tail in tails)
        return len(widths) - 1

    for _ in range(steps):
        first, second = (int(v) for v in rng.integers(len(widths), size=2))
        width, summed = (int(2**v) for v in rng.integers(3, 9, size=2))
        add(summed, add(width, first), add(width, second))
    read = {tail for tail, _ in edges}
    ends = [add(LAST, v) for v in range(len(widths)) if v not in read]
    add(CLASSES, *ends)
    return Dag(tuple(widths), tuple(inner), tuple(edges))


class Network(nn.Module):
    """The network of a DAG, from images [n, 1, 28, 28] to logits [n, 10]."""

    def __init__(self, dag: Dag) -> None:
        super().__init__()
        self.dag = dag
        blocks: list[nn.Module] = [nn.Flatten()]
        for inner, width in list(zip(dag.inner, dag.widths, strict=True))[1:]:
            blocks.append(nn.Sequential(nn.Linear(inner, width), nn.ReLU()))
        blocks[-1] = nn.Linear(LAST, CLASSES)
        self.blocks = nn.ModuleList(blocks)

    def forward(self, x: Tensor) -> Tensor:
        values = {IMAGE: x}
        for tail, head in self.dag.edges:
            out = self.blocks[head](values[tail])
            values[head] = values[head] + out if head in values else out
        return values[len(self.blocks) - 1]

    def flows(self, x: Tensor, gates: Tensor | None = None) -> tuple[Tensor, list[Tensor]]:
        """The logits, and what every edge carries, multiplied by its gate if gates are given."""
        values, flows = {IMAGE: x}, []
        for edge, (tail, head) in enumerate(self.dag.edges):
            flow = self.blocks[head](values[tail])
            flows.append(flow if gates is None else flow * gates[edge])
            values[head] = values[head] + flows[-1] if head in values else flows[-1]
        return values[len(self.blocks) - 1], flows


def graph_of(network: Network) -> ew.Graph:
    """The network's graph, whose unit number e is edge number e of the DAG."""
    images = torch.zeros(2, 1, 28, 28)
    whole = ew.trace(network, (images,), granularity="raw")

    def enters_block(unit: ew.Unit) -> bool:
        return whole.vertices[min(whole.starts(unit.removal))].op in ("linear", "reshape")

    graph = whole.select(enters_block)
    assert len(graph.units) == len(network.dag.edges)
    return graph


class Masked:
    """A network under masks of its edges, in plain PyTorch, without edgewise.

    What no removal reaches is computed once. With `leak` a vertex that lost all its inputs is zero
    and its readers still add their biases, as in the published code, so that a disconnected
    network answers with a constant; without it the vertex is absent, as in edgewise.

    Args:
        network: the network.
        x: images [n, 1, 28, 28].
        leak: see above.
    """

    def __init__(self, network: Network, x: Tensor, leak: bool) -> None:
        self.network, self.leak, self.x = network, leak, x
        with torch.no_grad():
            self.flows = network.flows(x)[1]

    @torch.no_grad()
    def __call__(self, removed: np.ndarray) -> Tensor | None:
        """Logits [n, 10] under a mask [n_edges] (1 = removed); None if nothing reaches them."""
        blocks, count = self.network.blocks, len(self.network.blocks)
        values: dict[int, Tensor] = {IMAGE: self.x}
        touched: set[int] = set()
        for edge, (tail, head) in enumerate(self.network.dag.edges):
            if removed[edge] or (tail not in values and not self.leak):
                touched.add(head)
                continue
            flow = self.flows[edge]
            if tail in touched:
                touched.add(head)
                flow = blocks[head](self._value(values, tail))
            values[head] = values[head] + flow if head in values else flow
        if count - 1 not in values and not self.leak:
            return None
        return self._value(values, count - 1).expand(len(self.x), -1)

    def _value(self, values: dict[int, Tensor], vertex: int) -> Tensor:
        """A constant is one row, which the readers broadcast."""
        return values.get(vertex, torch.zeros(1, self.network.dag.widths[vertex]))
