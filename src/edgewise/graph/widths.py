"""Widths as units: coupled channels, hidden channels and heads, in nested slices."""

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import EdgewiseError, RuleError
from .cost import cost_of
from .coupling import Coupling, Place, couple
from .graph import Cost, Graph, Unit, UnitKind
from .importance import Importance, Scores
from .liveness import Liveness, alive
from .places import inside, scopes
from .removal import Removal

WIDTHS: tuple[UnitKind, ...] = ("channels", "hidden", "heads")
Multiple = int | Mapping[str, int]  # of channels, also by kind or place of a width


@dataclass(frozen=True)
class Group:
    """Classes of channels of the same producers: one width of the network.

    `classes` lists, for each class, the channels of every place that go with it, the least
    important class first; `scores` how important each is.
    """

    kind: UnitKind
    places: tuple[Place, ...]
    classes: tuple[tuple[tuple[int, ...], ...], ...]
    scores: tuple[float, ...]


def width_units(
    graph: Graph, kinds: Sequence[str], slices: int, round_to: Multiple, importance: Importance
) -> tuple[list[Unit], dict[str, str]]:
    """The widths of a graph, and why others cannot be removed, by the name of their producer.

    Args:
        graph: vertices and edges.
        kinds: "channels", "hidden", "heads".
        slices: parts into which each width is cut; the most important is never removed.
        round_to: what remains of a width is a multiple of this many channels; by KEY, as in
            `restrict`, where not all have one.
        importance: orders the channels.

    Raises:
        RuleError: a key of round_to names no width.
        EdgewiseError: slices or round_to make no sense for this model.
    """
    least = min(round_to.values(), default=1) if isinstance(round_to, Mapping) else round_to
    if slices < 2 or least < 1:
        raise EdgewiseError(
            f"slices must be at least 2 and round_to at least 1; got {slices} and {round_to}."
        )
    coupling = couple(graph)
    refused = {graph.vertices[v].name: reason for v, reason in coupling.refused.items()}
    scores = importance(graph, tuple(coupling.writes), tuple(coupling.reads))
    whole = alive(graph)
    base = cost_of(graph, whole)
    units: list[Unit] = []
    widest = 0
    groups = [g for g in _groups(coupling, scores, whole) if g.kind in kinds]
    multiple = _multiples(graph, groups, round_to)
    for group in groups:
        widest = max(widest, _channels(group))
        found, reason = _slices(graph, group, base, slices, multiple(group))
        units += found
        if reason:
            refused |= {graph.vertices[place.vertex].name: reason for place in group.places}
    if not units and least > 1 and widest and least >= widest:
        raise EdgewiseError(
            f"round_to={round_to} leaves nothing to remove: the widest set of channels that can "
            f"be cut has {widest}."
        )
    return units, refused


def _multiples(graph: Graph, groups: Sequence[Group], round_to: Multiple) -> Callable[[Group], int]:
    """How many channels what remains of a group is a multiple of."""
    if not isinstance(round_to, Mapping):
        return lambda group: round_to

    def meant(group: Group, kind: str | None, there: frozenset[int]) -> bool:
        return kind in (None, group.kind) and any(p.vertex in there for p in group.places)

    rules = []
    for key, number in round_to.items():
        kind, paths = scopes(graph, key)
        there = frozenset[int]().union(*(inside(graph, path) for path in paths))
        if not any(meant(group, kind, there) for group in groups):
            raise RuleError(f"round_to={{{key!r}: {number}}} names no width that can be cut.")
        rules.append((kind, there, number))
    return lambda group: math.lcm(*(n for kind, there, n in rules if meant(group, kind, there)))


