"""The network as plain data: vertices, edges, the units that a mask removes, and the mask."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from functools import cached_property, wraps
from itertools import compress
from textwrap import wrap
from typing import Any, TypeVar

import numpy as np

from ..errors import MaskError
from ..values.markup import card
from ..values.spelling import close, fitting
from .cards import graph_card, mask_line
from .limits import Limit
from .removal import Removal
from .summary import COLUMNS, counted, table
from .unit import Block
from .unit import Cost as Cost
from .unit import Unit as Unit
from .unit import UnitKind as UnitKind
from .vertices import Edge, Shape, Vertex, plain

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Mask:
    """Which units are removed: one bit a unit, 1 = removed; bound to a graph by its fingerprint.

    Examples:
        >>> mask = graph.mask([0]).with_removed(2)
        >>> mask.removed
        (0, 2)
        >>> mask == graph.mask(bits=str(mask))
        True
    """

    bits: tuple[bool, ...]
    fingerprint: str

    def __len__(self) -> int:
        return len(self.bits)

    def __iter__(self) -> Iterator[bool]:
        return iter(self.bits)

    def __str__(self) -> str:
        return "".join("1" if bit else "0" for bit in self.bits)

    def __repr__(self) -> str:
        return f"Mask({mask_line(self.bits)})"

    def _repr_html_(self) -> str:
        return card("Mask", {"Removed": mask_line(self.bits), "Graph": self.fingerprint[:12]})

    @property
    def removed(self) -> tuple[int, ...]:
        """Indices of the removed units."""
        return tuple(i for i, bit in enumerate(self.bits) if bit)

    def with_removed(self, *units: int) -> Mask:
        """The mask that removes these units too."""
        return self._with(units, True)

    def flipped(self, unit: int) -> Mask:
        """The mask with one unit put back if it is removed, else removed."""
        return self.with_kept(unit) if self.bits[unit] else self.with_removed(unit)

    def with_kept(self, *units: int) -> Mask:
        """The mask that keeps these units."""
        return self._with(units, False)

    def _with(self, units: Iterable[int], removed: bool) -> Mask:
        bits = [*self.bits]
        for unit in units:
            bits[unit] = removed
        return Mask(tuple(bits), self.fingerprint)


@dataclass(frozen=True, eq=False)
class Graph:
    """The dataflow graph of a network, with the units that a mask can remove.

    Everything but `program` (what the front end keeps to run and rewrite the network) is plain
    data, and `fingerprint` identifies it. Vertices are in topological order, edges sorted by
    (target, slot). `refused` says why widths cannot be removed, by the vertex that produces them;
    `settings` what each operator is given besides data and weights; `blocks` how a person divides
    it; `rest` what the model around a part costs. No mask may break a limit of `limits`; `ruled` is
    the graph before its rules, and them. Two graphs are equal when their fingerprints are.

    Examples:
        >>> graph = ew.trace(model, (x,), granularity="edge")
        >>> len(graph.units), graph.frontend
        (6, 'torch.fx')
        >>> graph.mask(["blocks.0.first.0..blocks.0.norm"]).removed
        (0,)
    """

    vertices: tuple[Vertex, ...]
    edges: tuple[Edge, ...]
    units: tuple[Unit, ...]
    granularity: tuple[str, ...]
    frontend: str
    program: Any = field(default=None, repr=False)
    refused: Mapping[str, str] = field(default_factory=dict, repr=False)
    settings: tuple[str, ...] = field(default=(), repr=False)
    blocks: tuple[Block, ...] = field(default=(), repr=False)
    limits: tuple[Limit, ...] = field(default=(), repr=False)
    ruled: tuple[Graph, Any] | None = field(default=None, repr=False)
    rest: Cost = field(default=Cost(0, 0, 0, 0), repr=False)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Graph) and other.fingerprint == self.fingerprint

    def __hash__(self) -> int:
        return hash(self.fingerprint)

    def __deepcopy__(self, memo: dict[int, Any]) -> Graph:
        return self  # a value: nothing changes it, so a copy would only cost memory

    def __repr__(self) -> str:
        return (
            f"Graph({len(self.vertices)} vertices, {len(self.edges)} edges, "
            f"{len(self.units)} units, {self.fingerprint[:12]})"
        )

    def _repr_html_(self) -> str:
        return graph_card(self)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of vertices, edges, units and settings: the same for the same architecture.

        The weights, their precision, the batch size of the traced example and the place of the
        source code do not enter.
        """
        return hashlib.sha256("\n".join((self.structure, *self.settings)).encode()).hexdigest()

    @cached_property
    def structure(self) -> str:
        """SHA-256 of vertices, edges and units alone, by which masks are read."""
        blob = json.dumps(self.to_dict(), sort_keys=True, default=list)
        return hashlib.sha256(blob.encode()).hexdigest()

    def to_dict(self) -> dict[str, Any]:
        """Vertices, edges and units as JSON-ready data."""
        skip = {"source", "node", "itemsize", "dtype"}
        return {
            "vertices": [plain(vertex, skip) for vertex in self.vertices],
            "edges": [[e.source, e.target, e.slot] for e in self.edges],
            "units": [[u.name, u.kind, list(u.members), *u.removal.cuts] for u in self.units],
        }

    @property
    def fixed(self) -> tuple[str, ...]:
        """What tracing took from the example, in words: arguments, a batch size, other sizes.

        A pruned network that is given other sizes there refuses them.
        """
        return () if self.program is None else tuple(self.program.told)

    def removal(self, mask: Iterable[bool]) -> Removal:
        """What a mask takes away: all that its units do."""
        return Removal.union(unit.removal for unit in compress(self.units, mask))

    def starts(self, removal: Removal) -> set[int]:
        """The vertices that a removal changes first: they lack an input, or give something else."""
        return {*(self.edges[e].target for e in removal.edges), *removal.vertices}

    @cached_property
    def inputs(self) -> tuple[tuple[int, ...], ...]:
        """For every vertex, the indices of its incoming edges in slot order."""
        return self._adjacent(lambda edge: edge.target)

    @cached_property
    def consumers(self) -> tuple[tuple[int, ...], ...]:
        """For every vertex, the indices of its outgoing edges."""
        return self._adjacent(lambda edge: edge.source)

    def _adjacent(self, end: Callable[[Edge], int]) -> tuple[tuple[int, ...], ...]:
        lists: list[list[int]] = [[] for _ in self.vertices]
        for index, edge in enumerate(self.edges):
            lists[end(edge)].append(index)
        return tuple(map(tuple, lists))

    @cached_property
    def input_shapes(self) -> tuple[tuple[Shape | None, ...], ...]:
        """For every vertex, the full shapes of its inputs by slot."""
        return tuple(
            tuple(self.vertices[self.edges[e].source].shape for e in edges) for edges in self.inputs
        )

    @cached_property
    def dead_ends(self) -> tuple[int, ...]:
        """The vertices that nothing reads, the model's outputs aside."""
        return tuple(
            index
            for index, edges in enumerate(self.consumers)
            if not edges and self.vertices[index].op != "output"
        )

    @cached_property
    def readers(self) -> dict[str, tuple[int, ...]]:
        """For every parameter and buffer, by name, the vertices that read it."""
        found: dict[str, dict[int, None]] = {}
        for index, vertex in enumerate(self.vertices):
            for parameter in vertex.params:
                found.setdefault(parameter.name, {})[index] = None
        return {name: tuple(vertices) for name, vertices in found.items()}

    @cached_property
    def derived(self) -> dict[Any, Any]:
        """What upper layers derive from the graph alone, kept with it to be derived only once."""
        return {}

    @cached_property
    def unit_index(self) -> dict[str, int]:
        """Unit name → index, and label → index."""
        labels = {unit.label: i for i, unit in enumerate(self.units) if unit.label}
        return labels | {unit.name: i for i, unit in enumerate(self.units)}

    @cached_property
    def nested(self) -> tuple[tuple[int, ...], ...]:
        """The widths of each group, by index, in the order in which they are removed."""
        groups: dict[str, list[int]] = {}
        for index, unit in enumerate(self.units):
            if unit.group:
                groups.setdefault(unit.group, []).append(index)
        return tuple(map(tuple, groups.values()))

    @cached_property
    def group_of(self) -> dict[int, tuple[int, ...]]:
        """For every width, the widths of its group in the order of their removal."""
        return {unit: group for group in self.nested for unit in group}

    def nest(self, mask: Mask) -> Mask:
        """The mask that removes as many widths of each group, the least important ones."""
        bits = list(mask.bits)
        for group in self.nested:
            count = sum(bits[unit] for unit in group)
            for rank, unit in enumerate(group):
                bits[unit] = rank < count
        return replace(mask, bits=tuple(bits))

    @property
    def empty(self) -> Mask:
        """The mask that removes nothing."""
        return Mask((False,) * len(self.units), self.fingerprint)

    def mask(self, removed: Iterable[int | str] = (), bits: Iterable[Any] | None = None) -> Mask:
        """A mask of this graph.

        Args:
            removed: indices, names or labels of the units to remove.
            bits: alternatively one value a unit (numbers, bools or a string of 0 and 1).

        Raises:
            MaskError: unknown unit, bits in place of indices, or the wrong number of bits.
        """
        if bits is not None:
            return self._mask_of_bits(bits)
        return self.empty.with_removed(*map(self._index_of, removed))

    def _mask_of_bits(self, bits: Iterable[Any]) -> Mask:
        listed = list(bits)
        if any(bit not in (0, 1, "0", "1") for bit in listed):
            raise MaskError("The bits of a mask are 0 or 1 (1 = removed), as numbers or as text.")
        values = tuple(bool(int(bit)) for bit in listed)
        if len(values) != len(self.units):
            raise MaskError(
                f"A mask of this graph has one bit a unit, {len(self.units)} in all; got "
                f"{len(values)}. `graph.units` lists them in order."
            )
        return Mask(values, self.fingerprint)

    def _index_of(self, unit: int | str) -> int:
        if isinstance(unit, str):
            if unit not in self.unit_index:
                near = close(unit, self.unit_index)
                raise MaskError(f"No unit is called {unit!r}.{near} `graph.units` lists them all.")
            return self.unit_index[unit]
        if isinstance(unit, bool | np.bool_) or not isinstance(unit, int | np.integer):
            raise MaskError(
                f"A unit is named by its index or its name, got {unit!r}. To pass one value a "
                "unit, 1 = removed, write graph.mask(bits=...)."
            )
        if not 0 <= unit < len(self.units):
            raise MaskError(f"Unit {unit} does not exist: there are {len(self.units)} units.")
        return int(unit)

    def check(self, mask: Mask) -> None:
        """Raise MaskError unless the mask belongs to this graph."""
        if len(mask.bits) != len(self.units):
            raise MaskError(
                f"The mask has {len(mask.bits)} bits, the graph {len(self.units)} units."
            )
        if mask.fingerprint != self.fingerprint:
            raise MaskError(
                f"The mask belongs to graph {mask.fingerprint[:12]}, not to this one "
                f"({self.fingerprint[:12]}). Build it with graph.mask(...) of the same model, "
                "granularity and unit selection."
            )

    def select(self, keep: Callable[[Unit], bool] | Iterable[str]) -> Graph:
        """The same graph offering fewer units.

        Args:
            keep: a function that is true of them, or globs on their names and labels.

        Raises:
            MaskError: a glob matches no unit.

        Examples:
            >>> len(graph.select(lambda unit: unit.kind == "edge").units)
            6
            >>> [unit.label for unit in graph.select(["* branch"]).units]
            ['blocks.0 branch', 'blocks.1 branch', 'blocks.2 branch']
        """
        if not callable(keep):
            kept = {unit.name for glob in keep for unit in self.named(glob)}
            keep = lambda unit: unit.name in kept  # noqa: E731
        ruled = self.ruled and (self.ruled[0].select(keep), self.ruled[1])
        return replace(self, units=tuple(filter(keep, self.units)), ruled=ruled)

    def named(self, glob: str) -> tuple[Unit, ...]:
        """The units whose name or label matches a glob.

        Raises:
            MaskError: none does; suggests the nearest.
        """
        found = tuple(
            u for u in self.units if fnmatchcase(u.name, glob) or fnmatchcase(u.label, glob)
        )
        if not found:
            near = close(glob, self.unit_index)
            raise MaskError(f"{glob!r} matches no unit.{near} `graph.units` lists them all.")
        return found

    def matrix(self, masks: Iterable[Mask]) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Masks as an array [len(masks), len(units)] of 0.0 and 1.0 (1 = removed)."""
        if (known := getattr(masks, "rows", None)) is not None:
            return np.asarray(known)
        rows = [bytes(mask.bits) for mask in masks]  # a byte a bit, many times faster than lists
        bits = np.frombuffer(b"".join(rows), np.uint8).reshape(len(rows), len(self.units))
        return bits.astype(np.float64)

    def summary(self, width: int | None = None, lines: int | None = 40) -> str:
        """The graph's size, its blocks and its units as text.

        A row a block: its units by kind, what it costs, and its share of the MACs. Units follow
        with what each saves alone, where all of them fit into so many `lines` (None: any number);
        where the blocks do not fit either, those alike share a row. Within `width` columns long
        labels lose their middle.
        """
        fixed = "; ".join(text.replace(" ", "\N{NO-BREAK SPACE}") for text in self.fixed)
        taken = wrap(f"taken from the example: {fixed}", width or 80, max_lines=4, placeholder=" …")
        head = [
            f"{len(self.vertices)} vertices, {len(self.edges)} edges, {len(self.units)} units "
            f"({counted(self.units) or 'none'})",
            f"front end: {self.frontend}; fingerprint {self.fingerprint[:16]}",
            *(line.replace("\N{NO-BREAK SPACE}", " ") for line in taken if fixed),
            "",
        ]
        rows = table(self.blocks, self.units, lines and lines - len(head) - 1)
        cells = [COLUMNS, *(row.cells for row in rows)]
        wide = [max(map(len, column)) for column in zip(*cells, strict=True)]
        if width is not None:
            wide[0] = max(min(wide[0], width - sum(wide[1:]) - 2 * len(wide) + 2), 16)
        for first, second, *others in cells:
            left = f"{fitting(first, wide[0]):<{wide[0]}}  {second:<{wide[1]}}"
            right = (f"{cell:>{room}}" for cell, room in zip(others, wide[2:], strict=True))
            head.append("  ".join((left, *right)))
        return "\n".join(head)


def once(make: Callable[[Graph], T]) -> Callable[[Graph], T]:
    """What a function makes of a graph alone, kept with the graph to be made only once."""

    @wraps(make)
    def kept(graph: Graph) -> T:
        if make not in graph.derived:
            graph.derived[make] = make(graph)
        found: T = graph.derived[make]
        return found

    return kept
