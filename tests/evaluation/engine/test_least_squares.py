"""Least squares: ridge regression, whether rows or inputs are more, and however the rows come."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from edgewise.evaluation.engine import least_squares
from edgewise.evaluation.engine.least_squares import ROWS, Fit, Inputs, rows_for
from edgewise.evaluation.engine.options import Memory


def drawn(rows: int, inputs: int, channels: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows off zero, and what a map of them and some noise gives."""
    generator = torch.Generator().manual_seed(0)
    u = torch.randn(rows, inputs, generator=generator, dtype=torch.float64) + 2
    map_ = torch.randn(inputs, channels, generator=generator, dtype=torch.float64)
    return u, u @ map_ + 1


def fit(u, r, inputs: Inputs, size: int = 37) -> tuple[torch.Tensor, torch.Tensor]:
    """What a layer with weights is fitted to that misses r."""
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(r.shape[1], u.shape[1], generator=generator, dtype=u.dtype)
    bias = weight[:, 0] * inputs.biased
    found, goal = Fit(inputs, weight, bias), r + u @ weight.T + bias
    half = torch.arange(len(u)) % 2
    for part in zip(u.split(size), goal.split(size), half.split(size), strict=True):
        found.add(*part)
    return found.solve()


def ridge(u, r, share: float, biased: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """The closed form in the primal, as in a textbook."""
    v, s = (u - u.mean(0), r - r.mean(0)) if biased else (u, r)
    more = share * v.square().sum(0).mean() * torch.eye(u.shape[1], dtype=u.dtype)
    change = torch.linalg.solve(v.T @ v + more, v.T @ s).T
    return change, r.mean(0) - change @ u.mean(0) if biased else torch.zeros_like(r[0])


@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize(("rows", "inputs"), [(400, 7), (60, 90), (2500, 30)])
def test_the_fit_is_ridge_regression(rows: int, inputs: int, biased: bool, monkeypatch) -> None:
    monkeypatch.setattr(least_squares, "RIDGES", (1e-2,))
    u, r = drawn(rows, inputs)
    change, bias = fit(u, r, Inputs(biased))
    expected, wanted = ridge(u, r, 1e-2, biased)
    torch.testing.assert_close(change, expected, rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(bias, wanted, rtol=1e-6, atol=1e-6)


def test_a_ridge_is_chosen_by_mixtures_as_by_all_outputs(monkeypatch) -> None:
    monkeypatch.setattr(least_squares, "MIXED", 64)
    u, r = drawn(60, 40, 300)
    r += 9 * torch.randn(r.shape, generator=torch.Generator().manual_seed(2))
    some = fit(u, r, Inputs(True))
    monkeypatch.setattr(least_squares, "MIXED", 300)
    for one, other in zip(some, fit(u, r, Inputs(True)), strict=True):
        assert torch.equal(one, other)


@given(size=st.integers(1, 400), inputs=st.sampled_from([5, 300]))
def test_how_the_rows_come_does_not_matter(size: int, inputs: int) -> None:
    u, r = drawn(200, inputs)
    whole, parts = fit(u, r, Inputs(True), 200), fit(u, r, Inputs(True), size)
    torch.testing.assert_close(parts, whole)


@pytest.mark.parametrize("rows", [50, 2500])
def test_layers_that_read_the_same_get_the_same_as_alone(rows: int) -> None:
    u, r = drawn(rows, 70)
    shared = Inputs(True)
    shared.users = 2
    fit(u, -r, shared)
    shared.release(Memory(2**30))
    assert shared.known
    for one, other in zip(fit(u, r, shared), fit(u, r, Inputs(True)), strict=True):
        assert torch.equal(one, other)


def test_what_nobody_reads_any_more_or_does_not_fit_goes() -> None:
    (u, r), memory = drawn(50, 70), Memory(2**30)
    shared = Inputs(True)
    shared.users = 2
    fit(u, r, shared)
    shared.release(memory)
    assert memory.held > u.numel() * u.element_size()
    shared.release(memory)
    assert (memory.held, shared.known, shared.rows) == (0, False, None)
    shared.users = 2
    fit(u, r, shared)
    shared.release(Memory(1000))
    assert not shared.known


def test_what_does_not_hold_for_the_other_half_changes_nothing() -> None:
    u, _ = drawn(30, 20)
    r = drawn(30, 2)[0][:, :2] - 2
    r[1::2] = 0
    change, bias = fit(u - 2, r, Inputs(True))
    assert change.abs().max() == 0
    assert bias.abs().max() == 0


@pytest.mark.parametrize("rows", [20, 2000])
def test_rows_that_are_all_alike_change_nothing_but_the_bias(rows: int) -> None:
    u = torch.ones(rows, 40)
    change, bias = fit(u, 3 * torch.ones(rows, 2), Inputs(True))
    assert change.abs().max() < 1e-3
    torch.testing.assert_close(change.sum(1) + bias, torch.full((2,), 3.0), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("inputs", [1, 64, 1536, 2048, 3072, 4608, 25088, 10**6])
def test_no_fit_takes_more_rows_than_it_may(inputs: int) -> None:
    rows = rows_for(inputs)
    assert 100 < rows <= ROWS
    assert rows * inputs * min(rows, inputs) <= least_squares.WORK
