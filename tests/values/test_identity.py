"""What a study belongs to is read as it was written, and said where it differs."""

from __future__ import annotations

import pytest

from edgewise.values.description import digest
from edgewise.values.identity import Identity, difference


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("a: C(b=1, d=(1, 1), g=1) of (%x)", "a: C(b=1, d=(2, 2), g=1) of (%x)",
         "a was d=(1, 1) and is d=(2, 2)"),
        (f"data: {digest(['a'])}", f"data: {digest(['b'])}",
         f"data was {digest(['a'])[:8]}… and is {digest(['b'])[:8]}…"),
        ("a: one", "b: one", "b: one stands in place of a: one"),
        ("a: one", None, "a: one is gone"),
        (None, "a: one", "a: one is new"),
    ],
)  # fmt: skip
def test_differences_in_words(old: str | None, new: str | None, words: str) -> None:
    assert difference([old] if old else [], [new] if new else []) == words


def test_identities_are_read_as_written() -> None:
    one = Identity.of("s", {"graph": ("a: 1",), "objective": tuple(f"{i}: x" for i in range(2000))})
    read = Identity.read(one.text())
    assert read.changes(one) == {}
    assert read.proves(one)
    changed = Identity.of("s", {"graph": ("a: 2",), "objective": one.lines["objective"]})
    assert read.changes(changed) == {"graph": "a was 1 and is 2", "objective": None}


def test_instructions_of_another_python_prove_nothing() -> None:
    one = Identity("s", {"graph": digest(["a"])}, {"graph": ("a",)}, "3.9")
    assert not one.proves(Identity.of("s", {"graph": ("b",)}))
    assert one.changes(Identity.of("s", {"graph": ("b",)})) == {}
    assert one.changes(Identity.of("t", {"graph": ("a",)})) == {"graph": None}
