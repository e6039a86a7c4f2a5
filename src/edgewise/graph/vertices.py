"""The operators of a network and the flows between them, as plain data."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

Shape = tuple[int, ...]
Follow = tuple[Literal["in", "out"], int] | None


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter (or buffer) that a vertex reads, by the first name the model gives it.

    `follows` says, for every dimension of the parameter, which axis of the vertex's first input
    ("in") or of its output ("out") it is tied to, or None where its size is independent of both:
    the first dimension of a convolution's weight follows ("out", 1), the second ("in", 1).
    `itemsize` is the bytes of an element.
    """

    name: str
    shape: Shape
    follows: tuple[Follow, ...]
    buffer: bool = False
    itemsize: int = 4


@dataclass(frozen=True, slots=True)
class Vertex:
    """One operator of the network, with the shape it gives for a single example.

    `shape` is None where the output is not one tensor (a tuple, a dict); `batched` lists the
    dimensions of `shape` that grow with the batch; `attrs` is what the operator's rule needs to
    know of the call, as plain data. The parameters of a `shared` vertex cannot be cut: they are
    read elsewhere too, or computed from others. `constant_macs` names the computations that only
    constants enter, and what they take a call.
    """

    name: str
    op: str
    target: str
    shape: Shape | None
    itemsize: int
    batched: tuple[int, ...]
    attrs: Mapping[str, Any]
    params: tuple[Parameter, ...]
    node: str
    module: str | None
    source: str
    shared: bool = False
    dtype: str = ""
    constant_macs: tuple[tuple[str, int], ...] = ()

    def channels(self, axis: int) -> int:
        """How many there are along an axis; a vertex of several results says it of its units."""
        sizes: Sequence[int] = self.attrs["units"] if self.shape is None else self.shape
        return sizes[axis]


@dataclass(frozen=True, slots=True)
class Edge:
    """The flow of one tensor from `source` into input number `slot` of `target` (indices)."""

    source: int
    target: int
    slot: int


def plain(vertex: Vertex, skip: set[str]) -> dict[str, Any]:
    """A vertex as JSON-ready data, without some of its fields and of its parameters' fields."""
    data = {k: v for k, v in asdict(vertex).items() if k not in skip}
    data["params"] = [{k: v for k, v in p.items() if k not in skip} for p in data["params"]]
    return data
