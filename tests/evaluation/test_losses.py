"""Cross-entropy after temperature scaling."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from torch.nn import functional as F

import edgewise as ew
from edgewise.cli.job.sources import load_loss
from edgewise.evaluation.head import Head
from edgewise.evaluation.losses import LOSSES, METRICS, by_place


def drawn(seed: int, shape: tuple[int, ...], spread: float) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = spread * torch.randn(shape, generator=generator)
    labels = (logits + spread * torch.randn(shape, generator=generator)).argmax(1)
    return logits, labels


@given(st.integers(0, 10**6), st.sampled_from([0.01, 0.3, 3.0, 30.0]), st.booleans())
def test_the_scale_is_the_best_there_is(seed: int, spread: float, soft: bool) -> None:
    """Against a search over scales by SciPy; labels as indices and as probabilities."""
    logits, labels = drawn(seed, (200, 5), spread)
    targets = (3 * logits / spread).softmax(1) if soft else labels

    def loss(log: float) -> float:
        return float(F.cross_entropy(math.exp(log) * logits.double(), _double(targets)))

    found = minimize_scalar(loss, bounds=(math.log(0.01), math.log(100)), method="bounded")
    got = float(ew.calibrated_cross_entropy(logits, targets).mean())
    assert got == pytest.approx(found.fun, rel=1e-4, abs=1e-5)


def _double(targets: torch.Tensor) -> torch.Tensor:
    return targets.double() if targets.is_floating_point() else targets


@given(st.integers(0, 10**6), st.floats(0.2, 5))
def test_how_sure_a_network_is_does_not_count(seed: int, factor: float) -> None:
    logits, labels = drawn(seed, (150, 4), 1.0)
    first = ew.calibrated_cross_entropy(logits, labels)
    assert ew.calibrated_cross_entropy(factor * logits, labels) == pytest.approx(first, abs=1e-4)


def test_answers_that_are_no_better_than_chance_lose_what_chance_loses() -> None:
    logits = 50 * torch.randn(500, 10, generator=torch.Generator().manual_seed(0))
    labels = torch.randint(10, (500,), generator=torch.Generator().manual_seed(1))
    assert float(F.cross_entropy(logits, labels)) > 50
    assert float(ew.calibrated_cross_entropy(logits, labels).mean()) < math.log(10) + 0.5


def test_maps_and_sequences_have_a_value_an_example() -> None:
    logits, labels = drawn(0, (6, 4, 5, 3), 1.0)
    each = ew.calibrated_cross_entropy(logits, labels)
    assert each.shape == (6,)
    flat = logits.movedim(1, -1).reshape(-1, 4)
    whole = ew.calibrated_cross_entropy(flat, labels.flatten())
    assert each == pytest.approx(whole.reshape(6, -1).mean(1), abs=1e-5)


def test_equal_logits_are_no_accident() -> None:
    each = ew.calibrated_cross_entropy(torch.ones(3, 4), torch.tensor([0, 1, 2]))
    assert each == pytest.approx(torch.full((3,), math.log(4)), abs=1e-6)


def test_logits_may_be_computed_where_they_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """In parts that end within an example; what one measure gives does not depend on others."""
    monkeypatch.setattr("edgewise.evaluation.head.PLACES", 8)
    monkeypatch.setattr("edgewise.evaluation.losses.FEW", 3 * 11)
    torch.manual_seed(0)
    layer, x, y = torch.nn.Linear(5, 11), torch.randn(4, 7, 5), torch.randint(11, (4, 7))
    y[0, 3:], y[2, 0] = -100, -100
    with torch.no_grad():
        logits, head = layer(x), Head(x, layer, 11)
        ((_, answer),) = ew.imitated(torch.nn.Linear(5, 11), [(x, y)], most=3)
        nats = F.cross_entropy(logits.mT, y, reduction="none").sum(1) / (y != -100).sum(1)
        for outputs in (logits, {"logits": head}):
            found = by_place([LOSSES["perplexity"], METRICS["next_token"]], outputs, y)
            torch.testing.assert_close(found[0], nats)
            right = (logits.argmax(-1) == y).sum(1) / (y != -100).sum(1)
            torch.testing.assert_close(found[1], right)
            alike, *beside = by_place(
                [LOSSES["likeness"], LOSSES["perplexity"], METRICS["next_token"]], outputs, answer
            )
            torch.testing.assert_close(alike, LOSSES["likeness"](logits, answer))
            torch.testing.assert_close(beside, found)  # of the text that the answers are to


def test_a_job_names_it() -> None:
    logits, labels = drawn(0, (50, 4), 1.0)
    found = load_loss("calibrated_cross_entropy")(logits, labels)
    assert torch.equal(found, ew.calibrated_cross_entropy(logits, labels))
