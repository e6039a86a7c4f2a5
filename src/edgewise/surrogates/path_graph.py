"""A DAG of weighted ways that masks cut, as plain arrays; sums over its paths."""

from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from ..graph.graph import Graph
from .validation import Array

Indices = NDArray[np.intp]
SOURCE = 0
BLOCK = 1 << 17  # elements of the path kernel worked on at a time


@dataclass(frozen=True, slots=True)
class Way:
    """An edge of the unreduced DAG with the units that cut it.

    `edge` is the graph's own edge, -1 for a way inside a layer's vertex or into the sink.
    """

    tail: int
    head: int
    units: frozenset[int]
    edge: int


@dataclass(frozen=True)
class Flow:
    """A DAG of ways; `reduction.reduce_graph` makes it of a Graph.

    Node 0 is the source (all model inputs), node `nodes - 1` the sink (all outputs); ways are
    sorted by head, so that the ways into a node are contiguous, and every head has a greater
    index than its tail.

    Args:
        nodes: how many nodes.
        tails, heads: [n_ways] node indices.
        cuts: [n_ways, n_units]; 1 where removing the unit cuts the way.
        origin: for each way of the unreduced DAG, its reduced way (-1: fixed share).
        share: for each way of the unreduced DAG, its part of that way's weight.
        ways: the ways of the unreduced DAG.
    """

    nodes: int
    tails: Indices
    heads: Indices
    cuts: Array
    origin: Indices
    share: Array
    ways: tuple[Way, ...]

    @cached_property
    def into(self) -> tuple[slice, ...]:
        """For every node, its incoming ways."""
        bounds = np.searchsorted(self.heads, np.arange(self.nodes + 1))
        return tuple(slice(int(a), int(b)) for a, b in pairwise(bounds))

    @cached_property
    def bundles(self) -> tuple[tuple[tuple[int, Indices], ...], ...]:
        """For every node, its incoming ways by tail: pairs (tail, ways)."""
        found = []
        for ways in self.into:
            tails = self.tails[ways]
            found.append(
                tuple((int(t), ways.start + np.flatnonzero(tails == t)) for t in np.unique(tails))
            )
        return tuple(found)

    @cached_property
    def out_of(self) -> tuple[Indices, ...]:
        """For every node, the indices of its outgoing ways."""
        return tuple(np.flatnonzero(self.tails == node) for node in range(self.nodes))

    @cached_property
    def starts(self) -> Indices:
        """Where each node's incoming ways start, for `np.add.reduceat` (nodes with any)."""
        return np.unique(self.heads, return_index=True)[1].astype(np.intp)

    @cached_property
    def indegree(self) -> Array:
        """[n_ways] how many ways enter the way's head."""
        return np.bincount(self.heads, minlength=self.nodes)[self.heads].astype(np.float64)

    def keep(self, X: Array) -> Array:
        """[n_ways, n_masks]: 1.0 where a mask leaves the way."""
        return np.ascontiguousarray((self.cuts @ X.T < 0.5).astype(np.float64))

    def sums_into(self, values: Array) -> Array:
        """[n_ways, ...] values summed over the ways into the same head, for each way."""
        if not len(values):
            return values
        sums = np.add.reduceat(values, self.starts, axis=0)
        counts = np.diff(np.append(self.starts, len(values)))
        return np.repeat(sums, counts, axis=0)

    def softmax(self, theta: Array) -> Array:
        """Weights [n_ways] that are positive and sum to 1 over the ways into each node."""
        raised = np.exp(theta - theta.max(initial=0.0))
        return np.asarray(raised / np.maximum(self.sums_into(raised), 1e-300))

    def forward(self, weights: Array, keep: Array) -> Array:
        """z [n_nodes, n_masks]: z_source = 1, z_v = Σ over ways into v of a · keep · z_tail."""
        z = np.ones((self.nodes, keep.shape[1]))
        passed = weights[:, None] * keep
        for node in range(1, self.nodes):
            ways = self.into[node]
            z[node] = np.einsum("en,en->n", passed[ways], z[self.tails[ways]])
        return z

    def backward(self, weights: Array, keep: Array) -> Array:
        """b [n_nodes, n_masks]: the derivative of z_sink with respect to z_node."""
        b = np.ones((self.nodes, keep.shape[1]))
        passed = weights[:, None] * keep
        for node in range(self.nodes - 2, -1, -1):
            ways = self.out_of[node]
            b[node] = np.einsum("en,en->n", passed[ways], b[self.heads[ways]])
        return b

    def slopes(self, weights: Array, keep: Array, power: int = 1) -> tuple[Array, Array]:
        """z_sink [n_masks] of weights^power, and its derivative [n_ways, n_masks] by θ.

        The weights are softmax(θ).
        """
        raised = weights**power
        z, b = self.forward(raised, keep), self.backward(raised, keep)
        by_weight = power * keep * z[self.tails] * b[self.heads] * raised[:, None]
        return z[-1], by_weight - weights[:, None] * self.sums_into(by_weight)


