"""Surrogates: one conformance suite for all, then what each promises."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.stats import spearmanr
from sklearn.base import BaseEstimator, clone
from sklearn.dummy import DummyRegressor
from sklearn.ensemble import RandomForestRegressor
from sklearn.linear_model import LinearRegression
from sklearn.model_selection import cross_val_score
from threadpoolctl import threadpool_info

from edgewise import surrogates
from edgewise.errors import EdgewiseError
from edgewise.graph.graph import Cost, Graph, Unit
from edgewise.graph.removal import Removal
from edgewise.graph.vertices import Edge, Vertex
from edgewise.surrogates.features import Coordinates
from edgewise.surrogates.gaussian_process import JITTER, Prior, _Evidence
from edgewise.surrogates.kernels import Hamming, Local
from edgewise.surrogates.path_fit import (
    _Problem,
    fit_path_sum,
    leave_one_out,
    path_sum,
    start_theta,
)
from edgewise.surrogates.path_graph import path_kernel, push_weights
from edgewise.surrogates.reduction import reduce_graph
from edgewise.surrogates.threads import single_threaded
from edgewise.surrogates.validation import from_link, to_link

FREE = Cost(0, 0, 0, 0)


def vertex(name: str, op: str = "linear") -> Vertex:
    return Vertex(name, op, op, (4,), 4, (), {}, (), name, None, "")


def make_graph(
    count: int, pairs: list[tuple[int, int]], units: list[tuple[str, tuple[int, ...]]]
) -> Graph:
    """Vertices 0 (input) … count - 1 (output), edges sorted by target, units (kind, members)."""
    pairs = sorted(pairs, key=lambda pair: (pair[1], pair[0]))
    slots: dict[int, int] = {}
    edges = []
    for source, target in pairs:
        edges.append(Edge(source, target, slots.get(target, 0)))
        slots[target] = slots.get(target, 0) + 1
    ops = ["input", *["add"] * (count - 2), "output"]
    return Graph(
        tuple(vertex(f"v{i}", op) for i, op in enumerate(ops)),
        tuple(edges),
        tuple(
            Unit(f"u{i}", kind, Removal(**{f"{kind}s": frozenset(members)}), FREE)  # type: ignore[arg-type]
            for i, (kind, members) in enumerate(units)
        ),
        ("edge",),
        "by hand",
    )


def random_dag(inner: int, rng: np.random.Generator) -> Graph:
    """A random DAG whose units are its single edges, except for the last one (a bridge)."""
    pairs = {(i, i + 1) for i in range(inner + 1)}
    pairs |= {(i, j) for i in range(inner) for j in range(i + 2, inner + 1) if rng.random() < 0.35}
    count = len(pairs)
    return make_graph(inner + 2, sorted(pairs), [("edge", (e,)) for e in range(count - 1)])


def chain_with_layer() -> Graph:
    """input → a → (b → c) + skip → d → output; units: the branch, the skip, the layer b."""
    # edges by target: 0: 0→1, 1: 1→2, 2: 2→3, 3: 1→4 (skip), 4: 3→4, 5: 4→5
    pairs = [(0, 1), (1, 2), (2, 3), (1, 4), (3, 4), (4, 5)]
    return make_graph(6, pairs, [("edge", (1, 2, 4)), ("edge", (3,)), ("layer", (2,))])


GRAPH = random_dag(6, np.random.default_rng(1))
UNITS = len(GRAPH.units)


def masks(count: int, rng: np.random.Generator, graph: Graph = GRAPH, rate: float = 0.2) -> Any:
    """Nothing removed, leave-one-out, then random masks."""
    units = len(graph.units)
    start = np.vstack([np.zeros(units), np.eye(units)])[:count]
    rest = rng.random((max(count - len(start), 0), units)) < rate
    return np.vstack([start, rest]).astype(float)


def interacting(X: Any, rng: np.random.Generator) -> Any:
    """Positive losses: path flow, one strong pair, and noise."""
    flow = reduce_graph(GRAPH)
    weights = flow.softmax(np.random.default_rng(7).normal(size=len(flow.tails)))
    z = flow.forward(weights, flow.keep(X))[-1]
    return np.exp(-1.0 + 2.0 * (1.0 - z) + 0.8 * X[:, 1] * X[:, 2] + rng.normal(0, 0.02, len(X)))


MAKERS: dict[str, Callable[..., Any]] = {
    "Linear": surrogates.Linear,
    "Logistic": surrogates.Logistic,
    "FCN": surrogates.FCN,
    "Trees": surrogates.Trees,
    "Degree2": surrogates.Degree2,
    "PathSum": lambda **k: surrogates.PathSum(GRAPH, **k),
    "PathSum-saturating": lambda **k: surrogates.PathSum(GRAPH, saturate=True, **k),
    "CrossGamma": lambda **k: surrogates.CrossGamma(GRAPH, **k),
    "GraphGP": lambda **k: surrogates.GraphGP(GRAPH, **k),
    "UnitGP": lambda **k: surrogates.UnitGP(GRAPH, **k),
    "Bootstrap-FCN": lambda **k: surrogates.Bootstrap(surrogates.FCN(), **k),
    "Bootstrap-forest": lambda **k: surrogates.Bootstrap(RandomForestRegressor(20), **k),
}
WITH_STD = ("Linear", "Degree2", "GraphGP", "UnitGP", "Bootstrap-FCN", "Bootstrap-forest")
every = pytest.mark.parametrize("name", MAKERS)


@pytest.fixture(scope="module")
def data() -> tuple[Any, Any]:
    rng = np.random.default_rng(0)
    X = masks(60, rng)
    return X, interacting(X, rng)


# -- known noise -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", WITH_STD)
def test_what_is_noisy_counts_for_less(name: str, data: Any) -> None:
    """Some losses are wrong by a factor; who is told so mispredicts the true ones less."""
    X, y = data
    rng = np.random.default_rng(1)
    noisy = rng.random(len(X)) < 0.4
    wrong = np.where(noisy, y * np.exp(rng.normal(size=len(y))), y)
    exact = MAKERS[name]().fit(X, wrong, noise=np.zeros(len(y)))
    assert_array_equal(exact.predict(X), MAKERS[name]().fit(X, wrong).predict(X))
    if name == "Bootstrap-FCN":  # a network that takes no weights
        return
    told = MAKERS[name]().fit(X, wrong, noise=noisy * wrong)
    errors = [np.mean((np.log(y) - m.predict_link(X)) ** 2) for m in (told, exact)]
    assert errors[0] < errors[1]
    for bad in (np.full(len(y), -1.0), np.full(len(y), np.nan), [0.1]):
        with pytest.raises(ValueError, match="noise must be one finite standard error"):
            MAKERS[name]().fit(X, y, noise=bad)


def test_an_updated_process_is_conditioned_on_what_it_is_given(data: Any) -> None:
    X, y = data
    model = surrogates.UnitGP(GRAPH).fit(X[:40], y[:40])
    assert_allclose(model.updated(X[:40], y[:40]).predict(X), model.predict(X))
    more = model.updated(X, y)
    assert more.posterior_.own == model.posterior_.own
    assert model.linear_[1].shape == (UNITS,)
    before, after = (m.predict_link(X[40:], return_std=True)[1] for m in (model, more))
    assert (after < before).all()
    assert np.abs(np.log(y[40:]) - more.predict_link(X[40:])).mean() < 0.1


@pytest.mark.parametrize("name", ["Degree2", "UnitGP"])
def test_a_process_predicts_what_its_kernels_and_observations_say(name: str, data: Any) -> None:
    X, y = data
    model = MAKERS[name]().fit(X[:40], y[:40])
    found, known = model.posterior_, X[:40]
    noise = found.noise + JITTER
    inner = found.covariance(known, known, model._kernels(known, known)) + noise * np.eye(40)
    cross = found.covariance(X, known, model._kernels(X, known))
    own = np.diag(found.covariance(X, X, model._kernels(X, X)))
    target = (np.log(y[:40]) - model.shift_) / model.scale_
    mean = cross @ np.linalg.solve(inner, target)
    left = own + noise - np.sum(cross.T * np.linalg.solve(inner, cross.T), axis=0)
    expected = model.shift_ + model.scale_ * mean, model.scale_ * np.sqrt(left)
    for copy in (model, pickle.loads(pickle.dumps(model))):  # after a prediction, too
        for told, wanted in zip(copy.predict_link(X, return_std=True), expected, strict=True):
            assert_allclose(told, wanted, rtol=1e-6, atol=1e-8)


# -- conformance -------------------------------------------------------------------------------


@every
def test_predicts_in_original_units_and_better_than_the_mean(name: str, data: Any) -> None:
    X, y = data
    model = MAKERS[name]()
    assert model.fit(X, y) is model
    predicted = model.predict(X)
    assert predicted.shape == (len(X),)
    assert predicted.dtype == np.float64
    assert np.mean((np.log(predicted) - np.log(y)) ** 2) < 0.5 * np.var(np.log(y))
    assert_allclose(np.log(predicted), model.predict_link(X))
    assert model.predict(X[:0]).shape == (0,)
    assert_allclose(model.predict(X[3:4]), predicted[3:4])


@every
def test_clones_and_parameters(name: str, data: Any) -> None:
    X, y = data
    model = MAKERS[name](link="identity")
    copy = clone(model)
    assert copy is not model
    assert copy.get_params().keys() == model.get_params().keys()
    assert copy.get_params()["link"] == "identity"
    assert copy.set_params(link="log").link == "log"
    assert_array_equal(copy.fit(X, y).predict(X), MAKERS[name]().fit(X, y).predict(X))
    if "graph" in model.get_params():
        assert copy.graph is model.graph


@every
def test_fits_are_deterministic_and_leave_global_randomness_alone(name: str, data: Any) -> None:
    X, y = data
    np.random.seed(5)  # noqa: NPY002 - the legacy state is what must stay untouched
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    first = MAKERS[name]().fit(X, y).predict(X)
    assert_array_equal(before, np.random.get_state()[1])  # noqa: NPY002
    assert_array_equal(first, MAKERS[name]().fit(X, y).predict(X))


def test_blas_threads_are_limited_during_the_call_only() -> None:
    def threads() -> list[int]:
        return [lib["num_threads"] for lib in threadpool_info() if lib["user_api"] == "blas"]

    before = threads()
    assert set(single_threaded(threads)()) == {1}
    assert threads() == before
    with pytest.raises(ZeroDivisionError):
        single_threaded(lambda: 1 / 0)()
    assert threads() == before


@every
def test_fit_does_not_change_its_arguments(name: str, data: Any) -> None:
    X, y = data[0].copy(), data[1].copy()
    MAKERS[name]().fit(X, y).predict(X)
    assert_array_equal(X, data[0])
    assert_array_equal(y, data[1])


@every
def test_standard_deviation_is_honest_or_refused(name: str, data: Any) -> None:
    X, y = data
    model = MAKERS[name]().fit(X, y)
    if name not in WITH_STD:
        with pytest.raises(ValueError, match="no predictive standard deviation"):
            model.predict(X, return_std=True)
        with pytest.raises(ValueError, match="no predictive standard deviation"):
            model.predict_link(X, return_std=True)
        return
    mean, std = model.predict(X, return_std=True)
    link_mean, link_std = model.predict_link(X, return_std=True)
    assert std.shape == (len(X),)
    assert np.isfinite(std).all()
    assert (std > 0).all()
    assert_allclose(mean, model.predict(X))
    assert_allclose(link_mean, np.log(mean))
    assert_allclose(std, mean * link_std)  # the delta method for exp
    assert model.predict(X[:0], return_std=True)[1].shape == (0,)


@pytest.mark.parametrize("name", WITH_STD)
def test_standard_deviation_is_calibrated_and_grows_away_from_the_data(name: str) -> None:
    rng = np.random.default_rng(3)
    X = masks(150, rng)
    target = X @ rng.normal(0, 0.4, UNITS) + rng.normal(0, 0.1, len(X))
    model = MAKERS[name]().fit(X[:110], np.exp(target[:110]))
    mean, std = model.predict_link(X[110:], return_std=True)
    z = (target[110:] - mean) / std
    assert 0.5 < np.sqrt(np.mean(z**2)) < 1.6
    far = model.predict_link(np.ones((1, UNITS)), return_std=True)[1]
    assert far[0] > std.mean()


@every
@pytest.mark.parametrize("link", ["log", "logit", "identity"])
def test_links(name: str, link: Any, data: Any) -> None:
    X = data[0]
    target = X.sum(axis=1) / 4 - 1.0
    y = from_link(target, link)
    model = MAKERS[name](link=link).fit(X, y)
    assert_allclose(to_link(model.predict(X), link), model.predict_link(X), rtol=1e-6, atol=1e-9)
    assert np.corrcoef(model.predict_link(X), target)[0, 1] > 0.85


@every
def test_domain_of_the_link(name: str, data: Any) -> None:
    X, y = data
    with pytest.raises(ValueError, match=r"needs y > 0.*link='identity'"):
        MAKERS[name]().fit(X, np.append(y[1:], 0.0))
    with pytest.raises(ValueError, match="needs 0 < y < 1"):
        MAKERS[name](link="logit").fit(X, np.append(np.full(len(X) - 1, 0.5), 1.0))
    with pytest.raises(ValueError, match="link must be one of"):
        MAKERS[name](link="probit").fit(X, y)
    assert np.isfinite(MAKERS[name](link="identity").fit(X, y - y.mean()).predict(X)).all()


@every
def test_one_evaluation_and_constant_losses_predict_the_constant(name: str, data: Any) -> None:
    X = data[0]
    for count in (1, 2, 30):
        model = MAKERS[name]().fit(X[:count], np.full(count, 0.7))
        assert_allclose(model.predict(X), 0.7)
        if name in WITH_STD:
            mean, std = model.predict(X, return_std=True)
            assert_allclose(mean, 0.7)
            assert np.isfinite(std).all()
            assert (std > 0).all()


@every
@pytest.mark.parametrize("count", [2, 3, 5, 9, 11, 17])
def test_few_evaluations(name: str, count: int, data: Any) -> None:
    X, y = data
    predicted = MAKERS[name]().fit(X[:count], y[:count]).predict(X)
    assert np.isfinite(predicted).all()
    assert predicted.min() > y.min() / 20
    assert predicted.max() < y.max() * 20


@every
def test_repeated_masks_with_different_losses_are_averaged(name: str) -> None:
    X = np.zeros((40, UNITS))
    X[20:, 0] = 1.0
    target = np.where(np.arange(40) % 2, 0.5, -0.5) + 2.0 * X[:, 0]
    model = MAKERS[name](link="identity").fit(X, target)
    assert_allclose(model.predict(X[[0, 39]]), [0.0, 2.0], atol=0.25)


@every
def test_units_that_never_vary(name: str, data: Any) -> None:
    X, y = data[0].copy(), data[1]
    X[:, 0], X[:, 4] = 0.0, 1.0
    predicted = MAKERS[name]().fit(X, y).predict(np.eye(UNITS))
    assert np.isfinite(predicted).all()


@every
def test_malformed_input_is_refused(name: str, data: Any) -> None:
    X, y = data
    bad = X.copy()
    bad[2, 1] = np.nan
    holes = y.copy()
    holes[4] = np.nan
    model = MAKERS[name]()
    for wrong, losses, message in [
        (X[0], y, r"shape \[n_masks, n_units\]"),
        (X[:, :0], y, "no columns"),
        (bad, y, r"X\[2, 1\] is nan"),
        (X * 0.5, y, "0 .kept. and 1 .removed. only"),
        (X, holes, r"y\[4\] is nan.*failed"),
        (X, np.append(y[1:], np.inf), "finite"),
        (X, y[:-1], r"y must have shape"),
        (X, y[:, None], r"y must have shape"),
        (X[:0], y[:0], "nothing to fit"),
    ]:
        with pytest.raises(ValueError, match=message):
            model.fit(wrong, losses)
    model.fit(X, y)
    with pytest.raises(ValueError, match=f"one column a unit, {UNITS} in all"):
        model.predict(X[:, 1:])
    with pytest.raises(ValueError, match="only"):
        model.predict(bad)


@every
def test_prediction_before_fit_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="not fitted"):
        MAKERS[name]().predict(np.zeros((1, UNITS)))


@every
def test_booleans_lists_and_sklearn_tools(name: str, data: Any) -> None:
    X, y = data
    model = MAKERS[name]().fit(X.astype(bool), list(y))
    assert_allclose(model.predict(X.astype(int).tolist()), model.predict(X))
    scores = cross_val_score(MAKERS[name](), X, y, cv=3)
    assert np.isfinite(scores).all()


@pytest.mark.parametrize("name", ["PathSum", "GraphGP"])
def test_masks_of_another_graph_are_refused(name: str, data: Any) -> None:
    with pytest.raises(ValueError, match=f"one column a unit, {UNITS} in all"):
        MAKERS[name]().fit(data[0][:, 1:], data[1])


# -- Linear, Logistic, FCN, Degree2 ------------------------------------------------------------


def test_linear_recovers_a_linear_loss() -> None:
    rng = np.random.default_rng(0)
    X = masks(80, rng)
    coef = rng.normal(size=UNITS)
    model = surrogates.Linear().fit(X, np.exp(0.3 + X @ coef))
    assert_allclose(model.coef_, coef, atol=1e-3)
    assert model.intercept_ == pytest.approx(0.3, abs=1e-3)


def test_logistic_recovers_a_logistic_accuracy_and_stays_within_bounds() -> None:
    rng = np.random.default_rng(0)
    X = masks(200, rng)
    coef = rng.normal(0, 0.7, UNITS)
    y = from_link(1.0 - X @ coef, "logit")
    model = surrogates.Logistic(link="logit").fit(X, y)
    assert np.abs(model.predict(X) - y).max() < 0.1
    losses = surrogates.Logistic().fit(X, np.exp(X.sum(axis=1)))
    top = losses.predict(np.ones((1, UNITS)))[0]
    assert 0 < top <= np.exp(X.sum(axis=1).max() * 1.05 + 1e-9)


def test_fcn_depends_on_its_random_state_only(data: Any) -> None:
    X, y = data
    first, other = (surrogates.FCN(random_state=s).fit(X, y).predict(X) for s in (0, 1))
    assert not np.array_equal(first, other)


def test_degree2_learns_a_pair_that_linear_cannot() -> None:
    rng = np.random.default_rng(0)
    X = masks(160, rng, rate=0.4)
    target = X[:, 0] - X[:, 1] + 2.0 * X[:, 2] * X[:, 3]
    train, test = slice(0, 110), slice(110, 160)
    error = {}
    for model in (surrogates.Linear(link="identity"), surrogates.Degree2(link="identity")):
        held = model.fit(X[train], target[train]).predict(X[test])
        error[type(model).__name__] = np.sqrt(np.mean((held - target[test]) ** 2))
    assert error["Degree2"] < 0.3 * error["Linear"]


# -- Bootstrap ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "model",
    [
        surrogates.Logistic(),
        surrogates.FCN(),
        surrogates.Trees(trees=50),
        surrogates.PathSum(GRAPH),
        surrogates.CrossGamma(GRAPH),
        RandomForestRegressor(20),
        LinearRegression(),
    ],
    ids=lambda model: type(model).__name__,
)
def test_intervals_of_bootstrapped_deviations_cover_what_they_say(model: Any) -> None:
    shares = []
    for draw in range(2):
        rng = np.random.default_rng(draw)
        X = masks(300, rng)
        y = interacting(X, rng) * np.exp(rng.normal(0, 0.1, len(X)))
        mean, std = surrogates.Bootstrap(model).fit(X[:90], y[:90]).predict_link(X[90:], True)
        shares.append(np.mean(np.abs(np.log(y[90:]) - mean) < 1.96 * std))
    assert 0.93 <= np.mean(shares) <= 0.998


def test_the_mean_is_that_of_the_regressor_itself(data: Any) -> None:
    X, y = data
    found = surrogates.Bootstrap(surrogates.Trees()).fit(X, y)
    assert_allclose(found.predict(X), surrogates.Trees().fit(X, y).predict(X), rtol=1e-6)


class Recorder(LinearRegression):
    """Remembers which masks each fit saw."""

    seen: list[Any] = []  # noqa: RUF012 - of all copies

    def fit(self, X: Any, y: Any) -> Any:
        self.seen.append(X)
        return super().fit(X, y)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 40), st.integers(0, 100))
def test_no_resample_lacks_what_every_search_starts_with(count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    X = masks(count + UNITS + 1, rng)
    Recorder.seen.clear()
    model = surrogates.Bootstrap(Recorder(), resamples=4, random_state=seed)
    mean, std = model.fit(X, interacting(X, rng)).predict(X, return_std=True)
    assert np.isfinite(mean).all()
    assert (std > 0).all()
    assert len(Recorder.seen) == 5
    several = (X.sum(axis=1) >= 2).sum()
    for rows in Recorder.seen:
        assert len(rows) == len(X)
        assert (rows.sum(axis=1) == 0).any()
        assert several < 5 or (rows[rows.sum(axis=1) == 1].sum(axis=0) >= 1).all()


class Broken(BaseEstimator):
    """Fits, and predicts what it was told to."""

    def __init__(self, predicts: Any = None) -> None:
        self.predicts = predicts

    def fit(self, X: Any, y: Any) -> Any:
        if self.predicts is None:
            raise KeyError("no such column")
        return self

    def predict(self, X: Any) -> Any:
        return {"nan": X[:, 0] * np.nan, "wide": X, "column": X[:, :1], "few": X[1:, 0]}[
            self.predicts
        ]


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Broken(), "Broken cannot be fitted .KeyError: 'no such column'"),
        (Broken("nan"), "Broken predicts values that are not finite.*are kept"),
        (Broken("wide"), "Broken predicts shape"),
        (Broken("column"), r"Broken predicts shape \(\d+, 1\)"),
        (Broken("few"), "Broken predicts shape"),
        (Broken("unknown"), "Broken cannot predict .KeyError"),
    ],
)
def test_regressors_that_give_no_losses_are_named(model: Any, message: str, data: Any) -> None:
    with pytest.raises(EdgewiseError, match=message):
        surrogates.Bootstrap(model).fit(*data)


def test_a_regressor_that_never_errs_still_has_a_deviation(data: Any) -> None:
    X = data[0]
    std = surrogates.Bootstrap(LinearRegression()).fit(X, np.exp(X @ np.arange(UNITS)))
    assert (std.predict(X, return_std=True)[1] > 0).all()
    constant = surrogates.Bootstrap(DummyRegressor()).fit(X, data[1])
    assert constant.noise_ == pytest.approx(np.log(data[1]).std(), rel=0.5)


# -- the flow and PathSum ----------------------------------------------------------------------


def brute_force(graph: Graph, gamma: Any, X: Any) -> Any:
    """z_out by one term per path, from the γ of the graph's edges (edge units only)."""
    owner = {e: i for i, unit in enumerate(graph.units) for e in unit.removal.edges}

    def walk(node: int, row: Any) -> float:
        if node == len(graph.vertices) - 1:
            return 1.0
        return sum(
            gamma[e] * (1.0 - row[owner[e]] if e in owner else 1.0) * walk(edge.target, row)
            for e, edge in enumerate(graph.edges)
            if edge.source == node
        )

    return np.array([walk(0, row) for row in X])


