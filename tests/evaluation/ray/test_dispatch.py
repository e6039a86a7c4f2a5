"""Chunks of masks, masks that kill, and how long silence may last."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

import edgewise as ew
from edgewise.evaluation.ray.dispatch import DEATHS, LARGEST_CHUNK, Dispatch, Patience, chunks_of


def mask(bits: int, size: int = 8) -> ew.Mask:
    return ew.Mask(tuple(c == "1" for c in f"{bits:0{size}b}"), "graph")


@given(bits=st.sets(st.integers(0, 255)), workers=st.integers(1, 9))
def test_chunks_hold_every_mask_once_and_in_order(bits: set[int], workers: int) -> None:
    order = [mask(b) for b in bits]
    chunks = chunks_of([*order, *order], workers)
    assert [m for chunk in chunks for m in chunk] == order
    most = max(map(len, chunks), default=0)
    assert most <= LARGEST_CHUNK
    assert most <= -(-len(bits) // (4 * workers))


def test_chunks_are_cut_where_neighbours_have_least_in_common() -> None:
    masks = [mask(b) for b in (0, 1, 2, *(255 - bit for bit in range(12)))]
    assert len(chunks_of(masks, workers=1)[0]) == 3  # not 4: the fourth shares nothing with it


def test_the_first_answer_counts() -> None:
    dispatch = Dispatch([mask(1), mask(2)], workers=1)
    chunk = dispatch.take()
    dispatch.issue_again(chunk)
    assert dispatch.answer(str(chunk[0]))
    assert not dispatch.answer(str(chunk[0]))
    assert chunk[0] not in [m for c in iter(dispatch.take, ()) for m in c]


def test_a_mask_that_kills_is_found_and_given_up() -> None:
    masks = [mask(b) for b in range(40)]
    dispatch, killer, deaths, failed = Dispatch(masks, workers=1), masks[7], 0, []
    while chunk := dispatch.take():
        assert deaths <= DEATHS
        if killer in chunk:
            deaths += 1
            failed += dispatch.bury(chunk)
        else:
            assert all(dispatch.answer(str(m)) for m in chunk)
    assert failed == [killer]
    assert not dispatch.pending


def test_patience_grows_with_the_work() -> None:
    patience = Patience(least=2.0)
    assert patience.seconds(1) is None
    patience.learn(seconds=3.0, work=10)
    patience.learn(seconds=0.1, work=10)
    assert patience.seconds(100) == pytest.approx(10 * 0.3 * 100)
    assert patience.seconds(0) == 2.0
