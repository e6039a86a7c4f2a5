"""What evaluations of any size say together: estimates of the whole, and their noise."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import edgewise as ew
from edgewise.evaluation.records import Evaluation
from edgewise.search import Space
from edgewise.search.known import Known

COUNT = 12


def part(mask: ew.Mask, each: np.ndarray, rows: list[int]) -> Evaluation:
    seen = np.full(COUNT, np.nan, np.float32)
    seen[rows] = each[rows]
    split = "search" if len(rows) == COUNT else "search:1"
    return Evaluation(str(mask), split, float(each[rows].mean()), samples=len(rows), each=seen)


@settings(max_examples=25)
@given(st.integers(0, 10**6), st.permutations(range(COUNT)), st.integers(1, COUNT - 1))
def test_parts_are_estimated_and_the_whole_is_certain(
    branches: ew.Graph, seed: int, order: list[int], size: int
) -> None:
    rng, all_rows = np.random.default_rng(seed), list(range(COUNT))
    base = rng.exponential(size=COUNT) + 0.1
    space = Space(branches, ew.Budget(units=len(branches.units) - 2))
    single, one, two = branches.mask([0]), branches.mask([0, 2]), branches.mask([2, 4])
    losses = {single: base + 0.2, one: base * 2 + rng.random(COUNT), two: base * 3}
    known = Known(space, [part(branches.empty, base, all_rows)])
    assert [known.lacks(mask) for mask in (branches.empty, one)] == [0.0, 1.0]
    known.add(part(mask, each, order[:size]) for mask, each in losses.items())
    found = known.estimates
    # a constant difference to the unpruned network is told from any part
    assert found[single].loss == pytest.approx(base.mean() + 0.2, rel=1e-4)
    assert all(found[mask].noise >= 0 and found[mask].samples == size for mask in losses)
    assert found[two].noise > 0
    assert known.whole.keys() == {branches.empty}
    assert known.lacks(one) == pytest.approx(1 - size / COUNT)
    known.add([part(one, losses[one], order[size:])])
    known.add([part(two, losses[two], all_rows)])
    for mask in (one, two):
        whole = known.estimates[mask]
        assert (whole.noise, known.lacks(mask)) == (0.0, 0.0)
        assert whole.loss == pytest.approx(losses[mask].mean(), rel=1e-6)
    assert known.whole.keys() == {branches.empty, one, two}


def test_a_part_that_fails_is_a_failure(branches: ew.Graph) -> None:
    space = Space(branches, ew.Budget(units=len(branches.units) - 2))
    mask = branches.mask([0, 2])
    known = Known(space, [Evaluation(str(mask), "search:1", None, status="failed", error="no")])
    assert known.lacks(mask) == 0.0
    assert not known.estimates[mask].ok


def test_other_losses_on_a_part_are_noticed(branches: ew.Graph) -> None:
    """As a loss gives them that looks at the whole batch."""
    space, base = Space(branches, ew.Budget(units=4)), np.arange(1.0, COUNT + 1)
    known = Known(space, [part(branches.empty, base, list(range(COUNT)))])
    assert known.sizes_hold(part(branches.empty, base, [1, 5]))
    rounded = part(branches.empty, base * 1.003, [1, 5])
    assert known.sizes_hold(rounded, 2.0**-8)
    assert not known.sizes_hold(rounded)
    assert not known.sizes_hold(part(branches.empty, base * 1.1, [1, 5]))