def outgoing_sums(graph: Graph, gamma: Any) -> Any:
    return np.bincount([e.source for e in graph.edges], gamma, minlength=len(graph.vertices))


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 5))
def test_cross_gamma_sums_paths_and_pairs_of_paths(seed: int, inner: int) -> None:
    rng = np.random.default_rng(seed)
    graph = random_dag(inner, rng)
    X = (rng.random((40, len(graph.units))) < 0.25).astype(float)
    model = surrogates.CrossGamma(graph, link="identity").fit(X, rng.normal(size=40))
    z = brute_force(graph, model.gamma_, X)
    squares = brute_force(graph, model.gamma_**2, X)
    w1, w2, w3 = model.weights_
    expected = model.intercept_ + w1 * z + w2 * z**2 + w3 * squares
    assert_allclose(model.predict(X), expected, atol=1e-8 * max(1.0, *map(abs, model.weights_)))


def test_cross_gamma_learns_pairs_of_paths_that_a_path_sum_cannot() -> None:
    rng = np.random.default_rng(0)
    flow = reduce_graph(GRAPH)
    weights = flow.softmax(rng.normal(size=len(flow.tails)))
    X = masks(300, rng, rate=0.15)
    z, squares = (flow.forward(w, flow.keep(X))[-1] for w in (weights, weights**2))
    target = 1.0 - 2.0 * z + 3.0 * z**2 - 2.0 * squares + rng.normal(0, 0.01, len(X))
    error = {}
    for model in (surrogates.PathSum(GRAPH, link="identity"),
                  surrogates.CrossGamma(GRAPH, link="identity")):  # fmt: skip
        held = model.fit(X[:150], target[:150]).predict(X[150:])
        error[type(model).__name__] = np.sqrt(np.mean((held - target[150:]) ** 2))
    assert error["CrossGamma"] < 0.5 * error["PathSum"]


