"""What a mask costs at least, as rows: exact but for what few operators read in several widths.

An operator costs nothing unless it runs; else what its rule counts is a product of the numbers of
live channels along some axes. One such factor is a sum over channels. Of two, every live channel
of the one pays for the live channels of the other. Of more, what is lost is at most the sum of what
each loses alone.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from ...graph.cost import full_macs, read_by_several
from ...graph.graph import Graph, Shape, Slice, Vertex
from ...graph.operators import macs as count
from ...graph.operators.absence import Shapes
from ...graph.operators.remains import WHOLE, Remains
from ...graph.operators.table import TABLE
from ...graph.times import OperatorTimes
from .liveness import Remaining, Removals
from .rows import TRUE, Circuit, Line, Literal

Term = tuple[float, list[Line]]  # a coefficient, times the live channels of each line


@dataclass(frozen=True)
class Priced:
    """A cost that is at least constant + Σ terms[variable] · variable."""

    constant: float
    terms: Mapping[int, float]


class Prices:
    """Lower bounds of what remains, for the quantities of a budget.

    Args:
        graph: the traced graph.
        removed: what the units remove.
        alive: what remains.
        circuit: of lower bounds, of which `alive` is made.
        times: of the operators, which latency needs.
    """

    def __init__(
        self, graph: Graph, removed: Removals, alive: Remaining, circuit: Circuit,
        times: OperatorTimes | None = None,
    ) -> None:  # fmt: skip
        self.graph, self.removed, self.alive, self.circuit = graph, removed, alive, circuit
        self.times = times
        self._products: dict[tuple[Literal, tuple[tuple[Literal, int], ...]], int] = {}

    def of(self, quantity: str) -> Priced:
        """The least that a mask leaves of what `Cost` counts, or of seconds of "latency"."""
        if quantity == "latency":
            return self._latency()
        sums: dict[Literal, float] = defaultdict(float)
        if quantity == "units":
            for unit in self._live_units():
                sums[unit] += 1.0
            return self._written(sums)
        for index, vertex in enumerate(self.graph.vertices):
            runs = self.alive.runs[index]
            if runs is not None:
                for coefficient, lines in self._counted(quantity, index, vertex):
                    self._add(sums, coefficient, runs, lines)
        for size, readers in read_by_several(self.graph, quantity):
            sums[self.circuit.any(self.alive.runs[v] for v in readers)] += size
        return self._written(sums)

    def _latency(self) -> Priced:
        """The predicted seconds: linear in what operators do, with no negative part."""
        assert self.times is not None
        sums: dict[Literal, float] = defaultdict(float)
        for index, runs in enumerate(self.alive.runs):
            if runs is not None:
                for where, coefficient, lines in self._timed(self.times, index, runs):
                    self._add(sums, self.times.slope * coefficient, where, lines)
        found = self._written(sums)
        rest = self.times.unpruned - self.times.slope * float(self.times.parts.sum())
        return Priced(rest + found.constant, found.terms)

    def _timed(
        self, times: OperatorTimes, index: int, runs: Literal
    ) -> Iterator[tuple[Literal, float, list[Line]]]:
        """The seconds of an operator as terms, and where each of them is spent."""
        vertex, out = self.graph.vertices[index], self.alive.outs[index]
        wants = self.alive.wants[index]
        base, *parts = times.parts[index].tolist()
        pairs = list(zip(parts, times.full[index], strict=True))
        macs, read, given = (part / full if full else 0.0 for part, full in pairs)
        yield runs, base + sum(part for part, full in pairs if not full), []
        if macs:
            whole, lines = self._macs(index, out, wants)
            yield runs, macs * whole, lines
        if read:
            for want, shape in zip(wants, self.graph.input_shapes[index], strict=True):
                if shape is not None and (where := self.circuit.all(runs, want.here)) is not None:
                    yield where, *_of_shape(shape, want, read)
        if given and vertex.shape is not None:
            yield runs, *_of_shape(vertex.shape, out, given)

    def _written(self, sums: Mapping[Literal, float]) -> Priced:
        terms: dict[int, float] = defaultdict(float)
        for literal, value in sums.items():
            if literal:
                terms[self.circuit.variable(literal)] += value
        return Priced(sums.get(TRUE, 0.0), dict(terms))

    def _live_units(self) -> Iterator[Literal]:
        alive, circuit = self.alive, self.circuit
        for unit in self.graph.units:
            if unit.kind == "edge":
                yield circuit.any(alive.wanted[e] for e in unit.members)
            elif not unit.slices:
                layers = self.removed.layers
                yield circuit.any(circuit.all(alive.live[v], layers[v]) for v in unit.members)
            else:
                cuts = zip(unit.members, unit.slices, strict=True)
                channels = [one for v, cut in cuts for one in self._live(v, cut)]
                yield circuit.any(channels)

    def _live(self, vertex: int, cut: Slice) -> Iterator[Literal]:
        """That a channel of a slice lives, for each that may."""
        line = self.alive.outs[vertex].axes[cut.axis]
        for literal in {line[channel] for channel in cut.channels}:
            yield self.circuit.all(self.alive.live[vertex], literal)

    def _counted(self, quantity: str, index: int, vertex: Vertex) -> Iterator[Term]:
        rule, out, wants = TABLE.rules[vertex.op], self.alive.outs[index], self.alive.wants[index]
        if quantity in ("params", "weight_bytes"):
            states = {"in": wants[0] if wants else WHOLE, "out": out}
            for parameter in vertex.params:
                if not parameter.buffer and len(self.graph.readers[parameter.name]) == 1:
                    follows = [f and states[f[0]].axes.get(f[1]) for f in parameter.follows]
                    size, lines = _term(parameter.shape, follows)
                    yield size * (parameter.itemsize if quantity == "weight_bytes" else 1), lines
        elif quantity == "macs" and rule.macs is not count.no_macs:
            yield self._macs(index, out, wants)
        elif quantity == "activation_bytes":
            shape = None if rule.view or vertex.op in ("input", "output") else vertex.shape
            if shape is not None:
                yield _of_shape(shape, out, vertex.itemsize)

    def _macs(self, index: int, out: Remains, wants: Sequence[Remains]) -> Term:
        vertex, shapes = self.graph.vertices[index], self.graph.input_shapes[index]
        lines = [line for state in (out, *wants) for line in state.axes.values()]
        if lines:
            found = _known_macs(vertex, shapes, out, wants)
            if found is not None:
                return found
        whole = self.circuit.all(*(one for line in lines for one in set(line)))
        return float(full_macs(self.graph, index)), [(whole,)]

    def _add(
        self, sums: dict[Literal, float], coefficient: float, runs: Literal, lines: Sequence[Line]
    ) -> None:
        """Add coefficient · Π (live channels of each line), where `runs` holds, to the sums."""
        counts: list[dict[Literal, int]] = []
        for line in lines:
            number: Counter[Literal] = Counter()
            for literal, times in Counter(line).items():
                number[self.circuit.all(runs, literal)] += times
            if set(number) == {runs}:
                coefficient *= number[runs]
            else:
                counts.append(number)
        counts.sort(key=len)
        if not counts:
            sums[runs] += coefficient
        elif len(counts) == 1:
            for literal, times in counts[0].items():
                sums[literal] += coefficient * times
        elif len(counts) == 2:
            self._add_product(sums, coefficient, runs, counts[0], counts[1])
        else:
            self._add_bound(sums, coefficient, runs, counts)

    def _add_product(
        self, sums: dict[Literal, float], coefficient: float, runs: Literal,
        fewer: Mapping[Literal, int], more: Mapping[Literal, int],
    ) -> None:  # fmt: skip
        for first, times in fewer.items():
            if first == runs:
                for second, others in more.items():
                    sums[second] += coefficient * times * others
            elif first is not None:
                product = frozenset((self._product(first, more),))
                sums[product] += coefficient * times * sum(more.values())

    def _product(self, first: Literal, line: Mapping[Literal, int]) -> int:
        """The share of a line that lives where `first` does: a variable."""
        key = (first, tuple(line.items()))
        if key not in self._products:
            assert first is not None
            total, rows = sum(line.values()), self.circuit.rows
            share = self._products[key] = rows.variable()
            terms: dict[int, float] = defaultdict(float)
            terms[share] += 1.0
            for literal, times in line.items():
                if literal is not None:
                    terms[self.circuit.variable(literal)] -= times / total
            terms[self.circuit.variable(first)] -= 1.0
            rows.at_least(terms, -1.0)
        return self._products[key]

    def _add_bound(
        self, sums: dict[Literal, float], coefficient: float, runs: Literal,
        counts: Sequence[Mapping[Literal, int]],
    ) -> None:  # fmt: skip
        """The whole less what each line loses alone, and nothing where that is negative."""
        rows = self.circuit.rows
        left = rows.variable()
        terms: dict[int, float] = defaultdict(float)
        terms[left] += 1.0
        assert runs is not None
        terms[self.circuit.variable(runs)] += len(counts) - 1.0
        for number in counts:
            for literal, times in number.items():
                if literal is not None:
                    terms[self.circuit.variable(literal)] -= times / sum(number.values())
        rows.at_least(terms, 0.0)
        sums[frozenset((left,))] += coefficient * math.prod(sum(n.values()) for n in counts)


def _term(shape: Shape, lines: Sequence[Line | None], coefficient: float = 1.0) -> Term:
    """A coefficient times the live channels of every axis, of which `lines` names those that go."""
    pairs = list(zip(shape, lines, strict=True))
    whole = math.prod(size for size, line in pairs if line is None)
    return coefficient * whole, [line for _, line in pairs if line is not None]


def _of_shape(shape: Shape, state: Remains, coefficient: float = 1.0) -> Term:
    return _term(shape, [state.axes.get(a) for a in range(len(shape))], coefficient)


def _convolved(
    vertex: Vertex, whole: float, lines: list[Line], channels: int, other: Remains
) -> Term:
    """The elements of one side of a convolution, times its kernel and the channels of the other."""
    groups, line = int(vertex.attrs["groups"]), other.axes.get(1)
    whole *= int(vertex.attrs["kernel"])
    if groups == 1 and line is not None:
        return whole, [*lines, line]
    return whole * channels / groups, lines


def _known_macs(
    vertex: Vertex, shapes: Shapes, out: Remains, wants: Sequence[Remains]
) -> Term | None:
    """Multiply-accumulates as `graph/operators/macs.py` counts them; None for other functions."""
    rule = TABLE.rules[vertex.op]
    if vertex.shape is None or not shapes or shapes[0] is None:
        return None
    if rule.macs is count.conv_macs and len(shapes) == 1:
        whole, lines = _of_shape(vertex.shape, out)
        return _convolved(vertex, whole, lines, shapes[0][1], wants[0])
    if rule.macs is count.conv_transpose_macs and len(shapes) == 1:
        whole, lines = _of_shape(shapes[0], wants[0])
        return _convolved(vertex, whole, lines, vertex.shape[1], out)
    if rule.macs is count.linear_macs:
        whole, lines = _of_shape(vertex.shape, out)
        last = len(shapes[0]) - 1
        line = wants[0].axes.get(last)
        return (whole * shapes[0][last], lines) if line is None else (whole, [*lines, line])
    if rule.macs is count.bilinear_macs:
        whole, lines = _of_shape(vertex.shape, out)
        summed = [
            line
            for names, state in zip(vertex.attrs["labels"], wants, strict=True)
            for axis, line in state.axes.items()
            if names[axis] == "k"
        ]
        inner = int(vertex.attrs["inner"])
        return (whole, [*lines, summed[-1]]) if summed else (whole * inner, lines)
    if rule.macs is count.attention_macs and len(shapes) > 2 and shapes[1] is not None:
        axes, last = wants[0].axes, len(shapes[0]) - 1
        if last not in axes and len(vertex.shape) - 1 not in out.axes:
            whole, lines = _of_shape(shapes[0][:-1], wants[0])
            return whole * shapes[1][-2] * (shapes[0][-1] + vertex.shape[-1]), lines
    return None
