"""What a mask removes, and what a network takes."""

from __future__ import annotations

from dataclasses import dataclass
from math import nan
from typing import Literal

from .cards import cost_card
from .removal import Removal

UnitKind = Literal["edge", "layer", "channels", "hidden", "heads"]


@dataclass(frozen=True, slots=True)
class Cost:
    """What a network takes for one example.

    Args:
        units: removable units that are alive.
        params: parameter elements.
        macs: multiply-accumulates of convolutions, linear maps, matrix products and attention.
        activation_bytes: bytes of all the tensors that operators give, views not counted.
        weight_bytes: bytes of the parameters; buffers, such as a batch norm's statistics, are not
            counted.
        seconds: for a whole batch, as a latency table predicts; None where none was asked.

    Examples:
        >>> saved = ew.cost(graph) - ew.cost(graph, graph.mask([0]))
        >>> saved.params == graph.units[0].cost.params
        True
    """

    units: int
    params: int
    macs: int
    activation_bytes: int
    weight_bytes: int = 0
    seconds: float | None = None

    def _repr_html_(self) -> str:
        return cost_card(self)

    @property
    def latency(self) -> float:
        """`seconds` under the name that a budget has for it; not a number where it is unknown."""
        return nan if self.seconds is None else self.seconds

    def __sub__(self, other: Cost) -> Cost:
        names = ("units", "params", "macs", "activation_bytes", "weight_bytes")
        less = {name: getattr(self, name) - getattr(other, name) for name in names}
        known = self.seconds is not None and other.seconds is not None
        return Cost(**less, seconds=self.latency - other.latency if known else None)


@dataclass(frozen=True, slots=True)
class Unit:
    """The smallest thing a mask removes.

    `removal` is what goes with it, and `kind` what people call that: "edge", "layer" (bypassed by
    identity), or a width, "channels", "hidden" or "heads". Widths of one `group` are nested: they
    are removed in their order, the least important first, `importance` being what the channels of
    one add up to, `counts` how many heads or channels it takes of how many. `cost` is what removing
    this unit alone saves. `name` identifies it, in files too; `label` is what a person would say,
    and serves wherever a name does; `block` is the label of the block that it belongs to. A unit
    that a rule ties has the names of those it is made of in `tied`.

    Examples:
        >>> unit = graph.units[0]
        >>> unit.name, unit.kind, unit.cost.params
        ('blocks.0.first.0..blocks.0.norm', 'edge', 1192)
    """

    name: str
    kind: UnitKind
    removal: Removal
    cost: Cost
    group: str = ""
    importance: float = 0.0
    label: str = ""
    block: str = ""
    counts: tuple[int, int] = (1, 1)
    tied: tuple[str, ...] = ()

    @property
    def members(self) -> tuple[int, ...]:
        """Indices of the edges that go, then of the vertices that are bypassed or narrowed."""
        return (*sorted(self.removal.edges), *self.removal.vertices)


@dataclass(frozen=True, slots=True)
class Block:
    """A part of a network: a module with siblings like it, or what lies between two such modules.

    Args:
        path: of the module; empty between modules.
        label: the path without what goes without saying, or the first and the last layer.
        vertices: their indices.
        params: parameter elements that they read.
        macs: multiply-accumulates for one example.
    """

    path: str
    label: str
    vertices: tuple[int, ...]
    params: int
    macs: int