def test_slopes_of_the_cross_terms() -> None:
    rng = np.random.default_rng(0)
    flow = reduce_graph(GRAPH)
    keep = flow.keep(masks(40, rng))
    problem = _Problem(flow, keep, np.zeros(40), saturate=False, cross=True)
    p = rng.normal(size=len(flow.tails) + 5)
    jacobian = problem.predict(p)[1]
    for column in range(len(p)):
        step = 1e-6 * np.eye(len(p))[column]
        slope = (problem.predict(p + step)[0] - problem.predict(p - step)[0]) / 2e-6
        assert_allclose(jacobian[:, column], slope, atol=1e-7)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 6))
def test_pushed_weights_are_the_same_model(seed: int, inner: int) -> None:
    rng = np.random.default_rng(seed)
    graph = random_dag(inner, rng)
    flow = reduce_graph(graph)
    weights = flow.softmax(rng.normal(size=len(flow.tails)))
    gamma = push_weights(flow, weights, graph)
    X = (rng.random((5, len(graph.units))) < 0.3).astype(float)
    assert_allclose(outgoing_sums(graph, gamma)[:-1], 1.0)
    assert_allclose(flow.forward(weights, flow.keep(X))[-1], brute_force(graph, gamma, X))


def test_slopes_are_the_derivatives_of_the_path_sum() -> None:
    rng = np.random.default_rng(0)
    flow = reduce_graph(GRAPH)
    keep = flow.keep(masks(30, rng))
    theta, step = rng.normal(size=(2, len(flow.tails)))
    z, slopes = flow.slopes(flow.softmax(theta), keep)
    up, down = (flow.forward(flow.softmax(theta + h * step), keep)[-1] for h in (1e-5, -1e-5))
    assert_allclose(step @ slopes, (up - down) / 2e-5, atol=1e-9)
    assert z[0] == pytest.approx(1.0)


