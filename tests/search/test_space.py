"""The masks that a search may consider."""

import pytest

import edgewise as ew
from edgewise.errors import MaskError
from edgewise.evaluation.records import Evaluation
from edgewise.search import Space


def test_records_are_found_by_their_masks(branches: ew.Graph) -> None:
    space, masks = Space(branches, ew.Budget(macs=0.9)), [branches.mask([u]) for u in (3, 0, 5)]
    records = [Evaluation(str(mask), "search", float(i)) for i, mask in enumerate(masks)]
    known = space.by_mask(records)
    assert list(known.items()) == list(zip(masks, records, strict=True))  # in their order
    with pytest.raises(MaskError, match="6 in all; got 2"):
        space.by_mask([Evaluation("01", "search", 1.0)])
