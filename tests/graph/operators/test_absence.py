"""The rules of absence as pure functions: exact on small cases, monotone everywhere."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

import edgewise as ew
from edgewise import absence
from edgewise.graph.operators.absence import FULL, Live, live
from edgewise.graph.vertices import Vertex
from zoo import ZOO, traced


def vertex(shape: tuple[int, ...], **attrs: object) -> Vertex:
    return Vertex("v", "op", "op", shape, 4, (0,), attrs, (), "v", None, "")


def half(axis: int, keep: str) -> Live:
    state = live({axis: [k == "1" for k in keep]})
    assert state is not None
    return state


def test_live_normalises() -> None:
    assert live({1: [True, True]}) is FULL
    assert live({1: [False, False]}) is None
    assert live({2: [True, False], 1: [False, True]}).shape((5, 2, 2)) == (5, 1, 1)


def test_a_sum_keeps_what_any_summand_has() -> None:
    v = vertex((1, 4), signs=[1, 1])
    shapes = [(1, 4), (1, 4)]
    assert absence.add(v, shapes, [half(1, "1100"), half(1, "0100")]).out == half(1, "1100")
    assert absence.add(v, shapes, [half(1, "1100"), FULL]).out is FULL
    assert absence.add(v, shapes, [None, None]).out is None
    alone = absence.add(v, shapes, [None, half(1, "1100")])
    assert alone.forward
    assert alone.wants == (None, half(1, "1100"))


def test_a_difference_of_which_the_second_remains_is_not_forwarded() -> None:
    v = vertex((1, 4), signs=[1, -1])
    flow = absence.add(v, [(1, 4), (1, 4)], [None, FULL])
    assert flow.out is FULL
    assert not flow.forward


def test_an_absent_gate_is_dropped_but_not_an_absent_input() -> None:
    v = vertex((1, 4, 8, 8), alone=[True, True])
    shapes = [(1, 4, 8, 8), (1, 4, 1, 1)]
    assert absence.multiply(v, shapes, [FULL, None]).forward
    assert absence.multiply(v, shapes, [None, FULL]).out is None
    partial = absence.multiply(v, shapes, [FULL, half(1, "1000")])
    assert partial.out is FULL
    assert partial.fill == 1.0
    assert absence.multiply(v, shapes, [half(1, "1100"), half(1, "0110")]).out == half(1, "1100")


def test_a_divisor_cannot_stand_alone() -> None:
    v = vertex((1, 4), alone=[True, False])
    assert absence.multiply(v, [(1, 4), (1, 4)], [None, FULL]).out is None
    assert absence.multiply(v, [(1, 4), (1, 4)], [FULL, None]).forward


def test_concatenation_marks_the_absent_piece() -> None:
    v = vertex((1, 5), dim=1, pieces=[(0, 2), (1, 3)])
    assert absence.concat(v, [(1, 2), (1, 3)], [FULL, None]).out == half(1, "11000")
    assert absence.concat(v, [(1, 2), (1, 3)], [half(1, "01"), FULL]).out == half(1, "01111")
    assert absence.concat(v, [(1, 2), (1, 3)], [None, None]).out is None


def test_a_mixing_operator_drops_channels_and_ends_their_absence() -> None:
    v = vertex((1, 7), mixes=1, axes=[0, None])
    flow = absence.mix(v, [(1, 4)], [half(1, "1010")])
    assert flow.out is FULL
    assert flow.wants == (half(1, "1010"),)


def test_groups_mix_apart() -> None:
    depthwise = vertex((1, 8, 2, 2), mixes=1, axes=[0, None, None, None], groups=4)
    assert absence.mix(depthwise, [(1, 4, 2, 2)], [half(1, "1010")]).out == half(1, "11001100")
    grouped = vertex((1, 6, 2, 2), mixes=1, axes=[0, None, None, None], groups=2)
    flow = absence.mix(grouped, [(1, 4, 2, 2)], [half(1, "0100")])
    assert flow.out == half(1, "111000")
    assert flow.wants == (half(1, "1100"),)
    assert absence.mix(grouped, [(1, 4, 2, 2)], [half(1, "0101")]) == absence.Flow(FULL, (FULL,))


def test_a_product_drops_what_either_operand_lacks() -> None:
    v = vertex((1, 3, 2), labels=[[0, 1, "k"], [0, "k", 2]])
    shapes = [(1, 3, 4), (1, 4, 2)]
    flow = absence.contract(v, shapes, [half(2, "1100"), half(1, "0110")])
    assert flow.out is FULL
    assert flow.wants == (half(2, "0100"), half(1, "0100"))
    flow = absence.contract(v, shapes, [half(1, "110"), half(2, "01")])
    assert flow.out == live({1: [True, True, False], 2: [False, True]})
    assert absence.contract(v, shapes, [half(2, "1100"), half(1, "0011")]).out is None
    assert absence.contract(v, shapes, [FULL, None]).out is None


def test_shared_heads_go_with_all_that_they_serve() -> None:
    v = vertex((1, 4, 3, 2), labels=[[0, 1, 2, None], [0, 1, None, None], [0, 1, None, 3]])
    shapes = [(1, 4, 3, 2), (1, 2, 3, 2), (1, 2, 3, 2)]
    flow = absence.contract(v, shapes, [half(1, "0100"), FULL, FULL])
    assert flow.out == half(1, "1100")
    assert flow.wants == (half(1, "1100"), half(1, "10"), half(1, "10"))


def test_a_reduction_is_taken_over_what_remains() -> None:
    flow = absence.reduce(vertex((1, 3), axes=[0, None, 1]), [(1, 4, 3)], [half(1, "1010")])
    assert flow == absence.Flow(FULL, (half(1, "1010"),))
    flow = absence.reduce(vertex((1, 3), axes=[0, None, 1]), [(1, 4, 3)], [half(2, "110")])
    assert flow.out == half(1, "110")


def test_a_gated_unit_needs_both_halves() -> None:
    flow = absence.halves(vertex((1, 3), dim=1), [(1, 6)], [half(1, "110011")])
    assert flow.out == half(1, "010")
    assert flow.wants == (half(1, "010010"),)
    assert absence.halves(vertex((1, 2), dim=1), [(1, 4)], [half(1, "1001")]).out is None


def test_members_lose_an_axis() -> None:
    state = live({1: [True, False], 2: [True, True, False]})
    flow = absence.unbind(vertex((), dim=1), [(1, 2, 3)], [state])
    assert flow.out == half(2, "110")
    assert flow.wants == (half(2, "110"),)
    assert absence.member(vertex((1, 3), dim=1), [None], [half(2, "110")]).out == half(1, "110")


@pytest.mark.parametrize(
    ("before", "after", "state", "expected"),
    [
        ((2, 4, 3), (2, 12), half(1, "1010"), half(1, "111000111000")),
        ((2, 6), (2, 2, 3), half(1, "000111"), half(1, "01")),
        ((2, 6), (2, 2, 3), half(1, "010010"), half(2, "010")),
        ((2, 6), (2, 2, 3), half(1, "110111"), FULL),
        ((2, 1, 4), (2, 4), half(2, "0111"), half(1, "0111")),
        ((2, 4), (2, 4, 1, 1), half(1, "0001"), half(1, "0001")),
    ],
)
def test_views_carry_channels(before, after, state, expected) -> None:
    assert absence.reshape(vertex(after), [before], [state]).out == expected


def test_a_view_of_two_axes_is_exact() -> None:
    """Channel shuffle: what is absent on two axes interleaves, and nothing is widened."""
    keeps = live({1: [False, True], 2: [True, False, True]})
    flow = absence.reshape(vertex((1, 6)), [(1, 2, 3)], [keeps])
    assert flow.out == half(1, "000101")


@pytest.mark.parametrize("name", ZOO)
@given(seed=st.integers(0, 10**6))
def test_absence_is_monotone(name: str, seed: int) -> None:
    """Removing one more edge leaves nothing that was not there before."""
    graph, rng = traced(name, "raw"), random.Random(seed)
    edges = rng.sample(range(len(graph.units)), rng.randint(0, len(graph.units) // 2))
    less = graph.mask(edges)
    more = less.with_removed(rng.randrange(len(graph.units)))
    before, after = ew.liveness(graph, less), ew.liveness(graph, more)
    for index, vertex in enumerate(graph.vertices):
        old, new = before.states[index], after.states[index]
        assert new is None or old is not None, vertex.name
        for axis, keep in old.keeps if old and new else ():
            rest = new.keep(axis)
            assert rest is not None, vertex.name
            assert all(a or not b for a, b in zip(keep, rest, strict=True)), vertex.name