def _groups(coupling: Coupling, scores: Scores, whole: Liveness) -> list[Group]:
    importance = _class_scores(coupling, scores)
    members: dict[int, dict[Place, list[int]]] = defaultdict(dict)
    for place, ids in coupling.writes.items():
        if whole.states[place.vertex] is None:
            continue
        for channel, one in enumerate(ids.tolist()):
            if one >= 0:
                members[one].setdefault(place, []).append(channel)
    by_places: dict[tuple[Place, ...], list[int]] = defaultdict(list)
    for one, lost in members.items():
        by_places[tuple(lost)].append(one)
    groups = []
    for places, classes in by_places.items():
        ranked = sorted(classes, key=lambda one: (importance.get(one, 0.0), one))
        lists = tuple(tuple(tuple(members[one][p]) for p in places) for one in ranked)
        kind: UnitKind = "hidden"
        if any(one in coupling.heads for one in classes):
            kind = "heads"
        elif any(one in coupling.joined for one in classes):
            kind = "channels"
        ranks = tuple(importance.get(one, 0.0) for one in ranked)
        groups.append(Group(kind, places, lists, ranks))
    return groups


def _class_scores(coupling: Coupling, scores: Scores) -> dict[int, float]:
    total: dict[int, float] = defaultdict(float)
    for place, values in scores.items():
        ids = coupling.writes[place] if place in coupling.writes else coupling.reads[place]
        for one, value in zip(ids.tolist(), np.asarray(values, dtype=float).tolist(), strict=True):
            total[one] += value
    return total


def _channels(group: Group) -> int:
    """Channels of the first producer."""
    return sum(len(one[0]) for one in group.classes)


def kept_levels(count: int, wide: int, slices: int, round_to: int) -> list[int]:
    """How many of `count` classes remain after each slice, each class `wide` channels.

    The numbers fall, and are multiples of `round_to` channels.
    """
    step = math.lcm(round_to, wide) // wide
    found: list[int] = []
    for part in range(1, slices):
        kept = round(count * (1 - part / slices) / step) * step
        if 0 < kept < (found[-1] if found else count):
            found.append(kept)
    return found


def _slices(
    graph: Graph, group: Group, base: Cost, slices: int, round_to: int
) -> tuple[list[Unit], str | None]:
    """The nested units of one width; none and a reason where liveness does not carry it through."""
    count, wide = len(group.classes), len(group.classes[0][0])
    name = f"{group.kind}:{graph.vertices[group.places[0].vertex].name}"
    levels = kept_levels(count, wide, slices, round_to)
    if not levels:
        return [], f"{count * wide} channels cannot be cut to a smaller multiple of {round_to}"
    units: list[Unit] = []
    before = count
    for kept in levels:
        gone = group.classes[count - before : count - kept]
        cuts = {
            (place.vertex, place.axis): frozenset(c for one in gone for c in one[i])
            for i, place in enumerate(group.places)
        }
        removal = Removal(channels=cuts)
        rest = alive(graph, removal)
        if reason := _spoilt(graph, rest):
            return [], reason
        saved = base - cost_of(graph, rest)
        if not saved.params and not saved.macs:
            return [], "removing them saves nothing"
        score = sum(group.scores[count - before : count - kept])
        size = 1 if group.kind == "heads" else wide
        units.append(
            Unit(
                name=f"{name}@{kept * wide}/{count * wide}",
                kind=group.kind,
                removal=removal,
                cost=saved,
                group=name,
                importance=score,
                counts=(before - kept, count),
                label=f"{kept * size} of {count * size}",
            )
        )
        before = kept
    return units, None


def _spoilt(graph: Graph, rest: Liveness) -> str | None:
    """Where an operator reads something in place of absent channels, or an output is lost."""
    if not rest.connected:
        return "without them an output is gone"
    for index, flow in rest.changed.items():
        for edge, want in zip(graph.inputs[index], flow.wants, strict=True):
            have = rest.states[graph.edges[edge].source]
            if want is None and flow.out is not None:
                return f"{graph.vertices[index].name} would lose an input"
            if want is not None and have is not None:
                for axis, keep in have.keeps:
                    wanted = want.keep(axis)
                    if wanted is None or any(
                        w and not k for w, k in zip(wanted, keep, strict=True)
                    ):
                        return f"{graph.vertices[index].name} needs them in full"
    return None
