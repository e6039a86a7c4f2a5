"""Masks of a part judged by the whole model: law 6, what is shared, and what is not."""

import pytest
import torch
from torch import nn

import edgewise as ew
import partial
from edgewise.errors import ObjectiveError
from edgewise.evaluation.evaluator import Serial


def measured(graph: ew.Graph, objective: ew.Objective, masks: list[ew.Mask]) -> None:
    """Compare what the engine measures with the whole pruned model, mask by mask."""
    outcomes = list(Serial(graph, objective).evaluate(masks, tensors=True))
    assert len(outcomes) == len(masks)
    for outcome in outcomes:
        mask = graph.mask(bits=outcome.evaluation.mask)
        assert outcome.evaluation.status == "ok", outcome.evaluation.error
        for model in (
            ew.prune(graph, mask, tensors=outcome.tensors),
            ew.masked(graph, mask, outcome.tensors),
        ):
            alone = objective.score(model, "search").loss
            assert outcome.evaluation.loss == pytest.approx(alone, rel=1e-4)


@pytest.mark.parametrize("kind", ["none", "batchnorm", "linear"])
@pytest.mark.parametrize("part", ["backbone", ["backbone", "neck"]], ids=str)
def test_a_mask_scores_what_the_whole_pruned_model_scores(part, kind) -> None:
    graph = partial.traced(partial.whole(), part)
    calibration = [inputs for inputs, _ in partial.batches(5)]
    recovery = ew.Recovery(kind, calibration if kind != "none" else None)
    objective = ew.Objective(partial.batches(), loss=partial.loss, recovery=recovery)
    measured(graph, objective, partial.masks(graph, 3))


def test_a_part_in_a_loop_gets_what_it_gave() -> None:
    graph = partial.traced(partial.whole(rounds=3), "neck")
    measured(graph, ew.Objective(partial.batches(), loss=partial.loss), partial.masks(graph))


class Random(nn.Module):
    """Draws before and behind the part, notes what it got, and returns it."""

    def __init__(self) -> None:
        super().__init__()
        self.noise, self.same, self.before = Noise(), nn.Identity(), nn.Conv2d(3, 3, 1)
        self.noting, self.part = Noting(), partial.Block(3)

    def forward(self, x):
        x = self.noise(self.before(self.noting(self.same(x))))
        return self.noise(self.part(x)).mean((2, 3))


class Noise(nn.Module):
    def forward(self, x):
        return x + torch.randn_like(x)


class Noting(nn.Module):
    def forward(self, x):
        self.seen = x.mean()
        return 2 * x


def test_random_numbers_are_the_same_for_every_mask() -> None:
    graph = ew.trace(Random().eval(), torch.randn(2, 3, 8, 8), part="part")
    before = torch.get_rng_state()
    objective = ew.Objective(partial.batches(), loss=lambda outputs, _: outputs.square().mean(1))
    measured(graph, objective, [graph.empty, graph.mask([0])])
    assert torch.equal(torch.get_rng_state(), before)


def test_what_is_before_the_part_runs_once_a_batch() -> None:
    calls = []

    class Counting(nn.Conv2d):
        def forward(self, x):
            calls.append(1)
            return super().forward(x)

    model = partial.whole()
    model.before = Counting(3, 3, 1)
    graph = partial.traced(model, "backbone")
    engine = Serial(graph, ew.Objective(partial.batches(3), loss=partial.loss))
    calls.clear()
    masks = partial.masks(graph)
    list(engine.evaluate(masks))
    assert len(calls) == 3
    small = ew.EngineOptions(memory=1)
    list(Serial(graph, ew.Objective(partial.batches(3), loss=partial.loss), small).evaluate(masks))
    assert len(calls) == 12  # nothing is kept from one of three chunks for the next


def test_modules_that_do_more_than_give_something_run_every_time() -> None:
    graph = ew.trace(Random().eval(), torch.randn(2, 3, 8, 8), part="part")
    engine = Serial(graph, ew.Objective(partial.batches(1), loss=partial.loss))
    list(engine.evaluate([graph.empty]))
    assert engine.around is not None
    names = [name for name, _ in engine.around.model.named_modules()]
    (kept,) = engine.around._kept.values()
    assert [names[number] for number, _ in kept.before] == ["before"]


def test_run_calls_the_model_as_it_likes() -> None:
    def run(model, batch):
        images, targets = batch
        model.neck.train()  # it drops at random
        return model(images, scale=2.0), model(images), len(targets)

    def loss(outputs, targets):
        assert outputs[2] == len(targets)
        return partial.loss(outputs[0], targets) + partial.loss(outputs[1], targets)

    model = partial.whole()
    model.neck = nn.Dropout(0.5)
    graph = partial.traced(model, "backbone")
    objective = ew.Objective(partial.batches(), loss=loss, run=run)
    measured(graph, objective, partial.masks(graph, 2))
    plain = ew.Objective(partial.batches(), loss=loss)
    assert objective.fingerprint != plain.fingerprint


def test_run_without_a_part_is_refused() -> None:
    graph = ew.trace(partial.Block(3), torch.randn(2, 3, 8, 8))
    objective = ew.Objective(partial.batches(), loss=partial.loss, run=lambda model, batch: model)
    with pytest.raises(ObjectiveError, match="Trace a part of it"):
        Serial(graph, objective)


def test_what_a_model_raises_is_an_outcome() -> None:
    class Picky(partial.Whole):
        def forward(self, x):
            if len(x) == 8:
                raise ValueError("eight")
            return super().forward(x)

    graph = partial.traced(Picky().eval(), "backbone")
    engine = Serial(graph, ew.Objective(partial.batches(), loss=partial.loss))
    (found,) = engine.evaluate([graph.empty])
    assert found.evaluation.status == "failed"
    assert "eight" in (found.evaluation.error or "")


def test_lists_of_examples_count_as_many() -> None:
    images = [torch.randn(3, 8, 8), torch.randn(3, 6, 8)]
    pair = (([*images],), [{"boxes": 1}, {"boxes": 2}])
    assert ew.Objective([pair] * 2, loss=partial.loss).samples("search") == 4
    raw = ew.Objective([(images, [{}, {}])], loss=partial.loss, run=lambda model, batch: 0)
    assert raw.samples("search") == 2


def test_workers_measure_the_same() -> None:
    from ray import cloudpickle

    from edgewise.evaluation.ray.shipping import pack, unpack

    for part in ("backbone", ["backbone", "neck"]):
        graph = partial.traced(partial.whole(), part)
        objective = ew.Objective(partial.batches(), loss=partial.loss)
        there = unpack(pack(graph, objective, cloudpickle), cloudpickle)
        masks = partial.masks(graph)
        here, away = (
            {o.evaluation.mask: o.evaluation.loss for o in Serial(*job).evaluate(masks)}
            for job in ((graph, objective), there)
        )
        assert here == away
