"""What a mask costs at least, as rows: exact but for what few operators read in several widths.

An operator costs nothing unless it runs; else what its rule counts is a product of the numbers of
live channels along some axes. One such factor is a sum over channels. Of two, every live channel
of the one pays for the live channels of the other. Of more, what is lost is at most the sum of what
each loses alone.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from ...graph.cost import full_macs, read_by_several
from ...graph.graph import Graph
from ...graph.operators.macs import Macs, Term, of_shape, term
from ...graph.operators.remains import WHOLE, Remains
from ...graph.operators.table import TABLE
from ...graph.times import OperatorTimes
from ...graph.vertices import Vertex
from .liveness import Remaining, Removals
from .rows import TRUE, Circuit, Literal


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
        sums[TRUE] += getattr(self.graph.rest, quantity)
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
    ) -> Iterator[tuple[Literal, float, Sequence[Sequence[Literal]]]]:
        """The seconds of an operator as terms, and where each of them is spent."""
        vertex, out = self.graph.vertices[index], self.alive.outs[index]
        wants = self.alive.wants[index]
        base, *parts = times.parts[index].tolist()
        pairs = list(zip(parts, times.full[index], strict=True))
        macs, read, given = (part / full if full else 0.0 for part, full in pairs)
        yield runs, base + sum(part for part, full in pairs if not full), []
        if macs:
            for whole, lines in self._macs(index, out, wants):
                yield runs, macs * whole, lines
        if read:
            for want, shape in zip(wants, self.graph.input_shapes[index], strict=True):
                if shape is not None and (where := self.circuit.all(runs, want.here)) is not None:
                    yield where, *of_shape(shape, want, read)
        if given and vertex.shape is not None:
            yield runs, *of_shape(vertex.shape, out, given)

    def _written(self, sums: Mapping[Literal, float]) -> Priced:
        terms: dict[int, float] = defaultdict(float)
        for literal, value in sums.items():
            if literal:
                terms[self.circuit.variable(literal)] += value
        return Priced(sums.get(TRUE, 0.0), dict(terms))

    def _live_units(self) -> Iterator[Literal]:
        alive, circuit = self.alive, self.circuit
        for unit in self.graph.units:
            gone = unit.removal
            edges = [alive.wanted[e] for e in sorted(gone.edges)]
            layers = [circuit.all(alive.live[v], self.removed.layers[v]) for v in gone.layers]
            channels = [one for cut in gone.channels.items() for one in self._live(*cut)]
            yield circuit.any([*edges, *layers, *channels])

    def _live(self, place: tuple[int, int], cut: Iterable[int]) -> Iterator[Literal]:
        """That one of some channels lives, for each that may."""
        vertex, axis = place
        line = self.alive.outs[vertex].axes[axis]
        for literal in {line[channel] for channel in sorted(cut)}:
            yield self.circuit.all(self.alive.live[vertex], literal)

    def _counted(self, quantity: str, index: int, vertex: Vertex) -> Iterator[Term]:
        rule, out, wants = TABLE.rules[vertex.op], self.alive.outs[index], self.alive.wants[index]
        if quantity in ("params", "weight_bytes"):
            states = {"in": wants[0] if wants else WHOLE, "out": out}
            for parameter in vertex.params:
                if not parameter.buffer and len(self.graph.readers[parameter.name]) == 1:
                    follows = [f and states[f[0]].axes.get(f[1]) for f in parameter.follows]
                    size, lines = term(parameter.shape, follows)
                    yield size * (parameter.itemsize if quantity == "weight_bytes" else 1), lines
        elif quantity == "macs":
            yield from self._macs(index, out, wants)
        elif quantity == "activation_bytes":
            shape = None if rule.view or vertex.op in ("input", "output") else vertex.shape
            if shape is not None:
                yield of_shape(shape, out, vertex.itemsize)

    def _macs(self, index: int, out: Remains, wants: Sequence[Remains]) -> list[Term]:
        """Multiply-accumulates; those of a mere function count while all remains."""
        vertex, shapes = self.graph.vertices[index], self.graph.input_shapes[index]
        macs = TABLE.rules[vertex.op].macs
        if isinstance(macs, Macs):
            return macs.factors(vertex, wants, out, shapes)
        whole = self.circuit.all(*set().union(*(state.literals for state in (out, *wants))))
        return [(float(full_macs(self.graph, index)), [(whole,)])]

    def _add(
        self,
        sums: dict[Literal, float],
        coefficient: float,
        runs: Literal,
        lines: Sequence[Sequence[Literal]],
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
        # left: the share of the product that is certain to be there, at least
        # 1 - sum over lines of (1 - live share of the line), and 0 where the operator does not
        # run: left >= sum over lines of (live share) - (lines - 1) * runs.
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
