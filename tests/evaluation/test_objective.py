"""Objectives: what they refuse, what they average."""

import functools
import weakref

import pytest
import torch
from torch.nn import functional as F

import edgewise as ew
from edgewise.errors import ObjectiveError

X, Y = torch.randn(6, 4), torch.tensor([0, 1, 2, 0, 1, 2])


def test_pairs_of_tensors_are_both_inputs_of_a_model_that_takes_two() -> None:
    pairs = [(X, Y), ((X, Y), Y), {"a": X, "b": Y}]
    objective = ew.Objective(
        [((X, Y), Y)], F.cross_entropy, recovery=ew.Recovery("batchnorm", pairs)
    )
    assert objective.placed(("a", "b")).recovery.batches == ((X, Y),) * 3
    alone = ew.Objective([(X, Y)], F.cross_entropy, recovery=ew.Recovery("batchnorm", pairs[:1]))
    assert alone.placed(("a",)).recovery.batches == ((X,),)


def test_means_weigh_batches_by_size() -> None:
    objective = ew.Objective([(X[:4], Y[:4]), (X[4:], Y[4:])], loss=F.cross_entropy)
    out = [X[:4, :3], X[4:, :3]]
    measured = objective.measure(out, "search")
    assert measured.loss == pytest.approx(float(F.cross_entropy(X[:, :3], Y)))
    assert measured.each is None


def test_outputs_of_a_model_are_measured_batch_by_batch() -> None:
    made: list[weakref.ref[torch.Tensor]] = []

    class Three(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            assert sum(known() is not None for known in made) <= 1  # logits of all take gigabytes
            out = x[:, :3] + 0
            made.append(weakref.ref(out))
            return out

    rows = [(X[i : i + 1], Y[i : i + 1]) for i in range(6)]
    found = ew.Objective(rows, F.cross_entropy).score(Three(), "search")
    assert found.loss == pytest.approx(float(F.cross_entropy(X[:, :3], Y)))


def test_losses_of_every_example_are_kept() -> None:
    each = lambda o, t: F.cross_entropy(o, t, reduction="none")  # noqa: E731
    objective = ew.Objective([(X[:4], Y[:4]), (X[4:], Y[4:])], loss=each)
    measured = objective.measure([X[:4, :3], X[4:, :3]], "search")
    assert measured.each is not None
    assert measured.loss == pytest.approx(float(measured.each.mean()))
    assert "each" not in repr(measured)  # hundreds of numbers hide the loss


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ew.Objective([], loss=F.cross_entropy), "search loader is empty"),
        (lambda: ew.Objective([(X, Y)], loss=F.cross_entropy, report=[]), "report loader is empty"),
        (lambda: ew.Objective([X], loss=F.cross_entropy), r"must give \(inputs, targets\) pairs"),
        (lambda: ew.Recovery("batchnorm"), "needs calibration data"),
        (lambda: ew.Recovery("batchnorm", []), "calibration loader is empty"),
        (lambda: ew.Recovery("linear"), "needs calibration data"),
        (lambda: ew.Recovery("linear", [X]), "have 6 examples. Give it at least 32"),
        (lambda: ew.Recovery("quadratic"), "Recovery is one of"),
    ],
)
def test_bad_objectives_are_refused(make, message: str) -> None:
    with pytest.raises(ObjectiveError, match=message):
        make()


def test_text_counts_by_its_tokens() -> None:
    ids = torch.zeros(2, 16, dtype=torch.int64)
    assert ew.Recovery("linear", [{"input_ids": ids}]).kind == "linear"
    for few in (ids[:, :15], ids[:1].repeat(1, 9)):  # no other sequence to choose a ridge by
        with pytest.raises(ObjectiveError, match="as many tokens"):
            ew.Recovery("linear", [{"input_ids": few}])


def test_a_loss_of_another_shape_is_refused() -> None:
    objective = ew.Objective([(X, Y)], loss=lambda o, t: o)
    with pytest.raises(
        ObjectiveError, match=r"must give a scalar or one value an example \(\[6\]\)"
    ):
        objective.measure([X], "search")


def test_the_fingerprint_knows_data_loss_and_recovery() -> None:
    base = ew.Objective([(X, Y)], loss=F.cross_entropy)
    same = ew.Objective([(X.clone(), Y)], loss=F.cross_entropy)
    assert base.fingerprint == same.fingerprint
    others = [
        ew.Objective([(X + 1, Y)], loss=F.cross_entropy),
        ew.Objective([(X, Y)], loss=F.nll_loss),
        ew.Objective([(X, Y)], loss=F.cross_entropy, recovery=ew.Recovery("batchnorm", [X])),
    ]
    assert len({base.fingerprint, *(o.fingerprint for o in others)}) == 4