def test_a_layer_is_two_ways_through_its_vertex() -> None:
    graph = chain_with_layer()
    flow = reduce_graph(graph)
    # the branch's way through the layer, its way around it, and at the sum the branch and skip
    rng = np.random.default_rng(0)
    weights = flow.softmax(rng.normal(size=len(flow.tails)))
    X = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 0, 1], [1, 1, 0]], dtype=float)
    whole, branch, skip, layer, both, all_gone = flow.forward(weights, flow.keep(X))[-1]
    assert whole == pytest.approx(1.0)
    assert branch + skip == pytest.approx(1.0)
    assert branch < layer < 1.0
    assert both == branch
    assert all_gone == 0.0
    assert len(flow.tails) == 4
    assert_allclose(outgoing_sums(graph, push_weights(flow, weights, graph))[:-1], 1.0)


def test_dead_edges_have_no_gamma() -> None:
    graph = make_graph(
        5, [(0, 1), (0, 2), (0, 3), (1, 4), (2, 4)], [("edge", (3,)), ("edge", (2,))]
    )
    model = surrogates.PathSum(graph, link="identity").fit(np.eye(2), [1.0, 0.0])
    dead = [e for e, edge in enumerate(graph.edges) if edge.target == 3]
    assert_array_equal(model.gamma_[dead], 0.0)
    assert_allclose(outgoing_sums(graph, model.gamma_)[:3], 1.0)
    assert np.isfinite(model.predict(np.ones((1, 2)))).all()


