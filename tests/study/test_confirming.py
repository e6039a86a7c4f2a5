"""A stored study never answers for another network or another loss."""

from __future__ import annotations

import json
import math
import shutil
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import sqlalchemy as sa
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

import edgewise as ew
from edgewise.errors import PlanError, StorageError
from edgewise.graph.units import with_units
from edgewise.study.provenance import identity
from edgewise.study.storage.storage import Storage
from edgewise.values import identity as identities
from stored import network

STORED = Path(__file__).parents[1] / "stored"
X, Y = network.examples(0, 24)
OLD = ["before_settings", "before_packages"]  # in the order in which they were written
CHOSEN = "1000000100001000"  # by both


class Net(nn.Module):
    """Whose every setting can be changed while its weights stay."""

    def __init__(
        self, slope=0.1, dilation=1, mode="zeros", eps=1e-5, window=3, scale=1.0, shift=0.0
    ):
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.a = nn.Conv2d(6, 6, 3, padding=dilation, dilation=dilation, padding_mode=mode)
        self.norm, self.act = nn.BatchNorm2d(6, eps=eps), nn.LeakyReLU(slope)
        self.b = nn.Conv2d(6, 6, 3, padding=1)
        self.pool = nn.AvgPool2d(window, 1, window // 2)
        self.head, self.scale = nn.Linear(6, 4), scale
        self.register_buffer("shift", torch.full((1,), shift), persistent=False)

    def forward(self, x):
        x = self.stem(x)
        x = x + self.act(self.norm(self.a(x))) * self.scale
        x = x + self.pool(F.relu(self.b(x))) + self.shift
        return self.head(x.mean((2, 3)))


def net(**settings) -> nn.Module:
    """The same weights whatever the settings."""
    made, generator = Net(**settings), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.4)
    return made


class Hooked(nn.Module):
    def __init__(self, amount: float, pre: bool) -> None:
        super().__init__()
        self.net = net()
        if pre:
            self.net.a.register_forward_pre_hook(lambda module, args: (args[0] * amount,))
        else:
            self.net.act.register_forward_hook(lambda module, args, out: out * amount)

    def forward(self, x):
        return self.net(x)


SETTINGS = {
    "slope": (0.1, 0.5), "dilation": (1, 2), "mode": ("zeros", "circular"), "eps": (1e-5, 1.0),
    "window": (3, 5), "scale": (1.0, 3.0), "shift": (0.0, 1.0),
}  # fmt: skip


def each(out, target):
    return F.cross_entropy(out, target, reduction="none")


def study(model: nn.Module, url: str | None, loss: Callable = each, **options) -> ew.Study:
    graph = ew.trace(model, (X[:2],), granularity="edge")
    return ew.Study(graph, ew.Objective([(X, Y)], loss, **options), url)


def begun(model: nn.Module, folder: Path, loss: Callable = each) -> str:
    url = f"sqlite:///{folder / 'study.db'}"
    first = study(model, url, loss)
    first.evaluate([first.graph.empty, first.graph.mask([0])])
    return url


@pytest.mark.parametrize("name", SETTINGS)
def test_another_setting_is_another_network(tmp_path: Path, name: str) -> None:
    one, other = SETTINGS[name]
    url = begun(net(**{name: one}), tmp_path)
    with pytest.raises(StorageError, match=r"made with (another graph|other weights) \(\w+ was "):
        study(net(**{name: other}), url)
    assert len(study(net(**{name: one}), url).evaluations) == 2


@pytest.mark.parametrize("pre", [True, False])
def test_another_hook_is_another_network(tmp_path: Path, pre: bool) -> None:
    url = begun(Hooked(1.0, pre), tmp_path)
    study(Hooked(1.0, pre), url)
    with pytest.raises(StorageError, match="another graph"):
        study(Hooked(2.0, pre), url)


