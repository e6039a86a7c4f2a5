"""The order in which masks are visited, so that they share much and little is kept for it."""

from collections.abc import Iterable

from ...graph.graph import Graph, Mask, Unit


def visiting_order(graph: Graph, masks: Iterable[Mask]) -> list[Mask]:
    """The masks in the order of a trie over the units, in the order in which these take effect.

    Of two subtrees the smaller one comes first. What is kept at a branching is for the larger
    one, which is the last to need it; so no more than log2(masks) branchings are open at a time.
    """
    units = graph.units
    sequence = sorted(range(len(units)), key=lambda u: _place(graph, units[u]))
    stack, ordered = [(list(masks), 0)], []
    while stack:
        group, depth = stack.pop()
        while len(group) > 1 and depth < len(sequence):
            unit, depth = sequence[depth], depth + 1
            kept = [mask for mask in group if not mask.bits[unit]]
            removed = [mask for mask in group if mask.bits[unit]]
            group, later = sorted((removed, kept), key=len)
            if group:
                stack.append((later, depth))
            else:
                group = later
        ordered += group
    return ordered


def _place(graph: Graph, unit: Unit) -> tuple[int, bool]:
    """The first vertex that computes something else without the unit; branches before widths."""
    return min(graph.starts(unit.removal)), bool(unit.removal.channels)