@pytest.mark.parametrize("saturate", [False, True])
def test_path_sum_recovers_what_a_path_sum_made(saturate: bool) -> None:
    rng = np.random.default_rng(2)
    flow = reduce_graph(GRAPH)
    X = masks(160, rng)
    weights = flow.softmax(rng.normal(size=len(flow.tails)))
    z = flow.forward(weights, flow.keep(X))[-1]
    if saturate:
        z = np.expm1(-3.0 * z) / np.expm1(-3.0)
    y = np.exp(-1.2 + 2.5 * (1.0 - z))
    model = surrogates.PathSum(GRAPH, saturate=saturate).fit(X[:110], y[:110])
    assert_allclose(np.log(model.predict(X[110:])), np.log(y[110:]), atol=0.03)
    if not saturate:
        assert model.slope_ == pytest.approx(2.5, abs=0.1)
        assert_allclose(model.gamma_, push_weights(flow, weights, GRAPH), atol=0.05)
    else:
        assert model.kappa_ > 1.0


def test_leave_one_out_alone_gives_the_model_in_closed_form() -> None:
    rng = np.random.default_rng(4)
    flow = reduce_graph(GRAPH)
    weights = flow.softmax(0.7 * rng.normal(size=len(flow.tails)))
    X = masks(UNITS + 1, rng)
    target = -0.5 + 3.0 * (1.0 - flow.forward(weights, flow.keep(X))[-1])
    drops = leave_one_out(X, target)
    assert drops is not None
    assert_allclose(flow.softmax(start_theta(flow, drops, 3.0)), weights, atol=1e-6)
    model = surrogates.PathSum(GRAPH, link="identity").fit(X, target)
    known = ~np.isnan(model.kirchhoff_)
    assert known.sum() >= 4
    assert_allclose(model.kirchhoff_[known], 0.0, atol=1e-9)
    assert np.abs(model.predict(X) - target).max() < 0.05