def test_metrics_of_zeros_and_ones_are_counted() -> None:
    x = torch.tensor([0.0, 1.0, 1.0, 0.5])
    metrics = {
        "hit": lambda out, y: (out == y).float(),
        "half": lambda out, y: out,
        "mean": lambda out, y: (out == y).float().mean(),
    }
    batches = [(x[:3], torch.ones(3)), (x[3:], torch.ones(1))]
    objective = ew.Objective(batches, loss=lambda out, y: (out - y) ** 2, metrics=metrics)
    found = objective.measure([x[:3], x[3:]], "search")
    assert found.counts == {"hit": 2}
    assert found.metrics["hit"] == 0.5


def test_metrics_that_are_no_means_are_accumulated() -> None:
    torchmetrics = pytest.importorskip("torchmetrics")
    auc = torchmetrics.AUROC(task="binary")
    scores, labels = torch.rand(60), torch.tensor([0, 1] * 30)
    batches = [(scores[:20], labels[:20]), (scores[20:], labels[20:])]
    objective = ew.Objective(batches, loss=lambda o, t: o.mean(), metrics={"auc": auc})
    measured = objective.measure([scores[:20], scores[20:]], "search")
    pairs = [(a, b) for a in scores[labels == 1] for b in scores[labels == 0]]
    expected = sum(float(a > b) for a, b in pairs) / len(pairs)
    assert measured.metrics["auc"] == pytest.approx(expected)


def test_losses_that_compute_otherwise_are_other_objectives() -> None:
    def make(loss):
        return ew.Objective([(X, Y)], loss=loss).fingerprint

    partials = [functools.partial(F.cross_entropy, label_smoothing=s) for s in (0.0, 0.5)]
    modules = [torch.nn.CrossEntropyLoss(label_smoothing=s) for s in (0.0, 0.5)]
    lambdas = [lambda o, t: o.mean(), lambda o, t: o.square().mean()]
    prints = [make(loss) for loss in (*partials, *modules, *lambdas)]
    assert len(set(prints)) == 6
    assert make(functools.partial(F.cross_entropy, label_smoothing=0.5)) == prints[1]


def test_inputs_by_name_are_a_dict_in_any_order() -> None:
    batches = [({"mask": Y, "ids": X}, Y)]
    objective = ew.Objective(batches, F.cross_entropy, recovery=ew.Recovery("batchnorm", batches))
    placed = objective.placed(("ids", "mask"))
    assert placed.splits["search"][0][0] == (X, Y)
    assert placed.recovery.batches == ((X, Y),)
    by_place = ew.Objective([((X, Y), Y)], F.cross_entropy)
    assert by_place.placed(("ids", "mask")).fingerprint == by_place.fingerprint
    with pytest.raises(ObjectiveError, match="gives the inputs mask, ids; the traced"):
        objective.placed(("ids",))


def test_what_a_measure_writes_stays_with_it() -> None:
    def cleaning(out, target):
        missing = target == -100
        loss = F.cross_entropy(out, target.clamp(min=0), reduction="none").masked_fill(missing, 0.0)
        target[missing] = 0
        out.zero_()
        return loss

    targets = torch.tensor([0, -100, 2, -100, 1, 0])
    missing = {"missing": lambda out, y: (y == -100).float(), "sum": lambda out, y: out.sum()}
    objective = ew.Objective([(X, targets)], cleaning, metrics=missing)
    first, second = (objective.measure([X.clone()], "search") for _ in range(2))
    assert first.loss == second.loss
    assert first.counts == {"missing": 2}
    assert first.metrics["sum"] == pytest.approx(float(X.sum()))


def test_batches_count_by_their_inputs() -> None:
    flat = [(X[:4], torch.zeros(8)), (X[4:], torch.ones(12))]
    objective = ew.Objective(flat, lambda out, y: y.mean())
    assert objective.samples("search") == 6
    assert objective.measure([X[:4], X[4:]], "search").loss == pytest.approx(2 / 6)


@pytest.mark.parametrize("where", ["loader", "verify", "report"])
def test_an_empty_batch_is_named(where: str) -> None:
    splits = {"loader": [(X, Y)], where: [(X, Y), (X[:0], Y[:0])]}
    with pytest.raises(ObjectiveError, match=r"Batch 1 of the .* has no examples.*\[0, 4\]"):
        ew.Objective(loss=F.cross_entropy, **splits)
    with pytest.raises(ObjectiveError, match="Calibration batch 1 has no examples"):
        ew.Recovery("batchnorm", [X, X[:0]])


def test_data_without_values_are_refused() -> None:
    for given in ({"loader": [(X.to("meta"), Y)]}, {"loader": [(X, Y)], "verify": [(X[:0], Y)]}):
        with pytest.raises(ObjectiveError, match=r"no values to measure with|has no examples"):
            ew.Objective(loss=F.cross_entropy, **given)
    with pytest.raises(ObjectiveError, match="Calibration batch 0 is on the meta device"):
        ew.Recovery("batchnorm", [X.to("meta")])
