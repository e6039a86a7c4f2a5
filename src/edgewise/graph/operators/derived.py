"""Couplings and bounds of a flow that is only a function, found by asking it.

A flow says what remains under one mask. Removing some channels and looking at what the operator
then gives and reads shows which channels go together; and since less in never gives more out, a
channel that is there although only some inputs are is there wherever these are.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cache, partial

import numpy as np

from ..vertices import Vertex
from .joining import Ids, Joining, Labels
from .passage import FlowFunction, Passage
from .remains import TRUE, Line, Literal, Logic, Passed, Remains
from .states import Flow, Shapes, State, live


def derived(flow: FlowFunction) -> Passage:
    """The passage of a flow function; itself where it is one."""
    if isinstance(flow, Passage):
        return flow
    return Passage(flow, partial(_couple, flow), partial(_bound, flow), reads_all=False, thins=True)


# -- couplings ---------------------------------------------------------------------------------

Lines = Mapping[tuple[int, int], Ids]  # by slot and axis of an input, a number for each channel
Ask = Callable[[Collection[int]], Flow]  # what passes without some numbers


def _couple(
    flow: FlowFunction, joining: Joining, vertex: Vertex, shapes: Shapes, ins: Sequence[Labels]
) -> Labels:
    """Remove one class of channels after another, from all inputs alike."""
    for labels in ins:
        joining.fix([{axes: ids for axes, ids in labels.items() if len(axes) > 1}])
    lines = {
        (slot, axes[0]): joining.class_of(ids)
        for slot, labels in enumerate(ins)
        for axes, ids in labels.items()
        if len(axes) == 1
    }

    def ask(gone: Collection[int]) -> Flow:
        keeps: list[dict[int, Sequence[bool]]] = [{} for _ in ins]
        for (slot, axis), ids in lines.items():
            keeps[slot][axis] = (~np.isin(ids, list(gone))).tolist()
        return flow(vertex, shapes, [live(keep) for keep in keeps])

    out: dict[int, Ids] = {}
    left = dict.fromkeys(number for ids in lines.values() for number in ids.tolist())
    while left:
        gone, passing = _closed(ask, lines, next(iter(left)))
        left = {number: None for number in left if number not in gone}
        together = np.array(sorted(gone))
        joining.join(together[:1], together)
        if reason := _filled(lines, gone, passing):
            joining.refuse(together, f"{vertex.name} ({vertex.op}) {reason}")
        _follow(joining, lines, together, passing, out)
    for ids in out.values():
        rest = ids < 0
        ids[rest] = joining.new(int(rest.sum()))
        joining.refuse(ids[rest], f"{vertex.name} ({vertex.op}) gives them whatever is removed")
    return {(axis,): ids for axis, ids in out.items()}


def _closed(ask: Ask, lines: Lines, first: int) -> tuple[set[int], Flow]:
    """A number with all those that are no longer read without it, and what passes without them."""
    whole, gone = ask(()), {first}
    while True:
        passing, before = ask(gone), len(gone)
        if passing.out is None:
            return gone, passing
        for (slot, axis), ids in lines.items():
            read = _read(whole.wants[slot], axis, ids) & ~_read(passing.wants[slot], axis, ids)
            gone |= set(ids[read].tolist())
        if len(gone) == before:
            return gone, passing


def _read(want: State, axis: int, ids: Ids) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Which channels of an axis are read."""
    keep = want.keep(axis) if want is not None else None
    return np.full(len(ids), want is not None) if keep is None else np.array(keep)


def _filled(lines: Lines, gone: set[int], passing: Flow) -> str | None:
    """Why an operator cannot do without some channels, if it cannot."""
    if passing.out is None:
        return "needs all of them"
    for (slot, axis), ids in lines.items():
        if passing.wants[slot] is None:
            return "would lose an input"
        if (_read(passing.wants[slot], axis, ids) & np.isin(ids, list(gone))).any():
            return f"reads {passing.fill:g} in their place"
    return None


def _follow(joining: Joining, lines: Lines, gone: Ids, passing: Flow, out: dict[int, Ids]) -> None:
    """Number the channels of the output that go with some of the inputs; others are mixed."""
    for axis, keep in passing.out.keeps if passing.out is not None else ():
        ids, lost = out.setdefault(axis, np.full(len(keep), -1)), ~np.array(keep)
        joining.join(gone[:1], ids[lost & (ids >= 0)])
        ids[lost] = gone[0]
    if passing.out is not None and passing.out.full:
        for (slot, axis), ids in lines.items():
            if np.isin(ids, gone).any():
                joining.read(slot, axis, ids)


# -- bounds ------------------------------------------------------------------------------------

Literals = frozenset[frozenset[int]]


def _bound(
    flow: FlowFunction, logic: Logic, vertex: Vertex, shapes: Shapes, ins: Sequence[Remains]
) -> Passed:
    """Ask what passes without one literal after another, and with those only that it takes."""
    every = frozenset(one for state in ins for one in state.literals if one)

    @cache
    def ask(true: Literals) -> Flow:
        def state(remains: Remains) -> State:
            keeps = {a: [one in there for one in line] for a, line in remains.keeps}
            return live(keeps) if remains.here in there else None

        there = true | {TRUE}
        return flow(vertex, shapes, [state(remains) for remains in ins])

    def read(slot: int) -> Remains:
        return _taken(logic, every, lambda true: ask(true).wants[slot])

    return _taken(logic, every, lambda true: ask(true).out), [read(i) for i in range(len(ins))]


def _taken(logic: Logic, every: Literals, ask: Callable[[Literals], State]) -> Remains:
    """What remains of a tensor, given what does where only some literals are true.

    A channel takes the literals without any one of which it is gone. Where it is there with these
    alone, it is there wherever they are all true; else it is only known to be where all are.
    """
    less = {one: ask(every - {one}) for one in sorted(every, key=sorted)}
    if ask(every) is None:
        return Remains(None)

    def takes(channel: Channel) -> Literals:
        return frozenset(one for one, state in less.items() if not _there(state, channel))

    def literal(channel: Channel) -> Literal:
        taken = takes(channel)
        known = _there(ask(every), channel)
        return logic.all(*(taken if _there(ask(taken), channel) else every)) if known else None

    # An axis that is not listed must be in full wherever the tensor is said to be there.
    states, sizes = [*less.values(), ask(takes(None)), ask(every)], dict[int, int]()
    while more := {a: len(k) for s in states if s for a, k in s.keeps if a not in sizes}:
        sizes |= more
        channels = [(axis, channel) for axis, size in sizes.items() for channel in range(size)]
        states = [ask(takes(channel)) for channel in [None, *channels]]
    axes: dict[int, Line] = {
        axis: tuple(literal((axis, channel)) for channel in range(size))
        for axis, size in sizes.items()
    }
    if _there(ask(takes(None)), None) or not axes:
        return Remains(literal(None), axes)
    here = logic.any(next(iter(axes.values())))
    return Remains(TRUE, axes).restricted(logic, here)


Channel = tuple[int, int] | None  # an axis and a place on it; None: the tensor itself


def _there(state: State, channel: Channel) -> bool:
    keep = state.keep(channel[0]) if state is not None and channel is not None else None
    return state is not None and (keep is None or channel is None or keep[channel[1]])
