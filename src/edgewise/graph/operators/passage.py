"""One meaning of an operator in three instances: how absence, couplings and bounds pass it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..vertices import Vertex
from .joining import Joining, Labels
from .remains import BOOLEANS, Logic, Passed, Remains
from .states import FULL, Flow, Shapes, States

FlowFunction = Callable[[Vertex, Shapes, States], Flow]
Couple = Callable[[Joining, Vertex, Shapes, Sequence[Labels]], Labels]
CoupleOne = Callable[[Joining, Vertex, Shapes, Labels], Labels]
Bound = Callable[[Logic, Vertex, Shapes, Sequence[Remains]], Passed]
Through = Callable[[Any, Vertex, Shapes, Any], tuple[Any, Any]]


@dataclass(frozen=True, eq=False)
class Passage:
    """How absence passes through an operator; called, it is its `flow`.

    Args:
        flow: what remains of the output under one mask, and in what form inputs are read.
        couple: which channels stand or fall together: given the numbers of the inputs' channels,
            those of the output's.
        bound: the flow for all masks at once, as literals that are never overstated.
        reads_all: an operator that gives anything reads each input that is there.
        thins: it may give nothing of an input of which something remains.
        parts: it may give some of its channels and lack others although no channel was cut.
        makes: its weight makes channels of its own, that can be cut one by one.
    """

    flow: FlowFunction
    couple: Couple
    bound: Bound
    reads_all: bool = True
    thins: bool = False
    parts: bool = False
    makes: bool = False

    def __call__(self, vertex: Vertex, shapes: Shapes, ins: States) -> Flow:
        return self.flow(vertex, shapes, ins)


def documented(passage: Passage, source: Callable[..., Any]) -> Passage:
    """The passage with the docstring of a function."""
    object.__setattr__(passage, "__doc__", source.__doc__)
    return passage


def gone(ins: States) -> Flow:
    """Nothing is given, and nothing read."""
    return Flow(None, (None,) * len(ins))


def _join_flow(vertex: Vertex, shapes: Shapes, ins: States) -> Flow:
    """An operator that needs all its inputs (sort, where, recurrent layers, …)."""
    return gone(ins) if any(s is None for s in ins) else Flow(FULL, (FULL,) * len(ins))


def _join_couple(joining: Joining, vertex: Vertex, shapes: Shapes, ins: Sequence[Labels]) -> Labels:
    return joining.fix(ins)


def _join_bound(logic: Logic, vertex: Vertex, shapes: Shapes, ins: Sequence[Remains]) -> Passed:
    here = Remains(logic.all(*(state.here for state in ins)))
    return here, (here,) * len(ins)


join = documented(Passage(_join_flow, _join_couple, _join_bound), _join_flow)
lookup = replace(join, makes=True)  # as `join`, of rows whose columns can be cut


_NOTHING = (None, None)
_GONE = Flow(None, (None,))


def of_one(
    couple: CoupleOne, *, weights: bool = True, thins: bool = False, makes: bool = False
) -> Callable[[Through], Passage]:
    """A passage of an operator of one input, from a function that is written once for all logics.

    The function takes the logic, the vertex, the shapes of its inputs and what remains of the one
    input, and returns what remains of the output and how the input is read. An operator of
    several inputs needs all of them; so does one of shared weights, if `weights` says that it
    may have some.
    """

    def make(through: Through) -> Passage:
        def flow(vertex: Vertex, shapes: Shapes, ins: States) -> Flow:
            if len(ins) != 1 or (weights and vertex.shared):
                return _join_flow(vertex, shapes, ins)
            out, want = through(BOOLEANS, vertex, shapes, ins[0]) if ins[0] else _NOTHING
            return Flow(out, (want,)) if out is not None else _GONE

        def bound(logic: Logic, vertex: Vertex, shapes: Shapes, ins: Sequence[Remains]) -> Passed:
            if len(ins) != 1 or (weights and vertex.shared):
                return _join_bound(logic, vertex, shapes, ins)
            out, want = through(logic, vertex, shapes, ins[0])
            return out, (want,)

        def coupled(
            joining: Joining, vertex: Vertex, shapes: Shapes, ins: Sequence[Labels]
        ) -> Labels:
            if len(ins) != 1 or vertex.shared:
                return joining.fix(ins)
            return couple(joining, vertex, shapes, ins[0])

        return documented(Passage(flow, coupled, bound, thins=thins, makes=makes), through)

    return make
