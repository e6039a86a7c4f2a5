"""Rules for what may go: what is kept, how much goes at most, what goes together.

Ties and what is kept change which units there are; shares and what must be left are limits, sums
over the units that go (`Graph.limits`), which samplers, searches and the solver keep.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import MaskError, RuleError
from .cost import full_count
from .graph import Graph, Mask, once
from .limits import Limit
from .places import inside, matched, scopes, taken
from .ties import tied, within

_ROUNDING = 1e-9  # of the sum of all weights, by which rounding may exceed a limit
Names = str | type | Sequence[str | type]
Sum = tuple[dict[int, float], float]  # by unit what it takes, and of how much


@dataclass(frozen=True)
class Rules:
    """Rules by what they are called in `restrict`."""

    keep: tuple[str | type, ...] = ()
    at_most: Mapping[str, float] = field(default_factory=dict)
    at_least: Mapping[str, int] = field(default_factory=dict)
    tie: tuple[str, ...] = ()
    alike: tuple[str, ...] = ()

    @classmethod
    def of(
        cls, keep: Names, at_most: Mapping[str, float] | None, at_least: Mapping[str, int] | None,
        tie: str | Sequence[str], alike: str | Sequence[str],
    ) -> Rules:  # fmt: skip
        """Rules of which one name may stand for a list of one, and None for no limits."""
        return cls(_names(keep), at_most or {}, at_least or {}, _names(tie), _names(alike))

    def __post_init__(self) -> None:
        for name, table in (("at_most", self.at_most), ("at_least", self.at_least)):
            if not isinstance(table, Mapping):
                raise RuleError(f'{name} has a number by KEY, as {{"heads": …}}; got {table!r}.')

    def also(self, more: Rules) -> Rules:
        """These rules and more; of two of the same key, the later one."""
        return Rules(
            (*self.keep, *more.keep),
            {**self.at_most, **more.at_most},
            {**self.at_least, **more.at_least},
            (*self.tie, *more.tie),
            (*self.alike, *more.alike),
        )

    def __str__(self) -> str:
        return ", ".join(text for text, _ in self.each())

    def each(self) -> Iterator[tuple[str, Rules]]:
        """Each single rule in words, and the rules without it."""
        for name in (f.name for f in fields(self)):
            rules = getattr(self, name)
            for key in rules:
                value = f"{{{key!r}: {rules[key]}}}" if isinstance(rules, Mapping) else _shown(key)
                rest: Any = tuple(other for other in rules if other != key)
                if isinstance(rules, Mapping):
                    rest = {other: rules[other] for other in rest}
                yield f"{name}={value}", replace(self, **{name: rest})


def _names(given: Any) -> tuple[Any, ...]:
    names = tuple(given) if isinstance(given, list | tuple) else (given,)
    if wrong := [name for name in names if not isinstance(name, str | type)]:
        raise RuleError(f"keep, tie and alike take paths, keep also classes; got {wrong[0]!r}.")
    return names


def _shown(key: str | type) -> str:
    return repr(key) if isinstance(key, str) else key.__name__


def restrict(
    graph: Graph,
    *,
    keep: Names = (),
    at_most: Mapping[str, float] | None = None,
    at_least: Mapping[str, int] | None = None,
    tie: str | Sequence[str] = (),
    alike: str | Sequence[str] = (),
) -> Graph:
    """The same graph with rules for what may go, beside those it has; of one KEY the last holds.

    A PATH is that of a module or how it ends, or a glob such as "layers.*", each part of which is
    matched by itself; a rule holds for each module that it matches. A KEY is a PATH, a kind of unit
    ("heads", "hidden", "channels", "layer", and "branch" or "edge", which are one), or KIND:PATH.
    ":heads" is a module called so.

    Args:
        graph: the traced graph.
        keep: paths, classes of modules, or their names: no unit that takes anything of these is
            offered.
        at_most: by KEY, the share that may go, from 0 to below 1. Of a PATH it is one of the
            module's parameters, those counted that each unit takes by itself; of a kind one of its
            units, or of heads or channels in all its widths there.
        at_least: by KEY, how many heads or channels of each width there stay; all, where there are
            fewer.
        tie: KEYs: all units within one matched module are one unit. What cannot go beside the rest
            (a skip beside its branch) is no longer offered.
        alike: KEYs: what has the same place in each of the matched modules is one unit.

    Returns:
        The graph. Its fingerprint changes where its units do, with `keep`, `tie` and `alike`.

    Raises:
        RuleError: a rule names nothing (suggests the nearest), contradicts another one, or
            nothing is left that may go.

    Examples:
        >>> ruled = ew.restrict(graph, keep="blocks.1", at_most={"edge": 0.5})
        >>> len(graph.units), len(ruled.units)
        (12, 8)
        >>> whole = ew.restrict(graph, tie="blocks.*")
        >>> whole.units[0].name, len(whole.units[0].tied)
        ('blocks.0', 3)
    """
    rules = Rules.of(keep, at_most, at_least, tie, alike)
    before, old = graph.ruled or (graph, Rules())
    chained = old.tie or old.alike  # whose units are those that the new rules speak of
    return ruled(graph, rules) if chained else ruled(before, old.also(rules))


def ruled(graph: Graph, rules: Rules) -> Graph:
    """The graph with some rules."""
    whole, members = tied(graph, rules.tie, rules.alike)
    stay = _kept(whole, rules.keep)
    units = tuple(unit for index, unit in enumerate(whole.units) if index not in stay)
    if not units and graph.units:
        raise RuleError(f"Nothing may go: {rules} keeps each of the {len(whole.units)} units.")
    limits = [*_carried(graph, whole, members), *_limits(graph, whole, members, rules)]
    offered = {unit.name for unit in units}
    found = tuple(_offered(limits, offered, stay.values()))
    made = replace(whole, units=units, limits=found, ruled=(graph, rules))
    alone = permitted(made, [made.mask([unit]) for unit in range(len(units))])
    if units and not alone.any():
        names = ", ".join(dict.fromkeys(limit.rule for limit in found))
        raise RuleError(
            f"Nothing may go: each of the {len(units)} units is more than {names} lets."
        )
    return made


def _kept(graph: Graph, keep: Sequence[str | type]) -> dict[int, str]:
    """The units that take something of what is kept, and the rule that keeps them."""
    takes, found = taken(graph) if keep else (), dict[int, str]()
    for rule in keep:
        there = frozenset().union(*(inside(graph, path) for path in matched(graph, rule)))
        for unit, one in enumerate(takes):
            if one.vertices & there:
                found.setdefault(unit, f"keep={_shown(rule)}")
    return found


def _offered(limits: Sequence[Limit], offered: set[str], kept_by: Iterable[str]) -> Iterator[Limit]:
    """The limits of the units that are offered."""
    left = set[str]()
    for limit in limits:
        weights = {name: weight for name, weight in limit.weights.items() if name in offered}
        if weights:
            left.add(limit.rule)
            yield replace(limit, weights=weights)
    for limit in limits:
        if limit.rule not in left:
            kept = ", ".join(dict.fromkeys(kept_by))
            raise RuleError(f"{limit.rule} contradicts {kept}, which keeps all that it limits.")


def _carried(graph: Graph, whole: Graph, members: Sequence[Sequence[int]]) -> Iterator[Limit]:
    """The limits that a graph has already, of units that were tied since."""
    for limit in graph.limits:
        sums = (sum(limit.weights.get(graph.units[m].name, 0.0) for m in own) for own in members)
        named = zip((unit.name for unit in whole.units), sums, strict=True)
        yield replace(limit, weights={name: weight for name, weight in named if weight})


def _limits(
    graph: Graph, whole: Graph, members: Sequence[Sequence[int]], rules: Rules
) -> Iterator[Limit]:
    for is_share, limits in ((True, rules.at_most), (False, rules.at_least)):
        for key, value in limits.items():
            rule = f"{'at_most' if is_share else 'at_least'}={{{key!r}: {value!r}}}"
            _check(rule, value, is_share)
            kind, paths = scopes(graph, key)
            each = (_sums(graph, whole, members, kind, path, is_share) for path in paths)
            sums = [(weights, total) for found in each for weights, total in found if weights]
            if not sums:
                raise RuleError(f"{rule} limits nothing: no unit that is offered takes any of it.")
            most = max(total for _, total in sums)
            if not is_share and most < value:
                raise RuleError(f"{rule} cannot be kept: the widest there has {most:g}.")
            for weights, total in sums:
                named = {whole.units[unit].name: weight for unit, weight in weights.items()}
                yield Limit(rule, named, value * total if is_share else max(total - value, 0))


def _check(rule: str, value: Any, is_share: bool) -> None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if is_share and not (number and 0 <= value < 1):
        raise RuleError(f"{rule}: a share is at least 0 and below 1.")
    if not is_share and not (number and value == int(value) and value >= 1):
        raise RuleError(f"{rule}: what is left is a whole number, at least 1.")


def _sums(
    graph: Graph, whole: Graph, members: Sequence[Sequence[int]], kind: str | None, path: str,
    is_share: bool,
) -> list[Sum]:  # fmt: skip
    """What units take of a module, and how much there is of it; once for each width if no share."""
    if kind in ("edge", "layer"):
        own = within(whole, kind, path)
        return [(dict.fromkeys(own, 1.0), len(own))]
    there = inside(whole, path)
    if kind is None and is_share:
        lost = (sum(one.params.get(v, 0) for v in there) for one in taken(whole))
        size = sum(full_count(whole, vertex).params for vertex in there)
        return [({unit: float(n) for unit, n in enumerate(lost) if n}, size)]
    widths = [
        _width(graph, whole, members, group)
        for group in graph.nested
        if kind in (None, graph.units[group[0]].kind)
        and not there.isdisjoint(graph.units[group[0]].removal.vertices)
    ]
    if not is_share:
        return widths
    total = Counter[int]()
    for weights, _ in widths:
        total.update(weights)
    return [(dict(total), sum(size for _, size in widths))]


def _width(
    graph: Graph, whole: Graph, members: Sequence[Sequence[int]], group: Sequence[int]
) -> Sum:
    """The heads or channels of a width that each unit takes: of its slices, or with all around."""
    producers, size = {*graph.units[group[0]].removal.vertices}, graph.units[group[0]].counts[1]
    found = {}
    for unit, (own, one) in enumerate(zip(members, taken(whole), strict=True)):
        slices = sum(graph.units[m].counts[0] for m in own if m in group)
        if count := size if producers <= one.dead else slices:
            found[unit] = float(count)
    return found, size


def permitted(graph: Graph, masks: Sequence[Mask]) -> NDArray[np.bool_]:
    """[n]: which masks break no limit."""
    if not graph.limits or not len(masks):
        return np.ones(len(masks), bool)
    weights, most = linear(graph)
    return np.asarray((graph.matrix(masks) @ weights.T <= most).all(1))


@once
def linear(graph: Graph) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """[limits, units] weights of units that go, each row's sum 1, and [limits] their most."""
    names = [unit.name for unit in graph.units]
    rows = [[limit.weights.get(name, 0.0) for name in names] for limit in graph.limits]
    weights = np.array(rows, float).reshape(len(rows), len(names))
    sizes = np.maximum(weights.sum(1), 1e-12)
    most = np.array([limit.most for limit in graph.limits]) / sizes + _ROUNDING
    return weights / sizes[:, None], most


