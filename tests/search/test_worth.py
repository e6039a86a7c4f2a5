"""Which masks are looked at again, and when parts of the examples no longer pay."""

import numpy as np
import pytest

import edgewise as ew
from edgewise.evaluation.records import Evaluation
from edgewise.search import Space
from edgewise.search.known import Known
from edgewise.search.worth import hopeful, parts_pay

SHARE = 0.25


class Sure:
    """A surrogate that knows the estimates, and doubts all masks alike."""

    def __init__(self, known: Known, std: float) -> None:
        self.losses = {mask.bits: e.loss for mask, e in known.estimates.items()}
        self.std = std

    def predict(self, X, return_std=False):
        mean = np.array([self.losses[tuple(row)] for row in np.asarray(X, bool).tolist()])
        return (mean, np.full(len(mean), self.std)) if return_std else mean

    predict_link = predict


@pytest.fixture
def known(branches: ew.Graph) -> tuple[Known, list[ew.Mask]]:
    """One mask at the budget measured in full, three on a quarter, of noise."""
    rng = np.random.default_rng(0)
    base = rng.exponential(size=16)
    masks = [branches.mask(pair) for pair in ([0, 2], [2, 4], [0, 4], [0, 5])]
    space = Space(branches, ew.Budget(units=len(branches.units) - 2))
    records = [Evaluation(str(branches.empty), "search", float(base.mean()), each=base)]
    for number, (mask, worse) in enumerate(zip(masks, (0.5, 0.9, 0.4, 0.6), strict=True)):
        each = base + worse + 0.1 * rng.normal(size=16)
        split = "search:11000000" if number else "search"
        each[4 if number else 16 :] = np.nan
        loss = float(np.nanmean(each))
        records.append(Evaluation(str(mask), split, loss, each=each))
    return Known(space, records), masks


def test_the_most_hopeful_mask_saw_a_part_and_may_be_best(
    known: tuple[Known, list[ew.Mask]],
) -> None:
    knows, masks = known
    for std in (1e-9, 0.05, 10.0):
        order = hopeful(knows.space, Sure(knows, std), knows)
        assert order == [masks[2], masks[3], masks[1]]
    assert hopeful(knows.space, Sure(knows, 0.1), Known(knows.space)) == []


def test_a_second_look_is_at_other_lots(known: tuple[Known, list[ew.Mask]]) -> None:
    knows, masks = known
    sizes = [(0, 1), (2, 3), (4, 5), (6, 7)]
    assert knows.rest(masks[1], sizes) == (2, 3)
    for lots, rest in (("00110000", (4, 5)), ("00001100", ())):
        knows.add([Evaluation(str(masks[1]), f"search:{lots}", 1.0, each=np.full(16, np.nan))])
        assert knows.rest(masks[1], sizes) == rest


def test_parts_pay_as_long_as_more_is_unknown_than_their_noise(
    known: tuple[Known, list[ew.Mask]],
) -> None:
    knows, masks = known
    noise = np.median([knows.estimates[mask].noise for mask in masks[1:]])
    for std in np.linspace(0.1, 1.5, 8) * noise:
        pays = parts_pay(knows.space, Sure(knows, std), knows, masks, SHARE)
        assert pays == (std**2 / (std**2 + noise**2) > SHARE)
    assert parts_pay(knows.space, Sure(knows, 1e-9), Known(knows.space), masks, SHARE)
