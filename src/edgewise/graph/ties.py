"""Units that go together or not at all: one unit that takes what all of them take."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from ..errors import RuleError
from .cost import cost_of
from .graph import Graph, Unit
from .liveness import alive
from .places import inside, scopes, taken
from .removal import Removal


@dataclass(frozen=True)
class Key:
    """What tied units have in common; and the name of the unit that they become, and its group."""

    place: object
    name: str = field(compare=False)
    group: str = field(default="", compare=False)


def tied(
    graph: Graph, tie: Sequence[str], alike: Sequence[str]
) -> tuple[Graph, tuple[tuple[int, ...], ...]]:
    """The graph with tied units, and for each unit the old ones that it is made of.

    What cannot go with the others of its tie, as a skip beside its branch, is no longer offered.

    Args:
        graph: whose units are tied.
        tie: for each module that one of these matches, all units within it are one.
        alike: for each unit within a module that one of these matches, it and those in its place
            in the other modules are one.

    Raises:
        RuleError: a tie names nothing, ties nothing, or one that another one has already.
    """
    keys: dict[int, tuple[str, Key]] = {}
    for rule, members in (*_ties(graph, tie), *_alikes(graph, alike)):
        for unit, key in members.items():
            if unit in keys:
                name = graph.units[unit].name
                raise RuleError(f"{rule} and {keys[unit][0]} both tie {name}: keep one of them.")
            keys[unit] = rule, key
        if len({*members.values()}) == len(members):
            raise RuleError(f"{rule} ties nothing: no two units that are offered share a key.")
    if not keys:
        return graph, tuple((unit,) for unit in range(len(graph.units)))
    bundles: dict[object, list[int]] = {}
    for unit in range(len(graph.units)):
        bundles.setdefault(keys[unit][1] if unit in keys else unit, []).append(unit)
    units, made_of = list[Unit](), list[tuple[int, ...]]()
    for first, *others in bundles.values():
        chosen = _together(graph, [first, *others]) if others else [first]
        if chosen:
            units.append(_joined(graph, keys[first][1], chosen) if others else graph.units[first])
            made_of.append(tuple(chosen))
    return replace(graph, units=tuple(units)), tuple(made_of)


def _ties(graph: Graph, patterns: Sequence[str]) -> Iterator[tuple[str, dict[int, Key]]]:
    for pattern in patterns:
        kind, paths = scopes(graph, pattern)
        names = {path: f"{kind}:{path}" if kind else path for path in paths}
        units = {u: Key(path, names[path]) for path in paths for u in within(graph, kind, path)}
        yield f"tie={pattern!r}", units


def _alikes(graph: Graph, patterns: Sequence[str]) -> Iterator[tuple[str, dict[int, Key]]]:
    for pattern in patterns:
        kind, paths = scopes(graph, pattern)
        found = {}
        for path in paths:
            # a path begins a name, or follows what is no part of a path: "a..b", "a->b", "kind:b"
            own = re.compile(rf"(?<!\w)(?<!\w\.){re.escape(path)}(?!\w)")
            general = partial(own.sub, pattern.rpartition(":")[2])
            for index in within(graph, kind, path):
                unit = graph.units[index]
                place = (pattern, unit.kind, *_place(graph, index, path))
                found[index] = Key(place, general(unit.name), general(unit.group))
        yield f"alike={pattern!r}", found


def _place(graph: Graph, index: int, path: str) -> tuple[object, ...]:
    """Where in a module a unit is: the same for those in the same place of another module."""
    removal, group = graph.units[index].removal, graph.group_of.get(index, ())
    names = sorted(graph.vertices[v].name[len(path) :] for v in taken(graph)[index].vertices)
    slots = sorted(graph.edges[edge].slot for edge in removal.edges)
    return (*names, *slots, group.index(index) if group else 0)


def within(graph: Graph, kind: str | None, path: str) -> list[int]:
    """The units of a kind (None: of any) that take nothing but what is in a module."""
    there, takes = inside(graph, path), taken(graph)
    return [
        index
        for index, unit in enumerate(graph.units)
        if kind in (None, unit.kind) and takes[index].vertices <= there
    ]


def _together(graph: Graph, bundle: Sequence[int]) -> list[int]:
    """Units that leave every output when all go: all of them, or those that save most."""
    costs = [unit.cost for unit in graph.units]
    order = sorted(bundle, key=lambda u: (costs[u].params, costs[u].macs), reverse=True)
    chosen: list[int] = []
    for more in (order, *([unit] for unit in order)):
        removal = Removal.union(graph.units[u].removal for u in (*chosen, *more))
        if alive(graph, removal).connected:
            chosen += more
        if len(chosen) == len(bundle):
            break
    return chosen


def _joined(graph: Graph, key: Key, members: Sequence[int]) -> Unit:
    units = [graph.units[unit] for unit in members]
    removal = Removal.union(unit.removal for unit in units)
    saved = cost_of(graph, alive(graph)) - cost_of(graph, alive(graph, removal))
    takes, of = (sum(unit.counts[i] for unit in units) for i in (0, 1))
    return Unit(
        name=key.name,
        kind=units[0].kind,
        removal=removal,
        cost=saved,
        group=key.group,
        importance=sum(unit.importance for unit in units),
        label=key.name,
        block=units[0].block,
        counts=(takes, of) if key.group else (1, 1),
        tied=tuple(graph.units[unit].name for unit in sorted(members)),
    )
