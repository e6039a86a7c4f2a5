"""What made-up studies belong to."""

from edgewise.values.identity import Identity


def belonging(graph: str = "g", weights: str = "w", objective: str = "o") -> Identity:
    """An identity of one line a part."""
    parts = {"graph": graph, "weights": weights, "objective": objective}
    return Identity.of("structure", {name: (f"{name}: {text}",) for name, text in parts.items()})
