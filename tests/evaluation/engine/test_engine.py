"""The parts of the engine: what it computes is exact, what it keeps is bounded."""

import random
from collections import Counter
from itertools import pairwise, product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils import _pytree as pytree

import edgewise as ew
import jobs
from edgewise.errors import EdgewiseError
from edgewise.evaluation.engine import EngineOptions
from edgewise.evaluation.engine.cache import Cache
from edgewise.evaluation.engine.compile import Compiler
from edgewise.evaluation.engine.options import Memory
from edgewise.evaluation.engine.order import visiting_order
from edgewise.evaluation.engine.pieces import choose, cut, join
from edgewise.evaluation.engine.run import Run, _Worker
from edgewise.evaluation.engine.steps import Step
from edgewise.evaluation.evaluator import Engine
from edgewise.pruning.verify import TOLERANCE, relative_difference
from edgewise.testing import random_mask
from edgewise.values.quantities import parse_bytes
from zoo import ZOO, build, traced

WHOLE = EngineOptions(chunk=64)
KINDS = [(torch.float32, "none"), (torch.float64, "batchnorm"), (torch.float64, "linear")]


def of_zoo(name: str, dtype: torch.dtype = torch.float32) -> tuple[ew.Graph, tuple]:
    return traced(name, dtype=dtype), build(name, dtype=dtype)[1]


def some_masks(graph: ew.Graph, seed: int, count: int = 6) -> list[ew.Mask]:
    rng = random.Random(seed)
    return list({random_mask(graph, rng) for _ in range(count)})


def outputs_of(graph, args, masks, recovery="none", options=WHOLE) -> dict:
    """What every mask gives on the example, and its recovered tensors.

    Statistics are those of sixteen examples, since those of two divide by what is rounding only;
    weights are fitted to 32.
    """
    outputs = []
    noise = torch.Generator().manual_seed(0)

    def another(value):
        if not value.is_floating_point():
            return value
        return value + torch.randn(value.shape, generator=noise, dtype=value.dtype)

    def loss(out, target):
        outputs.append(out)
        return torch.zeros(())

    more = 15 if recovery == "linear" else 7
    calibration = [(args, None), *((tuple(map(another, args)), None) for _ in range(more))]
    kind = ew.Recovery(recovery, calibration if recovery != "none" else None)
    engine = Engine(graph, ew.Objective([(args, torch.zeros(2))], loss, recovery=kind), options)
    found = list(engine.evaluate(masks, tensors=True))
    assert all(o.evaluation.ok for o in found), [o.evaluation.error for o in found]
    pairs = zip(found, outputs, strict=True)
    return {o.evaluation.mask: (out, o.tensors) for o, out in pairs}


def apart(a, b) -> float:
    pairs = zip(pytree.tree_leaves(a), pytree.tree_leaves(b), strict=True)
    return max(relative_difference(x, y) for x, y in pairs if (x, y) != (None, None))


def same(a: dict, b: dict) -> bool:
    """Equal to the last bit."""
    return all(apart(a[mask], b[mask]) == 0.0 for mask in a) and a.keys() == b.keys()


def has_constant_channel(tensors: dict) -> bool:
    variances = [v for name, v in tensors.items() if name.endswith("running_var")]
    return any(bool((v == 0).any()) for v in variances)


@pytest.mark.parametrize(("dtype", "recovery"), KINDS)
@pytest.mark.parametrize("name", ZOO)
@given(seed=st.integers(0, 10**6))
@settings(max_examples=2)
def test_programs_give_what_masked_models_give(name, dtype, recovery, seed) -> None:
    """Folded norms, values written in place and pieces of one example change nothing.

    Where a removal leaves a channel constant, its norm divides rounding by √ε, norm after norm: in
    float32 masked models are then themselves further from the exact result than the tolerance, and
    such masks are compared in float64 only.
    """
    graph, args = of_zoo(name, dtype)
    masks = some_masks(graph, seed)
    options = EngineOptions(piece=1)
    for bits, (out, tensors) in outputs_of(graph, args, masks, recovery, options).items():
        if dtype == torch.float32 and has_constant_channel(tensors):
            continue
        full = ew.masked(graph, graph.mask(bits=bits), tensors).eval()
        with torch.no_grad():
            assert apart(full(*args), out) <= TOLERANCE[dtype]


