"""Tensors that a module's own code does without, while modules that it calls still read them."""

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

from ..graph.graph import Graph
from ..graph.liveness import Liveness
from .calls import EMPTY, ONE, ZERO, Calls, Fill, module_paths
from .edits import Edit

NEUTRAL = {"add": ZERO, "sub": ZERO, "mul": ONE, "div": ONE, "cat": EMPTY}
Place = tuple[str, Any]  # of a tensor: a module, and an input, or None or a number for its output


class Withholding:
    """Finds them, one removed edge after another.

    Args:
        graph: the traced graph.
        alive: what remains of it.
        calls: how the model calls its modules.
        full: whether what stands for a tensor has its shape, and is not a single number.
        replaced: modules that are gone or passed through.
    """

    def __init__(
        self, graph: Graph, alive: Liveness, calls: Calls, full: bool, replaced: Collection[str]
    ) -> None:
        self.graph, self.alive, self.calls, self.full = graph, alive, calls, full
        self.replaced = replaced
        self.paths = module_paths(graph)
        self.withheld: dict[tuple[str, str], dict[str, Any]] = {}
        self.gathered: dict[str, dict[str, Any]] = {}

    def edits(self, others: Mapping[str, Edit], gone: Collection[str]) -> dict[str, Edit]:
        """The edits of the modules that withhold and read, beside what else becomes of them."""
        found: dict[str, Edit] = {}
        for (path, _), held in self.withheld.items():
            before = found.get(path, others.get(path, Edit("resized")))
            entry = {**held, "to": [reader for reader in held["to"] if reader not in gone]}
            found[path] = replace(before, withheld=(*before.withheld, entry))
        for path, total in self.gathered.items():
            before = found.get(path, others.get(path, Edit("resized")))
            if path not in gone:
                found[path] = replace(before, gathered=(total,))
        return found

    def without(self, index: int, source: int) -> bool:
        """Whether the code at a vertex can do without a tensor that modules it calls still read.

        That is an input of the module whose code it is, or what another module gave it; or a sum
        of these, which its readers then make themselves.
        """
        vertex, paths = self.graph.vertices[index], self.paths[index]
        neutral, path = NEUTRAL.get(vertex.op), paths[-1] if paths else ""
        to = self._called(source, path, neutral)
        if neutral is None or to is None:
            return False
        place = self._place(path, source)
        if place is None:
            return neutral == ZERO and self._gather(source, path, to)
        number = 1 if neutral == ONE else 0
        fill: Any = number if self.full else {"single": number}
        self._hold(place, {"no channels": vertex.attrs["dim"]} if neutral == EMPTY else fill, to)
        return True

    def _hold(self, place: Place, fill: Any, to: set[str]) -> None:
        held = self.withheld.setdefault(
            (place[0], str(place[1])), {"input": place[1], "fill": fill, "to": []}
        )
        held["to"] = sorted({*held["to"], *to})

    def _gather(self, source: int, path: str, readers: set[str]) -> bool:
        """Whether code can do without a sum of its own, which modules that read it make instead."""
        vertex = self.graph.vertices[source]
        used = [e for e in self.graph.inputs[source] if self.alive.wants[e] is not None]
        parts = [self.graph.edges[edge].source for edge in used]
        places = [self._place(path, part) for part in parts]
        called = [self._called(part, path, ZERO, source) for part in parts]
        given = {reader: self.calls.input(reader, source) for reader in readers}
        plain = vertex.op == "add" and all(sign == 1 for sign in vertex.attrs["signs"])
        if not plain or None in places or None in called or None in given.values():
            return False
        for place, to in zip(places, called, strict=True):
            if place is not None and to is not None:
                self._hold(place, 0 if self.full else {"single": 0}, to)
        for reader, found in given.items():
            if found is not None:
                self.gathered[reader] = {"input": found.place, "of": places}
        return True

    def _called(
        self, source: int, path: str, neutral: Fill | None, through: int = -1
    ) -> set[str] | None:
        """The modules called by that of a path that read a vertex; None if its own code does."""
        to = set[str]()
        for edge in self.graph.consumers[source]:
            target = self.graph.edges[edge].target
            reader = self._below(target, path)
            if reader is None or target == through:
                continue
            if reader:
                if reader != self._below(source, path):  # it reads its own tensor
                    to.add(reader)
            elif self.alive.wants[edge] is not None or (
                NEUTRAL.get(self.graph.vertices[target].op) != neutral
            ):
                return None
        return to

    def _below(self, index: int, path: str) -> str | None:
        """The module called by that of a path in which a vertex runs; "" = none, its own code."""
        paths = ("", *self.paths[index])
        if path not in paths:
            return None
        return next(iter(paths[paths.index(path) + 1 :]), "")

    def _place(self, path: str, source: int) -> Place | None:
        """What gives a vertex's value to the code of a module: its input, or another's output."""
        below = self._below(source, path)
        if below is None or (self.graph.vertices[source].op == "input" and not path):
            given = self.calls.input(path, source) if path in self.calls.once else None
            return None if given is None else (path, given.place)
        there = bool(below) and below not in self.replaced
        found = self.calls.gives(below, source) if there else None
        return None if found is None else (below, *found)
