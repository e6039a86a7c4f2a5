"""Where in the user's model units lie: paths and globs of modules, and what a unit takes there."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, get_args

from ..errors import RuleError
from ..values.spelling import close, nearest
from .cost import count_changes
from .graph import Graph, UnitKind, once
from .liveness import Liveness, alive
from .removal import Removal

KINDS = ("branch", *get_args(UnitKind))


@dataclass(frozen=True)
class Taken:
    """What goes with a unit, after the slices of its width that go before it.

    Args:
        vertices: those of which something goes; for an edge between two that stay, the second.
        dead: those of which nothing is left.
        params: parameters that each vertex loses.
    """

    vertices: frozenset[int]
    dead: frozenset[int]
    params: Mapping[int, int]


@once
def taken(graph: Graph) -> Sequence[Taken]:
    """What goes with each unit."""
    whole, found = alive(graph), dict[int, Taken]()
    alone = [(unit,) for unit in range(len(graph.units)) if unit not in graph.group_of]
    for group in (*alone, *graph.nested):
        removal, before = Removal(), dict[int, int]()
        for unit in group:
            removal = Removal.union((removal, graph.units[unit].removal))
            rest = alive(graph, removal)
            lost = {i: full.params - left.params for i, full, left in count_changes(graph, rest)}
            vertices = _touched(whole, rest, lost)
            ends = (graph.edges[edge].target for edge in removal.edges)
            dead = frozenset(i for i in vertices if not rest.runs(i))
            more = {i: size - before.get(i, 0) for i, size in lost.items() if size}
            found[unit] = Taken(vertices or frozenset(ends), dead, more)
            before = lost
    return [found[unit] for unit in range(len(graph.units))]


def _touched(whole: Liveness, rest: Liveness, lost: Mapping[int, int]) -> frozenset[int]:
    """Vertices that are gone, bypassed, give less, or have lost parameters."""
    return frozenset(
        index
        for index, flow in rest.changed.items()
        if whole.states[index] is not None
        and (lost[index] or index in rest.bypassed or flow.out != whole.states[index])
    )


def inside(graph: Graph, path: str) -> frozenset[int]:
    """The vertices in a module; all of them for an empty path."""
    names = (vertex.name.partition("#")[0] for vertex in graph.vertices)
    return frozenset(i for i, n in enumerate(names) if not path or f"{n}.".startswith(f"{path}."))


def modules(graph: Graph) -> Mapping[str, Any]:
    """The modules of the model by path; None where only operators are known to be there."""
    found: dict[str, Any] = {}
    for vertex in graph.vertices:
        parts = vertex.name.partition("#")[0].split(".")
        found |= {".".join(parts[:end]): None for end in range(1, len(parts))}
    program = graph.program
    whole = program and program.whole and (program.whole.model or program.whole.rest)
    for model in (whole, program and (program.model or program.module)):
        found |= dict(model.named_modules(remove_duplicate=False)) if model is not None else {}
    found.pop("", None)
    return found


def matched(graph: Graph, pattern: str | type) -> list[str]:
    """The paths of the modules that a path, a glob of paths or a class names.

    In a glob, each part between two dots is matched by itself. Text that matches no path may be
    how paths end, or the name of a class.

    Raises:
        RuleError: there is no such module; suggests the nearest.
    """
    known = modules(graph)
    if isinstance(pattern, type):
        found = [path for path, module in known.items() if isinstance(module, pattern)]
        if not found:
            raise RuleError(f"No module is a {pattern.__name__}.")
        return found
    parts = pattern.split(".")
    ends = [path for path in known if all(map(fnmatchcase, path.split(".")[-len(parts) :], parts))]
    exact = [path for path in ends if path.count(".") == len(parts) - 1]
    ends = [path for path in ends if path.count(".") >= len(parts)]
    found = exact or ends or [p for p, m in known.items() if type(m).__name__ == parts[-1]]
    if not found:
        classes = {type(module).__name__ for module in known.values() if module is not None}
        near = close(pattern, known) or close(pattern, {*classes, *KINDS})
        top = [path for path in known if "." not in path]
        raise RuleError(f"No module is called {pattern!r}.{near or nearest(pattern, top)}")
    return found


def scopes(graph: Graph, key: str) -> tuple[str | None, list[str]]:
    """The kind that a key KIND, PATH or KIND:PATH names, if it does, and the paths it matches.

    Raises:
        RuleError: there is no such kind or module.
    """
    kind, colon, path = key.rpartition(":")
    if not colon and path in KINDS:
        kind, path = path, ""
    if kind and kind not in KINDS:
        raise RuleError(f"No kind of unit is called {kind!r}.{nearest(kind, KINDS)}")
    kind = "edge" if kind == "branch" else kind  # which the units of both granularities are
    return kind or None, matched(graph, path) if path else [""]
