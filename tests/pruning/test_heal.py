"""Healing lowers the loss, leaves its input alone, and stops where the loss does."""

import copy

import pytest
import torch
from torch.nn import functional as F

import edgewise as ew
import jobs
from edgewise.errors import EdgewiseError, EdgewiseWarning, ObjectiveError
from edgewise.pruning.distillation import teacher_loss
from edgewise.pruning.heal import _value
from zoo import build


@pytest.fixture
def case():
    graph, objective = jobs.make()
    model, _ = build("residual")
    small = ew.prune(graph, graph.mask([0, 8]))
    batches = [(x[0], y) for x, y in objective.splits["search"]]
    return model, small, batches


def score(model, batches):
    with torch.no_grad():
        return float(torch.cat([jobs.losses(model(x), y) for x, y in batches]).mean())


def test_healing_lowers_the_loss(case) -> None:
    model, small, batches = case
    before = {k: v.clone() for k, v in small.state_dict().items()}
    weights = {k: v.clone() for k, v in model.state_dict().items()}
    steps = []
    healed = ew.heal(
        small, batches, teacher=model, settings=ew.Healing(epochs=8, lr=0.05),
        progress=lambda *a: steps.append(a),
    )  # fmt: skip
    assert score(healed, batches) < score(small.eval(), batches)
    assert all(torch.equal(v, before[k]) for k, v in small.state_dict().items())
    assert all(torch.equal(v, weights[k]) for k, v in model.state_dict().items())
    assert [s[:2] for s in steps] == [(i + 1, 16) for i in range(16)]


def test_the_loss_that_is_told_is_the_mean_of_the_epoch(case) -> None:
    _, small, batches = case
    values, told = [], []

    def loss(outputs, targets):
        values.append(jobs.losses(outputs, targets).mean())
        return values[-1]

    settings = ew.Healing(epochs=2, distill=0)
    ew.heal(small, batches, loss=loss, settings=settings, progress=lambda *s: told.append(s[2]))
    one, two, three, four = (v.item() for v in values)
    assert told == pytest.approx([one, (one + two) / 2, three, (three + four) / 2])


def test_validation_keeps_the_best_epoch(case) -> None:
    _, small, batches = case
    scores = iter([1.0, 0.5, 2.0, 3.0])
    seen = []

    def validate(model):
        seen.append({k: v.clone() for k, v in model.state_dict().items()})
        return next(scores)

    healed = ew.heal(small, batches, settings=ew.Healing(epochs=3), validate=validate)
    assert all(torch.equal(v, seen[1][k]) for k, v in healed.state_dict().items())


def test_healing_that_only_harms_says_so(case) -> None:
    _, small, batches = case
    scores = iter([0.5, 1.0, 2.0])
    with pytest.warns(ew.errors.EdgewiseWarning, match="None of 2 epochs has a lower"):
        healed = ew.heal(small, batches, settings=ew.Healing(epochs=2),
                         validate=lambda model: next(scores))  # fmt: skip
    assert all(torch.equal(v, small.state_dict()[k]) for k, v in healed.state_dict().items())


@pytest.mark.parametrize("shape", [(2, 5), (2, 7, 5), (2, 5, 3, 4)])
def test_the_teacher_is_followed_decision_by_decision(shape: tuple[int, ...]) -> None:
    """Soft targets are those of one decision: a pixel's or a token's, not of a row of them."""
    torch.manual_seed(0)
    one, two = torch.randn(shape, dtype=torch.float64), torch.randn(shape, dtype=torch.float64)
    settings = ew.Healing(distill=1.0, temperature=2.0)
    found = _value(lambda x: x, lambda x: two, one, None, lambda *_: torch.zeros(1), settings)
    axis = 1 if len(shape) == 4 else -1
    wanted, given = ((v.movedim(axis, -1).reshape(-1, 5) / 2).softmax(-1) for v in (two, one))
    expected = 4 * (wanted * (wanted.log() - given.log())).sum(-1).mean()
    torch.testing.assert_close(found, expected)


def test_a_loss_that_explodes_stops_with_the_best_so_far(case) -> None:
    _, small, batches = case
    calls = []

    def explode(outputs, targets):
        calls.append(1)
        return jobs.losses(outputs, targets) * (float("nan") if len(calls) == 3 else 1.0)

    with pytest.warns(EdgewiseWarning, match="stopped in epoch 2, step 3: the loss is nan"):
        healed = ew.heal(small, batches, loss=explode, settings=ew.Healing(epochs=4))
    assert all(torch.isfinite(p).all() for p in healed.parameters())


def test_bad_input_is_explained(case) -> None:
    _, small, batches = case
    with pytest.raises(ObjectiveError, match="training loader is empty"):
        ew.heal(small, [])
    other = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 3))
    shapes = r"another shape \(\[\d+, 3\]\) than the model's \(\[\d+, \d+\]\).*distill=0"
    with pytest.raises(ObjectiveError, match=shapes):
        ew.heal(small, batches, teacher=other)


def test_a_teacher_without_logits_is_not_said_to_have_another_shape(case) -> None:
    model, small, batches = case
    teacher = copy.deepcopy(model)
    teacher.register_forward_hook(lambda module, given, out: {"answers": out})
    with pytest.raises(ObjectiveError, match=r"the teacher a dict\. Heal without it"):
        ew.heal(small, batches, teacher=teacher)