def test_an_accuracy_falls_along_the_same_flow() -> None:
    rng = np.random.default_rng(2)
    flow = reduce_graph(GRAPH)
    X = masks(UNITS + 12, rng)
    weights = flow.softmax(rng.normal(size=len(flow.tails)))
    z = flow.forward(weights, flow.keep(X))[-1]
    model = surrogates.PathSum(GRAPH, link="logit").fit(X, from_link(3.0 * z - 1.0, "logit"))
    assert model.slope_ < 0
    assert_allclose(model.predict_link(X), 3.0 * z - 1.0, atol=0.05)
    assert_allclose(model.gamma_, push_weights(flow, weights, GRAPH), atol=0.1)


def test_leave_one_out_accuracies_start_the_fit_as_losses_do() -> None:
    rng = np.random.default_rng(4)
    flow = reduce_graph(GRAPH)
    X = masks(UNITS + 1, rng)
    rise = 3.0 * (
        1.0 - flow.forward(flow.softmax(rng.normal(size=len(flow.tails))), flow.keep(X))[-1]
    )
    loss, accuracy = (fit_path_sum(flow, X, sign * rise) for sign in (1.0, -1.0))
    assert_allclose(accuracy.weights, loss.weights, atol=1e-8)
    assert accuracy.slope == pytest.approx(-loss.slope)


