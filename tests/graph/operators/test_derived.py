"""Bounds against the flows they bound, over all that may be removed."""

from __future__ import annotations

from itertools import product

import pytest

from edgewise import absence
from edgewise.graph.operators.absence import Live, State, live
from edgewise.graph.operators.derived import derived
from edgewise.graph.operators.remains import Literal, Remains
from edgewise.graph.vertices import Vertex
from edgewise.search.solver.rows import Circuit, Rows

VARIABLES = 4
CASES = {
    "by_axes": (absence.by_axes, {"axes": [0, 2, 1]}, (1, 4, 6), [(1, 6, 4)]),
    "mix": (absence.mix, {"mixes": 1, "axes": [0, None, 2]}, (1, 3, 4), [(1, 6, 4)]),
    "groups": (absence.mix, {"mixes": 1, "axes": [0, None], "groups": 3}, (1, 9), [(1, 6)]),
    "halves": (absence.halves, {"dim": 1}, (1, 3), [(1, 6)]),
    "piece": (absence.piece, {"dim": 1, "start": 1, "stop": 4}, (1, 3), [(1, 6)]),
    "reshape": (absence.reshape, {}, (1, 2, 12), [(1, 6, 4)]),
    "add": (absence.add, {"signs": [1, 1]}, (1, 6), [(1, 6), (1, 6)]),
    "gate": (absence.multiply, {"alone": [True, True]}, (1, 6, 2), [(1, 6, 2), (1, 6, 1)]),
    "product": (absence.multiply, {"alone": [False, False]}, (1, 6), [(1, 6), (1, 6)]),
    "concat": (absence.concat, {"dim": 1, "pieces": [(0, 6), (1, 4)]}, (1, 10), [(1, 6), (1, 4)]),
    "stack": (
        absence.concat, {"dim": 1, "pieces": [(0, 1), (1, 1)], "stack": True},
        (1, 2, 6), [(1, 6), (1, 6)],
    ),
    "contract": (
        absence.contract, {"labels": [[0, 1, "k"], [0, "k", 2]]},
        (1, 3, 4), [(1, 3, 6), (1, 6, 4)],
    ),
    "shared keys": (
        absence.contract, {"labels": [[0, 1], [0, 1]]}, (1, 6), [(1, 6), (1, 3)],
    ),
    "join": (absence.join, {}, (1, 6), [(1, 6), (1, 6)]),
}  # fmt: skip

LOOSE = ("shared keys",)
TWO_WAYS = ("groups", "reshape", "add", "gate", "concat", "stack", "contract", "shared keys")


def inputs(shapes: list[tuple[int, ...]]) -> list[Remains]:
    """Inputs whose channels hang on variables, each input on one of its own as well."""
    found = []
    for slot, shape in enumerate(shapes):
        here = frozenset((slot,))
        lines = {
            axis: tuple(here | {(slot + axis + channel) % VARIABLES} for channel in range(size))
            for axis, size in enumerate(shape)
            if size > 2
        }
        found.append(Remains(here, lines))
    return found


def holds(circuit: Circuit, literal: Literal, kept: tuple[bool, ...]) -> bool:
    """Whether a literal is true where these variables are."""

    def variable(one: int) -> bool:
        if one < VARIABLES:
            return kept[one]
        if one in circuit._parts:
            return any(holds(circuit, part, kept) for part in circuit._parts[one])
        whole = next(c for c, stands in circuit.conjunctions.items() if stands == one)
        return holds(circuit, whole, kept)

    return literal is not None and all(variable(one) for one in literal)


def under(circuit: Circuit, state: Remains, kept: tuple[bool, ...]) -> State:
    """What remains where these variables are true."""
    if not holds(circuit, state.here, kept):
        return None
    return live({a: [holds(circuit, one, kept) for one in line] for a, line in state.keeps})


def within(less: State, more: State) -> bool:
    """Whether all that the one holds is in the other."""
    if less is None or more is None:
        return less is None
    lines = [(less.keep(axis), keep) for axis, keep in more.keeps]
    return all(
        mine is not None and all(b or not a for a, b in zip(mine, theirs, strict=True))
        for mine, theirs in lines
    )


@pytest.mark.parametrize("own", [True, False], ids=["own", "derived"])
@pytest.mark.parametrize("name", CASES)
def test_a_bound_never_says_more_than_the_flow(name: str, own: bool) -> None:
    flow, attrs, shape, shapes = CASES[name]
    vertex = Vertex("v", "op", "op", shape, 4, (), attrs, (), "v", None, "")
    rows = Rows()
    for _ in range(VARIABLES):
        rows.variable()
    circuit, ins = Circuit(rows), inputs(shapes)
    passage = flow if own else derived(flow.flow)
    out, wants = passage.bound(circuit, vertex, shapes, ins)
    exact = 0
    for kept in product([False, True], repeat=VARIABLES):
        passing = flow(vertex, shapes, [under(circuit, state, kept) for state in ins])
        claimed = under(circuit, out, kept)
        assert within(claimed, passing.out), kept
        exact += claimed == passing.out
        if passing.out is not None and claimed is not None:
            for want, read in zip(wants, passing.wants, strict=True):
                assert within(under(circuit, want, kept), read), kept
    assert claimed == Live()  # the last: all is kept
    if name not in (LOOSE if own else TWO_WAYS):
        assert exact == 2**VARIABLES