def test_a_teacher_teaches_logits_by_name_where_there_are_labels() -> None:
    z, wanted = torch.randn(2, 5, 7), torch.randn(2, 5, 7)
    labels = torch.randint(7, (2, 5))
    labels[0, 3:], labels[1, 0] = -100, -100
    some = teacher_loss(z[labels != -100], wanted[labels != -100], 2.0)
    assert torch.isclose(teacher_loss({"logits": z}, {"logits": wanted}, 2.0, labels), some)
    assert not torch.isclose(teacher_loss(z, wanted, 2.0), some)


@pytest.mark.parametrize("cut", [slice(0, 7), slice(0, 4), slice(0, 1)])
def test_unequal_numbers_are_said_before_a_step(case, cut: slice) -> None:
    _, small, batches = case
    (x, y), steps = batches[0], []
    said = rf"has {len(x)} inputs.* but {len(y[cut])} targets"
    with pytest.raises(ObjectiveError, match=said):
        ew.heal(small, [(x, y[cut])], progress=lambda *step: steps.append(step))
    assert not steps


def test_flattened_targets_are_allowed(case) -> None:
    _, small, batches = case
    flat = [(x, y.repeat_interleave(2)) for x, y in batches]
    settings = ew.Healing(epochs=1)
    healed = ew.heal(
        small,
        flat,
        settings=settings,
        loss=lambda out, y: F.cross_entropy(out, y.view(-1, 2)[:, 0]),
    )
    plain = ew.heal(small, batches, settings=settings)
    for one, other in zip(healed.parameters(), plain.parameters(), strict=True):
        assert torch.equal(one, other)


class Epochs(list):
    """Batches in an order that depends on the epoch alone."""

    epoch = 0

    def set_epoch(self, epoch):
        self.epoch = epoch

    def __iter__(self):
        return iter([self[(i + self.epoch) % len(self)] for i in range(len(self))])


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_an_interrupted_healing_ends_as_one_that_was_not(case, tmp_path, optimizer) -> None:
    model, small, batches = case
    settings = ew.Healing(epochs=4, lr=0.01, optimizer=optimizer)
    options = {"teacher": model, "settings": settings, "validate": lambda m: score(m, batches)}
    whole = ew.heal(small, Epochs(batches), **options)
    path = tmp_path / "heal.checkpoint"

    def stop(step, steps, loss):
        if step == 5:  # in the third of four epochs of two steps
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ew.heal(small, Epochs(batches), checkpoint=path, progress=stop, **options)
    seen = []
    again = ew.heal(small, Epochs(batches), checkpoint=path,
                    progress=lambda step, *_: seen.append(step), **options)  # fmt: skip
    assert seen == [5, 6, 7, 8]
    assert all(torch.equal(v, again.state_dict()[k]) for k, v in whole.state_dict().items())
    done = ew.heal(small, Epochs(batches), checkpoint=path, **options)
    assert all(torch.equal(v, done.state_dict()[k]) for k, v in whole.state_dict().items())


def test_a_checkpoint_of_something_else_is_refused(case, tmp_path) -> None:
    _, small, batches = case
    path = tmp_path / "heal.checkpoint"
    ew.heal(small, batches, settings=ew.Healing(epochs=1), checkpoint=path)
    with pytest.raises(EdgewiseError, match="another model or to other settings"):
        ew.heal(small, batches, settings=ew.Healing(epochs=2), checkpoint=path)
    path.write_bytes(b"not a checkpoint")
    with pytest.raises(EdgewiseError, match="no checkpoint of a healing"):
        ew.heal(small, batches, settings=ew.Healing(epochs=1), checkpoint=path)


def test_patience_ends_it_early(case) -> None:
    _, small, batches = case
    scores = iter([1.0, 0.5, 2.0, 3.0])  # running out of them would raise StopIteration
    ew.heal(small, batches, settings=ew.Healing(epochs=9, patience=2),
            validate=lambda model: next(scores))  # fmt: skip
    assert next(scores, None) is None


def test_an_unknown_optimizer_is_refused(case) -> None:
    _, small, batches = case
    with pytest.raises(EdgewiseError, match='"sgd" or "adamw", got \'adam\''):
        ew.heal(small, batches, settings=ew.Healing(optimizer="adam"))


def test_accelerate_heals_too(case, tmp_path) -> None:
    accelerate = pytest.importorskip("accelerate")
    model, small, batches = case
    options = {"teacher": model, "settings": ew.Healing(epochs=2, lr=0.05)}
    data = torch.utils.data.DataLoader(
        [(x, y) for xs, ys in batches for x, y in zip(xs, ys, strict=True)], batch_size=16
    )
    plain = ew.heal(small, data, **options)
    full = ew.heal(small, data, accelerator=accelerate.Accelerator(cpu=True), **options)
    for name, value in plain.state_dict().items():
        assert torch.allclose(value, full.state_dict()[name], atol=1e-6)
    accelerate.state.AcceleratorState._reset_state(reset_partial_state=True)
    half = accelerate.Accelerator(cpu=True, mixed_precision="bf16")
    healed = ew.heal(small, data, accelerator=half, checkpoint=tmp_path / "heal.pt", **options)
    assert score(healed, batches) < score(small.eval(), batches)
    assert any(not torch.equal(v, plain.state_dict()[k]) for k, v in healed.state_dict().items())
    accelerate.state.AcceleratorState._reset_state(reset_partial_state=True)
