"""Who measures what when several processes work on one study."""

from __future__ import annotations

import platform
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import pytest

from edgewise.evaluation.records import Evaluation
from edgewise.study.storage import claims, storage
from edgewise.study.storage.storage import Storage
from identities import belonging

IDENTITY = belonging()
MASKS = ["000", "001", "010", "011"]


@pytest.fixture
def pair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Storage, Storage]:
    monkeypatch.setattr(storage, "POLL", 0.0)
    url = f"sqlite:///{tmp_path / 'study.db'}"
    return Storage(url, "s", IDENTITY), Storage(url, "s", IDENTITY)


def share(storage: Storage, masks: list[str] = MASKS, again: Iterable[str] = (), limit: int = 9):
    mine, found = storage.share(masks, "search", 2, set(again), limit)
    return mine, [e.mask for e in found]


def test_each_mask_is_claimed_once_until_its_result_is_there(pair) -> None:
    one, two = pair
    assert share(one, limit=2) == (MASKS[:2], [])
    assert share(two) == (MASKS[2:], [])
    assert share(two, MASKS[:2]) == ([], [])
    one.add(Evaluation("000", "search", 0.5, {}, 2))
    assert share(two, MASKS[:2]) == ([], ["000"])
    assert share(one, MASKS) == (["001"], ["000"])


def test_splits_and_studies_are_claimed_apart(pair) -> None:
    one, two = pair
    share(one)
    assert two.share(MASKS, "verify", 2, set(), 9)[0] == MASKS
    assert share(Storage(two.url, "other", IDENTITY)) == (MASKS, [])


def test_what_is_left_is_given_up_at_the_end(pair) -> None:
    one, two = pair

    def interrupted() -> None:
        with one.claims.beating():
            share(one)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert share(two) == (MASKS, [])


def test_a_failure_counts_unless_it_is_to_be_tried_again(pair) -> None:
    one, two = pair
    one.add(Evaluation("000", "search", None, {}, 0, 0.1, "failed", "no"))
    assert share(one, ["000"]) == ([], ["000"])
    assert share(two, ["000"], {"000"}) == (["000"], [])
    two.add(Evaluation("000", "search", 0.5, {}, 2))
    assert share(one, ["000"], {"000"}) == ([], ["000"])


def test_an_evaluation_of_other_examples_does_not_count(pair) -> None:
    pair[0].add(Evaluation("000", "search", 0.5, {}, 1))
    assert share(pair[1], ["000"]) == (["000"], [])


def test_a_dead_process_of_this_machine_holds_nothing(pair) -> None:
    one, two = pair
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    one.claims.worker = f"{platform.node()}:{dead.pid}:x"
    share(one)
    assert share(two) == (MASKS, [])


def test_elsewhere_a_claim_ends_when_its_beat_stands_still(pair, monkeypatch) -> None:
    one, two = pair
    one.claims.worker = "elsewhere:1:x"
    now = [1000.0]
    monkeypatch.setattr(claims.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(claims.time, "time", lambda: -1e9)  # which must not matter
    share(one)
    assert share(two) == ([], [])
    now[0] += claims.LEASE - 1
    assert share(two) == ([], [])
    now[0] += 2
    assert share(two) == (MASKS, [])
    assert share(one) == ([], []), "what was taken over is the other's"


def test_a_claim_lives_as_long_as_its_process_beats(pair, monkeypatch) -> None:
    one, two = pair
    one.claims.worker = "elsewhere:1:x"
    monkeypatch.setattr(claims, "BEAT", 0.02)
    monkeypatch.setattr(claims, "LEASE", 2.0)
    with one.claims.beating():
        share(one)
        deadline = time.monotonic() + 3.0
        while time.monotonic() < deadline:
            assert share(two) == ([], [])
            time.sleep(0.05)
    assert share(two) == (MASKS, [])