@pytest.mark.parametrize("recovery", ["none", "batchnorm", "linear"])
@pytest.mark.parametrize("name", ["residual", "dense", "in_place", "several"])
@given(seed=st.integers(0, 10**6), memory=st.sampled_from(["0", "1KiB", "8KiB", "40KiB"]))
@settings(max_examples=2)
def test_a_limit_of_memory_changes_no_bit(name, recovery, seed, memory) -> None:
    graph, args = of_zoo(name)
    masks = some_masks(graph, seed, 8)
    limited = EngineOptions(memory=memory, chunk=64)
    ample = outputs_of(graph, args, masks, recovery)
    assert same(ample, outputs_of(graph, args, masks, recovery, limited))


@pytest.mark.parametrize("memory", [0, 3_000, 100_000])
def test_kept_values_stay_within_the_limit(memory: int, monkeypatch: pytest.MonkeyPatch) -> None:
    graph, objective = jobs.make()
    held, keep = [], Cache.keep

    def watched(self, step, value) -> None:
        keep(self, step, value)
        held.append(self.memory.held)

    monkeypatch.setattr(Cache, "keep", watched)
    masks = [graph.mask([u]) for u in range(8)]
    list(Engine(graph, objective, EngineOptions(memory=memory)).evaluate(masks))
    assert max(held) <= memory
    assert memory < 100_000 or max(held) > 0


def test_cut_weights_of_masks_that_run_together_stay_within_the_limit() -> None:
    model, args = build("attention")
    graph = ew.trace(model, args, granularity=("hidden", "heads"), slices=4)
    masks = [graph.mask([group[0]]) for group in graph.nested]
    objective = ew.Objective([(args, torch.zeros(2))], lambda out, _: out.sum())
    found, together = dict[int, dict[str, float | None]](), dict[int, list[int]]()
    for limit in (2**30, 1):
        engine = Engine(graph, objective, EngineOptions(memory=limit))
        seen, whole = together.setdefault(limit, []), engine._programs

        def programs(*asked, engine=engine, seen=seen, whole=whole):
            made = whole(*asked)
            seen.append(engine.compiler.cut_bytes)
            return made

        next(engine.evaluate(masks[::-1]))  # nobody wants the others, whose weights stay
        engine._programs = programs
        found[limit] = {o.evaluation.mask: o.evaluation.loss for o in engine.evaluate(masks)}
    assert found[1] == found[2**30]
    assert len(together[2**30]) == 1 < len(together[1]) == len(masks)
    assert sum(together[1]) >= together[2**30][0] > max(together[1]) > 0


def test_nothing_is_kept_after_the_last_mask() -> None:
    graph, objective = jobs.make()
    compiler = Compiler(graph, recover=True)
    programs = [compiler.program(graph.mask([u])) for u in range(8)]
    run = Run(programs, objective.recovery.batches, Memory(10**9))
    for inputs, _ in objective.splits["search"]:
        assert all(not isinstance(v, Exception) for _, v, _ in run.piece(inputs))
        assert run.memory.held == 0


@pytest.mark.parametrize("recovery", ["batchnorm", "linear"])
def test_results_do_not_depend_on_the_other_masks(recovery: str) -> None:
    graph, args = of_zoo("residual")
    masks = [graph.mask([u]) for u in range(len(graph.units))]
    together = outputs_of(graph, args, masks, recovery)
    alone = {}
    for mask in masks:
        alone |= outputs_of(graph, args, [mask], recovery)
    assert same(together, alone)


