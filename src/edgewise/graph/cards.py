"""What consoles and notebooks show of a graph, a mask and a cost."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from ..values.markup import Markup, card

LISTED = 12  # units that a mask names


def mask_line(bits: Sequence[bool]) -> str:
    """How many units are removed, and the first of them by index."""
    found = [str(i) for i, bit in enumerate(bits) if bit]
    more = [f"and {len(found) - LISTED} more"] if len(found) > LISTED else []
    listed = f": {', '.join(found[:LISTED] + more)}" if found else ""
    return f"{len(found)} of {len(bits)} units removed{listed}"


def graph_card(graph: Any) -> Markup:
    """The size of a Graph and what it offers."""
    kinds = Counter(unit.kind for unit in graph.units)
    return card(
        "Graph",
        {
            "Operators": f"{len(graph.vertices)}, joined by {len(graph.edges)} edges",
            "Units": ", ".join(f"{count} {kind}" for kind, count in kinds.items()) or "none",
            "Read by": graph.frontend,
            "Taken from the example": "; ".join(graph.fixed),
            "Fingerprint": graph.fingerprint[:12],
        },
    )


def cost_card(cost: Any) -> Markup:
    """All that a Cost counts."""
    return card(
        "Cost of one example",
        {
            "MACs": f"{cost.macs:,}",
            "Parameters": f"{cost.params:,}",
            "Bytes of weights": f"{cost.weight_bytes:,}",
            "Bytes of activations": f"{cost.activation_bytes:,}",
            "Units": cost.units,
            "Seconds a batch": None if cost.seconds is None else f"{cost.seconds:.4g}",
        },
    )
