"""The statements of docs/theory.md, one test each, on random linear networks.

The networks are real modules: traced, masked and reduced by the package. What the tests work out
by themselves is the mathematics, path by path and mask by mask.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import combinations, product
from math import comb

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray
from scipy.stats import chisquare
from torch import Tensor, nn

import edgewise as ew
from edgewise.surrogates import Degree2
from edgewise.surrogates.path_fit import PathFit, fit_path_sum, leave_one_out, path_sum, start_theta
from edgewise.surrogates.path_graph import Flow, path_kernel, push_weights
from edgewise.surrogates.path_sum import kirchhoff
from edgewise.surrogates.reduction import reduce_graph

Array = NDArray[np.float64]
Units = frozenset[int]
Pairs = Sequence[tuple[int, int]]
ROWS = 5
seeds = st.integers(0, 15)
DIAMOND = ((0, 1), (0, 1))
SERIES = ((0, 1), (0, 1), (1, 2), (1, 2))  # two diamonds in a row: four paths


class Dag(nn.Module):
    """One layer an edge; a vertex is the sum of the layers into it, the last is the output."""

    def __init__(self, pairs: Pairs, layers: Sequence[nn.Module]) -> None:
        super().__init__()
        self.pairs, self.layers = tuple(pairs), nn.ModuleList(layers)

    def forward(self, x: Tensor) -> Tensor:
        values: dict[int, Tensor] = {0: x}
        for (tail, head), layer in zip(self.pairs, self.layers, strict=True):
            into = layer(values[tail])
            values[head] = values[head] + into if head in values else into
        return values[max(values)]


def dense(matrix: Array, bias: float | None = None) -> nn.Linear:
    layer = nn.Linear(matrix.shape[1], matrix.shape[0], bias=bias is not None).double()
    layer.weight.data = torch.from_numpy(np.ascontiguousarray(matrix))
    if bias is not None:
        layer.bias.data.fill_(bias)
    return layer


@dataclass(frozen=True)
class Network:
    """A traced linear network with its paths: the units that cut each, and its outputs v_p."""

    graph: ew.Graph
    x: Array
    cuts: tuple[Units, ...]
    outputs: Array  # [n_paths, n_rows, n_out]

    @cached_property
    def flow(self) -> Flow:
        return reduce_graph(self.graph)

    def losses(self, X: Array, target: Array) -> Array:
        """Mean squared error of Σ m_p v_p under each mask."""
        value = np.einsum("mp,pro->mro", monomials(self.cuts, X), self.outputs)
        return np.asarray(((value - target) ** 2).sum(axis=2).mean(axis=1))

    def gram(self) -> Array:
        """G_pq = mean over rows of ⟨v_p, v_q⟩."""
        return np.einsum("pro,qro->pq", self.outputs, self.outputs) / len(self.x)


def network(
    pairs: Pairs, matrices: Sequence[Array], granularity: tuple[str, ...] = ("edge",)
) -> Network:
    model = Dag(pairs, [dense(m) for m in matrices]).eval()
    x = np.random.default_rng(len(pairs)).normal(size=(ROWS, matrices[0].shape[1]))
    graph = ew.trace(model, (torch.from_numpy(x),), granularity=granularity)
    bypass = {v: u for u, unit in enumerate(graph.units) for v in unit.removal.layers}
    cutting = {e: u for u, unit in enumerate(graph.units) for e in unit.removal.edges}
    cuts, outputs = [], []
    for path in edges_on_paths(graph):
        found: list[tuple[Units, Array]] = [
            (frozenset(cutting[e] for e in path if e in cutting), x)
        ]
        for at in [graph.edges[e].target for e in path]:
            vertex = graph.vertices[at]
            if vertex.op == "linear":  # if it may be bypassed: layer - identity, and identity
                matrix = matrices[int(vertex.name.removeprefix("layers."))]
                if at in bypass:
                    cut, less = frozenset({bypass[at]}), matrix - np.eye(len(matrix))
                    found = [(c | cut, v @ less.T) for c, v in found] + found
                else:
                    found = [(c, v @ matrix.T) for c, v in found]
        cuts += [c for c, _ in found]
        outputs += [v for _, v in found]
    return Network(graph, x, tuple(cuts), np.array(outputs))


def edges_on_paths(graph: ew.Graph, vertex: int = 0) -> Iterator[tuple[int, ...]]:
    if vertex == len(graph.vertices) - 1:
        yield ()
    for edge in graph.consumers[vertex]:
        for rest in edges_on_paths(graph, graph.edges[edge].target):
            yield (edge, *rest)


def random_pairs(rng: np.random.Generator, last: int) -> list[tuple[int, int]]:
    """A chain half of whose vertices have a second edge into them, also a parallel one."""
    pairs = [(i, i + 1) for i in range(last)]
    more = [(int(rng.integers(0, head)), head) for head in range(1, last) if rng.random() < 0.5]
    return sorted([*pairs, *more, (int(rng.integers(0, last)), last)], key=lambda p: (p[1], p[0]))


@cache  # tracing takes longer than what is tested
def random_network(seed: int, layers: bool = False) -> Network:
    rng = np.random.default_rng(seed)
    pairs = random_pairs(rng, 2 if layers else 1 + seed % 4)
    granularity = ("edge", "layer") if layers else ("edge",)
    return network(pairs, rng.normal(size=(len(pairs), 3, 3)), granularity)


@cache
def separate_network(seed: int) -> Network:
    """Each path writes into coordinates of its own: v_p = x ∏ w_e, and v_p ⊥ v_q for p ≠ q."""
    rng = np.random.default_rng(seed)
    pairs = random_pairs(rng, 1 + seed % 4)
    return network(pairs, separate(pairs, rng.uniform(0.7, 1.4, len(pairs))))


def separate(pairs: Pairs, weights: Array) -> list[Array]:
    count = {0: 1}
    for tail, head in pairs:
        count[head] = count.get(head, 0) + count[tail]
    matrices, used = [], dict.fromkeys(count, 0)
    for (tail, head), weight in zip(pairs, weights, strict=True):
        matrix = np.zeros((count[head], count[tail]))
        matrix[used[head] : used[head] + count[tail]] = weight * np.eye(count[tail])
        used[head] += count[tail]
        matrices.append(matrix)
    return matrices


def all_masks(units: int) -> Array:
    return np.array(list(product((0.0, 1.0), repeat=units)))


def monomials(sets: Sequence[Units], X: Array) -> Array:
    """[n_masks, n_sets]: 1 where a mask removes no unit of the set."""
    return np.asarray((X @ (1.0 - keeping(sets, X.shape[1])).T == 0).astype(float))


def unions(cuts: Sequence[Units]) -> list[Units]:
    """𝒮: nothing, and every union of two paths (or of one)."""
    return sorted({frozenset(), *(p | q for p in cuts for q in cuts)}, key=sorted)


def keeping(sets: Sequence[Units], units: int) -> Array:
    """The masks that keep exactly one of the sets each."""
    return np.array([[float(u not in s) for u in range(units)] for s in sets])


def moebius(losses: Array, units: int) -> dict[Units, float]:
    """The coefficients of a function of all masks in the monomials ∏ keep, by inclusion-exclusion.

    Args:
        losses: in the order of `all_masks`.
    """
    table = losses.reshape((2,) * units)[(slice(None, None, -1),) * units]  # by what is kept
    for axis in range(units):
        one, other = np.split(table, 2, axis=axis)
        table = np.concatenate([one, other - one], axis=axis)
    return {frozenset(np.flatnonzero(at)): float(v) for at, v in np.ndenumerate(table)}


Kernel = Callable[[Array, Array], Array]


def kernel(flow: Flow, tau: Array, scales: tuple[float, float, float]) -> Kernel:
    """s₀ + s₁ K + s₂ K∘K between masks."""

    def between(X: Array, Z: Array) -> Array:
        paths = path_kernel(flow, tau, flow.keep(X), flow.keep(Z))
        return scales[0] + scales[1] * paths + scales[2] * paths * paths

    return between


def interpolated(kernel: Kernel, X: Array, losses: Array, Z: Array) -> Array:
    """The posterior mean of the Gaussian process without noise, at masks Z."""
    alpha = np.linalg.lstsq(kernel(X, X), losses, rcond=1e-13)[0]
    return np.asarray(kernel(Z, X) @ alpha)


def ways_on_paths(flow: Flow, node: int = 0) -> Iterator[tuple[int, ...]]:
    """Every path of a Flow, as its ways."""
    if node == flow.nodes - 1:
        yield ()
    for way in flow.out_of[node]:
        for rest in ways_on_paths(flow, int(flow.heads[way])):
            yield (int(way), *rest)


# -- a linear network is a sum over paths -------------------------------------------------------


@given(seeds, st.booleans())
def test_a_masked_linear_network_is_the_sum_over_its_whole_paths(seed: int, layers: bool) -> None:
    net = random_network(seed, layers)
    X = all_masks(len(net.graph.units))
    X = X[np.random.default_rng(seed).permutation(len(X))[:8]]
    for row, whole in zip(X, monomials(net.cuts, X), strict=True):
        mask = net.graph.mask(bits=row)
        if not ew.liveness(net.graph, mask).connected:
            assert not whole.any()
            continue
        with torch.no_grad():
            output = ew.masked(net.graph, mask)(torch.from_numpy(net.x)).numpy()
        assert_allclose(output, np.tensordot(whole, net.outputs, 1), atol=1e-10)


@given(seeds, st.booleans())
def test_the_path_kernel_is_the_sum_over_all_paths(seed: int, layers: bool) -> None:
    check_path_kernel(random_network(seed, layers), np.random.default_rng(seed))


def test_the_path_kernel_keeps_units_of_contracted_ways() -> None:
    # vertex 1 has one way in, which has a unit of its own because two ways lead on
    pairs = [(0, 1), (0, 2), (1, 2), (1, 3), (2, 3)]
    check_path_kernel(network(pairs, [np.eye(3)] * len(pairs)), np.random.default_rng(0))


def check_path_kernel(net: Network, rng: np.random.Generator) -> None:
    flow = net.flow
    paths = list(ways_on_paths(flow))
    cuts = [frozenset(np.flatnonzero(flow.cuts[list(path)].any(axis=0))) for path in paths]
    assert {*cuts} == {*net.cuts}  # the reduction loses no path and adds none
    tau = rng.uniform(0.2, 1.0, len(flow.tails))
    weights = np.array([tau[list(path)].prod() for path in paths])
    X = (rng.random((12, len(net.graph.units))) < 0.3).astype(float)
    Z = (rng.random((9, len(net.graph.units))) < 0.3).astype(float)
    expected = (monomials(cuts, X) * weights) @ monomials(cuts, Z).T
    assert_allclose(path_kernel(flow, tau, flow.keep(X), flow.keep(Z)), expected, atol=1e-12)
    assert_allclose(flow.forward(tau, flow.keep(X))[-1], monomials(cuts, X) @ weights, atol=1e-12)


# -- squared loss lies in the space of K∘K ------------------------------------------------------


@given(seeds, st.booleans())
def test_pairs_of_paths_represent_squared_loss_exactly(seed: int, learned: bool) -> None:
    net, rng = random_network(seed), np.random.default_rng(seed)
    flow, units = net.flow, len(net.graph.units)
    tau = rng.uniform(0.5, 1.5, len(flow.tails))
    if learned:  # the weights of GraphGP
        tau = 0.5 * flow.softmax(rng.normal(size=len(flow.tails))) + 0.5 / flow.indegree
    X, sets = all_masks(units), unions(net.cuts)
    target = rng.normal(size=net.outputs.shape[1:])
    losses = net.losses(X, target)
    for scales in ((1.0, 1.0, 1.0), (0.3, 0.0, 2.0)):  # K is not needed beside K∘K
        between = kernel(flow, tau, scales)
        few = keeping(sets, units)  # as many masks as the space has dimensions
        assert np.linalg.matrix_rank(monomials(sets, few)) == len(sets)
        predicted = interpolated(between, few, net.losses(few, target), X)
        assert_allclose(predicted, losses, atol=1e-8 * losses.max(), rtol=0)


@given(seeds)
def test_fewer_masks_than_dimensions_do_not_determine_the_loss(seed: int) -> None:
    net, rng = random_network(seed), np.random.default_rng(seed)
    units, sets = len(net.graph.units), unions(net.cuts)
    X, few = all_masks(units), keeping(sets, units)
    target = rng.normal(size=net.outputs.shape[1:])
    losses = net.losses(X, target)
    gone = int(rng.integers(len(few)))
    rest = np.delete(few, gone, axis=0)
    between = kernel(net.flow, np.ones(len(net.flow.tails)), (1.0, 1.0, 1.0))
    assert np.linalg.matrix_rank(between(X, X)) == len(sets)
    predicted = interpolated(between, rest, net.losses(rest, target), X)
    assert np.abs(predicted - losses).max() > 1e-6 * losses.max()


def test_a_relu_or_a_bias_after_a_sum_leaves_the_space_and_before_it_does_not() -> None:
    rng = np.random.default_rng(0)
    x, target = torch.from_numpy(rng.normal(size=(ROWS, 3))), rng.normal(size=(ROWS, 3))
    # three branches into one sum: what they do together is no union of two paths
    pairs = [(0, 1), (0, 1), (0, 1), (0, 2), (1, 2)]
    matrices = rng.normal(size=(len(pairs), 3, 3))

    def misfit(layers: list[nn.Module]) -> float:
        graph = ew.trace(Dag(pairs, layers).eval(), (x,), granularity=("edge",))
        X = np.array([m for m in all_masks(len(graph.units)) if connected(graph, m)])
        with torch.no_grad():
            outputs = [ew.masked(graph, graph.mask(bits=m))(x).numpy() for m in X]
        losses = np.array([((o - target) ** 2).sum() for o in outputs])
        flow = reduce_graph(graph)
        between = kernel(flow, np.ones(len(flow.tails)), (1.0, 1.0, 1.0))
        return float(np.abs(interpolated(between, X, losses, X) - losses).max() / losses.max())

    def relu(matrix: Array, bias: float | None) -> nn.Module:
        return nn.Sequential(dense(matrix, bias), nn.ReLU())

    plain: list[nn.Module] = [dense(m) for m in matrices]
    first: list[nn.Module] = [relu(m, 0.3) for m in matrices[:4]]
    assert misfit(plain) < 1e-8
    assert misfit([*first, plain[4]]) < 1e-8
    assert misfit([*plain[:4], nn.Sequential(nn.ReLU(), dense(matrices[4]))]) > 1e-3
    assert misfit([*plain[:4], dense(matrices[4], 3.0)]) > 1e-3


def connected(graph: ew.Graph, row: Array) -> bool:
    return ew.liveness(graph, graph.mask(bits=row)).connected


# -- path-sum is exact if and only if ... -------------------------------------------------------


@given(seeds)
def test_path_sum_is_exact_where_paths_do_not_meet(seed: int) -> None:
    net = separate_network(seed)
    X, flow = all_masks(len(net.graph.units)), net.flow
    target = net.outputs.sum(axis=0)  # the unpruned network's own answers
    losses, rise = net.losses(X, target), float(net.gram().trace())
    drops = leave_one_out(X, losses)
    assert drops is not None
    theta = start_theta(flow, drops, rise)
    fit = PathFit(0.0, rise, 0.0, 0.0, flow.softmax(theta))
    assert_allclose(path_sum(flow, fit, X), losses, atol=1e-8 * rise)


@given(seeds, st.booleans())
def test_path_features_suffice_exactly_if_the_collected_cross_terms_vanish(
    seed: int, separate: bool
) -> None:
    rng = np.random.default_rng(seed)
    net = separate_network(seed) if separate else random_network(seed)
    flow, units = net.flow, len(net.graph.units)
    X = all_masks(units)
    losses = net.losses(X, rng.normal(size=net.outputs.shape[1:]))
    gram, cross = net.gram(), dict.fromkeys(unions(net.cuts), 0.0)
    for p, q in product(range(len(net.cuts)), repeat=2):
        cross[net.cuts[p] | net.cuts[q]] += gram[p, q]
    between = {s: g for s, g in cross.items() if s and s not in net.cuts}
    found = moebius(losses, units)
    for units_of, value in found.items():
        if units_of and units_of not in net.cuts:
            assert value == pytest.approx(between.get(units_of, 0.0), abs=1e-8 * losses.max())
    error = np.abs(
        interpolated(kernel(flow, np.ones(len(flow.tails)), (1.0, 1.0, 0.0)), X, losses, X) - losses
    ).max()
    vanish = max(map(abs, between.values()), default=0.0) < 1e-9
    assert vanish or not separate
    assert (error < 1e-8 * losses.max()) == vanish
    z = flow.forward(flow.softmax(rng.normal(size=len(flow.tails))), flow.keep(X))[-1]
    no_paths = [v for s, v in moebius(z, units).items() if s not in net.cuts]
    assert_allclose(no_paths, 0.0, atol=1e-12)


def test_cross_terms_may_cancel_although_paths_meet() -> None:
    turn = np.array([[0.0, 1.0], [-1.0, 0.0]])
    matrices = [np.array([[1.0], [0.0]]), np.array([[0.0], [1.0]]), np.eye(2), turn]
    net = network(SERIES, matrices)
    gram = net.gram()
    assert np.abs(gram - np.diag(np.diag(gram))).max() > 0.1  # two pairs meet, with opposite signs
    X = all_masks(4)
    losses = net.losses(X, np.zeros(net.outputs.shape[1:]))
    mean_square = float((net.x**2).mean())
    z = net.flow.forward(np.full(4, 0.5), net.flow.keep(X))[-1]
    assert_allclose(losses, 4.0 * mean_square * z, atol=1e-12)


def test_without_cross_terms_the_rest_must_factorise_over_edges() -> None:
    net = network(SERIES, separate(SERIES, np.ones(4)))
    outputs = net.outputs * np.array([2.0, 1.0, 1.0, 2.0])[:, None, None]
    net = Network(net.graph, net.x, net.cuts, outputs)  # a layer may scale each coordinate
    X, flow = all_masks(4), net.flow
    losses = net.losses(X, outputs.sum(axis=0))
    between = kernel(flow, np.ones(4), (1.0, 1.0, 0.0))
    assert_allclose(interpolated(between, X, losses, X), losses, atol=1e-8 * losses.max())
    gain = np.array([moebius(losses, 4)[cut] for cut in net.cuts]).reshape(2, 2)
    assert np.linalg.det(gain) > 1.0
    for seed in range(5):
        a = flow.softmax(np.random.default_rng(seed).normal(size=4))
        z = moebius(flow.forward(a, flow.keep(X))[-1], 4)
        assert np.linalg.det(np.array([z[c] for c in net.cuts]).reshape(2, 2)) == pytest.approx(0.0)
    fit = fit_path_sum(flow, X, losses, ridges=(1e-4,))
    assert np.abs(path_sum(flow, fit, X) - losses).max() > 0.05 * losses.max()


# -- weight pushing and conservation ------------------------------------------------------------


@given(seeds)
def test_incoming_and_outgoing_weights_differ_from_any_by_one_scale(seed: int) -> None:
    net, rng = random_network(seed), np.random.default_rng(seed)
    flow = net.flow
    keep = flow.keep((rng.random((20, len(net.graph.units))) < 0.3).astype(float))
    whole = np.ones((len(flow.tails), 1))
    any_weights = rng.uniform(0.2, 3.0, len(flow.tails))
    potential = rng.uniform(0.5, 2.0, flow.nodes)
    potential[[0, -1]] = 1.0
    moved = any_weights * potential[flow.heads] / potential[flow.tails]  # same path products
    incoming = []
    for weights in (any_weights, moved):
        g = flow.forward(weights, whole)[:, 0]
        incoming.append(weights * g[flow.tails] / g[flow.heads])
        assert_allclose(flow.sums_into(incoming[-1]), 1.0)
        scaled = g[-1] * flow.forward(incoming[-1], keep)[-1]
        assert_allclose(flow.forward(weights, keep)[-1], scaled)
    assert_allclose(*incoming)
    gamma = push_weights(flow, incoming[0], net.graph)
    assert gamma.min() >= 0.0
    assert gamma.max() <= 1.0 + 1e-12
    tails = [edge.source for edge in net.graph.edges]
    assert_allclose(np.bincount(tails, gamma), 1.0)  # the output has no edges out
    ways = {}
    for path in ways_on_paths(flow):
        cut = frozenset(np.flatnonzero(flow.cuts[list(path)].any(axis=0)))
        ways[cut] = incoming[0][list(path)].prod()
    owner = {e: u for u, unit in enumerate(net.graph.units) for e in unit.removal.edges}
    paths = list(edges_on_paths(net.graph))
    assert len(paths) == len(ways)
    for path in paths:
        cut = frozenset(owner[e] for e in path if e in owner)
        assert gamma[list(path)].prod() == pytest.approx(ways[cut], rel=1e-9)


@given(seeds)
def test_leave_one_out_losses_are_a_conserved_flow(seed: int) -> None:
    net, rng = random_network(seed), np.random.default_rng(seed)
    flow, units = net.flow, len(net.graph.units)
    weights = flow.softmax(rng.normal(size=len(flow.tails)))
    X = np.vstack([np.zeros(units), np.eye(units)])
    drops = leave_one_out(X, -0.4 + 2.5 * (1.0 - flow.forward(weights, flow.keep(X))[-1]))
    assert drops is not None
    node_flow = flow.backward(weights, np.ones((len(flow.tails), 1)))[:, 0]  # nothing removed
    way_flow = weights * node_flow[flow.heads]
    for unit in range(units):
        ways = np.flatnonzero(flow.cuts[:, unit])
        if len(ways) == 1:
            assert drops[unit] == pytest.approx(2.5 * way_flow[ways[0]])
        hit = [path for path in ways_on_paths(flow) if {*path} & {*ways}]
        lost = sum(weights[list(path)].prod() for path in hit)
        assert drops[unit] == pytest.approx(2.5 * lost)
    residual = kirchhoff(net.graph, drops)
    assert_allclose(residual[~np.isnan(residual)], 0.0, atol=1e-12)
    inner = [v for v in range(len(net.graph.vertices)) if not np.isnan(residual[v])]
    assert inner
    gamma = push_weights(flow, weights, net.graph)
    owner = {e: u for u, unit in enumerate(net.graph.units) for e in unit.removal.edges}
    for vertex in inner:
        out = list(net.graph.consumers[vertex])
        through = np.array([drops[owner[e]] for e in out])
        assert_allclose(gamma[out], through / through.sum())


# -- the damage of a path-sum is weighted coverage ----------------------------------------------


@given(seeds, st.booleans())
def test_damage_is_coverage_monotone_submodular_and_below_the_sum(seed: int, layers: bool) -> None:
    net = random_network(seed, layers)
    flow, rng, units = net.flow, np.random.default_rng(seed), len(net.graph.units)
    weights = flow.softmax(rng.normal(size=len(flow.tails)))

    def damage(X: Array) -> Array:
        return 1.0 - flow.forward(weights, flow.keep(X))[-1]

    paths = list(ways_on_paths(flow))
    products = np.array([weights[list(path)].prod() for path in paths])
    hit = np.array([flow.cuts[list(path)].any(axis=0) for path in paths], dtype=float)
    more = (rng.random((60, units)) < 0.5).astype(float)
    less = more * (rng.random((60, units)) < 0.5)
    assert products.sum() == pytest.approx(1.0)
    assert_allclose(damage(more), (more @ hit.T > 0) @ products, atol=1e-12)
    assert (damage(more) >= damage(less) - 1e-12).all()
    for unit in np.eye(units):
        gain_less = damage(np.maximum(less, unit)) - damage(less)
        gain_more = damage(np.maximum(more, unit)) - damage(more)
        assert (gain_less >= gain_more - 1e-12).all()
    bound = more @ damage(np.eye(units))
    assert (damage(more) <= bound + 1e-12).all()
    disjoint = more @ hit.T.astype(float) <= 1  # no path is hit twice
    assert_allclose(damage(more)[disjoint.all(axis=1)], bound[disjoint.all(axis=1)], atol=1e-12)


def test_the_bound_is_no_bound_on_networks_nor_under_saturation() -> None:
    net = network(DIAMOND, [np.eye(3), np.eye(3)])
    none, one, other, both = net.losses(
        np.array([[0, 0], [1, 0], [0, 1], [1, 1]], dtype=float), net.outputs.sum(axis=0)
    )
    assert both - none == pytest.approx(2.0 * (one + other - 2.0 * none))
    flow, X = net.flow, np.array([[0, 0], [1, 0], [0, 1], [1, 1]], dtype=float)
    fit = PathFit(0.0, 1.0, 3.0, 0.0, np.full(2, 0.5))
    none, one, other, both = path_sum(flow, fit, X)
    assert none == pytest.approx(0.0)
    assert both > 2.0 * (one + other)
    assert 0.0 < one == other


# -- how many masks -----------------------------------------------------------------------------


def test_a_pair_is_removed_together_in_n_p_squared_masks_and_seen_with_that_precision() -> None:
    rng, p, units = np.random.default_rng(0), 0.15, 6
    X = (rng.random((400, 400, units)) < p).astype(float)
    together = np.array([(X[..., e] * X[..., f]).sum(axis=1) for e, f in combinations(range(6), 2)])
    assert together.mean() == pytest.approx(400 * p**2, rel=0.02)
    X = X.reshape(-1, units)
    pairs = [X[:, e] * X[:, f] for e, f in combinations(range(units), 2)]
    design = np.column_stack([np.ones(len(X)), X, *pairs])
    variance = np.diag(np.linalg.inv(design.T @ design))[-len(pairs) :]  # of σ²
    assert_allclose(variance, 1.0 / (len(X) * p**2 * (1 - p) ** 2), rtol=0.05)


@given(seeds)
def test_single_removals_determine_a_path_sum(seed: int) -> None:
    net, rng = random_network(seed), np.random.default_rng(seed)
    flow, units = net.flow, len(net.graph.units)
    weights = flow.softmax(0.5 * rng.normal(size=len(flow.tails)))
    few = np.vstack([np.zeros(units), np.eye(units)])

    def target(X: Array) -> Array:
        return -0.5 + 3.0 * (1.0 - flow.forward(weights, flow.keep(X))[-1])

    drops = leave_one_out(few, target(few))
    assert drops is not None
    least = [min(drops[np.flatnonzero(cut)]) for cut in flow.cuts]
    rise = sum(least[way] for way in range(len(least))[flow.into[-1]])  # what enters the output
    assert rise == pytest.approx(3.0)
    found = flow.softmax(start_theta(flow, drops, rise))
    assert_allclose(found, weights, atol=1e-8)


def test_single_removals_say_nothing_to_a_pairwise_model() -> None:
    flow, X = network(SERIES, [np.eye(3)] * 4).flow, all_masks(4)
    target = 3.0 * (1.0 - flow.forward(np.full(4, 0.5), flow.keep(X))[-1])
    few = X.sum(axis=1) <= 1
    assert not np.any([X[few, e] * X[few, f] for e, f in combinations(range(4), 2)])
    model = Degree2(link="identity").fit(X[few], target[few])
    both = np.array([[1.0, 0.0, 1.0, 0.0]])  # one of each diamond
    assert target[np.flatnonzero((both == X).all(axis=1))] == pytest.approx(2.25)
    assert abs(model.predict(both)[0] - 2.25) > 0.5


# -- fresh masks --------------------------------------------------------------------------------


def test_no_fresh_mask_better_says_how_far_from_the_top() -> None:
    top = 1.0 - 0.05 ** (1.0 / 300)
    assert top == pytest.approx(0.00994, abs=1e-5)
    rng, fresh, rounds = np.random.default_rng(0), 6, 250
    pairs = [(i, i + 1) for i in range(4) for _ in range(2)]
    graph = network(pairs, [np.eye(2)] * 8).graph
    valid = [m for m in all_masks(len(graph.units)) if m.sum() == 3 and connected(graph, m)]
    names = ["".join(str(int(bit)) for bit in m) for m in valid]
    beaten = int(np.ceil((1.0 - 0.05 ** (1.0 / fresh)) * len(valid)))
    better = set(rng.permutation(names)[:beaten])  # than the chosen mask: just too many
    draws = [ew.sample_masks(graph, fresh, removed=3, rng=rng) for _ in range(rounds)]
    drawn = [[str(m) for m in masks] for masks in draws]
    silent = np.mean([better.isdisjoint(masks) for masks in drawn])
    exact = comb(len(valid) - beaten, fresh) / comb(len(valid), fresh)
    assert exact <= (1.0 - beaten / len(valid)) ** fresh <= 0.05
    assert silent == pytest.approx(exact, abs=4.0 * np.sqrt(0.05 / rounds))
    counts = [sum(name in masks for masks in drawn) for name in names]
    assert_array_equal([len({*masks}) for masks in drawn], fresh)
    assert chisquare(counts).pvalue > 1e-3  # uniform over the valid masks
