"""Sizes: lots are a partition of the examples, and what they give together is the whole."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import edgewise as ew
import jobs
from edgewise.evaluation.sizes import LOTS, Lots, sized


def batches(sizes: list[int], keyed: bool) -> list:
    place = torch.arange(float(sum(sizes))).split(sizes)
    return [(({"x": x, "one": torch.ones(1, 1)} if keyed else (x,)), x.clone()) for x in place]


@settings(max_examples=25)
@given(
    st.lists(st.integers(2, 9), min_size=1, max_size=12), st.booleans(), st.booleans(), st.data()
)
def test_lots_are_a_partition(sizes: list[int], keyed: bool, cuttable: bool, data) -> None:
    lots = Lots(batches(sizes, keyed), cuttable)
    rows = cuttable and len(sizes) < LOTS
    assert lots.count == min(LOTS, sum(sizes) if rows else len(sizes))
    each = [lots.rows(sized("search", [lot], lots.count)) for lot in range(lots.count)]
    assert sorted(np.concatenate(each).tolist()) == list(range(sum(sizes)))
    some = data.draw(st.sets(st.integers(0, lots.count - 1), min_size=1))
    split = sized("search", some, lots.count)
    assert lots.lots(split) == tuple(sorted(some))
    assert (split == "search") == (len(some) == lots.count)
    found = lots.of(split)
    assert torch.cat([targets for _, (_, targets) in found]).tolist() == lots.rows(split).tolist()
    for number, (inputs, targets) in found:
        own = inputs["x"] if keyed else inputs[0]
        assert torch.equal(own, targets)
        assert not keyed or inputs["one"].shape == (1, 1)
        assert rows or len(targets) == sizes[number]


def test_batches_that_cannot_be_cut_are_dealt_whole() -> None:
    lists = [((torch.zeros(3, 4),), [{"boxes": torch.zeros(1, 4)}] * 3)] * 2
    assert Lots(lists).count == 2
    assert Lots([((torch.zeros(1, 4),), torch.zeros(1))]).count == 1


@pytest.fixture(scope="module")
def measured() -> tuple[ew.Study, list[int]]:
    """A study, and how many examples each call of its loss saw."""
    seen: list[int] = []

    def losses(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        seen.append(len(targets))
        return jobs.losses(outputs, targets)

    return ew.Study(*jobs.make(losses)), seen


@settings(max_examples=10)
@given(st.lists(st.integers(0, 3), min_size=8, max_size=8))
def test_what_was_measured_in_parts_is_the_whole(measured, order: list[int]) -> None:
    """Nothing runs twice, and losses and metrics are those of all examples at once."""
    study, seen = measured
    whole = ew.Study(study.graph, study.objective)
    parts = ew.Study(study.graph, study.objective)
    mask, lots = study.graph.mask([0]), study.objective.lots("search")
    [wanted], losses = whole.evaluate([mask]), whole.losses(mask)
    seen.clear()
    for turn in range(3):  # what is of the fourth turn is measured last, with the whole
        if turn in order:
            split = sized("search", [i for i, own in enumerate(order) if own == turn], lots.count)
            record = parts.evaluate([mask], split)[0]
            assert record.samples == study.objective.samples(split)
            assert record.loss == pytest.approx(losses[lots.rows(split)].mean(), rel=1e-5)
    [found] = parts.evaluate([mask])
    assert found.samples == wanted.samples == sum(seen)
    assert found.loss == pytest.approx(wanted.loss, rel=1e-5)
    assert found.metrics == pytest.approx(wanted.metrics)
    np.testing.assert_allclose(parts.losses(mask), losses, rtol=1e-4)
    some = parts.evaluate([mask], "search:01000000")[0]
    assert some.loss == pytest.approx(losses[lots.rows(some.split)].mean(), rel=1e-4)
    assert sum(seen) == wanted.samples
    assert parts.frame().split.tolist().count("search") == 1