def test_a_folded_layer_is_not_run_beside_its_norm() -> None:
    """Nothing but convolutions, sums, ReLUs and the head is left of a residual network."""
    graph, _ = of_zoo("residual")
    compiler = Compiler(graph, recover=False)
    program = compiler.program(graph.empty)
    norms = [m for m in graph.program.module.modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(norms) == 7
    assert len(program.steps) == len(graph.vertices) - len(norms)


def test_a_layer_with_a_hook_or_a_second_reader_is_not_folded() -> None:
    graph, _ = of_zoo("residual")
    before = len(Compiler(graph, recover=False).program(graph.empty).steps)
    handle = graph.program.module.stem.get_submodule("0").register_forward_hook(lambda *_: None)
    after = len(Compiler(graph, recover=False).program(graph.empty).steps)
    handle.remove()
    assert after == before + 1

    class Read(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)

        def forward(self, x):
            y = self.conv(x)
            return self.norm(y) + y

    read = ew.trace(Read().eval(), (torch.randn(2, 3, 4, 4),), granularity="raw")
    steps = Compiler(read, recover=False).program(read.empty).steps
    assert len(steps) == len(read.vertices)


def test_a_norm_over_the_last_but_one_dimension_is_not_folded() -> None:
    """BatchNorm1d takes dimension 1 of [batch, rows, columns], a linear map the last one."""

    class Rows(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.norm, self.out = nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Linear(5, 2)

        def forward(self, x):
            return self.out(x + self.norm(self.linear(x).relu() + self.linear(x)))

    model, x = Rows(), torch.randn(6, 5, 4)
    model.linear = nn.Linear(4, 4)
    model.out = nn.Linear(4, 2)
    nn.init.normal_(model.norm.running_mean)
    graph = ew.trace(model.eval(), (x,), granularity=("edge", "layer"))
    masks = some_masks(graph, 0)
    for bits, (out, _) in outputs_of(graph, (x,), masks).items():
        assert apart(ew.masked(graph, graph.mask(bits=bits)).eval()(x).detach(), out) <= 1e-5


def test_the_visiting_order_is_a_trie_with_the_smaller_subtree_first() -> None:
    graph, _ = of_zoo("residual")
    branches = graph.select(lambda unit: unit.kind == "edge")
    bits = ["000000", "100000", "000001", "000010", "100001", "000011"]
    order = visiting_order(branches, [branches.mask(bits=b) for b in bits])
    assert [str(m) for m in order][:2] == ["100001", "100000"]
    for depth in range(7):  # masks that agree on the first units come one after another
        heads = [str(m)[:depth] for m in order]
        runs = sum(a != b for a, b in pairwise(heads)) + 1
        assert runs == len(set(heads))


@given(seed=st.integers(0, 10**6))
def test_few_branchings_are_open_at_a_time(seed: int) -> None:
    """What is kept for n masks of a chain of blocks is no more than log2(n) values."""
    graph, args = of_zoo("residual")
    masks = some_masks(graph, seed, 16)
    most, keep = [0], Cache.keep

    def watched(self, step, value) -> None:
        keep(self, step, value)
        most.append(len(self.values) - len(self.memory.spare))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Cache, "keep", watched)
        outputs_of(graph, args, masks)
    # two values a branching: that of the stream, and that of a branch whose sum differs
    assert max(most) <= 2 * (len(masks).bit_length())


def test_values_that_do_not_fit_are_dropped_the_oldest_first() -> None:
    steps = [Step((), lambda: None) for _ in range(3)]
    memory = Memory(2 * 4 * 10)
    cache = Cache(memory)
    cache.expect(Counter(dict.fromkeys(steps, 1)))
    for step in steps:
        cache.keep(step, torch.zeros(10))
    assert list(cache.values) == steps[1:]
    cache.keep(steps[0], torch.zeros(100))
    assert steps[0] not in cache.values
    cache.release(steps)
    assert memory.held == 0


def test_values_that_no_mask_waits_for_make_room_for_others() -> None:
    steps, memory = [Step((), lambda: None) for _ in range(4)], Memory(3 * 4 * 10)
    first, second = Cache(memory, lasts=True), Cache(memory, lasts=True)
    for step in steps[:3]:
        first.keep(step, torch.zeros(10))
        first.release([step])
    first.expect(Counter(steps[:1]))  # it is read again
    first.release(steps[:1])
    second.keep(steps[3], torch.zeros(10))
    assert (list(first.values), list(second.values)) == ([steps[0], steps[2]], [steps[3]])
    assert memory.held == 120


def test_later_masks_read_what_earlier_ones_left(monkeypatch: pytest.MonkeyPatch) -> None:
    graph, objective = jobs.make(recovery="none")
    engine, ran, call = Engine(graph, objective), [0], _Worker._call

    def counted(self, step):
        ran[0] += 1
        return call(self, step)

    monkeypatch.setattr(_Worker, "_call", counted)
    losses, counts = [], []
    for _ in range(2):
        ran[0] = 0
        outcomes = engine.evaluate([graph.mask([u]) for u in range(8)])
        losses.append({o.evaluation.mask: o.evaluation.loss for o in outcomes})
        counts.append(ran[0])
    assert losses[0] == losses[1]
    assert counts[1] < counts[0]


def test_a_view_counts_as_all_that_it_keeps_alive() -> None:
    memory = Memory(1000)
    cache = Cache(memory)
    cache.keep(Step((), lambda: None), torch.zeros(100)[:1])
    assert memory.held == 400


@given(size=st.integers(1, 40), count=st.integers(1, 40))
def test_pieces_are_the_batch(size: int, count: int) -> None:
    x, scale = torch.arange(size), torch.zeros(41)
    parts = cut((x, scale), count)
    assert torch.equal(join([p for p, _ in parts]), x)
    lengths = [len(p) for p, _ in parts]
    assert max(lengths) - min(lengths) <= 1
    assert all(s is scale for _, s in parts)


def test_a_network_that_compares_examples_is_not_cut() -> None:
    class Centred(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x):
            y = x + self.first(x)
            return y - y.mean(0, keepdim=True) + self.second(y)

    x = torch.randn(8, 4)
    graph = ew.trace(Centred().eval(), (x,))
    assert choose(graph, EngineOptions(piece=2), [(x,)]).examples is None
    plain, args = of_zoo("residual")
    assert choose(plain, EngineOptions(piece=2), [args]).examples == 2


def test_a_mean_over_the_batch_is_that_of_the_batch() -> None:
    """Batches of 5 in pieces of 2, 2 and 1: a loss that is a mean weighs examples, not pieces."""
    graph, _ = jobs.make()
    x, y = torch.randn(5, 3, 8, 8), torch.arange(5)
    losses = []
    for piece in (2, 5):
        objective = ew.Objective([(x, y)], loss=nn.functional.cross_entropy)
        engine = Engine(graph, objective, EngineOptions(piece=piece))
        losses.append(next(iter(engine.evaluate([graph.mask([0])]))).evaluation.loss)
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


@pytest.mark.parametrize(
    ("text", "size"), [(5, 5), ("0", 0), ("64MiB", 64 * 2**20), ("1.5 kb", 1500), ("2GiB", 2**31)]
)
def test_sizes(text: int | str, size: int) -> None:
    assert parse_bytes(text) == size


@pytest.mark.parametrize(
    "options", [{"memory": "much"}, {"memory": -1}, {"memory": True}, {"chunk": 0}, {"piece": 1.5}]
)
def test_options_that_make_no_sense_are_refused(options: dict) -> None:
    with pytest.raises(EdgewiseError, match=r"got"):
        EngineOptions(**options)


class _Centred(nn.Module):
    """Looks at the whole batch."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(6, 6), nn.Linear(6, 6)

    def forward(self, x):
        return x + self.two((self.one(x) - x.mean(0)).relu())


@pytest.mark.parametrize("first", [1, 2, 8])
def test_a_network_that_looks_at_its_batch_is_found_whatever_the_first_holds(first: int) -> None:
    model, x = _Centred(), torch.randn(24, 6)
    batches = [(torch.ones(first, 6), torch.zeros(first)), (x, torch.zeros(24))]
    graph = ew.trace(model, (x[:2],), granularity="edge")
    loss = lambda out, _: out.square().mean(1)  # noqa: E731
    engine = Engine(graph, ew.Objective(batches, loss), EngineOptions(piece=4))
    measured = next(iter(engine.evaluate([graph.empty])))
    with torch.no_grad():
        expected = torch.cat([loss(model(inputs), None) for inputs, _ in batches])
    assert torch.allclose(measured.each.float(), expected, atol=1e-5)


def test_masks_share_what_they_agree_on(monkeypatch: pytest.MonkeyPatch) -> None:
    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList(nn.Linear(6, 6) for _ in range(4))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for layer in self.layers:
                x = x + layer(x).relu()
            return x

    x = torch.randn(5, 6)
    graph = ew.trace(Residual().eval(), (x,), granularity="edge")
    graph = graph.select(lambda unit: unit.cost.macs > 0)
    objective = ew.Objective([(x, torch.zeros(5))], lambda out, y: out.square().sum(1) - y)
    engine = Engine(graph, objective)
    engine.pace = 1e-9  # known, so that all masks share
    calls: list[int] = []
    monkeypatch.setattr(
        nn.Linear, "forward",
        lambda self, x: calls.append(len(x)) or nn.functional.linear(x, self.weight, self.bias),
    )  # fmt: skip
    masks = [graph.mask(bits=bits) for bits in product((0, 1), repeat=len(graph.units))]
    outcomes = list(engine.evaluate([m for m in masks if ew.liveness(graph, m).connected]))
    assert len(outcomes) == 16
    assert calls == [5] * (1 + 2 + 4 + 8)  # what differs upstream of each layer, and no more