def push_weights(flow: Flow, weights: Array, graph: Graph) -> Array:
    """γ [n_edges] of the graph's edges, normalised over *outgoing* edges by weight pushing.

    f_out = 1, f_uv = a_uv · f_v, f_u = Σ_v f_uv and γ_uv = f_uv / f_u: on every path from input
    to output the product of γ equals that of a, so both describe one model (Takimoto & Warmuth,
    "Path kernels and multiplicative updates", 2003). Edges on no such path have γ = 0.
    """
    lifted = np.where(flow.origin >= 0, np.append(weights, 1.0)[flow.origin], 1.0) * flow.share
    through: dict[int, float] = defaultdict(float)
    through[max((way.head for way in flow.ways), default=SOURCE)] = 1.0
    edge_flow = np.zeros(len(graph.edges))
    for i in sorted(range(len(flow.ways)), key=lambda i: -flow.ways[i].tail):
        way = flow.ways[i]  # every way out of its head is done
        passed = lifted[i] * through[way.head]
        through[way.tail] += passed
        if way.edge >= 0:
            edge_flow[way.edge] = passed
    sources = np.array([edge.source for edge in graph.edges], dtype=np.intp)
    vertex_flow = np.bincount(sources, edge_flow, minlength=len(graph.vertices))
    return edge_flow / np.maximum(vertex_flow[sources], 1e-300)


def path_kernel(flow: Flow, tau: Array, keep_x: Array, keep_z: Array) -> Array:
    """K [n_X, n_Z]: K_in = 1, K_v = Σ_u τ_uv · keep_uv · keep'_uv · K_u, K = K_out.

    The sum, over all paths, of the path's weight where both masks leave it whole (the path kernel
    of Takimoto & Warmuth, 2003), in one pass over the ways instead of one term a path. It is
    worked out in blocks of rows that fit a processor's cache.

    Args:
        tau: [n_ways] non-negative weights.
        keep_x: [n_ways, n_X]; keep_z: [n_ways, n_Z], see `Flow.keep`.
    """
    kernel = np.empty((keep_x.shape[1], keep_z.shape[1]))
    rows = max(1, BLOCK // max(keep_z.shape[1], 1))
    weighted = tau[:, None] * keep_x
    last_use = np.zeros(flow.nodes, dtype=np.intp)
    np.maximum.at(last_use, flow.tails, flow.heads)
    for first in range(0, len(kernel), rows):
        block = kernel[first : first + rows]
        values: dict[int, Array] = {SOURCE: np.ones_like(block)}  # of nodes still needed
        for node in range(1, flow.nodes):
            total: Array | None = None
            for tail, ways in flow.bundles[node]:
                part = weighted[ways, first : first + rows].T @ keep_z[ways]
                if tail != SOURCE:
                    part *= values[tail]
                total = part if total is None else np.add(total, part, out=total)
                if last_use[tail] == node and tail != SOURCE:
                    del values[tail]
            assert total is not None
            values[node] = total
        block[:] = values[flow.nodes - 1]
    return kernel