@pytest.mark.parametrize("name", SETTINGS)
def test_what_no_identity_knows_is_measured(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = SETTINGS[name]
    url = begun(net(**{name: one}), tmp_path)
    monkeypatch.setattr(identities.Identity, "changes", lambda *_: {})
    with pytest.raises(StorageError, match=r"holds a loss of [\d.]+, and measured again it is"):
        study(net(**{name: other}), url)
    assert len(study(net(**{name: one}), url).evaluations) == 2


@settings(max_examples=10)
@given(st.fixed_dictionaries({n: st.sampled_from(v) for n, v in SETTINGS.items()}),
       st.fixed_dictionaries({n: st.sampled_from(v) for n, v in SETTINGS.items()}))  # fmt: skip
def test_networks_that_differ_anywhere_have_two_identities(one: dict, other: dict) -> None:
    first, second = (study(net(**given), None) for given in (one, other))
    found = [identities.Identity.read(_identity(s)) for s in (first, second)]
    assert (found[0] == found[1]) == (one == other)


def _identity(study: ew.Study) -> str:
    query = sa.text("select identity from studies")
    return str(study.storage.database.read(lambda connection: connection.execute(query).scalar()))


def powered(power, factors, smoothing):
    def helper(value):
        return value.pow(power)

    def loss(out, target, smoothing=smoothing):
        found = F.cross_entropy(out, target, label_smoothing=smoothing, reduction="none")
        return helper(found) * factors[target]

    return loss


class Focal(nn.Module):
    def __init__(self, power, factors, smoothing):
        super().__init__()
        self.power, self.smoothing = power, smoothing
        self.register_buffer("factors", factors, persistent=False)

    def forward(self, out, target):
        return powered(self.power, self.factors, self.smoothing)(out, target)


def bound(power, factors, smoothing):
    return partial(Focal(power, factors, smoothing).forward)


LOSS = st.tuples(
    st.sampled_from([1.0, 2.0]),
    st.sampled_from([(1.0, 1.0, 1.0, 1.0), (1.0, 9.0, 1.0, 9.0)]).map(torch.tensor),
    st.sampled_from([0.0, 0.3]),
)


@settings(max_examples=40)
@given(st.sampled_from([powered, Focal, bound]), LOSS, LOSS)
def test_losses_that_differ_anywhere_are_two_objectives(make, one, other) -> None:
    first, second = (ew.Objective([(X, Y)], make(*given)).fingerprint for given in (one, other))
    alike = all(
        torch.as_tensor(a).equal(torch.as_tensor(b)) for a, b in zip(one, other, strict=True)
    )
    assert (first == second) == alike


def test_a_loss_that_notes_what_it_does_stays_the_same_objective(tmp_path: Path) -> None:
    notes: list[float] = []

    def noting(out, target):
        notes.append(float(out.mean()))
        return each(out, target)

    model, url = net(), f"sqlite:///{tmp_path / 'study.db'}"
    graph, objective = ew.trace(model, (X[:2],), granularity="edge"), ew.Objective([(X, Y)], noting)
    ew.Study(graph, objective, url).evaluate([graph.empty])
    assert ew.Study(graph, objective, url).evaluations
    assert notes


def test_a_loss_that_draws_is_told_so(tmp_path: Path) -> None:
    def drawing(out, target):
        return each(out, target) * torch.rand(len(out))

    url = begun(net(), tmp_path, drawing)
    with pytest.raises(StorageError, match="draws random numbers differs every time"):
        study(net(), url, drawing)


def test_a_metric_is_measured_again_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"sqlite:///{tmp_path / 'study.db'}"
    monkeypatch.setattr(identities.Identity, "changes", lambda *_: {})
    first = study(net(), url, metrics={"size": lambda out, _: out.square().mean()})
    first.evaluate([first.graph.empty])
    with pytest.raises(StorageError, match=r"it holds size [\d.]+, and measured again it is"):
        study(net(), url, metrics={"size": lambda out, _: out.square().mean() * 2})


def test_masks_of_another_length_are_damage(tmp_path: Path) -> None:
    url = begun(net(), tmp_path)
    model = study(net(), url)
    change = sa.text("update evaluations set mask = '0'||mask")
    model.storage.database.write(lambda connection: connection.execute(change))
    with pytest.raises(StorageError, match="is damaged: its masks have"):
        study(net(), url)


def test_a_loss_that_fails_now_is_refused_with_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = begun(net(), tmp_path)
    monkeypatch.setattr(identities.Identity, "changes", lambda *_: {})
    with pytest.raises(StorageError, match="now there is none: ZeroDivisionError"):
        study(net(), url, lambda out, target: 1 / 0)


@pytest.mark.parametrize("version", OLD)
def test_a_study_of_an_older_version_goes_on(tmp_path: Path, version: str) -> None:
    shutil.copy(STORED / version / "study.sqlite", tmp_path)
    url = f"sqlite:///{tmp_path / 'study.sqlite'}"
    graph = network.graph()
    same_python = version != "before_settings" and sys.version_info[:2] == (3, 11)
    own = identity(graph, network.objective())
    assert Storage(url, "stored", own).unproven != same_python
    again = ew.Study(graph, network.objective(), url, "stored")
    search = again.evaluations
    again.run(evaluations=24, budget=ew.Budget(macs=0.6), seed=3, surrogate="Degree2")
    plan = again.plan()
    assert search == [e for e in again.evaluations if e.split == "search"][: len(search)]
    assert plan.bits == CHOSEN
    known = identities.Identity.read(_identity(again))
    assert known.digests  # it is told apart by them from now on
    few = with_units(graph, ("branch", "hidden"), slices=3)
    with pytest.raises(PlanError, match=r"with granularity=\('edge', 'hidden'\)\."):
        ew.prune(few, plan)


@pytest.mark.parametrize("split", ["search", "verify", "report"])
def test_a_study_of_an_older_version_does_not_answer_for_others(tmp_path: Path, split) -> None:
    shutil.copy(STORED / "before_settings" / "study.sqlite", tmp_path)
    url = f"sqlite:///{tmp_path / 'study.sqlite'}"
    graph, objective = network.graph(), network.objective()
    first = ew.Study(graph, objective, url, "stored")
    first.plan()
    old = {"text": json.dumps({"graph": graph.structure, "weights": "w", "objective": "o"})}
    update = sa.text("update studies set identity = :text")
    first.storage.database.write(lambda connection: connection.execute(update, old))
    splits = {name: objective.splits[name] for name in ("search", "verify", "report")}
    x, y = splits[split][0]
    splits[split] = [(x, (y + 1) % 4)]
    other = ew.Objective(
        splits["search"], objective.loss, objective.metrics, objective.recovery,
        splits["verify"], splits["report"],
    )  # fmt: skip
    with pytest.raises(StorageError, match=f"on the {split} split .* measured again it is"):
        ew.Study(graph, other, url, "stored")


@pytest.mark.parametrize("version", OLD)
def test_a_study_of_other_units_says_what_to_write(tmp_path: Path, version: str) -> None:
    shutil.copy(STORED / version / "study.sqlite", tmp_path)
    graph = network.graph()
    few = with_units(graph, ("branch", "hidden"), slices=3)
    words = r'was made with (other units|another graph)\..* needs granularity=\("edge", "layer"\)'
    with pytest.raises(StorageError, match=words):
        ew.Study(few, network.objective(), f"sqlite:///{tmp_path / 'study.sqlite'}", "stored")


def test_load_names_the_setting_that_differs(tmp_path: Path) -> None:
    first = study(net(), None)
    first.run(evaluations=6, budget=ew.Budget(macs=0.9))
    plan = ew.Plan.load(first.plan().save(tmp_path / "plan.json"))
    weights = ew.save(ew.prune(first.graph, plan), tmp_path / "small.safetensors")
    for name, (one, other) in SETTINGS.items():
        ew.load(lambda name=name, same=one: net(**{name: same}), plan, weights)
        with pytest.raises(PlanError, match=r"another network.* was .* and is "):
            ew.load(lambda name=name, changed=other: net(**{name: changed}), plan, weights)


def test_a_factory_in_another_precision_loads(tmp_path: Path) -> None:
    first = study(net(shift=math.pi), None)
    first.run(evaluations=6, budget=ew.Budget(macs=0.9))
    plan = first.plan()
    weights = ew.save(ew.prune(first.graph, plan).half(), tmp_path / "small.safetensors")
    small = ew.load(lambda: net(shift=math.pi).half(), plan, weights, example=(X[:2].half(),))
    assert small(X.half()).isfinite().all()
