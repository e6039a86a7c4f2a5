"""A search that ends when nothing better is expected."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import edgewise as ew
import jobs
from edgewise.errors import EdgewiseError
from edgewise.evaluation.records import Evaluation, Progress
from edgewise.search import Ask, Patience, Space, answered, search
from edgewise.search.stopping import expected_improvement, hopeless, paired_error
from zoo import build

LIMIT = 44


class Known:
    """A surrogate that knows the loss: a sum over units, with the same deviation everywhere."""

    link = "identity"

    def __init__(self, weights: np.ndarray, deviation: float) -> None:
        self.weights, self.deviation = weights, deviation

    def predict(self, X: np.ndarray, return_std: bool = False):
        mean = 1.0 + X @ self.weights
        return (mean, np.full(len(X), self.deviation)) if return_std else mean

    predict_link = predict


@given(st.floats(-3, 3), st.floats(0.01, 3))
def test_expected_improvement_is_the_mean_of_improvements(mean: float, std: float) -> None:
    draws = mean + std * np.random.default_rng(0).normal(size=200_000)
    expected = np.maximum(0.5 - draws, 0.0).mean()
    found = expected_improvement(np.array([mean]), np.array([std]), 0.5)[0]
    assert found == pytest.approx(expected, abs=0.02 * std)


def test_the_error_is_that_of_paired_differences() -> None:
    rng = np.random.default_rng(0)
    common = 10 * rng.normal(size=400)
    noise = rng.normal(size=(3, 400))
    each = [common, *(common + n for n in noise)]
    assert paired_error(each) == pytest.approx(np.median(noise.std(1, ddof=1)) / 20)
    assert paired_error(each) < 0.2 * common.std() / 20


def asked(space: Space, model: Known, patience: Patience | None) -> list[Evaluation]:
    steps = search(space, lambda *_: model, seed=0, limit=LIMIT, patience=patience)

    def answer(ask: Ask) -> list[Evaluation]:
        losses = model.predict(space.graph.matrix(ask.masks))
        return [
            Evaluation(str(m), "search", float(v), samples=8, origin=ask.origin)
            for m, v in zip(ask.masks, losses, strict=True)
        ]

    return answered(steps, answer)


def test_the_more_patience_the_longer_and_the_start_is_the_same() -> None:
    model, args = build("residual")
    graph = ew.trace(model, args, granularity=("edge", "layer", "hidden"), slices=3)
    space = Space(graph, ew.Budget(macs=0.7))
    weights = np.random.default_rng(1).random(len(graph.units))
    sure, doubtful = Known(weights, 1e-6), Known(weights, 10.0)
    whole = asked(space, sure, None)
    runs = [asked(space, sure, Patience(rounds, lambda _: 0.01)) for rounds in (1, 2, 4)]
    lengths = [len(run) for run in (*runs, whole)]
    assert lengths == sorted(set(lengths))
    for run in runs:
        assert run == whole[: len(run)]
    patient = Patience(1, lambda _: 0.01)
    assert asked(space, doubtful, patient) == asked(space, doubtful, None)


def test_noise_is_asked_of_the_best_masks_first(branches: ew.Graph) -> None:
    space, model = Space(branches, ew.Budget(macs=0.9)), Known(np.arange(1.0, 7.0), 0.1)
    masks = [m for u in range(6) if space.allows(m := branches.mask([u]))]
    known = {m: Evaluation(str(m), "search", float(i)) for i, m in enumerate(masks[::-1])}
    seen: list[Sequence[ew.Mask]] = []

    def noise(given: Sequence[ew.Mask]) -> float:
        seen.append(given)
        return 1e9

    assert hopeless(space, model, known, masks, noise)
    losses = [known[m].loss or 0.0 for m in seen[0]]
    assert len(losses) > 1
    assert all(a < b for a, b in pairwise(losses))
    assert not hopeless(space, model, known, masks, lambda _: 0.0)
    assert hopeless(space, model, known, [], lambda _: 0.0)


def test_a_patient_run_is_the_start_of_a_whole_one_and_resumes(tmp_path: Path) -> None:
    def run(patience: int | None, url: str | None = None, stop: int = 0) -> list[str]:
        def interrupt(progress: Progress) -> None:
            if progress.done == stop:
                raise KeyboardInterrupt

        study = ew.Study(*jobs.make(), url)
        try:
            study.run(LIMIT, jobs.BUDGET, patience=patience, progress=interrupt)
        except KeyboardInterrupt:
            return run(patience, url)
        return sorted(e.mask for e in study.evaluations)

    whole, short = run(None), run(1)
    assert set(short) < set(whole)
    assert run(1, f"sqlite:///{tmp_path / 'study.db'}", stop=len(short) - 3) == short


def test_patience_needs_losses_of_examples() -> None:
    study = ew.Study(*jobs.make(lambda o, t: jobs.losses(o, t).mean()))
    with pytest.raises(EdgewiseError, match="No losses of single examples are stored"):
        study.run(LIMIT, jobs.BUDGET, patience=1)


@pytest.mark.parametrize("patience", [0, -1, 1.5, True])
def test_patience_that_is_none_is_refused(patience: object) -> None:
    with pytest.raises(EdgewiseError, match="patience must be a whole number of at least 1"):
        ew.Study(*jobs.make()).run(8, jobs.BUDGET, patience=patience)  # type: ignore[arg-type]
