"""The known word that a misspelt one is nearest to."""

from collections.abc import Iterable


def nearest(word: str, known: Iterable[str]) -> str:
    """ " Did you mean …?" if some known word is close, else a list of the known words."""
    words = list(known)
    return close(word, words) or f" Known: {', '.join(words)}."


def close(word: str, known: Iterable[str]) -> str:
    """ " Did you mean …?" if some known word is close, else nothing."""
    import difflib

    found = difflib.get_close_matches(word, list(known), n=1)
    return f" Did you mean {found[0]!r}?" if found else ""


def fitting(name: str, room: int) -> str:
    """The name, without its middle where it is too long: ends tell slices of a width apart."""
    tail = room // 4
    return name if len(name) <= room else f"{name[: room - tail - 1]}…{name[-tail:]}"