def require_permitted(graph: Graph, mask: Mask) -> None:
    """Raise MaskError if a mask breaks a limit; names the rules."""
    if not permitted(graph, [mask])[0]:
        weights, most = linear(graph)
        broken = np.flatnonzero(weights @ np.array(mask.bits, float) > most).tolist()
        names = ", ".join(dict.fromkeys(graph.limits[i].rule for i in broken))
        raise MaskError(f"The mask removes more than {names} lets. Keep some of its units.")


def forbidding(graph: Graph, allows: Callable[[Graph], bool]) -> str:
    """Without which rules a graph has masks, in words; nothing where rules are not the reason."""
    single = [text for text, other in _without_each(graph) if allows(other)]
    if single:
        return f" Forbidden by {'; also by '.join(single)}: without it there are masks."
    free = graph
    while free.ruled is not None:
        free = free.ruled[0]
    if free is not graph and allows(free):
        return f" Forbidden by {words(graph)} together: without them there are masks."
    return ""


def words(graph: Graph) -> str:
    """All rules of a graph."""
    if graph.ruled is None:
        return ""
    before, rules = graph.ruled
    return ", ".join(filter(None, (words(before), str(rules))))


def _without_each(graph: Graph) -> Iterator[tuple[str, Graph]]:
    """Each rule of a graph in words, and the graph without it, where the others can do without."""
    before, rules = graph.ruled or (graph, Rules())
    for text, rest in rules.each():
        with suppress(RuleError):
            yield text, ruled(before, rest)
    for text, other in _without_each(before) if graph.ruled else ():
        with suppress(RuleError):
            yield text, ruled(other, rules)
