"""The masks that a search may consider."""

import numpy as np
import pytest

import edgewise as ew
import ruled
from edgewise.errors import MaskError
from edgewise.evaluation.records import Evaluation
from edgewise.graph.rules import permitted
from edgewise.search import Space, trade_offs
from edgewise.search.local_search import descend
from edgewise.search.sampling import draw_at_budget


def test_records_are_found_by_their_masks(branches: ew.Graph) -> None:
    space, masks = Space(branches, ew.Budget(macs=0.9)), [branches.mask([u]) for u in (3, 0, 5)]
    records = [Evaluation(str(mask), "search", float(i)) for i, mask in enumerate(masks)]
    known = space.by_mask(records)
    assert list(known.items()) == list(zip(masks, records, strict=True))  # in their order
    with pytest.raises(MaskError, match="6 in all; got 2"):
        space.by_mask([Evaluation("01", "search", 1.0)])


def test_samplers_descents_and_evolution_keep_rules() -> None:
    """Each, left alone, would take what is not to go: it is what lowers the prediction most."""
    rules = {"at_most": {"heads": 0.4, "edge:blocks.*": 0.5}, "at_least": {"hidden": 16}}
    graph, rng = ew.restrict(ruled.vit(), **rules), np.random.default_rng(0)
    space = Space(graph, ew.Budget(params=0.85))
    free = Space(ruled.vit(), ew.Budget(params=0.85))
    weights = -np.array([bool(unit.kind != "edge") + rng.random() for unit in graph.units])
    ends = [descend(s, lambda X: X @ weights, s.reachable(), rng=rng) for s in (space, free)]
    assert permitted(graph, ends).tolist() == [True, False]
    assert permitted(graph, draw_at_budget(space, 12, rng)).all()
    assert not permitted(graph, draw_at_budget(free, 12, rng)).all()
    X = graph.matrix([graph.empty, *(graph.mask([u]) for u in range(12))])
    model = ew.surrogates.Linear().fit(X, np.exp(X @ weights))
    pytest.importorskip("pymoo")
    points = trade_offs(space, model, ("params", "macs"), population=20, generations=5)
    assert permitted(graph, [point.mask for point in points]).all()
