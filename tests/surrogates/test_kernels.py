"""Kernels on what differs between masks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from edgewise.surrogates.features import Coordinates
from edgewise.surrogates.kernels import (
    Hamming,
    Local,
    product,
    weighted_hamming,
)

UNITS = 6


def coordinates(places: Any = None) -> Coordinates:
    places = np.arange(float(UNITS)) if places is None else np.asarray(places, dtype=float)
    return Coordinates(np.eye(UNITS), np.zeros(UNITS, dtype=bool), places)


def local(shared: float, length: float = 2.0, places: Any = None) -> Local:
    v = np.linspace(0.3, 1.2, UNITS)
    return Local(0.7, v, length, shared, coordinates(places))


def some(seed: int, count: int = 12) -> Any:
    return (np.random.default_rng(seed).random((count, UNITS)) < 0.4).astype(float)


def test_weighted_hamming_counts_differences() -> None:
    X = np.array([[0.0, 0, 1], [1, 1, 0]])
    expected = [[0.0, 7.0], [7.0, 0.0]]
    assert_allclose(weighted_hamming(X, X, np.array([1.0, 2.0, 4.0])), expected)


@pytest.mark.parametrize(("units", "moved"), [(30, 1), (300, 1), (300, 20), (300, 150)])
def test_moves_are_multiplied_by_what_they_change(units: int, moved: int) -> None:
    rng = np.random.default_rng(0)
    rows = np.tile((rng.random(units) < 0.5).astype(float), (200, 1))
    for row in rows[1:]:
        changed = rng.choice(units, moved, replace=False)
        row[changed] = 1.0 - row[changed]
    metric = rng.normal(size=(units, 30))
    before = rows.copy(), metric.copy()
    found = product(rows, metric)
    assert_allclose(found, rows @ metric, atol=1e-11)
    found += 1.0  # callers may write into it
    assert_allclose(rows, before[0])
    assert_allclose(metric, before[1])
    assert product(rows[:0], metric).shape == (0, 30)


def test_the_local_kernel_is_of_a_quadratic_form() -> None:
    kernel, X, Z = local(0.6), some(0), some(1, 5)
    expected = [[0.7 * np.exp(-0.5 * (x - z) @ kernel.metric @ (x - z)) for z in Z] for x in X]
    assert_allclose(kernel.between(X, Z), expected, atol=1e-12)
    assert_allclose(kernel.toward(Z)(X), expected, atol=1e-12)


def test_moves_of_many_units_are_as_far_apart_as_their_form_says() -> None:
    rng, units = np.random.default_rng(0), 200
    places = np.repeat(np.arange(units // 2), 2)
    own = Coordinates(np.eye(units), np.zeros(units, dtype=bool), places.astype(float))
    kernel = Local(0.7, rng.uniform(0.1, 0.3, units), 2.0, 0.6, own)
    rows = np.tile((rng.random(units) < 0.5).astype(float), (20, 1))
    for row in rows[1:]:
        row[rng.choice(units, 3, replace=False)] = 1.0
    Z = (rng.random((4, units)) < 0.5).astype(float)
    apart = rows[:, None] - Z
    form = np.einsum("xzc,cd,xzd->xz", apart, kernel.metric, apart)
    assert_allclose(kernel.between(rows, Z), 0.7 * np.exp(-0.5 * form), atol=1e-12)
    assert kernel.between(rows[:0], Z).shape == (0, 4)


def test_without_sharing_the_local_kernel_is_the_hamming_kernel() -> None:
    kernel, X = local(0.0), some(0)
    hamming = Hamming(0.7, 0.5 * kernel.by_coordinate**2, coordinates())
    assert_allclose(kernel.between(X, X), hamming.between(X, X))
    assert_allclose(kernel.relevance, hamming.relevance)


def test_masks_are_alike_where_neighbours_go() -> None:
    kernel = Local(1.0, np.ones(UNITS), 2.0, 0.9, coordinates([0, 1, 2, 3, 4, 4]))
    alone = np.eye(UNITS)
    to_first = kernel.between(alone, alone)[0]
    assert (np.diff(to_first[:5]) < 0).all()
    assert to_first[4] == pytest.approx(to_first[5])  # the same place
    only_total = Local(1.0, np.ones(UNITS), 1e9, 1.0, coordinates())
    assert_allclose(only_total.between(alone, alone), 1.0)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000), st.floats(0.0, 1.0), st.floats(0.1, 50.0))
def test_local_covariances_are_positive_semi_definite(
    seed: int, shared: float, length: float
) -> None:
    kernel, X = local(shared, length, [0, 0, 1, 2, 2, 5]), some(seed)
    covariance = kernel.between(X, X)
    assert_allclose(np.diag(covariance), kernel.variance)
    assert np.linalg.eigvalsh(covariance).min() > -1e-9
