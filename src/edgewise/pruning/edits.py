"""What becomes of the modules of a model, as plain data."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from torch import nn

VERSION = 1


@dataclass(frozen=True)
class Edit:
    """What becomes of one module.

    Args:
        becomes: "resized", "gone" (it gives what leaves no trace) or "passed" (it gives an input).
        tensors: resized: for a parameter or buffer what is kept of each axis, as ranges such as
            "0-15,32" ("" = all of it); None where the tensor is gone.
        attributes: resized: numbers that say so, by name or "name[place]", before and after.
        withheld: resized: tensors that code does without while some modules read them: {"input":
            input, which the module's own code does without, or null for its output (a place for
            a member of that), which the code that called it does without; "fill": what stands for
            it: 0 or 1 in its shape, {"single": 0 or 1} or {"no channels": axis}; "to": paths of the
            modules that read it}.
        gathered: resized: inputs that are sums of withheld tensors: {"input": input, "of": [a
            module, and as above its input, null or a place] for each}.
        gives: otherwise, what calling it gives: {"fill": 0, "shape": [], "like": input}, with the
            shape in numbers and in [axis, divisor, rounded up] of that input; {"input": input};
            {"tuple": [...]}, {"list": [...]}, {"dict": {...}} of these; or a plain constant. An
            input is [its place, its name].
    """

    becomes: str
    tensors: Mapping[str, tuple[str, ...] | None] = field(default_factory=dict)
    attributes: Mapping[str, tuple[Any, Any]] = field(default_factory=dict)
    withheld: tuple[Mapping[str, Any], ...] = ()
    gathered: tuple[Mapping[str, Any], ...] = ()
    gives: Any = None

    def __str__(self) -> str:
        if self.becomes != "resized":
            return f"{self.becomes}: gives {told(self.gives)}"
        parts = [f"{name} {before} to {after}" for name, (before, after) in self.attributes.items()]
        for name, axes in self.tensors.items():
            kept = [f"axis {i}: {axis}" for i, axis in enumerate(axes or ()) if axis]
            parts.append(f"{name} {'gone' if axes is None else 'keeps ' + ', '.join(kept)}")
        for held in self.withheld:
            place = held["input"]
            what = f"input {place[1] or place[0]}" if isinstance(place, list) else "its output"
            parts.append(f"{what} reaches {', '.join(held['to']) or 'nothing'} only")
        parts += [
            f"input {sum_['input'][1]} is a sum of what is withheld" for sum_ in self.gathered
        ]
        return f"resized: {'; '.join(parts)}"


Edits = Mapping[str, Edit]


def told(gives: Any) -> str:
    """What a module gives, in words."""
    if not isinstance(gives, Mapping):
        return repr(gives)
    if "input" in gives:
        return f"its input {gives['input'][1] or gives['input'][0]}"
    if "fill" in gives:
        empty = 0 in gives["shape"]
        return "no channels" if empty else "one" if gives["fill"] else "zero"
    ((kind, members),) = gives.items()
    parts = members.values() if kind == "dict" else members
    return f"({', '.join(map(told, parts))})"


def ranges(keep: Any) -> str:
    """The places of what is kept, as text.

    Examples:
        >>> ranges([True, True, False, True])
        '0-1,3'
    """
    places = [i for i, kept in enumerate(keep) if kept]
    runs: list[list[int]] = []
    for place in places:
        if runs and place == runs[-1][1] + 1:
            runs[-1][1] = place
        else:
            runs.append([place, place])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in runs)


def places(text: str) -> list[int]:
    """The inverse of `ranges`."""
    ends = [[int(end) for end in run.split("-")] for run in text.split(",")]
    return [place for run in ends for place in range(run[0], run[-1] + 1)]


def printed(model: nn.Module) -> str:
    """SHA-256 of a model as it is printed: the classes of its modules, and their settings."""
    text = re.sub(r" at 0x[0-9a-f]+", "", repr(model))
    return hashlib.sha256(text.encode()).hexdigest()


def to_dict(edits: Edits) -> dict[str, Any]:
    """Edits as JSON-ready data."""
    modules = {}
    for path, edit in edits.items():
        resized = edit.becomes == "resized"
        data = {k: v for k, v in asdict(edit).items() if v and k != "becomes"}
        modules[path] = {"becomes": edit.becomes, **({} if resized else {"gives": None}), **data}
    return {"version": VERSION, "modules": modules}


def from_dict(data: Mapping[str, Any]) -> dict[str, Edit]:
    """The inverse of `to_dict`.

    Raises:
        ValueError: the data is of a newer version, or damaged.
    """
    if data.get("version") != VERSION:
        raise ValueError(f"edits of version {data.get('version')!r}, this one reads {VERSION}")
    try:
        return {path: _edit(entry) for path, entry in data["modules"].items()}
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"edits are damaged: {type(error).__name__} {error}") from error


def _edit(entry: Mapping[str, Any]) -> Edit:
    if entry["becomes"] not in ("resized", "gone", "passed"):
        raise ValueError(f"a module becomes {entry['becomes']!r}")
    tensors = {
        name: None if axes is None else tuple(map(str, axes))
        for name, axes in entry.get("tensors", {}).items()
    }
    attributes = {
        name: (_plain(before), _plain(after))
        for name, (before, after) in entry.get("attributes", {}).items()
    }
    withheld, gathered = (tuple(map(dict, entry.get(k, ()))) for k in ("withheld", "gathered"))
    return Edit(entry["becomes"], tensors, attributes, withheld, gathered, entry.get("gives"))


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
