"""The pure parts of the published experiments, and their plain forward against ew.masked."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import rankdata

import edgewise as ew

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks" / "published"))
import baselines
import leak
import scores
from dags import IMAGE, Masked, Network, graph_of, random_dag
from measure import distinct_singles

SIZES = {2: (12, 16), 5: (24, 34), 14: (64, 90)}


@pytest.mark.parametrize("steps", SIZES)
def test_dags_have_their_sizes_and_every_vertex_reaches_the_output(steps: int) -> None:
    for seed in range(20):
        dag = random_dag(steps, np.random.default_rng(seed))
        assert SIZES[steps][0] <= len(dag.edges) <= SIZES[steps][1]
        assert all(tail < head for tail, head in dag.edges)
        last = len(dag.widths) - 1
        reaching = {last}
        for tail, head in reversed(dag.edges):
            assert head in reaching
            reaching.add(tail)
        assert reaching == {IMAGE, *range(last + 1)}
        assert (dag.inner[last], dag.widths[last]) == (20, 10)
        for tail, head in dag.edges[1:]:
            assert dag.inner[head] == dag.widths[tail]


def test_plain_forward_is_the_masked_network() -> None:
    rng = np.random.default_rng(1)
    network = Network(random_dag(3, rng)).eval()
    graph, x = graph_of(network), torch.rand(3, 1, 28, 28)
    strict, leaky = Masked(network, x, leak=False), Masked(network, x, leak=True)
    assert torch.equal(leaky(np.zeros(len(graph.units))), network(x))
    seen = set()
    for _ in range(40):
        bits = rng.random(len(graph.units)) < 0.15
        mask = graph.mask(bits=bits.astype(int))
        out, whole = strict(bits), ew.liveness(graph, mask).connected
        seen.add(whole)
        assert (out is not None) == whole
        if whole:
            torch.testing.assert_close(out, ew.masked(graph, mask)(x))
    assert seen == {True, False}


def test_a_disconnected_network_leaks_a_constant() -> None:
    network = Network(random_dag(2, np.random.default_rng(0))).eval()
    leaky = Masked(network, torch.rand(3, 1, 28, 28), leak=True)
    first = np.eye(len(network.dag.edges))[0]
    out = leaky(first)
    assert torch.equal(out, out[:1].expand(3, -1))
    assert out.abs().max() > 0  # the biases
    assert not leaky(np.ones(len(network.dag.edges))).any()


def test_singles_are_distinct_networks() -> None:
    graph = graph_of(Network(random_dag(3, np.random.default_rng(2))))
    singles = distinct_singles(graph)
    found = {ew.liveness(graph, mask).signature for mask in singles}
    assert len(found) == len(singles) < len(graph.units)


def test_ceiling_is_reached_by_the_best_prediction_with_ties() -> None:
    measured = np.arange(1000.0)
    tied = np.minimum(measured, 100.0)  # all but a tenth are disconnected
    best = scores.ranks(tied, measured)["spearman"]
    assert best == pytest.approx(scores.ceiling(0.9), abs=1e-3)
    assert rankdata(tied)[-1] == rankdata(tied)[200]


def test_importance_as_published_and_corrected() -> None:
    importance = np.array([1.0, 2.0, 6.0])
    masks = np.array([[0, 0, 1], [1, 1, 0], [1, 1, 1]])
    np.testing.assert_allclose(baselines.mean_of_kept(importance, masks), [1.5, 6.0, 0.0])
    np.testing.assert_allclose(baselines.less_of_removed(importance, masks), [-6.0, -3.0, -9.0])


def test_published_graph_surrogate_has_the_right_slope() -> None:
    rng = np.random.default_rng(3)
    dag = random_dag(3, rng)
    model = baselines.GraphSurrogate(dag)
    masks, good = rng.integers(0, 2, (20, len(dag.edges))), rng.random(20)
    model.theta = rng.normal(size=len(dag.edges))
    keep, theta, step = (1.0 - masks).T, model.theta.copy(), 1e-6
    _, slope = model._error(keep, good)
    for edge in range(len(theta)):
        model.theta = theta + step * np.eye(len(theta))[edge]
        up = model._error(keep, good)[0]
        model.theta = theta - step * np.eye(len(theta))[edge]
        assert slope[edge] == pytest.approx((up - model._error(keep, good)[0]) / 2 / step, abs=1e-6)
    assert model.predict(np.zeros((1, len(theta))))[0] == pytest.approx(1.0)
    sums = np.bincount(model.tails, model.gamma())
    np.testing.assert_allclose(sums, 1.0)


def test_constants_follow_the_edges_left_into_the_output() -> None:
    dag = random_dag(3, np.random.default_rng(4))
    into = np.array([head == len(dag.widths) - 1 for _, head in dag.edges])
    masks = np.vstack([np.ones(len(into)), np.eye(len(into))[0], into])
    np.testing.assert_allclose(leak.share_left(dag, masks), [0.0, 1.0, 0.0])
    losses = np.exp([2.0, 3.0])
    found = leak.constants(dag, masks[:2], losses, masks)
    np.testing.assert_allclose(found, [2.0, 3.0, 2.0])


def test_a_connected_network_lies_between_itself_and_its_constant() -> None:
    class Half:
        def predict_link(self, masks: np.ndarray) -> np.ndarray:
            return masks.mean(axis=1)

    test = np.array([[0, 0], [0, 1], [1, 1]])
    found = leak.between(Half(), -1.0, np.array([3.0, 3.0, 4.0]), test)
    np.testing.assert_allclose(found, [-1.0, 1.0, 4.0])
