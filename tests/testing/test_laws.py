"""Laws 1 to 4 and 8 on every model of the zoo, for random valid masks.

All laws in float64, with widths, are in test_widths.py, law 9 in test_module_form.py.
"""

import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import edgewise as ew
from edgewise.testing import laws
from zoo import ZOO, build, traced

ELSEWHERE = (laws.law_lives_on, laws.law_own_class)


@pytest.mark.parametrize("name", ZOO)
def test_nothing_removed_changes_nothing(name: str) -> None:
    laws.law_nothing_removed(build(name)[0], traced(name))


@pytest.mark.parametrize(
    "law", [law for law in laws.MASK_LAWS if law not in ELSEWHERE], ids=lambda law: law.__name__
)
@pytest.mark.parametrize("name", ZOO)
@settings(max_examples=3)  # more of them in test_fuzz.py
@given(seed=st.integers(0, 10**6))
def test_laws_hold(name: str, law, seed: int) -> None:
    graph = traced(name)
    law(graph, laws.random_mask(graph, random.Random(seed)))


@pytest.mark.filterwarnings("error")
def test_counting_macs_says_nothing_of_tf32() -> None:
    model, args = build("residual")
    assert laws.count_macs(model, args) > 0


def test_the_laws_can_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    """A rewrite that forgets to drop input channels, or a cost that forgets a layer, is caught."""
    graph = traced("residual")
    mask = graph.mask([0])
    other = graph.mask([4])
    rewritten = laws.rewritten
    monkeypatch.setattr(laws, "rewritten", lambda g, m, t: rewritten(g, other, t))
    with pytest.raises(AssertionError, match="differ"):
        laws.law_pruned_is_masked(graph, mask)
    with pytest.raises(AssertionError, match="expected"):
        laws.law_cost_is_exact(graph, graph.empty)


LARGE = (
    "vgg16_bn", "densenet121", "resnet50", "efficientnet_b0", "resnext50_32x4d", "convnext_tiny"
)  # fmt: skip
VISION = {
    "resnet18": 64,
    "resnet50": 64,
    "resnext50_32x4d": 64,
    "vgg16_bn": 32,
    "mobilenet_v3_small": 64,
    "densenet121": 64,
    "efficientnet_b0": 64,
    "convnext_tiny": 32,
}


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] * (n in LARGE)) for n in VISION]
)
def test_torchvision(name: str) -> None:
    """Laws 1, 2 and 3 on torchvision's models with random weights, widths among their units."""
    torchvision = pytest.importorskip("torchvision")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = getattr(torchvision.models, name)(weights=None).eval()
        x = torch.randn(2, 3, VISION[name], VISION[name])
    graph = ew.trace(model, (x,), granularity=("edge", "layer", "hidden", "channels"))
    laws.law_nothing_removed(model, graph)
    rng = random.Random(0)
    for _ in range(2):
        some = rng.sample(range(len(graph.units)), min(24, len(graph.units)))
        mask = graph.empty
        for unit in some:
            more = mask.with_removed(unit)
            mask = more if ew.liveness(graph, more).connected else mask
        worst, allowed = laws.compare(
            ew.masked(graph, mask), laws.rewritten(graph, mask, {}), graph.program.args
        )
        assert worst <= allowed
        laws.law_cost_is_exact(graph, mask)