def test_closed_form_deals_the_rest_to_edges_without_a_unit() -> None:
    # a chain 0 → 1 → 2 → 3 → output; each step is doubled by an edge from the input with a unit
    pairs = [(0, 1), (0, 1), (0, 2), (1, 2), (0, 3), (2, 3), (3, 4)]
    graph = make_graph(5, pairs, [("edge", (0,)), ("edge", (2,)), ("edge", (4,))])
    flow = reduce_graph(graph)
    drops = np.array([0.09, 0.15, 0.4])
    weights = flow.softmax(start_theta(flow, drops, 1.0))
    assert_allclose(flow.forward(weights, flow.keep(np.eye(3)))[-1], 1.0 - drops)
    assert_allclose(sorted(weights), [0.2, 0.25, 0.4, 0.6, 0.75, 0.8])


def test_merged_ways_share_their_weight() -> None:
    # 0 → 1 → 3 and 0 → 2 → 3 are cut by one unit, 0 → 3 by another: two ways are left
    graph = make_graph(
        5,
        [(0, 1), (0, 2), (0, 3), (1, 3), (2, 3), (3, 4)],
        [("edge", (0, 1, 3, 4)), ("edge", (2,))],
    )
    flow = reduce_graph(graph)
    assert len(flow.tails) == 2
    X = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    weights = flow.softmax(np.array([1.0, 0.0]))
    gamma = push_weights(flow, weights, graph)
    assert_allclose(outgoing_sums(graph, gamma)[:-1], 1.0)
    assert gamma[0] == gamma[1]
    assert_allclose(gamma[2], flow.forward(weights, flow.keep(X))[-1][1])


def test_bridges_and_several_inputs() -> None:
    # two inputs (0 and 1) meet in 2; 2 → 3 is a bridge; every edge is a unit
    graph = make_graph(
        4, [(0, 2), (1, 2), (2, 3)], [("edge", (0,)), ("edge", (1,)), ("edge", (2,))]
    )
    X = masks(4, np.random.default_rng(0), graph)
    y = np.array([0.0, 0.25, 0.75, 1.0])
    model = surrogates.PathSum(graph, link="identity").fit(np.tile(X, (5, 1)), np.tile(y, 5))
    assert_allclose(model.predict(X), y, atol=0.02)
    assert_allclose(model.gamma_, 1.0)  # each vertex has one way out
    only_bridge = make_graph(3, [(0, 1), (1, 2)], [("edge", (0,))])
    fitted = surrogates.PathSum(only_bridge, link="identity").fit([[0], [1], [0]], [0.0, 1.0, 0.0])
    assert_allclose(fitted.predict([[0], [1]]), [0.0, 1.0], atol=1e-3)


def test_the_process_reports_flows_as_the_path_sum_does() -> None:
    rng = np.random.default_rng(0)
    X = np.vstack([np.zeros(UNITS), np.eye(UNITS), rng.integers(0, 2, (12, UNITS))]).astype(float)
    y = np.exp(X @ rng.uniform(0.1, 1.0, UNITS))
    process = surrogates.GraphGP(GRAPH).fit(X, y)
    alone = surrogates.PathSum(GRAPH, saturate=True).fit(X, y)
    assert_allclose(process.gamma_, alone.gamma_, atol=1e-6)
    assert_allclose(process.kirchhoff_, alone.kirchhoff_)
    constant = surrogates.GraphGP(GRAPH).fit(X, np.ones(len(X)))
    assert constant.gamma_ is None
    assert constant.kirchhoff_ is None


def test_kirchhoff_residuals_show_a_misfit() -> None:
    X = masks(UNITS + 1, np.random.default_rng(0))
    model = surrogates.PathSum(GRAPH, link="identity").fit(X, np.append(0.0, np.ones(UNITS)))
    assert np.nanmax(np.abs(model.kirchhoff_)) >= 1.0
    assert surrogates.PathSum(GRAPH).fit(X[1:], np.arange(1.0, UNITS + 1)).kirchhoff_ is None


def test_missing_leave_one_out_rows_are_unknown_not_zero() -> None:
    X = masks(UNITS, np.random.default_rng(0))  # the last unit is never removed alone
    drops = leave_one_out(X, np.arange(float(UNITS)))
    assert drops is not None
    assert_array_equal(drops[:-1], np.arange(1.0, UNITS))
    assert np.isnan(drops[-1])
    flow = reduce_graph(GRAPH)
    assert np.isfinite(start_theta(flow, drops, 10.0)).all()
    fit = fit_path_sum(flow, X, np.arange(float(UNITS)))
    assert np.isfinite(path_sum(flow, fit, X)).all()


def test_removing_more_never_lowers_a_path_sum(data: Any) -> None:
    X, y = data
    model = surrogates.PathSum(GRAPH).fit(X, y)
    assert model.slope_ > 0
    more = np.maximum(X, np.roll(X, 1, axis=0))
    assert (model.predict(more) >= model.predict(X) - 1e-12).all()


# -- GraphGP -----------------------------------------------------------------------------------


