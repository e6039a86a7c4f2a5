"""Masks, units and fingerprints as values."""

import copy

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import edgewise as ew
from edgewise.errors import MaskError
from zoo import build


def test_masks_are_values(residual: ew.Graph) -> None:
    a, b = residual.mask([1, 3]), residual.mask([3]).with_removed(1)
    assert a == b
    assert hash(a) == hash(b)
    assert a.removed == (1, 3)
    assert a.with_kept(3) == residual.mask([1])
    assert residual.mask(bits=str(a)) == a


@given(st.data())
def test_mask_round_trips(residual: ew.Graph, data: st.DataObject) -> None:
    bits = data.draw(st.lists(st.booleans(), min_size=12, max_size=12))
    mask = residual.mask(bits=bits)
    assert list(mask) == bits
    assert residual.matrix([mask]).tolist() == [[float(b) for b in bits]]


def test_wrong_masks_are_refused(residual: ew.Graph, branches: ew.Graph) -> None:
    with pytest.raises(MaskError, match="one bit a unit, 12 in all; got 3"):
        residual.mask(bits="010")
    with pytest.raises(MaskError, match="Unit 99 does not exist"):
        residual.mask([99])
    name = residual.units[0].name
    with pytest.raises(MaskError, match=f"Did you mean '{name}'"):
        residual.mask([name + "x"])
    with pytest.raises(MaskError, match="has 6 bits, the graph 12 units"):
        ew.liveness(residual, branches.empty)
    other = residual.select(lambda unit: unit.name != residual.units[0].name)
    wrong = ew.Mask((*other.empty.bits, False), other.fingerprint)
    with pytest.raises(MaskError, match="belongs to graph"):
        ew.liveness(residual, wrong)


def test_fingerprint_ignores_weights_and_batch_but_not_structure() -> None:
    first, args = build("residual", seed=0)
    second, _ = build("residual", seed=1)
    one = ew.trace(first, args)
    assert ew.trace(second, args).fingerprint == one.fingerprint
    assert ew.trace(first, (args[0][:1],)).fingerprint == one.fingerprint
    assert ew.trace(first, args, granularity="edge").fingerprint != one.fingerprint
    other, args = build("preactivation")
    assert ew.trace(other, args).fingerprint != one.fingerprint


def test_graph_is_a_value(residual: ew.Graph) -> None:
    assert copy.deepcopy(residual) is residual
    again = residual.select(lambda unit: True)
    assert again == residual
    assert hash(again) == hash(residual)


@pytest.mark.parametrize("width", [60, 80, 140])
def test_summary_fits_the_terminal(residual: ew.Graph, width: int) -> None:
    text = residual.summary(width)
    assert "12 units (6 edge, 6 layer)" in text
    rows = text.splitlines()[3:]
    assert len(rows) == 1 + 5 + 12  # columns, blocks, units
    assert max(map(len, rows)) <= width


def test_a_summary_has_whole_labels_and_cut_ones_keep_their_ends() -> None:
    model, args = build("residual")
    graph = ew.trace(model, args, granularity=("edge", "hidden"), slices=3)

    def labels(text: str) -> list[str]:
        return [row[2:].split("  ")[0] for row in text.splitlines()[4:] if row.startswith("  ")]

    assert labels(graph.summary()) == [unit.label for unit in graph.units]
    for label, unit in zip(labels(graph.summary(60)), graph.units, strict=True):
        head, _, tail = label.partition("…")
        assert unit.label.startswith(head)
        assert unit.label.endswith(tail)


@pytest.mark.parametrize("wrong", [[True, False], [2.9], [np.True_], [np.float64(1)], [None]])
def test_bits_and_fractions_are_no_units(branches: ew.Graph, wrong: list) -> None:
    with pytest.raises(MaskError, match=r"graph\.mask\(bits=\.\.\.\)"):
        branches.mask(wrong)
    assert branches.mask([np.int64(2)]).removed == (2,)
