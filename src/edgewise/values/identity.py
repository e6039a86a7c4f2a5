"""What a study belongs to, as lines of text, and what differs between two of them."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import takewhile, zip_longest

from .description import digest
from .files import parse_json

SHOWN = 1000  # lines of a part that a study keeps, to say what differs
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
_BEFORE, _AFTER = re.compile(r"(?:\(|, )(?=\w+=)"), re.compile(r", \w+=|\) of \(")
_DIGEST = re.compile(r"\b([0-9a-f]{8})[0-9a-f]{56}\b")


@dataclass(frozen=True)
class Identity:
    """What a study belongs to: lines of text for each part, "graph", "weights" and "objective".

    Args:
        structure: the graph's vertices, edges and units, by which its masks are read.
        digests: of all the lines of each part.
        lines: the first lines of each part, to say what differs.
        python: version whose instructions the lines of functions are made of.
    """

    structure: str
    digests: Mapping[str, str]
    lines: Mapping[str, tuple[str, ...]]
    python: str = PYTHON

    @classmethod
    def of(cls, structure: str, parts: Mapping[str, Sequence[str]]) -> Identity:
        """The identity of parts that are given as all their lines."""
        digests = {name: digest(lines) for name, lines in parts.items()}
        return cls(structure, digests, {k: tuple(v[:SHOWN]) for k, v in parts.items()})

    @classmethod
    def read(cls, text: str) -> Identity:
        """What `text` gave; one from before settings and state counted knows its structure only.

        Raises:
            ValueError, KeyError, TypeError: the text is something else.
        """
        data = parse_json(text)
        if "digests" not in data:
            return cls(str(data["graph"]), {}, {}, "")
        kept = {str(name): tuple(map(str, lines)) for name, lines in data["lines"].items()}
        return cls(str(data["structure"]), dict(data["digests"]), kept, str(data["python"]))

    def text(self) -> str:
        """The identity as JSON."""
        return json.dumps(asdict(self), sort_keys=True)

    def proves(self, other: Identity) -> bool:
        """Whether the digests of two identities can be compared at all."""
        return bool(self.digests) and self.python == other.python

    def changes(self, now: Identity) -> dict[str, str | None]:
        """The parts that differ, and the first difference where it is known.

        "units" if all that differs is which units of the network can be removed.
        """
        if not self.proves(now):
            return {} if self.structure == now.structure else {"graph": None}
        changed = {
            name: difference(self.lines.get(name, ()), lines)
            for name, lines in now.lines.items()
            if self.digests.get(name) != now.digests[name]
        }
        other = not changed and self.structure != now.structure
        return {"units": None} if other else changed


def difference(stored: Sequence[str], now: Sequence[str]) -> str | None:
    """The first line that differs, in words; None if none does.

    Examples:
        >>> from edgewise.values.identity import difference
        >>> difference(["act: LeakyReLU(slope=0.1) of (%x)"], ["act: LeakyReLU(slope=0.5) of (%x)"])
        'act was slope=0.1 and is slope=0.5'
    """
    for was, own in zip_longest(stored, now):
        if was == own:
            continue
        if was is None or own is None:
            return f"{own} is new" if was is None else f"{was} is gone"
        (path, _, old), (other, _, new) = was.partition(": "), own.partition(": ")
        if path != other:
            return f"{own} stands in place of {was}"
        old, new = _apart(old, new)
        return _DIGEST.sub(r"\1…", f"{path} was {old} and is {new}")
    return None


def _apart(old: str, new: str) -> tuple[str, str]:
    """Two texts without the named settings that both begin and end with."""
    begin = _common(old, new)
    begin = max((m.end() for m in _BEFORE.finditer(old) if m.end() <= begin), default=0)
    old, new = old[begin:], new[begin:]
    same = _common(old[::-1], new[::-1])
    ends = _AFTER.search(old[len(old) - same :])
    cut = same - ends.start() if ends else 0
    return old[: len(old) - cut], new[: len(new) - cut]


def _common(one: str, other: str) -> int:
    """Characters that two texts begin with alike."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))