def test_path_kernel_sums_over_paths(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    flow = reduce_graph(GRAPH)
    X = masks(40, rng)
    tau = rng.random(len(flow.tails))
    keep = flow.keep(X)
    kernel = path_kernel(flow, tau, keep[:, :30], keep)
    for i, j in [(0, 0), (3, 20), (25, 39)]:
        both = (keep[:, i] * keep[:, j])[:, None]
        assert kernel[i, j] == pytest.approx(flow.forward(tau, both)[-1, 0])
    assert np.linalg.eigvalsh(path_kernel(flow, tau, keep, keep)).min() > -1e-9
    monkeypatch.setattr("edgewise.surrogates.path_graph.BLOCK", 64)  # blocks of one row
    assert_allclose(path_kernel(flow, tau, keep[:, :30], keep), kernel)


def test_evidence_has_the_right_gradient() -> None:
    rng = np.random.default_rng(0)
    X = masks(35, rng)
    target = rng.normal(size=len(X))
    kernels = [np.ones((35, 35)), X @ X.T]
    weights = np.eye(X.shape[1])[:, 1:]
    weights[0, 0] = 0.5  # the first two units share a coordinate
    places = np.arange(weights.shape[1]) // 2.0
    coordinates = Coordinates(weights, np.zeros(len(places), dtype=bool), places)
    prior = Prior(((1.0, 1.0), (0.0, 1.0)), (Local, Hamming), coordinates)
    evidence = _Evidence(X, target, kernels, prior)
    means = evidence.means_stds[0]
    phi = means + 0.3 * rng.normal(size=len(means))
    gradient = evidence(phi)[1]
    for i in range(len(phi)):
        step = 1e-5 * np.eye(len(phi))[i]
        slope = (evidence(phi + step)[0] - evidence(phi - step)[0]) / 2e-5
        assert gradient[i] == pytest.approx(slope, rel=1e-4, abs=1e-5)


def test_graph_gp_beats_linear_and_path_sum_where_units_interact() -> None:
    rng = np.random.default_rng(0)
    X = masks(260, rng)
    y = interacting(X, rng)
    error, rank = {}, {}
    for model in (surrogates.Linear(), surrogates.PathSum(GRAPH), surrogates.GraphGP(GRAPH)):
        held = np.log(model.fit(X[:130], y[:130]).predict(X[130:]))
        name = type(model).__name__
        error[name] = np.sqrt(np.mean((held - np.log(y[130:])) ** 2))
        rank[name] = spearmanr(held, y[130:])[0]
    assert error["GraphGP"] < 0.6 * min(error["Linear"], error["PathSum"])
    assert rank["GraphGP"] > max(0.95, rank["Linear"], rank["PathSum"])


def test_graph_gp_learns_what_the_graph_does_not_say() -> None:
    rng = np.random.default_rng(0)
    X = masks(240, rng, rate=0.4)
    target = np.where(X[:, 0] != X[:, 5], 1.0, 0.0) + rng.normal(0, 0.01, len(X))  # no path sum
    model = surrogates.GraphGP(GRAPH, link="identity").fit(X[:160], target[:160])
    assert np.corrcoef(model.predict(X[160:]), target[160:])[0, 1] > 0.95
    top = set(np.argsort(model.relevance_)[-2:])
    assert top == {0, 5}


def test_graph_gp_finds_the_noise() -> None:
    rng = np.random.default_rng(0)
    X = masks(200, rng)
    y = interacting(X, rng) * np.exp(rng.normal(0, 0.2, len(X)))
    assert surrogates.GraphGP(GRAPH).fit(X, y).noise_ == pytest.approx(0.2, rel=0.3)


def test_graph_gp_samples_have_the_posterior_moments(data: Any) -> None:
    X, y = data
    model = surrogates.GraphGP(GRAPH).fit(X[:25], y[:25])
    draws = model.sample(X, 4000, random_state=0)
    mean, std = model.predict_link(X, return_std=True)
    latent = np.sqrt(std**2 - model.noise_**2)
    assert draws.shape == (4000, len(X))
    assert_allclose(draws.mean(axis=0), mean, atol=0.08 * latent.max())
    assert_allclose(draws.std(axis=0), latent, atol=0.05 * latent.max())
    assert_allclose(draws[:1], model.sample(X, 1, random_state=0))
    same = model.sample(X[[40, 40]], 5, random_state=1)
    assert_allclose(same[:, 0], same[:, 1], atol=1e-4)  # joint: one function, one value a mask
    flat = surrogates.GraphGP(GRAPH).fit(X[:1], y[:1]).sample(X, 3, random_state=0)
    assert np.isfinite(flat).all()


def test_leaving_out_negligible_path_kernels_changes_nothing_that_matters() -> None:
    rng = np.random.default_rng(0)
    X = masks(120, rng)
    target = X @ rng.normal(size=UNITS)
    model = surrogates.GraphGP(GRAPH, link="identity").fit(X, target)
    assert not model.paths_
    with_paths = clone(model).fit(X, target)
    with_paths.paths_ = True
    ones, others = model.predict(X, return_std=True), with_paths.predict(X, return_std=True)
    assert_allclose(ones[0], others[0], atol=0.05 * target.std())


@pytest.mark.parametrize("seed", [2, 3, 4])
def test_linear_bears_noise_of_few_masks_that_differs_by_orders(seed: int) -> None:
    rng = np.random.default_rng(seed)
    masks = rng.random((int(rng.integers(2, 12)), int(rng.integers(5, 40)))) < 0.3
    target = masks @ rng.normal(size=masks.shape[1]) * 1e-3
    noise = np.exp(target) * 10.0 ** rng.integers(-6, 0, len(target))
    model = surrogates.Linear().fit(masks, np.exp(target), noise)
    mean, std = model.predict_link(masks, return_std=True)
    assert (std > 0).all()
    assert np.abs(mean - target).max() < 2 * np.ptp(target)
