"""Nested widths are one ordinal coordinate, in units of expected harm."""

import numpy as np
import pytest
import torch

import edgewise as ew
from edgewise.surrogates.features import Coordinates


@pytest.fixture
def graph() -> ew.Graph:
    torch.manual_seed(0)
    parts = [torch.nn.Linear(6, 16), torch.nn.ReLU(), torch.nn.Linear(16, 16), torch.nn.ReLU()]
    model = torch.nn.Sequential(*parts, torch.nn.Linear(16, 2))
    return ew.trace(model, (torch.randn(2, 6),), granularity=("layer", "hidden"), slices=8)


def test_a_group_of_widths_is_one_coordinate_that_grows_with_what_is_gone(graph: ew.Graph) -> None:
    masks = graph.matrix([graph.empty, *(graph.mask(g[:3]) for g in graph.nested)])
    coordinates = Coordinates.of(graph, masks)
    layers = [u for u in graph.units if not u.group]
    assert coordinates.weights.shape == (len(graph.units), len(layers) + len(graph.nested))
    group = graph.nested[0]
    steps = graph.matrix([graph.mask(group[:n]) for n in range(len(group) + 1)])
    single, total = coordinates.values(steps)
    column = single[:, len(layers)]
    assert (np.diff(column) > 0).all()
    np.testing.assert_allclose(total, column)
    scores = np.array([graph.units[u].importance for u in group])
    np.testing.assert_allclose(np.diff(column) / column[-1], scores / scores.sum())


def test_training_masks_have_coordinates_of_about_one(graph: ew.Graph) -> None:
    masks = graph.matrix([graph.mask(g[:3]) for g in graph.nested])
    single, _ = Coordinates.of(graph, masks).values(masks)
    assert single[single > 0].mean() == pytest.approx(1.0)


def test_the_process_predicts_widths_from_their_importance(graph: ew.Graph) -> None:
    """A loss that follows importance is predicted from few masks of other widths."""
    rng = np.random.default_rng(0)
    cuts = rng.integers(0, [len(g) + 1 for g in graph.nested], (60, len(graph.nested)))
    masks = [graph.mask([u for g, n in zip(graph.nested, c, strict=True) for u in g[:n]])
             for c in cuts]  # fmt: skip
    X = graph.matrix(list(dict.fromkeys(masks)))
    harm = X @ np.array([u.importance for u in graph.units])
    loss = np.exp(harm / harm.std())
    model = ew.surrogates.GraphGP(graph).fit(X[:14], loss[:14])
    assert np.corrcoef(model.predict(X[14:]), np.log(loss[14:]))[0, 1] > 0.8
    error = np.log(model.predict(X[14:])) - np.log(loss[14:])
    assert error.std() < 0.2 * np.log(loss[14:]).std()


def test_without_widths_coordinates_are_the_units(graph: ew.Graph) -> None:
    layers = graph.select(lambda unit: not unit.group)
    X = layers.matrix([layers.mask([u]) for u in range(len(layers.units))])
    single, total = Coordinates.of(layers, X).values(X)
    np.testing.assert_array_equal(single, X)
    np.testing.assert_array_equal(total, np.zeros(len(X)))


def test_places_follow_the_graph_and_parallel_branches_share_one() -> None:
    class Chain(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.deep = torch.nn.Sequential(*(torch.nn.Linear(4, 4) for _ in range(5)))
            self.left, self.right, self.last = (torch.nn.Linear(4, 4) for _ in range(3))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = x + self.deep(x)
            x = x + (self.left(x) + self.right(x))
            return x + self.last(x)

    graph = ew.trace(Chain(), (torch.randn(2, 4),), granularity="edge")
    branches = ("deep", "left", "right", "last")
    graph = graph.select(lambda unit: unit.name.startswith(branches) and "add" not in unit.name)
    coordinates = Coordinates.of(graph, np.zeros((1, len(graph.units))))
    names = [next(b for b in branches if u.name.startswith(b)) for u in graph.units]
    place = dict(zip(names, coordinates.places, strict=True))
    assert place == {"deep": 0.0, "left": 1.0, "right": 1.0, "last": 2.0}
